"""The page of a comparison: the answer first, then figures, settings, and the method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from esper_analyze.comparison.figures import Overlay
from esper_analyze.comparison.group_figure import GroupFigure
from esper_analyze.comparison.settings import SettingDifference
from esper_analyze.comparison.side_by_side import SideBySide
from esper_analyze.comparison.summary_tables import Table, tenths_table
from esper_analyze.comparison.words import READING, caveats, divergence_table, headline, sentences, undiverged
from esper_analyze.reports.render.figure import Drawn, fitted
from esper_analyze.reports.render.html import render
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

_LINES = (
    "A gap in a line: not measured. A cross on the upper edge: NaN or ±Inf. A dashed line: the run diverges from that "
    "update on. A band: the range of the runs without their own line, darker the middle half of them."
)
Answered = tuple[Overlay, Drawn, list[str]]
"""A figure's data, the figure and its sentences."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """Means by group: their table, and their figure (None: no metric that two runs measured)."""

    table: Table
    drawn: Drawn | None
    figure: GroupFigure


def page(comparison: SideBySide, answers: Sequence[Answered], grouped: Grouped | None = None) -> str:
    """Return the page as one self-contained HTML document."""
    verdict, word = _verdict(comparison)
    labels = comparison.labels
    titles, rows = divergence_table(comparison)
    figures = fitted(drawn for _, drawn, _ in answers)
    return render(
        "comparison.html.j2",
        moments={"update": []},  # environment steps and time differ from run to run
        contents={
            "tenths": "First and last tenth",
            **({} if grouped is None else {"groups": GroupFigure.title}),
            "divergences": "Where they diverge",
            **{overlay.topic: overlay.title for overlay, _, _ in answers},
            "settings": "How their settings differ",
            "runs": "The runs",
            "method": "How runs are compared",
        },
        title=" and ".join(labels) if len(labels) == 2 else many(len(labels), "run"),
        subtitle=f"{many(len(comparison.metrics), 'metric')} compared over {many(len(comparison.updates), 'update')}",
        verdict=verdict,
        word=word,
        headline=headline(comparison),
        sentences=sentences(comparison),
        caveats=caveats(comparison),
        tenths=tenths_table(comparison),
        grouped=grouped,
        divergences={"titles": titles, "rows": rows},
        quiet=[metric.name for metric in undiverged(comparison)],
        answers=[(overlay, drawn, words) for (overlay, _, words), drawn in zip(answers, figures, strict=True)],
        settings=_settings(comparison),
        runs=[_run(comparison, run) for run in range(len(labels))],
        reading=(*READING, _LINES),
    )


def _verdict(comparison: SideBySide) -> tuple[str, str]:
    """Return the colour of the answer and its word."""
    if comparison.divergences:
        return "warning", "diverged"
    if comparison.end_differences:
        return "warning", "different"
    unsure = bool(comparison.pending or comparison.too_short) and comparison.first_difference is not None
    return ("warning", "cannot tell") if unsure else ("ok", "together")


@dataclass(frozen=True, slots=True)
class SettingTables:
    """Settings that differ, of the training and of the detector: a column for each of two runs, else a row a value."""

    titles: tuple[str, ...]
    training: list[tuple[str, ...]]
    thresholds: list[tuple[str, ...]]
    differing: str


def _settings(comparison: SideBySide) -> SettingTables:
    pair = len(comparison.labels) == 2
    training = [setting for setting in comparison.settings if not setting[0].startswith("thresholds.")]
    thresholds = [setting for setting in comparison.settings if setting[0].startswith("thresholds.")]
    return SettingTables(
        ("setting", *comparison.labels) if pair else ("setting", "value", "runs"),
        _setting_rows(comparison, training),
        _setting_rows(comparison, thresholds),
        f"{many(len(thresholds), 'threshold')} of the detector differ{'s' if len(thresholds) == 1 else ''}",
    )


def _setting_rows(comparison: SideBySide, differences: Sequence[SettingDifference]) -> list[tuple[str, ...]]:
    if len(comparison.labels) == 2:
        return [(name, *values) for name, values in differences]
    rows: list[tuple[str, ...]] = []
    for name, values in differences:
        for index, value in enumerate(dict.fromkeys(values)):
            who = [label for label, of_run in zip(comparison.labels, values, strict=True) if of_run == value]
            rows.append(("" if index else name, cleaned(value, 120), ", ".join(who)))
    return rows


def _run(comparison: SideBySide, run: int) -> tuple[str, ...]:
    info = comparison.infos[run]
    named = [info.get(fact) for fact in ("name", "algorithm", "framework")]
    updates = f"{comparison.rows[run].sum():,}"
    return (comparison.labels[run], *("–" if fact is None else str(fact) for fact in named), updates)
