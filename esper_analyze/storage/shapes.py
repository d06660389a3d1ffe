"""The shapes (sets of columns) of a table over all versions: shards of every past version are read as today's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from esper_analyze.schema.arrow import arrow_schema, fingerprint
from esper_analyze.schema.column import Table
from esper_analyze.schema.history import VERSIONS, Version
from esper_analyze.storage.block import Block, Rows
from esper_analyze.storage.run_files import open_file


@dataclass(frozen=True, slots=True)
class Shape:
    """A table as ``version``, the last one with these columns, declared it.

    ``sources`` maps each of today's columns to its name then; None: the column did not exist.
    """

    version: str
    table: Table
    sources: Mapping[str, str | None]

    @property
    def current(self) -> bool:
        """Whether the columns are the current version's."""
        return all(name == source for name, source in self.sources.items())


def history(table: Table, versions: Sequence[Version]) -> list[Shape]:
    """Return every shape that ``table`` has had under ``versions``, the current one first."""
    past = [Shape(versions[-1].number, table, {name: name for name in table.names})]
    for later, version in zip(reversed(versions), [*reversed(versions[:-1])], strict=False):
        if table.name in later.tables:
            break
        if later.columns.get(table.name) or later.renamed.get(table.name):
            past.append(_before(past[-1], later, version.number))
    return past


def _before(shape: Shape, later: Version, number: str) -> Shape:
    """Return the table as it was before ``later`` changed it."""
    name = shape.table.name
    added, renamed = later.columns.get(name, ()), later.renamed.get(name, {})
    columns = tuple(
        replace(column, name=renamed.get(column.name, column.name))
        for column in shape.table.columns
        if column.name not in added
    )
    table = replace(shape.table, columns=columns)
    sources = {
        today: None if then is None or then in added else renamed.get(then, then)
        for today, then in shape.sources.items()
    }
    return Shape(number, table, sources)


@cache
def shapes(table: Table) -> dict[str, Shape]:
    """Return every shape that ``table`` has had by its fingerprint, the current one first."""
    return {fingerprint(shape.table): shape for shape in history(table, VERSIONS)}


def former_names(table: Table) -> dict[str, str]:
    """Map the former names of columns to the current ones; a former name that another column has now is left out."""
    return {
        then: today
        for shape in shapes(table).values()
        for today, then in shape.sources.items()
        if then is not None and then not in table.names
    }


def with_names(rows: Rows, names: Mapping[str, str]) -> Rows:
    """Return ``rows`` with columns renamed by ``names``; other columns keep their names.

    A log does not state the version that wrote it: its rows are read under the names of all versions.
    """
    if not names:
        return rows
    if isinstance(rows, Block):
        return Block(len(rows), {names.get(name, name): cell for name, cell in rows.cells.items()})
    return [{names.get(name, name): cell for name, cell in row.items()} for row in rows]


def read_shard(
    table: Table,
    path: str | Path,
    fingerprint: str,
    columns: Sequence[str] | None = None,
    dictionaries: Sequence[str] = (),
) -> pa.Table:
    """Return today's ``columns`` (default: all) of a shard whose columns have the ``fingerprint``.

    Columns that did not exist then are null. Those in ``dictionaries`` may be dictionary-encoded. Raises ``KeyError``
    for a fingerprint that no version has.
    """
    shape, wanted = shapes(table)[fingerprint], table.names if columns is None else columns
    words = [source for name in dictionaries if (source := shape.sources[name]) is not None]
    with open_file(path) as opened, pq.ParquetFile(opened, read_dictionary=words) as file:
        named = [source for name in wanted if (source := shape.sources[name]) is not None]
        data = file.read(columns=named or ["seq"], use_threads=False)
    return data if list(named) == list(wanted) else upgraded(table, shape, data, wanted)


def upgraded(table: Table, shape: Shape, data: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return today's ``columns`` of ``table`` from ``data``, whose columns are those of ``shape``."""
    kinds = arrow_schema(table)
    arrays = {}
    for name in columns:
        source = shape.sources[name]
        arrays[name] = pa.nulls(len(data), kinds.field(name).type) if source is None else data[source]
    return pa.table(arrays)
