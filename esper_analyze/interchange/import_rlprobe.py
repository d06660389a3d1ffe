"""Import of a run that rlprobe recorded: manifest.json, steps.parquet (or its parts), events.jsonl.

rlprobe records trainings of language models: an update is a step there, an episode a completion.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.interchange.imported import Imported, Row, own_finding
from esper_analyze.interchange.json_lines import json_lines
from esper_analyze.interchange.rows_file import rows_of
from esper_analyze.interchange.series import LogRow, Named, cell, leave_out, mapped_cells

FORMAT = "rlprobe"
MANIFEST_FILE, STEPS_FILE, PARTS, EVENTS_FILE = "manifest.json", "steps.parquet", "steps", "events.jsonl"
KNOWN_VERSION = 1

UPDATES = {
    "timestamp": Named("wall_time"),
    "reward_mean": Named("episode_return_mean", "mean over the step's completions"),
    "completion_len_mean": Named("episode_length_mean", "tokens of the step's completions"),
    "entropy_mean": Named("entropy", "per token"),
    "ratio_mean": Named("ratio_mean", "per token"),
    "clip_fraction": Named("clip_fraction"),
    "value_loss": Named("value_loss"),
    "value_explained_variance": Named("explained_variance"),
    "loss": Named("total_loss"),
    "lr": Named("learning_rate"),
    "grad_norm": Named("grad_norm_pre_clip"),
    "grad_norm_post_clip": Named("grad_norm_post_clip"),
    "generation_time_s": Named("rollout_s"),
    "optimization_time_s": Named("optimisation_s"),
}
_NOT_OURS = {
    "kl_mean": "KL to the reference policy; ours is between the policy before and after the update",
    "kl_max": "KL to the reference policy; ours is between the policy before and after the update",
    "adv_mean": "the source does not say whether before or after normalisation",
    "adv_std": "the source does not say whether before or after normalisation",
    "nan_count": "the source does not say what was counted",
    "inf_count": "the source does not say what was counted",
}
_ALARMS = {"nan_detected": "critical", "crash": "critical"}
_LOST = ("recorder_drops", "bad_record")


def recognises(path: Path) -> Path | None:
    """Return ``path`` when it is a directory that rlprobe wrote, else None."""
    is_rlprobe = path.is_dir() and (path / MANIFEST_FILE).is_file()
    return path if is_rlprobe and ((path / STEPS_FILE).is_file() or (path / PARTS).is_dir()) else None


def read(path: Path) -> Imported:
    """Read the run in the directory ``path``. Raises ``UsageError`` or ``DamagedError``."""
    imported = Imported(FORMAT)
    imported.facts |= _facts(path)
    compacted = path / STEPS_FILE
    files = [compacted] if compacted.is_file() else sorted((path / PARTS).glob("part-*.parquet"))
    names: set[str] = set()
    for row in (row for file in files for row in rows_of(file, imported.losses)):
        names |= {name for name, value in row.items() if value not in (None, [])}
        _take(imported, row)
    leave_out(imported, names, (*UPDATES, "step", "rank", "weight_update_ratio"))
    imported.left_out |= {name: why for name, why in _NOT_OURS.items() if name in names}
    updates = sorted({int(str(row["update"])) for row in imported.rows.get("updates", [])})
    if not updates:
        raise DamagedError(f"{path} holds no step")
    imported.count_gaps(updates, "has no row")
    _take_events(imported, path, updates)
    return imported


def _facts(path: Path) -> Row:
    try:
        manifest = json.loads((path / MANIFEST_FILE).read_bytes())
        version = manifest["schema_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path / MANIFEST_FILE} cannot be read as rlprobe's ({type(error).__name__})") from error
    if version != KNOWN_VERSION:
        raise UsageError(f"{path} uses rlprobe's schema {version!r}; only {KNOWN_VERSION} is supported")
    environment = manifest.get("environment")
    return {
        "framework": "rlprobe",
        "algorithm": manifest.get("algorithm"),
        "created": _moment(manifest.get("created_at")),
        "hyperparameters": manifest.get("trainer_config"),
        "notes": manifest.get("notes"),
        "source": {"run_id": manifest.get("run_id"), "environment": environment, "model": manifest.get("model_name")},
    }


def _moment(recorded: object) -> float | None:
    try:
        return datetime.fromisoformat(str(recorded)).timestamp()
    except (ValueError, OverflowError):
        return None


def _take(imported: Imported, row: Row) -> None:
    step = cell(imported, "updates", "update", row.get("step"), "step")
    if not isinstance(step, int):
        imported.losses.count("malformed_row", "row without a step", lost=1)
        return
    cells = mapped_cells(imported, LogRow(step, None, row), UPDATES)
    imported.add("updates", {"update": step, "level": "NORMAL", "status": "performed", **cells})
    ratio = cell(imported, "groups", "update_ratio", row.get("weight_update_ratio"), f"weight_update_ratio at {step}")
    if ratio is not None or cells.get("grad_norm_pre_clip") is not None:
        norm = cells.get("grad_norm_pre_clip")
        imported.add("groups", {"update": step, "group": "all", "grad_norm": norm, "update_ratio": ratio})


def _take_events(imported: Imported, path: Path, updates: list[int]) -> None:
    """Take alarms as findings of a foreign detector, and what rlprobe itself lost as losses."""
    file = path / EVENTS_FILE
    for _, event in json_lines(file, imported.losses) if file.is_file() else ():
        kind, words = str(event.get("kind")), str(event.get("message") or "")
        if kind in _LOST:
            data = event.get("data")
            count = data.get("count") if isinstance(data, dict) else 1
            lost = count if isinstance(count, int) else 1
            imported.losses.count(kind, "record lost by rlprobe itself", words, times=lost, lost=lost)
        elif kind in _ALARMS:
            step = event.get("step")
            update = step if isinstance(step, int) and step in updates else updates[-1]
            imported.foreign.append(own_finding(update, f"rlprobe:{kind}", "run", kind, _ALARMS[kind], words or kind))
