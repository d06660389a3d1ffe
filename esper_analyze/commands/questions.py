"""Shared by the commands that answer a single question: judge the run, answer, and write the answer."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esper_analyze.commands.options import absolute
from esper_analyze.commands.run_options import RunOptions
from esper_analyze.csv_text import SpreadsheetSafe, csv_line, refuse_unless_csv
from esper_analyze.errors import UsageError
from esper_analyze.storage.output_path import refuse_file
from esper_analyze.terminal import cleaned, escaped, path_words, put, say, show_table

if TYPE_CHECKING:
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.reports.render.rows import SectionTable
    from esper_analyze.reports.render.section import Question

    Answer = bytes | str | tuple[list[str], SectionTable]

MOST_LINES = 40
"""Rows of a table on stdout; CSV and JSON have all."""
_OTHERS = "ranks but the first record groups and layers with Recorder(..., all_ranks=True) only"
_PIPED = 120
"""Characters in a line of sentences that do not go to a terminal."""


class Form(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PNG = "png"
    SVG = "svg"


AsForm = Annotated[
    Form | None,
    typer.Option("--format", help="Output format; default: by the suffix of --out, else a table."),
]
OutFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Write to FILE instead of stdout.", callback=absolute),
]


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(RunOptions):
    """The options of a command that answers a question: which run, how it is judged, and how the answer is written."""

    form: AsForm = None
    out: OutFile = None
    safe: SpreadsheetSafe = False

    @property
    def resolved(self) -> Form:
        """The form to answer in. Raises ``UsageError`` for an ending that says nothing, or a picture to a terminal."""
        form = self.form or self._by_ending()
        if form in (Form.PNG, Form.SVG) and self.out is None and sys.stdout.isatty():
            raise UsageError(
                f"a {form.upper()} picture cannot be printed to a terminal", hint=f"give --out FILE.{form}"
            )
        return form

    def _by_ending(self) -> Form:
        ending = "txt" if self.out is None else self.out.suffix.lower().removeprefix(".")
        if ending not in (*Form, "txt"):
            raise UsageError(f"the suffix of --out {self.out} names no known format", hint="give --format")
        return Form.TABLE if ending == "txt" else Form(ending)


def answer(
    options: AnswerOptions,
    question: Question,
    rows: Callable[[Evidence, Any], SectionTable],
    about: Iterable[str] = (),
) -> None:
    """Answer ``question`` with its figure, or with ``rows``, and exit by the findings of the rules in ``about``.

    No rule named means all rules. Raises ``UsageError`` when the run lacks the data.
    """
    from esper_analyze.runs.damaged_shard import naming_damaged_shard

    form = options.resolved
    refuse_unless_csv(safe=options.safe, is_csv=form is Form.CSV)
    if options.out is not None:
        refuse_file(options.out)
    run = options.open()
    evidence = options.evidence(run)
    with naming_damaged_shard(run):
        data = question.frame(evidence)
        if data is None:
            hint = _OTHERS if options.rank else ""
            raise UsageError(f"{run.path} cannot answer this: {question.without}", hint=hint)
        content = _content(options, question, evidence, data, rows)
    _write(content, options.out)
    named = set(about)
    findings = (finding for finding in evidence.replay.findings if not named or finding.rule in named)
    options.exit_if_found(run, findings)


def _content(
    asked: AnswerOptions,
    question: Question,
    evidence: Evidence,
    data: Any,
    rows: Callable[[Evidence, Any], SectionTable],
) -> Answer:
    """Return the whole answer: bytes of a picture, text, or sentences and rows for a table."""
    from esper_analyze.reports.render.figure import picture
    from esper_analyze.reports.render.rows import bare
    from esper_analyze.strict_json import strict_json

    form = asked.resolved
    if form in (Form.PNG, Form.SVG):
        return picture(question, data, form)
    sentences, table = question.words(data), rows(evidence, data)
    if form is Form.TABLE:
        return sentences, table
    if form is Form.JSON:
        facts = {"question": question.name, "asks": question.asks, "words": sentences, "rows": list(table.records())}
        return strict_json(facts)
    lines = [table.columns, *(bare(row) for row in table.cells)]
    return "".join(csv_line(line, safe=asked.safe) for line in lines)


def _write(content: Answer, out: Path | None) -> None:
    """Write the answer to ``out`` and its path to stdout, or the answer itself to stdout."""
    if out is None:
        if isinstance(content, bytes):
            sys.stdout.buffer.write(content)
        elif isinstance(content, str):
            put(content)
        else:
            _print(*content, most=MOST_LINES)
        return
    if isinstance(content, tuple):
        with redirect_stdout(io.StringIO()) as sink:
            _print(*content, most=None)
        content = sink.getvalue()
    from esper_analyze.storage.atomic import write_whole

    try:
        write_whole(out, content if isinstance(content, bytes) else content.encode(errors="replace"))
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}", hint="choose another --out") from error
    put(f"{path_words(out)}\n")


def _print(sentences: Iterable[str], table: SectionTable, most: int | None) -> None:
    """Print the sentences, then the brief columns of the first ``most`` rows (None: of all)."""
    from esper_analyze.reports.render.rows import spelled

    for sentence in sentences:
        put(f"{fill(cleaned(sentence, 2_000), _width())}\n")
    shown = table.narrow.first(len(table.cells) if most is None else most)
    if shown.cells:
        cells = [[escaped(spelled(cell)) for cell in row] for row in shown.cells]
        show_table(shown.columns, cells, right=shown.numbers)
    if len(shown.cells) < len(table.cells):
        say(f"{len(table.cells) - len(shown.cells):,} of {len(table.cells):,} rows are not shown: --format csv has all")


def _width() -> int:
    return get_terminal_size().columns if sys.stdout.isatty() else _PIPED
