"""Trainings that end in every way, watched from outside: what their folders say, and that nothing is left behind."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esper_analyze.runs.ending import end_of_run
from esper_analyze.runs.run import open_run
from esper_analyze.storage.attempt_end import End
from esper_analyze.storage.maintenance.verify import verify
from recorder.sentinel import launch
from tests.patience import PATIENCE

pytestmark = pytest.mark.signals
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Return the folder of all trainings, and the exit codes, once every sentinel has ended."""
    root = tmp_path_factory.mktemp("nursery")
    command = [sys.executable, "-m", "tests.recorder.sentinel.nursery", str(root)]
    environment = os.environ | {"PYTHONFAULTHANDLER": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=4 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr.decode()
    sentinels = [int(path.read_text()) for path in root.glob("*/sentinel")]
    sentinels += json.loads((root / "cycles.json").read_text())["sentinels"]
    wait_until(lambda: not any(map(alive, sentinels)))
    return root, json.loads(done.stdout.splitlines()[-1])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def folder_of(root: Path, name: str) -> Path:
    (folder,) = (root / name / "run").glob("rank*/attempt*")
    return folder


ENDED: dict[str, tuple[int, End, str]] = {
    "clean": (0, End.CLOSED, "closed"),
    "exit code": (3, End.DIED, "died: exit code 3 after update 2"),
    "exception": (1, End.DIED, "died: RuntimeError in update 3"),
    "sigterm": (-15, End.PREEMPTED, "stopped by SIGTERM after update 2"),
    "sigint": (1, End.STOPPED, "stopped by Ctrl-C after update 2"),
    "sigkill": (-9, End.UNCLOSED, "killed"),
    "sighup": (-1, End.UNCLOSED, "killed"),
    "os._exit": (3, End.DIED, "died: exit code 3 after update 2"),
    "abort": (-6, End.FATAL_SIGNAL, "SIGABRT after update 2"),
    "segfault": (-11, End.FATAL_SIGNAL, "SIGSEGV after update 2"),
    "sentinel killed, segfault": (-11, End.FATAL_SIGNAL, "SIGSEGV after update 2"),
    "both killed": (-9, End.UNCLOSED, "not closed, last complete update 2"),
    "sentinel terminated": (-9, End.UNCLOSED, "killed"),
    "segfault of a worker": (-9, End.UNCLOSED, "killed"),
    "closed descriptors": (-9, End.UNCLOSED, "killed"),
    "worker": (-9, End.UNCLOSED, "killed"),
    "faulthandler of the training": (-11, End.FATAL_SIGNAL, "SIGSEGV after update 2"),
}
UNKNOWN = "the kernel tells no exit status of a process that was reaped"


@pytest.mark.parametrize("name", sorted(ENDED))
def test_the_run_says_how_its_training_ended_by(nursery: tuple[Path, dict[str, int]], name: str) -> None:
    (root, codes), (code, end, words) = nursery, ENDED[name]
    assert codes[name] == code or (name == "sigint" and codes[name] in (-2, 130))
    ended = end_of_run(open_run(root / name / "run"))
    noted = ended_facts(root, name)
    if noted is not None and noted["signal"] is None and noted["exit_code"] is None and name != "clean":
        assert noted["kind"] == "killed"
        pytest.skip(UNKNOWN)
    assert ended.end is end
    assert ended.status.startswith(words)
    assert not verify(root / name / "run").damage


def ended_facts(root: Path, name: str) -> dict[str, Any] | None:
    path = folder_of(root, name) / "ended.json"
    facts: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return facts


@pytest.mark.parametrize("name", ["clean", "exit code", "exception", "sigterm", "sigint"])
def test_a_recording_that_was_closed_has_no_more_files_than_before(
    nursery: tuple[Path, dict[str, int]], name: str
) -> None:
    names = {path.name for path in folder_of(nursery[0], name).iterdir()}
    assert not names & {"ended.json", "stalled.json", "fatal_signal.txt", ".reserve"}


@pytest.mark.parametrize("name", ["abort", "segfault", "sentinel killed, segfault"])
def test_the_traceback_of_a_fatal_signal_is_kept_the_guilty_thread_first(
    nursery: tuple[Path, dict[str, int]], name: str
) -> None:
    lines = end_of_run(open_run(nursery[0] / name / "run")).traceback.splitlines()
    assert lines[0].startswith("Fatal Python error: ")
    assert lines[2].startswith("Current thread ")
    assert any("in train" in line for line in lines[3:8])


@pytest.mark.parametrize("name", ["sigkill", "segfault of a worker", "closed descriptors", "worker"])
def test_what_is_known_of_a_killed_training_is_noted(nursery: tuple[Path, dict[str, int]], name: str) -> None:
    facts = ended_facts(nursery[0], name)
    assert facts is not None
    assert facts["kind"] == "killed"
    assert facts["signal"] in ("SIGKILL", None)
    assert facts["at"] - facts["began"] == pytest.approx(facts["uptime_s"])
    assert facts["peak_rss_bytes"] > 50e6
    assert facts["host"] == os.uname().nodename
    assert not (folder_of(nursery[0], name) / "fatal_signal.txt").exists(), "empty ones are removed"


def test_faulthandler_of_the_training_is_left_as_it_is(nursery: tuple[Path, dict[str, int]]) -> None:
    root, _ = nursery
    facts = ended_facts(root, "faulthandler of the training")
    assert facts is not None
    assert facts["traceback"] == "elsewhere"
    meanwhile = json.loads((root / "meanwhile.json").read_text())
    assert meanwhile == {"enabled": True, "function": "faulthandler"}


def test_nothing_grows_with_the_number_of_recordings(nursery: tuple[Path, dict[str, int]]) -> None:
    counted = json.loads((nursery[0] / "cycles.json").read_text())
    assert len(set(counted["sentinels"])) == len(counted["sentinels"])
    assert counted["after"] == counted["before"]
    assert not counted["after"]["faulthandler"]


def test_a_training_that_ran_out_of_memory_says_so(nursery: tuple[Path, dict[str, int]]) -> None:
    root, codes = nursery
    if codes["out of memory"] == 77:
        pytest.skip("no cgroup can be made here")
    assert codes["out of memory"] == -9
    ended = end_of_run(open_run(root / "out of memory" / "run"))
    assert (ended.end, ended.state) == (End.OUT_OF_MEMORY, "out of memory")
    for mount in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup"):
        for folder in Path(mount).glob("recorder-test-*"):
            folder.rmdir()


def test_where_no_process_can_be_started_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    caplog.set_level("DEBUG", "recorder")
    monkeypatch.setattr(launch, "START_AFTER", 0.0)
    monkeypatch.setattr(subprocess, "Popen", refused)
    watch = launch.DeathWatch(tmp_path, os.getpid())
    for _ in range(2):
        watch.start_if_due()
    wait_until(lambda: bool(caplog.messages))
    watch.close()
    assert caplog.messages == [f"recorder: no sentinel for {tmp_path} ([Errno 11] Resource temporarily unavailable)"]


def test_a_recording_that_is_closed_at_once_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "start_sentinel", lambda _: pytest.fail("started"))
    watch = launch.DeathWatch(tmp_path, os.getpid())
    watch.start_if_due()
    watch.close()
    monkeypatch.setattr(launch, "START_AFTER", 0.0)
    watch.start_if_due()


def test_the_sentinel_imports_the_standard_library_only() -> None:
    box = ROOT / "recorder" / "sentinel"
    modules, waiting = set[str](), ["watch"]
    while waiting:
        tree = ast.parse((box / f"{waiting.pop()}.py").read_text())
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            waiting += [name.rpartition(".")[2] for name in names if name.startswith("recorder.sentinel.")]
            modules |= {name.partition(".")[0] for name in names if not name.startswith("recorder.sentinel.")}
    assert modules <= {*sys.stdlib_module_names}
    assert not modules & {"pathlib", "dataclasses", "typing"} - {"typing"}, "they take megabytes"
