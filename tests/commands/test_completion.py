"""Shell completion: the script of each shell, and what it is answered."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from esper_analyze.commands.completion import INSTRUCTION, Shell
from tests.commands.conftest import Command


@pytest.mark.parametrize("shell", list(Shell))
def test_each_shell_gets_a_script_that_asks_the_command(shell: Shell, command: Command) -> None:
    result = command("completion", shell.value)
    assert result.code == 0
    assert INSTRUCTION in result.out
    assert "esper-analyze" in result.out


@pytest.mark.parametrize(
    ("words", "index", "expected"),
    [
        ("esper-analyze re", 1, {"report", "replay", "repair"}),
        ("esper-analyze report --thr", 2, {"--thresholds"}),
        ("esper-analyze report --fail-on ", 3, {"warning", "critical"}),
        ("esper-analyze completion f", 2, {"fish"}),
    ],
)
def test_the_script_is_answered_with_what_can_stand_there(
    words: str, index: int, expected: set[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INSTRUCTION, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(index))
    result = command()
    assert result.code == 0
    assert set(result.out.split()) == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(tmp_path: Path, command: Command) -> None:
    program = tmp_path / "esper-analyze"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m esper_analyze.cli "$@"\n')
    program.chmod(0o755)
    script = command("completion", "bash").out
    script += f"""
COMP_WORDS=(esper-analyze tim); COMP_CWORD=1
_esper_analyze_completion {program}
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "timeline\n"


def test_an_unknown_shell_is_refused(command: Command) -> None:
    result = command("completion", "tcsh")
    assert result.code == 2
    assert "tcsh" in result.err
