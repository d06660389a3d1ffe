"""A process that has everything imported and forks a training for each order: a trial costs no start of torch.

Orders come as lines of JSON on stdin; on stdout it says ``exit PID STATUS`` for each child that ended.
A child speaks through a Unix socket, so that what is done to its files does not concern what it says: ``ready PID``,
``made WRITER SEALER`` (thread ids; with a box its process and 0), ``u NUMBER SECONDS`` after each update,
``trained SHA``, ``end SHA LOST HANDED``.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from esper_analyze.storage.block import Block
from recorder.box.link import BoxLink
from recorder.store import log as log_module
from recorder.store import store as store_module
from recorder.store.store import Store
from tests.faults.harms import HARMS
from tests.faults.training import digest, recorded, train, unrecorded
from tests.recorder.inline import store_of


def main() -> None:
    """Fork for every order until stdin ends."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ``nohup`` and ``&`` start programs that ignore it
    torch.set_num_threads(1)
    train(unrecorded(), 1, pace=0.0, after=lambda *_: None)  # what is imported on first use, for all
    gc.freeze()
    sys.stdout.write("up\n")
    sys.stdout.flush()
    pending = b""
    while True:
        if select.select([0], [], [], 0.005)[0]:
            piece = os.read(0, 65536)
            if not piece:
                return
            pending += piece
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            if os.fork() == 0:
                child(json.loads(line))
                return
        _reap()


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        sys.stdout.write(f"exit {pid} {os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


class Voice:
    """The child's end of its socket; after the words in ``hold`` it waits to be told to go on."""

    def __init__(self, path: str, hold: list[str]) -> None:
        self._hold = hold
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)

    def say(self, word: str, *more: object) -> None:
        """Send one line."""
        self._socket.sendall((" ".join(map(str, (word, *more))) + "\n").encode())
        if word in self._hold:
            self._socket.recv(1)


def child(order: dict[str, Any]) -> None:
    """Train as ordered, in this process, which ends afterwards as any Python process does."""
    _prepare(order)
    voice = Voice(order["socket"], order["hold"])
    voice.say("ready", os.getpid())
    handed = _counted()
    how = {"resume": order.get("resume", False), **order.get("place", {})}
    run_dir = Path(order["run_dir"])
    if "cwd" in order:
        os.chdir(order["cwd"])
        run_dir = Path(os.path.relpath(run_dir))
    loop = recorded(run_dir, **how) if order["record"] else unrecorded()
    sink = loop.rec._sink if order["record"] else None
    if isinstance(sink, BoxLink):
        voice.say("made", sink._process.pid, 0)
    elif order["record"]:
        voice.say("made", store_of(loop.rec)._thread.native_id, store_of(loop.rec)._sealer.native_id)
    facts = order.get("harm", {"name": "none"})
    harm = HARMS[facts["name"]]

    def after(number: int, seconds: float) -> None:
        voice.say("u", number, seconds)
        if number + 1 < order["updates"]:
            harm(loop, number + 1, facts)

    harm(loop, 0, facts)
    train(loop, order["updates"], pace=order["pace"], after=after)
    voice.say("trained", digest(loop.net))
    if order["record"]:
        loop.rec.close()
    if order["record"] and not isinstance(sink, BoxLink):
        voice.say("end", digest(loop.net), store_of(loop.rec).lost_rows, handed[0])


def _prepare(order: dict[str, Any]) -> None:
    """Set the constants ordered, and become the user ordered."""
    _redirect(order["stderr"])
    for name, value in order["constants"].items():
        setattr(log_module if hasattr(log_module, name) else store_module, name, value)
    if order.get("uid"):
        os.setgroups([])
        os.setresgid(order["uid"], order["uid"], order["uid"])
        os.setresuid(order["uid"], order["uid"], order["uid"])


def _redirect(path: str) -> None:
    null, errors = os.open(os.devnull, os.O_RDWR), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(errors, 2)
    os.close(null)
    os.close(errors)


def _counted() -> list[int]:
    """Count the rows handed to the store of this process."""
    handed, plain = [0], Store.put

    def put(self: Store, rows: Mapping[str, Sequence[Mapping[str, object]] | Block]) -> None:
        if not self.inert and not self._closing:
            handed[0] += sum(len(some) for some in rows.values())
        plain(self, rows)

    Store.put = put  # type: ignore[method-assign]
    return handed


if __name__ == "__main__":
    main()
