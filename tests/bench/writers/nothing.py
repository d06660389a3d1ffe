"""No writer at all: what the clock and the machine add to every other figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Nothing:
    """Takes an update and drops it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self, update: Any) -> Any:
        return update

    def hand_over(self, prepared: Any) -> None:
        """Drop it."""

    def close(self) -> None:
        """Nothing is open."""


make = Nothing
