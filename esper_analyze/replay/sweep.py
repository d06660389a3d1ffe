"""Which settings a backtest tries: the values given for thresholds, in every combination."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from esper_analyze.detector.rule import Limits, Rule
from esper_analyze.detector.thresholds import ThresholdError, Thresholds

MOST_SETTINGS = 1_000
"""Bound on the combinations of one backtest; each setting of a rule is one more judge over every run."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One rule with some thresholds set: (field, value) in the order they were asked for; none is the rule as it is."""

    rule: str
    values: tuple[tuple[str, float], ...] = ()

    @property
    def label(self) -> str:
        """The setting in words."""
        return ", ".join(f"{name}={value:g}" for name, value in self.values)

    def limits(self, thresholds: Thresholds) -> Limits:
        """Return the rule's limits out of ``thresholds`` with this setting."""
        for name, value in self.values:
            thresholds = thresholds.changed(self.rule, name, value)
        return thresholds[self.rule]


Setting = tuple[Variant, ...]
"""One combination: a variant of every swept rule."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The variants of each swept rule, and all their combinations."""

    variants: Mapping[str, tuple[Variant, ...]]
    settings: tuple[Setting, ...]


def parse_sweep(asked: Sequence[str], rules: Sequence[Rule]) -> Sweep:
    """Return what ``rule.field=a,b,c`` texts ask for; nothing asked is one setting in which nothing is set.

    Raises ``ThresholdError`` for what is not of that form or not a threshold, and for too many combinations.
    """
    defaults = Thresholds.defaults(rules)
    values: dict[tuple[str, str], list[float]] = {}
    for text in asked:
        key, found = _parsed(text, defaults)
        if key in values:
            raise ThresholdError(f"{'.'.join(key)} is swept twice; give all its values in one --sweep")
        values[key] = found
    size = math.prod(len(found) for found in values.values())
    if size > MOST_SETTINGS:
        counts = " × ".join(str(len(found)) for found in values.values())
        raise ThresholdError(
            f"{counts} values make {size:,} settings, more than {MOST_SETTINGS:,}; sweep fewer at once"
        )
    by_rule: dict[str, dict[str, list[float]]] = {}
    for (rule, name), found in values.items():
        by_rule.setdefault(rule, {})[name] = found
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
    found = [getattr(defaults.assigned(f"{rule}.{name}={part}")[rule], name) for part in parts]
    return (rule, name), list(dict.fromkeys(found))
