"""A recorded run as users hold it: its tables, its verdict, SQL over it, and the detector once more."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper_analyze.api.arguments import PathLike, Paths, as_path, as_paths, changed
from esper_analyze.api.tables import RunTables
from esper_analyze.detector.custom import load_rule_files, with_custom
from esper_analyze.errors import UsageError
from esper_analyze.replay.labels import Labels, read_labels
from esper_analyze.replay.recorded_rules import other_file, stored_thresholds
from esper_analyze.runs.damaged_shard import naming_damaged_shard
from esper_analyze.runs.run import open_run
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many

if TYPE_CHECKING:
    import polars
    from matplotlib.figure import Figure

    from esper_analyze.api.queries import QueryParameters
    from esper_analyze.api.sections import ReportSection
    from esper_analyze.detector.rule import Rule
    from esper_analyze.detector.thresholds import Thresholds
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.reports.narrative.story import Story
    from esper_analyze.runs.run import RecordedRun


class JudgedRun:
    """What the detector says of a run with one set of thresholds. The run is replayed once, when first asked."""

    def __init__(self, recorded: RecordedRun, rules: tuple[Rule, ...], thresholds: Thresholds) -> None:
        self.recorded, self.rules, self.thresholds = recorded, rules, thresholds

    @property
    def path(self) -> Path:
        """The directory of the run."""
        return self.recorded.path

    @property
    def name(self) -> str:
        """The run's name, its directory's where it was given none; control characters are left out."""
        return cleaned(self.recorded.info.get("name") or self.path.resolve().name)

    @cached_property
    def evidence(self) -> Evidence:
        """The replay and what reports draw from it, as the inner packages hold it: may change between versions."""
        from esper_analyze.replay.evidence import gather

        with naming_damaged_shard(self.recorded):
            return gather(self.recorded, self.thresholds, rules=self.rules)

    @cached_property
    def story(self) -> Story:
        """The verdict in words: ``headline``, ``now``, ``why``, ``after`` (what to do next), ``caveats``."""
        from esper_analyze.reports.narrative import story

        with naming_damaged_shard(self.recorded):
            return story.frame(self.evidence)

    @property
    def verdict(self) -> str:
        """The overall verdict, as the report gives it: ok, info, no_data, warning or critical.

        ``no_data`` is not healthy: a rule that applies could not judge a single update.
        """
        return self.story.verdict

    @property
    def incidents(self) -> polars.DataFrame:
        """One row per incident, the earliest first: rule, subject, from when to when, its peak and its bound.

        An incident that several rules see because something is not finite is one row.
        """
        from esper_analyze.api.frames import incident_frame

        return incident_frame(self.evidence.replay.incidents)

    @property
    def sections(self) -> tuple[str, ...]:
        """The names that ``section`` takes."""
        from esper_analyze.api.sections import NAMES

        return NAMES

    def section(self, name: str) -> ReportSection:
        """Return one section of the report: ``data``, ``sentences``, ``rows`` and ``figure``.

        Raises ``EsperError`` for a name that is not in ``sections``.
        """
        from esper_analyze.api.sections import section_of

        with naming_damaged_shard(self.recorded):
            return section_of(self.evidence, name)

    def plot(self, *metrics: str, subject: str | None = None, x: str = "update") -> Figure:
        """Return a figure with a panel for each of ``metrics`` over updates; incidents on it are shaded.

        ``x``: "update", "env_steps", "time" (seconds since the first update), or another metric of table updates.

        A metric is a column (``"kl_k3"``) or table and column (``"heads.grad_norm"``). Of a table with a line for each
        head, group, layer or slot, ``subject`` picks one. NaN and ±Inf are marked on the edge, gaps were not measured.
        """
        from esper_analyze.reports.metric_plots import against, metric_named, plotted, run_panel

        if not metrics:
            raise UsageError("plot needs a metric", hint='run.plot("kl_k3"); ea.columns("updates") lists them')
        chosen = [metric_named(metric) for metric in metrics]
        incidents = self.evidence.replay.single_incidents
        with naming_damaged_shard(self.recorded):
            axis = against([("", self.recorded)], x)
            panels = [run_panel(self.evidence.run, metric, subject, incidents) for metric in chosen]
            return plotted([replace(panel, against=axis) for panel in panels])

    def report(self, out: PathLike | None = None) -> Path:
        """Write the report into the directory ``out`` (default: reports/<name of the run>); return its index.html.

        Raises ``EsperError`` when ``out`` cannot be written or lies inside a recorded run.
        """
        from esper_analyze.reports.write import write_report
        from esper_analyze.storage.output_path import refuse_folder

        target = Path("reports") / self.path.resolve().name if out is None else as_path(out)
        refuse_folder(target)
        with naming_damaged_shard(self.recorded):
            return write_report(self.evidence, target)

    def _repr_html_(self) -> str:
        from esper_analyze.api.card import card

        return card(self._line(), self.story)

    def _line(self) -> str:
        run = self.recorded
        algorithm = run.info.get("algorithm")
        last = "no complete update" if run.last_update is None else f"last update {run.last_update:,}"
        facts = [*([] if algorithm is None else [cleaned(algorithm, 40)]), last, *self._notes()]
        return f"{self.name}: {', '.join(facts)}"

    def _notes(self) -> list[str]:
        return []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._line()}>"


class Run(JudgedRun, RunTables):
    """One recorded run, from ``ea.open``.

    Tables are attributes (``run.updates``, ``run.heads`` …). ``verdict``, ``incidents``, ``section``, ``plot`` and
    ``report`` are those of the detector with the thresholds that the run was recorded with; ``findings`` are what it
    said live.
    """

    def __init__(self, recorded: RecordedRun, rules: tuple[Rule, ...]) -> None:
        super().__init__(recorded, rules, stored_thresholds(recorded, rules))

    @property
    def info(self) -> dict[str, Any]:
        """What run.json says: framework, algorithm, hyperparameters, thresholds, versions."""
        return self.recorded.info

    @property
    def status(self) -> str:
        """How the training ended: closed, by which error, or not closed and up to which update it is complete."""
        from esper_analyze.reports.listing import status_words

        return status_words(self.recorded)

    @property
    def last_update(self) -> int | None:
        """The last complete update, None when there is none."""
        return self.recorded.last_update

    @property
    def rows(self) -> dict[str, int]:
        """Rows per table."""
        return self.recorded.rows

    @property
    def broken(self) -> list[str]:
        """Files that ``skip_broken`` left out, each with the reason."""
        return [f"{file.file} {file.reason}" for file in self.recorded.broken]

    @property
    def labels(self) -> Labels | None:
        """The faults that labels.toml names (none: healthy); None when the run has no labels."""
        return read_labels(self.path, [rule.name for rule in self.rules])

    def sql(
        self, query: str, parameters: QueryParameters | None = None, *, timeout: float = 60.0, memory: float = 2.0
    ) -> polars.DataFrame:
        """Return what ``query`` (DuckDB SQL) finds in the run's tables; it can read and write nothing else.

        ``parameters``: a list for ``$1``, ``$2`` …, a dict for ``$name``. ``timeout`` in seconds, ``memory`` in
        gigabytes. In SQL NaN is larger than every number: write ``isfinite(x)`` where that matters.
        """
        from esper_analyze.api.queries import queried

        labelled = [(self.path.resolve().name, self.recorded)]
        return queried(labelled, query, parameters, timeout=timeout, memory=memory)

    def replay(self, thresholds: Thresholds | None = None, /, **changes: Mapping[str, object]) -> ReplayedRun:
        """Run the detector again: ``run.replay(kl_spike={"warning": 0.05})``.

        ``thresholds`` take the place of those the run was recorded with; ``changes`` are applied to them.
        Raises ``EsperError`` for a rule or threshold that does not exist, and for a value that it cannot have.
        """
        base = changed(self.thresholds if thresholds is None else thresholds, changes)
        return ReplayedRun(self, base.completed(self.rules))


class ReplayedRun(JudgedRun):
    """A run judged again with other thresholds, from ``Run.replay``."""

    def __init__(self, original: Run, thresholds: Thresholds) -> None:
        super().__init__(original.recorded, original.rules, thresholds)
        self.original = original

    @property
    def findings(self) -> polars.DataFrame:
        """What the detector says with these thresholds: one row per change of verdict."""
        from esper_analyze.api.frames import finding_frame

        return finding_frame(self.evidence.replay.findings)

    @property
    def levels(self) -> polars.DataFrame:
        """One row per change of the telemetry level."""
        from esper_analyze.api.frames import level_frame

        return level_frame(self.evidence.replay.levels)

    @property
    def changes(self) -> polars.DataFrame:
        """What became of every alarm against the recording.

        ``change`` is same, new, gone, earlier, later, worse, milder, longer, shorter, split, joined or not live.
        """
        from esper_analyze.api.frames import change_frame
        from esper_analyze.replay.whatif import what_if

        with naming_damaged_shard(self.recorded):
            difference = what_if(self.evidence.run, self.evidence.replay, self.original.thresholds)
        return change_frame(difference.alarms)

    def _notes(self) -> list[str]:
        from esper_analyze.replay.whatif import changed_thresholds

        changes = changed_thresholds(self.original.thresholds.as_dict(), self.thresholds.as_dict())
        return [f"{many(len(list(changes)), 'threshold')} changed"]


def open(  # noqa: A001 - ea.open, as gzip.open
    path: PathLike,
    *,
    rank: int | None = None,
    skip_broken: bool = False,
    all_attempts: bool = False,
    rules: Paths = (),
) -> Run:
    """Open the recorded run in directory ``path``; every file is checked against its manifest first.

    ``rank`` takes what one rank of a distributed training recorded; without it ranks are joined where the run is
    judged. ``skip_broken`` leaves damaged files out (``Run.broken``). ``all_attempts`` keeps rows that were recorded
    again after a resume. ``rules`` are Python files with rules of your own; they are executed.

    Raises ``EsperError`` when there is no run, when a file is damaged, and when the run was recorded with rules that
    are not given.
    """
    recorded = open_run(as_path(path), skip_broken=skip_broken, all_attempts=all_attempts)
    custom = load_rule_files(as_paths(rules))
    warning = other_file(recorded, custom)
    if warning is not None:
        warnings.warn(warning, stacklevel=2)
    return Run(recorded if rank is None else recorded.only(rank), with_custom(custom))
