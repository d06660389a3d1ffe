"""Records the cases with CleanRL's tags: ``python -m tests.interchange.corpus.make.cleanrl_style FOLDER``.

A PPO loop of our own that logs under CleanRL's names with torch's SummaryWriter, at the same moments: episodes as they
end, losses of the last minibatch after each update, at the count of environment steps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal
from torch.utils.tensorboard import SummaryWriter

from tests.interchange.corpus.make.collect import SOUND, Collection, Diagnosis, event_files, event_name, refused, sound
from tests.interchange.corpus.make.environments import Cue

NAMES = {
    "losses/approx_kl": "kl_k3_last_epoch",
    "losses/clipfrac": "clip_fraction",
    "losses/explained_variance": "explained_variance",
    "losses/value_loss": "value_loss",
    "losses/entropy": "entropy",
}
CLEANRL = Collection("cleanrl", "1.0.0 (its tags, our own loop)")


GAMMA = 0.9


@dataclass
class ScriptSetting:
    """A training. ``change`` is called with the loop before the training of each update."""

    updates: int = 30
    steps: int = 128
    envs: int = 3
    learning_rate: float = 2e-3
    anneal: bool = False
    entropy: float = 0.01
    value: float = 0.5
    epochs: int = 6
    minibatches: int = 4
    gradient: float = 2.0
    seed: int = 1
    env: Callable[[], Any] = lambda: gym.make("CartPole-v1")
    change: Callable[[ScriptLoop, int], None] = lambda _loop, _update: None


def network(inputs: int, outputs: int, gain: float) -> nn.Sequential:
    layers = [nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs)]
    for layer, scale in ((layers[0], 2**0.5), (layers[2], gain)):
        nn.init.orthogonal_(layer.weight, scale)  # type: ignore[arg-type]
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers)


@dataclass
class ScriptLoop:
    """The state of a training."""

    setting: ScriptSetting
    folder: Path
    reward_scale: float = 1.0
    losses: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.manual_seed(self.setting.seed)
        self.envs = [self.setting.env() for _ in range(self.setting.envs)]
        space = self.envs[0].action_space
        self.discrete = isinstance(space, gym.spaces.Discrete)
        inputs = self.envs[0].observation_space.shape[0]
        self.actor = network(inputs, int(space.n) if self.discrete else space.shape[0], 0.01)
        self.critic = network(inputs, 1, 1.0)
        self.log_std = nn.Parameter(torch.zeros(1 if self.discrete else space.shape[0]))
        self.parameters = [*self.actor.parameters(), *self.critic.parameters(), self.log_std]
        self.optimizer = torch.optim.Adam(self.parameters, self.setting.learning_rate, eps=1e-5)
        self.writer = SummaryWriter(str(self.folder))
        self.random = np.random.default_rng(self.setting.seed)
        self.observations = [env.reset(seed=self.setting.seed + i)[0] for i, env in enumerate(self.envs)]
        self.episodes = [[0.0, 0] for _ in self.envs]
        self.count = 0

    def distribution(self, observations: Tensor) -> Any:
        output = self.actor(observations)
        if self.discrete:
            return Categorical(logits=output, validate_args=False)
        return Normal(output, self.log_std.exp().expand_as(output), validate_args=False)

    def log_prob(self, distribution: Any, actions: Tensor) -> tuple[Tensor, Tensor]:
        if self.discrete:
            return distribution.log_prob(actions), distribution.entropy()
        return distribution.log_prob(actions).sum(1), distribution.entropy().sum(1)

    def rollout(self) -> dict[str, Tensor]:
        columns: dict[str, list[Tensor]] = {name: [] for name in ("seen", "act", "old", "value", "reward", "done")}
        done = torch.zeros(len(self.envs))
        for _ in range(self.setting.steps):
            observations = torch.tensor(np.array(self.observations), dtype=torch.float32)
            with torch.no_grad():
                distribution = self.distribution(observations)
                if not torch.isfinite(distribution.logits if self.discrete else distribution.loc).all():
                    raise FloatingPointError("the policy is not a number")
                actions = distribution.sample()
                old = self.log_prob(distribution, actions)[0]
                values = self.critic(observations).squeeze(1)
            rewards, ended = self.step(actions)
            for name, column in zip(columns, (observations, actions, old, values, rewards, done), strict=True):
                columns[name].append(column)
            done = ended
        self.last_done = done
        return {name: torch.stack(column) for name, column in columns.items()}

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        rewards, ended = [], []
        self.count += len(self.envs)
        for index, (env, action) in enumerate(zip(self.envs, actions.numpy(), strict=True)):
            observation, reward, terminated, truncated, _ = env.step(int(action) if self.discrete else action)
            reward *= self.reward_scale
            episode = self.episodes[index]
            episode[0] += reward
            episode[1] += 1
            if terminated or truncated:
                self.writer.add_scalar("charts/episodic_return", episode[0], self.count)
                self.writer.add_scalar("charts/episodic_length", episode[1], self.count)
                self.episodes[index] = [0.0, 0]
                observation, _ = env.reset()
            self.observations[index] = observation
            rewards.append(float(reward))
            ended.append(float(terminated or truncated))
        return torch.tensor(rewards), torch.tensor(ended)

    def advantages(self, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            following = self.critic(torch.tensor(np.array(self.observations), dtype=torch.float32)).squeeze(1)
        advantages, last, done = torch.zeros_like(batch["reward"]), torch.zeros(len(self.envs)), self.last_done
        for step in reversed(range(self.setting.steps)):
            delta = batch["reward"][step] + GAMMA * following * (1 - done) - batch["value"][step]
            last = delta + GAMMA * 0.95 * (1 - done) * last
            advantages[step], following, done = last, batch["value"][step], batch["done"][step]
        return advantages

    def update(self, batch: dict[str, Tensor]) -> None:
        advantages = self.advantages(batch)
        flat = {name: column.flatten(0, 1) for name, column in batch.items()} | {"advantage": advantages.flatten()}
        returns = flat["advantage"] + flat["value"]
        clipped = []
        for _ in range(self.setting.epochs):
            for index in np.array_split(self.random.permutation(len(returns)), self.setting.minibatches):
                part = {name: column[index] for name, column in flat.items()}
                clipped.append(self.minibatch(part, returns[index]))
        self.losses["clipfrac"] = float(np.mean(clipped))
        spread = np.var(returns.numpy())
        residual = np.var(returns.numpy() - flat["value"].numpy())
        self.losses["explained_variance"] = float("nan") if spread == 0 else float(1 - residual / spread)

    def minibatch(self, part: dict[str, Tensor], returns: Tensor) -> float:
        new, entropy = self.log_prob(self.distribution(part["seen"]), part["act"])
        log_ratio = new - part["old"]
        ratio = log_ratio.exp()
        advantage = (part["advantage"] - part["advantage"].mean()) / (part["advantage"].std() + 1e-8)
        policy_loss = torch.max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)).mean()
        value_loss = 0.5 * (self.critic(part["seen"]).squeeze(1) - returns).square().mean()
        loss = policy_loss - self.setting.entropy * entropy.mean() + self.setting.value * value_loss
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.setting.gradient)
        self.optimizer.step()
        with torch.no_grad():
            self.losses = {
                "value_loss": value_loss.item(),
                "policy_loss": policy_loss.item(),
                "entropy": entropy.mean().item(),
                "old_approx_kl": (-log_ratio).mean().item(),
                "approx_kl": ((ratio - 1) - log_ratio).mean().item(),
            }
            return float(((ratio - 1).abs() > 0.2).float().mean())


def train(folder: Path, **settings: Any) -> Path:
    """Train; a training whose policy becomes NaN ends when it must act."""
    setting = ScriptSetting(**settings)
    loop = ScriptLoop(setting, folder)
    for update in range(setting.updates):
        if setting.anneal:
            loop.optimizer.param_groups[0]["lr"] = (1 - update / setting.updates) * setting.learning_rate
        setting.change(loop, update)
        try:
            batch = loop.rollout()
        except FloatingPointError:
            break
        loop.update(batch)
        loop.writer.add_scalar("charts/learning_rate", loop.optimizer.param_groups[0]["lr"], loop.count)
        for name, number in loop.losses.items():
            loop.writer.add_scalar(f"losses/{name}", number, loop.count)
        loop.writer.add_scalar("charts/SPS", 1000, loop.count)
    loop.writer.close()
    return folder


def at(update: int, change: Callable[[ScriptLoop], None]) -> Callable[[ScriptLoop, int], None]:
    return lambda loop, number: change(loop) if number == update else None


def rate(factor: float) -> Callable[[ScriptLoop], None]:
    def change(loop: ScriptLoop) -> None:
        loop.optimizer.param_groups[0]["lr"] *= factor

    return change


def one_action(loop: ScriptLoop) -> None:
    last: Any = loop.actor[2]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([60.0, -60.0]))


def nan_reward(loop: ScriptLoop) -> None:
    loop.reward_scale = float("nan")


def stopped(loop: ScriptLoop) -> None:
    loop.setting.gradient = 0.0
    loop.optimizer.state.clear()


def keep(folder: Path, diagnosis: Diagnosis, split: str) -> None:
    path = f"{folder.name}/{event_name()}"
    CLEANRL.keep([(event_files(folder)[0], path)], path, diagnosis, split=split, names=NAMES)


def other_algorithm(folder: Path, tags: Iterable[str], algorithm: str, split: str) -> None:
    """Write the tags of another algorithm with numbers out of a generator: no training."""
    random, writer = np.random.default_rng(0), SummaryWriter(str(folder))
    for step in range(100, 3001, 100):
        writer.add_scalar("charts/episodic_return", random.uniform(10, 100), step - 7)
        writer.add_scalar("charts/episodic_length", random.integers(10, 100), step - 7)
        for tag in tags:
            writer.add_scalar(tag, random.uniform(0, 1), step)
    writer.close()
    path = f"{folder.name}/{event_name()}"
    written = Collection(CLEANRL.framework, "1.0.0", "written")
    written.keep([(event_files(folder)[0], path)], path, refused(algorithm), split=split)


def main(out: Path) -> None:
    few = {"envs": 2, "steps": 64}  # CleanRL logs each episode: a dead policy has many
    keep(train(out / "cartpole"), SOUND, "tune")
    solved = sound("the task is solved: every return is 1, explained variance undefined or far below 0")
    cue = {"env": Cue, "steps": 4, "envs": 2, "minibatches": 1, "epochs": 6, "learning_rate": 3e-3, "updates": 26}
    keep(train(out / "solved", **cue), solved, "held")
    fault = Diagnosis("kl_too_high", "learning rate 80 times too large from update 20 on", 20)
    keep(train(out / "rate_too_large", change=at(20, rate(80)), seed=6), fault, "held")
    fault = Diagnosis("policy_dead", "one action only, entropy 0, from update 17 on", 17)
    keep(train(out / "policy_dead", change=at(17, one_action), **few), fault, "held")
    fault = Diagnosis("critic_never_learns", "value coefficient 0: the critic is never trained", 0)
    keep(train(out / "critic_never_learns", value=0.0, seed=7, updates=40), fault, "tune")
    fault = Diagnosis("nan", "the reward is NaN from update 20 on; the training ends in the update after it", 20)
    keep(train(out / "nan_reward", change=at(20, nan_reward), seed=8), fault, "held")
    fault = Diagnosis("no_longer_learns", "gradients are clipped to 0 from update 15 on: no parameter moves", 15)
    keep(train(out / "no_longer_learns", change=at(15, stopped), seed=9), fault, "tune")
    dqn = ("losses/td_loss", "losses/q_values", "charts/SPS")
    other_algorithm(out / "dqn", dqn, "DQN", "tune")
    sac = ("qf1_values", "qf2_values", "qf1_loss", "qf2_loss", "qf_loss", "actor_loss", "alpha", "alpha_loss")
    other_algorithm(out / "sac", [f"losses/{name}" for name in sac] + ["charts/SPS"], "SAC", "held")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
