"""Rows of ``slots``: the calls of one update reduced by slot, and the cause of a low seed-to-host gradient ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np

from esper_analyze.detector.signals import Ints
from esper_analyze.schema.constants import gradient_health
from esper_analyze.schema.row_types import SlotsColumns, SlotsRow
from esper_analyze.schema.tables.slots import LOW_RATIO
from esper_analyze.storage.block import Block
from recorder.measure import Numbers
from recorder.measure.slots import FIELDS
from recorder.reduce.norms import Flags

TRAINING_STAGES = ("training", "blending")
"""Stages in which a seed should train; in any other stage it should not."""
FLOOR = 1e-8
"""A norm below this makes the ratio 0; also added to the host's norm to avoid division by 0."""
DECAY = 0.9
"""Decay of the moving averages, per update."""
ACTIVE_UPDATES = 3
"""Number of updates without a low ratio after which a low ratio means that the seed has saturated."""
NOTHING = -1
"""Value of a call's fields without a module or without gradients."""

StatisticsPart = tuple[Sequence[int], Numbers]
"""Numbers of snapshots, and their ``FIELDS`` [snapshots, fields]."""


class SlotCall(NamedTuple):
    """One call: the numbers of its snapshots of seed and host, and facts known without reading a device."""

    slot_key: str
    seed: int
    host: int
    tensors: int
    without: int
    seed_elements: int
    host_elements: int


@dataclass(slots=True)
class Slot:
    """A slot as of the last call of an update; ``tensors``: number of the seed's trainable tensors, None: empty."""

    env: int
    slot: str
    stage: str | None
    blueprint: str | None
    alpha: float | None
    tensors: int | None

    @property
    def should_train(self) -> bool:
        """Whether a seed should train in this stage; without a stage, whether it has anything to train."""
        return bool(self.tensors) if self.stage is None else self.stage.lower() in TRAINING_STAGES


def normalized_ratio(seed: Numbers, n_seed: Numbers, host: Numbers, n_host: Numbers) -> Numbers:
    """Return (seed / √n_seed) / (host / √n_host + 1e-8) of gradient norms over so many elements, any shape.

    0 where either norm is below 1e-8. Non-finite norms take precedence and propagate: an infinite host norm gives NaN,
    since a quotient of 0 would mean a dormant seed.
    """
    with np.errstate(all="ignore"):
        ratio = (seed / np.sqrt(n_seed)) / (host / np.sqrt(n_host) + FLOOR)
    ratio = np.where((seed < FLOOR) | (host < FLOOR), 0.0, ratio)
    broken = ~np.isfinite(seed) | ~np.isfinite(host)
    return np.where(broken, np.where(np.isfinite(host), seed, np.nan), ratio)


@dataclass(slots=True)
class SeedHistory:
    """State of one slot across updates.

    ``ratio``: moving average of the seed's ratio; ``host``: of norm / √elements of the host, over updates in which no
    seed that should train had a low ratio; ``active``: number of updates of this seed without a low ratio. Another
    blueprint, or a training stage after one without training, means another seed.
    """

    ratio: float | None = None
    host: float | None = None
    active: int = 0
    blueprint: str | None = None
    trained: bool = False

    def follow(self, slot: Slot) -> None:
        """Reset the state if the slot holds another seed now."""
        if slot.blueprint != self.blueprint or (slot.should_train and not self.trained):
            self.ratio, self.active = None, 0
        self.blueprint, self.trained = slot.blueprint, slot.should_train


class SlotHistory:
    """State of each slot from update to update, in order of first appearance."""

    def __init__(self) -> None:
        self.histories: dict[str, SeedHistory] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data."""
        return {
            slot_key: [past.ratio, past.host, past.active, past.blueprint, past.trained]
            for slot_key, past in self.histories.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state returned by ``state_dict``."""
        self.histories = {slot_key: SeedHistory(*cells) for slot_key, cells in state.items()}


def slot_rows(
    calls: Sequence[SlotCall],
    slots: Mapping[str, Slot],
    parts: Sequence[StatisticsPart],
    history: SlotHistory,
    update: int,
) -> list[SlotsRow]:
    """Return the rows of one update, which had at least one call.

    ``slots``: as of the last call, by slot key. ``parts``: the measured snapshots.
    """
    for slot_key in slots:
        history.histories.setdefault(slot_key, SeedHistory())
    order = [slot_key for slot_key in history.histories if slot_key in slots]
    numbers = SlotNumbers(calls, order, parts)
    rows: list[SlotsRow] = []
    for slot_key, measured, unreached in zip(order, numbers.cells(), numbers.unreached(), strict=True):
        slot, past = slots[slot_key], history.histories[slot_key]
        row: SlotsRow = {
            "update": update,
            "place": slot_key,
            "env": slot.env,
            "slot": slot.slot,
            "stage": slot.stage,
            "blueprint": slot.blueprint,
            "alpha": slot.alpha,
            "should_train": slot.should_train,
            **measured,
        }
        past.follow(slot)
        row["ratio_ema"], row["low_ratio_cause"] = _updated_history(past, row, unreached)
        rows.append(row)
    return rows


class SlotNumbers:
    """The calls of one update [C] as arrays, and their statistics by slot [P]."""

    def __init__(self, calls: Sequence[SlotCall], order: Sequence[str], parts: Sequence[StatisticsPart]) -> None:
        numbers = {slot_key: number for number, slot_key in enumerate(order)}
        self.slot_count = len(order)
        self.slot_of_call = np.array([numbers[call.slot_key] for call in calls], np.int64)
        fields = np.array([call[1:] for call in calls], np.int64)
        seed, host, self.tensors, self.without, self.seed_elements, self.host_elements = fields.T
        measured = np.full(
            (1 + max([NOTHING, *(snapshot for snapshots, _ in parts for snapshot in snapshots)]), len(FIELDS)), np.nan
        )
        for snapshots, statistics in parts:
            measured[list(snapshots)] = statistics
        measured = np.concatenate([measured, np.full((1, len(FIELDS)), np.nan)])  # NOTHING (-1) picks this row
        self.grown, self.around = seed != NOTHING, host != NOTHING
        self.norm, self.vanished, self.exploded, self.nonfinite = measured[seed].T
        self.host_norm = measured[host, 0]

    def _mean(self, cells: Numbers, where: Flags) -> list[float | None]:
        """Return the mean over the calls in ``where`` by slot; None without such a call, NaN propagates."""
        slot = self.slot_of_call[where]
        number = np.bincount(slot, minlength=self.slot_count)
        total = np.bincount(slot, cells[where], minlength=self.slot_count)
        pairs = zip(total.tolist(), number.tolist(), strict=True)
        return [slot_total / calls if calls else None for slot_total, calls in pairs]

    def _most(self, cells: Ints | Numbers, where: Flags | None = None) -> list[int | None]:
        """Return the maximum over the calls in ``where`` by slot; None without such a call."""
        most = np.full(self.slot_count, NOTHING)
        picked = slice(None) if where is None else where
        np.maximum.at(most, self.slot_of_call[picked], cells[picked].astype(np.int64))
        return [None if count == NOTHING else count for count in most.tolist()]

    def unreached(self) -> list[int]:
        """Return, by slot, the number of seed tensors without a gradient in all calls; a gradient may come late."""
        with_seed = self.tensors > 0
        least = np.full(self.slot_count, np.iinfo(np.int64).max)
        np.minimum.at(least, self.slot_of_call[with_seed], self.without[with_seed])
        counts: list[int] = np.where(least == np.iinfo(np.int64).max, 0, least).tolist()
        return counts

    def cells(self) -> list[SlotsRow]:
        """Return the measured cells of each slot."""
        present, both = (self.tensors - self.without).astype(np.float64), self.grown & self.around
        elements = [counts.astype(np.float64) for counts in (self.seed_elements, self.host_elements)]
        with np.errstate(all="ignore"):
            vanishing, exploding = self.vanished / present, self.exploded / present
            ratio = normalized_ratio(self.norm, elements[0], self.host_norm, elements[1])
        columns: SlotsColumns = {
            "calls": np.bincount(self.slot_of_call, minlength=self.slot_count).tolist(),
            "tensors": self._most(self.tensors),
            "tensors_without_grad": self._most(self.without),
            "tensors_nonfinite": self._most(self.nonfinite, self.grown),
            "grad_norm": self._mean(self.norm, self.grown),
            "vanishing_severity": self._mean(vanishing, self.grown),
            "exploding_severity": self._mean(exploding, self.grown),
            "host_grad_norm": self._mean(self.host_norm, self.around),
            "seed_grad_norm": self._mean(self.norm, both),
            "seed_elements": self._most(self.seed_elements),
            "host_elements": self._most(self.host_elements),
            "normalized_ratio": self._mean(ratio, both),
        }
        rows = [cast("SlotsRow", row) for row in Block(self.slot_count, columns).as_rows()]
        return [row | _health(row) for row in rows]


def _health(row: SlotsRow) -> SlotsRow:
    vanishing, exploding = row["vanishing_severity"], row["exploding_severity"]
    if vanishing is None or exploding is None:
        return {"health": None, "has_vanishing": None, "has_exploding": None}
    return {
        "health": gradient_health(vanishing, exploding, nonfinite=bool(row["tensors_nonfinite"])),
        "has_vanishing": vanishing > 0,
        "has_exploding": exploding > 0,
    }


def _updated_history(past: SeedHistory, row: SlotsRow, unreached: int) -> tuple[float | None, str | None]:
    """Return ``ratio_ema`` and ``low_ratio_cause``, and add the update to ``past``."""
    ratio = row["normalized_ratio"]
    cause = low_ratio_cause(past, row, unreached)
    if ratio is not None and not np.isfinite(ratio):
        return None, cause
    low = ratio is not None and ratio < LOW_RATIO
    host, elements = row["host_grad_norm"], row["host_elements"]
    if host is not None and elements is not None and np.isfinite(host) and not (low and row["should_train"]):
        past.host = _moving_average(past.host, host / elements**0.5)
    if ratio is None:
        return None, cause
    past.active += not low
    past.ratio = _moving_average(past.ratio, ratio)
    return past.ratio, cause


def _moving_average(average: float | None, value: float) -> float:
    return value if average is None else DECAY * average + (1 - DECAY) * value


def low_ratio_cause(past: SeedHistory, row: SlotsRow, unreached: int) -> str | None:
    """Return why the ratio is low, or missing though the seed should train; see the column's meaning.

    ``unreached``: number of seed tensors without a gradient in all calls of the update.
    """
    ratio, trains = row["normalized_ratio"], row["should_train"]
    if ratio is None:
        missing = trains and bool(row["tensors"]) and row["grad_norm"] is None
        return "disconnected" if missing else None
    if not ratio < LOW_RATIO:
        return None
    if not trains:
        return "dormant"
    if unreached:
        return "disconnected"
    if past.host is not None and _ratio_with_host(past.host, row) >= LOW_RATIO:
        return "host_learning_fast"
    return "saturated" if past.active >= ACTIVE_UPDATES else "dormant"


def _ratio_with_host(host: float, row: SlotsRow) -> float:
    """Return the seed's ratio to a host whose norm / √elements is ``host``."""
    assert row["host_elements"] is not None  # there is a ratio, so there was a host
    norms = np.array([row["seed_grad_norm"], host * row["host_elements"] ** 0.5])
    elements = np.array([row["seed_elements"], row["host_elements"]], np.float64)
    return float(normalized_ratio(norms[:1], elements[:1], norms[1:], elements[1:])[0])
