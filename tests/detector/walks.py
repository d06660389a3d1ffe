"""Rows of a rule's subjects that wander near the rule's own examples."""

from __future__ import annotations

from typing import Any

import numpy as np

from esper_analyze.detector.rule import Rule
from esper_analyze.schema import BY_NAME

NAMES = {
    "updates": ("run",),
    "heads": ("a", "b"),
    "groups": ("critic", "head:a", "actor"),
    "lstm": ("rollout", "update"),
}


def last_cells(rule: Rule) -> list[dict[str, Any]]:
    """Return what each of the rule's examples ends with."""
    return [
        {name: cell[-1] if isinstance(cell, list) else cell for name, cell in example.cells.items()}
        for example in rule.examples
    ]


def walk(rule: Rule, n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return cells of ``n`` updates that stay near one of the rule's examples for some time, then near another."""
    ends, cells = last_cells(rule), list[dict[str, Any]]()
    while len(cells) < n:
        near, spread = ends[int(rng.integers(len(ends)))], rng.choice([0.0, 0.02, 0.7])
        for _ in range(int(rng.choice([1, 2, 3, 5, 8, 30, 45]))):
            factor = float(np.exp(spread * rng.normal()))
            cells.append({name: x * factor if isinstance(x, float) else x for name, x in near.items()})
    return cells[:n]


def rows_of(rule: Rule, n: int, rng: np.random.Generator) -> list[dict[str, list[dict[str, Any]]]]:
    """Return rows of every subject of the rule's table, and of those beside it."""
    tables = (rule.table, *rule.beside)
    names = NAMES.get(rule.table, ("one", "two"))
    walks = [walk(rule, n, rng) for _ in names]
    updates = list[dict[str, list[dict[str, Any]]]]()
    for i in range(n):
        rows: dict[str, list[dict[str, Any]]] = {table: [] for table in tables}
        for name, cells in zip(names, walks, strict=True):
            for table in tables:
                subject, other = BY_NAME[table].subject, "" if table == rule.table else table
                named = name.removeprefix("head:") if table == "heads" else name
                if (table == "updates" and name != names[0]) or (table == "heads" != rule.table and named == name):
                    continue
                parted = [(*key.rpartition("."), x) for key, x in cells[i].items()]
                own = {column: x for where, _, column, x in parted if where == other}
                rows[table].append(own if subject is None else {subject: named, **own})
        updates.append(rows)
    return updates
