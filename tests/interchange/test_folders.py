"""Folders: which files are of one run, restarts, several runs, and what is told of damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from esper_analyze.errors import EsperError, UsageError
from esper_analyze.interchange.event_file import event_file
from esper_analyze.interchange.sources import find_logs, read_source
from esper_analyze.runs.run import open_run
from esper_analyze.storage.maintenance.verify import verify
from esper_analyze.storage.shard_file import seal
from tests.commands.conftest import Command
from tests.interchange.conftest import Taken
from tests.interchange.logs import STEPS, Cells, cleanrl_rows, sb3_rows, write_csv

Rows = list[tuple[int, Cells]]
HIDDEN = ("time/iterations", "time/total_timesteps", "train/n_updates")


def event_log(folder: Path, rows: Rows, *, wall: float = 1.7e9, process: int = 1) -> Path:
    """Write an event file as a process writes it that began at ``wall``; a step takes a second."""
    folder.mkdir(parents=True, exist_ok=True)
    events = [
        (step, wall + step, [(tag, cell) for tag, cell in row.items() if tag not in HIDDEN]) for step, row in rows
    ]
    file = folder / f"events.out.tfevents.{wall:.0f}.host.{process}.0"
    file.write_bytes(event_file(events, wall))
    return file


def names(folder: Path) -> list[str]:
    return [name for name, _ in find_logs(folder).read()]


def after(update: int, rows: Rows) -> Rows:
    return [row for row in rows if row[0] > update * STEPS]


def test_a_restart_stands_from_its_first_step_and_what_it_replaced_is_an_earlier_attempt(
    taken: Taken, tmp_path: Path
) -> None:
    rows = cleanrl_rows(12)
    event_log(tmp_path / "log", rows[:30])  # ten updates
    event_log(tmp_path / "log", after(6, rows), wall=1.8e9, process=2)
    run = taken(tmp_path / "log")
    stands = run.frame("updates", ["update", "env_steps", "wall_time"]).to_dicts()
    assert [row["update"] for row in stands] == list(range(12))
    assert [row["wall_time"] > 1.75e9 for row in stands] == [False] * 6 + [True] * 6
    everything = open_run(run.path, all_attempts=True).frame("updates")["update"].to_list()
    assert sorted(everything) == sorted([*range(10), *range(6, 12)])
    assert verify(run.path).damage == []
    assert "1 restart" in run.info["source"]["remarks"][0]


def test_a_restart_from_before_an_earlier_restart_replaces_both(taken: Taken, tmp_path: Path) -> None:
    rows = cleanrl_rows(12)
    event_log(tmp_path / "log", rows[:24])  # updates 0 to 7
    event_log(tmp_path / "log", after(6, rows)[:9], wall=1.8e9, process=2)  # 6 to 8
    event_log(tmp_path / "log", after(3, rows), wall=1.9e9, process=3)  # 3 to 11
    run = taken(tmp_path / "log")
    assert run.frame("updates")["update"].to_list() == list(range(12))
    everything = open_run(run.path, all_attempts=True).frame("updates")["update"].to_list()
    assert sorted(everything) == sorted([*range(8), *range(6, 9), *range(3, 12)])
    assert len(run.attempts) == 3


def test_a_file_that_goes_on_where_the_last_one_ended_is_no_restart(taken: Taken, tmp_path: Path) -> None:
    rows = cleanrl_rows(12)
    event_log(tmp_path / "log", rows[:18])
    event_log(tmp_path / "log", rows[18:], wall=1.8e9, process=2)
    run = taken(tmp_path / "log")
    assert (run.frame("updates").height, len(run.attempts)) == (12, 1)


@pytest.mark.parametrize("count", [2, 21, 43])
@pytest.mark.parametrize("apart", [1.0, 1e5], ids=["side by side", "one after the other"])
def test_trainings_that_start_over_in_one_folder_are_runs_of_their_own(
    tmp_path: Path, count: int, apart: float
) -> None:
    for number in range(count):
        event_log(tmp_path, cleanrl_rows(3 + number % 3), wall=1.7e9 + apart * number, process=number)
    runs = dict(find_logs(tmp_path).read())
    lengths = [len(run.rows["updates"]) for run in runs.values() if not isinstance(run, EsperError)]
    assert lengths == [3 + number % 3 for number in range(count)]
    with pytest.raises(UsageError, match=f"holds {count} runs"):
        read_source(tmp_path)


def test_two_writers_of_one_process_with_different_tags_are_one_run(tmp_path: Path) -> None:
    rows = cleanrl_rows(4)
    losses = [(step, row) for step, row in rows if "losses/value_loss" in row]
    event_log(tmp_path, losses)
    event_log(tmp_path, [row for row in rows if row not in losses], wall=1.7e9 + 2)
    assert len(read_source(tmp_path).rows["episodes"]) == 8
    assert names(tmp_path) == [""]


def test_files_that_log_different_things_side_by_side_are_not_put_together(tmp_path: Path) -> None:
    event_log(tmp_path, cleanrl_rows(4))
    event_log(tmp_path, sb3_rows(4), process=2)
    assert len(names(tmp_path)) == 2


def test_of_43_files_the_cut_ones_lose_only_their_ends_and_that_is_told(command: Command, tmp_path: Path) -> None:
    for number in range(43):
        file = event_log(tmp_path / "logs", cleanrl_rows(3), wall=1.7e9 + number, process=number)
        if number in (3, 9, 20):
            file.write_bytes(file.read_bytes()[:-30])
    said = command("import", tmp_path / "logs", "--out", tmp_path / "runs", "--json")
    facts = json.loads(said.out)
    assert (said.code, len(facts["runs"]), facts["failed"]) == (0, 43, [])
    cut = [run["updates"] for run in facts["runs"] if any(loss["kind"] == "cut_file" for loss in run["losses"])]
    assert cut == [2, 2, 2]
    assert said.err.count("incomplete event file") == 3


def test_event_file_and_csv_of_one_run_are_joined_once_and_it_is_told(taken: Taken, tmp_path: Path) -> None:
    rows: Rows = [
        (step, {**row, "rollout/success_rate": 0.5} if "time/fps" in row else row) for step, row in sb3_rows(6)
    ]
    event_log(tmp_path / "log", rows)
    write_csv(tmp_path / "log" / "progress.csv", [row for _, row in sb3_rows(6)])
    run = taken(tmp_path / "log")
    assert [row["total_loss"] for row in run.frame("updates").to_dicts()] == [10.0, 11.0, 12.0, 13.0, 14.0]
    (remark,) = run.info["source"]["remarks"]
    assert "time/iterations, time/total_timesteps from progress.csv alone" in remark
    assert "rollout/success_rate from the event file alone" in remark
    assert taken(tmp_path / "log", "sb3").frame("updates").height == 5
    assert taken(tmp_path / "log", "tensorboard").frame("updates").height == 5


def test_a_csv_that_was_cut_is_completed_from_the_event_file(taken: Taken, tmp_path: Path) -> None:
    event_log(tmp_path / "log", sb3_rows(8))
    write_csv(tmp_path / "log" / "progress.csv", [row for _, row in sb3_rows(6)])
    assert taken(tmp_path / "log").frame("updates").height == 7


def test_logs_that_disagree_beyond_float32_are_refused(tmp_path: Path) -> None:
    event_log(tmp_path, sb3_rows(6))
    rows = [dict(row) for _, row in sb3_rows(6)]
    rows[3]["train/approx_kl"] *= 1 + 1e-8
    write_csv(tmp_path / "progress.csv", rows)
    assert names(tmp_path) == [""]
    rows[3]["train/approx_kl"] *= 1.001
    write_csv(tmp_path / "progress.csv", rows)
    with pytest.raises(UsageError, match="two different logs: train/approx_kl differs") as refused:
        read_source(tmp_path)
    assert "--from" in refused.value.hint


def test_a_csv_among_event_files_of_several_runs_goes_to_the_one_it_agrees_with(tmp_path: Path) -> None:
    louder: Rows = [(step, {name: 2 * cell for name, cell in row.items()}) for step, row in sb3_rows(6)]
    event_log(tmp_path, louder)
    event_log(tmp_path, sb3_rows(6), process=2)
    write_csv(tmp_path / "progress.csv", [row for _, row in sb3_rows(6)])
    runs = dict(find_logs(tmp_path).read())
    remarks = {name: run.remarks for name, run in runs.items() if not isinstance(run, EsperError)}
    assert [bool(remark) for remark in remarks.values()] == [False, True]


def write_tree(top: Path) -> None:
    """Write four logs, of which one is empty, beside files that are none."""
    for name, updates in (("a", 5), ("b/deep", 7)):
        event_log(top / name, cleanrl_rows(updates))
    write_csv(top / "progress.csv", [row for _, row in sb3_rows(4)])
    (top / "empty").mkdir()
    (top / "empty" / "progress.csv").write_text("")
    (top / "evaluations.csv").write_text("score,level\n1,2\n")
    (top / "settings.json").write_text("{}")
    (top / "a" / "again").symlink_to(top)


def test_a_folder_of_runs_becomes_a_folder_of_runs_and_what_failed_is_named(command: Command, tmp_path: Path) -> None:
    write_tree(tmp_path / "logs")
    said = command("import", tmp_path / "logs", "--out", tmp_path / "runs")
    assert said.code == 2
    assert "not imported: empty" in said.err
    assert "no logs of a PPO training: evaluations.csv" in said.err
    assert said.out.splitlines()[-1].endswith("3 runs imported, 1 not")
    runs = {name: open_run(tmp_path / "runs" / name) for name in ("a", "b/deep", "progress")}
    assert [run.frame("updates").height for run in runs.values()] == [5, 7, 3]
    assert [run.info["name"] for run in runs.values()] == ["a", "deep", "progress"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "runs"]


def test_diagnose_of_a_folder_has_a_line_for_each_run_and_the_story_of_the_worst(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    write_tree(tmp_path / "logs")
    broken = cleanrl_rows(9)
    broken[-1][1]["losses/value_loss"] = float("nan")
    event_log(tmp_path / "logs" / "broken", broken)
    said = command("diagnose", tmp_path / "logs")
    lines = said.out.splitlines()
    assert (said.code, lines[2].split()[:3]) == (2, ["✗", "broken", "9"])
    assert "numerical_instability at update 8" in lines[2]
    assert said.out.count("No incident") >= 3
    assert any(line.startswith("broken: ") for line in lines)
    facts = json.loads(command("diagnose", tmp_path / "logs", "--json").out)
    assert facts["runs"][0]["name"] == "broken"
    assert {run["verdict"] for run in facts["runs"][1:]} == {"no_data"}
    assert [run["name"] for run in facts["failed"]] == ["empty"]
    assert command("diagnose", tmp_path / "logs", "--fail-on", "critical").code == 1
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("arguments", [["import", "--out", "runs"], ["diagnose"]])
def test_an_interrupt_leaves_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    scratch.mkdir()
    write_tree(work / "logs")
    monkeypatch.chdir(work)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    written: list[object] = []

    def interrupted(*args: object) -> object:
        written.append(args)
        if len(written) > 4:
            raise KeyboardInterrupt
        return seal(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("esper_analyze.interchange.write.seal", interrupted)
    first, *others = arguments
    assert command(first, "logs", *others).code not in (0, 2)
    assert list(scratch.iterdir()) == []
    assert [path.name for path in work.iterdir()] == ["logs"]


def test_of_checkpoints_the_last_one_has_the_whole_log(tmp_path: Path) -> None:
    for steps in (2, 10):
        folder = tmp_path / f"checkpoint-{steps}"
        folder.mkdir()
        history = [
            {"step": step, "kl": 0.1, "entropy": 1.0, "clip_ratio/region_mean": 0.1} for step in range(1, steps + 1)
        ]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    assert len(read_source(tmp_path).rows["updates"]) == 10


@pytest.mark.parametrize("kind", ["nothing", "texts", "event files without a scalar", "unreadable"])
def test_a_folder_without_a_log_is_refused_in_one_sentence(command: Command, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    if kind == "texts":
        (folder / "notes.txt").write_text("hello")
    elif kind == "event files without a scalar":
        event_log(folder, [])
    elif kind == "unreadable":
        (folder / "events.out.tfevents.1").symlink_to(folder / "gone")
    said = command("import", folder, "--out", tmp_path / "run")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "holds" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_from_takes_formats_and_frameworks_and_refuses_what_is_neither(command: Command, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "progress.csv", [row for _, row in sb3_rows(4)])
    for number, name in enumerate(("csv", "sb3", "stable-baselines3")):
        assert command("import", file, "--out", tmp_path / f"run{number}", "--from", name).code == 0
        assert command("diagnose", file, "--from", name).code == 0
    assert command("import", file, "--out", tmp_path / "run", "--from", "rllib").code == 2
    said = command("import", file, "--out", tmp_path / "run", "--from", "tensorbord")
    assert (said.code, "did you mean 'tensorboard'" in said.err) == (2, True)
    assert "--format" not in command("import", "--help").out


def trainer_rows(steps: int) -> Rows:
    """Return (step, row) of each log of a trainer of transformers, as its trainer_state.json has them."""
    return [
        (step, {"loss": 0.5 / step, "reward": 0.1 * step, "kl": 0.01, "grad_norm": 1.0, "frac_reward_zero_std": 0.0})
        for step in range(1, steps + 1)
    ]


def trainer_state(folder: Path, rows: Rows) -> None:
    folder.mkdir(parents=True)
    document = {"global_step": len(rows), "log_history": [{**row, "step": step} for step, row in rows]}
    (folder / "trainer_state.json").write_text(json.dumps(document))


@pytest.mark.parametrize("state", ["checkpoint-20", "."])
def test_checkpoints_and_event_files_of_a_trainer_are_one_run(taken: Taken, tmp_path: Path, state: str) -> None:
    rows = trainer_rows(28)
    out = tmp_path / "log"
    out.mkdir()
    event_log(
        out / "runs" / "Nov30_host", [(step, {f"train/{name}": x for name, x in row.items()}) for step, row in rows]
    )
    trainer_state(out / "checkpoint-10", rows[:10])
    trainer_state(out / "checkpoint-20", rows[:20])
    if state == ".":
        (out / "trainer_state.json").write_bytes((out / "checkpoint-20" / "trainer_state.json").read_bytes())
        assert len(names(out)) == 1
    updates = taken(out).frame("updates").to_dicts()
    assert [row["total_loss"] for row in updates] == pytest.approx([0.5 / step for step, _ in rows], rel=1e-6)
    assert updates[7]["total_loss"] == 0.5 / 8, "the rows' number, not that of single precision"
    assert updates[27]["wall_time"] == 1.7e9 + 28


def test_checkpoints_of_another_training_than_the_event_files_are_two_runs(tmp_path: Path) -> None:
    rows = trainer_rows(20)
    event_log(tmp_path / "runs" / "Nov30_host", [(step, {"train/loss": 3.0, "train/reward": 1.0}) for step, _ in rows])
    trainer_state(tmp_path / "checkpoint-20", rows)
    assert len(names(tmp_path)) == 2
