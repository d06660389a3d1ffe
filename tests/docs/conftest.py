"""The command runner, for tests of the documentation."""

from tests.commands.conftest import command

__all__ = ["command"]
