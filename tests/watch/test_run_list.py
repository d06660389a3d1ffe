"""A list of runs shows what is being written and what ended lately, and reads no more than that."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from esper_analyze.replay.evidence import gather
from esper_analyze.reports.listing import summarise
from esper_analyze.reports.narrative import story as stories
from esper_analyze.reports.narrative.story import Story
from esper_analyze.reports.page import page
from esper_analyze.runs.run import open_run
from esper_analyze.watch import run_list
from esper_analyze.watch.follow import Follower
from esper_analyze.watch.panels import printed, sections
from esper_analyze.watch.run_lines import list_sections
from esper_analyze.watch.run_list import LATELY, MOST_ENDED, RunLines, RunList
from esper_analyze.watch.snapshot import snapshot
from recorder.store.run_file import create_run
from tests.reports.conftest import trouble
from tests.reports.synthetic import write_run
from tests.watch.growing import GrowingRun

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"
LATER = 60.0
"""Seconds after which a change of a folder cannot share its modification time with an earlier one."""


class AheadClock:
    """Seconds of the epoch, ahead of the real ones by as much as a test likes."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> AheadClock:
    return AheadClock()


@pytest.fixture
def polled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that were read, one for each poll."""
    names: list[str] = []

    class Counted(Follower):
        def poll(self) -> None:
            names.append(self.path.name)
            super().poll()

    monkeypatch.setattr(run_list, "Follower", Counted)
    return names


@pytest.fixture
def sound(tmp_path: Path) -> Iterator[GrowingRun]:
    growing = GrowingRun(tmp_path / "runs" / "sound")
    growing.add(20)
    yield growing
    growing.die()


def ended_at(path: Path, moment: float) -> Path:
    """Let a run have ended at ``moment``."""
    mark = next(path.rglob("closed.json"))
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "closed_at": moment}))
    return path


def text_of(lines: RunLines, width: int = 80) -> str:
    return "\n".join(line.plain for line in printed(list_sections(lines, width), width))


def test_running_runs_are_listed_with_what_is_known_of_them_the_worst_first(sound: GrowingRun) -> None:
    folder = sound.path.parent
    bad = GrowingRun(folder / "sweep" / "troubled")
    bad.add(60, trouble)
    lines = RunList([folder]).poll()
    assert [(line.name, line.state) for line in lines.running] == [("sweep/troubled", "running"), ("sound", "running")]
    first, second = lines.running
    assert first.worst is not None
    assert (first.verdict, first.worst.verdict, first.update) == ("warning", "warning", 59)
    assert (second.verdict, second.worst, second.update, second.planned) == ("ok", None, 19, 200)
    assert second.progress == pytest.approx(0.1)
    said = text_of(lines)
    assert "2 runs are being written" in said
    assert f"{first.worst.start} {first.worst.rule}"[:20] in said
    bad.die()


def test_a_run_that_ended_stands_in_the_list_as_ls_says(tmp_path: Path) -> None:
    path = write_run(tmp_path / "sound", 60)
    (died,) = RunList([write_run(tmp_path / "died", 60, reason="ValueError: no")]).poll().ended
    (ended,) = RunList([path]).poll().ended
    assert (ended.verdict, died.verdict) == (summarise(path).verdict, summarise(tmp_path / "died").verdict)
    assert (ended.state, died.state) == ("ended", "crashed")


@pytest.mark.parametrize("path", sorted(SAMPLES.iterdir()), ids=lambda path: path.name)
def test_an_incident_that_was_cleared_counts_once_the_run_has_ended(tmp_path: Path, path: Path) -> None:
    copied = ended_at(Path(shutil.copytree(path, tmp_path / path.name)), time.time())
    (ended,), summary = RunList([copied]).poll().ended, summarise(copied)
    assert ended.verdict == summary.verdict
    worst = None if ended.worst is None else ended.worst.verdict
    assert worst == (None if summary.worst is None else summary.worst["verdict"])


def test_runs_that_ended_long_ago_are_counted_and_never_read(
    tmp_path: Path, polled: list[str], clock: AheadClock
) -> None:
    for index in range(3):
        ended_at(write_run(tmp_path / f"old_{index}", 2), clock() - LATELY - 5)
    ended_at(write_run(tmp_path / "new", 2), clock() - LATELY + 50)
    runs = RunList([tmp_path], clock)
    for _ in range(3):
        lines = runs.poll()
        assert ([line.name for line in lines.ended], lines.ended_lately, lines.ended_earlier) == (["new"], 1, 3)
    assert polled == ["new"]
    assert f"3 ended earlier: esper-analyze ls {tmp_path}" in text_of(lines, 200)


def test_of_many_runs_that_ended_lately_a_few_are_read_those_that_died_first(
    tmp_path: Path, polled: list[str], clock: AheadClock
) -> None:
    template = write_run(tmp_path / "run_0", 2)
    for index in range(1, 12):
        shutil.copytree(template, tmp_path / f"run_{index}")
    for index in range(12):
        ended_at(tmp_path / f"run_{index}", clock() - 100 * index)
    write_run(tmp_path / "died", 2, reason="ValueError: no")
    ended_at(tmp_path / "died", clock() - 3000)
    runs = RunList([tmp_path], clock)
    lines = runs.poll()
    runs.poll()
    assert [line.name for line in lines.ended] == ["died", *(f"run_{index}" for index in range(MOST_ENDED - 1))]
    assert len(polled) == MOST_ENDED
    assert f"{13 - MOST_ENDED} more ended lately: esper-analyze ls" in text_of(lines)
    assert "13 ended lately, 1 of them died" in text_of(lines)


def test_a_run_that_ends_while_it_is_watched_stays_in_the_list_with_its_last_update(
    sound: GrowingRun, clock: AheadClock
) -> None:
    runs = RunList([sound.path.parent], clock)
    runs.poll()
    sound.add(2)
    sound.store.close("closed")
    lines = runs.poll()
    assert (lines.running, [(line.name, line.state, line.update) for line in lines.ended]) == (
        (),
        [("sound", "ended", 21)],
    )
    clock.ahead = 5 * LATELY
    (line,) = runs.poll().ended
    assert line.silent_s == pytest.approx(5 * LATELY, abs=LATER)
    assert "5.0 h ago" in text_of(runs.poll())


def test_a_run_that_is_resumed_is_running_again(sound: GrowingRun, clock: AheadClock) -> None:
    runs = RunList([sound.path.parent], clock)
    sound.die()
    clock.ahead = LATER
    assert [line.state for line in runs.poll().ended] == ["crashed"]
    sound.resume(sound.next)
    sound.add(3)
    lines = runs.poll()
    assert ([(line.state, line.update) for line in lines.running], lines.ended) == ([("running", 22)], ())


def test_a_run_that_begins_is_listed_once_it_has_a_writer_and_one_that_is_deleted_is_gone(
    sound: GrowingRun, clock: AheadClock
) -> None:
    folder = sound.path.parent
    runs = RunList([folder], clock)
    create_run(folder / "young", {"name": "young"})
    assert [line.name for line in runs.poll().shown] == ["sound"]
    assert "being written" in text_of(runs.poll())
    shutil.rmtree(folder / "young")
    young = GrowingRun(folder / "young")
    assert sorted(line.name for line in runs.poll().running) == ["sound", "young"]
    young.die()
    shutil.rmtree(young.path)
    assert [line.name for line in runs.poll().shown] == ["sound"]


def test_a_run_that_cannot_be_read_is_named_and_hides_no_other(sound: GrowingRun) -> None:
    damaged = write_run(sound.path.parent / "damaged", 6)
    shard = next(damaged.rglob("heads-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    broken = GrowingRun(sound.path.parent / "broken")
    (broken.path / "run.json").write_text("{")
    runs = RunList([sound.path.parent])
    for _ in range(2):
        lines = runs.poll()
        assert [(line.name, line.state) for line in lines.running] == [("broken", "damaged"), ("sound", "running")]
        assert [(line.name, line.update) for line in lines.ended] == [("damaged", 5)]
        assert [line.name for line in lines.shown if line.fault] == ["broken", "damaged"]
    assert shard.name in text_of(lines, 200)
    broken.die()


def test_a_late_run_is_a_warning_and_says_since_when(sound: GrowingRun, clock: AheadClock) -> None:
    runs = RunList([sound.path], clock)
    assert [line.verdict for line in runs.poll().running] == ["ok"]
    clock.ahead = 500.0
    (line,) = runs.poll().running
    assert (line.late, line.verdict) == (True, "warning")
    assert "! late" in text_of(runs.poll())
    assert "8.3 min ago" in text_of(runs.poll())


def test_runs_are_named_relative_to_what_is_watched(sound: GrowingRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sound.path.parent
    other = write_run(folder / "deep" / "other", 2)

    def names(*paths: Path) -> list[str]:
        return [line.name for line in RunList(paths).poll().shown]

    assert names(folder) == ["sound", "deep/other"]
    assert names(sound.path, other) == ["sound", "deep/other"]
    assert names(sound.path, sound.path) == ["sound"]
    monkeypatch.chdir(folder.parent)
    assert names(Path("runs/so*")) == ["runs/sound"]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_screen_and_names_do_no_harm(width: int, sound: GrowingRun) -> None:
    folder = sound.path.parent
    wide = GrowingRun(folder / ("漢字" * 30))
    wide.add(60, trouble)
    write_run(folder / "esc\x1b[2J", 2, reason="ValueError: \x1b]0;x\x07 " + "long " * 50)
    lines = printed(list_sections(RunList([folder]).poll(), width), width)
    assert max(line.cell_len for line in lines[2:]) <= width
    assert not {"\x1b", "\x07"} & set("".join(line.plain for line in lines))
    wide.die()


def test_at_80_columns_a_line_has_run_update_share_return_time_and_incident(tmp_path: Path) -> None:
    growing = GrowingRun(tmp_path / "a_run_with_a_long_name_that_ends_in_seed_7")
    growing.add(60, trouble)
    lines = RunList([tmp_path]).poll()
    row = text_of(lines).splitlines()[-1]
    worst = lines.running[0].worst
    assert worst is not None
    for words in ("! running", "_seed_7 ", " 59 ", " 30 % ", " min ", f" {worst.start} {worst.rule[:14]}"):
        assert words in row
    growing.die()


def test_a_run_that_has_stalled_says_so_wherever_it_is_shown_until_it_goes_on(sound: GrowingRun) -> None:
    runs, log = RunList([sound.path]), max(sound.folder.glob(".wal-*"))
    note = {"since": time.time() - 720, "log_number": int(log.name[-6:]), "log_bytes": log.stat().st_size}
    (sound.folder / "stalled.json").write_text(json.dumps(note))
    (line,) = runs.poll().running
    assert (line.late, line.verdict) == (True, "warning")
    assert line.stalled_s == pytest.approx(720, abs=60)
    assert "! stalled" in text_of(runs.poll())
    follower = Follower(sound.path)
    follower.poll()
    shown = "\n".join(line.plain for line in printed(sections(snapshot(follower), 80), 80))
    assert " STALLED " in shown
    assert "stalled 12 min, an update usually takes" in shown
    summary = summarise(sound.path)
    assert (summary.ended, summary.verdict, summary.label) == ("stalled", "warning", "stalled")
    assert "The training lives and has stored nothing for 12 min: it may hang." in story_of(sound.path).paragraph
    sound.add()
    (line,) = runs.poll().running
    assert (line.late, line.stalled_s, line.verdict) == (False, None, "ok")
    assert summarise(sound.path).ended == "running"


def test_what_a_training_died_of_is_said_once_it_is_noted(sound: GrowingRun) -> None:
    runs = RunList([sound.path])
    sound.die()
    (line,) = runs.poll().ended
    assert (line.state, line.why, line.verdict) == (
        "crashed",
        "its writer is gone and did not close the run",
        "warning",
    )
    note = {"kind": "fatal_signal", "signal": "SIGSEGV", "at": time.time(), "uptime_s": 60}
    (sound.folder / "ended.json").write_text(json.dumps(note))
    (sound.folder / "fatal_signal.txt").write_text("Fatal Python error: Segmentation fault\n\nCurrent thread <b>\n")
    (line,) = runs.poll().ended
    assert (line.state, line.why, line.verdict) == ("crashed", "SIGSEGV", "critical")
    summary = summarise(sound.path)
    assert (summary.ended, summary.verdict, summary.label) == ("SIGSEGV", "critical", "died")
    story = story_of(sound.path)
    assert story.headline.startswith("The training died of SIGSEGV (segmentation fault) after update 19")
    assert "after update 19, 60 s after the recording began." in story.paragraph
    page = report_text(sound.path)
    assert "<summary>Traceback of the fatal signal</summary>" in page
    assert "Current thread &lt;b&gt;" in page


def story_of(path: Path) -> Story:
    return stories.frame(gather(open_run(path)))


def report_text(path: Path) -> str:
    evidence = gather(open_run(path))
    return page(evidence, [], stories.frame(evidence))
