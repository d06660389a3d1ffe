"""Rows 21 and 22: runs of versions that are newer than this program, and of every one before it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from esper_analyze.schema import TABLES, VERSION
from tests.faults.clerk import Clerk
from tests.faults.columns import LINES
from tests.faults.outcome import Bench, TrialTally
from tests.golden.facts import GOLDEN, cells, stored
from tests.schema.newer import rewrite


def newer_versions(bench: Bench) -> TrialTally:
    """Shards and runs of newer versions: every command refuses in one sentence, exit 2, and nothing is changed."""
    outcome, clerk = TrialTally(), Clerk()
    today = GOLDEN / VERSION / "run"
    for label, table, number in _newer(bench):
        copy = Path(shutil.copytree(today, bench.scratch / "newer"))
        if table:
            rewrite(copy, table, number, added=["something_new"])
        else:
            info = (
                (copy / "run.json")
                .read_text()
                .replace(f'"schema_version": "{VERSION}"', f'"schema_version": "{number}"')
            )
            (copy / "run.json").write_text(info)
        before = _contents(copy)
        for line in (
            (*LINES, ("repair",), ("ls", "--json")) if bench.long else bench.random.sample([*LINES, ("repair",)], 2)
        ):
            said = clerk(line[0], copy, *line[1:])
            outcome.trials += 1
            code = 3 if line[0] == "ls" else 2
            words = (said.out if line[0] == "ls" else said.err).strip()
            if said.code != code or f"schema {number}" not in words or not said.proper:
                outcome.wrong[f"{label}, {line[0]}: exit {said.code}: {words[-200:]}"] += 1
        if _contents(copy) != before:
            outcome.wrong[f"{label}: a file was changed"] += 1
        shutil.rmtree(copy)
    clerk.close()
    return outcome


def _newer(bench: Bench) -> Iterator[tuple[str, str, str]]:
    for number in ("2.0", "99.3") if bench.long else ("2.0",):
        yield f"a run of {number}", "", number
        for table in [table.name for table in TABLES] if bench.long else ["groups"]:
            if next((GOLDEN / VERSION / "run").rglob(f"{table}-*.parquet"), None) is not None:
                yield f"a shard of {table} of {number}", table, number


def _contents(run_dir: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.name != ".lock"}


def past_versions(_: Bench) -> TrialTally:
    """The golden runs of every version: every cell as it was stored."""
    outcome = TrialTally()
    for folder in sorted(path.parent for path in GOLDEN.glob("*/run")):
        then = stored(folder.name)["cells"]
        for table, columns in cells(folder / "run").items():
            for column, now in columns.items():
                outcome.trials += 1
                if then[table].get(column, "null") != now:
                    outcome.wrong[f"{folder.name}: {table}.{column} is not what was stored"] += 1
    return outcome
