"""A hand-written PPO loop in the style of CleanRL: an LSTM policy with factored, masked heads.

The recorder takes three calls: make it, ``minibatch`` before each backward, ``update`` after each inner loop.
``slot`` never has more than one valid action; ``style`` has a choice, no entropy bonus and one answer that always
pays, so it collapses by itself while the other heads go on exploring.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recorder import Recorder, td_errors

SIZES = {"op": 4, "slot": 3, "style": 3, "tempo": 3}
ENTROPY_COEF = {"op": 0.05, "slot": 0.05, "style": 0.0, "tempo": 0.05}
ENVS, STEPS, UPDATES, EPOCHS, MINIBATCHES = 16, 32, 120, 4, 4
GAMMA, LAMBDA, CLIP, MAX_GRAD_NORM, EPISODE = 0.9, 0.95, 0.2, 0.5, 16


class Agent(nn.Module):
    """LSTM body, one linear layer per head, and a critic."""

    def __init__(self, inputs: int = 8, hidden: int = 32) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden)
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, size) for name, size in SIZES.items()})
        self.critic = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, starts: Tensor, masks: dict[str, Tensor], state: tuple[Tensor, Tensor]) -> Any:
        """Run [T, B] steps, with the state put back to zero where an episode starts."""
        outputs = []
        for step, start in zip(x, starts, strict=True):
            keep = (1.0 - start).view(1, -1, 1)
            output, state = self.lstm(step.unsqueeze(0), (keep * state[0], keep * state[1]))
            outputs.append(output)
        hidden = torch.cat(outputs)
        logits = {name: torch.where(masks[name], head(hidden), -1e8) for name, head in self.heads.items()}
        return {name: one.log_softmax(-1) for name, one in logits.items()}, self.critic(hidden).squeeze(-1), state


class Yards:
    """A batch of environments: the right op follows from what was seen one step before."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.age = self.random.integers(EPISODE, size=ENVS)
        self.total = np.zeros(ENVS)
        self.cue = self.last = self.random.integers(4, size=ENVS)

    def observe(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return observations [B, 8] and masks [B, K]."""
        x = np.zeros((ENVS, 8), np.float32)
        x[np.arange(ENVS), self.cue] = 1.0
        x[:, 4] = self.age / EPISODE
        masks = {name: np.ones((ENVS, size), bool) for name, size in SIZES.items()}
        masks["op"] = self.random.random((ENVS, 4)) < 0.8
        masks["op"][np.arange(ENVS), self.last] = True
        masks["slot"][:, 1:] = False
        masks["tempo"][self.random.random(ENVS) < 0.5, 1:] = False
        return torch.from_numpy(x), {name: torch.from_numpy(mask) for name, mask in masks.items()}

    def step(self, actions: dict[str, Tensor]) -> tuple[Tensor, Tensor, list[tuple[int, float]]]:
        """Return rewards [B], which environments start anew [B], and finished episodes (env, return)."""
        taken = {name: action.numpy() for name, action in actions.items()}
        styled = (taken["style"] == 1) | (taken["op"] == 0)
        reward = 0.5 * (taken["op"] == self.last) + 0.5 * styled + 0.2 * (taken["tempo"] == self.cue % 3)
        reward += 0.3 * self.random.normal(size=ENVS)
        self.total += reward
        self.age += 1
        done = self.age >= EPISODE
        finished = [(int(env), float(self.total[env])) for env in np.flatnonzero(done)]
        self.age[done], self.total[done] = 0, 0.0
        self.last = np.where(done, 0, self.cue)
        self.cue = self.random.integers(4, size=ENVS)
        return torch.from_numpy(reward).float(), torch.from_numpy(done).float(), finished


def collect(agent: Agent, yards: Yards, state: Any, start: Tensor, rec: Recorder) -> dict[str, Any]:
    """Act for one rollout; return what the update needs, time first."""
    kept: dict[str, list[Any]] = {
        name: [] for name in ("x", "start", "masks", "actions", "log_prob", "value", "reward")
    }
    first = state
    with torch.no_grad():
        for _ in range(STEPS):
            x, masks = yards.observe()
            now = {name: mask.unsqueeze(0) for name, mask in masks.items()}
            logits, value, state = agent(x.unsqueeze(0), start.unsqueeze(0), now, state)
            actions = {name: torch.distributions.Categorical(logits=one[0]).sample() for name, one in logits.items()}
            log_prob = {name: one[0].gather(1, actions[name][:, None])[:, 0] for name, one in logits.items()}
            reward, done, finished = yards.step(actions)
            for name, cell in zip(kept, (x, start, masks, actions, log_prob, value[0], reward), strict=True):
                kept[name].append(cell)
            for env, total in finished:
                rec.episode(total, EPISODE, env=env)
            start = done
        x, masks = yards.observe()
        ahead = {name: mask.unsqueeze(0) for name, mask in masks.items()}
        _, last, _ = agent(x.unsqueeze(0), start.unsqueeze(0), ahead, state)
    rollout = {name: _stacked(cells) for name, cells in kept.items()}
    rollout["advantages"] = _gae(rollout["reward"], rollout["value"], rollout["start"], last[0], start)
    ends = torch.cat([rollout["start"][1:], start.unsqueeze(0)])
    rollout["td_errors"] = td_errors(rollout["value"], rollout["reward"], ends, last[0], GAMMA)
    return rollout | {
        "returns": rollout["advantages"] + rollout["value"],
        "first": first,
        "state": state,
        "next": start,
    }


def _stacked(cells: list[Any]) -> Any:
    if isinstance(cells[0], dict):
        return {name: torch.stack([cell[name] for cell in cells]) for name in cells[0]}
    return torch.stack(cells)


def _gae(reward: Tensor, value: Tensor, start: Tensor, last: Tensor, done: Tensor) -> Tensor:
    """Return generalised advantage estimates [T, B] (Schulman et al. 2016)."""
    advantages, running = torch.zeros_like(reward), torch.zeros(ENVS)
    for t in reversed(range(STEPS)):
        alive = 1.0 - (done if t == STEPS - 1 else start[t + 1])
        ahead = last if t == STEPS - 1 else value[t + 1]
        running = reward[t] + GAMMA * ahead * alive - value[t] + GAMMA * LAMBDA * alive * running
        advantages[t] = running
    return advantages


def _relevant(actions: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return where the heads that do not always matter did."""
    return {"style": actions["op"] != 0}


def train(
    agent: nn.Module,
    optimizer: torch.optim.Optimizer,
    rollout: dict[str, Any],
    rec: Recorder,
    entropy_coef: dict[str, float] = ENTROPY_COEF,
) -> None:
    """One update: epochs over minibatches of whole environments, so that the state can be followed."""
    for epoch in range(EPOCHS):
        for envs in torch.randperm(ENVS).split(ENVS // MINIBATCHES):
            part = {
                name: {k: v[:, envs] for k, v in rollout[name].items()} for name in ("masks", "actions", "log_prob")
            }
            state = tuple(one[:, envs] for one in rollout["first"])
            logits, value, end = agent(rollout["x"][:, envs], rollout["start"][:, envs], part["masks"], state)
            new = {k: one.gather(2, part["actions"][k].unsqueeze(2)).squeeze(2) for k, one in logits.items()}
            entropy = {name: -(one.exp() * one).sum(-1) for name, one in logits.items()}
            relevant = _relevant(part["actions"])
            heads = {name: new[name] - part["log_prob"][name] for name in SIZES}
            heads |= {name: heads[name] * matters for name, matters in relevant.items()}
            log_ratio = torch.stack(list(heads.values())).sum(0)
            advantages = rollout["advantages"][:, envs]
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
            ratio = log_ratio.exp()
            policy_loss = -torch.min(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages).mean()
            value_loss = (value - rollout["returns"][:, envs]).square().mean()
            bonus = torch.stack([entropy_coef[name] * one.mean() for name, one in entropy.items()]).sum()
            loss = policy_loss + 0.5 * value_loss - bonus
            rec.minibatch(
                log_prob=new,
                old_log_prob=part["log_prob"],
                entropy=entropy,
                masks=part["masks"],
                relevant=relevant,
                clip_range=CLIP,
                policy_loss=policy_loss,
                value_loss=value_loss,
                loss=loss,
                values=value,
                actions=part["actions"],
                advantages=advantages,
                returns=rollout["returns"][:, envs],
                old_values=rollout["value"][:, envs],
                epoch=epoch,
                lstm=end,
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), MAX_GRAD_NORM)
            optimizer.step()


def recorder(run_dir: Path, agent: Agent, **more: Any) -> Recorder:
    """Return a recorder of an agent; ``more`` is what differs between the scripts that use this loop."""
    return Recorder(
        run_dir,
        **({"model": agent} | more),
        heads={name: agent.heads[name] for name in SIZES},
        sizes=SIZES,
        groups={"actor": agent.heads, "critic": agent.critic, "lstm": agent.lstm},
        coefficients=ENTROPY_COEF,
        algorithm="PPO with LSTM and masked heads",
    )


def end_update(rec: Recorder, rollout: dict[str, Any], update: int) -> None:
    """Give the recorder what is known once an update is over."""
    rec.update(
        values=rollout["value"],
        returns=rollout["returns"],
        advantages=rollout["advantages"],
        masks=rollout["masks"],
        relevant=_relevant(rollout["actions"]),
        lstm=rollout["state"],
        td_errors=rollout["td_errors"],
        rewards=rollout["reward"],
        env_steps=(update + 1) * STEPS * ENVS,
    )


def lstm_masks(run_dir: Path, tell: Callable[[int], None]) -> None:
    """Train and record it."""
    torch.manual_seed(1)
    agent, yards = Agent(), Yards(1)
    optimizer = torch.optim.Adam(agent.parameters(), lr=3e-3)
    state, start = (torch.zeros(1, ENVS, 32), torch.zeros(1, ENVS, 32)), torch.ones(ENVS)
    with recorder(
        run_dir,
        agent,
        total_updates=UPDATES,
        overhead_budget=None,
        framework="hand-written",
        hyperparameters={"gamma": GAMMA, "gae_lambda": LAMBDA, "clip_range": CLIP, "learning_rate": 3e-3},
        seeds={"torch": 1, "environments": 1},
    ) as rec:
        for update in range(UPDATES):
            tell(update)
            rollout = collect(agent, yards, state, start, rec)
            state, start = rollout["state"], rollout["next"]
            train(agent, optimizer, rollout, rec)
            end_update(rec, rollout, update)
