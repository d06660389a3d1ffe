"""Run one SQL query over a run, locked in and stopped after a time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb

from esper_analyze.commands.sql_limits import Watch
from esper_analyze.errors import UsageError
from esper_analyze.runs.run import Run
from esper_analyze.schema import TABLES

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


@contextmanager
def answer(run: Run, query: str, *, timeout: float, memory: int) -> Iterator[Answer]:
    """Give what ``query`` finds in the tables of ``run``, within ``timeout`` seconds and ``memory`` bytes.

    Only tables whose name occurs in the query are loaded (all, when none does). Raises ``UsageError`` for what is no
    query and for whatever DuckDB objects to, in the body too; what cannot be stopped otherwise ends the process.
    """
    named = [table.name for table in TABLES if re.search(rf"\b{table.name}\b", query, re.IGNORECASE)]
    with Watch(timeout, memory) as watch, _explained(watch):
        asked = _only_query(query)
        with run.sandbox(named or None, memory=memory, spill=watch.spill) as connection:
            if asked:
                with watch.timed(connection.interrupt):
                    connection.execute(query)
            columns = tuple(str(column[0]) for column in (connection.description or ()) if asked)
            yield Answer(columns, _rows(connection, watch) if columns else iter(()))


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


def _check_lengths(rows: Iterable[tuple[Any, ...]]) -> None:
    longest = max((len(cell) for row in rows for cell in row if isinstance(cell, (str, bytes))), default=0)
    if longest > LONGEST_TEXT:
        raise UsageError(
            f"the result has a text of {longest:,} characters, {LONGEST_TEXT:,} are the most",
            hint="ask for a part of it: left(x, 1000)",
        )


def _only_query(query: str) -> bool:
    """Return whether there is a statement at all. Raises ``UsageError`` for several, or one that changes something."""
    kinds = [_kind(statement) for statement in duckdb.extract_statements(query)]
    if len(kinds) > 1:
        raise UsageError(f"sql answers one query, these are {len(kinds)} statements", hint="give one after the other")
    if kinds and kinds[0] not in _ASKING:
        raise UsageError(
            f"sql only answers queries, and this is {kinds[0]}",
            hint="begin with SELECT, FROM, WITH, PIVOT, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN",
        )
    return bool(kinds)


def _kind(statement: duckdb.Statement) -> str:
    try:
        return str(statement.type.name)
    except ValueError:  # DuckDB 2.0 has more kinds than its Python package has names
        return "a statement of another kind"


@contextmanager
def _explained(watch: Watch) -> Iterator[None]:
    """Turn what DuckDB raises into one sentence."""
    try:
        yield
    except duckdb.InterruptException as error:
        raise watch.too_long() from error
    except (duckdb.OutOfMemoryException, MemoryError) as error:
        raise watch.too_large() from error
    except OverflowError as error:
        raise UsageError(
            f"the result holds a value that Python cannot hold ({error})", hint="cast it to text: x::varchar"
        ) from error
    except (duckdb.Error, UnicodeDecodeError, UnicodeEncodeError) as error:
        if watch.late:
            raise watch.too_long() from error
        raise UsageError(f"the query failed: {_sentence(error)}", hint=_hint(error)) from error


def _sentence(error: Exception) -> str:
    own, _, _ = str(error).partition(", due to the following Python exception")
    lines = [line.strip() for line in own.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("LINE ", "^"))]
    return " ".join(told[:3]).rstrip(".")


def _hint(error: Exception) -> str:
    if isinstance(error, duckdb.CatalogException):
        return f"the tables are {', '.join(table.name for table in TABLES)}"
    return "`esper-analyze schema` names every table and column"
