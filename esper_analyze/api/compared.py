"""Runs side by side: where they diverge, in which metric, and how their settings differ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from esper_analyze.api.arguments import PathLike, Paths, as_path, run_paths_in
from esper_analyze.api.fleet import Fleet
from esper_analyze.api.frames import Schema, frame
from esper_analyze.api.run import Run
from esper_analyze.comparison.groups import ComparedGroup, groups_of
from esper_analyze.comparison.side_by_side import side_by_side
from esper_analyze.comparison.words import caveats, headline, sentences
from esper_analyze.comparison.write import facts, write_comparison
from esper_analyze.errors import UsageError
from esper_analyze.reports.render.html import render
from esper_analyze.runs.fleet import labels, open_fleet
from esper_analyze.storage.output_path import refuse_folder
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

if TYPE_CHECKING:
    from esper_analyze.comparison.side_by_side import SideBySide
    from esper_analyze.runs.run import RecordedRun

DIVERGENCES: Schema = {
    "run": pl.String,
    "update": pl.Int64,
    "metric": pl.String,
    "kind": pl.String,
    "sigmas_beyond": pl.Float64,
    "has": pl.String,
    "others_have": pl.String,
}


TENTHS: Schema = {
    "run": pl.String,
    "metric": pl.String,
    "first": pl.Float64,
    "last": pl.Float64,
    "updates": pl.Int64,
    "worst": pl.String,
}
GROUPS: Schema = {
    "group": pl.String,
    "metric": pl.String,
    "mean": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "runs": pl.Int64,
}


class Comparison:
    """Runs compared, from ``ea.compare``; in a notebook it shows its sentences."""

    def __init__(self, side_by_side: SideBySide, groups: Sequence[ComparedGroup] = ()) -> None:
        self.side_by_side = side_by_side
        self._groups = groups

    @property
    def labels(self) -> tuple[str, ...]:
        """The runs' labels."""
        return self.side_by_side.labels

    @property
    def headline(self) -> str:
        """The answer in one sentence."""
        return headline(self.side_by_side)

    @property
    def sentences(self) -> list[str]:
        """The answer in more words, caveats last."""
        return [*sentences(self.side_by_side), *caveats(self.side_by_side)]

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Everything the comparison says as plain data, as compare.json holds it."""
        return facts(self.side_by_side, self._groups)

    @property
    def tenths(self) -> pl.DataFrame:
        """One row for each run and summarised metric: means over the first and the last tenth, ``updates`` each.

        A metric that a run never measured has no row. ``worst`` is the run's worst incident, or how it stands.
        """
        rows = [
            (run["run"], column, cell["first"], cell["last"], cell["updates"], run["worst"])
            for run in self.facts["runs"]
            for column, cell in run["tenths"].items()
            if cell is not None
        ]
        return frame(rows, TENTHS)

    @property
    def groups(self) -> pl.DataFrame:
        """One row for each group and summarised metric: the mean of the runs' last tenths with its 95 % interval.

        ``runs`` are those counted. Empty unless compared with ``by`` or ``group``.
        """
        rows = [
            (group["group"], column, cell["mean"], cell["low"], cell["high"], cell["runs"])
            for group in self.facts["groups"]
            for column, cell in group["last_tenth"].items()
            if cell is not None
        ]
        return frame(rows, GROUPS)

    @property
    def divergences(self) -> pl.DataFrame:
        """One row for each run and metric that diverges from the others and from which update on, the first first.

        ``kind`` is "beyond" for values outside of the others' band by ``sigmas_beyond`` times their noise, else it
        says what else differs, such as NaN.
        """
        rows = [
            [metric["metric"] if name == "metric" else divergence[name] for name in DIVERGENCES]
            for metric in self.facts["metrics"]
            for divergence in metric["partings"]
        ]
        return frame(rows, DIVERGENCES).sort("update", maintain_order=True)

    @property
    def settings(self) -> pl.DataFrame:
        """One row for each setting that differs, one column for each run."""
        named: Schema = {"setting": pl.String, **dict.fromkeys(self.labels, pl.String)}
        return frame(((name, *map(str, values)) for name, values in self.side_by_side.settings), named)

    def report(self, out: PathLike | None = None) -> Path:
        """Write page, figures and compare.json into ``out`` (default: reports/compare); return its index.html.

        Raises ``EsperError`` when ``out`` cannot be written or lies inside a recorded run.
        """
        target = Path("reports/compare") if out is None else as_path(out)
        refuse_folder(target)
        return write_comparison(self.side_by_side, target, groups=self._groups)

    def __repr__(self) -> str:
        return f"<Comparison of {many(len(self.labels), 'run')}: {cleaned(self.headline)}>"

    def _repr_html_(self) -> str:
        return render("notebook_comparison.html.j2", headline=self.headline, sentences=self.sentences)


def compare(
    runs: Fleet | Paths | Sequence[Run],
    *,
    by: str | Sequence[str] = (),
    group: str | None = None,
    skip_broken: bool = False,
) -> Comparison:
    """Compare two runs or more: opened runs, a fleet, or paths as ``ea.open_fleet`` takes them.

    Two runs: from which update on one lies beyond what the other does, by more than their own early noise. Three and
    more: which run leaves the others, and when. ``by``: settings, such as "learning_rate", by which the runs are
    grouped; ``group``: a regular expression on their labels that does so instead. Raises ``EsperError`` when fewer than
    two have a complete update, when they have no metric in common, and when they cannot be grouped so.
    """
    opened = _labelled(runs, skip_broken=skip_broken)
    labelled = [(label, run) for label, run in opened if run.last_update is not None]
    if len(labelled) < 2:
        names = ", ".join(label for label, _ in labelled) or "none"
        raise UsageError(
            f"compare needs two runs with a complete update, given: {names}",
            hint="a directory stands for all the runs below it",
        )
    comparison = side_by_side(labelled)
    if not comparison.metrics:
        raise UsageError("these runs have no metric in common", hint="run.rows says what was recorded")
    return Comparison(comparison, groups_of(comparison, [by] if isinstance(by, str) else by, group))


def _labelled(runs: Fleet | Paths | Sequence[Run], *, skip_broken: bool) -> list[tuple[str, RecordedRun]]:
    if isinstance(runs, Fleet):
        return list(runs.recorded.runs)
    items = [runs] if isinstance(runs, Run) else runs
    if isinstance(items, Sequence) and not isinstance(items, str) and any(isinstance(item, Run) for item in items):
        opened = [item for item in items if isinstance(item, Run)]
        if len(opened) < len(items):
            raise UsageError("compare takes opened runs or paths, not both", hint="open the paths with ea.open")
        return list(zip(labels([run.path for run in opened]), [run.recorded for run in opened], strict=True))
    return list(open_fleet(run_paths_in(items), skip_broken=skip_broken).runs)  # type: ignore[arg-type]
