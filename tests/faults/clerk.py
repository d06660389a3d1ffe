"""A process that carries out commands of the command line one after the other, warnings as errors.

What a command does to the interpreter, it does to this process: the harness sees it die.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from tests.faults.children import ROOT
from tests.patience import PATIENCE


@dataclass(frozen=True)
class CommandResult:
    """Exit code and words of a command; ``code`` is negative when it killed the interpreter."""

    code: int
    out: str
    err: str

    @property
    def proper(self) -> bool:
        """Whether a refusal is one sentence with an exit code that says whose fault it is."""
        traceless = "Traceback" not in self.err and "internal error" not in self.err
        return self.code in (0, 1, 2, 3) and traceless and (self.code == 0 or bool(self.err.strip() or self.out))


class Clerk:
    """The harness's end; a clerk that died is replaced."""

    def __init__(self) -> None:
        self._process = self._new()

    def _new(self) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]), "NO_COLOR": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.clerk"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def __call__(self, *words: str | Path) -> CommandResult:
        """Run one command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if line:
            return CommandResult(**json.loads(line))
        dead = CommandResult(self._process.wait(PATIENCE), "", "the interpreter died")
        self._process = self._new()
        return dead

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)


def main() -> None:
    """Carry out each line of stdin."""
    from esper_analyze.cli import run

    warnings.simplefilter("error")
    answers = sys.stdout
    for line in sys.stdin:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(json.loads(line))
        answers.write(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
