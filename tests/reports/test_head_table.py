from pathlib import Path

import numpy as np
import pytest

from esper_analyze.detector.rules import RULES
from esper_analyze.replay.evidence import Evidence, gather
from esper_analyze.reports.render.sparkline import sparkline
from esper_analyze.reports.render.style import VERDICTS
from esper_analyze.reports.sections import head_table, heads
from esper_analyze.reports.sections.head_state import SIGNS, state_of
from esper_analyze.runs.run import open_run
from esper_analyze.runs.series import Series
from tests.present import present
from tests.reports.synthetic import Rows, write_run

NAN = float("nan")
UNMEASURED = dict.fromkeys(("grad_norm", "grad_state", "zero_explained", "learnable_fraction"))
LEARNING = {"grad_norm": 0.02, "entropy_norm": 0.6, "learnable_fraction": 1.0, "zero_explained": "not_zero"}


@pytest.mark.parametrize(
    ("cells", "sign", "verdict"),
    [
        (LEARNING, "● ok", "ok"),
        (LEARNING | {"learnable_fraction": 0.7}, "◐ partly masked", "ok"),
        ({}, "◇ no choice", "not_applicable"),
        ({"zero_explained": "irrelevant"}, "◇ irrelevant", "not_applicable"),
        ({"zero_explained": "frozen", "grad_state": "frozen", "grad_norm": None}, "○ frozen", "not_applicable"),
        ({"zero_explained": "unexplained", "learnable_fraction": 0.5}, "○ dead", "critical"),
        (LEARNING | {"grad_norm": NAN, "grad_state": "nonfinite"}, "▲ exploding", "critical"),
        (UNMEASURED, "– not measured", "no_data"),
    ],
)
def test_the_state_of_a_head_has_one_sign(cells: dict[str, object], sign: str, verdict: str, tmp_path: Path) -> None:
    def edit(_update: int, rows: Rows) -> None:
        rows["heads"][0] |= cells

    data = present(heads.frame(gather(open_run(write_run(tmp_path / "run", 4, edit)))))
    state = next(state_of(head) for head in data if head.name == "slot")
    assert (str(state), state.verdict) == (sign, verdict)


def test_a_head_whose_gradients_explode_or_vanish_says_so(tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        rows["groups"].append(rows["groups"][2] | {"group": "head:slot"})
        if update >= 30:
            rows["groups"][2] |= {"grad_norm": 1e6}
            rows["groups"][3] |= {"grad_norm": 1e-12, "vanishing_severity": 1.0, "has_vanishing": True}
            rows["heads"][0] |= LEARNING

    data = present(heads.frame(gather(open_run(write_run(tmp_path / "run", 50, edit)))))
    signs = {head.name: state_of(head).sign for head in data}
    assert signs == {"op": "▲", "slot": "▼"}


def test_a_collapsed_head_is_deterministic_in_the_colour_of_its_verdict(troubled: Evidence) -> None:
    state = next(state_of(head) for head in present(heads.frame(troubled)) if head.name == "op")
    assert (state.sign, state.word) == ("◇", "deterministic")
    assert state.verdict in ("warning", "critical")


def test_every_zero_is_counted_with_its_explanation(troubled: Evidence) -> None:
    listed = {row["head"]: row for row in head_table.listed(present(heads.frame(troubled))).records()}
    assert listed["slot"]["zero_gradients"] == "59 updates masked, expected; 1 update unexplained"
    assert listed["op"]["zero_gradients"] == "never zero"


def test_every_sign_that_a_head_can_have_is_explained() -> None:
    from esper_analyze.reports.sections import signs

    made = [signs._NONFINITE, signs._UNEXPLAINED, signs._REMOVED, signs._PARTLY, signs._OK]
    made += [*signs._EXPLAINED.values()]
    made += [rule.sign for rule in RULES if rule.sign is not None and rule.table in ("heads", "groups")]
    assert {state.sign for state in made} == {sign for sign, *_ in SIGNS}


def test_signs_have_the_colours_of_verdicts() -> None:
    assert {verdict for _, _, verdict, _ in SIGNS} - {""} <= VERDICTS.keys()
    assert len({(sign, word) for sign, word, *_ in SIGNS}) == len(SIGNS)


def test_a_sparkline_is_named_and_marks_what_was_not_finite() -> None:
    value = np.array([1.0, 2.0, NAN, NAN, 4.0])
    line = present(sparkline(Series(np.arange(5), value, np.array([False, False, False, True, False]))))
    assert line.words == "from 1 to 4, least 1, greatest 4, 1 NaN or infinite"
    assert len(line.crosses) == 1
    assert [len(piece) for piece in line.pieces] == [2, 1]


def test_a_sparkline_of_nothing_is_a_dash() -> None:
    empty = Series(np.arange(3), np.full(3, NAN), np.ones(3, bool))
    assert sparkline(empty) is None
