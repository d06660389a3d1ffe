"""Scores of a backtest: recall, false alarms per 1,000 healthy updates and delay, per rule and setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import median

from esper_analyze.replay.backtest import Backtest, Tested, labelled_faults
from esper_analyze.replay.sweep import Variant

ALL_RULES = "all rules"


@dataclass(frozen=True, slots=True)
class Score:
    """One rule with one setting, or all rules together, over all labelled runs.

    ``faults`` are those whose labels list the rule; ``found`` counts those it detected, ``at_once`` those detected in
    the update of the onset. ``recall`` and ``median_delay`` (updates) are None without faults or detections,
    ``per_1000`` is None without healthy updates.
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


SCORE_COLUMNS = tuple(field.name for field in fields(Score) if field.name != "values")
"""The fields of a score that are single cells; ``setting`` says in words what ``values`` holds."""


@dataclass(frozen=True, slots=True)
class Detection:
    """When a setting detected one labelled fault: ``update`` and ``delay`` are None if it did not."""

    run: str
    fault: str
    onset: int
    hard: bool
    setting: str
    rule: str | None
    update: int | None
    delay: int | None


def scores(result: Backtest) -> list[Score]:
    """Return one score per setting of each swept rule (of every rule if none is swept), then those of all rules."""
    variants = [variant for of_rule in result.sweep.variants.values() for variant in of_rule]
    each = variants or [Variant(rule) for rule in result.rules]
    scored = [_score(result, variant.rule, variant.label, variant.values, [variant]) for variant in each]
    for setting in result.sweep.settings:
        values = tuple((f"{variant.rule}.{name}", value) for variant in setting for name, value in variant.values)
        scored.append(_score(result, ALL_RULES, _label(setting), values, _active_variants(result, setting)))
    return scored


def detections(result: Backtest) -> list[Detection]:
    """Return when each setting detected each labelled fault, by any of the rules that its label lists."""
    rows = []
    for setting in result.sweep.settings:
        label = _label(setting)
        variants = _active_variants(result, setting)
        for run, index, fault in labelled_faults(result):
            first = _first_detection(run, index, variants)
            rule, update = (None, None) if first is None else first
            delay = None if update is None else update - fault.onset
            rows.append(Detection(str(run.path), fault.name, fault.onset, fault.hard, label, rule, update, delay))
    return rows


def setting_labels(result: Backtest) -> list[str]:
    """Return each setting as text; empty where nothing is changed."""
    return [_label(setting) for setting in result.sweep.settings]


def _label(setting: Sequence[Variant]) -> str:
    """Return the setting as text: rule.field=value, separated by commas."""
    return ", ".join(f"{variant.rule}.{name}={value:g}" for variant in setting for name, value in variant.values)


def _active_variants(result: Backtest, setting: Sequence[Variant]) -> list[Variant]:
    """Return a variant of every rule: the setting's, and unchanged ones for other rules."""
    swept = {variant.rule: variant for variant in setting}
    return [swept.get(rule, Variant(rule)) for rule in result.rules]


def _first_detection(run: Tested, index: int, variants: Sequence[Variant]) -> tuple[str, int] | None:
    """Return the rule that detected the fault first, and the update."""
    updates = [(variant.rule, run.found[variant, index]) for variant in variants if (variant, index) in run.found]
    return min(updates, key=lambda item: item[1], default=None)


def _score(
    result: Backtest, rule: str, setting: str, values: tuple[tuple[str, float], ...], variants: Sequence[Variant]
) -> Score:
    rules = {variant.rule for variant in variants}
    faults = [item for item in labelled_faults(result) if rules & set(item[2].rules)]
    firsts = [(_first_detection(run, index, variants), fault) for run, index, fault in faults]
    delays = [first[1] - fault.onset for first, fault in firsts if first is not None]
    false = sum(run.false_alarms[variant] for run in result.tested for variant in variants)
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
