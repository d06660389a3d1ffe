"""run.json: what it says by itself, what may stand in it, and of which checkout."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esper_analyze.schema import VERSION
from recorder.store.run_file import RunExistsError, create_run, plain


def test_a_run_of_which_nothing_is_told_says_what_is_known_of_itself(tmp_path: Path) -> None:
    before = time.time()
    written = create_run(tmp_path / "deep" / "run", {})
    read = json.loads((tmp_path / "deep" / "run" / "run.json").read_text())
    assert read == json.loads(json.dumps(written))
    assert (read["schema_version"], read["ranks"]) == (VERSION, 1)
    assert before <= read["created"] <= time.time()
    assert len(read["run_id"]) == 32
    assert read["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "numpy"} <= set(read["versions"])
    other = create_run(tmp_path / "other", {"ranks": 4, "name": "x"})
    assert (other["ranks"], other["name"]) == (4, "x")
    assert other["run_id"] != read["run_id"]


def test_a_directory_with_a_run_is_left_as_it_is(tmp_path: Path) -> None:
    create_run(tmp_path, {"name": "first"})
    text = (tmp_path / "run.json").read_text()
    with pytest.raises(RunExistsError, match="already holds a run"):
        create_run(tmp_path, {"name": "second"})
    assert (tmp_path / "run.json").read_text() == text


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        (0.5, 0.5),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ("x", "x"),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([2.5]), 2.5),
        (np.array([math.inf]), "inf"),
        (np.array([1, 2]), "[1 2]"),
        ({1: (2, [math.nan])}, {"1": [2, ["nan"]]}),
        (Path("a/b"), "a/b"),
    ],
)
def test_facts_are_told_as_strict_json_can_hold_them(value: object, told: object) -> None:
    found = plain(value)
    assert found == told
    assert type(found) is type(told)


A, B = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("files", "commit"),
    [
        ({"HEAD": f"{A}\n"}, A),
        ({"HEAD": "ref: refs/heads/main\n", "refs/heads/main": f"{A}\n"}, A),
        ({"HEAD": "ref: refs/heads/main\n", "packed-refs": f"# pack\n{B} refs/heads/other\n{A} refs/heads/main\n"}, A),
        ({"HEAD": "ref: refs/heads/main\n", "packed-refs": f"{A} refs/heads/my/refs/heads/mai\n"}, None),
        ({"HEAD": "ref: refs/heads/main\n"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("below", [".", "sub/folder"])
def test_the_commit_is_that_of_the_checkout_around(
    files: dict[str, str], commit: str | None, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        path = tmp_path / "checkout" / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    start = tmp_path / "checkout" / below
    start.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(start)
    found: Any = create_run(tmp_path / "run", {})["git_commit"]
    assert found == commit
