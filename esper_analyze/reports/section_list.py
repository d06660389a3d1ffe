"""The sections of the report: adding one takes a file in ``sections/`` and a line here."""

from __future__ import annotations

from esper_analyze.reports.render.section import Section
from esper_analyze.reports.sections import (
    clipping,
    cost,
    direction,
    drift,
    escalation,
    heads,
    layers,
    losses,
    lstm,
    policy,
    ranks,
    returns,
    slots,
    tensors,
    transitions,
    value,
)

SECTIONS: tuple[Section, ...] = (
    escalation.SECTION,
    policy.SECTION,
    transitions.SECTION,
    heads.SECTION,
    value.SECTION,
    drift.SECTION,
    layers.SECTION,
    direction.SECTION,
    clipping.SECTION,
    tensors.SECTION,
    lstm.SECTION,
    slots.SECTION,
    losses.SECTION,
    returns.SECTION,
    ranks.SECTION,
    cost.SECTION,
)
"""Every section of the page, in order."""


def section_named(name: str) -> Section:
    """Return the section called ``name``. Raises ``KeyError`` without one."""
    return {section.name: section for section in SECTIONS}[name]
