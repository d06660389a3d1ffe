"""Write a report: index.html, its figures as PNG and report.json, each complete or not there at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.reports import identity, story
from esper_analyze.reports.evidence import Evidence
from esper_analyze.reports.figure import drawn
from esper_analyze.reports.page import QUESTIONS, Answer, page
from esper_analyze.strict_json import strict_json

PAGE_FILE = "index.html"
FACTS_FILE = "report.json"


def write_report(evidence: Evidence, out: Path, *, progress: Callable[[int], None] | None = None) -> Path:
    """Write the report on ``evidence`` into directory ``out`` and return the page's path.

    ``progress`` is called with the number of questions answered. Raises ``UsageError`` when ``out`` cannot be written.
    """
    answers = []
    for done, question in enumerate(QUESTIONS, start=1):
        data = question.frame(evidence)
        figure = None if data is None else drawn(question, data)
        answers.append(Answer(question, data, figure, () if data is None else tuple(question.words(data))))
        if progress is not None:
            progress(done)
    files = {f"{a.question.name}.png": a.figure.png for a in answers if a.figure is not None}
    files[FACTS_FILE] = strict_json(facts(evidence, answers)).encode()
    files[PAGE_FILE] = page(evidence, tuple(answers)).encode()
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_whole(out, files)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}", hint="choose another --out") from error
    return out / PAGE_FILE


def facts(evidence: Evidence, answers: list[Answer]) -> dict[str, object]:
    """Return everything the page says as plain data."""
    run, replay = evidence.run, evidence.replay
    told, known = story.frame(evidence), identity.frame(run)
    return {
        "run": {"path": str(run.path), "name": known.name, **dict(known.facts)},
        "info": run.info,
        "closed": run.closed,
        "last_update": run.last_update,
        "broken": [{"file": str(broken.file), "reason": broken.reason} for broken in run.broken],
        "rows": run.rows,
        "verdict": told.verdict,
        "headline": told.headline,
        "paragraph": told.paragraph,
        "look_first": told.look_first,
        "caveats": told.caveats,
        "incidents": replay.incidents,
        "findings": replay.findings,
        "levels": replay.levels,
        "verdicts": replay.verdict_counts,
        "unjudged": replay.unjudged,
        "thresholds": replay.thresholds.as_dict(),
        "questions": [
            {
                "name": answer.question.name,
                "asks": answer.question.asks,
                "answered": answer.figure is not None,
                "words": answer.words or (answer.question.without,),
                "figure": f"{answer.question.name}.png" if answer.figure else None,
            }
            for answer in answers
        ],
    }


def _write_whole(out: Path, files: Mapping[str, bytes]) -> None:
    """Write all files under hidden names, then rename them: what fails before leaves the old report as it was."""
    staged: dict[Path, str] = {}
    try:
        for name, content in files.items():
            descriptor, temporary = tempfile.mkstemp(dir=out, prefix=f".{name}.")
            staged[Path(temporary)] = name
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(temporary).chmod(0o644)
        for ready, name in staged.items():
            ready.replace(out / name)
    except BaseException:
        for ready in staged:
            ready.unlink(missing_ok=True)
        raise
