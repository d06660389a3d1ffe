"""The command runner, for tests that look at a run through commands too."""

from tests.commands.conftest import command

__all__ = ["command"]
