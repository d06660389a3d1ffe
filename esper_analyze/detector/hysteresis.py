"""Hysteresis, the same for every rule: a verdict clears only after better ones have lasted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from esper_analyze.detector.verdict import Codes, Verdict

_OK = int(Verdict.OK)


class Hysteresis:
    """The worst of the last ``length`` verdicts by bounds of each subject of one metric.

    Updates that could not be judged are unchanged and do not count. ``last`` [length − 1, k] are the verdicts before
    the next update, oldest first; OK may be stored as 0, because it is never worse than another.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.last: Codes = np.zeros((length - 1, 0), np.int8)
        self.busy = False
        """Whether a verdict worse than OK is carried."""

    def resume(self, last: Sequence[Sequence[int]]) -> None:
        """Restore saved verdicts; with another length than then, the newest that fit."""
        saved = np.array(last, np.int8)
        if saved.ndim == 2 and self.length > 1:
            self.last = np.zeros((self.length - 1, saved.shape[1]), np.int8)
            count = min(len(saved), len(self.last))
            self.last[len(self.last) - count :] = saved[len(saved) - count :]
            self.busy = True

    def apply(self, code: Codes) -> Codes | None:
        """Return the verdicts after hysteresis, [n, k]; None if they are unchanged."""
        self._admit(code.shape[1])
        bad = code > _OK
        carried = self.last > _OK
        self.busy = bool(np.count_nonzero(carried))
        if self.length == 1 or (not np.count_nonzero(bad) and not self.busy):
            return None
        self.busy = True
        if len(code) == 1:
            return self._apply_one(code)
        standing = code.copy()
        for k in np.flatnonzero(np.logical_or.reduce(bad, axis=0) | np.logical_or.reduce(carried, axis=0)).tolist():
            rows = np.flatnonzero(code[:, k] >= _OK)
            standing[rows, k] = self._worst(code[rows, k], k)
        return standing

    def _apply_one(self, code: Codes) -> Codes:
        """Return the same for a single update, all subjects at once."""
        judged = code[0] >= _OK
        worst = np.maximum(code[0], np.maximum.reduce(self.last, axis=0))
        moved = np.concatenate([self.last[1:], code])
        np.copyto(self.last, moved, where=judged)
        standing: Codes = np.where(judged, worst, code[0])[None, :]
        return standing

    def _worst(self, code: Codes, k: int) -> Codes:
        back = self.length - 1
        line = np.concatenate([self.last[:, k], code])
        worst = code.copy()
        for shift in range(1, self.length):
            np.maximum(worst, line[back - shift : len(line) - shift], out=worst)
        self.last[:, k] = line[len(line) - back :]
        return worst

    def _admit(self, k: int) -> None:
        if k > self.last.shape[1]:
            new = np.zeros((self.length - 1, k - self.last.shape[1]), np.int8)
            self.last = np.concatenate([self.last, new], axis=1)
