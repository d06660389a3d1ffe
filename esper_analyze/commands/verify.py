"""``esper-analyze verify``: whether everything is there, once, and as the recorder wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import takes_options
from esper_analyze.commands.output import Form, RowOutput
from esper_analyze.errors import DAMAGED, DamagedError, UsageError
from esper_analyze.terminal import counted, escaped, path_words, put, say, show_table, tell

if TYPE_CHECKING:
    from esper_analyze.storage.maintenance.verify import Verified

CheckedRuns = Annotated[
    list[Path], typer.Argument(metavar="RUN", help="Recorded runs, or directories with runs below.")
]


@takes_options("runs", "form", "as_json", "out", "safe")
def verify(output: RowOutput, runs: CheckedRuns) -> None:
    """Check each RUN down to the last cell, and name the file, table, rows and reason of each fault.

    A run that was killed is fine: its log ends in the middle of an update, and a note says where. Exit code 3 when
    something is damaged or missing that should be there.

    As CSV, a line for each fault or note, and one for a run without any.

    Example: esper-analyze verify sample_runs/runs
    """
    from esper_analyze.csv_text import records_csv
    from esper_analyze.storage.maintenance.verify import runs_at
    from esper_analyze.strict_json import strict_json

    form = output.resolved
    results = []
    refused: list[UsageError | DamagedError] = []
    for path in [path for argument in runs for path in runs_at(argument)]:
        try:
            results.append(_checked(path))
        except (
            UsageError,
            DamagedError,
        ) as error:  # a newer schema, no permission: others are checked
            refused.append(error)
            tell(error)
    if form is Form.JSON:
        output.write(strict_json([result.as_dict() for result in results]))
    elif form is Form.CSV:
        records = (record for result in results for record in _records(result))
        output.write(records_csv(_COLUMNS, records, safe=output.safe))
    else:
        output.write(lambda: _print_all(results))
    bad = sum(bool(result.damage) for result in results)
    looked_at = len(results) + len(refused)
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


def _records(verified: Verified) -> Iterator[dict[str, object]]:
    """Yield the faults and notes of a run as flat records, one without any for a run that has none."""
    run = {"run": verified.path, "fine": not verified.damage, "status": verified.status, "files": verified.files}
    run |= {"bytes": verified.bytes, "run_rows": verified.rows, "updates": verified.updates}
    for fault in verified.faults:
        yield {**run, **asdict(fault)}
    if not verified.faults:
        yield run


def _print_all(results: Sequence[Verified]) -> None:
    for result in results:
        _print(result)


def _print(verified: Verified) -> None:
    from esper_analyze.wording import many

    verdict = f"DAMAGED, {many(len(verified.damage), 'fault')}" if verified.damage else "fine"
    rows, updates = many(verified.rows, "row"), many(verified.updates or 0, "update")
    size = f"{many(verified.files, 'file')}, {verified.bytes:,} bytes, {rows}, {updates}"
    put(f"{path_words(verified.path)}: {verdict}; {verified.status}; {size}\n")
    if verified.faults:
        show_table(
            ("", "rank", "try", "file", "table", "rows", "reason"), _cells(verified), right=("rank", "try", "rows")
        )


def _cells(verified: Verified) -> list[list[str]]:
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
        for fault in sorted(verified.faults, key=lambda fault: fault.kind)
    ]


_COLUMNS = (
    *("run", "fine", "status", "files", "bytes", "run_rows", "updates"),
    *("kind", "rank", "attempt", "file", "table", "rows", "reason"),
)
"""Of CSV: the run, then the fault."""


def _file(name: str) -> str:
    """Return a file's own name; what is about all files of a writer has none."""
    file_name = name.rsplit("/", maxsplit=1)[-1]
    return "–" if file_name.startswith("attempt-") else escaped(file_name)
