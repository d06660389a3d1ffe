from pathlib import Path

from esper_analyze.detector.incidents import Incident
from esper_analyze.replay.evidence import Evidence, gather
from esper_analyze.reports.render.html import render
from esper_analyze.reports.render.rows import spelled
from esper_analyze.reports.tables import grouped, incident_list, threshold_rows, unjudged_rows
from esper_analyze.runs.run import open_run
from tests.reports.synthetic import Rows, write_run


def incident(rule: str, start: int, cause: int | None = None, subject: str = "run") -> Incident:
    return Incident(
        rule=rule,
        subject=subject,
        metric="m",
        onset=start,
        start=start,
        end=start,
        ended="cleared",
        peak=1.0,
        peak_update=start,
        peak_verdict="warning",
        count=1,
        cause=cause,
    )


def test_consequences_stand_under_their_root_and_repeats_in_one_row() -> None:
    listed = [incident("a", 1), incident("b", 1, cause=0), incident("b", 2, cause=1), incident("c", 3)]
    assert [([one.rule for one in found], depth) for found, depth in grouped(listed)] == [
        (["a"], 0),
        (["b", "b"], 1),
        (["c"], 0),
    ]


def test_lone_incidents_of_a_kind_share_a_row_but_roots_with_consequences_do_not() -> None:
    listed = [incident("a", 1), incident("a", 2), incident("b", 2, cause=1), incident("a", 3)]
    assert [([one.start for one in found], depth) for found, depth in grouped(listed)] == [
        ([1, 3], 0),
        ([2], 0),
        ([2], 1),
    ]


def test_every_incident_is_in_some_row(troubled: Evidence) -> None:
    incidents = troubled.replay.incidents
    assert sorted(id(one) for found, _ in grouped(incidents) for one in found) == sorted(map(id, incidents))


def test_words_stand_where_words_were_judged(troubled: Evidence) -> None:
    worst = {(spelled(group.worst), group.worst_at) for group in incident_list(troubled).groups}
    assert {("value_loss: 1", 30), ("finite, unexplained", 40), ("+Inf", 30)} <= worst


def test_a_healthy_run_has_no_incident_table(healthy: Evidence) -> None:
    page = render("incidents.html.j2", incidents=incident_list(healthy))
    assert page.strip() == "<p>No incident: no rule reached a warning.</p>"


def test_what_could_not_be_judged_says_why(troubled: Evidence) -> None:
    listed = {(row.reason, row.updates) for row in unjudged_rows(troubled)}
    assert ("explained_variance is missing", "3") in listed


def test_changed_thresholds_are_marked(troubled: Evidence) -> None:
    assert not any(row.changes for row in threshold_rows(troubled))
    changed = troubled.replay.thresholds.assigned("kl_spike.warning=0.05")
    troubled.replay.thresholds, kept = changed, troubled.replay.thresholds
    try:
        (row,) = [row for row in threshold_rows(troubled) if row.changes]
        assert (row.rule, row.name, row.value) == ("kl_spike", "warning", 0.05)
        assert row.changes == ("recorded with 0.1", "default 0.1")
    finally:
        troubled.replay.thresholds = kept


def test_a_rule_whose_table_has_no_rows_is_listed_as_silent(tmp_path: Path) -> None:
    def without(_update: int, rows: Rows) -> None:
        rows["lstm"] = []

    rows = unjudged_rows(gather(open_run(write_run(tmp_path / "run", 3, without))))
    assert ("lstm_explosion", "table lstm has no rows", "all") in {(row.rule, row.reason, row.updates) for row in rows}
