"""Runs and a command runner shared by the command tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from esper_analyze.cli import run
from tests.reports.conftest import trouble
from tests.reports.synthetic import write_run


@dataclass(frozen=True)
class Said:
    """What one command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: object) -> Said:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def _runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "healthy", 30)
    write_run(folder / "troubled", 60, trouble, close=False)
    write_run(folder / "empty", 0)
    return folder


@pytest.fixture
def runs(_runs: Path, tmp_path: Path) -> Path:
    """A fresh copy of three runs: healthy, troubled (never closed) and empty."""
    return Path(shutil.copytree(_runs, tmp_path / "runs"))


@pytest.fixture
def truncated(runs: Path) -> Path:
    """A run whose shard of heads lost its last bytes."""
    shard = next((runs / "troubled").rglob("heads-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    return runs / "troubled"
