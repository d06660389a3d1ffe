"""Where each rule's verdict turns: at its bound, one number beside it, one update earlier or later.

The bounds are those of the detector's specification. Updates are written as lengths and letters: ``19o 1w`` is 19 that
are ok and a warning.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from esper_analyze.detector.detector import Detector
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import batch_from_rows
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Judgement, Verdict
from esper_analyze.schema.tables import BY_NAME
from tests.detector.batches import RECORDED, judge_cells

LETTERS = {"n": "not_applicable", "d": "no_data", "o": "ok", "i": "info", "w": "warning", "c": "critical"}
Cells = dict[str, Any]
BY_RULE = {rule.name: rule for rule in RULES}


def over(number: float) -> float:
    """Return the next float64 above ``number``."""
    return math.nextafter(number, math.inf)


def under(number: float) -> float:
    """Return the next float64 below ``number``."""
    return math.nextafter(number, -math.inf)


@dataclass(frozen=True)
class Case:
    """Cells of one subject and the verdict on ``metric`` at each update; numbers of the last one where they matter."""

    rule: str
    metric: str
    cells: Cells
    verdicts: str
    threshold: float | None = None
    value: float | None = None
    baseline: float | None = None
    limits: Cells = field(default_factory=dict)

    def expected(self) -> list[str]:
        return [LETTERS[letter] for n, letter in re.findall(r"(\d+)([a-z])", self.verdicts) for _ in range(int(n))]

    def thresholds(self) -> Thresholds:
        found = Thresholds.defaults([BY_RULE[self.rule]])
        for name, value in self.limits.items():
            found = found.changed(self.rule, name, value)
        return found

    def detector(self, *, defer: bool = False) -> Detector:
        return Detector(self.thresholds(), rules=[BY_RULE[self.rule]], defer=defer)

    def judgement(self) -> Judgement:
        outcome = judge_cells(self.detector(), BY_RULE[self.rule].table, self.cells, len(self.expected()))
        return next(one for one in outcome.judged[0].judgements if one.metric == self.metric)

    def rows(self) -> list[dict[str, list[Cells]]]:
        """Return the rows of each update, as the recorder hands them over."""
        rule, updates = BY_RULE[self.rule], len(self.expected())
        recorded = RECORDED if rule.table == "updates" else {}
        wanted: dict[str, Cells] = {rule.table: {**recorded}, **{table: {} for table in rule.beside}}
        for name, cells in self.cells.items():
            table, _, column = name.rpartition(".")
            wanted[table or rule.table][column] = cells
        subjects = {table: BY_NAME[table].subject for table in wanted}
        named = {"groups": "head:s0"} if "heads" in rule.beside else {}
        result = []
        for i in range(updates):
            tables = {}
            for table, columns in wanted.items():
                row = {name: cells[i] if isinstance(cells, list) else cells for name, cells in columns.items()}
                subject = subjects[table]
                tables[table] = [row if subject is None else {subject: named.get(table, "s0"), **row}]
            result.append(tables)
        return result


def single(rule: str, metric: str, others: Cells, points: Sequence[tuple[Any, str]]) -> list[Case]:
    """Return a case for each value of ``metric`` in one update."""
    return [Case(rule, metric, {**others, metric: [value]}, f"1{letter}") for value, letter in points]


def lasting(rule: str, metric: str, others: Cells, points: Sequence[tuple[Any, str]]) -> list[Case]:
    """Return a case for each value of ``metric`` that stays; the letters of all updates are given."""
    cases = []
    for value, verdicts in points:
        updates = sum(int(n) for n in re.findall(r"\d+", verdicts))
        cases.append(Case(rule, metric, {**others, metric: [value] * updates}, verdicts))
    return cases


def series(rule: str, metric: str, others: Cells, points: Sequence[tuple[Sequence[Any], str]]) -> list[Case]:
    """Return a case for each list of values of ``metric``."""
    return [Case(rule, metric, {**others, metric: list(values)}, verdicts) for values, verdicts in points]


def varied(rule: str, metric: str, cells: Cells, points: Sequence[tuple[Cells, str]]) -> list[Case]:
    """Return a case for each change of ``cells``."""
    return [Case(rule, metric, cells | one, verdicts) for one, verdicts in points]


def _relations() -> list[Case]:
    """Relations that hold by construction, moments that are there or not, environments that differ or not."""
    name, rollout = "advantage_inconsistent", "advantage_consistency"
    cases = []
    for metric, other in ((rollout, f"minibatch_{rollout}"), (f"minibatch_{rollout}", rollout)):
        cases += series(
            name,
            metric,
            {other: 0.5, "advantage_std": 1.0},
            [
                ([0.9999] * 3 + [0.9, under(0.9)], "4o 1c"),
                ([0.9999] * 2 + [under(0.9999), 0.5], "4o"),
                ([1.0, None, 1.0, 1.0, 0.5], "1o 1n 2o 1c"),
                ([over(0.1), 0.1, -1.0], "1o 2w"),
                ([1.0, math.nan, 1.0, 1.0, 1.0, 0.5], "1o 1c 3o 1c"),
                ([None], "1d"),
            ],
        )
        cases.append(Case(name, metric, {metric: [1.0, None], "advantage_std": [1.0, None]}, "1o 1d"))
    sound: Cells = {"return_residual": 1e-7, "ends_continued_fraction": 0.0, "rollout_ends": 3, "return_gamma": 0.9}
    name, residual, share = "returns_inconsistent", "return_residual", "ends_continued_fraction"
    cases += series(
        name,
        residual,
        sound,
        [
            ([1e-3] * 3 + [0.01, over(0.01)], "4o 1c"),
            ([1e-3] * 2 + [over(1e-3), 9.0], "4o"),
            ([None], "1d"),
        ],
    )
    cases += series(
        name,
        share,
        sound,
        [
            ([0.0] * 3 + [0.999, 0.999], "3o 2w"),
            ([0.0] * 3 + [under(0.999), 0.999], "4o 1i"),
            ([0.0] * 2 + [0.999], "3o"),
            ([0.0] * 3 + [0.999, 0.5, 1.0], "3o 1w 1o 1i"),
            ([None], "1d"),
        ],
    )
    cases.append(Case(name, share, sound | {share: [0.0] * 3 + [1.0], "rollout_ends": [3, 3, 3, 2]}, "3o 1i"))
    cases.append(Case(name, share, sound | {share: [0.0, None], "rollout_ends": [3, 0]}, "1o 1n"))
    cases += series(name, "return_gamma", sound, [([1.001, over(1.001), None], "1o 1c 1d")])
    cases.append(Case(name, "return_gamma", sound | {"return_gamma": 2.0, residual: [1e-3, over(1e-3)]}, "1c 1o"))
    name, error, factor = "losses_inconsistent", "policy_loss_error", "value_loss_factor"
    cases += series(
        name,
        error,
        {factor: 0.5},
        [
            ([1e-5] * 3 + [1e-4, over(1e-4), over(1e-4), 1.0, 1e-4], "5o 2w 1o"),
            ([1e-5] * 2 + [over(1e-5), 0.01, over(0.01), 0.3, 0.3], "4o 3i"),  # never exact for long enough
            ([1e-7] * 3 + [0.3, 1e-7, 0.3, 0.3], "3o 1i 1o 1i 1w"),  # exact before, at any time
            ([1e-7] * 3 + [0.3, None, 0.3], "3o 1i 1d 1w"),
            ([1e-7, math.nan], "1o 1c"),
        ],
    )
    cases += series(
        name,
        factor,
        {error: 1e-7},
        [
            ([0.5] * 4 + [0.5999, 0.5999, 0.5999], "7o"),  # a fifth more is little, and ends what was usual
            ([0.5] * 4 + [0.6001] + [0.7] * 4, "4o 1w 4o"),
            ([0.5] * 4 + [0.7] * 5, "4o 3w 2o"),  # until it is the usual one
            ([0.5] * 4 + [0.41, 0.35], "6o"),
            ([0.5] * 4 + [0.39], "4o 1w"),
            ([0.5] * 3 + [0.9], "4o"),  # equal to the one before in two updates only
            ([0.5] * 4 + [0.5005, 0.5, 0.9], "6o 1w"),
            ([0.5] * 4 + [0.51, 0.9, 0.9], "7o"),
            ([-1.0] * 4 + [1.0], "4o 1w"),
            ([0.5] * 4 + [None, 0.9], "4o 1d 1w"),
            ([0.5, math.inf], "1o 1c"),
        ],
    )
    other_loss: Cells = {error: 1e-7, factor: [0.5] * 4 + [3.0]}
    cases.append(Case(name, factor, other_loss, "4o 1w", value=3.0, baseline=0.5))
    name, shift = "parameters_changed", "parameter_shift_between_updates"
    cases += series(
        name,
        shift,
        {},
        [
            ([None, 0.0, 0.0, 0.0, 1e-6, over(1e-6)], "1d 4o 1w"),
            ([0.0, 0.0, 0.5, 0.5], "4o"),  # not unchanged for long enough
            ([*[0.0] * 3, *[0.5, 0.0] * 3, 0.5], "3o 1w 1o 1w 1o 1i 1o 1i"),
            ([*[0.0] * 3, math.nan], "3o 1c"),
            ([*[0.0] * 3, None, 0.5], "3o 1n 1w"),
        ],
    )
    name, moved, spread = "observations_changed", "observation_shift", "observation_std"
    constant, broken = "observation_constant_fraction", "observation_nonfinite_fraction"
    seen: Cells = {spread: 1.0, constant: 0.0, broken: 0.0}

    def then(usual: float, now: float | None) -> list[float | None]:
        return [usual] * 10 + [now] * 2

    wider, stiller = {spread: then(1.0, 1.5)}, {constant: then(0.0, 0.1)}
    once = {spread: [1.0] * 10 + [1.5, 1.0]}
    cases += [
        Case(name, moved, seen | {moved: [0.02] * 10 + [one, 0.02], **other}, f"10n {verdicts}")
        for one, other, verdicts in (
            (0.15, wider, "1i 1w"),
            (under(0.15), wider, "2o"),
            (0.15, once, "1i 1o"),
            (0.15, {spread: [1.0] * 10 + [1.5, over(1.05)]}, "1i 1w"),
            (0.15, {spread: [1.0] * 10 + [1.5, 1.05]}, "1i 1o"),
            (0.15, {spread: [1.0] * 10 + [1.5, None]}, "1i 1o"),
            (0.15, stiller, "1i 1w"),
            (0.15, {constant: then(0.0, under(0.1))}, "2o"),
            (under(0.4), {}, "2o"),
            (0.4, {}, "1i 1w"),
            (0.4, wider, "1i 1w"),
            (0.15, {spread: then(1.0, over(1.05))}, "1i 1w"),
            (0.15, {spread: then(1.0, 1.05)}, "2o"),
            (0.15, {spread: then(1.0, under(0.95))}, "1i 1w"),
            (0.15, {spread: then(1.0, 0.95)}, "2o"),
            (0.15, {spread: then(1.0, None)}, "2o"),
            (0.3, {spread: [1.0] * 9 + [3.0] * 3}, "2o"),
        )
    ]
    cases += [
        Case(name, moved, seen | {moved: [0.02] * 10 + [0.5, back]}, f"10n {verdicts}")
        for back, verdicts in ((under(0.15), "1i 1w"), (0.15, "1i 1o"), (None, "1i 1n"))
    ]
    cases += [
        Case(name, moved, seen | {moved: [0.1] * 10 + [one, 0.02], spread: then(1.0, width)}, f"10n {verdicts}")
        for one, width, verdicts in (
            (0.15, 2.0, "1i 1w"),
            (0.15, under(2.0), "2o"),
            (under(0.15), 2.0, "2o"),
            (0.15, 0.5, "1i 1w"),
            (0.15, over(0.5), "2o"),
            (over(0.3), 1.1, "1i 1w"),
            (under(0.3), 1.1, "2o"),
        )
    ]
    cases += series(
        name,
        moved,
        seen | {spread: [1.0] * 30 + [1.5] * 2},
        [
            ([0.02] * 9 + [0.1] + [0.02] * 20 + [0.15, 0.02], "10n 20o 1i 1w"),  # the largest is over 20 updates ago
            ([0.02] * 10 + [0.11] + [0.02] * 19 + [0.3, 0.02], "10n 22o"),  # it is 0.11
            ([0.02] * 10 + [0.1] + [0.02] * 19 + [over(0.3), 0.02], "10n 20o 1i 1w"),
            ([None] + [0.02] * 29 + [0.5, 0.02], "11n 19o 1i 1w"),
            ([None] * 21 + [0.02] * 9 + [0.5, 0.02], "31n 1o"),  # nine before are not enough
        ],
    )
    cases += series(
        name,
        moved,
        seen,
        [
            ([0.02] * 9 + [0.2] + [over(0.6), 0.02], "10n 1i 1w"),
            ([0.02] * 9 + [0.2] + [under(0.6), 0.02], "10n 2o"),
            ([0.02] * 12 + [None], "10n 2o 1n"),
        ],
    )
    cases += series(
        name,
        broken,
        seen | {moved: 0.02},
        [([0.0, 0.1, 0.1], "1o 2c"), ([0.1, 0.1, 0.0, 0.1], "2i 1o 1c"), ([None, 0.1], "1d 1i"), ([math.nan], "1c")],
    )
    name, fitted = "returns_inconsistent", "return_gamma"
    courses: list[tuple[Any, Any, str]] = [
        (0.5, [0.5, 0.5, 0.5009, 0.4991, 0.5011], "4o 1c"),
        (0.0, [0.0, 1e-3, -1e-3, over(1e-3)], "3o 1c"),
        (0.5, [0.5] * 2 + [0.6, 0.6], "2o 2i"),  # agreed in two updates only
        ([0.5] * 3 + [0.6], 0.5, "3o 1c"),  # whichever of the two changed
        ([0.5] * 3 + [None], 0.6, "3i 1o"),
        ([0.5] * 3 + [None, 0.5], [0.5] * 3 + [0.6, 0.6], "4o 1c"),
        (1.1, 1.1, "3c"),
    ]
    for passed, fits, verdicts in courses:
        cases.append(Case(name, fitted, sound | {"gamma": passed, fitted: fits}, verdicts))
    changed: Cells = sound | {"gamma": 0.5, fitted: [0.5] * 3 + [0.6]}
    cases.append(Case(name, fitted, changed, "3o 1c", value=0.6, baseline=0.5))
    cases.append(Case(name, fitted, changed | {residual: [1e-7] * 3 + [0.005]}, "4o"))  # nothing fits
    name, cells = "ends_ignored", {"episodes_finished": 1.0}
    cases += series(
        name,
        "rollout_ends",
        cells,
        [([0, 0, 0, 1, 0, 0], "2o 1c 3o"), ([0, 0, None, 0], "2o 1d 1c"), ([5], "1o")],
    )
    cases.append(Case(name, "rollout_ends", {"rollout_ends": 0, "episodes_finished": [2, 0, 1, 7]}, "2o 2c"))
    cases.append(Case(name, "rollout_ends", {"rollout_ends": 0, "episodes_finished": [2, None]}, "1o 1d"))
    cases.append(Case(name, "rollout_ends", {"rollout_ends": 0, "episodes_finished": [-1, 2**63 - 1]}, "1o 1c"))
    name, cells = "environments_alike", {"environments": 4.0, "value_std": 1.0}
    cases += series(
        name,
        "environments_distinct",
        cells,
        [([1, 1, 1], "2i 1w"), ([2, 1, 2], "1o 1w 1o"), ([1, 1, None, 1], "2i 1d 1w")],
    )
    rising = cells | {"episode_return_mean": [1.0 + i for i in range(14)]}
    cases.append(Case(name, "environments_distinct", rising | {"environments_distinct": [4] * 13 + [1]}, "13o 1i"))
    cases.append(Case(name, "environments_distinct", cells | {"environments_distinct": 1, "environments": 1}, "3n"))
    cases.append(Case(name, "environments_distinct", cells | {"environments_distinct": 1, "value_std": 0.0}, "3n"))
    name, finished, length = "episodes_stopped", "episodes_finished", "episode_length_mean"
    cases += series(
        name,
        finished,
        {length: 100.0},
        [
            ([1] * 3 + [0] * 9, "2n 10o"),
            ([1] * 3 + [0] * 11 + [1], "2n 10o 2w 1o"),
            ([1, 1] + [0] * 20 + [1], "22n 1o"),
            ([4, 0, 0] * 3 + [0] * 15, "6n 15o 3w"),  # the longest time between ends was three updates
            ([4, 0, 0, 0, 0, 4, 0, 4] + [0] * 25, "7n 25o 1w"),
            ([4, 0, 0, 0, 0, 4, 0, 4] + [0] * 12 + [None] + [0] * 13, "7n 13o 1d 12o 1w"),
        ],
    )
    numbers: Cells = {finished: [3] * 5 + [0] * 10}
    for lengths, last in (
        ([9.0, 9.0, 5.0, 5.0, 5.0], "w"),
        ([5.0, 5.0, 5.0, 9.0, 9.0], "i"),
        ([5.0] * 4 + [None], "w"),
    ):
        by_length = numbers | {length: [*lengths, *[None] * 10]}
        cases.append(Case(name, finished, by_length, f"2n 12o 1{last}", threshold=10.0, value=10.0, baseline=1.0))
    name, lost = "optimizer_restarted", "optimizer_state_lost"
    cases += series(
        name,
        lost,
        {},
        [([0.0, under(0.999), 0.999, 0.0], "2o 1w 1o"), ([1.0, 1.0, 1.0, 1.0], "2w 2i"), ([None], "1d")],
    )
    return cases


def _ratios() -> list[Case]:
    name, cells = "ratio_explosion", {"ess_fraction": 0.3, "kl_k3": 0.2, "inner_loop_measurable": True}
    cases = single(name, "ratio_max", cells, [(5.0, "o"), (over(5.0), "i"), (20.0, "i"), (over(20.0), "w")])
    far, near = 30.0, 6.0
    for value, ess, kl, verdicts in (
        (near, 0.8, 0.1, "2i"),
        (near, under(0.8), 0.1, "1i 1w"),
        (near, 0.8, over(0.1), "1i 1w"),
        (near, None, 0.1, "1i 1w"),
        (near, 0.8, None, "1i 1w"),
        (far, 0.5, 0.1, "1i 1w"),
        (far, 0.5, 0.5, "1i 1w"),
        (far, under(0.5), 0.5, "2w"),
        (far, under(0.5), over(0.5), "2c"),
        (far, under(0.5), None, "2c"),
        (far, 1.0, over(0.5), "2c"),
    ):
        changed = cells | {"ess_fraction": ess, "kl_k3": kl, "ratio_max": [value] * 2}
        cases.append(Case(name, "ratio_max", changed, verdicts))
    once = [1.0] * 3
    cases += series(
        name,
        "ratio_max",
        cells,
        [
            ([near, *once, near], "1i 3o 1w"),
            ([near, *once, 1.0, near], "1i 4o 1i"),
            ([far, *once, far], "1w 3o 1w"),
            ([far, *once, 1.0, far], "1w 4o 1w"),
        ],
    )
    measurable = {"ratio_max": [near] * 3, "inner_loop_measurable": [False, True, True]}
    cases.append(Case(name, "ratio_max", cells | measurable, "1n 1i 1w", threshold=5.0))
    cases.append(Case(name, "ratio_max", cells | {"ratio_max": far, "kl_k3": 0.6}, "2c", threshold=20.0))

    name, cells = "ratio_collapse", cells | {"ess_fraction": 0.9, "choice_fraction": 1.0}
    cases += single(name, "ratio_min", cells, [(0.1, "o"), (under(0.1), "i"), (0.01, "i"), (under(0.01), "w")])
    far, near = 0.001, 0.05
    for value, ess, kl, choice, verdicts in (
        (near, 0.8, 0.1, 1.0, "2i"),
        (near, under(0.8), 0.1, 1.0, "1i 1w"),
        (near, 0.8, over(0.1), 1.0, "1i 1w"),
        (near, None, 0.1, 1.0, "1i 1w"),
        (near, 0.3, 0.3, None, "2i"),
        (near, 0.3, over(0.3), None, "1i 1w"),
        (near, 0.3, None, None, "1i 1w"),
        (far, 0.8, 0.1, 1.0, "2i"),
        (far, under(0.8), 0.1, 1.0, "2w"),
        (far, 0.8, over(0.1), 1.0, "2w"),
        (far, 1.0, 0.5, 1.0, "2w"),
        (far, 1.0, over(0.5), 1.0, "2c"),
        (far, 1.0, None, 1.0, "2c"),
        (far, 0.3, 0.3, None, "2i"),
        (far, 0.3, over(0.3), None, "2w"),
        (far, 0.3, over(0.5), None, "2c"),
    ):
        changed = {"ess_fraction": ess, "kl_k3": kl, "choice_fraction": choice, "ratio_min": [value] * 2}
        cases.append(Case(name, "ratio_min", cells | changed, verdicts))
    cases += series(
        name,
        "ratio_min",
        cells,
        [
            ([near, *once, near], "1i 3o 1w"),
            ([near, *once, 1.0, near], "1i 4o 1i"),
            ([far, *once, far], "1w 3o 1w"),
            ([far, *once, 1.0, far], "1w 4o 1w"),
        ],
    )
    measurable = {"ratio_min": [near] * 3, "inner_loop_measurable": [False, True, True]}
    cases.append(Case(name, "ratio_min", cells | measurable, "1n 1i 1w", threshold=0.1))
    cases.append(Case(name, "ratio_min", cells | {"ratio_min": far, "kl_k3": 0.6}, "2c", threshold=0.01))
    return cases + single(
        "first_ratio",
        "first_ratio_error",
        {},
        [(1e-4, "o"), (over(1e-4), "w"), (1e-2, "w"), (over(1e-2), "c")],
    )


def _divergences() -> list[Case]:
    name = "kl_spike"
    cells: Cells = {"target_kl": None, "inner_loop_measurable": True}
    cases = single(name, "kl_k3", cells, [(0.1, "o"), (over(0.1), "i"), (0.5, "i"), (over(0.5), "c")])
    rest = [0.0] * 3
    cases += series(name, "kl_k3", cells, [([0.2, *rest, 0.2], "1i 3o 1w"), ([0.2, *rest, 0.0, 0.2], "1i 4o 1i")])
    cells = cells | {"target_kl": 0.02}
    goal = 1.5 * 0.02
    cases += lasting(name, "kl_k3", cells, [(goal, "4o"), (over(goal), "2o 2w")])
    cases += series(name, "kl_k3", cells, [([0.04, 0.04, goal, 0.04, 0.04, 0.04], "5o 1w")])
    cases.append(Case(name, "kl_k3", cells | {"kl_k3": [0.04] * 3}, "2o 1w", threshold=goal))
    cases.append(Case(name, "kl_k3", cells | {"kl_k3": [0.2] * 3}, "1i 2w", threshold=0.1))
    cases.append(Case(name, "kl_k3", {"kl_k3": [0.9], "inner_loop_measurable": True}, "1c", threshold=0.5))
    cells = {"target_kl": None, "inner_loop_measurable": True}
    twentieth = [0.05] * 20
    cases += series(
        name,
        "kl_k3",
        cells,
        [
            (twentieth + [0.25] * 2, "20o 2i"),  # five times its median
            (twentieth + [over(0.25)] * 2, "20o 1i 1w"),
            ([*twentieth[:18], *[over(0.1)] * 3], "18o 1i 2w"),  # no median before the twentieth
            ([*twentieth, over(0.25), 0.0, 0.2, over(0.25)], "20o 1i 1o 1i 1w"),
            ([0.01] * 20 + [over(0.1)] * 2, "20o 1i 1w"),
            ([0.2] * 40, "1i 22w 17i"),  # from the 21st on it is usual, and of the last five at most one is not
            ([0.2] * 20 + [0.5, over(0.5)], "1i 20w 1c"),
        ],
    )
    cases.append(Case(name, "kl_k3", cells | {"kl_k3": twentieth + [0.3] * 2}, "20o 1i 1w", threshold=0.25))
    cases.append(Case(name, "kl_k3", cells | {"kl_k3": [*twentieth, 0.2]}, "20o 1i", threshold=0.1))
    median = {"kl_k3": twentieth + [0.2] * 2, "inner_loop_measurable": [False, *[True] * 21]}
    cases.append(Case(name, "kl_k3", median, "1n 19o 1i 1i"))  # what was not measurable is not in it
    measurable: Cells = {"kl_k3": [0.2] * 4, "inner_loop_measurable": [False, True, None, True]}
    cases.append(Case(name, "kl_k3", measurable, "1n 1i 2w"))

    name, cells = "spike_then_silence", {"inner_loop_measurable": True}
    cases += series(
        name,
        "kl_k3",
        cells,
        [
            ([1.0, 0.0, 0.0], "3o"),
            ([over(1.0), 0.0, 0.0], "2o 1c"),
            ([3.0, 1e-6, 1e-6], "3o"),
            ([3.0, under(1e-6), under(1e-6)], "2o 1c"),
            ([3.0, *[0.01] * 9, 0.0, 0.0], "11o 1c"),
            ([3.0, *[0.01] * 10, 0.0, 0.0, 0.0], "14o"),
            ([3.0, *[0.01] * 9, *[0.0] * 30], "11o 29c"),
            ([3.0, None, 0.0, None, 0.0], "1o 1d 1o 1d 1c"),
            ([-math.inf, 0.0, 0.0], "1c 1o 1c"),
            ([3.0, 0.0, 0.01, 0.0, 0.0], "4o 1c"),
        ],
    )
    cases.append(Case(name, "kl_k3", cells | {"kl_k3": [2.0, 3.0, 0.0, 0.0]}, "3o 1c", threshold=1e-6, baseline=3.0))
    measurable = {"kl_k3": [3.0, 0.0, 3.0, 0.0, 0.0], "inner_loop_measurable": [False, True, False, True, True]}
    cases.append(Case(name, "kl_k3", measurable, "1n 1o 1n 2o"))

    name, cells = "clip_saturation", {"inner_loop_measurable": True, "kl_k3": 0.08}
    cases += lasting(
        name,
        "clip_fraction",
        cells,
        [(0.3, "3o"), (over(0.3), "2o 1w"), (0.5, "2o 1w"), (over(0.5), "2o 1c")],
    )
    cases += series(
        name,
        "clip_fraction",
        cells,
        [
            ([0.4, 0.4, 0.3, 0.4, 0.4, 0.4], "5o 1w"),
            ([0.4, 0.4, None, 0.4], "2o 1d 1w"),
            ([0.6, 0.6, 0.5, 0.6, 0.6, 0.6], "2o 3w 1c"),
        ],
    )
    for kl, milder, worse in (
        (0.05, "2o 1i", "2o 1i"),
        (over(0.05), "2o 1w", "2o 1c"),
        (None, "2o 1w", "2o 1c"),
        (math.nan, "2o 1w", "2o 1c"),
        ([0.08] * 3 + [0.05, 0.08], "2o 1w 1i 1w", "2o 1c 1i 1c"),
    ):
        narrow = cells | {"kl_k3": kl}
        cases += lasting(name, "clip_fraction", narrow, [(0.4, milder), (0.9, worse)])
    narrow = cells | {"clip_fraction": 0.9, "kl_k3": 0.01}
    cases.append(Case(name, "clip_fraction", narrow, "2o 1i", threshold=0.3))
    measurable = cells | {"clip_fraction": 0.4, "inner_loop_measurable": [True, True, False, True]}
    cases.append(Case(name, "clip_fraction", measurable, "2o 1n 1w", threshold=0.3))
    cases.append(Case(name, "clip_fraction", cells | {"clip_fraction": [0.9] * 3}, "2o 1c", threshold=0.5))
    return cases


def _steps() -> list[Case]:
    """Updates that do nothing, or nothing else than being clipped."""
    name, post = "frozen_update", "grad_norm_post_clip_max"
    cells = {
        "grad_norm_pre_clip_max": 3.0,
        "kl_k3": 0.01,
        "max_grad_norm": 0.5,
        "optimizer_steps": 8,
        "inner_loop_measurable": True,
        "choice_fraction": 1.0,
    }
    pre = "grad_norm_pre_clip_max"
    tiny = 5e-324
    cases = [
        Case(name, post, cells | one, verdict)
        for one, verdict in (
            ({post: 0.0, "kl_k3": 1e-12}, "1c"),
            ({post: 0.0, "kl_k3": over(1e-12)}, "1w"),
            ({post: 0.0, "kl_k3": None}, "1w"),
            ({post: 0.0, "kl_k3": 0.0, "inner_loop_measurable": False}, "1w"),
            ({post: tiny, "kl_k3": 0.0}, "1o"),
            ({post: 0.0, pre: 0.0, "kl_k3": 0.0}, "1o"),
            ({post: 0.0, pre: tiny, "kl_k3": 0.0}, "1c"),
            ({post: 0.0, "kl_k3": 0.0, "optimizer_steps": 0}, "1n"),
            ({post: 0.0, "kl_k3": 0.0, "optimizer_steps": 1}, "1c"),
            ({post: 0.0, "kl_k3": 0.0, "optimizer_steps": None}, "1d"),
            ({post: 0.5, pre: None, "max_grad_norm": None}, "1n"),
            ({post: 0.5, pre: None}, "1d"),
            ({post: None, pre: None, "max_grad_norm": None}, "1d"),
            ({post: 0.0, "max_grad_norm": None}, "1w"),
            ({post: 0.0, "kl_k3": 0.0, "choice_fraction": 0.0}, "1c"),
        )
    ]
    cases.append(Case(name, post, cells | {post: 0.0, pre: math.inf}, "1c", threshold=0.0, value=0.0))
    cases.append(Case(name, post, cells | {post: 0.5, pre: math.inf}, "1c", threshold=math.nan, value=math.inf))
    cases.append(Case(name, post, cells | {post: 0.0}, "1w", threshold=0.0, value=0.0))
    cells |= {post: 0.5}
    cases += lasting(name, "kl_k3", cells, [(1e-12, "2o 1w"), (over(1e-12), "3o")])
    cases += series(
        name, "kl_k3", cells, [([0.0, 0.0, None, 0.0], "2o 1d 1w"), ([0.0, 0.0, 1.0, 0.0, 0.0, 0.0], "5o 1w")]
    )
    moves, returns = [0.01] * 5, "episode_return_mean"
    cases += series(
        name,
        "kl_k3",
        cells,
        [
            ([*moves, *[0.0] * 4], "5o 4w"),  # it stopped at once
            ([*moves[1:], *[0.0] * 4], "4o 2o 2w"),
            ([*[1e-6] * 5, *[0.0] * 4], "5o 2o 2w"),
            ([*[over(1e-6)] * 5, *[0.0] * 4], "5o 4w"),
            ([*moves, *[1e-9], *[0.0] * 4], "5o 1o 2o 2w"),  # it came to rest slowly
            ([*moves, 0.0, None, 0.0, *moves[1:], 0.0], "5o 1w 1d 1w 4o 1o"),
            ([*moves[:3], None, *moves[3:], 0.0], "3o 1d 2o 1w"),
        ],
    )
    for level, letter in (
        (20.0, "i"),
        (10.0, "w"),
        (10.1, "i"),  # it is far beyond their scatter
        (None, "w"),
    ):
        slowly = {"kl_k3": [*[0.01] * 19, 1e-9, *[0.0] * 4], returns: [*[10.0] * 10, *[level] * 14]}
        cases.append(Case(name, "kl_k3", cells | slowly, f"22o 2{letter}", threshold=1e-12))
        at_once = {"kl_k3": [*[0.01] * 20, *[0.0] * 4], returns: [*[10.0] * 10, *[level] * 14]}
        cases.append(Case(name, "kl_k3", cells | at_once, "20o 4w", threshold=1e-12))
    for column, values in (
        ("inner_loop_measurable", [True, True, False, True]),
        ("choice_fraction", [1.0, 1.0, 0.0, 1.0]),
        ("optimizer_steps", [8, 8, 0, 8]),
    ):
        cases.append(Case(name, "kl_k3", cells | {"kl_k3": 0.0, column: values}, "2o 1n 1w", threshold=1e-12))

    name, norm = "clipping_always", "grad_norm_pre_clip"
    cases += lasting(name, "clip_active_fraction", {norm: 3.0}, [(0.9, "21o"), (over(0.9), "19o 2i")])
    cases += series(name, "clip_active_fraction", {norm: 3.0}, [([*[1.0] * 19, 0.9, *[1.0] * 20], "39o 1i")])
    late = [4.0, *[1.0] * 9]
    for norms, verdicts in (
        ([*[1.0] * 20, *[100.0] * 45], "19o 46i"),
        ([*[1.0] * 20, *[over(100.0)] * 45], "19o 41i 5w"),
        ([*[1.0] * 20, *[1000.0] * 45], "19o 21i 25w"),
        ([*[1.0] * 20, *[over(1000.0)] * 45], "19o 21i 20w 5c"),
        ([2.0, 0.0] * 5 + late + [over(100.0)] * 45, "19o 41i 5w"),
    ):
        cases.append(Case(name, "clip_active_fraction", {"clip_active_fraction": 1.0, norm: norms}, verdicts))
    risen = {"clip_active_fraction": 1.0, norm: [*[1.0] * 20, *[500.0] * 45]}
    cases.append(Case(name, "clip_active_fraction", risen, "19o 21i 25w", threshold=100.0, value=500.0, baseline=1.0))
    risen = risen | {norm: [*[1.0] * 20, *[5000.0] * 45]}
    cases.append(Case(name, "clip_active_fraction", risen, "19o 21i 25c", threshold=1000.0))
    for far, letter in ((500.0, "w"), (5000.0, "c")):
        for level_, verdicts in (
            ([10.0] * 65, f"19o 21i 25{letter}"),
            ([*[10.0] * 10, *[20.0] * 55], "19o 46i"),
            ([*[10.0] * 10, *[20.0] * 40, *[17.0] * 15], "19o 46i"),
            ([*[10.0] * 10, *[20.0] * 40, *[16.9] * 15], f"19o 40i 6{letter}"),  # the mean of ten is 16.9 at the tenth
        ):
            course = {"clip_active_fraction": 1.0, norm: [*[1.0] * 20, *[far] * 45], returns: level_}
            cases.append(Case(name, "clip_active_fraction", course, verdicts))

    skipped = "nonfinite_skipped"
    cases += series(
        "update_skipped",
        "status",
        {},
        [
            ([skipped, "no_usable_steps", "performed", skipped, skipped, skipped], "2w 1o 2w 1c"),
            ([skipped, skipped, None, skipped], "2w 1d 1c"),
            ([skipped, skipped, "interrupted", skipped, "kl_stopped"], "4w 1o"),
        ],
    )
    cases.append(Case("update_skipped", "status", {"status": skipped}, "2w 2c", threshold=3.0, value=4.0))
    cases += single("data_lost", "dropped_rows", {}, [(0, "o"), (1, "w")])
    cases.append(Case("data_lost", "dropped_rows", {"dropped_rows": [7]}, "1w", threshold=0.0, value=7.0))
    return cases


SCALE = {"return_mean": 10.0, "return_variance": 4.0, "ev_low_variance": False}
"""Returns that vary."""


def _critics() -> list[Case]:
    ev = "explained_variance"
    cases = []
    for name, cells, verdicts in (
        ("value_collapse", {"value_nrmse": None, "progress": 0.5}, "19o 1c"),
        ("critic_constant", {"value_nrmse": 2.0}, "19o 1w"),
        ("critic_not_learning", {"value_nrmse": 3.0}, "59n 49i 1w"),
    ):
        excused = f"{sum(int(n) for n in re.findall(r'[0-9]+', verdicts))}n"
        value = -2.0 if name == "value_collapse" else 0.0
        for returns, letters in (
            ({"return_mean": 100.0, "return_variance": 1.0}, verdicts),  # 1 % of the mean is a deviation of 1
            ({"return_mean": 100.0, "return_variance": under(1.0)}, excused),
            ({"return_mean": -100.0, "return_variance": under(1.0)}, excused),
            ({"return_mean": 0.0, "return_variance": 0.0}, verdicts),
            ({"return_mean": None, "return_variance": 0.0}, verdicts),
            ({"ev_low_variance": True}, excused),
            ({"ev_low_variance": None}, verdicts),
        ):
            cases += lasting(name, ev, cells | SCALE | returns, [(value, letters)])

    first = len(cases)
    name, cells = "value_collapse", SCALE | {"value_nrmse": None}  # an error that is not known excuses nothing
    for progress, bound in (
        (0.0, -0.5),
        (under(0.1), -0.5),
        (0.1, -0.2),
        (under(0.25), -0.2),
        (0.25, 0.0),
        (under(0.75), 0.0),
        (0.75, 0.1),
        (1.0, 0.1),
    ):
        phase = cells | {"progress": progress}
        cases += lasting(
            name,
            ev,
            phase,
            [(bound, "5o"), (under(bound), "4o 1w"), (bound - 1.0, "4o 1w"), (under(bound - 1.0), "4o 1c")],
        )
    cells |= {"progress": 0.5}
    cases += [
        Case(name, ev, cells | {ev: -3.0, "value_nrmse": [*[early] * 10, *[late] * 5]}, f"4o {letters}")
        for early, late, letters in (
            (0.5, 1.1, "11i"),
            (0.5, over(1.1), "10i 1c"),
            (2.0, 2.5, "11i"),  # a quarter more than its mean over the first ten
            (2.0, over(2.5), "10i 1c"),
            (2.0, None, "10i 1c"),
            (2.0, math.nan, "10i 1c"),
            (9.0, 9.0, "11i"),  # it was never better
            (None, over(1.1), "6c 5i"),  # its first updates are those that are known
        )
    ]
    worse = cells | {ev: -0.3, "value_nrmse": [*[2.0] * 10, 99.0, *[2.6] * 4]}
    cases.append(Case(name, ev, worse, "4o 10i 1w"))  # the eleventh is no part of the early level
    worse = worse | {"value_nrmse": [*[2.0] * 10, *[2.6] * 3, 2.5, *[2.6] * 5]}
    cases.append(Case(name, ev, worse, "4o 14i 1w"))
    cases.append(Case(name, ev, cells | {ev: -0.3}, "4o 1w", threshold=0.0, value=-0.3))
    cases.append(Case(name, ev, cells | {ev: -3.0}, "4o 1c", threshold=-1.0, baseline=-3.0))
    cases += series(
        name,
        ev,
        cells,
        [
            ([-0.3] * 4 + [0.5] + [-0.3] * 5, "9o 1w"),
            ([-0.3, -0.3, None, -0.3, -0.3, -0.3], "2o 1d 2o 1w"),
            # better than the mean of its first ten, whatever the eleventh was
            ([-2.0] * 10 + [9.0] + [-1.5] * 6, "4o 6c 7o"),
            ([-2.0] * 10 + [9.0] + [-2.0] * 6, "4o 6c 5o 2c"),
        ],
    )
    fading = cells | {ev: -0.3, "value_nrmse": [None] * 4 + [1.0] + [None] * 5}
    cases.append(Case(name, ev, fading, "4o 5i 1w"))
    at_once = {"least_updates": 1, "sustained": 5}  # progress alone says which phase it is
    cases = [*cases[:first], *(replace(case, limits=at_once) for case in cases[first:]), *_phases()]

    return cases + _flat_critics() + _diverging_critics()


def _flat_critics() -> list[Case]:
    """Critics that explain nothing, with returns at their best or not."""
    ev, cases = "explained_variance", list[Case]()
    name, cells = "critic_constant", SCALE | {"value_nrmse": 3.0}
    band = 1e-3
    cases += lasting(
        name, ev, cells, [(band, "20o"), (under(band), "19o 1w"), (-band, "20o"), (-under(band), "19o 1w")]
    )
    cases += [
        Case(name, ev, cells | {ev: [0.0] * 101, "value_nrmse": nrmse}, verdicts)
        for nrmse, verdicts in ((1.1, "19o 82i"), (over(1.1), "19o 80w 2c"), (None, "19o 80w 2c"))
    ]
    cases += series(
        name, ev, cells, [([0.0] * 19 + [0.5] + [0.0] * 20, "39o 1w"), ([0.0] * 19 + [None, 0.0], "19o 1d 1w")]
    )
    cases.append(Case(name, ev, cells | {ev: -0.0005}, "19o 1w", threshold=1e-3, value=0.0005))
    cases.append(Case(name, ev, cells | {ev: 0.0}, "19o 80w 1c", threshold=1e-3))

    returns = "episode_return_mean"
    for level, verdicts in (
        (20.0, "19o 101i"),
        (10.0, "19o 80w 21c"),
        (10.1, "19o 101i"),
        (None, "19o 80w 21c"),
    ):
        learnt = {ev: 0.0, returns: [*[10.0] * 10, *[level] * 110]}
        cases.append(Case(name, ev, cells | learnt, verdicts))
    for level, verdicts in ((17.0, "19o 11i"), (16.9, "19o 10i 1w")):  # three tenths of the way back are the most
        fallen = {ev: 0.0, returns: [*[10.0] * 10, *[20.0] * 10, *[level] * 10]}
        cases.append(Case(name, ev, cells | fallen, verdicts))

    name, cells = "critic_not_learning", SCALE | {"value_nrmse": 1.0}
    late = [0.0] * 10
    cases += series(
        name,
        ev,
        cells,
        [
            ([0.0] * 61, "59n 2i"),
            ([0.1] * 61, "59n 2o"),
            ([under(0.1)] * 61, "59n 2i"),
            (late + [0.05] * 51, "59n 2i"),
            (late + [over(0.05)] * 51, "59n 2o"),
            (late + [5.0] + [0.06] * 50, "59n 2o"),
            ([None] * 3 + [0.0] * 61, "3d 59n 2i"),
        ],
    )
    cases += [
        Case(name, ev, cells | {ev: 0.0, "value_nrmse": nrmse}, f"59n 2{letter}")
        for nrmse, letter in ((2.0, "i"), (over(2.0), "w"))
    ]
    cases.append(Case(name, ev, cells | {ev: 0.0, "value_nrmse": None}, "59n 2d"))
    cases.append(Case(name, ev, cells | {ev: 0.0, "ev_low_variance": [True] * 5 + [False] * 61}, "64n 2i"))
    for level, letter in ((20.0, "i"), (10.0, "w"), (10.1, "i"), (None, "w")):
        learnt = {ev: 0.0, "value_nrmse": 3.0, returns: [*[10.0] * 10, *[level] * 51]}
        cases.append(Case(name, ev, cells | learnt, f"59n 2{letter}"))
    for level, letter in ((17.0, "i"), (16.9, "w")):
        fallen = {ev: 0.0, "value_nrmse": 3.0, returns: [*[10.0] * 10, *[20.0] * 40, *[level] * 10]}
        cases.append(Case(name, ev, cells | fallen, f"59n 1{letter}"))
    numbers = cells | {ev: late + [0.04] * 51, "value_nrmse": 3.0}
    cases.append(Case(name, ev, numbers, "59n 2w", threshold=0.1, value=0.04, baseline=0.0))
    cases = [replace(case, limits={"sustained": 1}) if case.rule == name else case for case in cases]
    cases.append(Case(name, ev, cells | {ev: 0.0, "value_nrmse": 3.0}, "59n 49i 2w"))
    return cases


def _diverging_critics() -> list[Case]:
    cases = list[Case]()
    name, nrmse = "value_divergence", "value_nrmse"
    for metric, other, usual, warning, critical in (
        (nrmse, "bellman_error", 2.0, 6.0, 60.0),  # 3 times its level
        (nrmse, "bellman_error", 1.0, 5.0, 50.0),  # the floor
        ("bellman_error", nrmse, 1.0, 10.0, 100.0),
    ):
        calm = [usual] * 20
        cases += series(
            name,
            metric,
            {other: 1.0},
            [
                (calm + [warning] * 3, "20n 3o"),
                (calm + [over(warning)] * 3, "20n 2o 1w"),
                (calm + [over(warning)] * 2 + [warning] + [over(warning)] * 3, "20n 5o 1w"),
                (calm + [over(warning)] * 2 + [None, over(warning)], "20n 2o 1d 1w"),
                (calm + [critical] * 3, "20n 2o 1w"),
                (calm + [over(critical)] * 3, "20n 2o 1c"),
                (calm + [over(critical)] * 2 + [critical] + [over(critical)] * 3, "20n 2o 3w 1c"),
            ],
        )
        numbers = {other: 1.0, metric: [*calm, *[critical] * 3]}
        cases.append(Case(name, metric, numbers, "20n 2o 1w", threshold=warning, value=critical, baseline=usual))
        cases.append(Case(name, metric, numbers | {metric: calm + [9e9] * 3}, "20n 2o 1c", threshold=critical))
    falling, odd, rising = [4.0] * 10 + [2.0] * 10, [4.0] * 10 + [15.0] + [2.0] * 9, [1.0] * 10 + [3.0] * 10
    cases += series(
        name,
        nrmse,
        {"bellman_error": 1.0},
        [
            (falling + [12.0] * 3, "20n 3o"),  # the mean of the first ten, 4, is above the median
            (falling + [over(12.0)] * 3, "20n 2o 1w"),
            (odd + [over(12.0)] * 3, "20n 2o 1w"),
            (rising + [6.0] * 3, "20n 3o"),  # the median, 2, is above the mean of the first ten
            (rising + [over(6.0)] * 3, "20n 2o 1w"),
        ],
    )
    return cases


def _phases() -> list[Case]:
    """A plan of few updates, which passes through the phases of a critic more slowly; and returns at their best."""
    name, ev = "value_collapse", "explained_variance"
    cells: Cells = SCALE | {"value_nrmse": None}
    cases = [
        Case(name, ev, cells | {ev: value, "progress": progress}, verdicts)
        for value, progress, verdicts in (
            (-0.3, 0.9, "38o 1w"),  # the first phase ends with the twentieth of two hundred updates
            (-0.3, 0.1, "38o 1w"),
            (-0.3, under(0.1), "60o"),
            (-0.1, 0.9, "68o 1w"),
            (-0.1, under(0.25), "80o"),
            (0.0625, 0.9, "168o 1w"),
            (0.0625, under(0.75), "180o"),
            (-0.3, None, "69o 1w"),
        )
    ]
    short: Cells = {"least_updates": 70}  # of which a tenth is 7.000000000000001
    cases.append(Case(name, ev, cells | {ev: -0.3, "progress": 0.9}, "25o 1w", limits=short))
    cells |= {"progress": 0.5}
    for value, late, verdicts in (
        (-3.0, 66.0, "4o 6c 30i"),  # from the eleventh on returns are at their best: a mean of 18, in the end of 90
        (-1.0, 66.0, "4o 6w 30i"),
        (-3.0, 65.9, "4o 6c 29i 1c"),  # three tenths of the way from 90 to 10 are the most that they may lose
        (-1.0, 65.9, "4o 6w 29i 1w"),
        (-0.3, 66.0, "23o 17i"),
    ):
        returns = [*[10.0] * 10, *[90.0] * 20, *[late] * 10]
        course = cells | {ev: value, "episode_return_mean": returns}
        cases.append(Case(name, ev, course, verdicts, limits={"sustained": 5}))
    return cases


def _fits() -> list[Case]:
    name, correlation, ev = "value_fit_lost", "value_return_correlation", "explained_variance"
    cells: Cells = SCALE | {"reward_min": 0.0, "reward_max": 1.0}
    z = [0.8, 0.7] * 6
    cells |= {ev: [*z, *[0.0] * 3]}
    mean, scatter = 0.75, math.sqrt(12 * 0.05**2 / 11)
    error = scatter * math.sqrt(1 / 3 + 1 / 12)
    cases = []
    for low, verdicts in ((mean - 0.301, "12n 2o 1w"), (mean - 0.299, "12n 3o")):
        cases.append(Case(name, correlation, cells | {correlation: [math.tanh(x) for x in [*z, *[low] * 3]]}, verdicts))
    for beyond, letter in ((1.01, "w"), (0.99, "o")):
        few: Cells = {"fall": 0.0}
        low = mean - beyond * 4.0 * error
        course = [math.tanh(x) for x in [*z, *[low] * 3]]
        cases.append(Case(name, correlation, cells | {correlation: course}, f"12n 2o 1{letter}", limits=few))
        slow = cells | {ev: [*z, *[low] * 3], correlation: [math.tanh(x) for x in [*z, *[0.0] * 3]]}
        cases.append(Case(name, correlation, slow, f"12n 2o 1{letter}", limits=few))
    lost = [math.tanh(x) for x in [*z, *[0.0] * 6]]
    cases += varied(
        name,
        correlation,
        cells | {correlation: lost},
        [
            ({ev: [*z, *[0.0] * 6]}, "12n 2o 1w 3o"),  # then the older ones hold the first that is as low
            ({ev: 0.7}, "12n 6o"),
            ({ev: [*z, *[-9.0] * 6]}, "12n 2o 1w 3o"),
            ({ev: [*z, 0.0, None, 0.0, 0.0, 0.0, 0.0]}, "12n 1o 1d 1o 1w 2o"),
            ({ev: [*z, 0.0, math.nan, 0.0, 0.0, 0.0, 0.0]}, "12n 1o 1c 1o 1w 2o"),
            ({ev: [*z, *[0.0] * 6], "reward_max": [*[1.0] * 12, *[0.0] * 6]}, "18n"),
            ({ev: [*z, *[0.0] * 6], "return_variance": [*[4.0] * 12, *[0.0] * 6]}, "18n"),
            ({ev: [*z, *[0.0] * 6], correlation: [*lost[:13], lost[0], *lost[13:17]]}, "12n 6o"),
        ],
    )
    returns, before = "episode_return_mean", [1.0, 2.0] * 6
    error = math.sqrt(12 * 0.5**2 / 11) * math.sqrt(1 / 3 + 1 / 12)
    for level, latest, letter in (
        ([*before, *[1.5 + 1.501 * error] * 3], 0.05, "i"),  # a better policy is new to the critic
        ([*before, *[1.5 + 1.499 * error] * 3], 0.05, "w"),
        ([*before, *[9.0] * 3], 5e-324, "i"),
        ([*before, *[9.0] * 3], 0.0, "w"),  # what it predicts has nothing to do with them
        ([*before, *[9.0] * 3], -0.05, "w"),
        ([*before, *[-9.0] * 3], 0.05, "w"),
        ([*[0.7] * 12, *[0.8] * 3], 0.05, "i"),
        ([0.7] * 15, 0.05, "w"),
        ([0.0] * 15, 0.05, "w"),
        (None, 0.05, "w"),
    ):
        course = [*(math.tanh(x) for x in z), 0.05, 0.05, latest]
        cases.append(Case(name, correlation, cells | {correlation: course, returns: level}, f"12n 2o 1{letter}"))
    return cases


def _entropies() -> list[Case]:
    norm = "entropy_norm"
    cells: Cells = {"choice_fraction": 1.0, "entropy": 1.0, "choices_unknown": False}
    cases = single("entropy_low", norm, cells, [(0.3, "o"), (under(0.3), "i")])
    for rule in ("entropy_low", "entropy_collapse"):
        cases += [
            Case(rule, norm, cells | {norm: None} | one, verdict)
            for one, verdict in (
                ({}, "1d"),
                ({"choice_fraction": 0.0}, "1n"),
                ({"choice_fraction": None}, "1n"),
                ({"choice_fraction": None, "entropy": None}, "1d"),
                ({"choice_fraction": None, "choices_unknown": True}, "1d"),
                ({"choice_fraction": None, "choices_unknown": None}, "1n"),
            )
        ]
        cases.append(Case(rule, norm, cells | {norm: 0.01, "choice_fraction": 0.0}, "1n"))
        letter = "i" if rule == "entropy_low" else "c"
        cases.append(Case(rule, norm, cells | {norm: 0.01, "choice_fraction": None}, f"1{letter}"))

    name = "entropy_collapse"
    cases += single(name, norm, cells, [(0.1, "o"), (under(0.1), "w"), (0.02, "w"), (under(0.02), "c")])
    cases.append(Case(name, norm, cells | {norm: 0.05}, "1w", threshold=0.1))
    cases.append(Case(name, norm, cells | {norm: 0.01}, "1c", threshold=0.02))
    return cases


def _deviations() -> list[Case]:
    """Standard deviations of a Gaussian head: not positive, running away, collapsed."""
    smallest, mean = "std_min", "std_mean"
    head: Cells = {"kind": "gaussian"}
    cells: Cells = head | {mean: 0.5, "std_nonpositive_fraction": 0.0}
    name = "std_nonpositive"
    points = [(over(0.0), "o"), (0.0, "c"), (-0.0, "c"), (-1.0, "c"), (math.nan, "c"), (math.inf, "c")]
    cases = single(name, smallest, cells, points)
    cases += [
        Case(name, smallest, cells | {smallest: 0.2} | one, verdict)
        for one, verdict in (
            ({smallest: None}, "1o"),
            ({smallest: None, mean: 0.0}, "1c"),
            ({mean: None}, "1d"),
            ({mean: math.nan}, "1c"),
            ({"std_nonpositive_fraction": None}, "1o"),
            ({"std_nonpositive_fraction": 1e-9}, "1c"),
            ({mean: None, "kind": "categorical"}, "1n"),
            ({"kind": "other"}, "1o"),
            ({mean: None, "kind": "other"}, "1n"),
        )
    ]
    name, early = "std_runaway", [1.0] * 3
    step = math.exp(0.005)
    cases += series(
        name,
        mean,
        head,
        [
            ([*early, *[1.0] * 16, *[2.0] * 2, over(2.0), *[over(2.0)] * 18], "19n 2o 17w 2o"),
            ([*early, *[1.0] * 16, 5.0, over(5.0), 5.0], "19n 1w 1c 1w"),
            ([0.5, 0.5, 0.5, *[1.0] * 17, *[1.2, 1.5, over(1.5)]], "19n 3o 1w"),
            ([0.1, 0.1, 0.1, *[0.1] * 17, 1.5, over(1.5)], "19n 2o 1c"),
            ([*early, *[3.0 * step ** (1.01 * i) for i in range(40)]], "19n 24w"),
            ([*early, *[3.0 * step ** (0.99 * i) for i in range(40)]], "19n 3w 21o"),
            ([*early, 5.0, over(5.0)], "4n 1c"),
            ([*early, *[1.0] * 16, None, 3.0, math.nan, 3.0], "19n 1d 1w 1c 1w"),
            ([None], "1d"),
        ],
    )
    cases.append(Case(name, mean, {"kind": "categorical", mean: [None]}, "1n"))
    name, returns = "std_collapse", "updates.episode_return_mean"
    cases += series(
        name,
        mean,
        head | {returns: None},
        [
            ([*early, 0.1, 0.1, 0.1, 0.1], "7o"),
            ([*early, *[under(0.1)] * 4], "3o 1w 1o 2w"),  # halved at once, then low for three
            ([*early, *[0.02] * 3, under(0.02)], "3o 1w 1o 1w 1c"),
            ([*early, 0.05, 0.05, 0.1, 0.05, 0.05, 0.05], "3o 1w 4o 1w"),
            ([*early, 0.15, 0.09, under(0.045)], "5o 1w"),
            ([*early, 0.05, 0.05, None, 0.05], "3o 1w 1o 1d 1w"),
            ([*early, math.nan, 0.0, 0.0, -1.0], "3o 1c 1w 1o 1c"),
            ([None], "1d"),
        ],
    )
    rising = [1.0 + 0.1 * i for i in range(60)]
    slow = [0.05 ** (i / 59) for i in range(60)]
    below = next(i for i, std in enumerate(slow) if std < 0.1 * sum(slow[:3]) / 3)
    cases.append(Case(name, mean, head | {mean: slow, returns: rising}, f"{below + 2}o {58 - below}i"))
    cases.append(Case(name, mean, head | {mean: slow, returns: 1.0}, f"{below + 2}o {58 - below}w"))
    quick = [*[1.0] * 50, *[0.2 * 0.3] * 10]
    cases.append(Case(name, mean, head | {mean: quick, returns: rising}, "50o 1w 1o 8w"))
    cases.append(Case(name, mean, {"kind": "categorical", mean: [None], returns: None}, "1n"))
    return cases


def _descents() -> list[Case]:
    """Entropies that come down, with returns at their best or not; and heads."""
    norm, returns = "entropy_norm", "episode_return_mean"
    joint: Cells = {"choice_fraction": 1.0, "entropy": 1.0, "choices_unknown": False}
    cells: Cells = {"kind": "categorical", "learnable_fraction": 1.0}
    cases = []
    for rule, column, others in (
        ("entropy_collapse", returns, joint),
        ("head_entropy_collapse", f"updates.{returns}", cells),
    ):
        head = rule == "head_entropy_collapse"
        for between, last, early, late, letter in (
            (24, 0.05, 10.0, 20.0, "i"),
            (5, 0.05, 10.0, 20.0, "i"),  # however fast
            (24, 0.05, 10.0, 10.0, "w"),
            (24, 0.05, 10.0, 10.1, "i"),  # it is far beyond their scatter
            (24, 0.05, -10.0, -10.0, "w"),
            (24, 0.05, -10.0, -9.9, "i"),
            (24, 0.05, 10.0, None, "w"),
            (24, 0.01, 10.0, 20.0, "i"),
            (5, 0.01, 10.0, 20.0, "i"),
            (24, 0.01, 10.0, 10.0, "w" if head else "c"),
        ):
            steps = [0.6] * 10 + [0.3] * between + [last] * 4
            level: list[float | None] = [*[early] * 10, *[late] * (between + 4)]
            verdicts = f"{10 + between}o " + (f"2o 2{letter}" if head else f"4{letter}")
            cases.append(Case(rule, norm, others | {norm: steps, column: level}, verdicts))
        for early, best, late, below, lost in (
            # the mean of the last ten: 11, then 12, … three tenths of the way back to 10 are the most that it may lose
            (10.0, 20.0, 17.0, 1, False),
            (10.0, 20.0, 16.9, 1, True),
            (-10.0, -5.0, -6.5, 1, False),
            (-10.0, -5.0, -6.6, 1, True),
        ):
            steps = [0.6] * 10 + [0.05] * 30
            level = [*[early] * 10, *[best] * 20, *[late] * 10]
            verdicts = "12o 27i" if head else f"10o {below}w {29 - below}i"
            verdicts += (" 1c" if head else " 1w") if lost else " 1i"
            cases.append(Case(rule, norm, others | {norm: steps, column: level}, verdicts))
        steps = [0.6] * 10 + [0.3] * 24 + [0.05] * 16  # returns rise when it has been low for some time
        level = [*[10.0] * 38, *[30.0] * 12]  # of the last ten one: a mean of 12
        verdicts = "36o 2w 12i" if head else "34o 4w 12i"
        cases.append(Case(rule, norm, others | {norm: steps, column: level}, verdicts))
        steps = [0.6] * 10 + [0.3] * 24 + [0.05] * 4 + [0.6] * 2 + [0.05] * 4
        level = [*[10.0] * 10, *[20.0] * 34]
        verdicts = "34o 2o 2i 2o 2o 2i" if head else "34o 4i 2o 4i"
        cases.append(Case(rule, norm, others | {norm: steps, column: level}, verdicts))

    name = "head_entropy_collapse"
    clear = 1.5 * 0.1
    cases += lasting(name, norm, cells, [(0.1, "3o"), (under(0.1), "2o 17w 2c")])
    low = [0.05] * 3
    cases += series(
        name,
        norm,
        cells,
        [
            ([*low, clear, 0.05], "2o 3w"),
            ([*low, over(clear), *low], "2o 1w 3o 1w"),
            ([*low, None, 0.05], "2o 1w 1d 1w"),
        ],
    )
    cases.append(Case(name, norm, cells | {norm: low}, "2o 1w", threshold=0.1))
    cases.append(Case(name, norm, cells | {norm: [*low, 0.12]}, "2o 2w", threshold=clear))
    rising = cells | {f"updates.{returns}": [10.0] * 10 + [20.0] * 45}
    cases.append(Case(name, norm, rising | {norm: [0.6] * 10 + [0.3] * 24 + [0.05] * 21}, "36o 19i"))
    cases.append(Case(name, norm, rising | {norm: [0.6] * 34 + [0.05] * 21}, "36o 19i"))
    cases.append(Case(name, norm, cells | {norm: 0.05, "learnable_fraction": [1.0, 1.0, 0.0, 1.0]}, "2o 1n 1w"))
    cases.append(Case(name, norm, cells | {norm: 0.05, "kind": "gaussian"}, "3n"))
    own: Cells = {"per_head": {"s0": 0.5, "s1": 0.01}}
    steps = [0.5] * 20 + [0.4] * 3 + [0.75, 0.76, 0.4]
    cases.append(Case(name, norm, cells | {norm: steps}, "22o 2w 2o", limits=own))
    cases.append(Case(name, norm, cells | {norm: 0.05, "kind": None}, "2o 1w"))
    unknown: list[tuple[Cells, str]] = [
        ({"entropy": 1.0, "choice_samples": None}, "1d"),
        ({"entropy": 1.0, "choice_samples": 3}, "1d"),
    ]
    cases += varied(name, norm, cells | {norm: None}, unknown)
    choice = [(0.05, "o"), (under(0.05), "i")]
    return cases + single("mask_collapse", "learnable_fraction", {"kind": "categorical"}, choice)


def _advantages() -> list[Case]:
    name, std, returns = "advantage_collapse", "advantage_std", "episode_return_mean"
    cases = []
    rising = [10.0] * 10 + [20.0] * 15
    for narrow, level, letter in (
        (0.1, None, "o"),
        (under(0.1), None, "i"),
        (under(0.1), rising, "i"),
        (1e-8, None, "i"),
        (under(1e-8), None, "c"),
        (under(1e-8), rising, "i"),
        (under(1e-8), [10.0] * 25, "c"),
    ):
        cells = {std: [1.0] * 20 + [narrow] * 5, returns: level}
        cases.append(Case(name, std, cells, f"24o 1{letter}"))
    cases += series(
        name,
        std,
        {returns: None},
        [
            ([1.0] * 10 + [12.0] + [0.15] * 5, "16o"),  # the eleventh is no part of the early level
            ([1.0] * 10 + [0.05] * 4 + [0.5] + [0.05] * 5, "19o 1i"),
            ([1.0] * 10 + [0.05] * 4 + [None, 0.05], "14o 1d 1i"),
            ([1.0] * 10 + [0.0] * 4 + [0.05] + [0.0] * 5, "14o 5i 1c"),
        ],
    )
    ones = [1.0] * 10
    cases.append(Case(name, std, {std: ones + [0.02] * 5}, "14o 1i", threshold=0.1, value=0.02, baseline=1.0))
    least, most = "reward_min", "reward_max"
    unrewarded = {least: 0.0, most: [*[1.0] * 10, *[0.0] * 3, 1.0, *[0.0] * 3, 1.0]}
    course = ones + [0.05] * 8  # six of them in rollouts without a reward
    cases.append(Case(name, std, {std: course, **unrewarded}, "10o 3n 1o 3n 1o"))
    cases.append(Case(name, std, {std: course, **unrewarded}, "10o 3n 1o 3n 1i", limits={"sustained": 2}))
    cases += varied(
        name,
        most,
        {std: 1.0, least: 0.0, returns: 2.0},
        [
            ({most: [*[1.0] * 10, *[0.0] * 6]}, "14o 2w"),
            ({most: [*[1.0] * 10, *[0.0] * 6, 1.0]}, "14o 2w 1o"),
            ({most: [*[1.0] * 9, *[0.0] * 6]}, "13o 2i"),  # after ten with a reward
            ({most: [0.0, 0.0, *[1.0] * 10, *[0.0] * 6]}, "16o 1i 1w"),  # three times as long as ever before
            ({most: [*[1.0] * 10, *[0.0] * 4, None, 0.0]}, "14o 1n 1w"),
            ({most: [*[1.0] * 10, *[0.0] * 5], least: [*[0.0] * 14, -0.1]}, "15o"),
            ({most: [*[1.0] * 15, *[0.0] * 5], returns: [*[1.0] * 5, *[2.0] * 15]}, "19o 1w"),  # returns say otherwise
            ({most: [*[1.0] * 15, *[0.0] * 5], returns: [*[-1.0] * 10, *[0.0] * 10]}, "19o 1i"),  # penalties are over
            ({most: None, least: None, returns: [*[1.0] * 10, *[0.0] * 5]}, "14o 1w"),
            ({most: [0.0] * 5, returns: 0.0}, "4o 1i"),
            ({most: [math.nan, 1.0]}, "1n 1o"),
        ],
    )
    cases.append(Case(name, std, {std: ones + [0.0] * 5}, "14o 1c", threshold=1e-8))

    return cases + _outliers() + _alignments()


def _alignments() -> list[Case]:
    name, alignment = "advantage_misaligned", "advantage_alignment"
    cells: Cells = {"inner_loop_measurable": True}
    cases = series(
        name,
        alignment,
        cells,
        [
            ([-1.0] * 26, "14n 9w 3c"),
            ([0.0] * 16, "14n 2w"),
            ([5e-324] * 16, "14n 2o"),
            ([*[1.0] * 9, *[-1.0] * 6], "14n 1o"),
            ([*[1.0] * 8, *[-1.0] * 7], "14n 1i"),
            ([*[1.0] * 7, *[-1.0] * 8], "14n 1i"),
            ([*[1.0] * 6, *[-1.0] * 9], "14n 1w"),
            ([*[-1.0] * 5, *[1.0] * 10], "14n 1o"),  # of the last ten only
            ([*[-1.0] * 14, None, -1.0, None, -1.0], "14n 1d 1w 1d 1i"),
            ([*[0.5] * 14, math.nan, 0.5], "14n 1c 1o"),
            ([*[-1.0] * 20, 1.0, -1.0, 1.0, -1.0, -1.0], "14n 8w 3i"),
        ],
    )
    cases.append(Case(name, alignment, cells | {alignment: -1.0}, "14n 1w", threshold=9.0, value=10.0))
    cases.append(
        Case(name, alignment, cells | {alignment: -1.0}, "4n 9w 2c", limits={"least": 5, "info": 1, "often": 1})
    )
    undefined = cells | {"kl_k3": 0.0, alignment: [None, *[0.5] * 16, None, None, 0.5]}
    cases.append(Case(name, alignment, undefined, "1d 14n 2o 2n 1o"))
    measurable = {alignment: -1.0, "inner_loop_measurable": [*[True] * 15, False, True]}
    cases.append(Case(name, alignment, measurable, "14n 1w 1n 1w"))
    return cases


def _outliers() -> list[Case]:
    std, cases = "advantage_std", list[Case]()
    name, low, high = "advantage_outlier", "advantage_min", "advantage_max"
    for least, most, spread, verdict in (
        (-1.0, 10.0, 1.0, "1o"),
        (-1.0, over(10.0), 1.0, "1i"),
        (-10.0, 1.0, 1.0, "1o"),
        (-over(10.0), 1.0, 1.0, "1i"),
        (-1.0, 50.0, 1.0, "1i"),
        (-1.0, over(50.0), 1.0, "1w"),
        (-1.0, 20.0, 2.0, "1o"),
        (-1.0, over(20.0), 2.0, "1i"),
        (0.0, 9e-12, 1e-12, "1o"),
        (0.0, 60e-12, 1e-12, "1w"),
        (0.0, 60e-12, under(1e-12), "1n"),
        (None, 1.0, 1.0, "1d"),
        (-1.0, 1.0, None, "1d"),
        (-1.0, 1.0, math.nan, "1c"),
    ):
        cases.append(Case(name, high, {low: least, high: most, std: spread}, verdict))
    cases.append(Case(name, high, {low: -30.0, high: 20.0, std: 2.0}, "1i", threshold=10.0, value=15.0))
    cases.append(Case(name, high, {low: -30.0, high: 120.0, std: 2.0}, "1w", threshold=50.0, value=60.0))
    return cases


def _states() -> list[Case]:
    """Recurrent states."""
    name, cases = "lstm_explosion", []
    calm = {"c_env_rms_max": 0.5, "c_rms": 0.5, "h_rms": 0.5}
    for metric, warning in (("c_env_rms_max", 10.0), ("c_rms", 5.0), ("h_rms", 5.0)):
        cases += single(name, metric, calm, [(warning, "o"), (over(warning), "i"), (90 * warning, "i")])
        for beyond, letter in ((10 * warning, "i"), (over(10 * warning), "w"), (over(40 * warning), "c")):
            cases.append(Case(name, metric, calm | {metric: [*[0.5] * 10, *[beyond] * 3]}, f"10o 2i 1{letter}"))
    for metric, warning in (("c_env_rms_max", 10.0), ("c_rms", 5.0), ("h_rms", 5.0)):
        before = len(cases)
        high, low, critical = 1.5 * warning, 0.5, 2 * warning
        ten, usual, large = [0.5] * 10, [0.5 * warning] * 10, [0.8 * warning] * 10
        rising = [0.2 * warning] * 10 + [0.6 * warning] * 10  # the mean of the first ten, then the median, 0.4
        cases += series(
            name,
            metric,
            calm,
            [
                ([*ten, high, high, low, low, high], "10o 2i 2o 1w"),
                ([*ten, high, high, low, low, low, high], "10o 2i 3o 1i"),
                ([*ten, high, None, high, high], "10o 1i 1d 1i 1w"),
                ([*ten, *[warning] * 3], "13o"),
                ([*ten, *[critical] * 3], "10o 2i 1w"),
                ([*ten, *[over(critical)] * 3], "10o 2i 1c"),
                ([*ten, over(critical), over(critical), low, low, over(critical)], "10o 2i 2o 1c"),
                ([*ten, *[over(critical)] * 2, high, over(critical)], "10o 2i 1w 1c"),
                ([*usual, *[high] * 3], "10o 3i"),  # three times its level
                ([*usual, *[over(high)] * 3], "10o 2i 1w"),
                ([*large, *[2.4 * warning] * 3], "10o 3i"),
                ([*large, *[over(2.4 * warning)] * 3], "10o 2i 1c"),
                ([*rising, *[1.2 * warning] * 3], "20o 3i"),
                ([*rising, *[over(1.2 * warning)] * 3], "20o 2i 1w"),
                ([high] * 13, "13i"),  # so it has been from its first update on
            ],
        )
        numbers = calm | {metric: [*ten, *[high] * 3]}
        cases.append(Case(name, metric, numbers, "10o 2i 1w", threshold=warning, value=high, baseline=0.5))
        cases.append(Case(name, metric, calm | {metric: [*ten, *[99.0] * 3]}, "10o 2i 1c", threshold=critical))
        numbers = calm | {metric: [*usual, *[1.9 * warning] * 3]}
        cases.append(Case(name, metric, numbers, "10o 2i 1w", threshold=high, baseline=0.5 * warning))
        numbers = calm | {metric: [*large, *[3 * warning] * 3]}
        cases.append(Case(name, metric, numbers, "10o 2i 1c", threshold=2.4 * warning))
        cases.append(Case(name, metric, calm | {metric: [*ten, high]}, "10o 1i", threshold=warning))
        for beyond, letter in ((high, "w"), (over(critical), "c")):
            for level, verdicts in (
                ([1.0] * 16, f"10o 2i 4{letter}"),
                ([*[1.0] * 5, *[2.0] * 11], "10o 6i"),  # returns rose
                ([*[1.0] * 5, *[2.0] * 8, *[0.0] * 3], f"10o 5i 1{letter}"),  # their mean of ten, 1.8, came down to 1.4
            ):
                course = {metric: [*ten, *[beyond] * 6], "updates.episode_return_mean": level}
                cases.append(Case(name, metric, calm | course, verdicts))
        cases[before:] = [replace(case, limits={"warning": 5.0, "critical": 10.0}) for case in cases[before:]]
    return cases + _other_states() + _randomness()


def _randomness() -> list[Case]:
    """Entropy that stays, entropy that rises, and evaluations that do not follow."""
    random = {"choice_fraction": 1.0, "entropy": 1.0, "choices_unknown": False, "reward_min": 0.0, "reward_max": 1.0}
    name, metric = "entropy_stuck", "entropy_norm"
    cases = series(name, metric, random, [([0.99] * 150, "149o 1w"), ([under(0.99)] * 150, "150o")])
    cases.append(Case(name, metric, random | {metric: [*[0.99] * 149, 0.5, 0.99]}, "151o"))
    name, metric = "entropy_rises", "entropy"
    cases += series(
        name,
        metric,
        {},
        [
            ([*[1.0] * 5, *[2.0] * 10], "15o"),  # twice its start
            ([*[1.0] * 5, *[over(2.0)] * 10], "14o 1w"),
            ([*[0.25] * 5, *[0.75] * 10], "15o"),  # half a nat more
            ([*[0.25] * 5, *[over(0.75)] * 10], "14o 1w"),
            ([0.0] * 12, "12n"),
        ],
    )
    returns = {"episode_return_mean": [*[0.0] * 3, *[100.0] * 20]}
    name, metric = "eval_apart", "eval_return_mean"
    cases.append(Case(name, metric, returns | {metric: [*[None] * 20, *[50.0] * 3]}, "20n 3o"))
    low = returns | {metric: [*[None] * 20, *[under(50.0)] * 3]}
    cases.append(Case(name, metric, low, "20n 2o 1w", threshold=50.0, baseline=100.0))
    return cases


def _other_states() -> list[Case]:
    """Recurrent states that vanish, saturate, or are not finite."""
    cases: list[Case] = []
    for metric in ("h_rms", "c_rms"):
        points = [(1e-4, "o"), (under(1e-4), "w"), (1e-6, "w"), (under(1e-6), "c")]
        cases += single("lstm_vanishing", metric, {"h_rms": 0.5, "c_rms": 0.5}, points)
    shares = dict.fromkeys(("h_saturation", "forget_saturation", "input_saturation", "output_saturation"), 0.1)
    for metric in shares:
        points = [(0.5, "o"), (over(0.5), "i"), (1.0, "i")]
        cases += single("lstm_saturation", metric, shares, points)
        cases.append(Case("lstm_saturation", metric, shares | {metric: None}, "1d"))
    for metric, other in (("has_nan", "has_inf"), ("has_inf", "has_nan")):
        cases.append(Case("lstm_nonfinite", metric, {metric: [False, True, None], other: False}, "1o 1c 1d"))
        cases.append(Case("lstm_nonfinite", metric, {metric: False, other: True}, "1o"))
    return cases


def _gradients() -> list[Case]:
    name, norm = "gradient_explosion", "grad_norm"
    ones = [1.0] * 20
    falling, odd, rising = [4.0] * 10 + [2.0] * 10, [4.0] * 10 + [15.0] + [2.0] * 9, [1.0] * 10 + [3.0] * 10
    cases = series(
        name,
        norm,
        {},
        [
            ([*ones, 10.0], "20n 1o"),
            ([*ones, over(10.0)], "20n 1i"),
            ([*ones, 100.0], "20n 1i"),
            ([*ones, 9e9], "20n 1i"),
            ([*ones, 11.0, 1.0, 11.0, 1.0, 11.0], "20n 1i 1o 1i 1o 1w"),
            ([*ones, 11.0, 1.0, 11.0, 1.0, 1.0, 11.0], "20n 1i 1o 1i 2o 1i"),
            ([*ones, 11.0, None, 11.0, 11.0], "20n 1i 1d 1i 1w"),
            ([*ones, *[100.0] * 3], "20n 2i 1w"),
            ([*ones, *[over(100.0)] * 3], "20n 2i 1c"),
            ([*ones, 101.0, 1.0, 101.0, 1.0, 101.0], "20n 1i 1o 1i 1o 1c"),
            ([*ones, 101.0, 11.0, 101.0, 11.0, 11.0, 101.0], "20n 2i 3w 1w"),
            ([*ones, math.inf, 1.0], "20n 1c 1o"),
            ([*falling, 40.0], "20n 1o"),
            ([*falling, over(40.0)], "20n 1i"),
            ([*odd, over(40.0)], "20n 1i"),
            ([*rising, 20.0], "20n 1o"),
            ([*rising, over(20.0)], "20n 1i"),
            ([0.0] * 21, "21n"),
        ],
    )
    cases.append(Case(name, norm, {norm: [*ones, 20.0]}, "20n 1i", threshold=10.0, value=20.0, baseline=1.0))
    cases.append(Case(name, norm, {norm: [*ones, *[200.0] * 3]}, "20n 2i 1c", threshold=100.0))
    clip = "updates.max_grad_norm"
    for limit, course, verdicts in (
        (3.0, [*ones, 30.0], "20n 1o"),  # the clip norm is above its median
        (3.0, [*ones, over(30.0)], "20n 1i"),
        (3.0, [*ones, *[over(300.0)] * 3], "20n 2i 1c"),
        (3.0, [*ones, *[300.0] * 3], "20n 2i 1w"),
        (0.5, [*ones, 10.0], "20n 1o"),
        (0.5, [*ones, over(10.0)], "20n 1i"),
        (None, [*ones, over(10.0)], "20n 1i"),
        (math.nan, [*ones, over(10.0)], "20n 1i"),
        (3.0, [0.0] * 20 + [over(30.0)], "20n 1i"),
        ([*[3.0] * 20, 1.0, 3.0], [*ones, 20.0, 20.0], "20n 1i 1o"),
    ):
        cases.append(Case(name, norm, {norm: course, clip: limit}, verdicts))
    numbers = {norm: [*ones, *[40.0] * 3], clip: 3.0}
    cases.append(Case(name, norm, numbers, "20n 2i 1w", threshold=30.0, value=40.0, baseline=3.0))
    for level, mild, far in (
        ([1.0] * 26, "20n 2i 4w", "20n 2i 4c"),
        ([*[1.0] * 10, *[2.0] * 16], "20n 6i", "20n 2i 4c"),  # a hundred times its level is too much for better returns
        ([*[1.0] * 10, *[2.0] * 13, *[0.0] * 3], "20n 4i 2w", "20n 2i 4c"),  # their mean of ten, 2, came down to 1.6
    ):
        cases += varied(
            name,
            norm,
            {"updates.episode_return_mean": level},
            [({norm: [*ones, *[over(100.0)] * 6]}, far), ({norm: [*ones, *[100.0] * 6]}, mild)],
        )

    name, share = "gradient_vanishing", "vanishing_severity"
    cells = {norm: 1.0, "tensors": 4, "heads.zero_explained": "not_zero", "heads.learnable_fraction": 1.0}
    cases += lasting(
        name,
        share,
        cells,
        [(0.0, "3o"), (1e-300, "2o 1w"), (under(0.5), "2o 1w"), (0.5, "2o 1c")],
    )
    cases += series(
        name,
        share,
        cells,
        [
            ([0.3, 0.3, 0.0, 0.3, 0.3, 0.3], "5o 1w"),
            ([0.3, 0.3, None, 0.3], "2o 1d 1w"),
            ([0.6, 0.6, 0.3, 0.6, 0.6, 0.6], "2o 3w 1c"),
        ],
    )
    cases += varied(
        name,
        share,
        cells | {share: 0.8},
        [
            ({"heads.zero_explained": "masked"}, "3n"),
            ({"heads.zero_explained": "irrelevant"}, "3n"),
            ({"heads.zero_explained": "frozen"}, "3n"),
            ({"heads.zero_explained": "unexplained"}, "2o 1c"),
            ({"heads.learnable_fraction": 0.05}, "2o 1c"),
            ({"heads.learnable_fraction": under(0.05)}, "3n"),
            ({"heads.learnable_fraction": None}, "2o 1c"),
            ({"heads.zero_explained": None}, "2o 1c"),
            ({"heads.zero_explained": None, "heads.learnable_fraction": None}, "3d"),
            ({"updates.choice_fraction": 0.0}, "3n"),
            ({"updates.choice_fraction": 0.01}, "2o 1c"),
            ({"heads.zero_explained": ["not_zero", "not_zero", "masked", "not_zero"]}, "2o 1n 1c"),
        ],
    )
    silent = cells | {"heads.zero_explained": None, "heads.learnable_fraction": None}
    cases.append(Case(name, share, silent | {share: 0.0}, "3o"))
    for norms, verdicts in (
        ([2.0] * 10 + [2e-4] * 3, "13o"),
        ([2.0] * 10 + [under(2e-4)] * 3, "12o 1i"),
        ([2.0] * 10 + [1e-5] * 2 + [1.0] + [1e-5] * 3, "15o 1i"),
        ([2.0] * 10 + [24.0] + [3e-4] * 3, "14o"),
        ([2.0] * 10 + [3e-4] * 8 + [1.9e-4] * 4, "20o 2i"),
        ([2.0] * 10 + [1.5e-4] * 8 + [2.5e-4] * 4, "12o 6i 4o"),
        ([0.0] * 10 + [1.0], "11n"),
        ([2.0, math.nan, 2.0], "1o 1n 1o"),
        ([2.0, None, 2.0], "1o 1d 1o"),
    ):
        cases.append(Case(name, norm, cells | {share: 0.0, norm: norms}, verdicts))
    faded = cells | {share: 0.0, norm: [2.0] * 10 + [1e-5] * 3}
    cases.append(Case(name, norm, faded, "12o 1i", threshold=1e-4, value=5e-6, baseline=2.0))
    cases = [replace(case, limits={"some_sustained": 3}) if case.rule == name else case for case in cases]
    cases += lasting(name, share, cells, [(1e-300, "4o 1w"), (under(0.5), "4o 1w"), (0.5, "2o 1c")])
    silent = {f"updates.{column}": 0.0 for column in ("reward_min", "reward_max", "episode_return_mean")}
    solved = {"updates.episode_return_mean": [*[1.0] * 5, *[9.0] * 5]}  # at their best from the sixth on
    cases += varied(
        name,
        share,
        cells | {share: 0.8},
        [
            (silent, "2o 3i"),
            ({**silent, "updates.reward_max": 0.1}, "2o 3c"),
            ({**silent, "updates.reward_max": [0.0] * 6 + [0.1]}, "2o 4i 1c"),
            (solved, "2o 8c"),
            ({**solved, "updates.entropy_norm": under(0.1)}, "2o 3c 5i"),
            ({**solved, "updates.entropy_norm": 0.1}, "2o 8c"),
        ],
    )

    name = "gradient_drift"
    once = {"sustained": 1}
    for last, letter in ((5e-9, "o"), (over(5e-9), "i"), (9.0, "i")):  # over 1e-8 where it was 0
        cells = {norm: [0.0] * 11 + [last], "health": 1.0}
        cases.append(Case(name, norm, cells, f"10n 1o 1{letter}", limits=once))
    ten = [1.0] * 10
    noisy = [1.0, 1.1] * 6
    cases += [
        *series(
            name,
            norm,
            {"health": 1.0},
            [
                ([*ten, 1.48, 1.48, 1.48], "10n 3o"),
                ([*ten, 1.6, 1.6, 1.6], "10n 2o 1i"),
                ([*ten, 1.6, 1.6, 1.0, 1.6, 1.6], "10n 5o"),
                ([*ten, 1.6, 1.6, None, 1.6], "10n 2o 1d 1i"),
                ([*ten, 0.3, 0.3, 0.3], "10n 2o 1i"),
                ([*ten, 99.0, 99.0, 99.0], "10n 2o 1i"),
                ([*noisy, 2.5, 2.5, 2.5], "10n 5o"),  # fifteen times its change from update to update is 1.5
                ([*noisy, 4.0, 4.0, 4.0], "10n 4o 1i"),
            ],
        ),
        *series(
            name,
            "health",
            {norm: 1.0},
            [([*ten, 0.4, 0.4, 0.4], "10n 2o 1i"), ([*[0.4] * 10, 1.0, 1.0, 1.0], "10n 3o")],
        ),
    ]
    numbers = {norm: [*ten, 1.6, 1.6, 1.6], "health": 1.0}
    cases.append(Case(name, norm, numbers, "10n 2o 1i", threshold=0.5))
    state, why = "grad_state", "zero_explained"
    words = [
        (("missing", "unexplained"), "1c"),
        (("finite", "unexplained"), "1w"),
        (("missing", "masked"), "1o"),
        (("frozen", "unexplained"), "1n"),
        (("removed", "unexplained"), "1n"),
        ((None, "unexplained"), "1d"),
    ]
    cases += [Case("gradient_missing", state, {state: a, why: b}, verdict) for (a, b), verdict in words]
    cases.append(Case("gradient_missing", state, {state: "missing", why: "unexplained"}, "1c", value=1.0))
    cases.append(Case("gradient_missing", state, {state: "finite", why: "unexplained"}, "1w", value=0.0))
    return cases


def _slots() -> list[Case]:
    ratio, cause, host = "normalized_ratio", "low_ratio_cause", "host_grad_norm"
    seed: Cells = {cause: None, "should_train": True, "tensors": 4, "host_elements": 100}
    name, cases = "seed_dormant", []
    cases += lasting(
        name,
        ratio,
        seed | {cause: "dormant"},
        [(0.1, "3o"), (under(0.1), "2o 1w"), (0.01, "2o 1w"), (under(0.01), "2o 1c")],
    )
    cases += lasting(name, ratio, seed | {cause: "host_learning_fast"}, [(0.1, "3o"), (0.001, "2o 1i")])
    cases += series(
        name,
        ratio,
        seed,
        [
            ([0.05, 0.05, 0.1, 0.05, 0.05, 0.05], "5o 1w"),
            ([0.05, 0.05, None, 0.05], "2o 1d 1w"),
            ([0.001, 0.001, 0.05, 0.001, 0.001, 0.001], "2o 3w 1c"),
        ],
    )
    excused = [True, True, False, True]
    cases.append(Case(name, ratio, seed | {ratio: 0.05, "should_train": excused}, "2o 1n 1w", threshold=0.1))
    cases.append(Case(name, ratio, seed | {ratio: 0.05, "tensors": [4, 4, 0, 4]}, "2o 1n 1w"))
    cases.append(Case(name, ratio, seed | {ratio: 0.05, "tensors": [1, 1, 1]}, "2o 1w"))
    cases.append(Case(name, ratio, seed | {ratio: 0.05, "should_train": None}, "3o"))
    cases.append(Case(name, ratio, seed | {ratio: None, "host_elements": 0}, "1n"))
    cases.append(Case(name, ratio, seed | {ratio: None, "host_elements": 1}, "1d"))
    cases.append(Case(name, ratio, seed | {ratio: None, cause: "disconnected"}, "3n"))
    cases.append(Case(name, ratio, seed | {ratio: 0.05, cause: "disconnected"}, "2o 1w"))
    cases.append(Case(name, ratio, seed | {ratio: 0.001, cause: "dormant"}, "2o 1c", threshold=0.01))
    mixed = ["dormant", "dormant", "host_learning_fast", "dormant"]
    cases.append(Case(name, ratio, seed | {ratio: 0.001, cause: mixed}, "2o 2i"))
    cut = ["disconnected"] * 2
    cases += varied(
        name,
        cause,
        seed,
        [
            ({ratio: None, cause: [*cut, "disconnected"]}, "2o 1c"),
            ({ratio: None, cause: [*cut, "dormant", "disconnected"]}, "4o"),
            ({ratio: 0.01, cause: [*cut, "disconnected"]}, "3o"),
            ({ratio: None, cause: "disconnected", "should_train": [True, True, False, True]}, "2o 1n 1c"),
            ({ratio: None, cause: "disconnected", "should_train": [True, True, None, True]}, "2o 1d 1c"),
            ({ratio: None, cause: "disconnected", "tensors": 0}, "3n"),
        ],
    )
    cases.append(Case(name, cause, seed | {ratio: None, cause: "disconnected"}, "2o 1c", value=1.0))

    name, seed = "host_dominating", seed | {cause: "host_learning_fast"}
    for level, norm, verdicts in (
        (0.1, 3.0, "3o"),
        (under(0.1), 3.0, "2o 1w"),
        (0.05, 1.0, "3o"),
        (0.05, over(1.0), "2o 1w"),
        (0.05, None, "3d"),
        (0.05, math.inf, "3c"),
    ):
        cases.append(Case(name, ratio, seed | {ratio: level, host: norm}, verdicts))
    for word, verdicts in ((None, "2o 1w"), ("dormant", "2o 1i"), ("saturated", "2o 1i"), ("disconnected", "2o 1i")):
        cases.append(Case(name, ratio, seed | {ratio: 0.05, host: 3.0, cause: word}, verdicts))
    cases += series(
        name,
        ratio,
        seed | {host: 3.0},
        [([0.05, 0.05, 0.1, 0.05, 0.05, 0.05], "5o 1w"), ([0.05, 0.05, None, 0.05], "2o 1d 1w")],
    )
    cases += varied(
        name,
        ratio,
        seed | {ratio: 0.05, host: 3.0},
        [
            ({cause: [None, None, "dormant", None]}, "2o 2i"),
            ({"should_train": excused}, "2o 1n 1w"),
            ({"tensors": [4, 4, 0, 4]}, "2o 1n 1w"),
            ({"should_train": None}, "3o"),
        ],
    )
    cases.append(Case(name, ratio, seed | {ratio: None, host: None, "host_elements": 0}, "1n"))
    cases.append(Case(name, ratio, seed | {ratio: None, host: 3.0, cause: "disconnected"}, "1n"))
    cases.append(Case(name, ratio, seed | {ratio: 0.05, host: 3.0}, "2o 1w", threshold=0.1))

    name, share = "slot_gradient_explosion", "exploding_severity"
    cells = {ratio: 0.8, cause: None, "should_train": True, "tensors": 4, "tensors_nonfinite": 0}
    cases += lasting(name, share, cells, [(0.0, "2o"), (5e-324, "1i 1w"), (under(0.5), "1i 1w"), (0.5, "1i 1c")])
    cases += series(
        name,
        share,
        cells,
        [
            ([0.2, 0.0, 0.0, 0.0, 0.2], "1i 3o 1w"),
            ([0.2, 0.0, 0.0, 0.0, 0.0, 0.2], "1i 4o 1i"),
            ([0.6, 0.0, 0.0, 0.0, 0.6], "1i 3o 1c"),
            ([0.6, 0.0, 0.0, 0.0, 0.0, 0.6], "1i 4o 1i"),
        ],
    )
    cases.append(Case(name, share, cells | {share: 0.2, "tensors_nonfinite": 1}, "1c", threshold=0.5, value=math.inf))
    cases.append(Case(name, share, cells | {share: 0.6, "tensors_nonfinite": 1}, "2c", threshold=0.5, value=0.6))
    cases.append(Case(name, share, cells | {share: 0.2, "tensors_nonfinite": None}, "1i 1w", threshold=0.0))
    for one, verdict in (
        ({"should_train": False}, "n"),
        ({"tensors": 0}, "n"),
        ({ratio: None, cause: "disconnected"}, "n"),
        ({}, "d"),
    ):
        cases.append(Case(name, share, cells | one | {share: None}, f"1{verdict}"))
        cases.append(Case(name, share, cells | one | {share: 0.2}, "1i"))

    name, share = "slot_gradient_vanishing", "vanishing_severity"
    cells = {ratio: 0.8, cause: None, "should_train": True, "tensors": 4}
    cases += lasting(name, share, cells, [(0.25, "3o"), (over(0.25), "2o 1w"), (under(0.5), "2o 1w"), (0.5, "2o 1c")])
    cases += series(
        name,
        share,
        cells,
        [
            ([0.3, 0.3, 0.2, 0.3, 0.3, 0.3], "5o 1w"),
            ([0.3, 0.3, None, 0.3], "2o 1d 1w"),
            ([0.6, 0.6, 0.3, 0.6, 0.6, 0.6], "2o 3w 1c"),
        ],
    )
    cases += varied(
        name,
        share,
        cells | {share: [0.3] * 4},
        [
            ({"should_train": excused}, "2o 1n 1w"),
            ({"tensors": [4, 4, 0, 4]}, "2o 1n 1w"),
            ({ratio: [0.8, 0.8, None, 0.8], cause: [None, None, "disconnected", None]}, "2o 1n 1w"),
            ({"should_train": None}, "4o"),
        ],
    )
    cases.append(Case(name, share, cells | {share: 0.3}, "2o 1w", threshold=0.25))
    cases.append(Case(name, share, cells | {share: 0.8}, "2o 1c", threshold=0.5))
    return cases


def _changes() -> list[Case]:
    """Settings, gradients and policies that are not what they were at the update before."""
    name, rate = "setting_changed", "learning_rate"
    cells: Cells = {rate: 1.0, "clip_range": 0.2, "entropy_coef": 0.01}
    cases = series(
        name,
        rate,
        cells,
        [
            ([10.0, 12.0], "2o"),
            ([10.0, over(12.0)], "1o 1i"),
            ([10.0, 8.0], "2o"),
            ([10.0, under(8.0)], "1o 1i"),
            ([10.0, 10.0, under(50.0), 50.0], "2o 1i 1o"),
            ([10.0, 10.0, 50.0, 50.0], "2o 1w 1o"),
            ([10.0, 1.0, 49.0], "1o 2i"),  # the largest so far, not the last, is what a jump goes beyond
            ([10.0, 1.0, 50.0], "1o 1i 1w"),
            ([10.0, 1.0, 0.0], "1o 2i"),
            ([10.0, over(1.0), 0.0, 0.0], "1o 1i 1w 1o"),
            ([0.0, 0.0, 1.0], "2o 1i"),
            ([10.0, None, 60.0], "1o 1d 1w"),
            ([10.0, math.nan, 10.0], "1o 1c 1o"),
            ([-0.1, -0.1, 0.1], "2w 1i"),
        ],
    )
    for setting, course, verdicts in (
        ("entropy_coef", [0.01, 0.0], "1o 1i"),  # no more of a bonus is no end of learning
        ("entropy_coef", [-0.01, 0.0], "1w 1i"),
        ("entropy_coef", [None, 0.01, 0.05], "1d 1o 1w"),
        ("clip_range", [0.2, 0.0], "1o 1w"),
        ("clip_range", [0.2, 1.0], "1o 1w"),
    ):
        cases.append(Case(name, setting, cells | {setting: course}, verdicts))
    risen = cells | {rate: [10.0, 2.0, 80.0]}
    cases.append(Case(name, rate, risen, "1o 1i 1w", threshold=50.0, value=80.0, baseline=2.0))
    risen = cells | {rate: [10.0, 2.0, 4.0]}
    cases.append(Case(name, rate, risen, "1o 2i", threshold=1.2 * 2.0, value=4.0, baseline=2.0))

    more: Cells = {"value_coef": 0.5, "gamma": 0.99, "max_grad_norm": 0.5, "epochs": 4}
    turns: list[tuple[str, list[Any], str]] = [
        ("value_coef", [0.5, 0.5, 50.0], "2o 1w"),
        ("value_coef", [0.5, 0.0], "1o 1w"),
        ("value_coef", [None, 0.5], "1n 1o"),
        ("gamma", [0.99, 1.0, over(1.0)], "2o 1w"),
        ("gamma", [0.5, 0.0, 0.0], "1o 1w 1o"),
        ("gamma", [0.0, 0.0], "2o"),
        ("clip_range", [0.2, 0.002, under(0.00002)], "1o 1i 1i"),  # from next to nothing on it is a schedule's end
        ("clip_range", [0.2, under(0.002)], "1o 1w"),
        ("entropy_coef", [0.01, 1e-9], "1o 1i"),
        ("max_grad_norm", [math.inf, 1e-9], "1o 1i"),
        ("max_grad_norm", [1e9, 0.5], "1o 1w"),
        ("max_grad_norm", [0.5, math.inf, math.inf], "1o 1w 1o"),
        ("max_grad_norm", [math.inf, math.inf, 0.5], "2o 1i"),
        ("max_grad_norm", [0.5, math.nan], "1o 1c"),
        ("epochs", [4] * 6 + [20], "6o 1w"),
        ("epochs", [4] * 6 + [19], "7o"),
        ("epochs", [4] * 5 + [20], "6o"),  # five equal to the one before it take six
        ("epochs", [4] * 6 + [20] * 6, "6o 5w 1o"),  # and then it is the usual number
        ("epochs", [None, 4], "1n 1o"),
    ]
    for setting, course, verdicts in turns:
        cases.append(Case(name, setting, cells | more | {setting: course}, verdicts))
    unclipped = cells | more | {"max_grad_norm": [0.5, math.inf]}
    cases.append(Case(name, "max_grad_norm", unclipped, "1o 1w", threshold=2.5, value=math.inf, baseline=0.5))
    clipped = cells | more | {"max_grad_norm": [math.inf, 0.5]}
    cases.append(Case(name, "max_grad_norm", clipped, "1o 1i", value=0.5, baseline=math.inf))
    stopped = cells | more | {"epochs": [4] * 6 + [20]}
    cases.append(Case(name, "epochs", stopped | {"target_kl": 0.01}, "7o"))
    cases.append(Case(name, "epochs", stopped | {"target_kl": 0.0}, "6o 1w", threshold=20.0, value=20.0, baseline=4.0))

    name, entropy = "policy_replaced", "entropy"
    zeros, swings = [0.0] * 7, [0.0, 4.0] * 10
    cases += series(
        name,
        entropy,
        {"kl_k3": 0.0},
        [
            ([*zeros, 0.1], "6n 2o"),
            ([*zeros, over(0.1), over(0.1)], "6n 1o 1w 1o"),
            ([*zeros[:6], over(0.1)], "6n 1w"),
            ([*zeros[:5], 9.0], "6n"),
            ([*[0.0, 0.5] * 4, 4.5], "6n 3o"),  # eight times the usual step of a half
            ([*[0.0, 0.5] * 4, over(4.5)], "6n 2o 1w"),
            ([*swings, *[4.0] * 19, 2.5], "6n 34o"),  # of the last twenty steps one was 4: a mean of 0.2
            ([*swings, *[4.0] * 20, 2.5], "6n 34o 1w"),
            ([*zeros, None, 5.0, 5.0], "6n 1o 1d 1n 1o"),
            ([*zeros, math.nan, 5.0, 5.0], "6n 1o 1c 1n 1o"),
        ],
    )
    for divergence, value, letters in (
        (0.125, 2.0, "1o"),  # four times the root of both updates' KL together
        (0.125, over(2.0), "1w"),
        ([*[0.0] * 7, 0.25], 2.0, "1o"),
        ([*[0.0] * 7, 0.25], over(2.0), "1w"),
        ([*[0.0] * 6, 0.25, 0.0], 2.0, "1o"),
        ([*[0.0] * 6, 0.25, 0.0], over(2.0), "1w"),
        (-1.0, 0.1, "1o"),
        (-1.0, over(0.1), "1w"),
        ([*[0.0] * 7, None], 5.0, "1d"),
        ([*[0.0] * 7, math.nan], 0.0, "1c"),
    ):
        cases.append(Case(name, entropy, {entropy: [*zeros, value], "kl_k3": divergence}, f"6n 1o {letters}"))
    missing = {entropy: [*zeros, over(0.1)], "kl_k3": [*[0.0] * 6, None, 0.0]}
    cases.append(Case(name, entropy, missing, "6n 1d 1w"))
    jumped = {entropy: [*[0.25] * 7, 1.0], "kl_k3": 0.0}
    cases.append(Case(name, entropy, jumped, "6n 1o 1w", threshold=0.1, value=0.75, baseline=0.25))

    name, without = "gradient_stopped", "tensors_without_grad"
    cases += series(
        name,
        without,
        {"tensors": 4},
        [
            ([0, 3, 4, 4], "2o 2c"),
            ([4, 4, 3, 4, 0], "2i 1o 1c 1o"),
            ([0, None, 4], "1o 1d 1c"),
            ([0, 5], "1o 1c"),
        ],
    )
    cases.append(Case(name, without, {without: [0, 0, 4], "tensors": [4, 0, 4]}, "2o 1c", threshold=4.0, value=4.0))
    cases.append(Case(name, without, {without: [0, 4], "tensors": [0, 4]}, "1o 1i"))  # of no tensors none had any
    cases.append(Case(name, without, {without: 0, "tensors": [4, None]}, "1o 1d"))
    return cases


def _returns() -> list[Case]:
    name, returns, episodes = "performance_degradation", "episode_return_mean", "episodes_finished"
    tens = [10.0] * 20
    scattered = [9.0, 11.0] * 10  # best mean of three 31 / 3; a step's square is 20 episodes', six errors are 6.92820
    risen = [-90.0] * 3 + [float(level) for level in range(-89, -10)] + [-10.0] * 40
    cases = series(
        name,
        returns,
        {episodes: 10},
        [
            (tens[:12], "12n"),
            (tens[:13], "12n 1o"),
            (tens + [9.0] * 3, "12n 10o 1i"),
            (tens + [9.0000001] * 3, "12n 11o"),
            (tens + [7.5] * 3, "12n 9o 1i 1w"),
            (tens + [7.5000001] * 3, "12n 9o 2i"),
            (tens + [2.5] * 3, "12n 8o 2w 1c"),
            (tens + [2.5000001] * 3, "12n 8o 1i 2w"),
            (tens + [12.0] * 3, "12n 11o"),
            (tens + [12.0] * 3 + [9.0] * 3, "12n 13o 1w"),
            (tens + [6.0] * 24, "12n 8o 1i 23w"),
            (tens + [6.0] * 3 + [10.0] * 3, "12n 8o 1i 2w 3o"),
            (scattered + [3.4052] * 3, "12n 11o"),
            (scattered + [3.4050] * 3, "12n 10o 1w"),
            ([0.0] * 23, "12n 11o"),
            (tens + [9.0] * 2 + [None, 9.0], "12n 10o 1d 1i"),
            ([-10.0] * 20 + [-12.5] * 3, "12n 9o 1i 1w"),
            (risen + [-18.0] * 3, "12n 112o 1i"),  # a tenth of the 80 that it had risen by
            (risen + [-17.9999] * 3, "12n 113o"),
        ],
    )
    for alone in (
        1,
        None,
    ):  # an episode an update, or nobody knows how many: it takes twenty of them, and twenty before
        cases += series(
            name,
            returns,
            {episodes: alone},
            [
                (tens + tens[:19], "39n"),
                (tens + tens, "39n 1o"),
                (tens + tens + [9.0] * 20, "39n 20o 1i"),
                (tens + tens + [9.0000001] * 20, "39n 21o"),
            ],
        )
    cases += series(name, returns, {episodes: 7}, [(tens[:13], "12n 1o")])
    cases += series(name, returns, {episodes: 6}, [(tens[:13], "13n"), (tens[:14], "13n 1o")])
    for late, verdicts, threshold in (
        (8.0, "12n 9o 2i", 9.0),
        (5.5, "12n 8o 1i 2w", 7.5),
        (1.0, "12n 8o 2w 1c", 2.5),
    ):
        numbers = {returns: tens + [late] * 3, episodes: 10}
        cases.append(Case(name, returns, numbers, verdicts, threshold=threshold, value=late, baseline=10.0))
    numbers = {returns: risen + [-26.0] * 3, episodes: 10}
    cases.append(Case(name, returns, numbers, "12n 111o 2i", threshold=-18.0, value=-26.0, baseline=-10.0))

    points = [(1e-4, "o"), (over(1e-4), "w"), (1e-2, "w"), (over(1e-2), "c")]
    cases += single("rank_desync", "spread", {"ranks": 2}, points)
    cases.append(Case("rank_desync", "spread", {"ranks": [1, 2, 3], "spread": 0.5}, "1n 2c"))
    return cases


def _finiteness() -> list[Case]:
    name, said = "numerical_instability", "nonfinite_sources"
    counts = ("nan_grad_count", "inf_grad_count", "tensors_nonfinite", "ratio_nonfinite", "nonfinite_minibatches")
    numbers = ("policy_loss", "value_loss", "entropy_loss", "total_loss", "grad_norm_pre_clip")
    cases = [Case(name, said, {count: [0, 1, None]}, "1o 1c 1d") for count in counts]
    cases += [Case(name, said, {number: [0.5, math.nan, -math.inf, None]}, "1o 2c 1d") for number in numbers]
    cases.append(Case(name, said, {said: [None, "values: 2"]}, "1d 1c", threshold=0.0, value=1.0))
    everything = dict.fromkeys(counts, 2) | dict.fromkeys(numbers, math.inf) | {said: "values: 2"}
    cases.append(Case(name, said, everything, "1c", threshold=0.0, value=11.0))
    return cases


CASES = [
    case
    for part in (
        _ratios,
        _divergences,
        _steps,
        _critics,
        _fits,
        _entropies,
        _deviations,
        _descents,
        _advantages,
        _states,
        _gradients,
        _slots,
        _changes,
        _relations,
        _returns,
        _finiteness,
    )
    for case in part()
]
IDS = [f"{case.rule} {case.verdicts} {number}" for number, case in enumerate(CASES)]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_verdicts_turn_where_the_specification_says(case: Case) -> None:
    judgement = case.judgement()
    assert [Verdict(code).word for code in judgement.code[:, 0].tolist()] == case.expected()
    for wanted, found in (
        (case.threshold, judgement.threshold),
        (case.value, judgement.value),
        (case.baseline, judgement.baseline),
    ):
        if wanted is not None:
            assert float(found[-1, 0]) == pytest.approx(wanted, rel=1e-12, nan_ok=True)


def test_every_rule_has_its_bounds_tested() -> None:
    missing = set(BY_RULE) - {case.rule for case in CASES}
    assert not missing, f"add cases at, just above and just below the bounds of {missing} to CASES"


def findings(detector: Detector, case: Case) -> list[tuple[object, ...]]:
    """Return the findings of updates that come one by one, each with the update it came at."""
    found = []
    for i, rows in enumerate(case.rows()):
        outcome = detector.process(batch_from_rows(i, rows, detector.wanted))
        found += [(i, *_plain(one)) for one in outcome.findings]
    return found


def _plain(finding: Finding) -> tuple[object, ...]:
    return tuple(cell.hex() if isinstance(cell, float) else cell for cell in finding.as_row().values())


@pytest.mark.parametrize("defer", [False, True])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_updates_that_come_one_by_one_are_judged_alike(case: Case, defer: bool) -> None:
    at_once = judge_cells(case.detector(), BY_RULE[case.rule].table, case.cells, len(case.expected())).findings
    one_by_one = findings(case.detector(defer=defer), case)
    order = lambda one: (one[0], str(one[1:]))  # noqa: E731
    assert sorted(one_by_one, key=order) == sorted(((one.update, *_plain(one)) for one in at_once), key=order)


def stairs() -> list[Case]:
    """Return courses in which each value of the cases above stays for a while; what else they watch is sound."""
    values: dict[tuple[str, str], set[float]] = {}
    for case in CASES:
        cells = case.cells.get(case.metric)
        for one in cells if isinstance(cells, list) else [cells]:
            if isinstance(one, float) and math.isfinite(one):
                values.setdefault((case.rule, case.metric), set()).add(one)
    found = []
    for (name, metric), steps in sorted(values.items()):
        ok = next(one.cells for one in BY_RULE[name].examples if one.verdict == "ok")
        sound = {column: cell[-1] if isinstance(cell, list) else cell for column, cell in ok.items()}
        order = random.Random(metric).sample(sorted(steps) * 2, 2 * len(steps))
        course = [value for value in order for _ in range(14)]
        found.append(Case(name, metric, sound | {metric: course}, f"{len(course)}o"))
    return found


@pytest.mark.parametrize("case", stairs(), ids=lambda case: f"{case.rule} {case.metric}")
def test_a_rule_that_rests_notices_each_bound_that_is_crossed(case: Case) -> None:
    assert findings(case.detector(defer=True), case) == findings(case.detector(), case)


def contexts() -> list[Case]:
    """Return courses in which one of the other columns changes now and then while the metric is in alarm."""
    found = []
    for name in BY_RULE:
        cases = [case for case in CASES if case.rule == name]
        alarmed = [case for case in cases if case.expected()[-1] in ("info", "warning", "critical")]
        for metric in dict.fromkeys(case.metric for case in alarmed):
            case = [one for one in alarmed if one.metric == metric][-1]
            base = {column: cell[-1] if isinstance(cell, list) else cell for column, cell in case.cells.items()}
            for column in base:
                given = [one.cells.get(column) for one in cases]
                cells = [cell for one in given for cell in (one if isinstance(one, list) else [one])]
                values = [cell for cell in dict.fromkeys(cells) if not (isinstance(cell, float) and math.isnan(cell))]
                if column != metric and len(values) > 1:
                    order = random.Random(column).sample(values * 3, 3 * len(values))
                    course = [value for value in order for _ in range(9)][:400]
                    limits = {"clear_after": 1}
                    found.append(Case(name, metric, base | {column: course}, f"{len(course)}o", limits=limits))
    return found


@pytest.mark.parametrize("case", contexts())
def test_a_rule_that_rests_notices_what_changes_beside_its_metric(case: Case) -> None:
    assert findings(case.detector(defer=True), case) == findings(case.detector(), case)


def course(rule: str, updates: list[dict[str, list[Cells]]]) -> dict[tuple[str, str], list[tuple[str, float]]]:
    """Return verdict and value at each update, by metric and subject."""
    detector = Detector(rules=[BY_RULE[rule]])
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for i, rows in enumerate(updates):
        (judged,) = detector.process(batch_from_rows(i, rows, detector.wanted)).judged
        for one in judged.judgements:
            for k, subject in enumerate(judged.subjects):
                cell = Verdict(int(one.code[0, k])).word, float(one.value[0, k])
                found.setdefault((one.metric, subject), []).append(cell)
    return found


def test_gates_that_nobody_looks_at_in_the_rollout_are_missing_elsewhere() -> None:
    rows = [{"phase": phase, "h_saturation": 0.1, "forget_saturation": None} for phase in ("rollout", "update")]
    found = course("lstm_saturation", [{"lstm": rows}])
    assert found["forget_saturation", "rollout"][0][0] == "not_applicable"
    assert found["forget_saturation", "update"][0][0] == "no_data"
    assert found["h_saturation", "rollout"][0] == found["h_saturation", "update"][0] == ("ok", 0.1)


SCALES = [
    (100.0, 1.0),
    (100.0, under(1.0)),
    (100.0, 4.0),
    (-100.0, 0.5),
    (0.0, 0.0),
    (0.0, 4.0),
    (10.0, 0.0),
    (100.0, 1.2),
    (150.0, 1.2),  # the same variance, and now less than 1 % of the mean
    (80.0, 1.2),
    (-130.0, 1.2),
    (-100.0, 1.2),
    (1e-3, 1e-12),
    (1e-3, 1e-10),
    (1e200, 1.0),
    (100.0, 1.05),
    (100.0, 0.95),
    (103.0, 1.05),
]
"""Mean and variance of returns; they hardly vary where their deviation is below 1 % of the mean."""


@pytest.mark.parametrize("stay", [1, 3, 14])
@pytest.mark.parametrize("name", ["value_collapse", "critic_constant", "critic_not_learning"])
@pytest.mark.parametrize("seed", range(3))
def test_a_rule_that_rests_notices_returns_that_vary_no_more(name: str, stay: int, seed: int) -> None:
    order = random.Random(seed).sample(SCALES * 2, 2 * len(SCALES))
    scale = [one for one in order for _ in range(stay)]
    cells: Cells = {"explained_variance": [0.5] * 12 + [0.0004] * len(scale), "value_nrmse": 3.0, "progress": 0.9}
    cells |= {"return_mean": [10.0] * 12 + [mean for mean, _ in scale], "ev_low_variance": False}
    cells |= {"return_variance": [4.0] * 12 + [variance for _, variance in scale]}
    case = Case(name, "explained_variance", cells, f"{12 + len(scale)}o", limits={"clear_after": 1})
    assert findings(case.detector(defer=True), case) == findings(case.detector(), case)


TENSORS = {"actor": 8, "all": 16, "critic": 4, "head:a": 4, "head:b": 4}


def vanished(
    shares: Cells, why: Cells, *, learnable: float | None = None, choice: float = 1.0
) -> dict[str, list[Cells]]:
    """Return one update's rows of an actor with two heads and a critic."""
    groups = [
        {"group": name, "tensors": tensors, "vanishing_severity": shares.get(name, 0.0), "grad_norm": 1.0}
        for name, tensors in TENSORS.items()
    ]
    heads = [{"head": name, "zero_explained": word, "learnable_fraction": learnable} for name, word in why.items()]
    return {"groups": groups, "heads": heads, "updates": [{"choice_fraction": choice}]}


def severity(updates: list[dict[str, list[Cells]]]) -> dict[str, list[tuple[str, float]]]:
    found = course("gradient_vanishing", updates)
    return {subject: cells for (metric, subject), cells in found.items() if metric == "vanishing_severity"}


@pytest.mark.parametrize(
    ("shares", "verdicts"),
    [
        # four of the actor's eight tensors are those of the masked head
        ({"head:a": 1.0, "actor": 0.5, "all": 0.25}, {"actor": ("ok", 0.0), "all": ("ok", 0.0)}),
        ({"head:a": 1.0, "actor": 0.625, "all": 0.25}, {"actor": ("warning", 0.125), "all": ("ok", 0.0)}),
        ({"head:a": 1.0, "actor": 1.0, "all": 0.75}, {"actor": ("critical", 0.5), "all": ("critical", 0.5)}),
        ({"head:a": 0.5, "actor": 0.5, "all": 0.125}, {"actor": ("warning", 0.25), "all": ("ok", 0.0)}),
        ({"head:a": 1.0, "actor": 0.5 + 5e-10, "all": 0.25}, {"actor": ("ok", 0.0)}),
        ({"head:a": 1.0, "actor": 0.5 + 5e-9, "all": 0.25}, {"actor": ("warning", 5e-9)}),
        ({"head:a": 0.0, "actor": 0.25, "all": 0.0}, {"actor": ("warning", 0.25), "all": ("ok", 0.0)}),
        ({"head:a": 1.0, "head:b": 1.0, "actor": 1.0}, {"head:b": ("critical", 1.0), "actor": ("critical", 0.5)}),
        ({"head:a": 1.0, "critic": 0.25}, {"critic": ("warning", 0.25)}),
    ],
)
def test_the_tensors_of_a_masked_head_are_no_trouble_of_what_holds_it(
    shares: Cells, verdicts: dict[str, tuple[str, float]]
) -> None:
    rows = vanished(shares, {"a": "masked", "b": "not_zero"})
    found = {
        subject: cells[-1]
        for (metric, subject), cells in course("gradient_vanishing", [rows] * 5).items()
        if metric == "vanishing_severity"
    }
    assert found["head:a"][0] == "not_applicable"
    assert set(found) == set(TENSORS)
    for subject, (verdict, value) in verdicts.items():
        expected: tuple[str, object] = (verdict, pytest.approx(value, rel=1e-6))
        assert found[subject] == expected, subject
    for subject in ("critic", "head:b"):
        assert subject in verdicts or found[subject] == ("ok", 0.0)


def test_where_nobody_knows_why_a_head_has_no_gradient_what_holds_it_is_not_judged_either() -> None:
    shares = {"head:a": 1.0, "actor": 0.5, "all": 0.25, "critic": 0.5}
    rows = vanished(shares, {"a": None, "b": None})
    found = {
        s: [one[0] for one in cells]
        for (m, s), cells in course("gradient_vanishing", [rows] * 5).items()
        if m == "vanishing_severity"
    }
    assert found["head:a"] == found["actor"] == found["all"] == ["no_data"] * 5
    assert found["head:b"] == ["ok"] * 5, "it has a gradient"
    assert found["critic"] == ["ok", "ok", *["critical"] * 3], "it holds no head"


def test_without_any_choice_only_the_critic_is_judged() -> None:
    rows = vanished({"actor": 0.3, "critic": 0.3, "head:b": 0.3}, {"a": "not_zero", "b": "not_zero"}, choice=0.0)
    last = {subject: cells[-1][0] for subject, cells in severity([rows] * 5).items()}
    assert last == dict.fromkeys(TENSORS, "not_applicable") | {"critic": "warning"}


@pytest.mark.parametrize(("error", "verdict"), [(None, "info"), (1.0, "info"), (over(1.0), "critical")])
def test_where_returns_are_at_their_best_a_critic_may_have_fitted_and_a_policy_only_be_deterministic(
    error: float | None, verdict: str
) -> None:
    updates = []
    for update in range(10):
        rows = vanished(dict.fromkeys(TENSORS, 1.0), {"a": "not_zero", "b": "not_zero"})
        rows["updates"][0] |= {"episode_return_mean": 1.0 if update < 5 else 9.0, "value_nrmse": error}
        rows["updates"][0] |= {"entropy_norm": 0.5}
        updates.append(rows)
    last = {subject: cells[-1][0] for subject, cells in severity(updates).items()}
    assert last == dict.fromkeys(TENSORS, "critical") | {"critic": verdict, "all": verdict}


@pytest.mark.parametrize(("learnable", "verdict"), [(0.05, "critical"), (under(0.05), "not_applicable")])
def test_a_head_that_hardly_ever_has_a_choice_excuses_itself_only(learnable: float, verdict: str) -> None:
    rows = vanished({"head:a": 1.0, "critic": 1.0}, {"a": "not_zero"}, learnable=learnable)
    found = course("gradient_vanishing", [rows] * 5)
    assert found["vanishing_severity", "head:a"][-1][0] == verdict
    assert found["vanishing_severity", "critic"][-1][0] == "critical"
