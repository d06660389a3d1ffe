"""When a rule is judged that may be put off: as rarely as its guard allows, and patiently after a guard broke soon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from esper_analyze.detector.deferral_guards import LASTING, DeferralGuard, Side
from esper_analyze.detector.detector import Detector
from esper_analyze.detector.rule import Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Frame, batch_from_rows
from esper_analyze.detector.verdict import Bounds, Judgement, settle

BASE = next(rule for rule in RULES if rule.name == "first_ratio")


@dataclass
class Log:
    """At which update a rule judged, and how many updates; and when it was asked for a guard."""

    updates: int = LASTING
    sides: Sequence[Side] = (1.0,)
    judged: list[tuple[int, int]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    now: int = -1

    def judge(self, frame: Frame, *_: Any) -> list[Judgement]:
        self.judged.append((self.now, len(frame.present)))
        error = frame["first_ratio_error"]
        return [settle("first_ratio_error", error, Bounds(warning=error.values > 1.0, warning_at=1.0))]

    def guard(self, frame: Frame, *_: Any) -> DeferralGuard:
        self.asked.append(self.now)
        assert len(frame.present) == 1
        return DeferralGuard(self.updates, {"first_ratio_error": self.sides})

    def rule(self) -> Rule:
        return replace(BASE, judge=self.judge, guard=self.guard)


def run(log: Log, n: int, cell: Callable[[int], float | None] = lambda _: 0.5) -> Detector:
    detector = Detector(rules=[log.rule()], defer=True)
    for i in range(n):
        log.now = i
        detector.process(batch_from_rows(i, {"updates": [{"first_ratio_error": cell(i)}]}, detector.wanted))
    return detector


@pytest.mark.parametrize(("updates", "lasts"), [(0, 0), (1, 1), (5, 5), (64, 64), (65, 64), (500, 64)])
def test_a_rule_is_judged_again_right_after_the_updates_its_guard_promised(updates: int, lasts: int) -> None:
    log = Log(updates)
    run(log, 200)
    period = lasts + 1
    due = list(range(0, 200, period))
    if 1 <= lasts <= 3:  # promises that short cost more than they save: it is judged, and not asked, for some time
        assert log.judged[:3] == [(0, 1), (period, period), (period + 1, 1)]
    else:
        assert log.judged == [(at, 1 if at == 0 else period) for at in due]
        assert log.asked == due


@pytest.mark.parametrize("sound", [1, 2, 3, 4, 30])
def test_after_a_guard_that_broke_within_three_updates_it_is_judged_eight_times_before_it_is_asked_again(
    sound: int,
) -> None:
    """So many updates are inside of the guard's box, then one is outside; after that all are inside."""
    log = Log()
    run(log, 60, lambda i: 2.0 if i == sound else 0.5)
    assert log.judged[:2] == [(0, 1), (sound, sound)]
    if sound <= 3:
        # asked at the update after eight that were judged only: at the one that broke it, and the next seven
        assert [at for at, _ in log.judged[1:9]] == list(range(sound, sound + 8))
        assert log.asked[1] >= sound + 8
    else:
        assert log.asked[1] <= sound + 8
    assert all(number == 1 for _, number in log.judged[2:9] if sound <= 3)


def test_a_cell_that_becomes_null_or_not_finite_is_looked_at_at_once() -> None:
    for broken in (None, float("nan"), float("inf")):
        log = Log(sides=())
        run(log, 40, lambda i, broken=broken: broken if i == 20 else 0.5)  # type: ignore[misc]
        assert (20, 20) in log.judged
    log = Log(sides=())
    run(log, 40, lambda i: 0.5 + i)
    assert log.judged == [(0, 1)]


def test_of_a_long_run_those_updates_are_kept_that_a_rule_has_yet_to_judge() -> None:
    """At update 256 the oldest are dropped: of that rule 65 are due just then."""
    log = Log()
    run(log, 330, lambda i: 0.5 if i < 61 else 2.0)
    assert log.judged == [(0, 1), (61, 61), (126, 65), (191, 65), (256, 65), (321, 65)]


def test_the_state_saved_is_that_after_all_updates() -> None:
    log = Log()
    detector = run(log, 10)
    assert log.judged == [(0, 1)]
    detector.state_dict()
    assert log.judged == [(0, 1), (9, 9)]
    detector.state_dict()
    assert log.judged == [(0, 1), (9, 9)]
    log.now = 10
    detector.process(batch_from_rows(10, {"updates": [{"first_ratio_error": 0.5}]}, detector.wanted))
    assert log.judged[2:] == [(10, 1)]


def test_a_rule_without_rows_rests_until_there_are_some() -> None:
    log = Log()
    detector = Detector(rules=[log.rule()], defer=True)
    for i in range(150):
        log.now = i
        rows: dict[str, list[dict[str, object]]] = (
            {"lstm": []} if i < 100 else {"updates": [{"first_ratio_error": 0.5}]}
        )
        detector.process(batch_from_rows(i, rows, detector.wanted))
    assert log.judged[0] == (100, 1)


def test_a_rule_whose_verdict_is_about_to_clear_is_not_put_off() -> None:
    """A warning clears after five good updates: until then each is looked at."""
    log = Log()
    run(log, 30, lambda i: 2.0 if i == 10 else 0.5)
    at = [update for update, _ in log.judged]
    assert at[:2] == [0, 10]
    assert set(range(11, 16)) <= set(at)
    assert len(at) < 15


@pytest.mark.parametrize("subjects", [1, 3])
def test_each_subject_s_cells_are_watched(subjects: int) -> None:
    judged: list[int] = []

    def judge(frame: Frame, *_: Any) -> list[Judgement]:
        judged.append(len(frame.present))
        return [settle("entropy_norm", frame["entropy_norm"], Bounds())]

    def guard(*_: Any) -> DeferralGuard:
        side = np.arange(1.0, subjects + 1)  # of each subject its own
        return DeferralGuard(LASTING, {"entropy_norm": (side,), "kind": None, "updates.kl_k3": (5.0,)})

    beside = {"updates": ("kl_k3",)}
    rule = replace(BASE, judge=judge, guard=guard, table="heads", columns=("entropy_norm", "kind"), beside=beside)
    for changed in range(subjects):
        judged.clear()
        detector = Detector(rules=[rule], defer=True)
        for i in range(20):
            above = i == 12
            heads: list[dict[str, Any]] = [
                {"head": f"h{k}", "entropy_norm": k + (1.5 if above and k == changed else 0.5), "kind": None}
                for k in range(subjects)
            ]
            heads[0]["kind"] = "categorical" if i == 5 else None
            rows = {"heads": heads, "updates": [{"kl_k3": 6.0 if i == 9 else 1.0 + i / 10}]}
            detector.process(batch_from_rows(i, rows, detector.wanted))
        # first; where a cell beside it passed its side, and back; where the subject's own did, and back
        assert judged[:3] == [1, 9, 1]
        assert sum(judged[:3]) == 11
        assert judged[3] in (1, 2)
