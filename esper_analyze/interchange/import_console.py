"""Import of text as a training printed it: from standard input (``-``), or a console that was saved to a file."""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from esper_analyze.errors import UsageError
from esper_analyze.interchange import import_own, import_wandb
from esper_analyze.interchange.console_record import ConsoleRecord, PrintedForm
from esper_analyze.interchange.console_text import ConsoleText, parse
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.naming import take_updates
from esper_analyze.interchange.sb3_order import EPOCHS, ITERATION
from esper_analyze.interchange.series import ScalarLog, leave_out
from esper_analyze.terminal import cleaned, say

FORMAT = "console"
STANDARD_INPUT = Path("-")
SUFFIXES = (".log", ".txt", ".out")
_LARGEST = 1 << 30
_LONGEST_LINE = 1 << 18
_TIMESTEPS = (PrintedForm.ML_AGENTS, PrintedForm.CLEANRL, PrintedForm.RL_GAMES)
"""Forms whose steps are environment steps."""
_FRAMEWORKS = {PrintedForm.RSL_RL: "rsl_rl", PrintedForm.VERL: "verl", PrintedForm.RLLIB: "rllib"}
"""Forms that only one framework prints."""
_RETURN = "Environment/Cumulative Reward"
_KINDS = (
    "read are tables of Stable-Baselines3, baselines and Spinning Up, blocks of rsl_rl, lines of verl, ML-Agents, "
    "CleanRL and rl_games, dictionaries of TRL, results of RLlib, key: value, CSV and JSON lines"
)
_MORE = "the training's log (event files, progress.csv) holds more: give that"
_SHOWN = 60
_CSV_NAME = re.compile(r"[A-Za-z_][\w ./:()@%-]{0,120}")
_WIDE_MARKS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"), (codecs.BOM_UTF8, "utf-8-sig"))


def recognises(path: Path) -> Path | None:
    """Return ``path`` when it is standard input or a file of text by its ending, else None."""
    return path if path == STANDARD_INPUT or (path.is_file() and path.suffix in SUFFIXES) else None


def read(path: Path, framework: str | None = None) -> Imported:
    """Read the text of ``path``; ``framework`` says whose names it has. Raises ``UsageError`` or ``DamagedError``."""
    where = "standard input" if path == STANDARD_INPUT else str(path)
    lines = _text(_bytes(path), where).split("\n")
    if not any(map(str.strip, lines)):
        raise UsageError(f"{where} is empty", hint=_KINDS)
    suffix = _rows_suffix(lines)
    if suffix:
        return _read_rows(lines, suffix, framework)
    imported = Imported(FORMAT)
    whole = [line for line in lines if len(line) <= _LONGEST_LINE]
    if len(whole) < len(lines):
        what = f"line of more than {_LONGEST_LINE >> 10} KiB, left out"
        imported.losses.count("unread_line", what, times=len(lines) - len(whole))
    text = parse(whole)
    records = _chosen(text, where)
    _count(text, records, imported)
    form = records[0].form
    if form is PrintedForm.ML_AGENTS:
        _take_returns(records, imported)
    else:
        take_updates(_log(records), imported, where, framework or _FRAMEWORKS.get(form))
    if not imported.rows.get("updates"):
        raise UsageError(f"{where} holds no update that can be read out of this form: {form}", hint=_MORE)
    return imported


def _bytes(path: Path) -> bytes:
    try:
        if path != STANDARD_INPUT:
            with path.open("rb") as file:
                data = file.read(_LARGEST + 1)
        else:
            if sys.stdin.isatty():
                say("esper-analyze: paste what the training printed, then press Ctrl-D (Windows: Ctrl-Z, Enter)")
            data = sys.stdin.buffer.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > _LARGEST:
        raise UsageError(f"{path} is larger than {_LARGEST >> 30} GiB", hint="give a part of it")
    return data


def _text(data: bytes, where: str) -> str:
    """Return ``data`` as text: UTF-8, or what its first bytes say. Raises ``UsageError`` where it is none."""
    encoding = next((name for mark, name in _WIDE_MARKS if data.startswith(mark)), "utf-8")
    text = data.decode(encoding, errors="replace")
    sample = text[:100_000]
    if sample.count("\0") or sample.count("\ufffd") * 10 > len(sample):
        raise UsageError(f"{where} is not text", hint="paste what the training printed, or give the file of its logger")
    return text


def _rows_suffix(lines: Sequence[str]) -> str:
    """Return the ending of a file with these lines when they are a CSV or lines of JSON, else ""."""
    first = [line.strip() for line in lines[:1000] if line.strip()][:20]
    if len(first) > 1 and all(line.startswith('{"') and line.endswith("}") for line in first):
        return ".jsonl"
    names = first[0].split(",") if first else []
    is_csv = len(names) > 2 and len(first) > 1 and all(_CSV_NAME.fullmatch(name.strip('"')) for name in names)
    return ".csv" if is_csv and all(line.count(",") == len(names) - 1 for line in first[1:3]) else ""


def _read_rows(lines: Sequence[str], suffix: str, framework: str | None) -> Imported:
    """Read lines as a file of that ending is read."""
    with TemporaryDirectory(prefix="esper-analyze-") as folder:
        file = Path(folder) / f"pasted{suffix}"
        file.write_text("".join(f"{stripped}\n" for line in lines if (stripped := line.strip())), encoding="utf-8")
        if import_own.recognises(file):
            return import_own.read(file)
        runs = import_wandb.runs(file)
        if len(runs) > 1:
            raise UsageError(f"the text holds the rows of {len(runs)} runs", hint="give those of one")
        return runs[0].read(framework)


def _chosen(text: ConsoleText, where: str) -> list[ConsoleRecord]:
    """Return the records of the form that most numbers have. Raises ``UsageError`` for none, and for several runs."""
    form = text.main_form()
    if form is None:
        first = f"; the first line not understood: {_shown(*text.first_unread[0])}" if text.first_unread else ""
        raise UsageError(f"{where} holds no numbers of a training that are understood{first}", hint=_KINDS)
    records = [record for record in text.records if record.form is form]
    runs = list(dict.fromkeys(record.run for record in records if record.run))
    if len(runs) > 1:
        named = ", ".join(cleaned(run, _SHOWN) for run in runs[:3]) + (" …" if len(runs) > 3 else "")
        raise UsageError(f"{where} holds lines of {len(runs)} trainings: {named}", hint="give the lines of one")
    return records


def _shown(line_number: int, line: str) -> str:
    return f"line {line_number:,}: {cleaned(line, _SHOWN)!r}"


def _count(text: ConsoleText, records: Sequence[ConsoleRecord], imported: Imported) -> None:
    losses = imported.losses
    for place, (line_number, line) in enumerate(text.first_unread):
        times = 1 if place else text.unread - len(text.first_unread) + 1
        losses.count("unread_line", "line not understood", _shown(line_number, line), times=times)
    for name in text.cut_names:
        losses.count("cut_name", "name that ends in … and could be several, left out", cleaned(name, _SHOWN))
        imported.left_out[name] = "its name is cut"
    if text.cut:
        what = "dictionary whose end is missing, read without its last value"
        losses.count("cut_line", what, times=text.cut)
    for record in text.records:
        if record.form is not records[0].form:
            losses.count("other_form", f"block or line that is no {records[0].form}, left out")


def _log(records: Sequence[ConsoleRecord]) -> ScalarLog:
    """Return the records as series: by their own steps where each has one, else in their order."""
    form = records[0].form
    log = ScalarLog(timesteps=form in _TIMESTEPS)
    for step, record in _stepped(records):
        for name, value in record.cells.items():
            log.add(name, step, value)
    return log


def _take_returns(records: Sequence[ConsoleRecord], imported: Imported) -> None:
    """Take a line of ML-Agents as an update: all that it prints of one is the return."""
    imported.facts |= {"framework": "Unity ML-Agents", "algorithm": "PPO"}
    imported.facts["notes"] = "a line is a summary over summary_freq steps, and is numbered as one update"
    for index, record in enumerate({record.step: record for record in records}.values()):
        cells = {"env_steps": record.step, "episode_return_mean": record.cells[_RETURN]}
        imported.add("updates", {"update": index, "level": "NORMAL", "status": "performed", **cells})
    imported.columns["updates.episode_return_mean"] = f"{_RETURN}; episodes since the line before"
    leave_out(imported, records[0].cells, (_RETURN,))


def _stepped(records: Sequence[ConsoleRecord]) -> Iterator[tuple[int, ConsoleRecord]]:
    _complete_first(records[0], records[1] if len(records) > 1 else None)
    if any(record.step is None for record in records):
        yield from enumerate(records)
        return
    for record in records:
        yield record.step or 0, record


def _complete_first(first: ConsoleRecord, second: ConsoleRecord | None) -> None:
    """Give the first block its number by that of the second, where its own first lines were not copied.

    rsl_rl prints every iteration; Stable-Baselines3 trains once between two tables that count other epochs.
    """
    if first.form is PrintedForm.RSL_RL and first.step is None and second is not None and second.step:
        first.step = second.step - 1
    is_rest = first.form is PrintedForm.TABLE and all(name.startswith("train/") for name in first.cells)
    if is_rest and second is None:
        first.cells[ITERATION] = 2  # of the training after the first rollout
    elif is_rest and second is not None and second.cells.get(EPOCHS) != first.cells.get(EPOCHS):
        iteration = second.cells.get(ITERATION)
        if isinstance(iteration, int) and iteration > 2:
            first.cells[ITERATION] = iteration - 1
