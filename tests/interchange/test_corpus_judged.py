"""What is said of the corpus of foreign logs: every stated cell, the fault first, other algorithms refused by name."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from esper_analyze.detector.incidents import Incident
from esper_analyze.errors import EsperError, UsageError
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.sources import find_logs
from esper_analyze.interchange.write import write_imported
from esper_analyze.replay.replay import replay
from esper_analyze.runs.run import open_run
from tests.interchange.corpus import Cell, LoggedCase, cases

ALARMS = ("warning", "critical")
SAYS = {
    "kl_too_high": {"kl_spike", "setting_changed"},
    "policy_dead": {"entropy_collapse", "frozen_update", "std_collapse", "performance_degradation", "setting_changed"},
    "critic_never_learns": {"critic_not_learning"},
    "return_fell": {"performance_degradation", "kl_spike", "setting_changed", "std_runaway"},
    "nan": {"numerical_instability", "performance_degradation"},
    "std_runaway": {"std_runaway"},
    "std_nonpositive": {"std_collapse"},
    "no_longer_learns": {"frozen_update", "performance_degradation"},
}
"""The rules that may be first, by what is wrong: its cause where the log has it, else itself."""
SILENT = {
    "rsl_rl/old_std_nonpositive_6_console/console.txt": "printed with two digits, the last std before the crash is 0.1",
    "skrl/policy_dead/events.out.tfevents.1700000000.host.1.0": "skrl logs neither KL nor entropy",
    "torchrl/std_runaway/events.out.tfevents.1700000000.host.1.0": "TorchRL logs the entropy times its coefficient",
}
"""Broken trainings whose logs do not show it."""
ALARMED = {
    "stable_baselines3/solved_nearly/progress.csv": {"kl_spike"},
}
"""Logs called sound with a critical alarm that is right: a KL of 0.8 in the first update."""
JUDGED = [case for case in cases() if (case.fault != "refused" and case.updates is not None) or case.runs > 1]
ONE = [case for case in JUDGED if case.runs == 1]


def runs_of(case: LoggedCase) -> list[Imported]:
    runs = []
    for _, run in find_logs(case.location).read():
        assert isinstance(run, Imported), run
        runs.append(run)
    return runs


def incidents_of(imported: Imported, folder: Path) -> list[Incident]:
    return replay(open_run(write_imported(folder / "run", imported).path)).incidents


def held_cell(imported: Imported, cell: Cell) -> object:
    rows = [row for row in imported.rows[cell.table] if row["update"] == cell.update]
    return rows[0].get(str(cell.column)) if rows else None


@pytest.mark.parametrize("case", ONE, ids=lambda case: case.path)
def test_every_stated_cell_is_where_it_belongs(case: LoggedCase) -> None:
    (imported,) = runs_of(case)
    for cell in case.cells:
        if cell.column is None:
            continue
        number, stored = float(cell.number), held_cell(imported, cell)
        if cell.column == "explained_variance" and math.isnan(number):
            assert stored is None
            assert held_cell(imported, replace(cell, column="ev_low_variance")) is True
        elif cell.column == "clip_fraction" and case.framework == "trl":
            assert (number, stored) == (0.0, None), "0 by construction"
        else:
            assert stored == pytest.approx(number, rel=1e-6, nan_ok=True), cell


@pytest.mark.parametrize("case", JUDGED, ids=lambda case: case.path)
def test_the_runs_of_a_log_are_told_apart(case: LoggedCase) -> None:
    assert len(runs_of(case)) == case.runs


@pytest.mark.parametrize("case", [case for case in ONE if case.sound], ids=lambda case: case.path)
def test_a_sound_log_has_no_critical_alarm(case: LoggedCase, tmp_path: Path) -> None:
    (imported,) = runs_of(case)
    critical = {one.rule for one in incidents_of(imported, tmp_path) if one.peak_verdict == "critical"}
    assert critical == ALARMED.get(case.path, set())


@pytest.mark.parametrize("case", [case for case in ONE if not case.sound], ids=lambda case: case.path)
def test_the_first_alarm_of_a_broken_log_is_of_its_fault(case: LoggedCase, tmp_path: Path) -> None:
    (imported,) = runs_of(case)
    alarms = [one for one in incidents_of(imported, tmp_path) if one.peak_verdict in ALARMS]
    if case.path in SILENT:
        assert alarms == []
        return
    first = min(alarms, key=lambda one: (one.start, one.onset))
    assert first.rule in SAYS[case.fault]
    assert case.first_broken is not None
    assert first.start >= case.first_broken - 2, "not before it is broken"


@pytest.mark.parametrize("case", [case for case in cases() if case.fault == "refused"], ids=lambda case: case.path)
def test_another_algorithm_is_refused_by_its_name(case: LoggedCase) -> None:
    try:
        ((_, error),) = find_logs(case.location).read()
    except EsperError as raised:
        error = raised
    assert isinstance(error, UsageError)
    algorithm = str(case.refused).partition(",")[0]
    assert algorithm in str(error) or "empty" in str(error) or "a header" in str(error)
