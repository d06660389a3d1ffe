"""Alerts tell of the same incidents, at the same updates, as the detector's own account of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from esper_analyze.detector.findings import Finding
from esper_analyze.detector.incidents import CLEARED
from esper_analyze.replay.replay import fresh_starts, replay
from esper_analyze.runs.run import open_run
from esper_analyze.storage.run_info import find_runs
from recorder.act.changes import BEGAN, CRITICAL, ENDED, IncidentChanges

RUNS = find_runs(Path(__file__).parents[3] / "sample_runs" / "runs")


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_changes_are_those_of_the_incidents_of_the_run(path: Path) -> None:
    run = open_run(path)
    for rank in run.ranks:
        of_rank = run.only(rank)
        assert not fresh_starts(of_rank)
        judged, followed = replay(of_rank), IncidentChanges()
        by_update: dict[int, list[Finding]] = {}
        for finding in judged.findings:
            by_update.setdefault(finding.update, []).append(finding)
        changes = [change for findings in by_update.values() for change in followed.take(findings)]
        keys = {(change.event, change.finding.key, change.start) for change in changes}
        single = judged.single_incidents
        assert len(keys) == len(changes)
        assert {key[1:] for key in keys if key[0] == BEGAN} == {(incident.key, incident.start) for incident in single}
        assert {key[1:] for key in keys if key[0] == ENDED} == {
            (incident.key, incident.start) for incident in single if incident.ended == CLEARED
        }
        critical = {
            (change.finding.key, change.start)
            for change in changes
            if change.event == CRITICAL or (change.event == BEGAN and change.finding.verdict == "critical")
        }
        assert critical == {
            (incident.key, incident.start) for incident in single if incident.peak_verdict == "critical"
        }
    assert path.name != "kl_too_high" or changes


def test_an_incident_of_an_earlier_attempt_becomes_critical_and_ends_without_a_start() -> None:
    def finding(verdict: str, previous: str) -> Finding:
        return Finding(7, "kl_spike", "run", "kl_k3", verdict, previous, 0.1, None, None, None)

    for verdict, previous, event in (("critical", "warning", CRITICAL), ("ok", "critical", ENDED)):
        (change,) = IncidentChanges().take([finding(verdict, previous)])
        assert (change.event, change.start, change.worst) == (event, None, "critical")
    assert not IncidentChanges().take([finding("warning", "critical")])
    assert not IncidentChanges().take([finding("no_data", "critical")])
