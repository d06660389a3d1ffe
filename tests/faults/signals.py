"""Row 48: SIGTERM, SIGHUP and SIGINT while a command has temporary files; SIGKILL, and what the next query cleans.

``python -m tests.faults.signals SIGNAL WORD…`` is the child: it gets the signal before its first rename.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.children import ROOT
from tests.faults.commands import COMMAND
from tests.faults.forged import copied
from tests.faults.outcome import Bench, TrialTally, facts
from tests.runs.stored import write

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
NOT_IN_TIME = 60.0
"""Seconds after a signal by which a command is killed: it only guards against hanging."""
SPILLS = "select * from range(20000000000) order by hash(range)"
DEAF = "select levenshtein(repeat('ab', 10000000), repeat('ba', 10000000))"
"""One call that DuckDB does not interrupt."""


def left_behind(bench: Bench) -> TrialTally:
    """Nothing temporary is left: not the spill of a query, no hidden file beside a result, nothing staged in a run."""
    outcome = TrialTally()
    here = bench.scratch / "signals"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    for number in SIGNALS if bench.long else SIGNALS[1:2]:
        for query in (SPILLS, DEAF) if bench.long and number != signal.SIGINT else (SPILLS,):
            outcome.trials += 1
            for fault in ended_query(here, query, number):
                outcome.wrong[f"sql, {number.name}: {fault}"] += 1
    outcome.trials += 1
    for fault in killed_query(here):
        outcome.wrong[f"sql, SIGKILL: {fault}"] += 1
    lines = list(WRITERS) if bench.long else bench.random.sample(list(WRITERS), 2)
    for name in lines:
        for number in SIGNALS if bench.long else SIGNALS[:1]:
            outcome.trials += 1
            for fault in ended_writer(here, name, number):
                outcome.wrong[f"{name}, {number.name}: {fault}"] += 1
    outcome.notes.append(facts(commands=", ".join(lines)))
    return outcome


def _environment(tmp: Path) -> dict[str, str]:
    tmp.mkdir(exist_ok=True)
    return os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TMPDIR": str(tmp)}


def _started(here: Path, query: str) -> subprocess.Popen[str]:
    """Return a running query whose spill directory is there and, if it spills, has files."""
    run, tmp = copied(here / "run"), here / "tmp"
    limits = ["--memory", "0.6" if query == SPILLS else "4", "--timeout", "600"]
    words = ["sql", str(run), query, *limits, "--out", str(here / "out.csv")]
    before = set(tmp.glob("*"))
    process = _child(tmp, 0, words)
    until = time.monotonic() + NOT_IN_TIME
    there = "esper-analyze-*/*" if query == SPILLS else "esper-analyze-*"
    while time.monotonic() < until and not set(tmp.glob(there)) - before:
        time.sleep(0.02)
    time.sleep(0.5)  # in the middle of the query
    return process


def _child(tmp: Path, number: int, words: list[str]) -> subprocess.Popen[str]:
    """Start a command that gets the signal ``number`` before its first rename, 0: none."""
    line = [sys.executable, "-m", "tests.faults.signals", str(number), *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=ROOT, env=_environment(tmp), stdout=pipe, stderr=pipe, text=True)


def ended_query(here: Path, query: str, number: signal.Signals) -> Iterator[str]:
    """Send a signal to a query; yield what is wrong afterwards."""
    process = _started(here, query)
    process.send_signal(number)
    yield from _end_faults(process, number)
    yield from _left(here)


def killed_query(here: Path) -> Iterator[str]:
    """Kill a query; the next one removes what it left, and not what a running one has."""
    process = _started(here, SPILLS)
    process.kill()
    process.communicate()
    (here / "out.csv").unlink(missing_ok=True)
    for hidden in here.glob(".out*"):
        hidden.unlink()
    if not any((here / "tmp").iterdir()):
        yield "the trial left nothing to clean"
    other = _started(here, DEAF)
    there = set((here / "tmp").iterdir())
    line = [*COMMAND, "sql", str(here / "run"), "select 1"]
    subprocess.run(line, env=_environment(here / "tmp"), capture_output=True, check=True)
    if len(there) != 1 or set((here / "tmp").iterdir()) != there:
        yield f"the directory of a running query is gone, or another stands: {there}"
    other.terminate()
    yield from _end_faults(other, signal.SIGTERM)
    yield from _left(here)


def _end_faults(process: subprocess.Popen[str], number: signal.Signals) -> Iterator[str]:
    try:
        _, err = process.communicate(timeout=NOT_IN_TIME)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        yield "does not end"
        return
    if process.returncode != 128 + number:
        yield f"exit {process.returncode}: {err[-300:]}"
    if err:
        yield f"says {err[-300:]!r}"


def _left(here: Path) -> Iterator[str]:
    if found := [str(path.relative_to(here)) for path in here.glob("tmp/*")]:
        yield f"left behind: {found}"
    hidden = [path for path in here.rglob(".*") if not path.name.startswith((".lock", ".wal-", ".reserve"))]
    if found := [str(path.relative_to(here)) for path in hidden]:
        yield f"left behind: {found}"


WRITERS: dict[str, tuple[str, ...]] = {
    "report": ("report", "{run}", "--out", "{here}/page"),
    "compare": ("compare", "{run}", "{other}", "--out", "{here}/page"),
    "export csv": ("export", "{run}", "--to", "csv", "--out", "{here}/csv"),
    "export parquet": ("export", "{run}", "--to", "parquet", "--out", "{here}/all.parquet"),
    "heads png": ("heads", "{run}", "--out", "{here}/heads.png"),
    "sql csv": ("sql", "{run}", "from updates", "--out", "{here}/a.csv"),
    "sql parquet": ("sql", "{run}", "from updates", "--out", "{here}/a.parquet"),
    "repair": ("repair", "{killed}"),
    "compact": ("compact", "{run}"),
}


def ended_writer(here: Path, name: str, number: signal.Signals) -> Iterator[str]:
    """Send a signal to a command when its files are written and not yet in place; yield what is wrong afterwards."""
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    run, other = write(here / "run"), write(here / "other")
    killed = write(here / "killed", close=False)
    words = [word.format(run=run, other=other, killed=killed, here=here) for word in WRITERS[name]]
    yield from _end_faults(_child(here / "tmp", int(number), words), number)
    yield from _left(here)


def child() -> None:
    """Run a command that gets the signal before its first rename."""
    from esper_analyze.cli import main

    number, words = int(sys.argv[1]), sys.argv[2:]
    for one in SIGNALS:  # a shell may have started this with a signal ignored
        signal.signal(one, signal.default_int_handler if one == signal.SIGINT else signal.SIG_DFL)
    known = os.rename, os.replace

    def hit(*given: object, **named: object) -> None:
        os.rename, os.replace = known
        os.kill(os.getpid(), number)
        raise AssertionError(f"the signal did not come: {given} {named}")

    if number:
        os.rename = os.replace = hit
    sys.argv = ["esper-analyze", *words]
    main()


if __name__ == "__main__":
    child()
