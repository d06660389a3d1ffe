"""Processes that end in every way but a crash leave a closed run with every row in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from esper_analyze.runs.run import open_run
from tests.patience import PATIENCE

pytestmark = pytest.mark.signals

PROLOGUE = """
import os, signal, sys, time
import torch
from recorder import Recorder
rec = Recorder(sys.argv[1], strict=True)
def update():
    rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), clip_range=0.2)
    rec.update()
for _ in range(3):
    update()
"""

ENDINGS = {
    "falls off its end": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "unhandled exception": ("raise RuntimeError('no')", 1),
    "keyboard interrupt": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(5)", -signal.SIGINT),
    "sigterm": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)", -signal.SIGTERM),
}


def run_process(script: str, run_dir: Path) -> int:
    code = PROLOGUE + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code, str(run_dir)], capture_output=True, timeout=PATIENCE, check=False
    )
    return done.returncode


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_the_run_is_closed_and_whole_when_the_process(tmp_path: Path, ending: str) -> None:
    script, code = ENDINGS[ending]
    assert run_process(script, tmp_path / "run") == code
    run = open_run(tmp_path / "run")
    assert run.closed
    assert run.frame("updates")["update"].to_list() == [0, 1, 2]


def test_sigterm_in_the_middle_keeps_the_update_in_progress_as_interrupted(tmp_path: Path) -> None:
    script = """
    rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), clip_range=0.2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    """
    assert run_process(script, tmp_path / "run") == -signal.SIGTERM
    rows = open_run(tmp_path / "run").frame("updates").to_dicts()
    assert [row["status"] for row in rows] == ["performed"] * 3 + ["interrupted"]
    assert rows[-1]["skip_reason"] == "SIGTERM"


def test_a_sigterm_handler_of_the_training_is_still_called(tmp_path: Path) -> None:
    code = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n" + PROLOGUE
    code += "os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)"
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    assert subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode == 7
    assert open_run(tmp_path / "run").closed


def test_a_killed_process_leaves_a_run_that_opens_and_says_it_is_not_closed(tmp_path: Path) -> None:
    script = "rec._store.flush(); update(); os.kill(os.getpid(), signal.SIGKILL)"
    assert run_process(script, tmp_path / "run") == -signal.SIGKILL
    run = open_run(tmp_path / "run")
    assert not run.closed
    assert run.last_update == 3
    assert os.listdir(run.attempts[0].folder)  # noqa: PTH208
