"""What is NOW, WHY, and what comes NEXT: the verdict with its evidence, each point with the figures that show it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.reports import onset
from esper_analyze.reports.escalation import captured_since
from esper_analyze.reports.evidence import Evidence
from esper_analyze.reports.lead import alarms_of, around, crossed, lasted, leading
from esper_analyze.reports.links import figures_of
from esper_analyze.reports.listing import broken_words, closing_reason, status_words
from esper_analyze.reports.series import all_series
from esper_analyze.reports.words import many, number, on
from esper_analyze.schema import BY_NAME
from esper_analyze.terminal import cleaned

if TYPE_CHECKING:
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.runs.run import Run

_MOST_OPEN = 5
_COMPARED = 10
"""Updates whose mean return stands for a time."""
_BOUNDED = (
    ("kl_spike", "kl_k3"),
    ("ratio_explosion", "ratio_max"),
    ("clip_saturation", "clip_fraction"),
    ("entropy_collapse", "entropy_norm"),
    ("first_ratio", "first_ratio_error"),
)
"""Rules with plain bounds and what they judge: how near a sound run came to them."""
_INNER = ("kl_k3", "ratio_max", "ratio_min", "clip_fraction", "entropy", "grad_norm_pre_clip")


@dataclass(frozen=True, slots=True)
class Point:
    """One statement, the questions whose figures show it, and a command to type."""

    words: str
    figures: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """The verdict in words. ``verdict`` is the worst one (ok when nothing fired), ``lead`` the incident told first.

    ``now``: how the run stands at its end; ``why``: the evidence, the strongest first; ``after``: what to do next.
    """

    verdict: str
    headline: str
    now: tuple[Point, ...]
    why: tuple[Point, ...]
    after: tuple[Point, ...]
    caveats: tuple[str, ...]
    lead: Incident | None
    look_first: str = ""

    @property
    def parts(self) -> tuple[tuple[str, tuple[Point, ...]], ...]:
        """The parts with their titles."""
        return tuple(part for part in (("Now", self.now), ("Why", self.why), ("Next", self.after)) if part[1])

    @property
    def paragraph(self) -> str:
        """How it stands and why, in one paragraph."""
        return " ".join(point.words for point in (*self.now, *self.why))


def frame(evidence: Evidence) -> Story:
    """Return the story of the run."""
    replay = evidence.replay
    caveats = tuple(_caveats(evidence))
    if not replay.updates:
        return Story(
            "no_data",
            "No complete update was recorded",
            (*_ended(evidence.run), Point("There is nothing to judge.")),
            (),
            (),
            caveats,
            None,
        )
    if not replay.incidents:
        return _quiet(evidence, caveats)
    lead = replay.incidents[leading(replay.incidents)]
    began = onset.frame(evidence.run, lead)
    worst = "critical" if any(incident.peak_verdict == "critical" for incident in replay.incidents) else "warning"
    return Story(
        verdict=worst,
        headline=f"{evidence.title(lead.rule)}{on(lead.subject)} at update {lead.start:,}",
        now=tuple(_now(evidence, lead)),
        why=tuple(_why(evidence, lead, began)),
        after=tuple(_next(evidence, lead, began)),
        caveats=caveats,
        lead=lead,
        look_first=cleaned(evidence.rules[lead.rule].look_first, 600),
    )


def _quiet(evidence: Evidence, caveats: tuple[str, ...]) -> Story:
    """Return the story of a run in which nothing fired; where most rules had no data that is no good news."""
    judged, without = _judged(evidence)
    verdict = "ok" if len(judged) > len(without) else "no_data"
    headline = f"Nothing fired; {many(len(without), 'rule')} had no data" if without else "Nothing fired"
    if _without_choice(evidence.run):
        headline += ": there was nothing to learn here"
    return Story(verdict, headline, tuple(_sound(evidence)), tuple(_nearest(evidence)), (), caveats, None)


def _without_choice(run: Run) -> bool:
    """Whether in no update of the run any head ever had more than one valid action."""
    choice = all_series(run, "updates", ["choice_fraction"])["choice_fraction"]
    return not choice.empty and bool(choice.finite.all()) and not choice.value.any()


def _judged(evidence: Evidence) -> tuple[list[str], list[str]]:
    """Return the rules that judged some update, and those that never did because data was missing."""
    counts = evidence.replay.verdict_counts
    bounded = ("ok", "info", "warning", "critical")
    judged = [rule for rule, said in counts.items() if any(said.get(word) for word in bounded)]
    return judged, [rule for rule, said in counts.items() if rule not in judged and said.get("no_data")]


def _now(evidence: Evidence, lead: Incident) -> Iterator[Point]:
    run, incidents = evidence.run, evidence.replay.incidents
    yield Point(lasted(evidence, lead), ("incidents",))
    yield from _ended(run)
    still = [incident for incident in incidents if incident.ended == "open"]
    last = f"when the record ends at update {run.last_update:,}"
    if still:
        rules = list(dict.fromkeys(incident.rule for incident in still))
        more = f" and {len(rules) - _MOST_OPEN} more" if len(rules) > _MOST_OPEN else ""
        named = f"{', '.join(cleaned(rule, 40) for rule in rules[:_MOST_OPEN])}{more}"
        yield Point(f"{many(len(still), 'incident')} still open {last}: {named}.", ("timeline",))
    else:
        end = max(incident.end for incident in incidents)
        yield Point(f"Every incident had cleared {last}, the last after update {end:,}.", ("timeline",))
    yield from _returns(evidence, lead)


def _ended(run: Run) -> Iterator[Point]:
    """Say how the run ended, should it not have ended well."""
    if not run.closed:
        yield Point(f"The run was {status_words(run)}: the training was killed, or is still going on.", ("run",))
    elif ":" in closing_reason(run):
        yield Point(f"The training ended with {cleaned(closing_reason(run), 160)}", ("run",))


def _returns(evidence: Evidence, lead: Incident) -> Iterator[Point]:
    """Compare the last returns with those before the trouble, should there be enough of both."""
    series = all_series(evidence.run, "updates", ["episode_return_mean"])["episode_return_mean"]
    kept = series.finite
    before = series.value[kept & (series.update < lead.onset)][-_COMPARED:]
    after = series.value[kept & (series.update >= lead.start)]
    if not len(before) or not len(after):
        return
    last = after[-_COMPARED:]
    was = f"{number(float(before.mean()))} in the {many(len(before), 'update')} before update {lead.onset:,}"
    yield Point(f"Episodes return {number(float(last.mean()))} at the end; it was {was}.", ("returns",))


def _why(evidence: Evidence, lead: Incident, began: onset.Onset) -> Iterator[Point]:
    rule = evidence.rules[lead.rule]
    yield Point(" ".join([*crossed(evidence, lead), *began.told_usual]), figures_of(rule))
    for sentence in began.told:
        yield Point(sentence)
    yield from _inside(evidence, lead)
    yield Point(cleaned(rule.meaning, 600))
    for sentence in around(evidence.replay.incidents):
        yield Point(sentence, ("incidents",))


def _inside(evidence: Evidence, lead: Incident) -> Iterator[Point]:
    """Say at which minibatch of its update the judged number passed its bound."""
    alarms = alarms_of(evidence.replay.findings, lead)
    bound = alarms[0].threshold if alarms else None
    if lead.metric not in _INNER or bound is None or not evidence.run.rows["steps"]:
        return
    steps = onset.around(evidence.run, "steps", ["epoch", "minibatch", lead.metric], lead.start, lead.start)
    steps = steps.sort("epoch", "minibatch").unique(["epoch", "minibatch"], keep="last", maintain_order=True)
    value = steps[lead.metric].cast(float).fill_null(float("nan")).to_numpy()
    beyond = value > bound if evidence.rules[lead.rule].higher_is_worse else value < bound
    places = np.flatnonzero(beyond)
    if len(places):
        row = steps.row(int(places[0]), named=True)
        where = f"minibatch {places[0] + 1} of {steps.height} (epoch {row['epoch']}, minibatch {row['minibatch']})"
        yield Point(
            f"Inside that update {lead.metric} first passed the bound in {where}: {number(float(value[places[0]]))}."
        )


def _next(evidence: Evidence, lead: Incident, began: onset.Onset) -> Iterator[Point]:
    for one in began.settings:
        yield Point(f"Find out what set {one.name} to {number(one.at)} at update {one.update:,}.")
    if began.broken:
        yield Point(
            f"Look at the {began.broken[0]} of update {began.update:,}: nothing before them was NaN or infinite."
        )
    yield Point(cleaned(evidence.rules[lead.rule].look_first, 600), (f"rule-{lead.rule}",))
    kept = captured_since(evidence, lead.start)
    if kept:
        yield Point(kept, ("timeline",))
    columns = [name for name in _INNER if name in BY_NAME["steps"].names]
    if evidence.run.rows["steps"] and lead.rule != "data_lost":
        query = f"select epoch, minibatch, {', '.join(columns)} from steps where update = {lead.start}"
        words = f"Update {lead.start:,} minibatch by minibatch:"
        yield Point(words, command=f'esper-analyze sql {shlex.quote(str(evidence.run.path))} "{query}"')


def _nearest(evidence: Evidence) -> Iterator[Point]:
    """Say how near the run came to the bounds of the first rules."""
    known = [(rule, metric) for rule, metric in _BOUNDED if rule in evidence.rules]
    columns = all_series(evidence.run, "updates", [metric for _, metric in known])
    for name, metric in known:
        series, bound = columns[metric], evidence.bound(name, "warning")
        if bound is None or not series.finite.any():
            continue
        higher = evidence.rules[name].higher_is_worse
        place = series.largest if higher else series.smallest
        most, beyond = ("at most", "beyond") if higher else ("at least", "below")
        found = f"{metric} was {most} {number(float(series.value[place]))}, at update {series.update[place]:,}"
        yield Point(f"{found}; {name} begins {beyond} {number(bound)}.", figures_of(evidence.rules[name]))


def _sound(evidence: Evidence) -> Iterator[Point]:
    """Say what was judged, and how the returns went."""
    replay, (judged, without) = evidence.replay, _judged(evidence)
    yield from _ended(evidence.run)
    updates = many(replay.updates, "update")
    if _without_choice(evidence.run):
        yield Point(
            "Nothing to learn here: no head ever had a choice, for the masks left one valid action at every step. "
            "Zero gradients of heads, a KL of 0 and a ratio of 1 follow from that; only the critic can learn, "
            "and what it shares with the policy.",
            ("heads",),
        )
    yield Point(f"{many(len(judged), 'rule')} judged {updates} and none reached a warning.", ("verdicts",))
    if without:
        yield Point(
            f"{many(len(without), 'rule')} could judge nothing: what they need was not recorded.", ("unjudged",)
        )
    series = all_series(evidence.run, "updates", ["episode_return_mean"])["episode_return_mean"]
    known = series.value[series.finite]
    if len(known) > _COMPARED:
        first, last = (number(float(part.mean())) for part in (known[:_COMPARED], known[-_COMPARED:]))
        yield Point(
            f"Episodes return {last} at the end; it was {first} in the first {_COMPARED} updates.", ("returns",)
        )
    informed = sum(counts.get("info", 0) for counts in replay.verdict_counts.values())
    if informed:
        yield Point(f"{informed:,} verdicts were noted as information only.", ("verdicts",))


def _caveats(evidence: Evidence) -> Iterable[str]:
    run = evidence.run
    if run.broken:
        yield f"Left out: {many(len(run.broken), 'file')}, {broken_words(run)}."
    if run.lost_rows:
        yield f"{many(run.lost_rows, 'row')} could not be written while recording."
    missing = dict.fromkeys(u.rule for u in evidence.replay.unjudged if u.verdict == "no_data")
    if missing:
        yield f"Data was missing for {', '.join(missing)}: missing is not healthy."
    silent = [rule.name for rule in evidence.replay.rules if not evidence.replay.verdict_counts.get(rule.name)]
    if silent:
        yield f"Not checked, for the run has no rows of what they judge: {', '.join(silent)}."
