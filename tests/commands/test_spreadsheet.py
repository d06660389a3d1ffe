"""CSV for spreadsheets: text that one would run as a formula gets a ', numbers stay; it is exact without the option."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests.commands.conftest import Command
from tests.reports.synthetic import Rows, write_run

TEXTS = ('=HYPERLINK("http://x")', "+1", "-1", "@SUM(1)", "\tx", "\rx", "a=b", "'", "", "plain", "日本")
RUN_AS_FORMULAS = TEXTS[:6]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def heads(update: int, rows: Rows) -> None:
        del update
        head = rows["heads"][1] | {"grad_norm": -3.5, "zero_explained": "unexplained"}
        rows["heads"] = [head | {"head": name} for name in TEXTS]

    return write_run(tmp_path_factory.mktemp("formulas") / "run", 4, heads, facts={"heads": dict.fromkeys(TEXTS, 3)})


def _column(text: str, name: str) -> list[str]:
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    return [row[header.index(name)] for row in rows]


def _expected(texts: list[str], *, safe: bool) -> list[str]:
    return [f"'{text}" if safe and text in RUN_AS_FORMULAS else text for text in texts]


@pytest.mark.parametrize("safe", [False, True])
def test_sql(run: Path, command: Command, *, safe: bool) -> None:
    query = 'select head, grad_norm, -3.5::decimal(3,1) as "=d" from heads where update = 1 order by seq'
    said = command("sql", run, query, "--csv", *(["--spreadsheet-safe"] if safe else []))
    assert said.code == 0
    assert _column(said.out, "head") == _expected(list(TEXTS), safe=safe)
    assert set(_column(said.out, "grad_norm")) == {"-3.5"}
    assert set(_column(said.out, "'=d" if safe else "=d")) == {"-3.5"}


@pytest.mark.parametrize("safe", [False, True])
def test_export(run: Path, command: Command, tmp_path: Path, *, safe: bool) -> None:
    out = tmp_path / "heads.csv"
    words = ("export", run, "--to", "csv", "--table", "heads", "--out", out)
    assert command(*words, *(["--spreadsheet-safe"] if safe else [])).code == 0
    text = out.read_bytes().decode()
    assert _column(text, "head") == _expected(list(TEXTS), safe=safe) * 4
    assert set(_column(text, "grad_norm")) == {"-3.5"}


@pytest.mark.parametrize("safe", [False, True])
def test_a_single_question(run: Path, command: Command, *, safe: bool) -> None:
    said = command("heads", run, "--format", "csv", *(["--spreadsheet-safe"] if safe else []))
    assert said.code == 0
    names = _column(said.out, "head")
    assert sorted(names) == sorted(_expected(list(TEXTS), safe=safe))


def test_every_row_of_sql_is_one_row_and_empty_text_is_no_null(run: Path, command: Command) -> None:
    query = "select * from (values (1, chr(13)), (2, ''), (3, null), (4, 'a' || chr(13) || 'b')) t(n, x) order by n"
    said = command("sql", run, query, "--csv")
    assert said.out == 'n,x\n1,"\r"\n2,""\n3,\n4,"a\rb"\n'
    assert command("sql", run, "select null as x", "--csv").out == 'x\n""\n'


@pytest.mark.parametrize(
    "words", [("sql", "RUN", "select 1", "--json"), ("heads", "RUN"), ("export", "RUN", "--to", "jsonl", "--out", "x")]
)
def test_it_is_refused_where_it_would_do_nothing(words: tuple[str, ...], run: Path, command: Command) -> None:
    said = command(*(run if word == "RUN" else word for word in words), "--spreadsheet-safe")
    assert said.code == 2
    assert "--spreadsheet-safe is about CSV" in said.err


@pytest.mark.parametrize(
    "name", ["report", "replay", "backtest", "rules", "timeline", "drift", "heads", "lstm", "slots"]
)
def test_help_says_that_rules_are_executed(name: str, command: Command) -> None:
    said = " ".join(command(name, "--help").out.replace("│", " ").split())
    assert "execute" in said.lower()
