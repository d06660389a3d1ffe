"""What-if: alarms as findings tell them, and how they are held against each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from esper_analyze.detector.findings import Finding
from esper_analyze.replay.recorded_rules import stored_thresholds
from esper_analyze.replay.replay import replay
from esper_analyze.replay.whatif import CHANGES, Alarm, alarm_changes, alarms_of, what_if
from esper_analyze.runs.run import open_run
from tests.reports.conftest import trouble
from tests.reports.synthetic import write_run


def finding(update: int, verdict: str, previous: str | None = "ok", rule: str = "r") -> Finding:
    return Finding(update, rule, "run", "m", verdict, previous, 1.0, None, None, None)


def alarm(start: int, end: int | None, verdict: str = "warning") -> Alarm:
    return Alarm("r", "run", "m", verdict, start, end)


def kinds(live: Sequence[Alarm], now: Sequence[Alarm]) -> list[str]:
    return [change.what for change in alarm_changes(live, now)]


def test_an_alarm_lasts_from_its_finding_to_the_update_before_it_cleared() -> None:
    said = [finding(3, "warning"), finding(5, "critical", "warning"), finding(9, "info", "critical")]
    assert alarms_of(said) == [alarm(3, 8, "critical")]


def test_missing_data_neither_ends_nor_begins_an_alarm() -> None:
    said = [finding(3, "warning"), finding(5, "no_data", "warning"), finding(7, "not_applicable", "warning")]
    assert alarms_of(said) == [alarm(3, None)]


@pytest.mark.parametrize(
    ("live", "now", "what"),
    [
        ([alarm(3, 8)], [alarm(3, 8)], ["same"]),
        ([], [alarm(3, 8)], ["new"]),
        ([alarm(3, 8)], [], ["gone"]),
        ([alarm(3, 8)], [alarm(1, 8)], ["earlier"]),
        ([alarm(3, 8)], [alarm(5, None)], ["later"]),
        ([alarm(3, 8)], [alarm(3, 8, "critical")], ["worse"]),
        ([alarm(3, 8, "critical")], [alarm(3, 8)], ["milder"]),
        ([alarm(3, 8)], [alarm(3, None)], ["longer"]),
        ([alarm(3, None)], [alarm(3, 8)], ["shorter"]),
        ([alarm(3, None)], [alarm(3, None)], ["same"]),
        ([alarm(3, 5)], [alarm(6, 8)], ["gone", "new"]),
        ([alarm(3, 9)], [alarm(3, 4), alarm(7, 9)], ["shorter", "split"]),
        ([alarm(3, 4), alarm(7, 9)], [alarm(3, 9)], ["longer", "joined"]),
    ],
)
def test_each_kind_of_change_has_its_name(live: list[Alarm], now: list[Alarm], what: list[str]) -> None:
    assert kinds(live, now) == what
    assert set(what) <= set(CHANGES)


def test_alarms_of_different_things_are_never_the_same() -> None:
    assert kinds([alarm(3, 8)], [Alarm("r", "head", "m", "warning", 3, 8)]) == ["new", "gone"]


@st.composite
def rows(draw: st.DrawFn) -> list[Alarm]:
    """Alarms of one thing, apart from each other and in order, the last one perhaps open."""
    edges = sorted(draw(st.sets(st.integers(0, 40), max_size=12)))
    pairs = [alarm(start, end - 1) for start, end in zip(edges[::2], edges[1::2], strict=False) if end - 1 >= start]
    return [*pairs, alarm(edges[-1], None)] if len(edges) % 2 else pairs


@given(rows(), rows())
def test_every_alarm_is_told_once_and_two_sides_that_agree_change_nothing(live: list[Alarm], now: list[Alarm]) -> None:
    changes = alarm_changes(live, now)
    told_live = [one.live for one in changes if one.what not in ("new", "split")]
    told_now = [one.now for one in changes if one.what not in ("gone", "joined")]
    assert sorted(told_live, key=lambda one: one.start if one else -1) == live
    assert sorted(told_now, key=lambda one: one.start if one else -1) == now
    assert set(kinds(live, live)) <= {"same"}


def test_a_threshold_that_moves_but_finds_the_same_changes_no_finding(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "run", 60, trouble))
    stored = stored_thresholds(run)
    found = what_if(run, replay(run, stored.assigned("kl_spike.critical=0.4")), stored)
    assert found.thresholds == (("kl_spike.critical", 0.5, 0.4),)
    assert {change.what for change in found.alarms} == {"same"}
    assert (found.findings_now, found.findings_live, found.levels_now, found.levels_live) == ((), (), (), ())


def test_what_vanishes_and_what_appears_is_told_with_its_updates(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "run", 60, trouble))
    stored = stored_thresholds(run)
    chosen = stored.assigned("kl_spike.critical=9").assigned("kl_spike.warning=9")
    found = what_if(run, replay(run, chosen), stored)
    (gone,) = [change for change in found.alarms if change.about.rule == "kl_spike"]
    assert (gone.what, gone.now) == ("gone", None)
    assert gone.live is not None
    assert gone.live.start == 20
    assert {one.rule for one in found.findings_live} == {"kl_spike"}
    found = what_if(run, replay(run, stored.assigned("kl_spike.critical=0.005")), stored)
    (moved,) = [change for change in found.alarms if change.about.start < 20]
    assert moved.what == "earlier"
    assert any(one.update == moved.about.start for one in found.findings_now)
