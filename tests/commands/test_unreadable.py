"""Folders that may not be entered, a deleted current directory, closed standard streams: told in one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

RUNS = Path(__file__).parents[2] / "sample_runs" / "runs"
ROOT = RUNS.parents[1]
DROP = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""What takes from root the right to read everything; it is needed only where the tests run as root."""
ALONE = os.geteuid() == 0 and shutil.which("setpriv") is None


def process(*words: object, cwd: Path = ROOT, shell: str = "") -> subprocess.CompletedProcess[str]:
    line = [*(DROP if os.geteuid() == 0 and not shell else ()), sys.executable, "-m", "esper_analyze.cli"]
    line += [str(word) for word in words]
    if shell:
        line = ["sh", "-c", f'"$@" {shell}', "sh", *line]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """Two runs, one of them in a folder that may not be entered."""
    shutil.copytree(RUNS / "nan_reward", tmp_path / "runs" / "good")
    shutil.copytree(RUNS / "nan_reward", tmp_path / "runs" / "locked" / "other")
    (tmp_path / "runs" / "locked").chmod(0)
    yield tmp_path / "runs"
    (tmp_path / "runs" / "locked").chmod(0o755)


@pytest.mark.skipif(ALONE, reason="root may enter everything, and setpriv is not there")
def test_a_locked_folder_is_named_and_hides_no_run(locked: Path) -> None:
    said = process("ls", locked)
    assert said.returncode == 3
    assert "good" in said.stdout
    assert "locked" in said.stdout
    assert "cannot be read (Permission denied)" in said.stderr
    checked = process("verify", locked)
    assert checked.returncode == 3
    assert "good: fine" in checked.stdout
    assert "locked cannot be read (Permission denied)" in checked.stderr
    asked = process("sql", locked, "select count(*) n from updates", "--csv", "--skip-broken")
    assert (asked.returncode, asked.stdout) == (0, "n\n26\n")
    assert "left out: " in asked.stderr
    for words in (("sql", locked, "select 1"), ("replay", locked / "locked" / "other")):
        refused = process(*words)
        assert refused.returncode == 3, refused.stderr
        assert "cannot be read (Permission denied)" in refused.stderr
        assert refused.stderr.count("\n") == 1


@pytest.mark.skipif(ALONE, reason="root may enter everything, and setpriv is not there")
@pytest.mark.parametrize("level", [1, 2], ids=["rank", "attempt"])
def test_a_locked_folder_of_a_run_is_damage(level: int, tmp_path: Path) -> None:
    run = Path(shutil.copytree(RUNS / "nan_reward", tmp_path / "run"))
    folder = next(run.glob("/".join(["rank*", "attempt*"][:level])))
    folder.chmod(0)
    try:
        for words in (("ls", run), ("verify", run), ("replay", run), ("watch", run, "--once")):
            said = process(*words)
            assert said.returncode == 3, (words, said.stderr)
            assert f"{folder.name} cannot be read (Permission denied)" in said.stdout + said.stderr, words
            assert "internal" not in said.stdout + said.stderr
    finally:
        folder.chmod(0o755)


def test_a_deleted_current_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    said = process("report", RUNS / "nan_reward", cwd=tmp_path / "gone", shell="--out page < /dev/null")
    assert said.returncode == 0
    (tmp_path / "gone2").mkdir()
    script = f'cd {tmp_path}/gone2 && rmdir ../gone2 && exec "$@"'
    line = ["sh", "-c", script, "sh", sys.executable, "-m", "esper_analyze.cli", "report", str(RUNS / "nan_reward")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the current directory was deleted" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed: str, tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    said = process("sql", RUNS / "nan_reward", "select count(*) n from updates", "--out", out, shell=closed)
    assert (said.returncode, said.stderr) == (0, "")
    assert out.read_text() == "n\n26\n"
    assert process("heads", RUNS / "nan_reward", shell=closed).returncode == 0
    assert process("ls", tmp_path / "nothing", shell=closed).returncode == 2
