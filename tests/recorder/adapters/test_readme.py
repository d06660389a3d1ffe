"""The code that the README shows for TorchRL, skrl and Lightning runs as it stands there."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from esper_analyze.runs.run import open_run

ROOT = Path(__file__).parents[3]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def run(framework: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Run the block that attaches to ``framework`` with ``names`` defined; return the updates it recorded."""
    (shown,) = [block for block in BLOCKS if f"recorder.adapters.{framework} import" in block]
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(shown, f"README.md ({framework})", "exec"), names)
    return open_run(tmp_path / "runs" / framework).frame("updates").to_dicts()


def test_the_lines_for_torchrl_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torchrl", reason="TorchRL is not installed (extra: torchrl)")
    from tests.recorder.adapters.torchrl_training import FRAMES, make

    rows = run("torchrl", make(factored=False, updates=2) | {"torch": torch}, monkeypatch, tmp_path)
    assert [(row["status"], row["minibatches"]) for row in rows] == [("performed", 4 * FRAMES // 64)] * 2


def test_the_lines_for_skrl_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("skrl", reason="skrl is not installed (extra: skrl)")
    from tests.recorder.adapters.skrl_training import make

    agent, trainer = make("CartPole-v1", updates=2)
    rows = run("skrl", {"agent": agent, "trainer": trainer}, monkeypatch, tmp_path)
    assert [row["status"] for row in rows] == ["performed"] * 2


def test_the_lines_for_lightning_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="Lightning is not installed (extra: lightning)")
    from tests.recorder.adapters.lightning_training import Bandit, trainer

    rows = run("lightning", {"trainer": trainer(2), "module": Bandit()}, monkeypatch, tmp_path)
    assert [row["status"] for row in rows] == ["performed"] * 2
    assert all(row["explained_variance"] is not None for row in rows)
