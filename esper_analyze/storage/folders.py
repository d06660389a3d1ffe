"""List a folder of a run; an unreadable one is named in an error of this run, so other runs stay visible."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from esper_analyze.errors import DamagedError
from esper_analyze.storage import layout
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


@dataclass(frozen=True, slots=True)
class AttemptFolder:
    """The folder of one writer: its path, rank and attempt number."""

    path: Path
    rank: int
    number: int


def attempt_folders(run_dir: Path) -> list[AttemptFolder]:
    """Return the folder of every writer of a run, by rank and attempt."""
    return [folder for rank_dir in listed(run_dir) for folder in attempts_of_rank(rank_dir)]


def attempts_of_rank(rank_dir: Path) -> list[AttemptFolder]:
    """Return the folder of every writer of one rank; none if ``rank_dir`` is missing or not a rank's folder."""
    rank = layout.rank_of(rank_dir)
    if rank is None or not rank_dir.is_dir():
        return []
    numbered = [(path, layout.attempt_of(path)) for path in listed(rank_dir)]
    return [AttemptFolder(path, rank, number) for path, number in numbered if number is not None and path.is_dir()]
