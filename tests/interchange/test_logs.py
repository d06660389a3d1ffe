"""Logs of other libraries: every number is of the update it was measured in, and what is not known is null."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.interchange.imported import Imported, Row
from esper_analyze.interchange.sb3_order import models
from esper_analyze.interchange.sources import find_logs, read_source
from esper_analyze.replay.replay import replay
from esper_analyze.storage.maintenance.verify import verify
from tests.interchange.conftest import Taken
from tests.interchange.logs import STEPS, cleanrl_rows, sb3_rows, trained, write_csv, write_events


def test_training_values_of_progress_csv_are_of_the_update_before_their_row(taken: Taken, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "progress.csv", [row for _, row in sb3_rows(6)])
    rows = taken(file).frame("updates").to_dicts()
    assert [row["update"] for row in rows] == [0, 1, 2, 3, 4]
    for row in rows:
        assert row["kl_k3_last_epoch"] == trained(row["update"])["train/approx_kl"]
        assert row["episode_return_mean"] == row["update"]
        assert row["env_steps"] == STEPS * (row["update"] + 1)
        assert row["kl_k3"] is None
        assert row["status"] == "performed"


def test_the_last_rollout_is_told_of_and_is_no_update(taken: Taken, tmp_path: Path) -> None:
    run = taken(write_csv(tmp_path / "progress.csv", [row for _, row in sb3_rows(6)]))
    assert run.frame("losses_of_data").filter(kind="unfinished_update")["detail"][0].endswith("update 5")
    assert verify(run.path).damage == []


@pytest.mark.parametrize("kind", ["sb3", "tensorboard"])
def test_what_an_evaluation_dumps_is_of_the_training_before_it(taken: Taken, tmp_path: Path, kind: str) -> None:
    logged = sb3_rows(6, evaluate=3)
    write_csv(tmp_path / "progress.csv", [row for _, row in logged])
    source = tmp_path / "progress.csv" if kind == "sb3" else write_events(tmp_path / "tb", logged)
    if kind == "tensorboard":  # it is named there by its steps alone
        assert logged[3][1].keys() >= {"eval/mean_reward", "train/loss"}
    rows = {row["update"]: row for row in taken(source, kind).frame("updates").to_dicts()}
    assert [rows[update]["total_loss"] for update in range(5)] == [10.0, 11.0, 12.0, 13.0, 14.0]


def test_a_log_interval_is_stated_and_loses_nothing(taken: Taken, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "progress.csv", [row for _, row in sb3_rows(9, interval=3)])
    run = taken(file)
    rows = {row["update"]: row for row in run.frame("updates").to_dicts()}
    assert {update: row["total_loss"] for update, row in rows.items()} == {1: 11.0, 2: None, 4: 14.0, 5: None, 7: 17.0}
    assert rows[2]["env_steps"] == 3 * STEPS
    assert run.info["logged_every"] == 3
    assert run.frame("losses_of_data").filter(kind="missing_updates")["rows"].to_list() == []
    logged = [row for _, row in sb3_rows(36, interval=3)]
    run = taken(write_csv(tmp_path / "progress.csv", logged[:4] + logged[5:]))
    assert run.info["logged_every"] == 3
    assert run.frame("losses_of_data").filter(kind="missing_updates")["rows"].to_list() == [1]


def test_a_log_interval_that_nothing_tells_of_is_said_in_run_json(taken: Taken, tmp_path: Path) -> None:
    run = taken(write_events(tmp_path / "tb", sb3_rows(9, interval=3)))
    rows = run.frame("updates").to_dicts()
    assert [(row["update"], row["total_loss"]) for row in rows] == [(0, 11.0), (1, 14.0), (2, 17.0)]
    assert "log_interval" in run.info["notes"]


def test_a_second_call_of_learn_goes_on_where_the_first_ended(taken: Taken, tmp_path: Path) -> None:
    first, second = [row for _, row in sb3_rows(3)], [row for _, row in sb3_rows(3)]
    second[0] |= trained(2)
    rows = taken(write_csv(tmp_path / "progress.csv", [*first, *second])).frame("updates").to_dicts()
    assert [row["total_loss"] for row in rows] == [10.0, 11.0, 12.0, 10.0, 11.0]
    assert [row["update"] for row in rows] == [0, 1, 2, 3, 4]


def counted_rows(updates: int) -> list[dict[str, float]]:
    """Rows of a progress.csv that say how many epochs were trained, 10 in each update."""
    return [{**row, **({"train/n_updates": 10 * k} if k else {})} for k, (_, row) in enumerate(sb3_rows(updates))]


@pytest.mark.parametrize("order", [(0, 1, 1, 2, 3, 3, 4, 5), (5, 0, 2, 1, 4, 3), (0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize("kind", ["sb3", "wandb"])
def test_repeated_and_unordered_rows_are_no_trainings(
    taken: Taken, tmp_path: Path, order: tuple[int, ...], kind: str
) -> None:
    rows = counted_rows(6)
    rows = [{"_step": place, **rows[k]} if kind == "wandb" else rows[k] for place, k in enumerate(order)]
    run = taken(write_csv(tmp_path / ("progress.csv" if kind == "sb3" else "history.csv"), rows), kind)
    found = [(row["update"], row["total_loss"], row["env_steps"]) for row in run.frame("updates").to_dicts()]
    assert found == [(k, 10.0 + k, STEPS * (k + 1)) for k in range(5)]
    kinds = set(run.frame("losses_of_data")["kind"])
    assert kinds & {"repeated_row", "unordered_row"}


def test_of_a_row_logged_again_the_last_stands_and_a_training_told_twice_is_one(taken: Taken, tmp_path: Path) -> None:
    rows = counted_rows(5)
    rows.insert(2, {**rows[1], "train/loss": 99.0})
    rows[4] |= {name: cell for name, cell in rows[3].items() if name.startswith("train/")}
    run = taken(write_csv(tmp_path / "progress.csv", rows))
    assert [row["total_loss"] for row in run.frame("updates").to_dicts()] == [99.0, 11.0, None, 13.0]
    assert run.frame("losses_of_data").filter(kind="repeated_row")["detail"][0].startswith("2 ×")


def test_a_second_call_of_learn_that_counts_its_epochs_goes_on(taken: Taken, tmp_path: Path) -> None:
    first, second = counted_rows(3), counted_rows(3)
    second[0] |= trained(2)
    second = [{**row, "train/n_updates": 30 + 10 * k} for k, row in enumerate(second)]
    run = taken(write_csv(tmp_path / "progress.csv", [*first, *second]))
    assert [row["total_loss"] for row in run.frame("updates").to_dicts()] == [10.0, 11.0, 12.0, 10.0, 11.0]
    assert "repeated_row" not in set(run.frame("losses_of_data")["kind"])


def test_what_the_logger_still_holds_of_one_model_is_not_the_next_one_s(tmp_path: Path) -> None:
    first, second = counted_rows(6)[3:], counted_rows(5)  # of the first model only the end: no epochs are in both
    second[0] |= {**trained(5), "train/n_updates": 60}
    found = dict(find_logs(write_csv(tmp_path / "progress.csv", [*first, *second])).read())
    runs = [run.rows["updates"] for run in found.values() if isinstance(run, Imported)]
    assert [[row["total_loss"] for row in rows if row.get("total_loss") is not None] for rows in runs] == [
        [12.0, 13.0, 14.0, 15.0],
        [10.0, 11.0, 12.0, 13.0],
    ]
    assert [row.get("episode_return_mean") for row in runs[1]][:2] == [0.0, 1.0]


@pytest.mark.parametrize("cut", [0, 1])
def test_two_models_that_were_logged_with_one_logger_are_two_runs(tmp_path: Path, cut: int) -> None:
    first = counted_rows(4)
    second = [{**row, **({"train/loss": 70.0 + k} if k else {})} for k, row in enumerate(counted_rows(5))][cut:]
    found = dict(find_logs(write_csv(tmp_path / "progress.csv", [*first, *second])).read())
    assert list(found) == ["progress-1", "progress-2"]
    losses = [[row["total_loss"] for row in run.rows["updates"]] for run in found.values() if isinstance(run, Imported)]
    assert losses == [[10.0, 11.0, 12.0], [71.0, 72.0, 73.0, 74.0]]


def test_rows_whose_cells_are_in_another_order_than_the_header_are_left_out_and_counted(
    taken: Taken, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "progress.csv", counted_rows(6))
    header, *lines = path.read_text().splitlines()
    turned = [",".join(reversed(line.split(","))) for line in lines[4:]]
    path.write_text("\n".join([header, *lines[:4], *turned]) + "\n")
    run = taken(path)
    assert [row["total_loss"] for row in run.frame("updates").to_dicts()] == [10.0, 11.0, 12.0]
    assert run.frame("losses_of_data").filter(kind="misplaced_row")["rows"].to_list() == [2]


def test_rows_that_are_sorted_otherwise_are_of_one_model() -> None:
    rows: list[Row] = [dict(row) for row in counted_rows(6)]
    for order in ((3, 5, 2, 4, 0, 1), (1, 2, 3, 4, 5, 0), (2, 4, 1, 3, 5, 0)):
        assert len(models([rows[place] for place in order])) == 1


def test_event_files_of_both_libraries_give_what_was_logged(taken: Taken, tmp_path: Path) -> None:
    sb3 = taken(write_events(tmp_path / "sb3", sb3_rows(6))).frame("updates").to_dicts()
    assert [row["total_loss"] for row in sb3] == [10.0, 11.0, 12.0, 13.0, 14.0]
    run = taken(write_events(tmp_path / "cleanrl", cleanrl_rows(5)))
    rows = run.frame("updates").to_dicts()
    assert [row["value_loss"] for row in rows] == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert [row["episode_return_mean"] for row in rows] == [0.5, 10.5, 20.5, 30.5, 40.5]
    assert run.frame("episodes").height == 10
    assert rows[2]["wall_time"] == 1.7e9 + 3 * STEPS


def test_a_last_minibatchs_number_is_called_so_in_run_json(taken: Taken, tmp_path: Path) -> None:
    run = taken(write_events(tmp_path / "cleanrl", cleanrl_rows(5)))
    assert run.info["source"]["columns"]["updates.value_loss"] == "losses/value_loss; last minibatch, not the mean"


def test_a_missing_update_is_seen_by_its_steps(taken: Taken, tmp_path: Path) -> None:
    logged = [row for row in cleanrl_rows(6) if row[0] != 3 * STEPS]
    run = taken(write_events(tmp_path / "cleanrl", logged))
    assert run.frame("updates")["update"].to_list() == [0, 1, 3, 4, 5]
    assert run.frame("losses_of_data").filter(kind="missing_updates")["rows"].to_list() == [1]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_kind_of_wandb_export_gives_the_same_run(taken: Taken, tmp_path: Path, suffix: str) -> None:
    rows = [
        {"_step": i, "_timestamp": 1.7e9 + i, "global_step": step, **row}
        for i, (step, row) in enumerate(cleanrl_rows(5))
    ]
    rows[5]["losses/value_loss"] = math.nan
    file = tmp_path / f"history{suffix}"
    if suffix == ".csv":
        write_csv(file, rows)
    elif suffix == ".jsonl":
        words = [{name: "NaN" if math.isnan(cell) else cell for name, cell in row.items()} for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in words))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = list(dict.fromkeys(name for row in rows for name in row))
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]), file)
    run = taken(file)
    losses = run.frame("updates")["value_loss"].to_list()
    assert [losses[0], *losses[2:]] == [0.5, 2.5, 3.5, 4.5]
    assert math.isnan(losses[1])
    assert run.frame("episodes")["episode_return"].to_list()[:3] == [0.0, 1.0, 10.0]
    assert run.frame("updates")["env_steps"].to_list() == [64, 128, 192, 256, 320]


def test_a_charts_export_of_two_runs_is_refused_by_their_names(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "chart.csv", [{"Step": 0, "a - losses/approx_kl": 0.1, "b - losses/approx_kl": 0.2}])
    with pytest.raises(UsageError, match="a, b"):
        read_source(file)


def test_rules_on_what_a_log_lacks_say_no_data_and_judge_what_stands_in(taken: Taken, tmp_path: Path) -> None:
    result = replay(taken(write_csv(tmp_path / "progress.csv", [row for _, row in sb3_rows(6)])))
    verdicts = result.verdict_counts
    assert set(verdicts["ratio_explosion"]) == {"no_data"}
    assert set(verdicts["kl_spike"]) == {"ok"}, "by the mean over the last epoch"
    assert set(verdicts["entropy_collapse"]) == {"no_data"}


def test_cut_and_odd_lines_of_a_csv_are_counted(taken: Taken, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "progress.csv", [row for _, row in sb3_rows(6)])
    text = file.read_text().replace("10.0,0.5", "not a number,0.5")
    file.write_text(text[:-25])
    run = taken(file)
    counted = {row["kind"]: row["rows"] for row in run.frame("losses_of_data").to_dicts()}
    assert counted["malformed_line"] == 1
    assert counted["unreadable_value"] == 0
    assert run.frame("updates")["total_loss"].to_list()[0] is None


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("progress.csv", b"", "is empty"),
        ("progress.csv", b"a,a\n1,2\n", "two columns called 'a'"),
        ("progress.csv", b"loss\n1\n", "none that is known"),
        ("progress.csv", b"train/loss\n\xff\n", "not UTF-8"),
        ("history.parquet", b"PAR1", "no Parquet file"),
        ("history.jsonl", b"\n\n", "holds no scalar"),
        ("events.out.tfevents.1", b"", "is empty"),
        ("events.out.tfevents.1", b"\xff" * 50, "a record of"),
        ("notes.md", b"hello", "not in a format that can be imported"),
    ],
)
def test_a_source_that_is_none_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((UsageError, DamagedError)) as refused:
        read_source(tmp_path / name)
    assert words in f"{refused.value.message} {refused.value.hint}"
