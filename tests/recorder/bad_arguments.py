"""What is as good as not given: a training that hands over everything, and bad things in place of one argument."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from hypothesis import strategies as st

from esper_analyze.runs.run import RecordedRun, open_run
from recorder import Recorder
from tests.recorder.loop import SIZES, Loop

N = 16
"""Samples of one minibatch of ``Loop``."""
TABLES = ("updates", "steps", "heads", "groups", "lstm", "episodes", "slots")
CLOCK = {"wall_time", "rollout_s", "optimisation_s", "recorder_ms", "recorder_fraction", "sampled_steps", "seq"}
OF_MASKS = {"entropy_norm", "entropy_conditional", "choice_samples", "choice_fraction", "choices_unknown"}
OF_MASKS |= {"valid_actions_min", "valid_actions_mean", "valid_actions_max", "single_action_fraction"}
OF_MASKS |= {"learnable_fraction", "effective_fraction", "zero_explained", "rollout_samples"}
"""Columns that say what sizes say where no masks are given, and nothing where they were given and lost."""

ONES = torch.ones(N)
GOOD: dict[str, dict[str, Any]] = {
    "minibatch": {
        "relevant": {name: torch.arange(N) % 3 > 0 for name in SIZES},
        "valid": torch.arange(N) > 1,
        "entropy_loss": -0.5,
        "lstm": (torch.ones(1, 4, 3), torch.ones(1, 4, 3)),
        "joint_log_ratio": ONES * 0.01,
        "joint_entropy": ONES * 2,
        "actions": dict.fromkeys(SIZES, torch.zeros(N, dtype=torch.int64)),
        "advantages": ONES,
        "returns": torch.arange(N) * 1.0,
        "old_values": ONES,
        "index": torch.arange(N),
        "env": torch.arange(N),
        "step": torch.arange(N),
    },
    "update": {
        "relevant": {name: torch.arange(2 * N) % 3 > 0 for name in SIZES},
        "lstm": (torch.ones(1, 4, 3), torch.ones(1, 4, 3)),
        "td_errors": torch.ones(2 * N),
        "rewards": torch.ones(2 * N),
        "advantage_floor": 1e-8,
        "env_steps": 7,
        "learning_rate": 0.5,
        "entropy_coef": 0.25,
        "target_kl": 10.0,
        "progress": 0.5,
        "kl_k3_last_epoch": 0.5,
    },
    "episode": {"episode_return": 1.0, "length": 3, "env": 1, "success": True},
    "slot": {"alpha": 0.5, "max_grad_norm": 1.0, "stage": "growing", "blueprint": "conv"},
}
OPTIONAL = [
    *(("minibatch", name) for name in GOOD["minibatch"]),
    *(("minibatch", name) for name in ("entropy", "masks", "clip_range", "policy_loss", "value_loss", "loss")),
    *(("minibatch", name) for name in ("values", "epoch", "valid_actions")),
    *(("update", name) for name in GOOD["update"]),
    *(("update", name) for name in ("values", "returns", "advantages", "masks", "status", "reason")),
    *(("episode", name) for name in ("length", "env", "success")),
    *(("slot", name) for name in ("alpha", "max_grad_norm", "host")),
]

VALUES: list[Any] = [
    *(b"x", 3j, object(), print, Recorder, slice(None), 10**400, {1: "x"}, [[1.0], [1.0, 2.0]], [None], {"nope": "x"}),
    *(np.array(["a"]), np.array([None]), np.zeros((0, 3)), np.datetime64("2026-01-01")),
    *(torch.zeros(0), torch.zeros(3), torch.zeros(N, dtype=torch.complex64), torch.eye(N).to_sparse()),
]
"""What no optional argument can be."""
JUNK = st.one_of(st.sampled_from(VALUES), st.binary(), st.complex_numbers(), st.integers(3, 6).map(torch.zeros))


class HandOver:
    """Stands between a ``Loop`` and the recorder: gives every argument, and ``bad`` ones in place of one of them."""

    def __init__(self, rec: Recorder, loop: Loop, method: str, argument: str, bad: list[Any] | None) -> None:
        self.rec, self.loop, self.method, self.argument, self.bad = rec, loop, method, argument, bad
        self.number = 0

    def call(self, method: str, given: dict[str, Any]) -> None:
        given = dict(given)
        if method == self.method:
            given.pop(self.argument, None)
            if self.argument == "host":
                given["host"] = None  # an argument that must be given, and may be None
            if self.bad is not None:
                given[self.argument] = self.bad[self.number]
        getattr(self.rec, method)(**given)

    def minibatch(self, **given: Any) -> None:
        self.call("minibatch", given | GOOD["minibatch"])

    def update(self, **given: Any) -> None:
        self.call("episode", GOOD["episode"])
        seed, host = self.loop.agent.heads, self.loop.agent.body
        self.call("slot", {"env": 0, "slot": "a", "seed": seed, "host": host} | GOOD["slot"])
        self.call("update", given | GOOD["update"])
        self.number += 1


def record(run_dir: Path, method: str, argument: str, bad: list[Any] | None, updates: int) -> tuple[RecordedRun, Loop]:
    loop = Loop()
    with loop.recorder(run_dir, strict=False) as rec:
        between: Any = HandOver(rec, loop, method, argument, bad)
        for _ in range(updates):
            loop.update(between)
    return open_run(run_dir), loop


def cells(run: RecordedRun, table: str, left_out: set[str]) -> list[dict[str, Any]]:
    return [{name: repr(x) for name, x in row.items() if name not in left_out} for row in run.frame(table).to_dicts()]


def differences(folder: Path, method: str, argument: str, bad: list[Any]) -> list[str]:
    """Return what ``bad`` values of one argument, one an update, cost beyond the columns of that argument."""
    found = []
    run, loop = record(folder / "bad", method, argument, bad, len(bad))
    without, _ = record(folder / "without", method, argument, None, len(bad))
    twin = Loop()
    for _ in bad:
        twin.update(None)
    if not all(map(torch.equal, loop.agent.parameters(), twin.agent.parameters())):
        found.append("the training was changed")
    left_out = CLOCK | (OF_MASKS if argument in ("masks", "valid_actions") else set())
    found += [name for name in TABLES if cells(run, name, left_out) != cells(without, name, left_out)]
    lost = run.frame("losses_of_data").to_dicts()
    for number, one in enumerate(bad):
        details = [row["detail"] for row in lost if row["update"] == number]
        if not any(re.match(rf"{method}\((\w+, )*{argument}\b", detail) for detail in details):
            found.append(f"{one!r:.60} is not counted")
    skipped = (
        run.frame("findings").filter(rule="update_skipped").filter(pl.col("verdict").is_in(["warning", "critical"]))
    )
    return [*found, *skipped["rule"].to_list()]
