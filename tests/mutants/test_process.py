"""Tests of the fork in which the tests of a package run."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from tests.mutants.packages import ROOT
from tests.mutants.process import ended, start, unchanged

FILE, TESTS = "esper_analyze/schema/printable.py", "tests/schema/test_printable.py"


def test_tests_run_once_say_which_functions_they_call_and_notice_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    tests, _ = unchanged([FILE], [TESTS], tmp_path / "log")
    assert tests
    assert all(test.passed for test in tests.values())
    assert any(file == FILE for test in tests.values() for file, _ in test.calls)

    broken = ast.parse((ROOT / FILE).read_text() + "\ndef printable(*_, **__): return None\n")
    child, scratch = start(FILE, broken, list(tests), 60.0, tmp_path / "log")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    ended(child, scratch)
