"""``esper-analyze diagnose``: what went wrong in a run, or in the log of another tool, told in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.import_run import ImportFormat
from esper_analyze.commands.options import takes_options
from esper_analyze.commands.output import Form, TextOutput
from esper_analyze.commands.run_options import JudgingOptions, tell_left_out
from esper_analyze.terminal import path_words, put, say

if TYPE_CHECKING:
    from esper_analyze.reports.narrative.story import Story
    from esper_analyze.runs.run import RecordedRun


RunOrLog = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="A run, the file or directory of a log, or - (pasted text).")
]
LogFormat = Annotated[ImportFormat, typer.Option("--from", help="Which log SOURCE is; auto detects it.")]


@dataclass(frozen=True, kw_only=True)
class DiagnoseOptions(JudgingOptions, TextOutput):
    """How a run or a log is judged, and the output."""


@takes_options(
    *("source", "kind", "assignments", "thresholds", "rules_files", "rank", "fail_on"),
    *("skip_broken", "all_attempts", "form", "as_json", "out"),
)
def diagnose(options: DiagnoseOptions, source: RunOrLog, kind: LogFormat = ImportFormat.AUTO) -> None:
    """Tell what went wrong first, when, why, and what to do: of a run, or of a log as `import` reads it.

    A log is judged as the run that `import` makes of it, which is not kept; SOURCE is only read. `report` draws the
    figures and `timeline` lists every incident; of a log, import it first.

    Example: esper-analyze diagnose sample_runs/runs/one_update_collapse

    Example: esper-analyze diagnose logs/progress.csv
    """
    from esper_analyze.reports.narrative import story as stories
    from esper_analyze.reports.sections import identity
    from esper_analyze.reports.write import story_facts
    from esper_analyze.runs.damaged_shard import naming_damaged_shard
    from esper_analyze.strict_json import strict_json

    form, _ = options.resolved, options.custom
    with _opened(source, kind, options) as (run, is_kept):
        chosen = options.chosen_rank(run)
        evidence = options.evidence(chosen)
        with naming_damaged_shard(run):
            story, identified = stories.frame(evidence), identity.frame(chosen)
        story = story if is_kept else story.without_commands()
        if form is Form.JSON:
            options.write(strict_json({"source": str(source), "name": identified.name, **story_facts(story)}))
        else:
            keep = "" if is_kept else f"To keep it as a run: esper-analyze import {path_words(source)} --out RUN"
            options.write(partial(_print, f"{identified.name}: {identified.line}", story, keep))
        options.exit_if_found(chosen, evidence.replay.findings)


def _print(title: str, story: Story, keep: str) -> None:
    from esper_analyze.reports.render.terminal import print_story

    print_story(title, story)
    if keep:
        put(f"\n{keep}\n")


@contextmanager
def _opened(source: Path, kind: ImportFormat, options: JudgingOptions) -> Iterator[tuple[RecordedRun, bool]]:
    """Open ``source``, and say whether it is a run that is kept; a log as a run that is there for that long."""
    import os
    from tempfile import TemporaryDirectory

    from esper_analyze.interchange.sources import read_source
    from esper_analyze.interchange.write import write_imported
    from esper_analyze.runs.run import open_run
    from esper_analyze.storage.layout import RUN_FILE

    if kind is ImportFormat.AUTO and os.path.lexists(source / RUN_FILE):
        run = open_run(source, skip_broken=options.skip_broken, all_attempts=options.all_attempts)
        tell_left_out(run)
        yield run, True
        return
    imported = read_source(source, None if kind is ImportFormat.AUTO else kind.value)
    for sentence in imported.losses.sentences():
        say(f"esper-analyze: {sentence}")
    with TemporaryDirectory(prefix="esper-analyze-") as folder:
        path = write_imported(Path(folder) / (source.resolve().name.strip("-") or "log"), imported).path
        yield open_run(path), False
