"""Row 47: what stands under the name of a run's file is none: a FIFO, a device, a link, a socket, a directory."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Container, Iterator
from pathlib import Path

from tests.faults.commands import Done, batch
from tests.faults.forged import copied
from tests.faults.outcome import Bench, TrialTally, facts

MOST = 1 << 30
"""Bytes that the process of all commands may take: a read without end takes all there are."""
HANGS = 120.0
"""Seconds for all commands on one harmed run together; only what hangs takes as long."""


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)  # a socket's own path may have 107 bytes only
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def _link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _link_to_itself_elsewhere(path: Path) -> None:
    path.symlink_to(path.with_name(f"{path.name}.elsewhere"))


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "FIFO": (_fifo, "is a FIFO, not a regular file"),
    "link to /dev/zero": (_link_to("/dev/zero"), "is a symbolic link, not a regular file"),
    "link to /dev/null": (_link_to("/dev/null"), "is a symbolic link, not a regular file"),
    "link to a directory": (_link_to("/tmp"), "is a symbolic link, not a regular file"),
    "link to the file itself": (_link_to_itself_elsewhere, "is a symbolic link, not a regular file"),
    "socket": (_socket, "is a socket, not a regular file"),
    "directory": (Path.mkdir, "is a directory, not a regular file"),
}
UNLISTED = "findings-000099.parquet"
"""A shard that no manifest lists."""
FILES = ("run.json", "manifest.jsonl", "closed.json", ".wal-000099", "updates-000001.parquet", UNLISTED,
         "labels.toml", ".lock", ".journal.json")  # fmt: skip
ASKS = {
    "labels.toml": ("backtest",),
    ".lock": ("verify", "repair", "compact"),
    ".journal.json": ("verify", "repair", "compact"),
}
"""The commands that need a file; one that is not named here all need."""
QUESTIONS = ("timeline", "drift", "heads", "layers", "lstm", "transitions")


def special_files(bench: Bench) -> TrialTally:
    """Every command on every such file: at once one sentence, exit 3, other runs as before, memory bounded."""
    outcome, most = TrialTally(), 0
    pairs = [(name, kind) for name in FILES for kind in KINDS]
    for name, kind in pairs if bench.long else bench.random.sample(pairs, 2):
        here = bench.scratch / "special"
        shutil.rmtree(here, ignore_errors=True)
        harmed = harmed_run(here, name, kind)
        label = f"{name} is a {kind}"
        try:
            done = asked(harmed)
        except subprocess.TimeoutExpired:
            outcome.wrong[f"{label}: hangs"] += 1
            continue
        for words, one in done:
            outcome.trials += 1
            most = max(most, one.peak)
            for fault in faults(words, one, name, KINDS[kind][1]):
                outcome.wrong[f"{label}: {words}: {fault}"] += 1
    outcome.notes.append(facts(most=f"{most / 2**20:,.0f} MB"))
    return outcome


def harmed_run(here: Path, name: str, kind: str) -> Path:
    """Return the harmed one of two runs in ``here``; the other is sound."""
    harmed, sound = copied(here / "runs" / "harmed"), copied(here / "runs" / "sound")
    for run in (harmed, sound):
        (run / "labels.toml").write_text("healthy = true\n")
    folder = next(harmed.glob("rank*/attempt-*"))
    if name == UNLISTED:
        (folder / "closed.json").unlink()  # a complete run passes over it
    path = (harmed if name in ("run.json", "labels.toml") else folder) / name
    if path.exists():
        path.rename(path.with_name(f"{path.name}.elsewhere"))
    KINDS[kind][0](path)
    return harmed


def asked(harmed: Path, commands: Container[str] | None = None) -> list[tuple[str, Done]]:
    """Give every command that reads the harmed run, or those named; return what each said, by its first word.

    Raises ``subprocess.TimeoutExpired`` when one of them hangs.
    """
    runs, out = harmed.parent, harmed.parent.parent
    lines: list[tuple[object, ...]] = [
        ("ls", runs), ("report", harmed, "--out", out / "page"), ("replay", harmed), ("verify", harmed),
        ("sql", harmed, "select count(*) from updates"), ("watch", harmed, "--once"),
        ("compare", harmed, runs / "sound", "--no-page"), ("export", harmed, "--to", "csv", "--out", out / "csv"),
        ("backtest", runs), *((name, harmed) for name in QUESTIONS), ("repair", harmed, "--dry-run"),
        ("compact", harmed),
    ]  # fmt: skip
    lines = [words for words in lines if commands is None or words[0] in commands]
    return [(str(words[0]), one) for words, one in zip(lines, batch(*lines, cwd=out, limit=HANGS), strict=True)]


def faults(command: str, done: Done, name: str, words: str) -> Iterator[str]:
    """Yield what is wrong with the answer of ``command`` about a file ``name`` that ``words`` describe."""
    said = " ".join((done.out + done.err).split())
    if done.peak > MOST:
        yield f"{done.peak / 2**20:,.0f} MB of memory"
    if "Traceback" in said or done.code not in (0, 2, 3):
        yield f"exit {done.code}: {said[-300:]}"
    expected = command in ASKS.get(name, (command,)) and (name, command) != (UNLISTED, "watch")
    if expected and done.code != 3 and not (command == "repair" and done.code == 0):
        yield f"exit {done.code}, not 3: {said[-200:]}"
    told = (name,) if (name, command) == (UNLISTED, "ls") else (name, *words.split(", "))  # ls cuts long cells
    if expected and not all(part in said for part in told):
        yield f"does not say that {name} {words}: {said[:300]}"
    if not expected and done.code not in (0, 2):
        yield f"exit {done.code}: {said[-300:]}"
    if command in ("ls", "backtest") and not any(words in said for words in (" sound ", "labelled run")):
        yield f"the other run is hidden: {said[:200]}"
