"""The detector's laws on random columns: null, NaN, ±Inf and zero included, subjects that come late too."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from esper_analyze.detector.detector import Detector
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rule import Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Batch, Frame, Signal, batch_from_rows
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.schema import BY_NAME, Kind
from tests.detector.batches import run_cut, said
from tests.detector.walks import rows_of

pytestmark = pytest.mark.processor

WANTED = Detector().wanted
SPECIAL = [math.nan, math.inf, -math.inf, 0.0, 1e-9, 0.01, 0.05, 0.12, 0.3, 0.6, 1.0, 6.0, 30.0, -0.4, -2.0]
EXTREME = [*SPECIAL, 5e-324, -5e-324, 1e-200, 1e160, -1e160, 1.7e308, -1.7e308]
SETTINGS = settings(max_examples=60, deadline=None)


def random_frame(table: str, n: int, rng: np.random.Generator, special: Sequence[float]) -> Frame:
    declared = BY_NAME[table]
    k = 1 if declared.subject is None else int(rng.integers(1, 4))
    subjects = ("run",) if declared.subject is None else tuple(f"s{i}" for i in range(k))
    first = np.zeros(k, int) if declared.subject is None else np.sort(rng.integers(0, max(n // 2, 1), k))
    present = (np.arange(n)[:, None] >= first) & (rng.random((n, k)) < 0.95)
    columns = {}
    for name in WANTED[table]:
        column = declared.column(name)
        if column.kind is Kind.FLOAT:
            steady = rng.choice([0.01, 0.3, 0.9, 1.0])
            values = np.where(
                rng.random((n, k)) < 0.6, steady * rng.uniform(0.9, 1.1, (n, k)), rng.choice(special, (n, k))
            )
        elif column.kind is Kind.CHOICE:
            values = rng.integers(0, len(column.choices), (n, k)).astype(float)
        else:
            values = (rng.random((n, k)) < rng.choice([0.05, 0.9])).astype(float)
        null = (rng.random((n, k)) < rng.choice([0.0, 0.1])) | ~present
        columns[name] = Signal(name, np.where(null, np.nan, values), null)
    order = [i for i in range(k) if present[:, i].any()]
    order.sort(key=lambda i: int(np.flatnonzero(present[:, i])[0]))
    picked = {name: Signal(name, s.values[:, order], s.null[:, order]) for name, s in columns.items()}
    return Frame(tuple(subjects[i] for i in order), present[:, order], picked)


def random_batch(seed: int, n: int, special: Sequence[float] = SPECIAL) -> Batch:
    rng = np.random.default_rng(seed)
    frames = {
        table: random_frame(table, n, rng, special) for table in WANTED if table == "updates" or rng.random() < 0.9
    }
    update = np.cumsum(rng.choice([1, 1, 1, 2], n)).astype(np.int64)
    return Batch(update, {table: one for table, one in frames.items() if one.subjects})


def random_thresholds(seed: int) -> Thresholds:
    rng = np.random.default_rng(seed)
    changes: dict[str, dict[str, object]] = {
        "kl_spike": {"window": int(rng.integers(1, 51)), "window_hits": int(rng.integers(1, 4))},
        "value_collapse": {"warmup_updates": int(rng.integers(0, 20)), "sustained": int(rng.integers(1, 6))},
        "gradient_drift": {"warmup": int(rng.integers(1, 8)), "sustained": 1, "momentum": float(rng.random())},
        "head_entropy_collapse": {"warning_updates": 1, "per_head": {"s0": 0.4}},
    }
    return Thresholds.defaults(RULES).merged(changes)


@SETTINGS
@given(st.integers(0, 2**32), st.integers(1, 60), st.booleans(), st.data())
def test_any_cut_into_batches_says_the_same_to_the_last_bit(
    seed: int, n: int, defaults: bool, data: st.DataObject
) -> None:
    whole = random_batch(seed, n)
    thresholds = None if defaults else random_thresholds(seed)
    cuts = data.draw(st.lists(st.integers(0, n), max_size=6))
    at_once = said(run_cut(Detector(thresholds), whole, []))
    assert said(run_cut(Detector(thresholds), whole, cuts)) == at_once
    assert said(run_cut(Detector(thresholds), whole, range(n))) == at_once


def test_a_run_with_late_and_lost_rows_is_judged_the_same_however_it_is_cut() -> None:
    present = (np.arange(80)[:, None] >= 3) & (np.arange(80)[:, None] != 10)
    cells = {"explained_variance": -0.3, "progress": math.nan, "ev_low_variance": 0.0, "minibatches": 8.0}
    columns = {}
    for name in WANTED["updates"]:
        values = np.where(present, cells.get(name, math.nan), math.nan)
        columns[name] = Signal(name, values, np.isnan(values))
    whole = Batch(np.arange(80), {"updates": Frame(("run",), present, columns)})
    at_once = said(run_cut(Detector(), whole, []))
    assert said(run_cut(Detector(), whole, range(80))) == at_once
    assert [one[0] for one in at_once["findings"] if one[1] == "value_collapse" and one[4] == "warning"] == [73]


@SETTINGS
@given(st.integers(0, 2**32), st.integers(2, 40), st.data())
def test_a_verdict_depends_on_nothing_that_comes_later(seed: int, n: int, data: st.DataObject) -> None:
    whole = random_batch(seed, n)
    stop = data.draw(st.integers(1, n - 1))
    early = said([Detector().process(whole.part(0, stop))])
    last = int(whole.update[stop - 1])
    full = said([Detector().process(whole)])
    assert {key: one for key, one in full["verdicts"].items() if key[3] <= last} == early["verdicts"]
    assert [one for one in full["findings"] if one[0] <= last] == early["findings"]


@SETTINGS
@given(st.integers(0, 2**32), st.integers(2, 40), st.data())
def test_saved_state_goes_on_as_if_nothing_had_happened(seed: int, n: int, data: st.DataObject) -> None:
    whole = random_batch(seed, n)
    stop = data.draw(st.integers(1, n - 1))
    first, second = Detector(), Detector()
    first.process(whole.part(0, stop))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert said([second.process(whole.part(stop, n))]) == said([first.process(whole.part(stop, n))])


@SETTINGS
@given(st.integers(0, 2**32), st.integers(1, 25))
def test_rows_one_by_one_say_what_columns_say(seed: int, n: int) -> None:
    whole = random_batch(seed, n)
    detector = Detector()
    live = []
    for i, update in enumerate(whole.update.tolist()):
        rows = {table: table_rows(table, one, i) for table, one in whole.frames.items()}
        live.append(detector.process(batch_from_rows(update, rows, WANTED)))
    assert said(live) == said([Detector().process(whole)])


def table_rows(table: str, one: Frame, i: int) -> list[dict[str, Any]]:
    """Return the rows of one update as the recorder would have made them."""
    declared = BY_NAME[table]
    rows = []
    for k, subject in enumerate(one.subjects):
        if one.present[i, k]:
            row: dict[str, Any] = {} if declared.subject is None else {declared.subject: subject}
            for name, signal in one.columns.items():
                value = float(signal.values[i, k])
                column = declared.column(name)
                cell: Any = (
                    column.choices[int(value)] if column.kind is Kind.CHOICE and not math.isnan(value) else value
                )
                if column.kind is Kind.TEXT:
                    cell = "said"
                row[name] = None if signal.null[i, k] else cell
            rows.append(row)
    return rows


def test_saved_state_of_another_memory_is_refused_by_name() -> None:
    state = json.loads(json.dumps(Detector().state_dict()))
    state["rules"]["kl_spike"]["memory"]["far"] = [[True]]
    with pytest.raises(ValueError, match="saved state of rule kl_spike does not fit: 'far'"):
        Detector().load_state_dict(state)
    del state["rules"]["kl_spike"]["memory"]["far"]
    with pytest.raises(ValueError, match="saved state of rule kl_spike does not fit: 'far'"):
        Detector().load_state_dict(state)


def test_updates_must_increase() -> None:
    detector = Detector()
    detector.process(Batch(np.array([3, 4])))
    with pytest.raises(ValueError, match="updates must increase: got 4 after 4"):
        detector.process(Batch(np.array([4])))


@pytest.mark.parametrize("updates", [[3], [4], [5, 5], [5, 7, 6], [6, 5, 9], [2, 8]])
def test_updates_that_do_not_increase_are_refused_wherever_they_stand(updates: list[int]) -> None:
    detector = Detector()
    detector.process(Batch(np.array([4])))
    with pytest.raises(ValueError, match="updates must increase"):
        detector.process(Batch(np.array(updates)))
    detector.process(Batch(np.array([5, 9])))
    detector.process(Batch(np.array([], np.int64)))
    with pytest.raises(ValueError, match="got 9 after 9"):
        detector.process(Batch(np.array([9])))


@pytest.mark.parametrize(
    ("previous", "verdict", "alarm"),
    [
        (None, "info", False),
        (None, "warning", True),
        ("ok", "warning", True),
        ("info", "warning", True),
        ("warning", "warning", False),
        ("warning", "critical", True),
        ("critical", "warning", False),
        ("critical", "ok", False),
        ("ok", "no_data", False),
    ],
)
def test_an_alarm_is_a_warning_or_worse_that_is_worse_than_before(
    previous: str | None, verdict: str, alarm: bool
) -> None:
    assert Finding(3, "kl_spike", "run", "kl_k3", verdict, previous, 1.0, 0.5, None, None).alarm is alarm


def test_findings_are_the_same_when_every_cell_is() -> None:
    one = Finding(3, "kl_spike", "run", "kl_k3", "critical", "ok", math.nan, 0.5, None, None)
    assert one.same_as(replace(one))
    for other in (
        replace(one, value=0.5),
        replace(one, value=None),
        replace(one, threshold=math.nan),
        replace(one, threshold=math.nextafter(0.5, 1)),
        replace(one, baseline=0.0),
        replace(one, reason="non-finite"),
        replace(one, update=4),
        replace(one, subject="op"),
    ):
        assert not one.same_as(other)
        assert not other.same_as(one)


def test_a_run_in_which_no_head_has_a_choice_raises_no_warning_and_explains_each_head_once() -> None:
    detector = Detector()
    heads = ("op", "slot", "style")
    found: list[Finding] = []
    for update in range(85):
        rows = {
            "updates": [{"entropy": 0.0, "choice_fraction": 0.0, "status": "performed"}],
            "heads": [
                {
                    "head": head,
                    "kind": "categorical",
                    "learnable_fraction": 0.0,
                    "grad_state": "finite",
                    "zero_explained": "masked",
                }
                for head in heads
            ],
        }
        found += detector.process(batch_from_rows(update, rows, WANTED)).findings
    assert not [one for one in found if one.verdict in ("warning", "critical")]
    explained = [one for one in found if one.subject in heads]
    assert [(one.update, one.rule, one.subject, one.verdict) for one in explained] == [
        (0, "mask_collapse", head, "info") for head in heads
    ]
    assert {one.value for one in explained} == {0.0}


@pytest.mark.parametrize("defer", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_batch_without_updates_says_nothing_and_changes_nothing(rule: Rule, defer: bool) -> None:
    rng = np.random.default_rng(0)
    rows = rows_of(rule, 60, rng)
    with_gaps, without = Detector(rules=[rule], defer=defer), Detector(rules=[rule], defer=defer)
    found: list[list[str]] = [[], []]
    for i, row in enumerate(rows):
        for listed, detector in zip(found, (with_gaps, without), strict=True):
            listed += [repr(one) for one in detector.process(batch_from_rows(i, row, detector.wanted)).findings]
        if i % 3 == 0:
            nothing = with_gaps.process(Batch(np.array([], np.int64)))
            assert nothing.findings == ()
            assert nothing.levels == ()
            assert all(len(one.code) == 0 for judged in nothing.judged for one in judged.judgements)
            assert all(len(values) == 0 for _, values in nothing.filled.values())
    assert found[0] == found[1]


@SETTINGS
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_the_largest_and_the_smallest_numbers_are_judged_like_all_others(seed: int, n: int) -> None:
    whole = random_batch(seed, n, EXTREME)
    assert said(run_cut(Detector(), whole, range(n))) == said(run_cut(Detector(), whole, []))
