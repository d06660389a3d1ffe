"""``esper-analyze repair``: close a run whose writer died; nothing recorded is deleted."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.changing import changing
from esper_analyze.commands.options import RunPath, takes_options
from esper_analyze.commands.output import Form, TextOutput
from esper_analyze.terminal import escaped, path_words, put, show_table

if TYPE_CHECKING:
    from esper_analyze.storage.maintenance.repair import Act

Dry = Annotated[bool, typer.Option("--dry-run", help="Show what would be done without changing anything.")]


@takes_options("run_path", "dry_run", "form", "as_json", "out")
def repair(output: TextOutput, run_path: RunPath, dry_run: Dry = False) -> None:
    """Repair RUN after a crash: seal the complete rows of its log, and take files that are damaged out of it.

    Nothing that was recorded is deleted: damaged files go to the folder `set-aside` beside the sound ones, with a note
    why. A lost manifest is rebuilt from the shards, which are then called unverified. May be killed at any time and
    run again.

    Example: esper-analyze repair RUN --dry-run
    """
    from esper_analyze.storage.maintenance.repair import repair as mend
    from esper_analyze.strict_json import strict_json

    form = output.resolved
    with changing(run_path, "repairing") as step:
        acts = mend(run_path, dry=dry_run, step=step)
    if form is Form.JSON:
        facts = {"run": str(run_path), "dry_run": dry_run, "acts": [asdict(act) for act in acts]}
        output.write(strict_json(facts))
    else:
        output.write(lambda: _print(path_words(run_path), acts, dry=dry_run))


def _print(run: str, acts: list[Act], *, dry: bool) -> None:
    if not acts:
        put(f"{run}: nothing to repair\n")
        return
    put(f"{run}: would be repaired\n" if dry else f"{run}: repaired\n")
    rows = [
        [
            act.what,
            escaped(act.file),
            "–" if act.table is None else escaped(act.table),
            "–" if act.rows is None else f"{act.rows:,}",
            escaped(act.reason),
        ]
        for act in acts
    ]
    show_table(("do" if dry else "done", "file", "table", "rows", "why"), rows, right=("rows",))
