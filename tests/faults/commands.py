"""Commands in processes of their own: what they said, how they ended, how long they took and how much memory.

``python -m tests.faults.commands`` runs many in one process: lists of words as JSON on stdin, what was said on stdout.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.faults.children import ROOT
from tests.patience import PATIENCE

COMMAND = (sys.executable, "-m", "esper_analyze.cli")


@dataclass(frozen=True)
class Done:
    """``peak`` is the most resident memory in bytes; ``code`` is negative after a signal."""

    code: int
    out: str
    err: str
    seconds: float
    peak: int

    def refusal_fault(self, code: int) -> str | None:
        """Return what is wrong with a refusal: its exit code, or more or less than one sentence on stderr."""
        if self.code != code:
            return f"exit {self.code}: {self.err[-300:].strip()}"
        if not self.err.startswith("esper-analyze: ") or self.err.count("\n") != 1:
            return f"not one sentence: {self.err[:300]!r}"
        return "a traceback" if "Traceback" in self.err else None


def measured(
    *words: object, limit: float = PATIENCE, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> Done:
    """Run ``esper-analyze`` with ``words`` and look at its memory while it runs; after ``limit`` seconds kill it."""
    return watched([*COMMAND, *map(str, words)], limit, cwd, environment)


def watched(line: list[str], limit: float, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> Done:
    """Run any command and look at its memory."""
    own = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "OMP_NUM_THREADS": "1", **(environment or {})}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        process = subprocess.Popen(line, cwd=cwd, env=own, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _peak(process.pid))
            if time.monotonic() - began > limit:
                process.kill()
            time.sleep(0.01)
        seconds = time.monotonic() - began
        return Done(process.returncode, _text(out), _text(err), seconds, peak)


def batch(*lines: tuple[object, ...], cwd: Path, limit: float = PATIENCE) -> list[Done]:
    """Run many commands one after the other in one process, which spares all but the first the imports.

    ``limit``: seconds for every ten of them. ``peak`` is then the most that the process had up to the end of the
    command. Raises ``subprocess.TimeoutExpired``.
    """
    own = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    asked = json.dumps([[str(word) for word in words] for words in lines])
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.commands"],
        input=asked, cwd=cwd, env=own, capture_output=True, text=True,
        timeout=limit * max(len(lines) / 10, 1), check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the commands' process ended with {done.returncode}: {done.stderr[-300:]}")
    return [Done(**one) for one in json.loads(done.stdout)]


def child() -> None:
    """Run each command of a batch."""
    from esper_analyze.cli import leave, run

    found = []
    for words in json.load(sys.stdin):
        out, err = io.StringIO(newline=""), io.StringIO(newline="")
        began = time.monotonic()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(words)
        said = {"code": code, "out": out.getvalue(), "err": err.getvalue()}
        found.append(said | {"seconds": time.monotonic() - began, "peak": _peak(os.getpid())})
    sys.stdout.write(json.dumps(found))
    leave(0)


def _text(file: object) -> str:
    assert hasattr(file, "seek")
    assert hasattr(file, "read")
    file.seek(0)
    return bytes(file.read()).decode(errors="replace")


def _peak(pid: int) -> int:
    """Return VmHWM; the harness's own, inherited before ``exec``, is none of the command's."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    child()
