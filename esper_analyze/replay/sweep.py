"""The settings that a backtest tries: all combinations of the values given for thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from esper_analyze.detector.rule import Limits, Rule
from esper_analyze.detector.thresholds import ThresholdError, Thresholds

MOST_SETTINGS = 1_000
"""Limit on the combinations of one backtest; each setting of a rule runs one more detector over every run."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One rule with some thresholds changed: (field, value) in the order given; empty means unchanged."""

    rule: str
    values: tuple[tuple[str, float], ...] = ()

    @property
    def label(self) -> str:
        """The setting as text: field=value, separated by commas."""
        return ", ".join(f"{name}={value:g}" for name, value in self.values)

    def limits(self, thresholds: Thresholds) -> Limits:
        """Return the rule's limits in ``thresholds`` with this variant's values."""
        for name, value in self.values:
            thresholds = thresholds.changed(self.rule, name, value)
        return thresholds[self.rule]


SweptSetting = tuple[Variant, ...]
"""One combination: a variant of every swept rule."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The variants of each swept rule, and all their combinations."""

    variants: Mapping[str, tuple[Variant, ...]]
    settings: tuple[SweptSetting, ...]


def parse_sweep(texts: Sequence[str], rules: Sequence[Rule]) -> Sweep:
    """Parse ``rule.field=a,b,c`` texts; no text gives one setting in which nothing is changed.

    Raises ``ThresholdError`` for another form, for a name that is not a threshold, and for too many combinations.
    """
    defaults = Thresholds.defaults(rules)
    values: dict[tuple[str, str], list[float]] = {}
    for text in texts:
        key, numbers = _parsed(text, defaults)
        if key in values:
            raise ThresholdError(f"{'.'.join(key)} is swept twice; give all its values in one --sweep")
        values[key] = numbers
    size = math.prod(len(numbers) for numbers in values.values())
    if size > MOST_SETTINGS:
        counts = " × ".join(str(len(numbers)) for numbers in values.values())
        raise ThresholdError(f"{counts} values make {size:,} settings, more than {MOST_SETTINGS:,}; sweep fewer values")
    by_rule: dict[str, dict[str, list[float]]] = {}
    for (rule, name), numbers in values.items():
        by_rule.setdefault(rule, {})[name] = numbers
    variants = {
        rule: tuple(Variant(rule, tuple(zip(fields, cells, strict=True))) for cells in product(*fields.values()))
        for rule, fields in by_rule.items()
    }
    return Sweep(variants, tuple(product(*variants.values())))


def _parsed(text: str, defaults: Thresholds) -> tuple[tuple[str, str], list[float]]:
    target, equals, listed = text.partition("=")
    rule, dot, name = target.strip().partition(".")
    parts = [part.strip() for part in listed.split(",")]
    if not (equals and dot and all(parts)):
        raise ThresholdError(f"{text!r} is not of the form rule.field=a,b,c")
    numbers = [getattr(defaults.assigned(f"{rule}.{name}={part}")[rule], name) for part in parts]
    return (rule, name), list(dict.fromkeys(numbers))
