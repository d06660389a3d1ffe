"""``esper-analyze replay``: run the detector again over a recorded run, as recorded or with other thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from esper_analyze.commands.options import takes_options
from esper_analyze.commands.output import Form, TextOutput
from esper_analyze.commands.replay_output import print_words, replay_facts
from esper_analyze.commands.run_options import RunOptions
from esper_analyze.errors import DAMAGED, UsageError
from esper_analyze.terminal import progress, say

Verify = Annotated[bool, typer.Option("--verify", help="Compare with the live findings; exit 3 if they differ.")]


@dataclass(frozen=True, kw_only=True)
class ReplayOptions(RunOptions, TextOutput):
    """The options of ``replay``: which run, how it is judged, and how the answer is written."""


@takes_options(
    *("path", "assignments", "thresholds", "rules_files", "verify"),
    *("rank", "form", "as_json", "out", "fail_on", "skip_broken"),
)
def replay(options: ReplayOptions, verify: Verify = False) -> None:
    """Run the detector again over RUN and show what it finds: as recorded, or what other thresholds would find.

    With other thresholds or rules, what is new, gone or moved against the live recording is listed too: incidents as a
    table, findings and levels one a line. There an alarm lasts until its end is said, which is `clear_after` updates
    after the last bad one.

    The ranks of a distributed training are joined and judged as one; --verify takes each by itself, as they were live.

    Example: esper-analyze replay RUN --set kl_spike.warning=0.05
    """
    from esper_analyze.replay.recorded_rules import grown_since, judged_live, stored_thresholds
    from esper_analyze.replay.replay import continued, verified
    from esper_analyze.replay.replay import replay as run_replay
    from esper_analyze.replay.whatif import what_if
    from esper_analyze.runs.damaged_shard import naming_damaged_shard
    from esper_analyze.strict_json import strict_json

    if verify and (options.thresholds or options.assignments):
        raise UsageError("--verify compares with the recording, so it takes no other thresholds", hint="leave one out")
    form = options.resolved
    run = options.open()
    rules = options.rules(run)
    stored = stored_thresholds(run, rules)
    chosen = options.changed(stored)
    if verify:
        rules = judged_live(run, rules)
    with naming_damaged_shard(run), progress("judging", run.last_update) as step:
        result = run_replay(run, chosen, rules=rules, progress=step)
        different = verified(run, result) if verify else None
        compared = what_if(run, result, stored) if options.judges_otherwise(run) and not verify else None
    if form is Form.JSON:
        options.write(strict_json(replay_facts(run, result, different, compared)))
    else:
        options.write(lambda: print_words(run, result, different, compared))
    if different:
        say(f"replay and recording differ in {len(different)} places")
        if continued(run):
            say("the live detector went on from another recording, which replay of this one does not know")
        grown = grown_since(run)
        if grown is not None and not run.broken and not run.repaired:
            say(grown)
        raise typer.Exit(DAMAGED)
    options.exit_if_found(run, result.findings)
