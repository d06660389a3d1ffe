"""Summaries of runs: how they ended, and their verdict according to the live detector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from esper_analyze.errors import EsperError
from esper_analyze.replay.standing import live_coverage, standing
from esper_analyze.runs.ending import end_of_run
from esper_analyze.runs.merge_ranks import merge_ranks
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.runs.tenths import tenths_of
from esper_analyze.storage import layout
from esper_analyze.storage.attempt_end import End
from esper_analyze.wording import many

_SEVERITY = ("info", "warning", "critical")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line of ``ls``. ``fault`` says why a run cannot be read completely; unknown fields are None.

    ``unjudged``: how many rules could judge and why the others could not, ``judged`` the same in short; None when all
    could. ``ended``: running, stalled, ended, stopped, killed, crashed, out of memory, or the name of a fatal signal;
    ``stalled_s``: seconds since the last row of a run that has stalled. ``episode_return``: mean of the last tenth of
    the updates with a finite one. ``created``: in seconds since 1970.
    """

    path: Path
    fault: str | None = None
    name: str | None = None
    framework: str | None = None
    algorithm: str | None = None
    updates: int | None = None
    status: str | None = None
    worst: dict[str, Any] | None = None
    verdict: str | None = None
    label: str | None = None
    unjudged: str | None = None
    judged: str | None = None
    ended: str | None = None
    env_steps: int | None = None
    episode_return: float | None = None
    created: float | None = None
    stalled_s: float | None = None

    @property
    def troubled(self) -> bool:
        """Whether the run has an alarm, did not end normally, or cannot be read in full."""
        return self.fault is not None or self.verdict in ("warning", "critical")

    def cells(self, directory: Path) -> list[str]:
        """Return the summary as table cells, the path relative to ``directory``."""
        inside = self.path.relative_to(directory) if self.path.is_relative_to(directory) else self.path
        where = str(self.path) if str(inside) == "." else str(inside)
        facts = [self.name, self.framework, self.algorithm, self.updates]
        status = f"{self.status}; {self.fault}" if self.status and self.fault else self.status or self.fault
        return [where, *("–" if fact is None else str(fact) for fact in facts), str(status), self._verdict_words()]

    @property
    def short_verdict(self) -> str:
        """Return how the run stands and its worst alarm; rules that could not judge are left out."""
        return "; ".join(self._verdict_parts()) or "–"

    def _verdict_words(self) -> str:
        return "; ".join([*self._verdict_parts(), *([self.unjudged] if self.label and self.unjudged else [])]) or "–"

    def _verdict_parts(self) -> list[str]:
        if self.label is None:
            return []
        parts = [] if self.worst is not None and self.label == self.worst["verdict"] else [self.label]
        if self.worst is not None:
            about = "" if self.worst["subject"] == "run" else f" on {self.worst['subject']}"
            parts.append(f"{self.worst['verdict']}: {self.worst['rule']}{about} at update {self.worst['update']}")
        return parts


def summarise(path: Path) -> RunSummary:
    """Return the summary of the run at ``path``; any error becomes its ``fault``."""
    from polars.exceptions import PanicException

    try:
        return summary_of(open_run(path, skip_broken=True))
    except EsperError as error:
        return RunSummary(path, fault=error.message.replace(f"{path}/", ""))  # the line begins with the run's path
    except (Exception, PanicException) as error:
        return RunSummary(path, fault=f"cannot be read: {type(error).__name__}: {error}")


def summary_of(run: RecordedRun) -> RunSummary:
    """Return what ``ls`` tells of an opened run."""
    info = run.info
    framework = info.get("framework")
    worst = worst_finding(run.frame("findings", ["update", "rule", "subject", "verdict"]).to_dicts())
    end = end_of_run(run)
    overall = standing(end, None if worst is None else worst["verdict"], live_coverage(run))
    env_steps, episode_return = _reached(run)
    coverage, created = overall.coverage, info.get("created")
    return RunSummary(
        path=run.path,
        fault=broken_words(run),
        name=str(info.get("name") or run.path.name),
        framework=None if framework is None else str(framework),
        algorithm=None if info.get("algorithm") is None else str(info["algorithm"]),
        updates=max((run.only(rank).rows["updates"] for rank in run.ranks), default=0),
        status=status_words(run),
        worst=worst,
        verdict=overall.verdict,
        label=overall.label,
        unjudged=coverage.words if coverage.lacking else None,
        judged=f"{coverage.judged} of {coverage.applicable} rules" if coverage.lacking else None,
        ended=end.state if end.stalled_s is None else "stalled",
        stalled_s=end.stalled_s,
        env_steps=env_steps,
        episode_return=episode_return,
        created=float(created) if isinstance(created, (int, float)) else None,
    )


def _reached(run: RecordedRun) -> tuple[int | None, float | None]:
    """Return env steps, and the mean return over the last tenth of the updates with a finite one; of all ranks."""
    rows = merge_ranks(run).frame("updates", ["env_steps", "episode_return_mean"])
    steps = rows["env_steps"].max()
    returns = rows["episode_return_mean"].drop_nulls().to_numpy()
    ends = tenths_of(returns[np.isfinite(returns)])
    return None if steps is None else int(steps), None if ends is None else ends.last  # type: ignore[arg-type]


def status_words(run: RecordedRun) -> str:
    """Return how the run ended: closed, by which error, or its last complete update; deviating ranks are named."""
    ranks, planned = run.ranks, run.info.get("ranks", 1)
    if run.merged is None and len(ranks) < 2 and planned == 1:
        return _status(run)
    ended = {rank: (_status(run.only(rank)), run.only(rank).last_update) for rank in ranks}
    usual, _ = max(Counter(ended.values()).items(), key=lambda group: group[1], default=(("nothing recorded", None), 0))
    odd = [f"rank {rank} {_until(words, last)}" for rank, (words, last) in ended.items() if (words, last) != usual]
    missing = [rank for rank in range(planned) if rank not in ended] if isinstance(planned, int) else []
    odd += [f"rank {rank} recorded nothing" for rank in missing]
    alike = many(len(ranks) - len(odd) + len(missing), "rank")
    return "; ".join([f"{alike} {_until(*usual) if odd else usual[0]}", *odd])


def _until(words: str, last: int | None) -> str:
    return words if last is None or "update" in words else f"{words} at update {last}"


def _status(run: RecordedRun) -> str:
    end = end_of_run(run)
    if end.end is End.UNCLOSED and run.closed and closing_reason(run) == layout.REPAIRED:
        return "repaired" + (f", {len(run.unverified)} shards unverified" if run.unverified else "")
    return end.status


def closing_reason(run: RecordedRun) -> str:
    """Return the reason that the last writer recorded: "closed", "exit", "SIGTERM", or an error with its class."""
    markers = [attempt.closed for attempt in run.attempts if attempt.closed is not None]
    return str(markers[-1].get("reason", "closed")) if markers else ""


def broken_words(run: RecordedRun) -> str | None:
    """Return a description of the damage, None for an undamaged run."""
    if not run.broken:
        return None
    first = run.broken[0]
    more = f" (and {len(run.broken) - 1} more)" if len(run.broken) > 1 else ""
    return f"damaged: {first.file.name} {first.reason}{more}"


def worst_finding(findings: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the first of the most severe alarms, None without alarms."""
    alarms = [finding for finding in findings if finding["verdict"] in ("warning", "critical")]
    return min(alarms, key=lambda finding: (-_SEVERITY.index(finding["verdict"]), finding["update"]), default=None)
