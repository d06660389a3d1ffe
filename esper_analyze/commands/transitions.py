"""``esper-analyze transitions``: which samples made a ratio explode or collapse."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated

import typer

from esper_analyze.commands.options import Rank, RunPath, SkipBroken
from esper_analyze.commands.questions import AsForm, Asked, Form, OutFile, answer
from esper_analyze.csv_text import SpreadsheetSafe

Update = Annotated[
    int | None, typer.Option("--update", metavar="T", min=0, help="Of which update; default: the worst one.")
]


def transitions(
    run_path: RunPath,
    update: Update = None,
    form: AsForm = None,
    out: OutFile = None,
    rank: Rank = None,
    skip_broken: SkipBroken = False,
    safe: SpreadsheetSafe = False,
) -> None:
    """Show the samples with the largest log-ratios of one update, of the joint action and of each head concerned.

    A table shows the first few of each, every transition once; CSV and JSON have all.

    Example: esper-analyze transitions RUN --update 40 --format csv
    """
    from esper_analyze.reports.sections.transitions import QUESTION, frame, rows, table

    asked = Asked(run_path, form, out, rank, skip_broken, safe=safe)
    listed = table if asked.resolved is Form.TABLE else rows
    answer(asked, replace(QUESTION, frame=partial(frame, update=update)), lambda _, data: listed(data))
