"""The loop that grows seeds in hosts is recorded with every table; a broken seed is told from sound ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.runs.run import RecordedRun, open_run
from sample_runs import growing_loop, hosts


@pytest.fixture
def one_thread() -> None:
    torch.set_num_threads(1)


def grown(run_dir: Path, **how: object) -> RecordedRun:
    growing_loop.grow(run_dir, lambda _: None, **how)  # type: ignore[arg-type]
    return open_run(run_dir)


@pytest.mark.usefixtures("one_thread")
def test_every_table_is_recorded_and_replay_says_what_was_said_live(tmp_path: Path) -> None:
    run = grown(tmp_path / "run", updates=3)
    assert run.closed
    assert run.lost_rows == 0
    empty = {name for name, rows in run.rows.items() if rows == 0}
    assert empty <= {"transitions", "tensors", "losses_of_data", "levels", "findings", "events", "ranks"}
    assert run.rows["slots"] == 3 * growing_loop.PLOTS * len(hosts.SLOTS)
    heads = run.frame("heads")
    assert heads["head"].unique().sort().to_list() == sorted(hosts.SIZES)
    matter = dict(heads.filter(heads["update"] == 0).select("head", "relevant_fraction").iter_rows())
    assert matter["op"] == 1.0
    assert all(0 < matter[name] < 1 for name in hosts.SIZES if name != "op")
    assert run.frame("updates")["first_ratio_error"].max() < 1e-5  # type: ignore[operator]
    slots = run.frame("slots")
    assert set(slots["stage"].to_list()) <= set(hosts.STAGES)
    assert slots.filter(slots["seed_grad_norm"].is_not_null())["normalized_ratio"].min() > 0.01  # type: ignore[operator]
    assert differences(replay(run), recorded(run)) == []


@pytest.mark.usefixtures("one_thread")
def test_where_waiting_is_all_that_is_allowed_every_zero_is_explained_and_nothing_alarms(tmp_path: Path) -> None:
    run = grown(tmp_path / "run", updates=6, only_wait=True)
    heads = run.frame("heads")
    assert set(heads["zero_explained"].to_list()) == {"masked"}
    assert set(heads["learnable_fraction"].to_list()) == {0.0}
    assert replay(run).incidents == []


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("harm", "rule", "place"),
    [
        (growing_loop._explode, "slot_gradient_explosion", "env 3, late"),
        (growing_loop._disconnect, "seed_dormant", "env 5, early"),
    ],
)
def test_a_broken_seed_is_named_with_its_slot(tmp_path: Path, harm: hosts.Harm, rule: str, place: str) -> None:
    run = grown(tmp_path / "run", updates=5, harm=lambda plot, _: harm(plot, 20))
    found = [one for one in replay(run).incidents if one.rule == rule]
    env, _ = place.split(",")  # a gradient that explodes in one slot goes on through the slots before it
    assert place in {one.subject for one in found}
    assert all(one.subject.startswith(f"{env},") for one in found)
    causes = run.frame("slots", ["place", "low_ratio_cause"])
    disconnected = causes.filter(causes["low_ratio_cause"] == "disconnected")["place"].unique().to_list()
    if rule == "seed_dormant":
        assert disconnected == [place]
