"""What every test starts from, whatever shell started it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt, here and in every child.

    Shells start ``nohup`` and ``&`` with SIGINT ignored. Python leaves it so, and children inherit it; a signal with a
    handler is reset to its default in a child that calls ``exec``.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before or signal.SIG_DFL)  # None: not set by Python


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how to repeat the random order; quiet output has no header that would."""
    seed = getattr(config.option, "randomly_seed", None)
    if seed is not None and config.pluginmanager.hasplugin("randomly"):
        terminalreporter.write_line(f"order: --randomly-seed={seed}")
