"""A path is what it was when it was given, wherever the training goes afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from esper_analyze.cli import app
from esper_analyze.runs.run import open_run
from esper_analyze.storage.maintenance.verify import verify
from recorder import Recorder
from recorder.adapters.lightning import RecorderCallback as LightningCallback
from recorder.adapters.sb3 import RecorderCallback as Sb3Callback
from tests.recorder.inline import store_of

OWN = (Path(__file__).parents[2] / "sample_runs" / "own_rules.py").read_text()


def record(rec: Recorder, updates: int) -> None:
    for _ in range(updates):
        rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), clip_range=0.2)
        rec.update()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "elsewhere"


def test_nothing_is_lost_when_the_training_leaves_its_working_directory(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = Recorder("run", strict=True)
    record(rec, 2)
    store_of(rec).flush()
    monkeypatch.chdir(elsewhere)
    record(rec, 2)
    store_of(rec).flush()
    record(rec, 1)
    rec.close()
    run = open_run(elsewhere.parent / "run")
    assert run.closed
    assert run.frame("updates")["update"].to_list() == [0, 1, 2, 3, 4]
    assert verify(elsewhere.parent / "run").faults == []
    assert list(elsewhere.iterdir()) == []


def test_a_callback_records_into_the_directory_of_when_it_was_made(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere.parent / "own.py").write_text(OWN)
    made: list[Sb3Callback | LightningCallback] = [
        Sb3Callback("run", rules="own.py"),
        LightningCallback("run", rules="own.py"),
    ]
    monkeypatch.chdir(elsewhere)
    for callback in made:
        rec = Recorder(resume=True, **callback._options)
        rec.close()
        assert rec.run_dir == elsewhere.parent / "run"
    assert list(elsewhere.iterdir()) == []


def test_rules_that_change_the_working_directory_move_neither_run_nor_page(elsewhere: Path) -> None:
    (elsewhere.parent / "own.py").write_text(f"{OWN}\nimport os\nos.chdir({str(elsewhere)!r})\n")
    with Recorder("run", rules="own.py", strict=True) as rec:
        record(rec, 1)
    page = CliRunner().invoke(app, ["report", "run", "--rules", "own.py", "--out", "page"])
    assert page.exit_code == 0, page.output
    assert sorted(path.name for path in elsewhere.iterdir()) == []
    assert (elsewhere.parent / "page" / "index.html").is_file()


def test_a_run_is_resumed_with_the_same_rules_called_by_another_path(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere.parent / "own.py").write_text(OWN)
    with Recorder("run", rules="own.py", strict=True) as rec:
        record(rec, 1)
    (elsewhere / "own.py").write_text(OWN)
    monkeypatch.chdir(elsewhere)
    with Recorder("../run", rules="own.py", strict=True, resume=True) as rec:
        record(rec, 1)
    assert open_run(elsewhere.parent / "run").frame("updates")["update"].to_list() == [0, 1]
