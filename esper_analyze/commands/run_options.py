"""The options that say which runs a command is about, how they are judged, and which of their updates are shown."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import (
    AllAttempts,
    Assignments,
    Fail,
    FailOn,
    Rank,
    RulesFiles,
    RunPath,
    SkipBroken,
    ThresholdsFile,
)
from esper_analyze.errors import FINDINGS, UsageError
from esper_analyze.terminal import progress, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from esper_analyze.detector.custom import CustomRules
    from esper_analyze.detector.findings import Finding
    from esper_analyze.detector.rule import Rule
    from esper_analyze.detector.thresholds import Thresholds
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.runs.fleet import RecordedFleet
    from esper_analyze.runs.run import RecordedRun

EVERY_THRESHOLD = "`esper-analyze rules --toml` prints every threshold"


@dataclass(frozen=True, kw_only=True)
class DetectorOptions:
    """Thresholds to change, and files of custom rules to judge with."""

    assignments: Assignments = None
    thresholds: ThresholdsFile = None
    rules_files: RulesFiles = None

    @cached_property
    def custom(self) -> tuple[CustomRules, ...]:
        """The checked rules of each file. Raises ``UsageError`` for a file that cannot be used."""
        from esper_analyze.detector.custom import load_rule_files

        return load_rule_files(self.rules_files or ())

    def rules(self, run: RecordedRun) -> tuple[Rule, ...]:
        """Return the built-in rules and custom ones; warns when ``run`` was recorded with another file of them."""
        from esper_analyze.detector.custom import with_custom
        from esper_analyze.replay.recorded_rules import other_file

        warning = other_file(run, self.custom)
        if warning is not None:
            say(f"esper-analyze: warning: {warning}")
        return with_custom(self.custom)

    def judges_otherwise(self, run: RecordedRun) -> bool:
        """Return whether thresholds are changed, or custom rules did not judge ``run`` live."""
        from esper_analyze.replay.recorded_rules import recorded_rules

        live = recorded_rules(run).names
        return bool(self.thresholds or self.assignments) or any(
            rule.name not in live for file in self.custom for rule in file.rules
        )

    def changed(self, base: Thresholds) -> Thresholds:
        """Return ``base`` with the file and then the assignments applied.

        Raises ``UsageError`` for a file or an assignment that makes no sense.
        """
        from esper_analyze.detector.thresholds import ThresholdError

        chosen = base if self.thresholds is None else _from_file(self.thresholds, base)
        try:
            for assignment in self.assignments or ():
                chosen = chosen.assigned(assignment)
        except ThresholdError as error:
            raise UsageError(f"--set: {error}", hint=EVERY_THRESHOLD) from error
        for sentence in chosen.crossed():
            if sentence not in base.crossed():
                say(f"esper-analyze: warning: {sentence}: it goes from ok to critical and never warns")
        return chosen


@dataclass(frozen=True, kw_only=True)
class JudgingOptions(DetectorOptions):
    """What of a run is read, how it is judged, and which findings are a failure."""

    rank: Rank = None
    skip_broken: SkipBroken = False
    all_attempts: AllAttempts = False
    fail_on: Fail = None

    def chosen_rank(self, run: RecordedRun) -> RecordedRun:
        """Return the rank of ``run`` that is asked for, all of it without one."""
        return run if self.rank is None else run.only(self.rank)

    def evidence(self, run: RecordedRun, doing: str = "judging") -> Evidence:
        """Judge ``run`` with the recorded thresholds, changed as asked, and return what reports need."""
        from esper_analyze.replay.evidence import gather
        from esper_analyze.replay.recorded_rules import stored_thresholds
        from esper_analyze.runs.damaged_shard import naming_damaged_shard

        rules = self.rules(run)
        chosen = self.changed(stored_thresholds(run, rules))
        with naming_damaged_shard(run), progress(doing, run.last_update) as step:
            return gather(run, chosen, rules=rules, progress=step)

    def fails(self, run: RecordedRun, findings: Iterable[Finding]) -> bool:
        """Return whether one of ``findings``, or how the training ended, is at least as bad as --fail-on."""
        from esper_analyze.replay.standing import verdict_of_end
        from esper_analyze.runs.ending import end_of_run

        if self.fail_on is None:
            return False
        bad = {"critical"} if self.fail_on is FailOn.CRITICAL else {"warning", "critical"}
        return verdict_of_end(end_of_run(run)) in bad or any(finding.verdict in bad for finding in findings)

    def exit_if_found(self, run: RecordedRun, findings: Iterable[Finding]) -> None:
        """Exit 1 when ``fails`` says so."""
        if self.fails(run, findings):
            raise typer.Exit(FINDINGS)


@dataclass(frozen=True, kw_only=True)
class RunOptions(JudgingOptions):
    """The one run that a command is about, and how it is judged."""

    path: RunPath

    def open(self) -> RecordedRun:
        """Open the run, or one rank of it, and report what is left out; custom rules are checked first."""
        from esper_analyze.runs.run import open_run

        _ = self.custom
        run = open_run(self.path, skip_broken=self.skip_broken, all_attempts=self.all_attempts)
        tell_left_out(run)
        return self.chosen_rank(run)


@dataclass(frozen=True, kw_only=True)
class UpdateRange:
    """The updates that are shown: all, from one to another, or the last so many of each run."""

    first: Annotated[int | None, typer.Option("--from", metavar="N", help="First update shown.", min=0)] = None
    last: Annotated[int | None, typer.Option("--to", metavar="N", help="Last update shown.", min=0)] = None
    latest: Annotated[
        int | None, typer.Option("--last", metavar="N", help="Show only the last N updates of each run.", min=1)
    ] = None

    def refuse_contradiction(self) -> None:
        """Raise ``UsageError`` for options that name no range together."""
        for value, name in ((self.first, "--from"), (self.last, "--to")):
            if self.latest is not None and value is not None:
                raise UsageError(f"--last and {name} cannot be combined", hint="give one of them")
        if self.first is not None and self.last is not None and self.first > self.last:
            raise UsageError(f"--from {self.first} is after --to {self.last}", hint="the first update comes first")

    def of(self, updates: tuple[int, int]) -> tuple[int, int] | None:
        """Return the first and the last update shown of a run whose own are ``updates``, None for all of them."""
        if self.first is self.last is self.latest is None:
            return None
        first, last = updates
        begin = last + 1 - self.latest if self.latest is not None else self.first
        return max(first, begin or first), last if self.last is None else min(last, self.last)

    def shown(self, run: RecordedRun) -> tuple[tuple[int, int] | None, list[str]]:
        """Return the updates of ``run`` that are shown, None for all, and the sentence that says so.

        Raises ``UsageError`` when the run has none of them.
        """
        from esper_analyze.runs.excerpt import update_span

        span = update_span(run)
        shown = None if span is None else self.of(span)
        if span is None or shown is None:
            return None, []
        if shown[0] > shown[1]:
            raise UsageError(f"{run.path} has none of these updates", hint=f"it has {span[0]:,} to {span[1]:,}")
        these = f"updates {shown[0]:,} to {shown[1]:,} alone (the run has {span[0]:,} to {span[1]:,})"
        return shown, [f"What follows is of {these}; rules judged the whole run."]


def _from_file(file: Path, base: Thresholds) -> Thresholds:
    from esper_analyze.detector.thresholds import ThresholdError
    from esper_analyze.detector.toml import thresholds_from_toml

    try:
        return thresholds_from_toml(file.read_text(encoding="utf-8"), base)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", hint=EVERY_THRESHOLD) from error
    except (ThresholdError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}", hint=EVERY_THRESHOLD) from error


def open_runs(paths: Sequence[Path], *, skip_broken: bool, all_attempts: bool = False) -> RecordedFleet:
    """Open the runs that ``paths`` name and report what is left out: runs, damaged files, missing ranks.

    Raises ``UsageError`` when none can be opened.
    """
    from esper_analyze.runs.fleet import open_fleet, run_paths

    found = run_paths(paths)
    with progress("opening", len(found)) as step:
        fleet = open_fleet(found, skip_broken=skip_broken, all_attempts=all_attempts, progress=step)
    for error in fleet.unopened:
        say(f"esper-analyze: warning: left out: {error.message}")
    if not fleet.runs:
        raise UsageError("none of these runs can be opened", hint="`esper-analyze verify` says what is wrong with them")
    for _, run in fleet.runs:
        tell_left_out(run)
    return fleet


def tell_left_out(run: RecordedRun) -> None:
    """Report on stderr what of ``run`` is left out: damaged files and missing ranks."""
    from esper_analyze.wording import many

    if run.broken:
        first = run.broken[0]
        more = f" (and {len(run.broken) - 1:,} more)" if len(run.broken) > 1 else ""
        left = f"{many(len(run.broken), 'damaged file')} left out, so this is not the whole run"
        say(f"esper-analyze: warning: {left}: {first.file} {first.reason}{more}")
    for rank in run.missing_ranks:
        say(f"esper-analyze: warning: rank {rank} is missing: it recorded nothing, or its folder was taken away")
