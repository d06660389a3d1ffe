"""Arguments and options that several commands take, declared once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.errors import UsageError
from esper_analyze.terminal import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from esper_analyze.detector.custom import CustomRules
    from esper_analyze.detector.findings import Finding
    from esper_analyze.detector.rule import Rule
    from esper_analyze.detector.thresholds import Thresholds
    from esper_analyze.runs.run import RecordedRun


class FailOn(StrEnum):
    """The verdict from which on a command exits 1."""

    WARNING = "warning"
    CRITICAL = "critical"


RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of one recorded run (it holds run.json).")]
Json = Annotated[
    bool,
    typer.Option("--json", help='Strict JSON on stdout; NaN and ±Inf are the texts "NaN", "Infinity", "-Infinity".'),
]
AllAttempts = Annotated[bool, typer.Option("--all-attempts", help="Include rows that were superseded after a resume.")]
Rank = Annotated[
    int | None,
    typer.Option("--rank", metavar="N", help="Use only this rank of a distributed training.", min=0),
]
SkipBroken = Annotated[bool, typer.Option("--skip-broken", help="Leave out damaged files and say how many.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="RULE.FIELD=VALUE", help="Change one threshold; repeatable."),
]
ThresholdsFile = Annotated[
    Path | None,
    typer.Option("--thresholds", metavar="FILE", help="TOML file with thresholds, as `rules --toml` prints."),
]
RulesFiles = Annotated[
    list[Path] | None,
    typer.Option("--rules", metavar="FILE", help="Python file with custom rules; it is executed. Repeatable."),
]


def absolute(path: Path | None) -> Path | None:
    """Return the absolute output path, independent of later changes of the working directory."""
    return None if path is None else path.absolute()


_NEXT = "`esper-analyze rules --toml` prints every threshold"
Fail = Annotated[
    FailOn | None,
    typer.Option(
        "--fail-on",
        help="Exit 1 if a finding is at least this severe. A training that died of an exception counts as critical, "
        "a killed one as a warning.",
    ),
]


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


def given_rules(files: Iterable[Path] | None) -> list[CustomRules]:
    """Return the checked rules of each file. Raises ``UsageError`` for a file that cannot be used."""
    from esper_analyze.detector.custom import load_rules
    from esper_analyze.detector.rules import RULES

    loaded: list[CustomRules] = []
    for file in files or ():
        loaded.append(load_rules(file, joined(RULES, loaded)))
    return loaded


def joined(rules: Sequence[Rule], custom: Iterable[CustomRules]) -> tuple[Rule, ...]:
    """Return ``rules`` and the ``custom`` ones after them."""
    return (*rules, *(rule for file in custom for rule in file.rules))


def chosen_rules(run: RecordedRun, custom: Sequence[CustomRules]) -> tuple[Rule, ...]:
    """Return the built-in rules and the ``custom`` ones; warns when the run was recorded with another file of them."""
    from esper_analyze.detector.rules import RULES
    from esper_analyze.replay.recorded_rules import other_file

    warning = other_file(run, custom)
    if warning is not None:
        say(f"esper-analyze: warning: {warning}")
    return joined(RULES, custom)


def new_rules(run: RecordedRun, custom: Iterable[CustomRules]) -> bool:
    """Return whether ``custom`` holds rules that did not judge the run live."""
    from esper_analyze.replay.recorded_rules import recorded_rules

    return not {rule.name for file in custom for rule in file.rules} <= set(recorded_rules(run).names)


def changed_thresholds(base: Thresholds, file: Path | None, assignments: Iterable[str] | None) -> Thresholds:
    """Return ``base`` with ``file`` and then ``assignments`` applied.

    Raises ``UsageError`` for a file or an assignment that makes no sense.
    """
    from esper_analyze.detector.thresholds import ThresholdError

    chosen = base if file is None else _from_file(file, base)
    try:
        for assignment in assignments or ():
            chosen = chosen.assigned(assignment)
    except ThresholdError as error:
        raise UsageError(f"--set: {error}", hint=_NEXT) from error
    for sentence in chosen.crossed():
        if sentence not in base.crossed():
            say(f"esper-analyze: warning: {sentence}: it goes from ok to critical and never warns")
    return chosen


def _from_file(file: Path, base: Thresholds) -> Thresholds:
    from esper_analyze.detector.thresholds import ThresholdError
    from esper_analyze.detector.toml import thresholds_from_toml

    try:
        return thresholds_from_toml(file.read_text(encoding="utf-8"), base)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", hint=_NEXT) from error
    except (ThresholdError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}", hint=_NEXT) from error


def fail_if(run: RecordedRun, findings: Iterable[Finding], fail_on: FailOn | None) -> None:
    """Exit 1 when a finding, or how the training ended, is at least as bad as ``fail_on``."""
    from esper_analyze.replay.standing import verdict_of_end
    from esper_analyze.runs.ending import end_of_run

    if fail_on is None:
        return
    bad = {"critical"} if fail_on is FailOn.CRITICAL else {"warning", "critical"}
    if verdict_of_end(end_of_run(run)) in bad or any(finding.verdict in bad for finding in findings):
        raise typer.Exit(1)
