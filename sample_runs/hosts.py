"""Host networks that learn handwritten digits and have slots in which seed modules grow: the world of ``growing_loop``.

A seed goes through a lifecycle: germinated, it waits one step; training, the host's output is not changed but the seed
gets the gradient it would get (straight-through); blending, its output is added with a share alpha that approaches a
target; fossilised, it stays; pruned, the slot is empty again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

OPS = ("wait", "germinate", "set_alpha_target", "prune", "fossilise")
SLOTS = ("early", "late")
BLUEPRINTS = ("dense", "bottleneck", "norm")
STYLES = ("add", "gate")
TEMPOS, TARGETS, SPEEDS, CURVES = (2, 4, 6), (0.5, 0.75, 1.0), (0.15, 0.3, 0.6), ("linear", "cosine")
SIZES = {
    "op": len(OPS), "slot": len(SLOTS), "blueprint": len(BLUEPRINTS), "style": len(STYLES), "tempo": len(TEMPOS),
    "alpha_target": len(TARGETS), "alpha_speed": len(SPEEDS), "alpha_curve": len(CURVES),
}  # fmt: skip
STAGES = ("empty", "germinated", "training", "blending", "fossilised")
WIDTH, BATCH, BATCHES, EPISODE, RATE, MAX_GRAD_NORM = 16, 64, 6, 16, 0.05, 0.5
FEATURES = 4 + len(SLOTS) * (len(STAGES) + 3)


def matters(op: Tensor) -> dict[str, Tensor]:
    """Return for each head [N] where it has a say in what the ops [N] do."""
    is_op = {name: op == place for place, name in enumerate(OPS)}
    sets = is_op["germinate"] | is_op["set_alpha_target"]
    fades = is_op["set_alpha_target"] | is_op["prune"]
    return {
        "op": torch.ones_like(op, dtype=torch.bool),
        "slot": ~is_op["wait"],
        "blueprint": is_op["germinate"],
        "tempo": is_op["germinate"],
        "style": sets,
        "alpha_target": sets,
        "alpha_speed": fades,
        "alpha_curve": fades,
    }


def grown(blueprint: str) -> nn.Module:
    """Return a new seed module."""
    if blueprint == "dense":
        return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
    if blueprint == "bottleneck":
        return nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU(), nn.Linear(4, WIDTH))
    return nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))


@dataclass
class Slot:
    """A place in the host, and the seed in it."""

    stage: str = "empty"
    seed: nn.Module | None = None
    blueprint: str = ""
    style: str = "add"
    tempo: int = 4
    alpha: float = 0.0
    target: float = 1.0
    speed: float = 0.3
    curve: str = "linear"
    age: int = 0

    def out(self, h: Tensor) -> Tensor:
        """Return what the host goes on with."""
        if self.seed is None or self.stage == "germinated":
            return h
        grown: Tensor = self.seed(h)
        if self.stage == "training":
            return h + grown - grown.detach()
        share = self.alpha if self.curve == "linear" else 0.5 - 0.5 * float(np.cos(np.pi * self.alpha))
        return h + share * grown if self.style == "add" else (1 - share) * h + share * grown

    def pass_time(self) -> None:
        """Go on in the lifecycle."""
        self.age += 1
        if self.stage == "germinated":
            self.stage, self.age = "training", 0
        elif self.stage == "training" and self.age >= self.tempo:
            self.stage, self.age = "blending", 0
        if self.stage == "blending":
            self.alpha += float(np.clip(self.target - self.alpha, -self.speed, self.speed))


class Host(nn.Module):
    """Three layers and a slot after each of the first two."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 10)])

    def forward(self, x: Tensor, slots: dict[str, Slot]) -> Tensor:
        """Return logits [N, 10] of images [N, 64]."""
        for layer, name in zip(self.layers[:-1], SLOTS, strict=True):
            x = slots[name].out(torch.relu(layer(x)))
        logits: Tensor = self.layers[-1](x)
        return logits


Look = Callable[["Plot", int, str, Slot], None]
"""Called after each backward with the plot, its number, and a slot: where a recorder looks."""
Harm = Callable[["Plot", int], None]
"""Called before each step of a plot with the plot and the update: what a faulty sample breaks."""


@dataclass
class Plot:
    """One environment: a host, its slots, and data of its own to learn."""

    number: int
    random: np.random.Generator
    host: Host = field(init=False)
    slots: dict[str, Slot] = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    accuracy: float = 0.0
    gain: float = 0.0
    loss: float = 0.0
    step: int = 0

    def begin(self) -> None:
        """Begin an episode with a fresh host."""
        self.host, self.slots = Host(), {name: Slot() for name in SLOTS}
        self.optimizer = torch.optim.SGD(self.host.parameters(), lr=RATE, momentum=0.9)
        self.accuracy, self.gain, self.loss, self.step = 0.1, 0.0, 2.3, 0

    def observe(self) -> Tensor:
        """Return the features [FEATURES] a policy sees."""
        cells = [self.step / EPISODE, self.accuracy, self.gain, self.loss / 2.3]
        for slot in self.slots.values():
            cells += [float(slot.stage == stage) for stage in STAGES]
            cells += [slot.alpha, slot.age / EPISODE, slot.tempo / EPISODE]
        return torch.tensor(cells)

    def possible(self) -> dict[str, set[str]]:
        """Return, for each op, the slots it can be done to."""
        stages = {name: slot.stage for name, slot in self.slots.items()}
        return {
            "wait": set(),
            "germinate": {name for name, stage in stages.items() if stage == "empty"},
            "set_alpha_target": {name for name, stage in stages.items() if stage in ("training", "blending")},
            "prune": {name for name, stage in stages.items() if stage in ("training", "blending")},
            "fossilise": {n for n, slot in self.slots.items() if slot.stage == "blending" and slot.alpha > 0.4},
        }

    def masks(self, *, only_wait: bool = False) -> dict[str, Tensor]:
        """Return the valid actions of each head [K]; a head that no possible op asks has one."""
        possible = {"wait": set[str]()} if only_wait else self.possible()
        ops = torch.tensor([name == "wait" or bool(possible.get(name)) for name in OPS])
        somewhere = set().union(*possible.values())
        masks = {"op": ops, "slot": torch.tensor([name in somewhere for name in SLOTS])}
        asked = {name: any(bool(matters(torch.tensor([op]))[name]) for op in np.flatnonzero(ops)) for name in SIZES}
        for name, size in SIZES.items():
            if name not in masks:
                masks[name] = torch.full((size,), asked[name])
            if not masks[name].any():
                masks[name][0] = True
        return masks

    def act(self, action: dict[str, int]) -> None:
        """Do what the policy chose; what cannot be done to that slot is waiting."""
        op, name = OPS[action["op"]], SLOTS[action["slot"]]
        if name not in self.possible()[op]:
            return
        slot = self.slots[name]
        if op == "germinate":
            blueprint = BLUEPRINTS[action["blueprint"]]
            self.slots[name] = slot = Slot("germinated", grown(blueprint), blueprint, tempo=TEMPOS[action["tempo"]])
            self.optimizer.add_param_group({"params": list(slot.seed.parameters())})  # type: ignore[union-attr]
        if op in ("germinate", "set_alpha_target"):
            slot.style, slot.target = STYLES[action["style"]], TARGETS[action["alpha_target"]]
        if op == "set_alpha_target":
            slot.speed, slot.curve = SPEEDS[action["alpha_speed"]], CURVES[action["alpha_curve"]]
        if op == "prune":
            own = {id(parameter) for parameter in slot.seed.parameters()} if slot.seed else set()
            groups = self.optimizer.param_groups
            groups[:] = [group for group in groups if id(group["params"][0]) not in own]
            self.slots[name] = Slot()
        if op == "fossilise":
            slot.stage = "fossilised"

    def learn(self, data: Digits, look: Look) -> float:
        """Train the host for one step of the episode; return the reward: what accuracy gained, less rent for seeds."""
        for _ in range(BATCHES):
            x, y = data.batch(self.random)
            loss = cross_entropy(self.host(x, self.slots), y)
            self.optimizer.zero_grad()
            loss.backward()
            for name, slot in self.slots.items():
                look(self, self.number, name, slot)
            nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], MAX_GRAD_NORM)
            self.optimizer.step()
        for slot in self.slots.values():
            slot.pass_time()
        self.step += 1
        self.loss = float(loss.detach())
        accuracy = data.accuracy(self.host, self.slots)
        self.gain, self.accuracy = accuracy - self.accuracy, accuracy
        return 2 * self.gain - 0.005 * sum(slot.seed is not None for slot in self.slots.values())


class Digits:
    """8 × 8 images of handwritten digits, 1,297 to learn from and 500 to test with (Alpaydin & Kaynak 1998)."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(images))
        self.x = torch.from_numpy(images[order]).float() / 16
        self.y = torch.from_numpy(labels[order]).long()

    def batch(self, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return images and labels to learn from."""
        chosen = torch.from_numpy(random.integers(0, len(self.x) - 500, BATCH))
        return self.x[chosen], self.y[chosen]

    @torch.no_grad()
    def accuracy(self, host: Host, slots: dict[str, Slot]) -> float:
        """Return the share of test images told right."""
        return float((host(self.x[-500:], slots).argmax(1) == self.y[-500:]).float().mean())
