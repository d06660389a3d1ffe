"""Tasks that the third release held back: they are among those on which bounds may be chosen since the fourth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.faultbench.task import Actions, Floats, Known, Task


class Junction(Task):
    """Give one of two queues of cars the green light, each change costs a step; 0.1 a car, a jam ends it."""

    sizes = {"light": 2}  # noqa: RUF012
    shape = (4,)
    limit = 60
    room = 12

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "queues"):
            self.queues, self.light = np.zeros((self.count, 2), np.int64), np.zeros(self.count, np.int64)
            self.flow = np.zeros((self.count, 2))
        count = int(where.sum())
        self.queues[where] = self.random.integers(0, 5, (count, 2))
        self.light[where] = self.random.integers(2, size=count)
        self.flow[where] = self.random.uniform(0.3, 0.9, (count, 2))

    def observe(self) -> Floats:
        light = 2.0 * self.light - 1.0
        return np.stack([*(self.queues.T / 6 - 1), light, self.age / 30 - 1], axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows, changed = np.arange(self.count), actions["light"] != self.light
        self.light = actions["light"].astype(np.int64)
        passed = np.where(changed, 0, np.minimum(self.queues[rows, self.light], 2))
        self.queues[rows, self.light] -= passed
        self.queues += self.random.poisson(self.flow)
        return 0.1 * passed, self.queues.max(1) > self.room


class Flap(Task):
    """Stay in the air by flaps, and be at the height of the gap at each sixth step: 1 a gate, the end beside it."""

    sizes = {"flap": 2}  # noqa: RUF012
    shape = (4,)
    limit = 90

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "state"):
            self.state, self.gap = np.zeros((self.count, 2)), np.zeros(self.count)
        count = int(where.sum())
        self.state[where] = np.stack([self.random.uniform(0.4, 0.6, count), np.zeros(count)], axis=1)
        self.gap[where] = self.random.uniform(0.3, 0.7, count)

    def observe(self) -> Floats:
        height, speed = self.state.T
        cells = [2 * height - 1, 10 * speed, 3 * (self.gap - height), self.age % 6 / 3 - 1]
        return np.stack(cells, axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        height, speed = self.state.T
        speed = np.where(actions["flap"] == 1, 0.09, speed - 0.03)
        height = height + speed
        self.state = np.stack([height, speed], axis=1)
        gate = self.age % 6 == 0
        beside = (height < 0) | (height > 1) | (gate & (np.abs(height - self.gap) > 0.2))
        self.gap = np.where(gate, np.clip(self.gap + self.random.uniform(-0.3, 0.3, self.count), 0.25, 0.75), self.gap)
        return (gate & ~beside).astype(np.float64), beside


class Battery(Task):
    """Buy and sell power by a real amount at a price that swings with the day; what counts is money; 48 steps."""

    dimensions = 1
    shape = (4,)
    limit = 48

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "charge"):
            self.charge, self.phase, self.noise = (np.zeros(self.count) for _ in range(3))
        count = int(where.sum())
        self.charge[where] = self.random.random(count)
        self.phase[where] = self.random.uniform(0, 12, count)
        self.noise[where] = 0.0

    @property
    def angle(self) -> NDArray[np.float64]:
        """Return the time of the day."""
        angle: NDArray[np.float64] = (self.age + self.phase) * np.pi / 6
        return angle

    def observe(self) -> Floats:
        price = np.sin(self.angle) + self.noise
        cells = [2 * self.charge - 1, price, np.sin(self.angle), np.cos(self.angle)]
        return np.stack(cells, axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        price = np.sin((self.age - 1 + self.phase) * np.pi / 6) + self.noise
        asked = 0.3 * np.clip(actions["move"][:, 0], -1, 1)
        after = np.clip(self.charge + asked, 0.0, 1.0)
        money = -price * (after - self.charge) - 0.1 * np.abs(asked)
        self.charge = after
        self.noise = 0.7 * self.noise + self.random.normal(0, 0.2, self.count)
        return money, np.zeros(self.count, bool)


class Orbit(Task):
    """Run round inside a ring by two real pushes: the angle that was covered counts, off the ring it ends with −1."""

    dimensions = 2
    shape = (4,)
    limit = 60

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "state"):
            self.state = np.zeros((self.count, 4))
        angle = self.random.uniform(-np.pi, np.pi, int(where.sum()))
        zeros = np.zeros(len(angle))
        self.state[where] = np.stack([np.cos(angle), np.sin(angle), zeros, zeros], axis=1)

    def observe(self) -> Floats:
        return self.state.astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        before = np.arctan2(self.state[:, 1], self.state[:, 0])
        self.state[:, 2:] = 0.8 * self.state[:, 2:] + 0.25 * np.clip(actions["move"], -1, 1)
        self.state[:, :2] += 0.2 * self.state[:, 2:]
        turned = np.arctan2(self.state[:, 1], self.state[:, 0]) - before
        turned = (turned + np.pi) % (2 * np.pi) - np.pi
        off = np.abs(np.hypot(self.state[:, 0], self.state[:, 1]) - 1.0) > 0.5
        return np.where(off, -1.0, turned), off


class Fields(Task):
    """Sow and reap three fields, each under a mask of what can be done: ripe is best, too late is lost; 40 steps."""

    sizes = {"north": 3, "middle": 3, "south": 3}  # noqa: RUF012
    shape = (15,)
    limit = 40
    masked = True
    worth = (0.0, 0.0, 0.4, 1.0, 0.3)

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "growth"):
            self.growth = np.zeros((self.count, 3), np.int64)
        self.growth[where] = self.random.integers(0, 3, (int(where.sum()), 3))

    def observe(self) -> Floats:
        shown: Floats = np.eye(5, dtype=np.float32)[self.growth].reshape(self.count, 15)
        return shown

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        empty = self.growth == 0
        valid = np.stack([np.ones_like(empty), empty, ~empty], axis=2)
        return {name: valid[:, field] for field, name in enumerate(self.sizes)}

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        done = np.stack([actions[name] for name in self.sizes], axis=1)
        sown, reaped = (done == 1) & (self.growth == 0), done == 2
        reward = np.where(reaped, np.asarray(self.worth)[self.growth], 0.0) - 0.1 * sown
        grown = self.growth + ((self.growth > 0) & (self.random.random(self.growth.shape) < 0.8))
        self.growth = np.where(reaped | (grown > 4), 0, np.where(sown, 1, grown))
        return reward.sum(1), np.zeros(self.count, bool)


class Trick(Task):
    """Beat the card on the table by one of five that was not played yet, and say whether it counts double."""

    sizes = {"card": 5, "stake": 2}  # noqa: RUF012
    shape = (7,)
    limit = 5
    masked = True

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "hand"):
            self.hand, self.table = np.zeros((self.count, 5)), np.zeros(self.count)
        count = int(where.sum())
        self.hand[where] = self.random.uniform(0, 1, (count, 5))
        self.table[where] = self.random.uniform(0, 1, count)

    def observe(self) -> Floats:
        cells = [2 * self.hand - 1, 2 * self.table[:, None] - 1, self.age[:, None] / 5]
        return np.concatenate(cells, axis=1).astype(np.float32)

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        there = self.hand >= 0
        return {"card": there, "stake": np.stack([np.ones(self.count, bool), there.sum(1) > 1], axis=1)}

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows = np.arange(self.count)
        won = self.hand[rows, actions["card"]] > self.table
        self.hand[rows, actions["card"]] = -0.5
        self.table = self.random.uniform(0, 1, self.count)
        return np.where(won, 0.5, -0.5) * (1 + actions["stake"]), self.age == self.limit


class Bandit(Task):
    """Find which of three arms pays, and keep to it: what was pulled and what it paid is seen once; 16 pulls."""

    sizes = {"arm": 3}  # noqa: RUF012
    shape = (4,)
    limit = 16

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "best"):
            self.best, self.shown = np.zeros(self.count, np.int64), np.zeros((self.count, 4), np.float32)
        self.best[where] = self.random.integers(3, size=int(where.sum()))
        self.shown[where] = (0, 0, 0, 1)

    def observe(self) -> Floats:
        return self.shown.copy()

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        arm = actions["arm"]
        paid = self.random.random(self.count) < np.where(arm == self.best, 0.95, 0.05)
        self.shown = np.zeros((self.count, 4), np.float32)
        self.shown[np.arange(self.count), arm] = np.where(paid, 1.0, -1.0)
        return np.where(paid, 0.25, 0.0), np.zeros(self.count, bool)


class Tally(Task):
    """Say which of two marks was shown more often so far, or pass; a wrong answer costs more than a right one gives."""

    sizes = {"say": 3}  # noqa: RUF012
    shape = (2,)
    limit = 20

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "total"):
            self.total, self.mark = np.zeros(self.count, np.int64), np.zeros(self.count, np.int64)
        self.mark[where] = self.random.choice([-1, 1], int(where.sum()))
        self.total[where] = self.mark[where]

    def observe(self) -> Floats:
        return np.stack([self.mark > 0, self.mark < 0], axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        said = actions["say"] - 1
        right = said * np.sign(self.total)
        reward = np.where(said == 0, 0.0, np.where(right > 0, 0.2, -0.3))
        self.mark = self.random.choice([-1, 1], self.count)
        self.total = self.total + self.mark
        return reward, np.zeros(self.count, bool)


class Valley(Task):
    """Drive a weak car out of a valley, by swinging: 1 on the hill and nothing before; 60 steps at most."""

    sizes = {"drive": 3}  # noqa: RUF012
    shape = (2,)
    limit = 60

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "state"):
            self.state = np.zeros((self.count, 2))
        count = int(where.sum())
        self.state[where] = np.stack([self.random.uniform(-1.0, 0.2, count), np.zeros(count)], axis=1)

    def observe(self) -> Floats:
        return (self.state * (1.5, 15.0)).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        place, speed = self.state.T
        speed = np.clip(speed + 0.008 * (actions["drive"] - 1) - 0.005 * np.cos(3 * place), -0.12, 0.12)
        ahead = np.clip(place + speed, -1.2, 0.6)
        self.state = np.stack([ahead, np.where(ahead <= -1.2, 0.0, speed)], axis=1)
        there = ahead >= 0.4
        return there.astype(np.float64), there


class Fetch(Task):
    """On a ring of eight places take the key where it lies and use it at the door: 3 there and nothing before."""

    sizes = {"do": 3}  # noqa: RUF012
    shape = (5,)
    limit = 24

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "places"):
            self.places, self.has = np.zeros((self.count, 3), np.int64), np.zeros(self.count, bool)
        self.places[where] = self.random.integers(8, size=(int(where.sum()), 3))
        self.has[where] = False

    def observe(self) -> Floats:
        key, door = ((self.places[:, one] - self.places[:, 0]) * np.pi / 4 for one in (1, 2))
        cells = [np.sin(key) * ~self.has, np.cos(key) * ~self.has, np.sin(door), np.cos(door), self.has]
        return np.stack(cells, axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        handles = actions["do"] == 2
        there = handles & self.has & (self.places[:, 0] == self.places[:, 2])
        self.has |= handles & (self.places[:, 0] == self.places[:, 1])
        self.places[:, 0] = (self.places[:, 0] + np.array([-1, 1, 0])[actions["do"]]) % 8
        return 3.0 * there, there


class Gallery(Task):
    """Name the figure in a noisy picture of 16 × 16 pixels, one after the other; the third mistake ends it."""

    sizes = {"name": 4}  # noqa: RUF012
    shape = (1, 16, 16)
    limit = 24

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "figure"):
            self.figure, self.mistakes = np.zeros(self.count, np.int64), np.zeros(self.count, np.int64)
            self.picture = np.zeros((self.count, 16, 16), bool)
        self.mistakes[where] = 0
        self._hang(where)

    def _hang(self, where: NDArray[np.bool_]) -> None:
        count = int(where.sum())
        figure, top, left = self.random.integers(4, size=count), *self.random.integers(0, 5, (2, count))
        down, right = (np.arange(16)[None] - one[:, None] for one in (top, left))
        rows, columns = down[:, :, None], right[:, None, :]
        inside = (rows >= 0) & (rows < 12) & (columns >= 0) & (columns < 12)
        round_ = (rows - 5.5) ** 2 + (columns - 5.5) ** 2 < 16
        drawn = [np.abs(rows - 5.5) < 1, np.abs(columns - 5.5) < 1, np.abs(rows - columns) < 2, round_]
        picture = np.select([(figure == kind)[:, None, None] for kind in range(4)], drawn) & inside
        self.figure[where] = figure
        self.picture[where] = picture ^ (self.random.random((count, 16, 16)) < 0.01)

    def observe(self) -> Floats:
        return self.picture[:, None].astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        right = actions["name"] == self.figure
        self.mistakes += ~right
        self._hang(np.ones(self.count, bool))
        return 0.25 * right, self.mistakes >= 3


class Forage(Task):
    """Find food on 4 × 4 fields of 4 × 4 pixels, in three planes, out of the way of a beast that wanders; 32 steps."""

    sizes = {"walk": 4}  # noqa: RUF012
    shape = (3, 16, 16)
    limit = 32

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "places"):
            self.places = np.zeros((self.count, 3, 2), np.int64)
        self.places[where] = self.random.integers(4, size=(int(where.sum()), 3, 2))

    def observe(self) -> Floats:
        fields = np.zeros((self.count, 3, 4, 4), np.float32)
        rows, planes = np.indices((self.count, 3))
        fields[rows, planes, self.places[..., 0], self.places[..., 1]] = 1.0
        return np.kron(fields, np.ones((1, 1, 4, 4), np.float32))

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        moves = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
        self.places[:, 0] = np.clip(self.places[:, 0] + moves[actions["walk"]], 0, 3)
        eaten, bitten = ((self.places[:, 0] == self.places[:, one]).all(1) for one in (1, 2))
        self.places[eaten, 1] = self.random.integers(4, size=(int(eaten.sum()), 2))
        wanders = self.random.random(self.count) < 0.3
        self.places[wanders, 2] = np.clip(
            self.places[wanders, 2] + moves[self.random.integers(4, size=int(wanders.sum()))], 0, 3
        )
        return 0.5 * eaten - 0.3 * bitten, np.zeros(self.count, bool)


TASKS_3 = {
    "junction": Known(Junction, 2.4, 6.0),
    "flap": Known(Flap, 0.2, 14.0),
    "battery": Known(Battery, -0.9, 5.3),
    "orbit": Known(Orbit, -1.0, 6.0),
    "fields": Known(Fields, 3.9, 23.0),
    "trick": Known(Trick, 0.0, 2.0),
    "bandit": Known(Bandit, 1.4, 3.3, memory=True),
    "tally": Known(Tally, -1.1, 2.0, memory=True),
    "valley": Known(Valley, 0.1, 1.0, sparse=True),
    "fetch": Known(Fetch, 0.46, 2.9, sparse=True),
    "gallery": Known(Gallery, 0.24, 5.5),
    "forage": Known(Forage, 0.0, 5.0),
}
