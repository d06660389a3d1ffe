"""Import of what libraries log as JSON: RLlib's result.json, TRL's trainer_state.json, ML-Agents' timers.json.

RLlib writes a nested dictionary a line; its names are joined by "/", as RLlib itself joins them in progress.csv.
trainer_state.json is one document, whose ``log_history`` is a list of rows. timers.json holds the last, least and
greatest number of each name and how often it was set, but not when: nothing that a training could be judged by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.interchange.found_run import FoundRun
from esper_analyze.interchange.imported import ImportLosses, Row
from esper_analyze.interchange.json_lines import json_lines
from esper_analyze.interchange.row_log import RowLog, flat, runs_of_rows
from esper_analyze.interchange.rows_file import refuse_empty

FORMAT = "json"
RESULT_FILE, TRAINER_FILE, TIMERS_FILE = "result.json", "trainer_state.json", "timers.json"
_SETTINGS = ("config", "hist_stats")
"""Parts of RLlib's result that are no metrics: the settings, again in every line, and single episodes."""
_LARGEST = 1 << 29


def recognises(path: Path) -> Path | None:
    """Return ``path`` when it is a file of one of the three names, or another JSON document; else None."""
    return path if path.is_file() and path.suffix == ".json" else None


def runs(path: Path) -> list[FoundRun]:
    """Return the trainings that the file ``path`` holds. Raises ``UsageError`` or ``DamagedError``."""
    return runs_of_rows(read_rows(path), path)


def read_rows(path: Path) -> RowLog:
    """Return the rows of the file ``path``. Raises ``UsageError`` or ``DamagedError``."""
    refuse_empty(path)
    log = RowLog(FORMAT, [], [path.name])
    if path.name == RESULT_FILE:
        log.rows = [flat(row, _SETTINGS.__contains__) for _, row in json_lines(path, log.losses)]
    else:
        log.rows = _document(path, log.losses)
    if not log.rows:
        raise UsageError(f"{path} holds no row", hint="; ".join(log.losses.sentences()))
    return log


def _document(path: Path, losses: ImportLosses) -> list[Row]:
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{path} is larger than {_LARGEST >> 20} MiB", hint="give a log as JSON lines")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        lined = [flat(row) for _, row in json_lines(path, ImportLosses())]
        if len(lined) > 1:  # JSON lines under another name
            return [flat(row) for _, row in json_lines(path, losses)]
        raise DamagedError(f"{path} is no JSON, or it is cut ({error})") from error
    rows = document.get("log_history") if isinstance(document, dict) else document
    if isinstance(document, dict) and isinstance(document.get("gauges"), dict):
        raise _only_a_summary(path, document["gauges"])
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise UsageError(
            f"{path} is JSON, but no log: neither a list of rows nor one under log_history",
            hint=f"known are {RESULT_FILE}, {TRAINER_FILE} and JSON lines",
        )
    return [flat(row) for row in rows]


def _only_a_summary(path: Path, gauges: Mapping[str, object]) -> UsageError:
    behaviours = sorted({name.split(".")[0] for name in gauges if "." in name})
    of = f" of {', '.join(behaviours[:3])}" if behaviours else ""
    return UsageError(
        f"{path} has of {len(gauges):,} names{of} the last, least and greatest value, and none of the values between",
        hint="ML-Agents logs that in event files: give the folder results/RUN_ID/BEHAVIOR",
    )
