"""The recorder's lines on the console: where it records, critical alarms, and what to do next at the end."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path

from esper_analyze.schema.printable import LOG


class _Stderr(logging.Handler):
    """Writes to stderr, as it is at that moment, unless the training has handlers of its own by then."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message of ``record``."""
        if logging.getLogger().handlers or len(LOG.handlers) > 1:
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


_HANDLER = _Stderr()


def _of_the_training(record: logging.LogRecord) -> bool:
    """Return whether the training's own logging, configured after the recorder began, takes a record of its level."""
    root = logging.getLogger()
    return not root.handlers or record.levelno >= root.level


class Console:
    """Says where ``run_dir`` is recorded and how to follow it, and at the end how to look at it."""

    def __init__(self, run_dir: Path) -> None:
        if not LOG.hasHandlers():
            LOG.addHandler(_HANDLER)
            if LOG.level == logging.NOTSET:
                LOG.setLevel(logging.INFO)
                LOG.addFilter(_of_the_training)
        self._path = _shown(run_dir)  # while the working directory is that of the start
        LOG.info("recorder: recording to %s; follow with: esper-analyze watch %s", self._path, self._path)

    def ended(self, updates: int, reason: str) -> None:
        """Say how many updates the run has, why it ended unless it was closed, and how to look at it."""
        first_line = next(iter(reason.splitlines()), "")[:200]
        why = "" if first_line in ("", "closed") else f" ({first_line})"
        count = f"{updates:,} update{'' if updates == 1 else 's'}"
        LOG.info("recorder: %s in %s%s; look with: esper-analyze report %s", count, self._path, why, self._path)


def _shown(run_dir: Path) -> str:
    """Return the path as it is typed, relative to the current working directory where it lies below."""
    try:
        shown = str(run_dir.relative_to(Path.cwd()))
    except (ValueError, OSError):
        shown = str(run_dir)
    return shlex.quote(shown)
