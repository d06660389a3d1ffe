"""No command writes into a recorded run, nor over anything but a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands.conftest import Command

COMMANDS = {
    "sql": ("sql", "RUN", "select 1", "--format", "csv", "--out", "OUT"),
    "timeline": ("timeline", "RUN", "--format", "json", "--out", "OUT"),
    "report": ("report", "RUN", "--out", "OUT"),
    "compare": ("compare", "RUN", "OTHER", "--out", "OUT"),
    "export": ("export", "RUN", "--to", "csv", "--table", "updates", "--out", "OUT"),
    "backtest": ("backtest", "RUN", "--figure", "OUT"),
}


def called(words: Sequence[str], run: Path, out: Path) -> list[object]:
    places: dict[str, object] = {"RUN": run, "OTHER": run.parent / "healthy", "OUT": out}
    return [places.get(word, word) for word in words]


def contents(folder: Path) -> dict[Path, bytes]:
    return {one: one.read_bytes() for one in folder.rglob("*") if one.is_file()}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_recorded_run_is_never_written_into(name: str, runs: Path, command: Command) -> None:
    run, link = runs / "troubled", runs / "link"
    link.symlink_to(run / "rank00000")
    before = contents(runs)
    ending = ".png" if name == "backtest" else ""
    for out in (run / f"run.json{ending}", run / f"new{ending}", link / f"new{ending}"):
        said = command(*called(COMMANDS[name], run, out))
        assert said.code == 2
        assert "recorded run" in said.err or "exists" in said.err
        assert contents(runs) == before


def test_a_run_is_not_imported_into_another(runs: Path, command: Command, tmp_path: Path) -> None:
    command("export", runs / "healthy", "--to", "csv", "--out", tmp_path / "tables")
    said = command("import", tmp_path / "tables", "--out", runs / "troubled" / "new")
    assert (said.code, "lies inside a recorded run" in said.err) == (2, True)
    assert not (runs / "troubled" / "new").exists()


@pytest.mark.parametrize("name", ["sql", "timeline", "backtest"])
def test_a_pipe_or_a_link_is_refused_and_stays(name: str, runs: Path, command: Command, tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe.png", tmp_path / "link.png"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "elsewhere")
    for out in (pipe, link):
        said = command(*called(COMMANDS[name], runs / "troubled", out))
        assert (said.code, "is not overwritten" in said.err) == (2, True)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert link.is_symlink()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["report", "compare"])
def test_a_page_takes_the_place_of_no_pipe(name: str, runs: Path, command: Command, tmp_path: Path) -> None:
    out = tmp_path / "page"
    out.mkdir()
    os.mkfifo(out / "index.html")
    said = command(*called(COMMANDS[name], runs / "troubled", out))
    assert (said.code, "no regular file" in said.err) == (2, True)
    assert stat.S_ISFIFO((out / "index.html").lstat().st_mode)
