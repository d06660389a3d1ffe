"""What changed when an incident began: settings, numbers that left their earlier range, where NaN first appeared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.signals import RUN
from esper_analyze.schema import BY_NAME, Kind
from esper_analyze.wording import many, number, on

if TYPE_CHECKING:
    import polars

    from esper_analyze.detector.incidents import Incident
    from esper_analyze.runs.run import RecordedRun

AHEAD = 5
"""Updates before the incident that are searched for early departures, more where the rule looks back farther."""
BEFORE = 30
"""Updates before those that define the usual range."""
_LEAST_KNOWN = 15
"""Finite values needed to define the usual range."""
_RANGES = 2.0
"""Distance beyond the usual range, in widths of it, that counts as a departure: 1 in 25,000 for exponential noise."""
_MATTERS = 0.1
"""A change by a smaller share of the level is not a departure, however steady the number was."""
_MOST_LISTED = 4
_SETTINGS = ("learning_rate", "clip_range", "entropy_coef", "target_kl", "max_grad_norm", "loss_scale")
_STEP = 0.25
"""A setting that changes by less from one update to the next follows its schedule."""
_NOT_DEPARTURES = (
    *("rank", "update", "seq", "env_steps", "episodes", "wall_time", "rollout_s", "optimisation_s", "progress"),
    *("minibatches", "samples", "optimizer_steps", "rollout_samples", "choice_samples", "episodes_finished"),
    *("recorder_ms", "recorder_fraction", "dropped_rows", "sampled_steps", *_SETTINGS),
)
_PARTS = {
    "heads": ("grad_norm", "entropy_norm", "learnable_fraction"),
    "groups": ("grad_norm",),
    "lstm": ("h_rms", "c_rms"),
}
_FLOW = (
    ("episode returns", "episode_return_mean"),
    ("predicted values", "value_mean"),
    ("returns", "return_mean"),
    ("advantages", "advantage_mean"),
    ("entropy", "entropy"),
    ("probability ratios", "ratio_max"),
    ("policy loss", "policy_loss"),
    ("value loss", "value_loss"),
    ("gradients", "grad_norm_pre_clip_max"),
)
"""The stages a number passes through in an update: rewards, rollout, losses, gradients."""
_BEFORE_ALL = "observations and single rewards"
"""The stage before all of them, which has no column."""
_DRIVING = ("learning_rate", "clip_range", "max_grad_norm")
"""Settings that stop all learning when 0."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that changed at ``update``; ``after`` is its value one update later, None when there is none."""

    name: str
    update: int
    before: float
    at: float
    after: float | None


@dataclass(frozen=True, slots=True)
class Departure:
    """The first value of a number outside ``low`` … ``high``, its range in the ``BEFORE`` updates before."""

    metric: str
    subject: str
    update: int
    value: float
    low: float
    high: float

    @property
    def sentence(self) -> str:
        """The new value and the earlier range, in words."""
        before = number(self.low) if self.low == self.high else f"{number(self.low)} to {number(self.high)}"
        return f"{self.metric}{on(self.subject)} {number(self.value)} at update {self.update} ({before} before)"


@dataclass(frozen=True, slots=True)
class OnsetContext:
    """What changed around ``update``, where an incident began; its streak began at ``onset``.

    ``usual``: least and greatest of the judged number in the updates before, None when there were too few.
    ``searched``: the updates before it with enough history to compare with. ``broken`` and ``sound``: stages of the
    update that were, and were not, NaN or infinite, in the order of the computation; both empty when none was.
    ``unrecorded``: the stages before the first broken one that were not recorded. ``ahead``: how many updates before
    the incident were searched. ``zero``: settings that were 0 in ``update`` and then stop learning.
    """

    update: int
    onset: int
    metric: str
    usual: tuple[float, float] | None
    searched: int
    settings: tuple[Setting, ...]
    departures: tuple[Departure, ...]
    broken: tuple[str, ...]
    sound: tuple[str, ...]
    unrecorded: tuple[str, ...] = ()
    ahead: int = AHEAD
    zero: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """All of it in sentences."""
        return [*self._setting_sentences(), *self._flow_sentences(), *self._departure_sentences()]

    @property
    def usual_range(self) -> list[str]:
        """The earlier range of the judged number in words, empty when unknown."""
        if self.usual is None:
            return []
        low, high = (number(edge) for edge in self.usual)
        return [f"In the updates before it was {low if low == high else f'{low} to {high}'}."]

    def _setting_sentences(self) -> Iterator[str]:
        for setting in self.settings:
            back = f", and back to {number(setting.after)} in the next" if setting.after == setting.before else ""
            changed = f"from {number(setting.before)} to {number(setting.at)} at update {setting.update}"
            when = "before the onset" if setting.update < self.onset else "at the onset"
            yield f"A setting changed {when}: {setting.name} went {changed}{back}."
        for name in self.zero:
            yield f"{name} was 0 in update {self.update}: nothing can be learned."

    def _flow_sentences(self) -> Iterator[str]:
        if self.broken:
            sound = f" Finite: {', '.join(self.sound)}." if self.sound else ""
            yield f"NaN or infinite in update {self.update}: {', '.join(self.broken)}.{sound}"
            yield (
                f"Computed first, of what is recorded: {self.broken[0]}. Start there. "
                f"Not recorded: {', '.join((_BEFORE_ALL, *self.unrecorded))}."
            )

    @property
    def next_step(self) -> str:
        """Where to look for the first NaN or infinite value, in words; empty when there was none."""
        if not self.broken:
            return ""
        finite = [what for what, _ in _FLOW[: [name for name, _ in _FLOW].index(self.broken[0])] if what in self.sound]
        finite_words = f"; finite before them: {', '.join(finite)}" if finite else ""
        return (
            f"Check the {self.broken[0]} of update {self.update:,}{finite_words}. "
            f"Check also what is not recorded: {', '.join((_BEFORE_ALL, *self.unrecorded))}."
        )

    def _departure_sentences(self) -> Iterator[str]:
        if self.departures:
            listed = "; ".join(departure.sentence for departure in self.departures[:_MOST_LISTED])
            more = len(self.departures) - _MOST_LISTED
            left = f"; and {many(more, 'number')} more" if more > 0 else ""
            yield f"In the {self.ahead} updates before it, these left their earlier range: {listed}{left}."
        elif self.searched:
            yield f"In the {many(self.searched, 'update')} before it, no recorded number left its usual range."


def frame(run: RecordedRun, lead: Incident, reach: int = 0) -> OnsetContext:
    """Return what changed around the onset of ``lead``. Reads only the rows around it.

    ``reach`` is the number of updates before its onset that the rule's statistic uses, see ``Rule.reach``.
    """
    ahead = max(AHEAD, reach)
    first = lead.onset - ahead - BEFORE
    update = [column.name for column in BY_NAME["updates"].columns if column.kind in (Kind.FLOAT, Kind.INT)]
    rows = around(run, "updates", update, first, lead.start + 1)
    broken, sound, unrecorded = _flow(rows, lead.start)
    return OnsetContext(
        update=lead.start,
        onset=lead.onset,
        metric=lead.metric,
        usual=_usual(run, rows, lead),
        searched=max(0, min(ahead, lead.onset - int(rows["update"][0]) - _LEAST_KNOWN)) if rows.height else 0,
        settings=tuple(_changed_settings(rows, lead, ahead)),
        departures=tuple(_departures(run, rows, lead.onset, ahead)),
        broken=broken,
        sound=sound,
        unrecorded=unrecorded,
        ahead=ahead,
        zero=tuple(name for name in _DRIVING if 0.0 in rows.filter(rows["update"] == lead.start)[name].to_list()),
    )


def around(run: RecordedRun, table: str, columns: Sequence[str], first: int, last: int) -> polars.DataFrame:
    """Return rows of updates ``first`` to ``last``, reading only the shards that have some; may be empty."""
    import polars

    parts = [part for part in run.row_sources(table) if part.first_update <= last and part.last_update >= first]
    wanted = list(dict.fromkeys(["update", *columns]))
    inside = polars.col("update").is_between(first, last)
    frames = [part.frame(wanted).filter(inside) for part in parts]
    if not frames:
        return run.frame(table, wanted).clear()
    return polars.concat(frames).sort("update", maintain_order=True)


def _usual(run: RecordedRun, rows: polars.DataFrame, lead: Incident) -> tuple[float, float] | None:
    """Return least and greatest of the judged number before its streak.

    None for text, where the judged statistic itself is not recorded, and where there are too few values.
    """
    if lead.statistic not in ("", lead.metric):
        return None
    if lead.subject != RUN:
        tables = [table for table in _PARTS if lead.metric in _PARTS[table]]
        if not tables:
            return None
        subject = str(BY_NAME[tables[0]].subject)
        rows = around(run, tables[0], [subject, lead.metric], lead.onset - AHEAD - BEFORE, lead.onset)
        rows = rows.filter(rows[subject] == lead.subject)
    if lead.metric not in rows.columns:
        return None
    value = rows.filter(rows["update"] < lead.onset)[lead.metric].cast(float).fill_null(float("nan")).to_numpy()
    finite = value[np.isfinite(value)]
    return (float(finite.min()), float(finite.max())) if len(finite) >= AHEAD else None


def _changed_settings(rows: polars.DataFrame, lead: Incident, ahead: int) -> Iterator[Setting]:
    update = rows["update"].to_numpy()
    for name in _SETTINGS:
        value = rows[name].cast(float).fill_null(float("nan")).to_numpy()
        for index in np.flatnonzero((update[1:] >= lead.onset - ahead) & (update[1:] <= lead.start)) + 1:
            before, now = float(value[index - 1]), float(value[index])
            if np.isfinite([before, now]).all() and abs(now - before) > _STEP * max(abs(before), abs(now)):
                after = float(value[index + 1]) if index + 1 < len(value) else None
                yield Setting(name, int(update[index]), before, now, after)


def _flow(rows: polars.DataFrame, update: int) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the stages of an update that were not finite, those that were, and unrecorded ones before the first.

    All empty when every stage was finite.
    """
    here = rows.filter(rows["update"] == update)
    cells = {what: here[name][-1] for what, name in _FLOW if here.height and here[name][-1] is not None}
    broken = tuple(what for what, cell in cells.items() if not np.isfinite(cell))
    if not broken:
        return (), (), ()
    stages = [what for what, _ in _FLOW]
    unrecorded = tuple(what for what in stages[: stages.index(broken[0])] if what not in cells)
    return broken, tuple(what for what in cells if what not in broken), unrecorded


def _departures(run: RecordedRun, rows: polars.DataFrame, onset: int, ahead: int) -> list[Departure]:
    names = [name for name in rows.columns if name not in _NOT_DEPARTURES]
    departures = list(_departed(rows, names, RUN, onset, ahead))
    for table, columns in _PARTS.items():
        subject = str(BY_NAME[table].subject)
        table_rows = around(run, table, [subject, *columns], onset - ahead - BEFORE, onset)
        for key, part in table_rows.partition_by(subject, as_dict=True, maintain_order=True).items():
            departures += _departed(part, columns, str(key[0]), onset, ahead)
    return sorted(departures, key=lambda departure: departure.update)


def _departed(
    rows: polars.DataFrame, columns: Sequence[str], subject: str, onset: int, ahead: int
) -> Iterator[Departure]:
    update = rows["update"].to_numpy()
    past, near = update < onset - ahead, (update >= onset - ahead) & (update < onset)
    for name in columns:
        value = rows[name].cast(float).fill_null(float("nan")).to_numpy()
        finite = value[past & np.isfinite(value)]
        if len(finite) < _LEAST_KNOWN:
            continue
        low, high = float(finite.min()), float(finite.max())
        room = max(_RANGES * (high - low), _MATTERS * max(abs(low), abs(high)))
        measured = near & ~rows[name].is_null().to_numpy()
        away = np.flatnonzero(measured & ~((value >= low - room) & (value <= high + room)))
        if len(away):
            yield Departure(name, subject, int(update[away[0]]), float(value[away[0]]), low, high)
