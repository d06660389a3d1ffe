from pathlib import Path
from typing import Any

import pytest

from esper_analyze.errors import UsageError
from esper_analyze.replay.evidence import Evidence, gather
from esper_analyze.reports.render.figure import drawn
from esper_analyze.reports.sections import tensors, transitions
from esper_analyze.runs.run import open_run
from tests.present import present
from tests.reports.synthetic import Rows, write_run

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"


@pytest.fixture(scope="module")
def mismatch() -> Evidence:
    return gather(open_run(SAMPLES / "mask_mismatch"))


def sample(update: int, head: str, place: int, ratio: float | None, **cells: object) -> dict[str, object]:
    row = {"update": update, "head": head, "place": place, "bad": 3, "nonfinite": 0, "minibatch": 4, "epoch": 1}
    return row | {"log_ratio": ratio, "joint_log_ratio": ratio, "advantage": 0.5} | cells


def made(path: Path, edit: Any, updates: int = 6) -> Evidence:
    return gather(open_run(write_run(path, updates, edit)))


def of_transitions(evidence: Evidence, update: int | None = None) -> transitions.TransitionFrame:
    return present(transitions.frame(evidence, update))


def of_tensors(evidence: Evidence) -> tensors.TensorFrame:
    return present(tensors.frame(evidence))


def test_the_worst_update_is_shown_and_what_its_samples_share_is_said(mismatch: Evidence) -> None:
    data = of_transitions(mismatch)
    said = transitions.words(data)
    assert said[0] == (
        "A ratio exploded or collapsed in 11 updates; this is update 30, the worst: there 521 samples of the inner "
        "loop went beyond the bounds."
    )
    assert "of the 100 worst all are of action 0." in said[-1]
    drawn(transitions.SECTION, data)


def test_samples_of_the_first_minibatch_mean_that_rollout_and_update_disagree(mismatch: Evidence) -> None:
    assert any("in the very first minibatch, before any step" in s for s in transitions.words(of_transitions(mismatch)))
    later = gather(open_run(SAMPLES / "one_update_collapse"))
    assert not any("very first minibatch" in s for s in transitions.words(of_transitions(later)))


def test_another_update_can_be_asked_for(mismatch: Evidence) -> None:
    data = of_transitions(mismatch, 40)
    assert data.update == 40
    assert "this is update 40: there 17 samples" in transitions.words(data)[0]
    assert {row[0] for row in transitions.rows(data).cells} == {40}


def test_an_update_without_transitions_is_refused_with_those_there_are(mismatch: Evidence) -> None:
    with pytest.raises(UsageError, match="update 3 has no transitions") as refused:
        of_transitions(mismatch, 3)
    assert refused.value.hint == "there are some of update 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40"


def test_the_page_lists_each_transition_once_with_how_often_it_was_among_the_worst(mismatch: Evidence) -> None:
    listed = transitions.listed(of_transitions(mismatch)).narrow
    joint = [row for row in listed.cells if row[0] == "(joint)"]
    assert len({row[1:3] for row in joint}) == len(joint) == 8
    assert joint[0][-1] == 4


def test_the_update_with_something_non_finite_is_the_worst(tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        bad = {"nonfinite": 1} if update == 2 else {}
        rows["transitions"] = [sample(update, "", 0, float("nan") if update == 2 else float(update), **bad)]

    data = of_transitions(made(tmp_path / "run", edit))
    assert data.update == 2
    assert "3 samples of the inner loop went beyond the bounds, 1 of them NaN or infinite" in transitions.words(data)[0]
    assert "the worst is log r NaN" in transitions.words(data)[1]
    drawn(transitions.SECTION, data)


def test_a_head_called_like_the_joint_action_stays_apart(tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        rows["transitions"] = [sample(update, "", 0, 3.0), sample(update, "(joint)", 0, 2.0)]

    assert len(of_transitions(made(tmp_path / "run", edit, 2)).heads) == 2


def test_samples_without_place_or_advantage_are_told_as_they_are(tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        bare = {"advantage": None, "epoch": None, "minibatch": None, "bad": None, "nonfinite": None}
        rows["transitions"] = [sample(update, "", place, 3.0, **bare) for place in range(3)]

    data = of_transitions(made(tmp_path / "run", edit, 2))
    assert "(place not given)" in transitions.words(data)[1]
    assert len(transitions.listed(data).cells) == 3
    drawn(transitions.SECTION, data)


def test_the_tensors_that_broke_are_named() -> None:
    data = of_tensors(gather(open_run(SAMPLES / "nan_reward")))
    said = tensors.words(data)
    assert said[0] == "Taken at update 25 because a value was not finite; 1 report in total."
    assert said[1].startswith("NaN or infinite weights: all 12 (mlp_extractor.policy_net.0.weight,")
    assert "A loss was not finite: the gradient came from there." in said
    assert len(tensors.listed(data).cells) == 12
    drawn(tensors.SECTION, data)


def test_one_broken_tensor_among_many_is_drawn_and_the_report_of_the_break_is_chosen(tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        cause = "nonfinite" if update == 3 else "asked"
        rows["tensors"] = [
            {
                "update": update,
                "tensor": f"t{k}",
                "cause": cause,
                "elements": 4,
                "weight_nonfinite": False,
                "weight_abs_max": 1.0,
                "grad_nonfinite": update == 3 and k == 77,
                "grad_abs_max": float("inf") if update == 3 and k == 77 else 0.1,
                "loss_finite": True,
            }
            for k in range(100)
        ]

    data = of_tensors(made(tmp_path / "run", edit))
    assert data.update == 3
    assert "NaN or infinite gradients: 1 of 100 tensors (t77)." in tensors.words(data)
    assert [row[0] for row in tensors.listed(data).cells] == ["t77"]
    assert "t77" in drawn(tensors.SECTION, data).svg


def test_a_report_that_found_nothing_says_what_it_looked_at(tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        rows["tensors"] = (
            [{"update": update, "tensor": "w", "cause": "asked", "weight_nonfinite": False}] if update == 1 else []
        )

    data = of_tensors(made(tmp_path / "run", edit, 3))
    assert tensors.words(data)[:2] == [
        "Taken at update 1 on request; 1 report in total.",
        "Nothing was NaN or infinite in weights of 1 and gradients of 0 of 1 tensor.",
    ]
    assert tensors.SECTION.listing(data) is None
    drawn(tensors.SECTION, data)
