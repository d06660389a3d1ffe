"""The ancestor's events, by an excerpt of a real recording: what it measured comes in, what it made up is null."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esper_analyze.errors import DamagedError
from esper_analyze.interchange.sources import read_source
from esper_analyze.replay.evidence import gather
from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.reports.write import write_report
from esper_analyze.runs.run import RecordedRun
from esper_analyze.storage.maintenance.verify import verify
from tests.interchange.conftest import EXCERPT, Taken

UPDATES = [0, 1, 8]


def edited(lines: list[str], path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Write the events after ``change``, which may empty one to take it out."""
    events = [json.loads(line) for line in lines]
    for event in events:
        change(event)
    path.write_text("".join(json.dumps(event) + "\n" for event in events if event))
    return path


def losses(run: RecordedRun) -> dict[str, int]:
    return {row["kind"]: row["rows"] for row in run.frame("losses_of_data").to_dicts()}


def ppo(event: dict[str, Any]) -> bool:
    return event.get("event_type") == "PPO_UPDATE_COMPLETED"


def test_the_excerpt_becomes_a_run_that_verifies_and_that_replay_agrees_with(taken: Taken) -> None:
    run = taken(EXCERPT)
    assert verify(run.path).damage == []
    assert run.closed
    assert differences(replay(run), recorded(run)) == []
    assert run.frame("updates")["update"].to_list() == UPDATES


def test_what_was_measured_comes_in_as_it_was(taken: Taken) -> None:
    row = taken(EXCERPT).frame("updates").to_dicts()[0]
    assert row["grad_norm_pre_clip"] == 68.29088592529297
    assert row["value_loss"] == 5.127620697021484
    assert row["advantage_std"] == 2.593841075897217  # before normalisation, not the 1.026 after it
    assert row["return_variance"] == 6.749379634857178
    assert row["episodes"] == 2
    assert row["progress"] == 1 / 25
    assert row["optimisation_s"] == pytest.approx(13.42124087800039)


def test_with_one_inner_epoch_ratio_kl_and_clip_are_null_and_not_healthy(taken: Taken) -> None:
    run = taken(EXCERPT)
    rows = run.frame("updates")
    for name in ("ratio_max", "ratio_min", "ratio_mean", "ratio_std", "kl_k3", "clip_fraction"):
        assert rows[name].null_count() == len(UPDATES)
    assert rows["inner_loop_measurable"].to_list() == [False] * 3
    verdicts = replay(run).verdict_counts
    for rule in ("kl_spike", "ratio_explosion", "ratio_collapse", "clip_saturation"):
        assert set(verdicts[rule]) == {"not_applicable"}


def test_a_ratio_that_moves_in_one_update_is_kept_in_all(taken: Taken, lines: list[str], tmp_path: Path) -> None:
    def move(event: dict[str, Any]) -> None:
        if ppo(event) and event["data"]["batch"] == 2:
            event["data"] |= {"ratio_max": 1.5, "kl_divergence": 0.02}

    rows = taken(edited(lines, tmp_path / "events.jsonl", move)).frame("updates")
    assert rows["ratio_max"].to_list()[1] == 1.5
    assert rows["ratio_max"].null_count() == 0
    assert rows["kl_k3"].to_list()[1] == 0.02
    assert rows["inner_loop_measurable"].to_list() == [True] * 3


def test_a_count_of_zero_is_null_and_any_other_is_kept(taken: Taken, lines: list[str], tmp_path: Path) -> None:
    def count(event: dict[str, Any]) -> None:
        if ppo(event) and event["data"]["batch"] == 2:
            event["data"]["nan_grad_count"] = 3

    rows = taken(edited(lines, tmp_path / "events.jsonl", count)).frame("updates")
    assert rows["nan_grad_count"].to_list() == [None, 3, None]
    assert rows["inf_grad_count"].to_list() == [None] * 3


def test_what_was_never_recorded_is_null(taken: Taken) -> None:
    rows = taken(EXCERPT).frame("updates")
    for name in ("grad_norm_post_clip", "max_grad_norm", "entropy", "entropy_loss", "entropy_norm", "value_nrmse"):
        assert rows[name].null_count() == len(UPDATES)


def test_nan_stays_nan_and_is_excused_where_returns_hardly_vary(taken: Taken) -> None:
    run = taken(EXCERPT)
    explained = run.frame("updates")["explained_variance"].to_list()
    assert explained[0] == 0.003165900707244873
    assert math.isnan(explained[2])
    assert not replay(run).incidents


def test_learnable_fractions_are_those_of_masks_and_effective_ones_are_causal(taken: Taken) -> None:
    heads = {(row["update"], row["head"]): row for row in taken(EXCERPT).frame("heads").to_dicts()}
    assert heads[0, "slot"]["learnable_fraction"] == 0.0
    assert heads[0, "blueprint"]["learnable_fraction"] == 1.0
    assert heads[0, "blueprint"]["effective_fraction"] == pytest.approx(0.1)
    assert heads[0, "op"]["learnable_fraction"] == pytest.approx(heads[0, "op"]["effective_fraction"])
    assert {row["rollout_samples"] for row in heads.values()} == {20}


def test_zero_gradients_of_heads_that_could_not_learn_are_explained(taken: Taken) -> None:
    rows = taken(EXCERPT).frame("heads").to_dicts()
    assert {row["zero_explained"] for row in rows if row["head"] == "slot"} == {"masked"}
    irrelevant = [row for row in rows if row["learnable_fraction"] and row["effective_fraction"] == 0]
    assert irrelevant
    assert {row["zero_explained"] for row in irrelevant} == {"irrelevant"}


def test_entropy_is_taken_only_where_the_head_mattered_in_all_its_choices(taken: Taken) -> None:
    rows = {row["head"]: row for row in taken(EXCERPT).frame("heads").to_dicts() if row["update"] == 0}
    assert 0.9 < rows["op"]["entropy_norm"] <= 1.0
    assert rows["blueprint"]["entropy_norm"] is None  # 0.1 there, as it counted in a tenth of all steps
    assert rows["slot"]["entropy_norm"] is None


def test_the_ancestors_alarms_stand_beside_ours_and_no_replay_is_held_against_them(taken: Taken) -> None:
    run = taken(EXCERPT)
    theirs = [row for row in run.frame("findings").to_dicts() if row["rule"].startswith("ancestor:")]
    assert [(row["update"], row["rule"], row["verdict"]) for row in theirs if row["metric"] == "value_collapse"] == [
        (0, "ancestor:value_collapse_detected", "warning")
    ]
    assert {row["subject"] for row in theirs if row["rule"] == "ancestor:gradient_anomaly"} >= {"slot"}
    assert all(row["reason"] for row in theirs)
    assert not any(finding.rule.startswith("ancestor:") for finding in recorded(run)[0])
    assert set(run.info["foreign_rules"]) == {row["rule"] for row in theirs}


def test_a_seeds_defaults_are_null_and_its_measurements_are_not(taken: Taken) -> None:
    rows = taken(EXCERPT).frame("slots").to_dicts()
    events = [json.loads(line) for line in EXCERPT.read_text().splitlines()]
    seen = sum(len(event["data"]["seeds"]) for event in events if event["event_type"] == "EPOCH_COMPLETED")
    assert sum(row["calls"] for row in rows) == seen
    never = [row for row in rows if row["health"] is None]
    assert all(row["has_vanishing"] is None and row["has_exploding"] is None for row in never)
    assert any(row["has_vanishing"] for row in rows)
    assert {row["place"] for row in rows} == {"env 0, r0c1", "env 1, r0c1"}


def test_updates_without_an_event_are_counted_as_missing(taken: Taken) -> None:
    run = taken(EXCERPT)
    assert losses(run)["missing_updates"] == 6
    assert [fault.reason for fault in verify(run.path).faults if "no row" in fault.reason] == [
        "updates 2–7 have no row"
    ]


def test_a_batch_that_says_it_was_skipped_is_an_update_that_was_skipped(
    taken: Taken, lines: list[str], tmp_path: Path
) -> None:
    def skip(event: dict[str, Any]) -> None:
        if ppo(event) and event["data"]["batch"] == 2:
            event.clear()
        elif event["data"].get("kind") == "batch_stats" and event["data"]["batch"] == 2:
            event["data"]["skipped_update"] = True

    rows = taken(edited(lines, tmp_path / "events.jsonl", skip)).frame("updates")
    assert rows["update"].to_list() == UPDATES
    assert rows["status"].to_list() == ["performed", "no_usable_steps", "performed"]


def test_rows_of_an_update_that_was_lost_are_counted_and_left_out(
    taken: Taken, lines: list[str], tmp_path: Path
) -> None:
    def lose(event: dict[str, Any]) -> None:
        if ppo(event) and event["data"]["batch"] == 9:
            event.clear()

    run = taken(edited(lines, tmp_path / "events.jsonl", lose))
    assert run.frame("updates")["update"].to_list() == [0, 1]
    assert losses(run)["rows_without_update_episodes"] == 2
    assert verify(run.path).damage == []


def test_broken_lines_are_counted_and_cost_nothing_else(taken: Taken, lines: list[str], tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    broken = [lines[0], "{not json", *lines[1:], "[1, 2]", '{"event_type": "X"}', lines[5], lines[-1][:40]]
    file.write_text("\n".join(broken))
    run = taken(file)
    assert losses(run) == {
        "malformed_line": 2,
        "malformed_event": 1,
        "repeated_event": 0,
        "cut_line": 1,
        "nonfinite_tokens": 0,
        "missing_updates": 6,
    }
    assert run.frame("updates").drop("wall_time").equals(taken(EXCERPT).frame("updates").drop("wall_time"))
    details = {row["kind"]: row["detail"] for row in run.frame("losses_of_data").to_dicts()}
    assert "line 2" in details["malformed_line"]
    assert details["nonfinite_tokens"].startswith("2 ×")


def test_a_value_that_cannot_be_read_is_null_and_counted(taken: Taken, lines: list[str], tmp_path: Path) -> None:
    def spoil(event: dict[str, Any]) -> None:
        if ppo(event) and event["data"]["batch"] == 2:
            event["data"]["value_loss"] = "tensor(0.5, device='cuda:0')"

    run = taken(edited(lines, tmp_path / "events.jsonl", spoil))
    assert run.frame("updates")["value_loss"].null_count() == 1
    assert "value_loss, line" in run.frame("losses_of_data").filter(kind="unreadable_value")["detail"][0]


def test_a_packed_file_cut_in_its_middle_gives_what_it_holds(taken: Taken, tmp_path: Path) -> None:
    whole = gzip.compress(EXCERPT.read_bytes())
    file = tmp_path / "events.jsonl.gz"
    file.write_bytes(whole[: len(whole) * 2 // 3])
    run = taken(file)
    assert "cut_file" in losses(run)
    assert run.frame("updates")["update"].to_list()[0] == 0


def test_events_without_any_update_are_refused(lines: list[str], tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(lines[0] + "\n")
    with pytest.raises(DamagedError, match="holds no PPO update"):
        read_source(file)


@pytest.mark.parametrize("batch", [0, -3, 2**60])
def test_an_update_that_cannot_be_is_counted_and_left_out(
    taken: Taken, lines: list[str], tmp_path: Path, batch: int
) -> None:
    def renumber(event: dict[str, Any]) -> None:
        if ppo(event) and event["data"]["batch"] == 2:
            event["data"]["batch"] = batch

    run = taken(edited(lines, tmp_path / "events.jsonl", renumber))
    assert run.frame("updates")["update"].to_list() == [0, 8]
    assert losses(run)["impossible_update"] > 0
    assert verify(run.path).damage == []


def test_reports_show_its_alarms_apart_from_ours(taken: Taken, tmp_path: Path) -> None:
    run = taken(EXCERPT)
    found = replay(run)
    assert found.incidents == []
    write_report(gather(run), tmp_path / "page")
    told = json.loads((tmp_path / "page" / "report.json").read_text())
    assert {one["alarm"].split(":")[0] for one in told["foreign_alarms"]} == {"ancestor"}
    stored = run.frame("findings").filter(run.frame("findings")["rule"].str.starts_with("ancestor:"))
    assert sum(one["times"] for one in told["foreign_alarms"]) == len(stored) > 0
    assert told["incidents"] == []
    for name in ("index.html", "report.md"):
        text = (tmp_path / "page" / name).read_text()
        assert "Alarms of the source" in text
        assert "gradient" in text
