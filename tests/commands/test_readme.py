"""Every command that the README shows runs as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.commands.conftest import Command

ROOT = Path(__file__).parents[2]
SHOWN = re.findall(r"^\.venv/bin/esper-analyze (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)


def test_the_readme_shows_what_if_backtest_and_rules_of_one_s_own() -> None:
    names = {shown.split()[0] for shown in SHOWN}
    assert {"replay", "backtest", "rules"} <= names
    assert any("--rules" in shown for shown in SHOWN)


@pytest.mark.parametrize("shown", [shown for shown in SHOWN if "--verify" not in shown])
def test_a_command_of_the_readme_runs(
    shown: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sample_runs").symlink_to(ROOT / "sample_runs")
    monkeypatch.chdir(tmp_path)
    said = command(*shlex.split(shown))
    assert said.code == 0
    assert said.out
