"""Row 40: the process that writes a report is killed, at each system call that touches the disk and at random."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.faults.children import ROOT, traced
from tests.faults.forged import copied
from tests.faults.kills import NO_STRACE
from tests.faults.outcome import Bench, TrialTally, facts

SYSCALLS = ("rename", "write", "openat", "chmod", "fchmod", "mkdir", "unlink", "close", "lseek")
"""``rename`` is the one that counts: from the first one on, files of the new report stand beside old ones."""
_HUNG = "the report did not come to its writing"
Files = dict[str, bytes]


def report_kills(bench: Bench) -> TrialTally:
    """The report from before is whole, or files of the new one are in their places, each byte for byte."""
    if shutil.which("strace") is None:
        return TrialTally(skipped=NO_STRACE)
    outcome = TrialTally()
    here = bench.scratch / "writing"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    run_dir = copied(here / "run")
    with _Drawn(here, run_dir) as drawn:
        drawn.write()
        new = _files(here / "page")
        old = {name: f"{name} of the report from before".encode() for name in new}
        reached = {name: _kill_all(bench, outcome, drawn, old, new, name) for name in SYSCALLS}
    outcome.notes.append("points: " + facts(**{name: count for name, count in reached.items() if count}))
    return outcome


def _kill_all(bench: Bench, outcome: TrialTally, drawn: _Drawn, old: Files, new: Files, syscall: str) -> int:
    """Write over the old report with SIGKILL at one system call after the other; return how many there were."""
    for nth in range(1, 500, 1 if bench.long else 5):
        shutil.rmtree(drawn.page)
        drawn.page.mkdir()
        for name, content in old.items():
            (drawn.page / name).write_bytes(content)
        died = drawn.write(syscall, nth) == -signal.SIGKILL
        for fault in _faults(drawn.page, old, new, renamed=syscall == "rename" and nth > 1, finished=not died):
            outcome.wrong[f"{syscall} {nth}: {fault}"] += 1
        if not died:
            return (nth - 1) if bench.long else (nth + 3) // 5
        outcome.trials += 1
    return 500


def _files(page: Path) -> Files:
    return {path.name: path.read_bytes() for path in page.iterdir() if not path.name.startswith(".")}


class _Drawn:
    """A report that is drawn and not written: a process that forks for each time it is to be written."""

    def __init__(self, here: Path, run_dir: Path) -> None:
        self.page, self.trace = here / "page", here / "trace"
        line = [sys.executable, "-m", "tests.faults.writing", "report", str(run_dir), "--out", str(self.page)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            line, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> _Drawn:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def _say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def write(self, syscall: str = "", nth: int = 0) -> int:
        """Write the report in a fresh process, with SIGKILL at a system call if given; return how it ended."""
        assert self.process.stdout is not None
        self._say("write")
        pid = self.process.stdout.readline()
        if not pid.strip().isdigit():
            raise RuntimeError(_HUNG)
        inject = f"signal=KILL:when={nth}"
        with traced(int(pid), syscall, inject, self.trace) if syscall else contextlib.nullcontext():
            self._say("go")
            return int(self.process.stdout.readline())


def _faults(page: Path, old: Files, new: Files, *, renamed: bool, finished: bool) -> Iterator[str]:
    found = _files(page)
    if finished and found != new:
        yield "finished, and not the new report"
    if not finished and not renamed and found != old:
        yield "something of the old report is not as it was"
    for name in old:
        if name not in found:
            yield f"{name} is gone"
        elif found[name] not in (old[name], new.get(name)):
            yield f"{name} is neither the old one nor the new one"


def child() -> None:
    """Draw a report; for each "write" on stdin fork a process that reads "go" there and goes on to write it."""
    from esper_analyze.cli import main
    from esper_analyze.reports import write

    known = write._write_whole

    def waiting(out: Path, files: Mapping[str, bytes]) -> None:
        for word in iter(sys.stdin.readline, ""):
            if word != "write\n":  # meant for a process that was killed before it read
                continue
            pid = os.fork()
            if pid == 0:
                os.read(0, 3)
                known(out, files)
                os._exit(0)
            sys.stdout.write(f"{pid}\n")
            sys.stdout.flush()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            sys.stdout.write(f"{status}\n")
            sys.stdout.flush()
        os._exit(0)

    write._write_whole = waiting
    main()


if __name__ == "__main__":
    child()
