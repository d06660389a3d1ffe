"""Trainings drawn at random and recorded; what was handed over is kept beside the rows, for references in float64.

Nothing is learned: log-probs, losses, gradients and states are drawn, so that every number is known beforehand. The
seed also chooses what is handed over (masks, padding, causal masks, the framework's own joint …) and what is odd in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from esper_analyze.runs.run import RecordedRun, open_run
from recorder import Recorder
from recorder.capture.parameters import ParameterRows

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
SIZES = {"op": 4, "slot": 3, "style": 2}
LOSSES = ("policy_loss", "value_loss", "entropy_loss", "loss")
OTHER_NUMBERS = (
    "kl_reference",
    "eval_return_mean",
    "eval_length_mean",
    "response_length_mean",
    "response_length_max",
    "response_clipped_fraction",
    "reward_zero_std_fraction",
)
"""Columns of ``updates`` that are what the loop passes."""
EDGES = (0.0, 1e-6, 1e-4, 1e-2, 1.0, 10.0, -10.0, 1e-9, 11.0)


@dataclass
class DrawnMinibatch:
    """What one ``minibatch`` call was given, in float64, and the gradients that followed."""

    samples: int
    epoch: int
    clip_range: float | None
    by_head: dict[str, Arrays]  # log_prob, old_log_prob, entropy: head → [N]
    rows: Arrays  # joint_log_ratio, joint_entropy, values, advantages, returns, old_values, index, env, step: [N]
    masks: Arrays
    relevant: Arrays
    counted: Array
    losses: dict[str, float]
    actions: Arrays
    state: tuple[Array, Array] | None = None
    inputs: Array | None = None  # of the LSTM
    std: Array | None = None  # of the Gaussian head, [N, dimensions] or [dimensions]
    before: Arrays = field(default_factory=dict)  # gradients before the clip
    after: Arrays = field(default_factory=dict)  # and as the optimizer takes them
    clip_norm: float | None = None
    clipped: bool = False
    stepped: bool = False


@dataclass
class DrawnUpdate:
    """What one update was given."""

    minibatches: list[DrawnMinibatch] = field(default_factory=list)
    rollout: Arrays = field(default_factory=dict)  # values, returns, advantages, td_errors, rewards, ends: each [N]
    observations: Arrays = field(default_factory=dict)  # by name, each [N, …]
    shape: tuple[int, ...] = ()  # timesteps and environments; empty: passed as one line
    masks: Arrays = field(default_factory=dict)
    relevant: Arrays = field(default_factory=dict)
    state: tuple[Array, Array] | None = None
    floor: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    at_bounds: Array | None = None
    episodes: list[dict[str, Any]] = field(default_factory=list)
    weights: Arrays = field(default_factory=dict)  # before the update
    weights_after: Arrays = field(default_factory=dict)
    memory: Arrays = field(default_factory=dict)  # the LSTM's weights at the second minibatch
    asked: bool = False
    separate: dict[str, Arrays] = field(default_factory=dict)  # gradients of each loss alone


class Model(nn.Module):
    """A body, one output layer for all heads or one each, a critic, an LSTM, a scalar, something unused and frozen."""

    def __init__(self, heads: dict[str, int], *, common: bool) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.out = nn.Linear(4, sum(heads.values())) if common else nn.ModuleDict()
        if isinstance(self.out, nn.ModuleDict):
            self.out.update({name: nn.Linear(4, size) for name, size in heads.items()})
        self.critic = nn.Linear(4, 1)
        self.memory = nn.LSTM(2, 3)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.unused = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)


class DrawnTraining:
    """One training of a few updates, drawn from ``seed``."""

    def __init__(self, seed: int, run_dir: Path, updates: int = 3) -> None:
        self.seed, self.rng = seed, np.random.default_rng(seed)
        torch.manual_seed(seed)
        names = list(SIZES)[: 1 + seed % 3]
        self.gaussian = names[-1] if seed % 4 == 3 else None
        self.sizes = {name: SIZES[name] for name in names}
        self.heads = tuple(names)
        self.dtype = torch.float64 if seed % 2 else torch.float32
        self.masked = tuple(n for place, n in enumerate(names) if n != self.gaussian and seed % 4 != 1 + place % 2)
        self.sized = seed % 5 != 4
        self.padded, self.causal, self.odd = seed % 3 == 1, seed % 7 in (2, 3, 6), seed % 5 == 3
        self.own_joint, self.entropies = seed % 6 == 5, seed % 8 != 7
        self.clip = ("clip", "clip", "none", "gradients")[seed // 2 % 4]
        self.steps = seed % 9 != 8
        self.five = seed % 13 == 4  # only one gradient is not 0, and its norm is the bound itself
        self.common = seed % 2 == 0
        self.regular = seed % 4 != 2  # the same tensors have a gradient at each step
        self.model = Model(self.sizes, common=self.common).to(self.dtype)
        self.updates: list[DrawnUpdate] = []
        self.coefficients = {names[0]: 0.25} if seed % 2 else {}
        self.began, start = time.time(), time.perf_counter()
        with np.errstate(all="ignore"):
            self._record(run_dir, updates)
        self.ended, self.took = time.time(), time.perf_counter() - start
        self.run: RecordedRun = open_run(run_dir)

    @property
    def tolerance(self) -> dict[str, float]:
        """How far a number of the policy may be off: those are measured in the loop's own precision."""
        return {"rtol": 1e-9, "atol": 1e-11} if self.dtype is torch.float64 else {"rtol": 3e-4, "atol": 3e-6}

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return what was recorded."""
        return self.run.frame(table).to_dicts()

    def _parts(self) -> dict[str, Any]:
        if not isinstance(self.model.out, nn.Linear):
            return {name: self.model.out[name] for name in self.heads}
        parts: dict[str, Any] = {}
        start = 0
        for name, size in self.sizes.items():
            parts[name] = [ParameterRows(p, start, start + size) for p in self.model.out.parameters()]
            start += size
        return parts

    def members(self) -> dict[str, list[tuple[str, slice]]]:
        """Return the layers of each group, and which of their rows."""
        whole = {name: slice(None) for name, _ in self.model.named_parameters()}
        groups = {
            "actor": [n for n in whole if n.startswith("out")],
            "critic": [n for n in whole if n.startswith("critic")],
            "lstm": [n for n in whole if n.startswith("memory")],
            "shared": [n for n in whole if n.startswith("body")],
            "rest": ["scale", "unused", "frozen"],
            "still": ["frozen"],
            "all": list(whole),
        }
        result = {name: [(layer, whole[layer]) for layer in layers] for name, layers in groups.items()}
        start = 0
        for name, size in self.sizes.items():
            if self.common:
                result[f"head:{name}"] = [(f"out.{what}", slice(start, start + size)) for what in ("weight", "bias")]
            else:
                result[f"head:{name}"] = [(f"out.{name}.{what}", slice(None)) for what in ("weight", "bias")]
            start += size
        return result

    def _record(self, run_dir: Path, updates: int) -> None:
        model = self.model
        groups: dict[str, Any] = {
            "actor": model.out,
            "critic": model.critic,
            "lstm": model.memory,
            "shared": model.body,
        }
        groups |= {"rest": [model.scale, model.unused, model.frozen], "still": model.frozen}
        self.optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05 + self.seed / 1e3)
        length: dict[str, Any] = {"total_env_steps": 500} if self.seed % 2 else {"total_updates": 4}
        with Recorder(
            run_dir,
            model,
            heads=self._parts(),
            groups=groups,
            sizes={n: s for n, s in self.sizes.items() if self.sized and n != self.gaussian},
            kinds={} if self.gaussian is None else {self.gaussian: "gaussian"},
            coefficients=self.coefficients,
            strict=True,
            overhead_budget=None,
            separate_backward=self.seed % 3 == 0,
            **length,
        ) as self.rec:
            for number in range(updates):
                self.updates.append(self._update(number))

    def _update(self, number: int) -> DrawnUpdate:
        now = DrawnUpdate(weights=self._weights())
        epochs = int(self.rng.integers(1, 3))
        count = int(self.rng.integers(1, 4)) * epochs if self.seed % 11 else 1
        clip_range = [None, 0.0, 0.1, 0.2, 0.5, 1.0][(self.seed + number) % 6]
        for place in range(count):
            if clip_range and self.seed % 2:
                clip_range = clip_range * 0.9
            minibatch = self._draw(place, epochs * place // count, clip_range, first=place == 0)
            now.minibatches.append(minibatch)
            self._hand_over(minibatch, now)
            self._gradients(minibatch)
            if place == 0 and count > 1:
                now.memory = {n: v for n, v in self._weights().items() if n.startswith("memory")}
        self._rollout(now, number)
        now.weights_after = self._weights()
        self._end(now)
        return now

    def _weights(self) -> Arrays:
        return {name: p.detach().double().numpy().copy() for name, p in self.model.named_parameters()}

    @property
    def rounding(self) -> float:
        """The relative difference of two of the loop's numbers that counts as rounding."""
        return 256.0 * float(torch.finfo(torch.float64 if self.dtype is torch.float64 else torch.float32).eps)

    def _float(self, x: Array) -> Array:
        """Return numbers as the loop's precision holds them."""
        return x.astype(np.float64 if self.dtype is torch.float64 else np.float32).astype(np.float64)

    def _tensor(self, x: Array) -> Tensor:
        return torch.from_numpy(np.asarray(x)).to(self.dtype)

    def _draw(self, place: int, epoch: int, clip_range: float | None, *, first: bool) -> DrawnMinibatch:
        rng, n = self.rng, int(self.rng.integers(1, 9))
        by_head: dict[str, Arrays] = {"log_prob": {}, "old_log_prob": {}, "entropy": {}}
        masks, relevant, actions = {}, {}, {}
        for name, size in self.sizes.items():
            mask = rng.random((n, size)) < 0.6
            mask[:, 0] = True
            choices = mask.sum(1) if name in self.masked else np.full(n, size)
            old, new, entropy = self._draw_head(n, choices, first=first)
            by_head["log_prob"][name], by_head["old_log_prob"][name], by_head["entropy"][name] = new, old, entropy
            if name in self.masked:
                masks[name] = mask
            if self.causal and (name != "slot" or self.seed % 2):
                relevant[name] = rng.random(n) < rng.choice([0.0, 0.5, 0.9])
            if name != self.gaussian:
                actions[name] = rng.integers(0, size, n)
        losses = {name: float(np.float32(rng.normal())) for name in LOSSES}
        rows = self._draw_rows(n, place, by_head)
        if self.odd and rng.random() < 0.3:
            rows["values"][0], losses["value_loss"] = np.inf, np.nan
        if self.seed % 5 == 2 and place == 1:
            del losses["policy_loss"]
        if not self.entropies:
            by_head["entropy"] = {}
        counted = rng.random(n) < (0.0 if rng.random() < 0.2 else 0.7) if self.padded else np.ones(n, bool)
        inputs = rng.normal(size=(3, n, 2))
        std = self._draw_std(n, place)
        return DrawnMinibatch(
            n, epoch, clip_range, by_head, rows, masks, relevant, counted, losses, actions, None, inputs, std
        )

    def _draw_std(self, n: int, place: int) -> Array | None:
        """Return standard deviations of the Gaussian head from a generator of their own, some of them broken."""
        own = np.random.default_rng([self.seed, place, len(self.updates), 4])
        if self.gaussian is None or (len(self.updates) == 1 and place == 1):
            return None
        dimensions = 1 + self.seed % 3 + 8 * (self.seed % 2)  # never as many as samples in one that all share
        std = own.uniform(0.01, 2.0, (n, dimensions) if own.random() < 0.6 else dimensions)
        if self.seed % 8 == 7 or own.random() < 0.3:
            std.reshape(-1)[own.integers(std.size)] = own.choice([0.0, -0.5, np.nan, np.inf])
        return self._float(std)

    def _draw_head(self, n: int, choices: Array, *, first: bool) -> tuple[Array, Array, Array]:
        """Return old and new log-probs and entropies of one head."""
        rng = self.rng
        old = self._float(rng.normal(-1.5, 0.5, n))
        wide = 6.0 if self.seed % 4 == 1 and rng.random() < 0.4 else 0.25
        change = np.zeros(n) if first and self.seed % 2 == 0 else rng.normal(0, wide, n)
        if self.seed % 5 == 1:
            change = np.where(rng.random(n) < 0.2, rng.choice([-25.0, 19.0, 26.0], n), change)
        new, entropy = self._float(old + change), self._float(rng.uniform(0, 1, n) * np.log(np.maximum(choices, 1)))
        if self.odd and rng.random() < 0.5:
            new[rng.integers(n)] = rng.choice([np.nan, np.inf, -np.inf])
        if self.odd and rng.random() < 0.2:
            entropy[rng.integers(n)] = np.nan
        return old, new, entropy

    def _draw_rows(self, n: int, place: int, by_head: dict[str, Arrays]) -> Arrays:
        rng = self.rng
        rows = {
            "values": self._float(rng.normal(0, 2, n)),
            "advantages": self._float(rng.normal(0, 1, n)),
            "index": 100 * place + rng.permutation(n),
            "env": rng.integers(0, 5, n),
            "step": rng.integers(0, 50, n),
        }
        if self.seed % 7 != 5:  # from a generator of its own: what else is drawn does not depend on it
            own = np.random.default_rng([self.seed, place, len(self.updates)])
            returns = np.full(n, 2.5) if own.random() < 0.2 else own.normal(100, 3, n)
            old_values = np.full(n, 0.1) if own.random() < 0.3 else own.normal(90, 2, n)
            if own.random() < 0.15:
                returns = old_values + (1e-6 if self.dtype is torch.float32 else 1e-14) * own.normal(size=n)
            elif own.random() < 0.3:
                rows["advantages"] = self._float(own.choice([-2.0, 0.5]) * (returns - old_values) + 3.0)
            if self.odd and own.random() < 0.2:
                returns[own.integers(n)] = own.choice([np.nan, np.inf])
            rows |= {"returns": self._float(returns), "old_values": self._float(old_values)}
        if self.own_joint:
            total = np.sum([by_head["log_prob"][h] - by_head["old_log_prob"][h] for h in self.heads], axis=0)
            rows["joint_log_ratio"] = self._float(total + 0.01)
            if self.entropies:
                rows["joint_entropy"] = self._float(np.sum(list(by_head["entropy"].values()), axis=0) * 0.9)
        return rows

    def _hand_over(self, minibatch: DrawnMinibatch, now: DrawnUpdate) -> None:
        given: dict[str, Any] = {}
        for what, heads in minibatch.by_head.items():
            if heads:
                tensors = {name: self._tensor(x) for name, x in heads.items()}
                given[what] = tensors if len(tensors) > 1 or self.seed % 2 else tensors[self.heads[0]]
        given |= {name: self._tensor(x) for name, x in minibatch.rows.items() if name not in ("index", "env", "step")}
        given |= {name: torch.from_numpy(minibatch.rows[name]) for name in ("index", "env", "step")}
        given["std"] = None if minibatch.std is None else {self.gaussian: self._tensor(minibatch.std)}
        given["actions"] = {name: torch.from_numpy(x) for name, x in minibatch.actions.items()} or None
        given["masks"] = {name: torch.from_numpy(x) for name, x in minibatch.masks.items()} or None
        given["relevant"] = {name: torch.from_numpy(x) for name, x in minibatch.relevant.items()} or None
        given["valid"] = torch.from_numpy(minibatch.counted) if self.padded else None
        assert minibatch.inputs is not None
        output = self.model.memory(self._tensor(minibatch.inputs))
        if self.seed % 3 != 1:
            given["lstm"] = output[1]
            minibatch.state = (output[1][0].detach().double().numpy(), output[1][1].detach().double().numpy())
        given |= self._losses(minibatch, now)
        self.rec.minibatch(clip_range=minibatch.clip_range, epoch=minibatch.epoch, **given)

    def _losses(self, minibatch: DrawnMinibatch, now: DrawnUpdate) -> dict[str, Any]:
        """Return the losses; in an update's first minibatch as linear functions of the parameters, where asked for."""
        if self.seed % 3 or now.separate or len(now.minibatches) > 1:
            kinds: list[Any] = [float, torch.tensor] if self.seed % 2 else [torch.tensor]
            return {name: kinds[i % len(kinds)](loss) for i, (name, loss) in enumerate(minibatch.losses.items())}
        reached = {"policy_loss": ("body", "out"), "value_loss": ("body", "critic"), "entropy_loss": ("out", "scale")}
        result: dict[str, Any] = {}
        for loss, parts in reached.items():
            pulls = {
                n: self._float(self.rng.normal(size=p.shape))
                for n, p in self.model.named_parameters()
                if n.startswith(parts)
            }
            terms = [(self._tensor(pulls[n]) * p).sum() for n, p in self.model.named_parameters() if n in pulls]
            result[loss] = torch.stack(terms).sum()
            now.separate[loss] = pulls
            minibatch.losses[loss] = result[loss].item()
        return result | {"loss": torch.tensor(minibatch.losses["loss"])}

    def _gradients(self, minibatch: DrawnMinibatch) -> None:
        scale = 10.0 ** self.rng.uniform(-9, 1.5)
        for name, parameter in self.model.named_parameters():
            gradient = self._gradient(name, tuple(parameter.shape), scale)
            parameter.grad = None if gradient is None else self._tensor(gradient)
        minibatch.before = self._grads()
        bound = 5.0 if self.five else (0.5, 5.0, 1e3)[self.seed % 3]
        if self.clip == "clip":
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), bound)
        elif self.clip == "gradients":
            self.rec.gradients(bound)
            self._clip_by_hand(bound)
        minibatch.clip_norm, minibatch.clipped = (None if self.clip == "none" else bound), self.clip != "none"
        minibatch.after = self._grads()
        if self.steps and not (self.seed % 10 == 6 and self.rng.random() < 0.5):
            minibatch.stepped = True
            self.optimizer.step()

    def _gradient(self, name: str, shape: tuple[int, ...], scale: float) -> Array | None:
        """Return a gradient with what is on the edges of bins and bounds in it, and now and then NaN or ±Inf."""
        rng = self.rng
        left_out = name in ("unused", "frozen") or (not self.regular and rng.random() < 0.3)
        if left_out or (self.seed % 6 == 1 and name.startswith("memory")):
            return None
        if name == "critic.weight":
            return np.array([[3.0, 4.0, 0.0, 0.0]])  # its norm is 5 to the last bit
        if self.five or (name.startswith("body") and rng.random() < 0.2):
            return np.zeros(shape)
        g = rng.normal(size=shape) * scale * 10.0 ** rng.uniform(-3, 3, shape)
        g = np.where(rng.random(shape) < 0.3, rng.choice(EDGES, shape), g)
        if self.odd and rng.random() < 0.2:
            g.reshape(-1)[rng.integers(g.size)] = rng.choice([np.nan, np.inf, -np.inf])
        return g

    def _clip_by_hand(self, bound: float) -> None:
        given = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.stack([g.norm() for g in given]).norm()
        for gradient in given:
            gradient.mul_((bound / (norm + 1e-6)).clamp(max=1.0))

    def _grads(self) -> Arrays:
        return {n: p.grad.double().numpy().copy() for n, p in self.model.named_parameters() if p.grad is not None}

    def _rollout(self, now: DrawnUpdate, number: int) -> None:
        rng, n = self.rng, int(self.rng.integers(1, 30))
        returns = self._float(rng.normal(3, 2, n) if rng.random() < 0.8 else np.full(n, 0.7))
        values = self._float(returns + rng.normal(0.3, 1, n) if rng.random() < 0.8 else np.full(n, -1.3))
        advantages = self._float(rng.normal(0.2, 1, n) ** 3 if rng.random() < 0.8 else np.zeros(n))
        advantages[rng.random(n) < 0.2] = 0.0
        if self.odd and number == 1:
            returns[0], advantages[-1] = np.nan, np.inf
        now.rollout = {"values": values, "returns": returns, "advantages": advantages}
        now.rollout["td_errors"] = self._float(rng.normal(0.1, 2, n))
        now.rollout["rewards"] = self._rewards(n, number).reshape(-1)
        now.rollout["ends"] = np.random.default_rng([self.seed, number, 1]).random(n) < (0.2 if number else 0.0)
        self._by_environment(now, n, number)
        if self.seed % 8 == 2:
            now.rollout = {}
        else:
            self._observe(now, n, number)
        for name, size in self.sizes.items():
            if name in self.masked:
                now.masks[name] = rng.random((n, size)) < 0.5
                now.masks[name][:, 0] |= rng.random(n) < 0.9
                if self.seed % 5 == 0:
                    now.masks[name] = np.arange(size) == rng.integers(0, size, (n, 1))  # no choice at all
            if self.causal and name != "slot":
                now.relevant[name] = rng.random(n) < 0.5
        hidden = self._float(np.append(0.99, rng.uniform(-1.2, 1.2, 23)).reshape(2, 3, 4))
        cell = self._float(rng.normal(0, 3, (2, 3, 5 if self.seed % 2 else 4)))
        if self.odd:
            (hidden, cell)[number % 2].reshape(-1)[1] = (np.nan, -np.inf, np.inf)[number % 3]
        now.state = (hidden, cell) if self.seed % 5 else (hidden[0], cell[0])
        now.floor = [None, 1e-8, 1.0][self.seed % 3]
        now.settings = {"entropy_coef": 0.01 * number, "target_kl": None if self.seed % 2 else 0.02}
        now.settings |= {"value_coef": 0.5 + number, "gamma": 0.99 if self.seed % 2 else None}
        own = np.random.default_rng([self.seed, number, 5])
        now.settings |= {name: None if own.random() < 0.2 else float(own.normal()) for name in OTHER_NUMBERS}
        now.at_bounds = own.random((n, 2)) < 0.3 if self.gaussian is not None and number != 1 else None
        now.asked = self.seed % 4 == 0

    def _by_environment(self, now: DrawnUpdate, n: int, number: int) -> None:
        """Make of a line of N steps a rollout of several environments, from a generator of its own.

        Some of them have the values of another one; some returns and advantages are those of GAE, some nearly so.
        """
        own = np.random.default_rng([self.seed, number, 2])
        if self.seed % 5 == 4:
            return
        count = int(own.choice([count for count in range(1, 7) if n % count == 0]))
        now.shape = (n // count, count)
        values, rewards, ends = (now.rollout[name].reshape(now.shape) for name in ("values", "rewards", "ends"))
        values[:, own.random(count) < 0.4] = values[:, :1]
        if own.random() < 0.7:
            gamma, smoothing = own.choice([0.0, 0.9, 1.05]), own.choice([0.0, 0.8, 1.0])
            cut = ends if own.random() < 0.7 else np.zeros_like(ends)
            advantages = np.zeros(now.shape)
            ahead, running = own.normal(size=count), np.zeros(count)
            for t in reversed(range(len(values))):
                running = rewards[t] - values[t] + gamma * ~cut[t] * (ahead + smoothing * running)
                advantages[t], ahead = running, values[t]
            returns = advantages + values
            if own.random() < 0.3:
                returns = np.roll(returns, 1, 0)
            now.rollout |= {
                "returns": self._float(returns.reshape(-1)),
                "advantages": self._float(advantages.reshape(-1)),
            }

    def _observe(self, now: DrawnUpdate, n: int, number: int) -> None:
        """Draw observations from a generator of their own: constant features, gaps, two kinds, at times none."""
        own = np.random.default_rng([self.seed, number, 3])
        if self.seed % 9 == 7:
            return
        scales = np.array([1.0, 1e-3, 50.0, 0.0])
        vectors = 2.0 + scales * own.normal(size=(n, 4)) + (3.0 if number == 2 else 0.0)
        if own.random() < 0.3:
            vectors[own.random((n, 4)) < 0.2] = own.choice([np.nan, np.inf, -np.inf])
        now.observations = {"vector": self._float(vectors)}
        if self.seed % 3 == 0:
            now.observations["image"] = own.integers(0, 255, (n, 2, 3)).astype(np.uint8)
        if self.seed % 13 == 12 and number == 1:
            now.observations["vector"] = now.observations["vector"][:, :3]  # other features than before and after

    def _rewards(self, n: int, number: int) -> Array:
        """Return rewards from a generator of their own, constant in the first update."""
        rewards = np.random.default_rng([self.seed, number]).normal(5, 0.1 if number else 0.0, (n, 1))
        if self.odd and number == 2:
            rewards[0] = np.nan
        return self._float(rewards)

    def _end(self, now: DrawnUpdate) -> None:
        number = len(self.updates)
        for _ in range(int(self.rng.integers(0, 3))):
            episode: dict[str, Any] = {
                "episode_return": float(self.rng.normal()),
                "length": [None, 7, 12][int(self.rng.integers(3))],
                "env": [None, 3][int(self.rng.integers(2))],
                "success": [None, True, False][int(self.rng.integers(3))],
            }
            now.episodes.append(episode)
            self.rec.episode(**episode)
        if now.asked:
            self.rec.stability_report()
        given: dict[str, Any] = {
            name: (torch.from_numpy(x) if name == "ends" else self._tensor(x)).reshape(now.shape or (-1,))
            for name, x in now.rollout.items()
        }
        seen: dict[str, Any] = {
            name: (torch.from_numpy(x) if self.seed % 2 else x).reshape(*(now.shape or (len(x),)), *x.shape[1:])
            for name, x in now.observations.items()
        }
        given["observations"] = seen["vector"] if len(seen) == 1 else seen or None
        given["masks"], given["relevant"] = now.masks or None, now.relevant or None
        assert now.state is not None
        given["lstm"] = tuple(self._tensor(x) for x in now.state)
        given["at_bounds"] = None if now.at_bounds is None else {self.gaussian: now.at_bounds}
        self.rec.update(env_steps=130 * (number + 1), advantage_floor=now.floor, **given, **now.settings)


def numbered(drawn: DrawnTraining) -> Iterator[tuple[int, DrawnUpdate]]:
    """Yield the updates with their numbers."""
    yield from enumerate(drawn.updates)


def close(result: object, wanted: object, *, rtol: float = 1e-9, atol: float = 1e-12) -> bool:
    """Whether a cell is what it should be: null, NaN and numbers are different things, and so are their kinds."""
    if wanted is None or result is None or isinstance(wanted, (bool, str)):
        return result == wanted and type(result) is type(wanted)
    if isinstance(wanted, int):
        return result == wanted and isinstance(result, int)
    assert isinstance(wanted, float)
    assert isinstance(result, (int, float))
    if math.isnan(wanted) or math.isinf(wanted):
        return (math.isnan(result) and math.isnan(wanted)) or result == wanted
    return math.isfinite(result) and abs(result - wanted) <= atol + rtol * abs(wanted)
