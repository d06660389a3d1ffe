"""Keep the recorder's errors from the training: count each loss, log each kind once, add up the time taken."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from recorder.reduce.update import Cells

LOG = logging.getLogger("recorder")


class Guard:
    """Runs the recorder's work. With ``strict`` errors are raised instead (for tests)."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.spent = 0.0
        self._depth = 0
        self._told: set[str] = set()
        self._lost: Counter[str] = Counter()

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Run the block named ``what``; an ``Exception`` in it is counted and goes no further."""
        start = time.perf_counter()
        self._depth += 1
        try:
            yield
        except Exception as error:
            if self.strict:
                raise
            kind = f"{what}: {type(error).__name__}"
            self._lost[f"{kind}: {error}"[:500]] += 1
            if kind not in self._told:
                self._told.add(kind)
                LOG.exception("recorder: error in %s; training goes on, the loss is counted", what)
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.spent += time.perf_counter() - start

    def tell_once(self, kind: str, message: str) -> None:
        """Log ``message`` as a warning unless this ``kind`` was told before."""
        if kind not in self._told:
            self._told.add(kind)
            LOG.warning("recorder: %s", message)

    def take_losses(self, update: int) -> list[Cells]:
        """Return the losses since the last call as rows of ``losses_of_data``, one a kind."""
        lost, self._lost = self._lost, Counter()
        return [
            {"update": update, "kind": "recorder_error", "detail": detail, "rows": count}
            for detail, count in lost.items()
        ]
