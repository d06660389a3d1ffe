"""Row 34: shards that a checksum vouches for and that make decoders fail, panic or abort.

``python -m tests.faults.decoders RUN SEED TRIALS`` is the child: one line of JSON before and after each command.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import polars
import pyarrow.parquet as pq
from polars.exceptions import PanicException

from esper_analyze.cli import run as command_line
from tests.faults.children import ROOT
from tests.faults.commands import watched
from tests.faults.forged import copied, parquet, shards, vouched
from tests.faults.outcome import Bench, TrialTally, facts

COMMANDS = ("replay", "sql", "ls", "verify", "report")
_PANIC = "boom"


def bad_cells(bench: Bench) -> TrialTally:
    """Bytes changed at random inside pages and footers, and panics: exit 0 or 3, the file named, no traceback."""
    outcome, codes = TrialTally(), Counter[str]()
    here = bench.scratch / "decoders"
    here.mkdir(exist_ok=True)
    trials = bench.trials(12, 400)
    line = [sys.executable, "-m", "tests.faults.decoders", str(here), str(bench.random.randrange(1 << 30)), str(trials)]
    done = watched(line, bench.trials(120, 1800), ROOT)
    told = [json.loads(text) for text in done.out.splitlines()]
    if done.code:
        outcome.wrong[f"the reader's process ended with {done.code} in {told[-1] if told else done.err[-300:]}"] += 1
    for one in told:
        if "code" not in one:
            continue
        outcome.trials += 1
        codes[f"{one['command']} {one['code']}"] += 1
        if fault := _fault(one):
            outcome.wrong[f"{one['command']} of {one['file']}, {one['harm']}: {fault}"] += 1
    outcome.notes.append("exit codes: " + facts(**dict(sorted(codes.items()))))
    return outcome


def _fault(one: dict[str, Any]) -> str | None:
    said: str = one["out"] + one["err"]
    if one["code"] not in (0, 3):
        return f"exit {one['code']}: {one['err'][-300:]}"
    if "Traceback" in said or (one["harm"] == "panic" and one["code"] == 0):
        return said[-300:]
    return None if one["code"] == 0 or one["file"] in said else f"the file is not named: {said[-300:]}"


def child(here: Path, seed: int, trials: int) -> None:
    """Harm one shard at a time, and read the run with every command."""
    chance = random.Random(seed)
    for trial in range(trials):
        run_dir = copied(here / "run")
        path = chance.choice(shards(run_dir))
        harm = chance.choice(("page", "page", "footer"))
        vouched(path, _harmed(path, harm, chance))
        for command in COMMANDS if trial % 4 == 0 else COMMANDS[:-1]:
            _ask(here, command, path, harm)
    run_dir = copied(here / "run")
    with mock.patch.object(polars, "read_parquet", _panic):
        for command in ("report", "ls"):
            _ask(here, command, shards(run_dir)[0], "panic")


def _panic(*_: object, **__: object) -> None:
    raise PanicException(_PANIC)


def _harmed(path: Path, harm: str, chance: random.Random) -> bytes:
    """Return the shard's rows, packed in one of many ways and with a few other bytes in it."""
    with pq.ParquetFile(path) as file:
        data = file.read()
    whole = bytearray(path.read_bytes())
    if chance.random() < 0.75:  # without compression, whose own checks find nearly all
        version = chance.choice(("1.0", "2.0"))
        options = {"use_dictionary": chance.random() < 0.5, "data_page_version": version}
        whole = bytearray(parquet(data, compression="none", **options))
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for _ in range(chance.choice((1, 1, 3, 30))):
        at = chance.randrange(4, footer) if harm == "page" else chance.randrange(footer, len(whole) - 8)
        whole[at] = chance.choice((0, 255, whole[at] ^ 1 << chance.randrange(8), chance.randrange(256)))
    return bytes(whole)


def _ask(here: Path, command: str, path: Path, harm: str) -> None:
    table = path.name.rsplit("-", maxsplit=1)[0]
    rest = {"report": ["--out", str(here / "page")], "sql": [f"from {table}", "--json"]}.get(command, [])
    facts: dict[str, object] = {"command": command, "file": path.name, "harm": harm}
    if harm == "panic":  # every file makes a panic, any may be the one that is named
        facts["file"] = ".parquet cannot be decoded"
    _tell(facts)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command_line([command, str(here / "run"), *rest])
    _tell(facts | {"code": code, "out": out.getvalue()[-2000:], "err": err.getvalue()[-2000:]})


def _tell(words: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
