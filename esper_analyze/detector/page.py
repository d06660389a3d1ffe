"""The rules page: meaning, thresholds and examples of each rule. Printed by ``esper-analyze rules``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict

from esper_analyze.detector.rule import Example, Rule

MOST_CELLS = 6
"""Values of a series that an example shows."""


def rules_page(rules: Iterable[Rule]) -> str:
    """Return the page for ``rules`` as Markdown."""
    return "\n".join(line for rule in rules for line in _section(rule)) + "\n"


def _section(rule: Rule) -> Iterator[str]:
    yield f"## {rule.name}: {rule.title}"
    yield ""
    yield rule.meaning
    yield ""
    yield f"Look first at: {rule.look_first}"
    yield ""
    yield f"Reads {', '.join(f'`{rule.table}.{column}`' for column in rule.columns)}."
    if rule.causes:
        yield f"Shown as a consequence of: {', '.join(rule.causes)}."
    if rule.follows:
        yield f"Can follow from: {', '.join(rule.follows)}."
    for metric, statistic in rule.statistics.items():
        yield f"Judges, of `{metric}`: {statistic.name}."
    yield f"Reference: {rule.reference}."
    yield ""
    yield "| threshold | default | source |"
    yield "|---|---|---|"
    defaults, sources = asdict(rule.limits()), rule.limits.sources()
    for name, default in defaults.items():
        yield f"| {name} | {default} | {sources[name]} |"
    yield ""
    yield "| example | verdict | cells |"
    yield "|---|---|---|"
    for example in rule.examples:
        yield f"| {example.title} | {example.verdict} | {_cells(example)} |"
    yield ""


def _cells(example: Example) -> str:
    shown = [f"{name} = {_cell(cell)}" for name, cell in example.cells.items()]
    repeated = f" ({example.updates} updates)" if example.updates > 1 else ""
    return ", ".join(shown) + repeated


def _cell(cell: object) -> str:
    """Return the cell in words; of a long series its first values and its last."""
    if isinstance(cell, list):
        words = [_cell(value) for value in cell]
        if len(words) > 4 and len(set(words)) == 1:
            return f"{words[0]} throughout"
        return ", ".join(words if len(words) <= MOST_CELLS else [*words[: MOST_CELLS - 2], "…", words[-1]])
    if isinstance(cell, float):
        return f"{cell:.4g}" if cell != round(cell, 3) else str(cell)
    return "null" if cell is None else str(cell)


def rule_facts(rule: Rule) -> dict[str, object]:
    """Return one rule as plain data for ``--json``."""
    return {
        "rule": rule.name,
        "title": rule.title,
        "meaning": rule.meaning,
        "look_first": rule.look_first,
        "reference": rule.reference,
        "table": rule.table,
        "columns": list(rule.columns),
        "causes": list(rule.causes),
        "follows": list(rule.follows),
        "statistics": {metric: asdict(statistic) for metric, statistic in rule.statistics.items()},
        "thresholds": asdict(rule.limits()),
        "sources": rule.limits.sources(),
        "examples": [asdict(example) for example in rule.examples],
    }


def threshold_records(rule: Rule) -> Iterator[dict[str, object]]:
    """Yield each threshold of ``rule`` as a flat record; a rule without any has one, with no threshold."""
    defaults, sources = asdict(rule.limits()), rule.limits.sources()
    for name in defaults or [None]:
        yield {
            "rule": rule.name,
            "threshold": name,
            "default": None if name is None else defaults[name],
            "source": None if name is None else sources[name],
            "title": rule.title,
            "meaning": rule.meaning,
            "look_first": rule.look_first,
            "table": rule.table,
            "columns": ", ".join(rule.columns),
            "reference": rule.reference,
        }
