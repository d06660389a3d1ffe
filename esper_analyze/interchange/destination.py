"""Where an import or an export goes: a name that nothing has yet, taken only once everything is written."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.storage.atomic import sync_folder
from esper_analyze.storage.output_path import refuse_inside_run


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
    staging = out.parent / f".{out.stem}.{uuid.uuid4().hex[:8]}.tmp{out.suffix}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield staging
        refuse_existing(out)
        staging.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}", hint="give another --out") from error
    finally:
        if staging.is_dir():
            shutil.rmtree(staging, ignore_errors=True)
        with contextlib.suppress(OSError):
            staging.unlink(missing_ok=True)
