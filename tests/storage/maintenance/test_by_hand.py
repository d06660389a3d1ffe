"""Runs of a few rows, written by hand, verified, repaired and compacted: what is said, and what becomes of them."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.runs.run import open_run
from esper_analyze.storage import attempts, footer
from esper_analyze.storage.layout import ShardEntry, manifest_entries
from esper_analyze.storage.maintenance.compact import Compacted, compact
from esper_analyze.storage.maintenance.exclusive import exclusive
from esper_analyze.storage.maintenance.repair import repair
from esper_analyze.storage.maintenance.verify import orphans, runs_at, shard_count, verify
from tests.storage.handmade import HandmadeAttempt, heads, identify, updates

STRAY = "is not a file of a recorded run; readers ignore it"


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 5.0)
    monkeypatch.setattr(attempts, "probe", lambda _: None)  # footers that end a process have tests of their own
    monkeypatch.setattr(footer, "crashes_reader", lambda _: False)


def written(path: Path, *, close: bool = True, **options: Any) -> HandmadeAttempt:
    writer = HandmadeAttempt(identify(path), **options)
    writer.seal(updates=updates(0, 1), heads=heads(0, "a", "b"))
    writer.seal(updates=updates(2), heads=heads(2, "a"))
    if close:
        writer.close()
    return writer


def said(path: Path) -> list[tuple[str, str, str, str | None, int | None]]:
    where = f"rank00000/{next(path.glob('rank00000/attempt-0000-*')).name}"
    return [(one.kind, one.file.replace(where, "W"), one.reason, one.table, one.rows) for one in verify(path).faults]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ── verify ───────────────────────────────────────────────────────────────────────────────────────


def test_what_is_said_of_a_sound_run(tmp_path: Path) -> None:
    writer = written(tmp_path / "run")
    steps: list[int] = []
    result = verify(tmp_path / "run", lambda: steps.append(1))
    files = [file for file in writer.folder.iterdir() if file.is_file()]
    assert (result.status, result.files, result.bytes) == (
        "closed, last complete update 2",
        len(files),
        sum(file.stat().st_size for file in files),
    )
    assert (result.rows, result.updates, result.lost_rows, result.faults, result.damage) == (6, 3, 0, [], [])
    assert len(steps) == shard_count(tmp_path / "run") == 4
    facts = result.as_dict()
    assert (facts["run"], facts["path"], facts["fine"], facts["rows"]) == (*[str(tmp_path / "run")] * 2, True, 6)


def test_the_status_says_how_it_ended(tmp_path: Path) -> None:
    writer = written(tmp_path / "run", close=False)
    assert verify(tmp_path / "run").status == "not closed, last complete update 2"
    writer.close("repaired")
    assert verify(tmp_path / "run").status == "repaired, last complete update 2"
    with locked(writer.folder):
        (writer.folder / ".lock").write_text("pid 1 on elsewhere\npid")
        assert verify(tmp_path / "run").status == "is being written by pid 1 on elsewhere"
    nothing = HandmadeAttempt(identify(tmp_path / "empty"))
    assert verify(tmp_path / "empty").status == "not closed, no complete update"
    assert (verify(tmp_path / "empty").updates, verify(tmp_path / "empty").rows) == (0, 0)
    nothing.close()
    assert verify(tmp_path / "empty").status == "closed, no complete update"


def test_a_run_without_or_with_a_broken_run_json_is_checked_all_the_same(tmp_path: Path) -> None:
    written(tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    words = "is missing, but there are rank folders next to it"
    assert said(tmp_path / "run") == [("damage", "run.json", words, None, None)]
    (tmp_path / "empty").mkdir()
    (fault,) = verify(tmp_path / "empty").faults
    assert (fault.kind, fault.file, fault.reason) == (
        "damage",
        "run.json",
        "is missing: nothing says what was recorded",
    )
    (tmp_path / "run" / "run.json").write_text("{")
    words = "cannot be read as a run's identity (JSONDecodeError)"
    assert said(tmp_path / "run") == [("damage", "run.json", words, None, None)]
    identify(tmp_path / "run", schema_version="9999.0")
    with pytest.raises(UsageError, match="was recorded with schema"):
        verify(tmp_path / "run")


def test_each_kind_of_fault_with_its_file_table_and_rows(tmp_path: Path) -> None:
    run = tmp_path / "run"
    writer = written(run)
    (writer.folder / "heads-000001.parquet").unlink()
    lost = ("damage", "W/heads-000001.parquet", "is missing, the manifest lists it", "heads", 2)
    gap = ("note", "W", "rows are in no sound shard and no log: numbers 2–3", None, 2)
    assert said(run) == [lost, gap]
    (writer.folder / "strange").write_text("")
    (writer.folder / ".manifest.jsonl.123.tmp").write_text("")
    (writer.folder / ".staged-x").write_text("")
    (writer.folder / "set-aside").mkdir()
    (writer.folder / "set-aside" / "a").write_text("")
    (writer.folder / ".journal.json").write_text("")
    (run / "notes.txt").write_text("")
    (run / "labels.toml").write_text("")
    (run / "rank00000" / "odd").write_text("")
    (run / "rank00000" / ".lock").write_text("")
    left = "left by an interrupted process; readers ignore it"
    assert said(run)[2:] == [
        ("note", "W/.journal.json", "a repair or compaction was interrupted: `repair` finishes it", None, None),
        ("note", "W/.manifest.jsonl.123.tmp", left, None, None),
        ("note", "W/.staged-x", left, None, None),
        ("note", "W/set-aside", "1 files that `repair` set aside", None, None),
        ("note", "W/strange", STRAY, None, None),
        ("note", "notes.txt", STRAY, None, None),
        ("note", "rank00000/odd", STRAY, None, None),
    ]
    with locked(writer.folder):
        assert left not in [reason for _, _, reason, *_ in said(run)], "a writer is at it"


def test_special_files_in_place_of_lock_and_journal_are_damage(tmp_path: Path) -> None:
    writer = written(tmp_path / "run")
    for name in (".lock", ".journal.json"):
        (writer.folder / name).mkdir()
    words = "is a directory, not a regular file"
    assert said(tmp_path / "run") == [
        ("damage", "W/.lock", words, None, None),
        ("damage", "W/.journal.json", words, None, None),
    ]


def test_torn_logs_unverified_shards_and_left_over_ones_are_notes(tmp_path: Path) -> None:
    writer = written(tmp_path / "run", close=False)
    log = writer.log(1, updates=updates(3))
    size = len(log.read_bytes())
    log.write_bytes(log.read_bytes() + b"\xf5")
    lines = [replace(entry, rebuilt=entry.number == 2) for entry in writer.entries]
    (writer.folder / "manifest.jsonl").write_bytes(b"".join(entry.as_line() for entry in lines))
    shutil.copy(writer.folder / "heads-000001.parquet", writer.folder / "heads-000007.parquet")
    torn = f"bytes {size}–{size + 1}: torn tail, ends within a frame: the writer was stopped there"
    unverified = "is unverified: its manifest line was derived from the shard itself"
    assert said(tmp_path / "run") == [
        ("note", "W/.wal-000001", torn, None, None),
        ("note", "W/updates-000002.parquet", unverified, "updates", 1),
        ("note", "W/heads-000002.parquet", unverified, "heads", 1),
        ("note", "W/heads-000007.parquet", "is listed by no manifest; the run is complete without it", None, None),
    ]


def test_cells_that_cannot_be_are_damage_in_a_shard_and_in_the_log(tmp_path: Path) -> None:
    writer = written(tmp_path / "run", close=False)
    writer.seal(updates=updates(3, status="odd"))
    writer.log(1, updates=updates(4, status="odd"))
    words = "column status has the value 'odd', not one of its choices"
    assert said(tmp_path / "run") == [
        ("damage", "W/updates-000003.parquet", words, "updates", 1),
        ("damage", "W", f"in the log: {words}", "updates", 1),
        ("note", "W", "rows are in no sound shard and no log: numbers 6–6", None, 1),
        ("note", "W", "update 3 has no row", "updates", 1),
    ]


def test_updates_between_two_attempts_are_missing_from_both(tmp_path: Path) -> None:
    run = identify(tmp_path / "run")
    for number, first in enumerate((0, 2, 7, 4, 12)):
        writer = HandmadeAttempt(run, number=number)
        writer.seal(updates=updates(first, first + 1))
        writer.close()
    HandmadeAttempt(run, number=5).close()
    faults = [(one.kind, one.reason, one.rows, one.attempt) for one in verify(run).faults]
    assert faults == [
        ("damage", "updates 4–6 lie between two attempts and are in neither", 3, 2),
        ("damage", "updates 9–11 lie between two attempts and are in neither", 3, 4),
    ]
    next(run.rglob("attempt-0001-*/updates-000001.parquet")).unlink()
    excused = [(one.kind, one.reason) for one in verify(run).faults if "between" in one.reason]
    assert excused == [
        ("note", "updates 2–6 lie between two attempts and are in neither"),
        ("note", "updates 9–11 lie between two attempts and are in neither"),
    ], "they may be in the broken file"


def test_ranks_that_recorded_nothing_are_noted(tmp_path: Path) -> None:
    written(tmp_path / "run")
    identify(tmp_path / "run", ranks=3)
    faults = [(one.kind, one.file, one.rank) for one in verify(tmp_path / "run").faults]
    assert faults == [("note", "rank00001", 1), ("note", "rank00002", 2)]
    identify(tmp_path / "run", ranks="many")
    assert verify(tmp_path / "run").faults == []
    identify(tmp_path / "empty", ranks=3)
    assert verify(tmp_path / "empty").faults == []


def test_of_two_attempts_of_one_number_the_second_is_damage(tmp_path: Path) -> None:
    writer = written(tmp_path / "run")
    shutil.copytree(writer.folder, writer.folder.with_name("attempt-0000-ffffffff"))
    damage = verify(tmp_path / "run").damage
    assert [(one.file, one.rank, one.attempt) for one in damage] == [("rank00000/attempt-0000-ffffffff", 0, 0)]
    assert damage[0].reason.startswith(f"is attempt 0 of rank 0, and so is {writer.folder.name}")


def test_runs_at_and_below_a_folder_even_without_run_json(tmp_path: Path) -> None:
    for name in ("a", "b", "c/d"):
        written(tmp_path / name)
    assert runs_at(tmp_path / "a") == [tmp_path / "a"]
    assert runs_at(tmp_path) == [tmp_path / name for name in ("a", "b", "c/d")]
    (tmp_path / "b" / "run.json").unlink()
    assert runs_at(tmp_path / "b") == [tmp_path / "b"]
    assert runs_at(tmp_path) == [tmp_path / name for name in ("a", "c/d", "b")]
    (tmp_path / "a" / "inner" / "rank00000").mkdir(parents=True)
    (tmp_path / "e" / "rank0000x").mkdir(parents=True)
    assert orphans(tmp_path, [tmp_path / "a", tmp_path / "c"]) == [tmp_path / "b"]
    assert orphans(tmp_path, []) == [tmp_path / name for name in ("a", "a/inner", "b", "c/d")]
    with pytest.raises(UsageError, match="is not a recorded run and contains none"):
        runs_at(tmp_path / "e")
    with pytest.raises(UsageError, match="is not a directory"):
        runs_at(tmp_path / "a" / "run.json")


# ── repair ───────────────────────────────────────────────────────────────────────────────────────


def acts(path: Path, *, dry: bool = False) -> list[tuple[str, str, str, str | None, int | None]]:
    with exclusive(path):
        return [(one.what, one.file, one.reason, one.table, one.rows) for one in repair(path, dry=dry)]


def names(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )


def manifest(writer: HandmadeAttempt) -> list[ShardEntry]:
    listed = manifest_entries((writer.folder / "manifest.jsonl").read_bytes())
    return [entry for _, entry in listed if isinstance(entry, ShardEntry)]


def marker(writer: HandmadeAttempt) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((writer.folder / "closed.json").read_text())
    return facts


def test_a_sound_run_is_left_alone(tmp_path: Path) -> None:
    writer = written(tmp_path / "run")
    before = names(writer.folder)
    assert acts(tmp_path / "run") == []
    assert names(writer.folder) == before


def test_rows_of_the_log_are_sealed_and_the_run_is_closed(tmp_path: Path) -> None:
    writer = written(tmp_path / "run", close=False)
    writer.log(1, updates=updates(3), heads=heads(3, "a", "b"))
    writer.log(2, updates=updates(4))
    (writer.folder / ".reserve").write_bytes(b"xxx")
    expected = [
        ("seal", "updates-000003.parquet", "complete rows of the log", "updates", 2),
        ("seal", "heads-000003.parquet", "complete rows of the log", "heads", 2),
        ("remove", ".wal-000001", "all its rows are in shards", None, None),
        ("remove", ".wal-000002", "all its rows are in shards", None, None),
        ("close", "closed.json", "no row is gone", None, 10),
    ]
    before = names(writer.folder)
    assert acts(tmp_path / "run", dry=True) == expected
    assert names(writer.folder) == before
    rows = open_run(tmp_path / "run").frame("updates")
    assert acts(tmp_path / "run") == expected
    assert names(writer.folder) == [
        "closed.json",
        *[f"heads-00000{n}.parquet" for n in (1, 2, 3)],
        "manifest.jsonl",
        *[f"updates-00000{n}.parquet" for n in (1, 2, 3)],
    ]
    assert marker(writer) == {
        "reason": "repaired",
        "closed_at": 5.0,
        "lost_rows": 0,
        "tables": {"updates": {"rows": 5, "last_update": 4}, "heads": {"rows": 5, "last_update": 3}},
        "before": None,
    }
    assert [entry.shard for entry in manifest(writer)][-2:] == ["updates-000003.parquet", "heads-000003.parquet"]
    assert not any(entry.rebuilt for entry in manifest(writer))
    assert open_run(tmp_path / "run").frame("updates").equals(rows)
    assert acts(tmp_path / "run") == []


def test_logged_rows_around_sealed_ones_become_a_shard_each(tmp_path: Path) -> None:
    """Numbers 0–1 and 4–5 are in the log only, 2–3 are in a shard as well."""
    writer = HandmadeAttempt(identify(tmp_path / "run"))
    writer.log(1, updates=updates(0, 1))
    logged = writer.seq
    writer.seal(updates=updates(2, 3))
    writer.seq = logged
    writer.log(1, updates=updates(2, 3))
    writer.log(1, updates=updates(4, 5))
    assert acts(tmp_path / "run")[:2] == [
        ("seal", "updates-000002.parquet", "complete rows of the log", "updates", 2),
        ("seal", "updates-000003.parquet", "complete rows of the log", "updates", 2),
    ]
    spans = [(entry.first_seq, entry.last_seq) for entry in manifest(writer)]
    assert spans == [(2, 3), (0, 1), (4, 5)]
    assert open_run(tmp_path / "run").frame("updates")["update"].to_list() == list(range(6))
    assert marker(writer)["lost_rows"] == 0


def test_a_broken_shard_is_set_aside_and_its_rows_are_counted_as_gone(tmp_path: Path) -> None:
    writer = written(tmp_path / "run", close=False)
    path = writer.folder / "heads-000001.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    content, old = path.read_bytes(), (writer.folder / "manifest.jsonl").read_bytes()
    words = f"has {len(content)} bytes, the manifest says {len(content) - 1}"
    assert acts(tmp_path / "run") == [
        ("set aside", path.name, words, "heads", None),
        ("close", "closed.json", "2 rows are gone", None, 4),
    ]
    assert (writer.folder / "set-aside" / path.name).read_bytes() == content
    assert (writer.folder / "set-aside" / "manifest.jsonl").read_bytes() == old
    note = json.loads((writer.folder / "set-aside" / "repair-1.json").read_text())
    assert (note["at"], [act["what"] for act in note["acts"]]) == (5.0, ["set aside", "close"])
    assert [entry.shard for entry in manifest(writer)] == [
        entry.shard for entry in writer.entries if entry.shard != path.name
    ]
    assert marker(writer)["lost_rows"] == 2
    assert acts(tmp_path / "run") == []


def test_files_set_aside_by_a_later_repair_get_a_number(tmp_path: Path) -> None:
    writer = written(tmp_path / "run", close=False)
    for number in (1, 2):
        path = writer.folder / f"heads-00000{number}.parquet"
        path.write_bytes(b"x" * number)
        acts(tmp_path / "run")
        assert marker(writer)["lost_rows"] == (2 if number == 1 else 3)
    assert names(writer.folder / "set-aside") == [
        "closed.json",
        "heads-000001.parquet",
        "heads-000002.parquet",
        "manifest-2.jsonl",
        "manifest.jsonl",
        "repair-1.json",
        "repair-2.json",
    ]
    assert marker(writer)["before"] is None
    (writer.folder / "updates-000002.parquet").write_bytes(b"")
    acts(tmp_path / "run")
    assert {"closed-2.json", "manifest-3.jsonl", "repair-3.json"} <= set(names(writer.folder / "set-aside"))


def test_a_shard_that_is_gone_is_given_up(tmp_path: Path) -> None:
    writer = written(tmp_path / "run")
    (writer.folder / "heads-000001.parquet").unlink()
    assert acts(tmp_path / "run") == [
        ("give up", "heads-000001.parquet", "is missing, the manifest lists it", "heads", 2),
        ("close", "closed.json", "2 rows are gone", None, 4),
    ]
    facts = marker(writer)
    assert (facts["lost_rows"], facts["before"], facts["reason"]) == (2, "closed", "repaired")
    assert names(writer.folder / "set-aside") == ["closed.json", "manifest.jsonl", "repair-1.json"]


def test_what_a_writer_counted_as_lost_adds_up_with_what_is_gone_since(tmp_path: Path) -> None:
    writer = written(tmp_path / "run", close=False)
    writer.close("ValueError: no", lost=40)
    (writer.folder / "heads-000001.parquet").unlink()
    assert acts(tmp_path / "run")[-1] == ("close", "closed.json", "42 rows are gone", None, 4)
    assert marker(writer)["before"] == "ValueError: no"
    (writer.folder / "heads-000002.parquet").unlink()
    assert acts(tmp_path / "run")[-1] == ("close", "closed.json", "43 rows are gone", None, 3)
    assert marker(writer)["before"] == "ValueError: no", "of the training, not of the repair"


@pytest.mark.parametrize("content", [None, b"", b"{}\n"])
def test_shards_that_no_manifest_lists_are_listed_again_as_unverified(tmp_path: Path, content: bytes | None) -> None:
    writer = written(tmp_path / "run", close=False)
    path = writer.folder / "manifest.jsonl"
    path.unlink() if content is None else path.write_bytes(content)
    done = acts(tmp_path / "run")
    assert [(what, file) for what, file, *_ in done] == [
        ("rebuild", "manifest.jsonl"),
        ("list again", "updates-000002.parquet"),
        ("list again", "updates-000001.parquet"),
        ("list again", "heads-000002.parquet"),
        ("list again", "heads-000001.parquet"),
        ("close", "closed.json"),
    ]
    assert done[1][2:] == (f"unverified: no manifest lists it in {writer.folder.name}", "updates", 1)
    rebuilt = sorted(manifest(writer), key=lambda entry: entry.shard)
    assert rebuilt == sorted((replace(entry, rebuilt=True) for entry in writer.entries), key=lambda entry: entry.shard)
    assert open_run(tmp_path / "run").rows["heads"] == 3
    assert marker(writer)["lost_rows"] == 0
    assert acts(tmp_path / "run") == []


def test_of_unlisted_shards_with_the_same_rows_the_newest_is_listed(tmp_path: Path) -> None:
    writer = HandmadeAttempt(identify(tmp_path / "run"))
    writer.seal(listed=False, heads=heads(0, "a", "b"))
    writer.seq = 1
    writer.seal(listed=False, heads=heads(0, "b", "c"))
    writer.seq = 3
    writer.seal(listed=False, heads=heads(0, "d"))
    done = {file: what for what, file, *_ in acts(tmp_path / "run")}
    assert done == {
        "manifest.jsonl": "rebuild",
        "heads-000003.parquet": "list again",
        "heads-000002.parquet": "list again",
        "heads-000001.parquet": "set aside",
        "closed.json": "close",
    }
    assert open_run(tmp_path / "run").frame("heads")["head"].to_list() == ["b", "c", "d"]


def test_a_left_over_shard_is_set_aside(tmp_path: Path) -> None:
    writer = written(tmp_path / "run")
    shutil.copy(writer.folder / "heads-000001.parquet", writer.folder / "heads-000009.parquet")
    words = "is listed by no manifest, and its rows are elsewhere"
    assert acts(tmp_path / "run") == [("set aside", "heads-000009.parquet", words, "heads", None)]
    assert names(writer.folder / "set-aside") == ["heads-000009.parquet", "repair-1.json"]
    assert marker(writer)["reason"] == "closed", "nothing of it has changed"


def test_a_broken_marker_is_written_anew_and_one_that_is_a_folder_moved(tmp_path: Path) -> None:
    writer = written(tmp_path / "run")
    (writer.folder / "closed.json").write_text("[]")
    assert acts(tmp_path / "run") == [
        ("rebuild", "closed.json", "is not a clean-close marker", None, None),
        ("close", "closed.json", "no row is gone", None, 6),
    ]
    assert (writer.folder / "set-aside" / "closed.json").read_text() == "[]"
    (writer.folder / "closed.json").unlink()
    (writer.folder / "closed.json").mkdir()
    acts(tmp_path / "run")
    assert (writer.folder / "set-aside" / "closed-2.json").is_dir()
    assert marker(writer)["tables"]["heads"] == {"rows": 3, "last_update": 2}


def test_a_log_that_is_unreadable_in_part_is_set_aside_and_its_rows_sealed(tmp_path: Path) -> None:
    writer = written(tmp_path / "run", close=False)
    log = writer.log(1, updates=updates(3))
    size = len(log.read_bytes())
    log.write_bytes(log.read_bytes() + b"\xf5")
    assert acts(tmp_path / "run") == [
        ("seal", "updates-000003.parquet", "complete rows of the log", "updates", 1),
        ("set aside", ".wal-000001", f"bytes {size}–{size + 1}: torn tail, ends within a frame", None, None),
        ("close", "closed.json", "no row is gone", None, 7),
    ]
    assert names(writer.folder / "set-aside") == ["repair-1.json", "wal-000001"]


def test_a_change_that_was_interrupted_is_finished_first(tmp_path: Path) -> None:
    from esper_analyze.storage.maintenance.journal import FolderChange

    writer = written(tmp_path / "run")
    change = FolderChange(writer.folder, "compact")
    change.moves.append(("heads-000002.parquet", "set-aside/x"))
    change.commit()
    finish = ("finish", ".journal.json", "an interrupted compact had been committed", None, None)
    assert acts(tmp_path / "run", dry=True) == [finish], "what comes after it is not known yet"
    assert (writer.folder / ".journal.json").exists()
    assert [what for what, *_ in acts(tmp_path / "run")] == ["finish", "give up", "close"]
    (writer.folder / ".staged-x").write_text("")
    assert acts(tmp_path / "run", dry=True) == []
    assert (writer.folder / ".staged-x").exists()
    acts(tmp_path / "run")
    assert not (writer.folder / ".staged-x").exists()


def test_a_journal_of_a_stranger_is_set_aside(tmp_path: Path) -> None:
    writer = written(tmp_path / "run")
    (writer.folder / ".journal.json").write_text("{}")
    expected = [("set aside", ".journal.json", "is not the journal of an interrupted change", None, None)]
    assert acts(tmp_path / "run", dry=True) == expected
    assert (writer.folder / ".journal.json").exists()
    assert acts(tmp_path / "run") == expected
    assert (writer.folder / "set-aside" / "journal.json").read_text() == "{}"


# ── compact ──────────────────────────────────────────────────────────────────────────────────────


def test_shards_of_a_table_become_one_with_the_same_rows(tmp_path: Path) -> None:
    writer = written(tmp_path / "run")
    before = {name: open_run(tmp_path / "run").frame(name) for name in ("updates", "heads")}
    sizes = [(writer.folder / entry.shard).stat().st_size for entry in writer.entries]
    result = compact(tmp_path / "run")
    entries = manifest(writer)
    assert [(entry.shard, entry.rows, entry.first_seq, entry.last_seq) for entry in entries] == [
        ("updates-000003.parquet", 3, 0, 4),
        ("heads-000003.parquet", 3, 2, 5),
    ]
    after = sum(entry.size for entry in entries)
    assert result == Compacted((4, 2), (sum(sizes), after), (6, 6))
    assert names(writer.folder) == ["closed.json", "heads-000003.parquet", "manifest.jsonl", "updates-000003.parquet"]
    for name, rows in before.items():
        assert open_run(tmp_path / "run").frame(name).equals(rows)
    assert verify(tmp_path / "run").faults == []
    assert compact(tmp_path / "run") == Compacted((2, 2), (after, after), (6, 6))


def test_groups_hold_at_most_so_many_cells_and_shards_sealed_together_stay_together(tmp_path: Path) -> None:
    from esper_analyze.schema.tables import BY_NAME

    writer = HandmadeAttempt(identify(tmp_path / "run"))
    for number in range(5):
        writer.seal(updates=updates(number), heads=heads(number, "a"))
    writer.close()
    both = len(BY_NAME["updates"].columns) + len(BY_NAME["heads"].columns)
    for cells, groups in ((2 * both - 1, [1] * 5), (2 * both, [2, 2, 1]), (3 * both, [3, 2]), (10**9, [5])):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        compact(tmp_path / "copy", cells=cells)
        found = open_run(tmp_path / "copy").attempts[0].shards
        assert [entry.rows for _, entry in found if entry.table == "heads"] == groups
        assert [entry.rows for _, entry in found if entry.table == "updates"] == groups
        assert open_run(tmp_path / "copy").frame("heads")["update"].to_list() == list(range(5))


def test_a_shard_that_was_unverified_makes_the_joined_one_so(tmp_path: Path) -> None:
    writer = written(tmp_path / "run")
    lines = [replace(entry, rebuilt=entry.shard == "heads-000001.parquet") for entry in writer.entries]
    (writer.folder / "manifest.jsonl").write_bytes(b"".join(entry.as_line() for entry in lines))
    compact(tmp_path / "run")
    assert [(entry.table, entry.rebuilt) for entry in manifest(writer)] == [("updates", False), ("heads", True)]


def test_only_a_whole_closed_run_is_compacted(tmp_path: Path) -> None:
    writer = written(tmp_path / "run", close=False)
    writer.log(1, updates=updates(3))
    with pytest.raises(DamagedError, match="was not closed: rows are in its log only"):
        compact(tmp_path / "run")
    acts(tmp_path / "run")
    (writer.folder / "heads-000001.parquet").unlink()
    with pytest.raises(DamagedError, match=r"heads-000001\.parquet: is missing, the manifest lists it"):
        compact(tmp_path / "run")
    whole = written(tmp_path / "twice")
    shutil.copytree(whole.folder, whole.folder.with_name("attempt-0000-ffffffff"))
    with pytest.raises(DamagedError, match="is attempt 0 of rank 0, and so is"):
        compact(tmp_path / "twice")
    torn = written(tmp_path / "torn")
    torn.log(1, updates=[])
    assert compact(tmp_path / "torn").shards == (4, 2), "an empty log holds no rows"


# ── alone ────────────────────────────────────────────────────────────────────────────────────────


def test_nobody_else_may_write_meanwhile(tmp_path: Path) -> None:
    writer = written(tmp_path / "run")
    with exclusive(tmp_path / "run"), pytest.raises(UsageError, match="rank00000 is being written by pid"):
        exclusive(tmp_path / "run").__enter__()
    with exclusive(tmp_path / "run"):
        pass
    with locked(writer.folder), pytest.raises(UsageError, match="is being written by an unknown process"):
        exclusive(tmp_path / "run").__enter__()
    (writer.folder / ".lock").unlink()
    (writer.folder / ".lock").mkdir()
    with pytest.raises(DamagedError, match=r"\.lock is a directory, not a regular file"):
        exclusive(tmp_path / "run").__enter__()
    (writer.folder / ".lock").rmdir()
    (tmp_path / "run" / "rank00000" / ".lock").unlink()
    (tmp_path / "run" / "rank00000" / ".lock").mkdir()
    with pytest.raises(DamagedError, match=r"rank00000/\.lock is a directory"):
        exclusive(tmp_path / "run").__enter__()
