"""Hysteresis for every rule alike: a verdict stands until better ones have lasted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from esper_analyze.detector.verdict import Codes, Verdict

_OK = int(Verdict.OK)


class Hold:
    """The worst of the last ``length`` verdicts by bounds of each subject of one metric.

    Updates that could not be judged stand as they are and count neither way. ``last`` [length − 1, k] are the verdicts
    before the next update, oldest first; ones that are OK may be written as 0, for they never outdo another.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.last: Codes = np.zeros((length - 1, 0), np.int8)
        self.busy = False
        """Whether a verdict worse than OK is carried."""

    def resume(self, last: Sequence[Sequence[int]]) -> None:
        """Take up verdicts saved before; with another length than then, the newest that fit."""
        saved = np.array(last, np.int8)
        if saved.ndim == 2 and self.length > 1:
            self.last = np.zeros((self.length - 1, saved.shape[1]), np.int8)
            kept = min(len(saved), len(self.last))
            self.last[len(self.last) - kept :] = saved[len(saved) - kept :]
            self.busy = True

    def stand(self, code: Codes) -> Codes | None:
        """Return the verdicts that stand, [n, k]; None when they are the very ones given."""
        self._admit(code.shape[1])
        bad = code > _OK
        carried = self.last > _OK
        self.busy = bool(np.count_nonzero(carried))
        if self.length == 1 or (not np.count_nonzero(bad) and not self.busy):
            return None
        self.busy = True
        if len(code) == 1:
            return self._stand_one(code)
        held = code.copy()
        for k in np.flatnonzero(np.logical_or.reduce(bad, axis=0) | np.logical_or.reduce(carried, axis=0)).tolist():
            rows = np.flatnonzero(code[:, k] >= _OK)
            held[rows, k] = self._worst(code[rows, k], k)
        return held

    def _stand_one(self, code: Codes) -> Codes:
        """Return the same for a single update, all subjects at once."""
        judged = code[0] >= _OK
        worst = np.maximum(code[0], np.maximum.reduce(self.last, axis=0))
        moved = np.concatenate([self.last[1:], code])
        np.copyto(self.last, moved, where=judged)
        held: Codes = np.where(judged, worst, code[0])[None, :]
        return held

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
