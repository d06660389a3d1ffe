"""Imports point one way; each claim is tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.patience import PATIENCE

HEAVY = (
    "torch",
    "polars",
    "duckdb",
    "matplotlib",
    "pandas",
    "typer",
    "rich",
    "jinja2",
    "stable_baselines3",
    "torchrl",
    "skrl",
    "lightning",
)
BLOCK_TORCH = "import sys; sys.modules['torch'] = None; sys.modules['recorder'] = None\n"
ALL_OF = """
import importlib, pkgutil
import {package}
from tests.patience import PATIENCE
for found in pkgutil.walk_packages({package}.__path__, '{package}.'):
    if not found.name.startswith('recorder.adapters.'):  # an adapter loads its framework, and what that loads
        importlib.import_module(found.name)
"""


def loaded_after(code: str) -> set[str]:
    """Run ``code`` in a fresh process; return the top-level modules it has loaded."""
    script = code + "\nimport sys; print(','.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.strip().split(","))


def test_all_of_esper_analyze_imports_without_torch_and_without_the_recorder() -> None:
    loaded_after(BLOCK_TORCH + ALL_OF.format(package="esper_analyze"))


@pytest.mark.parametrize("package", ["esper_analyze.schema", "esper_analyze.detector"])
def test_schema_and_detector_need_only_numpy_and_pyarrow(package: str) -> None:
    loaded = loaded_after(f"{ALL_OF.format(package=package)}")
    assert not loaded & set(HEAVY)
    assert "recorder" not in loaded


def test_the_recorder_loads_neither_polars_nor_duckdb_nor_matplotlib() -> None:
    loaded = loaded_after(ALL_OF.format(package="recorder"))
    assert "torch" in loaded
    assert not loaded & {
        "polars",
        "duckdb",
        "matplotlib",
        "typer",
        "stable_baselines3",
        "pandas",
        "torchrl",
        "skrl",
        "lightning",
    }


def test_help_loads_nothing_heavy() -> None:
    loaded = loaded_after("import esper_analyze.cli")
    assert not loaded & {"duckdb", "polars", "pyarrow", "matplotlib", "torch", "numpy", "jinja2"}


def test_a_training_loads_nothing_more_while_it_is_recorded() -> None:
    """What was loaded late would fail where no descriptor or no disk is left."""
    script = """
import sys, tempfile
from pathlib import Path
from tests.faults.training import recorded, train, unrecorded
idle = {"pace": 0.0, "after": lambda *_: None}
train(unrecorded(), 2, **idle)
with tempfile.TemporaryDirectory() as folder:
    loop = recorded(Path(folder) / "run", quiet=True)
    before = set(sys.modules)
    train(loop, 6, **idle)
    late = set(sys.modules) - before
    loop.rec.close()
assert not late, late
"""
    loaded_after(script)
