"""Trainings that are the same alone and beside others in threads: none draws from a generator that they share."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from esper_analyze.runs.run import open_run
from esper_analyze.schema import TABLES
from recorder.adapters.sb3 import attach
from tests.faults.judge import CLOCK
from tests.recorder.loop import Loop

SWITCH = 1e-6
"""Seconds after which Python hands over to another thread: as often as it can."""
_making = threading.Lock()  # models are drawn from torch's own generator


def plain(seed: int, run_dir: Path | None, updates: int) -> str:
    """A hand-written loop."""
    with _making:
        loop = Loop(seed=seed)
    return _looped(loop, run_dir, updates)


def scaled(seed: int, run_dir: Path | None, updates: int) -> str:
    """The same loop with a loss scale of its own, which grows; every second one clips before it unscales."""
    with _making:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** (4 + seed), growth_interval=3)
        loop = Loop(seed=seed, scaler=scaler, unscale=seed % 2 == 0)
    return _looped(loop, run_dir, updates)


def _looped(loop: Loop, run_dir: Path | None, updates: int) -> str:
    if run_dir is None:
        for _ in range(updates):
            loop.update(None)
    else:
        with loop.recorder(run_dir, overhead_budget=None) as rec:
            for _ in range(updates):
                loop.update(rec)
    return digest(loop.agent)


class _Policy(ActorCriticPolicy):
    """Takes the likeliest action."""

    def forward(self, obs: torch.Tensor, deterministic: bool = True) -> Any:  # noqa: ARG002
        return super().forward(obs, deterministic=True)


class _Buffer(RolloutBuffer):
    """Shuffles by numbers of its own."""

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        size, order = self.buffer_size * self.n_envs, np.random.RandomState(self.pos)
        if not self.generator_ready:
            for name in ("observations", "actions", "values", "log_probs", "advantages", "returns"):
                self.__dict__[name] = self.swap_and_flatten(self.__dict__[name])
            self.generator_ready = True
        indices = order.permutation(size)
        for start in range(0, size, batch_size or size):
            yield self._get_samples(indices[start : start + (batch_size or size)])


def sb3(seed: int, run_dir: Path | None, updates: int) -> str:
    """Stable-Baselines3's PPO."""
    with _making:
        model = PPO(
            _Policy,
            "CartPole-v1",
            n_steps=32,
            batch_size=16,
            n_epochs=2,
            seed=seed,
            device="cpu",
            rollout_buffer_class=_Buffer,
        )
    if run_dir is None:
        model.learn(32 * updates)
    else:
        with attach(model, run_dir, strict=True, overhead_budget=None):
            model.learn(32 * updates)
    return digest(model.policy)


Training = Callable[[int, Path | None, int], str]
TRAININGS: dict[str, Training] = {"plain": plain, "scaled": scaled, "sb3": sb3}


def digest(model: nn.Module) -> str:
    """Return SHA-256 over all parameters, bit by bit."""
    found = hashlib.sha256()
    for parameter in model.parameters():
        found.update(parameter.detach().numpy().tobytes())
    return found.hexdigest()


@contextmanager
def switching() -> Iterator[None]:
    """Let threads alternate as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def differences(training: Training, folder: Path, *, threads: int, updates: int) -> list[str]:
    """Run trainings alone and in threads, one of them unrecorded; return what differs.

    They have different lengths, so that some end while others clip.
    """
    lengths = [updates - seed % 3 for seed in range(threads)]
    before = [training(seed, None, lengths[seed]) for seed in range(threads)]
    for seed in range(threads):
        training(seed, folder / f"alone-{seed}", lengths[seed])

    def one(seed: int) -> str:
        return training(seed, None if seed == threads - 1 else folder / f"beside-{seed}", lengths[seed])

    with switching(), ThreadPoolExecutor(threads) as pool:
        after = list(pool.map(one, range(threads)))
    found = [f"training {seed} was changed" for seed in range(threads) if before[seed] != after[seed]]
    for seed in range(threads - 1):
        found += [f"training {seed}: {one}" for one in _cells(folder / f"alone-{seed}", folder / f"beside-{seed}")]
    return found


def _cells(alone: Path, beside: Path) -> list[str]:
    runs, found = (open_run(alone), open_run(beside)), []
    for table in TABLES:
        first, second = (run.frame(table.name) for run in runs)
        if len(first) != len(second):
            found.append(f"{table.name}: {len(first)} rows alone, {len(second)} beside others")
            continue
        found += [
            f"{table.name}.{column}"
            for column in first.columns
            if column not in CLOCK and not first[column].equals(second[column], null_equal=True)
        ]
    return found
