"""Where an import or an export goes: a name that nothing has yet, taken only once everything is written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.storage import atomic
from esper_analyze.storage.output_path import refuse_inside_run, writing


def refuse_existing(out: Path) -> None:
    """Raise ``UsageError`` when there is anything at ``out``, or when it lies inside a run."""
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} exists, and nothing is ever written over", hint="give another --out")
    refuse_inside_run(out)


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Yield a new name beside ``out``, for a file or directory that becomes ``out`` when all went well.

    When not, it is gone. Raises ``UsageError`` where the disk refuses.
    """
    with writing(out, hint="give another --out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic.staged(out) as staging:
            yield staging
            refuse_existing(out)
