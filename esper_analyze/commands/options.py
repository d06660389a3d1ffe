"""Arguments and options that several commands take, declared once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esper_analyze.detector.findings import Finding
    from esper_analyze.detector.thresholds import Thresholds
    from esper_analyze.runs.run import Run


class FailOn(StrEnum):
    """The verdict from which on a command exits 1."""

    WARNING = "warning"
    CRITICAL = "critical"


RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of one recorded run (it holds run.json).")]
Json = Annotated[
    bool,
    typer.Option("--json", help='Strict JSON on stdout; NaN and ±Inf are the texts "NaN", "Infinity", "-Infinity".'),
]
SkipBroken = Annotated[bool, typer.Option("--skip-broken", help="Leave damaged files out, and say how many.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="RULE.FIELD=VALUE", help="Change one threshold; may be given again."),
]
ThresholdsFile = Annotated[
    Path | None,
    typer.Option("--thresholds", metavar="FILE", help="TOML file with thresholds, as `rules --toml` prints."),
]
_NEXT = "`esper-analyze rules --toml` prints every threshold"
Fail = Annotated[FailOn | None, typer.Option("--fail-on", help="Exit 1 when a finding is at least this bad.")]


def chosen_thresholds(run: Run, file: Path | None, assignments: Iterable[str] | None) -> Thresholds | None:
    """Return the run's thresholds with ``file`` and then ``assignments`` applied; None when nothing is changed.

    Raises ``UsageError`` for a file or an assignment that makes no sense.
    """
    from esper_analyze.detector.thresholds import ThresholdError
    from esper_analyze.runs.replay import stored_thresholds

    if file is None and not assignments:
        return None
    chosen = stored_thresholds(run)
    if file is not None:
        chosen = _from_file(file, chosen)
    try:
        for assignment in assignments or ():
            chosen = chosen.assigned(assignment)
    except ThresholdError as error:
        raise UsageError(f"--set: {error}", hint=_NEXT) from error
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


def fail_if(findings: Iterable[Finding], fail_on: FailOn | None) -> None:
    """Exit 1 when a finding is at least as bad as ``fail_on``."""
    if fail_on is None:
        return
    bad = {"critical"} if fail_on is FailOn.CRITICAL else {"warning", "critical"}
    if any(finding.verdict in bad for finding in findings):
        raise typer.Exit(1)
