"""``esper-analyze timeline``: when there was trouble, and when the recorder looked closer."""

from __future__ import annotations

from esper_analyze.commands.options import Assignments, Fail, Rank, RulesFiles, RunPath, SkipBroken, ThresholdsFile
from esper_analyze.commands.questions import AsForm, Asked, OutFile, answer
from esper_analyze.csv_text import SpreadsheetSafe


def timeline(
    run_path: RunPath,
    form: AsForm = None,
    out: OutFile = None,
    assignments: Assignments = None,
    thresholds: ThresholdsFile = None,
    rules_files: RulesFiles = None,
    rank: Rank = None,
    fail_on: Fail = None,
    skip_broken: SkipBroken = False,
    safe: SpreadsheetSafe = False,
) -> None:
    """List every incident in the order in which they began, with its cause; as a picture, with the telemetry level.

    Example: esper-analyze timeline RUN --format csv
    """
    from esper_analyze.reports.judgement_rows import timeline_rows
    from esper_analyze.reports.sections.escalation import QUESTION

    asked = Asked(run_path, form, out, rank, skip_broken, assignments, thresholds, rules_files, fail_on, safe)
    answer(asked, QUESTION, timeline_rows)
