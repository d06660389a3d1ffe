"""Tasks that the second release held back: they are among those on which bounds may be chosen since the third."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.faultbench.task import Actions, Floats, Known, Task


class Beam(Task):
    """Keep a rolling ball on a beam that is tilted step by step; more near the middle, a loss where it falls off."""

    sizes = {"tilt": 3}  # noqa: RUF012
    shape = (3,)
    limit = 150

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "state"):
            self.state = np.zeros((self.count, 3))
        self.state[where] = self.random.uniform(-1, 1, (int(where.sum()), 3)) * (0.5, 0.3, 0.1)

    def observe(self) -> Floats:
        return self.state.astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        x, speed, angle = self.state.T
        angle = np.clip(angle + 0.05 * (actions["tilt"] - 1), -0.3, 0.3)
        speed = speed + 0.7 * np.sin(angle) + self.random.normal(0, 0.01, self.count)
        self.state = np.stack([x + 0.1 * speed, speed, angle], axis=1)
        off = np.abs(self.state[:, 0]) > 1.0
        return 0.1 * (1.0 - np.minimum(np.abs(self.state[:, 0]), 1.0)) - off, off


class Descent(Task):
    """Come down by a real thrust: what counts is the speed on the ground; time and fuel cost a little."""

    dimensions = 1
    shape = (2,)
    limit = 80

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "state"):
            self.state = np.zeros((self.count, 2))
        count = int(where.sum())
        self.state[where] = np.stack([self.random.uniform(4, 8, count), self.random.uniform(-1, 0.5, count)], axis=1)

    def observe(self) -> Floats:
        return (self.state / (4.0, 2.0)).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        thrust = np.clip(actions["move"][:, 0], -2, 2)
        height, speed = self.state.T
        speed = np.clip(speed + 0.2 * (thrust - 0.5), -4, 4)
        self.state = np.stack([height + 0.2 * speed, speed], axis=1)
        down = self.state[:, 0] <= 0
        landing = np.maximum(2.0 - speed**2, -6.0)
        return np.where(down, landing, -0.03 - 0.01 * np.abs(thrust)), down


class Tanks(Task):
    """Hold three tanks, each of which drains into the next, at levels that are drawn, by their inflows; 60 steps."""

    dimensions = 3
    shape = (6,)
    limit = 60

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "levels"):
            self.levels, self.wanted = np.zeros((self.count, 3)), np.zeros((self.count, 3))
        count = int(where.sum())
        self.levels[where] = self.random.uniform(0, 2, (count, 3))
        self.wanted[where] = self.random.uniform(0.5, 1.5, (count, 3))

    def observe(self) -> Floats:
        return np.concatenate([self.levels - 1.0, self.wanted - self.levels], axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        drained = 0.1 * np.sqrt(self.levels)
        inflow = 0.2 * np.clip(actions["move"], -1, 1) + self.random.normal(0, 0.02, self.levels.shape)
        inflow[:, 1:] += drained[:, :-1]
        self.levels = np.clip(self.levels + inflow - drained, 0.0, 2.0)
        return np.exp(-3.0 * np.abs(self.levels - self.wanted).mean(1)), np.zeros(self.count, bool)


class Crew(Task):
    """Choose of the workers who came the best for each of two stations, and a pause: work tires; 50 steps."""

    sizes = {"early": 4, "late": 4, "pause": 3}  # noqa: RUF012
    shape = (9,)
    limit = 50
    masked = True

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "skill"):
            self.skill, self.vigour = np.zeros((self.count, 4)), np.ones((self.count, 4))
            self.there, self.worked = np.ones((self.count, 4), bool), np.zeros(self.count, np.int64)
        count = int(where.sum())
        self.vigour[where], self.worked[where] = 1.0, 0
        self.skill[where], self.there[where] = self._come(count)

    def _come(self, count: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        there = self.random.random((count, 4)) < 0.8
        there[np.arange(count), self.random.integers(4, size=count)] = True
        return self.random.choice([0.1, 0.4, 1.0], (count, 4)), there

    def observe(self) -> Floats:
        cells = [2.0 * self.skill - 1.0, 2.0 * self.vigour - 1.0, self.worked[:, None] / 3]
        return np.concatenate(cells, axis=1).astype(np.float32)

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        pause = np.ones((self.count, 3), bool)
        pause[self.worked >= 3, 0] = False
        return {"early": self.there.copy(), "late": self.there.copy(), "pause": pause}

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        rows, pause = np.arange(self.count), actions["pause"]
        able, work = self.skill * self.vigour, np.zeros(self.count)
        for station, share in (("early", 1.0), ("late", 2.0)):
            work += share * able[rows, actions[station]]
        for station in ("early", "late"):
            self.vigour[rows, actions[station]] *= 0.8
        self.vigour = np.minimum(self.vigour + np.array([0.05, 0.1, 0.3])[pause][:, None], 1.0)
        self.worked = np.where(pause == 0, self.worked + 1, 0)
        self.skill, self.there = self._come(self.count)
        return work * np.array([1.0, 0.9, 0.5])[pause], np.zeros(self.count, bool)


class LastLamp(Task):
    """Name the colour of the lamp that shone last, now or some steps ago; the watch may end at any step."""

    sizes = {"name": 3}  # noqa: RUF012
    shape = (4,)
    limit = 40

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "colour"):
            self.colour, self.shines = np.zeros(self.count, np.int64), np.ones(self.count, bool)
        self.colour[where] = self.random.integers(3, size=int(where.sum()))
        self.shines[where] = True

    def observe(self) -> Floats:
        shown = np.zeros((self.count, 4), np.float32)
        rows = np.arange(self.count)
        shown[rows, np.where(self.shines, self.colour, 3)] = 1.0
        return shown

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        right = actions["name"] == self.colour
        self.shines = self.random.random(self.count) < 0.3
        self.colour = np.where(self.shines, self.random.integers(3, size=self.count), self.colour)
        return np.where(right, 0.2, -0.1), self.random.random(self.count) < 0.03


class Aim(Task):
    """Move to a mark that is seen at the first two steps only, by a real push; −distance a step, 12 steps."""

    dimensions = 1
    shape = (3,)
    limit = 12

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "places"):
            self.places = np.zeros((self.count, 2))
        self.places[where] = self.random.uniform(-1, 1, (int(where.sum()), 2)) * (0.3, 1.0)

    def observe(self) -> Floats:
        seen = self.age < 2
        return np.stack([self.places[:, 0], self.places[:, 1] * seen, seen], axis=1).astype(np.float32)

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        self.places[:, 0] = np.clip(self.places[:, 0] + 0.3 * np.clip(actions["move"][:, 0], -1, 1), -1.5, 1.5)
        return -np.abs(self.places[:, 0] - self.places[:, 1]), np.zeros(self.count, bool)


class Maze(Task):
    """Walk from a corner of 6 × 6 fields round two walls to the other; 5 there and nothing before; two pits end it."""

    sizes = {"walk": 4}  # noqa: RUF012
    shape = (36,)
    limit = 40
    walls = frozenset({(1, 1), (1, 2), (1, 3), (3, 2), (3, 3), (3, 4), (3, 5)})
    pits = ((5, 0), (0, 5))

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "place"):
            self.place = np.zeros((self.count, 2), np.int64)
            self.closed = np.zeros((6, 6), bool)
            self.closed[tuple(np.array(sorted(self.walls)).T)] = True
        self.place[where] = 0

    def observe(self) -> Floats:
        shown: Floats = np.eye(36, dtype=np.float32)[self.place[:, 0] * 6 + self.place[:, 1]]
        return shown

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        moves = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])[actions["walk"]]
        ahead = np.clip(self.place + moves, 0, 5)
        self.place = np.where(self.closed[ahead[:, 0], ahead[:, 1]][:, None], self.place, ahead)
        there = (self.place == 5).all(1)
        lost = np.any([(self.place == pit).all(1) for pit in self.pits], axis=0)
        return 5.0 * there, there | lost


class Road(Task):
    """Steer along a winding road that scrolls down, two planes of pixels 16 × 16; 0.5 a row, the end off the road."""

    sizes = {"steer": 3}  # noqa: RUF012
    shape = (2, 16, 16)
    limit = 48

    def begin(self, where: NDArray[np.bool_]) -> None:
        if not hasattr(self, "road"):
            self.road, self.car = np.full((self.count, 16), 8), np.full(self.count, 8)
        count = int(where.sum())
        road = np.full((count, 16), 8)
        for row in range(14, -1, -1):
            road[:, row] = self._wind(road[:, row + 1])
        self.road[where], self.car[where] = road, 8

    def _wind(self, centre: NDArray[np.int64]) -> NDArray[np.int64]:
        wound: NDArray[np.int64] = np.clip(centre + self.random.integers(-1, 2, len(centre)), 3, 12)
        return wound

    def observe(self) -> Floats:
        shown = np.zeros((self.count, 2, 16, 16), np.float32)
        shown[:, 0] = np.abs(np.arange(16) - self.road[:, :, None]) <= 2
        shown[np.arange(self.count), 1, 15, self.car] = 1.0
        return shown

    def act(self, actions: Actions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        self.car = np.clip(self.car + actions["steer"] - 1, 0, 15)
        ahead = self._wind(self.road[:, 0])
        self.road = np.concatenate([ahead[:, None], self.road[:, :-1]], axis=1)
        off = np.abs(self.car - self.road[:, 15]) > 2
        return 0.5 * ~off, off


TASKS_2 = {
    "beam": Known(Beam, 0.34, 13.5),
    "descent": Known(Descent, -5.1, 1.0),
    "tanks": Known(Tanks, 10.5, 30.0),
    "crew": Known(Crew, 54.5, 85.0),
    "signal": Known(LastLamp, 0.01, 4.0, memory=True),
    "aim": Known(Aim, -7.8, -1.3, memory=True),
    "maze": Known(Maze, 0.12, 4.8, sparse=True),
    "road": Known(Road, 3.3, 20.0),
}
