"""What is recorded of observations: which of them are looked at, and refusals."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from esper_analyze.runs.run import open_run
from recorder import Recorder
from recorder.measure.observations import FIELDS, feature_statistics, hellinger, observation_statistics
from recorder.observations import CELLS, FEATURES, Observations

NAMES = (*FIELDS, "any_finite", "shift_defined")


def cells(seen: Observations, observations: Any, steps: int) -> dict[str, float]:
    return dict(zip(NAMES, seen.statistics(observations, [steps]).tolist(), strict=True))


@pytest.mark.parametrize("kind", [torch.from_numpy, lambda array: array], ids=["tensor", "numpy"])
def test_of_large_observations_so_many_features_and_timesteps_are_looked_at_spread_over_all(kind: Any) -> None:
    steps, features = 3 * CELLS // FEATURES, 3 * FEATURES
    array = np.zeros((steps // 16, 16, features), np.float32)
    array += np.arange(features, dtype=np.float32)  # each feature is constant: its own number
    found = cells(Observations(), kind(array), steps)
    assert found["observation_constant_fraction"] == 1.0
    assert found["observation_min"] < features / 50
    assert found["observation_max"] > features * 49 / 50
    assert found["observation_mean"] == pytest.approx(features / 2, rel=0.01)
    array = np.zeros((steps // 16, 16, features), np.float32) + np.arange(16, dtype=np.float32)[:, None]
    found = cells(Observations(), kind(array), steps)  # no environment is left out, or preferred
    assert (found["observation_min"], found["observation_max"]) == (0.0, 15.0)
    assert found["observation_mean"] == pytest.approx(7.5, rel=0.03)
    assert found["observation_std"] == pytest.approx(np.arange(16).std(), rel=0.03)


def test_small_observations_are_looked_at_whole() -> None:
    array = np.zeros((CELLS // FEATURES, FEATURES), np.uint8)
    array[-1, -1] = 1
    found = cells(Observations(), array, len(array))
    assert found["observation_max"] == 1.0
    assert found["observation_constant_fraction"] == 1 - 1 / FEATURES


def test_each_of_several_kinds_has_its_share() -> None:
    array = np.zeros((40, FEATURES), np.float32)
    found = cells(Observations(), {"left": array, "right": array + 1, "one": np.arange(40.0)}, 40)
    assert found["observation_mean"] == pytest.approx((85 * 1 + 19.5) / 171)
    assert found["observation_constant_fraction"] == pytest.approx(170 / 171)


def test_a_shift_needs_the_same_features_in_the_update_before() -> None:
    seen, rng = Observations(), np.random.default_rng(0)
    shapes = [(4, 3), (4, 3), (4, 5), (4, 3), (8, 3)]
    defined = []
    for shape in shapes:
        defined.append(cells(seen, rng.normal(size=shape), shape[0])["shift_defined"])
        seen.end()
    assert defined == [0.0, 1.0, 0.0, 0.0, 1.0]


def test_the_distance_of_distributions_is_that_of_its_formula() -> None:
    mean, variance = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    other, width = torch.tensor([0.0, 2.0, 0.0, 1.0, 2.0]), torch.tensor([1.0, 4.0, 1.0, 0.0, 0.0])
    expected = [0.0, 1 - (4 / 5) ** 0.5 * np.exp(-1 / 5), 1.0, 0.0, 1.0]
    assert hellinger(mean, variance, other, width).tolist() == pytest.approx(expected, abs=1e-7)


def test_features_without_a_finite_number_are_left_out_but_of_what_they_are() -> None:
    nothing = torch.tensor([[torch.nan, 1.0], [torch.inf, 3.0]])
    found = dict(zip(NAMES, observation_statistics(feature_statistics(nothing), None, 2).tolist(), strict=True))
    assert found["observation_nonfinite_fraction"] == found["observation_constant_fraction"] == 0.5
    assert (found["observation_mean"], found["observation_std"], found["observation_max"]) == (2.0, 1.0, 3.0)
    before = feature_statistics(torch.tensor([[5.0, 1.0], [5.0, 3.0]]))
    found = dict(zip(NAMES, observation_statistics(feature_statistics(nothing), before, 2).tolist(), strict=True))
    assert (found["observation_shift"], found["shift_defined"]) == (0.0, 1.0)
    empty = feature_statistics(torch.full((3, 2), torch.nan))
    found = dict(zip(NAMES, observation_statistics(empty, before, 3).tolist(), strict=True))
    assert (found["any_finite"], found["shift_defined"], found["observation_nonfinite_fraction"]) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("observations", "values", "why"),
    [
        (np.zeros((5, 3)), np.zeros(4), "observations of shape (5, 3) in a rollout of 4 timesteps"),
        (np.zeros((4, 3)), None, "their number of timesteps is unknown"),
        ({}, np.zeros(4), "no observations"),
        (np.zeros((4, 0)), np.zeros(4), "observations without features"),
        ("abc", np.zeros(4), "observations of shape () in a rollout of 4 timesteps"),
        (np.array(["a", "b"]), np.zeros(2), "is not numbers"),
    ],
)
def test_what_cannot_be_used_costs_only_the_columns_of_observations(
    tmp_path: Path, observations: Any, values: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Recorder(tmp_path / "run") as rec:
        rec.update(values=values, returns=values, observations=observations, learning_rate=0.5)
    row = open_run(tmp_path / "run").frame("updates").to_dicts()[0]
    assert row["learning_rate"] == 0.5
    assert (row["value_mean"] is None) == (values is None)
    assert row["observation_constant_fraction"] is None
    (loss,) = open_run(tmp_path / "run").frame("losses_of_data").to_dicts()
    assert why in loss["detail"]
    assert "update(observations)" in loss["detail"]


def test_a_repeated_call_compares_with_the_update_before_again() -> None:
    """Ctrl-C repeats ``update``."""
    seen, rng = Observations(), np.random.default_rng(0)
    first, second = rng.normal(size=(2, 40, 3))
    cells(seen, first, 40)
    seen.end()
    once = cells(seen, second, 40)["observation_shift"]
    assert cells(seen, second, 40)["observation_shift"] == once > 0
    seen.end()
    seen.end()  # an update without observations
    assert cells(seen, second, 40)["shift_defined"] == 0.0


def test_parts_are_known_by_their_names_in_any_order() -> None:
    seen, rng = Observations(), np.random.default_rng(0)
    left, right = rng.normal(size=(40, 2)), 100 + rng.normal(size=(40, 2))
    cells(seen, {"left": left, "right": right}, 40)
    seen.end()
    found = cells(seen, {"right": right, "left": left, "none": np.zeros((40, 0))}, 40)
    assert (found["observation_shift"], found["shift_defined"]) == (0.0, 1.0)
    seen.end()
    assert cells(seen, {"other": left, "right": right}, 40)["shift_defined"] == 0.0
    seen.end()
    cells(seen, (left, right), 40)
    seen.end()
    assert cells(seen, (left, right), 40)["observation_shift"] == 0.0


def test_parts_of_several_precisions_keep_theirs() -> None:
    parts = {"half": torch.ones(4, 1).half(), "count": torch.arange(70_000, 70_004).reshape(4, 1)}
    found = cells(Observations(), parts, 4)
    assert (found["observation_max"], found["observation_nonfinite_fraction"]) == (70_003.0, 0.0)


def test_observations_that_fit_one_of_the_other_arrays_are_taken() -> None:
    seen = Observations()
    assert seen.statistics(np.zeros((16, 4, 5)), [68, 64, 64])[5] == 1.0
    assert seen.statistics(np.zeros((16, 4, 5)), [68, 64, 68])[5] == 1.0
    with pytest.raises(ValueError, match="in a rollout of 68 timesteps"):
        seen.statistics(np.zeros((16, 4, 5)), [68, 65, 68])


@pytest.mark.parametrize("kind", [torch.from_numpy, lambda array: array], ids=["tensor", "numpy"])
def test_a_view_is_looked_at_as_what_it_shows(kind: Any) -> None:
    array = np.random.default_rng(0).normal(size=(64, 300, 40))
    view, copy = kind(array).swapaxes(0, 1), np.ascontiguousarray(array.swapaxes(0, 1))
    assert cells(Observations(), view, 64 * 300) == pytest.approx(cells(Observations(), copy, 64 * 300), nan_ok=True)


def test_features_on_another_device_are_not_compared() -> None:
    seen = Observations()
    seen.statistics(torch.zeros(4, 2, device="meta"), [4])
    seen.end()
    found = cells(seen, torch.zeros(4, 2), 4)
    assert (found["shift_defined"], found["observation_constant_fraction"]) == (0.0, 1.0)
