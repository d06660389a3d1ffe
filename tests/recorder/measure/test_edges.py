"""Measurements where they turn: at bounds, on padding, in pieces, away from the host; against numpy's float64."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recorder.measure import direction, elements, entropy, lstm, ratios, values
from recorder.measure.gradients import row_norms
from recorder.measure.joined import joined
from recorder.measure.worst import FIELDS as WORST_FIELDS
from recorder.measure.worst import worst_samples

pytestmark = pytest.mark.processor


class Elsewhere(Tensor):
    """A tensor that says it is on a device: what is done with it is what is done there."""

    device: Any = property(lambda _: SimpleNamespace(type="elsewhere"))


CUTS = [(5, 9), (1, 2, 3), (6,), (12,)]


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("padding", ["none", "some", "a whole piece", "all but one", "all"])
def test_statistics_of_pieces_join_to_those_of_all_samples(cuts: tuple[int, ...], padding: str) -> None:
    rng = np.random.default_rng(len(cuts))
    log_ratio = torch.from_numpy(rng.normal(0, 1, (3, 2, 12)))
    log_ratio[1, 0, 4], log_ratio[2, 1, 7] = 25.0, -31.0
    held, raw = ratios.log_ratios(None, log_ratio[1:])
    counted = torch.from_numpy(rng.random((2, 12)) < 0.6)
    if padding == "a whole piece":
        counted[:, : cuts[0]] = False
    elif padding.startswith("all"):
        counted[:] = False
        counted[:, 4] = padding == "all but one"
    weight = None if padding == "none" else counted.expand(3, 2, 12)
    advantages = torch.from_numpy(rng.normal(50, 2, (2, 12)))
    spread = torch.from_numpy(rng.uniform(0, 1, (2, 2, 12)))
    valid = torch.from_numpy(rng.integers(0, 4, (2, 2, 12)))
    of_all = None if padding == "none" else counted
    whole = [
        ratios.ratio_statistics(held, raw, 0.2, weight, advantages),
        entropy.joint_entropy(spread.sum(0), valid, of_all),
        entropy.head_entropy(spread, -spread, valid, of_all),
    ]
    parts: list[list[Tensor]] = [[], [], []]
    for a, b in zip((0, *cuts), (*cuts, 12), strict=True):
        some = slice(a, b)
        mine = None if of_all is None else of_all[..., some]
        piece = None if weight is None else weight[..., some]
        if a < b:
            parts[0].append(ratios.ratio_statistics(held[..., some], raw[..., some], 0.2, piece, advantages[..., some]))
            parts[1].append(entropy.joint_entropy(spread.sum(0)[..., some], valid[..., some], mine))
            parts[2].append(entropy.head_entropy(spread[..., some], -spread[..., some], valid[..., some], mine))
    kinds = (
        (ratios.FIELDS, ratios.JOINS),
        (entropy.JOINT_FIELDS, entropy.JOINT_JOINS),
        (entropy.HEAD_FIELDS, entropy.HEAD_JOINS),
    )
    for pieces, wanted, (fields, how) in zip(parts, whole, kinds, strict=True):
        torch.testing.assert_close(joined(pieces, fields, how), wanted, rtol=1e-12, atol=1e-13, equal_nan=True)


def test_a_head_beyond_its_clamp_leaves_the_loop_s_own_joint_alone_where_it_does_not_matter() -> None:
    own = torch.tensor([1.5, 1.5, 1.5, 40.0])
    heads = torch.tensor([[25.0, 25.0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
    relevant = torch.tensor([[False, True, True, True], [True, True, True, True]])
    held, raw = ratios.log_ratios(own, heads, relevant)
    assert held[0].tolist() == [1.5, 20.5, 1.5, 30.0]
    assert held[1:].tolist() == [[20.0, 20.0, 0.5, 0.5], [0.5] * 4]
    assert raw[0].tolist() == own.tolist()
    held, raw = ratios.log_ratios(None, heads, relevant)
    assert held[0].tolist() == [0.5, 20.5, 1.0, 1.0]
    assert raw[0].tolist() == [0.5, 25.5, 1.0, 1.0]


@pytest.mark.parametrize("clip_range", [0.5, 0.25])
def test_a_ratio_at_the_clip_is_not_beyond_it(clip_range: float) -> None:
    at = [1 + clip_range, 1 - clip_range]
    log_ratio = torch.tensor([[math.log(one) for one in at]], dtype=torch.float64)
    inside, beyond = log_ratio * (1 - 1e-9), log_ratio * (1 + 1e-9)
    for rows, share in ((inside, 0.0), (beyond, 1.0)):
        cells = dict(zip(ratios.FIELDS, ratios.ratio_statistics(rows, rows, clip_range, None)[:, 0], strict=True))
        assert (cells["clip_fraction"], cells["clip_positive"], cells["clip_negative"]) == (share, share / 2, share / 2)


def test_choices_of_an_action_are_counted_in_every_head_and_none_is_as_one() -> None:
    valid = torch.tensor([[3, 1, 0, 4], [0, 1, 0, 2]])
    spread = torch.tensor([0.7, 0.0, 0.0, 1.1], dtype=torch.float64)
    cells = dict(zip(entropy.JOINT_FIELDS, entropy.joint_entropy(spread, valid, None).tolist(), strict=True))
    assert cells["choices"] == 2
    assert cells["norm_sum"] == pytest.approx(0.7 / math.log(3) + 1.1 / (math.log(4) + math.log(2)), rel=1e-12)


@pytest.mark.parametrize("counted", [None, [True, True, False, True]])
def test_a_head_without_choices_has_entropy_and_extremes_and_no_shares(counted: list[bool] | None) -> None:
    spread = torch.tensor([[0.3, 0.9, 5.0, 0.6]], dtype=torch.float64)
    log_prob = torch.tensor([[-1.0, -0.25, -9.0, -2.0]], dtype=torch.float64)
    mask = None if counted is None else torch.tensor(counted)
    mine = np.ones(4, bool) if counted is None else np.array(counted)
    h, p = spread.numpy()[0][mine], log_prob.numpy()[0][mine]
    wanted = {"count": len(h), "entropy": h.mean(), "entropy_min": h.min(), "entropy_max": h.max()}
    wanted |= {"log_prob_min": p.min(), "log_prob_max": p.max()}
    wanted |= dict.fromkeys(("choices", "conditional_sum", "norm_sum"), math.nan)
    found = dict(zip(entropy.HEAD_FIELDS, entropy.head_entropy(spread, log_prob, None, mask)[:, 0], strict=True))
    np.testing.assert_allclose([float(found[name]) for name in wanted], list(wanted.values()), rtol=1e-12)
    wanted |= dict.fromkeys(("entropy", "entropy_min", "entropy_max"), math.nan)
    found = dict(zip(entropy.HEAD_FIELDS, entropy.head_entropy(None, log_prob, None, mask)[:, 0], strict=True))
    np.testing.assert_allclose([float(found[name]) for name in wanted], list(wanted.values()), rtol=1e-12)


GATE_WEIGHTS = ([[1.0], [0.0], [0.0], [2.0]], [[0.0]] * 4)
"""Of one unit: its input gate gets x, its forget gate 0, its output gate 2 x."""


def gates(inputs: Tensor) -> dict[str, float]:
    of_input, of_state = (torch.tensor(one, dtype=inputs.dtype) for one in GATE_WEIGHTS)
    weights = lstm.GateWeights(of_input, of_state, None, None)
    found = lstm.gate_statistics(inputs, torch.zeros_like(inputs), weights)
    return dict(zip(lstm.GATE_FIELDS, found.tolist(), strict=True))


@pytest.mark.parametrize("bound", [0.05, 0.95])
def test_a_gate_is_saturated_beyond_its_bounds_only(bound: float) -> None:
    inverse = math.log(bound / (1 - bound))
    for x, saturated in ((inverse * (1 - 1e-9), 0), (inverse * (1 + 1e-9), 1)):
        found = gates(torch.tensor([[x]], dtype=torch.float64))
        assert (found["input"], found["forget"], found["output"], found["count"]) == (saturated, 0, 1, 1)
    near = torch.tensor([[inverse]]) + torch.arange(-40.0, 41.0)[:, None] * 2.0**-22  # some have the bound itself
    values_of_gate = near.sigmoid().numpy()
    beyond = (values_of_gate < np.float32(0.05)) | (values_of_gate > np.float32(0.95))
    assert gates(near)["input"] == beyond.sum()


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (4, 2, 3), (5,), ()])
def test_row_norms_are_those_of_each_row(shape: tuple[int, ...]) -> None:
    g = np.random.default_rng(1).normal(size=shape)
    wanted = np.abs(g).reshape(-1) if g.ndim < 2 else np.sqrt((g.reshape(len(g), -1) ** 2).sum(1))
    np.testing.assert_allclose(row_norms(torch.from_numpy(np.asarray(g))).numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("where", [Tensor, Elsewhere])
@pytest.mark.parametrize("sizes", [[3, 1, 5], [9], [2, 0, 7]])
def test_dot_products_by_segment_are_those_of_numpy_on_any_device(where: type[Tensor], sizes: list[int]) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 4, 9)).astype(np.float32)
    pair = a.astype(np.float64), b.astype(np.float64)
    ends = np.cumsum([0, *sizes])
    wanted = [[float(np.dot(u[p:q], v[p:q])) for p, q in pairwise(ends)] for u, v in zip(*pair, strict=True)]
    segments = elements.Segments(sizes, torch.device("cpu"))
    x, y = (torch.from_numpy(one).as_subclass(where) for one in (a, b))
    found = direction.dots_by_segment(x, y, segments).as_subclass(Tensor)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("statistics", ["host", "device", "one"])
def test_elements_of_every_precision_are_counted_into_their_bins(dtype: torch.dtype, statistics: str) -> None:
    g = torch.tensor([0.0, 1e-7, 2e-5, 0.5, 1.0, -3.0, 11.0, -0.003, 10.0], dtype=dtype)
    kept = g if dtype in (torch.float32, torch.float64) else g.float()
    of = {
        "host": lambda: elements.host_statistics(kept),
        "device": lambda: elements.device_statistics(kept),
        "one": lambda: elements.element_statistics_of_one(g.reshape(3, 3)),
    }
    found = dict(zip(elements.FIELDS, of[statistics]().tolist(), strict=True))
    x = g.double().numpy()
    size = np.abs(x)
    edges = [0.0, *elements.EDGES]
    wanted = {
        "sum": x.sum(),
        "squares": ((x - x.mean()) ** 2).sum(),
        "zero": (size == 0).sum(),
        "below_1e_6": ((size > 0) & (size < 1e-6)).sum(),
        **{
            name: ((size >= a) & (size < b)).sum()
            for name, a, b in zip(elements.FIELDS[4:7], edges[1:], edges[2:], strict=False)
        },
        "1_and_above": (size >= 1).sum(),
        "nan": 0,
        "inf": 0,
        "large": (size > 10).sum(),
        "positive": (x > 0).sum(),
        "min": x.min(),
        "max": x.max(),
    }
    for name, cell in wanted.items():
        assert found[name] == pytest.approx(float(cell), rel=1e-12 if dtype is torch.float64 else 1e-6), name


def test_float64_elements_are_not_rounded() -> None:
    g = torch.tensor([1.0, 1.0 + 1e-12, 1e300], dtype=torch.float64)
    found = dict(zip(elements.FIELDS, elements.element_statistics_of_one(g).tolist(), strict=True))
    assert (found["min"], found["max"], found["inf"]) == (1.0, 1e300, 0)


@pytest.mark.parametrize(("spread", "defined"), [(1.9e-12, 0), (2.1e-12, 1), (3.9e-12, 1)])
@pytest.mark.parametrize("scale", [1.0, -1.0, 1024.0, -(2.0**-10)])
def test_moments_exist_where_the_spread_is_more_than_rounding(spread: float, defined: int, scale: float) -> None:
    """Two numbers that differ by ``spread`` have half of it as standard deviation; the bound is 1e-12 of the larger."""
    rows = scale * torch.tensor([1.0, 1.0 + spread], dtype=torch.float64)
    found = dict(zip(values.ADVANTAGE_FIELDS, values.advantage_statistics(rows).tolist(), strict=True))
    assert found["advantage_moments_defined"] == defined
    assert found["advantage_std"] == pytest.approx(abs(scale) * spread / 2, rel=1e-3)


@pytest.mark.parametrize("piece", [1, 2, 6, 7, 14, 1000])
@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_a_rollout_read_in_pieces_has_the_numbers_of_the_whole(
    piece: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(count)
    v, r = rng.normal(3, 2, (2, count))
    z = (r - r.mean()) / r.std() if count > 1 else np.zeros(1)
    wanted = {
        "rollout_samples": count,
        "return_variance": r.var(),
        "value_mean": v.mean(),
        "value_std": v.std(),
        "value_min": v.min(),
        "value_max": v.max(),
        "return_mean": r.mean(),
        "return_std": r.std(),
        "return_min": r.min(),
        "return_max": r.max(),
        **{f"value_error_p{round(100 * q):02d}": np.quantile(r - v, q) for q in values.QUANTILES},
        **{f"return_p{round(100 * q):02d}": np.quantile(r, q) for q in values.QUANTILES[1:4]},
    }
    if count > 1:
        wanted |= {"explained_variance": 1 - (r - v).var() / r.var(), "return_skewness": (z**3).mean()}
        wanted |= {"value_nrmse": np.sqrt(((r - v) ** 2).mean()) / r.std(), "return_kurtosis": (z**4).mean() - 3}
        wanted |= {"value_return_correlation": np.corrcoef(v, r)[0, 1]}
    monkeypatch.setattr(values, "PIECE", piece)
    stats = values.value_statistics(torch.from_numpy(v), torch.from_numpy(r)).tolist()
    found = dict(zip(values.FIELDS, stats, strict=True))
    for name, cell in wanted.items():
        assert found[name] == pytest.approx(cell, rel=1e-9, abs=1e-12), name
    advantages = dict(
        zip(values.ADVANTAGE_FIELDS, values.advantage_statistics(torch.from_numpy(r)).tolist(), strict=True)
    )
    for name in ("mean", "std", "min", "max"):
        assert advantages[f"advantage_{name}"] == pytest.approx(wanted[f"return_{name}"], rel=1e-12, abs=1e-15)
    assert advantages["advantage_positive_fraction"] == (r > 0).mean()
    errors = values.td_statistics(torch.from_numpy(r - v)).tolist()
    assert errors == pytest.approx([(r - v).mean(), (r - v).std(), np.abs(r - v).mean()], rel=1e-9, abs=1e-15)


def test_the_worst_samples_are_those_beyond_the_bounds_and_padding_comes_last() -> None:
    low, high = -2.0, 1.5
    log_ratio = torch.tensor([[[low, high, low - 0.5, high + 1.0, math.nan, 0.0]]], dtype=torch.float64)
    advantage = torch.arange(6.0)[None]
    found = worst_samples(log_ratio, None, {"advantage": advantage}, (low, high), 3)
    assert found.counts.tolist() == [[2.0], [1.0]]
    assert found.key.tolist() == [[math.inf, 2.5, 2.5]]
    place = WORST_FIELDS.index("advantage")
    assert sorted(found.samples[place, 0].tolist()) == [2.0, 3.0, 4.0]
    assert found.samples[WORST_FIELDS.index("action")].isnan().all()
    weight = torch.tensor([[[True, False, False, True, False, False]]])
    found = worst_samples(log_ratio, weight, {"advantage": advantage}, (low, high), 9)
    assert found.counts.tolist() == [[1.0], [0.0]]
    assert found.key.tolist() == [[2.5, 2.0, -1.0, -1.0, -1.0, -1.0]]
    assert found.samples[place, 0, :2].tolist() == [3.0, 0.0]
