"""Write a report atomically: index.html, report.md, its figures and report.json."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from esper_analyze.errors import UsageError
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.answer import Answer, answered
from esper_analyze.reports.narrative import foreign, story
from esper_analyze.reports.narrative.explained import explained
from esper_analyze.reports.page import page
from esper_analyze.reports.render.markdown import markdown
from esper_analyze.reports.section_list import SECTIONS
from esper_analyze.reports.sections import identity
from esper_analyze.strict_json import strict_json

Span = tuple[int, int]
PAGE_FILE = "index.html"
FACTS_FILE = "report.json"
MARKDOWN_FILE = "report.md"


def write_report(
    evidence: Evidence, out: Path, *, span: Span | None = None, progress: Callable[[int], None] | None = None
) -> Path:
    """Write the report on ``evidence`` into directory ``out`` and return the page's path.

    ``span``: the first and the last update that figures and rows show; the verdict is always on the whole run.
    ``progress`` is called with the number of sections computed. Raises ``UsageError`` when ``out`` cannot be written.
    """
    answers, shown = [], evidence if span is None else evidence.between(*span)
    with _uncollected():
        for done, section in enumerate(SECTIONS, start=1):
            answers.append(answered(shown, section, figures=True))
            gc.collect(0)  # what this figure leaves: only objects that are new are traversed
            if progress is not None:
                progress(done)
    files: dict[str, bytes] = {}
    for answer in answers:
        if answer.figure is not None:
            name = answer.section.name
            files |= {f"{name}.png": answer.figure.png, f"{name}.svg": answer.figure.file.encode()}
    narrative = _story(evidence, span)
    files[FACTS_FILE] = strict_json(facts(evidence, answers, narrative)).encode()
    files[MARKDOWN_FILE] = markdown(evidence, answers, narrative).encode()
    files[PAGE_FILE] = page(evidence, answers, narrative).encode()
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_whole(out, files)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}", hint="choose another --out") from error
    return out / PAGE_FILE


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pause garbage collection: traversing matplotlib's many small objects takes a third of the drawing time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def report_json(evidence: Evidence, span: Span | None = None) -> str:
    """Return the contents of report.json without drawing anything; ``span`` as in ``write_report``."""
    shown = evidence if span is None else evidence.between(*span)
    answers = [answered(shown, section, figures=False) for section in SECTIONS]
    return strict_json(facts(evidence, answers, _story(evidence, span)))


def _story(evidence: Evidence, span: Span | None) -> story.Story:
    """Return the story of the run, and that figures and rows show only some of its updates."""
    narrative = story.frame(evidence)
    if span is None:
        return narrative
    words = f"Figures and rows below are of updates {span[0]:,} to {span[1]:,} alone; the verdict is on the whole run."
    return replace(narrative, caveats=(*narrative.caveats, words))


def facts(evidence: Evidence, answers: Sequence[Answer], narrative: story.Story) -> dict[str, object]:
    """Return the contents of the page as plain data."""
    run, replay = evidence.run, evidence.replay
    identified, theirs = identity.frame(run), foreign.alarms(run)
    return {
        "run": {"path": str(run.path), "name": identified.name, **dict(identified.facts)},
        "info": run.info,
        "closed": run.closed,
        "last_update": run.last_update,
        "broken": [{"file": str(broken.file), "reason": broken.reason} for broken in run.broken],
        "losses_of_data": identified.losses,
        "rows": run.rows,
        **story_facts(narrative),
        "incidents": replay.incidents,
        "explained": explained(evidence),
        "findings": replay.findings,
        "foreign_alarms": None if theirs is None else list(theirs.records()),
        "levels": replay.levels,
        "verdicts": replay.verdict_counts,
        "unjudged": replay.unjudged,
        "thresholds": replay.thresholds.as_dict(),
        "questions": [_section(answer) for answer in answers],
    }


def story_facts(narrative: story.Story) -> dict[str, object]:
    """Return the story of a run as plain data."""
    return {
        "verdict": narrative.verdict,
        "label": narrative.standing.label,
        "ended": _ended(narrative),
        "judged": narrative.standing.coverage,
        "headline": narrative.headline,
        "now": narrative.now,
        "why": narrative.why,
        "next": narrative.after,
        "paragraph": narrative.paragraph,
        "look_first": narrative.look_first,
        "causes": narrative.causes,
        "caveats": narrative.caveats,
    }


def _ended(narrative: story.Story) -> dict[str, object]:
    end = narrative.standing.end
    return {
        "how": end.end.name.lower(),
        "error": end.error or None,
        "update": end.update,
        "words": end.status,
        "stalled_s": end.stalled_s,
        "death": end.death,
    }


def _section(answer: Answer) -> dict[str, object]:
    section = answer.section
    return {
        "name": section.name,
        "asks": section.asks,
        "answered": bool(answer.words),
        "words": answer.words or (section.without,),
        "figure": f"{section.name}.png" if answer.words else None,
        "rows": None if answer.rows is None else list(answer.rows.records()),
    }


def _write_whole(out: Path, files: Mapping[str, bytes]) -> None:
    """Write all files under hidden names, then rename them: a failure before that leaves the old report intact."""
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
