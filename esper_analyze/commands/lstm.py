"""``esper-analyze lstm``: whether the recurrent state is alive, bounded and unsaturated."""

from __future__ import annotations

from esper_analyze.commands.options import Assignments, Fail, Rank, RulesFiles, RunPath, SkipBroken, ThresholdsFile
from esper_analyze.commands.questions import AsForm, Asked, OutFile, answer
from esper_analyze.csv_text import SpreadsheetSafe


def lstm(
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
    """Show size and saturation of the recurrent state, its gates, and how far one environment stands out.

    --fail-on goes by the rules whose names begin with lstm.

    Example: esper-analyze lstm RUN --format json
    """
    from esper_analyze.reports.sections.lstm import QUESTION, RULES, rows

    asked = Asked(run_path, form, out, rank, skip_broken, assignments, thresholds, rules_files, fail_on, safe)
    answer(asked, QUESTION, lambda _, data: rows(data), RULES)
