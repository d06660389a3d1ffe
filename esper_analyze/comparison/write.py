"""Write a comparison: index.html, its figures as PNG and compare.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from esper_analyze.comparison.figures import overlays, words
from esper_analyze.comparison.group_figure import group_figure
from esper_analyze.comparison.groups import ComparedGroup
from esper_analyze.comparison.page import Grouped, page
from esper_analyze.comparison.side_by_side import ComparedMetric, SideBySide
from esper_analyze.comparison.summary_tables import group_means, group_table
from esper_analyze.comparison.words import caveats, headline, sentences, values_at
from esper_analyze.reports.render.figure import drawn
from esper_analyze.storage.atomic import write_files
from esper_analyze.storage.output_path import writing
from esper_analyze.strict_json import strict_json

PAGE_FILE = "index.html"
FACTS_FILE = "compare.json"


def write_comparison(
    comparison: SideBySide,
    out: Path,
    *,
    groups: Sequence[ComparedGroup] = (),
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write the comparison into directory ``out``, the page last, and return the page's path.

    ``progress`` is called with the number of figures drawn. Raises ``UsageError`` when ``out`` cannot be written.
    """
    grouped = _grouped(comparison, groups) if groups else None
    answers = []
    for done, overlay in enumerate(overlays(comparison), start=1):
        answers.append((overlay, drawn(overlay.drawing, overlay), words(overlay)))
        if progress is not None:
            progress(done)
    files = {f"{overlay.topic}.png": figure.png for overlay, figure, _ in answers}
    if grouped is not None and grouped.drawn is not None:
        files["groups.png"] = grouped.drawn.png
    files[FACTS_FILE] = strict_json(facts(comparison, groups)).encode()
    files[PAGE_FILE] = page(comparison, answers, grouped).encode()
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_files(out, files)
    return out / PAGE_FILE


def _grouped(comparison: SideBySide, groups: Sequence[ComparedGroup]) -> Grouped:
    figure = group_figure(comparison, groups)
    return Grouped(group_table(comparison, groups), drawn(figure.drawing, figure) if figure.panels else None, figure)


def facts(comparison: SideBySide, groups: Sequence[ComparedGroup] = ()) -> dict[str, object]:
    """Return the contents of the page as plain data."""
    exact = comparison.first_difference if len(comparison.labels) == 2 else None
    return {
        "headline": headline(comparison),
        "sentences": sentences(comparison),
        "caveats": caveats(comparison),
        "first_difference": None if exact is None else {"update": exact[0], "metrics": exact[1]},
        "runs": [_run(comparison, run) for run in range(len(comparison.labels))],
        "groups": [_group(comparison, group) for group in groups],
        "metrics": [_metric(comparison, entry) for entry in comparison.metrics],
        "may_be_parting": [
            {"run": comparison.labels[entry.run], "update": entry.update, "metric": entry.compared.name}
            for entry in comparison.pending
        ],
        "different_at_end": [
            {"run": comparison.labels[run], "metric": entry.name, "has": end.run, "others_have": end.others}
            for entry, run, end in comparison.end_differences
        ],
        "too_short": [comparison.labels[run] for run in comparison.too_short],
        "tables_not_compared": comparison.tables,
        "not_common": [entry.name for entry in comparison.not_common],
        "unjudged": comparison.unjudged,
        "settings": [
            {"name": name, "values": dict(zip(comparison.labels, values, strict=True))}
            for name, values in comparison.settings
        ],
        "given_as_functions": comparison.functions,
    }


def _run(comparison: SideBySide, run: int) -> dict[str, object]:
    info, first = comparison.infos[run], comparison.first(run)
    return {
        "run": comparison.labels[run],
        "name": info.get("name"),
        "run_id": info.get("run_id"),
        "updates": int(comparison.rows[run].sum()),
        "last_update": comparison.last_update(run),
        "parts_at": None if first is None else first.update,
        "parts_first_in": None if first is None else first.compared.name,
        "worst": comparison.worst[run],
        "tenths": {
            column: None if cell is None else {"first": cell.first, "last": cell.last, "updates": cell.updates}
            for column, cells in comparison.tenths.items()
            for cell in (cells[run],)
        },
    }


def _group(comparison: SideBySide, group: ComparedGroup) -> dict[str, object]:
    means = group_means(comparison, group)
    return {
        "group": group.name,
        "runs": [comparison.labels[run] for run in group.runs],
        "last_tenth": {
            column: {"mean": mean.mean, "low": mean.low, "high": mean.high, "runs": mean.counted}
            if mean.counted
            else None
            for column, mean in means.items()
        },
    }


def _metric(comparison: SideBySide, one: ComparedMetric) -> dict[str, object]:
    noise = one.judged.noise
    return {
        "metric": one.name,
        "title": one.title,
        "judged_by": "logarithm" if one.metric.log else "value",
        "noise": noise if math.isfinite(noise) else None,
        "partings": [
            {
                "run": comparison.labels[left.run],
                "update": left.update,
                "kind": left.divergence.kind,
                "sigmas_beyond": left.divergence.size if left.divergence.kind == "beyond" else None,
                "has": values_at(left)[0],
                "others_have": values_at(left)[1],
            }
            for left in comparison.divergences
            if left.compared is one
        ],
    }
