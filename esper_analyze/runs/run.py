"""A recorded run: its identity, its verified shards, and access to them by DuckDB and polars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.schema import BY_NAME, TABLES, VERSION, VERSIONS
from esper_analyze.schema.column import Table
from esper_analyze.schema.history import VERSION_KEY, is_newer
from esper_analyze.schema.views import quote_identifier, select_rows
from esper_analyze.storage.attempts import Attempt, Broken, closed, find_attempts
from esper_analyze.storage.footer import has_float_statistics, newer_schema
from esper_analyze.storage.row_source import ATTEMPT, RowSource, in_memory, last_update, row_sources
from esper_analyze.storage.run_info import identity
from esper_analyze.storage.shapes import shapes

if TYPE_CHECKING:
    import duckdb
    import polars
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One recorded run. ``info`` is run.json; ``broken`` lists the files left out of every table."""

    path: Path
    info: dict[str, Any]
    attempts: tuple[Attempt, ...]
    merged: Mapping[str, pa.Table] | None = None
    """The merged rows of all ranks, see ``esper_analyze.runs.merge_ranks``."""

    @property
    def ranks(self) -> list[int]:
        """The ranks that recorded anything."""
        return sorted({attempt.rank for attempt in self.attempts})

    @property
    def missing_ranks(self) -> list[int]:
        """Ranks that the training had and that have no folder in the run."""
        planned = self.info.get("ranks", 1)
        return [rank for rank in range(planned) if rank not in self.ranks] if isinstance(planned, int) else []

    @property
    def repaired(self) -> bool:
        """Whether ``repair`` closed any attempt: rows may be lost."""
        return any(
            attempt.closed is not None and attempt.closed.get("reason") == "repaired" for attempt in self.attempts
        )

    def only(self, rank: int) -> RecordedRun:
        """Return the run with only one rank's attempts. Raises ``UsageError`` when the rank recorded nothing."""
        if rank not in self.ranks:
            raise UsageError(
                f"{self.path} has no rank {rank}", hint=f"ranks: {', '.join(map(str, self.ranks)) or 'none'}"
            )
        return replace(self, attempts=tuple(attempt for attempt in self.attempts if attempt.rank == rank))

    @property
    def broken(self) -> list[Broken]:
        """Files that cannot be trusted; they are left out of every table."""
        return [broken for attempt in self.attempts for broken in attempt.broken]

    @property
    def closed(self) -> bool:
        """Whether the last writer of every rank left its clean-close marker."""
        return closed(self.attempts)

    @property
    def lost_rows(self) -> int:
        """Recorded rows that are in no sound shard and no log, see ``Attempt.lost_rows``."""
        return sum(attempt.lost_rows for attempt in self.attempts)

    @property
    def last_update(self) -> int | None:
        """The last complete update; None without one."""
        return last_update(self.row_sources("updates"))

    @property
    def rows(self) -> dict[str, int]:
        """Rows per table that readers see: sealed and logged, without rows superseded by a resumed attempt."""
        return {table.name: sum(part.count() for part in self.row_sources(table.name)) for table in TABLES}

    @property
    def torn(self) -> list[str]:
        """Where a writer was stopped within a frame; not damage, but the update in progress is missing."""
        faults = [fault for attempt in self.attempts for fault in attempt.tail.faults if fault.fault.torn]
        return [f"{fault.file.name} {fault.text}" for fault in faults]

    @property
    def unverified(self) -> list[Path]:
        """Shards whose manifest line was lost and rebuilt from the shard itself."""
        return [path for attempt in self.attempts for path, entry in attempt.shards if entry.rebuilt]

    @property
    def older_schema(self) -> str | None:
        """The oldest schema version among the shards; None if all have today's columns."""
        entries = [entry for attempt in self.attempts for _, entry in attempt.shards]
        used_shapes = [shapes(BY_NAME[entry.table])[entry.schema] for entry in entries]
        return next((v.number for v in VERSIONS for shape in used_shapes if shape.version == v.number != VERSION), None)

    @property
    def written(self) -> bool:
        """Whether a process is writing the run right now."""
        return any(attempt.alive() for attempt in self.attempts)

    def row_sources(self, table: str, rank: int | None = None) -> list[RowSource]:
        """Return the row sources of ``table`` in the order they were written: sound shards, then rows of the log."""
        if self.merged is not None:
            rows = self.merged.get(table)
            all_ranks = Attempt(self.path, 0, 0)
            return [in_memory(BY_NAME[table], rows, all_ranks)] if rows is not None and len(rows) else []
        attempts = [attempt for attempt in self.attempts if rank is None or attempt.rank == rank]
        return row_sources(attempts, BY_NAME[table])

    def files(self, table: str) -> list[str]:
        """Return the paths of the sound shards of ``table`` that readers see."""
        return [str(part.path) for part in self.row_sources(table) if part.path is not None]

    def row_queries(
        self, connection: duckdb.DuckDBPyConnection, table: Table, *, view: bool = False, name_prefix: str = ""
    ) -> tuple[list[str], list[str]]:
        """Return SELECTs whose union is ``table``, and the names of the rows registered with ``connection`` for them.

        Rows of the log are registered, and for a ``view`` also those of a foreign shard that DuckDB would filter
        wrongly. ``name_prefix`` is the prefix of their names.
        """
        shards: dict[tuple[int | None, str], list[str]] = {}
        tails = []
        for number, part in enumerate(self.row_sources(table.name)):
            if part.path is None or (view and has_float_statistics(part.path)):
                name = f"{name_prefix}rows of {table.name} in memory, part {number}"
                connection.register(name, part.read(table.names))
                tails.append((name, None))
            else:
                shards.setdefault((part.until, part.fingerprint), []).append(str(part.path))
        listed = [(files, until, shapes(table)[mark].sources) for (until, mark), files in shards.items()]
        return select_rows(table, listed, tails), [name for name, _ in tails]

    def connection(self) -> duckdb.DuckDBPyConnection:
        """Return an in-memory DuckDB connection with one view per declared table."""
        import duckdb

        connection = duckdb.connect(":memory:")
        for table in TABLES:
            queries, _ = self.row_queries(connection, table, view=True)
            connection.execute(f"create view {quote_identifier(table.name)} as {' union all '.join(queries)}")
        return connection

    def frame(self, table: str, columns: Sequence[str] | None = None) -> polars.DataFrame:
        """Return ``table`` as a polars frame ordered by rank and sequence; typed and empty without rows.

        ``columns`` selects some; the names must be declared.
        """
        import polars

        from esper_analyze.schema.arrow import arrow_schema

        declared = BY_NAME[table]
        wanted = list(declared.names if columns is None else columns)
        parts = self.row_sources(table)
        if not parts:
            return polars.DataFrame(arrow_schema(declared).empty_table()).select(wanted)
        needed = list(dict.fromkeys([*wanted, "rank", "seq", "update"]))
        frames = [part.frame(needed) for part in parts]
        rows = polars.concat(frames) if len(frames) > 1 else frames[0]
        one_writer = len({(part.attempt.rank, part.attempt.number) for part in parts}) == 1 and self.merged is None
        if not (one_writer and rows["seq"].is_sorted()):  # the shards of one writer are in order already
            rows = rows.sort("rank", ATTEMPT, "seq")
        return rows[wanted]


def open_run(path: Path | str, *, skip_broken: bool = False, all_attempts: bool = False) -> RecordedRun:
    """Open the run in directory ``path``; every shard is checked against its manifest first.

    ``all_attempts``: also keep rows that a later attempt recorded again after a resume.

    Raises ``UsageError`` when ``path`` is not a run or has a newer schema, ``DamagedError`` when run.json or a shard
    is damaged. With ``skip_broken`` damaged shards are left out and listed in ``RecordedRun.broken``.
    """
    path = Path(path)
    info = identity(path)
    run = RecordedRun(path, info, tuple(find_attempts(path)))
    for attempt in run.attempts if all_attempts else ():
        attempt.until = None
    if run.broken and not skip_broken:
        first = run.broken[0]
        if is_newer(str(info[VERSION_KEY])):
            raise newer_schema(first.file, str(info[VERSION_KEY]))
        more = f" (and {len(run.broken) - 1} more)" if len(run.broken) > 1 else ""
        raise DamagedError(
            f"{first.file} {first.reason}{more}",
            hint="use --skip-broken (in Python skip_broken=True) to leave damaged files out; "
            "their rows are counted as missing",
        )
    return run
