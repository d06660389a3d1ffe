"""Resume a run: its earlier attempts, and the number of the next one."""

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
from esper_analyze.storage.folders import attempt_folders, attempts_of_rank
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.limits import LARGEST_TEXT
from esper_analyze.storage.log_frames import frames
from esper_analyze.storage.log_tail import read_logs
from esper_analyze.storage.run_files import RefusedFileError, read_file
from recorder.store.run_file import RunExistsError, create_run, plain

MUST_AGREE = ("ranks", "heads", "head_kinds", "groups", "parameters", "thresholds", "custom_rules", "level")
"""Facts in run.json that hold for the entire run and that a later attempt cannot change."""
OF_PARAMETERS = ("groups", "parameters")
"""Those of them that may differ once parameters were added or removed in training, see table ``events``."""


class ResumeError(ValueError):
    """The run cannot be resumed with these settings; the message says what differs."""


@dataclass(frozen=True, slots=True)
class EarlierAttempts:
    """The recording of a rank so far: number of the next attempt, and last complete update (−1: none)."""

    attempt: int
    last_update: int


def begin(run_dir: Path, rank: int, facts: Mapping[str, object], *, resume: bool) -> EarlierAttempts:
    """Create the run, join one just created by another rank, or resume it; return the earlier attempts of ``rank``.

    ``facts``: content of run.json, including the number of ``ranks``. Raises ``RunExistsError`` if the directory holds
    a run and ``resume`` is False, ``ResumeError`` if its facts differ.
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
    """Return run.json if it agrees with ``facts``. Raises ``ResumeError`` that names all differences."""
    path = run_dir / layout.RUN_FILE
    try:
        info = dict(json.loads(read_file(path, LARGEST_TEXT)))
    except (OSError, ValueError, TypeError) as error:
        raise ResumeError(f"{path} cannot be read, so the run cannot be resumed ({error})") from error
    recorded = str(info.get("schema_version"))
    if not was_declared(recorded) or is_newer(recorded):  # rows of older versions are read together with current ones
        raise ResumeError(
            f"{path} has schema {info.get('schema_version')}, this recorder writes {VERSION}: use a new directory"
        )
    now = json.loads(json.dumps(plain(facts)))
    changed = OF_PARAMETERS if _parameters_changed(run_dir) else ()
    fixed = [name for name in MUST_AGREE if name in now and name not in changed]
    other = [name for name in fixed if not _agree(name, info.get(name), now[name])]
    if other:
        differences = "; ".join(f"{name}: {_short(info.get(name))} before, {_short(now[name])} now" for name in other)
        raise ResumeError(f"{run_dir} was recorded with other settings ({differences}): record into a new directory")
    return info


def _agree(name: str, earlier: Any, now: Any) -> bool:
    """Return whether two facts agree; an unknown size of a head agrees with any size."""
    if name == "heads" and isinstance(earlier, dict) and list(earlier) == list(now):
        return all(size == now[head] or None in (size, now[head]) for head, size in earlier.items())
    return _compared(name, earlier) == _compared(name, now)


def _compared(name: str, value: object) -> object:
    """Return the part of a fact that must agree: custom rules without the path of their file."""
    if name == "custom_rules" and isinstance(value, dict):
        return {key: cell for key, cell in value.items() if key != "file"}
    return value


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "…"


def earlier_attempts(run_dir: Path, rank: int) -> EarlierAttempts:
    """Return the earlier attempts of ``rank`` in ``run_dir``; a damaged shard counts if the manifest lists it.

    Raises ``ResumeError`` for a file that is not regular or too large to be the recorder's.
    """
    attempt, last = -1, -1
    for folder in attempts_of_rank(run_dir / layout.rank_folder(rank)):
        attempt = max(attempt, folder.number)
        try:
            last = max(last, _last_sealed(folder.path), _last_logged(folder.path))
        except RefusedFileError as error:
            raise ResumeError(f"{error}: move it away, or record into a new directory") from error
    return EarlierAttempts(attempt + 1, last)


def _last_sealed(folder: Path) -> int:
    return max((entry.last_update for entry in _sealed(folder, "updates")), default=-1)


def _last_logged(folder: Path) -> int:
    return max((int(row["update"]) for row in _logged(folder, "updates") if "update" in row), default=-1)


def _sealed(folder: Path, table: str) -> Iterator[ShardEntry]:
    """Yield the shards of ``table`` in an attempt's folder that the manifest lists."""
    try:
        content = read_file(folder / layout.MANIFEST_FILE, LARGEST_TEXT)
    except FileNotFoundError:
        return
    for _, entry in layout.manifest_entries(content):
        if isinstance(entry, ShardEntry) and entry.table == table:
            yield entry


def _logged(folder: Path, table: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of ``table`` in an attempt's logs."""
    for _, data in read_logs(folder):
        if isinstance(data, OSError):
            raise data
        for frame in frames(data)[0]:
            _, rows = frame.get(table, (0, []))
            yield from rows if isinstance(rows, list) else ()


def _parameters_changed(run_dir: Path) -> bool:
    """Return whether parameters were added, removed or replaced in an earlier attempt of any rank."""
    kinds = (kind for folder in attempt_folders(run_dir) for kind in _event_kinds(folder.path))
    return any(str(kind).startswith("parameters_") for kind in kinds)


def _event_kinds(folder: Path) -> Iterator[object]:
    for entry in _sealed(folder, "events"):
        try:
            with pq.ParquetFile(folder / entry.shard) as file:
                yield from file.read(columns=["kind"], use_threads=False)["kind"].to_pylist()
        except (OSError, KeyError, pa.ArrowException):  # a damaged shard is skipped; ``verify`` reports it
            continue
    yield from (row.get("kind") for row in _logged(folder, "events"))
