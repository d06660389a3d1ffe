"""``esper-analyze seeds``: which seeds of a growing network pass the quality gate, and why the others do not."""

from __future__ import annotations

from esper_analyze.commands.options import Assignments, Fail, Rank, RulesFiles, RunPath, SkipBroken, ThresholdsFile
from esper_analyze.commands.questions import AsForm, Asked, OutFile, answer
from esper_analyze.csv_text import SpreadsheetSafe


def seeds(
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
    """Show the seed of each environment and slot: ratio of its gradient to the host's, health, and what stops it.

    The gate takes a ratio of at least 0.10 and a health of at least 0.7. --fail-on goes by the rules seed_dormant,
    host_dominating, slot_gradient_explosion and slot_gradient_vanishing.

    Example: esper-analyze seeds RUN --out seeds.svg
    """
    from esper_analyze.reports.sections.slot_findings import RULES
    from esper_analyze.reports.sections.slots import QUESTION, rows

    asked = Asked(run_path, form, out, rank, skip_broken, assignments, thresholds, rules_files, fail_on, safe)
    answer(asked, QUESTION, lambda _, data: rows(data), RULES)
