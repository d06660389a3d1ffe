"""``stop_on``: the live policy says so in the update in which a replay does, and frameworks stop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import Env, spaces
from stable_baselines3 import PPO

import esper_analyze as ea
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.stop_policy import StopPolicy
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.errors import UsageError
from esper_analyze.replay.policy_scores import stops_of
from esper_analyze.runs.run import open_run
from recorder import Recorder
from recorder.adapters.sb3 import RecorderCallback
from tests.recorder.loop import Loop

POLICY = "kl_spike:critical; ratio_explosion:critical; numerical_instability:critical"


def leap(loop: Loop) -> None:
    """Let the next update begin far from the policy that collected its rollout."""
    bias = loop.agent.heads["op"].bias
    assert isinstance(bias, torch.Tensor)
    with torch.no_grad():
        bias += torch.tensor([9.0, -9.0, 9.0, -9.0])


@pytest.mark.parametrize("box", [False, True])
def test_the_live_policy_stops_where_a_replay_says(tmp_path: Path, box: bool) -> None:
    loop, stopped = Loop(), []
    with loop.recorder(tmp_path / "run", stop_on=POLICY, box=box) as rec:
        assert not rec.should_stop()
        for number in range(12):
            rollout = loop.rollout()
            if number == 8:
                leap(loop)
            loop.train(rec, rollout)
            rec.update()
            rec.state_dict()  # waits until the update is judged
            stopped.append(rec.should_stop())
        reason = rec.stop_reason
    run = open_run(tmp_path / "run")
    policy = StopPolicy.parsed(POLICY, [rule.name for rule in RULES])
    (stop,) = stops_of(run, [policy], RULES, Thresholds.defaults(RULES))
    assert stop == 8
    assert stopped == [False] * 8 + [True] * 4
    assert reason is not None
    assert reason.endswith("at update 8")
    assert ea.open(tmp_path / "run").info["stop_on"] == POLICY.split("; ")


def test_without_a_policy_nothing_stops(tmp_path: Path) -> None:
    loop = Loop()
    with loop.recorder(tmp_path / "run") as rec:
        leap(loop)
        loop.update(rec)
        assert not rec.should_stop()


def test_a_wrong_policy_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'kl_spike'"):
        Recorder(tmp_path / "run", stop_on="kl_spiky:critical")
    assert not (tmp_path / "run").exists()


class Still(Env[np.ndarray, int]):
    """Episodes of eight steps in which nothing changes."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)  # type: ignore[assignment]
    _step = 0

    def reset(self, **_: object) -> tuple[np.ndarray, dict[str, object]]:
        self._step = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
        self._step += 1
        return np.zeros(2, np.float32), float(action), self._step >= 8, False, {}


def test_stable_baselines3_stops_in_the_step_after_the_update(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = PPO("MlpPolicy", Still(), n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu", learning_rate=3.0)
    model.learn(16 * 40, callback=RecorderCallback(tmp_path / "run", stop_on="any:critical"))
    run = open_run(tmp_path / "run")
    policy = StopPolicy.parsed("any:critical", [rule.name for rule in RULES])
    (stop,) = stops_of(run, [policy], RULES, Thresholds.defaults(RULES))
    assert stop is not None
    assert run.last_update == stop
    assert model.num_timesteps == 16 * (stop + 1) + 1
