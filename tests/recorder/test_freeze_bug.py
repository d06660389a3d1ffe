"""The bug that froze an earlier telemetry, acted out: each of its symptoms is told from the healthy thing like it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from esper_analyze.replay.replay import replay
from esper_analyze.runs.run import RecordedRun, open_run
from recorder import Recorder
from tests.recorder.loop import SIZES, Loop


def acted(run_dir: Path, loop: Loop, updates: int = 2) -> RecordedRun:
    with loop.recorder(run_dir) as rec:
        for _ in range(updates):
            loop.update(rec)
    return open_run(run_dir)


def heads(run: RecordedRun) -> dict[str, dict[str, Any]]:
    return {row["head"]: row for row in run.frame("heads").to_dicts() if row["update"] == 0}


def told(run: RecordedRun, rule: str) -> list[tuple[str, int, str]]:
    return [(one.subject, one.update, one.verdict) for one in replay(run).findings if one.rule == rule]


def test_a_missing_a_broken_a_masked_and_a_sound_gradient_are_four_things(tmp_path: Path) -> None:
    gone = heads(acted(tmp_path / "gone", Loop(detach_head="op")))
    assert (gone["op"]["grad_norm"], gone["op"]["grad_state"]) == (None, "missing")
    assert (gone["op"]["params_without_grad"], gone["op"]["params_nonfinite"], gone["op"]["params_finite"]) == (2, 0, 0)
    assert (gone["style"]["grad_norm"], gone["style"]["zero_explained"]) == (0.0, "masked")
    assert (gone["style"]["params_without_grad"], gone["style"]["params_finite"]) == (0, 2)
    assert gone["slot"]["grad_norm"] > 0
    assert gone["slot"]["zero_explained"] == "not_zero"
    loop = Loop(minibatches=1, epochs=1)  # the step itself would make everything NaN
    loop.agent.get_parameter("heads.slot.weight").register_hook(lambda grad: grad * math.nan)
    torn = heads(acted(tmp_path / "torn", loop, updates=1))
    assert math.isnan(torn["slot"]["grad_norm"])
    assert torn["slot"]["grad_state"] == "nonfinite"
    assert (torn["slot"]["params_without_grad"], torn["slot"]["params_nonfinite"]) == (0, 1)


def test_only_the_missing_gradient_is_an_alarm(tmp_path: Path) -> None:
    run = acted(tmp_path / "run", Loop(detach_head="op"))
    assert ("op", 0, "critical") in told(run, "gradient_missing")
    assert {subject for subject, _, verdict in told(run, "gradient_missing") if verdict == "critical"} == {"op"}


def test_the_joint_ratio_shows_what_the_first_head_hides(tmp_path: Path) -> None:
    new = {
        "op": torch.zeros(4),
        "slot": torch.tensor([math.log(3.0), 0.0, 0.0, -math.log(2.0)]),
        "style": torch.zeros(4),
    }
    new["style"][0] = math.log(2.0)
    old = {name: torch.zeros(4) for name in SIZES}
    with Recorder(tmp_path / "run", heads=tuple(SIZES), sizes=SIZES, strict=True) as rec:
        rec.minibatch(log_prob=new, old_log_prob=old, clip_range=0.2)
        rec.update()
    run = open_run(tmp_path / "run")
    (row,) = run.frame("updates").to_dicts()
    assert row["ratio_max"] == pytest.approx(6.0, rel=1e-6)  # 1 · 3 · 2
    assert row["ratio_min"] == pytest.approx(0.5, rel=1e-6)
    assert row["clip_fraction"] == 0.5
    assert heads(run)["op"]["ratio_max"] == 1.0
    assert heads(run)["slot"]["ratio_max"] == pytest.approx(3.0, rel=1e-6)
    assert told(run, "ratio_explosion")


def test_kl_stays_finite_at_a_log_ratio_of_fifty_and_says_that_it_was_bounded(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", heads=("op",), strict=True) as rec:
        rec.minibatch(log_prob=torch.tensor([0.0, 0.0]), old_log_prob=torch.tensor([-50.0, 0.0]), clip_range=0.2)
        rec.update()
    (row,) = open_run(tmp_path / "run").frame("updates").to_dicts()
    assert row["kl_k3"] == pytest.approx((math.expm1(20) - 20) / 2, rel=1e-5)
    assert (row["clamped_fraction"], row["ratio_nonfinite"], row["first_ratio_error"]) == (0.5, 0, 50.0)


class OtherMasks(Loop):
    """The update evaluates under masks that are not those of the rollout; ``never`` forbids what was done."""

    never = False

    def rollout(self) -> dict[str, Any]:
        rollout = super().rollout()
        masks = torch.ones_like(rollout["masks"]["op"])
        if self.never:
            masks.scatter_(1, rollout["actions"]["op"][:, None], value=False)
        rollout["masks"]["op"] = masks
        return rollout


class Forbidding(OtherMasks):
    """Masked logits of minus infinity, as many loops have them: the log-prob of a forbidden action is not finite."""

    never = True

    def __post_init__(self) -> None:
        super().__post_init__()
        sound = self.agent.forward

        def forward(x: Tensor, masks: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
            logits, value = sound(x, masks)
            return {name: one.masked_fill(~masks[name], -math.inf) for name, one in logits.items()}, value

        self.agent.forward = forward  # type: ignore[method-assign]


def test_masks_that_differ_between_rollout_and_update_are_caught_before_any_step(tmp_path: Path) -> None:
    run = acted(tmp_path / "run", OtherMasks(), updates=1)
    (row,) = run.frame("updates").to_dicts()
    assert row["first_ratio_error"] > 0.01
    assert row["nonfinite_sources"] is None
    assert ("run", 0, "critical") in told(run, "first_ratio")


def test_a_forbidden_action_is_named_by_the_finiteness_gate(tmp_path: Path) -> None:
    run = acted(tmp_path / "run", Forbidding(), updates=1)
    (row,) = run.frame("updates").to_dicts()
    assert "log_prob[op]" in row["nonfinite_sources"]
    assert "log_prob[slot]" not in row["nonfinite_sources"]
    assert ("run", 0, "critical") in told(run, "numerical_instability")


def test_what_masks_leave_to_learn_is_counted_for_each_head(tmp_path: Path) -> None:
    loop = Loop()
    with loop.recorder(tmp_path / "run") as rec:
        rollout = loop.update(rec)
    for name, row in heads(open_run(tmp_path / "run")).items():
        valid = rollout["masks"][name].sum(-1)
        assert (row["valid_actions_min"], row["valid_actions_max"]) == (int(valid.min()), int(valid.max()))
        assert row["single_action_fraction"] == pytest.approx(float((valid == 1).float().mean()))
        assert row["learnable_fraction"] == pytest.approx(float((valid > 1).float().mean()))
