"""Tasks held back: nobody who writes rules looks at a training of one of them, or at an alarm on it, before a release.

Of their trainings only the outcome was looked at when they were written, to see that they can be learnt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.faultbench.task import Actions, Floats, Known, Task


class Lift(Task):
    """Fetch those who wait on the three upper floors, one at a time, to the ground: 0.5 each; 40 steps."""

    sizes = {"go": 3}  # noqa: RUF012
    shape = (8,)
    limit = 40

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "floor"):
            self.floor, self.loaded = np.zeros(self.count, np.int64), np.zeros(self.count, bool)
            self.waiting = np.zeros((self.count, 3), bool)
        count = int(where.sum())
        self.floor[where], self.loaded[where] = self.random.integers(4, size=count), False
        self.waiting[where] = self.random.random((count, 3)) < 0.4

    def observe(self) -> Floats:
        floors = np.eye(4)[self.floor]
        return np.concatenate([floors, self.waiting, self.loaded[:, None]], axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows = np.arange(self.count)
        self.floor = np.clip(self.floor + actions["go"] - 1, 0, 3)
        brought = self.loaded & (self.floor == 0)
        self.loaded &= ~brought
        upper = np.maximum(self.floor - 1, 0)
        enters = ~self.loaded & (self.floor > 0) & self.waiting[rows, upper]
        self.waiting[rows[enters], upper[enters]] = False
        self.loaded |= enters
        self.waiting |= self.random.random((self.count, 3)) < 0.1
        return 0.5 * brought, np.zeros(self.count, bool)


class Packing(Task):
    """Put each thing into one of three boxes: 1 for a box that is three quarters full, and goes; overfull ends it."""

    sizes = {"box": 3}  # noqa: RUF012
    shape = (4,)
    limit = 60

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "boxes"):
            self.boxes, self.thing = np.zeros((self.count, 3)), np.zeros(self.count)
        count = int(where.sum())
        self.boxes[where] = 0.0
        self.thing[where] = self.random.uniform(0.1, 0.5, count)

    def observe(self) -> Floats:
        return np.concatenate([4 * self.boxes - 1.5, 6 * self.thing[:, None] - 2], axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows, box = np.arange(self.count), actions["box"]
        self.boxes[rows, box] += self.thing
        level = self.boxes[rows, box]
        over = level > 1.0
        full = (level >= 0.75) & ~over
        self.boxes[rows[full], box[full]] = 0.0
        self.thing = self.random.uniform(0.1, 0.5, self.count)
        return full.astype(np.float64), np.asarray(over)


class Arm(Task):
    """Follow a point on a circle with the hand of an arm of two joints, by two real speeds; −distance, 40 steps."""

    dimensions = 2
    shape = (8,)
    limit = 40

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "joints"):
            self.joints, self.phase = np.zeros((self.count, 2)), np.zeros(self.count)
            self.turn = np.zeros(self.count)
        count = int(where.sum())
        self.joints[where] = self.random.uniform((-np.pi, 0.5), (np.pi, 2.5), (count, 2))
        self.phase[where] = self.random.uniform(-np.pi, np.pi, count)
        self.turn[where] = self.random.choice([-0.1, 0.1], count)

    @property
    def hand(self) -> NDArray[np.float64]:
        """Return where the hand is, of an arm whose parts are 0.5 long."""
        first, second = self.joints[:, 0], self.joints.sum(1)
        return 0.5 * np.stack([np.cos(first) + np.cos(second), np.sin(first) + np.sin(second)], axis=1)

    @property
    def point(self) -> NDArray[np.float64]:
        """Return where the point is that is to be followed."""
        return 0.6 * np.stack([np.cos(self.phase), np.sin(self.phase)], axis=1)

    def observe(self) -> Floats:
        cells = [np.cos(self.joints), np.sin(self.joints), self.point, self.point - self.hand]
        return np.concatenate(cells, axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        self.joints += 0.4 * np.clip(actions["move"], -1, 1)
        self.phase += self.turn
        return -np.hypot(*(self.hand - self.point).T), np.zeros(self.count, bool)


class Shares(Task):
    """Spread money over four shares by four real weights: news of each tells a part of what it gains; 25 days."""

    dimensions = 4
    shape = (4,)
    limit = 25

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "news"):
            self.news = np.zeros((self.count, 4))
        self.news[where] = self.random.normal(0, 1, (int(where.sum()), 4))

    def observe(self) -> Floats:
        return self.news.astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        powers = np.exp(2.0 * np.clip(actions["move"], -2, 2))
        gain = 0.5 * self.news + 0.1 * self.random.standard_t(3, (self.count, 4))
        self.news = 0.5 * self.news + self.random.normal(0, 0.87, (self.count, 4))
        return (powers / powers.sum(1, keepdims=True) * gain).sum(1), np.zeros(self.count, bool)


class Auction(Task):
    """Bid for one of two lots what money there is, against a stranger who bids at random; 12 rounds."""

    sizes = {"lot": 2, "bid": 6}  # noqa: RUF012
    shape = (5,)
    limit = 12
    masked = True

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "worth"):
            self.worth, self.money = np.zeros((self.count, 2), np.int64), np.zeros(self.count, np.int64)
        count = int(where.sum())
        self.worth[where] = self.random.integers(0, 9, (count, 2))
        self.money[where] = 12

    def observe(self) -> Floats:
        left = np.stack([self.money / 12, 1 - self.age / self.limit, self.money > 4], axis=1)
        return np.concatenate([self.worth / 8, left], axis=1).astype(np.float32)

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        lots = self.worth > 0
        lots[~lots.any(1)] = True
        return {"lot": lots, "bid": np.arange(6) <= self.money[:, None]}

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        bid = np.minimum(actions["bid"], self.money)
        won = bid > self.random.integers(0, 5, self.count)
        worth = self.worth[np.arange(self.count), actions["lot"]]
        self.money = np.clip(self.money - np.where(won, bid, 0) + 1, 0, 12)
        self.worth = self.random.integers(0, 9, (self.count, 2))
        return np.where(won, 0.25 * worth - 0.1 * bid, 0.0), np.zeros(self.count, bool)


class Rounds(Task):
    """Visit six stops once each, the nearest first, on foot or by car: the way costs, and each car; six steps."""

    sizes = {"stop": 6, "by": 2}  # noqa: RUF012
    shape = (12,)
    limit = 10
    masked = True

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "stops"):
            self.stops, self.here = np.zeros((self.count, 6, 2)), np.zeros((self.count, 2))
            self.open = np.ones((self.count, 6), bool)
        count = int(where.sum())
        self.stops[where] = self.random.uniform(-1, 1, (count, 6, 2))
        self.here[where], self.open[where] = 0.0, True

    @property
    def ways(self) -> NDArray[np.float64]:
        """Return how far each stop is."""
        return np.asarray(np.hypot(*np.moveaxis(self.stops - self.here[:, None], 2, 0)))

    def observe(self) -> Floats:
        return np.concatenate([np.where(self.open, self.ways, 0.0), self.open], axis=1).astype(np.float32)

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        return {"stop": self.open.copy(), "by": np.ones((self.count, 2), bool)}

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows, stop = np.arange(self.count), actions["stop"]
        way = self.ways[rows, stop]
        cost = np.where(actions["by"] == 1, 0.3 + 0.3 * way, way)
        self.here = self.stops[rows, stop].copy()
        self.open[rows, stop] = False
        return -cost, np.asarray(~self.open.any(1))


class Crosswind(Task):
    """Hold a line by a real rudder against a wind that is drawn anew, and not seen; −distance a step, 20 steps."""

    dimensions = 1
    shape = (2,)
    limit = 20

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "off"):
            self.off, self.wind = np.zeros(self.count), np.zeros(self.count)
        count = int(where.sum())
        self.off[where] = self.random.uniform(-0.5, 0.5, count)
        self.wind[where] = self.random.choice([-0.8, 0.8], count)

    def observe(self) -> Floats:
        return np.stack([self.off, np.ones(self.count)], axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rudder = np.clip(actions["move"][:, 0], -2, 2)
        self.off = np.clip(self.off + 0.5 * (rudder + self.wind), -3, 3)
        return -np.abs(self.off), np.zeros(self.count, bool)


class Backwards(Task):
    """Say three tones that were heard, the last one first: 0.5 for each that is right; 6 steps."""

    sizes = {"tone": 3}  # noqa: RUF012
    shape = (5,)
    limit = 6

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "tones"):
            self.tones = np.zeros((self.count, 3), np.int64)
        self.tones[where] = self.random.integers(3, size=(int(where.sum()), 3))

    def observe(self) -> Floats:
        shown = np.zeros((self.count, 5), np.float32)
        heard = self.age < 3
        rows = np.flatnonzero(heard)
        shown[rows, self.tones[rows, self.age[rows]]] = 1.0
        shown[:, 3], shown[:, 4] = ~heard, self.age / self.limit
        return shown

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        asked = np.clip(6 - self.age, 0, 2)  # the age counts this step already
        right = actions["tone"] == self.tones[np.arange(self.count), asked]
        return 0.5 * (right & (self.age > 3)), np.zeros(self.count, bool)


class NeighbourSort(Task):
    """Bring four numbers into their order by exchanging neighbours: 1 when they are, and nothing before; 12 steps."""

    sizes = {"exchange": 3}  # noqa: RUF012
    shape = (16,)
    limit = 12

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "row"):
            self.row = np.tile(np.arange(4), (self.count, 1))
        count = int(where.sum())
        rows = self.random.permuted(np.tile(np.arange(4), (count, 1)), axis=1)
        rows[(rows == np.arange(4)).all(1)] = (1, 0, 3, 2)
        self.row[where] = rows

    def observe(self) -> Floats:
        shown: Floats = np.eye(4, dtype=np.float32)[self.row].reshape(self.count, 16)
        return shown

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows, left = np.arange(self.count), actions["exchange"]
        self.row[rows, left], self.row[rows, left + 1] = self.row[rows, left + 1], self.row[rows, left].copy()
        done: NDArray[np.bool_] = (self.row == np.arange(4)).all(1)
        return done.astype(np.float64), done


class Ferry(Task):
    """Bring wolf, goat and cabbage over a river; the boat stays where one would be eaten: 2 when all are over."""

    sizes = {"take": 4}  # noqa: RUF012
    shape = (4,)
    limit = 25

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "over"):
            self.over = np.zeros((self.count, 4), bool)
        self.over[where] = False

    def observe(self) -> Floats:
        return self.over.astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows, take = np.arange(self.count), actions["take"]  # 0 is the boat, alone
        after = self.over.copy()
        after[:, 0] ^= True
        after[rows[take > 0], take[take > 0]] ^= True
        boat, wolf, goat, cabbage = after.T
        eaten = (goat != boat) & ((wolf == goat) | (goat == cabbage))
        here = self.over[rows, take] == self.over[:, 0]
        self.over = np.where((here & ~eaten)[:, None], after, self.over)
        done = np.asarray(self.over.all(1))
        return np.where(done, 2.0, 0.0), done


class Crossing(Task):
    """Walk up between the cars of two lanes, of 16 × 16 pixels: 1 a crossing, −0.05 to wait below, a car ends it."""

    sizes = {"walk": 3}  # noqa: RUF012
    shape = (1, 16, 16)
    limit = 40

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "cars"):
            self.cars, self.row = np.zeros((self.count, 2), np.int64), np.zeros(self.count, np.int64)
        self.cars[where] = self.random.integers(8, size=(int(where.sum()), 2))
        self.row[where] = 0

    def observe(self) -> Floats:
        shown = np.zeros((self.count, 4, 8), np.float32)
        rows = np.arange(self.count)
        for lane in range(2):
            shown[rows, 2 - lane, self.cars[:, lane]] = 0.6
            shown[rows, 2 - lane, (self.cars[:, lane] + 1) % 8] = 0.6
        shown[rows, 3 - self.row, 4] = 1.0
        return np.kron(shown, np.ones((1, 4, 2), np.float32))[:, None]

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        self.row = np.clip(self.row + actions["walk"] - 1, 0, 3)
        self.cars = (self.cars + np.asarray([1, -1])) % 8
        over, waits = self.row == 3, self.row == 0
        beside = (4 - self.cars) % 8 < 2
        hit = ((self.row == 1) & beside[:, 0]) | ((self.row == 2) & beside[:, 1])
        self.row[over] = 0
        return over - 0.05 * waits, np.asarray(hit)


class Paint(Task):
    """Walk over 4 × 4 fields of 4 × 4 pixels, in two planes, and paint each: 0.2 for a new one; 24 steps."""

    sizes = {"walk": 4}  # noqa: RUF012
    shape = (2, 16, 16)
    limit = 24

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "painted"):
            self.painted, self.at = np.zeros((self.count, 4, 4), bool), np.zeros((self.count, 2), np.int64)
        self.painted[where] = False
        self.at[where] = self.random.integers(4, size=(int(where.sum()), 2))

    def observe(self) -> Floats:
        shown = np.zeros((self.count, 2, 4, 4), np.float32)
        shown[:, 0] = self.painted
        shown[np.arange(self.count), 1, self.at[:, 0], self.at[:, 1]] = 1.0
        return np.kron(shown, np.ones((1, 1, 4, 4), np.float32))

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        ways = np.asarray([(-1, 0), (1, 0), (0, -1), (0, 1)])
        self.at = np.clip(self.at + ways[actions["walk"]], 0, 3)
        rows = np.arange(self.count)
        new = ~self.painted[rows, self.at[:, 0], self.at[:, 1]]
        self.painted[rows, self.at[:, 0], self.at[:, 1]] = True
        return 0.2 * new, np.asarray(self.painted.all((1, 2)))


HELD = {
    "lift": Known(Lift, 1.17, 4.5),
    "packing": Known(Packing, 2.8, 16.0),
    "arm": Known(Arm, -34.0, -14.0),
    "shares": Known(Shares, 0.0, 12.0),
    "auction": Known(Auction, 4.0, 8.5),
    "rounds": Known(Rounds, -4.75, -3.0),
    "crosswind": Known(Crosswind, -47.4, -9.0, memory=True),
    "backwards": Known(Backwards, 0.5, 1.45, memory=True),
    "sort": Known(NeighbourSort, 0.32, 1.0, sparse=True),
    "ferry": Known(Ferry, 0.17, 2.0, sparse=True),
    "crossing": Known(Crossing, 0.01, 8.5),
    "paint": Known(Paint, 1.81, 2.9),
}
