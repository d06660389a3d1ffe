"""Errors of libraries that decode a shard which its checksum vouches for, as errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esper_analyze.errors import DamagedError, EsperError

NEXT = "`esper-analyze verify` looks at every cell; without the file --skip-broken reads the rest"
"""What to do about a shard that cannot be decoded."""


@contextmanager
def decoding(path: Path | None) -> Iterator[None]:
    """Turn whatever a library raises while it decodes ``path`` into ``DamagedError``; None: rows in memory.

    A panic of polars is no ``Exception``.
    """
    try:
        yield
    except (EsperError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if path is None:
            raise
        raise DamagedError(f"{path} cannot be decoded ({type(error).__name__})", hint=NEXT) from error
