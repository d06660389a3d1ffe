"""``esper-analyze replay``: run the detector again over a recorded run, as recorded or with other thresholds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.comparison import print_comparison
from esper_analyze.commands.options import Json, takes_options
from esper_analyze.commands.run_options import RunOptions
from esper_analyze.errors import DAMAGED, UsageError
from esper_analyze.terminal import escaped, path_words, progress, put, say, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esper_analyze.detector.rule import Rule
    from esper_analyze.detector.thresholds import Thresholds
    from esper_analyze.replay.replay import Difference, Replay
    from esper_analyze.replay.whatif import WhatIf
    from esper_analyze.runs.run import RecordedRun

Verify = Annotated[bool, typer.Option("--verify", help="Compare with the live findings; exit 3 if they differ.")]


@takes_options(
    *("path", "assignments", "thresholds", "rules_files", "verify"),
    *("rank", "as_json", "fail_on", "skip_broken"),
)
def replay(options: RunOptions, verify: Verify = False, as_json: Json = False) -> None:
    """Run the detector again over RUN and show what it finds: as recorded, or what other thresholds would find.

    With other thresholds or rules, what is new, gone or moved against the live recording is listed too: incidents as a
    table, findings and levels one a line. There an alarm lasts until its end is said, which is `clear_after` updates
    after the last bad one.

    The ranks of a distributed training are joined and judged as one; --verify takes each by itself, as they were live.

    Example: esper-analyze replay RUN --set kl_spike.warning=0.05
    """
    from esper_analyze.replay.recorded_rules import grown_since, judged_live, stored_thresholds
    from esper_analyze.replay.replay import continued
    from esper_analyze.replay.replay import replay as run_replay
    from esper_analyze.replay.whatif import what_if
    from esper_analyze.runs.damaged_shard import naming_damaged_shard

    if verify and (options.thresholds or options.assignments):
        raise UsageError("--verify compares with the recording, so it takes no other thresholds", hint="leave one out")
    run = options.open()
    rules = options.rules(run)
    stored = stored_thresholds(run, rules)
    chosen = options.changed(stored)
    if verify:
        rules = judged_live(run, rules)
    with naming_damaged_shard(run), progress("judging", run.last_update) as step:
        result = run_replay(run, chosen, rules=rules, progress=step)
        different = _verified(run, result, chosen, rules) if verify else None
        compared = what_if(run, result, stored) if options.judges_otherwise(run) and not verify else None
    (_print_json if as_json else _print_words)(run, result, different, compared)
    if different:
        say(f"replay and recording differ in {len(different)} places")
        if continued(run):
            say("the live detector went on from another recording, which replay of this one does not know")
        grown = grown_since(run)
        if grown is not None and not run.broken and not run.repaired:
            say(grown)
        raise typer.Exit(DAMAGED)
    options.exit_if_found(run, result.findings)


def _verified(run: RecordedRun, result: Replay, thresholds: Thresholds, rules: Sequence[Rule]) -> list[Difference]:
    """Compare with what each rank said live; of one rank, ``result`` is its replay."""
    from esper_analyze.replay.recorded_rules import restated_since
    from esper_analyze.replay.replay import differences, recorded
    from esper_analyze.replay.replay import replay as run_replay

    restated = restated_since(run.info, rules)
    if len(run.ranks) < 2:
        return differences(result, recorded(run), restated)
    listed = []
    for rank in run.ranks:
        rank_run = run.only(rank)
        apart = differences(run_replay(rank_run, thresholds, rules=rules), recorded(rank_run), restated)
        listed += [replace(difference, text=f"rank {rank}: {difference.text}") for difference in apart]
    return listed


def _print_json(run: RecordedRun, result: Replay, different: list[Difference] | None, compared: WhatIf | None) -> None:
    from esper_analyze.strict_json import strict_json

    facts = {
        "run": str(run.path),
        "updates": result.updates,
        "left_out": [{"file": str(one.file), "reason": one.reason} for one in run.broken],
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
    put(strict_json(facts))


def _print_words(run: RecordedRun, result: Replay, different: list[Difference] | None, compared: WhatIf | None) -> None:
    from esper_analyze.wording import many

    alarms = many(sum(finding.alarm for finding in result.findings), "alarm")
    incidents = many(len(result.incidents), "incident")
    put(f"{path_words(run.path)}: {many(result.updates, 'update')}, {alarms}, {incidents}\n")
    if result.incidents:
        _print_incidents(run, result)
    for rule in sorted({entry.rule for entry in result.unjudged if entry.verdict == "no_data"}):
        reasons = {entry.reason for entry in result.unjudged if entry.rule == rule and entry.verdict == "no_data"}
        put(f"not judged for lack of data: {rule} ({', '.join(sorted(reasons))})\n")
    if compared is not None:
        print_comparison(compared)
    if different is not None:
        _print_verified(run, result, different)


def _print_incidents(run: RecordedRun, result: Replay) -> None:
    from esper_analyze.replay.evidence import texts_of
    from esper_analyze.replay.replay import merged_run
    from esper_analyze.wording import number

    texts = texts_of(merged_run(run), result)
    rows = [
        [
            i.peak_verdict,
            escaped(i.rule),
            escaped(i.subject),
            escaped(i.metric),
            f"{i.start} – {i.end}" + (" (open)" if i.ended == "open" else ""),
            f"{escaped(texts.get(i.rule, {}).get((i.subject, i.peak_update)) or number(i.peak))} at {i.peak_update}",
            "–" if i.cause is None else escaped(result.incidents[i.cause].rule),
        ]
        for i in result.incidents
    ]
    show_table(("verdict", "rule", "on", "metric", "updates", "worst", "consequence of"), rows)


def _print_verified(run: RecordedRun, result: Replay, different: list[Difference]) -> None:
    from esper_analyze.replay.recorded_rules import restated_since

    if different:
        put("what replay and the live recording do not share:\n")
    for difference in different:
        put(f"only {difference.only}: update {difference.update}, {difference.text}\n")
    if not different and len(run.ranks) > 1:
        put(f"replay says what was recorded on each of {len(run.ranks)} ranks\n")
    elif not different:
        put(f"replay says what was recorded: {len(result.findings)} findings, {len(result.levels)} levels\n")
    fired = {finding.rule for finding in result.findings}
    for name, numbers in restated_since(run.info, result.rules).items():
        if name in fired:
            put(f"not compared: {' and '.join(numbers)} of {escaped(name)}, changed since it was recorded\n")
