"""The detector as a whole: what it reads, the order of what it finds, subjects that come late, its saved state."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from esper_analyze.detector.detector import Detector, RuleVerdicts
from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Batch, batch_from_rows
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Verdict
from tests.detector.batches import batch, frame, judge_cells, run_cut

BY_RULE = {rule.name: rule for rule in RULES}
ABSENT, NO_DATA, OK, CRITICAL = (int(one) for one in (Verdict.ABSENT, Verdict.NO_DATA, Verdict.OK, Verdict.CRITICAL))


def test_what_the_rules_read_by_table_each_column_once() -> None:
    names = ("kl_spike", "spike_then_silence", "gradient_vanishing", "head_entropy_collapse")
    assert Detector(rules=[BY_RULE[name] for name in names]).wanted == {
        "updates": (
            "kl_k3",
            "target_kl",
            "inner_loop_measurable",
            "kl_k3_last_epoch",
            "kl_k2",
            "kl_k1",
            "minibatches",
            "choice_fraction",
            "value_nrmse",
            "entropy_norm",
            "episode_return_mean",
            "reward_min",
            "reward_max",
            "ev_low_variance",
            "return_variance",
            "return_mean",
        ),
        "groups": ("vanishing_severity", "grad_norm", "tensors", "parameters_changed"),
        "heads": (
            "zero_explained",
            "learnable_fraction",
            "entropy_norm",
            "kind",
            "entropy",
            "choice_samples",
        ),
    }
    assert Detector(rules=[BY_RULE["mask_collapse"]]).wanted == {
        "heads": ("learnable_fraction", "kind"),
        "groups": ("parameters_changed",),
    }, "heads begin anew with their groups"
    assert Detector(rules=[BY_RULE["lstm_vanishing"]]).wanted == {"lstm": ("h_rms", "c_rms")}
    assert Detector(rules=[]).wanted == {}


def entropies(cells: list[list[Any]], present: list[list[int]], names: str = "abc") -> Batch:
    rows = frame("heads", {"learnable_fraction": cells, "kind": [["categorical"] * len(names)] * len(cells)}, [*names])
    rows = replace(rows, present=np.array(present, bool))
    for signal in rows.columns.values():
        signal.null |= ~rows.present
        signal.values[signal.null] = math.nan
    changed = frame("groups", {"parameters_changed": [[None]] * len(cells)}, ["all"])
    return batch({"heads": rows, "groups": changed})


def codes(judged: RuleVerdicts) -> dict[str, list[int]]:
    return dict(zip(judged.subjects, judged.judgements[0].code.T.tolist(), strict=True))


@pytest.mark.parametrize("cuts", [(), (1,), (2, 3), (1, 2, 3, 4)])
def test_before_its_first_row_a_subject_is_absent_and_after_it_missing(cuts: tuple[int, ...]) -> None:
    present = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]]
    whole = entropies([[0.5] * 3] * 5, present)
    found: dict[str, list[int]] = {"a": [], "b": []}
    for outcome in run_cut(Detector(rules=[BY_RULE["mask_collapse"]]), whole, cuts):
        (judged,) = outcome.judged
        told = codes(judged)
        assert list(told)[:1] == ["a"]
        for name in found:
            found[name] += told.get(name, [ABSENT] * len(outcome.update))
    assert found == {"a": [OK, OK, NO_DATA, OK, OK], "b": [ABSENT, ABSENT, OK, OK, NO_DATA]}


def test_findings_come_by_update_then_in_the_order_of_the_rules_then_of_subjects() -> None:
    n = 6
    cells = {name: [[None] * 2] * n for name in Detector().wanted["heads"]}
    heads: dict[str, Any] = {
        **cells,
        "learnable_fraction": [[0.5, 0.5]] * 2 + [[0.01, 0.01]] * (n - 2),
        "kind": [["categorical"] * 2] * n,
        "entropy_norm": [[0.5, 0.5]] * 2 + [[math.nan, 0.5]] + [[0.5, 0.5]] * (n - 3),
    }
    updates: dict[str, Any] = {name: [[None]] * n for name in Detector().wanted["updates"]}
    updates |= {
        "first_ratio_error": [[0.0], [0.5], [0.0], [0.0], [0.0], [0.0]],
        "dropped_rows": [[0], [0], [1], [0], [0], [0]],
    }
    whole = batch({"heads": frame("heads", heads, ["x", "a"]), "updates": frame("updates", updates)})
    found = [
        (one.update, one.rule, one.subject)
        for one in Detector().process(whole).findings
        if one.rule in ("data_lost", "first_ratio", "mask_collapse", "head_entropy_collapse")
        and one.verdict != "no_data"
    ]
    assert found == [
        (1, "first_ratio", "run"),
        (2, "data_lost", "run"),
        (2, "mask_collapse", "x"),
        (2, "mask_collapse", "a"),
        (2, "head_entropy_collapse", "x"),
    ]


def test_only_an_alarm_raises_the_level_for_as_long_as_its_own_limit_says() -> None:
    rule = BY_RULE["kl_spike"]
    thresholds = Thresholds.defaults([rule]).changed("kl_spike", "escalate", 2)
    cells = {"kl_k3": [0.01, 0.12, 0.01, 0.9, 0.01, 0.01, 0.01], "inner_loop_measurable": True}
    outcome = judge_cells(Detector(thresholds, rules=[rule], level="MINIMAL"), "updates", cells, 7)
    assert [(one.update, one.level) for one in outcome.levels] == [(4, "DEBUG"), (6, "MINIMAL")]
    assert judge_cells(Detector(thresholds, rules=[rule], level="OFF"), "updates", cells, 7).levels == ()


def rows(i: int) -> dict[str, list[dict[str, Any]]]:
    return {
        "updates": [{"kl_k3": 0.9 if i == 3 else 0.01, "inner_loop_measurable": True}],
        "groups": [{"group": name, "grad_norm": 1.0 + i % 3, "health": 1.0} for name in ("a", "b")[: 1 + (i > 1)]],
    }


def test_the_state_saved_is_plain_and_has_what_is_carried() -> None:
    rules = [BY_RULE["kl_spike"], BY_RULE["gradient_drift"]]
    detector = Detector(rules=rules)
    for i in range(5):
        detector.process(batch_from_rows(i, rows(i), detector.wanted))
    state = detector.state_dict()
    assert json.dumps(json.loads(json.dumps(state))) == json.dumps(state)
    assert state["last_update"] == 4
    assert state["escalation"]["until"] == 3 + 10
    assert list(state["rules"]) == ["kl_spike", "gradient_drift"]
    spike, drift = state["rules"].values()
    assert (spike["subjects"], spike["seen"]) == (["run"], [True])
    assert spike["announcers"]["kl_k3"]["said"] == {"run": CRITICAL}
    assert spike["holds"]["kl_k3"][-2:] == [[CRITICAL], [OK]]
    assert (drift["subjects"], drift["seen"]) == (["a", "b"], [True, True])
    assert drift["memory"]["ema_count"] == [[5, 3]] * 2


def test_a_rule_that_the_saved_state_lacks_starts_fresh() -> None:
    one = Detector(rules=[BY_RULE["gradient_drift"]])
    for i in range(5):
        one.process(batch_from_rows(i, rows(i), one.wanted))
    both = Detector(rules=[BY_RULE["gradient_drift"], BY_RULE["kl_spike"]])
    both.load_state_dict(json.loads(json.dumps(one.state_dict())))
    with pytest.raises(ValueError, match="updates must increase: got 4 after 4"):
        both.process(Batch(np.array([4])))
    outcome = both.process(batch_from_rows(5, rows(3), both.wanted))
    assert [(finding.rule, finding.verdict) for finding in outcome.findings] == [("kl_spike", "critical")]
    assert both.state_dict()["rules"]["gradient_drift"]["memory"]["ema_count"] == [[6, 4]] * 2
    with pytest.raises(ValueError, match="updates must increase: got 5 after 5"):
        both.process(Batch(np.array([5])))


def test_what_was_deferred_is_found_late_rather_than_never() -> None:
    """A guard that promises too much: its finding comes with the next update, and is not lost."""
    rule = BY_RULE["first_ratio"]
    assert rule.guard is not None
    real = rule.guard

    def careless(last: Any, memory: Any, limits: Any) -> Any:
        promise = real(last, memory, limits)
        return None if promise is None else replace(promise, sides={"first_ratio_error": None})

    detector = Detector(rules=[replace(rule, guard=careless)], defer=True)
    found: list[tuple[int, Finding]] = []
    for i in range(12):
        listed: dict[str, list[dict[str, Any]]] = {"updates": [{"first_ratio_error": 0.5 if i == 5 else 0.0}]}
        if i == 8:
            listed["heads"] = [{"head": "a"}]  # the subjects change: all that was deferred is judged
        wanted = {**detector.wanted, "heads": ("kind",)}
        outcome = detector.process(batch_from_rows(i, listed, wanted))
        found += [(i, one) for one in outcome.findings]
    assert [(i, one.update, one.verdict) for i, one in found][:1] == [(8, 5, "critical")]


def test_two_columns_of_state_of_unequal_size_do_not_fit() -> None:
    detector = Detector(rules=[BY_RULE["kl_spike"]])
    detector.process(batch_from_rows(0, rows(0), detector.wanted))
    state = json.loads(json.dumps(detector.state_dict()))
    state["rules"]["kl_spike"]["memory"]["over"] = [0, 0]
    with pytest.raises(ValueError, match=r"saved state of rule kl_spike does not fit: 'over' must hold \(1,\) numbers"):
        Detector(rules=[BY_RULE["kl_spike"]]).load_state_dict(state)
