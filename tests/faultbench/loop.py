"""A hand-written PPO loop whose every step asks ``knobs`` first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal

from recorder import Recorder, td_errors
from tests.faultbench.draw import Setup
from tests.faultbench.tasks import TASKS
from tests.faultbench.training import Episode, Knobs, LoopOutcome, Training, World, estimates

State = tuple[Tensor, ...]
Part = Callable[[Any], Any]
"""Takes a minibatch of cells [T, B], or of each in a mapping."""


class Body(nn.Module):
    """Features of an observation [N, *shape]: two layers, or a convolution before them."""

    def __init__(self, shape: tuple[int, ...], hidden: int, activation: str) -> None:
        super().__init__()
        act = nn.Tanh if activation == "tanh" else nn.ReLU
        if len(shape) == 3:
            self.layers = nn.Sequential(
                nn.Conv2d(shape[0], 8, 4, 2), act(), nn.Flatten(), nn.Linear(8 * 7 * 7, hidden), act()
            )
        else:
            self.layers = nn.Sequential(nn.Linear(math.prod(shape), hidden), act(), nn.Linear(hidden, hidden), act())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class Agent(nn.Module):
    """A body (or two), a memory where the task needs one, a linear layer a head, or a mean with its own log std."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        task = TASKS[setup.task].make
        self.sizes, self.dimensions, hidden = task.sizes, task.dimensions, setup.hidden
        self.body = Body(task.shape, hidden, setup.activation)
        self.critic_body = None if setup.shared or setup.recurrent else Body(task.shape, hidden, setup.activation)
        self.memory = {"lstm": nn.LSTM, "gru": nn.GRU}[setup.recurrent](hidden, hidden) if setup.recurrent else None
        self.heads = nn.ModuleDict({name: _head(hidden, size, 0.01) for name, size in self.sizes.items()})
        if self.dimensions:
            self.mean = _head(hidden, self.dimensions, 0.01)
            self.log_std = nn.Parameter(torch.zeros(self.dimensions))
        self.critic = _head(hidden, 1, 1.0)
        self.hidden = hidden

    def first_state(self, count: int) -> State:
        """Return the state of ``count`` environments in which nothing was seen yet; empty without a memory."""
        if self.memory is None:
            return ()
        zeros = torch.zeros(1, count, self.hidden)
        return (zeros, zeros.clone()) if isinstance(self.memory, nn.LSTM) else (zeros,)

    def forward(self, x: Tensor, starts: Tensor, state: State, knobs: Knobs) -> tuple[dict[str, Tensor], Tensor, State]:
        """Return logits (or the mean) by head and values of [T, B] steps, and the state afterwards."""
        steps, count = x.shape[:2]
        flat = x.flatten(0, 1)
        features = self.body(flat).unflatten(0, (steps, count))
        if self.memory is not None:
            features, state = self._remember(features, starts, state)
        outputs = {name: head(features) for name, head in self.heads.items()}
        if self.dimensions:
            outputs["move"] = self.mean(features)
        if knobs.detach_head is not None:
            name = knobs.detach_head if knobs.detach_head in outputs else next(iter(outputs))
            outputs[name] = outputs[name].detach()
        of_critic = features if self.critic_body is None else self.critic_body(flat).unflatten(0, (steps, count))
        value = self.critic(of_critic).squeeze(-1)
        return outputs, value.detach() if knobs.detach_critic else value, state

    def _remember(self, features: Tensor, starts: Tensor, state: State) -> tuple[Tensor, State]:
        outputs = []
        for step, start in zip(features, starts, strict=True):
            kept = tuple((1.0 - start).view(1, -1, 1) * part for part in state)
            assert self.memory is not None
            output, after = self.memory(step.unsqueeze(0), kept if len(kept) == 2 else kept[0])
            state = after if isinstance(after, tuple) else (after,)
            outputs.append(output)
        return torch.cat(outputs), state


def _head(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class LoopTraining(Training):
    """A training by the hand-written loop."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.agent = Agent(setup)
        self._optimizer: torch.optim.Optimizer = torch.optim.Adam(
            self.agent.parameters(), lr=setup.learning_rate, eps=1e-5
        )
        self._state = self.agent.first_state(setup.environments)
        self._starts = torch.ones(setup.environments)
        self._rollout: dict[str, Any] | None = None

    @property
    def network(self) -> nn.Module:
        return self.agent

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._optimizer

    def replace_optimizer(self, new: torch.optim.Optimizer) -> None:
        self._optimizer = new

    def policy_body(self) -> nn.Module:
        return self.agent.body

    def action_layers(self) -> Sequence[tuple[nn.Linear, Sequence[int]]]:
        heads = self.agent.heads.values()
        return [(head, (head.out_features,)) for head in heads if isinstance(head, nn.Linear)]

    def critic_body(self) -> nn.Module | None:
        return self.agent.critic_body

    def change_state(self, change: Callable[[Tensor], Tensor]) -> None:
        self._state = tuple(change(one) for one in self._state)

    def run(self, run_dir: Path, before: Callable[[Training, int], None]) -> LoopOutcome:
        try:
            with self._recorder(run_dir) as rec:
                for update in range(self.setup.updates):
                    before(self, update)
                    self._update(update, rec)
        except (ValueError, RuntimeError) as error:
            self.outcome.died = f"{type(error).__name__}: {error}"
        return self.outcome

    def _update(self, update: int, rec: Recorder) -> None:
        rate = self.rate(update)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if len(self.optimizer.param_groups) > 1:
            self.optimizer.param_groups[1]["lr"] = rate * self.knobs.critic_rate
        collected = self._collect(rec)
        rollout = collected if self.knobs.refill or self._rollout is None else self._rollout
        self._rollout = rollout
        self._train(rollout, rec)
        rec.update(
            values=rollout["values"],
            returns=rollout["returns"],
            advantages=rollout["advantages"],
            rewards=rollout["rewards"],
            ends=rollout["ends"],
            observations=rollout["x"],
            td_errors=rollout["td_errors"],
            masks=rollout["masks"] or None,
            lstm=self._state or None,
            learning_rate=rate,
            entropy_coef=self.knobs.entropy_coefficient(self.setup),
            value_coef=self.setup.value_coefficient * self.knobs.value,
            gamma=self.knobs.gamma_of(self.setup),
            target_kl=self.knobs.target_kl,
            env_steps=(update + 1) * self.setup.steps * self.setup.environments,
        )

    def _recorder(self, run_dir: Path) -> Recorder:
        setup, agent = self.setup, self.agent
        heads: dict[str, nn.Module] = dict(agent.heads)
        if agent.dimensions:
            heads["move"] = agent.mean
        return Recorder(
            run_dir,
            agent,
            heads=heads,
            sizes=agent.sizes or None,
            kinds={"move": "gaussian"} if agent.dimensions else None,
            total_updates=setup.updates,
            overhead_budget=None,
            framework="hand-written",
            algorithm="PPO",
            hyperparameters=setup.as_json() | {"kind": "", "onset": 0},
            seeds={"torch": setup.number},
        )

    def _collect(self, rec: Recorder) -> dict[str, Any]:
        knobs, setup = self.knobs, self.setup
        kept: dict[str, list[Any]] = {name: [] for name in ("x", "starts", "masks", "actions", "log_prob", "values")}
        rewards, ends, first = [], [], self._state
        finished: list[Episode] = []
        agent = self.agent if knobs.actor is None else knobs.actor
        agent.eval()
        with torch.no_grad():
            for _ in range(setup.steps):
                x, masks = self.world.observe(), self.world.masks()
                if knobs.keep_state:
                    self._starts = torch.zeros_like(self._starts)
                outputs, value, self._state = agent(x[None], self._starts[None], self._state, knobs)
                if knobs.temperature != 1.0:
                    outputs = {name: one / knobs.temperature for name, one in outputs.items()}
                chosen = self._distributions(outputs, {name: mask[None] for name, mask in masks.items()})
                actions = {name: (one.mode if knobs.greedy else one.sample())[0] for name, one in chosen.items()}
                of = {name: one.sample()[0] for name, one in chosen.items()} if knobs.resample else actions
                log_prob = {name: _log_prob(one, of[name][None])[0] for name, one in chosen.items()}
                reward, over, episodes = self.world.act(actions)
                for one in episodes:
                    rec.episode(one.total, one.length, env=one.env)
                finished += episodes
                rewards.append(reward)
                ends.append(torch.zeros_like(over) if knobs.ignore_ends else over)
                stored = x if knobs.stored_observation is None else knobs.stored_observation(x)
                logged = actions if knobs.logged is None else {k: knobs.logged(v) for k, v in actions.items()}
                for name, cell in zip(kept, (stored, self._starts, masks, logged, log_prob, value[0]), strict=True):
                    kept[name].append(cell)
                self._starts = torch.zeros_like(over) if knobs.ignore_ends else over
            after = self.world.observe()
            _, last, _ = agent(after[None], self._starts[None], self._state, knobs)
        if knobs.next_observation:
            kept["x"] = [*kept["x"][1:], after]
        self.ended(finished)
        rollout = {name: _stacked(cells) for name, cells in kept.items()}
        return self._estimated(rollout, torch.stack(rewards), torch.stack(ends), last) | {
            "first": self._state if knobs.late_state else first
        }

    def _estimated(self, rollout: dict[str, Any], reward: Tensor, end: Tensor, last: Tensor) -> dict[str, Any]:
        """Return the rollout with what is computed from it as it ends."""
        knobs, setup = self.knobs, self.setup
        if knobs.stored_values is not None:
            rollout["values"] = knobs.stored_values(rollout["values"])
        advantages = estimates(knobs, setup, reward, rollout["values"], end, last[0])
        returns = advantages + rollout["values"]
        if knobs.target_shift:
            returns = returns.roll(knobs.target_shift, 0)
        if knobs.targets is not None:
            returns = knobs.targets(returns, reward)
        if knobs.stored_starts is not None:
            rollout["starts"] = knobs.stored_starts(rollout["starts"])
        if knobs.advantages is not None:
            advantages = knobs.advantages(advantages)
        if knobs.log_prob is not None:
            rollout["log_prob"] = {name: knobs.log_prob(one) for name, one in rollout["log_prob"].items()}
        errors = td_errors(rollout["values"], reward, end, last[0], knobs.gamma_of(setup))
        rollout |= {"advantages": advantages, "returns": returns, "rewards": reward, "ends": end}
        return rollout | {"td_errors": errors}

    def play(self, world: World, steps: int) -> None:
        state, starts = self.agent.first_state(self.setup.environments), torch.ones(self.setup.environments)
        self.agent.eval()
        with torch.no_grad():
            for _ in range(steps):
                outputs, _, state = self.agent(world.observe()[None], starts[None], state, self.knobs)
                masks = {name: mask[None] for name, mask in world.masks().items()}
                best = {name: one.mode[0] for name, one in self._distributions(outputs, masks).items()}
                _, starts, _ = world.act(best)

    def _distributions(self, outputs: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, Any]:
        if self.agent.dimensions:
            return {"move": Normal(outputs["move"], self.agent.log_std.exp())}
        return {
            name: Categorical(logits=torch.where(masks[name], one, -1e8) if name in masks else one)
            for name, one in outputs.items()
        }

    def _train(self, rollout: dict[str, Any], rec: Recorder) -> None:
        losses: list[float] = []
        self.agent.train()
        for epoch in range(self.setup.epochs * self.knobs.epochs):
            parts = self._minibatches()
            for part in parts if self.knobs.parts is None else self.knobs.parts(parts):
                loss, value_loss, kl = self._loss(rollout, part, epoch, rec)
                self.optimizer.zero_grad()
                loss.backward()
                self._step(rec)
                losses.append(value_loss)
            if self.knobs.target_kl is not None and kl > 1.5 * self.knobs.target_kl:
                break
        self.outcome.value_losses.append(float(np.mean(losses)))

    def _loss(self, rollout: dict[str, Any], part: Part, epoch: int, rec: Recorder) -> tuple[Tensor, float, float]:
        """Return the loss of a minibatch, the value loss in it, and how far the policy has moved (k3)."""
        knobs, setup = self.knobs, self.setup
        cut = {name: part(rollout[name]) for name in ("x", "starts", "actions", "log_prob", "masks")}
        advantages, returns = part(rollout["advantages"]), part(rollout["returns"])
        state = tuple(part(torch.zeros_like(one) if knobs.zero_state else one) for one in rollout["first"])
        outputs, value, after = self.agent(cut["x"], cut["starts"], state, knobs)
        masks = cut["masks"] if knobs.masks_in_update else {}
        chosen = self._distributions(outputs, masks)
        new = {name: _log_prob(one, cut["actions"][name]) for name, one in chosen.items()}
        entropy = {name: _entropy(one) for name, one in chosen.items()}
        old = {name: one.detach() for name, one in new.items()} if knobs.own_ratio else cut["log_prob"]
        moves = torch.stack([new[name] - old[name] for name in new])
        ratio = (moves.sum(0) if knobs.joined is None else knobs.joined(moves)).exp()
        if knobs.normalises(setup):
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        clip = setup.clip * knobs.clip
        policy_loss = -knobs.policy * (knobs.surrogate or _surrogate)(ratio, advantages, clip).mean()
        old_value = part(rollout["values"])
        limit = knobs.value_clip
        near = value if limit is None else old_value + (value - old_value).clamp(-limit, limit)
        value_loss = (near - returns).square().mean() if knobs.value_loss is None else knobs.value_loss(near, returns)
        bonus = torch.stack([one.mean() for one in entropy.values()]).sum()
        loss = policy_loss + setup.value_coefficient * knobs.value * value_loss
        loss = loss - knobs.entropy_coefficient(setup) * bonus
        rec.minibatch(
            log_prob=new,
            old_log_prob=old,
            entropy=entropy,
            masks=masks or None,
            clip_range=clip,
            policy_loss=policy_loss,
            value_loss=value_loss,
            loss=loss,
            values=value,
            advantages=advantages,
            returns=returns,
            old_values=old_value,
            epoch=epoch,
            lstm=after or None,
        )
        moved = (ratio - 1.0 - ratio.log()).mean()
        return loss, float(value_loss.detach()), float(moved.detach())

    def _step(self, rec: Recorder) -> None:
        parameters = list(self.agent.parameters())
        if self.knobs.half:  # a loss scale that is never lowered
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad = (parameter.grad * 2.0**24).half().float() / 2.0**24
        if self.knobs.clip_gradients:
            nn.utils.clip_grad_norm_(parameters, self.setup.max_grad_norm * self.knobs.grad_norm)
        else:
            rec.gradients()
        if self.knobs.step:
            self.optimizer.step()

    def _minibatches(self) -> list[Part]:
        """Return how to take each minibatch of a rollout [T, B]: whole environments where there is a memory."""
        setup, wanted = self.setup, self.setup.minibatches * self.knobs.minibatches
        if setup.recurrent:
            count = min(wanted, setup.environments)
            return [_environments(one) for one in torch.randperm(setup.environments).chunk(count)]
        return [_samples(one) for one in torch.randperm(setup.environments * setup.steps).chunk(wanted)]


def _environments(which: Tensor) -> Part:
    def part(cells: Any) -> Any:
        return {name: part(cell) for name, cell in cells.items()} if isinstance(cells, dict) else cells[:, which]

    return part


def _samples(which: Tensor) -> Part:
    def part(cells: Any) -> Any:
        if isinstance(cells, dict):
            return {name: part(cell) for name, cell in cells.items()}
        return cells.flatten(0, 1)[which].unsqueeze(0)

    return part


def _log_prob(distribution: Any, actions: Tensor) -> Tensor:
    found: Tensor = distribution.log_prob(actions)
    return found.sum(-1) if isinstance(distribution, Normal) else found


def _surrogate(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    return torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def _entropy(distribution: Any) -> Tensor:
    found: Tensor = distribution.entropy()
    return found.sum(-1) if isinstance(distribution, Normal) else found


def _stacked(cells: list[Any]) -> Any:
    if isinstance(cells[0], dict):
        return {name: torch.stack([cell[name] for cell in cells]) for name in cells[0]}
    return torch.stack(cells)
