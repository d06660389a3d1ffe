"""The Python that the README and the documentation show runs as it stands there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributions import Distribution

from esper_analyze.replay.evidence import gather
from esper_analyze.replay.standing import of_replay
from esper_analyze.reports.narrative.missing_calls import missing_calls
from esper_analyze.runs.run import open_run
from tests.docs.blocks import BLOCKS, CodeBlock
from tests.docs.folder import fill
from tests.docs.surroundings import SURROUNDINGS, UPDATES, Names, recorded

SHOWN = [block for block in BLOCKS if block.language == "python"]
EXAMPLES = [block for block in SHOWN if "example" in block.marks]
WITHOUT_UPDATES = ("slot", "checkpoint", "resume", "alerts", "backtest")
RECORDED = {block.name for block in EXAMPLES if not block.name.startswith(WITHOUT_UPDATES)}

SLOW = {"torchrl", "skrl", "lightning", "sb3", "sb3 heads", "sb3 callback", "readme sb3", "python"}
"""They import a framework and train with it, or draw a report."""


@pytest.fixture(autouse=True)
def _unchecked_distributions() -> Iterator[None]:
    """Leave the arguments of distributions unchecked, as TorchRL and skrl do when they are imported."""
    before = Distribution._validate_args
    yield
    Distribution.set_default_validate_args(before)


def run(blocks: list[CodeBlock], names: Names) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in blocks:
            exec(compile(block.code, f"{block.document.name}:{block.line}", "exec"), names)


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, marks=pytest.mark.slow) if block.name in SLOW else block for block in EXAMPLES],
    ids=lambda block: block.name,
)
def test_an_example_runs(block: CodeBlock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names = SURROUNDINGS[block.name]()
    run([block], names)
    for run_dir in recorded(block.code) if block.name in RECORDED else ():
        updates = open_run(tmp_path / run_dir).frame("updates")
        assert updates["status"].to_list() == ["performed"] * UPDATES
        assert updates["grad_norm_pre_clip"].null_count() == 0
    if "rec" in names:
        names["rec"].update()
        names["rec"].close()


@pytest.mark.parametrize("name", ["readme own loop", "own loop"])
def test_every_rule_that_applies_can_judge_the_loops_shown(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run([block for block in EXAMPLES if block.name == name], SURROUNDINGS[name]())
    evidence = gather(open_run(tmp_path / "runs" / "mine"))
    assert of_replay(evidence.run, evidence.replay).coverage.lacking == {}
    assert list(missing_calls(evidence)) == ["rec.update(td_errors=…)"]


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(document, marks=pytest.mark.slow) if document.stem in SLOW else document
        for document in dict.fromkeys(block.document for block in SHOWN if not block.marks)
    ],
    ids=lambda document: document.stem,
)
def test_what_a_reader_types_in_order_runs(document: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocks = [block for block in SHOWN if block.document == document and not block.marks]
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    run(blocks, {})


def test_the_slot_shown_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names = SURROUNDINGS["slot"]()
    run([block for block in EXAMPLES if block.name == "slot"], names)
    names["rec"].update()
    names["rec"].close()
    (row,) = open_run(tmp_path / "runs" / "growing").frame("slots").to_dicts()
    assert (row["env"], row["slot"], row["stage"]) == (0, "r0c1", "TRAINING")
    assert row["normalized_ratio"] > 0


def test_a_resumed_run_goes_on_with_the_next_update(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names = SURROUNDINGS["resume"]()
    run([block for block in EXAMPLES if block.name == "resume"], names)
    names["rec"].update()
    names["rec"].close()
    updates = open_run(tmp_path / "runs" / "mine").frame("updates")
    assert updates["update"].to_list() == [0, 1]
