"""What every test starts from, whatever shell started it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pacing import LONG, SLOW

TESTS = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import what ``.ci/test-fast`` leaves out: the frameworks take seconds."""
    unwanted = config.getoption("markexpr") == "not slow" and _place(collection_path) in (*LONG, *SLOW)
    return True if unwanted else None


@pytest.hookimpl(tryfirst=True)  # before -m chooses by them
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of files that take long."""
    for item in items:
        file = _place(item.path)
        if file in LONG:
            item.add_marker(pytest.mark.long)
        if file in LONG or file in SLOW:
            item.add_marker(pytest.mark.slow)


def _place(path: Path) -> str:
    return path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""


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
