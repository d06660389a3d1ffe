"""Rows recorded only for a failing update: its worst samples and its non-finite tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from esper_analyze.storage.block import Rows
from recorder.capture.parameters import ParameterMap
from recorder.capture.transitions import RatioBounds, transition_rows
from recorder.capture.update_buffer import UpdateBuffer
from recorder.measure import Numbers
from recorder.rows import UpdateRows
from recorder.stability import stability_rows


class Diagnostics:
    """Checks the measurements of each ended update."""

    def __init__(self, thresholds: Mapping[str, Mapping[str, Any]], parameters: ParameterMap | None) -> None:
        self.bounds = ratio_bounds(thresholds)
        self.parameters = parameters
        self._unstable = False

    def rows(self, buffer: UpdateBuffer, rows: UpdateRows, weights: Numbers | None, *, asked: bool) -> dict[str, Rows]:
        """Return rows of ``transitions`` and ``tensors``; the latter if ``asked``.

        They are also written at the first update of a non-finite series. ``weights``: as ``stability_rows`` takes them.
        """
        tables: dict[str, Rows] = {}
        concerned = self._concerned(rows)
        if concerned:
            buffer.find_worst()
            epochs = [minibatch.epoch for minibatch in buffer.minibatches]
            tables["transitions"] = transition_rows(buffer.worst, concerned, epochs, rows.update["update"])
        unstable = bool(rows.update.get("tensors_nonfinite") or rows.update.get("nonfinite_sources"))
        if self.parameters is not None and (asked or (unstable and not self._unstable)):
            cause = "nonfinite" if unstable else "asked"
            tables["tensors"] = stability_rows(
                self.parameters, rows.norms, buffer.snapshots, rows.update, weights, cause=cause
            )
        self._unstable = unstable
        return tables

    def _concerned(self, rows: UpdateRows) -> dict[int, str]:
        """Return row index → head name (0: '', the joint) of ratios out of bounds; a single head equals the joint."""
        concerned = {0: ""} if self.bounds.crossed(rows.update) else {}
        if len(rows.heads) > 1:
            concerned |= {1 + index: row["head"] for index, row in enumerate(rows.heads) if self.bounds.crossed(row)}
        return concerned


def ratio_bounds(thresholds: Mapping[str, Mapping[str, Any]]) -> RatioBounds:
    """Return the bounds beyond which the worst samples are recorded: those of the two rules on ratios."""
    return RatioBounds(float(thresholds["ratio_collapse"]["warning"]), float(thresholds["ratio_explosion"]["warning"]))
