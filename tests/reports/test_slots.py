from pathlib import Path
from typing import Any

import duckdb
import pytest

from esper_analyze.replay.evidence import gather
from esper_analyze.reports.render.figure import drawn
from esper_analyze.reports.sections import slots
from esper_analyze.reports.sections.slot_history import Lane, SlotLocation, StageSpan, read_lanes
from esper_analyze.runs.run import open_run
from tests.present import present
from tests.reports.synthetic import Rows, write_run

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"
NAN = float("nan")


def seed(update: int, place: str, **cells: object) -> dict[str, object]:
    env, slot = place.removeprefix("env ").split(", ")
    row: dict[str, object] = {
        "update": update,
        "place": place,
        "env": int(env),
        "slot": slot,
        "calls": 4,
        "stage": "training",
        "blueprint": "conv",
        "alpha": 0.5,
        "should_train": True,
        "tensors": 4,
        "tensors_without_grad": 0,
        "tensors_nonfinite": 0,
        "grad_norm": 0.5,
        "health": 1.0,
        "vanishing_severity": 0.0,
        "exploding_severity": 0.0,
        "has_vanishing": False,
        "has_exploding": False,
        "host_grad_norm": 0.6,
        "seed_grad_norm": 0.5,
        "seed_elements": 100,
        "host_elements": 100,
        "normalized_ratio": 0.8,
        "ratio_ema": 0.8,
    }
    return row | cells


def made(path: Path, edit: Any, updates: int = 8) -> Any:
    return slots.frame(gather(open_run(write_run(path, updates, edit))))


@pytest.fixture(scope="module")
def exploding() -> Any:
    return slots.frame(gather(open_run(SAMPLES / "growing_exploding")))


def test_an_exploding_seed_is_named_with_slot_update_and_severity(exploding: Any) -> None:
    said = slots.words(exploding)
    assert said[0].startswith("▲ env 3, late, updates 21–39")
    assert "(critical): its gradient explodes (severity 0.75 at update 21)." in said[0]
    worst = slots.rows(exploding).cells[0]
    assert (worst[0], str(worst[1])) == ("env 3, late", "▲ exploding")
    assert "env 3, late" in exploding.panels
    drawn(slots.SECTION, exploding)


def test_a_disconnected_seed_is_told_apart_from_a_dormant_one(tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        cut = {"normalized_ratio": None, "grad_norm": None, "health": None, "tensors_without_grad": 4}
        rows["slots"] = [
            seed(update, "env 0, a", **cut, low_ratio_cause="disconnected"),
            seed(update, "env 0, b", normalized_ratio=0.02, low_ratio_cause="dormant"),
            seed(update, "env 0, c", normalized_ratio=0.8 if update < 4 else 0.02, low_ratio_cause="saturated"),
            seed(update, "env 0, d"),
        ]

    data = made(tmp_path / "run", edit)
    said = {one.slot: one.sentence for one in data.incidents}
    assert "disconnected: the loss reaches none of its tensors; it is not dormant" in said["env 0, a"]
    assert "dormant: its gradient was small from the beginning" in said["env 0, b"]
    assert "saturated: its gradient was normal before" in said["env 0, c"]
    assert {place.name: str(place.gate) for place in data.locations} == {
        "env 0, a": "⊘ disconnected",
        "env 0, b": "▼ low ratio",
        "env 0, c": "▼ low ratio",
        "env 0, d": "● passes",
    }
    assert any("Of 4 slots with a training seed module, 1 pass the gate" in sentence for sentence in slots.words(data))
    assert data.lanes["env 0, a"].cut == tuple(range(8))
    assert data.lanes["env 0, d"] == Lane((StageSpan(0, 7, "training"),), (), (), (), ())


def test_the_disconnected_sample_says_so_and_nothing_of_dormant() -> None:
    data = present(slots.frame(gather(open_run(SAMPLES / "growing_disconnected"))))
    assert data.incidents[0].sentence.startswith("⊘ env 5, early")
    assert not any("never woke" in sentence for sentence in slots.words(data))


def test_forced_waits_have_nothing_to_learn_and_raise_nothing() -> None:
    evidence = gather(open_run(SAMPLES / "growing_waits"))
    data = present(slots.frame(evidence))
    assert data.incidents == ()
    assert slots.words(data)[0].startswith("No head had a choice in any update")
    assert slots.words(data)[-1] == "16 of 16 slots never held a seed module."
    assert slots.SECTION.listing(data) is None
    drawn(slots.SECTION, data)


def test_one_head_with_a_choice_is_something_to_learn(exploding: Any) -> None:
    assert exploding.forced == 0
    assert not any("Nothing to learn" in sentence for sentence in slots.words(exploding))


@pytest.mark.parametrize(
    ("cells", "gate"),
    [
        ({}, "● passes"),
        ({"ratio": 0.1, "health": 0.7}, "● passes"),
        ({"ratio": 0.0999}, "▼ low ratio"),
        ({"health": 0.699}, "▼ low health"),
        ({"health": None}, "– no health"),
        ({"ratio": None}, "– no gradient"),
        ({"ratio": None, "cause": "disconnected"}, "⊘ disconnected"),
        ({"exploding": 0.25, "ratio": 0.01}, "▲ exploding"),
        ({"ratio": NAN, "exploding": 0.25}, "✕ NaN"),
        ({"nonfinite": 1}, "✕ NaN"),
        ({"update": None, "ratio": None, "health": None}, "– not training"),
    ],
)
def test_the_gate_never_lets_through_what_is_missing_or_broken(cells: dict[str, Any], gate: str) -> None:
    given: dict[str, Any] = {
        "name": "env 0, a",
        "seeded": 3,
        "update": 2,
        "stage": "training",
        "blueprint": None,
        "alpha": None,
        "ratio": 0.8,
        "health": 1.0,
        "exploding": 0.0,
        "vanishing": 0.0,
        "nonfinite": 0,
        "cause": None,
    }
    assert str(SlotLocation(**(given | cells)).gate) == gate


def test_a_seed_that_left_its_stage_is_judged_by_its_last_update_in_training(tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        gone = {"stage": "fossilised", "should_train": False, "normalized_ratio": 0.01}
        rows["slots"] = [seed(update, "env 1, a", **(gone if update > 3 else {}))]

    data = made(tmp_path / "run", edit)
    assert (data.locations[0].update, str(data.locations[0].gate)) == (3, "● passes")
    assert data.lanes["env 1, a"].spans == (StageSpan(0, 3, "training"), StageSpan(4, 7, "fossilised"))
    assert data.lanes["env 1, a"].low == ()


def test_in_very_long_runs_a_stretch_of_updates_keeps_its_last_stage_and_all_its_trouble() -> None:
    held = duckdb.connect(":memory:")
    held.execute(
        "create table slots as select u as update, u as seq, 'env 0, a' as place, 4 as tensors, true as should_train, "
        "case when u = 1000 then 'training' else 'blending' end as stage, 0 as tensors_nonfinite, "
        "case when u = 777 then 0.5 else 0.0 end as exploding_severity, null::varchar as low_ratio_cause, "
        "case when u = 500 then 0.01 else 0.8 end as normalized_ratio from range(1200) t(u)"
    )
    lane = read_lanes(held, ["env 0, a"])["env 0, a"]
    assert lane.spans == (StageSpan(0, 1199, "blending"),)
    assert (lane.exploding, lane.low, lane.cut, lane.broken) == ((776,), (500,), (), ())


def test_all_null_slots_and_unknown_stages_are_drawn(tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        empty = {"update": update, "env": 0, "slot": "x", "place": "env 0, x"}
        odd = seed(update, "env 0, y", stage="<held>\x1b[31m", normalized_ratio=NAN, tensors_nonfinite=2, health=0.0)
        rows["slots"] = [empty, odd]

    data = made(tmp_path / "run", edit, 3)
    assert [str(place.gate) for place in data.locations] == ["✕ NaN", "– not training"]
    assert "<held>" not in drawn(slots.SECTION, data).svg
    assert not any("nan" in sentence for sentence in slots.words(data))
