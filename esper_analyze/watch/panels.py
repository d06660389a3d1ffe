"""A snapshot as lines of text for a given width, the same on the live screen and in a pipe. Words are not broken."""

from __future__ import annotations

import math
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from esper_analyze.reports.render.style import VERDICTS
from esper_analyze.terminal import cleaned, path_words
from esper_analyze.watch.alarms import OpenIncident
from esper_analyze.watch.snapshot import HeadRow, RecurrentRow, SlotRow, Snapshot, Trend
from esper_analyze.watch.sparkline import curve, sparkline
from esper_analyze.watch.writer import CRASHED, DELETED, ENDED, RUNNING, WAITING
from esper_analyze.wording import many, number

MUTED = "dim"
WIDE = 108
"""Columns from which on reasons are shown next to states."""
_COLOURS = {RUNNING: "ok", ENDED: "info", CRASHED: "critical", DELETED: "warning", WAITING: "no_data"}
LEAST_BARS = 6
"""Fewest cells in which a sparkline is drawn."""
_NAMED, _LISTED = 5, 3
"""Subjects of an incident that are named, and files and losses that are listed."""
MOST_PRINTED = 8
"""Lines of a part with a command of its own that a printed snapshot has; the live screen scrolls through all."""


@dataclass(frozen=True, slots=True)
class ScreenSection:
    """A part of the view: ``name`` for the screen, its title, the heads of its columns, its lines.

    ``lists_all`` is the command that lists all lines, where a printed snapshot has the first ones only.
    """

    name: str
    title: Text
    heads: Text | None = None
    lines: list[Text] = field(default_factory=list)
    lists_all: str | None = None

    def printed(self, width: int) -> list[Text]:
        """Return the lines of a printed snapshot."""
        if self.lists_all is None:
            return self.lines
        return [*self.lines[:MOST_PRINTED], *_more(len(self.lines) - MOST_PRINTED, self.lists_all, width)]


def sections(shot: Snapshot, width: int) -> list[ScreenSection]:
    """Return every non-empty part, in order."""
    if shot.status.state == WAITING:
        return [_header(shot, width)]
    drawn = (draw(shot, width) for draw in (_header, _incidents, _curves, _heads, _slots, _recurrent, _data))
    return [part for part in drawn if part is not None]


def printed(parts: Iterable[ScreenSection], width: int) -> list[Text]:
    """Return the parts of a view as lines to print."""
    lines: list[Text] = []
    for part in parts:
        ruled = Text.assemble(part.title, " ", ("─" * max(0, width - part.title.cell_len - 1), MUTED))
        lines += [] if part.name == "header" else [ruled]
        lines += [*([part.heads] if part.heads else []), *part.printed(width)]
    return lines


def lasting(seconds: float) -> str:
    """Return a duration in words."""
    for unit, size, most in (("s", 1.0, 100), ("min", 60.0, 100), ("h", 3600.0, 48)):
        if seconds < most * size:
            return (
                f"{seconds / size:.1f} {unit}"
                if seconds < 10 * size and unit != "s"
                else f"{seconds / size:.0f} {unit}"
            )
    return f"{seconds / 86400:.0f} days"


def headline(shot: Snapshot) -> str:
    """Return the state of the run in one sentence."""
    status = shot.status
    since = "" if status.silent_s is None else lasting(status.silent_s)
    if status.state == WAITING:
        return f"waiting for {path_words(shot.path)}: no run there yet"
    if status.state == DELETED:
        return "its directory was deleted; this is the last known state"
    if status.state == RUNNING:
        return _running(shot, since)
    if status.state == ENDED:
        return f"{status.why} {since} ago"
    return f"{status.why}; last written {since} ago"


def _running(shot: Snapshot, since: str) -> str:
    usual_s = shot.status.usual_s
    usual = "" if usual_s is None else f", an update usually takes {_brief(usual_s)}"
    if shot.status.stalled_s is not None:
        cause = "it is suspended (SIGSTOP)" if shot.status.suspended else "it may hang"
        return f"stalled {lasting(shot.status.stalled_s)}{usual}: the training lives, {cause}"
    if shot.status.late:
        return f"nothing new for {since}{usual}: the training may hang"
    if shot.update is None:
        return f"last news {since} ago: the first update is not complete yet"
    return f"last news {since} ago{usual}"


def _brief(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2g} s" if seconds < 10 else lasting(seconds)


def _header(shot: Snapshot, width: int) -> ScreenSection:
    word = "STALLED" if shot.status.stalled_s is not None else shot.status.state.upper()
    name = _cut(f"{cleaned(shot.name, 60)} · {cleaned(shot.trained_with, 60)}".rstrip(" ·"), width - len(word) - 3)
    first = Text.assemble((name, "bold"), " " * max(1, width - len(word) - 2 - Text(name).cell_len))
    first.append(f" {word} ", f"bold reverse {VERDICTS[_COLOURS[shot.status.state]]}")
    bad = shot.status.late or shot.status.state in (CRASHED, DELETED)
    blocks = [wrapped(headline(shot), width, VERDICTS["warning"] if bad else "")]
    if shot.status.state == RUNNING and width >= WIDE:
        blocks.append(wrapped(shot.status.why, width, MUTED))
    if shot.status.state != WAITING:
        blocks.append(_listed(_facts(shot), width))
    if shot.without_choice:
        blocks.append(wrapped("no head has a choice: the masks leave one action", width, VERDICTS["warning"]))
    if shot.replaced:
        blocks.append(wrapped("the run was replaced by another one", width, VERDICTS["warning"]))
    if shot.trouble:
        blocks.append(wrapped(cleaned(shot.trouble, 300), width, VERDICTS["warning"]))
    return ScreenSection("header", Text(""), None, [first, *(line for lines in blocks for line in lines)])


def _extent(shot: Snapshot) -> str:
    """Return the last update, or why there is none."""
    if shot.update is not None:
        return f"update {shot.update:,}" + (f" of {shot.planned:,}" if shot.planned else "")
    if shot.losses.files:
        return "no update in what is left"
    return "no complete update" + (" yet" if shot.status.state == RUNNING else "")


def _facts(shot: Snapshot) -> Iterator[str]:
    yield _extent(shot)
    if shot.progress is not None and shot.status.state == RUNNING and shot.progress < 1:
        left = "" if shot.left_s is None else f", about {lasting(shot.left_s)} left"
        yield f"{100 * shot.progress:.0f} %{left}"
    if shot.update_status not in (None, "performed"):
        yield str(shot.update_status).replace("_", " ")
    if shot.level:
        yield f"level {cleaned(shot.level, 20)}" + (f" {cleaned(shot.level_because)}" if shot.level_because else "")
    if shot.env_steps is not None:
        yield f"{shot.env_steps:,} steps"
    if shot.episode_return is not None:
        yield f"return {number(shot.episode_return)}"
    if shot.grad_norm is not None:
        yield f"gradient {number(shot.grad_norm)}"
    if shot.attempts > 1:
        resumed = "" if shot.resumed_at is None else f", resumed at update {shot.resumed_at:,}"
        yield f"attempt {shot.attempts}{resumed}"
    yield from _ranks(shot)


def _ranks(shot: Snapshot) -> Iterator[str]:
    if shot.planned_ranks < 2 and len(shot.ranks) < 2:
        return
    yield f"rank {shot.rank} of {max(shot.planned_ranks, len(shot.ranks))}"
    odd = [f"rank {rank} {state}" for rank, state in shot.ranks if state != shot.status.state]
    missing = shot.planned_ranks - len(shot.ranks)
    yield from odd[:3]
    if len(odd) > 3:
        yield f"{len(odd) - 3} more ranks differ"
    if missing > 0:
        yield f"{many(missing, 'rank')} missing"


def _incidents(shot: Snapshot, width: int) -> ScreenSection:
    count = len(shot.incidents)
    bad = sum(incident.verdict == "critical" for incident in shot.incidents)
    title = f"{count or 'no'} open {'incident' if count == 1 else 'incidents'}" + (f", {bad} critical" if bad else "")
    if shot.ended_incidents:
        title += f"; {shot.ended_incidents:,} ended"
    lines: list[Text] = []
    for index, group in enumerate(_grouped(shot.incidents)):
        lines += _incident(group, width)
        if index == 0:
            lines += _hanging("look first at: " + group[0].look_first, width, 9, MUTED) if group[0].look_first else []
    if any(len(_subjects(group)) > _NAMED for group in _grouped(shot.incidents)):
        lines += wrapped(f"every subject: {_command('timeline', shot.path)}", width, MUTED)
    if not lines and shot.last_ended is not None:
        worst, rule, start, end = shot.last_ended
        lines = wrapped(f"the last one was {rule} ({worst}), from update {start:,}, over at {end:,}", width, MUTED)
    if shot.judged is not None and shot.judged.lacking:
        lines += wrapped(shot.judged.words, width, VERDICTS["no_data"])
    return ScreenSection("incidents", Text(title, "bold"), None, lines)


def _grouped(incidents: Sequence[OpenIncident]) -> list[list[OpenIncident]]:
    """Group incidents of one rule with one cause, unless consequences are shown below one of them."""
    groups: list[list[OpenIncident]] = []
    positions: dict[tuple[object, ...], int] = {}
    for index, incident in enumerate(incidents):
        after = incidents[index + 1] if index + 1 < len(incidents) else None
        key: tuple[object, ...] = (incident.rule, incident.cause, incident.cause_update, incident.depth)
        if after is not None and after.depth > incident.depth:
            key = (index,)
        if key in positions:
            groups[positions[key]].append(incident)
        else:
            positions[key] = len(groups)
            groups.append([incident])
    return groups


def _subjects(group: Sequence[OpenIncident]) -> list[str]:
    """Return what a group is about, without the run itself."""
    return list(dict.fromkeys(incident.subject for incident in group if incident.subject != "run"))


def _incident(group: Sequence[OpenIncident], width: int) -> list[Text]:
    worst = next((incident for incident in group if incident.verdict == "critical"), group[0])
    subjects = _subjects(group)
    named = ", ".join(cleaned(subject, 40) for subject in subjects[:_NAMED]) + (
        f" and {len(subjects) - _NAMED} more" if len(subjects) > _NAMED else ""
    )
    words = f"{'↳ ' if worst.depth else ''}{cleaned(worst.title)}" + (f" on {named}" if named else "")
    words += f" since update {min(incident.start for incident in group):,}"
    if len(worst.seen_by) > 1:
        words += f", {len(worst.seen_by)} rules see the same NaN"
    if worst.said is not None:
        words += f": {cleaned(worst.metric)} said {cleaned(worst.said)}"
    elif worst.value is not None:
        words += f": {_judged(worst)}"
    if worst.cause is not None and not worst.depth:
        words += f"; because of {worst.cause} at {worst.cause_update:,}"
    indent = 9 + 2 * max(0, worst.depth - 1)
    lines = _hanging(words, width, indent, "", further=2 if worst.depth else 0)
    label = worst.verdict.upper() if worst.verdict == "critical" else worst.verdict
    lines[0] = Text.assemble((label.ljust(indent)[:indent], f"bold {VERDICTS[worst.verdict]}"), lines[0][indent:])
    return lines


def _judged(incident: OpenIncident) -> str:
    """Return the judged statistic with its bound, its worst value, and its value now."""
    bound = "" if incident.threshold is None else f", bound {number(incident.threshold)}"
    at = "" if incident.value_update in (None, incident.start) else f" at {incident.value_update:,}"
    words = f"{cleaned(incident.statistic, 80)} {number(incident.value)}{at}{bound}"
    if incident.now is None or incident.worst_update is None or incident.worst_since is None:
        return words
    since = "" if incident.worst_since <= incident.start else f" since {incident.worst_since:,}"
    worst = f", worst{since} {number(incident.worst)} at {incident.worst_update:,}"
    if incident.worst_update == incident.value_update:
        worst = ""
    return (
        f"{words}{worst}"
        if incident.now_update == incident.worst_update
        else f"{words}{worst}, now {number(incident.now)}"
    )


def _curves(shot: Snapshot, width: int) -> ScreenSection | None:
    """Return the courses of the last updates, from their least to their largest value, and their last values."""
    if not shot.curves:
        return None
    longest = max(len(title) for title, _ in shot.curves)
    room = min(60, width - longest - 12)
    lines = []
    for title, trend in shot.curves:
        now = next(value for value in reversed(trend) if value is not None)
        drawn = curve(trend, room) if room >= LEAST_BARS else Text()
        drawn.pad_right(max(room, 0) - drawn.cell_len if room >= LEAST_BARS else 0)
        lines.append(Text.assemble(padded(title, longest), " ", drawn, f" {number(now):>9}"))
    count = max(len(trend) for _, trend in shot.curves)
    return ScreenSection("curves", Text(f"the last {many(count, 'update')}", "bold"), None, lines)


def _heads(shot: Snapshot, width: int) -> ScreenSection:
    title = Text(f"{many(len(shot.heads), 'head')}" if shot.heads else "no head was recorded", "bold")
    if not shot.heads:
        return ScreenSection("heads", title)
    longest = max(10, *(len(cleaned(head.name, 60)) for head in shot.heads))
    names = min(longest, 28 if width >= WIDE else min(20, max(10, width - 51)))
    room = width - names - 51
    trend = max(20, min(40, room - 40)) if width >= WIDE else room if room >= LEAST_BARS else 0
    heads = f"{'':{names}} {'gradient norm'[:trend]:{trend}} {'now':>9} {'entropy':>8} {'learnable':>10}  state"
    ordered = sorted(shot.heads, key=lambda head: _RANK.get(head.state.verdict, 3))
    lines = [_head(head, shot, names, trend, width) for head in ordered]
    return ScreenSection("heads", title, Text(_cut(heads, width), MUTED), lines)


_RANK = {"critical": 0, "warning": 1, "no_data": 2}


def _head(head: HeadRow, shot: Snapshot, names: int, trend: int, width: int) -> Text:
    cells = f" {number(head.grad_norm):>9} {number(head.entropy_norm):>8} {_share(head.learnable_fraction):>10}  "
    line = Text.assemble(padded(head.name, names), " ", _bars(head.trend, trend), cells)
    return _with_state(line, head, shot, width)


def _bars(values: Trend, width: int) -> Text:
    drawn = sparkline(values, width) if width else Text()
    drawn.pad_right(width - drawn.cell_len)
    return drawn


def _slots(shot: Snapshot, width: int) -> ScreenSection | None:
    """Return the seed modules in slots, the worst first, as ``esper-analyze slots`` judges them."""
    if not shot.slots and not shot.empty_slots:
        return None
    judged = [slot for slot in shot.slots if slot.update is not None]
    passing = sum(slot.gate.verdict == "ok" for slot in judged)
    title = many(len(shot.slots) + shot.empty_slots, "slot")
    title += f", {passing} of {many(len(judged), 'seed module')} pass the gate" if judged else ", no seed module trains"
    title += f"; {shot.empty_slots} empty" if shot.empty_slots else ""
    if not shot.slots:
        return ScreenSection("slots", Text(title, "bold"))
    names, stages = (
        min(20, max(len(cleaned(word or "–", 20)) for word in column))
        for column in ([slot.name for slot in shot.slots], ["stage", *(slot.stage for slot in shot.slots)])
    )
    heads = f"{'':{names}} {'gate':14} {'ratio':>9} {'health':>6}  {'stage':{stages}}"
    lines = [_slot(slot, shot, names, stages, width) for slot in shot.slots]
    return ScreenSection(
        *("slots", Text(title, "bold"), Text(_cut(heads, width), MUTED), lines), _command("slots", shot.path)
    )


def _slot(slot: SlotRow, shot: Snapshot, names: int, stages: int, width: int) -> Text:
    line = Text.assemble(padded(slot.name, names), " ", (str(slot.gate).ljust(14), VERDICTS[slot.gate.verdict]))
    line.append(f" {number(slot.ratio):>9} {number(slot.health):>6}  ").append_text(padded(slot.stage or "–", stages))
    if slot.alarm is not None:
        line.append(f" {cleaned(slot.alarm, 40)}")
    elif slot.update is not None and slot.update < (shot.update or 0):
        line.append(f" at update {slot.update:,}", MUTED)
    line.truncate(width, overflow="ellipsis")
    line.rstrip()
    return line


def _command(name: str, path: str) -> str:
    """Return a command about a run that can be copied to a shell."""
    return f"esper-analyze {name} {path_words(shlex.quote(path))}"


def _recurrent(shot: Snapshot, width: int) -> ScreenSection | None:
    if not shot.recurrent:
        return None
    room = width - 70
    trend = min(room, 30) if room >= LEAST_BARS else 0
    heads = f"{'':14} {'size of c'[:trend]:{trend}} {'c':>9} {'h':>8} {'saturated':>14}  state"
    lines = []
    for row in shot.recurrent:
        cells = f" {number(row.c_rms):>9} {number(row.h_rms):>8} {_share(row.h_saturation):>14}  "
        line = Text.assemble(padded(row.phase, 14), " ", _bars(row.trend, trend), cells)
        lines.append(_with_state(line, row, shot, width))
    gates = next((row.gates for row in shot.recurrent if any(gate is not None for gate in row.gates)), None)
    if gates is not None:
        shares = ", ".join(
            f"{name} {_share(gate)}" for name, gate in zip(("forget", "input", "output"), gates, strict=True)
        )
        lines.append(Text(_cut(f"gates at their ends: {shares}", width), MUTED))
    return ScreenSection("recurrent", Text("recurrent state", "bold"), Text(_cut(heads, width), MUTED), lines)


def _with_state(line: Text, row: HeadRow | RecurrentRow, shot: Snapshot, width: int) -> Text:
    words = str(row.state)
    if shot.update is not None and row.update < shot.update:
        words += f", update {row.update:,}"
    if width >= WIDE:
        words += f": {row.state.because}"
    return line.append(_cut(words, width - line.cell_len), VERDICTS[row.state.verdict])


def _data(shot: Snapshot, width: int) -> ScreenSection:
    losses, cost = shot.losses, shot.cost
    lines: list[Text] = []
    for file in losses.files[:_LISTED]:
        lines += _hanging(f"file left out: {cleaned(file, 300)}", width, 0, VERDICTS["critical"], further=2)
    lines += _more(len(losses.files) - _LISTED, _command("verify", shot.path), width)
    for update, kind, detail, rows in reversed(losses.last[-_LISTED:]):
        words = f"update {update:,}: {cleaned(kind)}" + (f", {many(rows, 'row')}" if rows else "")
        lines += _hanging(words + (f": {cleaned(detail, 200)}" if detail else ""), width, 0, "", further=2)
    lines += _more(losses.events - _LISTED, _command("sql", shot.path) + " 'from losses_of_data'", width)
    if cost.milliseconds is not None:
        share = "" if cost.fraction is None else f", {100 * cost.fraction:.2g} % of its time"
        detail = f"; detail at {cost.sampled_steps} of {cost.optimizer_steps} steps" if cost.sampled_steps else ""
        lines += wrapped(f"recording takes {number(cost.milliseconds)} ms an update{share}{detail}", width, MUTED)
    lost = f"{many(losses.rows, 'row')} lost" if losses.rows else "no data lost"
    if losses.events and not losses.rows:
        lost = f"{many(losses.events, 'event')} noted, no row lost"
    damaged = f"{many(len(losses.files), 'damaged file')} left out" if losses.files else ""
    title = ", ".join(filter(None, (lost if losses.events or losses.rows or not damaged else "", damaged)))
    return ScreenSection(
        "data", Text(title, "bold" if not (losses.rows or losses.files) else f"bold {VERDICTS['warning']}"), None, lines
    )


def _more(left_out: int, command: str, width: int) -> list[Text]:
    """Say how many lines are left out, if any, and the command that lists all."""
    return wrapped(f"{left_out:,} more: {command}", width, MUTED) if left_out > 0 else []


def _share(value: float | None) -> str:
    """Return a share in percent; small and large shares are not rounded to 0 or 100 %."""
    if value is None or not math.isfinite(value):
        return number(value)
    if 0 < value < 0.005:
        return "<1 %"
    if abs(value) >= 10:
        return f"{number(100 * value)} %"
    return ">99 %" if 0.995 < value < 1 else f"{100 * value:.0f} %"


def padded(name: str, width: int) -> Text:
    """Return a name as wide as its column."""
    text = Text(cleaned(name, 200))
    text.truncate(width, overflow="ellipsis", pad=True)
    return text


def _cut(words: str, width: int) -> str:
    """Return ``words`` within ``width``, cut between words where possible."""
    if Text(words).cell_len <= width:
        return words
    text = Text(words)
    text.truncate(max(width, 1), overflow="ellipsis")
    short, _, _ = text.plain.rpartition(" ")
    return f"{short.rstrip(' ,·:;')} …" if len(short) > width // 2 else text.plain


def wrapped(words: str, width: int, style: str = "") -> list[Text]:
    """Return a sentence in lines of at most ``width``."""
    return [Text(line, style) for line in textwrap.wrap(words, max(width, 20)) or [""]]


def _listed(facts: Iterable[str], width: int) -> list[Text]:
    """Return facts separated by dots; lines break between facts where possible."""
    lines: list[str] = []
    for fact in facts:
        if lines and len(lines[-1]) + 3 + len(fact) <= width:
            lines[-1] += f" · {fact}"
        else:
            lines += textwrap.wrap(fact, max(width, 20))
    return [Text(line) for line in lines]


def _hanging(words: str, width: int, indent: int, style: str, further: int = 0) -> list[Text]:
    lines = textwrap.wrap(
        words, max(width, 20), initial_indent=" " * indent, subsequent_indent=" " * (indent + further)
    )
    return [Text(line, style) for line in lines or [""]]
