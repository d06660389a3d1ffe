"""A single question of several runs, or of some updates of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from esper_analyze.commands import run_options
from esper_analyze.replay.evidence import gather
from esper_analyze.reports.render.figure import DrawnData, _figure
from esper_analyze.reports.section_list import section_named
from esper_analyze.runs.run import open_run
from tests.commands.conftest import Command
from tests.commands.test_single_questions import ASKED
from tests.reports.synthetic import Rows, write_run

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"
BOTH = (SAMPLES / "lstm_masks", SAMPLES / "nan_reward")
COLLAPSE = SAMPLES / "one_update_collapse"


# ── several runs ─────────────────────────────────────────────────────────────────────────────────


def test_each_run_is_answered_under_its_name(command: Command) -> None:
    said = command("heads", *BOTH)
    assert (said.code, said.err) == (0, "")
    parts = [f"{run.name}\n{'═' * len(run.name)}\n{command('heads', run).out}" for run in BOTH]
    assert said.out == "\n".join(parts)


@pytest.mark.parametrize("name", ASKED)
def test_csv_has_a_first_column_run_and_json_is_a_list(name: str, command: Command) -> None:
    run = SAMPLES / ASKED[name]
    other = SAMPLES / "two_ranks" if name != "transitions" else COLLAPSE
    other = SAMPLES / "growing_waits" if name == "slots" else other
    listed = json.loads(command(name, run, other, "--json").out)
    assert listed == [{"run": one.name, **json.loads(command(name, one, "--json").out)} for one in (run, other)]
    rows = list(csv.reader(io.StringIO(command(name, run, other, "--format", "csv").out)))
    alone = [list(csv.reader(io.StringIO(command(name, one, "--format", "csv").out))) for one in (run, other)]
    assert rows == [
        ["run", *alone[0][0]],
        *([one.name, *row] for one, of in zip((run, other), alone, strict=True) for row in of[1:]),
    ]


def test_a_pattern_or_a_folder_of_one_run_is_answered_as_several_are(command: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "only", 3)
    for path in (tmp_path / "runs", f"{tmp_path}/runs/on*"):
        assert [one["run"] for one in json.loads(command("heads", path, "--json").out)] == ["only"]
        assert command("heads", path).out.startswith("only\n════\n")
    assert command("heads", tmp_path / "runs" / "only", "--json").out.startswith("{")


def test_a_run_without_the_data_is_named_and_the_others_are_answered(command: Command) -> None:
    said = command("lstm", *BOTH, "--format", "csv")
    assert said.code == 0
    assert {row["run"] for row in csv.DictReader(io.StringIO(said.out))} == {"lstm_masks"}
    assert "nan_reward cannot answer this: No recurrent state was recorded" in said.err
    assert said.err.count("\n") == 1


def test_when_no_run_has_the_data_that_is_wrong_use(command: Command, tmp_path: Path) -> None:
    said = command("slots", *BOTH, "--out", tmp_path / "slots.csv")
    assert (said.code, said.out) == (2, "")
    assert said.err.endswith("esper-analyze: none of these 2 runs can answer this\n")
    assert not (tmp_path / "slots.csv").exists()
    said = command("heads", *BOTH, "--set", "nonsense.warning=1")
    assert (said.code, said.err.count("\n")) == (2, 1)


def test_one_run_with_a_finding_is_enough_to_fail(command: Command) -> None:
    sound, sick = SAMPLES / "mask_mismatch", COLLAPSE
    assert command("heads", sound, "--fail-on", "warning").code == 0
    for order in ((sound, sick), (sick, sound)):
        assert command("heads", *order, "--fail-on", "warning").code == 1


def test_damaged_runs_are_left_out_on_demand_and_never_all_of_them(command: Command, runs: Path) -> None:
    (runs / "healthy" / "run.json").write_text("{")
    assert command("heads", runs).code == 3
    said = command("heads", runs / "healthy", runs / "troubled", "--skip-broken", "--json")
    assert [one["run"] for one in json.loads(said.out)] == ["troubled"]
    assert "left out" in said.err
    (runs / "troubled" / "run.json").write_text("{")
    for name in ("heads", "plot", "sql"):
        more = {"plot": ("kl_k3",), "sql": ("select 1",)}.get(name, ())
        said = command(name, runs / "healthy", runs / "troubled", *more, "--skip-broken")
        assert (said.code, said.out) == (2, "")
        assert "none of these runs can be opened" in said.err


@pytest.mark.parametrize("form", ["png", "svg"])
def test_a_picture_of_several_runs_is_one_below_the_other(form: str, command: Command, tmp_path: Path) -> None:
    def size(*runs: Path) -> tuple[float, float]:
        out = tmp_path / f"drift.{form}"
        assert command("drift", *runs, "--out", out).code == 0
        if form == "png":
            with Image.open(out) as image:
                return image.size
        root = ElementTree.parse(out).getroot()
        texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
        assert all((run.name in texts) == (len(runs) > 1) for run in runs)
        return float(root.attrib["width"][:-2]), float(root.attrib["height"][:-2])

    (width, height), (wide, high), (_, tall) = size(*BOTH), size(BOTH[0]), size(BOTH[1])
    assert width == wide
    assert height > high + tall


def test_more_runs_than_a_png_can_hold_is_one_sentence(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esper_analyze.reports.render.figure._TALLEST_PNG", 1_000)
    said = command("heads", *BOTH, "--out", tmp_path / "heads.png")
    assert said.code == 2
    assert "a PNG of 2 runs would be too tall (give fewer runs, or write SVG)" in said.err
    assert command("heads", *BOTH, "--out", tmp_path / "heads.svg").code == 0


def test_opening_and_judging_show_how_far_they_are(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, int | None, int]] = []

    @contextmanager
    def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        yield lambda done: steps.append((what, total, done))

    monkeypatch.setattr(run_options, "progress", progress)
    command("lstm", *BOTH)
    assert steps[:2] == [("opening", 2, 1), ("opening", 2, 2)]
    assert {what for what, _, _ in steps[2:]} == {"judging 1 of 2", "judging 2 of 2"}


def test_a_name_of_a_run_does_not_steer_a_terminal(command: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "a\x1b[31m", 2)
    write_run(tmp_path / "b", 2)
    assert "\x1b" not in command("heads", tmp_path).out


# ── some updates ─────────────────────────────────────────────────────────────────────────────────


def test_numbers_are_of_the_updates_shown_and_the_first_sentence_says_so(command: Command) -> None:
    whole = json.loads(command("lstm", BOTH[0], "--json").out)
    part = json.loads(command("lstm", BOTH[0], "--from", 20, "--to", 29, "--json").out)
    assert "updates" not in whole
    assert part["updates"] == [20, 29]
    assert part["words"][0] == (
        "What follows is of updates 20 to 29 alone (the run has 0 to 119); rules judged the whole run."
    )
    assert all(20 <= row["most_at"] <= 29 for row in part["rows"])
    assert any(row["most_at"] > 29 for row in whole["rows"])
    last = json.loads(command("lstm", BOTH[0], "--last", 5, "--json").out)
    assert last["updates"] == [115, 119]
    for old, new in zip(whole["rows"], last["rows"], strict=True):
        assert old["last"] == new["last"]


@pytest.mark.parametrize("name", ASKED)
def test_every_question_is_answered_of_some_updates_in_every_form(name: str, command: Command, tmp_path: Path) -> None:
    run, window = SAMPLES / ASKED[name], ("--from", 22, "--to", 32)
    for form in ("json", "csv", "svg", "txt"):
        said = command(name, run, *window, "--out", tmp_path / f"answer.{form}")
        assert (said.code, said.err) == (0, "")
    assert "What follows is of updates 22 to " in (tmp_path / "answer.txt").read_text()
    all_updates = command(name, run, "--from", 0, "--json")
    assert json.loads(all_updates.out)["rows"] == json.loads(command(name, run, "--json").out)["rows"]


def test_the_timeline_shows_incidents_open_then_and_its_sentences_stay_of_the_whole_run(command: Command) -> None:
    whole = json.loads(command("timeline", COLLAPSE, "--json").out)
    part = json.loads(command("timeline", COLLAPSE, "--from", 41, "--to", 42, "--json").out)
    assert part["rows"] == [row for row in whole["rows"] if row["start"] <= 42 and row["end"] >= 41]
    assert 0 < len(part["rows"]) < len(whole["rows"])
    assert part["words"][1] == f"{len(part['rows'])} of {len(whole['rows'])} incidents in these updates."
    assert part["words"][2:] == [f"Whole run: {sentence}" for sentence in whole["words"]]
    sound = json.loads(command("timeline", SAMPLES / "masked_healthy", "--last", 3, "--json").out)["words"]
    assert sound[1].startswith("Whole run: No incident;")


def test_an_alarm_from_before_is_in_force_and_one_that_begins_later_is_not(command: Command, tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        rows["updates"][0]["episode_return_mean"] = 10.0
        if 20 <= update < 40:
            rows["heads"][1]["entropy_norm"] = 0.01

    run = write_run(tmp_path / "run", 60, edit)

    def state(*window: object) -> str:
        rows = json.loads(command("heads", run, *window, "--json").out)["rows"]
        return str(next(row["state"] for row in rows if row["head"] == "op"))

    assert state("--from", 30, "--to", 35) == "deterministic"
    assert state("--to", 10) == "partly masked"
    assert state() == "partly masked"
    fails = ("--fail-on", "warning")
    assert command("heads", run, "--from", 30, "--to", 35, *fails).code == 1
    assert command("heads", run, "--to", 10, *fails).code == 0
    assert command("heads", run, "--last", 5, *fails).code == 0


def test_a_group_that_drifted_earlier_and_has_not_come_back_is_drifted(command: Command) -> None:
    def critic(*window: object) -> dict[str, object]:
        rows = json.loads(command("drift", COLLAPSE, *window, "--json").out)["rows"]
        return next(row for row in rows if (row["group"], row["metric"]) == ("critic", "grad_norm"))

    during, after = critic("--from", 44, "--to", 45), critic("--last", 5)
    assert (during["state"], during["first_alarm"], during["most_at"]) == ("drifted", 42, 44)
    assert (after["state"], after["first_alarm"]) == ("steady", None)


def test_the_worst_transitions_are_those_of_the_updates_shown(command: Command) -> None:
    run = SAMPLES / "mask_mismatch"
    (update,) = {row["update"] for row in json.loads(command("transitions", run, "--json").out)["rows"]}
    part = json.loads(command("transitions", run, "--from", update + 1, "--json").out)
    assert min(row["update"] for row in part["rows"]) > update


@pytest.mark.parametrize("name", ["timeline", "heads", "layers"])
def test_a_figure_ends_where_the_updates_shown_end(name: str) -> None:
    evidence = gather(open_run(COLLAPSE)).between(42, 46)
    section = section_named(name)
    with _figure(section, DrawnData(section.frame(evidence), shown=(42, 46))) as figure:
        assert {axes.get_xlim() for axes in figure.axes} == {(41.5, 46.5)}


@pytest.mark.parametrize(
    ("window", "sentence"),
    [
        (("--last", 3, "--from", 2), "--last and --from cannot be combined"),
        (("--last", 3, "--to", 2), "--last and --to cannot be combined"),
        (("--from", 5, "--to", 2), "--from 5 is after --to 2"),
        (("--from", 500), "has none of these updates (it has 0 to 25)"),
        (("--last", 0), "'--last'"),
    ],
)
def test_a_window_that_makes_no_sense_is_one_sentence(
    window: tuple[object, ...], sentence: str, command: Command
) -> None:
    said = command("heads", SAMPLES / "nan_reward", *window)
    assert (said.code, said.out) == (2, "")
    assert sentence in said.err
    assert said.err.count("\n") == 1


def test_what_was_not_recorded_in_the_updates_shown_is_said_of_these(command: Command) -> None:
    said = command("transitions", SAMPLES / "mask_mismatch", "--to", 10)
    assert said.code == 2
    assert "mask_mismatch cannot answer this for updates 0 to 10: No ratio exploded" in said.err
