from pathlib import Path

from esper_analyze.replay.evidence import Evidence, gather
from esper_analyze.reports.narrative import onset, story
from esper_analyze.runs.run import open_run
from tests.reports.synthetic import Rows, write_run

NAN = float("nan")


def told(path: Path, edit: object, updates: int = 60) -> tuple[Evidence, onset.OnsetContext]:
    evidence = gather(open_run(write_run(path, updates, edit)))  # type: ignore[arg-type]
    lead = story.frame(evidence).lead
    assert lead is not None
    return evidence, onset.frame(evidence.run, lead)


def spiked(update: int, rows: Rows) -> None:
    if update == 40:
        rows["updates"][0] |= {"kl_k3": 2.0}


def test_a_setting_that_changed_with_the_trouble_is_named(tmp_path: Path) -> None:
    def changed(update: int, rows: Rows) -> None:
        spiked(update, rows)
        rows["updates"][0]["learning_rate"] = 0.3 if update == 40 else 1e-3

    evidence, began = told(tmp_path / "run", changed)
    assert "learning_rate went from 0.001 to 0.3 at update 40, and back to 0.001 in the next." in began.sentences[0]
    assert story.frame(evidence).after[0].words == "Find what set learning_rate to 0.3 at update 40."


def test_a_schedule_is_no_change(tmp_path: Path) -> None:
    assert told(tmp_path / "run", spiked)[1].settings == ()


def test_what_left_its_range_before_the_trouble_is_named_with_that_range(tmp_path: Path) -> None:
    def ahead(update: int, rows: Rows) -> None:
        spiked(update, rows)
        if update >= 38:
            rows["updates"][0]["advantage_std"] = 40.0

    (one,) = told(tmp_path / "run", ahead)[1].departures
    assert one.sentence == "advantage_std 40 at update 38 (1 before)"


def test_when_nothing_left_its_range_that_is_said(tmp_path: Path) -> None:
    began = told(tmp_path / "run", spiked)[1]
    assert began.sentences == ["In the 5 updates before it, no recorded number left its usual range."]
    assert began.usual is not None
    assert began.usual[1] < 0.05


def test_where_nan_came_in_is_told_in_the_order_of_an_update(tmp_path: Path) -> None:
    def broken(update: int, rows: Rows) -> None:
        if update == 30:
            names = ("episode_return_mean", "return_mean", "advantage_mean", "value_loss")
            rows["updates"][0] |= dict.fromkeys(names, NAN) | {"nonfinite_sources": "value_loss: 1"}

    began = told(tmp_path / "run", broken)[1]
    assert began.broken == ("episode returns", "returns", "advantages", "value loss")
    assert "predicted values" in began.sound


def test_what_is_not_recorded_before_the_first_nan_is_named_and_not_called_finite(tmp_path: Path) -> None:
    def broken(update: int, rows: Rows) -> None:
        rows["updates"][0]["value_mean"] = None
        if update == 30:
            rows["updates"][0] |= {"return_mean": NAN, "nonfinite_sources": "returns: 1"}

    evidence, began = told(tmp_path / "run", broken)
    assert began.unrecorded == ("predicted values",)
    assert began.next_step == (
        "Check the returns of update 30; finite before them: episode returns. "
        "Check also what is not recorded: observations and single rewards, predicted values."
    )
    assert began.next_step in [point.words for point in story.frame(evidence).after]


def test_a_change_too_small_to_matter_is_no_cause_however_steady_the_number_was(tmp_path: Path) -> None:
    def ahead(update: int, rows: Rows) -> None:
        spiked(update, rows)
        rows["updates"][0]["advantage_std"] = 1.015 if update >= 38 else 1.0

    assert told(tmp_path / "run", ahead)[1].departures == ()


def test_what_went_first_is_searched_for_as_far_back_as_the_rule_looks(tmp_path: Path) -> None:
    def fell(update: int, rows: Rows) -> None:
        wave = 0.1 * (update % 2)
        rows["updates"][0]["episode_return_mean"] = 20.0 + wave if update < 80 else 3.0 + wave
        rows["updates"][0]["learning_rate"] = 1e-3 if update < 74 else 1e-2

    evidence = gather(open_run(write_run(tmp_path / "run", 110, fell)))
    lead = next(one for one in evidence.replay.incidents if one.rule == "performance_degradation")
    assert lead.start - 74 > onset.AHEAD
    reach = evidence.rules[lead.rule].reach
    assert [one.update for one in onset.frame(evidence.run, lead, reach).settings] == [74]
    assert "learning_rate went from 0.001 to 0.01 at update 74" in story.frame(evidence).paragraph


def test_a_learning_rate_of_0_is_told_as_that_and_not_as_an_overflow(tmp_path: Path) -> None:
    def still(_: int, rows: Rows) -> None:
        rows["updates"][0] |= {"learning_rate": 0.0, "kl_k3": 0.0}

    paragraph = story.frame(gather(open_run(write_run(tmp_path / "run", 20, still)))).paragraph
    assert "learning_rate was 0 in update 2: nothing can be learned." in paragraph
    assert "a learning rate of 0" in paragraph
    assert "overflow" not in paragraph


def test_a_trouble_in_the_first_update_has_no_past(tmp_path: Path) -> None:
    def at_once(update: int, rows: Rows) -> None:
        if update == 0:
            rows["updates"][0] |= {"kl_k3": 2.0}

    began = told(tmp_path / "run", at_once, 3)[1]
    assert (began.searched, began.usual, began.sentences) == (0, None, [])
