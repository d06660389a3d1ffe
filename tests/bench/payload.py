"""What is handed over: updates of 60 scalars and a 100 × 12 layer table, seeded, as compressible as real ones.

Floats carry float32 precision, as measurements of float32 tensors do; scalars walk, layer statistics are log-normal
with a level of their own and walk slowly; counts stay as they are; shares are whole numbers of elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from esper_analyze.schema.column import Column, Kind
from esper_analyze.schema.tables import BY_NAME

LAYERS, SCALARS = 100, 60
COUNTS = ("nan_count", "inf_count")
SHARES = ("zero_fraction", "small_fraction", "large_fraction")
SIZES = ("grad_norm", "mean", "std", "min", "max", "weight_norm", "update_ratio")
STATISTICS = (*SIZES[:5], *SHARES, *COUNTS, *SIZES[5:])
LAYER_NAMES = tuple(f"blocks.{layer // 4}.{('attention', 'mlp', 'norm', 'gate')[layer % 4]}" for layer in range(LAYERS))
NAMES = tuple(f"layers/{name}/{statistic}" for name in LAYER_NAMES for statistic in STATISTICS)
"""Names of the table's 1,200 numbers for peers that know only scalars."""

Floats = NDArray[np.float64]


def _columns() -> tuple[Column, ...]:
    numbers = [column for column in BY_NAME["updates"].columns if column.kind in (Kind.INT, Kind.FLOAT)]
    counts = [column for column in numbers if column.kind is Kind.INT and column.name not in ("rank", "seq")]
    return tuple([*counts, *(column for column in numbers if column.kind is Kind.FLOAT)][:SCALARS])


COLUMNS = _columns()
"""The scalars: all counts of table ``updates`` (``update`` first) and as many of its floats."""


@dataclass(frozen=True)
class Update:
    """One update's numbers: ``scalars`` by name, ``layers`` [100, 12] with the columns ``STATISTICS``."""

    number: int
    scalars: dict[str, int | float]
    layers: Floats

    @property
    def flat(self) -> dict[str, int | float]:
        """All 1,260 numbers by name."""
        return self.scalars | dict(zip(NAMES, self.layers.ravel().tolist(), strict=True))


def updates(count: int, seed: int = 0) -> Iterator[Update]:
    """Yield ``count`` updates; the same seed gives the same numbers."""
    random = np.random.default_rng(seed)
    elements = (2.0 ** random.integers(6, 17, LAYERS)).astype(np.float64)
    scalars, logs = random.normal(size=SCALARS), random.normal(-4.0, 2.0, size=(LAYERS, len(SIZES)))
    for number in range(count):
        scalars += 0.05 * random.normal(size=SCALARS)
        logs += 0.02 * random.normal(size=logs.shape)
        yield Update(number, _scalars(number, scalars), _layers(random, elements, logs))


def _scalars(number: int, walked: Floats) -> dict[str, int | float]:
    cells: dict[str, int | float] = {}
    for column, value in zip(COLUMNS, walked.astype(np.float32).tolist(), strict=True):
        cells[column.name] = 64 if column.kind is Kind.INT else value
    return cells | {"update": number}


def _layers(random: np.random.Generator, elements: Floats, logs: Floats) -> Floats:
    sizes = np.exp(logs + 0.3 * random.normal(size=logs.shape))
    sizes[:, 1] *= random.choice((-1.0, 1.0), LAYERS)  # a mean is as often negative
    sizes[:, 3] *= -1.0
    shares = random.binomial(elements.astype(np.int64)[:, None], (0.01, 0.2, 0.001), (LAYERS, 3)) / elements[:, None]
    counts = np.zeros((LAYERS, len(COUNTS)))
    table = np.concatenate([sizes[:, :5], shares, counts, sizes[:, 5:]], axis=1)
    rounded: Floats = table.astype(np.float32).astype(np.float64)
    return rounded
