"""Rows of ``slots`` against an independent computation in numpy's float64: odd tensors, many calls, several places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from recorder import module_gradients
from recorder.module_gradients import GradientLayout
from recorder.reduce.slots import SlotHistory, normalized_ratio
from recorder.slots import Slots, rows_of_slots
from recorder.transfer import Transfer

SETTINGS = settings(max_examples=150, deadline=None)
NUMBERS = st.sampled_from([0.0, math.nan, math.inf, -math.inf, 1e20, 1e-30, 1e-9, 3e-8, 0.3, -1.0, 6.0, 60.0])
KINDS = (torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)
Gradient = torch.Tensor | None
Side = list[Gradient] | None


@st.composite
def gradients(draw: st.DrawFn) -> Side:
    """Return a module's gradients, some None; None: there is no module."""
    if draw(st.integers(0, 9)) == 0:
        return None
    found: list[Gradient] = []
    for _ in range(draw(st.integers(0, 4))):
        cells = draw(st.lists(NUMBERS, min_size=1, max_size=5) | NUMBERS.map(lambda x: [x] * 3))
        kind = draw(st.sampled_from(KINDS))
        found.append(None if draw(st.integers(0, 5)) == 0 else torch.tensor(cells, dtype=kind))
    return found


def parameters(side: Side) -> list[nn.Parameter] | None:
    if side is None:
        return None
    made = []
    for gradient in side:
        parameter = nn.Parameter(torch.zeros(2) if gradient is None else torch.zeros_like(gradient))
        parameter.grad = gradient
        made.append(parameter)
    return made


CALL = st.tuples(
    st.sampled_from([(0, "a"), (0, "b"), (7, "a")]), gradients(), gradients(), st.sampled_from([None, 2.0])
)


def rows_of(calls: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    slots = Slots()
    for (env, slot), seed, host, clip in calls:
        given = {"stage": "TRAINING", "blueprint": None, "alpha": None}
        slots.take_snapshot(env, slot, parameters(seed), parameters(host), given, clip)
    arrays = Transfer(slots.tensors()).arrays()
    return {row["place"]: row for row in rows_of_slots(slots.now, arrays, SlotHistory(), 3)}


def norms(side: Side) -> list[float]:
    with np.errstate(all="ignore"):
        return [math.sqrt(np.square(one.double().numpy()).sum()) for one in side or () if one is not None]


def elements(side: Side) -> int:
    return sum(one.numel() for one in side or () if one is not None)


def expected(calls: Sequence[Any]) -> dict[str, Any]:
    """Return the measured cells of one place, call by call."""
    kept: dict[str, list[float]] = {name: [] for name in ("norm", "low", "high", "host", "both", "ratio", "broken")}
    for _, seed, host, clip in calls:
        own, around, bound = norms(seed), norms(host), 10 * (0.5 if clip is None else clip)
        total, whole = (
            math.sqrt(math.fsum(x * x for x in some)) if all_finite(some) else worst(some) for some in (own, around)
        )
        if own:
            kept["norm"].append(total)
            kept["low"].append(sum(x < 1e-7 for x in own) / len(own))
            kept["high"].append(sum(not x <= bound for x in own) / len(own))
            kept["broken"].append(sum(not math.isfinite(x) for x in own))
        if around:
            kept["host"].append(whole)
        if own and around:
            kept["both"].append(total)
            kept["ratio"].append(ratio(total, elements(seed), whole, elements(host)))
    mean = {name: None if not cells else float(np.mean(cells)) for name, cells in kept.items()}
    seeds, hosts = [seed for _, seed, _, _ in calls if seed is not None], [h for _, _, h, _ in calls if h is not None]
    broken = max(kept["broken"], default=None)
    health = None
    if mean["low"] is not None and mean["high"] is not None:
        health = 0.0 if broken else min(max(1 - 0.5 * mean["low"] - 0.8 * mean["high"], 0.0), 1.0)
    return {
        "calls": len(calls),
        "tensors": max((len(seed) for seed in seeds), default=None),
        "tensors_without_grad": max((sum(one is None for one in seed) for seed in seeds), default=None),
        "tensors_nonfinite": broken,
        "grad_norm": mean["norm"],
        "vanishing_severity": mean["low"],
        "exploding_severity": mean["high"],
        "has_vanishing": None if mean["low"] is None else mean["low"] > 0,
        "has_exploding": None if mean["high"] is None else mean["high"] > 0,
        "health": health,
        "host_grad_norm": mean["host"],
        "seed_grad_norm": mean["both"],
        "seed_elements": max(map(elements, seeds), default=None),
        "host_elements": max(map(elements, hosts), default=None),
        "normalized_ratio": mean["ratio"],
    }


def all_finite(some: Sequence[float]) -> bool:
    return all(math.isfinite(x) for x in some)


def worst(some: Sequence[float]) -> float:
    return math.nan if any(math.isnan(x) for x in some) else math.inf


def ratio(seed: float, n: int, host: float, m: int) -> float:
    if not math.isfinite(host):
        return math.nan
    if not math.isfinite(seed):
        return seed
    if seed < 1e-8 or host < 1e-8:
        return 0.0
    return (seed / math.sqrt(n)) / (host / math.sqrt(m) + 1e-8)


def same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6) or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and one == other


@contextmanager
def measured(how: str) -> Iterator[None]:
    """Measure as gradients in host memory are, as small ones on a device are, or as large ones."""
    nature = module_gradients.layout_of

    def elsewhere(gradients: Sequence[torch.Tensor]) -> GradientLayout:
        return GradientLayout.ALIKE if nature(gradients) is GradientLayout.ON_HOST else GradientLayout.MIXED

    with ExitStack() as stack:
        if how != "host":
            stack.enter_context(patch.object(module_gradients, "layout_of", elsewhere))
            stack.enter_context(patch.object(module_gradients, "SMALL", 1 << 16 if how == "small" else 0))
        yield


HOW = pytest.mark.parametrize("how", ["host", "small", "large"])


@HOW
@SETTINGS
@given(calls=st.lists(CALL, min_size=1, max_size=8))
def test_every_cell_follows_from_the_gradients_of_all_calls(how: str, calls: list[Any]) -> None:
    with measured(how):
        rows = rows_of(calls)
    assert set(rows) == {f"env {env}, {slot}" for (env, slot), *_ in calls}
    for (env, slot), *_ in calls:
        row = rows[f"env {env}, {slot}"]
        wanted = expected([call for call in calls if call[0] == (env, slot)])
        assert (row["update"], row["env"], row["slot"]) == (3, env, slot)
        assert {name: (row[name], cell) for name, cell in wanted.items() if not same(row[name], cell)} == {}


@HOW
@SETTINGS
@given(calls=st.lists(CALL, min_size=1, max_size=8), kept=st.integers(0, 30))
def test_measuring_in_between_changes_nothing(how: str, calls: list[Any], kept: int) -> None:
    with measured(how):
        at_once = rows_of(calls)
        with patch.object(module_gradients, "KEEP_ELEMENTS", kept):
            assert repr(rows_of(calls)) == repr(at_once)


@pytest.mark.parametrize("size", [1e20, 1e-30])
@HOW
def test_norms_neither_over_nor_underflow(size: float, how: str) -> None:
    with measured(how):
        (row,) = rows_of([((0, "a"), [torch.full((4,), size)] * 4, [torch.full((1,), size)], None)]).values()
    assert row["grad_norm"] == pytest.approx(4 * size, rel=1e-6)
    assert row["host_grad_norm"] == pytest.approx(size, rel=1e-6)
    assert row["normalized_ratio"] == (pytest.approx(1.0, rel=1e-6) if size > 1 else 0.0)


def test_sparse_gradients_count_by_their_values() -> None:
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[1, 1]]), torch.tensor([[3.0, 0.0], [0.0, 4.0]]), (5, 2), check_invariants=True
    )
    parameter = nn.Parameter(torch.zeros(5, 2))
    parameter.grad = sparse
    slots = Slots()
    slots.take_snapshot(0, "a", [parameter], None, {"stage": None, "blueprint": None, "alpha": None}, None)
    (row,) = rows_of_slots(slots.now, Transfer(slots.tensors()).arrays(), SlotHistory(), 0)
    assert row["grad_norm"] == 5.0


@pytest.mark.parametrize(
    ("seed", "host", "wanted"),
    [(2.0, 4.0, (2 / 10) / (4 / 20 + 1e-8)), (0.9e-8, 4.0, 0.0), (2.0, 0.9e-8, 0.0), (0.0, 0.0, 0.0),
     (math.nan, 0.0, math.nan), (math.inf, 0.0, math.inf), (0.0, math.inf, math.nan), (1.0, math.nan, math.nan),
     (math.inf, math.inf, math.nan)],
)  # fmt: skip
def test_the_ratio_keeps_zero_and_broken_apart(seed: float, host: float, wanted: float) -> None:
    found = normalized_ratio(*(np.array([x]) for x in (seed, 100.0, host, 400.0)))
    np.testing.assert_allclose(found, [wanted], rtol=1e-15)
