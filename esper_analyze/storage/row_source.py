"""Consecutive rows of one table by one writer, in a shard or in the log, read as Arrow or polars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from esper_analyze.schema.column import Table
from esper_analyze.storage.attempts import Attempt
from esper_analyze.storage.decode_errors import decoding
from esper_analyze.storage.run_files import open_file
from esper_analyze.storage.shapes import Shape, read_shard, shapes

if TYPE_CHECKING:
    import polars
    import pyarrow as pa

ATTEMPT = "attempt number"


@dataclass(frozen=True, slots=True)
class RowSource:
    """Consecutive rows of one table: a shard (``path``), or rows that are only in the log (``logged``).

    ``fingerprint``: of the columns that the shard was written with; see ``esper_analyze.storage.shapes``.
    """

    table: Table
    path: Path | None
    logged: pa.Table | None
    first_update: int
    last_update: int
    attempt: Attempt
    fingerprint: str = ""

    @property
    def shape(self) -> Shape:
        """The columns of the shard."""
        return shapes(self.table)[self.fingerprint]

    @property
    def until(self) -> int | None:
        """The first update whose rows are superseded; None: all rows are valid."""
        until = self.attempt.until
        return until if until is not None and self.last_update >= until else None

    def read(self, columns: Sequence[str], dictionaries: Sequence[str] = ()) -> pa.Table:
        """Return ``columns`` of the rows not superseded; those in ``dictionaries`` may be dictionary-encoded."""
        import pyarrow.compute as pc

        if self.logged is not None:
            data = self.logged.select(list(columns))
        else:
            with decoding(self.path):
                data = read_shard(self.table, str(self.path), self.fingerprint, columns, dictionaries)
                for name in columns:
                    _validate_text(data[name])
        return data if self.until is None else data.filter(pc.less(data["update"], self.until))

    def count(self) -> int:
        """Return the number of rows not superseded."""
        if self.until is not None:
            return len(self.read(["update"]))
        if self.logged is not None:
            return len(self.logged)
        return next(entry.rows for path, entry in self.attempt.shards if path == self.path)

    def frame(self, columns: Sequence[str]) -> polars.DataFrame:
        """Return ``columns`` of the rows not superseded as a polars frame, with the number of their attempt."""
        import polars

        if self.logged is not None or self.path is None or not self.shape.current:
            frame = polars.DataFrame(self.read(columns))
        else:
            with decoding(self.path), open_file(self.path) as file:
                frame = polars.read_parquet(file, columns=list(columns), hive_partitioning=False)
                for text in frame.select(polars.col(polars.String)).iter_columns():
                    text.to_arrow().validate(full=True)
            if self.until is not None:
                frame = frame.filter(polars.col("update") < self.until)
        return frame.with_columns(polars.lit(self.attempt.number).alias(ATTEMPT))


def in_memory(table: Table, rows: pa.Table, attempt: Attempt) -> RowSource:
    """Return rows of ``table`` that are only in the log of ``attempt``, or merged from all ranks; at least one."""
    updates = rows["update"].to_pylist()
    return RowSource(table, None, rows, min(updates), max(updates), attempt)


def row_sources(attempts: Sequence[Attempt], table: Table) -> list[RowSource]:
    """Return the row sources of ``table`` in the order they were written: sound shards, then rows of the log."""
    parts: list[RowSource] = []
    for attempt in sorted(attempts, key=lambda attempt: (attempt.rank, attempt.number)):
        shards = [shard for shard in attempt.shards if shard[1].table == table.name]
        shards.sort(key=lambda shard: shard[1].first_seq)
        sources = [RowSource(table, path, None, e.first_update, e.last_update, attempt, e.schema) for path, e in shards]
        logged = attempt.tail.tables.get(table.name)
        if logged is not None and len(logged):
            sources.append(in_memory(table, logged, attempt))
        parts += [part for part in sources if part.until is None or part.first_update < part.until]
    return parts


def last_update(parts: Sequence[RowSource]) -> int | None:
    """Return the last complete update of ``parts`` of table ``updates``; None without one."""
    return max((part.last_update for part in parts), default=None)


def _validate_text(column: pa.ChunkedArray) -> None:
    """Raise ``ArrowInvalid`` for invalid UTF-8 or a code beyond its dictionary: Arrow reads both without an error.

    ``validate(full=True)`` of the whole column would check the word of every row that has a code.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for chunk in column.chunks:
        if not isinstance(chunk, pa.DictionaryArray):
            if pa.types.is_string(chunk.type):
                chunk.validate(full=True)
            continue
        chunk.dictionary.validate(full=True)
        bounds = pc.min_max(chunk.indices).as_py()
        if bounds["max"] is not None and not 0 <= bounds["min"] <= bounds["max"] < len(chunk.dictionary):
            raise pa.ArrowInvalid(f"code {bounds['max']} in a dictionary of {len(chunk.dictionary)} words")
