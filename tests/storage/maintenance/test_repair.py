"""``repair`` makes a run whole as far as its files go, deletes nothing recorded, and may be killed anywhere."""

from __future__ import annotations

import json
import random
import shutil
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.runs.run import open_run
from esper_analyze.storage.maintenance.exclusive import exclusive
from esper_analyze.storage.maintenance.repair import repair
from esper_analyze.storage.maintenance.verify import verify
from recorder.store.run_file import create_run
from recorder.store.store import Store
from tests.runs.killing import SYSTEM_CALLS, killed_by_strace, stopped_at, strace_works
from tests.runs.stored import UPDATES, copied, files, folder, frames, same, write

SHARD = "heads-000002.parquet"
OWN = """
import sys, time
from pathlib import Path
time.time = lambda: 0.0
from esper_analyze.storage.maintenance.exclusive import exclusive
from esper_analyze.storage.maintenance.repair import repair
with exclusive(Path(sys.argv[1])):
    repair(Path(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("killed") / "run", close=False)


@pytest.fixture(scope="module")
def harmed(killed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A killed run with a bit flipped in a shard, a torn log and a manifest line that is edited."""
    run = copied(killed, tmp_path_factory.mktemp("harmed") / "run")
    flip(folder(run) / SHARD)
    log = next(folder(run).glob(".wal-*"))
    log.write_bytes(log.read_bytes()[:-5])
    manifest = folder(run) / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    lines[-1] = lines[-1].replace(b'"rows": ', b'"rows": 1')
    manifest.write_bytes(b"".join(lines))
    return run


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def mend(run: Path) -> list[str]:
    with exclusive(run):
        return [act.what for act in repair(run)]


def test_a_killed_run_is_closed_with_the_rows_that_readers_saw(killed: Path, tmp_path: Path) -> None:
    run = copied(killed, tmp_path / "run")
    acts = mend(run)
    assert acts.count("seal") == 5
    assert acts[-1] == "close"
    assert same(frames(run), frames(killed))
    found = verify(run)
    assert found.faults == []
    assert found.status == f"repaired, last complete update {UPDATES - 1}"
    assert not list(folder(run).glob(".wal-*"))
    opened = open_run(run)
    assert opened.closed
    assert opened.lost_rows == 0
    assert differences(replay(opened), recorded(opened)) == []


def test_a_repaired_run_has_nothing_more_to_repair(harmed: Path, tmp_path: Path) -> None:
    run = copied(harmed, tmp_path / "run")
    mend(run)
    before = files(run)
    assert mend(run) == []
    assert files(run) == before


def test_a_closed_run_has_nothing_to_repair(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    before = files(run)
    assert mend(run) == []
    assert files(run) == before


def test_a_dry_run_says_the_same_and_changes_nothing(harmed: Path, tmp_path: Path) -> None:
    run = copied(harmed, tmp_path / "run")
    before = files(run)
    said = repair(run, dry=True)
    assert files(run) == before
    assert [(act.what, act.file) for act in said] == [(act.what, act.file) for act in repair(run)]


def test_a_bad_shard_is_set_aside_with_a_note_and_the_rest_is_read(harmed: Path, tmp_path: Path) -> None:
    run = copied(harmed, tmp_path / "run")
    spoilt = (folder(run) / SHARD).read_bytes()
    mend(run)
    aside = folder(run) / "set-aside"
    assert (aside / SHARD).read_bytes() == spoilt
    assert (aside / "manifest.jsonl").read_bytes() == (folder(harmed) / "manifest.jsonl").read_bytes()
    note = json.loads((aside / "repair-1.json").read_text())
    assert "does not match the checksum" in json.dumps(note)
    clean, left = frames(harmed, skip_broken=True), frames(run)
    assert left["heads"].equals(clean["heads"], null_equal=True)
    assert left["updates"].equals(clean["updates"], null_equal=True)
    found = verify(run)
    assert not found.damage
    assert found.lost_rows >= 8
    assert any("unverified" in fault.reason for fault in found.faults)


@pytest.mark.parametrize("close", [True, False])
def test_a_lost_manifest_is_made_anew_and_called_unverified(tmp_path: Path, close: bool) -> None:
    run = write(tmp_path / "run", close=close)
    clean, sealed = frames(run), len(list(folder(run).glob("*.parquet")))
    (folder(run) / "manifest.jsonl").unlink()
    assert "list again" in mend(run)
    assert same(frames(run), clean)
    found = verify(run)
    assert not found.damage
    assert found.lost_rows == 0
    assert len(open_run(run).unverified) == sealed  # the others are sealed from the log
    assert sum("unverified" in fault.reason for fault in found.faults) == len(open_run(run).unverified)


def test_a_shard_stopped_between_rename_and_manifest_is_there_once(killed: Path, tmp_path: Path) -> None:
    run = copied(killed, tmp_path / "run")
    whole = copied(killed, tmp_path / "whole")
    mend(whole)
    shutil.copy(folder(whole) / "heads-000004.parquet", folder(run))
    assert not verify(run).damage
    assert same(frames(run), frames(killed))
    mend(run)
    assert same(frames(run), frames(killed))
    assert not verify(run).damage


def test_a_log_with_a_bad_frame_is_kept_aside_and_its_sound_rows_are_sealed(tmp_path: Path) -> None:
    run = write(tmp_path / "run", close=False, updates=UPDATES + 1)
    log = next(folder(run).glob(".wal-*"))
    data = bytearray(log.read_bytes())
    data[data.index(b"\xf5ES\xfa", data.index(b"\xf5ES\xfa") + 1) + 40] ^= 4
    log.write_bytes(data)
    seen = frames(run, skip_broken=True)
    assert seen["updates"]["update"].to_list() == [*range(13), 14]
    mend(run)
    assert (folder(run) / "set-aside" / log.name.removeprefix(".")).read_bytes() == bytes(data)
    assert same(frames(run), seen)
    assert verify(run).lost_rows == 12
    assert not verify(run).damage


def test_losses_of_one_repair_after_another_add_up(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    for name in (SHARD, "heads-000003.parquet"):
        flip(folder(run) / name)
        mend(run)
    assert verify(run).lost_rows == 16
    assert {path.name for path in (folder(run) / "set-aside").iterdir()} >= {
        SHARD, "heads-000003.parquet", "closed.json", "closed-2.json", "repair-1.json", "repair-2.json"
    }  # fmt: skip


def test_a_run_that_is_written_is_refused_and_the_writer_named(tmp_path: Path) -> None:
    create_run(tmp_path, {"name": "x"})
    store = Store(tmp_path)
    with pytest.raises(UsageError, match=r"is being written by pid \d+ on "), exclusive(tmp_path):
        pytest.fail("held")
    store.close("closed")


HARMS: list[Callable[[Path, random.Random], object]] = [
    lambda path, rng: path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)]),
    lambda path, _: path.write_bytes(b""),
    lambda path, _: path.unlink(),
    lambda path, rng: path.write_bytes(rng.randbytes(500)),
    lambda path, _: flip(path),
]


def test_whatever_is_harmed_what_is_left_after_repair_is_what_was_recorded(killed: Path, tmp_path: Path) -> None:
    clean = frames(killed)
    rng = random.Random(3)
    for _ in range(25):
        run = copied(killed, tmp_path / "run")
        for path in rng.sample(sorted(path for path in folder(run).iterdir() if path.name != ".lock"), 3):
            rng.choice(HARMS)(path, rng)
        mend(run)
        assert not verify(run).damage
        for name, left in frames(run).items():
            whole = clean[name].filter(pl.col("seq").is_in(left["seq"].to_list()))
            assert left.equals(whole, null_equal=True), name
        lost = sum(map(len, clean.values())) - sum(map(len, frames(run).values()))
        assert lost == 0 or open_run(run).lost_rows <= lost


@pytest.mark.parametrize("name", ["killed", "harmed"])
def test_stopped_at_any_step_and_run_again_it_comes_to_the_same(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    given: Path = request.getfixturevalue(name)
    whole = copied(given, tmp_path / "whole")
    repair(whole)
    wanted, seen = files(whole), frames(given, skip_broken=True)["updates"]
    step = 1
    while stopped_at(step, partial(repair, run := copied(given, tmp_path / "run"))):
        assert frames(run, skip_broken=True)["updates"].equals(seen, null_equal=True), step
        if name == "killed":
            assert same(frames(run), frames(given)), step
        repair(run)
        assert files(run) == wanted, step
        step += 1
    assert step > 30


@pytest.mark.skipif(not strace_works(), reason="strace is not installed, or may not trace here")
@pytest.mark.parametrize("call", SYSTEM_CALLS)
def test_killed_at_any_system_call_and_run_again_it_comes_to_the_same(call: str, harmed: Path, tmp_path: Path) -> None:
    whole = copied(harmed, tmp_path / "whole")
    repair(whole)
    wanted, seen = files(whole), frames(harmed, skip_broken=True)["updates"]
    number = 1
    while killed_by_strace(call, number, OWN, run := copied(harmed, tmp_path / "run")):
        assert frames(run, skip_broken=True)["updates"].equals(seen, null_equal=True), number
        with exclusive(run):
            repair(run)
        assert files(run) == wanted, number
        number += 1
    assert files(run) == wanted
    assert number > 1


@pytest.mark.parametrize(
    "facts",
    [
        {"what": "repair", "puts": [], "moves": [["../../run.json", "set-aside/x"]], "removes": []},
        {"what": "repair", "puts": [[".staged-x", "../../run.json"]], "moves": [], "removes": []},
        {"what": "repair", "puts": [], "moves": [], "removes": ["../../run.json"]},
        {"what": "repair", "puts": [], "moves": [["manifest.jsonl", "set-aside/../../../../x"]], "removes": []},
    ],
)
def test_a_journal_of_a_stranger_reaches_nothing_outside(
    facts: dict[str, object], killed: Path, tmp_path: Path
) -> None:
    run = copied(killed, tmp_path / "run")
    journal = folder(run) / ".journal.json"
    journal.write_text(json.dumps(facts | {"crc": zlib.crc32(json.dumps(facts).encode())}))
    before = (run / "run.json").read_bytes()
    assert mend(run)[0] == "set aside"
    assert (run / "run.json").read_bytes() == before
    assert not journal.exists()
    assert same(frames(run), frames(killed))


def test_a_folder_that_is_a_link_is_not_followed(harmed: Path, tmp_path: Path) -> None:
    run = copied(harmed, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (folder(run) / "set-aside").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedError, match="is a symbolic link"):
        repair(run)
    assert not list((tmp_path / "elsewhere").iterdir())
