"""What is recorded does not depend on what the training sets for its process, and nothing of that is changed."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from esper_analyze.runs.run import open_run
from esper_analyze.schema import TABLES
from recorder import Recorder
from recorder.guard import ErrorGuard
from tests.faults.judge import CLOCK, same_bits
from tests.recorder.growing import Growing
from tests.recorder.plain import Plain, ordinary
from tests.recorder.process_states import STATES, State, enter_within, facts
from tests.recorder.sick_loop import FaultyLoop

UPDATES = 3


def record(run_dir: Path, state: State) -> tuple[dict[str, pl.DataFrame], list[bytes]]:
    """Train with every detail; return the rows by table, and the parameters, bit by bit."""
    loop = FaultyLoop(recurrent=True, growing=Growing())
    with state():
        rec = loop.recorder(run_dir)
    enter_within(rec, state)
    for number in range(UPDATES):
        loop.update(number)
    rec.close()
    run = open_run(run_dir)
    rows = {table.name: run.frame(table.name).drop(CLOCK, strict=False) for table in TABLES}
    return rows, [parameter.detach().numpy().tobytes() for parameter in loop.net.parameters()]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, pl.DataFrame], list[bytes]]:
    return record(tmp_path_factory.mktemp("without") / "run", nullcontext)


@pytest.mark.parametrize("name", STATES)
def test_rows_and_parameters_are_those_without(name: str, tmp_path: Path, without: Any) -> None:
    rows, parameters = record(tmp_path / "run", STATES[name])
    assert parameters == without[1]
    assert rows["losses_of_data"].to_dicts() == []
    assert rows["updates"]["update"].to_list() == list(range(UPDATES))
    differ = [
        f"{table}.{column}"
        for table, frame in rows.items()
        for column in frame.columns
        if not same_bits(frame[column], without[0][table][column])
    ]
    assert differ == []


@pytest.mark.parametrize("name", ["default device meta", "inference mode", "autocast", "a mode over functions"])
def test_a_block_that_ends_with_an_error_gives_the_state_back(name: str) -> None:
    guarded = ErrorGuard(strict=False)
    with STATES[name]():
        before = facts()
        with guarded("outer"), guarded("inner"):
            assert torch.zeros(1).device.type == "cpu"
            assert not torch.is_inference_mode_enabled()
            raise ValueError("an error of the recorder")
        assert facts() == before


def test_the_loss_scale_is_the_scalers_whatever_the_default_dtype(tmp_path: Path) -> None:
    net = Plain().float()
    optimizer, scaler = torch.optim.SGD(net.parameters(), lr=1e-3), torch.amp.GradScaler("cpu", init_scale=2.0**17)
    with STATES["default dtype float16"](), Recorder(tmp_path / "run", net, strict=True) as rec:
        ordinary(rec)
        scaler.scale(net.op(torch.ones(1, 3, dtype=torch.float32)).sum()).backward()
        optimizer.step()
        rec.update()
    assert open_run(tmp_path / "run").frame("updates")["loss_scale"].to_list() == [2.0**17]
