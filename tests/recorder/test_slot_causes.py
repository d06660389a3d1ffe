"""Why a seed's ratio is low, told apart in closed-form courses of updates."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from esper_analyze.schema.row_types import SlotsRow
from recorder.reduce.slots import SlotHistory
from recorder.slots import Slots, rows_of_slots
from recorder.transfer import Transfer

GIVEN: dict[str, Any] = {"stage": "TRAINING", "blueprint": "conv", "alpha": None}


class SlotUpdates:
    """Updates of one slot: host and seed have 16 parameters each, with every element's gradient as given."""

    def __init__(self) -> None:
        self.slots, self.history = Slots(), SlotHistory()

    def update(self, seed: float | None, host: float | None, **given: Any) -> SlotsRow:
        modules = [nn.Parameter(torch.zeros(16)) for _ in range(2)]
        for one, pull in zip(modules, (seed, host), strict=True):
            one.grad = None if pull is None else torch.full((16,), pull)
        self.slots.take_snapshot(0, "r0c0", modules[:1], modules[1:], GIVEN | given, None)
        arrays = Transfer(self.slots.tensors()).arrays()
        (row,) = rows_of_slots(self.slots.now, arrays, self.history, 0)
        self.slots.forget_calls()
        return row

    def causes(self, *pairs: tuple[float | None, float | None], **given: Any) -> list[str | None]:
        return [self.update(*pair, **given)["low_ratio_cause"] for pair in pairs]


SOUND = [(1.0, 1.0)] * 4


@pytest.mark.parametrize(
    ("pairs", "cause"),
    [
        ([*SOUND], None),
        ([*SOUND, (0.05, 1.0)], "saturated"),
        ([*SOUND, (0.0, 1.0)], "saturated"),
        ([*SOUND, (1.0, 50.0)], "host_learning_fast"),
        ([*SOUND, *[(1.0, 50.0)] * 30], "host_learning_fast"),
        ([*SOUND, (0.05, 50.0)], "saturated"),
        ([*SOUND, *[(0.001, 1.0)] * 30], "saturated"),
        ([(0.05, 1.0)] * 10, "dormant"),
        ([(1.0, 1.0), (1.0, 1.0), (0.05, 1.0)], "dormant"),
        ([(0.0, 1.0)], "dormant"),
        ([*SOUND, (None, 1.0)], "disconnected"),
        ([(None, 1.0)], "disconnected"),
        ([(None, None)], "disconnected"),
        ([*SOUND, (1.0, None)], None),
        ([*SOUND, (float("nan"), 1.0)], None),
        ([*SOUND, (1.0, float("inf"))], None),
        ([(0.09999 * 2, 2.0)], "dormant"),
        ([(0.20001, 2.0)], None),
    ],
)
def test_the_cause_follows_from_the_course(pairs: Sequence[Any], cause: str | None) -> None:
    assert SlotUpdates().causes(*pairs)[-1] == cause


def test_a_host_seen_before_the_seed_grew_tells_a_fast_host_from_a_dormant_seed() -> None:
    for pair, cause in (((0.05, 1.0), "dormant"), ((0.8, 80.0), "host_learning_fast")):
        course = SlotUpdates()
        for _ in range(5):
            course.update(None, 1.0, stage="GERMINATED")
        assert course.causes(pair) == [cause]


def test_in_no_stage_of_training_a_low_ratio_is_dormant_and_a_missing_one_is_nothing() -> None:
    course = SlotUpdates()
    assert course.causes((0.01, 1.0), (None, 1.0), (1.0, 1.0), stage="FOSSILIZED") == ["dormant", None, None]
    row = course.update(0.01, 1.0, stage="Blending")
    assert (row["should_train"], row["low_ratio_cause"]) == (True, "dormant")


def test_another_seed_begins_afresh() -> None:
    for changed in ({"blueprint": "attention"}, {}):
        course = SlotUpdates()
        course.causes(*SOUND)
        if not changed:
            course.update(None, 1.0, stage="PRUNED")
        row = course.update(0.05, 1.0, **changed)
        assert (row["low_ratio_cause"], row["ratio_ema"]) == ("dormant", row["normalized_ratio"])


def test_a_seed_that_goes_on_from_training_to_blending_is_the_same() -> None:
    course = SlotUpdates()
    course.causes(*SOUND)
    assert course.causes((0.05, 1.0), stage="BLENDING") == ["saturated"]


def test_a_tensor_without_gradient_and_a_low_ratio_are_disconnected() -> None:
    slots, history, linear = Slots(), SlotHistory(), nn.Linear(4, 4)
    linear.weight.grad = torch.full((4, 4), 0.01)
    host = nn.Parameter(torch.zeros(4))
    host.grad = torch.ones(4)
    for pull, cause in ((0.01, "disconnected"), (1.0, None)):
        linear.weight.grad.fill_(pull)
        slots.take_snapshot(0, "a", linear, [host], GIVEN, None)
        (row,) = rows_of_slots(slots.now, Transfer(slots.tensors()).arrays(), history, 0)
        slots.forget_calls()
        assert (row["tensors"], row["tensors_without_grad"], row["low_ratio_cause"]) == (2, 1, cause)


def test_a_seed_whose_gradient_comes_within_the_update_is_not_disconnected() -> None:
    slots, linear = Slots(), nn.Linear(4, 4)
    host = nn.Parameter(torch.zeros(4))
    host.grad = torch.ones(4)
    for gradient in (None, torch.full((4, 4), 0.01), None):
        for parameter in linear.parameters():
            parameter.grad = None if gradient is None else torch.full_like(parameter, 0.01)
        slots.take_snapshot(0, "a", linear, [host], GIVEN, None)
    (row,) = rows_of_slots(slots.now, Transfer(slots.tensors()).arrays(), SlotHistory(), 0)
    assert (row["tensors_without_grad"], row["low_ratio_cause"]) == (2, "dormant")


def test_the_moving_average_takes_in_what_is_finite() -> None:
    course, ema = SlotUpdates(), None
    for seed in (1.0, 0.5, None, float("nan"), 2.0):
        row = course.update(seed, 1.0)
        if seed is None or math.isnan(seed):
            assert row["ratio_ema"] is None
            continue
        ratio = seed / (1 + 1e-8)
        ema = ratio if ema is None else 0.9 * ema + 0.1 * ratio
        assert row["ratio_ema"] == pytest.approx(ema, rel=1e-12)


def test_what_is_remembered_goes_through_a_checkpoint() -> None:
    course, other = SlotUpdates(), SlotUpdates()
    course.causes(*SOUND)
    other.history = SlotHistory()
    other.history.load_state_dict(json.loads(json.dumps(course.history.state_dict())))
    assert other.update(0.05, 1.0) == course.update(0.05, 1.0)
    assert other.update(0.05, 1.0)["low_ratio_cause"] == "saturated"
