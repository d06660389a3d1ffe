"""Findings: each change of verdict once, whatever is carried from one batch to the next."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from esper_analyze.detector.findings import Announcer, Finding, in_effect, known_value
from esper_analyze.detector.verdict import NONFINITE, Judgement, Verdict

CODES = {"-": 0, "x": 1, "d": 2, "o": 3, "i": 4, "w": 5, "c": 6}
REASONS = ("", NONFINITE, "missing", "masked", "young")
REASON_OF = {"x": 3, "d": 2}


def judgement(*rows: str, reasons: Sequence[Sequence[int]] | None = None, quiet: Sequence[int] = ()) -> Judgement:
    """Return verdicts by letters, a row an update; the value of each cell is its place, the bound 0.5."""
    code = np.array([[CODES[letter] for letter in row] for row in rows], np.int8)
    reason = np.array([[REASON_OF.get(letter, 0) for letter in row] for row in rows], np.int8)
    if reasons is not None:
        reason = np.array(reasons, np.int8)
    value = np.arange(float(code.size)).reshape(code.shape)
    threshold = np.where(code > CODES["o"], 0.5, math.nan)
    return Judgement("kl_k3", code, value, threshold, value + 0.25, reason, REASONS, frozenset(quiet))


def announced(
    announcer: Announcer, *judged: Judgement, first: int = 0
) -> list[tuple[int, str, str, str | None, str | None]]:
    found, update = [], first
    for one in judged:
        updates = np.arange(update, update + len(one.code))
        numbered = announcer.findings("kl_spike", updates, ("a", "b", "c")[: one.code.shape[1]], one)
        assert [(i, k) for i, k, _ in numbered] == [
            (finding.update - update, "abc".index(finding.subject)) for _, _, finding in numbered
        ]
        found += [(f.update, f.subject, f.verdict, f.previous, f.reason) for _, _, f in numbered]
        update += len(one.code)
    return found


def by_hand(rows: Sequence[str]) -> list[tuple[int, str, str, str | None, str | None]]:
    found = list[tuple[int, str, str, str | None, str | None]]()
    for k in range(len(rows[0])):
        last, reasons = None, set[str]()
        for i, row in enumerate(rows):
            word = {"x": "not_applicable", "d": "no_data", "o": "ok", "i": "info", "w": "warning", "c": "critical"}.get(
                row[k]
            )
            if row[k] in "xd":
                reason = REASONS[REASON_OF[row[k]]]
                if reason not in reasons:
                    found.append((i, "abc"[k], str(word), last, reason))
                reasons.add(reason)
            elif word is not None:
                if word != (last or "ok"):
                    found.append((i, "abc"[k], word, last, None))
                last = word
    return sorted(found)


@pytest.mark.parametrize("seed", range(25))
def test_each_change_of_verdict_is_announced_once_however_updates_are_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, row = list[str](), "-oo"
    for _ in range(30):
        row = "".join(one if rng.random() < 0.7 else str(rng.choice(list("xdoiwc"))) for one in row)
        rows.append(row)
    expected = by_hand(rows)
    for cuts in ((0, 30), range(31), (0, *sorted(rng.choice(29, 5, replace=False) + 1), 30)):
        parts = [judgement(*rows[a:b]) for a, b in pairwise(cuts)]
        assert sorted(announced(Announcer(), *parts)) == expected
    announcer = Announcer()
    before = announced(announcer, judgement(*rows[:13]))
    later = Announcer()
    later.load_state_dict(json.loads(json.dumps(announcer.state_dict())))
    assert sorted([*before, *announced(later, judgement(*rows[13:]), first=13)]) == expected


def test_a_new_reason_for_the_same_verdict_is_a_finding_and_a_quiet_one_is_none() -> None:
    judged = judgement("xx", "xx", "xx", reasons=[[3, 4], [3, 4], [4, 3]], quiet=[4])
    expected = [(0, "a", "not_applicable", None, "masked"), (2, "b", "not_applicable", None, "masked")]
    assert announced(Announcer(), judged) == expected
    rows = [judgement("xx", reasons=[row], quiet=[4]) for row in ([3, 4], [3, 4], [4, 3])]
    assert announced(Announcer(), *rows) == expected
    loud = judgement("xx", "xx", "xx", reasons=[[3, 4], [3, 4], [4, 3]])
    assert sorted(announced(Announcer(), loud)) == sorted(
        [
            *expected,
            (0, "b", "not_applicable", None, "young"),
            (2, "a", "not_applicable", None, "young"),
        ]
    )


def test_the_same_verdict_for_another_reason_is_no_finding() -> None:
    """A critical number that becomes non-finite is critical still."""
    assert announced(Announcer(), judgement("c", "c", reasons=[[0], [1]])) == [(0, "a", "critical", None, None)]
    assert announced(Announcer(), judgement("c", "o", "c", reasons=[[0], [0], [1]])) == [
        (0, "a", "critical", None, None),
        (1, "a", "ok", "critical", None),
        (2, "a", "critical", "ok", NONFINITE),
    ]


def test_reasons_by_another_number_are_the_same_reasons() -> None:
    announcer = Announcer()
    assert len(announced(announcer, judgement("d", reasons=[[2]]))) == 1
    other = judgement("d", reasons=[[1]])
    other.reasons = ("", "missing")
    assert announced(announcer, other) == []
    other.reasons = ("", "missing too")
    assert announced(announcer, other) == [(0, "a", "no_data", None, "missing too")]


def test_hysteresis_says_what_stands_and_the_value_is_that_of_the_update() -> None:
    judged = judgement("w", "o", "o")
    judged.after_hysteresis = np.array([[CODES["w"]], [CODES["w"]], [CODES["o"]]], np.int8)
    found = [finding for _, _, finding in Announcer().findings("kl_spike", np.arange(3), ("a",), judged)]
    assert [(one.update, one.verdict, one.value) for one in found] == [(0, "warning", 0.0), (2, "ok", 2.0)]
    assert [(one.threshold, one.baseline) for one in found] == [(0.5, 0.25), (None, 2.25)]


def test_what_was_not_judged_has_no_value_and_what_is_not_finite_has_it() -> None:
    judged = judgement("d", "c", "o", reasons=[[2], [1], [0]])
    judged.value = np.array([[5.0], [math.nan], [math.nan]])
    found = [finding for _, _, finding in Announcer().findings("kl_spike", np.arange(3), ("a",), judged)]
    assert [repr(one.value) for one in found] == ["None", "nan", "None"]
    assert [repr(known_value(judged, i, 0)) for i in range(3)] == ["5.0", "nan", "None"]


def test_no_updates_are_no_findings_and_forget_nothing() -> None:
    announcer = Announcer()
    assert announced(announcer, judgement("w")) != []
    nothing = judgement("o")
    nothing.code, nothing.reason = nothing.code[:0], nothing.reason[:0]
    assert announced(announcer, nothing) == []
    assert announced(announcer, judgement("w"), first=1) == []


def test_what_was_announced_before_a_state_was_loaded_is_forgotten() -> None:
    announcer, fresh = Announcer(), Announcer().state_dict()
    first = announced(announcer, judgement("wd"))
    assert len(first) == 2
    assert announced(announcer, judgement("wd")) == []
    announcer.load_state_dict(fresh)  # type: ignore[arg-type]
    assert announced(announcer, judgement("wd")) == first


@pytest.mark.parametrize("verdict", [one for one in Verdict if one is not Verdict.ABSENT])
def test_a_finding_as_a_row_is_itself(verdict: Verdict) -> None:
    one = Finding(7, "kl_spike", "run", "kl_k3", verdict.word, None, 1.0, None, None, "why")
    assert Finding(**one.as_row()) == one  # type: ignore[arg-type]
    assert one.key == ("kl_spike", "run", "kl_k3")


def test_a_finding_is_in_effect_until_the_next_verdict_on_its_key() -> None:
    words = [(0, "a", "ok"), (3, "a", "warning"), (4, "a", "no_data"), (4, "b", "critical"), (6, "a", "ok")]
    findings = [
        Finding(update, "kl_spike", subject, "kl_k3", verdict, None, None, None, None, None)
        for update, subject, verdict in words
    ]

    def shown(first: int, last: int) -> list[tuple[int, str, str]]:
        return [(one.update, one.subject, one.verdict) for one in in_effect(findings, first, last)]

    assert shown(0, 2) == [(0, "a", "ok")]
    assert shown(4, 5) == [(3, "a", "warning"), (4, "a", "no_data"), (4, "b", "critical")]
    assert shown(5, 5) == [(3, "a", "warning"), (4, "b", "critical")]  # what lacks data clears no alarm
    assert shown(6, 9) == [(4, "b", "critical"), (6, "a", "ok")]
    assert shown(0, 9) == words
