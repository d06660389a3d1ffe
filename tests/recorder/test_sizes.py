"""The number of actions of a head: given, from its last layer, or not known; and what is said of its entropy then."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.runs.run import RecordedRun, open_run
from recorder import Recorder
from recorder.capture.parameters import ParameterRows
from recorder.store.resume import ResumeError

N, K = 32, 4
ENTROPY = ("head_entropy_collapse", "entropy_collapse", "entropy_low")
UNKNOWN = "the number of actions is not known: give sizes= or masks="


class SharingPolicy(nn.Module):
    """A head of two layers, and one layer that two heads share."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(3, 9), nn.Tanh(), nn.Linear(9, K))
        self.shared = nn.Linear(3, 7)


def record(
    run_dir: Path, entropy: Tensor, heads: Any, *, model: nn.Module | None = None, **options: Any
) -> RecordedRun:
    """Record five updates in which the one head has the entropies [N]."""
    name = next(iter(heads))
    with Recorder(run_dir, model, heads=heads, **{"strict": True} | options) as rec:
        for _ in range(5):
            for epoch in range(2):
                rec.minibatch(
                    log_prob={name: torch.full((N,), -1.0)},
                    old_log_prob={name: torch.full((N,), -1.0)},
                    entropy={name: entropy},
                    epoch=epoch,
                )
            rec.update()
    run = open_run(run_dir)
    assert differences(replay(run), recorded(run)) == []
    return run


def said(run: RecordedRun, rule: str) -> set[tuple[str, str | None]]:
    rows = run.frame("findings").to_dicts()
    return {(row["verdict"], row["reason"]) for row in rows if row["rule"] == rule}


def parts(policy: SharingPolicy) -> dict[str, Any]:
    rows = [ParameterRows(one, 2, 2 + K) for one in policy.shared.parameters()]
    last = policy.head[2]
    return {"module": policy.head, "rows": rows, "parameters": [last.weight, last.bias], "generator": last.parameters()}


@pytest.mark.parametrize("how", ["module", "rows", "parameters", "generator"])
def test_the_last_layer_says_how_many_actions_there_are(tmp_path: Path, how: str) -> None:
    policy = SharingPolicy()
    entropy = torch.full((N,), 0.01)
    run = record(tmp_path / "run", entropy, {"op": parts(policy)[how]}, model=policy)
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (info["heads"], info["sizes_inferred"]) == ({"op": K}, ["op"])
    for table in ("heads", "updates"):
        assert run.frame(table)["entropy_norm"].to_list() == pytest.approx([0.01 / math.log(K)] * 5)
    assert run.frame("updates")["choices_unknown"].to_list() == [False] * 5
    assert {verdict for verdict, _ in said(run, "head_entropy_collapse")} == {"warning"}
    assert {verdict for verdict, _ in said(run, "entropy_collapse")} == {"critical"}


def test_a_head_of_unknown_size_has_no_data_and_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "recorder"):
        run = record(tmp_path / "run", torch.full((N,), 0.01), ("op",))
    assert caplog.text.count("the number of actions of op is not known") == 1
    assert "sizes={'op': …}" in caplog.text
    for rule in ENTROPY:
        assert said(run, rule) == {("no_data", UNKNOWN)}
    assert run.frame("updates")["choices_unknown"].to_list() == [True] * 5
    assert run.frame("updates")["entropy_norm"].to_list() == [None] * 5


def test_a_continuous_head_is_still_not_judged_by_its_entropy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = record(tmp_path / "run", torch.full((N,), 0.01), ("op",), kinds={"op": "gaussian"})
    assert said(run, "entropy_collapse") == {("not_applicable", "continuous actions have no normalised entropy")}
    assert said(run, "head_entropy_collapse") == {("not_applicable", "not a categorical head")}
    assert "number of actions" not in caplog.text


@pytest.mark.parametrize("entropy", [math.log(K) + 0.1, -0.5], ids=["more than ln(size)", "negative"])
def test_an_entropy_that_does_not_fit_the_last_layer_drops_its_size(tmp_path: Path, entropy: float) -> None:
    policy = SharingPolicy()
    run = record(tmp_path / "run", torch.full((N,), entropy), {"op": policy.head}, model=policy)
    assert run.frame("heads")["entropy_norm"].to_list() == [None] * 5
    assert run.frame("updates")["entropy_norm"].to_list() == [None] * 5
    assert run.frame("updates")["choices_unknown"].to_list() == [True] * 5
    details = run.frame("losses_of_data")["detail"].to_list()
    assert len(details) == 1
    assert f"do not fit {K} actions" in details[0]
    for rule in ENTROPY:
        assert said(run, rule) == {("no_data", UNKNOWN)}


def test_a_uniform_policy_fits_its_last_layer(tmp_path: Path) -> None:
    policy = SharingPolicy()
    entropy = torch.distributions.Categorical(logits=torch.zeros(N, K)).entropy()
    run = record(tmp_path / "run", entropy, {"op": policy.head}, model=policy)
    assert run.frame("heads")["entropy_norm"].to_list() == pytest.approx([1.0] * 5)


def test_one_head_of_unknown_size_costs_the_others_nothing(tmp_path: Path) -> None:
    zeros, entropy = torch.zeros(N), torch.full((N,), 0.5)
    with Recorder(tmp_path / "run", heads=("op", "slot"), sizes={"op": K}, strict=True) as rec:
        for tensors in [{"op": zeros, "slot": zeros}] * 2:
            rec.minibatch(log_prob=tensors, old_log_prob=tensors, entropy={"op": entropy, "slot": entropy})
        rec.update(values=zeros)
    rows = {row["head"]: row for row in open_run(tmp_path / "run").frame("heads").to_dicts()}
    assert rows["op"]["entropy_norm"] == pytest.approx(0.5 / math.log(K))
    assert rows["op"]["valid_actions_mean"] == K
    assert rows["slot"]["entropy"] == pytest.approx(0.5)
    assert (rows["slot"]["entropy_norm"], rows["slot"]["choice_samples"]) == (None, None)
    assert rows["slot"]["valid_actions_mean"] is None


def test_a_run_of_before_resumes_with_a_size_that_is_inferred_now(tmp_path: Path) -> None:
    policy = SharingPolicy()
    with Recorder(tmp_path / "run", heads=("op",)):
        pass
    with Recorder(tmp_path / "run", heads=("op",), sizes={"op": K}, resume=True):
        pass
    with Recorder(tmp_path / "other", policy, heads={"op": policy.head}):
        pass
    with pytest.raises(ResumeError, match="heads"):
        Recorder(tmp_path / "other", policy, heads={"op": policy.head}, sizes={"op": K + 1}, resume=True)
