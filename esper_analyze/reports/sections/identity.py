"""What the run was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from esper_analyze.reports.listing import status_words
from esper_analyze.runs.log_source import source_of_log
from esper_analyze.runs.run import RecordedRun
from esper_analyze.runs.series import rows_of, series_of
from esper_analyze.terminal import cleaned
from esper_analyze.wording import lasting

_TOLD = (
    "name",
    "framework",
    "algorithm",
    "created",
    "heads",
    "head_kinds",
    "hyperparameters",
    "versions",
    "thresholds",
    "rule_revisions",
)
_PLAIN = (
    "attach_points",
    "groups",
    "level",
    "seeds",
    "seed",
    "git_commit",
    "python",
    "run_id",
    "schema_version",
    "notes",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Facts about the run as (what, value) in the order of the page, and hyperparameters as given."""

    name: str
    subtitle: str
    facts: tuple[tuple[str, str], ...]
    hyperparameters: tuple[tuple[str, str], ...]
    losses: tuple[tuple[str, str, str, str], ...]
    source: str = ""

    @property
    def line(self) -> str:
        """Framework, algorithm, number of updates, and how the run ended."""
        named = dict(self.facts)
        updates = f"{named['updates']} update{'s' if named['updates'] != '1' else ''}"
        return " · ".join(filter(None, (self.subtitle, self.source, updates, named["ended"])))

    @property
    def id(self) -> str:
        """The run's id, its name where it has none."""
        return dict(self.facts).get("run id", self.name)


def frame(run: RecordedRun) -> Identity:
    """Return what run.json and the clock columns say of the run."""
    info = run.info
    name = str(info.get("name") or run.path.name)
    parts = [info.get("framework"), info.get("algorithm")]
    subtitle = " · ".join(str(part) for part in parts if part) or "framework and algorithm not given"
    facts = [*_clock(run), ("ended", status_words(run)), *_described(info)]
    hyper = info.get("hyperparameters")
    pairs = tuple((str(key), _cell(value)) for key, value in hyper.items()) if isinstance(hyper, Mapping) else ()
    return Identity(name, subtitle, tuple(facts), pairs, _losses(run), source_of_log(info))


def _clock(run: RecordedRun) -> list[tuple[str, str]]:
    rows = rows_of(run, "updates", ["env_steps", "episodes", "wall_time", "status"])
    count, planned = rows.height, run.info.get("total_updates")
    facts = [("created", _moment(run.info.get("created")))]
    facts.append(("updates", f"{count:,} of {planned:,} planned" if isinstance(planned, int) else f"{count:,}"))
    for column, what in (("env_steps", "environment steps"), ("episodes", "episodes")):
        last = series_of(rows, column).last
        facts.append((what, "not recorded" if last is None else f"{last:,.0f}"))
    clock = series_of(rows, "wall_time")
    times = clock.value[clock.finite]
    if len(times) > 1:
        facts.append(("wall time", lasting(float(np.ptp(times)))))
    statuses = dict(rows["status"].value_counts(sort=True).iter_rows())
    if set(statuses) - {"performed"}:
        facts.append(("update status", ", ".join(f"{number:,} {word}" for word, number in statuses.items())))
    return facts


def _moment(created: object) -> str:
    try:
        return datetime.fromtimestamp(float(str(created)), UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "not recorded" if created is None else cleaned(created)


def _described(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    heads, kinds = info.get("heads"), info.get("head_kinds") or {}
    if isinstance(heads, Mapping) and heads:
        named = [f"{name} ({_size(size, kinds.get(name))})" for name, size in heads.items()]
        facts.append(("heads", ", ".join(named)))
    facts += [(key.replace("_", " "), _cell(info[key])) for key in _PLAIN if info.get(key) not in (None, [], {}, "")]
    custom = info.get("custom_rules")
    if isinstance(custom, Mapping):
        facts.append(("rules of its own", _cell(custom.get("rules"))))
    versions = info.get("versions")
    if isinstance(versions, Mapping):
        facts.append(("versions", ", ".join(f"{package} {version}" for package, version in versions.items())))
    others = [key for key in info if key not in (*_TOLD, *_PLAIN) and info[key] is not None]
    facts += [(key.replace("_", " "), _cell(info[key])) for key in others if not isinstance(info[key], Mapping)]
    return facts


def _size(size: object, kind: object) -> str:
    return str(kind or "size not given") if size is None else f"{size} actions"


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return "–" if value is None else str(value)


def _losses(run: RecordedRun) -> tuple[tuple[str, str, str, str], ...]:
    rows = run.frame("losses_of_data", ["update", "kind", "detail", "rows"])
    lost = [(str(row["update"]), row["kind"], row["detail"] or "–", f"{row['rows']:,}") for row in rows.to_dicts()]
    left_out = [("–", "file left out", f"{broken.file.name} {broken.reason}", "–") for broken in run.broken]
    return (*lost, *left_out)
