"""What only a process of its own shows: what it imports, how it takes a closed pipe, what goes where."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("duckdb", "polars", "pyarrow", "matplotlib", "numpy", "torch", "pandas")


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "esper_analyze.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def imported(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_nothing_heavy() -> None:
    assert imported("from esper_analyze.cli import run; run(['--help'])") == set()


def test_schema_and_rules_open_no_database_and_draw_nothing() -> None:
    assert not imported("from esper_analyze.cli import run; run(['rules'])") & {"duckdb", "polars", "matplotlib"}
    assert not imported("from esper_analyze.cli import run; run(['schema'])") & {"duckdb", "polars", "matplotlib"}


@pytest.mark.parametrize("name", ["report", "replay", "backtest", "sql", "ls"])
def test_no_command_imports_torch_or_pandas(name: str, runs: Path, tmp_path: Path) -> None:
    rest = {"report": ["--out", str(tmp_path / "out")], "sql": ["select 1"]}.get(name, [])
    (runs / "troubled" / "labels.toml").write_text("healthy = true")
    words = [name, str(runs if name == "ls" else runs / "troubled"), *rest]
    assert not imported(f"from esper_analyze.cli import run; assert run({words!r}) == 0") & {"torch", "pandas"}


@pytest.mark.parametrize("name", ["rules", "schema"])
def test_a_closed_pipe_is_no_error(name: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "esper_analyze.cli", name],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_results_alone_go_to_stdout(runs: Path, tmp_path: Path) -> None:
    done = process("report", runs / "healthy", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'out' / 'index.html'}\n"


def test_no_color_codes_without_a_terminal_or_with_no_color(runs: Path) -> None:
    assert "\x1b" not in process("ls", runs, NO_COLOR="1").stdout
    assert "\x1b" not in process("ls", runs, NO_COLOR="1", FORCE_COLOR="1").stdout.replace("\x1b[1m", "").replace(
        "\x1b[0m", ""
    )


def test_a_terminal_that_knows_no_unicode_is_no_error(runs: Path) -> None:
    done = process("replay", runs / "troubled", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_an_internal_error_is_one_sentence_and_code_70(runs: Path) -> None:
    script = (
        "import sys, esper_analyze.runs.run as run\n"
        "def broken(*a, **k): raise RuntimeError('boom')\n"
        "run.open_run = broken\n"
        "from esper_analyze.cli import main\n"
        f"sys.argv = ['esper-analyze', 'replay', {str(runs / 'healthy')!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert done.stderr.startswith("esper-analyze: internal error, RuntimeError: boom")
    assert "Traceback" not in done.stderr


def test_what_aborts_at_the_end_of_the_interpreter_does_not_take_the_exit_code_or_the_output() -> None:
    program = """
import atexit, os, sys
from esper_analyze.cli import leave

class Last:
    def __del__(self):
        os.abort()

sys.last_thing = Last()
atexit.register(sys.stdout.write, "cleaned up")
sys.stdout.write("said, ")
leave(3)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "said, cleaned up")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_an_answer_that_cannot_be_written_is_said_also_where_findings_set_the_exit_code(runs: Path) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "esper_analyze.cli", "heads", runs / "troubled", "--json", "--fail-on", "warning"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 70
    assert done.stderr.startswith("esper-analyze: cannot write the result")
