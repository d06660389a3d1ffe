"""Detail of sampled updates against an independent float64 computation from the gradients themselves."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.runs.run import RecordedRun, open_run
from recorder import Recorder
from recorder.capture.parameters import ParameterRows
from recorder.measure import direction, elements
from recorder.reduce.detail import noise_scale

Array = Any
EDGES = [1e-6, 1e-4, 1e-2, 1.0]


def described(g: Array) -> dict[str, float]:
    """Return the statistics of one tensor's gradient, by numpy."""
    g = g.astype(np.float64).reshape(-1)
    size = np.abs(g)
    with np.errstate(invalid="ignore"):
        return {
            "sum": g.sum(),
            "squares": ((g - g.mean()) ** 2).sum(),
            "zero": (g == 0).sum(),
            "below_1e_6": ((size > 0) & (size < 1e-6)).sum(),
            "1e_6_to_1e_4": ((size >= 1e-6) & (size < 1e-4)).sum(),
            "1e_4_to_1e_2": ((size >= 1e-4) & (size < 1e-2)).sum(),
            "1e_2_to_1": ((size >= 1e-2) & (size < 1)).sum(),
            "1_and_above": ((size >= 1) & (size < np.inf)).sum(),
            "nan": np.isnan(g).sum(),
            "inf": np.isinf(g).sum(),
            "large": (size > 10).sum(),
            "positive": (g > 0).sum(),
            "min": g.min(),
            "max": g.max(),
        }


NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1e-6, 1e-4, 1e-2, 1.0, 10.0, 1e20, 1e-30, np.inf, -np.inf, np.nan, -3.0]),
    st.floats(-20, 20, width=32),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=12), min_size=1, max_size=5))
def test_element_statistics_match_numpy_tensor_by_tensor(gradients: list[list[float]]) -> None:
    arrays = [np.array(g, np.float32) for g in gradients]
    flat = torch.from_numpy(np.concatenate(arrays))
    segments = elements.Segments([len(g) for g in arrays], torch.device("cpu"))
    together = elements.element_statistics(flat, segments).numpy()
    for found, g in zip(together, arrays, strict=True):
        with np.errstate(all="ignore"):
            wanted = np.array(list(described(g).values()))
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
        counts = slice(2, None)
        spread = max(float(np.abs(g[np.isfinite(g)]).max(initial=0)), 1.0)
        for of_one in (elements.host_statistics, elements.device_statistics):
            alone = of_one(torch.from_numpy(g)).numpy()
            np.testing.assert_allclose(alone[counts], wanted[counts], rtol=1e-6)
            np.testing.assert_allclose(alone, wanted, rtol=2e-5, atol=1e-5 * spread**2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("broken", [None, np.nan, np.inf])
def test_element_statistics_of_a_tensor_of_several_chunks(dtype: type, broken: float | None) -> None:
    rng = np.random.default_rng(3)
    g = (10.0 ** rng.uniform(-8, 2, 2 * elements.CHUNK + 5) * rng.choice([-1, 0, 1], 2 * elements.CHUNK + 5)).astype(
        dtype
    )
    if broken is not None:
        g[elements.CHUNK + 7] = broken
    with np.errstate(all="ignore"):
        wanted = list(described(g).values())
    np.testing.assert_allclose(elements.element_statistics_of_one(torch.from_numpy(g)).numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize("sizes", [[3, 0, 5], [8], [0]])
def test_sums_by_segment_are_those_of_its_elements(sizes: list[int]) -> None:
    segments = elements.Segments(sizes, torch.device("cpu"))
    x = torch.arange(2.0 * sum(sizes)).reshape(2, -1)
    ends = np.cumsum([0, *sizes])
    wanted = [[float((row[a:b] ** 2).sum()) for a, b in pairwise(ends)] for row in x.numpy()]
    assert direction.squares_by_segment(x, segments).tolist() == wanted


@pytest.mark.parametrize("count", [5, 65_536, 65_537, 200_000])
def test_thinned_tensors_keep_evenly_spaced_elements(count: int) -> None:
    x = torch.arange(count, dtype=torch.float64)
    thin = direction.thinned(x)
    assert len(thin) <= direction.MOST_ELEMENTS
    assert len(thin) > direction.MOST_ELEMENTS / 2 or count <= direction.MOST_ELEMENTS
    assert torch.equal(thin, x[:: direction.spacing(count)])
    assert thin.data_ptr() != x.data_ptr()


def test_a_tensor_without_elements_is_thinned_to_none() -> None:
    assert direction.thinned(torch.zeros(0, 3)).shape == (0,)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 64), st.integers(0, 2**31))
def test_noise_scale_of_known_gradients(count: int, samples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gradients = rng.normal(1.0, 0.3, (count, 50))
    small, big = (gradients**2).sum(1).mean(), (gradients.mean(0) ** 2).sum()
    signal = (count * samples * big - samples * small) / (count * samples - samples)
    noise = (small - big) / (1 / samples - 1 / (count * samples))
    found = noise_scale(small, big, samples, count)
    assert found == pytest.approx(noise / signal) if signal > 0 else found is None


def test_equal_gradients_have_no_noise_and_opposite_ones_no_estimate() -> None:
    assert noise_scale(2.0, 2.0, 8, 4) == 0.0
    assert noise_scale(2.0, 0.0, 8, 4) is None
    assert noise_scale(float("nan"), 1.0, 8, 4) is None
    assert noise_scale(2.0, 1.0, 0, 4) is None, "of no samples there is no estimate"
    assert noise_scale(2.0, 1.0, 8, 4) == pytest.approx(1 / (1 / 8 - 1 / 32) / (2 / 3))


class SetGradients:
    """A model whose gradients are set by hand, step by step, and recorded."""

    def __init__(self, run_dir: Path, wide: int, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"body": nn.Linear(7, wide), "out": nn.Linear(wide, 5)})
        out = self.model["out"]
        parts = {
            name: [ParameterRows(parameter, *span) for parameter in out.parameters()] for name, span in HEADS.items()
        }
        options = {"strict": True, "overhead_budget": None} | options
        groups = {"body": self.model["body"], "out": out}
        self.rec = Recorder(run_dir, self.model, heads=parts, groups=groups, **options)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.seen: list[list[dict[str, Array]]] = []
        self.weights: list[dict[str, Array]] = [self.now()]

    def now(self) -> dict[str, Array]:
        return {name: p.detach().numpy().astype(np.float64) for name, p in self.model.named_parameters()}

    def update(self, steps: int, scale: float = 1.0) -> None:
        looked = []
        for _ in range(steps):
            zeros = {name: torch.zeros(16) for name in HEADS}
            self.rec.minibatch(log_prob=zeros, old_log_prob=zeros, clip_range=0.2)
            for parameter in self.model.parameters():
                parameter.grad = torch.randn_like(parameter) * scale
            gradient = self.model.get_parameter("out.weight").grad
            assert gradient is not None
            gradient[3:] = 0.0
            looked.append({n: p.grad.numpy().copy() for n, p in self.model.named_parameters() if p.grad is not None})
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        self.seen.append(looked)
        self.weights.append(self.now())
        self.rec.update()


HEADS = {"left": (0, 3), "right": (3, 5)}


@pytest.fixture(params=[6, 9000], ids=["small", "large"], scope="module")
def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[SetGradients, RecordedRun]:
    run_dir = tmp_path_factory.mktemp("known") / "run"
    training = SetGradients(run_dir, request.param)
    for _ in range(3):
        training.update(6)
    training.rec.close()
    return training, open_run(run_dir)


def sampled(training: SetGradients, run: RecordedRun, update: int) -> list[dict[str, Array]]:
    """Return the gradients of the sampled steps: all of them but the unsampled middle."""
    count = run.frame("updates")["sampled_steps"][update]
    steps = training.seen[update]
    if count == 4:
        return [steps[place] for place in (0, 2, 3, 5)]
    first = (7 * update) % (5 if update else 1)
    return steps[first : first + 2]


def test_layers_say_what_numpy_says(known: tuple[SetGradients, RecordedRun]) -> None:
    training, run = known
    rows = run.frame("layers").to_dicts()
    assert len(rows) == 3 * 4
    for row in rows:
        g = training.seen[row["update"]][row["minibatch"]][row["layer"]].astype(np.float64)
        wanted = {"grad_norm": np.linalg.norm(g), "mean": g.mean(), "std": g.std(), "min": g.min(), "max": g.max()}
        before = training.weights[row["update"]][row["layer"]]
        moved = training.weights[row["update"] + 1][row["layer"]] - before
        wanted |= {
            "weight_norm": np.linalg.norm(before),
            "update_ratio": np.linalg.norm(moved) / np.linalg.norm(before),
        }
        wanted |= {"zero_fraction": (g == 0).mean(), "small_fraction": (np.abs(g) < 1e-6).mean()}
        for name, value in wanted.items():
            assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-8), (row["layer"], name)
        assert (row["nan_count"], row["inf_count"], row["elements"]) == (0, 0, g.size)


def members(group: str) -> list[tuple[str, slice]]:
    """Return layers and their rows of a group."""
    if group.startswith("head:"):
        rows = slice(*HEADS[group.removeprefix("head:")])
        return [("out.weight", rows), ("out.bias", rows)]
    whole = [(name, slice(None)) for name in ("body.weight", "body.bias", "out.weight", "out.bias")]
    return [one for one in whole if group == "all" or one[0].startswith(group)]


def vector(layers: dict[str, Array], group: str) -> Array:
    return np.concatenate([layers[name][rows].astype(np.float64).reshape(-1) for name, rows in members(group)])


def test_groups_say_what_numpy_says_about_values(known: tuple[SetGradients, RecordedRun]) -> None:
    training, run = known
    minibatch = dict(run.frame("layers").select("update", "minibatch").iter_rows())
    for row in run.frame("groups").to_dicts():
        g = vector(training.seen[row["update"]][minibatch[row["update"]]], row["group"])
        size = np.abs(g)
        assert row["zero_fraction"] == row["hist_zero"] == pytest.approx((g == 0).mean())
        bins = [(size > 0) & (size < 1e-6), *[(size >= a) & (size < b) for a, b in pairwise(EDGES)]]
        names = ["below_1e_6", "1e_6_to_1e_4", "1e_4_to_1e_2", "1e_2_to_1"]
        for name, inside in zip(names, bins, strict=True):
            assert row[f"hist_{name}"] == pytest.approx(inside.mean()), name
        assert row["hist_1_and_above"] == pytest.approx((size >= 1).mean())
        assert sum(row[name] for name in row if name.startswith("hist_")) == pytest.approx(1)
        assert row["sign_positive_fraction"] == pytest.approx((g > 0).mean())


def test_groups_say_what_numpy_says_about_direction(known: tuple[SetGradients, RecordedRun]) -> None:
    training, run = known
    exact = training.model.get_parameter("body.weight").numel() <= direction.MOST_ELEMENTS
    for row in run.frame("groups").to_dicts():
        update, group = row["update"], row["group"]
        vectors = np.stack([vector(step, group) for step in sampled(training, run, update)])
        norms, mean = np.linalg.norm(vectors, axis=1), vectors.mean(0)
        wanted = (np.linalg.norm(vectors.sum(0)) ** 2 - (norms**2).sum()) / (norms.sum() ** 2 - (norms**2).sum())
        assert row["cosine_minibatches"] == pytest.approx(wanted, rel=1e-4, abs=1e-6)
        found = noise_scale((norms**2).mean(), (mean**2).sum(), 16, len(vectors))
        assert (row["noise_scale"] is None) == (found is None)
        if found is not None and exact:
            assert row["noise_scale"] == pytest.approx(found, rel=1e-3)
        before, after = vector(training.weights[update], group), vector(training.weights[update + 1], group)
        ratio = np.linalg.norm(after - before) / np.linalg.norm(before)
        assert row["update_ratio"] == pytest.approx(ratio, rel=1e-4 if exact else 0.05)
        if update == 0:
            assert row["cosine_previous_update"] is None
        else:
            last = np.mean([vector(step, group) for step in sampled(training, run, update - 1)], axis=0)
            cosine = mean @ last / np.linalg.norm(mean) / np.linalg.norm(last)
            assert row["cosine_previous_update"] == pytest.approx(cosine, rel=1e-4, abs=1e-6)


def test_minibatches_of_one_gradient_align_perfectly(tmp_path: Path) -> None:
    training = SetGradients(tmp_path / "run", 6)
    torch.manual_seed(3)
    for _ in range(2):
        for _ in range(4):
            zeros = {name: torch.zeros(8) for name in HEADS}
            training.rec.minibatch(log_prob=zeros, old_log_prob=zeros)
            for parameter in training.model.parameters():
                parameter.grad = torch.ones_like(parameter)
            torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
            training.optimizer.step()
        training.rec.update()
    training.rec.close()
    for row in open_run(tmp_path / "run").frame("groups").to_dicts():
        assert row["cosine_minibatches"] == pytest.approx(1)
        assert row["noise_scale"] == pytest.approx(0, abs=1e-6)
        assert row["cosine_previous_update"] == (pytest.approx(1) if row["update"] else None)


def test_a_layer_without_gradient_has_nulls_and_not_zeros(tmp_path: Path) -> None:
    training = SetGradients(tmp_path / "run", 6)
    for _ in range(2):
        for _ in range(3):
            zeros = {name: torch.zeros(8) for name in HEADS}
            training.rec.minibatch(log_prob=zeros, old_log_prob=zeros)
            training.optimizer.zero_grad()
            training.model["out"](torch.ones(2, 6)).sum().backward()
            torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
            training.optimizer.step()
        training.rec.update()
    training.rec.close()
    run = open_run(tmp_path / "run")
    rows = {row["layer"]: row for row in run.frame("layers").to_dicts() if row["update"] == 1}
    for name in ("body.weight", "body.bias"):
        nulls = [column for column in rows[name] if rows[name][column] is None]
        assert {"grad_norm", "mean", "min", "zero_fraction", "nan_count"} <= set(nulls)
        assert rows[name]["weight_norm"] > 0
        assert rows[name]["update_ratio"] == 0.0
    groups = {row["group"]: row for row in run.frame("groups").to_dicts() if row["update"] == 1}
    assert groups["body"]["zero_fraction"] is None
    assert groups["out"]["hist_1_and_above"] == 1.0


def test_an_update_that_was_not_sampled_has_no_detail_and_says_so(tmp_path: Path) -> None:
    calm = Thresholds.defaults(RULES).merged({rule.name: {"escalate": 0} for rule in RULES})
    training = SetGradients(tmp_path / "run", 6, overhead_budget=1e-9, thresholds=calm)
    for _ in range(5):
        training.update(3)
    training.rec.close()
    run = open_run(tmp_path / "run")
    assert run.frame("updates")["sampled_steps"].to_list() == [3, 0, 0, 0, 0]
    assert set(run.frame("layers")["update"]) == {0}
    later = run.frame("groups").to_dicts()[-1]
    assert later["zero_fraction"] is None
    assert later["grad_norm"] > 0


def test_debug_samples_every_update_whatever_the_budget(tmp_path: Path) -> None:
    training = SetGradients(tmp_path / "run", 6, overhead_budget=1e-9, level="DEBUG")
    for _ in range(3):
        training.update(2)
    training.rec.close()
    assert set(open_run(tmp_path / "run").frame("layers")["update"]) == {0, 1, 2}


def test_thinned_elements_stand_for_the_whole_tensor(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"wide": nn.Linear(4, 60_000), "op": nn.Linear(60_000, 2)})
    rec = Recorder(
        tmp_path / "run", model, heads={"op": model["op"]}, strict=True, overhead_budget=None, separate_backward=True
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    log_prob = model["op"](model["wide"](torch.randn(8, 4))).log_softmax(-1)
    entropy = (log_prob.exp() * log_prob).sum(-1).mean()
    wanted = np.sqrt(
        sum(
            float(g.double().square().sum())
            for g in torch.autograd.grad(entropy, list(model.parameters()), retain_graph=True)
        )
    )
    losses = {"policy_loss": log_prob[:, 0].mean(), "value_loss": log_prob[:, 1].mean(), "entropy_loss": entropy}
    rec.minibatch(log_prob=log_prob[:, 0], old_log_prob=log_prob[:, 0].detach(), **losses)
    losses["policy_loss"].backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    rec.update()
    rec.close()
    moved = sum(float((p.detach() - before[name]).double().square().sum()) for name, p in model.named_parameters())
    row = {one["group"]: one for one in open_run(tmp_path / "run").frame("groups").to_dicts()}["all"]
    assert row["entropy_grad_norm"] == pytest.approx(wanted, rel=0.05)
    whole = sum(float(p.double().square().sum()) for p in before.values())
    assert row["update_ratio"] == pytest.approx(np.sqrt(moved / whole), rel=0.05)
