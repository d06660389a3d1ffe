"""The training that is harmed: small, deterministic, on one thread; with a recorder or without."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from recorder import Recorder
from tests.recorder.sick_loop import SIZES, FaultyLoop, Net


class Unrecorded:
    """Takes what a recorder takes, and keeps nothing."""

    def minibatch(self, **_: Any) -> None:
        """Take a minibatch."""

    def episode(self, *_: Any) -> None:
        """Take an episode."""

    def update(self, **_: Any) -> None:
        """Take an update."""


def recorded(run_dir: Path, *, resume: bool = False, **place: Any) -> FaultyLoop:
    """Return a loop that records every detail of every update: what is measured does not depend on the clock."""
    loop = FaultyLoop()
    groups = {"actor": loop.net.heads, "critic": loop.net.critic, "shared": loop.net.body}
    heads = {name: loop.net.heads[name] for name in SIZES}
    options: dict[str, Any] = {"overhead_budget": None, "resume": resume, "all_ranks": True, **place}
    loop.rec = Recorder(run_dir, loop.net, heads=heads, sizes=SIZES, groups=groups, **options)
    return loop


def unrecorded() -> FaultyLoop:
    """Return the same loop without a recorder."""
    loop = FaultyLoop()
    loop.rec = cast("Recorder", Unrecorded())
    return loop


def train(loop: FaultyLoop, updates: int, *, pace: float, after: Callable[[int, float], None]) -> None:
    """Train; ``after`` is called with each complete update and the seconds it took. ``pace``: rest after each."""
    for number in range(updates):
        began = time.perf_counter()
        loop.update(number)
        after(number, time.perf_counter() - began)
        if pace:
            time.sleep(pace)


def digest(net: Net) -> str:
    """Return SHA-256 over all parameters, bit by bit."""
    found = hashlib.sha256()
    for parameter in net.parameters():
        found.update(parameter.detach().numpy().tobytes())
    return found.hexdigest()
