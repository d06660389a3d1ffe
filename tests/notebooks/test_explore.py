"""The notebook runs from top to bottom on a sample run, and is committed without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "explore.ipynb"


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook: nbformat.NotebookNode, cell: str) -> str:
    return str(next(found.outputs for found in notebook.cells if found.id == cell))


def test_the_notebook_is_committed_without_outputs(notebook: nbformat.NotebookNode) -> None:
    assert not [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


def test_the_notebook_runs_and_shows_what_it_says(notebook: nbformat.NotebookNode) -> None:
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()
    assert "MaskablePPO" in outputs(notebook, "open")
    assert "kl_k3" in outputs(notebook, "sql")
    assert "head_entropy_collapse" in outputs(notebook, "what-if")
    assert "% learnable" in outputs(notebook, "figure")
    assert "image/png" in outputs(notebook, "figure")
