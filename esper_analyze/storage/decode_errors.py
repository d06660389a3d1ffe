"""Turn a library's errors while decoding a shard into errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from esper_analyze.errors import DamagedError, EsperError

NEXT = "`esper-analyze verify` checks every cell; --skip-broken reads the run without this file"
"""What to do about a shard that cannot be decoded."""


@contextmanager
def decoding(path: Path | None) -> Iterator[None]:
    """Turn any error of a library that decodes ``path`` into ``DamagedError``; None: rows in memory, errors pass.

    ``BaseException`` is caught because a panic of polars is not an ``Exception``.
    """
    try:
        yield
    except (EsperError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if path is None:
            raise
        raise DamagedError(f"{path} cannot be decoded ({type(error).__name__})", hint=NEXT) from error
