"""Causes that look alike: what the recorded numbers around an incident say of each, by numbers made up for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Floats, Ints
from esper_analyze.replay.evidence import Evidence, gather
from esper_analyze.reports.causes.cause import Cause, Likelihood
from esper_analyze.reports.causes.cause_list import CAUSES
from esper_analyze.reports.causes.look_alikes import PossibleCause, look_alikes
from esper_analyze.reports.causes.numbers import Numbers
from esper_analyze.reports.narrative import story
from esper_analyze.reports.write import write_report
from esper_analyze.runs.run import open_run
from esper_analyze.schema import BY_NAME
from tests.reports.synthetic import Rows, write_run

START, UPDATES = 30, 35
NAN, INF = float("nan"), float("inf")
BY_CAUSE = {cause.name: cause for cause in CAUSES}
SETTINGS = (
    *("learning_rate", "clip_range", "entropy_coef", "value_coef", "gamma", "target_kl", "max_grad_norm", "epochs"),
    "loss_scale",
)
RAMP, FALLING = ([1e-3 * base**update for update in range(UPDATES)] for base in (1.1, 0.95))
STEADY = [0.1] * UPDATES
SHIFT = "parameter_shift_between_updates"
RESET = {"entropy": (0.1, 1.0), "value_std": (1.0, 0.2), "value_mean": 1.0}
ENDS = {"rollout_ends": 2.0, "episodes_finished": 2.0}
LIKELY, POSSIBLE, RULED_OUT, MISSING = (
    Likelihood.LIKELY,
    Likelihood.POSSIBLE,
    Likelihood.RULED_OUT,
    Likelihood.NOT_RECORDED,
)


class MadeUpNumbers(Numbers):
    """Numbers of 35 updates, an incident in update 30; a pair is a column before and from ``at`` on."""

    def __init__(
        self, cells: Mapping[str, object], at: int, rule: str, tables: Mapping[str, Mapping[str, object]]
    ) -> None:
        self.lead = SimpleNamespace(start=START, onset=START, rule=rule, seen_by=(rule,))  # type: ignore[assignment]
        self.update = np.arange(UPDATES)
        self._columns = {name: pl.Series(column(cell, at)) for name, cell in cells.items()}
        self._cells, self._tables, self._at = {}, tables, at
        self.alarms: dict[str, int] = {}

    @property
    def reach(self) -> int:
        return 0

    @property
    def has_memory(self) -> bool:
        return "lstm" in self._tables

    def first(self, name: str) -> float:
        return float(np.median(self.cells(name)[:4]))

    def incident(self, rule: str) -> Any:
        return SimpleNamespace(start=self.alarms[rule]) if rule in self.alarms else None

    def judged(self, rule: str) -> bool:
        return rule != "never_judged"

    def subjects(self, table: str, name: str) -> Mapping[str, tuple[Ints, Floats]]:
        found = self._tables.get(f"{table}.{name}", {})
        return {subject: (self.update, np.array(column(cell, self._at, 0.0), float)) for subject, cell in found.items()}


def column(cell: object, at: int, wobble: float = 0.01) -> list[Any]:
    """Return a column that wobbles by a hundredth around its level before and after ``at``; a list is one as it is."""
    if isinstance(cell, list):
        return cell
    before, after = cell if isinstance(cell, tuple) else (cell, cell)
    levels = [before if update < at else after for update in range(UPDATES)]
    return [
        None if level is None else float(level) * (1 + wobble * (0, 1, -1, 1, -1, 0)[update % 6])
        for update, level in enumerate(levels)
    ]


def checked(name: str, cells: Mapping[str, object], at: int = START, *, tables: Mapping[str, Any] | None = None,
            alarms: Mapping[str, int] | None = None) -> tuple[Likelihood, str]:  # fmt: skip
    """Return what the check of a cause says of made up columns."""
    cause = BY_CAUSE[name]
    numbers = MadeUpNumbers(cells, at, cause.rules[0], tables or {})
    numbers.alarms = dict(alarms or {})
    with np.errstate(all="ignore"):
        finding = cause.check(numbers)
    return finding.answer, finding.words


@pytest.mark.parametrize(
    ("name", "cells", "answer", "words"),
    [
        ("reward_constant", {"reward_std": (0.4, 0.0)}, LIKELY, "reward_std is 0 since update 27 (0.4 before)"),
        ("reward_constant", {"reward_std": (0.4, 0.3)}, RULED_OUT, "reward_std is 0.3 (0.4 before)"),
        ("reward_constant", {"reward_std": 0.0}, RULED_OUT, "(0 before)"),
        ("rewards_absent", {"reward_std": 0.0}, LIKELY, "reward_std was at most 0 in 31 updates up to here"),
        ("rewards_absent", {"reward_std": (0.4, 0.0)}, RULED_OUT, "at most 0.4"),
        ("reward_sign", {"reward_mean": (0.5, -0.4)}, LIKELY, "reward_mean went from 0.5 to -0.4 at update 27"),
        ("reward_sign", {"reward_mean": (0.5, 0.1)}, RULED_OUT, "not its negative"),
        ("reward_sign", {"reward_mean": (0.5, -50.0)}, RULED_OUT, "not its negative"),
        ("reward_sign", {"reward_mean": 0.5, "reward_std": 1.0}, RULED_OUT, "no step"),
        ("reward_sign", {"reward_mean": 0.01, "reward_std": 1.0}, POSSIBLE, "too near 0 to tell"),
        ("reward_sign", {"reward_mean": 0.01, "reward_min": (0.0, -1.0), "reward_max": (1.0, 0.0)}, LIKELY, "-1 to 0"),
        ("reward_sign", {"reward_mean": 0.01, "reward_min": 0.0, "reward_max": 1.0}, RULED_OUT, "from 0 to 1"),
        ("reward_sign", {"reward_mean": (0.5, -0.5), "reward_min": -1.0, "reward_max": 1.0}, LIKELY, "to -0.5"),
        ("reward_scale", {"reward_std": (0.5, 500.0)}, LIKELY, "reward_std went from 0.5 to 500 at update 27"),
        ("reward_scale", {"return_std": (2.0, 3.0)}, RULED_OUT, "return_std (3)"),
        ("reward_scale", {}, MISSING, "reward_std, return_std"),
        ("reward_unrelated", {"reward_mean": (0.9, 0.1), "reward_std": 1.0, "explained_variance": (0.8, 0.1)}, LIKELY,
         "explained_variance went from 0.8 to 0.1"),
        ("reward_unrelated", {"reward_mean": (0.9, 0.1), "reward_std": 1.0, "explained_variance": 0.8}, POSSIBLE, ""),
        ("reward_unrelated", {"reward_mean": (0.9, 90.0), "reward_std": 1.0}, POSSIBLE, "their scale changed"),
        ("reward_unrelated", {"reward_mean": 0.9, "reward_std": 1.0}, RULED_OUT, "no step"),
        ("reward_unrelated", {"reward_mean": (0.9, 0.0), "reward_std": (1.0, 0.0)}, RULED_OUT, "constant"),
        ("ends_ignored", {"rollout_ends": (2.0, 0.0), "episodes_finished": 2.0}, LIKELY, "rollout_ends 0 while "),
        ("ends_ignored", {"rollout_ends": 2.0, "episodes_finished": 2.0}, RULED_OUT, "episodes finished"),
        ("ends_ignored", {**ENDS, "ends_continued_fraction": (0.0, 1.0)}, LIKELY, "is 1 (0 before)"),
        ("ends_ignored", {**ENDS, "ends_continued_fraction": 1.0}, POSSIBLE, "time limits"),
        (
            "ends_ignored",
            {**ENDS, "ends_continued_fraction": (0.0, 1.0), "return_residual": (1e-6, 0.4)},
            POSSIBLE,
            "and so at other timesteps",
        ),
        ("ends_ignored", {**ENDS, "ends_continued_fraction": 0.0}, RULED_OUT, "episodes finished"),
        ("ends_ignored", {"rollout_ends": 0.0, "episodes_finished": 0.0}, POSSIBLE, "no episode finished"),
        ("environments_identical", {"environments": 8.0, "environments_distinct": (8.0, 1.0)}, LIKELY, "1 of 8"),
        ("environments_identical", {"environments": 8.0, "environments_distinct": 8.0}, RULED_OUT, "8 of 8"),
        ("environments_identical", {"environments": 8.0, "environments_distinct": 6.0}, POSSIBLE, "6 of 8"),
        ("environments_identical", {"environments": 1.0, "environments_distinct": 1.0}, RULED_OUT, "1 of 1"),
        ("other_action", {"first_ratio_error": 0.0}, POSSIBLE, "compare the action given to env.step"),
        ("observations_changed", {"value_mean": (1.0, 3.0)}, POSSIBLE, "value_mean went from 1 to 3"),
        ("observations_changed", {"value_mean": 1.0, "value_std": 1.0}, RULED_OUT, "earlier range"),
        ("returns_wrong", {"return_residual": (1e-6, 0.4)}, LIKELY, "return_residual is 0.4 (1e-06 before)"),
        ("returns_wrong", {"return_residual": 0.001}, RULED_OUT, "return_residual is 0.001"),
        ("returns_wrong", {"return_residual": 0.3}, POSSIBLE, "it was never exact"),
        ("gamma", {"return_gamma": (0.99, 1.05), "gamma": 0.99}, LIKELY, "is 1.05"),
        ("gamma", {"return_gamma": 0.99, "gamma": 0.99}, RULED_OUT, "is 0.99"),
        ("gamma", {"return_gamma": 2.18, "return_residual": 0.6, "gamma": 0.99}, RULED_OUT, "gamma is 0.99"),
        ("gamma", {"gamma": (0.99, 1.05)}, LIKELY, "gamma is 1.05"),
        ("value_weight", {"value_coef": (0.5, 50.0)}, LIKELY, "value_coef went from 0.5 to 50"),
        ("value_weight", {"value_coef": 0.5}, RULED_OUT, "value_coef is 0.5"),
        ("value_weight", {}, MISSING, "value_coef"),
        ("value_weight", {"grad_norm_pre_clip": (1.0, 90.0), "value_loss": 1.0}, LIKELY, "value_loss did not"),
        ("value_weight", {"grad_norm_pre_clip": (1.0, 90.0), "value_loss": (1.0, 80.0)}, RULED_OUT, "but the loss too"),
        ("value_weight", {"grad_norm_pre_clip": 1.0, "value_loss": 1.0}, RULED_OUT, "no gradient norm grew"),
        ("advantages_wrong", {"advantage_alignment": (0.2, -0.1)}, LIKELY, "-0.1"),
        ("advantages_wrong", {"advantage_alignment": (0.2, 0.01)}, POSSIBLE, "0.01"),
        ("advantages_wrong", {"advantage_alignment": 0.2}, RULED_OUT, "0.2"),
        ("advantages_sign", {"advantage_alignment": (0.2, -0.2)}, LIKELY, "-0.2"),
        ("advantages_sign", {"advantage_alignment": (0.2, -0.01)}, POSSIBLE, "-0.01"),
        ("advantages_sign", {"advantage_alignment": (0.2, 0.01)}, RULED_OUT, "0.01"),
        ("advantages_sign", {"advantage_consistency": -1.0}, LIKELY, "advantage_consistency is -1"),
        ("advantages_sign", {"advantage_consistency": 0.0}, RULED_OUT, "advantage_consistency is 0"),
        ("advantages_sign", {"advantage_consistency": 1.0, "advantage_alignment": -0.3}, LIKELY, "alignment is -0.3"),
        ("advantages_sign", {"advantage_consistency": 1.0}, MISSING, "advantage_alignment"),
        ("advantages_order", {"advantage_consistency": 1.0, "advantage_alignment": 0.0}, LIKELY, "alignment is 0"),
        ("advantages_order", {"advantage_consistency": -1.0}, RULED_OUT, "is -1"),
        ("advantages_order", {"minibatch_advantage_consistency": 1.0}, RULED_OUT, "is 1"),
        ("advantages_order", {}, MISSING, "advantage_alignment"),
        ("gamma", {}, MISSING, "gamma, return_gamma"),
        ("advantages_order", {"advantage_alignment": (0.2, -0.01)}, LIKELY, "-0.01"),
        ("advantages_order", {"advantage_alignment": (0.2, -0.2)}, RULED_OUT, "-0.2"),
        ("advantages_order", {"minibatch_advantage_consistency": 0.02}, LIKELY, "is 0.02"),
        ("advantages_order", {"minibatch_advantage_consistency": -1.0}, RULED_OUT, "is -1"),
        ("policy_replaced", {"entropy": (0.2, 1.0)}, POSSIBLE, "entropy went from 0.2 to 1"),
        ("policy_replaced", {"entropy": 0.2}, RULED_OUT, "did not alarm"),
        ("policy_replaced", {"entropy": (0.2, 1.0), SHIFT: 0.0}, RULED_OUT, "updates is 0"),
        ("policy_replaced", {"entropy": 0.2, SHIFT: (0.0, 0.3)}, POSSIBLE, "updates is 0.3 in update 30"),
        ("policy_replaced", {"entropy": (0.2, 1.0), SHIFT: 1e-9}, RULED_OUT, "updates is 0"),
        ("policy_replaced", {"entropy": (0.2, 1.0), SHIFT: (0.0, None)}, POSSIBLE, "entropy went from 0.2 to 1"),
        ("policy_replaced", {"entropy": (0.2, 1.0), SHIFT: (0.0, NAN)}, POSSIBLE, "entropy went from 0.2 to 1"),
        ("policy_replaced", {}, MISSING, "entropy; pass"),
        ("weights_reset", {**RESET, SHIFT: (0.0, 0.3)}, LIKELY, "entropy 0.1"),
        ("weights_reset", {**RESET, SHIFT: (0.0, None)}, LIKELY, "entropy 0.1"),
        ("weights_reset", {**RESET, SHIFT: 0.0}, RULED_OUT, "updates is 0"),
        ("bias_pushed", {"entropy": (1.0, 0.01), "value_std": 1.0, SHIFT: 0.0}, RULED_OUT, "updates is 0"),
        ("weights_scaled", {"value_std": (1.0, 900.0), SHIFT: 0.0}, RULED_OUT, "updates is 0"),
        ("observations_changed", {}, MISSING, "observations, value_mean"),
        ("loss_changed", {}, RULED_OUT, "losses_inconsistent did not alarm"),
        ("large_steps", {"kl_k3": 0.01}, RULED_OUT, "kl_k3 is 0.01 (0.01 before)"),
        ("settings_too_large", {}, RULED_OUT, "after 30 updates without"),
        ("no_step", {"optimizer_steps": (8.0, 0.0)}, LIKELY, "optimizer_steps is 0 in update 30"),
        ("no_step", {"optimizer_steps": 8.0}, RULED_OUT, "optimizer_steps is 8"),
        ("no_step", {"optimizer_steps": (8.0, None)}, MISSING, "optimizer_steps"),
        ("learning_rate_0", {"learning_rate": (1e-3, 0.0)}, LIKELY, "learning_rate is 0"),
        ("deterministic", {"entropy_norm": (0.5, 0.001)}, LIKELY, "0.001"),
        ("deterministic", {"entropy_norm": 0.5}, RULED_OUT, "0.5"),
        ("advantages_zero", {"advantage_std": (1.0, 0.0)}, LIKELY, "advantage_std is 0 (1 before)"),
        ("advantages_zero", {"advantage_std": 1.0}, RULED_OUT, "advantage_std is 1"),
        ("stale_log_probs", {"ratio_mean": 1.2, "kl_k1": -0.15, "kl_k2": 0.02}, LIKELY, "too low"),
        ("stale_log_probs", {"ratio_mean": 1.0, "kl_k1": 0.002, "kl_k2": 0.1}, LIKELY, "scatter around 0"),
        ("stale_log_probs", {"ratio_mean": 1.0, "kl_k1": 0.2, "kl_k2": 0.2}, RULED_OUT, "distributed as"),
        ("stale_log_probs", {"ratio_mean": 0.7, "kl_k1": 0.4, "kl_k2": 0.3}, POSSIBLE, "0.7"),
        ("stale_log_probs", {"ratio_mean": 1.5, "kl_k1": 0.0, "first_ratio_error": 2e8}, RULED_OUT, "forbidden"),
        ("actions_shifted", {"ratio_mean": 1.5, "ratio_max": 9.0, "kl_k1": 0.6}, LIKELY, "unlikely under the policy"),
        ("actions_shifted", {"ratio_mean": 1.0, "ratio_max": 9.0, "kl_k1": 3.0, "first_ratio_error": 2e8}, LIKELY, "f"),
        ("actions_shifted", {"ratio_mean": 1.0, "ratio_max": 2.0, "kl_k1": 0.3}, RULED_OUT, "ratio_mean 1"),
        ("hidden_state", {"ratio_mean": 1.0, "kl_k1": 0.2}, MISSING, "no hidden state"),
        ("dropout", {"first_ratio_error": (0.0, 0.4)}, RULED_OUT, "it would show in every update"),
        ("dropout", {"first_ratio_error": 0.4}, POSSIBLE, ""),
        ("normaliser_moved", {"ratio_mean": 1.0}, POSSIBLE, "ratio_mean 1"),
        ("normaliser_moved", {"ratio_mean": 1.5}, RULED_OUT, "would stay at 1"),
        ("ratio_mismatch", {}, RULED_OUT, "first_ratio did not alarm"),
        ("nan_reward", {"reward_mean": (1.0, NAN), "value_mean": 1.0}, LIKELY, "reward_mean NaN, value_mean"),
        ("nan_reward", {"reward_mean": 1.0, "value_mean": (1.0, NAN)}, RULED_OUT, "value_mean NaN"),
        ("nan_reward", {"return_mean": (1.0, NAN), "value_mean": 1.0}, LIKELY, "rec.update(rewards=…)"),
        ("nan_reward", {"first_ratio_error": 0.0, "total_loss": (1.0, NAN)}, LIKELY, "what the loss is made of is not"),
        ("nan_reward", {}, MISSING, "reward_mean and return_mean"),
        ("bad_observation", {"value_mean": 1.0}, RULED_OUT, "answered all observations"),
        ("bad_observation", {"value_mean": (1.0, NAN), "nan_grad_count": 0.0}, LIKELY, "value_mean NaN"),
        ("bad_observation", {"value_mean": (1.0, NAN), "nan_grad_count": 3.0}, POSSIBLE, "value_mean NaN"),
        ("bad_observation", {}, MISSING, "value_mean"),
        ("bad_stored", {"first_ratio_error": 0.0, "ratio_nonfinite": 0.0}, RULED_OUT, "first_ratio_error 0"),
        ("bad_stored", {"first_ratio_error": (0.0, NAN), "value_mean": 1.0}, LIKELY, "first_ratio_error NaN"),
        ("bad_stored", {"first_ratio_error": (0.0, NAN), "value_mean": (1.0, NAN)}, RULED_OUT, "already the rollout"),
        ("bad_stored", {"optimisation_s": 0.1, "minibatches": (8.0, None)}, POSSIBLE, "ended before its first"),
        ("bad_observation", {"optimisation_s": 0.1, "minibatches": (8.0, None)}, POSSIBLE, "ended before its first"),
        ("bad_stored", {}, MISSING, "first_ratio_error"),
        ("bad_parameters", {"inf_grad_count": 3.0}, LIKELY, "in update 29 before it: inf_grad_count"),
        ("bad_parameters", {"inf_grad_count": 0.0}, RULED_OUT, "inf_grad_count 0"),
        ("bad_parameters", {}, POSSIBLE, "has no count"),
        ("overflow", {"total_loss": 1.0, "grad_norm_pre_clip": (1.0, INF)}, LIKELY, "the loss is finite"),
        ("overflow", {"total_loss": (1.0, NAN), "grad_norm_pre_clip": (1.0, NAN)}, RULED_OUT, "before the gradients"),
        ("overflow", {"policy_loss": (1.0, NAN), "grad_norm_pre_clip": (1.0, NAN)}, RULED_OUT, "policy_loss NaN"),
        ("overflow", {"value_loss": 1.0, "grad_norm_pre_clip": (1.0, NAN)}, POSSIBLE, "the loss is not recorded"),
        ("overflow", {"total_loss": 1.0, "grad_norm_pre_clip": 1.0}, RULED_OUT, "the gradients are finite"),
        ("overflow", {}, MISSING, "gradients"),
        ("optimizer_restarted", {"optimizer_state_lost": (0.0, 1.0)}, LIKELY, "is 1 in update 30"),
        ("optimizer_restarted", {"optimizer_state_lost": (0.0, 0.5)}, RULED_OUT, "is 0"),
        ("optimizer_restarted", {"optimizer_state_lost": 0.0}, RULED_OUT, "is 0"),
        ("clip_gone", {"max_grad_norm": (0.5, None)}, LIKELY, "there is no clip call, 0.5 before"),
        ("clip_gone", {"max_grad_norm": (0.5, INF)}, LIKELY, "max_grad_norm is +Inf, 0.5 before"),
        ("clip_gone", {"max_grad_norm": 0.5}, RULED_OUT, "max_grad_norm is 0.5"),
        ("less_data", {"samples": (4096.0, 512.0)}, LIKELY, "samples went from 4,096"),
        ("less_data", {"samples": 4096.0}, RULED_OUT, "4,096"),
        ("advantage_outlier", {"advantage_max": 50.0, "advantage_min": -1.0, "advantage_std": 1.0}, LIKELY, "is 50 "),
        ("advantage_outlier", {"advantage_max": 3.0, "advantage_min": -4.0, "advantage_std": 1.0}, RULED_OUT, "is 4 "),
        ("bias_pushed", {"entropy": (1.0, 0.01), "value_std": 1.0}, LIKELY, "entropy 1"),
        ("bias_pushed", {"entropy": (1.0, 0.01), "value_std": (1.0, 9.0)}, POSSIBLE, "value_std 1"),
        ("bias_pushed", {"entropy": (0.1, 1.0), "value_std": 1.0}, RULED_OUT, "entropy 0.1"),
        ("weights_reset", {"entropy": (0.1, 0.02), "value_std": 1.0, "value_mean": 1.0}, RULED_OUT, "first updates"),
        ("weights_reset", {"entropy": (0.1, 1.0), "value_std": 1.0, "value_mean": 1.0}, POSSIBLE, "hardly changed"),
        ("weights_reset", {"entropy": (0.1, 1.0), "value_std": (1.0, 0.2), "value_mean": 1.0}, LIKELY, "entropy 0.1"),
        ("weights_scaled", {"value_std": (1.0, 900.0)}, LIKELY, "value_std 1"),
        ("weights_scaled", {"value_std": 1.0}, RULED_OUT, "value_std 1"),
        ("normaliser_reset", {"entropy": (1.0, 0.3), "value_std": (1.0, 2.0)}, POSSIBLE, "value_std 1"),
        ("normaliser_reset", {"entropy": (1.0, 0.3), "value_std": 1.0}, RULED_OUT, "value_std 1"),
        ("less_choice", {"choice_fraction": (0.9, 0.1)}, LIKELY, "choice_fraction went from 0.9 to 0.1"),
        ("less_choice", {"choice_fraction": 0.9}, RULED_OUT, "0.9"),
        ("learnt", {"episode_return_mean": (1.0, 9.0)}, LIKELY, "episode_return_mean 9"),
        ("learnt", {"episode_return_mean": 1.0}, RULED_OUT, "episode_return_mean 1"),
        ("setting", {"learning_rate": (1e-3, 0.3)}, LIKELY, "learning_rate went from 0.001"),
        ("setting", {"learning_rate": [1e-3] * UPDATES}, MISSING, "epochs; unchanged: learning_rate; pass rec"),
        ("setting", {}, MISSING, "learning_rate, clip_range, "),
        ("setting", dict.fromkeys(SETTINGS, STEADY), RULED_OUT, "unchanged: learning_rate, clip_range"),
        ("setting", {"learning_rate": RAMP}, LIKELY, "learning_rate rose step by step from "),
        ("setting", dict.fromkeys(SETTINGS, STEADY) | {"learning_rate": FALLING}, RULED_OUT, "little: learning_rate"),
        ("setting", {"minibatches": (8.0, 80.0)}, LIKELY, "minibatches went from 8 to 80 at update 30 (epochs are"),
        ("setting", {"max_grad_norm": (0.5, INF)}, LIKELY, "max_grad_norm went from 0.5 to +Inf"),
    ],
)  # fmt: skip
def test_the_numbers_answer_for_a_cause(name: str, cells: Mapping[str, object], answer: Likelihood, words: str) -> None:
    at = 27 if name.startswith("reward") else START
    found, said = checked(name, cells, at)
    assert (found, words in said) == (answer, True), said


@pytest.mark.parametrize(
    ("name", "tables", "answer", "words"),
    [
        ("gradient_lost", {"groups.tensors": {"critic": 4.0}, "groups.tensors_without_grad": {"critic": (0.0, 4.0)}},
         LIKELY, "no gradient at all: critic"),
        ("gradient_lost", {"groups.tensors": {"critic": 4.0}, "groups.tensors_without_grad": {"critic": (0.0, 1.0)}},
         RULED_OUT, "no group without any"),
        ("gradient_lost", {"groups.tensors": {"critic": 4.0}, "groups.tensors_without_grad": {"critic": 0.0}},
         RULED_OUT, "every tensor has a gradient"),
        ("gradient_lost", {}, MISSING, "gradients by group"),
        ("gradient_zero", {"groups.grad_norm": {"actor": (1.0, 0.0)}, "groups.tensors_without_grad": {"actor": 0.0}},
         LIKELY, "grad_norm of actor is 0, its tensors have gradients"),
        ("gradient_zero", {"groups.grad_norm": {"actor": 1.0}, "groups.vanishing_severity": {"actor": (0.0, 0.6)}},
         LIKELY, "vanishing_severity of actor 0.6"),
        ("gradient_zero", {"groups.grad_norm": {"actor": 1.0}}, RULED_OUT, "grad_norm of actor is 1"),
        ("advantages_scale", {"groups.grad_norm": {"actor": (1.0, 50.0), "critic": 1.0}}, POSSIBLE, "of actor went"),
        ("advantages_scale", {"groups.grad_norm": {"actor": (1.0, 50.0), "critic": (1.0, 50.0)}}, RULED_OUT, "too"),
        ("advantages_scale", {"groups.grad_norm": {"actor": 1.0, "critic": 1.0}}, RULED_OUT, "no policy gradient grew"),
        ("masks_differ", {"heads.valid_actions_min": {"op": 5.0}, "heads.valid_actions_max": {"op": 5.0}},
         RULED_OUT, "no action was ever masked"),
        ("masks_differ", {"heads.valid_actions_min": {"op": 2.0}, "heads.valid_actions_max": {"op": 5.0}},
         LIKELY, "as where masks are missing"),
        ("masks_differ", {}, RULED_OUT, "no categorical head"),
        ("hidden_state", {"lstm": {}}, RULED_OUT, "mean ratio at 1"),
    ],
)  # fmt: skip
def test_the_rows_of_groups_and_heads_answer_for_a_cause(
    name: str, tables: Mapping[str, Any], answer: Likelihood, words: str
) -> None:
    cells = {"ratio_mean": 0.6 if name == "masks_differ" else 1.5, "ratio_max": 1.1, "kl_k1": 0.8, "kl_k2": 0.8}
    found, said = checked(name, cells, tables=tables)
    assert (found, words in said) == (answer, True), said


@pytest.mark.parametrize(
    ("name", "rule"),
    [("policy_replaced", "policy_replaced"), ("large_steps", "kl_spike"), ("ratio_mismatch", "first_ratio")],
)
def test_another_incident_around_it_answers_for_a_cause(name: str, rule: str) -> None:
    cells = {"entropy": 1.0, "kl_k3": 0.3}
    found, said = checked(name, cells, alarms={rule: 28})
    assert (found, f"{rule} alarmed at update 28" in said) == (LIKELY, True)


def test_a_step_is_found_in_the_update_in_which_it_happened_and_noise_has_none() -> None:
    random = np.random.default_rng(3)
    for at in (10, 20, 29, 30):
        cells = np.where(np.arange(UPDATES) < at, 1.0, 4.0) + 0.1 * random.standard_normal(UPDATES)
        made = MadeUpNumbers({}, START, "kl_spike", {})
        made._columns["x"] = pl.Series(cells)
        step = made.step("x")
        assert step is not None
        assert (step.update, round(step.before), round(step.after)) == (at, 1, 4)
    made._columns["y"] = pl.Series(1.0 + 0.1 * random.standard_normal(UPDATES))
    assert made.step("y") is None
    assert made.step("z") is None


def test_every_cause_has_its_own_name_and_names_rules_and_columns_that_exist() -> None:
    assert len(BY_CAUSE) == len(CAUSES)
    assert {rule for cause in CAUSES for rule in cause.rules} <= {rule.name for rule in RULES}
    assert {name for cause in CAUSES for name in cause.columns} <= {*BY_NAME["updates"].names}
    assert all(cause.record for cause in CAUSES if cause.columns)


def listed(path: Path, edit: Callable[[int, Rows], None]) -> tuple[Evidence, tuple[PossibleCause, ...]]:
    evidence = gather(open_run(write_run(path, 60, edit)))
    return evidence, story.frame(evidence).causes


def test_the_report_names_the_likely_cause_what_is_possible_missing_and_ruled_out(tmp_path: Path) -> None:
    def constant(update: int, rows: Rows) -> None:
        falls = update >= 35
        rows["updates"][0] |= {
            "episode_return_mean": (2.0 if falls else 10.0) + 0.1 * (update % 3),
            "reward_std": 0.0 if falls else 0.5 + 0.01 * (update % 3),
            "reward_mean": 0.0 if falls else 1.0,
        }

    evidence, causes = listed(tmp_path / "run", constant)
    assert story.frame(evidence).lead is not None
    by_name = {cause.name: cause for cause in causes}
    assert causes[0] is by_name["reward_constant"]
    assert causes[0].line.startswith("Likely: rewards became constant; reward_std is 0 since update 35 (0.5")
    assert by_name["environments_identical"].answer is MISSING
    assert by_name["environments_identical"].record == "rec.update(values=…) of shape [T, B]"
    points = [point.words for point in story.frame(evidence).after]
    advice = points.index(story.frame(evidence).look_first)
    possible = [points.index(cause.line) for cause in causes if cause.answer is POSSIBLE]
    assert points.index(causes[0].line) < advice < min(possible)
    (missing,) = [words for words in points if words.startswith("Not recorded, and so cannot be told: ")]
    assert (
        "environments are copies of each other (environments, environments_distinct; pass rec.update(values" in missing
    )
    assert "a setting changed (" in missing
    (ruled_out,) = [words for words in points if words.startswith("Ruled out: ")]
    assert "parameters were replaced between two updates (" in ruled_out


def test_page_markdown_and_json_show_the_causes(tmp_path: Path) -> None:
    def mismatch(update: int, rows: Rows) -> None:
        if update >= 30:
            rows["updates"][0] |= {"first_ratio_error": 0.8, "ratio_mean": 1.2, "kl_k1": -0.15, "kl_k2": 0.02}

    evidence, causes = listed(tmp_path / "run", mismatch)
    assert causes[0].name == "stale_log_probs"
    write_report(evidence, tmp_path / "page")
    assert "Likely: stored log-probs are stale or of another step" in (tmp_path / "page" / "index.html").read_text()
    assert "Likely: stored log-probs are stale or of another step" in (tmp_path / "page" / "report.md").read_text()
    facts = json.loads((tmp_path / "page" / "report.json").read_text())
    assert [(entry["name"], entry["answer"]) for entry in facts["causes"]] == [
        (cause.name, str(cause.answer)) for cause in causes
    ]
    assert facts["causes"][0]["answer"] == "likely"


def test_the_only_cause_that_is_left_is_likely(monkeypatch: pytest.MonkeyPatch, troubled: Evidence) -> None:
    def cause(name: str, like: str) -> Cause:
        return Cause(name, "It", ("kl_spike",), (), "", BY_CAUSE[like].check)

    lead = next(one for one in troubled.replay.incidents if one.rule == "kl_spike")
    module = "esper_analyze.reports.causes.look_alikes.CAUSES"
    monkeypatch.setattr(module, (cause("a", "other_action"), cause("b", "settings_too_large")))
    assert [(one.name, one.answer) for one in look_alikes(troubled, lead)] == [("a", LIKELY), ("b", RULED_OUT)]
    assert "all others are ruled out" in look_alikes(troubled, lead)[0].words
    monkeypatch.setattr(module, (cause("a", "other_action"), cause("b", "other_action")))
    assert [one.answer for one in look_alikes(troubled, lead)] == [POSSIBLE, POSSIBLE]
    monkeypatch.setattr(module, ())
    assert look_alikes(troubled, lead) == ()
