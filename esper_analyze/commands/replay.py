"""``esper-analyze replay``: the detector once more over a recorded run, as recorded or with other thresholds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.comparison import print_comparison
from esper_analyze.commands.options import (
    Assignments,
    Fail,
    Json,
    RulesFiles,
    RunPath,
    SkipBroken,
    ThresholdsFile,
    changed_thresholds,
    chosen_rules,
    fail_if,
    given_rules,
    new_rules,
)
from esper_analyze.errors import DAMAGED, UsageError
from esper_analyze.terminal import escaped, path_words, progress, say, show_table

if TYPE_CHECKING:
    from esper_analyze.runs.replay import Difference, Replay
    from esper_analyze.runs.run import Run
    from esper_analyze.runs.whatif import WhatIf

Verify = Annotated[
    bool, typer.Option("--verify", help="Compare with what was recorded live; exit 3 when they are not the same.")
]


def replay(
    run_path: RunPath,
    assignments: Assignments = None,
    thresholds: ThresholdsFile = None,
    rules_files: RulesFiles = None,
    verify: Verify = False,
    as_json: Json = False,
    fail_on: Fail = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Run the detector again over RUN and show what it finds: as recorded, or what other thresholds would find.

    With other thresholds or rules, what is new, gone or moved against the live recording is listed too: incidents as a
    table, findings and levels one a line. There an alarm lasts until its end is said, which is `clear_after` updates
    after the last bad one.

    Example: esper-analyze replay RUN --set kl_spike.warning=0.05
    """
    from esper_analyze.runs.blame import blamed
    from esper_analyze.runs.recorded_rules import judged_live, stored_thresholds
    from esper_analyze.runs.replay import differences, recorded
    from esper_analyze.runs.replay import replay as run_replay
    from esper_analyze.runs.run import open_run
    from esper_analyze.runs.whatif import what_if

    if verify and (thresholds or assignments):
        raise UsageError("--verify compares with the recording, so it takes no other thresholds", hint="leave one out")
    given = given_rules(rules_files)
    run = open_run(run_path, skip_broken=skip_broken)
    rules = chosen_rules(run, given)
    stored = stored_thresholds(run, rules)
    chosen = changed_thresholds(stored, thresholds, assignments)
    if verify:
        rules = judged_live(run, rules)
    asked = thresholds or assignments or new_rules(run, given)
    with blamed(run), progress("judging", run.last_update) as step:
        result = run_replay(run, chosen, rules=rules, progress=step)
        different = differences(result, recorded(run)) if verify else None
        compared = what_if(run, result, stored) if asked and not verify else None
    (_print_json if as_json else _print_words)(run, result, different, compared)
    if different:
        say(f"replay and recording differ in {len(different)} places")
        raise typer.Exit(DAMAGED)
    fail_if(result.findings, fail_on)


def _print_json(run: Run, result: Replay, different: list[Difference] | None, compared: WhatIf | None) -> None:
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
    if compared is not None:
        facts["what_if"] = compared
    sys.stdout.write(strict_json(facts))


def _print_words(run: Run, result: Replay, different: list[Difference] | None, compared: WhatIf | None) -> None:
    from esper_analyze.reports.words import many

    alarms = many(sum(finding.alarm for finding in result.findings), "alarm")
    incidents = many(len(result.incidents), "incident")
    sys.stdout.write(f"{path_words(run.path)}: {many(result.updates, 'update')}, {alarms}, {incidents}\n")
    if result.incidents:
        _print_incidents(result)
    for rule in sorted({one.rule for one in result.unjudged if one.verdict == "no_data"}):
        reasons = {one.reason for one in result.unjudged if one.rule == rule and one.verdict == "no_data"}
        sys.stdout.write(f"not judged for lack of data: {rule} ({', '.join(sorted(reasons))})\n")
    if compared is not None:
        print_comparison(compared)
    if different is not None:
        _print_verified(result, different)


def _print_incidents(result: Replay) -> None:
    from esper_analyze.reports.words import number

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
    show_table(("verdict", "rule", "on", "metric", "updates", "worst", "consequence of"), rows)


def _print_verified(result: Replay, different: list[Difference]) -> None:
    if different:
        sys.stdout.write("what replay and the live recording do not share:\n")
    for difference in different:
        sys.stdout.write(f"only {difference.only}: update {difference.update}, {difference.text}\n")
    if not different:
        sys.stdout.write(
            f"replay says what was recorded: {len(result.findings)} findings, {len(result.levels)} levels\n"
        )
