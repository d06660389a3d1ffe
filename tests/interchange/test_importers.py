"""Importers on files of a few rows: W&B, progress.csv, event files, rlprobe, and what our own export wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.interchange import import_csv, import_own, import_rlprobe, import_wandb
from esper_analyze.interchange.destination import refuse_existing, staged
from esper_analyze.interchange.event_file import event_file
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.sources import find_logs, read_source
from esper_analyze.schema.tables import HEADS, UPDATES
from tests.interchange.logs import write_csv
from tests.interchange.test_tensors import record

MOMENT = 1782864000.0
WHEN = "2026-07-01T00:00:00+00:00"


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def lost(imported: Imported) -> dict[str, tuple[object, object]]:
    return {str(row["kind"]): (row["detail"], row["rows"]) for row in imported.losses.rows()}


def updates(imported: Imported, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row.get(name) for name in ("update", *names)) for row in imported.rows.get("updates", [])]


@pytest.mark.parametrize(
    ("step", "steps"),
    [("global_step", 64), ("train/global_step", 64), ("_step", None), ("Step", None)],
)
def test_only_two_names_of_a_wandb_step_are_steps_of_the_environment(
    tmp_path: Path, step: str, steps: int | None
) -> None:
    rows = [{step: 64 * number, "losses/c_loss": float(number), "_timestamp": 10.0 + number} for number in (1, 2)]
    found = read_source(lines(tmp_path / "x.jsonl", *rows))
    assert updates(found, "env_steps", "value_loss", "wall_time")[0] == (0, steps, 1.0, 11.0)
    assert found.left_out == {}
    assert found.format == "wandb"


def test_the_first_name_of_a_step_counts_and_the_others_are_no_metric(tmp_path: Path) -> None:
    rows = [{"_step": 9, "global_step": 64, "_runtime": 5, "losses/c_loss": 0.5, "losses/entropy": [1], "x": {"a": 1}}]
    found = read_source(lines(tmp_path / "x.jsonl", *rows))
    assert updates(found, "env_steps", "entropy") == [(0, 64, None)]
    assert found.left_out == {}


def test_a_wandb_row_without_a_step_is_of_the_one_before(tmp_path: Path) -> None:
    found = read_source(
        lines(
            tmp_path / "x.jsonl",
            {"global_step": 64, "losses/c_loss": 1.0},
            {"losses/entropy": 0.5, "_timestamp": "soon"},
            {"global_step": "x", "losses/entropy": 9.0},
            {"global_step": 128, "losses/c_loss": 2.0},
        )
    )
    assert updates(found, "value_loss", "entropy") == [(0, 1.0, 0.5), (1, 2.0, None)]
    assert lost(found) == {"unreadable_value": ("1 × step that cannot be read; the row is left out: row 2", 1)}


def test_rows_before_the_first_step_are_of_step_0(tmp_path: Path) -> None:
    rows = [{"losses/c_loss": 1.0}, {"global_step": 64, "losses/c_loss": 2.0}]
    found = read_source(lines(tmp_path / "x.jsonl", *rows))
    assert updates(found, "env_steps", "value_loss") == [(0, 0, 1.0), (1, 64, 2.0)]


def test_without_a_step_rows_are_numbered(tmp_path: Path) -> None:
    found = read_source(lines(tmp_path / "x.jsonl", {"losses/c_loss": 1.0}, {"losses/c_loss": 2.0}))
    assert updates(found, "value_loss", "env_steps") == [(0, 1.0, None), (1, 2.0, None)]


def test_a_chart_s_export_has_the_names_as_they_were_logged(tmp_path: Path) -> None:
    row = {"Step": 1, "run a - losses/c_loss": 1.0, "run a - losses/c_loss__MIN": 0.0,
           "run a - losses/c_loss__MAX": 9.0}  # fmt: skip
    found = read_source(write_csv(tmp_path / "x.csv", [row]))
    assert updates(found, "value_loss") == [(0, 1.0)]
    assert found.left_out == {}
    four = {f"{name} - x": 1.0 for name in "dbca"}
    with pytest.raises(UsageError, match="holds several W&B runs: a, b, c\n"):
        read_source(write_csv(tmp_path / "y.csv", [four]))


@pytest.mark.parametrize(
    ("name", "known"), [("x.csv", True), ("x.ndjson", True), ("x.parquet", True), ("x.txt", False)]
)
def test_a_wandb_history_is_a_file_of_rows(tmp_path: Path, name: str, known: bool) -> None:
    assert import_wandb.recognises(tmp_path / name) is None
    (tmp_path / name).write_text("")
    assert import_wandb.recognises(tmp_path / name) == (tmp_path / name if known else None)
    (tmp_path / "folder.csv").mkdir()
    assert import_wandb.recognises(tmp_path / "folder.csv") is None


def test_progress_csv_is_known_by_its_name(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "progress.csv", [{"time/iterations": 1, "train/loss": None},
                                                 {"time/iterations": 2, "train/loss": 0.5}])  # fmt: skip
    assert import_csv.recognises(file) == file
    assert import_csv.recognises(write_csv(tmp_path / "other.csv", [{"train/loss": 1}])) is None
    for name in (None, "csv", "sb3", "stable-baselines3"):
        found = read_source(file, name)
        assert updates(found, "total_loss", "env_steps") == [(0, 0.5, None)]
        assert found.format == "csv"


def events(path: Path, *steps: int, created: float = 5.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(event_file([(step, created + step, [("losses/c_loss", float(step))]) for step in steps], created))
    return path


def test_event_files_of_a_folder_are_read_together(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    events(folder / "a.tfevents.1", 64)
    events(folder / "b.tfevents.2", 128)
    (folder / "notes.txt").write_text("")
    found = read_source(folder)
    assert updates(found, "value_loss", "wall_time", "env_steps") == [(0, 64.0, 69.0, 64), (1, 128.0, 133.0, 128)]
    assert found.facts["created"] == 69.0
    assert updates(read_source(folder / "b.tfevents.2")) == [(0,)]


def test_event_files_are_found_in_or_below_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no log"):
        read_source(tmp_path)
    events(tmp_path / "deep" / "run0" / "x.tfevents.1", 64)
    assert updates(read_source(tmp_path)) == [(0,)]
    events(tmp_path / "deep" / "run1" / "x.tfevents.1", 64)
    with pytest.raises(UsageError, match=r"holds 2 runs: deep/run0, deep/run1\n"):
        read_source(tmp_path)
    events(tmp_path / "x.tfevents.1", 64)
    assert [name for name, _ in find_logs(tmp_path).read()] == ["1", "deep/run0", "deep/run1"]


def test_a_run_began_with_the_first_point_of_any_name(tmp_path: Path) -> None:
    points = [
        (64, 20.0, [("losses/c_loss", 1.0)]),
        (64, 10.0, [("losses/entropy", 1.0)]),
        (128, 5.0, [("losses/c_loss", 1.0)]),  # a clock that was set back
    ]
    (tmp_path / "x.tfevents").write_bytes(event_file(points, 1.0))
    assert read_source(tmp_path).facts["created"] == 10.0


def test_a_record_that_is_no_event_is_lost(tmp_path: Path) -> None:
    (tmp_path / "x.tfevents").write_bytes(event_file([(64, 1.0, [("losses/c_loss", 1.0)])], 1.0) + record(b"\xff"))
    found = read_source(tmp_path)
    assert updates(found, "value_loss") == [(0, 1.0)]
    ((detail, rows),) = lost(found).values()
    assert str(detail).startswith("1 × record that is not an event: x.tfevents: is not an event")
    assert (list(lost(found)), rows) == (["damaged_record"], 1)


def test_damaged_event_files_are_counted(tmp_path: Path) -> None:
    whole = events(tmp_path / "x.tfevents", 64, 128, 192).read_bytes()
    size = len(event_file([], 5.0))
    (tmp_path / "x.tfevents").write_bytes(whole[:-1])
    cut = read_source(tmp_path / "x.tfevents")
    assert len(updates(cut)) == 2
    ((detail, rows),) = lost(cut).values()
    assert list(lost(cut)) == ["cut_file"]
    assert (str(detail).startswith("1 × incomplete event file: x.tfevents ends within a record at byte "), rows) == (
        True,
        1,
    )
    flipped = bytearray(whole)
    flipped[size + 14] ^= 1
    (tmp_path / "x.tfevents").write_bytes(flipped)
    bad = read_source(tmp_path / "x.tfevents")
    assert lost(bad) == {
        "damaged_record": (f"1 × record that does not match its checksum: x.tfevents at byte {size}", 1)
    }
    length = bytearray(whole)
    length[size + 9] ^= 1
    (tmp_path / "x.tfevents").write_bytes(bytes(length))
    with pytest.raises(UsageError, match="holds no scalar") as refused:
        read_source(tmp_path / "x.tfevents")
    assert "incomplete event file" in str(refused.value.hint)


def rlprobe(folder: Path, *steps: dict[str, Any], manifest: Any = None, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    ready = {"schema_version": 1, **more} if manifest is None else manifest
    (folder / "manifest.json").write_text(ready if isinstance(ready, str) else json.dumps(ready))
    parquet(folder / "steps.parquet", list(steps) or [{"step": 0, "loss": 0.5}])
    return folder


def test_a_folder_of_rlprobe_has_a_manifest_and_steps(tmp_path: Path) -> None:
    assert import_rlprobe.recognises(tmp_path) is None
    folder = rlprobe(tmp_path / "a")
    assert import_rlprobe.recognises(folder) == folder
    assert import_rlprobe.recognises(folder / "manifest.json") is None
    (folder / "steps.parquet").unlink()
    assert import_rlprobe.recognises(folder) is None
    (folder / "steps").mkdir()
    assert import_rlprobe.recognises(folder) == folder
    (folder / "manifest.json").unlink()
    assert import_rlprobe.recognises(folder) is None


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", "null", json.dumps({"version": 1})])
def test_a_manifest_that_is_none_is_damaged(tmp_path: Path, manifest: str) -> None:
    with pytest.raises(DamagedError, match=r"manifest\.json cannot be read as rlprobe's"):
        import_rlprobe.read(rlprobe(tmp_path / "a", manifest=manifest))


def test_facts_of_rlprobe_s_manifest(tmp_path: Path) -> None:
    found = import_rlprobe.read(
        rlprobe(tmp_path / "a", run_id="r", created_at=WHEN, algorithm="GRPO", trainer_config={"lr": 1}, notes="n",
                environment={"gpu": 1}, model_name="m")
    )  # fmt: skip
    assert found.facts == {
        "framework": "rlprobe", "algorithm": "GRPO", "created": MOMENT, "hyperparameters": {"lr": 1}, "notes": "n",
        "source": {"run_id": "r", "environment": {"gpu": 1}, "model": "m"},
    }  # fmt: skip
    assert import_rlprobe.read(rlprobe(tmp_path / "b", created_at="soon")).facts["created"] is None


def test_every_number_of_rlprobe_is_in_its_column(tmp_path: Path) -> None:
    step = {name: float(place) for place, name in enumerate(import_rlprobe.UPDATES, start=1)}
    found = import_rlprobe.read(rlprobe(tmp_path / "a", {"step": 4, "kl_mean": 1.0, "nan_count": None, **step}))
    (row,) = found.rows["updates"]
    assert (row["update"], row["status"], row["level"]) == (4, "performed", "NORMAL")
    assert {named.column: row[named.column] for named in import_rlprobe.UPDATES.values()} == {
        "wall_time": 1.0, "episode_return_mean": 2.0, "episode_length_mean": 3.0, "entropy": 4.0, "ratio_mean": 5.0,
        "clip_fraction": 6.0, "value_loss": 7.0, "explained_variance": 8.0, "total_loss": 9.0, "learning_rate": 10.0,
        "grad_norm_pre_clip": 11.0, "grad_norm_post_clip": 12.0, "rollout_s": 13.0, "optimisation_s": 14.0,
    }  # fmt: skip
    assert found.columns["updates.episode_length_mean"] == "completion_len_mean; tokens of the step's completions"
    assert found.columns["updates.entropy"] == "entropy_mean; per token"
    assert list(found.left_out) == ["kl_mean"]


def test_gradients_of_all_parameters_are_a_group_where_something_was_measured(tmp_path: Path) -> None:
    steps: list[dict[str, Any]] = [
        {"step": 0, "grad_norm": 1.0, "weight_update_ratio": None},
        {"step": 1, "grad_norm": None, "weight_update_ratio": 0.25},
        {"step": 2, "grad_norm": None, "weight_update_ratio": None},
    ]
    found = import_rlprobe.read(rlprobe(tmp_path / "a", *steps))
    assert found.rows["groups"] == [
        {"update": 0, "group": "all", "grad_norm": 1.0, "update_ratio": None},
        {"update": 1, "group": "all", "grad_norm": None, "update_ratio": 0.25},
    ]
    assert found.left_out == {}


def test_a_step_that_is_none_is_lost_and_a_run_without_steps_is_damaged(tmp_path: Path) -> None:
    found = import_rlprobe.read(rlprobe(tmp_path / "a", {"step": None, "loss": 1.0}, {"step": 3, "loss": 2.0}))
    assert updates(found, "total_loss") == [(3, 2.0)]
    assert lost(found) == {"malformed_row": ("1 × row without a step", 1)}
    with pytest.raises(DamagedError, match="holds no step"):
        import_rlprobe.read(rlprobe(tmp_path / "b", {"step": None}))


def test_parts_are_read_where_there_is_no_whole_file(tmp_path: Path) -> None:
    folder = rlprobe(tmp_path / "a")
    parquet(folder / "steps" / "part-1.parquet", [{"step": 2, "loss": 2.0}])
    parquet(folder / "steps" / "part-0.parquet", [{"step": 1, "loss": 1.0}])
    parquet(folder / "steps" / "other.parquet", [{"step": 9, "loss": 9.0}])
    assert updates(import_rlprobe.read(folder)) == [(0,)]
    (folder / "steps.parquet").unlink()
    assert updates(import_rlprobe.read(folder)) == [(1,), (2,)]


def test_events_of_rlprobe_are_alarms_and_losses(tmp_path: Path) -> None:
    folder = rlprobe(tmp_path / "a", {"step": 1}, {"step": 2}, {"step": 4})
    lines(
        folder / "events.jsonl",
        {"kind": "nan_detected", "step": 2, "message": "value loss"},
        {"kind": "nan_detected", "step": 3},
        {"kind": "crash", "message": ""},
        {"kind": "other", "step": 1},
        {"kind": "recorder_drops", "message": "full", "data": {"count": 7}},
        {"kind": "recorder_drops", "data": {"count": "x"}},
        {"kind": "bad_record"},
    )
    found = import_rlprobe.read(folder)
    assert [(one.update, one.rule, one.subject, one.verdict, one.reason) for one in found.foreign] == [
        (2, "rlprobe:nan_detected", "run", "critical", "value loss"),
        (4, "rlprobe:nan_detected", "run", "critical", "nan_detected"),
        (4, "rlprobe:crash", "run", "critical", "crash"),
    ]
    assert lost(found) == {
        "missing_updates": ("1 × update has no row: 3", 1),
        "recorder_drops": ("8 × record lost by rlprobe itself: full", 8),
        "bad_record": ("1 × record lost by rlprobe itself", 1),
    }


def whole(table: Any, **cells: Any) -> dict[str, Any]:
    """Return a row with every column of a table, null but for ``cells``."""
    return dict.fromkeys(table.names) | {"rank": 0, "seq": 0, **cells}


READY = {"status": "performed", "level": "NORMAL"}


def test_tables_of_our_export_come_back(tmp_path: Path) -> None:
    lines(tmp_path / "updates.jsonl", *[whole(UPDATES, update=at, kl_k3=0.5, **READY) for at in (0, 2)],
          whole(UPDATES, update=3), whole(UPDATES, update=5, kl_k3="x", **READY))  # fmt: skip
    lines(tmp_path / "heads.jsonl", whole(HEADS, update=0, head="op", grad_norm=1.0))
    (tmp_path / "notes.md").write_text("")
    assert import_own.recognises(tmp_path) == tmp_path
    found = import_own.read(tmp_path)
    assert updates(found, "kl_k3") == [(0, 0.5), (2, 0.5), (5, None)]
    assert set(found.rows["updates"][0]) == set(UPDATES.names) - {"rank", "seq"}
    assert found.rows["heads"][0]["grad_norm"] == 1.0
    assert found.facts["heads"] == {"op": None}
    assert found.columns == {"all": "as exported"}
    assert lost(found) == {
        "malformed_row": ("1 × row of updates without a required cell: row 2 of updates.jsonl", 1),
        "unreadable_value": ("1 × unreadable value, taken as null: kl_k3, row 3 of updates.jsonl", 0),
        "missing_updates": ("3 × update has no row: 1, 3–4", 3),
    }


def test_findings_and_levels_are_computed_again_and_an_empty_table_is_none(tmp_path: Path) -> None:
    from esper_analyze.schema.tables import FINDINGS

    lines(tmp_path / "findings.jsonl", whole(FINDINGS, update=0))
    lines(tmp_path / "heads.jsonl")
    lines(tmp_path / "updates.jsonl", whole(UPDATES, update=0, **READY))
    assert list(import_own.read(tmp_path).rows) == ["updates"]
    (tmp_path / "updates.jsonl").unlink()
    with pytest.raises(UsageError, match="holds no row of updates"):
        import_own.read(tmp_path)


@pytest.mark.parametrize(("rank", "sound"), [(0, True), ("0", True), (1, False), ("1", False)])
def test_rows_of_one_rank_are_imported(tmp_path: Path, rank: object, sound: bool) -> None:
    file = lines(tmp_path / "updates.jsonl", whole(UPDATES, update=0, **READY) | {"rank": rank})
    if sound:
        assert updates(import_own.read(file)) == [(0,)]
        return
    with pytest.raises(UsageError, match="rows of several ranks"):
        import_own.read(file)


def test_one_row_an_update_comes_back_by_table(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
            {"update": 1, "updates/kl_k3": 0.5, "heads/op/grad_norm": math.pi}, {"update": None, "updates/kl_k3": 1.0},
            {"update": 2, "updates/kl_k3": None, "heads/op/grad_norm": 1.0}]  # fmt: skip
    file = parquet(tmp_path / "wide.parquet", rows)
    assert import_own.recognises(file) == file
    found = import_own.read(file)
    assert updates(found, "kl_k3") == [(1, 0.5), (2, None)]
    assert [row["grad_norm"] for row in found.rows["heads"]] == [math.pi, 1.0]
    assert lost(found) == {"malformed_row": ("1 × row without an update: row 1 of wide.parquet", 1)}
    assert found.facts["heads"] == {"op": None}
    assert found.left_out == {}


def test_what_export_did_not_write_is_not_recognised(tmp_path: Path) -> None:
    assert import_own.recognises(tmp_path) is None
    assert import_own.recognises(tmp_path / "none.csv") is None
    assert import_own.recognises(lines(tmp_path / "x.jsonl", {"losses/c_loss": 1})) is None
    assert import_own.recognises(lines(tmp_path / "empty.jsonl")) is None
    (tmp_path / "x.parquet").write_text("odd")
    assert import_own.recognises(tmp_path / "x.parquet") is None
    assert import_own.recognises(lines(tmp_path / "updates.txt", whole(UPDATES))) is None
    short = dict.fromkeys(UPDATES.names[:-1])
    assert import_own.recognises(lines(tmp_path / "y.jsonl", short)) is None
    good = lines(tmp_path / "z.jsonl", whole(UPDATES), whole(UPDATES))
    assert import_own.recognises(good) == good
    assert import_own.recognises(tmp_path) is None
    lines(tmp_path / "updates.ndjson", whole(UPDATES))
    assert import_own.recognises(tmp_path) == tmp_path


def test_of_an_export_beside_a_log_the_log_is_read(tmp_path: Path) -> None:
    write_csv(tmp_path / "progress.csv", [{"time/iterations": 1, "train/loss": None},
                                          {"time/iterations": 2, "train/loss": 0.5}])  # fmt: skip
    lines(tmp_path / "updates.jsonl", whole(UPDATES, update=0, **READY))
    assert read_source(tmp_path / "progress.csv").format == "csv"
    assert read_source(tmp_path, "own").format == "own"


def test_nothing_is_written_over_and_a_name_is_taken_only_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "folder", "link"):
        with pytest.raises(UsageError, match="exists, and nothing is ever written over"):
            refuse_existing(tmp_path / name)
    out = tmp_path / "a" / "b" / "out"
    refuse_existing(out)
    with staged(out) as staging:
        staging.write_text("new")
        assert not out.exists()
    assert out.read_text() == "new"
    later = tmp_path / "later"

    def late() -> None:
        with staged(later) as staging:
            staging.write_text("new")
            later.write_text("mine")

    with pytest.raises(UsageError, match="exists"):
        late()
    assert later.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "file", "folder", "later", "link"]
