"""Each cause that rule ``first_ratio`` names, put into a training that is sound without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from esper_analyze.detector.rules.first_ratio import RULE
from esper_analyze.replay.evidence import gather
from esper_analyze.reports.narrative.story import frame
from esper_analyze.runs.run import open_run
from recorder import Recorder

SAMPLES, UPDATES, FAULTY = 64, 6, 3


class SequencePolicy(nn.Module):
    """A recurrent policy over sequences [T, 4] with what each cause needs: norm, dropout, masks, hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm1d(4), nn.Dropout(0.3)
        self.memory, self.out = nn.GRU(4, 8), nn.Linear(8, 3)
        self.moved = 0.0

    def forward(self, seen: Tensor, masks: Tensor, hidden: Tensor) -> Categorical:
        normalised: Tensor = self.norm(seen - self.moved)
        found, _ = self.memory(normalised[:, None], hidden[:, None])
        logits = self.out(self.dropout(found[:, 0]))
        return Categorical(logits=logits.masked_fill(~masks, -1e8))


class CausedTraining:
    """One policy and what it collected last; ``cause`` breaks the update ``FAULTY`` before its first minibatch."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.policy = SequencePolicy().eval()
        self.optimizer = torch.optim.SGD(self.policy.parameters(), lr=0.1)
        self.collect()

    def collect(self) -> None:
        self.seen = torch.randn(SAMPLES, 4)
        self.masks = torch.rand(SAMPLES, 3) < 0.7
        self.masks[:, 0] = True
        self.hidden = torch.randn(1, 8)
        with torch.no_grad():
            taken = self.policy(self.seen, self.masks, self.hidden)
            self.actions = taken.sample()
            self.old: Tensor = taken.log_prob(self.actions)

    def new(self) -> Tensor:
        found: Tensor = self.policy(self.seen, self.masks, self.hidden).log_prob(self.actions)
        return found

    def step(self, log_prob: Tensor) -> None:
        self.optimizer.zero_grad()
        (-log_prob.mean()).backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 10.0)
        self.optimizer.step()


def other_masks(training: CausedTraining) -> None:
    training.masks = torch.ones_like(training.masks)


def stale_log_probs(training: CausedTraining) -> None:
    """Steps are taken after the rollout was stored, before the update begins."""
    for _ in range(20):
        training.step(training.new())


def shifted_actions(training: CausedTraining) -> None:
    training.masks[:] = True  # else some of them are forbidden where they are now
    with torch.no_grad():
        training.old = training.new()
    training.actions = training.actions.roll(1)


def dropout_in_training_mode(training: CausedTraining) -> None:
    training.policy.dropout.train()


def batch_norm_in_training_mode(training: CausedTraining) -> None:
    training.policy.norm.train()


def normalisation_moved_on(training: CausedTraining) -> None:
    training.policy.moved = 0.3


def hidden_state_forgotten(training: CausedTraining) -> None:
    training.hidden = torch.zeros_like(training.hidden)


CAUSES: dict[Callable[[CausedTraining], None], str] = {
    other_masks: "Action masks stored at collection",
    stale_log_probs: "log-probs that are stale",
    shifted_actions: "actions shifted by a step",
    dropout_in_training_mode: "dropout",
    batch_norm_in_training_mode: "batch norm in training mode",
    normalisation_moved_on: "observation normalisation that moved on",
    hidden_state_forgotten: "hidden state at sequence starts",
}


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
def test_a_cause_is_found_in_its_update_and_named_among_what_to_look_at(
    tmp_path: Path, cause: Callable[[CausedTraining], None]
) -> None:
    training, true = CausedTraining(), []
    with Recorder(tmp_path / "run", training.policy, heads=("op",), sizes={"op": 3}, strict=True) as rec:
        for update in range(UPDATES):
            training.policy.eval()
            training.policy.moved = 0.0
            training.collect()
            if update == FAULTY:
                cause(training)
            for minibatch in range(2):
                new = training.new()
                if minibatch == 0:
                    true.append(float((new.detach().double() - training.old.double()).abs().max()))
                rec.minibatch(log_prob=new, old_log_prob=training.old, clip_range=0.2)
                training.step(new)
            rec.update()
    run = open_run(tmp_path / "run")
    assert run.frame("updates")["first_ratio_error"].to_list() == pytest.approx(true, rel=1e-5, abs=1e-6)
    findings = [row for row in run.frame("findings").to_dicts() if row["rule"] == "first_ratio"]
    assert (findings[0]["update"], findings[0]["verdict"]) == (FAULTY, "critical")
    assert true[FAULTY] > 1e-2
    assert max(true[:FAULTY]) < 1e-5
    assert CAUSES[cause] in RULE.look_first
    told = frame(gather(run))
    assert told.lead is not None
    assert (told.lead.rule, told.lead.start) == ("first_ratio", FAULTY)
