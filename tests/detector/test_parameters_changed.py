"""Where the parameters of a group change, what came before is no baseline: the group, and its head, begin anew."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from esper_analyze.detector.detector import Detector
from esper_analyze.detector.rule import Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Batch, batch_from_rows
from esper_analyze.detector.subjects import Frames, changes, joined_subjects
from tests.detector.batches import batch, frame, run_cut, said

BY_RULE = {rule.name: rule for rule in RULES}
N, CHANGED = 60, {"head:a": (25, 26, 50), "head:b": (0,)}
"""Updates in which the parameters of a group changed."""
SUBJECTS = ("head:a", "critic", "head:b")


def cells(seed: int = 0) -> dict[str, list[list[Any]]]:
    rng = np.random.default_rng(seed)
    norms = rng.uniform(0.9, 1.1, (N, 3))
    norms[40:44] *= 30.0  # far above the level of those that did not change, and of what began at 26
    norms[30:34, 0] *= 50.0  # within twenty updates of the change: its level is not known
    flags = [[i in CHANGED.get(name, ()) for name in SUBJECTS] for i in range(N)]
    return {"grad_norm": norms.tolist(), "health": [[1.0] * 3] * N, "parameters_changed": flags}


def whole(seed: int = 0, *, changed: bool = True) -> Batch:
    columns = cells(seed) | ({} if changed else {"parameters_changed": [[False] * 3] * N})
    nothing = {name: [[None] * 3] * N for name in Detector().wanted["groups"] if name not in columns}
    return batch({"groups": frame("groups", columns | nothing, SUBJECTS)})


def course(rule: Rule, given: Batch, subject: str) -> list[tuple[object, ...]]:
    """Return verdict, value, threshold and baseline of a subject at each update."""
    (judged,) = Detector(rules=[rule]).process(given).judged
    k = judged.subjects.index(subject)
    return [
        (int(one.code[i, k]), *(float(x[i, k]).hex() for x in (one.value, one.threshold, one.baseline)))
        for i in range(len(given.update))
        for one in judged.judgements
    ]


@pytest.mark.parametrize("name", ["gradient_explosion", "gradient_drift", "gradient_vanishing"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_group_whose_parameters_changed_is_judged_as_if_it_had_begun_then(name: str, subject: str) -> None:
    rule, given = BY_RULE[name], whole()
    edges = [0, *(at for at in CHANGED.get(subject, ()) if at), N]
    parts = [course(rule, given.part(a, b), subject) for a, b in pairwise(edges)]
    assert course(rule, given, subject) == [cell for part in parts for cell in part]


def test_the_change_matters() -> None:
    for subject, changed in (("head:a", True), ("critic", False), ("head:b", False)):  # update 0 has nothing before it
        both = [course(BY_RULE["gradient_explosion"], whole(changed=one), subject) for one in (True, False)]
        assert (both[0] != both[1]) is changed


@pytest.mark.parametrize("cuts", [(), (24,), (25,), (26, 27), range(N)])
def test_verdicts_findings_and_filled_columns_do_not_depend_on_how_updates_are_cut(cuts: Any) -> None:
    outcomes = run_cut(Detector(), whole(), cuts)
    assert said(outcomes) == said([Detector().process(whole())])
    for outcome in outcomes:
        subjects, values = outcome.filled["groups", "drift_norm"]
        assert subjects == SUBJECTS
        assert values.shape == (len(outcome.update), 3)


def test_the_filled_columns_are_those_of_the_parts() -> None:
    rule, given = BY_RULE["gradient_drift"], whole()
    filled = Detector(rules=[rule]).process(given).filled["groups", "drift_norm"][1]
    for k, subject in enumerate(SUBJECTS):
        edges = [0, *(at for at in CHANGED.get(subject, ()) if at), N]
        parts = [
            Detector(rules=[rule]).process(given.part(a, b)).filled["groups", "drift_norm"][1][:, k]
            for a, b in pairwise(edges)
        ]
        assert np.array_equal(filled[:, k], np.concatenate(parts), equal_nan=True)


def test_a_head_begins_anew_with_its_group() -> None:
    heads: dict[str, Any] = {name: [[None] * 2] * 12 for name in Detector().wanted["heads"]}
    heads |= {"entropy_norm": [[0.05, 0.05]] * 12, "kind": [["categorical"] * 2] * 12}
    groups: dict[str, Any] = {name: [[None] * 2] * 12 for name in Detector().wanted["groups"]}
    groups["parameters_changed"] = [[False, i == 4] for i in range(12)]
    given = batch({"heads": frame("heads", heads, ["a", "b"]), "groups": frame("groups", groups, ["head:a", "head:b"])})
    found = [one for one in Detector().process(given).findings if one.rule == "head_entropy_collapse"]
    # low for three updates; of b the streak began again at the fifth, before it had cleared
    assert [(one.update, one.subject, one.verdict) for one in found] == [(2, "a", "warning"), (2, "b", "warning")]
    (judged,) = [one for one in Detector().process(given).judged if one.rule.name == "head_entropy_collapse"]
    warning = 5
    assert np.flatnonzero(judged.judgements[0].code[:, 0] == warning).tolist() == list(range(2, 12))
    assert np.flatnonzero(judged.judgements[0].code[:, 1] == warning).tolist() == [2, 3, *range(6, 12)]


def test_no_other_table_is_concerned() -> None:
    given = whole()
    frames = Frames(given, Detector().wanted)
    flags = frames.parameters_changed("groups", SUBJECTS)
    assert flags is not None
    assert np.argwhere(flags).tolist() == [[0, 2], [25, 0], [26, 0], [50, 0]]
    turned = frames.parameters_changed("groups", SUBJECTS[::-1])
    assert turned is not None
    assert np.array_equal(turned, flags[:, ::-1])
    of_heads = frames.parameters_changed("heads", ("b", "a", "c"))
    assert of_heads is not None
    assert np.argwhere(of_heads).tolist() == [[0, 0], [25, 1], [26, 1], [50, 1]]
    assert frames.parameters_changed("heads", ("c",)) is None
    for table in ("updates", "slots", "lstm"):
        assert frames.parameters_changed(table, SUBJECTS) is None
    assert changes(given) is not None
    for other in (whole(changed=False), Batch(np.arange(3))):
        assert changes(other) is None
        assert Frames(other, Detector().wanted).parameters_changed("groups", SUBJECTS) is None


def test_subjects_of_other_tables() -> None:
    assert joined_subjects("heads", ("a", "b"), "updates") == ("run",)
    assert joined_subjects("groups", ("critic", "head:a"), "heads") == ("\0", "a")
    assert joined_subjects("heads", ("a",), "groups") == ("head:a",)
    assert joined_subjects("slots", ("s0", "s1"), "lstm") == ("s0", "s1")


def test_deferred_updates_are_judged_before_the_parameters_change() -> None:
    """What changed is seen at once, and what came before it is judged with what was known then."""
    names = ("gradient_explosion", "head_entropy_collapse")
    given = cells()
    rules = [BY_RULE[name] for name in names]
    live, at_once = Detector(rules=rules, defer=True), Detector(rules=rules)
    found: list[list[Any]] = [[], []]
    for i in range(N):
        groups = [{"group": name, **{c: given[c][i][k] for c in given}} for k, name in enumerate(SUBJECTS)]
        heads = [{"head": name, "kind": "categorical", "entropy_norm": 0.05 if i > 45 else 0.5} for name in "ab"]
        for listed, detector in zip(found, (live, at_once), strict=True):
            outcome = detector.process(batch_from_rows(i, {"groups": groups, "heads": heads}, detector.wanted))
            listed += [(i, one.as_row()) for one in outcome.findings]
    assert repr(found[0]) == repr(found[1])
    assert {(one["rule"], one["subject"]) for _, one in found[0]} >= {
        ("gradient_explosion", "critic"),
        ("head_entropy_collapse", "a"),
    }
    assert not any(math.isnan(one["value"]) for _, one in found[0] if one["value"] is not None)
