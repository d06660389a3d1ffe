"""A section as JSON: what it asks, its sentences, and its rows with all columns."""

from __future__ import annotations

from collections.abc import Sequence

from esper_analyze.reports.render.rows import SectionTable
from esper_analyze.reports.render.section import Section
from esper_analyze.strict_json import strict_json


def section_json(section: Section, sentences: Sequence[str], table: SectionTable) -> str:
    """Return the section as one JSON object."""
    facts = {"question": section.name, "asks": section.asks, "words": sentences, "rows": list(table.records())}
    return strict_json(facts)
