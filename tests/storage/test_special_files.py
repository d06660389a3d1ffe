"""What stands under the name of a run's file and is none: refused by what it is, never waited for, read or followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from esper_analyze.errors import DamagedError
from esper_analyze.runs.run import open_run
from esper_analyze.storage.maintenance.exclusive import exclusive
from esper_analyze.storage.maintenance.repair import repair
from esper_analyze.storage.run_files import RefusedFileError, open_file, read_file
from recorder.store.resume import ResumeError, earlier_attempts
from tests.faults.special import FILES, KINDS, asked, faults, harmed_run

QUICK = ("ls", "replay", "watch", "verify", "backtest", "repair", "compact")


@pytest.mark.parametrize(("name", "kind"), [*((name, "FIFO") for name in FILES), (".wal-000099", "link to /dev/zero")])
def test_commands_say_what_it_is_at_once(name: str, kind: str, tmp_path: Path) -> None:
    harmed = harmed_run(tmp_path, name, kind)
    for command, done in asked(harmed, QUICK):
        assert [*faults(command, done, name, KINDS[kind][1])] == [], command


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_opened(kind: str, tmp_path: Path) -> None:
    make, words = KINDS[kind]
    (tmp_path / "file.elsewhere").write_bytes(b"elsewhere")
    make(tmp_path / "file")
    for read in (lambda path: read_file(path, 100), open_file):
        with pytest.raises(RefusedFileError) as refused:
            read(tmp_path / "file")
        assert str(refused.value) == f"{tmp_path / 'file'} {words}"


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_file(tmp_path / "file", 5) == b"12345"
    with pytest.raises(RefusedFileError, match="has 5 bytes, 4 are the most"):
        read_file(tmp_path / "file", 4)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RefusedFileError, match="has 1,099,511,627,776 bytes"):
        read_file(tmp_path / "sparse", 4)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nothing", 4)


def test_a_link_that_is_called_lock_is_not_written_through(tmp_path: Path) -> None:
    run = harmed_run(tmp_path, "labels.toml", "FIFO")
    precious = tmp_path / "precious"
    precious.write_text("somebody's")
    lock = run / "rank00000" / ".lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to(precious)
    with pytest.raises(DamagedError, match="is a symbolic link, not a regular file"), exclusive(run):
        pass
    assert precious.read_text() == "somebody's"


@pytest.mark.parametrize("name", ["manifest.jsonl", ".wal-000099"])
def test_a_resume_refuses_it(name: str, tmp_path: Path) -> None:
    run = harmed_run(tmp_path, name, "FIFO")
    with pytest.raises(ResumeError, match=f"{name} is a FIFO, not a regular file: move it away"):
        earlier_attempts(run, 0)


@pytest.mark.parametrize("name", ["manifest.jsonl", "closed.json", ".wal-000099", "updates-000001.parquet"])
@pytest.mark.parametrize("kind", ["FIFO", "directory", "link to /dev/zero"])
def test_repair_moves_it_aside(name: str, kind: str, tmp_path: Path) -> None:
    run = harmed_run(tmp_path, name, kind)
    repair(run)
    (aside,) = run.glob("rank*/attempt-*/set-aside")
    assert [one for one in aside.iterdir() if one.name.startswith(name.removeprefix(".").split(".")[0])]
    assert open_run(run).broken == []
    assert repair(run) == []


def test_a_run_is_reached_through_a_link(tmp_path: Path) -> None:
    run = harmed_run(tmp_path, "labels.toml", "FIFO")
    (tmp_path / "link").symlink_to(run)
    assert open_run(tmp_path / "link").rows == open_run(run).rows


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["run.json", "manifest.jsonl", "closed.json", "updates-000001.parquet"])
def test_a_file_that_may_not_be_read_is_named(name: str, tmp_path: Path) -> None:
    run = harmed_run(tmp_path, "labels.toml", "FIFO")
    (path,) = run.rglob(name)
    path.chmod(0)
    with pytest.raises(DamagedError, match=rf"{name} cannot be read \(Permission denied\)"):
        open_run(run)
