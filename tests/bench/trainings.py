"""The trainings that are timed with and without a recorder: real ones, the same to the last bit on both sides."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from recorder import Recorder
from recorder.adapters.sb3 import attach
from sample_runs import lstm_loop
from sample_runs.environments import HEADS, RememberedCue, Workshop
from sample_runs.sb3_runs import monitored
from tests.bench.relay import Relay

ENVS = 2

STEPS_A_TURN = 8
"""Environment steps before the other side has its turn; in the inner loop a turn is one optimizer step."""


@dataclass(frozen=True)
class RecordingPlan:
    """Where a training is recorded, at which level, and with or without a box beside it.

    ``box``: None, "spare" on cores of its own, or "pinned" to that of the training.
    """

    run_dir: Path
    level: str
    box: str | None = None

    def place_box(self, core: int) -> None:
        """Move the box to the training's ``core``, or away from it."""
        cores = {core} if self.box == "pinned" else os.sched_getaffinity(0) - {core}
        children = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").read_text().split()
        for child in children if self.box is not None else ():
            os.sched_setaffinity(int(child), cores)


class Trainee(Protocol):
    """One fresh model with its environments, ready to be trained once."""

    def train(self, updates: int, recording: RecordingPlan | None, relay: Relay) -> None:
        """Train for ``updates``, each told to ``relay`` as it begins; and the last as it has ended."""

    def parameters(self) -> dict[str, Tensor]:
        """Return the parameters by name."""


class _Turns(BaseCallback):
    """Swaps turns as each rollout begins and every few of its steps."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay

    def _on_step(self) -> bool:
        if self.n_calls % STEPS_A_TURN == 0:
            self._relay.swap()
        return True

    def _on_rollout_start(self) -> None:
        self._relay.update()


class Sb3Trainee:
    """A Stable-Baselines3 model, recorded through ``attach``."""

    def __init__(self, make: Callable[[], Any], heads: tuple[str, ...] | None = None) -> None:
        torch.manual_seed(0)
        self._model = make()  # seeds torch and numpy by its own seed too
        self._heads = heads

    def train(self, updates: int, recording: RecordingPlan | None, relay: Relay) -> None:
        steps = updates * self._model.n_steps * self._model.n_envs
        recorded = nullcontext() if recording is None else self._attached(recording)
        with recorded:
            if recording is not None:
                recording.place_box(relay.core)
            self._model.learn(steps, callback=_Turns(relay))
            relay.update()

    def _attached(self, recording: RecordingPlan) -> Any:
        return attach(
            self._model, recording.run_dir, heads=self._heads, level=recording.level, box=recording.box is not None
        )

    def parameters(self) -> dict[str, Tensor]:
        return dict(self._model.policy.state_dict())


class Silence:
    """Takes a recorder's calls and does nothing: the hand-written loop without recording."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: object) -> None:
        """Close nothing."""

    def minibatch(self, **_: object) -> None:
        """Take a minibatch."""

    def update(self, **_: object) -> None:
        """Take an update."""

    def episode(self, *_: object, **__: object) -> None:
        """Take an episode."""


class LoopTrainee:
    """The hand-written LSTM + masks loop of the sample runs."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self._agent, self._yards = lstm_loop.Agent(), lstm_loop.Yards(1)
        self._optimizer = torch.optim.Adam(self._agent.parameters(), lr=3e-3)

    def train(self, updates: int, recording: RecordingPlan | None, relay: Relay) -> None:
        envs = lstm_loop.ENVS
        state, start = (torch.zeros(1, envs, 32), torch.zeros(1, envs, 32)), torch.ones(envs)
        with cast("Recorder", Silence()) if recording is None else self._recorder(updates, recording) as rec:
            if recording is not None:
                recording.place_box(relay.core)
            for update in range(updates):
                relay.update()
                rollout = lstm_loop.collect(self._agent, self._yards, state, start, rec)
                state, start = rollout["state"], rollout["next"]
                lstm_loop.train(self._agent, self._optimizer, rollout, rec)
                rec.update(
                    **{name: rollout[name] for name in ("returns", "advantages", "masks")},
                    values=rollout["value"],
                    relevant={"style": rollout["actions"]["op"] != 0},
                    lstm=state,
                    env_steps=(update + 1) * lstm_loop.STEPS * envs,
                )
            relay.update()

    def _recorder(self, updates: int, recording: RecordingPlan) -> Recorder:
        agent = self._agent
        return Recorder(
            recording.run_dir,
            agent,
            heads={name: agent.heads[name] for name in lstm_loop.SIZES},
            sizes=lstm_loop.SIZES,
            groups={"actor": agent.heads, "critic": agent.critic, "lstm": agent.lstm},
            total_updates=updates,
            level=recording.level,
            box=recording.box is not None,
        )

    def parameters(self) -> dict[str, Tensor]:
        return dict(self._agent.state_dict())


@dataclass(frozen=True)
class TimedTraining:
    """How a trainee is made (a small one for a smoke run) and for how many updates it is timed.

    ``targets``: the share of the training that recording may add, by level. ``repeats``: times as many pairs, for one
    that is faster or slower from run to run.
    """

    make: Callable[[bool], Trainee]
    updates: int
    targets: dict[str, float]
    repeats: int = 1


def _envs(make: Callable[[int], Any]) -> DummyVecEnv:
    return DummyVecEnv([partial(monitored, make, seed) for seed in range(ENVS)])


def _maskable(small: bool) -> Trainee:
    options: dict[str, Any] = {"n_steps": 512, "batch_size": 128, "n_epochs": 10}
    if small:
        options = {"n_steps": 32, "batch_size": 64, "n_epochs": 1}
    options |= {"ent_coef": 0.01, "policy_kwargs": {"net_arch": [256, 256]}, "seed": 1, "device": "cpu"}
    return Sb3Trainee(lambda: MaskablePPO("MlpPolicy", _envs(Workshop), **options), HEADS)


def _recurrent(small: bool) -> Trainee:
    options: dict[str, Any] = {"n_steps": 128, "batch_size": 128, "n_epochs": 10}
    if small:
        options = {"n_steps": 16, "batch_size": 32, "n_epochs": 1}
    options |= {"seed": 1, "device": "cpu"}
    return Sb3Trainee(lambda: RecurrentPPO("MlpLstmPolicy", _envs(RememberedCue), **options))


TRAININGS = {
    "maskable": TimedTraining(_maskable, 4, {"NORMAL": 0.02, "DEBUG": 0.10}),
    "recurrent": TimedTraining(_recurrent, 4, {"NORMAL": 0.01, "DEBUG": 0.10}, repeats=2),
    "loop": TimedTraining(lambda _: LoopTrainee(), 14, {"NORMAL": 0.01, "DEBUG": 0.10}),
}
"""MaskablePPO with an MLP of 256 × 256 and four masked heads, RecurrentPPO with its default LSTM of 256, and the
hand-written loop with an LSTM of 32 and four masked heads: 2 to 20 ms an optimizer step on one thread."""
