"""Alerts of one recording: findings in, one message an update in which an incident begins, worsens or ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from esper_analyze.detector.findings import Finding
from esper_analyze.errors import UsageError
from esper_analyze.schema.printable import LOG
from esper_analyze.schema.row_types import LossesOfDataRow
from esper_analyze.schema.tables.events import ALERT_DROPPED, ALERT_FAILED, ALERT_UNSENT
from esper_analyze.storage.block import Rows
from recorder.act.changes import IncidentChanges
from recorder.act.channel import Channel
from recorder.act.delivery import Endpoint
from recorder.act.endpoints import endpoints
from recorder.act.message import MessageWriter
from recorder.online_detector import OnlineDetector

CLOSE_SECONDS = 3.0
"""Longest wait, at the end of a training, for alerts that are on their way."""

LONGEST_CLOSE = 30.0
"""A box that is at the end of a recording has a minute for all that is left."""


@dataclass(frozen=True, slots=True)
class AlertPlan:
    """Who is told of the incidents of a run, and how long its end waits for that; can be pickled.

    ``attempt``: the folder of the attempt in its run.
    """

    endpoints: tuple[Endpoint, ...] = ()
    seconds: float = CLOSE_SECONDS
    attempt: Path = Path()
    rank: int = 0
    quiet: bool = False

    @classmethod
    def of(cls, on_finding: str | Sequence[str] | None, seconds: float | None) -> AlertPlan:
        """Return the plan of ``Recorder``'s arguments. Raises ``UsageError`` for those that cannot be used."""
        return cls(tuple(endpoints(on_finding)), CLOSE_SECONDS if seconds is None else _checked(seconds))

    def begun(self, attempt: Path, rank: int, *, quiet: bool) -> AlertPlan:
        """Return the plan of an attempt. Of several ranks only the first sends: the others see the same."""
        return replace(self, attempt=attempt, rank=rank, quiet=quiet, endpoints=() if rank else self.endpoints)


class Alerts:
    """Sends word of the findings of ``detector``, to each endpoint of ``plan`` through a channel of its own."""

    def __init__(self, plan: AlertPlan, detector: OnlineDetector) -> None:
        self._plan = plan
        self._channels = [Channel(endpoint) for endpoint in plan.endpoints]
        self._changes = IncidentChanges()
        self._update = 0  # the last that was recorded
        rules = {rule.name: rule for rule in detector.detector.rules}
        self._writer = MessageWriter(plan.attempt.parents[1], plan.attempt.name, plan.rank, rules)
        if self._channels:
            detector.on_findings = self.take
        for channel in self._channels:
            channel.start()

    def take(self, findings: Sequence[Finding], rows: Mapping[str, Rows]) -> None:
        """Send word of what the findings of one update change. Does not wait, and raises nothing."""
        if not findings:
            return
        try:
            changes = self._changes.take(findings)
            if changes:
                message = self._writer.message(changes, rows)
                for channel in self._channels:
                    channel.put(dict(message))
        except Exception:
            LOG.exception("recorder: error in composing an alert; training continues")

    def take_losses(self, update: int) -> list[LossesOfDataRow]:
        """Return the alerts that did not arrive since the last call as rows of ``losses_of_data``, one per reason.

        ``rows`` is 0 in all: no data of the run is lost.
        """
        self._update = update
        losses: list[LossesOfDataRow] = []
        for channel in self._channels:
            label = channel.endpoint.label
            failed = [f"{label}: {why} ({_alerts(n)})" for why, n in channel.take_reasons().items()]
            losses += [_loss(update, ALERT_FAILED, detail) for detail in failed]
            dropped = channel.take_dropped()
            if dropped:
                losses.append(_loss(update, ALERT_DROPPED, f"{label}: too many at a time ({_alerts(dropped)})"))
        return losses

    def close(self, most: float = LONGEST_CLOSE) -> list[LossesOfDataRow]:
        """Wait for alerts on their way, at most the seconds set and ``most``; return the losses."""
        channels = [channel for channel in self._channels if not channel.inert]
        for channel in channels:
            channel.begin_close()
        deadline = time.monotonic() + min(self._plan.seconds, most)
        for channel in channels:
            channel.end_close(deadline)
        losses = self.take_losses(self._update)
        for channel in channels:
            unsent, label = channel.unsent, channel.endpoint.label
            if unsent:
                detail = f"{label}: not delivered when the training ended ({_alerts(unsent)})"
                losses.append(_loss(self._update, ALERT_UNSENT, detail))
            self._say(channel, unsent)
        self._channels = []
        return losses

    def _say(self, channel: Channel, unsent: int) -> None:
        """Say how many alerts a channel has sent, and how many not."""
        counts = {"failed": channel.failed, "dropped": channel.dropped, "not delivered at the end": unsent}
        missing = "".join(f", {count} {what}" for what, count in counts.items() if count)
        if missing:
            LOG.warning("recorder: alerts to %s: %d sent%s", channel.endpoint.label, channel.sent, missing)
        elif channel.sent and not self._plan.quiet:
            LOG.info("recorder: alerts to %s: %d sent", channel.endpoint.label, channel.sent)


def _checked(seconds: object) -> float:
    """Return a number of seconds. Raises ``UsageError`` for anything else."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= LONGEST_CLOSE:
        most = f"a number of seconds from 0 to {LONGEST_CLOSE:g}"
        raise UsageError(f"alert_seconds must be {most}, not {seconds!r:.80}", hint="leave it out for 3 seconds")
    return float(seconds)


def _loss(update: int, kind: str, detail: str) -> LossesOfDataRow:
    return {"update": update, "kind": kind, "detail": detail, "rows": 0}


def _alerts(count: int) -> str:
    return f"{count} alert{'' if count == 1 else 's'}"
