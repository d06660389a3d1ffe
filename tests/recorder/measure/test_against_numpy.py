"""Every measurement against an independent float64 computation in numpy, edge cases included."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from recorder.measure import entropy, losses, lstm, masks, ratios, values
from recorder.measure.gradients import device_norms, host_norms, nonfinite_elements, row_norms, total_norm

pytestmark = pytest.mark.processor

SETTINGS = settings(max_examples=80, deadline=None)
Array = Any


def arrays(low: float, high: float, *, rows: int | None = None) -> st.SearchStrategy[Array]:
    """Return float32 arrays [rows, n] or [n] of numbers between the bounds."""
    shape = st.integers(1, 40) if rows is None else st.tuples(st.just(rows), st.integers(1, 40))
    return hnp.arrays(np.float32, shape, elements=st.floats(low, high, width=32))


@SETTINGS
@given(arrays(-3, 3, rows=3), st.sampled_from([0.1, 0.2, 0.5]))
def test_ratio_and_kl_match_their_definitions(log_ratio: Array, clip_range: float) -> None:
    held, raw = ratios.log_ratios(None, torch.from_numpy(log_ratio))
    found = dict(zip(ratios.FIELDS, ratios.ratio_statistics(held, raw, clip_range, None).numpy(), strict=True))
    joint = np.concatenate([log_ratio.astype(np.float64).sum(0, keepdims=True), log_ratio.astype(np.float64)])
    ratio = np.exp(joint)
    close: dict[str, Any] = {"rtol": 2e-4, "atol": 2e-5}
    np.testing.assert_allclose(found["k1"], -joint.mean(1), **close)
    np.testing.assert_allclose(found["k2"], (joint**2 / 2).mean(1), **close)
    np.testing.assert_allclose(found["k3"], (ratio - 1 - joint).mean(1), **close)
    np.testing.assert_allclose(found["ratio_mean"], ratio.mean(1), **close)
    np.testing.assert_allclose(found["ratio_max"], ratio.max(1), **close)
    np.testing.assert_allclose(found["ratio_min"], ratio.min(1), **close)
    np.testing.assert_allclose(found["log_ratio_abs_max"], np.abs(joint).max(1), **close)
    edge = np.abs(np.abs(ratio - 1) - clip_range).min(1) > 1e-4
    share = (np.abs(ratio - 1) > clip_range).mean(1)
    np.testing.assert_allclose(found["clip_fraction"][edge], share[edge], atol=1e-6)
    np.testing.assert_allclose(found["clip_positive"] + found["clip_negative"], found["clip_fraction"], atol=1e-6)


@SETTINGS
@given(arrays(-80, 80, rows=2))
def test_clamps_hold_and_are_counted(log_ratio: Array) -> None:
    held, raw = ratios.log_ratios(None, torch.from_numpy(log_ratio))
    found = ratios.ratio_statistics(held, raw, 0.2, None, held[0], held[1])
    assert bool(found.isfinite().all())
    clamped = (np.abs(log_ratio) > 20).any(0) | (np.abs(np.clip(log_ratio, -20, 20).sum(0)) > 30)
    assert found[ratios.FIELDS.index("clamped"), 0] == clamped.sum()


def test_nan_and_inf_log_ratios_are_counted_and_not_hidden() -> None:
    held, raw = ratios.log_ratios(None, torch.tensor([[0.0, math.nan, math.inf, -math.inf]]))
    found = dict(zip(ratios.FIELDS, ratios.ratio_statistics(held, raw, 0.2, None)[:, 0].tolist(), strict=True))
    assert found["nonfinite"] == 3
    assert math.isnan(found["ratio_max"])
    assert math.isnan(found["k3"])


@SETTINGS
@given(arrays(-2, 2, rows=2), st.data())
def test_weighted_statistics_equal_those_of_the_samples_that_count(log_ratio: Array, data: st.DataObject) -> None:
    n = log_ratio.shape[1]
    weight = data.draw(hnp.arrays(np.bool_, n))
    rows = torch.from_numpy(log_ratio)
    both = torch.from_numpy(np.stack([weight, weight]))
    advantages = torch.linspace(-1, 2, n).square()
    found = ratios.ratio_statistics(rows, rows, 0.2, both, advantages, rows[0])
    if not weight.any():
        assert found[0].tolist() == [0.0, 0.0]
        return
    counted = rows[:, weight]
    wanted = ratios.ratio_statistics(counted, counted, 0.2, None, advantages[weight], counted[0])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@SETTINGS
@given(st.integers(2, 6), st.integers(1, 30), st.randoms(use_true_random=False))
def test_entropy_of_masked_categoricals_matches_numpy(size: int, n: int, random: Any) -> None:
    rng = np.random.default_rng(random.randint(0, 2**31))
    mask = rng.random((n, size)) < 0.6
    mask[:, 0] = True
    raw = np.where(mask, rng.normal(size=(n, size)) * 3, -1e8)
    logits = raw - np.logaddexp.reduce(raw, axis=1, keepdims=True)
    p = np.exp(logits)
    wanted = -(np.where(p > 0, p * np.where(p > 0, logits, 0), 0)).sum(1)
    found = entropy.categorical_entropy(torch.from_numpy(logits.astype(np.float32)))
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-6)
    assert (found[torch.from_numpy(mask.sum(1) == 1)] == 0).all()
    counts = torch.from_numpy(mask.sum(1)[None, :])
    zeros = torch.zeros(1, n)
    row = dict(
        zip(entropy.HEAD_FIELDS, entropy.head_entropy(found[None, :], zeros, counts, None)[:, 0].tolist(), strict=True)
    )
    choice = mask.sum(1) > 1
    assert row["choices"] == choice.sum()
    shares = wanted[choice] / np.log(mask.sum(1)[choice])
    assert row["norm_sum"] == pytest.approx(shares.sum(), abs=1e-4)
    assert row["conditional_sum"] == pytest.approx(wanted[choice].sum(), abs=1e-4)


def test_uniform_choice_has_normalised_entropy_one() -> None:
    h = torch.tensor([[math.log(4.0), 0.0, math.log(2.0)]])
    valid = torch.tensor([[4, 1, 2]])
    row = dict(zip(entropy.JOINT_FIELDS, entropy.joint_entropy(h[0], valid, None).tolist(), strict=True))
    assert row["choices"] == 2
    assert row["norm_sum"] / row["choices"] == pytest.approx(1.0)


@SETTINGS
@given(arrays(-100, 100), st.floats(-3, 3), st.floats(0, 3))
def test_value_statistics_match_numpy(returns: Array, slope: float, noise: float) -> None:
    predicted = (slope * returns + noise * np.sin(np.arange(len(returns)))).astype(np.float32)
    stats = values.value_statistics(torch.from_numpy(predicted), torch.from_numpy(returns))
    found = dict(zip(values.FIELDS, stats.tolist(), strict=True))
    r, v = returns.astype(np.float64), predicted.astype(np.float64)
    assert found["return_variance"] == pytest.approx(r.var(), rel=1e-9, abs=1e-18)
    assert found["value_mean"] == pytest.approx(v.mean(), rel=1e-9, abs=1e-9)
    assert (found["return_min"], found["return_max"]) == (r.min(), r.max())
    assert found["value_error_p50"] == pytest.approx(np.quantile(r - v, 0.5), rel=1e-9, abs=1e-9)
    assert found["return_p90"] == pytest.approx(np.quantile(r, 0.9), rel=1e-9, abs=1e-9)
    assert bool(found["explained_variance_defined"]) == (r.var() != 0)
    if r.var() > 1e-6:
        assert found["explained_variance"] == pytest.approx(1 - (r - v).var() / r.var(), rel=1e-6, abs=1e-9)
        assert found["value_nrmse"] == pytest.approx(np.sqrt(((r - v) ** 2).mean()) / r.std(), rel=1e-6)
        if v.std() > 1e-3:
            assert found["value_return_correlation"] == pytest.approx(np.corrcoef(r, v)[0, 1], abs=1e-6)


@SETTINGS
@given(arrays(-10, 10))
def test_advantage_moments_match_numpy(advantages: Array) -> None:
    found = dict(
        zip(values.ADVANTAGE_FIELDS, values.advantage_statistics(torch.from_numpy(advantages)).tolist(), strict=True)
    )
    a = advantages.astype(np.float64)
    assert found["advantage_std"] == pytest.approx(a.std(), rel=1e-9, abs=1e-12)
    assert found["advantage_positive_fraction"] == (a > 0).mean()
    if a.std() > 1e-3:
        z = (a - a.mean()) / a.std()
        assert found["advantage_moments_defined"] == 1
        assert found["advantage_skewness"] == pytest.approx((z**3).mean(), rel=1e-6, abs=1e-6)
        assert found["advantage_kurtosis"] == pytest.approx((z**4).mean() - 3, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("constant", [0.0, 3.0, -1e20])
def test_constant_returns_leave_explained_variance_undefined(constant: float) -> None:
    stats = values.value_statistics(torch.randn(9), torch.full((9,), constant))
    found = dict(zip(values.FIELDS, stats.tolist(), strict=True))
    assert found["explained_variance_defined"] == 0
    assert found["return_moments_defined"] == 0


def test_a_nan_return_makes_explained_variance_nan_and_not_undefined() -> None:
    stats = values.value_statistics(torch.zeros(3), torch.tensor([0.0, math.nan, 1.0]))
    found = dict(zip(values.FIELDS, stats.tolist(), strict=True))
    assert math.isnan(found["explained_variance"])
    assert found["explained_variance_defined"] == 1
    assert math.isnan(found["value_error_p50"])


@SETTINGS
@given(st.lists(arrays(-1e3, 1e3), min_size=1, max_size=5))
def test_gradient_norms_match_numpy(gradients: list[Array]) -> None:
    tensors = [torch.from_numpy(g) for g in gradients]
    wanted = [np.linalg.norm(g.astype(np.float64)) for g in gradients]
    np.testing.assert_allclose(device_norms(tensors).norms.numpy(), wanted, rtol=1e-12)
    np.testing.assert_allclose(host_norms(tensors).norms.numpy(), wanted, rtol=1e-6)
    for small in (True, False):
        assert float(total_norm(tensors, small=small, on_host=False)) == pytest.approx(
            np.linalg.norm(wanted), rel=1e-12
        )
    assert float(total_norm(tensors, small=False, on_host=True)) == pytest.approx(np.linalg.norm(wanted), rel=1e-6)


@SETTINGS
@given(st.lists(arrays(-1e3, 1e3), min_size=1, max_size=5))
def test_the_shared_total_is_the_clip_calls_own_to_the_last_bit(gradients: list[Array]) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(len(g))) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.from_numpy(gradient)
    total = host_norms([torch.from_numpy(g) for g in gradients]).total
    assert total is not None
    assert torch.equal(total, torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(size, dtype) for dtype in (torch.float32, torch.bfloat16) for size in (1e20, 6e4, 1.0, 1e-30)]
    + [(size, torch.float16) for size in (6e4, 1.0, 6e-8)],
)
def test_norms_neither_overflow_nor_vanish(size: float, dtype: torch.dtype) -> None:
    gradient = torch.full((3, 3), size, dtype=dtype)
    wanted = float(gradient.double().square().sum().sqrt())
    assert float(device_norms([gradient]).norms[0]) == pytest.approx(wanted, rel=1e-12)
    assert float(total_norm([gradient], small=True, on_host=False)) == pytest.approx(wanted, rel=1e-12)
    assert row_norms(gradient).tolist() == pytest.approx([wanted / 3**0.5] * 3, rel=1e-12)
    if dtype == torch.float32:
        ordinary = torch.ones(2)
        assert host_norms([ordinary, gradient]).norms.tolist() == pytest.approx([2**0.5, wanted], rel=1e-6)


def test_nonfinite_gradients_stay_nonfinite_and_sparse_ones_are_measured() -> None:
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[0, 0, 2]]), torch.tensor([1.0, 2.0, 4.0]), (3,), check_invariants=True
    )
    broken = [torch.tensor([math.nan, 1.0]), torch.tensor([math.inf])]
    for found in (device_norms([*broken, sparse]).norms, host_norms(broken).norms):
        assert math.isnan(float(found[0]))
        assert math.isinf(float(found[1]))
    assert float(device_norms([sparse]).norms[0]) == 5.0


def test_nonfinite_elements_are_counted_apart() -> None:
    counts = nonfinite_elements([torch.tensor([math.nan, 1.0, math.inf]), torch.tensor([[-math.inf, math.nan]])])
    assert counts.tolist() == [2, 2]


@SETTINGS
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**31))
def test_lstm_statistics_match_numpy(layers: int, envs: int, hidden: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    h, c = rng.uniform(-1, 1, (layers, envs, hidden)), rng.normal(0, 4, (layers, envs, hidden))
    found = dict(zip(lstm.FIELDS, lstm.lstm_statistics(torch.from_numpy(h), torch.from_numpy(c)).tolist(), strict=True))
    for letter, x in (("h", h), ("c", c)):
        per_env = np.sqrt((x**2).mean(axis=(0, 2)))
        assert found[f"{letter}_l2_total"] == pytest.approx(np.linalg.norm(x))
        assert found[f"{letter}_rms"] == pytest.approx(np.sqrt((x**2).mean()))
        assert found[f"{letter}_env_rms_mean"] == pytest.approx(per_env.mean())
        assert found[f"{letter}_env_rms_max"] == pytest.approx(per_env.max())
        assert found[f"{letter}_max"] == np.abs(x).max()
        assert found[f"{letter}_mean"] == pytest.approx(x.mean(), abs=1e-12)
    assert found["h_saturation"] == (np.abs(h) > 0.99).mean()
    assert (found["has_nan"], found["has_inf"]) == (0, 0)


def test_lstm_flags_tell_nan_from_inf() -> None:
    state = torch.zeros(1, 2, 3)
    broken = state.clone()
    broken[0, 0, 0] = math.inf
    found = dict(zip(lstm.FIELDS, lstm.lstm_statistics(state, broken).tolist(), strict=True))
    assert (found["has_nan"], found["has_inf"]) == (0, 1)


@SETTINGS
@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_mask_statistics_match_numpy(size: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    valid, relevant = rng.integers(1, size + 1, (2, n)), rng.random((2, n)) < 0.5
    found = masks.mask_statistics(torch.from_numpy(valid), torch.from_numpy(relevant)).numpy()
    wanted = [np.full(2, n), valid.min(1), valid.mean(1), valid.max(1), (valid == 1).mean(1), (valid > 1).mean(1)]
    wanted += [relevant.mean(1), (relevant & (valid > 1)).mean(1)]
    np.testing.assert_allclose(found, np.stack(wanted), atol=1e-12)


def test_rows_of_a_sparse_gradient_have_the_norms_of_the_dense_one() -> None:
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[0, 2, 2], [1, 0, 1]]), torch.tensor([3.0, 4.0, 3.0]), (3, 2), check_invariants=True
    )
    assert row_norms(sparse).tolist() == [3.0, 0.0, 5.0]


def test_entropy_is_that_of_the_last_axis_whatever_comes_before() -> None:
    logits = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.0, 1.0]]]).log()
    wanted = [[math.log(2), 0.0], [-0.25 * math.log(0.25) - 0.75 * math.log(0.75), 0.0]]
    np.testing.assert_allclose(entropy.categorical_entropy(logits).numpy(), wanted, atol=1e-7)


def test_advantages_of_any_size_vary_where_no_rounding_is_given() -> None:
    log_ratio, advantages = torch.tensor([[[0.1, -0.1, 0.2]]]), torch.tensor([[0.5, 0.0, 1.0]])
    found = ratios.ratio_statistics(log_ratio, log_ratio, 0.2, None, advantages, advantages)
    assert found[ratios.FIELDS.index("raw_var"), 0, 0].item() == pytest.approx(1 / 6)
    held = ratios.ratio_statistics(log_ratio, log_ratio, 0.2, None, advantages, advantages, 0.5)
    assert held[ratios.FIELDS.index("raw_var"), 0, 0].item() == 0.0


@SETTINGS
@given(arrays(-2, 2, rows=4), st.sampled_from([0.0, 0.1, 0.2, 1.5]), st.booleans())
def test_the_terms_of_the_losses_are_those_of_ppo(rows: Array, clip_range: float, padded: bool) -> None:
    log_ratio, advantages, wide, counted = rows.astype(np.float64)
    counted = counted > -0.5 if padded else np.ones(len(counted), bool)
    ratios_, used, wide_ = (torch.from_numpy(x)[None] for x in (log_ratio, advantages, wide))
    terms = [*losses.surrogate_terms(ratios_, used, clip_range), wide_]
    found = losses.sums_and_count(terms, torch.from_numpy(counted)[None] if padded else None).numpy()[:, 0]
    ratio = np.exp(log_ratio)
    clipped = np.minimum(np.maximum(ratio, 1 - clip_range), 1 + clip_range)
    surrogate = -np.minimum(ratio * advantages, clipped * advantages)
    wanted = [part[counted].sum() for part in (surrogate, np.abs(ratio * advantages), wide, np.ones(len(wide)))]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
