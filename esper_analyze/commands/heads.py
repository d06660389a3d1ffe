"""``esper-analyze heads``: whether every head is learning, and where a gradient is zero, whether that is expected."""

from __future__ import annotations

from esper_analyze.commands.options import Assignments, Fail, Rank, RulesFiles, RunPath, SkipBroken, ThresholdsFile
from esper_analyze.commands.questions import AsForm, Asked, OutFile, answer
from esper_analyze.csv_text import SpreadsheetSafe


def heads(
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
    """Show of each head its gradient, how often it had a choice, its entropy, and whether a zero is expected.

    --fail-on goes by the rules head_entropy_collapse, mask_collapse and gradient_missing.

    Example: esper-analyze heads RUN --fail-on critical
    """
    from esper_analyze.reports.judgement_rows import HEAD_RULES, head_rows
    from esper_analyze.reports.sections.heads import QUESTION

    asked = Asked(run_path, form, out, rank, skip_broken, assignments, thresholds, rules_files, fail_on, safe)
    answer(asked, QUESTION, head_rows, HEAD_RULES)
