"""A section as data for JSON: what it asks, its sentences, and its rows with all columns."""

from __future__ import annotations

from collections.abc import Sequence

from esper_analyze.reports.render.rows import SectionTable
from esper_analyze.reports.render.section import Section


def section_facts(section: Section, sentences: Sequence[str], table: SectionTable) -> dict[str, object]:
    """Return the section as plain data."""
    return {"question": section.name, "asks": section.asks, "words": sentences, "rows": list(table.records())}
