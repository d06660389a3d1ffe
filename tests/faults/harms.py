"""What a child does to itself while it trains: named in its order, done in its process."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.patience import PATIENCE
from tests.recorder.inline import store_of
from tests.recorder.interruption import Interruption
from tests.recorder.process_states import STATES, enter_within
from tests.recorder.sick_loop import FaultyLoop

Harm = Callable[[FaultyLoop, int, "dict[str, Any]"], None]
"""Called before each update with its number and the order's ``harm``."""

_held: list[int] = []
_clock = time.time
_write = os.write


def end(_: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """End the process at update ``at`` in one of many ways."""
    if number == order["at"]:
        _ENDS[order["how"]]()


def _raise() -> None:
    raise RuntimeError("the training's own error")


_ENDS: dict[str, Callable[[], object]] = {
    "sys.exit": lambda: sys.exit(3),
    "exception": _raise,
    "os._exit": lambda: os._exit(4),
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGINT": lambda: os.kill(os.getpid(), signal.SIGINT),
}


def no_descriptors(_: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Leave no file descriptor free from update ``at`` until ``until``."""
    if number == order["at"]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        try:
            while True:
                _held.append(os.dup(0))
        except OSError:
            return
    if number == order["until"]:
        while _held:
            os.close(_held.pop())


def small_files(_: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Let no file grow beyond ``bytes`` from update ``at`` until ``until``: real short writes, then EFBIG."""
    if number in (order["at"], order["until"]):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        bound = order["bytes"] if number == order["at"] else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, resource.RLIM_INFINITY))


def torn_write(_: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Let write ``nth`` of a file reach the disk in part and then fail; pieces of ``at_most`` bytes otherwise."""
    if number == 0:
        calls = [0]

        def write(descriptor: int, data: bytes) -> int:
            calls[0] += 1
            if calls[0] == order["nth"] + 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            part = len(data) // 2 if calls[0] == order["nth"] else order.get("at_most", len(data))
            return _write(descriptor, memoryview(data)[: max(part, 1)])

        os.write = write  # type: ignore[assignment]


def clock_jumps(_: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Set the wall clock wrong by ``seconds`` from update ``at`` on."""
    if number == order["at"]:
        time.time = lambda: _clock() + order["seconds"]


def fork_in_the_middle(_: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Fork now and then; the child goes on using the recorder, as a copied training would, and ends."""
    if number % order["every"] == 1:
        child = os.fork()
        if child == 0:
            for other in range(2):
                _.update(number + other)
            _.rec.close("child")
            if order["how"] == "exit":
                sys.exit(0)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status:
            raise RuntimeError(f"the forked child ended with {status}")


def load_data(_: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Read an epoch through a DataLoader with ``workers`` forked workers."""
    if number % 10 == 1:
        data = torch.utils.data.TensorDataset(torch.arange(64.0))
        how = {"num_workers": order["workers"], "multiprocessing_context": order["context"]}
        loader = torch.utils.data.DataLoader(data, 8, **how)
        total = sum(float(batch[0].sum()) for batch in loader)
        assert total == 2016.0


def recorder_raises(loop: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Let a part of the recorder raise from update ``at`` until ``until``."""
    if number == order["at"]:
        owner, name = _place(loop, order["where"])
        _replaced[:] = [owner, name, getattr(owner, name)]
        setattr(owner, name, _raiser(order.get("error", "RuntimeError")))
    if number == order["until"] and _replaced:
        setattr(*_replaced)


_replaced: list[Any] = []


def _place(_: FaultyLoop, where: str) -> tuple[Any, str]:
    """Return the module or class named by ``module:Class.method`` and the attribute's name."""
    module, path = where.split(":")
    owner: Any = sys.modules[module]
    *classes, name = path.split(".")
    for one in classes:
        owner = getattr(owner, one)
    return owner, name


def _raiser(kind: str) -> Callable[..., Any]:
    error = {"RuntimeError": RuntimeError, "MemoryError": MemoryError, "OSError": OSError}[kind]

    def raiser(*_: Any, **__: Any) -> Any:
        raise error("injected into the recorder")

    return raiser


def writer_dies(loop: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Kill the writer or the sealer thread by an exception from outside; later perhaps the process."""
    if number == order["die"]:
        os._exit(4)
    if number == order["at"]:
        store = store_of(loop.rec)
        thread = store._thread if order["thread"] == "writer" else store._sealer
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        thread.join(PATIENCE)


def odd_cell(loop: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Hand over cells no schema has: the user's own mistake at update ``at``."""
    if number == order.get("die"):
        os._exit(4)
    if number == order["at"]:
        plain = loop.rec.update
        loop.rec.update = lambda **cells: plain(**{**cells, **_ODD[order["cell"]]()})  # type: ignore[method-assign]
    elif number == order["at"] + 1:
        del loop.rec.update


class _Sly:
    def item(self) -> float:
        raise RuntimeError("no item")


_ODD: dict[str, Callable[[], dict[str, object]]] = {
    "text for a number": lambda: {"entropy_coef": "large"},
    "object": lambda: {"entropy_coef": object()},
    "item() raises": lambda: {"entropy_coef": _Sly()},
    "huge integer": lambda: {"entropy_coef": 10**400},
    "surrogate": lambda: {"reason": "\ud800"},
    "unknown column": lambda: {"no_such_column": 1.0},
    "list": lambda: {"entropy_coef": [1.0, 2.0]},
    "knot": lambda: {"entropy_coef": _knot()},
}


def _knot() -> list[object]:
    knot: list[object] = []
    knot.append(knot)
    return knot


def change_folder(_: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Change the working directory at update ``at``."""
    if number == order["at"]:
        os.chdir(order["to"])


def fork_and_stay(_: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Fork a child at update ``at`` that stays until it is killed; its id goes into ``file``. ``die`` at an update."""
    if number == order["at"]:
        child = os.fork()
        if child == 0:
            _close_sockets()
            time.sleep(600)
            os._exit(0)
        Path(order["file"]).write_text(str(child))
    if number == order["die"]:
        os.kill(os.getpid(), signal.SIGKILL)


def _close_sockets() -> None:
    """Close what the harness listens to: it takes the end of the training from its socket."""
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(one.stat().st_mode):
                os.close(int(one.name))


def process_state(loop: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Call the recorder within a state of the process from the beginning on."""
    if number == 0:
        enter_within(loop.rec, STATES[order["state"]])


def interrupted(loop: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Raise KeyboardInterrupt at event ``nth`` of ``method`` at update ``at``; the training catches it and goes on."""
    if number == order["at"] - 1:
        harm = Interruption(order["nth"])
        plain = getattr(loop.rec, order["method"])
        traced = harm.around(plain)

        def caught(*args: Any, **kwargs: Any) -> None:
            setattr(loop.rec, order["method"], plain)
            try:
                traced(*args, **kwargs)
            except KeyboardInterrupt:
                Path(order["file"]).write_text(f"came {harm.events}")
            else:
                Path(order["file"]).write_text(f"missed {harm.events}")

        setattr(loop.rec, order["method"], caught)


def nothing(_: FaultyLoop, __: int, ___: dict[str, Any]) -> None:
    """Do nothing."""


def eight_threads(loop: FaultyLoop, number: int, order: dict[str, Any]) -> None:
    """Let threads hand over rows of their own all at once."""
    if number != order["at"]:
        return
    store = store_of(loop.rec)

    def put(thread: int) -> None:
        for row in range(order["rows"]):
            store.put({"episodes": [{"update": number, "episode_return": float(thread), "length": row}]})
            if row % 100 == 0:
                store.settle(1.0)

    threads = [threading.Thread(target=put, args=(thread,)) for thread in range(order["threads"])]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


HARMS: dict[str, Harm] = {
    "end": end,
    "no_descriptors": no_descriptors,
    "small_files": small_files,
    "torn_write": torn_write,
    "clock_jumps": clock_jumps,
    "fork": fork_in_the_middle,
    "load_data": load_data,
    "recorder_raises": recorder_raises,
    "writer_dies": writer_dies,
    "odd_cell": odd_cell,
    "threads": eight_threads,
    "chdir": change_folder,
    "fork_and_stay": fork_and_stay,
    "process_state": process_state,
    "interrupted": interrupted,
    "none": nothing,
}
