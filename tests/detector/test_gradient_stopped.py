"""Rule ``gradient_stopped`` on several groups at once: what one loses that the others keep."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from esper_analyze.detector.detector import Detector
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.verdict import Verdict
from tests.detector.batches import batch, frame, run_cut, said

RULE = next(rule for rule in RULES if rule.name == "gradient_stopped")
LETTERS = {Verdict.OK: "o", Verdict.NOT_APPLICABLE: "n", Verdict.WARNING: "w", Verdict.CRITICAL: "c"}
GROUPS = ("shared", "critic", "head:op", "all")
Course = Sequence[Sequence[float | int | None]]


def verdicts(
    metric: str, *, ratio: Course | None = None, without: Course | None = None, norm: float = 1.0
) -> list[str]:
    """Return each update's verdicts on ``metric`` in the order of the groups, by their first letters."""
    n = len(ratio or without or ())
    columns = {
        "tensors": [[4] * 4] * n,
        "tensors_without_grad": without or [[0] * 4] * n,
        "grad_norm": [[norm] * 4] * n,
        "update_ratio": ratio or [[None] * 4] * n,
        "parameters_changed": [[False] * 4] * n,
    }
    whole = batch({"groups": frame("groups", columns, GROUPS)})
    outcome = Detector(rules=[RULE]).process(whole)
    live, deferring = (run_cut(Detector(rules=[RULE], defer=later), whole, range(n)) for later in (False, True))
    assert said(live) == said([outcome])
    assert said(deferring)["findings"] == said([outcome])["findings"]
    (judged,) = outcome.judged
    (judgement,) = [one for one in judged.judgements if one.metric == metric]
    return ["".join(LETTERS[Verdict(code)] for code in row) for row in judgement.code.tolist()]


MOVES, STILL = [0.1] * 4, [0.1, 0.0, 0.1, 0.1]


def test_a_group_that_no_longer_moves_is_a_warning_from_the_second_update() -> None:
    course = [*[MOVES] * 4, *[STILL] * 4, MOVES]
    assert verdicts("update_ratio", ratio=course) == [*["oooo"] * 5, *["owoo"] * 3, "oooo"]


@pytest.mark.parametrize(
    ("course", "norm"),
    [
        ([STILL] * 9, 1.0),  # it never moved: held back on purpose
        ([*[MOVES] * 4, *[[0.0] * 4] * 5], 1.0),  # nothing moves: the step was skipped
        ([*[MOVES] * 4, *[STILL] * 5], 0.0),  # it has no gradient
        ([*[MOVES] * 4, STILL, MOVES, STILL], 1.0),
    ],
)
def test_a_group_that_stands_still_for_a_reason_is_none(course: Course, norm: float) -> None:
    assert set(verdicts("update_ratio", ratio=course, norm=norm)) == {"oooo"}


def test_without_a_measurement_nothing_is_said_of_movement() -> None:
    assert verdicts("update_ratio", ratio=[MOVES, [None] * 4]) == ["oooo", "nnnn"]


def test_more_tensors_without_a_gradient_than_there_steadily_were_are_a_warning() -> None:
    before, after = [2, 0, 0, 2], [3, 0, 0, 3]
    course = [*[before] * 11, *[after] * 30, before]
    assert verdicts("tensors_without_grad", without=course) == [*["oono"] * 11, *["wonw"] * 30, "oono"]
    varying = [[i % 3, 0, 0, i % 3] for i in range(30)]
    assert set(verdicts("tensors_without_grad", without=varying)) == {"oono"}


def test_tensors_of_heads_are_left_out() -> None:
    course = [*[[0, 0, 0, 0]] * 11, [0, 0, 2, 2], [1, 0, 2, 3], [3, 0, 2, 5]]
    rows = verdicts("tensors_without_grad", without=course)
    assert rows[11:] == ["oono", "oonw", "wonc"]
