"""A command that is told to end removes what is temporary, says nothing and exits with 128 and the signal."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from esper_analyze.sql.temporary import Spill, sweep
from tests.faults.signals import DEAF, SPILLS, WRITERS, ended_query, ended_writer, killed_query
from tests.patience import PATIENCE


@pytest.mark.parametrize("query", [SPILLS, DEAF], ids=["spilling", "deaf"])
def test_a_query_leaves_no_spill(query: str, tmp_path: Path) -> None:
    assert [*ended_query(tmp_path, query, signal.SIGTERM)] == []


def test_the_spill_of_a_hang_up_is_removed(tmp_path: Path) -> None:
    assert [*ended_query(tmp_path, SPILLS, signal.SIGHUP)] == []


def test_the_next_query_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    assert [*killed_query(tmp_path)] == []


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_hidden_stays_beside_a_result(name: str, tmp_path: Path) -> None:
    assert [*ended_writer(tmp_path / "here", name, signal.SIGTERM)] == []


def test_only_directories_of_dead_processes_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "esper-analyze-sql-abcd_123").mkdir()
    (tmp_path / "esper-analyze-sql-abcd_123" / "spill").write_bytes(b"left")
    of_diagnose = Path(tempfile.mkdtemp(prefix="esper-analyze-", dir=tmp_path))
    others = [tmp_path / "esper-analyze-sql-mine", tmp_path / "esper-analyze-sql-abcd_1234", of_diagnose]
    for one in others:
        one.mkdir(exist_ok=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "esper-analyze-sql-abcd_999").symlink_to(tmp_path / "elsewhere")
    spill = Spill()
    sweep(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {spill.path.name, "elsewhere", "esper-analyze-sql-abcd_999", *(one.name for one in others)}
    spill.remove()
    assert not spill.path.exists()


BUSY = """
import hashlib, os, signal, threading
from esper_analyze.shutdown import end_cleanly
from esper_analyze.sql.limits import Watch
from esper_analyze.sql.session import _interruptible

class Deaf:
    def interrupt(self):
        pass

signal.signal(signal.{name}, signal.SIG_DFL)  # a shell may have had it ignored
end_cleanly()
with _interruptible(Deaf(), Watch(1e9, 1 << 62, baseline=0)):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.{name})).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # releases the interpreter, and lets no handler run
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_query_that_does_not_hear_a_signal_is_ended_with_its_exit_code(number: signal.Signals) -> None:
    done = subprocess.run([sys.executable, "-c", BUSY.format(name=number.name)], timeout=PATIENCE, check=False)
    assert done.returncode == 128 + number
