"""Isolate the training from the recorder's errors: count each loss, log each kind once, sum the recorder's time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from types import TracebackType

import torch

from esper_analyze.schema.printable import LOG
from esper_analyze.schema.row_types import LossesOfDataRow
from recorder.process_state import as_by_default, is_altered


class ErrorGuard:
    """Runs the recorder's work in ``with guarded(name):``. With ``strict`` errors are raised instead (for tests).

    Within a block torch computes with its defaults, see ``recorder.process_state``. ``spent`` sums the seconds inside;
    blocks may nest. Entered thousands of times an update and therefore written for speed: one reusable context manager
    per name.
    """

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.spent = 0.0
        self.depth = 0
        self.start = 0.0
        self.entered = _Entered()
        self._blocks: dict[str, _Block] = {}
        self._logged_kinds: set[str] = set()
        self._lost: Counter[str] = Counter()

    def __call__(self, what: str) -> _Block:
        """Return the block named ``what``; an ``Exception`` in it is counted and suppressed."""
        block = self._blocks.get(what)
        if block is None:
            block = self._blocks[what] = _Block(self, what)
        return block

    def take(self) -> float:
        """Return the seconds spent since the last call, including the block in progress."""
        now = time.perf_counter()
        spent, self.spent = self.spent, 0.0
        if self.depth:
            spent, self.start = spent + now - self.start, now
        return spent

    def mark(self) -> tuple[int, int, bool]:
        """Return the nesting depth of this thread's blocks and its grad mode, for ``leave``."""
        return self.depth, len(self.entered.contexts), torch.is_grad_enabled()

    def leave(self, mark: tuple[int, int, bool]) -> None:
        """Leave the blocks entered since ``mark`` whose exit Ctrl-C interrupted, and restore the grad mode."""
        depth, contexts, grad_enabled = mark
        torch.set_grad_enabled(grad_enabled)
        while len(self.entered.contexts) > contexts:
            context = self.entered.contexts.pop()
            if context is not None:
                context.close()
        self.depth = depth

    def lose(self, what: str, error: Exception) -> None:
        """Count an error caught in ``what``; the first of each kind is logged with its traceback."""
        kind = f"{what}: {type(error).__name__}"
        self._lost[f"{kind}: {error}"[:500]] += 1
        if kind not in self._logged_kinds:
            self._logged_kinds.add(kind)
            LOG.error(
                "recorder: error in %s; training continues, what is not recorded is counted in table losses_of_data",
                what,
                exc_info=error,
            )

    def refuse(self, what: str, error: Exception) -> None:
        """Count ``error``, detected in ``what`` without interrupting it; with ``strict`` it is raised."""
        if self.strict:
            raise error
        self.lose(what, error)

    def warn_once(self, kind: str, message: str) -> None:
        """Log ``message`` as a warning unless this ``kind`` was logged before."""
        if kind not in self._logged_kinds:
            self._logged_kinds.add(kind)
            LOG.warning("recorder: %s", message)

    def take_losses(self, update: int) -> list[LossesOfDataRow]:
        """Return the losses since the last call as rows of ``losses_of_data``, one per kind."""
        lost, self._lost = self._lost, Counter()
        return [
            {"update": update, "kind": "recorder_error", "detail": detail, "rows": count}
            for detail, count in lost.items()
        ]


class _Entered(threading.local):
    """The contexts of this thread's open blocks; None where torch's defaults were in effect already."""

    def __init__(self) -> None:
        self.contexts: list[contextlib.ExitStack | None] = []


class _Block:
    """The reusable context manager of one name."""

    __slots__ = ("guard", "what")

    def __init__(self, guard: ErrorGuard, what: str) -> None:
        self.guard, self.what = guard, what

    def __enter__(self) -> None:
        guard = self.guard
        if guard.depth == 0:
            guard.start = time.perf_counter()
        guard.depth += 1
        guard.entered.contexts.append(as_by_default() if is_altered() else None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        guard = self.guard
        context = guard.entered.contexts.pop()
        if context is not None:
            context.close()
        guard.depth -= 1
        if guard.depth == 0:
            guard.spent += time.perf_counter() - guard.start
        if error is None or guard.strict or not isinstance(error, Exception):
            return False
        guard.lose(self.what, error)
        return True
