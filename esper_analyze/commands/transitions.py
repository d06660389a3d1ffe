"""``esper-analyze transitions``: which samples made a ratio explode or collapse."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated

import typer

from esper_analyze.commands.options import takes_options
from esper_analyze.commands.output import Form
from esper_analyze.commands.questions import AnswerOptions, answer

Update = Annotated[
    int | None, typer.Option("--update", metavar="T", min=0, help="Of which update; default: the worst one.")
]


@takes_options(
    *("paths", "update", "form", "as_json", "out", "first", "last", "latest"), *("rank", "skip_broken", "safe")
)
def transitions(options: AnswerOptions, update: Update = None) -> None:
    """Show the samples with the largest log-ratios of one update, of the joint action and of each head concerned.

    A table shows the first few of each, every transition once; CSV and JSON have all. With --from, --to or --last, the
    worst update is the worst of these. Several runs are answered one after the other.

    Example: esper-analyze transitions RUN --update 40 --format csv
    """
    from esper_analyze.reports.sections.transitions import SECTION, frame, listed, rows

    shown = listed if options.resolved is Form.TABLE else rows
    answer(options, replace(SECTION, frame=partial(frame, update=update), rows=shown))
