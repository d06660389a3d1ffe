"""All thresholds in one object: defaults from the rules, changed by TOML, by run.json or by ``--set``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, cast

from esper_analyze.detector.rule import Limits, Rule
from esper_analyze.errors import UsageError, did_you_mean


class ThresholdError(UsageError, ValueError):
    """An unknown threshold or one of the wrong type; the message names it and the nearest valid name."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits of every rule, by the rule's name."""

    by_rule: Mapping[str, Limits]

    @classmethod
    def defaults(cls, rules: Iterable[Rule] | None = None) -> Thresholds:
        """Return the defaults of ``rules``, without them those of every built-in rule."""
        if rules is None:
            from esper_analyze.detector.rules import RULES

            rules = RULES
        return cls(MappingProxyType({rule.name: rule.limits() for rule in rules}))

    def completed(self, rules: Iterable[Rule]) -> Thresholds:
        """Return a copy with defaults added for those ``rules`` that it lacks."""
        return Thresholds(MappingProxyType({**Thresholds.defaults(rules).by_rule, **self.by_rule}))

    def __getitem__(self, rule: str) -> Limits:
        if rule not in self.by_rule:
            raise ThresholdError(f"there is no rule {rule!r}{did_you_mean(rule, self.by_rule)}")
        return self.by_rule[rule]

    def changed(self, rule: str, name: str, value: object, *, recorded: bool = False) -> Thresholds:
        """Return a copy with one field set. Raises ``ThresholdError`` with the nearest valid name.

        A ``recorded`` real number may be below the least one of today: it was valid when the run was recorded.
        """
        limits = self[rule]
        declared = {item.name: item.metadata for item in fields(limits)}
        if name not in declared:
            raise ThresholdError(f"rule {rule} has no threshold {name!r}{did_you_mean(name, declared)}")
        checked = _checked(f"{rule}.{name}", getattr(limits, name), value, declared[name], recorded=recorded)
        return Thresholds(
            MappingProxyType({**self.by_rule, rule: replace(limits, **cast("dict[str, Any]", {name: checked}))})
        )

    def merged(self, values: Mapping[str, object], *, recorded: bool = False) -> Thresholds:
        """Return a copy with ``{rule: {field: value}}`` applied, the form of run.json (``recorded``) and TOML.

        A ``recorded`` field that the rule no longer has is left out.
        """
        if not isinstance(values, Mapping):
            raise ThresholdError(f"thresholds must be a table of rules, not {values!r}")
        result = self
        for rule, table in values.items():
            if not isinstance(table, Mapping):
                raise ThresholdError(f"{rule} must be a table of thresholds, not {table!r}")
            known = {item.name for item in fields(result[rule])} if recorded else table
            for name, value in table.items():
                if name in known:
                    result = result.changed(rule, name, value, recorded=recorded)
        return result

    def assigned(self, assignment: str) -> Thresholds:
        """Return a copy with ``rule.field=value`` applied, the form of ``--set``."""
        target, equals, value = assignment.partition("=")
        rule, dot, name = target.strip().partition(".")
        if not equals or not dot:
            raise ThresholdError(f"{assignment!r} is not of the form rule.field=value")
        return self.changed(rule, name, _parsed(value.strip()))

    def crossed(self) -> list[str]:
        """Return a sentence for each rule whose warning bound is beyond its critical bound, so that it never warns."""
        sentences = []
        for rule, limits in self.by_rule.items():
            warning, critical = (getattr(limits, name, None) for name in ("warning", "critical"))
            if warning is None or critical is None:
                continue
            usual = type(limits)()
            upwards = usual.critical >= usual.warning  # type: ignore[attr-defined]
            if warning != critical and (critical > warning) != upwards:
                sentences.append(f"{rule}.warning = {warning:g} lies beyond {rule}.critical = {critical:g}")
        return sentences

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return ``{rule: {field: value}}``, ready for JSON or TOML."""
        return {rule: asdict(limits) for rule, limits in self.by_rule.items()}


def _parsed(value: str) -> object:
    for reading in (int, float):
        try:
            return reading(value)
        except ValueError:
            continue
    return value


def _checked(where: str, present: object, value: object, declared: Mapping[str, Any], *, recorded: bool) -> object:
    if isinstance(present, dict):
        if not isinstance(value, Mapping):
            raise ThresholdError(f"{where} must be a table of name = number, not {value!r}")
        return {str(name): _number(f"{where}.{name}", cell) for name, cell in value.items()}
    number = _number(where, value)
    is_whole = isinstance(present, int)
    least, below = declared.get("at_least"), declared.get("below")
    least = None if recorded and not is_whole else least
    outside = (least is not None and number < least) or (below is not None and number >= below)
    if outside or (is_whole and number != int(number)):
        raise ThresholdError(f"{where} must be {_wanted(integer=is_whole, least=least, below=below)}, not {value!r}")
    return int(number) if is_whole else number


def _wanted(*, integer: bool, least: float | None, below: float | None) -> str:
    bounds = [f"of at least {least:g}"] if least is not None else []
    bounds += [f"below {below:g}"] if below is not None else []
    return " ".join(["a whole number" if integer else "a number", " and ".join(bounds)])


def _number(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ThresholdError(f"{where} must be a finite number, not {value!r}")
    return float(value)
