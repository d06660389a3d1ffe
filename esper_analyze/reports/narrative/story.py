"""The story of a run, NOW, WHY and NEXT: the verdict with its evidence, each point with the figures that show it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.conditions.stand_ins import KL_LOGGED
from esper_analyze.replay.evidence import Evidence
from esper_analyze.replay.standing import OPTIONAL, of_replay, too_early, without_data
from esper_analyze.reports.causes.cause import Likelihood
from esper_analyze.reports.causes.look_alikes import PossibleCause, look_alikes
from esper_analyze.reports.listing import broken_words
from esper_analyze.reports.narrative import onset
from esper_analyze.reports.narrative.links import figures_of
from esper_analyze.reports.narrative.missing_calls import missing_calls
from esper_analyze.reports.narrative.primary_incident import (
    alarms_of,
    bound_crossing,
    duration,
    judged_rules,
    last_update,
    other_incidents,
    primary_incident,
    title_of,
    worst_and_now,
)
from esper_analyze.reports.narrative.resume_from import resume_from
from esper_analyze.reports.narrative.settings_in_effect import settings_in_effect
from esper_analyze.reports.narrative.unrepeatable import lost_alarms
from esper_analyze.reports.sections.escalation import captured_since
from esper_analyze.reports.sections.returns import fall_of
from esper_analyze.runs.log_source import is_log
from esper_analyze.runs.series import all_series
from esper_analyze.schema import BY_NAME
from esper_analyze.storage.attempt_end import End
from esper_analyze.terminal import cleaned
from esper_analyze.wording import lasting, many, number, on

if TYPE_CHECKING:
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.replay.standing import Standing
    from esper_analyze.runs.ending import TrainingEnd
    from esper_analyze.runs.run import RecordedRun

_MOST_OPEN = 5
_COMPARED = 10
"""Updates over which a mean return is taken."""
_BOUNDED = (
    ("kl_spike", "kl_k3"),
    ("ratio_explosion", "ratio_max"),
    ("clip_saturation", "clip_fraction"),
    ("entropy_collapse", "entropy_norm"),
    ("first_ratio", "first_ratio_error"),
)
"""Rules with plain bounds and the metrics they judge, to say how near a healthy run came to them."""
_OF_SEED = {
    "host_grad_norm": "The host's gradient norm",
    "seed_grad_norm": "The seed module's",
    "normalized_ratio": "Their ratio, normalised by the root of their sizes,",
}
_PLAIN = re.compile(r"[A-Za-z0-9_ ,.:-]+")
"""A name without special meaning in a shell or SQL: commands are printed to be copied."""
_GROUPED = {Likelihood.NOT_RECORDED: "Not recorded, and so cannot be told", Likelihood.RULED_OUT: "Ruled out"}
"""Answers whose causes are listed in one point."""
_INNER = ("kl_k3", "ratio_max", "ratio_min", "clip_fraction", "entropy", "grad_norm_pre_clip")


@dataclass(frozen=True, slots=True)
class Point:
    """One statement, the questions whose figures show it, and a command to type."""

    words: str
    figures: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """The verdict in words. ``standing`` is the run's overall verdict, ``lead`` the primary incident.

    ``now``: the state at the run's end; ``why``: the evidence, the strongest first; ``after``: what to do next;
    ``causes``: those that the primary incident can have and look alike, the likely ones first.
    """

    standing: Standing
    headline: str
    now: tuple[Point, ...]
    why: tuple[Point, ...]
    after: tuple[Point, ...]
    caveats: tuple[str, ...]
    lead: Incident | None
    look_first: str = ""
    causes: tuple[PossibleCause, ...] = ()

    @property
    def verdict(self) -> str:
        """The overall verdict: ok, info, no_data, warning or critical."""
        return self.standing.verdict

    @property
    def traceback(self) -> str:
        """The Python traceback of the fatal signal that ended the training; empty without one."""
        return self.standing.end.traceback

    @property
    def parts(self) -> tuple[tuple[str, tuple[Point, ...]], ...]:
        """The parts with their titles."""
        return tuple(part for part in (("Now", self.now), ("Why", self.why), ("Next", self.after)) if part[1])

    def without_commands(self) -> Story:
        """Return the story of a run that will not be there for a command."""
        now, why, after = (
            tuple(replace(point, command="") for point in part) for part in (self.now, self.why, self.after)
        )
        return replace(self, now=now, why=why, after=after)

    @property
    def paragraph(self) -> str:
        """NOW and WHY in one paragraph."""
        return " ".join(point.words for point in (*self.now, *self.why))


def frame(evidence: Evidence) -> Story:
    """Return the story of the run."""
    replay = evidence.replay
    caveats = tuple(_caveats(evidence))
    overall = of_replay(evidence.run, replay)
    if not replay.updates:
        return Story(
            overall,
            overall.end.headline or "No complete update was recorded",
            (*_ended(overall.end), Point("There is nothing to judge.")),
            (),
            (),
            caveats,
            None,
        )
    if not replay.incidents:
        return _quiet(evidence, overall, caveats)
    lead = replay.incidents[primary_incident(replay.incidents, replay.rules)]
    began = onset.frame(evidence.run, lead, evidence.rules[lead.rule].reach)
    headline = f"{_began(evidence, lead)}{_became_critical(evidence, lead)}"
    causes = look_alikes(evidence, lead)
    return Story(
        standing=overall,
        headline=_of_end(evidence, lead, overall.end, headline) if overall.label == "died" else headline,
        now=tuple(_now(evidence, lead, overall)),
        why=tuple(_why(evidence, lead, began)),
        after=tuple(_next(evidence, lead, began, causes)),
        caveats=caveats,
        lead=lead,
        look_first=cleaned(evidence.rules[lead.rule].look_first, 600),
        causes=causes,
    )


def _began(evidence: Evidence, incident: Incident) -> str:
    return f"{title_of(evidence, incident)}{on(incident.subject)} at update {incident.start:,}"


def _of_end(evidence: Evidence, lead: Incident, end: TrainingEnd, headline: str) -> str:
    """Return the headline of a training that died; an incident that is the interrupted update itself adds nothing."""
    cut_short = end.interrupted and lead.start == end.update and evidence.cell_text(lead) == "interrupted"
    return f"{end.headline}; no rule had fired before" if cut_short else f"{end.headline}; before: {headline}"


def _became_critical(evidence: Evidence, lead: Incident) -> str:
    """Name the first critical incident where the primary one is not critical, because the badge says critical."""
    worse = [incident for incident in evidence.replay.incidents if incident.peak_verdict == "critical"]
    if lead.peak_verdict == "critical" or not worse:
        return ""
    return f"; critical since: {_began(evidence, min(worse, key=lambda incident: incident.start))}"


def _quiet(evidence: Evidence, overall: Standing, caveats: tuple[str, ...]) -> Story:
    """Return the story of a run without incidents; healthy only if the training ended well and could be judged."""
    headline = "No rule fired"
    if overall.end.lost and overall.end.update is None:
        headline = "Nothing can be said: the rows of its updates are lost"
    if overall.end.headline:
        headline = f"{overall.end.headline}; no rule had fired"
    if is_log(evidence.run.info):
        headline += f": {many(overall.coverage.judged, 'rule')} could judge what the log holds"
    elif overall.coverage.lacking:
        headline += f", but only {overall.coverage.words}"
    if _without_choice(evidence.run):
        headline += ": no head ever had a choice"
    lost = lost_alarms(evidence)
    if lost and overall.verdict != "critical":
        overall = replace(overall, verdict="no_data", label="partly judged")
        headline = f"An alarm raised live cannot be judged again: {lost[0].words}"
    now = tuple(_sound(evidence, overall))
    return Story(
        overall,
        headline,
        now,
        tuple(_nearest(evidence)),
        tuple(_recorded_next(evidence, evidence.rules)),
        caveats,
        None,
    )


def _without_choice(run: RecordedRun) -> bool:
    """Whether in no update of the run any head ever had more than one valid action."""
    choice = all_series(run, "updates", ["choice_fraction"])["choice_fraction"]
    return not choice.empty and bool(choice.finite.all()) and not choice.value.any()


def _now(evidence: Evidence, lead: Incident, overall: Standing) -> Iterator[Point]:
    incidents = evidence.replay.incidents
    if lead.ended == "open":
        yield Point(duration(evidence, lead), ("incidents",))
    yield from _ended(overall.end)
    still = [incident for incident in incidents if incident.ended == "open"]
    last = f"when the recording ends at update {last_update(evidence):,}"
    if still:
        rules = list(dict.fromkeys(incident.rule for incident in still))
        more = f" and {len(rules) - _MOST_OPEN} more" if len(rules) > _MOST_OPEN else ""
        named = f"{', '.join(cleaned(rule, 40) for rule in rules[:_MOST_OPEN])}{more}"
        yield Point(f"{many(len(still), 'incident')} still open {last}: {named}.", ("timeline",))
    else:
        end = max(incident.end for incident in incidents)
        yield Point(f"No incident is open {last}; the last was in alarm until update {end:,}.", ("timeline",))
    yield from _returns(evidence, lead)
    yield from _unjudged(evidence, overall)


def _unjudged(evidence: Evidence, overall: Standing) -> Iterator[Point]:
    """Say which rules could not judge: for lack of data, or because it is too early."""
    if overall.coverage.lacking and not is_log(evidence.run.info):
        yield Point(f"{overall.coverage.words}.", ("unjudged",))
    needs: dict[str, list[str]] = {}
    for rule, updates in too_early(evidence.run, evidence.replay).items():
        needs.setdefault(updates, []).append(rule)
    if needs:
        rules = "; ".join(
            f"{' and '.join(names)} {'needs' if len(names) == 1 else 'need'} {updates}"
            for updates, names in needs.items()
        )
        yield Point(f"Too early: {rules}.", ("unjudged",))


def _recorded_next(evidence: Evidence, names: Container[str]) -> Iterator[Point]:
    """Name the calls that would record what rules in ``names`` lacked."""
    for call, rules in missing_calls(evidence).items():
        named = ", ".join(cleaned(rule, 40) for rule in rules if rule in names)
        if named:
            yield Point(f"Record what {named} lacked: {call}.", ("unjudged",))


def _ended(end: TrainingEnd) -> Iterator[Point]:
    """Say how the training ended, unless it was closed normally."""
    if end.account:
        yield Point(end.account, ("run",))
    elif end.end is End.DIED:
        message = "" if end.kind.startswith("exit code") else cleaned(end.message, 160)
        yield Point(f"{end.headline}: {message}" if message else f"{end.headline}.", ("run",))
    elif end.end is End.UNCLOSED:
        yield Point(f"{end.headline}: the process was killed or the machine went down ({end.status}).", ("run",))
    elif end.stalled_s is not None:
        cause = "it is suspended, as by Ctrl-Z" if end.suspended else "it may hang"
        yield Point(f"The training lives and has stored nothing for {lasting(end.stalled_s)}: {cause}.", ("run",))
    elif end.end is End.RUNNING:
        yield Point(f"The training is still {end.status}.", ("run",))
    elif end.headline:
        yield Point(f"{end.headline}.", ("run",))


def _returns(evidence: Evidence, lead: Incident) -> Iterator[Point]:
    """Compare the last returns with those before the incident, where both exist."""
    series = all_series(evidence.run, "updates", ["episode_return_mean"])["episode_return_mean"]
    usable = series.finite
    before = series.value[usable & (series.update < lead.onset)][-_COMPARED:]
    after = series.value[usable & (series.update >= lead.start)]
    if not len(before) or not len(after):
        return
    last = after[-_COMPARED:]
    ends = f"in the last {many(len(last), 'update')}"
    was = f"{number(float(before.mean()))} in the {many(len(before), 'update')} before update {lead.onset:,}"
    comparison = f"Episodes returned {number(float(last.mean()))} {ends}; it was {was}."
    yield Point(f"{comparison}{fall_of(series)}", ("returns",))


def _why(evidence: Evidence, lead: Incident, began: onset.OnsetContext) -> Iterator[Point]:
    rule = evidence.rules[lead.rule]
    over = [] if lead.ended == "open" else [duration(evidence, lead)]
    judged = [*over, *bound_crossing(evidence, lead), *began.usual_range, *worst_and_now(evidence, lead)]
    moment = evidence.moments.at(lead.start).sentence(lead.start)
    yield Point(" ".join([*judged, moment]).rstrip(), figures_of(rule))
    if rule.table == "slots":
        yield from _seed_course(evidence.run, lead)
    for sentence in began.sentences:
        yield Point(sentence)
    yield from _inside(evidence, lead)
    yield Point(cleaned(rule.meaning_of(lead.metric), 600))
    for sentence in other_incidents(evidence.replay.incidents, evidence.replay.rules):
        yield Point(sentence, ("incidents",))


def _inside(evidence: Evidence, lead: Incident) -> Iterator[Point]:
    """Say at which minibatch of its update the judged number crossed its bound."""
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
            f"Inside that update {lead.metric} first crossed the bound in {where}: {number(float(value[places[0]]))}."
        )


def _seed_course(run: RecordedRun, lead: Incident) -> Iterator[Point]:
    """Say how the gradients of seed module and host, and their ratio, changed at the onset of an incident on a slot."""
    rows = onset.around(run, "slots", ["place", *_OF_SEED], lead.onset - onset.BEFORE, lead.start)
    for name, what in _OF_SEED.items():
        recorded = rows.filter((rows["place"] == lead.subject) & rows[name].is_not_null())
        before, now = (
            recorded.filter(recorded["update"] < lead.onset)[name],
            recorded.filter(recorded["update"] >= lead.onset),
        )
        if before.len() and now.height:
            at = f"{number(now[name][0])} at update {now['update'][0]:,}"
            usual = f"{number(before.median())} in {many(before.len(), 'update')} before"  # type: ignore[arg-type]
            yield Point(f"{what} was {at}, against {usual}.", ("slots",))


def _next(
    evidence: Evidence, lead: Incident, began: onset.OnsetContext, causes: Sequence[PossibleCause]
) -> Iterator[Point]:
    for setting in began.settings:
        yield Point(f"Find what set {setting.name} to {number(setting.at)} at update {setting.update:,}.")
    if began.next_step:
        yield Point(began.next_step)
    yield from (Point(cause.line) for cause in causes if cause.answer is Likelihood.LIKELY)
    settings = settings_in_effect(evidence.run, lead)
    if settings:
        yield Point(settings, ("run",))
    yield Point(cleaned(evidence.rules[lead.rule].look_first, 600), (f"rule-{lead.rule}",))
    yield from _other_causes(causes, of_log=is_log(evidence.run.info))
    resumable = resume_from(evidence.run, lead)
    if resumable:
        yield Point(resumable)
    captured = captured_since(evidence, lead.start)
    if captured:
        yield Point(captured, ("timeline",))
    columns = [name for name in _INNER if name in BY_NAME["steps"].names]
    path = shlex.quote(str(evidence.run.path))
    if evidence.rules[lead.rule].table == "slots":
        what = "update, stage, calls, seed_grad_norm, host_grad_norm, normalized_ratio, low_ratio_cause"
        near = f"update between {max(lead.onset - 3, 0)} and {lead.start + 3}"
        where = f"place = '{lead.subject}' and {near}" if _PLAIN.fullmatch(lead.subject) else near
        words = "The seed module's updates around it:"
        yield Point(words, command=f'esper-analyze sql {path} "select {what} from slots where {where}"')
    elif evidence.run.rows["steps"] and lead.rule != "data_lost":
        query = f"select epoch, minibatch, {', '.join(columns)} from steps where update = {lead.start}"
        words = f"Update {lead.start:,} minibatch by minibatch:"
        yield Point(words, command=f'esper-analyze sql {path} "{query}"')
    yield from _recorded_next(evidence, without_data(evidence.replay))


def _other_causes(causes: Sequence[PossibleCause], *, of_log: bool) -> Iterator[Point]:
    """Say which causes look like the likely ones: a point for each that is possible, and one for all others."""
    yield from (Point(cause.line) for cause in causes if cause.answer is Likelihood.POSSIBLE)
    for answer, title in _GROUPED.items():
        left = [cause for cause in causes if cause.answer is answer]
        if left and answer is Likelihood.NOT_RECORDED and of_log:
            yield Point(f"{many(len(left), 'further cause')} cannot be told from a log; a recording would tell them.")
        elif left:
            named = "; ".join(f"{cause.lower_sentence} ({cause.words})" for cause in left)
            yield Point(f"{title}: {named}.")


def _nearest(evidence: Evidence) -> Iterator[Point]:
    """Say how near the run came to the bounds of some rules."""
    stand_ins = [("kl_spike", metric) for metric in KL_LOGGED] if is_log(evidence.run.info) else []
    bounded = [(rule, metric) for rule, metric in (*_BOUNDED, *stand_ins) if rule in evidence.rules]
    columns = all_series(evidence.run, "updates", [metric for _, metric in bounded])
    for name, metric in bounded:
        series, bound = columns[metric], evidence.bound(name, "warning")
        if bound is None or not series.finite.any():
            continue
        higher = evidence.rules[name].higher_is_worse
        index = series.largest if higher else series.smallest
        most, beyond = ("at most", "beyond") if higher else ("at least", "below")
        worst = float(series.value[index])
        extreme = f"{metric} was {most} {number(worst)}, at update {series.update[index]:,}"
        if (worst > bound) == higher and worst != bound:
            informs = evidence.replay.verdict_counts.get(name, {}).get("info", 0)
            why = f"information to {name}, not an alarm" if informs else f"too briefly or rarely for {name} to warn"
            sentence = f"{extreme}, {beyond} {number(bound)}: {why}"
        else:
            sentence = f"{extreme}; {name} begins {beyond} {number(bound)}"
        yield Point(f"{sentence}.", figures_of(evidence.rules[name]))


def _sound(evidence: Evidence, overall: Standing) -> Iterator[Point]:
    """Say what was judged, and how the returns developed."""
    replay = evidence.replay
    yield from _ended(overall.end)
    updates = many(replay.updates, "update")
    if _without_choice(evidence.run):
        yield Point(
            "No head ever had a choice: the masks left one valid action at every step. Zero head gradients, a KL of 0 "
            "and a ratio of 1 follow from that; only the critic, and the layers it shares with the policy, can learn.",
            ("heads",),
        )
    judged = many(overall.coverage.judged, "rule")
    yield Point(f"{judged} judged {updates} and none reached a warning.", ("verdicts",))
    yield from _unjudged(evidence, overall)
    series = all_series(evidence.run, "updates", ["episode_return_mean"])["episode_return_mean"]
    returns = series.value[series.finite]
    compared = min(_COMPARED, len(returns) // 2)
    if compared:
        first, last = (number(float(part.mean())) for part in (returns[:compared], returns[-compared:]))
        yield Point(
            f"Episodes returned {last} in the last {many(compared, 'update')}; it was {first} in the first"
            f"{f' {compared}' if compared > 1 else ''}.{fall_of(series)}",
            ("returns",),
        )
    informed = {name: counts["info"] for name, counts in replay.verdict_counts.items() if counts.get("info")}
    if informed:
        named = ", ".join(f"{name} {count:,}" for name, count in sorted(informed.items(), key=lambda one: -one[1]))
        yield Point(f"Information alone, by the number of verdicts: {named}.", ("verdicts",))


def _of_log(evidence: Evidence) -> str:
    """Say what the log of another tool cannot tell, once."""
    silent, rules = judged_rules(evidence)[1], len(evidence.replay.rules)
    kind = cleaned(evidence.run.info.get("framework") or evidence.run.info.get("imported_from"))
    return (
        f"A log of {kind} does not hold what happens within an update (gradients, masks, ratios, advantages, recurrent "
        f"state): {len(silent)} of {rules} rules judged nothing, and their silence is not a sign of health."
    )


def _caveats(evidence: Evidence) -> Iterable[str]:
    run = evidence.run
    if run.broken:
        yield f"Left out: {many(len(run.broken), 'file')}, {broken_words(run)}."
    if run.lost_rows:
        how = "were lost: a repair removed damaged files" if run.repaired else "were lost while recording"
        yield f"{many(run.lost_rows, 'row')} {how}; see Losses of data."
    lost = lost_alarms(evidence)
    if lost:
        more = f" and {len(lost) - _MOST_OPEN:,} more" if len(lost) > _MOST_OPEN else ""
        named = "; ".join(alarm.words for alarm in lost[:_MOST_OPEN])
        yield f"Alarmed live, but cannot be judged again because the rows are missing: {named}{more}."
    if is_log(run.info):
        yield _of_log(evidence)
        return
    never = judged_rules(evidence)[1]
    left = {*never, *(rule.name for rule in evidence.replay.rules if rule.optional)}
    partly = dict.fromkeys(u.rule for u in evidence.replay.unjudged if u.verdict == "no_data" and u.rule not in left)
    if never:
        yield f"No data for {', '.join(never)}, which judged nothing: missing data is not a sign of health."
    if partly:
        yield f"Some data was missing for {', '.join(partly)}: missing data is not a sign of health."
    silent = [
        rule.name
        for rule in evidence.replay.rules
        if rule.table not in OPTIONAL and not evidence.replay.verdict_counts.get(rule.name)
    ]
    if silent:
        yield f"Not checked, because the run has no rows for them: {', '.join(silent)}."
