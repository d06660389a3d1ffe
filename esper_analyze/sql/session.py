"""Run SQL queries over runs, one after the other, each sandboxed and limited in time and memory."""

from __future__ import annotations

import difflib
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any

import duckdb

from esper_analyze.errors import UsageError
from esper_analyze.schema import TABLES
from esper_analyze.schema.macros import MACROS
from esper_analyze.shutdown import ENDING
from esper_analyze.sql.limits import GRACE, Watch, resident
from esper_analyze.sql.sandbox import sandbox
from esper_analyze.sql.temporary import Spill

if TYPE_CHECKING:
    import pyarrow as pa

    from esper_analyze.runs.run import RecordedRun

_PIECE = 2048
LONGEST_TEXT = 1 << 24
"""Characters of one cell: written as CSV or JSON it takes many times as much memory, which is not limited there."""
_NO_TABLE = re.compile(r"Table(?: Function)? with name (\w+) does not exist")
_OF_ALARMS = "from alarms() lists when each alarm began, from first_fired() when each rule first warned"
_MEANT = {"incidents": _OF_ALARMS, "incident": _OF_ALARMS, "alarm": _OF_ALARMS, "warnings": _OF_ALARMS} | {
    "verdicts": "table findings has one row per change of verdict",
    "gradients": "gradients are in the tables groups and layers",
    "minibatches": "table steps has one row per minibatch",
    "metrics": "the metrics of an update are the columns of table updates",
}
"""Names that are no tables → where to find what they mean."""
_READ_ONLY = ("SELECT", "EXPLAIN", "MULTI")
"""Kinds of read-only statements; DuckDB splits a PIVOT into several statements and calls it MULTI."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Column names of a query's result, and its rows, which are fetched from DuckDB lazily."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


class Session:
    """Queries over the same labelled ``runs``; a table is loaded when a query first names it.

    Each query has ``timeout`` seconds and ``memory`` bytes, and its changes to the loaded tables are rolled back.
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
        """Whether text in CSV is escaped so that no spreadsheet runs it as a formula."""
        self._baseline_memory = resident()
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
    def result(self, query: str, *, distinct: bool = False) -> Iterator[QueryResult]:
        """Run ``query`` and yield its result, fetched lazily; ``distinct``: refuse columns of equal names.

        Raises ``UsageError`` for an invalid query and for errors of DuckDB, also within the context's body; a query
        that cannot be stopped otherwise ends the process.
        """
        with self._query(query) as (connection, watch):
            with watch.timed(connection.interrupt):
                connection.execute(query)
            columns = tuple(str(column[0]) for column in connection.description or ())
            if distinct and len(set(columns)) < len(columns):
                twice = next(name for name in columns if columns.count(name) > 1)
                raise UsageError(f"the result has two columns named {twice}", hint="name one: x AS other, or use --csv")
            yield QueryResult(columns, _rows(connection, watch))

    @contextmanager
    def arrow(self, query: str, parameters: object = None) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Run ``query`` as ``result`` does, with DuckDB's ``parameters``; yield its schema and Arrow batches."""
        with self._query(query) as (connection, watch):
            with watch.timed(connection.interrupt):
                relation = connection.sql(query, params=parameters)
                reader = None if relation is None else relation.to_arrow_reader(_PIECE)
            if reader is None:
                raise UsageError("this query has no rows to write", hint="begin with SELECT, FROM or WITH")
            yield reader.schema, _batches(reader, connection, watch)

    @contextmanager
    def _query(self, query: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, Watch]]:
        with (
            Watch(self.timeout, self.memory, baseline=self._baseline_memory, ends_process=self.ends_process) as watch,
            _errors_explained(watch, query),
        ):
            _check_statement(query)
            connection = self._connected(query)
            _undo(connection)  # an earlier Ctrl-C may have left a transaction open
            connection.begin()
            try:
                with _interruptible(connection, watch):
                    yield connection, watch
            finally:
                _undo(connection)

    def _connected(self, query: str) -> duckdb.DuckDBPyConnection:
        """Return a connection with every table that ``query`` names; a locked one cannot load more and is replaced."""
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
    """Return the tables that ``query`` may need: those that it or its macros name; all if it names none."""
    words = set(re.findall(r"\w+", query.lower()))
    named = {table.name for table in TABLES if table.name in words}
    named |= {table for macro in MACROS if macro.name in words for table in macro.tables}
    return frozenset(named or (table.name for table in TABLES))


def _undo(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.rollback()
    except duckdb.Error:  # the failed statement may have ended its transaction already
        return


def _rows(connection: duckdb.DuckDBPyConnection, watch: Watch) -> Iterator[tuple[Any, ...]]:
    while True:
        with watch.timed(connection.interrupt):
            piece = list(islice(_checked(connection), _PIECE))
        if not piece:
            return
        began = time.thread_time()
        yield from piece
        watch.use(time.thread_time() - began)  # a slow reader of the output does not count


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


def _checked(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    """Yield the rows that are left, each checked before the next one is made.

    While DuckDB makes a text of Python's from a cell no other thread runs, so ``Watch`` sees its memory too late.
    """
    while (row := connection.fetchone()) is not None:
        for cell in row:
            if isinstance(cell, (str, bytes)) and len(cell) > LONGEST_TEXT:
                raise UsageError(
                    f"the result has a text of {len(cell):,} characters, the limit is {LONGEST_TEXT:,}",
                    hint="select a part of it: left(x, 1000)",
                )
        yield row


def _check_statement(query: str) -> None:
    """Raise ``UsageError`` for invalid text, for no statement, for several, and for one that is not read-only."""
    if any("\ud800" <= sign <= "\udfff" for sign in query):  # surrogates: bytes that Python could not decode
        raise UsageError("the query is not UTF-8", hint="save or type it as UTF-8")
    kinds = [_kind(statement) for statement in duckdb.extract_statements(query)]
    if not kinds:
        raise UsageError("the query is empty", hint='for example "from by_phase()"')
    if len(kinds) > 1:
        raise UsageError(f"sql runs one query, these are {len(kinds)} statements", hint="give one after the other")
    if kinds[0] not in _READ_ONLY:
        raise UsageError(
            f"sql only runs queries, and this is {kinds[0]}",
            hint="begin with SELECT, FROM, WITH, PIVOT, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN",
        )


def _kind(statement: duckdb.Statement) -> str:
    try:
        return str(statement.type.name)
    except ValueError:  # DuckDB 2.0 has more kinds than its Python package has names
        return "a statement of another kind"


@contextmanager
def _interruptible(connection: duckdb.DuckDBPyConnection, watch: Watch) -> Iterator[None]:
    """Interrupt the query as soon as a signal arrives: Python's own handler runs only after DuckDB returns.

    If DuckDB does not return after a signal that ends the process, ``watch`` ends it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    listening = threading.Thread(target=_listen, args=(receiver, connection, watch), daemon=True)
    listening.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sender.close()
        listening.join()
        receiver.close()


def _listen(signals: socket.socket, connection: duckdb.DuckDBPyConnection, watch: Watch) -> None:
    ending = 0
    try:
        while number := signals.recv(1):
            if number[0] in (signal.SIGINT, *ENDING):
                connection.interrupt()
            if number[0] in ENDING:
                ending = number[0]
                signals.settimeout(GRACE)
    except TimeoutError:
        watch.end(128 + ending)  # no handler of Python has run: the main thread is in DuckDB


@contextmanager
def _errors_explained(watch: Watch, query: str) -> Iterator[None]:
    """Turn errors of DuckDB into a ``UsageError`` of one sentence."""
    try:
        yield
    except duckdb.InterruptException as error:
        raise (watch.too_long() if watch.late else KeyboardInterrupt()) from error
    except (duckdb.OutOfMemoryException, MemoryError) as error:
        raise watch.too_large() from error
    except OverflowError as error:
        raise UsageError(
            f"the result has a value that Python cannot represent ({error})", hint="cast it to text: x::varchar"
        ) from error
    except RuntimeError as error:
        if "interrupted" not in str(error).lower():
            raise
        raise KeyboardInterrupt from error  # how DuckDB reports Ctrl-C
    except (duckdb.Error, UnicodeDecodeError, UnicodeEncodeError) as error:
        if watch.late:
            raise watch.too_long() from error
        raise _failed(error, query) from error


def _failed(error: Exception, query: str) -> UsageError:
    missing = _NO_TABLE.search(str(error)) if isinstance(error, duckdb.CatalogException) else None
    if missing is not None:
        return UsageError(f"there is no table {missing[1]!r}", hint=_instead(missing[1]))
    return UsageError(f"the query failed: {_sentence(error)}", hint=_hint(error, query))


def _sentence(error: Exception) -> str:
    message, _, _ = str(error).partition(", due to the following Python exception")
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    sentences = [line for line in lines if not line.startswith(("LINE ", "^"))]
    return " ".join(sentences[:3]).rstrip(".")


def _instead(name: str) -> str:
    """Return what there is in place of a table called ``name``."""
    name = name.lower()
    macros = [macro.name for macro in MACROS]
    if name in macros:
        return f"it is a macro: from {name}()"
    if name in _MEANT:
        return f"{_MEANT[name]}; .tables at the prompt lists tables and macros"
    tables = [table.name for table in TABLES]
    near = difflib.get_close_matches(name, [*tables, *macros], 1, 0.7)
    if near:
        return f"did you mean {near[0]}{'' if near[0] in tables else '()'}?"
    return f"the tables are {', '.join(tables)}, and macros such as {macros[0]}(); `esper-analyze help sql`"


def _hint(error: Exception, query: str) -> str:
    first = query.split(maxsplit=1)[0]
    if isinstance(error, duckdb.ParserException) and "/" in first:
        return f"is {first} meant to be a run? There is no such directory"
    return "`esper-analyze schema` names every table and column"
