"""Every command that the README and the documentation show runs, in order, and prints what is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from esper_analyze.detector.rules import RULES
from esper_analyze.replay.labels import read_labels, read_labels_of_many
from esper_analyze.schema import VERSIONS
from tests.commands.conftest import Command
from tests.docs.blocks import BLOCKS, DOCUMENTS, ROOT, outputs
from tests.docs.commands import OURS, WIDTH, comparable, lines, run
from tests.docs.folder import fill

LANGUAGES = {"bash", "python", "sql", "text", "toml"}
SHOWN = dict(outputs())
WITH_COMMANDS = dict.fromkeys(block.document for block in BLOCKS if block.language == "bash")
SLOW = {"README", "report", "compare", "backtest"}
"""They draw pages or figures."""


def test_every_block_is_of_a_kind_that_a_test_reads() -> None:
    other = [block.name for block in BLOCKS if block.language not in LANGUAGES and "command" not in block.marks]
    assert not other
    loose = [block.name for block in BLOCKS if block.language == "text" and not block.marks]
    assert len(loose) == len(SHOWN)


def test_the_readme_fits_on_two_screens_and_has_the_commands_that_ci_runs() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    commands = [block for block in BLOCKS if "command" in block.marks]
    assert [block.marks["command"] for block in commands] == ["report", "test"]
    assert all(len(block.code.splitlines()) == 1 for block in commands)


def test_every_link_leads_to_a_file() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(document, marks=pytest.mark.slow) if document.stem in SLOW else document
        for document in WITH_COMMANDS
    ],
    ids=lambda document: document.stem,
)
def test_the_commands_of_a_document_run(
    document: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("esper_analyze.terminal._PIPE_WIDTH", WIDTH)
    monkeypatch.setenv("COLUMNS", str(WIDTH))

    def call(*words: str) -> tuple[int, str]:
        result = command(*words)
        return result.code, result.out + result.err

    for block in (block for block in BLOCKS if block.document == document and block.language == "bash"):
        out = ""
        for words in lines(block):
            code, out = run(words, tmp_path, call)
            assert code == int(block.marks.get("exit", 0)), out
            assert out or words[0] != OURS or ">" in words, words
        if block in SHOWN:
            shown = comparable(SHOWN[block].code)
            assert shown == comparable(out)[: len(shown)], "write it anew: python -m tests.docs"


def test_the_changelog_names_every_version_of_the_schema() -> None:
    text = (ROOT / ".github" / "CHANGELOG.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| (\d+\.\d+) \|", text, re.MULTILINE)
    assert named == [version.number for version in reversed(VERSIONS)], "list it in .github/CHANGELOG.md"


def test_the_labels_shown_are_labels(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if block.marks.get("example") == "labels"]
    (tmp_path / "labels.toml").write_text(block.code)
    labels = read_labels(tmp_path, [rule.name for rule in RULES])
    assert labels is not None
    assert [(fault.onset, fault.hard) for fault in labels.faults] == [(40, True)]


def test_the_labels_of_many_runs_shown_are_labels(tmp_path: Path) -> None:
    fill(tmp_path)
    labels = read_labels_of_many(tmp_path / "labels-of-runs.toml", [rule.name for rule in RULES])
    assert [(one.sound, one.twin in labels, len(one.faults)) for one in labels.values()] == [
        (True, False, 0),
        (False, True, 1),
    ]


def test_the_layout_shown_is_that_of_a_run() -> None:
    (block,) = [block for block in BLOCKS if block.marks.get("example") == "layout"]
    run_dir = ROOT / "sample_runs" / "runs" / "one_update_collapse"
    files = {path.name for path in run_dir.rglob("*")}
    assert set(re.findall(r"[\w-]+\.(?:json|jsonl|parquet)\b", block.code)) <= files
    assert any(re.fullmatch(r"attempt-0000-[0-9a-f]{8}", name) for name in files)
