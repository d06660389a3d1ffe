"""Thresholds as TOML: written with the source of every default, read back with the same checks as ``--set``."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from esper_analyze.detector.rule import Rule
from esper_analyze.detector.thresholds import ThresholdError, Thresholds


def thresholds_to_toml(thresholds: Thresholds, rules: Iterable[Rule]) -> str:
    """Return ``thresholds`` as TOML, each field under its source."""
    return "\n".join(line for rule in rules for line in _table(thresholds, rule))


def _table(thresholds: Thresholds, rule: Rule) -> Iterator[str]:
    yield f"# {rule.title}"
    yield f"[{rule.name}]"
    sources = rule.limits.sources()
    for name, value in asdict(thresholds[rule.name]).items():
        yield f"{name} = {_value(value)}  # {sources[name]}"
    yield ""


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {cell!r}" for name, cell in value.items()) + "}"
    return repr(value)


def thresholds_from_toml(text: str, base: Thresholds) -> Thresholds:
    """Return ``base`` with what ``text`` says. Raises ``ThresholdError`` for bad TOML, unknown names, bad values."""
    try:
        return base.merged(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ThresholdError(f"not TOML: {error}") from error
