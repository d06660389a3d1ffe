from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esper_analyze.detector.rules.value_collapse import ValueCollapseLimits
from esper_analyze.replay.evidence import Evidence, gather
from esper_analyze.reports.render.figure import MOST_POINTS, drawn
from esper_analyze.reports.render.section import Section
from esper_analyze.reports.section_list import SECTIONS
from esper_analyze.reports.sections import (
    drift,
    escalation,
    heads,
    layers,
    lstm,
    policy,
    ranks,
    returns,
    slots,
    tensors,
    transitions,
    value,
)
from esper_analyze.runs.run import open_run
from tests.present import present
from tests.reports.synthetic import Rows, write_run

NAN = float("nan")
ELSEWHERE = (layers.SECTION, ranks.SECTION, slots.SECTION, tensors.SECTION, transitions.SECTION)
"""Questions about what the sound run does not hold; each has a file of tests of its own."""
SOUND = [section for section in SECTIONS if section not in ELSEWHERE]
NAMES = [section.name for section in SOUND]


def bare(update: int, rows: Rows) -> None:
    """Leave only what is required: nothing was measured."""
    rows["updates"] = [{"update": update, "status": "performed", "level": "NORMAL"}]
    for table in ("heads", "groups", "lstm", "episodes"):
        rows[table] = []


def all_nan(_update: int, rows: Rows) -> None:
    """Every number measured, and every one of them NaN."""
    for cells in rows.values():
        for row in cells:
            row |= {name: NAN for name, cell in row.items() if isinstance(cell, float)}


def all_zero(_update: int, rows: Rows) -> None:
    """Every number measured, and zero."""
    for cells in rows.values():
        for row in cells:
            row |= {name: 0.0 for name, cell in row.items() if isinstance(cell, float)}


def made(path: Path, edit: Any, updates: int = 6) -> Evidence:
    return gather(open_run(write_run(path, updates, edit)))


@pytest.mark.parametrize("section", SOUND, ids=NAMES)
def test_every_question_is_answered_on_a_sound_run(section: Section, healthy: Evidence) -> None:
    data = section.frame(healthy)
    assert data is not None, "give tests/reports/synthetic.py the columns, or name the section in ELSEWHERE"
    picture = drawn(section, data)
    assert picture.png.startswith(b"\x89PNG")
    assert picture.svg.startswith("<svg viewBox=")
    assert section.words(data)


@pytest.mark.parametrize("section", SOUND, ids=NAMES)
@pytest.mark.parametrize("edit", [bare, all_nan, all_zero])
def test_nothing_measured_all_nan_and_all_zero_can_be_answered(section: Section, edit: Any, tmp_path: Path) -> None:
    evidence = made(tmp_path / "run", edit)
    data = section.frame(evidence)
    assert (data is None) == (edit is bare and section.name != "timeline")
    if data is not None:
        drawn(section, data)
        assert all("nan" not in sentence for sentence in section.words(data))


@pytest.mark.parametrize("section", SOUND, ids=NAMES)
def test_an_empty_run_and_a_run_of_one_update_can_be_answered(section: Section, tmp_path: Path) -> None:
    assert section.frame(made(tmp_path / "none", None, updates=0)) is None
    drawn(section, section.frame(made(tmp_path / "one", None, updates=1)))


def test_policy_says_where_the_largest_values_were_and_what_was_infinite(troubled: Evidence) -> None:
    said = policy.words(present(policy.frame(troubled)))
    assert "KL (k3) was largest at update 20: 0.7." in said
    assert "The joint ratio was largest at update 23: 83." in said
    assert "The joint ratio was NaN or infinite at 1 update, first at 30." in said


def test_the_bound_on_explained_variance_is_the_rules_own(healthy: Evidence) -> None:
    bound = present(present(value.frame(healthy)).bound)
    limits = healthy.replay.thresholds["value_collapse"]
    assert isinstance(limits, ValueCollapseLimits)
    assert bound.value[[0, 18, 19, 48, 49, 59]].tolist() == [
        *(limits.warmup, limits.warmup, limits.early, limits.early, limits.mid, limits.mid)
    ]


def test_undefined_explained_variance_is_counted_not_called_zero(troubled: Evidence) -> None:
    data = present(value.frame(troubled))
    assert data.columns["explained_variance"].null.sum() == 3
    assert any("3 updates" in sentence for sentence in value.words(data))


def test_the_drift_baseline_is_the_one_the_detector_used(healthy: Evidence) -> None:
    group = present(drift.frame(healthy)).groups[0]
    judged = group.drift.finite
    assert not judged[:10].any()
    assert judged[10:].all()
    recomputed = np.abs(group.value.value - group.baseline.value) / (group.baseline.value + 1e-8)
    assert np.allclose(recomputed[judged], group.drift.value[judged], rtol=1e-4)


def test_a_group_that_drifted_comes_first(tmp_path: Path) -> None:
    def leap(update: int, rows: Rows) -> None:
        if update >= 30:
            rows["groups"][1]["grad_norm"] = 50.0

    data = present(drift.frame(made(tmp_path / "run", leap, updates=40)))
    assert data.groups[0].name == "critic"
    assert drift.words(data)[0].startswith("critic drifted once, first at update 32")


def test_every_state_of_a_head_has_its_sentence(troubled: Evidence) -> None:
    said = {head.name: head.sentence for head in present(heads.frame(troubled))}
    assert said["slot"] == (
        "slot: gradient 0.000 (0 % learnable): unexplained zero or missing gradient at update 40: it is cut off from "
        "the loss, or its policy has become deterministic"
    )
    assert said["op"].endswith("(70 % learnable): its entropy collapsed while it had a choice, update 47 to the end")


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ({}, "slot: gradient 0.000 (0 % learnable): masked, expected"),
        (
            {"grad_norm": 0.016, "learnable_fraction": 0.7, "zero_explained": "not_zero"},
            "slot: gradient 0.016 (70 % learnable): learning",
        ),
        (
            {"grad_norm": None, "grad_state": "missing", "zero_explained": "unexplained"},
            "slot: gradient missing (0 % learnable): unexplained zero or missing gradient at 4 updates, "
            "first 0: it is cut off from the loss",
        ),
        (
            {"grad_norm": NAN, "grad_state": "nonfinite", "zero_explained": "not_zero"},
            "slot: gradient NaN (0 % learnable): NaN or infinite gradient at 4 updates, first 0",
        ),
        (
            {"grad_norm": None, "grad_state": "frozen", "zero_explained": "frozen"},
            "slot: gradient not measured (0 % learnable): frozen, expected",
        ),
        (
            {"zero_explained": "irrelevant", "learnable_fraction": None},
            "slot: gradient 0.000: never relevant to the action taken, expected",
        ),
        (
            {"grad_norm": None, "grad_state": None, "zero_explained": None, "learnable_fraction": None},
            "slot: gradient not measured: nothing to judge it by",
        ),
    ],
)
def test_head_sentences(cells: dict[str, object], sentence: str, tmp_path: Path) -> None:
    def edit(_update: int, rows: Rows) -> None:
        rows["heads"][0] |= cells

    found = present(heads.frame(made(tmp_path / "run", edit, updates=4)))
    assert {head.name: head.sentence for head in found}["slot"] == sentence


def test_the_timeline_has_levels_triggers_and_lanes(troubled: Evidence) -> None:
    data = present(escalation.frame(troubled))
    assert data.triggers[0][:2] == (20, "kl_spike")
    assert data.update[0] == 0
    assert data.update[-1] == 59
    assert next(iter(data.lanes)) == "kl_spike"


def test_the_state_of_an_lstm_that_is_nan_is_said(tmp_path: Path) -> None:
    def broken(update: int, rows: Rows) -> None:
        if update == 3:
            rows["lstm"][1]["c_env_rms_max"] = NAN

    said = lstm.words(present(lstm.frame(made(tmp_path / "run", broken))))
    assert "In phase update the state was NaN or infinite at 1 update, first at 3." in said


def test_updates_without_an_episode_are_gaps(tmp_path: Path) -> None:
    def rare(update: int, rows: Rows) -> None:
        if update % 2:
            rows["episodes"] = []

    data = present(returns.frame(made(tmp_path / "run", rare)))
    assert data.mean.update.tolist() == [0, 2, 4]
    assert data.episodes == 12


def test_a_figure_of_very_many_points_is_a_picture_inside_its_svg(tmp_path: Path) -> None:
    def crowd(_update: int, rows: Rows) -> None:
        head = rows["heads"][1]
        rows["heads"] = [{**head, "head": f"head {k}"} for k in range(8)]

    data = present(heads.frame(made(tmp_path / "run", crowd, updates=500)))
    few, many = drawn(heads.SECTION, data[:2]), drawn(heads.SECTION, data * 6)
    assert few.points <= MOST_POINTS
    assert "<image" not in few.svg
    assert ("<image" in many.svg) == (many.points > MOST_POINTS)


def test_what_was_found_in_update_0_raises_the_level_from_update_1(tmp_path: Path) -> None:
    def at_once(update: int, rows: Rows) -> None:
        if update == 0:
            rows["updates"][0]["kl_k3"] = 2.0

    data = present(escalation.frame(made(tmp_path / "run", at_once, updates=20)))
    assert data.triggers == ((0, "kl_spike", "run"),)
    (rise,) = data.rises
    assert (rise.start, rise.until, rise.finding, rise.verdict) == (1, 10, 0, "critical")
    assert rise.detail["sampled_steps"] == 10 * 32
