"""How a command writes its answer: in which format, to stdout or to a file; declared once for all commands."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from esper_analyze.commands.options import Json, absolute
from esper_analyze.csv_text import SpreadsheetSafe, refuse_unless_csv
from esper_analyze.errors import UsageError
from esper_analyze.storage.atomic import write_whole
from esper_analyze.storage.output_path import refuse_file, writing
from esper_analyze.terminal import path_words, put


class Form(StrEnum):
    """Every output format."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PNG = "png"
    SVG = "svg"


class RowForm(StrEnum):
    """The formats of an answer that is a table."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class TextForm(StrEnum):
    """The formats of an answer that is no single table."""

    TABLE = "table"
    JSON = "json"


_FORMAT = typer.Option(
    "--format", help="Output format; --json is short for json. Default: by the suffix of --out, else a table."
)
OutFile = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Write to FILE instead of stdout.", callback=absolute),
]


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Format and destination of an answer. A subclass declares ``form``, with the formats that the command has."""

    forms: ClassVar[type[StrEnum]]
    text_suffixes: ClassVar[tuple[str, ...]] = ("txt",)
    """Suffixes of --out for what a table's format prints."""
    suffix_hint: ClassVar[str] = ""
    """What is added to the formats where a suffix names none."""
    form: StrEnum | None = None
    as_json: Json = False
    out: OutFile = None
    safe: SpreadsheetSafe = False

    @cached_property
    def resolved(self) -> Form:
        """The format to answer in; asked for first, before anything is read or changed.

        Raises ``UsageError`` for options that contradict each other, for a suffix that names no format, for a picture
        to a terminal, and where --out may not be written.
        """
        if self.as_json and self.form not in (None, Form.JSON):
            raise UsageError(f"--json and --format {self.form} exclude each other", hint="give one of them")
        form = Form.JSON if self.as_json else self._by_suffix() if self.form is None else Form(self.form)
        if form in (Form.PNG, Form.SVG) and self.out is None and sys.stdout.isatty():
            raise UsageError(
                f"a {form.upper()} picture cannot be printed to a terminal", hint=f"give --out FILE.{form}"
            )
        refuse_unless_csv(safe=self.safe, is_csv=form is Form.CSV)
        if self.out is not None:
            refuse_file(self.out)
        return form

    def _by_suffix(self) -> Form:
        suffix = "txt" if self.out is None else self.out.suffix.lower().removeprefix(".")
        if suffix in self.text_suffixes:
            return Form.TABLE
        if suffix not in [form.value for form in self.forms]:
            formats = f"formats are {', '.join(self.forms)}{self.suffix_hint}"
            raise UsageError(f"the suffix of --out {self.out} names no known format", hint=formats)
        return Form(suffix)

    def write(self, answer: bytes | str | Callable[[], None]) -> None:
        """Write ``answer`` to stdout, or whole to the file of --out and its path to stdout; a function prints it."""
        if self.out is not None:
            with writing(self.out):
                write_whole(self.out, _content(answer))
            put(f"{path_words(self.out)}\n")
        elif isinstance(answer, bytes):
            sys.stdout.buffer.write(answer)
        elif isinstance(answer, str):
            put(answer)
        else:
            answer()


@dataclass(frozen=True, kw_only=True)
class TextOutput(OutputOptions):
    """The output options of a command whose answer is no single table."""

    forms = TextForm
    form: Annotated[TextForm | None, _FORMAT] = None


@dataclass(frozen=True, kw_only=True)
class RowOutput(OutputOptions):
    """The output options of a command whose answer is a table."""

    forms = RowForm
    form: Annotated[RowForm | None, _FORMAT] = None


@dataclass(frozen=True, kw_only=True)
class PageOutput(RowOutput):
    """The output options of a command that prints Markdown, or the same facts as a table."""

    text_suffixes = ("txt", "md")


@dataclass(frozen=True, kw_only=True)
class PictureOutput(OutputOptions):
    """The output options of a command whose answer is a table and a picture."""

    forms = Form
    form: Annotated[Form | None, _FORMAT] = None


def _content(answer: bytes | str | Callable[[], None]) -> bytes:
    if isinstance(answer, bytes):
        return answer
    if isinstance(answer, str):
        return answer.encode(errors="replace")
    with redirect_stdout(io.StringIO()) as printed:
        answer()
    return printed.getvalue().encode(errors="replace")
