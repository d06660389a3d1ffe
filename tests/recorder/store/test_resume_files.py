"""What a rank recorded before, read from attempts made by hand; which facts must agree."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from esper_analyze.schema import VERSION
from esper_analyze.storage.layout import ShardEntry, log_name
from esper_analyze.storage.log_frames import MAGIC, encode
from recorder.store.resume import EarlierAttempts, ResumeError, begin, check_identity, earlier_attempts
from recorder.store.run_file import RunExistsError, create_run
from recorder.store.store import Store

FACTS: dict[str, Any] = {"ranks": 1, "heads": {"op": 3}, "groups": ["all"], "parameters": 7, "level": "NORMAL"}


def attempt(run_dir: Path, number: int, *, sealed: list[int] | None = None, logged: list[int] | None = None) -> Path:
    """Make the folder of an attempt whose manifest or log names updates."""
    folder = run_dir / "rank00000" / f"attempt-{number:04d}-0123abcd"
    folder.mkdir(parents=True)
    lines = [
        ShardEntry(f"updates-{n:06d}.parquet", "updates", n, 9, 0, 1, 0, 0, last, last, VERSION).as_line()
        for n, last in enumerate(sealed or [])
    ]
    lines.append(ShardEntry("steps-000009.parquet", "steps", 9, 9, 0, 1, 0, 0, 99, 99, VERSION).as_line())
    if sealed is not None:
        (folder / "manifest.jsonl").write_bytes(b"".join(lines))
    if logged is not None:
        rows = encode({"updates": (0, [{"update": n} for n in logged]), "steps": (9, [{"update": 77}])})
        (folder / log_name(3)).write_bytes(MAGIC + rows)
    return folder


def test_a_rank_that_recorded_nothing_begins_at_the_beginning(tmp_path: Path) -> None:
    assert earlier_attempts(tmp_path, 0) == EarlierAttempts(0, -1)
    (tmp_path / "rank00000").mkdir()
    (tmp_path / "rank00000" / "notes").mkdir()
    assert earlier_attempts(tmp_path, 0) == EarlierAttempts(0, -1)
    attempt(tmp_path, 0)
    assert earlier_attempts(tmp_path, 0) == EarlierAttempts(1, -1)
    assert earlier_attempts(tmp_path, 1) == EarlierAttempts(0, -1)


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ({0: {"sealed": [3, 5, 4]}}, EarlierAttempts(1, 5)),
        ({0: {"logged": [6, 7]}}, EarlierAttempts(1, 7)),
        ({0: {"sealed": [3], "logged": [4, 5]}}, EarlierAttempts(1, 5)),
        ({0: {"sealed": [8], "logged": [4, 5]}}, EarlierAttempts(1, 8)),
        ({0: {"sealed": [9]}, 1: {"sealed": [4]}, 2: {"logged": [5]}}, EarlierAttempts(3, 9)),
        ({4: {"sealed": [0]}, 2: {"sealed": []}}, EarlierAttempts(5, 0)),
    ],
)
def test_the_next_attempt_follows_the_last_and_the_last_update_is_that_of_any(
    attempts: Mapping[int, Any], expected: EarlierAttempts, tmp_path: Path
) -> None:
    for number, made in attempts.items():
        attempt(tmp_path, number, **made)
    assert earlier_attempts(tmp_path, 0) == expected


def test_damage_costs_no_more_than_what_is_damaged(tmp_path: Path) -> None:
    folder = attempt(tmp_path, 0, sealed=[3, 5], logged=[6])
    lines = (folder / "manifest.jsonl").read_bytes().split(b"\n")
    (folder / "manifest.jsonl").write_bytes(b"\n".join([lines[0], lines[1].replace(b"5", b"6"), b'{"shard": "upd']))
    assert earlier_attempts(tmp_path, 0) == EarlierAttempts(1, 6)
    log = folder / log_name(3)
    log.write_bytes(log.read_bytes()[:-1])
    assert earlier_attempts(tmp_path, 0) == EarlierAttempts(1, 3)
    (folder / "manifest.jsonl").unlink()
    assert earlier_attempts(tmp_path, 0) == EarlierAttempts(1, -1)


def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    folder = attempt(tmp_path, 0, sealed=[3])
    (folder / "manifest.jsonl").unlink()
    (folder / "manifest.jsonl").mkdir()
    with pytest.raises(ResumeError, match=r"manifest.jsonl.*move it away, or record into a new directory"):
        earlier_attempts(tmp_path, 0)


def test_a_run_is_made_joined_or_gone_on_with(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert begin(run, 0, FACTS, resume=True) == EarlierAttempts(0, -1)
    with pytest.raises(RunExistsError):
        begin(run, 0, FACTS, resume=False)
    assert begin(run, 0, FACTS, resume=True) == EarlierAttempts(0, -1), "made, and nothing recorded yet"
    attempt(run, 0, sealed=[4])
    assert begin(run, 0, FACTS, resume=True) == EarlierAttempts(1, 4)
    with pytest.raises(RunExistsError):
        begin(run, 0, FACTS, resume=False)
    several = FACTS | {"ranks": 2}
    other = tmp_path / "several"
    assert begin(other, 0, several, resume=False) == EarlierAttempts(0, -1)
    assert begin(other, 1, several, resume=False) == EarlierAttempts(0, -1), "another rank has just made it"
    (other / "rank00001" / "attempt-0000-0123abcd").mkdir(parents=True)
    with pytest.raises(RunExistsError):
        begin(other, 1, several, resume=False)
    with pytest.raises(ResumeError, match="ranks: 2 before, 3 now"):
        begin(other, 1, FACTS | {"ranks": 3}, resume=True)


@pytest.mark.parametrize(
    ("earlier", "now", "agree"),
    [
        ({}, {}, True),
        ({}, {"level": "DEBUG"}, False),
        ({}, {"parameters": 8}, False),
        ({}, {"groups": ["all", "actor"]}, False),
        ({}, {"heads": {"op": 4}}, False),
        ({}, {"heads": {"op": None}}, True),
        ({"heads": {"op": None}}, {}, True),
        ({}, {"heads": {"slot": 3}}, False),
        ({"heads": {"op": 3, "slot": 2}}, {"heads": {"slot": 2, "op": 3}}, True),
        ({}, {"name": "another", "notes": "n"}, True),
        ({"custom_rules": {"file": "a.py", "digest": 1}}, {"custom_rules": {"file": "b.py", "digest": 1}}, True),
        ({"custom_rules": {"file": "a.py", "digest": 1}}, {"custom_rules": {"file": "a.py", "digest": 2}}, False),
        ({"thresholds": {"kl_spike": {"warning": 0.1}}}, {"thresholds": {"kl_spike": {"warning": 0.2}}}, False),
    ],
)
def test_what_a_run_says_once_must_agree(
    earlier: dict[str, Any], now: dict[str, Any], agree: bool, tmp_path: Path
) -> None:
    create_run(tmp_path, FACTS | earlier)
    if agree:
        assert check_identity(tmp_path, FACTS | now)["run_id"]
        return
    (name,) = now
    with pytest.raises(ResumeError, match=f"was recorded with other settings .{name}: "):
        check_identity(tmp_path, FACTS | now)


def test_every_fact_that_differs_is_named_and_none_at_length(tmp_path: Path) -> None:
    create_run(tmp_path, FACTS | {"groups": [f"group{n}" for n in range(40)]})
    with pytest.raises(ResumeError) as caught:
        check_identity(tmp_path, FACTS | {"level": "DEBUG"})
    message = str(caught.value)
    assert "groups: " in message
    assert 'level: "NORMAL" before, "DEBUG" now' in message
    assert "…" in message
    assert len(message) < 400


@pytest.mark.parametrize("length", [78, 79])
def test_a_fact_of_up_to_80_characters_is_told_whole(length: int, tmp_path: Path) -> None:
    create_run(tmp_path, FACTS | {"level": "x" * length})
    with pytest.raises(ResumeError) as caught:
        check_identity(tmp_path, FACTS)
    told = f'"{"x" * length}"'
    assert (told in str(caught.value)) is (len(told) <= 80)
    if len(told) > 80:
        assert f"{told[:77]}… before" in str(caught.value)


@pytest.mark.parametrize(("version", "refused"), [("1.0", False), (VERSION, False), ("1.99", True), ("none", True)])
def test_only_what_this_recorder_can_read_is_gone_on_with(version: str, refused: bool, tmp_path: Path) -> None:
    create_run(tmp_path, FACTS | {"schema_version": version})
    if not refused:
        assert check_identity(tmp_path, FACTS)
        return
    with pytest.raises(ResumeError, match=f"has schema {version}, this recorder writes {VERSION}: use a new directory"):
        check_identity(tmp_path, FACTS)


@pytest.mark.parametrize("text", ["", "[", "null", "3"])
def test_a_run_file_that_says_nothing_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ResumeError, match="cannot be read, so the run cannot be resumed"):
        check_identity(tmp_path, FACTS)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize(
    ("kind", "agree"), [("parameters_added", True), ("parameters_removed", True), ("other", False)]
)
def test_parameters_that_came_or_went_in_the_training_excuse_other_groups(
    kind: str, agree: bool, sealed: bool, tmp_path: Path
) -> None:
    create_run(tmp_path, FACTS)
    store = Store(tmp_path, rank=0)
    store.put({"events": [{"update": 0, "kind": kind, "subject": "x", "detail": "y"}]})
    store.flush() if sealed else store.settle(10.0)
    changed = FACTS | {"groups": ["all", "new"], "parameters": 9}
    if agree:
        assert check_identity(tmp_path, changed)
        with pytest.raises(ResumeError, match="level"):
            check_identity(tmp_path, changed | {"level": "DEBUG"})
    else:
        with pytest.raises(ResumeError, match=r"groups: .*; parameters: "):
            check_identity(tmp_path, changed)
    store.close("closed")
    assert json.loads((store.folder / "closed.json").read_text())["lost_rows"] == 0
