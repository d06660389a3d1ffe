from pathlib import Path

from esper_analyze.detector.incidents import Incident
from esper_analyze.replay.evidence import Evidence, gather
from esper_analyze.reports.tables import grouped, incident_table, threshold_table, unjudged_table
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
    table = incident_table(troubled)
    assert "value_loss: 1 <small>at 30</small>" in table
    assert "finite, unexplained <small>at 40</small>" in table
    assert "+Inf <small>at 30</small>" in table


def test_a_healthy_run_has_no_incident_table(healthy: Evidence) -> None:
    assert incident_table(healthy) == "<p>No incident: no rule reached a warning.</p>"


def test_what_could_not_be_judged_says_why(troubled: Evidence) -> None:
    table = unjudged_table(troubled)
    assert "explained_variance is missing" in table
    assert '<td data-label="updates">3</td>' in table


def test_changed_thresholds_are_marked(troubled: Evidence) -> None:
    assert "recorded with" not in threshold_table(troubled)
    changed = troubled.replay.thresholds.assigned("kl_spike.warning=0.05")
    troubled.replay.thresholds, kept = changed, troubled.replay.thresholds
    try:
        assert "recorded with 0.1; default 0.1" in threshold_table(troubled)
    finally:
        troubled.replay.thresholds = kept


def test_a_rule_whose_table_has_no_rows_is_listed_as_silent(tmp_path: Path) -> None:
    def without(_update: int, rows: Rows) -> None:
        rows["lstm"] = []

    table = unjudged_table(gather(open_run(write_run(tmp_path / "run", 3, without))))
    assert "lstm_explosion" in table
    assert "table lstm has no rows" in table
