"""Whatever is wrong with what a user gives: one sentence on stderr, the right exit code, no traceback."""

import json
import shutil
from pathlib import Path

import pytest

from tests.commands.conftest import Command
from tests.commands.test_process import process
from tests.patience import PATIENCE

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"
READERS = (("report", "--out", "OUT"), ("replay",), ("sql", "select 1"))
IDS = [reader[0] for reader in READERS]


def arguments(reader: tuple[str, ...], path: Path, tmp_path: Path) -> list[str]:
    name, *rest = reader
    return [name, str(path), *(str(tmp_path / "out") if word == "OUT" else word for word in rest)]


def one_sentence(err: str) -> bool:
    return err.startswith("esper-analyze: ") and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize("reader", READERS, ids=IDS)
def test_a_path_that_is_not_there_is_wrong_use(reader: tuple[str, ...], command: Command, tmp_path: Path) -> None:
    said = command(*arguments(reader, tmp_path / "nothing", tmp_path))
    assert (said.code, said.out) == (2, "")
    assert one_sentence(said.err)
    assert "nothing does not exist" in said.err


@pytest.mark.parametrize("reader", READERS, ids=IDS)
def test_a_directory_that_is_no_run_is_wrong_use(reader: tuple[str, ...], command: Command, tmp_path: Path) -> None:
    said = command(*arguments(reader, tmp_path, tmp_path))
    assert (said.code, said.out) == (2, "")
    assert one_sentence(said.err)
    assert "is not a recorded run" in said.err


@pytest.mark.parametrize("reader", READERS, ids=IDS)
def test_an_empty_run_is_read(reader: tuple[str, ...], command: Command, runs: Path, tmp_path: Path) -> None:
    said = command(*arguments(reader, runs / "empty", tmp_path))
    assert (said.code, said.err) == (0, "")
    assert said.out


@pytest.mark.parametrize("reader", READERS, ids=IDS)
def test_a_run_killed_before_its_first_shard_is_read(
    reader: tuple[str, ...], command: Command, runs: Path, tmp_path: Path
) -> None:
    shutil.rmtree(runs / "healthy" / "rank00000")
    said = command(*arguments(reader, runs / "healthy", tmp_path))
    assert said.code == 0
    assert "rank 0 is missing: it recorded nothing" in said.err


@pytest.mark.parametrize("reader", READERS, ids=IDS)
def test_a_truncated_shard_is_named(reader: tuple[str, ...], command: Command, truncated: Path, tmp_path: Path) -> None:
    said = command(*arguments(reader, truncated, tmp_path))
    assert (said.code, said.out) == (3, "")
    assert one_sentence(said.err)
    assert "heads-000001.parquet has" in said.err
    assert "--skip-broken" in said.err


@pytest.mark.parametrize("reader", READERS, ids=IDS)
def test_skip_broken_reads_the_rest(reader: tuple[str, ...], command: Command, truncated: Path, tmp_path: Path) -> None:
    said = command(*arguments(reader, truncated, tmp_path), "--skip-broken")
    assert said.code == 0
    assert said.out


@pytest.mark.parametrize("reader", READERS, ids=IDS)
def test_a_newer_schema_is_refused_by_name(
    reader: tuple[str, ...], command: Command, runs: Path, tmp_path: Path
) -> None:
    file = runs / "healthy" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": "99.0"}))
    said = command(*arguments(reader, runs / "healthy", tmp_path))
    assert said.code == 2
    assert one_sentence(said.err)
    assert "schema 99.0" in said.err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": "one"}', '{"schema_version": null}'])
@pytest.mark.parametrize("reader", READERS, ids=IDS)
def test_a_broken_identity_is_damage(
    reader: tuple[str, ...], content: str, command: Command, runs: Path, tmp_path: Path
) -> None:
    (runs / "healthy" / "run.json").write_text(content)
    said = command(*arguments(reader, runs / "healthy", tmp_path))
    assert said.code == 3
    assert one_sentence(said.err)


@pytest.mark.parametrize(
    "thresholds", ['"high"', "[1]", '{"kl_spike": {"warning": "NaN"}}', '{"no_such_rule": {"warning": 1}}']
)
@pytest.mark.parametrize("reader", READERS[:2], ids=IDS[:2])
def test_stored_thresholds_that_make_no_sense_are_damage(
    reader: tuple[str, ...], thresholds: str, command: Command, runs: Path, tmp_path: Path
) -> None:
    file = runs / "healthy" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"thresholds": json.loads(thresholds)}))
    said = command(*arguments(reader, runs / "healthy", tmp_path))
    assert said.code == 3
    assert one_sentence(said.err)


@pytest.mark.parametrize(
    ("assignment", "answer"),
    [
        ("kl_spik.warning=1", "did you mean 'kl_spike'"),
        ("kl_spike.warnin=1", "did you mean 'warning'"),
        ("kl_spike.warning", "rule.field=value"),
        ("kl_spike.warning=loud", "finite number"),
        ("kl_spike.warning=nan", "finite number"),
        ("=", "rule.field=value"),
    ],
)
@pytest.mark.parametrize("name", ["report", "replay"])
def test_a_misspelt_set_is_answered_with_the_nearest(
    name: str, assignment: str, answer: str, command: Command, runs: Path, tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "out"] if name == "report" else []
    said = command(name, runs / "healthy", *out, "--set", assignment)
    assert said.code == 2
    assert one_sentence(said.err)
    assert answer in said.err


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (None, "cannot be read"),
        ("[kl_spike", "not TOML"),
        ("[kl_spike]\nwarning = true", "finite number"),
        ("[nope]\nwarning = 1", "there is no rule 'nope'"),
        ("kl_spike = 3", "must be a table"),
    ],
)
def test_a_bad_thresholds_file_is_wrong_use(
    content: str | None, answer: str, command: Command, runs: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "t.toml").write_text(content)
    said = command("replay", runs / "healthy", "--thresholds", tmp_path / "t.toml")
    assert said.code == 2
    assert one_sentence(said.err)
    assert "t.toml" in said.err
    assert answer in said.err


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("selec 1", "syntax error"),
        ("select nothing from updates", "nothing"),
        ("select * from nowhere", "there is no table 'nowhere' (the tables are updates, steps"),
        ("select * from incidents", "there is no table 'incidents' (from alarms() lists when each alarm began"),
        ("from alarms", "there is no table 'alarms' (it is a macro: from alarms())"),
        ("from updats", "there is no table 'updats' (did you mean updates?)"),
        ("from first_fird()", "did you mean first_fired()?"),
        ("select * from read_csv('/etc/passwd')", "disabled"),
        ("explain analyze copy updates to '/tmp/stolen.csv'", "disabled"),
        ("copy updates to '/tmp/stolen.csv'", "only runs queries, and this is COPY"),
        ("attach '/tmp/x.db'", "this is ATTACH"),
        ("set enable_external_access = true", "this is SET"),
        ("install httpfs", "this is LOAD"),
        ("update extensions", "a statement of another kind"),
        ("delete from updates", "this is DELETE"),
        ("select 1; drop table updates", "these are 2 statements"),
        ("select interval '100000000 years'", "cast it to text"),
        ("select repeat('x', 20000000)", "a text of 20,000,000 characters"),
        ("", "the query is empty"),
        (" ; -- nothing", "the query is empty"),
    ],
)
def test_bad_sql_is_one_sentence(query: str, answer: str, command: Command, runs: Path) -> None:
    said = command("sql", runs / "healthy", query)
    assert (said.code, said.out) == (2, "")
    assert "Traceback" not in said.err
    assert answer in said.err
    assert one_sentence(said.err)
    assert not Path("/tmp/stolen.csv").exists()


@pytest.mark.parametrize("shape", ["csv", "json", "jsonl", "parquet"])
def test_a_time_with_a_zone_is_answered_or_refused_in_one_sentence(
    shape: str, command: Command, runs: Path, tmp_path: Path
) -> None:
    """Some versions of DuckDB need another package to hand one over; all are well that end well."""
    file = tmp_path / f"out.{shape}"
    said = command("sql", runs / "healthy", "select timestamptz '2020-01-01' as t", "--out", file)
    assert "Traceback" not in said.err
    if said.code == 0:
        assert file.stat().st_size > 0
    else:
        assert (said.code, said.out, file.exists()) == (2, "", False)
        assert one_sentence(said.err)


def test_a_query_that_takes_too_long_is_stopped(command: Command, runs: Path) -> None:
    endless = "select count(*) from range(100000000000) a, range(1000) b where a.range % 7 = b.range"
    said = command("sql", runs / "healthy", endless, "--timeout", "0.3")
    assert said.code == 2
    assert "stopped after 0.3 s" in said.err


ENDLESS = {
    "one call of a function": "select levenshtein(repeat('ab', 10000000), repeat('ba', 10000000))",
    "a result without end": "select range from range(100000000000)",
}


@pytest.mark.parametrize("query", ENDLESS.values(), ids=ENDLESS)
def test_what_no_interrupt_reaches_is_stopped_all_the_same(query: str, runs: Path) -> None:
    done = process("sql", runs / "healthy", query, "--csv", "--timeout", "0.3")
    assert done.returncode == 2
    assert one_sentence(done.stderr)
    assert "stopped after 0.3 s" in done.stderr


@pytest.mark.parametrize(
    "query",
    [
        "select list(range) from range(10000000000)",
        "select max(length(repeat(repeat('x', 100000), range::int))) from range(100000)",
    ],
    ids=["memory that DuckDB counts", "memory that it does not count"],
)
def test_a_query_that_needs_too_much_memory_is_stopped(query: str, runs: Path) -> None:
    done = process("sql", runs / "healthy", query, "--memory", "0.2", "--timeout", PATIENCE)
    assert done.returncode == 2
    assert one_sentence(done.stderr)
    assert "more than 0.2 GB of memory" in done.stderr


def test_what_a_query_spills_leaves_nothing_behind(runs: Path, tmp_path: Path) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    query = "select max(x) from (select hash(range) x, range from range(20000000) order by x, range desc)"
    done = process(
        "sql",
        runs / "healthy",
        f"{query} where x > 0",
        "--memory",
        "0.1",
        "--timeout",
        str(PATIENCE),
        TMPDIR=str(place),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(place.iterdir())


@pytest.mark.parametrize(
    "words", [["nonsense"], ["report"], ["report", "x", "--no-such"], ["sql", "x", "y", "--limit", "few"]]
)
def test_a_command_line_that_cannot_be_understood_is_wrong_use(words: list[str], command: Command) -> None:
    said = command(*words)
    assert (said.code, said.out) == (2, "")
    assert one_sentence(said.err)
    assert "--help" in said.err


@pytest.mark.parametrize(
    "words",
    [["sql", "RUN", "select 1", "--json", "--csv"], ["rules", "--json", "--toml"]],
)
def test_formats_that_exclude_each_other_are_wrong_use(words: list[str], command: Command, runs: Path) -> None:
    said = command(*(runs / "healthy" if word == "RUN" else word for word in words))
    assert said.code == 2
    assert "exclude each other" in said.err


@pytest.mark.parametrize("name", ["replay", "verify", "repair", "compact", "report", "ls"])
def test_a_directory_cannot_speak_to_the_terminal(
    name: str, command: Command, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "\x1b[31mred\u202e\nline"
    (runs / "healthy").rename(run)
    said = command(name, run)
    assert said.code == 0
    assert "[31mred line" in said.out
    assert not set("\x1b\u202e") & set(said.out + said.err)


@pytest.mark.parametrize("name", ["replay", "verify", "report"])
def test_a_directory_whose_name_is_no_text_is_wrong_use_and_no_damage(name: str, command: Command, runs: Path) -> None:
    run = runs / b"bad \xff name".decode("utf-8", "surrogateescape")
    (runs / "healthy").rename(run)
    said = command(name, run)
    assert said.code == 2
    assert one_sentence(said.err)
    assert "is not a UTF-8 name" in said.err


@pytest.mark.parametrize("arguments", [("replay",), ("sql", "select count(*) from heads")])
def test_what_is_left_out_is_said(command: Command, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    run = Path(shutil.copytree(SAMPLES / "nan_reward", tmp_path / "run"))
    shard = next(run.rglob("updates-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:5000])
    said = command(arguments[0], run, *arguments[1:], "--skip-broken")
    assert said.code == 0
    assert f"1 damaged file left out, so this is not the whole run: {shard}" in said.err
    if arguments[0] == "replay":
        verified = command("replay", run, "--skip-broken", "--verify")
        assert verified.code == 3
        assert "no damage" not in verified.err
        facts = json.loads(command("replay", run, "--skip-broken", "--json").out)
        assert [Path(one["file"]).name for one in facts["left_out"]] == [shard.name]


def test_a_rank_that_is_gone_is_said(command: Command, tmp_path: Path) -> None:
    run = Path(shutil.copytree(SAMPLES / "nan_reward", tmp_path / "run"))
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | {"ranks": 2}))
    assert "rank 1 is missing" in command("replay", run).err


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["timeline", "RUN", "--format", "pdf"], "'pdf' is not one of 'table', 'json', 'csv', 'png', 'svg'"),
        (["timeline", "RUN", "--out", "t.pdf"], "names no known format (formats are table, json, csv, png, svg)"),
        (
            ["sql", "RUN", "select 1", "--format", "pdf"],
            "'pdf' is not one of 'table', 'csv', 'json', 'jsonl'",
        ),
        (
            ["report", "RUN", "--format", "pdf"],
            "it always writes HTML, Markdown, JSON, PNG and SVG (--json",
        ),
        (["replay", "RUN", "--set", "kl_spike.warning=-1"], "kl_spike.warning must be a number of at least 0, not -1"),
    ],
)
def test_an_unknown_format_or_an_impossible_bound_is_refused_with_what_is_possible(
    words: list[str], answer: str, command: Command, runs: Path
) -> None:
    said = command(*(str(runs / "healthy") if word == "RUN" else word for word in words))
    assert (said.code, said.out) == (2, "")
    assert answer in said.err
    assert "Value error" not in said.err
    assert one_sentence(said.err)


def test_a_folder_of_runs_names_the_runs_in_it(command: Command, runs: Path, tmp_path: Path) -> None:
    said = command("replay", runs)
    assert said.code == 2
    assert f"{runs} is not a recorded run: it has no run.json (it holds runs: " in said.err
    assert str(runs / "healthy") in said.err
    assert f"`esper-analyze ls {runs}` lists them" in said.err
    (tmp_path / "empty").mkdir()
    assert "give a directory written by the recorder" in command("report", tmp_path / "empty").err
