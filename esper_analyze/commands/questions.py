"""Shared by the commands that answer a single question: judge the run, answer, and write the answer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from esper_analyze.commands.options import absolute
from esper_analyze.commands.run_options import RunOptions
from esper_analyze.csv_text import SpreadsheetSafe, refuse_unless_csv
from esper_analyze.errors import UsageError
from esper_analyze.storage.output_path import refuse_file
from esper_analyze.terminal import path_words, put

if TYPE_CHECKING:
    from esper_analyze.reports.render.rows import SectionTable
    from esper_analyze.reports.render.section import Section

    Answer = bytes | str | tuple[list[str], SectionTable]

_OTHERS = "ranks but the first record groups and layers with Recorder(..., all_ranks=True) only"


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
    typer.Option("--out", "-o", metavar="FILE", help="Write to FILE instead of stdout.", callback=absolute),
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
            raise UsageError(
                f"the suffix of --out {self.out} names no known format", hint=f"formats are {', '.join(Form)}"
            )
        return Form.TABLE if ending == "txt" else Form(ending)


def answer(options: AnswerOptions, section: Section) -> None:
    """Answer with the section's figure or rows, and exit by the findings of its rules.

    Raises ``UsageError`` when the run lacks the data.
    """
    from esper_analyze.runs.damaged_shard import naming_damaged_shard

    form = options.resolved
    refuse_unless_csv(safe=options.safe, is_csv=form is Form.CSV)
    if options.out is not None:
        refuse_file(options.out)
    run = options.open()
    evidence = options.evidence(run)
    with naming_damaged_shard(run):
        data = section.frame(evidence)
        if data is None:
            hint = _OTHERS if options.rank else ""
            raise UsageError(f"{run.path} cannot answer this: {section.without}", hint=hint)
        content = _content(options, section, data, evidence.moments.axis)
    _write(content, options.out)
    findings = evidence.replay.findings
    options.exit_if_found(run, (item for item in findings if not section.rules or item.rule in section.rules))


def _content(options: AnswerOptions, section: Section, data: Any, updates: str) -> Answer:
    """Return the complete answer: bytes of a picture, text, or sentences and rows for a table."""
    from esper_analyze.reports.render.csv import section_csv
    from esper_analyze.reports.render.figure import picture
    from esper_analyze.reports.render.json import section_json

    form = options.resolved
    if form in (Form.PNG, Form.SVG):
        return picture(section, data, form, updates)
    sentences, table = section.words(data), section.table(data)
    if form is Form.JSON:
        return section_json(section, sentences, table)
    return section_csv(table, safe=options.safe) if form is Form.CSV else (sentences, table)


def _write(content: Answer, out: Path | None) -> None:
    """Write the answer to ``out`` and its path to stdout, or the answer itself to stdout."""
    from esper_analyze.reports.render.terminal import print_section, section_text
    from esper_analyze.storage.atomic import write_whole

    if out is None:
        if isinstance(content, bytes):
            sys.stdout.buffer.write(content)
        elif isinstance(content, str):
            put(content)
        else:
            print_section(*content)
        return
    text = section_text(*content) if isinstance(content, tuple) else content
    try:
        write_whole(out, text if isinstance(text, bytes) else text.encode(errors="replace"))
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}", hint="choose another --out") from error
    put(f"{path_words(out)}\n")
