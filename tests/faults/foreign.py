"""Files of others in a run: never a silently wrong number, always a named file, and no interpreter dies of it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from esper_analyze.errors import EsperError
from esper_analyze.storage.layout import CLOSED_FILE, MANIFEST_FILE, ShardEntry
from tests.faults.children import SEAL_OFTEN
from tests.faults.clerk import Clerk
from tests.faults.columns import ENOUGH, LINES, UPDATES, frames_of
from tests.faults.outcome import Bench, TrialTally
from tests.schema.newer import relist


def foreign_files(bench: Bench) -> TrialTally:
    """Files of others in a run: refused by the name of one of them, or the numbers of the clean run."""
    outcome, clerk = TrialTally(), Clerk()
    child = bench.nursery.run(UPDATES, constants=SEAL_OFTEN | ENOUGH, pace=0.05)
    other = bench.nursery.run(UPDATES + 2, constants=SEAL_OFTEN | ENOUGH, pace=0.05)
    clean = frames_of(child.run_dir)
    for label, must_name, harm in FOREIGN:
        copy = Path(shutil.copytree(child.run_dir, child.run_dir.with_name("copy")))
        named = harm(copy, other.run_dir)
        outcome.trials += 1
        try:
            same = all(frame.equals(clean[name], null_equal=True) for name, frame in frames_of(copy).items())
            if not same or must_name:
                outcome.wrong[f"{label}: opened in silence{'' if same else ' with other numbers'}"] += 1
        except EsperError as error:
            if not any(path.name in error.message for path in named):
                outcome.wrong[f"{label}: {error.message}"] += 1
        for line in LINES:
            said = clerk(line[0], copy, *line[1:])
            outcome.trials += 1
            if not said.proper or (must_name and said.code != 3):
                outcome.wrong[f"{label}, {line[0]}: exit {said.code}: {said.err.strip()[-200:]}"] += 1
        shutil.rmtree(copy)
    clerk.close()
    return outcome


def _attempt(run_dir: Path) -> Path:
    return next(run_dir.glob("rank00000/attempt-*"))


def _other_rank(run_dir: Path, _: Path) -> list[Path]:
    shutil.copytree(run_dir / "rank00000", run_dir / "rank00001")
    return list((run_dir / "rank00001").rglob("*.parquet"))


def _shard_of_other_rank(run_dir: Path, _: Path) -> list[Path]:
    shard = next(_attempt(run_dir).glob("updates-*.parquet"))
    with pq.ParquetFile(shard) as file:
        data = file.read()
    data = data.set_column(0, data.schema.field(0), pa.array([1] * len(data), pa.int64()))
    pq.write_table(data, shard, write_statistics=False)
    relist(shard)
    return [shard]


def _shard_of_other_run(run_dir: Path, other: Path) -> list[Path]:
    shard = sorted(_attempt(run_dir).glob("updates-*.parquet"))[0]
    shutil.copy(sorted(_attempt(other).glob("updates-*.parquet"))[0], shard)
    return [shard]


def _attempt_of_other_run(run_dir: Path, other: Path) -> list[Path]:
    shutil.copytree(_attempt(other), run_dir / "rank00000" / _attempt(other).name)
    return list((run_dir / "rank00000").iterdir())


def _listed_under_two_names(run_dir: Path, _: Path) -> list[Path]:
    shard = sorted(_attempt(run_dir).glob("heads-*.parquet"))[0]
    twin = shard.with_name("heads-000090.parquet")
    shutil.copy(shard, twin)
    manifest = shard.with_name(MANIFEST_FILE)
    line = next(line for line in manifest.read_bytes().splitlines(keepends=True) if shard.name.encode() in line)
    manifest.write_bytes(manifest.read_bytes() + line)
    _relabel(manifest, twin)
    return [shard, twin]


def _half_of_it_twice(run_dir: Path, other: Path) -> list[Path]:
    named = _listed_under_two_names(run_dir, other)
    with pq.ParquetFile(named[1]) as file:
        data = file.read()
    half = data.slice(len(data) // 2)
    pq.write_table(half, named[1])
    relist(named[1], rows=len(half), first_seq=half["seq"][0].as_py(), first_update=half["update"][0].as_py())
    return named


def _relabel(manifest: Path, twin: Path) -> None:
    """Let the manifest's last line be about ``twin``."""
    *lines, last = manifest.read_bytes().splitlines(keepends=True)
    facts = ShardEntry.from_line(last)
    renamed = dataclasses.replace(facts, shard=twin.name, number=90)
    manifest.write_bytes(b"".join([*lines, renamed.as_line()]))


def _strange_parquet(run_dir: Path, _: Path) -> list[Path]:
    path = _attempt(run_dir) / "updates-000099.parquet"
    pq.write_table(pa.table({"id": [1, 2], "name": ["a", "b"]}), path)
    return [path]


def _no_parquet(run_dir: Path, _: Path) -> list[Path]:
    path = _attempt(run_dir) / "heads-000099.parquet"
    path.write_text("update,head\n1,op\n")
    _attempt(run_dir).joinpath(CLOSED_FILE).unlink()
    return [path]


def _strange_names(run_dir: Path, _: Path) -> list[Path]:
    for name in ("updates.parquet", "other-000001.csv", "notes.txt", "updates-000001.parquet.bak"):
        (_attempt(run_dir) / name).write_bytes(b"x")
    (run_dir / "rank1").mkdir()
    (run_dir / "rank00000" / "attempt-x").mkdir()
    return []


FOREIGN: tuple[tuple[str, bool, Callable[[Path, Path], list[Path]]], ...] = (
    ("a rank's folder copied as another's", True, _other_rank),
    ("a shard with rows of another rank", True, _shard_of_other_rank),
    ("a shard of another run in place of one", True, _shard_of_other_run),
    ("an attempt of another run", True, _attempt_of_other_run),
    ("a shard listed under two names", False, _listed_under_two_names),
    ("half of a shard listed once more", True, _half_of_it_twice),
    ("a Parquet file of something else", False, _strange_parquet),
    ("no Parquet at all, in a run that is not closed", True, _no_parquet),
    ("files that are none of ours", False, _strange_names),
)
"""What is done, whether it must be named, and how; returns the files of which one must be named."""
