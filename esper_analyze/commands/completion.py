"""``esper-analyze completion``: let a shell complete commands and options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from esper_analyze.terminal import put

PROGRAM = "esper-analyze"
INSTRUCTION = "_ESPER_ANALYZE_COMPLETE"
"""Environment variable in which the shell's script says what to complete."""


class Shell(StrEnum):
    """Shells whose scripts typer writes."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"
    PWSH = "pwsh"


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh, fish, powershell or pwsh.")],
) -> None:
    """Print the script that lets SHELL complete commands and options at Tab.

    Example: eval "$(esper-analyze completion bash)" in ~/.bashrc

    Example: esper-analyze completion fish > ~/.config/fish/completions/esper-analyze.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    put(get_completion_script(prog_name=PROGRAM, complete_var=INSTRUCTION, shell=shell.value) + "\n")


def complete(command: object, instruction: str) -> int:
    """Answer the shell's script with what can stand at its cursor; return the exit code."""
    from typer.completion import completion_init, shell_complete  # type: ignore[attr-defined]

    completion_init()
    return shell_complete(command, {}, PROGRAM, INSTRUCTION, instruction)  # type: ignore[arg-type]
