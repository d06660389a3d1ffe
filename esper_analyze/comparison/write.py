"""Write a comparison: index.html, its figures as PNG and compare.json."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from esper_analyze.comparison.figures import overlays
from esper_analyze.comparison.page import page
from esper_analyze.comparison.side_by_side import Compared, SideBySide
from esper_analyze.comparison.words import caveats, headline, sentences, values_at
from esper_analyze.errors import UsageError
from esper_analyze.reports.render.figure import drawn
from esper_analyze.storage.atomic import write_whole
from esper_analyze.strict_json import strict_json

PAGE_FILE = "index.html"
FACTS_FILE = "compare.json"


def write_comparison(found: SideBySide, out: Path, *, progress: Callable[[int], None] | None = None) -> Path:
    """Write the comparison into directory ``out``, the page last, and return the page's path.

    ``progress`` is called with the number of figures drawn. Raises ``UsageError`` when ``out`` cannot be written.
    """
    answers = []
    for done, (question, data) in enumerate(overlays(found), start=1):
        answers.append((question, drawn(question, data), question.words(data)))
        if progress is not None:
            progress(done)
    files = {f"{question.name}.png": figure.png for question, figure, _ in answers}
    files[FACTS_FILE] = strict_json(facts(found)).encode()
    files[PAGE_FILE] = page(found, answers).encode()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_whole(out / name, content)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}", hint="choose another --out") from error
    return out / PAGE_FILE


def facts(found: SideBySide) -> dict[str, object]:
    """Return everything the page says as plain data."""
    exact = found.first_difference if len(found.labels) == 2 else None
    return {
        "headline": headline(found),
        "sentences": sentences(found),
        "caveats": caveats(found),
        "first_difference": None if exact is None else {"update": exact[0], "metrics": exact[1]},
        "runs": [_run(found, run) for run in range(len(found.labels))],
        "metrics": [_metric(found, one) for one in found.metrics],
        "may_be_parting": [
            {"run": found.labels[one.run], "update": one.update, "metric": one.compared.name} for one in found.pending
        ],
        "different_at_end": [
            {"run": found.labels[run], "metric": one.name, "has": end.own, "others_have": end.others}
            for one, run, end in found.ends_apart
        ],
        "too_short": [found.labels[run] for run in found.too_short],
        "tables_not_compared": found.tables,
        "not_common": [one.name for one in found.not_common],
        "unjudged": found.unjudged,
        "settings": [
            {"name": name, "values": dict(zip(found.labels, values, strict=True))} for name, values in found.settings
        ],
        "given_as_functions": found.functions,
    }


def _run(found: SideBySide, run: int) -> dict[str, object]:
    info, first = found.infos[run], found.first(run)
    return {
        "run": found.labels[run],
        "name": info.get("name"),
        "run_id": info.get("run_id"),
        "updates": int(found.rows[run].sum()),
        "last_update": found.last_update(run),
        "parts_at": None if first is None else first.update,
        "parts_first_in": None if first is None else first.compared.name,
    }


def _metric(found: SideBySide, one: Compared) -> dict[str, object]:
    noise = one.judged.noise
    return {
        "metric": one.name,
        "title": one.title,
        "judged_by": "logarithm" if one.metric.log else "value",
        "noise": noise if math.isfinite(noise) else None,
        "partings": [
            {
                "run": found.labels[left.run],
                "update": left.update,
                "kind": left.parting.kind,
                "sigmas_beyond": left.parting.size if left.parting.kind == "beyond" else None,
                "has": values_at(left)[0],
                "others_have": values_at(left)[1],
            }
            for left in found.leavings
            if left.compared is one
        ],
    }
