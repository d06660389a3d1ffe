"""Tasks that the fourth release held back: they are among those on which bounds may be chosen since the fifth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.faultbench.task import Actions, Floats, Known, Task


class Reservoir(Task):
    """Hold the water behind a dam by one of four gates; −0.1 a metre off a step, metres as they are; 100 steps."""

    sizes = {"gate": 4}  # noqa: RUF012
    shape = (4,)
    limit = 100

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "level"):
            self.level, self.rain = np.zeros(self.count), np.zeros(self.count)
        count = int(where.sum())
        self.level[where] = self.random.uniform(5, 45, count)
        self.rain[where] = self.random.uniform(1, 5, count)

    def observe(self) -> Floats:
        constant = np.full(self.count, 2.0)
        return np.stack([self.level - 25.0, self.rain, constant, self.level > 25], axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        self.level = np.clip(self.level + self.rain - 2.0 * actions["gate"], 0.0, 50.0)
        self.rain = np.clip(self.rain + self.random.normal(0, 0.4, self.count), 1.0, 5.0)
        return -0.1 * np.abs(self.level - 25.0), np.zeros(self.count, bool)


class Pig(Task):
    """Throw a die again or bank what was thrown: a 1 loses it; 0.01 a point that was banked; 20 throws, integers."""

    sizes = {"choose": 2}  # noqa: RUF012
    shape = (3,)
    limit = 20

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "pot"):
            self.pot, self.face = np.zeros(self.count, np.int64), np.zeros(self.count, np.int64)
        self.pot[where], self.face[where] = 0, 0

    def observe(self) -> Floats:
        return np.stack([self.pot, self.face, self.limit - self.age], axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        throws = actions["choose"] == 0
        banked = np.where(throws, 0, self.pot)
        self.face = np.where(throws, self.random.integers(1, 7, self.count), 0)
        self.pot = np.where(throws & (self.face > 1), self.pot + self.face, 0)
        return 0.01 * banked, np.zeros(self.count, bool)


class Limbs(Task):
    """Bring six joints to a pose by six real torques; minus the mean squared distance a step; 25 steps."""

    dimensions = 6
    shape = (13,)
    limit = 25

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "joints"):
            self.joints, self.pose = np.zeros((self.count, 6)), np.zeros((self.count, 6))
        self.joints[where] = self.random.uniform(-1, 1, (int(where.sum()), 6))
        self.pose[where] = self.random.uniform(-1, 1, (int(where.sum()), 6))

    def observe(self) -> Floats:
        constant = np.ones((self.count, 1))
        return np.concatenate([self.joints, self.pose, constant], axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        torque = np.clip(actions["move"], -1, 1)
        self.joints = np.clip(self.joints + 0.25 * torque + 0.05 * np.roll(torque, 1, axis=1), -2, 2)
        return -((self.joints - self.pose) ** 2).mean(1), np.zeros(self.count, bool)


class Hover(Task):
    """Hover in the wind by three real thrusts: 0.02 a step, less fuel; too far off ends it; 150 steps at most."""

    dimensions = 3
    shape = (9,)
    limit = 150

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "state"):
            self.state, self.wind = np.zeros((self.count, 6)), np.zeros((self.count, 3))
        count = int(where.sum())
        self.state[where] = self.random.uniform(-0.3, 0.3, (count, 6))
        self.wind[where] = self.random.uniform(-0.5, 0.5, (count, 3))

    def observe(self) -> Floats:
        return np.concatenate([5.0 * self.state, self.wind], axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        thrust = np.clip(actions["move"], -1.5, 1.5)
        self.state[:, 3:] = 0.95 * self.state[:, 3:] + 0.1 * (thrust + self.wind)
        self.state[:, :3] += 0.2 * self.state[:, 3:]
        self.wind = np.clip(self.wind + self.random.normal(0, 0.05, (self.count, 3)), -0.8, 0.8)
        return 0.02 - 0.002 * (thrust**2).mean(1), np.abs(self.state[:, :3]).max(1) > 1.0


class Counter(Task):
    """Serve one of eight places, most of them empty, or wait, and say how fast: what one brings is on it; 30 steps."""

    sizes = {"place": 9, "speed": 2}  # noqa: RUF012
    shape = (8,)
    limit = 30
    masked = True

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "worth"):
            self.worth = np.zeros((self.count, 8), np.int64)
        self.worth[where] = 0
        self._arrive(where)

    def _arrive(self, where: NDArray[np.bool_]) -> None:
        shape = (self.count, 8)
        comes = (self.worth == 0) & (self.random.random(shape) < 0.1) & where[:, None]
        self.worth = np.where(comes, self.random.integers(1, 10, shape), self.worth)

    def observe(self) -> Floats:
        return self.worth.astype(np.float32)

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        waits = np.ones((self.count, 1), bool)
        there = self.worth > 0
        fast = np.stack([np.ones(self.count, bool), there.any(1)], axis=1)
        return {"place": np.concatenate([waits, there], axis=1), "speed": fast}

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows, place = np.arange(self.count), actions["place"] - 1
        worth = np.where(place >= 0, self.worth[rows, place], 0)
        reward = np.where(actions["speed"] == 1, 1.5 * worth - 2.5, worth)
        self.worth[rows[place >= 0], place[place >= 0]] = 0
        leaves = self.random.random((self.count, 8)) < 0.15
        self.worth = np.where(leaves, 0, self.worth)
        self._arrive(np.ones(self.count, bool))
        return np.where(worth > 0, reward, 0.0), np.zeros(self.count, bool)


class Nim(Task):
    """Take stones from one of three heaps against one who takes any: the last stone wins, 1 or −1 at the end."""

    sizes = {"heap": 3, "stones": 4}  # noqa: RUF012
    shape = (15,)
    limit = 12
    masked = True

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "heaps"):
            self.heaps = np.zeros((self.count, 3), np.int64)
        self.heaps[where] = self.random.integers(1, 5, (int(where.sum()), 3))

    def observe(self) -> Floats:
        shown: Floats = np.eye(5, dtype=np.float32)[self.heaps].reshape(self.count, 15)
        return shown

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        return {"heap": self.heaps > 0, "stones": np.arange(4) < self.heaps.max(1, keepdims=True)}

    def _take(self, heap: NDArray[np.int64], stones: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Take so many stones, or all of the heap; return where none is left."""
        rows = np.arange(self.count)
        self.heaps[rows, heap] = np.maximum(self.heaps[rows, heap] - stones, 0)
        none: NDArray[np.bool_] = self.heaps.sum(1) == 0
        return none

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        won = self._take(actions["heap"], actions["stones"] + 1)
        any_heap = (self.random.random((self.count, 3)) * (self.heaps > 0)).argmax(1)
        lost = self._take(any_heap, self.random.integers(1, 5, self.count)) & ~won
        return np.where(won, 1.0, np.where(lost, -1.0, 0.0)), won | lost


class Guess(Task):
    """Find a number from 1 to 9: too high or too low is said of the last guess; −0.1 a guess, 1 for it; 8 guesses."""

    sizes = {"guess": 9}  # noqa: RUF012
    shape = (11,)
    limit = 8

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "number"):
            self.number, self.shown = np.zeros(self.count, np.int64), np.zeros((self.count, 11), np.float32)
        self.number[where] = self.random.integers(9, size=int(where.sum()))
        self.shown[where] = 0.0

    def observe(self) -> Floats:
        return self.shown.copy()

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        guess = actions["guess"]
        self.shown = np.zeros((self.count, 11), np.float32)
        self.shown[np.arange(self.count), guess] = 1.0
        self.shown[:, 9], self.shown[:, 10] = guess > self.number, guess < self.number
        right = guess == self.number
        return np.where(right, 1.0, -0.1), right


class Beat(Task):
    """Press at the next beat, of a period of 2 to 4 steps that is not told; three of ten are not seen; 30 steps."""

    sizes = {"press": 2}  # noqa: RUF012
    shape = (2,)
    limit = 30

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "period"):
            self.period, self.left = np.ones(self.count, np.int64), np.zeros(self.count, np.int64)
            self.seen = np.zeros(self.count, bool)
        self.period[where] = self.random.integers(2, 5, int(where.sum()))
        self.left[where] = self.random.integers(self.period[where])
        self.seen[where] = self.left[where] == 0

    def observe(self) -> Floats:
        return np.stack([self.seen, np.ones(self.count)], axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        self.left = np.where(self.left == 0, self.period, self.left) - 1
        beat = self.left == 0
        self.seen = beat & (self.random.random(self.count) < 0.7)
        return np.where(actions["press"] == 1, np.where(beat, 0.3, -0.2), 0.0), np.zeros(self.count, bool)


class Putt(Task):
    """Play a ball into a hole by real strokes in the plane: 1 in the hole and nothing before; three strokes."""

    dimensions = 2
    shape = (5,)
    limit = 3

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "ball"):
            self.ball, self.hole = np.zeros((self.count, 2)), np.zeros((self.count, 2))
        self.ball[where] = self.random.uniform(-1, 1, (int(where.sum()), 2))
        self.hole[where] = self.random.uniform(-1, 1, (int(where.sum()), 2))

    def observe(self) -> Floats:
        return np.concatenate([self.ball, self.hole, self.age[:, None]], axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        self.ball = np.clip(self.ball + np.clip(actions["move"], -2, 2), -1.5, 1.5)
        there: NDArray[np.bool_] = np.asarray(np.hypot(*(self.ball - self.hole).T) < 0.4)
        return there.astype(np.float64), there


class Lamps(Task):
    """Light all of six lamps in a ring, of which each switch turns two: 10 when all are lit and nothing before."""

    sizes = {"switch": 6}  # noqa: RUF012
    shape = (6,)
    limit = 10

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "lit"):
            self.lit = np.ones((self.count, 6), bool)
        self.lit[where] = True
        turned = self.random.random((self.count, 6)) < 0.5
        turned[np.arange(self.count), self.random.integers(6, size=self.count)] = True
        turned[turned.all(1), 0] = False
        self.lit[where] ^= (turned ^ np.roll(turned, 1, axis=1))[where]

    def observe(self) -> Floats:
        return self.lit.astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows, switch = np.arange(self.count), actions["switch"]
        self.lit[rows, switch] ^= True
        self.lit[rows, (switch + 1) % 6] ^= True
        done = np.asarray(self.lit.all(1))
        return np.where(done, 10.0, 0.0), done


class Meteors(Task):
    """Choose the lane of four in which no block comes down, of 4 × 4 fields of 4 × 4 pixels; a hit ends it."""

    sizes = {"lane": 4}  # noqa: RUF012
    shape = (1, 16, 16)
    limit = 100

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "sky"):
            self.sky, self.ship = np.zeros((self.count, 4, 4), bool), np.zeros(self.count, np.int64)
        self.sky[where] = False
        self.ship[where] = self.random.integers(4, size=int(where.sum()))

    def observe(self) -> Floats:
        shown = 0.5 * self.sky[:, None].astype(np.float32)
        shown[np.arange(self.count), 0, 3, self.ship] = 1.0
        return np.kron(shown, np.ones((1, 1, 4, 4), np.float32))

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        self.ship = actions["lane"].astype(np.int64)
        new = self.random.random((self.count, 4)) < 0.4
        new[np.arange(self.count), self.random.integers(4, size=self.count)] = False
        self.sky = np.concatenate([new[:, None], self.sky[:, :-1]], axis=1)
        hit: NDArray[np.bool_] = self.sky[np.arange(self.count), 3, self.ship]
        return np.where(hit, 0.0, 0.1), hit


class Spot(Task):
    """Name row and column of the brightest of 4 × 4 fields in noise, by two heads: 0.5 for each; ten pictures."""

    sizes = {"row": 4, "column": 4}  # noqa: RUF012
    shape = (1, 16, 16)
    limit = 10

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "place"):
            self.place = np.zeros((self.count, 2), np.int64)
        self.place[where] = self.random.integers(4, size=(int(where.sum()), 2))

    def observe(self) -> Floats:
        fields = np.zeros((self.count, 4, 4))
        fields[np.arange(self.count), self.place[:, 0], self.place[:, 1]] = 1.0
        noise = self.random.normal(0, 0.3, (self.count, 16, 16))
        return (np.kron(fields, np.ones((1, 4, 4))) + noise)[:, None].astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        right = [actions[name] == self.place[:, axis] for axis, name in enumerate(self.sizes)]
        self.place = self.random.integers(4, size=(self.count, 2))
        return 0.5 * right[0] + 0.5 * right[1], np.zeros(self.count, bool)


TASKS_4 = {
    "reservoir": Known(Reservoir, -174.4, -15.0),
    "pig": Known(Pig, 0.26, 0.43),
    "limbs": Known(Limbs, -26.3, -3.0),
    "hover": Known(Hover, 0.29, 2.7),
    "counter": Known(Counter, 76.2, 112.0),
    "nim": Known(Nim, -0.05, 0.9),
    "guess": Known(Guess, 0.13, 0.75, memory=True),
    "beat": Known(Beat, -0.3, 2.5, memory=True),
    "putt": Known(Putt, 0.11, 0.95, sparse=True),
    "lamps": Known(Lamps, 2.8, 9.8, sparse=True),
    "meteors": Known(Meteors, 0.53, 9.5),
    "spot": Known(Spot, 2.5, 9.5),
}
