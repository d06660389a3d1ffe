"""Names that mean harm, through every command in every format, on a terminal: nothing reaches it that it would obey."""

from __future__ import annotations

import csv
import io
import logging
import sys
import unicodedata
from pathlib import Path

import pytest

from esper_analyze.cli import run
from esper_analyze.schema.printable import INVISIBLE, LOG, printable
from recorder.guard import ErrorGuard
from tests.faults.names import NAMES, hostile_run

FORMS = ("table", "csv", "json")
QUESTIONS = ("timeline", "drift", "heads", "layers")
HEADS = "select head, kind from heads where update = 3"
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("ls", "{runs}"), ("ls", "{runs}", "--json"), ("replay", "{run}"), ("replay", "{run}", "--json"),
    ("replay", "{run}", "--set", "kl_spike.warning=0.001"), ("replay", "{run}", "--verify"),
    ("report", "{run}", "--json"), ("report", "{run}", "--out", "{out}/page"),
    ("verify", "{run}"), ("verify", "{run}", "--json"), ("watch", "{run}", "--once"), ("watch", "{run}", "--json"),
    ("compare", "{run}", "{other}", "--no-page"), ("compare", "{run}", "{other}", "--json", "--no-page"),
    ("backtest", "{runs}"), ("backtest", "{runs}", "--json"), ("repair", "{run}", "--dry-run"), ("compact", "{run}"),
    *(("sql", "{run}", HEADS, "--format", form) for form in ("table", "csv", "json", "jsonl")),
    ("sql", "{run}", 'select 1 as "\x1b[31m\x9b"', "--csv"), ("sql", "{run}", "select '\x1b[31m' from nothing"),
    *((name, "{run}", "--format", form) for name in QUESTIONS for form in FORMS),
    ("report", "{runs}/no\x1b[31msuch\nrun"), ("export", "{run}", "--to", "csv", "--out", "{out}/\x1b[31m"),
)  # fmt: skip


class Terminal(io.StringIO):
    """Stands for a terminal: what is written is kept."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("run\x1b[31m", "other"):
        made = hostile_run(folder / name)
        (made / "labels.toml").write_text("healthy = true")
    return folder


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words)[:60].encode("unicode_escape").decode())
def test_nothing_reaches_a_terminal_that_it_would_obey(
    words: tuple[str, ...], runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    facts = {"runs": runs, "run": runs / "run\x1b[31m", "other": runs / "other", "out": tmp_path}
    code = run([word.format(**facts) if "{" in word else word for word in words])
    written = out.getvalue() + err.getvalue()
    assert code in (0, 2, 3), written[-500:]
    assert written
    obeyed = {f"U+{ord(one):04X}" for one in written if unicodedata.category(one) in INVISIBLE} - {"U+0009", "U+000A"}
    assert not obeyed


def test_a_pipe_gets_the_exact_names(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sql", str(runs / "other"), HEADS, "--csv"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out, newline="")))
    assert sorted(row[0] for row in rows[1:]) == sorted(NAMES)


def test_a_traceback_that_is_asked_for_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("\x1b[31mred\x9b")

    err = Terminal()
    monkeypatch.setattr("esper_analyze.commands.ls.say", broken)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("ESPER_ANALYZE_TRACEBACK", "1")
    assert run(["ls", str(Path(__file__).parent)]) == 70
    assert r"RuntimeError: \x1b[31mred\x9b" in err.getvalue()
    assert "\x1b" not in err.getvalue()


def test_the_log_of_the_recorder_is_printable(caplog: pytest.LogCaptureFixture) -> None:
    sink = io.StringIO()
    handler = logging.StreamHandler(sink)
    LOG.addHandler(handler)
    try:
        guard = ErrorGuard(strict=False)
        for name in NAMES:
            guard.warn_once(name, f"head {name} is not known")
        with guard("minibatch"):
            raise ValueError("\x1b[31m of\nhead \x9b")
    finally:
        LOG.removeHandler(handler)
    lines = sink.getvalue()
    assert not {one for one in lines if unicodedata.category(one) in INVISIBLE} - {"\n"}
    assert r"\x1b[31mred\x1b]0;pwned\x07\x9b31m" in lines
    assert r"ValueError: \x1b[31m of" in lines
    assert len(caplog.records) == len(NAMES) + 1


def test_a_percent_sign_in_a_name_is_no_format(caplog: pytest.LogCaptureFixture) -> None:
    LOG.warning("head %s is not known", "%s %d \x1b")
    assert caplog.records[-1].getMessage() == r"head %s %d \x1b is not known"


def test_printable_keeps_what_can_be_seen() -> None:
    assert printable("日本 \U0001f600 é\n", "\n") == "日本 \U0001f600 é\n"
    assert printable("a\x00\x1b\x7f\u202e\ud83d\n") == r"a\x00\x1b\x7f\u202e\ud83d\n"
