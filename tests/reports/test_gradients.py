"""Tests of the questions about clipping and direction, and of the gates and outliers of an LSTM."""

from pathlib import Path
from typing import Any

from esper_analyze.replay.evidence import gather
from esper_analyze.reports.render.figure import drawn
from esper_analyze.reports.sections import clipping, direction, losses, lstm, policy
from esper_analyze.runs.run import open_run
from tests.reports.synthetic import Rows, write_run

NAN = float("nan")


def made(question: Any, path: Path, edit: Any, updates: int = 6) -> Any:
    return question.frame(gather(open_run(write_run(path, updates, edit))))


def test_clipping_says_how_much_and_to_what(tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        row = rows["updates"][0]
        row["grad_norm_pre_clip_max"] = 40.0 if update == 2 else 1.0

    assert clipping.words(made(clipping, tmp_path / "run", edit)) == [
        "On average 90% of the optimizer steps were clipped, to a norm of 0.5; on average 40% of its length is left.",
        "The largest norm before clipping was 40, at update 2.",
    ]


def test_a_loop_without_a_clip_call_is_told_as_one(tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        gone = ("max_grad_norm", "clip_active_fraction", "clip_scale_mean", "grad_norm_post_clip")
        rows["updates"][0] |= dict.fromkeys(gone)
        rows["updates"][0]["grad_norm_pre_clip"] = NAN if update == 4 else 1.0

    data = made(clipping, tmp_path / "run", edit)
    said = clipping.words(data)
    assert said[0] == "No clip call was recorded: the norms are those that the optimizer received."
    assert said[-1] == "It was NaN or infinite at 1 update, first at 4: clipping does not repair that."
    drawn(clipping.SECTION, data)


def test_direction_takes_the_whole_model_first_and_says_what_is_usual(tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        rows["groups"].append({**rows["groups"][0], "group": "all", "cosine_previous_update": -0.9})
        for row in rows["groups"]:
            row["cosine_actor_critic"] = -0.5 if update < 2 else 0.5

    data = made(direction, tmp_path / "run", edit)
    assert list(data.columns["noise_scale"]) == ["all", "actor", "critic"]
    said = " ".join(direction.words(data))
    assert "the cosine is usually -0.90 (all), 0.30 (actor), 0.30 (critic)." in said
    assert "Actor and critic pulled apart on all in 2 of 6 sampled updates." in said
    drawn(direction.SECTION, data)


def test_what_was_not_measured_apart_says_how_to(tmp_path: Path) -> None:
    data = made(direction, tmp_path / "run", None)
    assert any("separate_backward=True" in sentence for sentence in direction.words(data))


def test_losses_that_were_not_handed_over_have_no_panel(tmp_path: Path) -> None:
    def edit(_update: int, rows: Rows) -> None:
        rows["updates"][0] |= {"total_loss": None, "entropy_loss": None}

    data = made(losses, tmp_path / "run", edit)
    assert len(losses.layout(data).heights) == 2
    assert losses.words(data) == ["Every loss handed over was finite."]


def test_an_environment_that_stands_out_is_told_with_its_update(tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        if update == 3:
            rows["lstm"][0] |= {"c_env_rms_mean": 0.5, "c_env_rms_max": 4.0}

    said = lstm.words(made(lstm, tmp_path / "run", edit))
    assert any(
        s.startswith("In phase rollout one environment's cell state was 8 times the mean one's at update 3")
        for s in said
    )
    assert not any("phase update" in sentence for sentence in said)


def test_gates_that_nobody_looked_at_are_not_called_unsaturated(tmp_path: Path) -> None:
    def edit(_update: int, rows: Rows) -> None:
        for row in rows["lstm"]:
            row.update(dict.fromkeys(("forget_saturation", "input_saturation", "output_saturation")))

    data = made(lstm, tmp_path / "run", edit)
    assert len(lstm.layout(data).heights) == 4
    assert lstm.words(data)[-1].startswith("Gates were not looked at")
    assert all("saturation" not in str(row[1]) or row[1] == "h_saturation" for row in lstm.rows(data).cells)
    drawn(lstm.SECTION, data)


def test_gates_are_taken_from_the_phase_that_looked_at_them(tmp_path: Path) -> None:
    def edit(_update: int, rows: Rows) -> None:
        rows["lstm"][0] |= dict.fromkeys(("forget_saturation", "input_saturation", "output_saturation"))
        rows["lstm"][1] |= {"forget_saturation": 0.4, "input_saturation": 0.0, "output_saturation": NAN}

    said = lstm.words(made(lstm, tmp_path / "run", edit))
    assert said[-1] == "Saturated share of the gates, usually: forget 40%, at most 40%; input 0%, at most 0%."


def test_an_inner_loop_that_says_nothing_is_told_before_its_numbers(tmp_path: Path) -> None:
    def edit(_update: int, rows: Rows) -> None:
        rows["updates"][0] |= {"inner_loop_measurable": False, "ess_fraction": 0.25}

    said = policy.words(made(policy, tmp_path / "run", edit))
    assert said[0].startswith("In 6 updates no minibatch came after an optimizer step")
    assert "Fewest samples counted at update 0: 25% of them." in said
