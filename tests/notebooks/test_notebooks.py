"""The notebooks run from top to bottom on the sample runs, and are committed without outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from tests.patience import PATIENCE
from tests.present import present

FOLDER = Path(__file__).parents[2] / "notebooks"
SHOWS = {
    "explore": {
        "open": "MaskablePPO",
        "card": "esper-card ok",
        "sql": "kl_k3",
        "meaning": "share",
        "what-if": "kl_spike",
        "figure": "% learnable",
    },
    "thresholds": {
        "labels": "policy gone in one update",
        "rules": "all rules",
        "detections": "kl_spike",
        "sweep": "critical=0.02",
        "what-if": "new kl_spike on run from update 32",
        "toml": "critical = 0.02",
    },
    "random_seeds": {
        "open": "died: ValueError",
        "settings": "max_grad_norm",
        "part": "mask_mismatch       ┆ masked_healthy ┆ 70             ┆ 30",
        "band": "mask_mismatch       ┆ 70             ┆ 30",
        "said": "first_ratio",
        "compare": "one_update_collapse",
    },
    "sql_polars": {
        "open": "findings",
        "facts": "NaN is NaN",
        "count": "29.279",
        "incidents": "numerical_instability",
        "heads-polars": "learnable",
        "across": "recurrent_healthy",
    },
}
"""What each notebook's cells must show; a cell called figure shows a picture."""


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    """One kernel for all of them, each in a name space of its own: its start takes longer than they do."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(FOLDER))
    yield manager
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()


def read(name: str) -> nbformat.NotebookNode:
    notebook: nbformat.NotebookNode = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    return notebook


def test_every_notebook_is_listed_here() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(SHOWS)


@pytest.mark.parametrize("name", SHOWS)
def test_a_notebook_is_committed_without_outputs(name: str) -> None:
    assert not [cell.id for cell in read(name).cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.parametrize("name", SHOWS)
def test_a_notebook_imports_nothing_of_ours_but_the_public_api(name: str) -> None:
    code = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "code")
    assert set(re.findall(r"^\s*(?:from|import) ((?:esper_analyze|recorder)[\w.]*)", code, re.MULTILINE)) <= {
        "esper_analyze",
        "esper_analyze.record",
    }


@pytest.mark.parametrize("name", SHOWS)
def test_a_notebook_runs_and_shows_what_it_says(name: str, kernel: KernelManager) -> None:
    notebook = read(name)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f", id="fresh"))
    client = NotebookClient(notebook, km=kernel, timeout=PATIENCE)
    with client.setup_kernel(cleanup_kc=False):
        for place, cell in enumerate(notebook.cells):
            client.execute_cell(cell, place)
    present(client.kc).stop_channels()
    said = {cell.id: str(cell.get("outputs")).replace("\\n", "\n") for cell in notebook.cells}
    assert {cell: words for cell, words in SHOWS[name].items() if words not in said[cell]} == {}
    assert "image/png" in said["figure"]
