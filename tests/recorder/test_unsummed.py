"""Log-probs that were not summed over the dimensions of the action are never taken for more samples."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from esper_analyze.runs.run import RecordedRun, open_run
from recorder import Recorder
from recorder.minibatch_reader import DimensionsError

N, A, EPOCHS = 64, 6, 3


def log_probs(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return old and new log-probs [N, A] of a Gaussian policy in float64."""
    random = np.random.default_rng(seed)
    old = torch.from_numpy(random.normal(-1.0, 0.3, (N, A)))
    return old, old + torch.from_numpy(random.normal(0.0, 0.02, (N, A)))


def record(run_dir: Path, old: Tensor, new: Tensor, *, rollout: int | None, **given: Any) -> RecordedRun:
    """Record two updates of ``EPOCHS`` epochs of two minibatches."""
    half = len(new) // 2
    with Recorder(run_dir, kinds={"action": "gaussian"}) as rec:
        for _ in range(2):
            for epoch in range(EPOCHS):
                for part in (slice(0, half), slice(half, 2 * half)):
                    cells = {name: one[part] for name, one in given.items()}
                    rec.minibatch(log_prob=new[part], old_log_prob=old[part], clip_range=0.2, epoch=epoch, **cells)
            advantages = None if rollout is None else torch.randn(rollout)
            rec.update(advantages=advantages)
    return open_run(run_dir)


def losses(run: RecordedRun) -> str:
    return " | ".join(run.frame("losses_of_data")["detail"].to_list())


EVIDENCE: dict[str, Any] = {
    "advantages": torch.zeros(N),
    "values": torch.zeros(N, 1),
    "joint_log_ratio": torch.zeros(N),
    "joint_entropy": torch.zeros(N),
    "entropy": torch.ones(N),
    "valid": torch.ones(N, dtype=torch.bool),
    "index": torch.arange(N),
    "relevant": {"action": torch.ones(N, dtype=torch.bool)},
}


@pytest.mark.parametrize("argument", EVIDENCE)
def test_any_argument_of_one_number_a_sample_gives_them_away(tmp_path: Path, argument: str) -> None:
    old, new = log_probs()
    given = {argument: EVIDENCE[argument]}
    with Recorder(tmp_path / "run", kinds={"action": "gaussian"}, strict=True) as rec:
        with pytest.raises(DimensionsError, match=r"64 samples: pass their sum .*log_prob\.sum\(-1\)"):
            rec.minibatch(log_prob=new, old_log_prob=old, **given)
        rec.minibatch(log_prob=new.sum(-1), old_log_prob=old.sum(-1, keepdim=True), **given)  # [N] and [N, 1] are right
    with Recorder(tmp_path / "lost", kinds={"action": "gaussian"}) as rec:
        rec.minibatch(log_prob=new, old_log_prob=old, **given)
        rec.update()
    run = open_run(tmp_path / "lost")
    assert run.frame("updates")["kl_k3"].to_list() == [None]
    assert "log_prob.sum(-1)" in losses(run)


def test_one_of_the_two_summed_and_the_other_not(tmp_path: Path) -> None:
    old, new = log_probs()
    with Recorder(tmp_path / "run", strict=True) as rec:
        for pair in ((new, old.sum(-1)), (new.sum(-1), old)):
            with pytest.raises(DimensionsError, match=r"log_prob\.sum\(-1\)"):
                rec.minibatch(log_prob=pair[0], old_log_prob=pair[1])


def test_the_rollout_gives_them_away_when_the_update_ends(tmp_path: Path) -> None:
    old, new = log_probs()
    run = record(tmp_path / "run", old, new, rollout=N, entropy=torch.ones(N, A))
    assert run.frame("updates")["kl_k3"].to_list() == [None, None]
    assert f"{A} log-probs for each of the {N} samples of the rollout" in losses(run)
    assert "as in an update before" in losses(run)  # refused at once from then on


def test_summed_ones_are_recorded_as_they_are(tmp_path: Path) -> None:
    old, new = log_probs()
    log_ratio = (new - old).sum(-1).numpy()
    run = record(tmp_path / "run", old.sum(-1), new.sum(-1), rollout=N)
    kl = float((np.exp(log_ratio) - 1 - log_ratio).mean())
    assert run.frame("updates")["kl_k3"].to_list() == pytest.approx([kl] * 2, rel=1e-12)
    assert losses(run) == ""


@pytest.mark.parametrize("said", ["values", "rollout"])
def test_time_by_environments_stays_allowed(tmp_path: Path, said: str, caplog: pytest.LogCaptureFixture) -> None:
    old, new = log_probs()
    log_ratio = (new - old).numpy()
    given = {"values": torch.zeros(N, A)} if said == "values" else {}
    run = record(tmp_path / "run", old, new, rollout=None if said == "values" else N * A, **given)
    kl = float((np.exp(log_ratio) - 1 - log_ratio).mean())
    assert run.frame("updates")["kl_k3"].to_list() == pytest.approx([kl] * 2, rel=1e-12)
    assert losses(run) == ""
    assert "is taken as" not in caplog.text


def test_a_short_value_does_not_make_time_by_environments_unsummed(tmp_path: Path) -> None:
    old, new = log_probs()
    given = {"advantages": torch.zeros(N, A), "values": torch.zeros(N)}
    run = record(tmp_path / "run", old, new, rollout=None, **given)
    assert None not in run.frame("updates")["kl_k3"].to_list()
    assert "minibatch(values)" in losses(run)


def test_what_cannot_be_decided_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, new = log_probs()
    with caplog.at_level(logging.WARNING, "recorder"):
        run = record(tmp_path / "run", old, new, rollout=None)
    assert None not in run.frame("updates")["kl_k3"].to_list()
    assert caplog.text.count(f"log_prob of shape [..., {A}] is taken as") == 1
