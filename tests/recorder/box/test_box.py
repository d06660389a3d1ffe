"""The box records what the pipeline records in the training's own process, and each survives the other's death."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import esper_analyze as ea
from recorder.box import link
from recorder.box.link import BoxLink
from recorder.sink import Inline
from tests.recorder.loop import Loop

OF_THE_CLOCK = ("wall_time", "rollout_s", "optimisation_s", "recorder_ms", "recorder_fraction", "sampled_steps")
TABLES = ("updates", "steps", "heads", "groups", "lstm", "episodes", "findings", "levels", "tensors", "transitions")


def recorded(run_dir: Path, *, box: bool, updates: int = 6, broken: int | None = None, **options: Any) -> Loop:
    loop = Loop()
    with loop.recorder(run_dir, box=box, overhead_budget=None, level="DEBUG", **options) as rec:
        for number in range(updates):
            rec.episode(float(number), 10 + number, env=0)
            rollout = loop.rollout()
            if number == broken:
                rollout["old"]["op"][3] = 40.0
                rollout["returns"][5] = float("nan")
            loop.train(rec, rollout)
            state = torch.full((1, 2, 4), 0.5)
            rec.update(
                values=rollout["values"],
                returns=rollout["returns"],
                advantages=rollout["returns"] - rollout["values"],
                masks=rollout["masks"],
                rewards=rollout["returns"],
                observations=rollout["x"],
                lstm=(state, state),
                env_steps=32 * (number + 1),
            )
    return loop


def cells(run_dir: Path, table: str) -> Any:
    frame = ea.open(run_dir).frame(table)
    return frame.drop([name for name in (*OF_THE_CLOCK, "attempt", "seq") if name in frame.columns])


@pytest.mark.parametrize("broken", [None, 5])
def test_a_box_records_what_the_pipeline_records_in_the_training(tmp_path: Path, broken: int | None) -> None:
    recorded(tmp_path / "inline", box=False, broken=broken)
    recorded(tmp_path / "boxed", box=True, broken=broken)
    for table in TABLES:
        inline, boxed = cells(tmp_path / "inline", table), cells(tmp_path / "boxed", table)
        assert inline.equals(boxed, null_equal=True), table
    assert cells(tmp_path / "boxed", "updates").height == 6
    assert ea.open(tmp_path / "boxed").frame("losses_of_data").height == 0
    (folder,) = (tmp_path / "boxed/rank00000").glob("attempt-*")
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".box")]


def test_an_escalation_records_the_gradients_of_the_updates_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recorder.budget.Budget.wants", lambda _, __, *, every: every)
    for box in (False, True):
        loop = Loop()
        with loop.recorder(tmp_path / f"run-{box}", box=box) as rec:
            for _ in range(5):  # without masks, the head with a single choice alarms at once
                loop.train(rec, loop.rollout())
                rec.update()
    before = [cells(tmp_path / f"run-{box}", "layers").filter(pl.col("update") == 0) for box in (False, True)]
    assert before[0].height == 10
    assert before[0].equals(before[1], null_equal=True)
    assert ea.open(tmp_path / "run-True").frame("losses_of_data").height == 0


def test_what_is_recorded_is_the_same_training(tmp_path: Path) -> None:
    plain, loop = Loop(), recorded(tmp_path / "boxed", box=True, updates=3)
    for _ in range(3):
        plain.update(None)
    assert all(torch.equal(a, b) for a, b in zip(plain.agent.parameters(), loop.agent.parameters(), strict=True))


def test_a_checkpoint_goes_from_box_to_box_and_to_the_training(tmp_path: Path) -> None:
    states = []
    for box in (True, False):
        loop = Loop()
        with loop.recorder(tmp_path / f"run-{box}", box=box, overhead_budget=None) as rec:
            for _ in range(4):
                loop.update(rec)
                state = rec.state_dict()  # each time: to return it, the detector evaluates what it has deferred
        states.append(state)
    assert repr(states[0]) == repr(states[1])
    with Loop().recorder(tmp_path / "run-True", box=True, resume=True) as rec:
        rec.load_state_dict(states[1])
        assert repr(rec.state_dict()) == repr(states[0])


def test_where_no_process_can_be_started_the_training_records_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    loop = Loop()
    with loop.recorder(tmp_path / "run", box=True, strict=False) as rec:
        assert isinstance(rec._sink, Inline)
        loop.update(rec)
    run = ea.open(tmp_path / "run")
    assert run.frame("updates").height == 1
    assert "no more processes" in run.frame("losses_of_data")["detail"][0]


def test_without_room_less_is_recorded_and_it_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "RING_BYTES", 1 << 16)
    loop = Loop(samples=512)
    with loop.recorder(tmp_path / "run", box=True, strict=False) as rec:
        for _ in range(3):
            loop.update(rec)
    run = ea.open(tmp_path / "run")
    details = run.frame("losses_of_data")["detail"].to_list()
    assert any("the minibatches" in detail for detail in details)
    assert run.frame("updates").height == 3


def box_of(rec: Any) -> BoxLink:
    assert isinstance(rec._sink, BoxLink)
    return rec._sink


def test_a_box_that_is_killed_is_replaced_once_and_the_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop()
    with caplog.at_level(logging.WARNING), loop.recorder(tmp_path / "run", box=True, strict=False) as rec:
        box = box_of(rec)
        for number in range(12):
            loop.update(rec)
            if number in (3, 8):
                rec.state_dict()
                os.kill(box._process.pid, signal.SIGKILL)
                box._process.wait()
    text = caplog.text
    assert "another one continues from there" in text
    assert "nothing more is recorded" in text
    run = ea.open(tmp_path / "run")
    assert run.frame("updates")["update"].to_list() == list(range(9))
    recorded_whole = Loop()
    with recorded_whole.recorder(tmp_path / "whole") as rec:
        for _ in range(9):
            recorded_whole.update(rec)
    left, right = (cells(tmp_path / name, "findings").drop("cause", strict=False) for name in ("run", "whole"))
    assert left.equals(right, null_equal=True)


def test_what_was_handed_over_survives_the_training(tmp_path: Path) -> None:
    script = f"""
    import os, signal
    from tests.recorder.loop import Loop
    loop = Loop()
    rec = loop.recorder({str(tmp_path / "run")!r}, box=True)
    for _ in range(5):
        loop.update(rec)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    folder = next((tmp_path / "run/rank00000").glob("attempt-*"))
    from esper_analyze.storage.lock import is_held

    for _ in range(200):
        if not is_held(folder / ".lock") and (folder / "manifest.jsonl").exists():
            break
        subprocess.run(["sleep", "0.1"], check=True)
    run = ea.open(tmp_path / "run")
    assert run.frame("updates")["update"].to_list() == list(range(5))
