"""List a folder of a run; an unreadable one is named in an error of this run, so other runs stay visible."""

from __future__ import annotations

from pathlib import Path

from esper_analyze.errors import DamagedError
from esper_analyze.storage.run_files import why_unreadable


def listed(folder: Path) -> list[Path]:
    """Return the entries of ``folder``, sorted.

    Raises ``DamagedError`` when it cannot be read, ``OSError`` when it is gone: a run may be deleted meanwhile.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise DamagedError(f"{folder} {why_unreadable(error)}", hint="make it readable") from error
