"""``verify``, ``repair`` and ``compact`` from the command line: words, exit codes, strict JSON, no traceback."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from recorder.store.run_file import create_run
from recorder.store.store import Store
from tests.commands.conftest import Command
from tests.runs.stored import files, folder, write

SHARD = "heads-000002.parquet"


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    return write(tmp_path / "killed", close=False)


def spoil(run: Path) -> None:
    path = folder(run) / SHARD
    path.write_bytes(path.read_bytes()[:-3])


def test_a_killed_run_is_fine_then_repaired_then_compacted_and_replay_says_the_same(
    command: Command, killed: Path
) -> None:
    said = command("verify", killed)
    assert (said.code, said.err) == (0, "")
    assert "fine; not closed, last complete update 13" in said.out
    said = command("compact", killed)
    assert said.code == 3
    assert "`repair` seals them" in said.err
    before = files(killed)
    assert "would be repaired" in command("repair", killed, "--dry-run").out
    assert files(killed) == before
    assert "complete rows of the log" in command("repair", killed).out
    assert command("repair", killed).out == f"{killed}: nothing to repair\n"
    shards = len(list(killed.rglob("*.parquet")))
    said = command("compact", killed)
    assert said.code == 0
    assert f"{shards} shards" in said.out
    assert "6 shards" in said.out
    assert "repaired" in command("ls", killed, "--wide").out
    assert command("verify", killed).code == 0
    assert command("replay", killed, "--verify").code == 0


def test_a_damaged_run_is_named_with_file_table_rows_and_reason(command: Command, killed: Path) -> None:
    spoil(killed)
    said = command("verify", killed)
    assert said.code == 3
    for word in ("DAMAGED, 1 fault", "damage", SHARD, "heads", " 8 ", "bytes, the manifest says"):
        assert word in said.out
    assert said.err == "the run is damaged\n"
    facts = json.loads(command("verify", killed, "--json").out, parse_constant=pytest.fail)
    assert facts[0]["fine"] is False
    assert facts[0]["faults"][0] | {"reason": ""} == {
        "kind": "damage",
        "file": f"rank00000/{folder(killed).name}/{SHARD}",
        "reason": "",
        "table": "heads",
        "rows": 8,
        "rank": 0,
        "attempt": 0,
    }


def test_repair_and_compact_as_json_are_strict(command: Command, killed: Path) -> None:
    spoil(killed)
    planned = json.loads(command("repair", killed, "--dry-run", "--json").out)
    done = json.loads(command("repair", killed, "--json").out)
    assert planned["acts"] == done["acts"]
    assert {"seal", "set aside", "close"} <= {act["what"] for act in done["acts"]}
    joined = json.loads(command("compact", killed, "--json").out)
    assert joined["rows"][0] == joined["rows"][1]


@pytest.mark.parametrize("name", ["repair", "compact"])
def test_a_run_that_is_written_is_refused(name: str, command: Command, tmp_path: Path) -> None:
    create_run(tmp_path, {"name": "x"})
    store = Store(tmp_path)
    said = command(name, tmp_path)
    store.close("closed")
    assert said.code == 2
    assert "is being written by pid" in said.err
    assert " on " in said.err


def test_several_runs_are_checked_and_one_bad_one_hides_no_other(command: Command, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / name, updates=2)
    (tmp_path / "b" / "run.json").write_text(json.dumps({"schema_version": "99.0"}))
    said = command("verify", tmp_path)
    assert said.code == 2
    assert said.out.count(": fine; ") == 2
    assert "was recorded with schema 99.0" in said.err
    (tmp_path / "c" / "run.json").unlink()
    said = command("verify", tmp_path / "a", tmp_path / "c")
    assert said.code == 3
    assert "run.json" in said.out


@pytest.mark.parametrize("name", ["verify", "repair", "compact"])
def test_what_is_no_run_is_wrong_use(name: str, command: Command, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        said = command(name, path)
        assert (said.code, said.out) == (2, "")
        assert said.err.count("\n") == 1


def test_no_harm_brings_a_traceback(command: Command, tmp_path: Path) -> None:
    rng = random.Random(5)
    for number in range(12):
        run = write(tmp_path / str(number), close=bool(number % 2))
        for path in rng.sample([*sorted(folder(run).iterdir()), run / "run.json"], 4):
            data = bytearray(path.read_bytes() or b"x")
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(data[: rng.randrange(len(data)) + 1])
        for name in ("verify", "repair", "verify", "compact"):
            said = command(name, run)
            assert said.code in (0, 2, 3), said.err
            assert "Traceback" not in said.err
