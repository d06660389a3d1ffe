"""Build batches for the detector from plain cells, and run them cut in any way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from esper_analyze.detector.detector import Detector, Outcome, RuleVerdicts
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.signals import RUN, Batch, Frame, Signal, cell_number
from esper_analyze.detector.verdict import Judgement
from esper_analyze.schema.tables import BY_NAME

Cells = Mapping[str, Sequence[object]]


def signal(table: str, column: str, cells: Sequence[Sequence[object]]) -> Signal:
    """Return a signal from cells [n][k]."""
    numbers = [[cell_number(table, column, cell) for cell in row] for row in cells]
    null = np.array([[cell is None for cell in row] for row in numbers], bool).reshape(len(cells), -1)
    values = np.array([[np.nan if cell is None else cell for cell in row] for row in numbers], np.float64)
    return Signal(column, values.reshape(len(cells), -1), null)


def frame(
    table: str, columns: Mapping[str, Sequence[Sequence[object]]], subjects: Sequence[str] | None = None
) -> Frame:
    """Return a frame from cells [n][k] of each column; every subject has a row in every update."""
    signals = {name: signal(table, name, cells) for name, cells in columns.items()}
    shape = next(iter(signals.values())).values.shape
    named = tuple(subjects or [RUN if BY_NAME[table].subject is None else f"s{k}" for k in range(shape[1])])
    return Frame(named, np.ones(shape, bool), signals)


def batch(frames: Mapping[str, Frame]) -> Batch:
    """Return a batch over updates 0, 1, 2 …"""
    n = max(len(one.present) for one in frames.values())
    return Batch(np.arange(n, dtype=np.int64), frames)


RECORDED: Mapping[str, object] = {"minibatches": 8}
"""What every update that the recorder wrote has."""


def judge_cells(detector: Detector, table: str, cells: Mapping[str, object], updates: int) -> Outcome:
    """Judge one subject; single values are repeated over ``updates``, columns not named are null.

    Minibatches are counted, as in every recorded run, unless they are named: see ``conditions.stand_ins``.

    Columns of other tables are named ``table.column``; a group is then the one of head ``s0``.
    """
    frames = {}
    cells = {**RECORDED, **cells}
    for other in dict.fromkeys([table, *(name.partition(".")[0] for name in cells if "." in name)]):
        columns = {}
        for name in detector.wanted[other]:
            given = cells.get(name if other == table else f"{other}.{name}")
            listed = list(given) if isinstance(given, list) else [given] * updates
            columns[name] = [[cell] for cell in listed]
        namesake = "head:s0" if table == "groups" and other == table and "heads" in detector.wanted else None
        frames[other] = frame(other, columns, [namesake] if namesake else None)
    return detector.process(batch(frames))


def run_cut(detector: Detector, whole: Batch, cuts: Sequence[int]) -> list[Outcome]:
    """Process ``whole`` in parts that end at ``cuts`` (positions) and at its end."""
    edges = [0, *sorted(set(cuts)), len(whole.update)]
    return [detector.process(whole.part(a, b)) for a, b in pairwise(edges) if a < b]


def said(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return everything the detector said, so that two runs can be compared bit by bit."""
    verdicts: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    filled: dict[tuple[Any, ...], str] = {}
    for outcome in outcomes:
        for judged in outcome.judged:
            for one in judged.judgements:
                verdicts |= _verdicts(judged, one, outcome.update.tolist())
        for (table, column), (subjects, values) in outcome.filled.items():
            for i, k in zip(*np.nonzero(~np.isnan(values)), strict=True):
                filled[table, column, subjects[k], int(outcome.update[i])] = float(values[i, k]).hex()
    findings = [_bits(finding) for outcome in outcomes for finding in outcome.findings]
    levels = [change for outcome in outcomes for change in outcome.levels]
    return {"verdicts": verdicts, "findings": findings, "levels": levels, "filled": filled}


def _verdicts(judged: RuleVerdicts, one: Judgement, updates: Sequence[int]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    found = {}
    for i, k in zip(*np.nonzero(one.code), strict=True):
        numbers = (one.value[i, k], one.threshold[i, k], one.baseline[i, k])
        why = one.reasons[one.reason[i, k]]
        key = (judged.rule.name, one.metric, judged.subjects[k], updates[i])
        found[key] = (int(one.code[i, k]), why, *(float(number).hex() for number in numbers))
    return found


def _bits(finding: Finding) -> tuple[Any, ...]:
    return tuple(cell.hex() if isinstance(cell, float) else cell for cell in finding.as_row().values())
