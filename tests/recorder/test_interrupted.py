"""Ctrl-C at every line of the recorder: the row is kept, nothing is counted twice, the recording can go on."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema import TABLES
from esper_analyze.storage.maintenance.verify import verify
from tests.faults.judge import CLOCK, same_bits
from tests.recorder.growing import Growing
from tests.recorder.interruption import ENTRY, Interruption
from tests.recorder.sick_loop import FaultyLoop

UPDATES = 4
AT = 2
"""The update in which Ctrl-C comes."""
POINTS = 24
"""Events sampled a method; the fault matrix goes through all of them."""


def train(
    run_dir: Path, name: str, nth: int, *, go_on: bool = True, caught: bool = False
) -> tuple[Interruption, FaultyLoop, bool]:
    """Train with Ctrl-C at an event of one method in update ``AT``; return whether it came.

    ``caught``: where the method is called, so that the loop misses nothing.
    """
    loop = FaultyLoop(growing=Growing())
    rec = loop.recorder(run_dir, overhead_budget=None)
    harm, came = Interruption(nth), False
    for number in range(UPDATES):
        if number == AT and name != "close":
            traced = harm.around(getattr(rec, name))
            setattr(rec, name, _suppressing(traced) if caught else traced)
        try:
            loop.update(number)
        except KeyboardInterrupt:
            came = True
            if not go_on:
                break
        if number == AT and name != "close":
            delattr(rec, name)
    try:
        (harm.around(rec.close) if name == "close" else rec.close)()
    except KeyboardInterrupt:
        came = True
    rec.close()
    return harm, loop, came


def _suppressing(method: Callable[..., None]) -> Callable[..., None]:
    def called(*args: Any, **kwargs: Any) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            method(*args, **kwargs)

    return called


def frames(run: RecordedRun) -> dict[str, pl.DataFrame]:
    return {table.name: run.frame(table.name).drop(CLOCK, strict=False) for table in TABLES}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    """Return the rows, and how many events each method has."""
    run_dir = tmp_path_factory.mktemp("undisturbed")
    events = {name: train(run_dir / name, name, -1)[0].events for name in ("minibatch", "update", "close")}
    return frames(open_run(run_dir / "update")), events


def points(events: int, how_many: int | None, seed: int) -> Iterator[int]:
    every = range(ENTRY + 1, events + 1)
    yield from every if how_many is None else sorted(random.Random(seed).sample(every, min(how_many, events)))


def wrong(run_dir: Path, name: str, whole: dict[str, pl.DataFrame]) -> list[str]:
    """Return what an interrupted run shows that it must not."""
    found = [fault.reason for fault in verify(run_dir).faults]
    run = open_run(run_dir)
    updates = run.frame("updates")["update"].to_list()
    if updates != list(range(UPDATES - (name == "minibatch"))):  # the training itself left out the rest of that update
        found.append(f"updates {updates}")
    if run.lost_rows:
        found.append(f"{run.lost_rows} rows lost")
    now = frames(run)
    if now["losses_of_data"].height:
        found.append(f"losses: {now['losses_of_data'].to_dicts()}")
    for table, frame in now.items():
        compared = frame if name != "minibatch" else frame.filter(pl.col("update") < AT)
        twin = whole[table] if name != "minibatch" else whole[table].filter(pl.col("update") < AT)
        found += [f"{table}.{c}" for c in frame.columns if not same_bits(compared[c], twin[c])]
    return found


@pytest.mark.parametrize("name", ["minibatch", "update", "close"])
def test_ctrl_c_costs_no_row_and_the_recording_goes_on(name: str, tmp_path: Path, undisturbed: Any) -> None:
    whole, events = undisturbed
    seed = random.randrange(10**6)
    failed = {}
    for nth in points(events[name], POINTS, seed):
        with contextlib.suppress(KeyboardInterrupt):
            _, _, came = train(tmp_path / f"{nth}", name, nth)
            assert came
        found = wrong(tmp_path / f"{nth}", name, whole)
        if found:
            failed[nth] = found[:3]
        assert torch.is_grad_enabled()
    assert not failed, f"random seed {seed}"


@pytest.mark.parametrize("name", ["minibatch", "update"])
def test_a_loop_that_catches_ctrl_c_at_the_call_has_the_rows_of_an_undisturbed_one(
    name: str, tmp_path: Path, undisturbed: Any
) -> None:
    whole, events = undisturbed
    seed = random.randrange(10**6)
    last = range(events[name] - POINTS, events[name] + 1)  # where it is decided whether the call is made again
    failed = {}
    for nth in {*points(events[name], POINTS // 2, seed), *last}:
        train(tmp_path / f"{nth}", name, nth, caught=True)
        found = wrong(tmp_path / f"{nth}", "update", whole)
        if found:
            failed[nth] = found[:3]
    assert not failed, f"random seed {seed}"


def test_an_interrupted_update_that_is_not_gone_on_with_is_kept(tmp_path: Path) -> None:
    _, _, came = train(tmp_path / "run", "update", 40, go_on=False)
    assert came
    assert open_run(tmp_path / "run").frame("updates")["update"].to_list() == list(range(AT + 1))


def test_slot_calls_after_the_last_update_make_no_update_and_are_counted(tmp_path: Path) -> None:
    loop = FaultyLoop(growing=Growing())
    with loop.recorder(tmp_path / "run") as rec:
        loop.update(0)
        Growing().backward(rec)
    run = open_run(tmp_path / "run")
    assert run.frame("updates")["status"].to_list() == ["performed"]
    assert run.frame("slots")["update"].unique().to_list() == [0]
    (loss,) = run.frame("losses_of_data").to_dicts()
    assert (loss["kind"], loss["rows"]) == ("slot_calls_left_out", 0)
    assert run.lost_rows == 0
