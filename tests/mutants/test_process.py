"""Tests of the fork in which the tests of a package run."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from tests.mutants.packages import ROOT
from tests.mutants.process import ended, start, unchanged
from tests.patience import PATIENCE

FILE, TESTS = "esper_analyze/schema/printable.py", "tests/schema/test_printable.py"


def test_tests_run_once_say_which_functions_they_call_and_notice_a_change(tmp_path: Path) -> None:
    # in a process of its own: what is imported already cannot be changed
    code = f"from pathlib import Path\nfrom {__name__} import measure\nmeasure(Path({str(tmp_path / 'log')!r}))"
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        timeout=PATIENCE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def measure(log: Path) -> None:
    """Run the tests of one module, then again with the module changed."""
    tests, _ = unchanged([FILE], [TESTS], log)
    assert tests
    assert all(test.passed for test in tests.values())
    assert any(file == FILE for test in tests.values() for file, _ in test.calls)

    broken = ast.parse((ROOT / FILE).read_text() + "\ndef printable(*_, **__): return None\n")
    child, scratch = start(FILE, broken, list(tests), 60.0, log)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    ended(child, scratch)
