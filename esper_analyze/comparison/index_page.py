"""The page over several runs: how each stands, its returns, which settings differ, and a link to its own page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from esper_analyze.comparison.settings import differences
from esper_analyze.errors import EsperError
from esper_analyze.reports.listing import RunSummary, summarise
from esper_analyze.reports.render.html import render
from esper_analyze.reports.render.sparkline import Sparkline, sparkline
from esper_analyze.runs.merge_ranks import merge_ranks
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.runs.series import all_series
from esper_analyze.storage.atomic import write_files
from esper_analyze.storage.output_path import writing
from esper_analyze.strict_json import strict_json
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many, number

PAGE_FILE = "index.html"
FACTS_FILE = "index.json"
MOST_SETTINGS = 8
"""Settings with a column of their own."""
_ORDER = ("critical", "warning", "no_data", "info", "ok")


@dataclass(frozen=True, slots=True)
class IndexedRun:
    """One run of the page. ``page``: the path of its own page, relative to the index; None without one."""

    label: str
    summary: RunSummary
    returns: Sparkline | None
    settings: tuple[str, ...]
    page: str | None

    @property
    def verdict(self) -> str:
        """The verdict whose colour the run has."""
        return "critical" if self.summary.fault is not None else self.summary.verdict or "no_data"

    @property
    def state(self) -> str:
        """How the run ended, or what is wrong with its files."""
        return self.summary.fault or self.summary.status or "–"


@dataclass(frozen=True, slots=True)
class RunIndex:
    """All runs, in their order, and the settings of which they have different values."""

    runs: tuple[IndexedRun, ...]
    settings: tuple[str, ...]
    more_settings: int

    @property
    def setting_rows(self) -> list[tuple[str, ...]]:
        """Each run with its values of the settings."""
        return [(run.label, *run.settings) for run in self.runs]

    @property
    def headline(self) -> str:
        """How many runs there are, and how many stand badly."""
        counts = {word: sum(run.verdict == word for run in self.runs) for word in _ORDER}
        told = [f"{counts[word]} {word}" for word in ("critical", "warning") if counts[word]]
        return (
            f"{many(len(self.runs), 'run')}: {', '.join(told)}" if told else f"{many(len(self.runs), 'run')}, no alarm"
        )


def run_index(runs: Sequence[tuple[str, Path]], pages: Mapping[str, str]) -> RunIndex:
    """Return the index of labelled runs; ``pages``: label → path of its page.

    A run that cannot be read hides no other.
    """
    summaries = [summarise(path) for _, path in runs]
    opened = [_opened(path) for _, path in runs]
    differing = differences([{} if run is None else run.info for run in opened])
    differing = [setting for setting in differing if not setting[0].startswith("thresholds.")]
    shown = differing[:MOST_SETTINGS]
    indexed = []
    for number_of, (label, _) in enumerate(runs):
        settings = tuple(cleaned(values[number_of], 60) for _, values in shown)
        returns = _returns(opened[number_of])
        indexed.append(IndexedRun(label, summaries[number_of], returns, settings, pages.get(label)))
    names = tuple(name.removeprefix("hyperparameters.") for name, _ in shown)
    return RunIndex(tuple(indexed), names, len(differing) - len(shown))


def _opened(path: Path) -> RecordedRun | None:
    try:
        return open_run(path, skip_broken=True)
    except EsperError:
        return None


def _returns(run: RecordedRun | None) -> Sparkline | None:
    if run is None:
        return None
    try:
        series = all_series(merge_ranks(run), "updates", ["episode_return_mean"])["episode_return_mean"]
    except EsperError:
        return None
    if not series.finite.any():
        return None
    return sparkline(series, float(series.value[series.finite].min()))


def write_index(index: RunIndex, title: str, out: Path) -> Path:
    """Write index.html and index.json into directory ``out``; return the page's path.

    Raises ``UsageError`` when ``out`` cannot be written.
    """
    content = render(
        "index.html.j2",
        contents={"runs": "The runs", **({"settings": "How their settings differ"} if index.settings else {})},
        title=title,
        headline=index.headline,
        verdict=min((run.verdict for run in index.runs), key=_ORDER.index, default="no_data"),
        index=index,
        number=number,
    )
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_files(out, {FACTS_FILE: index_json(index).encode(), PAGE_FILE: content.encode()})
    return out / PAGE_FILE


def index_json(index: RunIndex) -> str:
    """Return the contents of the page as strict JSON."""
    return strict_json(
        [
            {
                "run": run.label,
                "page": run.page,
                "settings": dict(zip(index.settings, run.settings, strict=True)),
                "summary": run.summary,
            }
            for run in index.runs
        ]
    )
