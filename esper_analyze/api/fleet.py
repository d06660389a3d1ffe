"""Several recorded runs at once: a summary of each, SQL over all, one metric drawn over the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from esper_analyze.api.arguments import PathLike, Paths, as_path, as_paths, run_paths_in
from esper_analyze.api.run import Run
from esper_analyze.comparison.index_page import run_index, write_index
from esper_analyze.detector.custom import load_rule_files, with_custom
from esper_analyze.errors import DamagedError, EsperError, UsageError, did_you_mean
from esper_analyze.runs import fleet as fleets
from esper_analyze.storage.output_path import refuse_folder
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

if TYPE_CHECKING:
    import polars
    from matplotlib.figure import Figure

    from esper_analyze.api.queries import QueryParameters
    from esper_analyze.detector.rule import Rule
    from esper_analyze.runs.fleet import RecordedFleet


class Fleet:
    """Runs by their labels, from ``ea.open_fleet``: iterate over labels, or take ``fleet["label"]``.

    ``unopened`` are the errors of runs that could not be opened, with ``skip_broken``.
    """

    def __init__(self, recorded: RecordedFleet, rules: tuple[Rule, ...]) -> None:
        self.recorded, self.rules = recorded, rules
        self.unopened = recorded.unopened
        self._runs: dict[str, Run] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        """The runs' labels: the name of the directory, and as much of what is above as tells it from the others."""
        return tuple(label for label, _ in self.recorded.runs)

    def __len__(self) -> int:
        return len(self.recorded.runs)

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def __getitem__(self, label: str) -> Run:
        if label not in self.labels:
            raise UsageError(f"there is no run {label!r} in this fleet{did_you_mean(str(label), self.labels)}")
        if label not in self._runs:
            self._runs[label] = Run(dict(self.recorded.runs)[label], self.rules)
        return self._runs[label]

    def summary(self) -> polars.DataFrame:
        """Return one row per run: what it is, how it ended, and its verdict by what the live detector said.

        ``rule``, ``subject`` and ``update`` are those of the first of its worst alarms, null when there is none;
        ``unjudged`` says why rules could not judge.
        """
        from esper_analyze.api.summaries import summary_frame

        return summary_frame(self.recorded.runs)

    def sql(
        self, query: str, parameters: QueryParameters | None = None, *, timeout: float = 60.0, memory: float = 2.0
    ) -> polars.DataFrame:
        """Return what ``query`` (DuckDB SQL) finds; column ``run`` of every table is the label. See ``Run.sql``."""
        from esper_analyze.api.queries import queried

        return queried(self.recorded.runs, query, parameters, timeout=timeout, memory=memory)

    def plot(self, *metrics: str, subject: str | None = None, x: str = "update") -> Figure:
        """Return a figure with a panel for each of ``metrics`` and a line for each run, see ``Run.plot``.

        A metric of heads, groups, layers or slots needs ``subject``, the one to draw.
        """
        from esper_analyze.reports.metric_plots import against, fleet_panel, metric_named, plotted

        if not metrics:
            raise UsageError("plot needs a metric", hint='fleet.plot("kl_k3"); ea.columns("updates") lists them')
        chosen = [metric_named(metric) for metric in metrics]
        axis = against(self.recorded.runs, x)
        panels = [fleet_panel(self.recorded.runs, metric, subject) for metric in chosen]
        return plotted([replace(panel, against=axis) for panel in panels])

    def report(self, out: PathLike | None = None) -> Path:
        """Write the page of each run into a folder of ``out``, and an index.html over all of them; return its path.

        ``out`` is "reports/runs" by default. Raises ``EsperError`` when it cannot be written or lies inside a run, and,
        once all others are written, when the page of some run cannot be.
        """
        target = Path("reports/runs") if out is None else as_path(out)
        refuse_folder(target)
        links, failed = {}, dict[str, EsperError]()
        for label in self.labels:
            try:
                links[label] = quote(f"{label}/{self[label].report(target / label).name}")
            except EsperError as error:
                failed[label] = error
        index = run_index([(label, run.path) for label, run in self.recorded.runs], links)
        path = write_index(index, many(len(self), "run"), target)
        if failed:
            named = "; ".join(f"{cleaned(label, 40)}: {error.message}" for label, error in failed.items())
            raise DamagedError(f"no page of {many(len(failed), 'run')}, {path} has the others: {named}")
        return path

    def __repr__(self) -> str:
        left = f", {len(self.unopened)} not opened" if self.unopened else ""
        named = ", ".join(cleaned(label, 40) for label in self.labels[:3])
        return f"<Fleet of {many(len(self), 'run')}{left}: {named}{' …' if len(self) > 3 else ''}>"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def open_fleet(paths: Paths, *, skip_broken: bool = False, all_attempts: bool = False, rules: Paths = ()) -> Fleet:
    """Open every run that ``paths`` name: runs, directories with runs below them, patterns such as ``"runs/lr-*"``.

    ``skip_broken`` leaves damaged files and runs out (``Fleet.unopened``); the other options are those of ``ea.open``.
    Raises ``EsperError`` when a path names no run, or a run cannot be opened.
    """
    recorded = fleets.open_fleet(run_paths_in(paths), skip_broken=skip_broken, all_attempts=all_attempts)
    if not recorded.runs:
        raise UsageError("none of these runs can be opened", hint="`esper-analyze verify` says what is wrong with them")
    return Fleet(recorded, with_custom(load_rule_files(as_paths(rules))))
