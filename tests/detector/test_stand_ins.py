"""What stands in for a column in the logs of other tools, and that it never does in a run that the recorder wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esper_analyze.detector.conditions.stand_ins import KL_LOGGED
from esper_analyze.detector.detector import Detector
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rules import RULES
from esper_analyze.replay.replay import replay
from esper_analyze.runs.run import open_run
from tests.detector.batches import judge_cells

BY_RULE = {rule.name: rule for rule in RULES}
SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"
STAND_INS = {*KL_LOGGED, "entropy"}
BY_STAND_IN = ("kl_spike", "spike_then_silence", "frozen_update", "entropy_low", "entropy_collapse", "entropy_stuck")


def log(**cells: Any) -> dict[str, Any]:
    """Return cells of a log: no minibatch was counted."""
    return {"minibatches": None, **cells}


def findings(rule: str, cells: dict[str, Any], updates: int) -> list[Finding]:
    return list(judge_cells(Detector(rules=[BY_RULE[rule]]), "updates", cells, updates).findings)


def said(rule: str, cells: dict[str, Any], updates: int) -> list[tuple[int, str, str]]:
    """Return update, metric and verdict of each finding."""
    return [(one.update, one.metric, one.verdict) for one in findings(rule, cells, updates)]


@pytest.mark.parametrize("run", sorted(SAMPLES.iterdir()), ids=lambda run: run.name)
def test_no_recorded_run_is_judged_by_a_stand_in(run: Any) -> None:
    result = replay(open_run(run))
    of_rules = {(one.rule, one.metric) for one in result.findings if one.rule in BY_STAND_IN}
    assert not {metric for _, metric in of_rules} & STAND_INS
    assert not {one.metric for one in result.unjudged if one.rule in BY_STAND_IN} & STAND_INS


def test_a_finding_names_the_column_that_was_judged() -> None:
    course = [0.01, 0.9]
    assert said("kl_spike", {"kl_k3": course}, 2) == [(1, "kl_k3", "critical")]
    assert said("kl_spike", log(kl_k3=None, kl_k3_last_epoch=course), 2) == [(1, "kl_k3_last_epoch", "critical")]
    assert said("kl_spike", log(kl_k3=None, kl_k2=course), 2) == [(1, "kl_k2", "critical")]
    assert said("kl_spike", log(kl_k3=None, kl_k1=[0.01, -0.9]), 2) == [(1, "kl_k1", "critical")]


def test_a_run_that_counts_minibatches_is_not_judged_by_the_last_epoch() -> None:
    cells = {"kl_k3": [0.01, None], "kl_k3_last_epoch": [0.01, 0.9]}
    assert said("kl_spike", cells, 2) == [(1, "kl_k3", "no_data")]


def test_what_is_0_throughout_may_be_so_by_construction() -> None:
    still = log(kl_k3=None, kl_k3_last_epoch=[0.0] * 20)
    assert "kl_k3_last_epoch" not in {metric for _, metric, _ in said("frozen_update", still, 20)}
    moved = log(kl_k3=None, kl_k3_last_epoch=[0.01, *[0.0] * 19])
    assert (3, "kl_k3_last_epoch", "warning") in said("frozen_update", moved, 20)


def test_entropy_is_a_share_of_its_start_where_actions_can_be_counted() -> None:
    course = [1.4, 1.3, 1.2, 0.12]
    counted = log(entropy=course, choices_unknown=True)
    (collapse,) = (one for one in findings("entropy_collapse", counted, 4) if one.verdict == "warning")
    assert collapse.metric == "entropy"
    assert collapse.baseline == pytest.approx(1.3)
    assert collapse.value == pytest.approx(0.12 / 1.3)
    assert {one.verdict for one in findings("entropy_collapse", log(entropy=course), 4)} == {"not_applicable"}


def test_a_solved_task_is_no_collapse_of_the_critic() -> None:
    """Explained variance of −43 where value loss fell from 15 to 5e-8: returns vary by next to nothing."""
    solved = log(explained_variance=[0.5] * 60 + [-43.0] * 60, value_loss=[15.0] * 60 + [5e-8] * 60)
    assert {one.verdict for one in findings("value_collapse", solved, 120)} <= {"not_applicable", "ok"}
    broken = log(explained_variance=[0.5] * 60 + [-43.0] * 60, value_loss=[15.0] * 60 + [600.0] * 60)
    assert "critical" in {one.verdict for one in findings("value_collapse", broken, 120)}


def test_a_batch_of_few_steps_says_nothing_of_the_critic() -> None:
    few = log(explained_variance=[*[0.5] * 12, *[-5.0] * 68], value_loss=3.0, env_steps=[10 * i for i in range(80)])
    assert "critical" not in {one.verdict for one in findings("value_collapse", few, 80)}
    many = few | {"env_steps": [1000 * i for i in range(80)]}
    assert "critical" in {one.verdict for one in findings("value_collapse", many, 80)}


def test_successive_returns_of_a_log_share_their_episodes() -> None:
    """A mean of the last hundred episodes, of which one is new, hardly steps: what looks like a fall is chance."""
    rng = np.random.default_rng(0)
    episodes = rng.normal(10.0, 6.0, 400)
    smooth = [float(episodes[max(0, i - 99) : i + 1].mean()) for i in range(400)]
    steps = [200 * i for i in range(400)]
    cells = log(episode_return_mean=smooth, env_steps=steps, episode_length_mean=200.0)
    assert not [one for one in findings("performance_degradation", cells, 400) if one.alarm]
    fell = [*smooth[:300], *[smooth[299] - min(8.0, 0.2 * i) for i in range(100)]]
    assert [one for one in findings("performance_degradation", cells | {"episode_return_mean": fell}, 400) if one.alarm]
