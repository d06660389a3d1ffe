"""The interactive prompt of ``sql``: multi-line queries, completion of names, persistent history."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from esper_analyze.errors import EsperError
from esper_analyze.schema import TABLES
from esper_analyze.schema.macros import MACROS
from esper_analyze.shutdown import received
from esper_analyze.sql.output import ResultFormat, run_one
from esper_analyze.sql.sandbox import ATTEMPT_COLUMN, RUN_COLUMN
from esper_analyze.sql.statements import COMMANDS, complete, statements, unfinished
from esper_analyze.terminal import say, tell

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

    from esper_analyze.sql.session import Session

_KEYWORDS = (
    "select", "from", "where", "group by", "order by", "limit", "join", "left join", "using", "having", "qualify",
    "with", "as", "and", "or", "not", "is null", "is not null", "isfinite", "isnan", "isinf", "count", "avg", "min",
    "max", "median", "quantile_cont", "arg_max", "arg_min", "filter", "over", "partition by", "desc", "distinct",
    "describe", "summarize", "pivot",
)  # fmt: skip
_WORD = re.compile(r"[.\w]*$")


def prompt(
    session: Session, shape: ResultFormat, limit: int, *, source: Input | None = None, screen: Output | None = None
) -> None:
    """Read and run queries until the end of input. An error prints one sentence and the prompt continues."""
    asking: PromptSession[str] = PromptSession(
        history=history(),
        completer=NameCompleter(attempts=session.attempts),
        complete_while_typing=False,
        multiline=True,
        key_bindings=_keys(),
        prompt_continuation=lambda width, _line, _soft: "...>".rjust(width - 1) + " ",
        input=source,
        output=screen,
    )
    say(f"{len(session.runs)} run{'s' if len(session.runs) > 1 else ''}; .help, .examples; a query ends with ;")
    waiting = ""
    while True:
        try:
            text = asking.prompt("sql> ", default=waiting)
        except KeyboardInterrupt:
            if received() is not None:
                raise
            waiting = ""
            continue
        except EOFError:
            return
        waiting, text = unfinished(text)  # a command does not lose the statement in which it was typed
        if not all(_run_statement(session, statement, shape, limit) for statement in statements(text)):
            return


def _run_statement(session: Session, text: str, shape: ResultFormat, limit: int) -> bool:
    """Run one statement; return whether to continue."""
    try:
        continues = run_one(session, text, shape, None, limit)
        sys.stdout.flush()
    except EsperError as error:
        tell(error)
        return True
    except KeyboardInterrupt:
        if received() is not None:
            raise
        say("stopped")
        return True
    return continues


def history() -> History:
    """Return the history in the user's state directory, or one in memory when that cannot be written."""
    state_home = os.environ.get("XDG_STATE_HOME", "")
    folder = (Path(state_home) if state_home.startswith("/") else Path.home() / ".local" / "state") / "esper-analyze"
    file = folder / "sql_history"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
        file.read_bytes()
    except OSError:
        return InMemoryHistory()
    return _Utf8History(str(file))


class _Utf8History(FileHistory):
    """A history in a file that skips entries which are not valid UTF-8."""

    def store_string(self, string: str) -> None:
        """Append ``string`` to the file."""
        with contextlib.suppress(UnicodeEncodeError):
            string.encode()
            super().store_string(string)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def enter(event: KeyPressEvent) -> None:
        buffer: Any = event.current_buffer
        if complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    return keys


class NameCompleter(Completer):
    """Completes tables, macros, columns (those of tables in the query first), SQL keywords and dot commands."""

    def __init__(self, *, attempts: bool = False) -> None:
        self._session_columns = (RUN_COLUMN, *((ATTEMPT_COLUMN,) if attempts else ()))

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield the completions at the cursor."""
        del complete_event
        match = _WORD.search(document.text_before_cursor)
        word = (match[0] if match else "").lower()
        if word.startswith(".") and document.text_before_cursor.strip() == word:
            for name, what in COMMANDS.items():
                if name.startswith(word):
                    yield Completion(name, -len(word), display_meta=what)
            return
        start = word.rpartition(".")[2]
        for name, what in self._names(document.text).items():
            if start and name.lower().startswith(start):
                yield Completion(name, -len(start), display_meta=what)

    def _names(self, text: str) -> dict[str, str]:
        words = set(re.findall(r"\w+", text.lower()))
        meanings = {table.name: table.meaning for table in TABLES}
        meanings |= {f"{macro.name}()": macro.asks for macro in MACROS}
        meanings |= dict.fromkeys(self._session_columns, "every table")
        for table in sorted(TABLES, key=lambda table: table.name not in words):
            for column in table.columns:
                meanings.setdefault(column.name, f"{table.name}: {column.meaning}")
        return meanings | {word: "" for word in _KEYWORDS if word not in meanings}
