"""The folders of a run, listed; one that cannot be is named and hides no other run."""

from __future__ import annotations

from pathlib import Path

from esper_analyze.errors import DamagedError
from esper_analyze.storage.run_files import why_unreadable


def listed(folder: Path) -> list[Path]:
    """Return what is in ``folder``, sorted.

    Raises ``DamagedError`` when it cannot be read, ``OSError`` when it is gone: a run may be deleted meanwhile.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise DamagedError(f"{folder} {why_unreadable(error)}", hint="make it readable") from error
