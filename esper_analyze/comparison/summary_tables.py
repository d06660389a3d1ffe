"""What stands first in a comparison: each run's first and last tenth with its worst incident, and means by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from esper_analyze.comparison.groups import ComparedGroup, GroupMean, mean_of
from esper_analyze.comparison.side_by_side import SideBySide
from esper_analyze.comparison.tenths import TITLES

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Titles and rows."""


def tenths_table(comparison: SideBySide) -> Table:
    """Return each run's first → last tenth of what was measured, with the ratio, and its worst incident."""
    columns = _columns(comparison)
    titles = ("run", *(TITLES[column] for column in columns), "worst incident")
    rows = []
    for run, label in enumerate(comparison.labels):
        cells = [comparison.tenths[column][run] for column in columns]
        rows.append((label, *("–" if cell is None else cell.words for cell in cells), comparison.worst[run]))
    return titles, rows


def group_means(comparison: SideBySide, group: ComparedGroup) -> Mapping[str, GroupMean]:
    """Return, by column, the mean over the runs of a group of their last tenths, runs that never measured it as NaN."""
    means = {}
    for column in _columns(comparison):
        cells = [comparison.tenths[column][run] for run in group.runs]
        means[column] = mean_of([float("nan") if cell is None else cell.last for cell in cells])
    return means


def group_table(comparison: SideBySide, groups: Sequence[ComparedGroup]) -> Table:
    """Return each group's runs and its means with their 95 % intervals."""
    columns = _columns(comparison)
    rows = []
    for group in groups:
        means = group_means(comparison, group)
        rows.append((group.name, str(len(group.runs)), *(means[column].words for column in columns)))
    return ("group", "runs", *(TITLES[column] for column in columns)), rows


def _columns(comparison: SideBySide) -> list[str]:
    return [column for column in TITLES if column in comparison.tenths]
