"""What goes to a terminal: results on stdout, progress and messages on stderr, text from runs made harmless."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from esper_analyze.schema.printable import invisible, printable

if TYPE_CHECKING:
    from rich.console import Console

    from esper_analyze.errors import EsperError

LONGEST = 120
"""Characters shown of a text from a run."""
_LONGEST_PATH = 4_096
_PIPE_WIDTH = 10_000
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
"""A link's target is a file beside the text, which a terminal cannot open."""


def cleaned(text: object, longest: int = LONGEST) -> str:
    """Return ``text`` without control, direction and surrogate characters, cut to ``longest`` characters."""
    shown = "".join(" " if character in "\n\t" else character for character in str(text))
    shown = "".join(character for character in shown if not invisible(character))
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def path_words(path: object) -> str:
    """Return a path as a line of results has it: whole, and harmless to a terminal."""
    return cleaned(path, _LONGEST_PATH)


def escaped(text: object) -> str:
    """Return ``text`` from a run so that it is safe inside rich markup."""
    from rich.markup import escape

    return escape(cleaned(text))


def stdout() -> Console:
    """Return the console for results; piped output is not cut to a terminal's width."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, emoji=False)


class Sink(Protocol):
    """What text is written to."""

    def write(self, text: str, /) -> int:
        """Write ``text`` and return its length."""


class _Results:
    def write(self, text: str, /) -> int:
        put(text)
        return len(text)


RESULTS: Sink = _Results()
"""Stdout as ``put`` writes to it."""


def put(text: str) -> None:
    r"""Write results to stdout: exact to a file or a pipe; on a terminal, what it would obey or hide is an escape.

    Line breaks and tabs stay; a ``\x1b`` in the name of a head is shown as these four characters.
    """
    sys.stdout.write(printable(text, "\n\t") if sys.stdout.isatty() else text)


def show_markdown(text: str) -> None:
    """Write Markdown to stdout: formatted on a terminal, exact to a file or a pipe."""
    if not sys.stdout.isatty():
        put(text)
        return
    from rich.markdown import Markdown
    from rich.theme import Theme

    console = stdout()
    console.push_theme(Theme({"markdown.code": "cyan"}))  # rich's own is on black, also where the terminal is white
    console.print(Markdown(_LINK.sub(r"\1", printable(text, "\n\t")), code_theme="ansi_dark"))


def say(message: str) -> None:
    """Write one message line to stderr."""
    sys.stderr.write(cleaned(message, longest=2_000) + "\n")


def tell(error: EsperError) -> None:
    """Write an error to stderr: one sentence, and what to do next."""
    say(f"esper-analyze: {error.message}" + (f" ({error.hint})" if error.hint else ""))


def show_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table to stdout. Cells are taken as rich markup: escape what comes from runs.

    On a narrow terminal cells break at their joints; where that is not enough, each row becomes a list.
    """
    from esper_analyze.terminal_table import print_table

    print_table(stdout(), titles, rows, right=right)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr that is gone afterwards; yields a function that takes how far the work is."""
    if not sys.stderr.isatty():
        yield lambda done: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar as ``progress`` does; yields a function to call once for each piece of work that is done."""
    done = 0
    with progress(what, total) as bar:

        def step() -> None:
            nonlocal done
            done += 1
            bar(done)

        yield step
