"""From judged runs to numbers: recall, false alarms per 1,000 healthy updates and delay, per rule and setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from esper_analyze.replay.backtest import Backtest, Tested, labelled_faults
from esper_analyze.replay.sweep import Variant

ALL_RULES = "all rules"


@dataclass(frozen=True, slots=True)
class Score:
    """One rule with one setting, or all rules together, over all labelled runs.

    ``faults`` are those whose labels list the rule; ``found`` counts those it found, ``at_once`` those found in the
    very update. ``recall`` and ``median_delay`` (updates) are None where there is nothing to take them of,
    ``per_1000`` where no update was healthy.
    """

    rule: str
    setting: str
    values: tuple[tuple[str, float], ...]
    faults: int
    found: int
    at_once: int
    recall: float | None
    median_delay: float | None
    longest_delay: int | None
    false_alarms: int
    healthy_updates: int
    per_1000: float | None


@dataclass(frozen=True, slots=True)
class Detection:
    """When a setting found one labelled fault: ``update`` and ``delay`` are None when it did not."""

    run: str
    fault: str
    onset: int
    hard: bool
    setting: str
    rule: str | None
    update: int | None
    delay: int | None


def scores(result: Backtest) -> list[Score]:
    """Return one score for each setting of each swept rule (of every rule when none is swept), then all rules'."""
    variants = [one for found in result.sweep.variants.values() for one in found]
    each = variants or [Variant(rule) for rule in result.rules]
    found = [_score(result, one.rule, one.label, one.values, [one]) for one in each]
    for setting in result.sweep.settings:
        values = tuple((f"{one.rule}.{name}", value) for one in setting for name, value in one.values)
        found.append(_score(result, ALL_RULES, _label(setting), values, _in_force(result, setting)))
    return found


def detections(result: Backtest) -> list[Detection]:
    """Return when each setting found each labelled fault, by any of the rules its label lists."""
    told = []
    for setting in result.sweep.settings:
        label = _label(setting)
        variants = _in_force(result, setting)
        for run, place, fault in labelled_faults(result):
            first = _first(run, place, variants)
            rule, update = (None, None) if first is None else first
            delay = None if update is None else update - fault.onset
            told.append(Detection(str(run.path), fault.name, fault.onset, fault.hard, label, rule, update, delay))
    return told


def _label(setting: Sequence[Variant]) -> str:
    """Return the setting in words, with the rules' names."""
    return ", ".join(f"{one.rule}.{name}={value:g}" for one in setting for name, value in one.values)


def _in_force(result: Backtest, setting: Sequence[Variant]) -> list[Variant]:
    """Return a variant of every rule: the setting's, and other rules as they are."""
    swept = {one.rule: one for one in setting}
    return [swept.get(rule, Variant(rule)) for rule in result.rules]


def _first(run: Tested, place: int, variants: Sequence[Variant]) -> tuple[str, int] | None:
    """Return the rule that found the fault first, and when."""
    updates = [(one.rule, run.found[one, place]) for one in variants if (one, place) in run.found]
    return min(updates, key=lambda item: item[1], default=None)


def _score(
    result: Backtest, rule: str, setting: str, values: tuple[tuple[str, float], ...], variants: Sequence[Variant]
) -> Score:
    rules = {one.rule for one in variants}
    faults = [item for item in labelled_faults(result) if rules & set(item[2].rules)]
    firsts = [(_first(run, place, variants), fault) for run, place, fault in faults]
    delays = [first[1] - fault.onset for first, fault in firsts if first is not None]
    false = sum(run.false_alarms[one] for run in result.tested for one in variants)
    healthy = sum(run.healthy_updates for run in result.tested)
    return Score(
        rule,
        setting,
        values,
        len(faults),
        len(delays),
        delays.count(0),
        len(delays) / len(faults) if faults else None,
        median(delays) if delays else None,
        max(delays, default=None),
        false,
        healthy,
        1000 * false / healthy if healthy else None,
    )
