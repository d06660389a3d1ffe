"""Tests of the fault bench itself: its draws, its halves, its faults and its figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from esper_analyze.detector.rules import RULES
from esper_analyze.replay.recall import wilson
from esper_analyze.runs.run import open_run
from tests.faultbench.__main__ import main
from tests.faultbench.draw import Setup, draw
from tests.faultbench.fault import Fault
from tests.faultbench.faults import FAULTS, HARMLESS, HARMLESS_BY_SPLIT, KINDS_BY_SPLIT
from tests.faultbench.held_tasks import HELD
from tests.faultbench.make import make, setups, training
from tests.faultbench.outcome import Made
from tests.faultbench.score import judge, summary
from tests.faultbench.tasks import TASKS
from tests.faultbench.training import LoopOutcome, Training
from tests.faultbench.tune_tasks import TUNE

ONSET, UPDATES = 3, 6


def small(possible: Callable[[Setup], bool]) -> Setup | None:
    """Return the first drawn training of which that is so, with rewards at every step, cut short.

    Actor and critic share a body, so that what is done to one shows in the other.
    """
    drawn = (draw(split, number) for number in range(200) for split in ("tune", "held"))
    rewarded = (one for one in drawn if TASKS[one.task].family not in ("sparse reward", "pixels"))
    setup = next((one for one in rewarded if possible(one)), None)
    return setup and replace(
        setup,
        updates=UPDATES,
        shared=True,
        environments=8,
        steps=22,
        epochs=2,
        minibatches=2,
        learning_rate=0.03,
        clip=0.1,
    )


def never(_: Training, __: int) -> None:
    """Touch nothing."""


def test_a_training_follows_from_its_number() -> None:
    assert draw("tune", 5) == draw("tune", 5)
    assert draw("tune", 5) != replace(draw("held", 5), split="tune")
    assert list(setups("tune", 3, 2)) == list(setups("tune", 0, 5))[-len(list(setups("tune", 3, 2))) :]


def test_the_halves_share_no_task_and_what_is_held_back_has_kinds_of_its_own_and_all_others() -> None:
    assert not set(TUNE) & set(HELD)
    assert set(KINDS_BY_SPLIT["tune"]) < set(KINDS_BY_SPLIT["held"]) == set(FAULTS)
    assert set(HARMLESS_BY_SPLIT["tune"]) < set(HARMLESS_BY_SPLIT["held"]) == set(HARMLESS)
    families = {known.family for known in TUNE.values()}
    assert families == {known.family for known in HELD.values()}
    assert len(families) == 6


def test_every_kind_is_drawn() -> None:
    for split, kinds in KINDS_BY_SPLIT.items():
        drawn = [one for one in setups(split, 0, 330) if one.kind]
        assert {one.kind for one in drawn} == {*kinds, *HARMLESS_BY_SPLIT[split]}
        assert all(20 <= one.onset < one.updates for one in drawn)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_gives_rewards_masks_and_ends_of_its_shape(name: str) -> None:
    task = TASKS[name].make(5, 1)
    random, ended = np.random.default_rng(2), 0
    for _ in range(2 * task.limit):
        assert task.observe().shape == (5, *task.shape)
        masks = task.masks()
        assert all(mask.any(1).all() for mask in masks.values())
        actions = {head: np.array([random.choice(np.flatnonzero(row)) for row in mask]) for head, mask in masks.items()}
        step = task.step(actions if task.sizes else {"move": random.normal(size=(5, task.dimensions))})
        assert step.reward.shape == step.terminated.shape == step.truncated.shape == (5,)
        assert not (step.terminated & step.truncated).any()
        ended += int((step.terminated | step.truncated).sum())
    assert ended >= 5


ROUNDING = 1e-3
"""Relative; sums of one training in the same process may round otherwise, as the library takes its kernels."""


def drives() -> Iterator[tuple[str, Setup]]:
    """Yield each change with a training by hand and one by the library that can have it."""
    for kind in [*FAULTS, *HARMLESS]:
        fault = FAULTS.get(kind)
        for libraries in (("loop",), ("ppo", "maskable", "recurrent")):
            setup = small(partial(_can_have, fault, libraries))
            if setup is not None:
                yield kind, setup


def _can_have(fault: Fault | None, algorithms: tuple[str, ...], setup: Setup) -> bool:
    return setup.algorithm in algorithms and (fault is None or fault.possible(setup))


TWINS: dict[Setup, LoopOutcome] = {}
"""Many kinds are put into the same training, which goes on the same way without them."""


def twin_of(setup: Setup, folder: Path) -> LoopOutcome:
    """Return how a training goes to which nothing is done."""
    if setup not in TWINS:
        TWINS[setup] = training(setup).run(folder / "twin", never)
    return TWINS[setup]


@pytest.mark.parametrize(
    ("kind", "setup"), list(drives()), ids=lambda one: one.algorithm if isinstance(one, Setup) else one
)
def test_a_fault_changes_its_training_from_its_onset_on_and_not_before(kind: str, setup: Setup, tmp_path: Path) -> None:
    if kind == "advantages_normalised":
        setup = replace(setup, normalise_advantages=False)
    if kind in ("larger_of_both_surrogates", "clip_halved", "clipped_surrogate_alone"):
        setup = replace(setup, clip=0.001)
    if kind == "bodies_exchanged":
        setup = replace(setup, shared=False)
    if kind == "target_kl_set":
        setup = replace(setup, learning_rate=0.03, schedule="constant", clip=0.3, epochs=10, minibatches=4)
    touch = FAULTS[kind].touch if kind in FAULTS else HARMLESS[kind]

    def before(trained: Training, update: int) -> None:
        if update >= ONSET:
            touch(trained, update - ONSET)

    twin = twin_of(setup, tmp_path)
    changed = training(setup).run(tmp_path / "changed", before)
    assert twin.died == ""
    assert len(twin.value_losses) == UPDATES
    assert changed.value_losses[:ONSET] == pytest.approx(twin.value_losses[:ONSET], rel=ROUNDING)
    if kind in ("checkpoint_restored", "evaluated_between"):
        assert changed.value_losses == pytest.approx(twin.value_losses, rel=ROUNDING)
    else:
        assert changed.died or changed.value_losses[ONSET:] != twin.value_losses[ONSET:]


@pytest.mark.parametrize("algorithm", ["loop", "ppo", "maskable", "recurrent"])
def test_every_algorithm_trains_and_its_recorder_saw_every_update(algorithm: str, tmp_path: Path) -> None:
    setup = small(lambda one: one.algorithm == algorithm)
    assert setup is not None
    outcome = training(setup).run(tmp_path / "run", never)
    updates = open_run(tmp_path / "run").frame("updates")
    assert len(updates) == len(outcome.returns) == UPDATES
    assert updates["value_loss"].to_list() == pytest.approx(outcome.value_losses, rel=1e-4)


def made(shares: list[float], onset: int = 0, died: str = "") -> Made:
    """Return a training with these returns, 0 that of random actions and 1 a good one."""
    known = TASKS["chain"]
    returns = [known.by_chance + share * (known.good - known.by_chance) for share in shares]
    setup = replace(draw("tune", 0), task="chain", onset=onset)
    return Made(setup, LoopOutcome(returns, [0.1] * len(returns), died))


def test_sound_is_what_learnt_or_had_solved_its_task_and_did_not_fall_back() -> None:
    assert made([0.0, 0.1, 0.1, 0.2, 0.3]).sound
    assert made([0.9, 0.9, 0.9, 0.9, 0.85]).sound
    assert not made([0.0, 0.01, 0.0, 0.02, 0.03]).sound
    assert not made([0.1, 0.5, 0.9, 0.9, 0.5]).sound
    assert not made([0.0, 0.1, 0.1, 0.2, 0.3], died="ValueError").sound
    assert not made([math.nan] * 5).sound


def test_harm_is_what_the_twin_did_not_suffer_after_the_onset() -> None:
    twin = made([0.1, 0.5, 0.9, 0.9])
    assert made([0.1, 0.5, 0.6, 0.6], onset=2).did_harm(twin)
    assert not made([0.0, 0.0, 0.9, 0.8], onset=2).did_harm(twin)
    assert made([0.1, 0.5, 0.9, 0.9], onset=2, died="ValueError").did_harm(twin)
    assert made([0.1, 0.5, math.nan, math.nan], onset=2).did_harm(twin)


def test_the_rules_that_name_a_fault_exist() -> None:
    assert {rule for fault in FAULTS.values() for rule in fault.rules} <= {rule.name for rule in RULES}


def test_wilsons_interval() -> None:
    low, high = wilson(8, 10)
    assert low == pytest.approx(0.4901625, abs=1e-6)
    assert high == pytest.approx(0.9433178, abs=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_report_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--report"]) == 2
    assert "holds no training of tune" in capsys.readouterr().err


def test_what_is_missing_is_trained_once_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = [replace(one, updates=8, onset=min(one.onset, 4)) for one in setups("tune", 1, 1)]
    monkeypatch.setattr("tests.faultbench.__main__.setups", lambda *_: drawn)
    for one in drawn:
        make(tmp_path, one)
    judged = judge(tmp_path, "tune")
    assert [one.kind for one in judged] == [one.kind for one in drawn]
    assert judged[1].twin == judged[0]
    assert summary(judged)["trainings"] == len(drawn)
    assert main([str(tmp_path), "--first", "1", "--count", "1"]) == 0
    assert "2 of 2 runs are there" in capsys.readouterr().err
    assert main([str(tmp_path), "--report", "--json", str(tmp_path / "figures.json")]) == 0
    assert drawn[1].kind in capsys.readouterr().out
