"""What is shown fits its width, breaks no word, and keeps missing, broken and zero apart."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from esper_analyze.reports.sections.signs import head_state
from esper_analyze.reports.sections.slot_history import read_locations
from esper_analyze.runs.run import open_run
from esper_analyze.watch.follow import Follower
from esper_analyze.watch.panels import lasting, printed, sections
from esper_analyze.watch.snapshot import Snapshot, snapshot
from esper_analyze.watch.sparkline import BARS, curve, sparkline
from tests.reports.synthetic import Rows, write_run
from tests.watch.growing import GrowingRun

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"
LONG = "a_head_with_a_name_that_is_much_longer_than_any_column"


def shot_of(path: Path) -> Snapshot:
    seen = Follower(path)
    seen.poll()
    return snapshot(seen)


def lines_of(path: Path, width: int) -> list[Text]:
    return printed(sections(shot_of(path), width), width)


def text_of(path: Path, width: int) -> str:
    return "\n".join(line.plain for line in lines_of(path, width))


def many_heads(update: int, rows: Rows) -> None:
    op = rows["heads"][1]
    rows["heads"] = [{**op, "head": f"{LONG}_{k}" if k % 9 == 0 else f"h{k}"} for k in range(64)]
    rows["heads"][5] |= {"grad_norm": math.nan, "grad_state": "nonfinite"} if update > 30 else {}
    for head in rows["heads"][10:30]:
        head["entropy_norm"] = 0.01 if update > 10 else 0.7
    rows["updates"][0]["episode_return_mean"] = 10.0


def nothing(_: int, rows: Rows) -> None:
    rows["updates"] = [{name: rows["updates"][0][name] for name in ("update", "status", "level")}]
    rows |= {"heads": [], "groups": [], "lstm": [], "episodes": []}


@pytest.fixture(scope="module")
def odd_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("odd")
    return {
        "many heads": write_run(folder / "heads", 40, many_heads),
        "nothing measured": write_run(folder / "nulls", 10, nothing),
        "no update": write_run(folder / "empty", 0),
    }


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_no_line_is_wider_than_the_screen(width: int, odd_runs: dict[str, Path]) -> None:
    for path in [*odd_runs.values(), *sorted(place for place in SAMPLES.iterdir() if place.is_dir())]:
        lines = lines_of(path, width)
        assert max(line.cell_len for line in lines) <= max(width, 60)


def test_a_narrow_screen_has_the_words_of_a_wide_one(odd_runs: dict[str, Path]) -> None:
    for path in [*odd_runs.values(), SAMPLES / "nan_reward", SAMPLES / "lstm_masks"]:
        known = set(re.findall(r"\w+", text_of(path, 400)))
        words = [word for word in text_of(path, 80).split() if word.isalpha()]
        assert [word for word in words if word not in known] == []


def test_a_run_without_measurements_is_not_called_healthy(odd_runs: dict[str, Path]) -> None:
    said = text_of(odd_runs["nothing measured"], 80)
    assert re.search(r"\b\d+ of \d+ rules could judge: ", said)
    assert "no head was recorded" in said
    assert "● ok" not in said


def test_a_run_without_updates_says_so(odd_runs: dict[str, Path]) -> None:
    assert "no complete update" in text_of(odd_runs["no update"], 80)


def test_incidents_of_one_rule_and_one_cause_stand_together(odd_runs: dict[str, Path]) -> None:
    assert "A head collapsed on h10, h11, h12, h13, h14 and 15 more" in " ".join(
        text_of(odd_runs["many heads"], 80).split()
    )


def test_troubled_heads_come_first(odd_runs: dict[str, Path]) -> None:
    lines = text_of(odd_runs["many heads"], 80).splitlines()
    rows = lines[next(place for place, line in enumerate(lines) if line.startswith("64 heads")) + 2 :]
    assert rows[0].startswith("h5 ")
    assert "▲ exploding" in rows[0]
    assert "◇ deterministic" in rows[1]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("masked_healthy", ["no open incidents", "◐ partly masked"]),
        ("nan_reward", ["CRASHED", "died: ValueError", "interrupted", "▲ exploding", "CRITICAL"]),
        ("lstm_masks", ["◇ no choice", "recurrent state", "gates at their ends"]),
        ("recurrent_healthy", ["● ok", "recurrent state"]),
        ("one_update_collapse", ["↳ Gradients vanished", "↳ A head collapsed on op, slot"]),
    ],
)
def test_a_sample_shows_what_it_is_there_for(name: str, words: list[str]) -> None:
    said = " ".join(text_of(SAMPLES / name, 80).split())
    assert [word for word in words if word not in said] == []


def test_no_letter_of_a_run_s_own_words_reaches_the_terminal_as_a_command(tmp_path: Path) -> None:
    def nasty(_: int, rows: Rows) -> None:
        rows["heads"][1]["head"] = "\x1b[2Jop[bold]\u202e"

    path = write_run(tmp_path / "run", 3, nasty, facts={"name": "\x1b]0;x\x07run", "framework": "[red]f"})
    said = text_of(path, 80)
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
    assert "[red]f" in said


ROW = {"grad_norm": 0.1, "grad_state": "finite", "zero_explained": "not_zero", "learnable_fraction": 1.0}


@pytest.mark.parametrize(
    ("cells", "rules", "word"),
    [
        ({}, [], "ok"),
        ({"learnable_fraction": None}, [], "ok"),
        ({"learnable_fraction": 0.5}, [], "partly masked"),
        ({"grad_norm": 0.0, "zero_explained": "masked", "learnable_fraction": 0.0}, [], "no choice"),
        ({"grad_norm": 0.0, "zero_explained": "unexplained"}, [], "dead"),
        ({"grad_norm": None, "grad_state": "missing", "zero_explained": "unexplained"}, [], "dead"),
        ({"grad_norm": None, "grad_state": None, "zero_explained": None}, [], "not measured"),
        ({"grad_norm": None, "grad_state": "frozen", "zero_explained": "frozen"}, [], "frozen"),
        ({"grad_norm": math.nan, "grad_state": "nonfinite"}, ["gradient_vanishing"], "exploding"),
        ({}, ["gradient_explosion", "head_entropy_collapse"], "exploding"),
        ({}, ["gradient_vanishing", "head_entropy_collapse"], "deterministic"),
        ({}, ["gradient_vanishing"], "vanishing"),
    ],
)
def test_a_head_s_state_follows_from_what_was_measured_and_judged(
    cells: dict[str, object], rules: list[str], word: str
) -> None:
    assert head_state({**ROW, **cells}, dict.fromkeys(rules, "warning")).word == word


def test_a_run_in_which_no_head_has_a_choice_says_that_there_is_nothing_to_learn() -> None:
    told = "no head has a choice"
    assert told in text_of(SAMPLES / "growing_waits", 80)
    assert told not in text_of(SAMPLES / "lstm_masks", 80)


def test_a_number_beyond_reason_is_short(tmp_path: Path) -> None:
    def huge(_: int, rows: Rows) -> None:
        rows["heads"][0] |= {"learnable_fraction": 1e300, "grad_norm": 1e300, "zero_explained": "not_zero"}

    assert "1e+302 %" in text_of(write_run(tmp_path / "run", 3, huge), 120)


def test_a_damaged_run_is_not_said_to_have_lost_nothing(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", 6)
    assert "no data lost" in text_of(path, 80)
    shard = next(path.rglob("heads-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    said = text_of(path, 80)
    assert ("no data lost" in said, "1 damaged file left out" in said) == (False, True)


def test_missing_broken_and_zero_are_three_signs() -> None:
    assert sparkline([None, math.nan, 0.0, 1.0], 4).plain == "·×0█"


NUMBERS = st.one_of(st.none(), st.floats(min_value=0.0))


@given(st.lists(NUMBERS, max_size=200), st.integers(1, 40))
def test_a_line_of_bars_fits_and_loses_neither_peak_nor_nan(values: list[float | None], width: int) -> None:
    drawn = sparkline(values, width).plain
    known = [value for value in values if value is not None]
    assert len(drawn) <= width
    assert ("×" in drawn) == any(not math.isfinite(value) for value in known)
    if known and all(math.isfinite(value) for value in known) and max(known) > 0:
        assert BARS[-1] in drawn
    assert (set(drawn) == {"·"}) == (bool(values) and not known)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99, "99 s"), (150, "2.5 min"), (5400, "90 min"), (1e5, "28 h"), (1e6, "12 days")],
)
def test_durations_are_told_in_their_unit(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


def test_a_run_whose_updates_are_damaged_is_not_said_to_have_none(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", 5)
    for shard in path.rglob("updates-*.parquet"):
        shard.write_bytes(shard.read_bytes()[:-9])
    words = text_of(path, 100)
    assert "no update in what is left" in words
    assert "no complete update" not in words


def test_the_last_updates_of_five_metrics_are_drawn_with_their_last_values(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", 40)
    shot = shot_of(path)
    assert [title for title, _ in shot.curves] == ["return", "KL (k3)", "entropy", "EV", "clipped"]
    rows = Follower(path)
    rows.poll()
    last = rows.recent.rows("updates")[-1]
    lines = text_of(path, 100).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("the last 40 updates"))
    assert [line.split()[-1] for line in lines[start + 1 : start + 6]] == [
        f"{last[name]:.3g}"
        for name in ("episode_return_mean", "kl_k3", "entropy", "explained_variance", "clip_fraction")
    ]


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([-1.0, 0.0, 1.0], "▁▅█"),
        ([0.0, 0.0], "██"),
        ([5.0, None, math.nan], "█·×"),
        ([-3.0, -1.0], "▁█"),
        ([], ""),
    ],
)
def test_a_curve_goes_from_its_least_to_its_largest_value(values: list[float | None], drawn: str) -> None:
    assert curve(values, 10).plain == drawn


def test_a_running_training_says_how_far_it_is_and_what_is_left(tmp_path: Path) -> None:
    growing = GrowingRun(tmp_path / "run", planned=200)
    growing.add(50)
    shot = shot_of(growing.path)
    first, last = shot_clock(growing.path)
    assert shot.progress == pytest.approx(50 / 200)
    assert shot.left_s == pytest.approx((last - first) / 49 * 150)
    assert "25 %, about " in text_of(growing.path, 100)
    growing.store.close("closed")
    assert "25 %" not in text_of(growing.path, 100)


def shot_clock(path: Path) -> tuple[float, float]:
    seen = Follower(path)
    seen.poll()
    times = seen.recent.column("updates", "wall_time")
    return times[0], times[-1]


def test_nothing_is_said_of_what_is_left_without_a_plan(tmp_path: Path) -> None:
    def unplanned(_: int, rows: Rows) -> None:
        rows["updates"][0]["progress"] = None

    shot = shot_of(write_run(tmp_path / "run", 12, unplanned))
    assert (shot.progress, shot.left_s) == (None, None)


GROWING = ("growing_disconnected", "growing_exploding", "growing_healthy", "growing_waits")


@pytest.mark.parametrize("name", GROWING)
def test_a_slot_is_judged_as_the_command_slots_judges_it(name: str) -> None:
    wanted = {slot.name: slot for slot in read_locations(open_run(SAMPLES / name).connection())}
    shot = shot_of(SAMPLES / name)
    assert {slot.name for slot in shot.slots} == {slot.name for slot in wanted.values() if slot.seeded}
    assert shot.empty_slots == sum(not slot.seeded for slot in wanted.values())
    for slot in shot.slots:
        judged = wanted[slot.name]
        assert (slot.gate, slot.update, slot.ratio, slot.health, slot.stage, slot.blueprint) == (
            *(judged.gate, judged.update, judged.ratio),
            *(judged.health, judged.stage, judged.blueprint),
        )


def test_the_worst_slots_come_first_and_a_printed_list_says_what_it_leaves_out() -> None:
    path = SAMPLES / "growing_exploding"
    lines = text_of(path, 100).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("16 slots, 14 of 16 seed modules pass"))
    gates = [line[13:27].strip() for line in lines[start + 2 : start + 10]]
    assert gates == ["▲ exploding"] * 2 + ["● passes"] * 6
    assert "slot_gradient_explosion" in lines[start + 2]
    assert lines[start + 10].startswith(f"8 more: esper-analyze slots {path}"[:60])


def test_a_slot_with_a_critical_incident_comes_before_one_that_only_the_gate_stops(tmp_path: Path) -> None:
    measured = {"env": 0, "tensors": 4, "should_train": True, "tensors_nonfinite": 0, "health": 0.1}

    def slots(update: int, rows: Rows) -> None:
        ratios = {"a": 0.5, "b": 0.5, "c": math.nan}
        rows["slots"] = [
            {**measured, "stage": "\x1b[2J", "update": update, "place": name, "slot": name, "normalized_ratio": ratio}
            | ({"exploding_severity": 0.9, "health": 1.0} if name == "b" else {})
            for name, ratio in ratios.items()
        ]
        rows["slots"].append({"update": update, "place": "d", "env": 0, "slot": "d"})

    path = write_run(tmp_path / "run", 40, slots)
    shot = shot_of(path)
    alarms = {slot.name: slot.alarm for slot in shot.slots}
    assert [slot.name for slot in shot.slots][-1] == "a"
    assert (alarms["a"], alarms["b"]) == (None, "slot_gradient_explosion")
    assert {slot.name: slot.gate.word for slot in shot.slots} == {"a": "low health", "b": "exploding", "c": "NaN"}
    assert shot.empty_slots == 1
    assert "\x1b" not in text_of(path, 80)


def test_losses_that_are_not_listed_are_counted_with_the_command_that_lists_them(tmp_path: Path) -> None:
    def lose(update: int, rows: Rows) -> None:
        rows["losses_of_data"] = [{"update": update, "kind": "dropped", "detail": "disk full", "rows": 3}]

    path = write_run(tmp_path / "run", 5, lose)
    said = " ".join(text_of(path, 200).split())
    assert f"2 more: esper-analyze sql {path} 'from losses_of_data'" in said
    assert "more:" not in text_of(write_run(tmp_path / "other", 3, lose), 200)


def test_subjects_that_are_not_named_have_a_command_that_names_them(odd_runs: dict[str, Path]) -> None:
    path = odd_runs["many heads"]
    assert f"every subject: esper-analyze timeline {path}" in text_of(path, 200)
    assert "every subject" not in text_of(SAMPLES / "lstm_masks", 200)
