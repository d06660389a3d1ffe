"""What reports are computed from: thresholds by name, words behind incidents, and the drift rule's baselines."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from esper_analyze.detector.incidents import Incident
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.replay.evidence import Evidence, gather, texts_of
from esper_analyze.replay.replay import Replay
from esper_analyze.runs.moments import moments_of
from esper_analyze.schema import BY_NAME, Kind
from tests.replay.made import run, updates

DEFAULTS = Thresholds.defaults(RULES)
WORDY = next(
    rule for rule in RULES
    if any(BY_NAME[rule.table].column(name).kind is Kind.TEXT for name in rule.columns) and rule.table == "updates"
)  # fmt: skip
TEXT = next(name for name in WORDY.columns if BY_NAME["updates"].column(name).kind is Kind.TEXT)


def incident(rule: str, metric: str, update: int = 1, subject: str = "run") -> Incident:
    return Incident(rule, subject, metric, update, update, update, "open", 1.0, update, "critical", 1)


def evidence(*incidents: Incident, **texts: dict[tuple[str, int], str]) -> Evidence:
    return Evidence(run(), Replay(DEFAULTS, incidents=list(incidents)), {}, texts, moments_of(run()))


def test_a_bound_is_that_of_the_replay_and_none_where_there_is_none() -> None:
    found = evidence()
    limits = DEFAULTS.as_dict()["kl_spike"]
    assert found.bounds("kl_spike") == (limits["warning"], limits["critical"])
    assert found.bound("kl_spike", "window") == limits["window"]
    assert isinstance(found.bound("kl_spike", "window"), float)
    assert found.bound("kl_spike", "none") is None
    assert found.bound("none", "warning") is None
    assert found.bound("head_entropy_collapse", "per_head") is None
    assert set(found.rules) == {rule.name for rule in RULES}
    assert found.title("kl_spike") == found.rules["kl_spike"].title


def test_the_recorded_words_are_those_at_the_peak_of_an_incident_on_a_column_of_words() -> None:
    texts = {WORDY.name: {("run", 1): "head op"}, "kl_spike": {("run", 1): "odd"}}
    found = evidence(**texts)
    assert found.cell_text(incident(WORDY.name, TEXT)) == "head op"
    assert found.cell_text(incident(WORDY.name, TEXT, update=2)) is None
    assert found.cell_text(incident("kl_spike", "kl_k3")) is None
    assert found.cell_text(incident("kl_spike", "made up of several")) is None
    assert evidence().cell_text(incident(WORDY.name, TEXT)) is None


def test_words_behind_incidents_are_read_by_subject_and_update() -> None:
    rows = updates(4)
    rows[1][TEXT], rows[2][TEXT], rows[3][TEXT] = "a", "", "c"
    made = run(updates=rows)
    result = Replay(DEFAULTS, incidents=[incident(WORDY.name, TEXT), incident("kl_spike", "kl_k3")])
    words = [name for name in WORDY.columns if BY_NAME["updates"].column(name).kind in (Kind.TEXT, Kind.CHOICE)]
    fixed = ", ".join(str(rows[0].get(name, {"status": "performed", "level": "NORMAL"}.get(name, "")))
                      for name in words if name in ("status", "level"))  # fmt: skip
    found = texts_of(made, result)
    assert set(found) == {WORDY.name}
    plain = {key: cell.replace(fixed, "").strip(", ") for key, cell in found[WORDY.name].items()}
    assert {key: cell for key, cell in plain.items() if cell} == {("run", 1): "a", ("run", 3): "c"}
    assert texts_of(made, Replay(DEFAULTS)) == {}


def test_words_of_heads_are_by_their_name() -> None:
    heads = next(rule for rule in RULES if rule.table == "heads" and any(
        BY_NAME["heads"].column(name).kind is Kind.CHOICE for name in rule.columns))  # fmt: skip
    word = next(name for name in heads.columns if BY_NAME["heads"].column(name).kind is Kind.CHOICE)
    choice = BY_NAME["heads"].column(word).choices[0]
    made = run(updates=updates(2), heads=[{"update": 1, "head": "op", word: choice}, {"update": 1, "head": "slot"}])
    found = texts_of(made, Replay(DEFAULTS, incidents=[incident(heads.name, word, subject="op")]))
    assert found == {heads.name: {("op", 1): choice}}


def test_the_drift_rule_s_values_and_baselines_are_collected_over_batches() -> None:
    rows = [
        {"update": update, "group": group, "grad_norm": size * (2.0 if update == 45 else 1.0)}
        for update in range(60) for group, size in (("a", 1.0), ("b", 4.0))
    ]  # fmt: skip
    rows[-1]["grad_norm"] = None
    found = gather(run(updates=updates(60), groups=rows), DEFAULTS)
    assert set(found.drift) == {"grad_norm", "health"}
    assert found.replay.updates == 60
    assert list(found.drift["grad_norm"]) == ["a", "b"]
    for size, trace in zip((1.0, 4.0), found.drift["grad_norm"].values(), strict=True):
        value, baseline = trace.value, trace.baseline
        assert value.update.tolist() == baseline.update.tolist() == list(range(60))
        assert baseline.null.tolist() == np.isnan(baseline.value).tolist() == [True] * 10 + [False] * 49 + [size == 4.0]
        assert value.null.tolist() == baseline.null.tolist()  # no verdict before there is a baseline
        assert baseline.value[[44, 45, 46]] == pytest.approx([size, size, 1.01 * size])  # an EMA of 0.99
        assert value.value[[44, 45, 46]] == pytest.approx([0.0, 1.0, 0.01 / 1.01], rel=1e-5)
        assert value.value.dtype == baseline.value.dtype == np.float32


def test_without_the_drift_rule_nothing_is_collected_and_values_beyond_float32_are_infinite() -> None:
    drift = next(rule for rule in RULES if rule.name == "gradient_drift")
    rows = [{"update": update, "group": "a", "grad_norm": 1e300} for update in range(40)]
    made = run(updates=updates(40), groups=rows)
    others = tuple(rule for rule in RULES if rule is not drift)
    assert gather(made, DEFAULTS, rules=others).drift == {}
    assert gather(made, DEFAULTS, rules=(replace(drift, name="other"),)).drift == {}
    assert not math.isnan(gather(made, DEFAULTS).drift[next(iter(gather(made, DEFAULTS).drift))]["a"].value.value[-1])
