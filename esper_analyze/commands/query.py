"""Run one SQL query over a run, locked in and stopped after a time."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Any

import duckdb

from esper_analyze.errors import UsageError
from esper_analyze.runs.run import Run
from esper_analyze.schema import TABLES


@dataclass(frozen=True, slots=True)
class Answer:
    """Column names and all rows of a query's result."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def answer(run: Run, query: str, *, timeout: float) -> Answer:
    """Return what ``query`` gives over the tables of ``run``.

    Only tables whose name occurs in the query are loaded (all, when none does). DuckDB has no statement timeout,
    so a timer interrupts it. Raises ``UsageError`` for whatever DuckDB objects to.
    """
    named = [table.name for table in TABLES if re.search(rf"\b{table.name}\b", query, re.IGNORECASE)]
    with run.sandbox(named or None) as connection:
        timer = threading.Timer(timeout, connection.interrupt)
        timer.start()
        try:
            connection.execute(query)
            columns = tuple(str(column[0]) for column in connection.description or ())
            return Answer(columns, connection.fetchall() if columns else [])
        except duckdb.InterruptException as error:
            raise UsageError(
                f"the query was stopped after {timeout:g} s", hint="ask for less, or use --timeout"
            ) from error
        except duckdb.Error as error:
            raise UsageError(f"the query failed: {_sentence(error)}", hint=_hint(error)) from error
        finally:
            timer.cancel()


def _sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("LINE ", "^"))]
    return " ".join(told[:3]).rstrip(".")


def _hint(error: Exception) -> str:
    if isinstance(error, duckdb.CatalogException):
        return f"the tables are {', '.join(table.name for table in TABLES)}"
    return "`esper-analyze schema` names every table and column"
