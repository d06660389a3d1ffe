"""Tasks on whose trainings the bounds of rules may be chosen; all that earlier releases held back are among them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.faultbench.task import Actions, Floats, Known, Task
from tests.faultbench.tune_tasks_2 import TASKS_2
from tests.faultbench.tune_tasks_3 import TASKS_3
from tests.faultbench.tune_tasks_4 import TASKS_4


class Pole(Task):
    """A pole on a cart, pushed left or right: the equations of Barto, Sutton and Anderson (1983); +1 a step."""

    sizes = {"push": 2}  # noqa: RUF012
    shape = (4,)
    limit = 200

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "state"):
            self.state = np.zeros((self.count, 4))
        self.state[where] = self.random.uniform(-0.05, 0.05, (int(where.sum()), 4))

    def observe(self) -> Floats:
        return self.state.astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        x, speed, angle, turn = self.state.T
        force = np.where(actions["push"] == 1, 10.0, -10.0)
        push = (force + 0.05 * turn**2 * np.sin(angle)) / 1.1
        bend = (9.8 * np.sin(angle) - np.cos(angle) * push) / (0.5 * (4 / 3 - 0.1 * np.cos(angle) ** 2 / 1.1))
        drive = push - 0.05 * bend * np.cos(angle) / 1.1
        self.state = np.stack([x + 0.02 * speed, speed + 0.02 * drive, angle + 0.02 * turn, turn + 0.02 * bend], axis=1)
        fallen = (np.abs(self.state[:, 0]) > 2.4) | (np.abs(self.state[:, 2]) > 0.2095)
        return np.ones(self.count), fallen


class Swing(Task):
    """Hold a damped swing at a target that jumps, by a real force; −distance² a step, 40 steps."""

    dimensions = 1
    shape = (3,)
    limit = 40

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "state"):
            self.state = np.zeros((self.count, 3))
        self.state[where] = self.random.uniform(-1, 1, (int(where.sum()), 3))

    def observe(self) -> Floats:
        return self.state.astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        place, speed, target = self.state.T
        force = np.clip(actions["move"][:, 0], -2, 2)
        speed = 0.8 * speed + 0.3 * force - 0.1 * np.sin(place)
        self.state = np.stack([place + 0.3 * speed, speed, target], axis=1)
        return -np.minimum((self.state[:, 0] - target) ** 2, 9.0), np.zeros(self.count, bool)


class Reach(Task):
    """Move a point in the plane to a goal; −distance a step, +1 and the end on the goal, 30 steps at most."""

    dimensions = 2
    shape = (4,)
    limit = 30

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "state"):
            self.state = np.zeros((self.count, 4))
        self.state[where] = self.random.uniform(-1, 1, (int(where.sum()), 4))

    def observe(self) -> Floats:
        return self.state.astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        self.state[:, :2] = np.clip(self.state[:, :2] + 0.2 * np.clip(actions["move"], -1, 1), -1.5, 1.5)
        distance = np.hypot(*(self.state[:, :2] - self.state[:, 2:]).T)
        there = distance < 0.15
        return there - 0.1 * distance, there


class Workshop(Task):
    """Take the valid tool that fits the piece, and its speed: two heads under masks; 20 pieces a shift."""

    sizes = {"tool": 5, "speed": 3}  # noqa: RUF012
    shape = (8,)
    limit = 20
    masked = True

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "piece"):
            self.piece, self.free = np.zeros(self.count, np.int64), np.ones((self.count, 5), bool)
        self._next(where)

    def _next(self, where: NDArray[np.bool_]) -> None:
        count = int(where.sum())
        self.piece[where] = self.random.integers(5, size=count)
        free = self.random.random((count, 5)) < 0.6
        free[np.arange(count), self.piece[where]] = True
        self.free[where] = free

    def observe(self) -> Floats:
        shown = np.zeros((self.count, 8), np.float32)
        shown[np.arange(self.count), self.piece] = 1.0
        shown[:, 5:] = self.random.normal(size=(self.count, 3))
        return shown

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        speeds = np.ones((self.count, 3), bool)
        speeds[self.piece == 4, 1:] = False
        return {"tool": self.free.copy(), "speed": speeds}

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        right = actions["tool"] == self.piece
        reward = right + 0.5 * (right & (actions["speed"] == self.piece % 3))
        self._next(np.ones(self.count, bool))
        return reward.astype(np.float64), np.zeros(self.count, bool)


class Orders(Task):
    """Send a parcel by the door and van it names, under masks of what is open; a wrong van ends the day."""

    sizes = {"door": 4, "van": 4, "belt": 2}  # noqa: RUF012
    shape = (10,)
    limit = 15
    masked = True

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "wanted"):
            self.wanted, self.open = np.zeros((self.count, 2), np.int64), np.ones((self.count, 4), bool)
        count = int(where.sum())
        self.wanted[where] = self.random.integers(4, size=(count, 2))
        open_ = self.random.random((count, 4)) < 0.7
        open_[np.arange(count), self.wanted[where, 0]] = True
        self.open[where] = open_

    def observe(self) -> Floats:
        shown = np.zeros((self.count, 10), np.float32)
        rows = np.arange(self.count)
        shown[rows, self.wanted[:, 0]] = 1.0
        shown[rows, 4 + self.wanted[:, 1]] = 1.0
        shown[:, 8] = self.age / self.limit
        return shown

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        found = super().masks()
        found["door"] = self.open.copy()
        return found

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        door, van = actions["door"] == self.wanted[:, 0], actions["van"] == self.wanted[:, 1]
        lost = ~van & (self.random.random(self.count) < 0.3)
        Orders.begin(self, ~lost)
        return 0.5 * door + 0.5 * van - 1.0 * lost, lost


class Chain(Task):
    """Walk 9 places to the right against a slip: a reward at the end only, 30 steps at most."""

    sizes = {"walk": 2}  # noqa: RUF012
    shape = (10,)
    limit = 30
    length = 9

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "place"):
            self.place = np.zeros(self.count, np.int64)
        self.place[where] = 0

    def observe(self) -> Floats:
        return np.eye(10, dtype=np.float32)[self.place]

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        right = (actions["walk"] == 1) ^ (self.random.random(self.count) < 0.1)
        self.place = np.clip(self.place + np.where(right, 1, -1), 0, self.length)
        there = self.place == self.length
        return there.astype(np.float64), there


class Lock(Task):
    """Set five wheels one after the other; a wrong one starts over, a reward when all are set."""

    sizes = {"turn": 3}  # noqa: RUF012
    shape = (6,)
    limit = 25
    code = (0, 2, 1, 1, 0)

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "place"):
            self.place = np.zeros(self.count, np.int64)
        self.place[where] = 0

    def observe(self) -> Floats:
        return np.eye(6, dtype=np.float32)[self.place]

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        right = actions["turn"] == np.asarray(self.code)[self.place]
        self.place = np.where(right, self.place + 1, 0)
        there = self.place == len(self.code)
        return there.astype(np.float64), there


class CueRecall(Task):
    """A cue at the first step must be answered at the last of 6: only a memory can."""

    sizes = {"answer": 4}  # noqa: RUF012
    shape = (6,)
    limit = 6

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "cue"):
            self.cue = np.zeros(self.count, np.int64)
        self.cue[where] = self.random.integers(4, size=int(where.sum()))

    def observe(self) -> Floats:
        shown = np.zeros((self.count, 6), np.float32)
        first = self.age == 0
        shown[first, self.cue[first]] = 1.0
        shown[:, 4] = self.age == self.limit - 1
        return shown

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        last = self.age == self.limit
        return ((actions["answer"] == self.cue) & last).astype(np.float64), last


class Repeat(Task):
    """Say at every step what was shown two steps before; 24 steps."""

    sizes = {"say": 3}  # noqa: RUF012
    shape = (3,)
    limit = 24

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "shown"):
            self.shown = np.zeros((self.count, 3), np.int64)
        self.shown[where] = self.random.integers(3, size=(int(where.sum()), 3))

    def observe(self) -> Floats:
        return np.eye(3, dtype=np.float32)[self.shown[:, 2]]

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        right = actions["say"] == self.shown[:, 0]
        self.shown = np.concatenate([self.shown[:, 1:], self.random.integers(3, size=(self.count, 1))], axis=1)
        return (right & (self.age > 2)) / 10.0, np.zeros(self.count, bool)


class Follow(Task):
    """Push a mark along a line onto one that wanders, in five moves; small observations; 32 steps."""

    sizes = {"move": 5}  # noqa: RUF012
    shape = (2,)
    limit = 32

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "places"):
            self.places = np.zeros((self.count, 2))
        self.places[where] = self.random.uniform(-1, 1, (int(where.sum()), 2))

    def observe(self) -> Floats:
        return self.places.astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        self.places[:, 0] += (actions["move"] - 2) * 0.15
        self.places[:, 1] += self.random.normal(0, 0.05, self.count)
        self.places = np.clip(self.places, -2, 2)
        return 1.0 - np.abs(self.places[:, 0] - self.places[:, 1]), np.zeros(self.count, bool)


class Catch(Task):
    """Catch a falling ball with a paddle, from pixels 16 × 16; ±1 at the bottom."""

    sizes = {"move": 3}  # noqa: RUF012
    shape = (1, 16, 16)
    limit = 16

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "ball"):
            self.ball, self.paddle = np.zeros((self.count, 2), np.int64), np.full(self.count, 8)
        count = int(where.sum())
        self.ball[where] = np.stack([self.random.integers(16, size=count), np.zeros(count, np.int64)], axis=1)
        self.paddle[where] = self.random.integers(3, 13, size=count)

    def observe(self) -> Floats:
        shown = np.zeros((self.count, 1, 16, 16), np.float32)
        rows = np.arange(self.count)
        shown[rows, 0, self.ball[:, 1], self.ball[:, 0]] = 1.0
        for beside in (-1, 0, 1):
            shown[rows, 0, 15, np.clip(self.paddle + beside, 0, 15)] = 1.0
        return shown

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        self.paddle = np.clip(self.paddle + (actions["move"] - 1), 1, 14)
        self.ball[:, 1] += 1
        down = self.ball[:, 1] >= 15
        caught = np.abs(self.ball[:, 0] - self.paddle) <= 1
        return np.where(down, np.where(caught, 1.0, -1.0), 0.0), down


class Keep(Task):
    """Say at each of 5 steps the cue that was shown at the first."""

    sizes = {"say": 3}  # noqa: RUF012
    shape = (4,)
    limit = 5

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "cue"):
            self.cue = np.zeros(self.count, np.int64)
        self.cue[where] = self.random.integers(3, size=int(where.sum()))

    def observe(self) -> Floats:
        shown = np.zeros((self.count, 4), np.float32)
        first = self.age == 0
        shown[first, self.cue[first]] = 1.0
        shown[:, 3] = ~first
        return shown

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        return 0.5 * (actions["say"] == self.cue), np.zeros(self.count, bool)


TUNE = (
    {
        "pole": Known(Pole, 22.0, 200.0),
        "swing": Known(Swing, -48.9, -4.0),
        "workshop": Known(Workshop, 7.4, 30.0),
        "chain": Known(Chain, 0.17, 1.0, sparse=True),
        "recall": Known(CueRecall, 0.25, 1.0, memory=True),
        "follow": Known(Follow, 2.5, 30.0),
        "reach": Known(Reach, -3.3, 0.5),
        "orders": Known(Orders, 0.35, 14.0),
        "lock": Known(Lock, 0.05, 1.0, sparse=True),
        "repeat": Known(Repeat, 0.73, 2.2, memory=True),
        "catch": Known(Catch, -0.63, 1.0),
        "keep": Known(Keep, 0.83, 2.5, memory=True),
    }
    | TASKS_2
    | TASKS_3
    | TASKS_4
)
