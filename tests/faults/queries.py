"""Rows 31 and 32: SQL that means harm, to what lies outside the run, and to the machine.

``python -m tests.faults.queries RUN SECRET`` is the child: statements as JSON on stdin, what came of each on stdout.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from esper_analyze.cli import run as command_line
from esper_analyze.runs.run import open_run
from esper_analyze.sql.sandbox import sandbox
from tests.faults.children import ROOT
from tests.faults.commands import Done, measured, watched
from tests.faults.outcome import Bench, TrialTally, facts
from tests.patience import PATIENCE

SAMPLE = ROOT / "sample_runs" / "runs" / "nan_reward"
SECRET = "the-secret-word"
HOSTILE = (
    "from read_csv('{here}/secret.csv')",
    "from '{here}/secret.csv'",
    "from read_text('{here}/secret.csv')",
    "from read_blob('{here}/*')",
    "from glob('{here}/*')",
    "from sniff_csv('{here}/secret.csv')",
    "from read_json('{here}/secret.csv')",
    "from parquet_metadata('{here}/secret.csv')",
    "from query('from ''{here}/secret.csv''')",
    "from query_table(['{here}/secret.csv'])",
    "from read_text('/proc/self/environ')",
    "from 'https://example.org/x.parquet'",
    "from duckdb_secrets()",
    "select getenv('FAULTS_SECRET')",
    "select * from statements",
    "from arrow_scan(1::pointer, 1::pointer, 1::pointer)",
    "explain analyze copy updates to '{here}/stolen.csv'",
    "copy updates to '{here}/stolen.csv'",
    "copy (select 1) to '{here}/stolen.parquet' (format parquet)",
    "copy updates from '{here}/secret.csv'",
    "copy (select 1) to '/dev/stdout'",
    "export database '{here}/stolen'",
    "import database '{here}'",
    "attach '{here}/stolen.db' as stolen",
    "attach '{here}/secret.csv' as stolen",
    "create table t as from '{here}/secret.csv'",
    "create view v as from read_csv('{here}/secret.csv')",
    "create macro m() as table from read_csv('{here}/secret.csv')",
    "create persistent secret s (type http, bearer_token 'x')",
    "drop table updates",
    "delete from updates",
    "update updates set kl_k3 = 0",
    "insert into updates (update) values (1)",
    "select 1; drop table updates",
    "select 1; copy updates to '{here}/stolen.csv'",
    "install httpfs",
    "force install httpfs from 'http://127.0.0.1:1'",
    "load '{here}/x.duckdb_extension'",
    "update extensions",
    "set lock_configuration = false",
    "set enable_external_access = true",
    "set memory_limit = '1TB'",
    "set threads = 64",
    "reset enable_external_access",
    "set temp_directory = '{here}/spill'",
    "pragma memory_limit = '1TB'",
    "call enable_logging(storage = 'file', storage_config = {{'path': '{here}/logs'}})",
    "pragma profiling_output = '{here}/profile'",
    "/* nothing */",
)
"""Each is to be refused."""
HARMLESS = (
    "select current_setting('temp_directory')",
    "from duckdb_settings()",
    "select write_log('x')",
    "with gone as (delete from updates returning *) select count(*) from gone",
    "pivot updates on status using count(*)",
    "summarize updates",
    "from first_fired()",
    "show tables",
)
"""Each may be answered: it touches nothing but the query's own copy."""


def hostile_sql(bench: Bench) -> TrialTally:
    """Statements that would read, write or set what they must not: refused, nothing read, written, set."""
    outcome = TrialTally()
    here = bench.scratch / "sql"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    (here / "secret.csv").write_text(f"a,b\n{SECRET},1\n")
    shutil.copytree(SAMPLE, here / "run")
    before = _tree(here)
    statements = [text.format(here=here) for text in HOSTILE]
    for label, given, refused in (("hostile", statements, True), ("harmless", list(HARMLESS), False)):
        for one in _told(here, given):
            outcome.trials += 1
            for fault in _faults(one, refused=refused):
                outcome.wrong[f"{label}: {one['statement'].replace(str(here), '…')}: {fault}"] += 1
    for text in statements if bench.long else ():
        done = measured("sql", here / "run", text, cwd=here, environment={"FAULTS_SECRET": SECRET, "HOME": str(here)})
        outcome.trials += 1
        if (failure := done.refusal_fault(2)) or SECRET in done.out + done.err:
            outcome.wrong[f"in a process of its own: {text}: {failure or 'the secret was told'}"] += 1
    if _tree(here) != before:
        outcome.wrong[f"files changed: {sorted(set(_tree(here)) ^ set(before))}"] += 1
    outcome.notes.append(facts(refused=len(HOSTILE), answered=len(HARMLESS)))
    return outcome


def _tree(here: Path) -> dict[str, tuple[int, int]]:
    found = (path for path in here.rglob("*") if path.is_file())
    return {str(path.relative_to(here)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def _told(here: Path, statements: list[str]) -> list[dict[str, Any]]:
    """Give all statements to one child; return what came of each."""
    (here / "statements").write_text(json.dumps(statements))
    line = [sys.executable, "-m", "tests.faults.queries", str(here / "run"), str(here / "statements")]
    environment = {"FAULTS_SECRET": SECRET, "HOME": str(here), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = watched(line, PATIENCE, here, environment)
    (here / "statements").unlink()
    if done.code:
        raise RuntimeError(f"the child ended with {done.code}: {done.err[-300:]}")
    return list(json.loads(done.out))


def _faults(one: dict[str, Any], *, refused: bool) -> list[str]:
    found = [] if one["same_settings"] else ["a setting changed"]
    done = Done(one["code"], one["out"], one["err"], 0.0, 0)
    if SECRET in one["out"] + one["err"] + one["direct"]:
        found.append("the secret was told")
    if refused:
        fault = done.refusal_fault(2) or ("an answer" if one["out"] else None)
        return found + ([fault] if fault else [])
    return found + ([] if one["code"] == 0 else [f"exit {one['code']}: {one['err']}"])


def child(run_dir: Path, statements: list[str]) -> list[dict[str, Any]]:
    """Ask the command and, past its refusals, the sandbox itself; what it was set to must stay."""
    return [_asked(run_dir, text) for text in statements]


def _asked(run_dir: Path, text: str) -> dict[str, Any]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command_line(["sql", str(run_dir), text, "--csv"])
    with sandbox([("run", open_run(run_dir))], ["updates"] if "updates" in text else []) as connection:
        before = connection.execute("from duckdb_settings()").fetchall()
        try:
            direct = str(connection.execute(text).fetchall())
        except Exception as error:
            direct = f"refused: {type(error).__name__}"
        after = connection.execute("from duckdb_settings()").fetchall()
    return {
        "statement": text, "code": code, "out": out.getvalue(), "err": err.getvalue(), "direct": direct,
        "same_settings": before == after,
    }  # fmt: skip


BOMBS = {
    "cross join": "select count(*) from range(100000000000) a, range(1000) b where a.range % 7 = b.range",
    "recursive CTE": "with recursive t(n, s) as (select 1, 'x' union all select n + 1, s || s from t) "
    "select max(s) from t",
    "range(1e12) by hash": "select range % 100000000 k, count(*) from range(1000000000000) group by k order by 2",
    "string repeat": "select max(length(repeat(repeat('x', 100000), range::int))) from range(100000)",
    "list explosion": "select list(range) from range(10000000000)",
    "sort spill": "select * from range(20000000000) order by hash(range)",
    "one function call": "select levenshtein(repeat('ab', 10000000), repeat('ba', 10000000))",
}
MORE_BOMBS = {
    "regex": "select count(*) from range(1000000000) where regexp_matches(repeat('a', 20000) || range, '(a|aa)*b')",
    "like": "select count(*) from range(1000000000) where repeat('a', 10000) || range like '%a%a%a%a%a%b'",
    "recursive count": "with recursive t(n) as (select 1 union all select n + 1 from t) select count(*) from t",
    "range(1e12) sum": "select sum(range) from range(1000000000000)",
    "distinct": "select count(distinct range) from range(10000000000)",
    "lpad": "select length(lpad('x', 2000000000, 'y'))",
    "printf": "select length(printf('%*d', 2000000000, 1))",
    "string_agg": "select length(string_agg(repeat('x', 10000), '')) from range(10000000)",
    "window": "select max(x) from (select sum(range) over (order by hash(range) "
    "rows between 1000000 preceding and current row) x from range(100000000))",
    "doubling texts": "with recursive t(n, s) as (select 1, 'x' union all select n + 1, s || s from t) from t",
    "endless result": "select range from range(100000000000)",
    "wide result": "select repeat('x', 1000000) from range(100000)",
}
LATE = 3.0
"""Seconds after its time by which a query must be gone, the start of the process not counted.

Where starting the command takes more than half of it: twice as long as that start."""
OVER = 200 << 20
"""Bytes the whole process may take beyond the limit given."""


def sql_bombs(bench: Bench) -> TrialTally:
    """Queries that never end or never fit: stopped in time and within memory, each with one sentence."""
    outcome, latest, most = TrialTally(), 0.0, 0
    timeout, memory = (4.0, 1.0) if bench.long else (0.5, 0.3)
    start = measured("sql", SAMPLE, "select 1").seconds
    for name, query in (BOMBS | MORE_BOMBS if bench.long else BOMBS).items():
        limits = ("--timeout", timeout, "--memory", memory)
        for _ in range(2):  # a machine with other work to do may be late once
            done = measured("sql", SAMPLE, query, "--csv", *limits, limit=PATIENCE, cwd=bench.scratch)
            over, late = done.peak - int(memory * 1e9), done.seconds - start - timeout
            allowed = max(LATE, 2 * start)
            if late <= allowed and over <= OVER:
                break
        outcome.trials += 1
        if fault := done.refusal_fault(2):
            outcome.wrong[f"{name}: {fault}"] += 1
        if late > allowed or over > OVER:
            outcome.wrong[f"{name}: {late:.1f} s after its time, {over / 2**20:.0f} MB beyond its memory"] += 1
        latest, most = max(latest, late), max(most, over)
    outcome.notes.append(
        facts(limits=f"{timeout:g} s {memory:g} GB", latest=f"{latest:+.1f} s", most=f"{most / 2**20:+.0f} MB")
    )
    if left := [path.name for path in bench.scratch.glob(".tmp")]:
        outcome.wrong[f"left behind: {left}"] += 1
    return outcome


if __name__ == "__main__":
    told = child(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
    sys.stdout.write(json.dumps(told))
