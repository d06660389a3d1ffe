"""Which figure shows what a rule judges."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esper_analyze.detector.rule import Rule

_BY_TABLE = {
    "updates": ("policy",),
    "heads": ("heads",),
    "groups": ("drift",),
    "layers": ("layers",),
    "lstm": ("lstm",),
    "slots": ("slots",),
    "ranks": ("ranks",),
}


def figures_of(rule: Rule) -> tuple[str, ...]:
    """Return the names of the sections whose figures show what ``rule`` judges, the best first."""
    return rule.figures or _BY_TABLE.get(rule.table, ("timeline",))


def shown(names: Collection[str], on_page: Collection[str]) -> tuple[str, ...]:
    """Return those of ``names`` that are on the page."""
    return tuple(name for name in names if name in on_page)
