"""Large minibatches, many heads, large models: memory and work that a training can afford; numbers as of small ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from esper_analyze.runs.run import open_run
from recorder import Recorder
from recorder.budget import AT_LEAST_EVERY, Budget
from recorder.capture import batch as batches
from recorder.capture.batch import CaptureBatch, measure
from recorder.capture.detail import Detail
from recorder.capture.parameters import ParameterMap, ParameterRows
from recorder.measure import ratios, values
from tests.faults.judge import CLOCK

SAMPLES, PIECE = 5000, 701
EXACT = ("ratio_max", "ratio_min", "log_prob_min", "log_prob_max", "samples", "relevant_samples", "choice_samples")


def record(run_dir: Path, *, ill: bool) -> dict[str, pl.DataFrame]:
    """Record one minibatch of two heads with masks, causal masks and padding; ``ill``: with NaN and ratios far off."""
    random = torch.Generator().manual_seed(3)
    new, old, entropy = ({name: -torch.rand(SAMPLES, generator=random) for name in ("a", "b")} for _ in range(3))
    if ill:
        new["a"][[5, 4000]], old["b"][123] = 9.0, torch.nan
    masks = {name: torch.rand(SAMPLES, 3, generator=random) < 0.6 for name in ("a", "b")}
    relevant = {"b": torch.rand(SAMPLES, generator=random) < 0.3}
    relevant["b"][: 2 * PIECE] = False  # pieces in which the head never matters
    with Recorder(run_dir, heads=("a", "b"), sizes={"a": 3, "b": 3}, strict=True) as rec:
        rec.minibatch(
            log_prob=new,
            old_log_prob=old,
            entropy={name: -one for name, one in entropy.items()},
            masks=masks,
            relevant=relevant,
            valid=torch.rand(SAMPLES, generator=random) < 0.9,
            clip_range=0.2,
            policy_loss=torch.tensor(1.0),
            advantages=torch.arange(SAMPLES, dtype=torch.float32),
        )
        rec.update(masks=masks, relevant=relevant)
    run = open_run(run_dir)
    return {name: run.frame(name).drop(CLOCK, strict=False) for name in ("updates", "steps", "heads", "transitions")}


@pytest.mark.parametrize("ill", [False, True])
def test_a_minibatch_measured_in_pieces_has_the_numbers_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ill: bool
) -> None:
    whole = record(tmp_path / "whole", ill=ill)
    monkeypatch.setattr(batches, "PIECE", PIECE)
    pieces = record(tmp_path / "pieces", ill=ill)
    for table, frame in whole.items():
        assert len(frame) == len(pieces[table])
        for column in frame.columns:
            exact = frame[column].dtype != pl.Float64 or column in EXACT
            for one, other in zip(frame[column].to_list(), pieces[table][column].to_list(), strict=True):
                near = one if exact or one is None else pytest.approx(one, rel=2e-6, abs=1e-9, nan_ok=True)
                assert other == near, (table, column)
    assert len(whole["transitions"]) or not ill


def test_a_variance_over_pieces_far_apart_is_that_of_all() -> None:
    ratio = torch.cat([torch.full((PIECE,), mean) + torch.randn(PIECE) / 100 for mean in (1.0, 2.0, 5.0)]).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "PIECE", PIECE)
        new = ratio.log().reshape(1, 1, -1)
        found = measure(CaptureBatch(heads=("a",), log_prob=new, old_log_prob=torch.zeros_like(new)), (0,))
    names = ratios.FIELDS
    assert float(found.packed[2 * names.index("ratio_var"), 0]) == pytest.approx(ratio.numpy().var(), rel=1e-12)


class Largest(TorchDispatchMode):
    """Remembers the elements of the largest tensor that an operation made anew."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        storages = {one.untyped_storage().data_ptr() for one in args if isinstance(one, Tensor)}
        for one in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(one, Tensor) and one.untyped_storage().data_ptr() not in storages:
                self.elements = max(self.elements, one.numel())
        return result


def test_what_measuring_takes_does_not_grow_with_the_minibatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PIECE", 1000)
    most = []
    for samples in (4000, 40_000):
        rows = -torch.rand(2, 1, samples)
        batch = CaptureBatch(heads=("a", "b"), log_prob=rows, old_log_prob=rows, entropy=-rows)
        with Largest() as largest:
            measure(batch, (0,))
        most.append(largest.elements)
    assert most[0] == most[1] <= 3 * 2 * 1000


@pytest.mark.parametrize("odd", [None, torch.nan, torch.inf])
def test_a_rollout_measured_in_pieces_has_the_numbers_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, odd: float | None
) -> None:
    returns = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(5)).exp()
    predicted = 1e3 + 0.7 * returns + torch.rand(SAMPLES, generator=torch.Generator().manual_seed(6))
    if odd is not None:
        predicted[4000] = odd
    found = []
    for piece in (SAMPLES * 2, PIECE):
        monkeypatch.setattr(values, "PIECE", piece)
        found.append(
            torch.cat(
                [
                    values.value_statistics(predicted, returns),
                    values.advantage_statistics(predicted),
                    values.td_statistics(predicted),
                ]
            )
        )
    assert found[1].tolist() == pytest.approx(found[0].tolist(), rel=1e-12, nan_ok=True)
    if odd is None:
        quantiles = dict(zip(values.FIELDS, found[1].tolist(), strict=False))
        assert quantiles["return_p10"] == np.quantile(returns.double().numpy(), 0.1)


ROLLOUT = """
import resource, sys, torch
from recorder import Recorder
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
with Recorder(sys.argv[1], strict=True) as rec:
    for steps in (1000, 6_000_000):
        rollout = {name: torch.empty(steps).normal_() for name in ("values", "returns", "advantages", "td_errors")}
        before = peak()
        rec.update(**rollout)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_a_large_rollout_takes_little_memory_beside_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ROLLOUT, str(tmp_path / "run")], capture_output=True, text=True, timeout=300, check=True
    )
    assert float(done.stdout) < 300  # MiB; the sorted copy of errors and returns takes 92, it was 600 before


def _lines(heads: int, *, shared: bool) -> int:
    """Return the lines carried out to map the parameters of so many heads."""
    layer = nn.Linear(2, 2 * heads)
    weight = layer.get_parameter("weight")
    layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(heads)])
    parts: dict[str, Any] = {
        f"h{k}": ParameterRows(weight, 2 * k, 2 * k + 2) if shared else layers[k] for k in range(heads)
    }
    lines = [0]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = True
        lines[0] += event == "opcode"
        return trace if "/recorder/" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        ParameterMap(layer if shared else layers, {}, parts)
    finally:
        sys.settrace(before)
    return lines[0]


@pytest.mark.parametrize("shared", [False, True])
def test_the_work_to_map_heads_grows_as_their_number(shared: bool) -> None:
    few, many = (_lines(heads, shared=shared) for heads in (50, 400))
    assert many < 1.5 * 8 * few


def test_the_first_sample_of_an_update_waits_until_it_is_paid_for() -> None:
    budget = Budget(0.02, 9.0)
    for update in range(2000):
        if budget.wants(update, every=False):
            break
        budget.settle(update, elapsed=1.0, core=0.005, detail=0.0)
    assert update in (450, 451)  # 450 updates of 1 s pay 9 s, but for rounding
    budget.settle(update, elapsed=10.0, core=0.005, detail=4.0)
    assert budget.cost == 4.0  # what it took, and nothing of what was predicted
    assert budget.wants(update + AT_LEAST_EVERY, every=False)
    assert Budget(0.02, 9.0).wants(0, every=True)
    assert Budget(0.02).wants(0, every=False)


def test_a_large_models_first_update_is_not_sampled_before_the_budget_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = nn.Linear(8, 8), nn.Linear(512, 512)
    assert Detail(ParameterMap(small, {}, {})).predicted() == 0.0
    assert Detail(ParameterMap(large, {}, {})).predicted() > 0.0
    monkeypatch.setattr(Detail, "predicted", lambda _: 3600.0)
    with Recorder(tmp_path / "run", large, strict=True) as rec:
        rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), clip_range=0.2)
        assert not rec._detail_schedule.wanted
