"""A tiny PPO loop with real gradients and steps that can be made ill: every field but the first few is a symptom.

A sound update of it gives no rule anything to say, neither an alarm nor a missing number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from recorder import Recorder
from tests.recorder.growing import Growing

SIZES = {"op": 4, "slot": 2}
EPOCHS = 4
ENVIRONMENTS, GAMMA = 2, 0.9

State = tuple[Tensor, Tensor]


class Net(nn.Module):
    """Body, LSTM where wanted, two heads and a critic, four wide; samples in a row are steps of one environment."""

    def __init__(self, *, recurrent: bool) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.lstm = nn.LSTM(4, 4) if recurrent else None
        self.heads = nn.ModuleDict({name: nn.Linear(4, size) for name, size in SIZES.items()})
        self.critic = nn.Linear(4, 1)
        self.critic.weight.data.mul_(5.0)  # values about as far apart as 1

    def head(self, name: str) -> nn.Linear:
        head = self.heads[name]
        assert isinstance(head, nn.Linear)
        return head

    def forward(self, x: Tensor, masks: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, State | None]:
        hidden, state = torch.tanh(self.body(x)), None
        if self.lstm is not None:
            hidden, state = self.lstm(hidden.unsqueeze(1))
            hidden = hidden.squeeze(1)
        raw = {name: torch.where(masks[name], head(hidden), torch.tensor(-1e8)) for name, head in self.heads.items()}
        return {name: one.log_softmax(-1) for name, one in raw.items()}, self.critic(hidden).squeeze(-1), state


@dataclass
class Rollout:
    """What one collection of two environments gave, sample after sample.

    Returns look one step ahead, so that ``advantages`` are the TD errors as well: rewards are what makes them so.
    """

    x: Tensor
    masks: dict[str, Tensor]
    actions: dict[str, Tensor]
    old: dict[str, Tensor]
    values: Tensor
    returns: Tensor
    rewards: Tensor
    ends: Tensor
    state: State | None

    @property
    def advantages(self) -> Tensor:
        return self.returns - self.values


def unlike(like: Tensor, random: torch.Generator) -> Tensor:
    """Return noise of deviation 1, uncorrelated with ``like``: errors of known size."""
    noise, held = torch.randn(len(like), generator=random), like - like.mean()
    noise = noise - noise.mean()
    noise = noise - held * (noise @ held) / (held @ held)
    return 0.3 + noise / noise.std(correction=0)


@dataclass
class FaultyLoop:
    """One training; what follows ``net`` is sound by default, and what a fault changes."""

    samples: int = 16
    recurrent: bool = False
    same_data: bool = False
    net: Net = field(init=False)
    rec: Recorder = field(init=False)
    masked: bool = True
    single: tuple[str, ...] = ()  # heads whose masks leave one action
    episode_return: float = 100.0
    episodes: int = 2  # that end in an update
    episode_length: int = 8
    episode_growth: float = 0.0  # of the return, per update
    forced: dict[str, int] = field(default_factory=dict)  # action the first two samples take, by head
    spoil: Callable[[Rollout], None] | None = None  # what happens to the rollout between collection and update
    leap: dict[str, Sequence[float]] = field(default_factory=dict)  # what an optimizer step adds to biases of heads …
    leap_after: int = 1  # … after so many minibatches
    stays: bool = False  # whether the leap outlives its update
    loss_scale: float = 1.0
    policy_sign: float = 1.0  # of the advantages in the loss
    max_norm: float = 10.0
    weights: dict[str, float] = field(default_factory=dict)  # of heads in the loss
    detached: tuple[str, ...] = ()
    critic_detached: bool = False
    target_kl: float | None = None
    entropy_coef: float = 0.01
    guard: bool = False  # whether the loop itself leaves out minibatches whose loss is not finite
    surrogate: Callable[[Tensor, Tensor], Tensor] = torch.min  # which of the two is taken
    value_factor: float = 1.0  # of the value loss
    discount: float = GAMMA  # that is passed as the setting
    watched: Callable[[Tensor], Tensor] | None = None  # what becomes of the observations that are passed
    eval_return: float | None = None  # of the evaluation after each update …
    eval_growth: float = 0.0  # … and by how much it grows per update
    limits: Sequence[tuple[str, str, float]] = ()  # thresholds other than the defaults: rule, name, number
    std: float | None = None  # of head ``slot``, which is Gaussian then
    std_growth: float = 1.0  # what it is multiplied by in each update
    growing: Growing | None = None  # a host with a seed that is trained while collecting

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.net = Net(recurrent=self.recurrent)
        self.begin_optimizer()
        self.random = torch.Generator().manual_seed(0)

    def begin_optimizer(self) -> None:
        """Make a new optimizer; its moments are there, and too small to move anything."""
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=2e-3, momentum=1e-12)

    def recorder(self, run_dir: Path, **options: Any) -> Recorder:
        groups = {"actor": self.net.heads, "critic": self.net.critic, "shared": self.net.body}
        if self.net.lstm is not None:
            groups["lstm"] = self.net.lstm
            options["overhead_budget"] = None  # gates are seen on sampled updates
        if self.limits:
            thresholds = Thresholds.defaults(RULES)
            for rule, name, number in self.limits:
                thresholds = thresholds.changed(rule, name, number)
            options["thresholds"] = thresholds
        heads = {name: self.net.heads[name] for name in SIZES}
        sizes = {name: size for name, size in SIZES.items() if self.std is None or name != "slot"}
        if self.std is not None:
            options["kinds"] = {"slot": "gaussian"}
        self.rec = Recorder(run_dir, self.net, heads=heads, sizes=sizes, groups=groups, strict=True, **options)
        return self.rec

    @torch.no_grad()
    def prefer(self, **heads: Sequence[float]) -> None:
        """Make a policy that prefers some actions whatever it sees: these logits, no weights."""
        for name, bias in heads.items():
            self.net.head(name).weight.zero_()
            self.net.head(name).bias.copy_(torch.tensor(bias))

    @torch.no_grad()
    def set_gates(self, gates: float, candidate: Sequence[float]) -> None:
        """Make an LSTM that does not listen: all gates at sigmoid(``gates``), candidates of units at their tanh."""
        assert self.net.lstm is not None
        for name, parameter in self.net.lstm.named_parameters():
            parameter.zero_()
            if name == "bias_ih_l0":
                parameter.fill_(gates)
                parameter[8:12] = torch.tensor(candidate)  # torch's order: i, f, g, o

    def update(self, number: int) -> None:
        """Collect, train, end the update."""
        if self.growing is not None:
            self.growing.backward(self.rec)
        rollout = self._rollout()
        if self.spoil is not None:
            self.spoil(rollout)
        if self.std is not None:
            self.std *= self.std_growth
        self._train(rollout)
        for nudge in (-1.0, 1.0)[: self.episodes]:
            self.rec.episode(self.episode_return + self.episode_growth * number + nudge, self.episode_length)
        of_steps: dict[str, Any] = {
            "values": rollout.values,
            "returns": rollout.returns,
            "advantages": rollout.advantages,
        }
        of_steps |= {"rewards": rollout.rewards, "ends": rollout.ends}
        self.rec.update(
            **{name: steps.reshape(-1, ENVIRONMENTS) for name, steps in of_steps.items()},
            td_errors=rollout.advantages,
            masks=rollout.masks,
            lstm=rollout.state,
            env_steps=(number + 1) * self.samples,
            target_kl=self.target_kl,
            entropy_coef=self.entropy_coef,
            value_coef=0.5,
            gamma=self.discount,
            eval_return_mean=None if self.eval_return is None else self.eval_return + self.eval_growth * number,
            observations=rollout.x if self.watched is None else self.watched(rollout.x),
        )

    @torch.no_grad()
    def _rollout(self) -> Rollout:
        if self.same_data:
            self.random.manual_seed(0)
        x = torch.randn(self.samples, 3, generator=self.random)
        masks = {name: self._mask(name, size) for name, size in SIZES.items()}
        logits, values, state = self.net(x, masks)
        actions = {}
        for name, one in logits.items():
            actions[name] = torch.multinomial(one.exp().nan_to_num(1.0), 1, generator=self.random).squeeze(1)
            if name in self.forced:
                actions[name][:2] = self.forced[name]
        old = {name: one.gather(1, actions[name][:, None]).squeeze(1) for name, one in logits.items()}
        returns = values + values.std(correction=0) * unlike(values, self.random)
        step = torch.arange(self.samples) // ENVIRONMENTS
        ends = step % 4 == 3
        ahead = torch.cat([values[ENVIRONMENTS:], torch.zeros(ENVIRONMENTS)])
        rewards = returns - GAMMA * ahead * ~ends
        return Rollout(x, masks, actions, old, values, returns, rewards, ends, state)

    def _mask(self, name: str, size: int) -> Tensor:
        mask = torch.rand(self.samples, size, generator=self.random) < (0.0 if name in self.single else 0.7)
        mask[:, 0] = True
        return mask if self.masked else torch.ones_like(mask)

    def _train(self, rollout: Rollout) -> None:
        for epoch in range(EPOCHS):
            if epoch == self.leap_after:
                self._leap(1.0)
            self._minibatch(rollout, epoch)
        if not self.stays:
            self._leap(-1.0)

    @torch.no_grad()
    def _leap(self, sign: float) -> None:
        for name, bias in self.leap.items():
            self.net.head(name).bias.add_(torch.tensor(bias), alpha=sign)

    def _minibatch(self, rollout: Rollout, epoch: int) -> None:
        logits, values, _ = self.net(rollout.x, rollout.masks)
        new = {name: one.gather(1, rollout.actions[name][:, None]).squeeze(1) for name, one in logits.items()}
        entropy = {name: -(one.exp() * one).sum(-1) for name, one in logits.items()}
        for name in self.detached:
            new[name], entropy[name] = new[name].detach(), entropy[name].detach()
        weights = {name: self.weights.get(name, 1.0) for name in SIZES}
        log_ratio = torch.stack([weights[name] * (new[name] - rollout.old[name]) for name in SIZES]).sum(0)
        ratio, advantages = log_ratio.exp(), self.policy_sign * rollout.advantages
        policy_loss = -self.surrogate(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
        predicted = values.detach() if self.critic_detached else values
        value_loss = self.value_factor * (predicted - rollout.returns).square().mean()
        entropy_loss = -torch.stack([weights[name] * entropy[name] for name in SIZES]).sum(0).mean()
        loss = self.loss_scale * (policy_loss + 0.5 * value_loss + self.entropy_coef * entropy_loss)
        self.rec.minibatch(
            log_prob=new,
            old_log_prob=rollout.old,
            entropy=entropy,
            masks=rollout.masks,
            std=None if self.std is None else {"slot": [self.std]},
            clip_range=0.2,
            policy_loss=policy_loss,
            value_loss=value_loss,
            entropy_loss=entropy_loss,
            loss=loss,
            values=values,
            advantages=advantages,
            returns=rollout.returns,
            old_values=rollout.values,
            epoch=epoch,
        )
        if self.guard and not loss.isfinite():
            return
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.max_norm)
        self.optimizer.step()
