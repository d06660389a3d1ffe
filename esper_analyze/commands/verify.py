"""``esper-analyze verify``: whether everything is there, once, and as the recorder wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import Json
from esper_analyze.errors import DAMAGED, DamagedError, UsageError
from esper_analyze.terminal import counted, escaped, path_words, put, say, show_table, tell

if TYPE_CHECKING:
    from esper_analyze.storage.maintenance.verify import Verified

Runs = Annotated[list[Path], typer.Argument(metavar="RUN", help="Recorded runs, or directories with runs below.")]


def verify(runs: Runs, as_json: Json = False) -> None:
    """Check each RUN down to the last cell, and name the file, table, rows and reason of each fault.

    A run that was killed is fine: its log ends in the middle of an update, and a note says where. Exit code 3 when
    something is damaged or missing that should be there.

    Example: esper-analyze verify sample_runs/runs
    """
    from esper_analyze.storage.maintenance.verify import runs_at
    from esper_analyze.strict_json import strict_json

    found = []
    refused: list[UsageError | DamagedError] = []
    for path in [path for given in runs for path in runs_at(given)]:
        try:
            found.append(_checked(path))
        except (
            UsageError,
            DamagedError,
        ) as error:  # a newer schema, no permission: others are checked
            refused.append(error)
            tell(error)
    if as_json:
        put(strict_json([one.as_dict() for one in found]))
    else:
        for one in found:
            _print(one)
    bad = sum(bool(one.damage) for one in found)
    looked_at = len(found) + len(refused)
    if refused and looked_at > 1:
        say(f"{len(refused)} of {looked_at} runs not checked")
    if bad:
        say(f"{bad} of {looked_at} runs damaged" if looked_at > 1 else "the run is damaged")
        raise typer.Exit(DAMAGED)
    if refused:
        raise typer.Exit(max(error.exit_code for error in refused))


def _checked(path: Path) -> Verified:
    from esper_analyze.storage.maintenance.verify import shard_count
    from esper_analyze.storage.maintenance.verify import verify as check

    with counted(f"checking {escaped(path.name)}", shard_count(path)) as step:
        return check(path, step)


def _print(one: Verified) -> None:
    from esper_analyze.wording import many

    verdict = f"DAMAGED, {many(len(one.damage), 'fault')}" if one.damage else "fine"
    size = (
        f"{many(one.files, 'file')}, {one.bytes:,} bytes, {many(one.rows, 'row')}, {many(one.updates or 0, 'update')}"
    )
    put(f"{path_words(one.path)}: {verdict}; {one.status}; {size}\n")
    if one.faults:
        show_table(("", "rank", "try", "file", "table", "rows", "reason"), _cells(one), right=("rank", "try", "rows"))


def _cells(one: Verified) -> list[list[str]]:
    return [
        [
            fault.kind,
            "–" if fault.rank is None else str(fault.rank),
            "–" if fault.attempt is None else str(fault.attempt),
            _file(fault.file),
            "–" if fault.table is None else escaped(fault.table),
            "–" if fault.rows is None else f"{fault.rows:,}",
            escaped(fault.reason),
        ]
        for fault in sorted(one.faults, key=lambda fault: fault.kind)
    ]


def _file(name: str) -> str:
    """Return a file's own name; what is about all files of a writer has none."""
    own = name.rsplit("/", maxsplit=1)[-1]
    return "–" if own.startswith("attempt-") else escaped(own)
