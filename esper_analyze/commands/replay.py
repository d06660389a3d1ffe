"""``esper-analyze replay``: the detector once more over a recorded run, as recorded or with other thresholds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import (
    Assignments,
    Fail,
    Json,
    RunPath,
    SkipBroken,
    ThresholdsFile,
    chosen_thresholds,
    fail_if,
)
from esper_analyze.errors import DAMAGED, UsageError
from esper_analyze.terminal import escaped, progress, say, show_table

if TYPE_CHECKING:
    from esper_analyze.runs.replay import Difference, Replay
    from esper_analyze.runs.run import Run

Verify = Annotated[
    bool, typer.Option("--verify", help="Compare with what was recorded live; exit 3 when they are not the same.")
]


def replay(
    run_path: RunPath,
    assignments: Assignments = None,
    thresholds: ThresholdsFile = None,
    verify: Verify = False,
    as_json: Json = False,
    fail_on: Fail = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Run the detector again over RUN and show what it finds: as recorded, or what other thresholds would find.

    With other thresholds, what was recorded live and is not found now, and the other way round, is listed too.

    Example: esper-analyze replay RUN --set kl_spike.warning=0.05
    """
    from esper_analyze.runs.replay import differences, recorded
    from esper_analyze.runs.replay import replay as run_replay
    from esper_analyze.runs.run import open_run

    run = open_run(run_path, skip_broken=skip_broken)
    chosen = chosen_thresholds(run, thresholds, assignments)
    if verify and chosen is not None:
        raise UsageError("--verify compares with the recording, so it takes no other thresholds", hint="leave one out")
    with progress("judging", run.last_update) as step:
        result = run_replay(run, chosen, progress=step)
    different = differences(result, recorded(run)) if verify or chosen is not None else None
    (_print_json if as_json else _print_words)(run, result, different)
    if different and verify:
        say(f"replay and recording differ in {len(different)} places")
        raise typer.Exit(DAMAGED)
    fail_if(result.findings, fail_on)


def _print_json(run: Run, result: Replay, different: list[Difference] | None) -> None:
    from esper_analyze.strict_json import strict_json

    facts = {
        "run": str(run.path),
        "updates": result.updates,
        "incidents": result.incidents,
        "findings": result.findings,
        "levels": result.levels,
        "verdicts": result.verdict_counts,
        "unjudged": result.unjudged,
        "thresholds": result.thresholds.as_dict(),
    }
    if different is not None:
        facts["differences"] = different
    sys.stdout.write(strict_json(facts))


def _print_words(run: Run, result: Replay, different: list[Difference] | None) -> None:
    from esper_analyze.reports.words import many, number

    alarms = many(sum(finding.alarm for finding in result.findings), "alarm")
    incidents = many(len(result.incidents), "incident")
    sys.stdout.write(f"{run.path}: {many(result.updates, 'update')}, {alarms}, {incidents}\n")
    rows = [
        [
            i.peak_verdict,
            escaped(i.rule),
            escaped(i.subject),
            escaped(i.metric),
            f"{i.start} – {i.end}" + (" (open)" if i.ended == "open" else ""),
            f"{number(i.peak)} at {i.peak_update}",
            "–" if i.cause is None else escaped(result.incidents[i.cause].rule),
        ]
        for i in result.incidents
    ]
    if rows:
        show_table(("verdict", "rule", "on", "metric", "updates", "worst", "consequence of"), rows)
    for rule in sorted({one.rule for one in result.unjudged if one.verdict == "no_data"}):
        reasons = {one.reason for one in result.unjudged if one.rule == rule and one.verdict == "no_data"}
        sys.stdout.write(f"not judged for lack of data: {rule} ({', '.join(sorted(reasons))})\n")
    if different:
        sys.stdout.write("what replay and the live recording do not share:\n")
    for difference in different or ():
        sys.stdout.write(f"only {difference.only}: update {difference.update}, {difference.text}\n")
    if different == []:
        sys.stdout.write(
            f"replay says what was recorded: {len(result.findings)} findings, {len(result.levels)} levels\n"
        )
