"""``esper-analyze drift``: whether a group's gradient drifted away from its own past."""

from __future__ import annotations

from esper_analyze.commands.options import Assignments, Fail, Rank, RulesFiles, RunPath, SkipBroken, ThresholdsFile
from esper_analyze.commands.questions import AsForm, Asked, OutFile, answer
from esper_analyze.csv_text import SpreadsheetSafe


def drift(
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
    """Show how far each group's gradient norm is from its own earlier level, and which groups alarmed for it.

    --fail-on goes by the rule gradient_drift.

    Example: esper-analyze drift RUN --set gradient_drift.warning=0.4 --out drift.png
    """
    from esper_analyze.reports.judgement_rows import DRIFT_RULES, drift_rows
    from esper_analyze.reports.sections.drift import QUESTION

    asked = Asked(run_path, form, out, rank, skip_broken, assignments, thresholds, rules_files, fail_on, safe)
    answer(asked, QUESTION, drift_rows, DRIFT_RULES)
