"""``esper-analyze diagnose``: what went wrong in a run, or in the logs of another tool, told in the terminal."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.import_run import Actions, HeadSizes, LogFormat, head_sizes, tell_not_logs, tell_of_import
from esper_analyze.commands.options import takes_options
from esper_analyze.commands.output import Form, TextOutput
from esper_analyze.commands.run_options import JudgingOptions, tell_left_out
from esper_analyze.errors import FINDINGS, EsperError
from esper_analyze.terminal import cleaned, escaped, path_words, progress, put, say, show_table

if TYPE_CHECKING:
    from esper_analyze.reports.narrative.story import Story
    from esper_analyze.runs.run import RecordedRun


RunOrLog = Annotated[
    Path,
    typer.Argument(metavar="SOURCE", help="A run, the file or directory of one log or several, or - (pasted text)."),
]


@dataclass(frozen=True, kw_only=True)
class DiagnoseOptions(JudgingOptions, TextOutput):
    """How a run or a log is judged, and the output."""


@takes_options(
    *("source", "name", "actions", "heads", "assignments", "thresholds", "rules_files", "rank", "fail_on"),
    *("skip_broken", "all_attempts", "form", "as_json", "out"),
)
def diagnose(
    options: DiagnoseOptions,
    source: RunOrLog,
    name: LogFormat = None,
    actions: Actions = None,
    heads: HeadSizes = None,
) -> None:
    """Tell what went wrong first, when, why, and what to do: of a run, or of a log as `import` reads it.

    A log is judged as the run that `import` makes of it, which is not kept; SOURCE is only read. Of a directory with
    several runs each has a line, the worst first, and the worst is told of. `report` draws the figures and `timeline`
    lists every incident; of a log, import it first.

    Example: esper-analyze diagnose sample_runs/runs/one_update_collapse

    Example: esper-analyze diagnose logs/progress.csv

    Example: esper-analyze diagnose logs
    """
    from esper_analyze.strict_json import strict_json

    form, _ = options.resolved, options.custom
    failed: list[tuple[str, EsperError]] = []
    with closing(_opened(source, name, head_sizes(actions, heads), options, failed)) as runs:
        diagnoses = [_diagnosed(run_name, run, options, is_kept=is_kept) for run_name, run, is_kept in runs]
    diagnoses.sort(key=_Diagnosis.badness)
    worst = diagnoses[0]
    for run_name, error in failed:
        say(f"esper-analyze: not judged: {cleaned(run_name)}: {error.message}")
    if form is Form.JSON:
        listed = [{"name": one.name, **one.summary(), **one.facts()} for one in diagnoses]
        several = {"runs": listed, "failed": [{"name": run, "error": error.message} for run, error in failed]}
        one_run = {"name": worst.title, **worst.facts()}
        options.write(strict_json({"source": str(source), **(several if worst.name else one_run)}))
    else:
        options.write(partial(_print, source, diagnoses))
    if any(one.fails for one in diagnoses):
        raise typer.Exit(FINDINGS)
    if failed:
        raise typer.Exit(max(error.exit_code for _, error in failed))


@dataclass(frozen=True, slots=True)
class _Diagnosis:
    """The story of one run. ``name`` is empty for a single one."""

    name: str
    title: str
    line: str
    updates: int
    story: Story
    is_kept: bool
    fails: bool

    def badness(self) -> tuple[int, int, str]:
        """Return what sorts the worst first, and of equals the one in which it began first."""
        from esper_analyze.wording import SIGNS

        lead = self.story.lead
        return [*SIGNS].index(self.story.verdict), -1 if lead is None else lead.onset, self.name

    @property
    def incident(self) -> str:
        """The first incident in words."""
        from esper_analyze.wording import on

        lead = self.story.lead
        return "No incident" if lead is None else f"{lead.rule}{on(lead.subject)} at update {lead.onset:,}"

    def summary(self) -> dict[str, object]:
        """Return the run's line as plain data."""
        return {"updates": self.updates, "first_incident": None if self.story.lead is None else self.incident}

    def facts(self) -> dict[str, object]:
        """Return the story as plain data."""
        from esper_analyze.reports.write import story_facts

        return story_facts(self.story)


def _diagnosed(name: str, run: RecordedRun, options: DiagnoseOptions, *, is_kept: bool) -> _Diagnosis:
    from esper_analyze.reports.narrative import story as stories
    from esper_analyze.reports.sections import identity
    from esper_analyze.runs.damaged_shard import naming_damaged_shard

    chosen = options.chosen_rank(run)
    evidence = options.evidence(chosen)
    with naming_damaged_shard(run):
        story, identified = stories.frame(evidence), identity.frame(chosen)
    story = story if is_kept else story.without_commands()
    updates = max((run.only(rank).rows["updates"] for rank in run.ranks), default=0)
    fails = options.fails(chosen, evidence.replay.findings)
    return _Diagnosis(name, identified.name, identified.line, updates, story, is_kept, fails)


def _print(source: Path, diagnoses: Sequence[_Diagnosis]) -> None:
    from esper_analyze.reports.render.terminal import print_story
    from esper_analyze.wording import SIGNS

    worst = diagnoses[0]
    if worst.name:
        rows = [
            (SIGNS[one.story.verdict], escaped(one.name), f"{one.updates:,}", escaped(one.incident), one.story.verdict)
            for one in diagnoses
        ]
        show_table(("", "run", "updates", "first incident", "verdict"), rows, right=("updates",))
        put("\n")
    print_story(f"{worst.name or worst.title}: {worst.line}", worst.story)
    if not worst.is_kept:
        keep, out = ("them as runs", "RUNS") if worst.name else ("it as a run", "RUN")
        put(f"\nTo keep {keep}: esper-analyze import {path_words(source)} --out {out}\n")


def _opened(
    source: Path,
    name: str | None,
    sizes: Mapping[str, int],
    options: JudgingOptions,
    failed: list[tuple[str, EsperError]],
) -> Generator[tuple[str, RecordedRun, bool], None, None]:
    """Yield the runs of ``source`` with their names and whether they are kept; a single one has no name.

    A log is a run that is there until the next one is asked for. What cannot be imported is added to ``failed``.
    """
    import os

    from esper_analyze.runs.run import open_run
    from esper_analyze.storage.layout import RUN_FILE

    if name is None and os.path.lexists(source / RUN_FILE):
        run = open_run(source, skip_broken=options.skip_broken, all_attempts=options.all_attempts)
        tell_left_out(run)
        yield "", run, True
        return
    with closing(_imported(source, name, sizes, options, failed)) as runs:
        for run_name, run in runs:
            yield run_name, run, False


def _imported(
    source: Path,
    name: str | None,
    sizes: Mapping[str, int],
    options: JudgingOptions,
    failed: list[tuple[str, EsperError]],
) -> Generator[tuple[str, RecordedRun], None, None]:
    """Yield the runs that the logs of ``source`` become. Raises the error of the first where none can be imported."""
    from tempfile import TemporaryDirectory

    from esper_analyze.interchange.sources import find_logs
    from esper_analyze.interchange.write import write_imported
    from esper_analyze.runs.run import open_run

    logs = find_logs(source, name, sizes)
    tell_not_logs(logs)
    judged = 0
    with progress("reading", len(logs.groups)) if len(logs.groups) > 1 else nullcontext() as step:
        for run_name, imported in logs.read(step):
            if isinstance(imported, EsperError):
                failed.append((run_name, imported))
                continue
            tell_of_import(imported, run_name)
            with TemporaryDirectory(prefix="esper-analyze-") as folder:
                path = write_imported(
                    Path(folder) / (run_name or source.resolve().name.strip("-") or "log"), imported
                ).path
                yield run_name, open_run(path, all_attempts=options.all_attempts)
            judged += 1
    failed += [(str(error.message), error) for error in logs.unreadable]
    if not judged:
        raise failed[0][1]
