"""A SQLite database that is only read: neither locked, nor changed, nor given a journal beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from esper_analyze.errors import DamagedError

_SIGNATURE = b"SQLite format 3\x00"


def is_database(path: Path) -> bool:
    """Whether ``path`` is a file that begins as a SQLite database."""
    try:
        with path.open("rb") as file:
            return path.is_file() and file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False


@contextmanager
def opened_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database at ``path`` for reading. Raises ``DamagedError``."""
    beside = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if beside.exists() and beside.stat().st_size else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?{how}", uri=True)) as connection:
            connection.text_factory = lambda text: text.decode(errors="replace")
            yield connection
    except sqlite3.Error as error:
        raise DamagedError(f"{path} cannot be read as a SQLite database: {error}") from error


def columns_of(path: Path, table: str) -> Sequence[str]:
    """Return the columns of ``table``, none where there is no such table or the file is no database."""
    if not is_database(path):
        return ()
    try:
        with opened_database(path) as connection:
            return [row[0] for row in connection.execute("select name from pragma_table_info(?)", (table,))]
    except DamagedError:
        return ()
