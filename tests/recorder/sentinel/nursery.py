"""A process that has imported the recorder once and forks a training for every way to end; run by test_sentinel.py.

Prints one JSON object: by ending, the exit status of the training, its process id and that of its sentinel.
"""

from __future__ import annotations

import ctypes  # used by endings
import faulthandler
import json
import multiprocessing
import os
import signal  # used by endings
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from recorder import Recorder
from recorder.sentinel import launch
from tests.recorder.inline import store_of

launch.START_AFTER = 0.0
CYCLES = 50
RECORDERS: list[Recorder] = []
"""Referred to until the exit: one that nothing refers to any more cannot be closed there."""
MEMORY = 900 << 20
"""Bytes that the training in a cgroup of its own may take."""
CGROUPS = (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"))

ENDINGS = {
    "clean": "rec.close()",
    "exit code": "sys.exit(3)",
    "exception": "raise RuntimeError('no')",
    "sigterm": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
    "sigint": "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)",
    "sigkill": "os.kill(os.getpid(), signal.SIGKILL)",
    "sighup": "signal.signal(signal.SIGHUP, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGHUP); time.sleep(60)",
    "os._exit": "os._exit(3)",
    "abort": "os.abort()",
    "segfault": "ctypes.string_at(0)",
    "sentinel killed, segfault": "kill_sentinel(); ctypes.string_at(0)",
    "both killed": "kill_sentinel(); os.kill(os.getpid(), signal.SIGKILL)",
    "sentinel terminated": "os.kill(sentinel, signal.SIGTERM); os.kill(os.getpid(), signal.SIGKILL)",
    "segfault of a worker": "fork_segfault(); os.kill(os.getpid(), signal.SIGKILL)",
    "out of memory": "ballast = bytearray(2 * MEMORY)",
}
BEFORE = {
    "closed descriptors": "[os.close(number) for number in (0, 1, 2)]",
    "faulthandler of the training": "faulthandler.enable()",
    "out of memory": "limit_memory()",
}
ENDINGS |= {"closed descriptors": ENDINGS["sigkill"], "faulthandler of the training": ENDINGS["segfault"]}


def recorded(run_dir: Path) -> tuple[Recorder, int]:
    """Return a recorder with three updates, and the process id of its sentinel once it watches."""
    rec = Recorder(run_dir, strict=True, quiet=True)
    RECORDERS.append(rec)
    for _ in range(3):
        rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), clip_range=0.2)
        rec.update()
    watch = store_of(rec)._death_watch
    watch.start_if_due()
    while watch.sentinel is None:
        time.sleep(0.01)
    return rec, watch.sentinel


def limit_memory() -> None:
    """Move this process into a cgroup with little memory; ends it where that cannot be made."""
    for mount, limit in CGROUPS:
        folder = Path(mount) / f"recorder-test-{os.getpid()}"
        with suppress(OSError):
            folder.mkdir()
            (folder / limit).write_text(str(MEMORY))
            (folder / "cgroup.procs").write_text(str(os.getpid()))
            return
    os._exit(77)


def train(name: str, root: Path) -> None:
    """Record, note the sentinel, and end as ``name`` says."""
    exec(BEFORE.get(name, ""))
    rec, sentinel = recorded(root / name / "run")
    (root / name / "sentinel").write_text(str(sentinel))

    def kill_sentinel() -> None:
        os.kill(sentinel, signal.SIGKILL)
        with suppress(ProcessLookupError):
            while True:
                os.kill(sentinel, 0)
                time.sleep(0.01)

    def fork_segfault() -> None:
        worker = os.fork()
        if worker == 0:
            ctypes.string_at(0)
        os.waitpid(worker, 0)

    exec(ENDINGS[name], globals() | {"rec": rec, "sentinel": sentinel, **locals()})


def cycles(root: Path) -> dict[str, Any]:
    """Open and close a recorder many times; return descriptors, threads and children before and after."""

    def counts() -> dict[str, object]:
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        return {
            "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            "threads": sum(thread.name == "recorder-sentinel" for thread in threading.enumerate()),
            "children": children.read_text() if children.exists() else "",
            "faulthandler": faulthandler.is_enabled(),
        }

    rec, sentinel = recorded(root / "first")  # it opens what stays open
    rec.close()
    before, watches = counts(), []
    for number in range(CYCLES):
        with Recorder(root / str(number), strict=True, quiet=True) as rec:
            watches.append(store_of(rec)._death_watch)
            watches[-1].start_if_due()
    while counts()["threads"]:
        time.sleep(0.01)
    return {"before": before, "after": counts(), "sentinels": [sentinel, *(watch.sentinel for watch in watches)]}


def enabled_meanwhile(root: Path) -> dict[str, Any]:
    """Have the training enable ``faulthandler`` while it is recorded."""
    rec, _ = recorded(root / "meanwhile")
    with (root / "theirs").open("w") as theirs:
        faulthandler.enable(theirs)
        rec.close()
        faulthandler.dump_traceback(theirs)
        enabled = faulthandler.is_enabled()
        faulthandler.disable()
    return {"enabled": enabled, "function": faulthandler.enable.__module__}


def main(root: Path) -> None:
    """Fork every training, and print how they ended."""
    children: dict[str, int] = {}
    for name in ENDINGS:
        (root / name).mkdir(parents=True)
        child = os.fork()
        if child == 0:
            sys.stdout = sys.stderr = (root / name / "output").open("w")
            train(name, root)
            sys.exit(0)
        children[name] = child
    for name, work in (("cycles", cycles), ("meanwhile", enabled_meanwhile)):
        child = os.fork()
        if child == 0:
            (root / name).mkdir(parents=True)
            (root / f"{name}.json").write_text(json.dumps(work(root / name)))
            os._exit(0)
        children[name] = child
    (root / "worker").mkdir()
    worker = multiprocessing.get_context("fork").Process(target=_worker, args=(root / "worker",), daemon=True)
    worker.start()
    statuses = {name: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for name, child in children.items()}
    worker.join()
    sys.stdout.write(json.dumps(statuses | {"worker": worker.exitcode}) + "\n")


def _worker(root: Path) -> None:
    _, sentinel = recorded(root / "run")
    (root / "sentinel").write_text(str(sentinel))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
