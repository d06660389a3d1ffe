"""How an attempt ended, by the files in its folder; files that are odd count as missing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from esper_analyze.runs.ending import TrainingEnd, training_end
from esper_analyze.storage import layout
from esper_analyze.storage.attempt_end import MOST_LINES, SURVIVED, AttemptEnd, Death, End, attempt_end

TRACEBACK = "Fatal Python error: {}\n\nThread 0x1:\n  File a\n\nCurrent thread 0x2:\n  File b\n"
KILLED = {"kind": "killed", "signal": "SIGKILL", "out_of_memory": False, "at": 5e8, "uptime_s": 11_520.0}


def dead(folder: Path, **facts: object) -> AttemptEnd:
    (folder / layout.ENDED_FILE).write_text(json.dumps(KILLED | facts))
    return attempt_end(folder, None, alive=False)


def account(end: AttemptEnd) -> str:
    return training_end(end, 812).account


@pytest.mark.parametrize(
    ("facts", "end", "headline"),
    [
        ({}, End.UNCLOSED, "The training was killed by SIGKILL after update 812"),
        (
            {"signal": None},
            End.UNCLOSED,
            "The training was killed (by which signal is not known; not for lack of memory)",
        ),
        (
            {"signal": None, "out_of_memory": None},
            End.UNCLOSED,
            "The training was killed (SIGKILL or out of memory is not known) after update 812",
        ),
        ({"signal": "SIGHUP"}, End.UNCLOSED, "The training was killed by SIGHUP (its terminal was closed)"),
        ({"signal": "SIGTERM"}, End.PREEMPTED, "The training was stopped by SIGTERM after update 812"),
        ({"signal": "SIGINT"}, End.STOPPED, "The training was stopped by Ctrl-C after update 812"),
        (
            {"kind": "out_of_memory"},
            End.OUT_OF_MEMORY,
            "The training ran out of memory and was killed after update 812",
        ),
        (
            {"kind": "fatal_signal", "signal": "SIGSEGV"},
            End.FATAL_SIGNAL,
            "The training died of SIGSEGV (segmentation fault) after update 812",
        ),
        ({"kind": "exited", "exit_code": 3}, End.DIED, "The training died of exit code 3 after update 812"),
        ({"kind": "exited", "exit_code": 0, "signal": None}, End.UNCLOSED, "The training ended without closing"),
    ],
)
def test_the_first_sentence_says_what_it_died_of_and_when(
    tmp_path: Path, facts: dict[str, object], end: End, headline: str
) -> None:
    ended = dead(tmp_path, **facts)
    assert ended.end is end
    assert account(ended).startswith(headline)
    assert ", 3.2 h after the recording began." in account(ended)


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    assert "The kernel did not do it for lack of memory." in account(dead(tmp_path))
    assert "Whether for lack of memory is not known." in account(dead(tmp_path, out_of_memory=None))
    assert "Its memory had reached 31.4 GB." in account(dead(tmp_path, peak_rss_bytes=31_400_000_000))
    assert "It had stalled for 12 min." in account(dead(tmp_path, stalled_since=5e8 - 720))
    elsewhere = account(dead(tmp_path, kind="fatal_signal", signal="SIGSEGV", traceback="elsewhere"))
    assert "Its traceback went where its own faulthandler writes, by default to stderr." in elsewhere


def test_a_marker_counts_before_everything_else(tmp_path: Path) -> None:
    dead(tmp_path)
    assert attempt_end(tmp_path, {"reason": "closed"}, alive=False) == AttemptEnd(End.CLOSED)
    assert attempt_end(tmp_path, {"reason": "ValueError: no"}, alive=False) == AttemptEnd(End.DIED, "ValueError: no")
    repaired: dict[str, object] = {"reason": layout.REPAIRED, "before": None}
    assert account(attempt_end(tmp_path, repaired, alive=False)).startswith("The training was killed by SIGKILL")
    assert attempt_end(tmp_path, repaired | {"before": "SIGTERM"}, alive=False) == AttemptEnd(End.PREEMPTED)


def test_a_run_without_the_new_files_is_killed_or_running_as_before(tmp_path: Path) -> None:
    assert attempt_end(tmp_path, None, alive=False) == AttemptEnd(End.UNCLOSED)
    assert attempt_end(tmp_path, None, alive=True) == AttemptEnd(End.RUNNING)
    assert attempt_end(tmp_path / "missing", None, alive=False) == AttemptEnd(End.UNCLOSED)
    assert TrainingEnd(End.UNCLOSED, "", 4).status == "not closed, last complete update 4"
    assert TrainingEnd(End.UNCLOSED, "", 4).account == ""


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", "[" * 100_000, '{"kind": 3}', '{"kind": "alien"}', "\x00", '{"kind": "killed", "at": "x"}'],
)
def test_an_odd_note_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / layout.ENDED_FILE).write_text(content)
    (tmp_path / layout.STALLED_FILE).write_text(content)
    ended = attempt_end(tmp_path, None, alive=False)
    assert ended.end is End.UNCLOSED
    assert ended.death in (None, Death())
    assert attempt_end(tmp_path, None, alive=True) == AttemptEnd(End.RUNNING)


def test_hostile_cells_are_not_believed(tmp_path: Path) -> None:
    death = dead(
        tmp_path, signal="\x1b[2J", at=1e300, uptime_s=-1, peak_rss_bytes=1 << 70, host=3, exit_code=True
    ).death
    assert death == Death(out_of_memory=False)


def test_links_and_fifos_are_not_opened(tmp_path: Path) -> None:
    for name in layout.ENDING_FILES:
        os.mkfifo(tmp_path / name)
    assert attempt_end(tmp_path, None, alive=False) == AttemptEnd(End.UNCLOSED)
    assert attempt_end(tmp_path, None, alive=True) == AttemptEnd(End.RUNNING)


@pytest.mark.parametrize(
    ("title", "name"), [("Segmentation fault", "SIGSEGV"), ("Aborted", "SIGABRT"), ("something new", None)]
)
def test_a_traceback_alone_tells_of_a_fatal_signal(tmp_path: Path, title: str, name: str | None) -> None:
    path = tmp_path / layout.FAULT_FILE
    path.write_text("")
    assert attempt_end(tmp_path, None, alive=False).end is End.UNCLOSED
    path.write_text(TRACEBACK.format(title))
    ended = attempt_end(tmp_path, None, alive=False)
    assert ended.death is not None
    assert (ended.end, ended.death.signal) == (End.FATAL_SIGNAL, name)
    assert ended.death.traceback.splitlines()[2:4] == ["Current thread 0x2:", "  File b"]


def test_a_traceback_that_the_training_survived_is_not_its_own(tmp_path: Path) -> None:
    fault, log = tmp_path / layout.FAULT_FILE, tmp_path / layout.log_name(1)
    fault.write_text(TRACEBACK.format("Aborted"))
    log.write_text("x")
    os.utime(fault, (1e9, 1e9))
    os.utime(log, (1e9 + SURVIVED, 1e9 + SURVIVED))
    assert attempt_end(tmp_path, None, alive=False).end is End.FATAL_SIGNAL
    os.utime(log, (1e9 + SURVIVED + 1, 1e9 + SURVIVED + 1))
    assert attempt_end(tmp_path, None, alive=False).end is End.UNCLOSED


def test_a_long_traceback_is_cut_and_counted(tmp_path: Path) -> None:
    (tmp_path / layout.FAULT_FILE).write_text(TRACEBACK.format("Aborted") + "  File c\n" * MOST_LINES)
    death = attempt_end(tmp_path, None, alive=False).death
    assert death is not None
    assert len(death.traceback.splitlines()) == MOST_LINES + 1
    assert death.traceback.endswith(" more lines in fatal_signal.txt")


def test_a_stall_lasts_until_the_log_grows(tmp_path: Path) -> None:
    log, facts = tmp_path / layout.log_name(2), {"since": 1e9, "log_number": 2, "log_bytes": 3, "suspended": True}
    (tmp_path / layout.STALLED_FILE).write_text(json.dumps(facts))
    log.write_text("xxx")
    stalled = attempt_end(tmp_path, None, alive=True)
    assert stalled == AttemptEnd(End.RUNNING, stalled_since=1e9, suspended=True)
    shown = training_end(stalled, 7, now=1e9 + 720)
    assert (shown.state, shown.status) == ("suspended for 12 min", "suspended for 12 min, last complete update 7")
    assert attempt_end(tmp_path, None, alive=False) == AttemptEnd(End.UNCLOSED), "a dead one has not stalled"
    log.write_text("xxxx")
    assert attempt_end(tmp_path, None, alive=True) == AttemptEnd(End.RUNNING)
    log.unlink()
    assert attempt_end(tmp_path, None, alive=True).stalled_since == 1e9, "sealed"
    (tmp_path / layout.log_name(3)).write_text("")
    assert attempt_end(tmp_path, None, alive=True) == AttemptEnd(End.RUNNING)
