"""Runs shared by the report tests, each written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from esper_analyze.replay.evidence import Evidence, gather
from esper_analyze.reports.write import write_report
from esper_analyze.runs.run import open_run
from tests.reports.synthetic import Rows, write_run


def trouble(update: int, rows: Rows) -> None:
    """A KL spike that drags the ratio along, then a NaN loss, an unexplained zero and a head that collapses."""
    row = rows["updates"][0]
    row["episode_return_mean"] = 10.0
    if 20 <= update < 24:
        row |= {"kl_k3": 0.7, "ratio_max": 60.0 + update}
    if update == 30:
        row |= {"ratio_max": float("inf"), "value_loss": float("nan"), "nonfinite_sources": "value_loss: 1"}
    if 33 <= update < 36:
        row["explained_variance"] = None
    if update == 40:
        rows["heads"][0]["zero_explained"] = "unexplained"
    if update >= 45:
        rows["heads"][1]["entropy_norm"] = 0.01


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    path: Path = write_run(tmp_path_factory.mktemp("runs") / "healthy")
    return gather(open_run(path))


@pytest.fixture(scope="session")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    path: Path = write_run(tmp_path_factory.mktemp("runs") / "troubled", 60, trouble)
    return gather(open_run(path))


@pytest.fixture(scope="session")
def page(troubled: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The written report of the troubled run; tests only read it."""
    return write_report(troubled, tmp_path_factory.mktemp("page"))
