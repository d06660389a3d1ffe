"""``esper-analyze layers``: which layer went bad first, and where gradients vanish or explode."""

from __future__ import annotations

from esper_analyze.commands.options import Rank, RunPath, SkipBroken
from esper_analyze.commands.questions import AsForm, Asked, OutFile, answer
from esper_analyze.csv_text import SpreadsheetSafe


def layers(
    run_path: RunPath,
    form: AsForm = None,
    out: OutFile = None,
    rank: Rank = None,
    skip_broken: SkipBroken = False,
    safe: SpreadsheetSafe = False,
) -> None:
    """Show the gradient of each layer, the worst first: NaN, exploding, vanishing, never reached, or flowing.

    As a picture: a heatmap of layers and updates, in which no cell hides what is worse than it.

    Example: esper-analyze layers RUN --out layers.png
    """
    from esper_analyze.reports.sections.layers import QUESTION, rows

    answer(
        Asked(run_path, form, out, rank, skip_broken, safe=safe),
        QUESTION,
        lambda _, data: rows(data),
    )
