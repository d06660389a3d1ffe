"""Going on with a run: what was recorded before, and the number of the attempt that follows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from esper_analyze.schema import VERSION
from esper_analyze.schema.history import is_newer, was_declared
from esper_analyze.storage import layout
from esper_analyze.storage.layout import ManifestError, ShardEntry
from esper_analyze.storage.limits import LARGEST_LOG, LARGEST_TEXT
from esper_analyze.storage.log_frames import frames
from esper_analyze.storage.run_files import RefusedFileError, read_file
from recorder.store.run_file import RunExistsError, create_run, plain

MUST_AGREE = ("ranks", "heads", "head_kinds", "groups", "parameters", "thresholds", "custom_rules", "level")
"""What run.json says once for the whole run, and what a later attempt cannot change."""
OF_PARAMETERS = ("groups", "parameters")
"""Of these, what is another once parameters came or went in the training: table ``events`` says so."""


class ResumeError(ValueError):
    """The run cannot be gone on with as asked; the message says what differs."""


@dataclass(frozen=True, slots=True)
class EarlierAttempts:
    """What a rank recorded so far: the number of the next attempt, and the last complete update (−1: none)."""

    attempt: int
    last_update: int


def begin(run_dir: Path, rank: int, facts: Mapping[str, object], *, resume: bool) -> EarlierAttempts:
    """Make the run, join one that another rank has just made, or go on with it; return what ``rank`` recorded before.

    ``facts`` is what run.json says, with the number of ``ranks``. Raises ``RunExistsError`` when the directory holds
    a run that is not to be gone on with, ``ResumeError`` when it is another one.
    """
    earlier = earlier_attempts(run_dir, rank)
    if earlier.attempt == 0 or not resume:
        try:
            create_run(run_dir, facts)
        except RunExistsError:
            if not resume and (facts["ranks"] == 1 or earlier.attempt):
                raise
        else:
            return EarlierAttempts(0, -1)
    check_identity(run_dir, facts)
    return earlier


def check_identity(run_dir: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return run.json where it agrees with ``facts``. Raises ``ResumeError``, naming all that differs."""
    path = run_dir / layout.RUN_FILE
    try:
        info = dict(json.loads(read_file(path, LARGEST_TEXT)))
    except (OSError, ValueError, TypeError) as error:
        raise ResumeError(f"{path} cannot be read, so the run cannot be gone on with ({error})") from error
    recorded = str(info.get("schema_version"))
    if not was_declared(recorded) or is_newer(recorded):  # rows of older versions are read beside today's
        raise ResumeError(
            f"{path} has schema {info.get('schema_version')}, this recorder writes {VERSION}: record anew"
        )
    now = json.loads(json.dumps(plain(facts)))
    changed = OF_PARAMETERS if _parameters_changed(run_dir) else ()
    fixed = [name for name in MUST_AGREE if name in now and name not in changed]
    other = [name for name in fixed if not _agree(name, info.get(name), now[name])]
    if other:
        differences = "; ".join(f"{name}: {_short(info.get(name))} before, {_short(now[name])} now" for name in other)
        raise ResumeError(f"{run_dir} was recorded otherwise ({differences}): record into a new directory")
    return info


def _agree(name: str, earlier: Any, now: Any) -> bool:
    """Whether two facts say the same; a head's size that one of them does not know agrees with any."""
    if name == "heads" and isinstance(earlier, dict) and list(earlier) == list(now):
        return all(size == now[head] or None in (size, now[head]) for head, size in earlier.items())
    return _compared(name, earlier) == _compared(name, now)


def _compared(name: str, value: object) -> object:
    """Return what must agree of a fact of run.json: of custom rules what they say, not the path of their file."""
    if name == "custom_rules" and isinstance(value, dict):
        return {key: cell for key, cell in value.items() if key != "file"}
    return value


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "…"


def earlier_attempts(run_dir: Path, rank: int) -> EarlierAttempts:
    """Return what ``rank`` has recorded in ``run_dir``; damaged shards and frames count as far as they are named.

    Raises ``ResumeError`` for a file that is not a regular one or too large to be the recorder's.
    """
    attempt, last = -1, -1
    folder = run_dir / layout.rank_folder(rank)
    for child in sorted(folder.iterdir()) if folder.is_dir() else ():
        number = layout.attempt_of(child)
        if number is None:
            continue
        attempt = max(attempt, number)
        try:
            last = max(last, _last_sealed(child), _last_logged(child))
        except RefusedFileError as error:
            raise ResumeError(f"{error}: move it away, or record into a new directory") from error
    return EarlierAttempts(attempt + 1, last)


def _last_sealed(folder: Path) -> int:
    return max((entry.last_update for entry in _sealed(folder, "updates")), default=-1)


def _last_logged(folder: Path) -> int:
    return max((int(row["update"]) for row in _logged(folder, "updates") if "update" in row), default=-1)


def _sealed(folder: Path, table: str) -> Iterator[ShardEntry]:
    """Yield the shards of ``table`` in an attempt's folder, as far as the manifest names them."""
    try:
        lines = read_file(folder / layout.MANIFEST_FILE, LARGEST_TEXT).split(b"\n")
    except FileNotFoundError:
        return
    for line in lines:
        try:
            entry = ShardEntry.from_line(line) if line else None
        except ManifestError:
            continue
        if entry is not None and entry.table == table:
            yield entry


def _logged(folder: Path, table: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of ``table`` in an attempt's logs."""
    for path in folder.iterdir():
        if layout.log_of(path.name) is None:
            continue
        for frame in frames(read_file(path, LARGEST_LOG))[0]:
            _, rows = frame.get(table, (0, []))
            yield from rows if isinstance(rows, list) else ()


def _parameters_changed(run_dir: Path) -> bool:
    """Whether parameters came, went or were replaced in an earlier attempt of any rank."""
    ranks = [folder for folder in run_dir.iterdir() if layout.rank_of(folder) is not None]
    attempts = [child for folder in ranks for child in folder.iterdir() if layout.attempt_of(child) is not None]
    return any(str(kind).startswith("parameters_") for folder in attempts for kind in _event_kinds(folder))


def _event_kinds(folder: Path) -> Iterator[object]:
    for entry in _sealed(folder, "events"):
        try:
            with pq.ParquetFile(folder / entry.shard) as file:
                yield from file.read(columns=["kind"], use_threads=False)["kind"].to_pylist()
        except (OSError, KeyError, pa.ArrowException):  # a damaged shard says nothing; ``verify`` names it
            continue
    yield from (row.get("kind") for row in _logged(folder, "events"))
