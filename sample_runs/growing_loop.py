"""PPO grows host networks: an LSTM policy with eight factored, masked heads decides what is done to which slot.

Every step of an episode trains a host for a few minibatches (``hosts``); the policy waits, germinates a seed of some
blueprint, sets how it is blended in, prunes or fossilises it. Heads matter only for some ops (``hosts.matters``). The
recorder looks at host and seed after each of the host's backward passes (``rec.slot``), and at the policy as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recorder import Recorder, td_errors
from sample_runs import hosts
from sample_runs.hosts import EPISODE, FEATURES, SIZES, Digits, Harm, Plot, Slot, matters

PLOTS, UPDATES, EPOCHS, MINIBATCHES, HIDDEN = 8, 40, 4, 2, 32
ONSET = 20
"""Update from which on a faulty sample is broken."""
GAMMA, LAMBDA, CLIP, MAX_GRAD_NORM, RATE, ENTROPY = 0.97, 0.95, 0.2, 0.5, 1e-3, 0.01

Heads = dict[str, Tensor]


class Policy(nn.Module):
    """Encoder, LSTM, eight heads of masked categoricals and a critic; one episode of each plot is one sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh())
        self.lstm = nn.LSTM(HIDDEN, HIDDEN)
        self.heads = nn.ModuleDict({name: nn.Linear(HIDDEN, size) for name, size in SIZES.items()})
        self.critic = nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor, masks: Heads, state: Any) -> tuple[Heads, Tensor, Any]:
        """Return log-probabilities [T, B, K] by head, values [T, B] and the state after the last step."""
        h, state = self.lstm(self.encoder(x), state)
        logits = {name: head(h).masked_fill(~masks[name], -1e8) for name, head in self.heads.items()}
        return {name: one.log_softmax(-1) for name, one in logits.items()}, self.critic(h).squeeze(-1), state


def start(count: int) -> tuple[Tensor, Tensor]:
    """Return the state at the beginning of ``count`` episodes."""
    return torch.zeros(1, count, HIDDEN), torch.zeros(1, count, HIDDEN)


def collect(
    policy: Policy, plots: list[Plot], data: Digits, rec: Recorder, harm: Callable[[Plot], None], *, only_wait: bool
) -> dict[str, Any]:
    """Act for one episode in every plot; return what the update needs, time first."""
    kept: dict[str, list[Any]] = {name: [] for name in ("x", "masks", "actions", "log_prob", "value", "reward")}
    state = start(len(plots))
    for plot in plots:
        plot.begin()
    for _ in range(EPISODE):
        x = torch.stack([plot.observe() for plot in plots])
        masks = {k: torch.stack(rows) for k, rows in _turned([plot.masks(only_wait=only_wait) for plot in plots])}
        with torch.no_grad():
            log_probs, value, state = policy(x[None], {k: mask[None] for k, mask in masks.items()}, state)
        actions = {k: torch.distributions.Categorical(logits=one[0]).sample() for k, one in log_probs.items()}
        rewards = []
        for place, plot in enumerate(plots):
            plot.act({name: int(chosen[place]) for name, chosen in actions.items()})
            harm(plot)
            rewards.append(plot.learn(data, partial(look, rec)))
        log_prob = {k: one[0].gather(1, actions[k][:, None])[:, 0] for k, one in log_probs.items()}
        for name, cell in zip(kept, (x, masks, actions, log_prob, value[0], torch.tensor(rewards)), strict=True):
            kept[name].append(cell)
    rollout = {name: _stacked(cells) for name, cells in kept.items()}
    for plot, total in zip(plots, rollout["reward"].sum(0).tolist(), strict=True):
        rec.episode(total, EPISODE, env=plot.number, success=plot.accuracy > 0.9)
    return rollout | _advantages(rollout) | {"state": state, "relevant": _relevant(rollout["actions"])}


def look(rec: Recorder, plot: Plot, number: int, name: str, slot: Slot) -> None:
    """Show the recorder a slot after a backward of its host."""
    rec.slot(
        number,
        name,
        seed=slot.seed,
        host=plot.host,
        stage=slot.stage,
        blueprint=slot.blueprint or None,
        alpha=slot.alpha,
        max_grad_norm=hosts.MAX_GRAD_NORM,
    )


def _turned(rows: list[dict[str, Tensor]]) -> list[tuple[str, list[Tensor]]]:
    return [(name, [row[name] for row in rows]) for name in rows[0]]


def _stacked(cells: list[Any]) -> Any:
    if isinstance(cells[0], dict):
        return {name: torch.stack([cell[name] for cell in cells]) for name in cells[0]}
    return torch.stack(cells)


def _relevant(actions: Heads) -> Heads:
    shape = actions["op"].shape
    return {name: one.reshape(shape) for name, one in matters(actions["op"].reshape(-1)).items()}


def _advantages(rollout: dict[str, Any]) -> dict[str, Tensor]:
    """Return generalised advantage estimates [T, B] (Schulman et al. 2016), returns and TD errors of episodes."""
    reward, value = rollout["reward"], rollout["value"]
    ends = torch.zeros_like(reward)
    ends[-1] = 1.0
    errors = td_errors(value, reward, ends, torch.zeros(reward.shape[1]), GAMMA)
    advantages, running = torch.zeros_like(reward), torch.zeros(reward.shape[1])
    for t in reversed(range(len(reward))):
        running = errors[t] + GAMMA * LAMBDA * (1 - ends[t]) * running
        advantages[t] = running
    return {"advantages": advantages, "returns": advantages + value, "td_errors": errors}


def train(policy: Policy, optimizer: torch.optim.Optimizer, rollout: dict[str, Any], rec: Recorder) -> None:
    """One update: epochs over minibatches of whole episodes. A head that did not matter has no part in the ratio."""
    for epoch in range(EPOCHS):
        for chosen in torch.randperm(PLOTS).split(PLOTS // MINIBATCHES):
            part = {k: _of(rollout[k], chosen) for k in ("masks", "actions", "log_prob", "relevant")}
            log_probs, value, state = policy(rollout["x"][:, chosen], part["masks"], start(len(chosen)))
            new = {k: one.gather(2, part["actions"][k][..., None])[..., 0] for k, one in log_probs.items()}
            entropy = {k: -(one.exp() * one).sum(-1) for k, one in log_probs.items()}
            log_ratio = torch.stack([(new[k] - part["log_prob"][k]) * part["relevant"][k] for k in SIZES]).sum(0)
            advantages = rollout["advantages"][:, chosen]
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
            ratio = log_ratio.exp()
            policy_loss = -torch.min(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages).mean()
            value_loss = (value - rollout["returns"][:, chosen]).square().mean()
            entropy_loss = -torch.stack([(one * part["relevant"][k]).mean() for k, one in entropy.items()]).sum()
            loss = policy_loss + 0.5 * value_loss + ENTROPY * entropy_loss
            rec.minibatch(
                log_prob=new,
                old_log_prob=part["log_prob"],
                joint_log_ratio=log_ratio,
                entropy=entropy,
                masks=part["masks"],
                relevant=part["relevant"],
                clip_range=CLIP,
                policy_loss=policy_loss,
                value_loss=value_loss,
                entropy_loss=entropy_loss,
                loss=loss,
                values=value,
                actions=part["actions"],
                advantages=advantages,
                returns=rollout["returns"][:, chosen],
                old_values=rollout["value"][:, chosen],
                epoch=epoch,
                lstm=state,
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), MAX_GRAD_NORM)
            optimizer.step()


def _of(cells: Heads, chosen: Tensor) -> Heads:
    return {name: one[:, chosen] for name, one in cells.items()}


def grow(
    run_dir: Path,
    tell: Callable[[int], None],
    *,
    harm: Harm | None = None,
    only_wait: bool = False,
    updates: int = UPDATES,
    seed: int = 1,
) -> None:
    """Train the policy and record it; ``harm`` breaks a plot, ``only_wait`` leaves the policy no choice at all."""
    torch.manual_seed(seed)
    data, policy = Digits(), Policy()
    plots = [Plot(number, np.random.default_rng([seed, number])) for number in range(PLOTS)]
    optimizer = torch.optim.Adam(policy.parameters(), lr=RATE)
    with Recorder(
        run_dir,
        policy,
        heads={name: policy.heads[name] for name in SIZES},
        sizes=SIZES,
        groups={"actor": policy.heads, "critic": policy.critic, "lstm": policy.lstm, "shared": policy.encoder},
        total_updates=updates,
        overhead_budget=None,
        framework="hand-written",
        algorithm="PPO growing seeds in host networks",
        hyperparameters={"gamma": GAMMA, "gae_lambda": LAMBDA, "clip_range": CLIP, "learning_rate": RATE},
        entropy_coef=ENTROPY,
        seeds={"torch": seed, "plots": seed},
    ) as rec:
        for update in range(updates):
            tell(update)

            def broken(plot: Plot, now: int = update) -> None:
                if harm is not None:
                    harm(plot, now)

            rollout = collect(policy, plots, data, rec, broken, only_wait=only_wait)
            train(policy, optimizer, rollout, rec)
            rec.update(
                values=rollout["value"],
                returns=rollout["returns"],
                advantages=rollout["advantages"],
                masks=rollout["masks"],
                relevant=rollout["relevant"],
                lstm=rollout["state"],
                td_errors=rollout["td_errors"],
                rewards=rollout["reward"],
                env_steps=(update + 1) * PLOTS * EPISODE,
            )


def growing_healthy(run_dir: Path, tell: Callable[[int], None]) -> None:
    """Seeds grow, blend and stay or go."""
    grow(run_dir, tell)


def growing_waits(run_dir: Path, tell: Callable[[int], None]) -> None:
    """WAIT is all that is allowed: no head ever has a choice, and there is nothing to learn for them."""
    grow(run_dir, tell, only_wait=True, updates=85)


def growing_exploding(run_dir: Path, tell: Callable[[int], None]) -> None:
    """From ``ONSET`` on the seed in plot 3's late slot is scaled up a thousandfold."""
    grow(run_dir, tell, harm=_explode)


def growing_disconnected(run_dir: Path, tell: Callable[[int], None]) -> None:
    """From ``ONSET`` on no gradient reaches the seed in plot 5's early slot."""
    grow(run_dir, tell, harm=_disconnect)


def _planted(plot: Plot, name: str) -> Slot:
    """Return a slot with a training seed in it, whatever the policy did."""
    slot = plot.slots[name]
    if slot.seed is None or slot.stage == "fossilised":
        if slot.seed is not None:
            slot.stage = "blending"
            plot.act({"op": hosts.OPS.index("prune"), "slot": hosts.SLOTS.index(name)})
        plain = dict.fromkeys(("blueprint", "style", "tempo", "alpha_target"), 0)
        plot.act(plain | {"op": hosts.OPS.index("germinate"), "slot": hosts.SLOTS.index(name)})
        plot.slots[name].stage = "training"
    return plot.slots[name]


def _explode(plot: Plot, update: int) -> None:
    if (plot.number, update >= ONSET) == (3, True):
        seed = _planted(plot, "late").seed
        assert seed is not None
        with torch.no_grad():
            for parameter in seed.parameters():
                if float(parameter.abs().max()) < 10:
                    parameter.mul_(1000)


class _Detached(nn.Module):
    """A seed whose output carries no gradient: a forgotten ``detach``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.inner(h)
        return out.detach()


def _disconnect(plot: Plot, update: int) -> None:
    if (plot.number, update >= ONSET) == (5, True):
        slot = _planted(plot, "early")
        if not isinstance(slot.seed, _Detached) and slot.seed is not None:
            slot.seed = _Detached(slot.seed)
