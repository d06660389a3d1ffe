"""Trainings with the hand-written LSTM + masks loop of the sample runs, touched at a known update."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from recorder import Recorder
from sample_runs.lstm_loop import ENVS, EPISODE, SIZES, STEPS, Agent, Yards, collect, train
from tests.bench.zoo.label import ZooFault
from tests.bench.zoo.sb3 import Tell

COEFFICIENTS = {"op": 0.05, "slot": 0.05, "style": 0.3, "tempo": 0.05}
"""Entropy bonus by head: ``style`` has one answer that always pays, and needs more to go on exploring."""
RATE = 1e-3


class ZooTraining:
    """One seed of the loop: its parts are there to be touched between updates."""

    def __init__(self, seed: int, *, agent: Agent | None = None, yards: Yards | None = None) -> None:
        torch.manual_seed(seed)
        self.seed = seed
        self.agent = Agent() if agent is None else agent
        self.yards = Yards(seed) if yards is None else yards
        self.optimizer = torch.optim.Adam(self.agent.parameters(), lr=RATE)
        self.coefficients = dict(COEFFICIENTS)
        self.rollout: dict[str, Any] = {}

    def run(self, run_dir: Path, updates: int, tell: Tell, before: Callable[[int], None] | None = None) -> None:
        """Train and record ``updates``; ``before`` is called as each begins."""
        state, start = (torch.zeros(1, ENVS, 32), torch.zeros(1, ENVS, 32)), torch.ones(ENVS)
        with self._recorder(run_dir, updates) as rec:
            for update in range(updates):
                tell(update)
                if before is not None:
                    before(update)
                self.rollout = collect(self.agent, self.yards, state, start, rec)
                state, start = self.rollout["state"], self.rollout["next"]
                train(self.agent, self.optimizer, self.rollout, rec, self.coefficients)
                self._record(rec, state, update)

    def _record(self, rec: Recorder, state: Any, update: int) -> None:
        rec.update(
            **{name: self.rollout[name] for name in ("returns", "advantages", "masks", "td_errors")},
            values=self.rollout["value"],
            relevant={"style": self.rollout["actions"]["op"] != 0},
            lstm=state,
            env_steps=(update + 1) * STEPS * ENVS,
        )

    def _recorder(self, run_dir: Path, updates: int) -> Recorder:
        agent = self.agent
        return Recorder(
            run_dir,
            agent,
            heads={name: agent.heads[name] for name in SIZES},
            sizes=SIZES,
            groups={"actor": agent.heads, "critic": agent.critic, "lstm": agent.lstm},
            coefficients=self.coefficients,
            total_updates=updates,
            overhead_budget=None,
            framework="hand-written",
            algorithm="PPO with LSTM and masked heads",
            hyperparameters={"learning_rate": RATE, "episode": EPISODE},
            seeds={"torch": self.seed, "environments": self.seed},
        )


def sound(updates: int) -> Callable[[Path, int, Tell], tuple[ZooFault, ...]]:
    """Return how to train the loop to the end without touching it."""

    def train_one(run_dir: Path, seed: int, tell: Tell) -> tuple[ZooFault, ...]:
        ZooTraining(seed).run(run_dir, updates, tell)
        return ()

    return train_one
