"""A recorded run: its identity, its verified shards, and DuckDB and polars over them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.runs.shards import Attempt, Broken, find_attempts
from esper_analyze.schema import BY_NAME, TABLES, VERSION
from esper_analyze.schema.layout import RUN_FILE, ShardEntry
from esper_analyze.schema.views import quote_identifier, select_shards

if TYPE_CHECKING:
    import duckdb
    import polars

_MAJOR = int(VERSION.split(".")[0])


@dataclass(frozen=True, slots=True)
class Run:
    """One recorded run. ``info`` is run.json; ``broken`` lists the files left out of every table."""

    path: Path
    info: dict[str, Any]
    attempts: tuple[Attempt, ...]

    @property
    def broken(self) -> list[Broken]:
        """Files that cannot be trusted; they are left out of every table."""
        return [broken for attempt in self.attempts for broken in attempt.broken]

    @property
    def closed(self) -> bool:
        """Whether every writer left its clean-close marker."""
        return bool(self.attempts) and all(attempt.closed is not None for attempt in self.attempts)

    @property
    def lost_rows(self) -> int:
        """Rows the writers counted as lost."""
        markers = [attempt.closed for attempt in self.attempts if attempt.closed is not None]
        return sum(int(str(marker.get("lost_rows", 0))) for marker in markers)

    @property
    def last_update(self) -> int | None:
        """The last complete update, None when there is none."""
        return max((entry.last_update for _, entry in self.shards("updates")), default=None)

    @property
    def rows(self) -> dict[str, int]:
        """Rows per table in sound shards."""
        return {table.name: sum(entry.rows for _, entry in self.shards(table.name)) for table in TABLES}

    def shards(self, table: str, rank: int | None = None) -> list[tuple[Path, ShardEntry]]:
        """Return the sound shards of ``table`` in the order they were written."""
        found = [
            shard
            for attempt in self.attempts
            if rank is None or attempt.rank == rank
            for shard in attempt.shards
            if shard[1].table == table
        ]
        return sorted(found, key=lambda shard: (shard[0].parent, shard[1].number))

    def files(self, table: str) -> list[str]:
        """Return the paths of the sound shards of ``table``."""
        return [str(path) for path, _ in self.shards(table)]

    def connection(self) -> duckdb.DuckDBPyConnection:
        """Return an in-memory DuckDB connection with one view per declared table."""
        import duckdb

        connection = duckdb.connect(":memory:")
        for table in TABLES:
            query = select_shards(table, self.files(table.name))
            connection.execute(f"create view {quote_identifier(table.name)} as {query}")
        return connection

    def sandbox(
        self, tables: Sequence[str] | None = None, *, memory_limit: str = "2GB", threads: int = 2
    ) -> duckdb.DuckDBPyConnection:
        """Return a locked DuckDB connection with the run's tables loaded, that can touch nothing else.

        ``tables`` are the ones to load (default: all). Loading comes first, then external access, extensions
        and settings are shut for good.
        """
        import duckdb

        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "threads": threads,
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        connection = duckdb.connect(":memory:", config=settings)
        for table in TABLES:
            if tables is None or table.name in tables:
                query = select_shards(table, self.files(table.name))
                connection.execute(f"create table {quote_identifier(table.name)} as {query}")
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
        return connection

    def frame(self, table: str, columns: Sequence[str] | None = None) -> polars.DataFrame:
        """Return ``table`` as a polars frame ordered by rank and sequence; typed and empty when nothing is recorded.

        ``columns`` picks some; the names must be declared.
        """
        import polars

        from esper_analyze.schema.arrow import arrow_schema

        declared = BY_NAME[table]
        wanted = list(declared.names if columns is None else columns)
        files = self.files(table)
        if not files:
            return polars.DataFrame(arrow_schema(declared).empty_table()).select(wanted)
        needed = list(dict.fromkeys([*wanted, "rank", "seq"]))
        read = polars.read_parquet(files, columns=needed, glob=False, hive_partitioning=False)
        return read.sort("rank", "seq").select(wanted)


def open_run(path: Path | str, *, skip_broken: bool = False) -> Run:
    """Open the run in directory ``path``; every shard is checked against its manifest first.

    Raises ``UsageError`` when it is no run or of a newer schema, ``DamagedError`` when run.json or a shard is
    damaged. With ``skip_broken`` damaged shards are left out and listed in ``Run.broken``.
    """
    path = Path(path)
    info = _identity(path)
    run = Run(path, info, tuple(find_attempts(path)))
    if run.broken and not skip_broken:
        first = run.broken[0]
        more = f" (and {len(run.broken) - 1} more)" if len(run.broken) > 1 else ""
        raise DamagedError(
            f"{first.file} {first.reason}{more}",
            hint="use --skip-broken to leave damaged files out; what is left out is counted",
        )
    return run


def find_runs(directory: Path | str) -> list[Path]:
    """Return the run directories at or below ``directory``, sorted; a run inside a run is not looked for."""
    directory = Path(directory)
    if (directory / RUN_FILE).is_file():
        return [directory]
    found: list[Path] = []
    for child in sorted(directory.iterdir()):
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            found += find_runs(child)
    return found


def _identity(path: Path) -> dict[str, Any]:
    file = path / RUN_FILE
    if not path.exists():
        raise UsageError(f"{path} does not exist", hint="give the directory a recorder wrote: it holds run.json")
    if not file.is_file():
        raise UsageError(
            f"{path} is not a recorded run: it has no {RUN_FILE}",
            hint="give the directory a recorder wrote; `esper-analyze ls DIR` lists the runs below a directory",
        )
    try:
        info = json.loads(file.read_bytes())
        version = str(info["schema_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{file} cannot be read as a run's identity ({type(error).__name__})") from error
    match = re.match(r"(\d+)\.\d+\Z", version)
    if match is None:
        raise DamagedError(f"{file} names the impossible schema version {version!r}")
    if int(match[1]) > _MAJOR:
        raise UsageError(
            f"{path} was recorded with schema {version}, this version reads up to {_MAJOR}.x",
            hint="install a newer esper-analyze",
        )
    return dict(info)
