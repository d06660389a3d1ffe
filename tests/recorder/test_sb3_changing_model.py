"""A head of an SB3 policy replaced between two calls of ``learn``: norms are torch's own, the change is an event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO

from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.runs.run import open_run
from esper_analyze.storage.maintenance.verify import verify
from recorder.adapters.sb3 import attach

STEPS, BEFORE, AFTER = 64, 3, 3
HEADS = {"one": ("action",), "two": ("op", "slot")}


class Env(gym.Env[Any, Any]):
    """Random observations; the return is the first action."""

    def __init__(self, heads: int) -> None:
        self.observation_space = spaces.Box(-1, 1, (3,))
        self.action_space = spaces.Discrete(3) if heads == 1 else spaces.MultiDiscrete([3, 2])
        self.random, self.steps = np.random.default_rng(0), 0

    def _seen(self) -> Any:
        return self.random.uniform(-1, 1, 3).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed, options=options)
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._seen(), float(np.ravel(action)[0]), False, self.steps % 16 == 0, {}


def learn(model: PPO) -> None:
    """Two chunks; between them the actor's last layer is replaced, and scaled so that its norms are others."""
    model.learn(STEPS * BEFORE)
    old = model.policy.action_net
    assert isinstance(old, torch.nn.Linear)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model.policy.action_net = torch.nn.Linear(old.in_features, old.out_features)
    model.policy.optimizer = torch.optim.Adam(model.policy.parameters(), lr=3e-4)
    model.learn(STEPS * AFTER, reset_num_timesteps=False)


def made(heads: int) -> PPO:
    return PPO("MlpPolicy", Env(heads), n_steps=STEPS, batch_size=32, n_epochs=2, seed=1, device="cpu")


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_a_replaced_head_is_followed(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true: list[float] = []
    of_head: list[float] = []
    clip, heads = torch.nn.utils.clip_grad_norm_, HEADS[kind]
    model = made(len(heads))

    def kept(*args: Any, **kwargs: Any) -> torch.Tensor:
        layer = model.policy.action_net
        grads = [p.grad for p in layer.parameters() if p.grad is not None]
        of_head.append(float(torch.cat([grad.flatten() for grad in grads]).norm()))
        norm = clip(*args, **kwargs)
        true.append(float(norm))
        return norm

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", kept)
    with attach(model, tmp_path / "run", heads=heads, overhead_budget=None, strict=True):
        learn(model)
    monkeypatch.undo()
    run = open_run(tmp_path / "run")
    assert run.frame("steps")["grad_norm_pre_clip"].to_list() == pytest.approx(true, rel=1e-5)
    rows = run.frame("heads").to_dicts()
    assert {row["grad_state"] for row in rows} == {"finite"}
    norms = np.array([[row["grad_norm"] for row in rows if row["head"] == name] for name in heads])
    steps = np.array(of_head).reshape(BEFORE + AFTER, -1)
    if len(heads) == 1:
        assert norms[0] == pytest.approx(steps.mean(axis=1), rel=1e-5)
    else:  # parts of one layer: the mean of norms is never above the layer's, the norm of means never above either
        assert (np.sqrt(np.square(norms).sum(axis=0)) <= steps.mean(axis=1) * (1 + 1e-5)).all()
        assert (norms.sum(axis=0) >= steps.mean(axis=1) * (1 - 1e-5)).all()
    events = [(row["update"], row["kind"], row["subject"]) for row in run.frame("events").to_dicts()]
    subjects = ["action_net.weight", "action_net.bias", *(f"head:{name}" for name in heads)]
    assert events == [(BEFORE, "parameters_replaced", subject) for subject in subjects]
    changed = {(row["update"], row["group"]) for row in run.frame("groups").to_dicts() if row["parameters_changed"]}
    assert changed >= {(BEFORE, f"head:{name}") for name in heads}
    assert {update for update, _ in changed} == {BEFORE}
    assert len(run.frame("losses_of_data")) == 0
    assert verify(run.path).as_dict()["faults"] == []
    assert differences(replay(run), recorded(run)) == []
    alone = made(len(heads))
    learn(alone)
    pairs = zip(model.policy.parameters(), alone.policy.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
