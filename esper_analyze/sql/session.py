"""Run SQL queries over runs, one after the other, each locked in and stopped after a time."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import duckdb

from esper_analyze.errors import UsageError
from esper_analyze.schema import TABLES
from esper_analyze.schema.macros import MACROS
from esper_analyze.shutdown import ENDING, exit_code
from esper_analyze.sql.limits import GRACE, Watch, resident
from esper_analyze.sql.sandbox import sandbox
from esper_analyze.sql.temporary import Spill

if TYPE_CHECKING:
    import pyarrow as pa

    from esper_analyze.runs.run import RecordedRun

_PIECE = 2048
LONGEST_TEXT = 1 << 24
"""Characters of one cell: written as CSV or JSON it takes many times as much, and meanwhile nobody watches."""
_ASKING = ("SELECT", "EXPLAIN", "MULTI")
"""Kinds of statements that only ask; DuckDB takes a PIVOT apart into several and calls it MULTI."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Column names of a query's result, and its rows as they come: they are asked of DuckDB piece by piece."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


class Session:
    """Queries over the same labelled ``runs``; tables are loaded when a query first names them.

    Each query has ``timeout`` seconds and ``memory`` bytes, and what it changes in its copy of the tables is undone.
    """

    def __init__(
        self,
        runs: Sequence[tuple[str, RecordedRun]],
        *,
        timeout: float,
        memory: int,
        attempts: bool,
        ends_process: bool = True,
    ) -> None:
        self.runs, self.timeout, self.memory, self.attempts = runs, timeout, memory, attempts
        self.ends_process = ends_process
        self.spreadsheet_safe = False
        """Whether text in CSV is written so that no spreadsheet runs it."""
        self._held = resident()
        self._spill: Spill | None = None
        self._loaded: frozenset[str] = frozenset()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Session:
        self._spill = Spill()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._connection is not None:
                self._connection.close()
        finally:
            if self._spill is not None:
                self._spill.remove()

    @contextmanager
    def answer(self, query: str, *, distinct: bool = False) -> Iterator[Answer]:
        """Give what ``query`` finds, row by row; ``distinct``: refuse columns of equal names.

        Raises ``UsageError`` for what is no query and for whatever DuckDB objects to, in the body too; what cannot be
        stopped otherwise ends the process.
        """
        with self._asked(query) as (connection, watch):
            with watch.timed(connection.interrupt):
                connection.execute(query)
            columns = tuple(str(column[0]) for column in connection.description or ())
            if distinct and len(set(columns)) < len(columns):
                twice = next(name for name in columns if columns.count(name) > 1)
                raise UsageError(f"the result has two columns named {twice}", hint="name one: x AS other, or use --csv")
            yield Answer(columns, _rows(connection, watch))

    @contextmanager
    def arrow(self, query: str, parameters: object = None) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Give what ``query`` finds as Arrow batches, as ``answer`` does; ``parameters`` are those of DuckDB."""
        with self._asked(query) as (connection, watch):
            with watch.timed(connection.interrupt):
                found = connection.sql(query, params=parameters)
                reader = None if found is None else found.to_arrow_reader(_PIECE)
            if reader is None:
                raise UsageError("this query has no rows to write", hint="begin with SELECT, FROM or WITH")
            yield reader.schema, _batches(reader, connection, watch)

    @contextmanager
    def _asked(self, query: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, Watch]]:
        with (
            Watch(self.timeout, self.memory, held=self._held, ends_process=self.ends_process) as watch,
            _explained(watch, query),
        ):
            _check_statement(query)
            connection = self._connected(query)
            _undo(connection)  # what a Ctrl-C came between may have left a transaction open
            connection.begin()
            try:
                with _heard(connection, watch):
                    yield connection, watch
            finally:
                _undo(connection)

    def _connected(self, query: str) -> duckdb.DuckDBPyConnection:
        """Return a connection that has every table ``query`` names; a locked one can load no more."""
        needed = tables_of(query)
        if self._connection is None or not needed <= self._loaded:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            needed |= self._loaded
            assert self._spill is not None
            self._connection = sandbox(
                self.runs, sorted(needed), memory=self.memory, spill=self._spill.path, attempts=self.attempts
            )
            self._loaded = needed
        return self._connection


def tables_of(query: str) -> frozenset[str]:
    """Return the tables that ``query`` may need: those it names, itself or by a macro; all when it names none."""
    words = set(re.findall(r"\w+", query.lower()))
    named = {table.name for table in TABLES if table.name in words}
    named |= {table for macro in MACROS if macro.name in words for table in macro.tables}
    return frozenset(named or (table.name for table in TABLES))


def _undo(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.rollback()
    except duckdb.Error:  # what failed may have ended its transaction already
        return


def _rows(connection: duckdb.DuckDBPyConnection, watch: Watch) -> Iterator[tuple[Any, ...]]:
    while True:
        with watch.timed(connection.interrupt):
            piece = connection.fetchmany(_PIECE)
        if not piece:
            return
        _check_lengths(piece)
        began = time.thread_time()
        yield from piece
        watch.use(time.thread_time() - began)  # who reads the output slowly uses nothing up


def _batches(
    reader: pa.RecordBatchReader, connection: duckdb.DuckDBPyConnection, watch: Watch
) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            with watch.timed(connection.interrupt):
                batch = reader.read_next_batch()
        except StopIteration:
            return
        began = time.thread_time()
        yield batch
        watch.use(time.thread_time() - began)


def _check_lengths(rows: Iterable[tuple[Any, ...]]) -> None:
    longest = max((len(cell) for row in rows for cell in row if isinstance(cell, (str, bytes))), default=0)
    if longest > LONGEST_TEXT:
        raise UsageError(
            f"the result has a text of {longest:,} characters, {LONGEST_TEXT:,} are the most",
            hint="ask for a part of it: left(x, 1000)",
        )


def _check_statement(query: str) -> None:
    """Raise ``UsageError`` for no text, for no statement, for several, and for one that changes something."""
    if any("\ud800" <= sign <= "\udfff" for sign in query):  # how Python holds bytes that it cannot read
        raise UsageError("the query is not UTF-8", hint="save or type it as UTF-8")
    kinds = [_kind(statement) for statement in duckdb.extract_statements(query)]
    if not kinds:
        raise UsageError("the query is empty", hint='write one: "from by_phase()" is a beginning')
    if len(kinds) > 1:
        raise UsageError(f"sql answers one query, these are {len(kinds)} statements", hint="give one after the other")
    if kinds[0] not in _ASKING:
        raise UsageError(
            f"sql only answers queries, and this is {kinds[0]}",
            hint="begin with SELECT, FROM, WITH, PIVOT, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN",
        )


def _kind(statement: duckdb.Statement) -> str:
    try:
        return str(statement.type.name)
    except ValueError:  # DuckDB 2.0 has more kinds than its Python package has names
        return "a statement of another kind"


@contextmanager
def _heard(connection: duckdb.DuckDBPyConnection, watch: Watch) -> Iterator[None]:
    """Stop the query as soon as a signal comes: Python's own handler runs only once DuckDB has come back.

    When DuckDB does not come back after a signal that is to end the process, ``watch`` ends it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own, other = socket.socketpair()
    other.setblocking(False)
    before = signal.set_wakeup_fd(other.fileno(), warn_on_full_buffer=False)
    listening = threading.Thread(target=_listen, args=(own, connection, watch), daemon=True)
    listening.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        other.close()
        listening.join()
        own.close()


def _listen(signals: socket.socket, connection: duckdb.DuckDBPyConnection, watch: Watch) -> None:
    try:
        while number := signals.recv(1):
            if number[0] in (signal.SIGINT, *ENDING):
                connection.interrupt()
            if number[0] in ENDING:
                signals.settimeout(GRACE)
    except TimeoutError:
        watch.end(exit_code())


@contextmanager
def _explained(watch: Watch, query: str) -> Iterator[None]:
    """Turn what DuckDB raises into one sentence."""
    try:
        yield
    except duckdb.InterruptException as error:
        raise (watch.too_long() if watch.late else KeyboardInterrupt()) from error
    except (duckdb.OutOfMemoryException, MemoryError) as error:
        raise watch.too_large() from error
    except OverflowError as error:
        raise UsageError(
            f"the result holds a value that Python cannot hold ({error})", hint="cast it to text: x::varchar"
        ) from error
    except RuntimeError as error:
        if "interrupted" not in str(error).lower():
            raise
        raise KeyboardInterrupt from error  # what DuckDB makes of Ctrl-C
    except (duckdb.Error, UnicodeDecodeError, UnicodeEncodeError) as error:
        if watch.late:
            raise watch.too_long() from error
        raise UsageError(f"the query failed: {_sentence(error)}", hint=_hint(error, query)) from error


def _sentence(error: Exception) -> str:
    own, _, _ = str(error).partition(", due to the following Python exception")
    lines = [line.strip() for line in own.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("LINE ", "^"))]
    return " ".join(told[:3]).rstrip(".")


def _hint(error: Exception, query: str) -> str:
    if isinstance(error, duckdb.CatalogException):
        return f"the tables are {', '.join(table.name for table in TABLES)}"
    first = query.split(maxsplit=1)[0]
    if isinstance(error, duckdb.ParserException) and "/" in first:
        return f"is {first} meant to be a run? there is no such directory"
    return "`esper-analyze schema` names every table and column"
