"""Which parameters are compared between two updates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recorder.between_updates import ELEMENTS, BetweenUpdates, _elements, relative_distance


def shift(between: BetweenUpdates) -> float | None:
    cells = between.cells()
    return None if not cells else cells["parameter_shift_between_updates"].item()


@pytest.mark.parametrize("size", [1, ELEMENTS - 1, ELEMENTS, 2 * ELEMENTS - 1, 5 * ELEMENTS + 3])
def test_a_change_of_a_whole_tensor_is_seen_whatever_its_size(size: int) -> None:
    parameter, between = nn.Parameter(torch.ones(size)), BetweenUpdates()
    between.end([parameter])
    parameter.data *= 4
    between.begin([parameter], 0)
    assert shift(between) == pytest.approx(0.75)


@pytest.mark.parametrize("size", [3, ELEMENTS])
def test_each_element_of_a_small_tensor_is_compared(size: int) -> None:
    for place in range(size):
        parameters, between = [nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(7))], BetweenUpdates()
        between.end(parameters)
        parameters[0].data[place] = 1.5
        between.begin(parameters, 0)
        assert shift(between) == pytest.approx(0.5 / (size - 1 + 1.5**2) ** 0.5)


def test_of_a_large_tensor_so_many_elements_over_its_whole_length_are_compared() -> None:
    seen = []
    for place in range(0, 10 * ELEMENTS):
        parameter, between = nn.Parameter(torch.ones(10 * ELEMENTS)), BetweenUpdates()
        between.end([parameter])
        parameter.data[place] = 2.0
        between.begin([parameter], 0)
        if shift(between):
            seen.append(place)
    assert [place // 10 for place in seen] == list(range(ELEMENTS))  # one in each tenth part
    assert len({place % 10 for place in seen}) == 10


def test_frozen_parameters_may_change_and_others_are_known_by_identity() -> None:
    trained, frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), requires_grad=False)
    between = BetweenUpdates()
    between.end([trained, frozen])
    frozen.data += 1
    between.begin([trained, frozen], 0)
    assert shift(between) == 0.0
    between.end([trained])
    assert shift(between) is None
    between.begin([nn.Parameter(torch.ones(2))], 0)
    assert shift(between) is None


def test_nothing_is_said_after_steps_in_between_without_parameters_or_a_second_time() -> None:
    parameter, between = nn.Parameter(torch.ones(2)), BetweenUpdates()
    between.begin([parameter], 0)
    assert shift(between) is None
    between.end([parameter])
    between.begin([parameter], 1)
    assert shift(between) is None
    between.end([])
    between.begin([], 0)
    assert shift(between) is None
    between.end([parameter])
    between.begin([parameter], 0)
    parameter.data += 1
    between.begin([parameter], 0)
    assert shift(between) == 0.0


def test_the_distance_counts_equal_numbers_as_equal_and_new_nan_as_nan() -> None:
    before = torch.tensor([torch.nan, torch.inf, 3.0, 4.0], dtype=torch.float64)
    assert relative_distance(before.clone(), before).tolist() == [0.0]
    assert relative_distance(torch.zeros(2), torch.zeros(2)).tolist() == [0.0]
    assert relative_distance(torch.tensor([1.0]), torch.tensor([0.0])).tolist() == [1.0]
    assert relative_distance(torch.tensor([torch.inf, 5.0]), torch.tensor([torch.inf, 1.0])).tolist() == pytest.approx(
        [0.8]
    )
    assert relative_distance(torch.tensor([1.0]), torch.tensor([torch.inf])).tolist() == [torch.inf]
    assert relative_distance(torch.tensor([torch.nan]), torch.tensor([1.0])).isnan().all()
    assert relative_distance(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0])).tolist() == pytest.approx([34**-0.5])


def test_parameters_on_another_device_and_of_another_precision_are_no_obstacle() -> None:
    parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.float16))]
    between = BetweenUpdates()
    between.end([*parameters, nn.Parameter(torch.ones(2, device="meta")), nn.Parameter(torch.empty(0))])
    between.begin([*parameters, nn.Parameter(torch.ones(2, device="meta")), nn.Parameter(torch.empty(0))], 0)
    assert shift(between) == 0.0


def test_columns_and_rows_of_a_matrix_are_all_reached() -> None:
    for part in (slice(None), slice(1, None)):
        for shape in ((64, 64), (256, 256), (127,)):
            parameter, between = nn.Parameter(torch.ones(shape)), BetweenUpdates()
            between.end([parameter])
            parameter.data[..., part] = 2.0
            between.begin([parameter], 0)
            assert shift(between) == pytest.approx(0.5, rel=0.05)


def test_elements_of_a_tensor_that_is_not_contiguous_are_those_at_the_same_places() -> None:
    plain = torch.randn(8, 6, 5, 4)
    other = plain.contiguous(memory_format=torch.channels_last)
    assert not other.is_contiguous()
    assert torch.equal(_elements(plain), _elements(other))


def test_a_parameter_of_another_shape_is_another_one() -> None:
    parameter, between = nn.Parameter(torch.ones(80)), BetweenUpdates()
    between.end([parameter])
    parameter.data = torch.ones(160)
    between.begin([parameter], 0)
    assert shift(between) is None


def test_complex_parameters_are_left_out() -> None:
    parameters, between = (
        [nn.Parameter(torch.ones(3, dtype=torch.complex64)), nn.Parameter(torch.ones(2))],
        BetweenUpdates(),
    )
    between.end(parameters)
    parameters[0].data *= 2
    between.begin(parameters, 0)
    assert shift(between) == 0.0
