"""What a guard promises holds for every update inside of it, and is as wide as the rule's definition allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from esper_analyze.detector.conditions.stand_ins import KL_LOG, LOGGED, VALUE_LOG
from esper_analyze.detector.deferral_guards import (
    BROKEN,
    FREE,
    LASTING,
    NULL,
    DeferralGuard,
    Side,
    before,
    box,
    coded,
    steady,
    until,
)
from esper_analyze.detector.detector import Detector, Outcome
from esper_analyze.detector.rule import Memory, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Frame, batch_from_rows, cell_number, choice_code
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.schema import BY_NAME, Kind
from tests.detector.batches import frame
from tests.detector.test_boundaries import Case
from tests.detector.walks import rows_of

BY_RULE = {rule.name: rule for rule in RULES}
GUARDED = [rule for rule in RULES if rule.guard is not None]
Rows = Mapping[str, Sequence[Mapping[str, Any]]]
Cells = dict[str, Any]


def over(number: float) -> float:
    return math.nextafter(number, math.inf)


def under(number: float) -> float:
    return math.nextafter(number, -math.inf)


class Asking:
    """A rule's guard that notes what it promises and defers nothing, so that it is asked at every update."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self.promise: DeferralGuard | None = None
        self.frame: Frame | None = None
        self.asked = 0

    def __call__(self, last: Frame, memory: Memory, limits: Any) -> None:
        assert self._rule.guard is not None
        self.promise, self.frame = self._rule.guard(last, memory, limits), last
        self.asked += 1


@dataclass
class Watched:
    """A rule that judges every update, and what its guard promises after each."""

    rule: Rule
    limits: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        thresholds = Thresholds.defaults([self.rule]).merged({self.rule.name: {"clear_after": 1, **self.limits}})
        self.asking = Asking(self.rule)
        self._asked = Detector(thresholds, rules=[replace(self.rule, guard=self.asking)], defer=True)
        self._judging = Detector(thresholds, rules=[self.rule])
        self._updates = 0
        self.frame: Frame | None = None

    def take(self, rows: Rows) -> Outcome:
        self.asking.promise = None
        self._asked.process(batch_from_rows(self._updates, rows, self._asked.wanted))
        self.frame = self.asking.frame
        outcome = self._judging.process(batch_from_rows(self._updates, rows, self._judging.wanted))
        self._updates += 1
        return outcome


Verdicts = tuple[str, list[int], list[str]]


def verdicts(outcome: Outcome) -> list[Verdicts]:
    (judged,) = outcome.judged
    return [
        (one.metric, one.code[-1].tolist(), [one.reasons[number] for number in one.reason[-1].tolist()])
        for one in judged.judgements
    ]


def number_of(side: Side, k: int) -> float:
    cells = np.asarray(side, np.float64)
    return float(cells) if cells.ndim == 0 else float(cells.reshape(-1, cells.shape[-1])[-1, k])


def subjects_beside(rule: Rule, table: str, row: Mapping[str, Any], subjects: Sequence[str]) -> list[int]:
    """Return the subjects of the rule's frame that a row of ``table`` speaks for."""
    subject = BY_NAME[table].subject
    if subject is None:
        return list(range(len(subjects)))
    joined = f"head:{row[subject]}" if (rule.table, table) == ("groups", "heads") else str(row[subject])
    return [k for k, name in enumerate(subjects) if name == joined]


def candidates(table: str, name: str, cell: object, sides: Sequence[float]) -> list[object]:
    """Return values of a column, the present one among them, and those on and right beside each side."""
    column = BY_NAME[table].column(name)
    if column.kind is Kind.CHOICE:
        return [*column.choices]
    if column.kind is Kind.BOOL:
        return [True, False]
    if column.kind is Kind.TEXT:
        return ["said"]
    if column.kind is Kind.FLOAT:
        near = [f(side) for side in sides if math.isfinite(side) for f in (float, over, under)]
        return [cell, *near, 0.0, 1e300, -1e300, *([] if not isinstance(cell, float) else [0.9 * cell, 1.1 * cell])]
    return [cell, 0, 1, 2, 7, 10**6]


def sign(number: float) -> int:
    return (number > 0) - (number < 0)


def columns_of(rule: Rule, table: str) -> Sequence[str]:
    return rule.columns if table == rule.table else rule.beside[table]


def inside(promise: DeferralGuard, rule: Rule, last: Frame, rows: Rows, rng: np.random.Generator) -> Rows | None:
    """Return rows of an update after ``rows`` that keep the promise; None where a cell it watches is not finite."""
    changed: dict[str, list[dict[str, Any]]] = {}
    for table, listed in rows.items():
        changed[table] = []
        for row in listed:
            mine, next_row = subjects_beside(rule, table, row, last.subjects), dict(row)
            for name in columns_of(rule, table):
                sides = promise.sides[name if table == rule.table else f"{table}.{name}"]
                numbers = None if sides is FREE else [number_of(side, k) for side in sides for k in mine]
                choices = cells_inside(table, name, row.get(name), numbers)
                if not choices:
                    return None
                next_row[name] = choices[int(rng.integers(len(choices)))]
            changed[table].append(next_row)
    return changed


def cells_inside(table: str, name: str, cell: object, sides: Sequence[float] | None) -> list[object]:
    """Return cells that keep to the sides of ``cell``; none where it is not finite and ``sides`` are watched."""
    if sides is None:
        broken = [math.nan, math.inf] if BY_NAME[table].column(name).kind is Kind.FLOAT else []
        return [*candidates(table, name, cell, ()), *broken, None]
    now = cell_number(table, name, cell)
    if now is None:
        return [None]
    if not math.isfinite(now):
        return []
    others = [(other, cell_number(table, name, other)) for other in candidates(table, name, cell, sides)]
    return [
        other
        for other, number in others
        if number is not None and all(sign(number - side) == sign(now - side) for side in sides if not math.isnan(side))
    ]


def conditions_hold(promise: DeferralGuard, rule: Rule, last: Frame, now: Frame | None) -> bool:
    """Whether each condition that is watched is what it was; it is evaluated before the rule and not a cell of rows."""
    keys = [one.key for one in rule.conditions if promise.sides[one.key] is not FREE]
    return not keys or now is None or all(np.array_equal(now[key].values[-1], last[key].values[-1]) for key in keys)


def some_missing(rule: Rule, rows: Rows, rng: np.random.Generator) -> Rows:
    """Return ``rows`` with a cell of the rule's columns missing now and then."""
    changed: dict[str, list[dict[str, Any]]] = {}
    for table, listed in rows.items():
        columns = columns_of(rule, table)
        changed[table] = [
            {name: None if name in columns and rng.random() < 0.02 else cell for name, cell in row.items()}
            for row in listed
        ]
    return changed


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", GUARDED, ids=lambda rule: rule.name)
def test_inside_of_what_a_guard_promises_no_verdict_and_no_reason_changes(rule: Rule, seed: int) -> None:
    """Between promises the updates wander near the rule's examples; then they jump about within the box."""
    rng, watched = np.random.default_rng(seed), Watched(rule)
    left, verdicts_then, rows_then = 0, list[Verdicts](), dict[str, Any]()
    promise, last = None, None
    for rows in rows_of(rule, 200, rng):
        next_rows = None
        if left and promise is not None and last is not None:
            next_rows = inside(promise, rule, last, rows_then, rng)
        if next_rows is not None and promise is not None and last is not None:
            outcome = watched.take(next_rows)
            if not conditions_hold(promise, rule, last, watched.frame):
                left, promise = 0, None
                continue
            assert verdicts(outcome) == verdicts_then
            assert outcome.findings == ()
            left -= 1
            continue
        rows_then = dict(some_missing(rule, rows, rng))
        verdicts_then = verdicts(watched.take(rows_then))
        promise, last = watched.asking.promise, watched.asking.frame
        left = 0 if promise is None or rng.random() < 0.3 else min(promise.updates, int(rng.choice([2, 5, 64])))


@dataclass(frozen=True)
class Promise:
    """Cells of one subject, and what the guard promises after the last update; None: nothing.

    ``sides`` holds the numbers a column must stay on its side of, ``"any"`` where its cells may be anything.
    """

    rule: str
    cells: Mapping[str, Any]
    n: int
    updates: int | None
    sides: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)

    def actual(self) -> DeferralGuard | None:
        watched = Watched(BY_RULE[self.rule], self.limits)
        for rows in Case(self.rule, "", dict(self.cells), f"{self.n}o").rows():
            watched.take(rows)
        assert watched.asking.asked == self.n
        return watched.asking.promise


RETURNS_VARY = {"return_mean": 10.0, "return_variance": 4.0, "ev_low_variance": False}
RETURN = "episode_return_mean"
CLIP = "updates.max_grad_norm"
BEST, SILENT = "conditions.at_best", "conditions.unrewarded"
REWARDS = dict.fromkeys(("reward_min", "reward_max"), "any")
UNREWARDED: dict[str, Any] = {SILENT: [0.0], RETURN: "any", **REWARDS}
"""Of a rule that holds whether a step was rewarded, with what that is seen by: they may be anything by themselves."""
VARY_SIDES = {"ev_low_variance": [0.0], "return_variance": "?", "return_mean": "?"}
"""Those of ``returns_held``, which has tests of its own."""


def _of_logs(rule: Rule) -> dict[str, Any]:
    """Return what every rule with a stand-in for logs of other tools promises of a run that the recorder wrote."""
    if LOGGED not in rule.conditions:
        return {}
    of_logs = {*KL_LOG, *VALUE_LOG} & set(rule.columns)
    own = {"frozen_update": "grad_norm_pre_clip", "advantage_collapse": "reward_zero_std_fraction"}
    others = {own[rule.name]: "any"} if rule.name in own else {}
    return {LOGGED.key: [0.0], **dict.fromkeys(of_logs, "any"), **others}


def _of_fixed_bounds() -> list[Promise]:
    """Rules that compare cells with bounds and count nothing: the same promise at any time."""
    entropy = {"entropy_norm": 0.7, "choice_fraction": 1.0, "entropy": 1.0, "choices_unknown": False}
    counts = ("nan_grad_count", "inf_grad_count", "tensors_nonfinite", "ratio_nonfinite", "nonfinite_minibatches")
    losses = ("policy_loss", "value_loss", "entropy_loss", "total_loss", "grad_norm_pre_clip", "kl_reference")
    healthy = {**dict.fromkeys(counts, 0), **dict.fromkeys(losses, 0.1), "nonfinite_sources": None}
    shares = dict.fromkeys(("h_saturation", "forget_saturation", "input_saturation", "output_saturation"), 0.1)
    rewarded = entropy | {"reward_min": 0.0, "reward_max": 1.0}
    random = {"entropy_norm": [0.99], "choice_fraction": [0.0], "entropy": [], "choices_unknown": [0.0]}
    random |= {BEST: [0.0], **UNREWARDED}
    rises = {"entropy": [2.0], RETURN: "any", BEST: [0.0]}
    return [
        Promise("entropy_stuck", rewarded, 1, LASTING, random),
        Promise("entropy_stuck", rewarded | {"entropy_norm": 0.995}, 140, 9, random),
        Promise("entropy_rises", {"entropy": 1.0}, 4, None),
        Promise("entropy_rises", {"entropy": 1.0}, 5, LASTING, rises),
        Promise("entropy_rises", {"entropy": [*[1.0] * 5, *[3.0] * 4]}, 9, 5, rises),
        Promise(
            "eval_apart",
            {"eval_return_mean": None, RETURN: 5.0},
            3,
            LASTING,
            {"eval_return_mean": [], RETURN: [], BEST: "any"},
        ),
        Promise("eval_apart", {"eval_return_mean": 5.0, RETURN: 5.0}, 3, None),
        Promise(
            "numerical_instability",
            healthy,
            1,
            LASTING,
            {**{key: [0.0] for key in counts}, **{key: [] for key in losses}, "nonfinite_sources": []},
        ),
        Promise("data_lost", {"dropped_rows": 0}, 2, LASTING, {"dropped_rows": [0.0]}),
        Promise("rank_desync", {"spread": 0.0, "ranks": 2}, 2, LASTING, {"spread": [1e-4, 1e-2], "ranks": [2.0]}),
        Promise("first_ratio", {"first_ratio_error": 0.0}, 2, LASTING, {"first_ratio_error": [1e-4, 1e-2]}),
        Promise(
            "entropy_low",
            entropy,
            2,
            LASTING,
            {"entropy_norm": [0.3], "choice_fraction": [0.0], "entropy": [], "choices_unknown": [0.0]},
        ),
        Promise(
            "mask_collapse",
            {"learnable_fraction": 0.5, "kind": "categorical"},
            2,
            LASTING,
            {"learnable_fraction": [0.05], "kind": [0.0]},
        ),
        Promise(
            "lstm_nonfinite", {"has_nan": False, "has_inf": True}, 2, LASTING, {"has_nan": [0.0], "has_inf": [1.0]}
        ),
        Promise(
            "lstm_saturation",
            shares,
            2,
            LASTING,
            {key: [0.5] for key in shares},
        ),
        Promise(
            "lstm_vanishing",
            {"h_rms": 0.3, "c_rms": 0.3},
            2,
            LASTING,
            {key: [0.0001, 1e-06] for key in ("h_rms", "c_rms")},
        ),
    ]


def _of_streaks() -> list[Promise]:
    """A streak of c hits stays on one side of a length L for L − c − 1 more; at L and above, and at 0, for good."""
    cells: Cells
    sides: Any
    updates: int | None
    result = []
    measurable = {"inner_loop_measurable": True}
    for n, share, updates in (
        (1, 0.1, LASTING),
        (1, 0.4, 1),
        (2, 0.4, 0),
        (3, 0.4, LASTING),
        (1, 0.6, 1),
        (4, 0.6, LASTING),
    ):
        sides = {"clip_fraction": [0.3, 0.5], "inner_loop_measurable": [1.0], "kl_k3": [0.05] if share > 0.3 else "any"}
        sides |= {RETURN: "any", BEST: [0.0] if share > 0.3 else "any"}
        result.append(Promise("clip_saturation", measurable | {"clip_fraction": share}, n, updates, sides))
    shares = [0.4, 0.4, 0.6]  # three above 0.3, the last alone above 0.5
    result.append(Promise("clip_saturation", measurable | {"clip_fraction": shares}, 3, 1, sides))

    sides = {"kl_k3": [1e-6, 1.0], "inner_loop_measurable": [1.0]}
    for course, updates in (([0.1], LASTING), ([0.1, 0.0], 0), ([0.1, 0.0, 0.0], LASTING), ([3.0, 0.0], 0)):
        result.append(Promise("spike_then_silence", measurable | {"kl_k3": course}, len(course), updates, sides))

    steps = {"grad_norm_pre_clip_max": 3.0, "grad_norm_post_clip_max": 0.5, "max_grad_norm": 0.5}
    steps |= {"optimizer_steps": 8, "choice_fraction": 1.0, **measurable}
    sides = {**{key: [0.0] for key in steps}, "kl_k3": [1e-12, 1e-6], "inner_loop_measurable": [1.0]}
    sides |= {"max_grad_norm": []}
    for course, updates in (
        ([0.1] * 2, LASTING),
        ([0.0], 1),
        ([0.0] * 2, 0),
        ([0.0] * 3, LASTING),
        ([*[0.1] * 5, 0.0], 1),
        ([*[0.1] * 5, *[0.0] * 3], LASTING),
    ):
        still = course[-1] == 0.0  # then it matters whether returns are at their best
        watched = sides | {RETURN: "any", BEST: [0.0] if still else "any"}
        result.append(Promise("frozen_update", steps | {"kl_k3": course}, len(course), updates, watched))
        rising = steps | {"kl_k3": course, RETURN: [1.0 + i for i in range(len(course))]}
        risen = watched | {BEST: [float(len(course) > 3)] if still else "any"}
        result.append(Promise("frozen_update", rising, len(course), updates, risen))

    skipped = "nonfinite_skipped"
    for status, n, updates in (("performed", 2, LASTING), (skipped, 1, 1), (skipped, 2, 0), (skipped, 3, LASTING)):
        sides = {"status": [choice_code("updates", "status", status)]}
        result.append(Promise("update_skipped", {"status": status}, n, updates, sides))

    seed = {"low_ratio_cause": "dormant", "should_train": True, "tensors": 4, "host_elements": 100}
    cause = choice_code("slots", "low_ratio_cause", "dormant")
    known = {"low_ratio_cause": [cause], "should_train": [0.0], "tensors": [0.0]}
    for n, ratio, updates in ((2, 0.8, LASTING), (1, 0.05, 1), (2, 0.001, 0), (3, 0.001, LASTING)):
        sides = {**known, "normalized_ratio": [0.1, 0.01], "host_elements": [0.0]}
        result.append(Promise("seed_dormant", seed | {"normalized_ratio": ratio}, n, updates, sides))
        sides = {**known, "normalized_ratio": [0.1], "host_elements": [0.0], "host_grad_norm": [1.0]}
        cells = seed | {"normalized_ratio": ratio, "host_grad_norm": 3.0}
        result.append(Promise("host_dominating", cells, n, updates, sides))
        sides = {**known, "normalized_ratio": [], "vanishing_severity": [0.25, 0.5]}
        share = 0.0 if ratio == 0.8 else 0.3 if ratio == 0.05 else 0.7
        cells = seed | {"normalized_ratio": 0.8, "vanishing_severity": share}
        result.append(Promise("slot_gradient_vanishing", cells, n, updates, sides))
    mixed = seed | {"normalized_ratio": [0.05, 0.05, 0.001]}  # three are low, and the last one alone is dead
    sides = {**known, "normalized_ratio": [0.1, 0.01], "host_elements": [0.0]}
    result.append(Promise("seed_dormant", mixed, 3, 1, sides))
    lost = seed | {"normalized_ratio": None, "low_ratio_cause": "disconnected"}
    sides = {**sides, "low_ratio_cause": [choice_code("slots", "low_ratio_cause", "disconnected")]}
    result += [Promise("seed_dormant", lost, n, updates, sides) for n, updates in ((1, 1), (2, 0), (3, LASTING))]
    mixed = seed | {"normalized_ratio": 0.05, "host_grad_norm": 3.0, "low_ratio_cause": ["dormant"] * 2 + [None]}
    sides = {**known, "low_ratio_cause": [math.nan], "normalized_ratio": [0.1], "host_elements": [0.0]}
    result.append(Promise("host_dominating", mixed, 3, 1, sides | {"host_grad_norm": [1.0]}))

    head = {"kind": "categorical", "learnable_fraction": 1.0, "entropy": 1.0, "choice_samples": 3}
    sides = {
        "entropy_norm": [0.1, 1.5 * 0.1],
        "learnable_fraction": [0.0],
        "kind": [0.0],
        "entropy": [],
        "choice_samples": [],
    }
    returns = f"updates.{RETURN}"
    for n, norm, updates, free in (
        (2, 0.6, LASTING, True),
        (1, 0.05, 1, True),
        (2, 0.05, 0, True),
        (3, 0.05, 16, False),  # 19 before it is critical
        (19, 0.05, 0, False),
        (20, 0.05, LASTING, False),
    ):
        watched = {**sides, returns: "any", BEST: "any" if free else [0.0]}
        result.append(Promise("head_entropy_collapse", head | {"entropy_norm": norm}, n, updates, watched))
    cells = head | {"entropy_norm": 0.05}
    for n, updates, best in ((3, 16, 0.0), (9, 10, 1.0), (17, 2, 1.0)):
        level = {returns: [1.0 + i for i in range(n)]}
        result.append(
            Promise("head_entropy_collapse", cells | level, n, updates, {**sides, returns: "any", BEST: [best]})
        )
    own = {"per_head": {"s0": 0.5}}
    watched = {**sides, "entropy_norm": [0.5, 1.5 * 0.5], returns: "any", BEST: "any"}
    result.append(Promise("head_entropy_collapse", head | {"entropy_norm": 0.9}, 2, LASTING, watched, own))
    return result


def _of_windows() -> list[Promise]:
    """A window of five is counted on while it holds hits and others; then each update that leaves it counts."""
    cells: Cells
    sides: Any
    course: Any
    updates: int | None
    result = []
    kl = {"inner_loop_measurable": True, "target_kl": 0.02}
    sides = {"kl_k3": [0.1, 0.5, 1.5 * 0.02], "inner_loop_measurable": [1.0], "target_kl": [0.02]}
    for course, updates in (
        ([0.01], LASTING),
        ([0.04], 1),
        ([0.04] * 2, 0),
        ([0.04] * 3, LASTING),
        ([0.2], None),
        ([0.2, 0.01, 0.01, 0.01, 0.01], None),
        ([0.2, 0.01, 0.01, 0.01, 0.01, 0.01], LASTING),
        ([0.2] * 4, None),
    ):
        result.append(Promise("kl_spike", kl | {"kl_k3": course}, len(course), updates, sides))
    # beyond the bound its level matters: unknown until the twentieth, and another after every twentieth
    for course, updates, level in (
        ([0.2] * 5, 15, math.nan),
        ([0.2] * 20, 0, 1.0),
        ([0.2] * 23, None, 1.0),
        ([0.2] * 25, 15, 1.0),
        ([*[0.04] * 20, *[0.25] * 4], None, 0.2),
        ([*[0.04] * 20, *[0.25] * 5], 15, 0.2),
        ([*[0.04] * 20, 0.15], 19, 0.2),
    ):
        watched = sides | {"kl_k3": [*sides["kl_k3"], level]}
        result.append(Promise("kl_spike", kl | {"kl_k3": course}, len(course), updates, watched))
    sides = {"kl_k3": [0.1, 0.5, math.nan, math.nan], "inner_loop_measurable": [1.0], "target_kl": [math.nan]}
    result.append(Promise("kl_spike", {"kl_k3": 0.2, "inner_loop_measurable": True}, 5, 15, sides))

    usual = {"ess_fraction": 0.3, "kl_k3": 0.2, "inner_loop_measurable": True}
    free = {"inner_loop_measurable": [1.0], "ess_fraction": "any", "kl_k3": "any"}
    beyond = {"inner_loop_measurable": [1.0], "ess_fraction": [0.8, 0.5], "kl_k3": [0.1, 0.5]}
    for course, updates, rest in (
        ([1.4], LASTING, free),
        ([7.0], None, {}),
        ([7.0] * 5, LASTING, beyond),
        ([30.0] * 4, None, {}),
        ([30.0] * 5, LASTING, beyond),
        ([*[30.0] * 5, *[7.0] * 4], LASTING, beyond),
        ([*[30.0] * 5, *[1.4] * 4], None, {}),
        ([*[30.0] * 5, *[1.4] * 5], LASTING, free),
    ):
        cells, watched = usual | {"ratio_max": course}, {"ratio_max": [5.0, 20.0], **rest}
        result.append(Promise("ratio_explosion", cells, len(course), updates, watched))
    light = usual | {"ess_fraction": 0.95, "kl_k3": 0.05, "ratio_max": 7.0}
    result.append(Promise("ratio_explosion", light, 1, LASTING, {"ratio_max": [5.0, 20.0], **beyond}))

    usual = usual | {"choice_fraction": 1.0}
    free = {**free, "choice_fraction": "any"}
    beyond = {"inner_loop_measurable": [1.0], "ess_fraction": [0.8], "kl_k3": [0.1, 0.3, 0.5], "choice_fraction": []}
    for course, updates, rest in (
        ([0.7], LASTING, free),
        ([0.05], None, {}),
        ([0.05] * 5, LASTING, beyond),
        ([0.001] * 5, LASTING, beyond),
        ([*[0.001] * 5, *[0.05] * 4], LASTING, beyond),
        ([*[0.001] * 5, *[0.7] * 4], None, {}),
        ([*[0.001] * 5, *[0.7] * 5], LASTING, free),
    ):
        cells, watched = usual | {"ratio_min": course}, {"ratio_min": [0.1, 0.01], **rest}
        result.append(Promise("ratio_collapse", cells, len(course), updates, watched))

    calm = {"c_env_rms_max": 0.5, "c_rms": 0.5, "h_rms": 0.5}
    free = {f"updates.{RETURN}": "any", BEST: "any"}  # while nothing is out of range
    sides = {"c_env_rms_max": [10.0], "c_rms": [5.0], "h_rms": [5.0], **free}
    result.append(Promise("lstm_explosion", calm, 1, LASTING, sides))
    near = {"c_env_rms_max": [6.0], "c_rms": [3.0], "h_rms": [3.0], **free}
    result.append(Promise("lstm_explosion", calm, 1, LASTING, near, {"info": 3.0}))
    result.append(Promise("lstm_explosion", calm | {"h_rms": [*[0.5] * 9, None]}, 10, LASTING, sides))
    for metric in calm:
        result += [Promise("lstm_explosion", calm | {metric: 15.0}, n, None) for n in (1, 5, 60)]
        once = calm | {metric: [*[0.5] * 10, 150.0, *[0.5] * 50]}  # as long as the window may be
        result += [Promise("lstm_explosion", once, n, updates, sides) for n, updates in ((59, None), (60, LASTING))]

    slot = {
        "low_ratio_cause": None,
        "should_train": True,
        "tensors": 4,
        "normalized_ratio": 0.8,
        "tensors_nonfinite": 0,
    }
    sides = {"low_ratio_cause": [math.nan], "should_train": [0.0], "tensors": [0.0], "normalized_ratio": []}
    sides |= {"tensors_nonfinite": [0.0], "exploding_severity": [0.0, 0.5]}
    for course, updates in (
        ([0.0], LASTING),
        ([0.2], None),
        ([0.2] * 5, LASTING),
        ([*[0.2] * 5, 0.7], None),
        ([0.7] * 5, LASTING),
        ([*[0.7] * 5, *[0.2] * 4], None),
        ([*[0.7] * 5, *[0.2] * 5], LASTING),
    ):
        cells = slot | {"exploding_severity": course}
        result.append(Promise("slot_gradient_explosion", cells, len(course), updates, sides))
    return result


def _of_gradients() -> list[Promise]:
    """A group's own level: an early mean of ten, a median taken at the twentieth value and every twentieth after it."""
    cells: Cells
    sides: Any
    course: Any
    updates: int | None
    result = []
    norm, returns = "grad_norm", f"updates.{RETURN}"
    for course, updates, sides in (
        ([2.0] * 9, None, []),
        ([2.0] * 10, 10, [20.0 * math.nan, 200.0 * math.nan]),  # no level before the twentieth
        ([2.0] * 19, 1, [math.nan, math.nan]),
        ([2.0] * 20, 0, [20.0, 200.0]),
        ([2.0] * 21, LASTING, [20.0]),  # below ten times the early level, and the level is never below that
        ([*[2.0] * 26, 30.0], None, []),
        ([*[2.0] * 21, 30.0, *[2.0] * 4], None, []),
        ([*[2.0] * 21, 30.0, *[2.0] * 5], LASTING, [20.0]),
        ([*[2.0] * 21, 20.0], 18, [20.0, 200.0]),
        ([*[2.0] * 21, under(20.0)], LASTING, [20.0]),
        ([*[2.0] * 10, *[6.0] * 20], LASTING, [20.0]),
        ([*[2.0] * 10, *[4.0] * 30, 25.0], 19, [40.0, 400.0]),
        ([*[0.0] * 21], 19, [0.0, 0.0]),
        ([*[2.0] * 21, None], LASTING, [20.0]),
        ([*[2.0] * 21, *[300.0] * 5, *[30.0] * 4], None, []),
    ):
        watched = {norm: sides, CLIP: [math.nan], returns: "any", BEST: "any"}
        result.append(Promise("gradient_explosion", {norm: course}, len(course), updates, watched))
    for high in (30.0, 300.0):  # now it matters whether returns are at their best
        for level, best in ((1.0, 0.0), ([1.0 + i for i in range(31)], 1.0)):
            cells = {norm: [*[2.0] * 26, *[high] * 5], returns: level}
            watched = {norm: [20.0, 200.0], CLIP: [math.nan], returns: "any", BEST: [best]}
            result.append(Promise("gradient_explosion", cells, 31, 9, watched))
    for clip, course, updates, sides in (
        (0.5, [2.0] * 21, LASTING, [20.0]),
        (3.0, [2.0] * 10, 10, [math.nan, math.nan]),
        (3.0, [2.0] * 21, LASTING, [20.0]),
        (3.0, [*[2.0] * 21, 25.0], 18, [30.0, 300.0]),
        (3.0, [0.0] * 21, 19, [30.0, 300.0]),
    ):
        cells, watched = {norm: course, CLIP: clip}, {norm: sides, CLIP: [clip], returns: "any", BEST: "any"}
        result.append(Promise("gradient_explosion", cells, len(course), updates, watched))
    return result


def _of_levels() -> list[Promise]:
    """The same of a critic's errors, at a floor, and of hits in a row."""
    cells: Cells
    sides: Any
    course: Any
    updates: int | None
    result = []
    nrmse, bellman = "value_nrmse", "bellman_error"
    others = UNREWARDED | VARY_SIDES
    for course, updates, sides in (
        ([1.0] * 9, None, []),
        ([1.0] * 10, 10, [math.nan, math.nan]),
        ([1.0] * 20, 0, [5.0, 50.0]),
        ([1.0] * 21, LASTING, [5.0]),
        ([*[4.0] * 21], LASTING, [12.0]),
        ([*[4.0] * 21, 13.0], 1, [12.0, 120.0]),
        ([*[4.0] * 21, 13.0, 13.0], 0, [12.0, 120.0]),
        ([*[4.0] * 21, 13.0, 13.0, 13.0], 16, [12.0, 120.0]),
        ([*[4.0] * 21, 12.0], 18, [12.0, 120.0]),
        ([*[4.0] * 21, 13.0, 13.0, 130.0], 1, [12.0, 120.0]),
    ):
        other = LASTING if len(course) > 20 else None
        if other is not None:
            cells = RETURNS_VARY | {nrmse: course, bellman: 1.0}
            both = {nrmse: sides, bellman: [10.0], **others}
            result.append(Promise("value_divergence", cells, len(course), updates, both))
        elif updates is not None:
            both = {nrmse: sides, bellman: [10.0, 100.0] if len(course) == 20 else [math.nan, math.nan]}
            cells = RETURNS_VARY | {nrmse: course, bellman: 1.0}
            result.append(Promise("value_divergence", cells, len(course), updates, both | others))
        else:
            cells = RETURNS_VARY | {nrmse: course, bellman: 1.0}
            result.append(Promise("value_divergence", cells, len(course), None))
    for course, updates, sides in (([2.0] * 21, LASTING, [20.0]), ([*[2.0] * 21, 21.0], 1, [20.0, 200.0])):
        cells = RETURNS_VARY | {nrmse: 1.0, bellman: course}
        both = {nrmse: [5.0], bellman: sides, **others}
        result.append(Promise("value_divergence", cells, len(course), updates, both))

    return result


def _of_medians() -> list[Promise]:
    cells: Cells
    sides: Any
    updates: int | None
    result = []
    fraction, pre = "clip_active_fraction", "grad_norm_pre_clip"
    for share, n, updates, sides in (
        (0.5, 1, 19, []),
        (1.0, 1, 18, []),
        (1.0, 19, 0, []),
        (1.0, 20, 0, [0.9]),
        (1.0, 21, 19, [0.9]),
        (1.0, 25, 15, [0.9]),
        (1.0, 40, 0, [0.9]),
    ):
        expected = {fraction: sides, pre: [], "max_grad_norm": [], "optimizer_steps": [0.0], RETURN: "any"}
        expected[BEST] = [0.0] if n >= 20 else "any"
        result.append(Promise("clipping_always", {fraction: share, pre: 3.0}, n, updates, expected))
    late = {fraction: 1.0, pre: [*[None] * 15, *[3.0] * 9]}
    result.append(Promise("clipping_always", late, 24, None))  # the early level still changes

    ev, error = "explained_variance", "value_nrmse"
    kept = {ev: [], error: [], BEST: [0.0], **UNREWARDED, **VARY_SIDES}
    for n, updates in ((1, 58), (9, 50), (58, 1), (59, 0), (60, 0), (61, 19), (79, 1), (80, 0)):
        cells = RETURNS_VARY | {ev: 0.0, error: 3.0}
        result.append(Promise("critic_not_learning", cells, n, updates, kept))
    # medians are taken anew at the eightieth value of each; of the error there are fewer
    for missing, n, updates in ((8, 70, 10), (7, 62, 5), (2, 62, 0), (2, 61, 1)):
        partly = RETURNS_VARY | {ev: 0.0, error: [*[None] * missing, *[3.0] * (n - missing)]}
        result.append(Promise("critic_not_learning", partly, n, updates, kept))
    # an error that is missing now stays missing: when its median would be taken anew does not matter
    gone = RETURNS_VARY | {ev: 0.0, error: [*[3.0] * 55, *[None] * 15]}
    result.append(Promise("critic_not_learning", gone, 70, 10, kept))
    rising = RETURNS_VARY | {ev: 0.0, error: 3.0}
    for n, updates in ((9, 50), (61, 19)):
        cells = rising | {RETURN: [1.0 + i for i in range(n)]}
        result.append(Promise("critic_not_learning", cells, n, updates, kept | {BEST: [1.0]}))
    short = {"after": 20, "early_updates": 30}
    result.append(Promise("critic_not_learning", RETURNS_VARY | {ev: 0.0, error: 3.0}, 25, None, {}, short))

    flat = RETURNS_VARY | {ev: 0.0, error: 3.0}
    for n, updates, watched in (
        (1, 18, "any"),
        (19, 0, "any"),
        (20, 79, [1.1]),
        (99, 0, [1.1]),
        (100, LASTING, [1.1]),
    ):
        best: Any = "any" if watched == "any" else [0.0]
        sides = {ev: [-1e-3, 1e-3], error: watched, BEST: best, **UNREWARDED, **VARY_SIDES}
        result.append(Promise("critic_constant", flat, n, updates, sides))
        growing = flat | {RETURN: [1.0 + i for i in range(n)]}
        sides = sides | {BEST: "any" if watched == "any" else [1.0]}
        result.append(Promise("critic_constant", growing, n, updates, sides))
    sides = {ev: [-1e-3, 1e-3], error: "any", BEST: "any", **UNREWARDED, **VARY_SIDES}
    result.append(Promise("critic_constant", flat | {ev: 0.5}, 3, LASTING, sides))

    return result


def _of_returns() -> list[Promise]:
    cells: Cells
    sides: Any
    course: Any
    updates: int | None
    result = []
    alignment = "advantage_alignment"
    sides = {alignment: [0.0], "inner_loop_measurable": [1.0], "kl_k3": "any", RETURN: "any", BEST: "any"}
    sides["choice_fraction"] = [0.0]
    for course, updates in (
        ([0.5], 13),
        ([0.5] * 14, 0),
        ([5e-324] * 15, LASTING),
        ([*[0.5] * 15, 0.0], None),
        ([*[0.5] * 15, 0.0, *[0.5] * 8], None),
        ([*[0.5] * 15, 0.0, *[0.5] * 9], LASTING),
        ([*[0.5] * 15, None], LASTING),
    ):
        cells = {alignment: course, "inner_loop_measurable": True, "choice_fraction": 1.0}
        watched = sides | {"kl_k3": [] if course[-1] is None else "any"}
        result.append(Promise("advantage_misaligned", cells, len(course), updates, watched))
    low = {"level": -0.1, "least": 5}
    cells = {alignment: 0.5, "inner_loop_measurable": True, "choice_fraction": 1.0}
    for n, updates in ((1, 3), (4, 0), (5, LASTING)):
        result.append(Promise("advantage_misaligned", cells, n, updates, sides | {alignment: [-0.1]}, low))

    std = "advantage_std"
    rewarded = {"reward_min": 0.0, "reward_max": 1.0}
    sides = {std: [0.1 * 2.0, 1e-8], RETURN: "any", SILENT: [0.0], "reward_min": [], "reward_max": []}
    for course, updates, best in (
        ([2.0] * 9, None, []),
        ([2.0] * 10, LASTING, "any"),
        ([*[2.0] * 10, 0.1], 3, "any"),
        ([*[2.0] * 10, *[0.1] * 4], 0, "any"),
        ([*[2.0] * 10, *[0.1] * 5], LASTING, "any"),
        ([*[2.0] * 10, *[0.1] * 5, 1e-9], 3, [0.0]),
        ([*[2.0] * 10, *[1e-5] * 5, 0.0], 3, [0.0]),
    ):
        cells = rewarded | {std: course}
        result.append(Promise("advantage_collapse", cells, len(course), updates, sides | {BEST: best}))
    cells = rewarded | {std: [*[2.0] * 10, *[0.0] * 7], RETURN: [*[1.0] * 7, *[9.0] * 10]}
    result.append(Promise("advantage_collapse", cells, 17, LASTING, sides | {BEST: [1.0]}))
    stopped = {std: 2.0, "reward_min": 0.0, "reward_max": [*[1.0] * 15, 0.0]}
    result.append(Promise("advantage_collapse", stopped, 16, None))
    return result


def _of_shares() -> list[Promise]:
    """Quotients: the promise keeps both parts where their quotient is far from its bound."""
    cells: Cells
    sides: Any
    updates: int | None
    result = []
    least, most, spread = "advantage_min", "advantage_max", "advantage_std"
    widest = 0.999 * 10.0 * 0.7 * 2.0
    sides = {least: [-widest, widest], most: [-widest, widest], spread: [0.7 * 2.0]}
    for low, high, updates in (
        (-1.0, 1.0, LASTING),
        (-under(widest), 1.0, LASTING),
        (-widest, 1.0, None),
        (-1.0, under(widest), LASTING),
        (-1.0, widest, None),
        (-1.0, -widest, None),
        (widest, 1.0, None),
    ):
        result.append(Promise("advantage_outlier", {least: low, most: high, spread: 2.0}, 2, updates, sides))
    narrow = over(1e-12) / 0.7
    result.append(Promise("advantage_outlier", {least: 0.0, most: 0.0, spread: 1e-12 / 0.7 * 0.999}, 1, None))
    result.append(
        Promise(
            "advantage_outlier",
            {least: 0.0, most: 0.0, spread: narrow * 1.001},
            1,
            LASTING,
            {
                **{key: [-6.993 * narrow * 1.001, 6.993 * narrow * 1.001] for key in (least, most)},
                spread: [0.7 * narrow * 1.001],
            },
        )
    )
    nothing = dict.fromkeys((least, most, spread))
    result.append(Promise("advantage_outlier", nothing, 2, LASTING, {key: [] for key in nothing}))
    result.append(Promise("advantage_outlier", nothing | {spread: 1.0}, 2, None))

    share, norm, why, learnable = "vanishing_severity", "grad_norm", "heads.zero_explained", "heads.learnable_fraction"
    head = {"tensors": 4, share: 0.0, why: "not_zero", learnable: 1.0, "updates.choice_fraction": 1.0}
    code = choice_code("heads", "zero_explained", "not_zero")
    rest = {why: [code], learnable: [0.05], "updates.choice_fraction": [0.0]}
    free = {f"updates.{name}": "any" for name in (RETURN, *REWARDS)}
    head |= {f"updates.{name}": value for name, value in RETURNS_VARY.items()}
    error, entropy = "updates.value_nrmse", "updates.entropy_norm"
    calm: Any = {
        share: [0.0, 0.0, 0.5],
        "tensors": "any",
        BEST: "any",
        SILENT: "any",
        error: "any",
        entropy: "any",
        **free,
        **{f"updates.{name}": "any" for name in VARY_SIDES},
    }
    some: Any = {share: [0.3], "tensors": [4.0], BEST: [0.0], SILENT: [0.0], error: [1.0], entropy: [0.1], **free}
    some |= {f"updates.{name}": vary for name, vary in VARY_SIDES.items()}
    three = {"some_sustained": 3}
    far, near = 2.0 * 1e-4 * 2.0, 1e-4 * 2.0 / 2.0
    ten = [2.0] * 10
    for norms, updates in (
        ([2.0] * 9, None),
        (ten, LASTING),
        ([*ten, far], None),
        ([*ten, over(far)], LASTING),
        ([*ten, near], None),
        ([*ten, under(near)], 1),
        ([*ten, under(near), under(near)], 0),
        ([*ten, *[under(near)] * 3], LASTING),
    ):
        sides = {norm: [far, near], **calm, **rest}
        result.append(Promise("gradient_vanishing", head | {norm: norms}, len(norms), updates, sides, three))
    for n, severity, updates in ((10, 0.3, LASTING), (11, [*[0.0] * 10, 0.3], 1), (12, [*[0.0] * 10, 0.3, 0.3], 0)):
        sides = {norm: [far, near], **some, **rest}
        result.append(Promise("gradient_vanishing", head | {norm: 2.0, share: severity}, n, updates, sides, three))
    late = [*[0.3] * 12, 0.6]  # long above 0, and only once at a half
    sides = {norm: [far, near], **some, **rest, share: [0.6]}
    result.append(Promise("gradient_vanishing", head | {norm: 2.0, share: late}, 13, 1, sides, three))
    for early, updates in ((1e-290, LASTING), (under(1e-290), None), (0.0, LASTING)):
        bounds = {norm: [2.0 * 1e-4 * early, 1e-4 * early / 2.0], **calm, **rest}
        cells = head | {norm: [early, 1.0]}
        result.append(Promise("gradient_vanishing", cells, 2, updates, bounds, {"early_updates": 1}))
    return result


def _of_entropies() -> list[Promise]:
    cells: Cells
    sides: Any
    cells = {"choice_fraction": 1.0, "entropy": 1.0, "choices_unknown": False}
    sides = {"entropy_norm": [0.1, 0.02], "choice_fraction": [0.0], "entropy": [], "choices_unknown": [0.0]}
    sides |= {RETURN: "any"}
    result = [
        Promise("entropy_collapse", cells | {"entropy_norm": 0.7}, 2, LASTING, {**sides, BEST: "any"}),
        Promise("entropy_collapse", cells | {"entropy_norm": 0.05}, 2, LASTING, {**sides, BEST: [0.0]}),
    ]
    for n, best in ((2, 0.0), (9, 1.0), (15, 1.0)):
        rising = {"entropy_norm": 0.05, RETURN: [1.0 + i for i in range(n)]}
        result.append(Promise("entropy_collapse", cells | rising, n, LASTING, {**sides, BEST: [best]}))
    return result


def _of_phases() -> list[Promise]:
    cells: Cells
    course: Any
    updates: int | None
    ev, error = "explained_variance", "value_nrmse"
    cells = RETURNS_VARY | {error: 3.0, "progress": 0.5}
    result = [Promise("value_collapse", cells | {ev: 0.5}, 9, None)]  # its early level still changes
    watched = {"progress": [0.10, 0.25, 0.75], **UNREWARDED, **VARY_SIDES}
    enough = {ev: [0.0], error: "any", BEST: "any", **watched}  # above the phase's bound nothing else matters
    for n, updates, bound in (
        (10, 9, -0.5),  # the first phase ends with the twentieth of two hundred updates, the second with the fiftieth
        (19, 0, -0.5),
        (20, 29, -0.2),
        (49, 0, -0.2),
        (50, 0, 0.0),  # the warm-up where progress is unknown
        (51, LASTING, 0.0),
        (140, 9, 0.0),
        (150, LASTING, 0.0),
    ):
        result.append(Promise("value_collapse", cells | {ev: 0.5}, n, updates, enough | {ev: [bound]}))
    short = {"least_updates": 70}
    result.append(Promise("value_collapse", cells | {ev: 0.5}, 10, 7, enough | {ev: [-0.2]}, short))
    result.append(Promise("value_collapse", cells | {ev: [*[-0.9] * 51, 0.5]}, 52, LASTING, enough | {ev: [-0.9]}))
    ten = [0.5] * 51
    all_sides = {ev: [0.5, 0.0, -1.0], error: [1.1, 1.25 * 3.0], BEST: [0.0], **watched}
    cells = cells | {error: [*[3.0] * 10, *[4.0] * 70]}
    for course, updates in (
        ([*ten, 0.0], LASTING),
        ([*ten, -0.1], 18),
        ([*ten, *[-0.1] * 19], 0),
        ([*ten, *[-0.1] * 20], LASTING),
        ([*ten, *[-0.1] * 20, -2.0], 18),
    ):
        result.append(Promise("value_collapse", cells | {ev: course}, len(course), updates, all_sides))
    mixed = cells | {ev: [*ten, *[-0.1] * 20], error: [*[1.0] * 70, 3.0]}  # low for twenty, and off only once
    result.append(Promise("value_collapse", mixed, 71, 18, all_sides | {error: [1.1, 1.25]}))
    rising = cells | {ev: [*ten, -0.1], RETURN: [1.0 + i for i in range(52)]}
    result.append(Promise("value_collapse", rising, 52, 18, all_sides | {BEST: [1.0]}))
    late = cells | {ev: 0.5, error: [*[None] * 42, *[3.0] * 10]}  # nor is the early error known before its tenth
    result += [Promise("value_collapse", late, n, updates, enough) for n, updates in ((51, None), (52, LASTING))]
    gone = cells | {ev: [*ten, -0.1], error: [*[3.0] * 4, *[None] * 48]}
    result.append(Promise("value_collapse", gone, 52, 18, all_sides))
    return result


def _of_fits() -> list[Promise]:
    """A critic that fits as it did: one of its correlations stays among the older ones for eight updates."""
    fit, ev, low = "value_return_correlation", "explained_variance", "ev_low_variance"
    cells = RETURNS_VARY | {ev: 0.5}
    excused = {fit: [], ev: [], **UNREWARDED, **VARY_SIDES}
    sides = excused | {fit: "?"}
    result: list[Promise] = []
    course: list[float]
    updates: int | None
    for course, updates in (
        ([0.8] * 12, None),  # too early
        ([0.8] * 13, None),  # as low as the lowest that stays
        ([0.7, *[0.8] * 12], 8),
        ([*[0.8] * 10, 0.7, 0.8, 0.8], 8),
        ([*[0.8] * 11, 0.7, 0.8], None),  # not among the older ones yet
        ([0.7, *[0.8] * 14], 8),
        ([*[0.8] * 7, 0.7, *[0.8] * 15], None),  # no longer among them after eight updates
        ([*[0.8] * 8, 0.7, *[0.8] * 14], 8),
        ([*[0.8] * 20, 0.0, 0.0, 0.0], None),
    ):
        result.append(Promise("value_fit_lost", cells | {fit: course}, len(course), updates, sides))
    result.append(Promise("value_fit_lost", cells | {fit: [0.8, None]}, 2, LASTING, excused))
    result.append(Promise("value_fit_lost", cells | {fit: 0.8, low: True}, 2, LASTING, excused | {low: [1.0]}))
    return result


def _of_changes() -> list[Promise]:
    """A setting, a gradient and an entropy that stay what they are; what has just changed is looked at once more."""
    rate, clip, bonus = "learning_rate", "clip_range", "entropy_coef"
    cells: Cells = {rate: 1.0, clip: 0.2, bonus: 0.0}

    def near(share: float, **values: float) -> dict[str, Any]:
        return {
            name: [x - share * x, x + share * x] for name, x in ({rate: 1.0, clip: 0.2, bonus: 0.0} | values).items()
        } | {
            **{name: [math.nan] for name in ("value_coef", "max_grad_norm", "epochs")},
            "gamma": [math.nan, 1.0],
            "target_kl": [0.0],
        }

    tenth = 0.99 * 0.2 / 2.2
    result = [
        Promise("setting_changed", cells, 1, LASTING, near(tenth)),
        Promise("setting_changed", cells | {rate: [1.0, 2.0]}, 2, None),
        Promise("setting_changed", cells | {rate: [1.0, 9.0]}, 2, None),
        Promise("setting_changed", cells | {rate: [1.0, 0.0]}, 2, None),
        Promise("setting_changed", cells | {rate: [1.0, 2.0, 2.0]}, 3, LASTING, near(tenth, learning_rate=2.0)),
        Promise("setting_changed", cells | {bonus: None}, 2, LASTING, near(tenth) | {bonus: [math.nan]}),
        Promise("setting_changed", cells, 2, LASTING, near(0.99 * 0.25), {"change": 9.0, "rise": 1.25}),
        Promise("setting_changed", cells, 2, LASTING, near(0.99 * 0.25), {"change": 9.0, "fall": 0.6}),
        Promise("setting_changed", cells, 2, None, {}, {"rise": 1.0}),
        Promise("setting_changed", cells, 2, None, {}, {"fall": 1.0}),
    ]
    more: Cells = {"gamma": 0.9, "value_coef": 0.5, "max_grad_norm": 2.0, "epochs": 4}
    of_more = {name: [(1 - tenth) * x, (1 + tenth) * x] for name, x in more.items()}
    of_more |= {"gamma": [(1 - tenth) * 0.9, (1 + tenth) * 0.9, 1.0], "epochs": [4.0], "target_kl": [0.0]}
    for n, left in ((1, LASTING), (2, 3), (5, 0), (6, LASTING)):
        result.append(Promise("setting_changed", cells | more, n, left, near(tenth) | of_more))
    without, tensors = "tensors_without_grad", "tensors"
    ratio, norm = "update_ratio", "grad_norm"
    still: Cells = {without: 0, tensors: 4, norm: 1.0, ratio: 0.1}
    sides = {without: [0.0], tensors: [4.0], ratio: [0.0], norm: [0.0]}
    result += [
        Promise("gradient_stopped", still | {without: n}, 2, LASTING, sides | {without: [n]}) for n in (0.0, 4.0)
    ]
    result.append(Promise("gradient_stopped", still | {ratio: 0.0}, 2, LASTING, sides))  # nothing moves
    result.append(Promise("gradient_stopped", still | {ratio: [0.1, math.nan]}, 2, None))
    entropy, kl = "entropy", "kl_k3"
    sides = {entropy: [1.0 - 0.049, 1.0 + 0.049], kl: []}
    for n, updates in ((1, None), (2, 4), (5, 1), (6, 0), (7, LASTING)):
        result.append(Promise("policy_replaced", {entropy: 1.0, kl: 0.01}, n, updates, sides))
    for course, updates in (([2.0] * 8 + [1.0], None), ([2.0] * 8 + [1.0] * 2, LASTING), ([1.1] * 8 + [1.0], LASTING)):
        result.append(Promise("policy_replaced", {entropy: course, kl: 0.01}, len(course), updates, sides))
    gone = {entropy: [*[1.0] * 8, None], kl: 0.01}
    result.append(Promise("policy_replaced", gone, 9, LASTING, {entropy: [math.nan] * 2, kl: []}))
    back = {entropy: [*[1.0] * 8, None, 1.0], kl: 0.01}
    result.append(Promise("policy_replaced", back, 10, None))
    return result + _of_relations()


def _of_relations() -> list[Promise]:
    """Relations that hold or do not, moments that are there or gone, environments that differ or are alike."""
    result = []
    bounds = [0.9999, 0.9, 0.1]
    advantages = {"advantage_consistency": 1.0, "minibatch_advantage_consistency": 0.5, "advantage_std": 2.0}
    sides: Cells = {"advantage_consistency": bounds, "minibatch_advantage_consistency": bounds, "advantage_std": []}
    for n, updates in ((1, 1), (2, 0), (3, LASTING)):
        result.append(Promise("advantage_inconsistent", advantages, n, updates, sides))
    returns = {"return_residual": 1e-7, "ends_continued_fraction": 0.5, "rollout_ends": 4, "return_gamma": 0.9}
    returns["gamma"] = 0.9
    sides = {
        "return_residual": [1e-3, 0.01],
        "ends_continued_fraction": [0.0, 0.999, 0.5],
        "rollout_ends": [0.0, 3.0],
        "return_gamma": [1.001, 0.9 - 1e-3, 0.9 + 1e-3],
        "gamma": [0.9],
    }
    for n, updates in ((1, 1), (2, 0), (3, LASTING)):
        result.append(Promise("returns_inconsistent", returns, n, updates, sides))
    sides = {"rollout_ends": [0.0], "episodes_finished": [0.0]}
    for ends, updates_ in ((2, LASTING), (0, None)):
        cells: Cells = {"rollout_ends": ends, "episodes_finished": 1}
        result.append(Promise("ends_ignored", cells, 1, updates_, sides))
    sides = {"environments_distinct": [1.0], "environments": [1.0], "value_std": [0.0], RETURN: "any"}
    sides |= {"conditions.at_best": "any"}
    for distinct, updates_ in ((2, LASTING), (1, None)):
        cells = {"environments_distinct": distinct, "environments": 4, "value_std": 1.0}
        result.append(Promise("environments_alike", cells, 1, updates_, sides))
    ending = {"episodes_finished": 2, "episode_length_mean": 100.0}
    sides = {"episodes_finished": [0.0], "episode_length_mean": "any"}
    result.append(Promise("episodes_stopped", ending, 3, LASTING, sides))
    result.append(Promise("episodes_stopped", ending, 2, None, sides))
    result.append(Promise("episodes_stopped", ending | {"episodes_finished": [2, 2, 2, 0]}, 4, None, sides))
    error, factor, near = "policy_loss_error", "value_loss_factor", 0.99 * 1e-3 / 2.001
    cells, exact = {error: 1e-7, factor: 0.5}, {error: [1e-5, 1e-4, 0.01]}
    for n, updates in ((1, 1), (2, 0), (3, 1)):  # no factor is usual yet
        result.append(Promise("losses_inconsistent", cells, n, updates, exact | {factor: []}))
    around = exact | {factor: [0.5 * (1 - near), 0.5 * (1 + near), 0.4, 0.6]}
    changed = [0.7 * (1 - near), 0.7 * (1 + near), 0.4, 0.6]
    result += [
        Promise("losses_inconsistent", cells, 4, LASTING, around),
        Promise("losses_inconsistent", cells | {error: [*[1e-7] * 3, 0.5]}, 4, 0, around),
        Promise("losses_inconsistent", cells | {error: [*[1e-7] * 3, 0.5, 0.5]}, 5, LASTING, around),
        Promise("losses_inconsistent", cells | {factor: [*[0.5] * 4, 0.9]}, 5, None),
        Promise("losses_inconsistent", cells | {factor: [*[0.5] * 4, 0.7, 0.7]}, 6, 1, exact | {factor: changed}),
        Promise("losses_inconsistent", cells | {factor: None}, 3, LASTING, exact | {factor: [math.nan]}),
        Promise("losses_inconsistent", cells | {factor: [0.5, 0.6, 0.7, 0.8]}, 4, 3, exact | {factor: []}),
    ]
    seen = {"observation_shift": 0.02, "observation_std": 1.0}
    seen |= {"observation_constant_fraction": 0.1, "observation_nonfinite_fraction": 0.0}
    sides = {"observation_std": [], "observation_constant_fraction": []}
    sides |= {"observation_shift": [0.15], "observation_nonfinite_fraction": [0.0]}
    result += [
        Promise("observations_changed", seen, 10, None),
        Promise("observations_changed", seen, 11, LASTING, sides),
        Promise("observations_changed", seen | {"observation_shift": [0.02] * 10 + [0.15]}, 11, None),
        Promise("observations_changed", seen | {"observation_shift": [0.02] * 10 + [None]}, 11, None),
    ]
    shift = "parameter_shift_between_updates"
    for n, updates in ((1, 1), (2, 0), (3, LASTING)):
        result.append(Promise("parameters_changed", {shift: 0.0}, n, updates, {shift: [1e-6]}))
    result.append(Promise("parameters_changed", {shift: [0.0, 0.5]}, 2, None))
    for lost, updates_ in ((0.0, LASTING), (1.0, None)):
        sides = {"optimizer_state_lost": [0.999]}
        result.append(Promise("optimizer_restarted", {"optimizer_state_lost": lost}, 1, updates_, sides))
    return result


def _of_deviations() -> list[Promise]:
    """Standard deviations: above 0, below the width that runs away, above what has collapsed."""
    head = {"kind": "gaussian"}
    same_kind = {"kind": [choice_code("heads", "kind", "gaussian")]}
    cells = head | {"std_min": 0.5, "std_mean": 1.0, "std_nonpositive_fraction": 0.0}
    above = {name: [0.0] for name in ("std_min", "std_mean", "std_nonpositive_fraction")}
    result = [Promise("std_nonpositive", cells, 1, LASTING, above | same_kind)]
    for n, std, updates in ((19, 1.0, None), (20, 1.0, LASTING), (20, 1.6, None), (20, 0.0, None)):
        sides = {"std_mean": [1.5, 0.0], **same_kind}
        result.append(Promise("std_runaway", head | {"std_mean": std}, n, updates, sides))
    watched: dict[str, Any] = {"std_mean": [0.1, 0.02], **same_kind, f"updates.{RETURN}": "any", BEST: "any"}
    for stds, lasting in (([1.0] * 2, None), ([1.0] * 3, LASTING), ([1.0] * 3 + [0.05], None)):
        result.append(Promise("std_collapse", head | {"std_mean": stds}, len(stds), lasting, watched))
    return result


PROMISES = [
    promise
    for part in (
        _of_fixed_bounds,
        _of_streaks,
        _of_windows,
        _of_gradients,
        _of_levels,
        _of_medians,
        _of_returns,
        _of_shares,
        _of_entropies,
        _of_deviations,
        _of_phases,
        _of_fits,
        _of_changes,
    )
    for promise in part()
]
MISSING_TEXT = {"gradient_missing"}
"""Of the state of a gradient, which is never on a side of anything."""


@pytest.mark.parametrize("promise", PROMISES, ids=[f"{one.rule} {i}" for i, one in enumerate(PROMISES)])
def test_a_guard_promises_as_much_as_the_definition_of_its_rule_allows(promise: Promise) -> None:
    actual = promise.actual()
    if promise.updates is None:
        assert actual is None
        return
    assert actual is not None
    assert min(actual.updates, 100) == min(promise.updates, 100)
    expected_sides = {**_of_logs(BY_RULE[promise.rule]), **promise.sides}
    assert set(actual.sides) == set(expected_sides)
    for name, expected in expected_sides.items():
        sides = actual.sides[name]
        if expected == "?":
            assert sides is not FREE
        elif expected == "any":
            assert sides is FREE
        else:
            assert sides is not FREE
            assert [number_of(side, 0) for side in sides] == pytest.approx(expected, rel=1e-12, nan_ok=True), name


def test_every_guard_has_its_promises_written_down() -> None:
    missing = {rule.name for rule in GUARDED} - {promise.rule for promise in PROMISES} - MISSING_TEXT
    assert not missing, f"add what the guards of {missing} promise to PROMISES, or give these rules no guard"


def test_a_head_s_state_of_its_gradient_is_kept_as_it_is() -> None:
    watched = Watched(BY_RULE["gradient_missing"])
    watched.take({"heads": [{"head": "a", "grad_state": "finite", "zero_explained": "masked"}]})
    promise = watched.asking.promise
    assert promise is not None
    assert promise.updates == LASTING
    texts = {"grad_state": "finite", "zero_explained": "masked"}
    sides = {name: [number_of(side, 0) for side in sides or ()] for name, sides in promise.sides.items()}
    assert sides == {name: [choice_code("heads", name, text)] for name, text in texts.items()}


@pytest.mark.parametrize("seed", range(30))
def test_until_is_the_longest_for_which_no_streak_passes_a_length(seed: int) -> None:
    rng = np.random.default_rng(seed)
    streak, lengths = rng.integers(0, 12, 3) * rng.integers(0, 2, 3), rng.integers(1, 12, 2).tolist()

    def passes(more: int) -> bool:
        return any(
            (count >= length) != (count + more >= length) for count in streak.tolist() if count for length in lengths
        )

    expected = next(more for more in range(LASTING + 1) if more == LASTING or passes(more + 1))
    assert until(streak, *lengths) == expected


@pytest.mark.parametrize("seed", range(30))
def test_before_is_the_longest_for_which_no_tally_that_is_counted_reaches_the_last(seed: int) -> None:
    rng = np.random.default_rng(seed)
    number, counted, last = rng.integers(0, 12, 3), rng.random(3) < 0.6, int(rng.integers(0, 12))

    def passes(more: int) -> bool:
        return any((n >= last) != (n + more >= last) for n, on in zip(number.tolist(), counted, strict=True) if on)

    expected = next(more for more in range(LASTING + 1) if more == LASTING or passes(more + 1))
    assert before(number, counted, last) == expected


def test_a_window_is_steady_where_each_subject_hit_at_all_of_its_updates_or_at_none() -> None:
    flags = np.array([[1, 0, 0], [1, 0, 1], [1, 0, 1]], bool)
    assert [steady(flags, length) for length in (1, 2, 3, 4)] == [True, True, False, False]
    assert steady(flags[:, :2], 3)
    assert not steady(flags[:, :2], 4), "as long as that the flags are not carried"
    assert not steady(flags[::-1], 1) or not steady(flags[::-1], 2)
    assert steady(np.zeros((3, 2), bool), 3)
    assert not steady(np.zeros((3, 2), bool), 4)


def test_cells_as_codes() -> None:
    values, null = np.array([1.0, math.nan, math.inf, math.nan, -math.inf]), np.array([0, 0, 0, 1, 0], bool)
    assert coded(values, null, all_finite=False).tolist() == [1.0, BROKEN, BROKEN, NULL, BROKEN]
    assert coded(values[:1], null[:1], all_finite=True).tolist() == [1.0]


NUMBERS = (-2.0, under(-1.0), -1.0, over(-1.0), 0.0, 5e-324, 0.5, under(1.0), 1.0, over(1.0), 3.0)


@pytest.mark.parametrize("sides", [(), (1.0,), (-1.0, 1.0), (1.0, -1.0, 0.0), (math.nan, 1.0)])
@pytest.mark.parametrize("now", NUMBERS)
def test_a_box_holds_the_numbers_on_the_same_side_of_each_side(now: float, sides: tuple[float, ...]) -> None:
    last = frame("updates", {"policy_loss": [[now]], "value_loss": [[7.0]]})
    bounds = box(DeferralGuard(9, {"policy_loss": sides, "value_loss": ()}), ("policy_loss", "value_loss"), last)
    assert bounds is not None
    least, most = bounds
    for other in NUMBERS:
        same_sides = all(sign(other - side) == sign(now - side) for side in sides if not math.isnan(side))
        assert bool(least[0, 0] <= other <= most[0, 0]) == same_sides
    assert least[1, 0] == -1e308
    assert most[1, 0] == 1e308


def test_a_box_keeps_each_subject_to_its_own_side_and_null_to_null() -> None:
    last = frame("heads", {"entropy": [[0.2, 0.8, None]], "kind": [["categorical"] * 3]}, ["a", "b", "c"])
    for side in (np.array([0.5, 0.5, 0.5]), np.array([[0.5, 0.5, 0.5]])):
        bounds = box(DeferralGuard(9, {"entropy": (side,), "kind": FREE}), ("entropy", "kind"), last)
        assert bounds is not None
        least, most = bounds
        assert least[0].tolist() == [-1e308, over(0.5), NULL]
        assert most[0].tolist() == [under(0.5), 1e308, NULL]
        assert (least[1].tolist(), most[1].tolist()) == ([NULL] * 3, [BROKEN] * 3)
    for broken in (math.nan, math.inf):
        last = frame("heads", {"entropy": [[0.2, broken]]}, ["a", "b"])
        assert box(DeferralGuard(9, {"entropy": (0.5,)}), ("entropy",), last) is None
        assert box(DeferralGuard(9, {"entropy": FREE}), ("entropy",), last) is not None
