"""How far a training was at an update: environment steps and time, and what is said where they are unknown."""

from __future__ import annotations

import pytest

from esper_analyze.runs.moments import Moment, moments_of
from tests.replay.made import run

ROWS = [
    {"update": 0, "env_steps": 256, "wall_time": 1000.0},
    {"update": 1, "env_steps": 512, "wall_time": 1090.0},
    {"update": 3, "env_steps": 768, "wall_time": 4600.0},
]


def test_a_moment_is_that_of_the_update_itself() -> None:
    moments = moments_of(run(updates=ROWS))
    assert [moments.at(update) for update in (0, 1, 3)] == [Moment(256, 0.0), Moment(512, 90.0), Moment(768, 3600.0)]
    assert moments.at(1).words == "512 env steps, 90 s"
    assert moments.at(3).sentence(3) == "Update 3 ended after 768 environment steps, 60 min after the first update."
    assert moments.axis == "update (768 env steps, 60 min in all)"


@pytest.mark.parametrize("update", [2, 4, -1])
def test_nothing_is_said_of_an_update_that_is_not_there(update: int) -> None:
    moment = moments_of(run(updates=ROWS)).at(update)
    assert (moment, moment.words, moment.sentence(update)) == (Moment(), "", "")


def test_what_was_not_recorded_is_left_out() -> None:
    moments = moments_of(run(updates=[{"update": 0}, {"update": 1, "wall_time": float("nan")}]))
    assert (moments.at(0), moments.at(1), moments.axis) == (Moment(), Moment(), "update")
    steps = moments_of(run(updates=[{"update": 0, "env_steps": 100}, {"update": 1, "env_steps": 150}]))
    assert steps.at(1).words == "150 env steps"
    assert steps.axis == "update (50 env steps each)"
    clock = moments_of(run(updates=[{"update": 0, "wall_time": 5.0}, {"update": 1, "wall_time": 5.5}]))
    assert clock.at(1).sentence(1) == "Update 1 ended 0.5 s after the first update."


def test_steps_that_differ_are_given_in_all() -> None:
    rows = [{"update": number, "env_steps": steps} for number, steps in enumerate((100, 150, 300))]
    assert moments_of(run(updates=rows)).axis == "update (300 env steps in all)"
    assert moments_of(run(updates=ROWS[:2])).axis == "update (256 env steps each, 90 s in all)"
    assert moments_of(run()).axis == "update"
