"""A command runner, and what an importer makes of a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from esper_analyze.interchange.sources import read_source
from esper_analyze.interchange.write import write_imported
from esper_analyze.runs.run import RecordedRun, open_run
from tests.commands.conftest import _runs, command, runs, truncated

__all__ = ["_runs", "command", "runs", "truncated"]

EXCERPT = Path(__file__).parent / "ancestor_events.jsonl"
"""Batches 1, 2 and 9 of a real recording of the ancestor, without the fields that no column holds."""

Taken = Callable[..., RecordedRun]


@pytest.fixture
def taken(tmp_path: Path) -> Taken:
    def call(source: Path, kind: str | None = None) -> RecordedRun:
        out = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        write_imported(out, read_source(source, kind))
        return open_run(out)

    return call


@pytest.fixture
def lines() -> list[str]:
    return EXCERPT.read_text().splitlines()
