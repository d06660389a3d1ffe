"""Processes that end in every way but a crash leave a closed run with every row in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from esper_analyze.runs.run import open_run
from recorder import Recorder
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

IN_A_THREAD = """
import threading
def work():
    update()
    {}
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
EXCEPTHOOK = """
def own(kind, error, trace):
    print("own hook:", kind.__name__, error, flush=True)
sys.excepthook = own
raise RuntimeError("no")
"""
PRESSED = "os.kill(os.getpid(), signal.SIGINT); time.sleep(5)"
CAUGHT = """
try:
    {}
except BaseException:
    pass
"""
FAILED_TEST = """
def runner(test):
    try:
        test()
    except Exception as error:
        sys.last_exc = sys.last_value = error
def test():
    raise RuntimeError("no")
def main():
    runner(test)
main()
"""

ENDINGS: dict[str, tuple[str, int, str]] = {
    "falls off its end": ("", 0, "exit"),
    "is left by sys.exit": ("sys.exit(3)", 3, "SystemExit: 3"),
    "is left by sys.exit with words": ("sys.exit('no')", 1, "SystemExit: no"),
    "is left by sys.exit without fault": ("sys.exit()", 0, "closed"),
    "meets an unhandled exception": ("raise RuntimeError('no')", 1, "RuntimeError: no"),
    "meets an unhandled exception in a function": ("def work():\n    1 / 0\nwork()", 1, "ZeroDivisionError: "),
    "has an excepthook of its own": (EXCEPTHOOK, 1, "RuntimeError: no"),
    "is stopped by Ctrl-C": (PRESSED, -signal.SIGINT, "KeyboardInterrupt: "),
    "gets SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)", -signal.SIGTERM, "SIGTERM"),
    "loses the thread that trains": (IN_A_THREAD.format("raise RuntimeError('no')"), 0, "RuntimeError: no"),
    "has a thread that ends well": (IN_A_THREAD.format(""), 0, "exit"),
    "goes on after the thread that trained": (
        IN_A_THREAD.format("raise RuntimeError('no')") + "\nupdate()",
        0,
        "exit",
    ),
    "loses a thread that records nothing": (
        IN_A_THREAD.format("raise RuntimeError('no')").replace("    update()\n", ""),
        0,
        "exit",
    ),
    "catches an exception": (CAUGHT.format("raise RuntimeError('no')"), 0, "exit"),
    "trains on after an exit that was caught": (CAUGHT.format("sys.exit(3)") + "update()", 0, "exit"),
    "runs tests that fail": (FAILED_TEST, 0, "exit"),
    "is a session that goes on after an exception": ("sys.ps1 = '>>> '\nraise RuntimeError('no')", 1, "exit"),
}


def run_process(script: str, run_dir: Path) -> int:
    code = PROLOGUE + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code, str(run_dir)],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    if "own hook" in script:
        assert done.stdout.decode() == "own hook: RuntimeError no\n"
        assert all(line.startswith((b"recorder: ", b"update ")) for line in done.stderr.splitlines()), done.stderr
    return done.returncode


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_the_run_is_closed_and_whole_and_says_why_when_the_process(tmp_path: Path, ending: str) -> None:
    script, code, reason = ENDINGS[ending]
    assert run_process(script, tmp_path / "run") == code
    run = open_run(tmp_path / "run")
    assert run.closed
    updates = run.frame("updates")["update"].to_list()
    assert updates[:3] == [0, 1, 2]
    marker = json.loads((run.attempts[0].folder / "closed.json").read_bytes())
    assert marker["reason"].startswith(reason) if reason.endswith(": ") else marker["reason"] == reason


def test_an_exception_between_two_updates_is_an_update_cut_short_and_an_end_on_purpose_is_none(tmp_path: Path) -> None:
    kept = "goes on after the thread that trained"
    for number, (ending, (script, _, reason)) in enumerate(sorted(ENDINGS.items())):
        if ending == kept:
            continue
        run_process(script, tmp_path / str(number))
        rows = open_run(tmp_path / str(number)).frame("updates").to_dicts()
        failed = "Error: " in reason
        cut_short = [row for row in rows if row["status"] == "interrupted"]
        assert len(cut_short) == failed, ending
        assert all(row["update"] > 2 and row["skip_reason"].startswith(reason) for row in cut_short), ending
    assert any("Error: " in reason for _, _, reason in ENDINGS.values())


def test_an_exception_before_the_first_update_makes_no_row(tmp_path: Path) -> None:
    def fails() -> None:
        with Recorder(tmp_path / "run"):
            raise ValueError("no environment")

    with pytest.raises(ValueError, match="no environment"):
        fails()
    run = open_run(tmp_path / "run")
    assert (run.rows.get("updates", 0), run.closed) == (0, True)


def test_an_exception_in_a_message_does_not_keep_the_run_open(tmp_path: Path) -> None:
    script = """
    class Odd(Exception):
        def __str__(self):
            raise ValueError("no message")
    raise Odd()
    """
    assert run_process(script, tmp_path / "run") == 1
    run = open_run(tmp_path / "run")
    assert json.loads((run.attempts[0].folder / "closed.json").read_bytes())["reason"].startswith("Odd: ")


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
    script = "rec._sink.store.flush(); update(); os.kill(os.getpid(), signal.SIGKILL)"
    assert run_process(script, tmp_path / "run") == -signal.SIGKILL
    run = open_run(tmp_path / "run")
    assert not run.closed
    assert run.last_update == 3
    assert os.listdir(run.attempts[0].folder)  # noqa: PTH208
