"""Databases, tables and files of trackers of experiments, of RLlib, TRL, verl and ML-Agents, and monitor files."""

from __future__ import annotations

import json
import math
import sqlite3
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.sources import find_logs, read_source
from tests.interchange.logs import STEPS, cleanrl_rows, sb3_rows, write_csv

Points = list[tuple[str, int, float]]


def points(updates: int) -> Points:
    return [(name, step, cell) for step, row in cleanrl_rows(updates) for name, cell in row.items()]


def value_losses(imported: object) -> list[object]:
    assert isinstance(imported, Imported), imported
    return [row["value_loss"] for row in imported.rows["updates"]]


def database(path: Path, script: str, query: str, rows: list[tuple[object, ...]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.executemany(query, rows)
    connection.commit()
    connection.close()
    return path


def mlflow_database(path: Path) -> Path:
    script = """create table runs (run_uuid text, name text);
        insert into runs values ('u1', 'calm'), ('u2', '../up');
        create table metrics (key text, value real, timestamp integer, run_uuid text, step integer, is_nan boolean)"""
    rows: list[tuple[object, ...]] = [
        (name, cell, 1_700_000_000_000 + step, run, step, 0)
        for run, updates in (("u1", 4), ("u2", 6))
        for name, step, cell in points(updates)
    ]
    rows.append(("losses/value_loss", 0.0, 1_700_000_000_999, "u2", 7 * STEPS, 1))
    return database(path, script, "insert into metrics values (?, ?, ?, ?, ?, ?)", rows)


def test_mlflow_s_database_gives_its_runs_and_is_not_changed(tmp_path: Path) -> None:
    file = mlflow_database(tmp_path / "mlflow.db")
    before = file.read_bytes()
    runs = dict(find_logs(file).read())
    assert list(runs) == ["calm", "_up"]
    assert value_losses(runs["calm"]) == [0.5, 1.5, 2.5, 3.5]
    assert math.isnan(float(str(value_losses(runs["_up"])[-1])))
    assert (file.read_bytes(), [path.name for path in tmp_path.iterdir()]) == (before, ["mlflow.db"])


def test_mlflow_s_folder_of_a_run_is_read_by_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "mlruns" / "0" / "abc"
    for name, step, cell in points(4):
        file = folder / "metrics" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as lines:
            lines.write(f"{1_700_000_000_000 + step} {cell} {step}\n")
    (folder / "meta.yaml").write_text("run_id: abc\n")
    with (folder / "metrics" / "losses" / "approx_kl").open("a") as lines:
        lines.write("cut")
    imported = read_source(tmp_path)
    assert value_losses(imported) == [0.5, 1.5, 2.5, 3.5]
    assert imported.rows["updates"][0]["wall_time"] == 1.7e9 + STEPS / 1e3
    assert [row["rows"] for row in imported.losses.rows()] == [1]


@pytest.mark.parametrize("project", ["", "project_name text,"])
def test_trackio_s_database_gives_its_runs(tmp_path: Path, project: str) -> None:
    script = f"create table metrics (id integer primary key, timestamp text, {project} run_name text, step integer, "
    rows: list[tuple[object, ...]] = [
        (f"2026-01-01T00:{step:02}:00", *(["p"] if project else []), run, step, json.dumps(row))
        for run, updates in (("one", 4), ("two", 6))
        for step, (_, row) in enumerate(cleanrl_rows(updates))
    ]
    rows.append(("soon", *(["p"] if project else []), "one", 99, "{"))
    columns = "timestamp, project_name, run_name, step, metrics" if project else "timestamp, run_name, step, metrics"
    query = f"insert into metrics ({columns}) values ({', '.join('?' * len(rows[0]))})"
    file = database(tmp_path / "trackio.db", f"{script}metrics text)", query, rows)
    runs = dict(find_logs(file).read())
    assert [len(value_losses(run)) for run in runs.values()] == [4, 6]
    assert value_losses(runs["one"]) == [0.5, 1.5, 2.5, 3.5]


@pytest.mark.parametrize("kind", ["cut", "other tables", "no database"])
def test_a_database_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "x.db"
    if kind == "cut":
        content = mlflow_database(file).read_bytes()
        file.write_bytes(content[: len(content) // 2])
    elif kind == "other tables":
        database(file, "create table metrics (name text)", "insert into metrics values (?)", [("a",)])
    else:
        file.write_text("hello")
    with pytest.raises((UsageError, DamagedError)):
        read_source(file)


@pytest.mark.parametrize("kind", ["neptune", "aim"])
def test_long_tables_give_their_runs(tmp_path: Path, kind: str) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    rows: list[dict[str, Any]] = []
    for run, updates in (("R-1", 4), ("R-2", 6)):
        for name, step, cell in points(updates):
            if kind == "neptune":
                row = {"run_id": run, "attribute_path": name, "attribute_type": "float_series", "timestamp": moment}
                rows.append({**row, "step": Decimal(step), "float_value": cell})
            else:
                rows.append({"run.hash": run, "metric.name": name, "metric.context": "{}", "step": step, "value": cell})
    if kind == "neptune":
        rows.append({**rows[0], "attribute_path": "sys/owner", "step": None, "float_value": None})
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    else:
        write_csv(tmp_path / "x.csv", rows)
    runs = dict(find_logs(tmp_path).read())
    assert [name.rsplit("/", 1)[-1] for name in runs] == ["R-1", "R-2"]
    assert [value_losses(run)[:3] for run in runs.values()] == [[0.5, 1.5, 2.5]] * 2


def rllib(updates: int) -> list[dict[str, Any]]:
    learner = {"policy_loss": 0.1, "vf_loss": 1.0, "kl": 0.01, "entropy": 1.0}
    return [
        {
            "training_iteration": number + 1,
            "timesteps_total": 4000 * (number + 1),
            "episode_reward_mean": float(number),
            "info": {"learner": {"default_policy": {"learner_stats": {**learner, "vf_loss": float(number)}}}},
            "config": {"lr": 0.1},
            "hist_stats": {"episode_reward": [1, 2]},
        }
        for number in range(updates)
    ]


def flattened(row: dict[str, Any], before: str = "") -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, cell in row.items():
        cells |= flattened(cell, f"{before}{name}/") if isinstance(cell, dict) else {before + name: cell}
    return cells


def test_rllib_s_result_and_progress_are_one_run(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rllib(5)))
    assert value_losses(read_source(tmp_path / "result.json")) == [0.0, 1.0, 2.0, 3.0, 4.0]
    write_csv(tmp_path / "progress.csv", [flattened(row) for row in rllib(5)])
    imported = read_source(tmp_path)
    assert value_losses(imported) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [row["env_steps"] for row in imported.rows["updates"]] == [4000 * number for number in range(1, 6)]
    assert not any("config/lr" in name for name in read_source(tmp_path / "result.json").left_out)


def test_a_restart_that_is_logged_into_the_same_file_is_an_attempt(tmp_path: Path) -> None:
    restarted = rllib(8)[4:]
    for row in restarted:
        row["info"]["learner"]["default_policy"]["learner_stats"]["vf_loss"] = 9.0
    rows = [flattened(row) for row in (*rllib(6), *restarted)]
    imported = read_source(write_csv(tmp_path / "progress.csv", rows))
    assert value_losses(imported) == [0.0, 1.0, 2.0, 3.0, 9.0, 9.0, 9.0, 9.0]
    ((first, replaced),) = [(attempt.first, attempt.superseded["updates"]) for attempt in imported.attempts]
    assert (first, [row["value_loss"] for row in replaced]) == (4, [4.0, 5.0])


def test_trainings_logged_one_after_the_other_into_one_file_are_two_runs(tmp_path: Path) -> None:
    rows = [flattened(row) for row in (*rllib(6), *rllib(4))]
    runs = dict(find_logs(write_csv(tmp_path / "progress.csv", rows)).read())
    assert {name: len(value_losses(run)) for name, run in runs.items()} == {"progress-1": 6, "progress-2": 4}


def test_verl_s_json_lines_have_their_names_without_what_is_around_them(tmp_path: Path) -> None:
    rows = [{"step": step, "data": {"actor/ppo_kl": 0.1 * step, "actor/pg_clipfrac": 0.0}} for step in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    imported = read_source(tmp_path)
    assert imported.facts["framework"] == "verl"
    assert len(imported.rows["updates"]) == 3


def test_timers_of_ml_agents_are_refused_with_where_the_course_is(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "run" / "run_logs"
    folder.mkdir(parents=True)
    gauge = {"value": 1.0, "min": 0.0, "max": 2.0, "count": 9}
    (folder / "timers.json").write_text(json.dumps({"name": "root", "gauges": {"Ball.Policy.Entropy.mean": gauge}}))
    for source in (folder / "timers.json", tmp_path):
        with pytest.raises(UsageError, match="of Ball the last, least and greatest value") as refused:
            read_source(source)
        assert "event files" in refused.value.hint


@pytest.mark.parametrize("content", ["[1, 2]", '{"a": 1}', "{", "", "[" * 100_000])
def test_json_that_is_no_log_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "trainer_state.json").write_text(content)
    with pytest.raises((UsageError, DamagedError)):
        read_source(tmp_path / "trainer_state.json")


def monitor(path: Path, lengths: list[int]) -> None:
    rows = "".join(f"{10.0 * number},{length},{number}\n" for number, length in enumerate(lengths))
    path.write_text(f'#{{"t_start": 1.0, "env_id": "CartPole-v1"}}\nr,l,t\n{rows}')


def test_monitor_files_give_the_episodes_of_the_log_beside_them(tmp_path: Path) -> None:
    write_csv(tmp_path / "progress.csv", [row for _, row in sb3_rows(6)])  # 64 steps an update, of two environments
    monitor(tmp_path / "0.monitor.csv", [30, 30, 40])
    monitor(tmp_path / "1.monitor.csv", [32, 33, 20])
    episodes = read_source(tmp_path).rows["episodes"]
    ended = [(row["update"], row["env"], row["length"]) for row in episodes]
    assert ended == [(0, 0, 30), (0, 1, 32), (1, 0, 30), (2, 1, 33), (2, 1, 20), (3, 0, 40)]


def test_monitor_files_of_another_training_are_not_used(tmp_path: Path) -> None:
    write_csv(tmp_path / "progress.csv", [row for _, row in sb3_rows(6)])
    monitor(tmp_path / "monitor.csv", [90_000] * 9)
    imported = read_source(tmp_path)
    assert "episodes" not in imported.rows
    assert "not used" in imported.remarks[0]


def test_a_monitor_file_alone_has_no_update(tmp_path: Path) -> None:
    monitor(tmp_path / "monitor.csv", [30, 30])
    for source in (tmp_path, tmp_path / "monitor.csv"):
        with pytest.raises(UsageError, match="holds 2 episodes and no update") as refused:
            read_source(source)
        assert "progress.csv" in refused.value.hint


def test_a_header_in_the_middle_is_a_new_header_and_counted(tmp_path: Path) -> None:
    rows = [row for _, row in sb3_rows(6)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(str(row.get(name, "")) for name in names) for row in rows]
    wider = [f"{line},0.5" for line in lines[3:]]
    text = [",".join(names), *lines[:2], ",".join(names), lines[2], ",".join([*names, "train/entropy_loss"]), *wider]
    (tmp_path / "progress.csv").write_text("\n".join(text) + "\n")
    imported = read_source(tmp_path)
    assert [row["total_loss"] for row in imported.rows["updates"]] == [10.0, 11.0, 12.0, 13.0, 14.0]
    assert [row.get("entropy_loss") for row in imported.rows["updates"]] == [None, None, 0.5, 0.5, 0.5]
    (loss,) = [row for row in imported.losses.rows() if row["kind"] == "repeated_header"]
    assert str(loss["detail"]).startswith("2 × header again in the middle of progress.csv")
