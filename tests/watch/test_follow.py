"""What a follower knows is what the run holds, whatever was done to it between two looks."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from esper_analyze.errors import UsageError
from esper_analyze.runs.run import open_run
from esper_analyze.storage.maintenance.compact import compact
from esper_analyze.storage.maintenance.repair import repair
from esper_analyze.storage.shapes import read_shard
from esper_analyze.watch import attempt as attempts
from esper_analyze.watch.follow import Follower
from esper_analyze.watch.panels import headline
from esper_analyze.watch.snapshot import Snapshot, Status, snapshot
from recorder.store.store import Store
from tests.reports.conftest import trouble
from tests.reports.synthetic import write_run
from tests.runs.stored import files
from tests.watch.growing import GrowingRun, WriterProcess

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"


def looked(seen: Follower) -> Snapshot:
    seen.poll()
    return snapshot(seen)


def timeless(shot: Snapshot) -> str:
    """Everything but the clock; as text, so that NaN equals NaN."""
    return str(replace(shot, taken_at=0.0, status=Status(shot.status.state, "", None, None)))


@pytest.fixture
def growing(tmp_path: Path) -> GrowingRun:
    return GrowingRun(tmp_path / "run")


def test_what_is_handed_over_is_there_at_the_next_look(growing: GrowingRun) -> None:
    seen = Follower(growing.path)
    for update in range(3):
        growing.add()
        shot = looked(seen)
        assert (shot.update, shot.status.state) == (update, "running")
    assert [head.name for head in shot.heads] == ["slot", "op"]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(steps=["add", "look", "seal", "add", "seal", "add"], back=0)  # two logs come and go between two polls
@given(
    steps=st.lists(st.sampled_from(["add", "add", "seal", "look", "look", "resume", "compact"]), max_size=14),
    back=st.integers(0, 9),
)
def test_a_follower_knows_what_one_who_begins_now_knows(
    steps: list[str], back: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    growing = GrowingRun(tmp_path_factory.mktemp("law") / "run")
    seen = Follower(growing.path)
    for step in steps:
        if step == "add":
            growing.add(4, trouble)
        elif step == "seal":
            growing.seal()
        elif step == "look":
            seen.poll()
        elif step == "resume":
            growing.resume(max(0, growing.next - back))
        else:
            growing.die()
            repair(growing.path)
            compact(growing.path)
            growing.resume(growing.next)
    growing.die()
    assert timeless(looked(seen)) == timeless(looked(Follower(growing.path)))
    wanted = open_run(growing.path).frame("heads", ["update", "head", "grad_norm"]).sort("update")
    for head in seen.recent.subjects("heads"):
        own = wanted.filter(wanted["head"] == head)
        assert [(row["update"], head, row["grad_norm"]) for row in seen.recent.rows("heads", head)] == own.rows()


@pytest.mark.parametrize("name", sorted(path.name for path in SAMPLES.iterdir() if path.is_dir()))
def test_a_sample_s_open_incidents_are_those_at_its_end(name: str) -> None:
    shot = looked(Follower(SAMPLES / name))
    run = open_run(SAMPLES / name)
    last: dict[tuple[str, str, str], str] = {}
    for row in run.frame("findings").sort("seq").to_dicts():
        if row["verdict"] in ("ok", "info", "warning", "critical"):
            last[row["rule"], row["subject"], row["metric"]] = row["verdict"]
    wanted = {key for key, verdict in last.items() if verdict in ("warning", "critical")}
    assert {about for one in shot.incidents for about in one.about} == wanted
    assert shot.update == run.last_update


TOO_HIGH = SAMPLES / "kl_too_high"


def test_a_consequence_stands_below_its_cause() -> None:
    shot = looked(Follower(SAMPLES / "one_update_collapse"))
    told = {one.rule: (one.depth, one.cause, one.cause_update) for one in shot.incidents}
    assert told["entropy_collapse"] == (0, None, None)
    assert told["head_entropy_collapse"] == (1, "entropy_collapse", 44)
    told = {one.rule: (one.depth, one.cause, one.cause_update) for one in looked(Follower(TOO_HIGH)).incidents}
    assert told["ratio_collapse"] == (0, "kl_spike", 0)


def test_what_came_by_the_log_is_not_read_again_from_a_shard(
    growing: GrowingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Follower(growing.path)
    growing.add(3)
    seen.poll()
    monkeypatch.setattr(attempts, "read_shard", lambda *_: pytest.fail("a shard was read"))
    growing.seal()
    growing.add(2)
    assert looked(seen).update == 4


def test_what_was_sealed_between_two_looks_is_read_from_its_shard(growing: GrowingRun) -> None:
    seen = Follower(growing.path)
    seen.poll()
    growing.add(3)
    growing.seal()
    assert looked(seen).update == 2
    assert len(seen.recent.rows("updates")) == 3


def test_of_a_long_run_only_the_last_shards_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing = GrowingRun(tmp_path / "run")
    for _ in range(10):
        growing.add(30)
        growing.seal()
    read: list[str] = []

    def listed(*given: Any) -> Any:
        read.append(given[1].name)
        return read_shard(*given)

    monkeypatch.setattr(attempts, "read_shard", listed)
    assert looked(Follower(growing.path)).update == 299
    assert sum(name.startswith("updates") for name in read) == 4
    growing.die()


def test_a_look_changes_no_file_and_keeps_no_writer_away(growing: GrowingRun) -> None:
    growing.add(5)
    growing.seal()
    growing.add(1)
    seen = Follower(growing.path)
    growing.die()
    before = files(growing.path)
    seen.poll()
    Store(growing.path, attempt=1).close("closed")
    after = {name: data for name, data in files(growing.path).items() if "attempt-0001" not in name}
    assert after == before


def test_a_killed_training_is_seen_to_its_last_update_and_called_crashed(tmp_path: Path) -> None:
    child = WriterProcess(tmp_path / "run")
    seen = Follower(tmp_path / "run")
    for update in range(8):
        assert child.add() == update
        shot = looked(seen)
        assert (shot.status.state, shot.update, shot.losses.files) == ("running", update, ())
    child.kill()
    shot = looked(seen)
    assert (shot.status.state, shot.update) == ("crashed", 7)
    assert timeless(shot) == timeless(looked(Follower(tmp_path / "run")))


@pytest.mark.parametrize(
    ("reason", "state", "words"),
    [
        ("closed", "ended", "closed"),
        ("exit", "ended", "closed"),
        ("SIGTERM", "ended", "stopped by SIGTERM"),
        ("imported", "ended", "imported"),
        ("ValueError: no", "crashed", "died: ValueError: no"),
    ],
)
def test_how_a_training_ended_is_told(reason: str, state: str, words: str, tmp_path: Path) -> None:
    status = looked(Follower(write_run(tmp_path / "run", 3, reason=reason))).status
    assert (status.state, status.why) == (state, words)


def test_a_closed_run_is_as_old_as_its_mark_says_whatever_its_files_say(tmp_path: Path) -> None:
    mark = next(write_run(tmp_path / "run", 3).rglob("closed.json"))
    noted = json.loads(mark.read_text())
    mark.write_text(json.dumps({**noted, "closed_at": 1e9}))
    assert looked(Follower(tmp_path / "run", clock=lambda: 1e9 + 7200)).status.silent_s == 7200
    for nonsense in ("soon", None, True, -1, 1e300):
        mark.write_text(json.dumps({**noted, "closed_at": nonsense}))
        silent = looked(Follower(tmp_path / "run")).status.silent_s
        assert silent is not None
        assert silent < 600


def test_a_run_that_is_deleted_is_shown_as_it_was_last_seen(growing: GrowingRun) -> None:
    growing.add(4)
    seen = Follower(growing.path)
    seen.poll()
    growing.die()
    shutil.rmtree(growing.path)
    shot = looked(seen)
    assert (shot.status.state, shot.update) == ("deleted", 3)


def test_another_run_in_the_same_place_is_told(tmp_path: Path) -> None:
    seen = Follower(write_run(tmp_path / "run", 8, facts={"run_id": "one"}))
    assert looked(seen).update == 7
    shutil.rmtree(tmp_path / "run")
    write_run(tmp_path / "run", 3, facts={"run_id": "two"})
    shot = looked(seen)
    assert (shot.update, shot.replaced) == (2, True)


def test_a_frame_that_is_written_in_two_halves_is_taken_once_and_whole(growing: GrowingRun) -> None:
    growing.add(2)
    seen = Follower(growing.path)
    growing.add()
    log = next(growing.folder.glob(".wal-*"))
    whole = log.read_bytes()
    log.write_bytes(whole[:-100])
    assert looked(seen).update == 1
    log.write_bytes(whole)
    shot = looked(seen)
    assert (shot.update, shot.losses.files) == (2, ())


def test_a_damaged_shard_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", 6)
    shard = next(path.rglob("heads-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    shot = looked(Follower(path))
    assert shot.update == 5
    assert shot.heads == ()
    assert [file.split()[0] for file in shot.losses.files] == [shard.name]


def test_a_run_file_that_breaks_while_it_is_followed_is_told_and_the_rest_stays(growing: GrowingRun) -> None:
    growing.add(2)
    seen = Follower(growing.path)
    seen.poll()
    (growing.path / "run.json").write_text("{")
    shot = looked(seen)
    assert "run.json" in str(shot.trouble)
    assert shot.update == 1


def test_silence_is_late_only_beyond_what_is_usual(growing: GrowingRun) -> None:
    now = 1e9
    seen = Follower(growing.path, clock=lambda: now)
    growing.add(5)
    seen.poll()
    growing.add(1)
    seen.poll()
    assert snapshot(seen).status.usual_s == pytest.approx(2.0)
    now += 29
    assert not snapshot(seen).status.late
    now += 2
    assert snapshot(seen).status.late


def test_losses_of_data_are_counted_with_the_rows_they_cost(growing: GrowingRun) -> None:
    def lose(update: int, rows: object) -> None:
        assert isinstance(rows, dict)
        rows["losses_of_data"] = [{"update": update, "kind": "dropped", "detail": "disk full", "rows": 3}]

    growing.add(30, lose)
    losses = looked(Follower(growing.path)).losses
    assert (losses.events, losses.rows, len(losses.last)) == (30, 90, 20)


def test_a_rank_can_be_chosen_and_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    growing = GrowingRun(tmp_path / "run", ranks=3)
    growing.add(2)
    other = Store(growing.path, rank=1)
    shot = looked(Follower(growing.path))
    assert (shot.rank, shot.ranks, shot.planned_ranks) == (0, ((0, "running"), (1, "running")), 3)
    assert looked(Follower(growing.path, rank=1)).update is None
    with pytest.raises(UsageError, match="no rank 7"):
        Follower(growing.path, rank=7).poll()
    other.close("closed")


def test_thresholds_that_make_no_sense_do_not_stop_the_view(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", 30, trouble)
    facts = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(facts | {"thresholds": {"kl_spike": "high", "unheard_of": {}}}))
    assert looked(Follower(path)).update == 29


@pytest.mark.parametrize("updates", [0, 1])
def test_a_run_whose_time_for_an_update_is_unknown_hangs_only_after_ten_minutes(tmp_path: Path, updates: int) -> None:
    growing = GrowingRun(tmp_path / "run")
    growing.add(updates)
    now = time.time()
    seen = Follower(growing.path, clock=lambda: now)
    seen.poll()
    touched = seen.news_at or seen.touched
    assert touched is not None
    for silent, late in ((100.0, False), (590.0, False), (700.0, True)):
        now = touched + silent
        words = headline(snapshot(seen))
        assert ("may hang" in words) is late
        assert late or updates or words.endswith("ago: the first update is not complete yet")
