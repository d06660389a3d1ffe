"""``sql`` over many runs: arguments, pipes, the prompt, formats, macros, attempts."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from esper_analyze.commands.sql import split
from esper_analyze.errors import UsageError
from esper_analyze.runs.fleet import open_fleet
from esper_analyze.schema import TABLES, views
from esper_analyze.schema.macros import MACROS
from esper_analyze.sql.output import ResultFormat
from esper_analyze.sql.prompt import NameCompleter, history, prompt
from esper_analyze.sql.session import Session, tables_of
from esper_analyze.sql.statements import EXAMPLES, complete, statements
from recorder.store.run_file import create_run
from recorder.store.store import Store
from tests.commands.conftest import Command
from tests.patience import PATIENCE
from tests.present import present

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"


@pytest.fixture
def session(runs: Path) -> Iterator[Session]:
    fleet = open_fleet([runs / "healthy", runs / "troubled"])
    with Session(fleet.runs, timeout=PATIENCE, memory=10**9, attempts=False) as made:
        yield made


def piped(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_many_runs_are_told_apart_by_the_run_column(command: Command, runs: Path) -> None:
    said = command("sql", runs, "select run, count(*) as n from updates group by run order by run", "--csv")
    assert said.out == "run,n\nhealthy,30\ntroubled,60\n"


def test_a_single_run_has_the_column_too(command: Command, runs: Path) -> None:
    assert command("sql", runs / "healthy", "select distinct run from heads", "--csv").out == "run\nhealthy\n"


@pytest.mark.parametrize("at_once", [1, views.FILES_AT_ONCE])
def test_attempts_are_shown_when_all_are_asked_for(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(views, "FILES_AT_ONCE", at_once)
    create_run(tmp_path / "run", {})
    for attempt, first in enumerate((0, 3)):
        store = Store(tmp_path / "run", attempt=attempt)
        for update in range(first, first + 5):
            store.put({"updates": [{"update": update, "status": "performed", "level": "NORMAL"}]})
        store.close("closed")
    query = "select update from updates order by update"
    assert command("sql", tmp_path / "run", query, "--csv").out.split() == ["update", *map(str, range(8))]
    query = "select attempt, count(*) as n, min(update) as first from updates group by attempt order by attempt"
    every = command("sql", tmp_path / "run", query, "--csv", "--all-attempts")
    assert every.out.split() == ["attempt,n,first", "0,5,0", "1,5,3"]
    assert command("sql", tmp_path / "run", query).code == 2


@pytest.mark.parametrize(
    ("given_words", "query"),
    [
        (["a", "b"], None),
        (["a", "select 1"], "select 1"),
        (["a", ""], ""),
        (["a", "select(1)"], "select(1)"),
        (["a", "x" * 5000 + " "], "x" * 5000 + " "),
    ],
)
def test_the_last_argument_is_the_query_when_it_reads_like_one(given_words: list[str], query: str | None) -> None:
    assert split(given_words)[1] == query


def test_a_directory_with_a_blank_in_its_name_is_a_run(command: Command, runs: Path) -> None:
    (runs / "healthy").rename(runs / "select 1")
    said = command("sql", runs / "troubled", runs / "select 1", "select count(distinct run) from updates", "--csv")
    assert said.out.split() == ["count(DISTINCT", "run)", "2"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["select 1"], "no run is given, only a query"),
        (["RUN", "nowhere"], "nowhere does not exist"),
        (["RUN", "runs/no where"], "is runs/no meant to be a run"),
        (["RUN", "select 1", "--format", "parquet"], "add --out FILE"),
        (["RUN", "select 1", "--out", "x.txt"], "does not say by its ending"),
        (["RUN", "select 1", "--out", "nowhere/x.csv"], "cannot be written"),
        (["RUN", "select interval 3 days", "--out", "x.parquet"], "Parquet cannot hold the result"),
        (["RUN", "select 1", "--csv", "--format", "csv"], "exclude each other"),
        (["RUN", "select 1 a, 2 a", "--json"], "two columns named a"),
        (["RUN", "select 1 a, 2 a", "--format", "jsonl"], "two columns named a"),
        (["RUN", "select '\udcff'"], "not UTF-8"),
        (["RUN", "select 1", "--memory", "inf"], "must be between 0.1 and 1,000,000 GB"),
    ],
)
def test_wrong_use_is_one_sentence_and_leaves_no_file(
    words: list[str], answer: str, command: Command, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    said = command("sql", *(runs / "healthy" if word == "RUN" else word for word in words))
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1
    assert answer in said.err
    assert set(tmp_path.iterdir()) == before


THREE = "select * from (values (1, null::double), (2, 'nan'::double), (3, 0.0), (4, '-inf'::double)) t(k, x) order by k"


@pytest.mark.parametrize("shape", ["csv", "json", "jsonl", "parquet"])
def test_null_nan_zero_and_infinity_stay_apart_in_every_format(
    shape: str, command: Command, runs: Path, tmp_path: Path
) -> None:
    file = tmp_path / f"out.{shape}"
    assert command("sql", runs / "healthy", THREE, "--out", file).code == 0
    if shape == "parquet":
        cells = pq.read_table(file)["x"].to_pylist()
        assert cells[0] is None
        assert math.isnan(cells[1])
        assert cells[2:] == [0.0, -math.inf]
        return
    text = file.read_text()
    assert text == command("sql", runs / "healthy", THREE, "--format", shape).out
    if shape == "csv":
        assert [row[1] for row in csv.reader(text.splitlines())] == ["x", "", "nan", "0.0", "-inf"]
    else:
        rows = json.loads(text) if shape == "json" else [json.loads(line) for line in text.splitlines()]
        assert [row["x"] for row in rows] == [None, "NaN", 0.0, "-Infinity"]


def test_a_parquet_file_is_plain_and_duckdb_finds_its_nans(command: Command, runs: Path, tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / "out.parquet"
    assert command("sql", runs, "select run, update, value_loss from updates", "--out", file).code == 0
    assert [str(field.type) for field in pq.read_schema(file)] == ["string", "int64", "double"]
    found = present(duckdb.sql(f"select count(*) from '{file}' where isnan(value_loss)")).fetchall()
    assert found == [(int(command("sql", runs, "select count(*) n from updates where isnan(value_loss)", "--csv")
                         .out.split()[1]),)]  # fmt: skip
    assert found[0][0] > 0


def test_queries_from_a_pipe_run_one_by_one_and_an_error_hides_no_other(
    command: Command, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped("select ';' as a; selec;\n.schema ranks\n-- nothing\nselect 2 as b", monkeypatch)
    said = command("sql", runs / "healthy", "--csv")
    assert said.code == 2
    assert said.out.startswith("a\n;\n")
    assert "metric text: compared column of table updates" in said.out
    assert said.out.endswith("b\n2\n")
    assert said.err.count("\n") == 1


def test_a_pipe_of_other_bytes_is_one_sentence(command: Command, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"select '\xff'"), encoding="utf-8"))
    said = command("sql", runs / "healthy")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "not UTF-8" in said.err


@pytest.mark.signals
def test_ctrl_c_stops_a_query_that_never_looks_up_and_the_next_one_runs(session: Session) -> None:
    cross = "select count(*) from range(1000000) a, range(1000000) b where sin(a.range * b.range) > 2"
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), session.result(cross):
        pass
    with session.result("select 1 as n") as found:
        assert list(found.rows) == [(1,)]


def test_a_long_text_ends_the_query_before_longer_ones_are_made(session: Session) -> None:
    doubled = "with recursive t(n, s) as (select 1, 'x' union all select n + 1, s || s from t where n < 28) from t"
    with pytest.raises(UsageError, match="33,554,432 characters"), session.result(doubled) as result:
        list(result.rows)


@pytest.mark.parametrize("text", ["", "  \n -- nothing\n"])
def test_a_pipe_that_says_nothing_is_wrong_use(
    text: str, command: Command, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(text, monkeypatch)
    said = command("sql", runs / "healthy")
    assert said.code == 2
    assert "stdin says nothing" in said.err


def test_what_a_query_deletes_is_there_for_the_next(
    command: Command, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = "with gone as (delete from updates returning *) select count(*) as n from gone"
    piped(f"{gone}; select count(*) as n from updates", monkeypatch)
    assert command("sql", runs / "healthy", "--csv").out.split() == ["n", "30", "n", "30"]


@given(
    st.lists(st.sampled_from(["select 1", "select ';'", 'select ";"', "x -- ;\n y", "a /* ; */ b", "$$;$$", "$q$;$q$"]))
)
def test_statements_are_cut_at_semicolons_that_end_them_only(parts: list[str]) -> None:
    assert list(statements(";".join(parts))) == parts
    assert all(complete(part + ";") and not complete(part) for part in parts)


def typed(session: Session, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with create_pipe_input() as keys:
        keys.send_text(text)
        prompt(session, ResultFormat.CSV, 100, source=keys, screen=DummyOutput())


def test_the_prompt_goes_on_after_an_error_and_keeps_what_was_asked(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(session, "selec;\rselect count(*) as n\rfrom updates;\r.nothing\r.quit\rselect 5;\r", monkeypatch, tmp_path)
    said = capsys.readouterr()
    assert said.out.split() == ["n", "90"]
    assert "syntax error" in said.err
    assert "there is no command .nothing" in said.err
    kept = (tmp_path / "state" / "esper-analyze" / "sql_history").read_text()
    assert "+from updates;" in kept


def test_a_command_below_an_unfinished_query_is_answered_and_the_query_kept(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(session, "select count(*) as n\r.schema heads\rfrom updates;\rquit\rselect 5;\r", monkeypatch, tmp_path)
    said = capsys.readouterr()
    assert "grad_norm double" in said.out
    assert said.out.split()[-2:] == ["n", "90"]


@pytest.mark.parametrize("word", ["exit", "quit", "EXIT;", ".exit", ".quit"])
def test_words_of_other_shells_leave(
    word: str, session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(session, f"{word}\rselect 5;\r", monkeypatch, tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("select\n.5", False),
        ("select\n.tables", True),
        ("select 1\nexit", True),
        ("exits", False),
        ("select exit", False),
    ],
)
def test_a_line_is_complete_where_its_last_line_is_a_command(text: str, ends: bool) -> None:
    assert complete(text) is ends


def test_bytes_that_are_no_text_are_refused_at_the_prompt_and_it_goes_on(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with create_pipe_input() as keys:
        keys.send_bytes(b"select '\xff';\rselect 3 as n;\r.quit\r")
        prompt(session, ResultFormat.CSV, 100, source=keys, screen=DummyOutput())
    said = capsys.readouterr()
    assert said.out.split() == ["n", "3"]
    assert "not UTF-8" in said.err


def test_the_prompt_ends_with_its_input(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(session, ".tables\r\x04", monkeypatch, tmp_path)
    said = capsys.readouterr().out
    assert all(name in said for name in (*(table.name for table in TABLES), *(macro.name for macro in MACROS)))


def test_a_state_directory_that_cannot_be_written_costs_the_history_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("a file")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert type(history()).__name__ == "InMemoryHistory"


@pytest.mark.parametrize(
    ("text", "name"),
    [("select * from upd", "updates"), ("from fir", "first_fired()"), ("select h.learn", "learnable_fraction"),
     (".sch", ".schema"), ("sel", "select"), ("select ru", "run")],
)  # fmt: skip
def test_names_are_completed(text: str, name: str) -> None:
    found = [one.text for one in NameCompleter().get_completions(Document(text, len(text)), CompleteEvent())]
    assert name in found


def test_a_macro_in_a_query_loads_its_tables_and_no_others() -> None:
    assert tables_of("from alarms()") == {"findings", "updates"}
    assert tables_of("select 1") == {table.name for table in TABLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.query[:30])
def test_every_example_answers_on_a_run_without_rows_and_on_the_samples(
    example: object, command: Command, runs: Path
) -> None:
    query = example.query  # type: ignore[attr-defined]
    nothing = command("sql", runs / "empty", query, "--csv")
    assert (nothing.code, nothing.out.count("\n")) == (0, 1)
    assert command("sql", SAMPLES / "nan_reward", SAMPLES / "lstm_masks", query, "--csv").code == 0


def test_phases_are_thirds_of_each_run(command: Command, runs: Path) -> None:
    said = command("sql", runs, "select run, phase, updates from by_phase()", "--csv")
    assert said.out.split()[1:] == [
        "healthy,early,10", "healthy,middle,10", "healthy,late,10",
        "troubled,early,20", "troubled,middle,20", "troubled,late,20",
    ]  # fmt: skip


def test_a_damaged_run_among_many_is_refused_or_left_out(command: Command, truncated: Path) -> None:
    query = "select run, count(*) from updates group by run order by run"
    assert command("sql", truncated.parent, query).code == 3
    said = command("sql", truncated.parent, query, "--skip-broken", "--csv")
    assert (said.code, said.out.split()[1:]) == (0, ["healthy,30", "troubled,60"])
    assert "damaged file left out" in said.err


def test_a_dot_command_may_stand_in_place_of_the_query(command: Command, runs: Path) -> None:
    listed = command("sql", runs / "healthy", ".tables")
    assert listed.code == 0
    assert listed.out.startswith("updates ")
    assert "alarms()" in listed.out
    assert "kl_k3 double" in command("sql", runs / "healthy", ".schema updates").out
    assert command("sql", runs / "healthy", ".tables", "--out", "t.csv").code == 2
