"""The two sides of a pair: two processes that live for a whole benchmark and train what they are told, in turns."""

from __future__ import annotations

import gc
import hashlib
import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.relay import Relay

HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""Where a model's pages happen to lie makes a whole run of the LSTM up to 9 % faster or slower; with huge pages 4 %."""


@dataclass(frozen=True)
class TrainingOrder:
    """Train ``updates`` of a training, recorded at ``level`` unless that is None. ``small``: for a smoke run."""

    training: str
    updates: int
    level: str | None
    small: bool
    first: bool = True
    core: int = 0
    box: str | None = None


@dataclass(frozen=True)
class Side:
    """What one training took, in seconds.

    ``wall``: the whole run in the training thread, opening and closing the recording included; ``cpu``: the same of
    all threads. ``updates_wall``, ``updates_cpu``: the training thread's, all but the last update, whose end may be
    measured as the recording closes. ``updates``: how many, the last too. ``account``: the recorder's own, None
    without one.
    """

    wall: float
    cpu: float
    updates_wall: float
    updates_cpu: float
    updates: int
    digest: str
    account: dict[str, Any] | None


class Sides:
    """Both processes."""

    def __init__(self) -> None:
        os.environ.setdefault("GLIBC_TUNABLES", HUGE_PAGES)
        context = get_context("spawn")
        turns = context.Pipe()
        pipes = [context.Pipe() for _ in turns]
        self._orders = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(target=_serve, args=(theirs, turn), daemon=True)
            for (_, theirs), turn in zip(pipes, turns, strict=True)
        ]
        for process in self._processes:
            process.start()

    def train(self, orders: Sequence[TrainingOrder]) -> list[Side]:
        """Train both orders in turns, each in its process. Raises ``RuntimeError`` when one fails."""
        for connection, order in zip(self._orders, orders, strict=True):
            connection.send(order)
        found = [connection.recv() for connection in self._orders]
        for side in found:
            if isinstance(side, str):
                raise RuntimeError(side)
        return found

    def close(self) -> None:
        """End both processes."""
        for connection, process in zip(self._orders, self._processes, strict=True):
            connection.send(None)
            process.join()


def _serve(orders: Connection, other: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    while (order := orders.recv()) is not None:
        try:
            answer: Side | str = timed(order, Relay(other, order.first, order.core))
        except Exception as error:  # told to the process that asked
            answer = f"{order.training} at {order.level}: {type(error).__name__}: {error}"
        orders.send(answer)


def timed(order: TrainingOrder, relay: Relay) -> Side:
    """Train as ordered; making the model and reading the run afterwards are not timed."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from tests.bench.trainings import TRAININGS, RecordingPlan

    trainee = TRAININGS[order.training].make(order.small)
    hook = register_optimizer_step_post_hook(lambda *_: relay.swap())
    with TemporaryDirectory() as folder, _same_heap():
        run_dir = Path(folder) / "run"
        recording = None if order.level is None else RecordingPlan(run_dir, order.level, order.box)
        try:
            with relay.run():
                trainee.train(order.updates, recording, relay)
        finally:
            hook.remove()
        account = None if recording is None else account_of(run_dir)
    return _side(relay, digest(trainee.parameters()), account)


def _side(relay: Relay, parameters: str, account: dict[str, Any] | None) -> Side:
    updates = slice(relay.begins[0], relay.begins[-2])
    return Side(
        wall=sum(relay.wall),
        cpu=sum(relay.cpu) + relay.background,
        updates_wall=sum(relay.wall[updates]),
        updates_cpu=sum(relay.cpu[updates]),
        updates=len(relay.begins) - 1,
        digest=parameters,
        account=account,
    )


@contextmanager
def _same_heap() -> Iterator[None]:
    """Start from a heap in which nothing is left to collect or scan from earlier sides."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def digest(parameters: dict[str, Any]) -> str:
    """Return a digest of the parameters, bit for bit."""
    found = hashlib.sha256()
    for name, tensor in sorted(parameters.items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def account_of(run_dir: Path) -> dict[str, Any]:
    """Return what the recorder says of its own cost: medians over the run's updates."""
    from esper_analyze.runs.run import open_run

    run = open_run(run_dir)
    updates = run.frame("updates")
    names = ("recorder_fraction", "recorder_ms", "sampled_steps", "optimizer_steps")
    levels = updates["level"].value_counts().sort("level")
    medians = {name: _median(updates[name].drop_nulls().to_list()) for name in names}
    return {**medians, "levels": dict(levels.iter_rows()), "lost_rows": run.lost_rows}


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
