"""Runs without identity, results that find no room, thresholds in an odd order: said in a sentence."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.commands.conftest import Command

RUNS = Path(__file__).parents[2] / "sample_runs" / "runs"
FULL = Path("/dev/full")


def test_a_run_without_identity_is_listed_and_is_damaged(tmp_path: Path, command: Command) -> None:
    shutil.copytree(RUNS / "nan_reward", tmp_path / "headless")
    (tmp_path / "headless" / "run.json").unlink()
    listed = command("ls", str(tmp_path), "--wide")
    assert listed.code == 3
    assert "headless" in listed.out
    assert "run.json is missing" in listed.out
    asked = command("report", str(tmp_path / "headless"))
    assert asked.code == 3
    assert "there are rank folders next to it" in asked.err


def test_a_run_that_cannot_be_checked_is_counted(tmp_path: Path, command: Command) -> None:
    for name in ("old", "new"):
        shutil.copytree(RUNS / "nan_reward", tmp_path / name)
    info = tmp_path / "new" / "run.json"
    info.write_text(info.read_text().replace('"schema_version": "1.', '"schema_version": "9.'))
    said = command("verify", str(tmp_path))
    assert said.code == 2
    assert "1 of 2 runs not checked" in said.err


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_result_that_finds_no_room_is_no_internal_error() -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "esper_analyze.cli", "ls", str(RUNS)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 70
    assert "cannot write the result: No space left on device" in done.stderr
    assert "internal" not in done.stderr


def test_a_warning_beyond_its_critical_is_said(command: Command) -> None:
    said = command("replay", str(RUNS / "masked_healthy"), "--set", "kl_spike.warning=0.9")
    assert said.code == 0
    assert "kl_spike.warning = 0.9 lies beyond kl_spike.critical = 0.5" in said.err
    low = command("replay", str(RUNS / "masked_healthy"), "--set", "entropy_collapse.warning=0.01")
    assert "entropy_collapse.warning = 0.01 lies beyond entropy_collapse.critical = 0.02" in low.err
    assert "beyond" not in command("replay", str(RUNS / "masked_healthy")).err


def test_a_run_with_nothing_to_join_is_left_as_it_is(tmp_path: Path, command: Command) -> None:
    shutil.copytree(RUNS / "nan_reward", tmp_path / "run")
    command("compact", str(tmp_path / "run"))
    assert "nothing to join" in command("compact", str(tmp_path / "run")).out


def test_the_version_is_told(command: Command) -> None:
    assert command("--version").out == f"esper-analyze {version('esper-analyze')}\n"
