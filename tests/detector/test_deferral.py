"""Updates that come one by one and are put off say the same, at the same updates, as when every rule looks at each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from esper_analyze.detector.detector import Detector, Outcome
from esper_analyze.detector.rule import Memory, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Batch, Frame, Signal, batch_from_rows
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Judgement
from esper_analyze.replay.batches import read_batches
from esper_analyze.runs.run import open_run
from esper_analyze.schema import BY_NAME, Kind
from recorder.online_detector import OnlineDetector
from tests.detector.batches import said
from tests.detector.test_laws import SPECIAL, WANTED, random_batch, random_thresholds, table_rows
from tests.detector.walks import rows_of

pytestmark = pytest.mark.processor

RUNS = sorted((Path(__file__).parents[2] / "sample_runs" / "runs").iterdir())
SETTINGS = settings(max_examples=15, deadline=None)
HEALTHY = {
    "first_ratio_error": 1e-6,
    "kl_k3": 0.01,
    "ratio_max": 1.5,
    "ratio_min": 0.7,
    "ess_fraction": 0.95,
    "clip_fraction": 0.1,
    "advantage_min": -2.0,
    "advantage_max": 2.0,
    "advantage_std": 1.0,
    "explained_variance": 0.7,
    "return_mean": 10.0,
    "return_variance": 4.0,
    "episode_return_mean": 10.0,
    "vanishing_severity": 0.0,
    "dropped_rows": 0.0,
    "h_saturation": 0.1,
    "forget_saturation": 0.1,
    "input_saturation": 0.1,
    "output_saturation": 0.1,
    "tensors": 4.0,
}
SUBJECTS = {"updates": ("run",), "heads": ("a", "b", "c"), "groups": ("actor", "critic", "head:a", "head:b")}


def calm_batch(seed: int, n: int, bad: float = 0.002) -> Batch:
    """Return columns that stay near one level for long, with a share ``bad`` of odd cells and a level now and then."""
    rng = np.random.default_rng(seed)
    frames = {}
    for table, names in WANTED.items():
        subjects = SUBJECTS.get(table, ("rollout", "update"))
        shape = n, len(subjects)
        present = np.arange(n)[:, None] >= np.sort(rng.choice([0, 0, 0, n // 3], len(subjects)))
        present &= rng.random(shape) >= bad / 10
        columns = {name: _calm(table, name, shape, rng, bad) for name in names}
        for one in columns.values():
            one.null |= ~present
            one.values[one.null] = np.nan
        frames[table] = Frame(subjects, present, columns)
    return Batch(np.arange(n, dtype=np.int64), frames)


def _calm(table: str, name: str, shape: tuple[int, int], rng: np.random.Generator, bad: float) -> Signal:
    column = BY_NAME[table].column(name)
    odd = rng.random(shape) < bad
    if column.kind is Kind.FLOAT:
        levels = np.full(shape, HEALTHY.get(name, 0.5))
        if rng.random() < 0.3:
            turn = int(rng.integers(0, shape[0]))
            levels[turn:] = rng.choice([*SPECIAL[3:], 0.95, 0.02, 100.0])
        values = np.where(odd, rng.choice(SPECIAL, shape), levels * _noise(name, shape, rng))
    else:
        most = len(column.choices) if column.kind is Kind.CHOICE else 2
        usual = 1 if name == "inner_loop_measurable" else 0
        values = np.where(odd, rng.integers(0, most, shape), usual).astype(float)
    null = rng.random(shape) < bad
    if rng.random() < 0.15:
        null[:, rng.integers(0, shape[1])] = True
    return Signal(name, np.where(null, np.nan, values), null)


def _noise(name: str, shape: tuple[int, int], rng: np.random.Generator) -> Any:
    return np.ones(shape) if name in ("target_kl", "tensors") else rng.uniform(0.9, 1.1, shape)


def one_by_one(whole: Batch) -> Iterable[Batch]:
    """Return the updates of ``whole`` as the recorder hands them over."""
    for i, update in enumerate(whole.update.tolist()):
        yield batch_from_rows(update, {table: table_rows(table, one, i) for table, one in whole.frames.items()}, WANTED)


def told(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what is recorded of outcomes, to the last bit, and at which update it came.

    Findings of one rule in one update come in the order of its subjects, see ``state_of``.
    """
    for outcome in outcomes:
        assert {one.update for one in outcome.findings} <= set(outcome.update.tolist()), "a finding came late"
    found = said(outcomes)
    del found["verdicts"]
    found["findings"].sort(key=lambda one: (one[0], one[1], one[3], one[2]))  # update, rule, metric, subject
    return found


class CountingJudge:
    """A rule's judge that counts how often it looks."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.looks = 0

    def __call__(self, frame: Frame, memory: Memory, limits: Any) -> list[Judgement]:
        self.looks += 1
        return self.rule.judge(frame, memory, limits)


def state_of(detector: Detector) -> str:
    """Return what the rules carry, subject by subject; holds and announcers may write one state in more than one way.

    Subjects come in the order they first had a row in, which one update at a time need not be that of the whole table.
    """
    return json.dumps({name: _by_subject(rule) for name, rule in detector.state_dict()["rules"].items()})


def _by_subject(rule: dict[str, Any]) -> dict[str, Any]:
    """Return which subjects were seen and their memory; its last axis is subjects."""
    carried = {"seen": rule["seen"], **rule["memory"]}
    return {
        subject: {name: np.asarray(cells)[..., k].tolist() for name, cells in carried.items()}
        for k, subject in sorted(enumerate(rule["subjects"]), key=lambda one: one[1])
    }


@pytest.mark.parametrize(("seed", "n", "bad"), [(122, 122, 0.005), (1983, 76, 0.0005)])
def test_a_subject_without_a_row_in_the_first_update_changes_only_the_order(seed: int, n: int, bad: float) -> None:
    check(calm_batch(seed, n, bad))


def check(whole: Batch, thresholds: Thresholds | None = None, stop: int | None = None) -> dict[str, int]:
    """Compare both ways; return how often each rule looked. Before update ``stop`` a checkpoint is saved and read."""
    counting = [CountingJudge(rule) for rule in RULES]
    rules = [replace(one.rule, judge=one) for one in counting]
    live, outcomes = Detector(thresholds, rules=rules, defer=True), []
    for i, batch in enumerate(one_by_one(whole)):
        if i == stop:
            state = json.loads(json.dumps(live.state_dict()))
            live = Detector(thresholds, rules=rules, defer=True)
            live.load_state_dict(state)
        outcomes.append(live.process(batch))
    at_once = Detector(thresholds)
    assert told(outcomes) == told([at_once.process(whole)])
    assert state_of(live) == state_of(at_once)
    return {one.rule.name: one.looks for one in counting}


@SETTINGS
@given(st.integers(0, 2**32), st.integers(1, 60), st.booleans(), st.data())
def test_updates_put_off_say_the_same_on_random_columns(seed: int, n: int, own: bool, data: st.DataObject) -> None:
    check(random_batch(seed, n), random_thresholds(seed) if own else None, data.draw(st.none() | st.integers(0, n)))


@SETTINGS
@given(st.integers(0, 2**32), st.integers(60, 140), st.sampled_from([0.0, 0.0005, 0.005]), st.booleans(), st.data())
def test_updates_put_off_say_the_same_on_calm_columns(
    seed: int, n: int, bad: float, own: bool, data: st.DataObject
) -> None:
    thresholds = random_thresholds(seed) if own else None
    check(calm_batch(seed, n, bad), thresholds, data.draw(st.none() | st.integers(0, n)))


@pytest.mark.parametrize(("seed", "n"), [(1884873974, 140), (3335728868, 118)])
def test_the_update_after_a_judgement_of_the_one_before_is_not_put_off(seed: int, n: int) -> None:
    check(calm_batch(seed, n, 0.0005))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_recorded_runs_say_the_same_one_by_one(path: Path) -> None:
    for batch in read_batches(open_run(path), WANTED):
        check(batch)


def test_rules_rest_while_nothing_happens() -> None:
    looks = check(calm_batch(7, 200, bad=0.0))
    assert sum(looks.values()) < 0.25 * 200 * len(RULES)
    assert looks["gradient_drift"] == 200, "it fills columns of every update"
    assert looks["first_ratio"] < 10


def test_what_was_put_off_is_judged_when_the_subjects_change() -> None:
    rows = [{"update": i, "first_ratio_error": 1e-6, "status": "performed"} for i in range(30)]
    rows[20]["first_ratio_error"] = 0.5
    heads = [{"head": "late", "kind": "categorical", "learnable_fraction": 0.9, "entropy_norm": 0.5}]
    live, found = Detector(defer=True), []
    for i, row in enumerate(rows):
        outcome = live.process(batch_from_rows(i, {"updates": [row], "heads": heads if i > 10 else []}, WANTED))
        assert not outcome.judged
        found += [(i, one.update, one.verdict) for one in outcome.findings if one.rule == "first_ratio"]
    assert found == [(20, 20, "critical"), (25, 25, "ok")]


def test_the_recorder_puts_updates_off() -> None:
    assert OnlineDetector(None, "NORMAL").detector.process(batch_from_rows(0, {"updates": [{}]}, WANTED)).judged == ()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_that_rests_misses_nothing_near_its_own_examples(rule: Rule, seed: int) -> None:
    rng = np.random.default_rng(seed)
    live, watching = Detector(rules=[rule], defer=True), Detector(rules=[rule])
    late = [live, watching]
    found: list[list[Any]] = [[], []]
    for i, rows in enumerate(rows_of(rule, 150, rng)):
        for place, detector in enumerate(late):
            outcome = detector.process(batch_from_rows(i, rows, detector.wanted))
            found[place] += [
                (i, repr(one)) for one in sorted(outcome.findings, key=lambda one: (one.subject, one.metric))
            ]
    assert found[0] == found[1]


CONSTANT = ("gamma", "return_gamma", "value_loss_factor")
"""The same in every update of a sound training."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_rests_while_what_it_watches_is_sound(rule: Rule) -> None:
    """Sound cells that change a little from update to update, after a warm-up in which levels become known."""
    (cells,) = [one.cells for one in rule.examples if one.verdict == "ok"][:1]
    sound = {name: cell[-1] if isinstance(cell, list) else cell for name, cell in cells.items()}
    rng, counting = np.random.default_rng(0), CountingJudge(rule)
    detector = Detector(rules=[replace(rule, judge=counting)], defer=True)
    looks = []
    for i in range(200):
        wobbling = {n: x * rng.uniform(0.99, 1.01) if isinstance(x, float) else x for n, x in sound.items()}
        wobbling |= {name: cell for name, cell in sound.items() if name in CONSTANT}
        tables: dict[str, dict[str, Any]] = {table: {} for table in (rule.table, *rule.beside)}
        for name, cell in wobbling.items():
            table, _, column = name.rpartition(".")
            tables[table or rule.table][column] = cell
        rows = {}
        for table, row in tables.items():
            subject = BY_NAME[table].subject
            named = "head:one" if table == "groups" and "heads" in rule.beside else "one"
            rows[table] = [row if subject is None else {subject: named, **row}]
        detector.process(batch_from_rows(i, rows, detector.wanted))
        looks.append(counting.looks)
    renewed = {
        "performance_degradation": 100,
        "eval_apart": 100,
        "value_fit_lost": 60,
        "critic_not_learning": 5,
        "clipping_always": 5,
        "gradient_drift": 100,
    }
    assert looks[199] - looks[99] <= renewed.get(rule.name, 2), "levels are taken anew every tenth or twentieth update"
