"""``esper-analyze help``: every topic is there, formatted in a terminal and exact in a pipe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from esper_analyze.commands.help import TOPICS
from tests.commands.conftest import Command
from tests.docs.blocks import DOCUMENTS

NAMES = [name for name, _ in TOPICS]


def test_every_document_is_a_topic_and_every_topic_a_document() -> None:
    assert {document.stem for document in DOCUMENTS[1:]} == set(NAMES)


def test_without_a_topic_they_are_listed_on_one_line_each_of_a_narrow_terminal(command: Command) -> None:
    result = command("help")
    assert result.code == 0
    lines = result.out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("document", DOCUMENTS[1:], ids=lambda document: document.stem)
def test_a_pipe_gets_the_document_without_the_marks_for_the_tests(document: Path, command: Command) -> None:
    text = document.read_text(encoding="utf-8")
    result = command("help", document.stem)
    assert result.code == 0
    assert result.out == re.sub(r"^<!--.*-->\n", "", text, flags=re.MULTILINE)


def test_a_terminal_gets_it_formatted(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    out = re.sub(r"\x1b\[[\d;]*m", "", command("help", "backtest").out)
    assert "[[fault]]" in out
    assert "thresholds tunes thresholds this way" in " ".join(out.split())
    assert not any(sign in out for sign in ("```", "<!--", "](", "\x1b"))
    assert max(map(len, out.splitlines())) <= 80


def test_an_unknown_topic_is_refused_with_the_nearest(command: Command) -> None:
    result = command("help", "resum")
    assert result.code == 2
    assert "did you mean 'resume'?" in result.err


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("thresholds", "; it is explained in rules, "),
        ("foo", "; there are recording, adapters, "),
        ("timeline", "`esper-analyze timeline --help` explains the command"),
    ],
)
def test_a_word_that_is_no_topic_leads_to_the_topics_that_explain_it(word: str, words: str, command: Command) -> None:
    result = command("help", word)
    assert (result.code, result.out) == (2, "")
    assert words in result.err


def test_rules_are_tables_in_a_terminal_and_markdown_in_a_pipe(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "| threshold | default | source |" in command("rules", "kl_spike").out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    out = re.sub(r"\x1b\[[\d;]*m", "", command("rules", "kl_spike").out)
    assert not any(sign in out for sign in ("|", "##", "`"))
    assert re.search(r"^ *threshold +default +source *$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 80
