"""A change of a folder: nothing before it is committed, all of it after, and nothing outside of the run."""

from __future__ import annotations

import errno
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from esper_analyze.errors import DamagedError
from esper_analyze.storage.maintenance import journal as journal_module
from esper_analyze.storage.maintenance.journal import FolderChange, cannot_write, forget_staged, pending

SHARD, OTHER, LOG = "heads-000001.parquet", "heads-000002.parquet", ".wal-000001"


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def prepared(folder: Path) -> FolderChange:
    """Return a change that puts a shard in place, one of an old name aside, moves one aside and removes a log."""
    for name in (SHARD, OTHER, LOG, "manifest.jsonl"):
        (folder / name).write_text(f"old {name}")
    change = FolderChange(folder, "repair")
    change.stage("manifest.jsonl", b"new manifest")
    change.stage(f"set-aside/{SHARD}", b"a copy")
    change.moves.append((OTHER, f"set-aside/{OTHER}"))
    change.removes.append(LOG)
    return change


AFTER = ["heads-000001.parquet", "manifest.jsonl", f"set-aside/{SHARD}", f"set-aside/{OTHER}"]


def test_a_committed_change_is_carried_out(tmp_path: Path) -> None:
    change = prepared(tmp_path)
    assert (tmp_path / "manifest.jsonl").read_text() == "old manifest.jsonl"
    assert pending(tmp_path) is None
    change.commit()
    assert names(tmp_path) == sorted(
        [".journal.json", ".staged-manifest.jsonl", f".staged-set-aside-{SHARD}", SHARD, OTHER, LOG, "manifest.jsonl"]
    )
    read = pending(tmp_path)
    assert read == change
    change.apply()
    assert names(tmp_path) == sorted(AFTER)
    assert (tmp_path / "manifest.jsonl").read_bytes() == b"new manifest"
    assert (tmp_path / "set-aside" / SHARD).read_bytes() == b"a copy"
    assert (tmp_path / "set-aside" / OTHER).read_text() == f"old {OTHER}"
    assert pending(tmp_path) is None


@pytest.mark.parametrize("done", range(5))
def test_a_change_that_was_interrupted_is_finished_by_the_next(tmp_path: Path, done: int) -> None:
    change = prepared(tmp_path)
    change.commit()
    if done > 0:
        (tmp_path / "set-aside").mkdir()
    if done > 1:
        (tmp_path / ".staged-manifest.jsonl").replace(tmp_path / "manifest.jsonl")
    if done > 2:
        (tmp_path / OTHER).replace(tmp_path / "set-aside" / OTHER)
    if done > 3:
        (tmp_path / LOG).unlink()
    again = pending(tmp_path)
    assert again is not None
    again.apply()
    assert names(tmp_path) == sorted(AFTER)
    assert (tmp_path / "manifest.jsonl").read_bytes() == b"new manifest"


def test_what_fails_before_it_is_committed_leaves_nothing(tmp_path: Path) -> None:
    change = prepared(tmp_path)

    def failing(*, commit: bool) -> None:
        with change.prepared():
            change.stage("closed.json", b"{}")
            if commit:
                change.commit()
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        failing(commit=False)
    assert names(tmp_path) == sorted([SHARD, OTHER, LOG, "manifest.jsonl"])
    change = prepared(tmp_path)
    with pytest.raises(OSError, match="No space"):
        failing(commit=True)
    assert ".staged-closed.json" in names(tmp_path), "it will be carried out"
    assert pending(tmp_path) is not None


def test_a_change_without_files_to_set_aside_makes_no_folder_for_them(tmp_path: Path) -> None:
    change = FolderChange(tmp_path, "compact")
    change.stage(OTHER, b"joined")
    change.removes.append(SHARD)
    change.commit()
    change.apply()
    assert names(tmp_path) == [OTHER]
    assert not (tmp_path / "set-aside").exists()


def test_a_folder_for_files_set_aside_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    change = prepared(tmp_path / "run")
    (tmp_path / "run" / "set-aside").symlink_to(tmp_path / "elsewhere")
    change.commit()
    with pytest.raises(DamagedError, match="set-aside is a symbolic link"):
        change.apply()
    assert names(tmp_path / "elsewhere") == []


GOOD: dict[str, Any] = {
    "what": "repair",
    "puts": [[".staged-x", "manifest.jsonl"], [".staged-y", f"set-aside/{SHARD}"]],
    "moves": [[SHARD, "set-aside/a.parquet"], [LOG, "set-aside/wal"]],
    "removes": [".reserve", OTHER, "closed.json"],
}


def journal(folder: Path, facts: Any, crc: int | None = None) -> None:
    sum_ = zlib.crc32(json.dumps(facts).encode()) if crc is None else crc
    (folder / ".journal.json").write_text(json.dumps({**facts, "crc": sum_}))


def test_a_journal_is_read_back(tmp_path: Path) -> None:
    journal(tmp_path, GOOD)
    change = pending(tmp_path)
    assert change is not None
    assert (change.folder, change.what) == (tmp_path, "repair")
    assert change.puts == [(".staged-x", "manifest.jsonl"), (".staged-y", f"set-aside/{SHARD}")]
    assert change.moves == [(SHARD, "set-aside/a.parquet"), (LOG, "set-aside/wal")]
    assert change.removes == [".reserve", OTHER, "closed.json"]


@pytest.mark.parametrize(
    "changed",
    [
        {"puts": [["manifest.jsonl", SHARD]]},
        {"puts": [[".staged-../x", SHARD]]},
        {"puts": [[".staged-x", "../x"]]},
        {"puts": [[".staged-x", "set-aside/../x"]]},
        {"puts": [[".staged-x", "set-aside/"]]},
        {"puts": [[".staged-x", "other"]]},
        {"moves": [["../x", "set-aside/x"]]},
        {"moves": [[SHARD, OTHER]]},
        {"moves": [[".staged-x", "set-aside/x"]]},
        {"moves": [[SHARD, "set-aside/" + "x" * 121]]},
        {"removes": ["../x"]},
        {"removes": [".lock"]},
        {"removes": ["run.json"]},
    ],
)
def test_a_journal_that_names_what_no_change_touches_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    journal(tmp_path, GOOD | changed)
    with pytest.raises(DamagedError, match="is not the journal of an interrupted change"):
        pending(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"crc": 1}', "3"])
def test_a_journal_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / ".journal.json").write_text(content)
    with pytest.raises(DamagedError, match="is not the journal of an interrupted change") as caught:
        pending(tmp_path)
    assert caught.value.hint == "move it away and repair again"


def test_a_journal_with_a_wrong_sum_or_that_is_no_file_is_refused(tmp_path: Path) -> None:
    journal(tmp_path, GOOD, crc=7)
    with pytest.raises(DamagedError, match="is not the journal"):
        pending(tmp_path)
    (tmp_path / ".journal.json").unlink()
    (tmp_path / ".journal.json").mkdir()
    with pytest.raises(DamagedError) as caught:
        pending(tmp_path)
    assert caught.value.message == f"{tmp_path / '.journal.json'} is a directory, not a regular file"


def test_only_staged_files_are_forgotten(tmp_path: Path) -> None:
    for name in (".staged-a", ".staged-", "staged-a", SHARD):
        (tmp_path / name).write_text("")
    forget_staged(tmp_path)
    assert names(tmp_path) == sorted([SHARD, "staged-a"])


def test_a_failed_write_in_words() -> None:
    error = cannot_write(OSError(errno.ENOSPC, "No space left on device", "x/y"))
    assert error.message == "cannot write x/y (No space left on device)"
    assert cannot_write(OSError(errno.EIO, "Input/output error")).message == "cannot write the run (Input/output error)"


def test_each_step_is_durable_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names as they were at each sync of a folder: new files, then removals, then the end of the journal."""
    change, seen = prepared(tmp_path), list[tuple[Path, bool, bool, bool]]()

    def spy(folder: Path) -> None:
        there = [(tmp_path / name).exists() for name in (".staged-manifest.jsonl", LOG, ".journal.json")]
        seen.append((folder, there[0], there[1], there[2]))

    monkeypatch.setattr(journal_module, "sync_folder", spy)
    change.commit()
    assert seen == [(tmp_path, True, True, False), (tmp_path, True, True, True)]
    seen.clear()
    change.apply()
    assert seen == [
        (tmp_path, False, True, True),
        (tmp_path / "set-aside", False, True, True),
        (tmp_path, False, False, True),
        (tmp_path, False, False, False),
    ]
