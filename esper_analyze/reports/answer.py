"""One section of the report, computed: what page, Markdown and report.json show of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_analyze.reports.render.draw import UPDATES
from esper_analyze.reports.render.figure import Drawn, drawn

if TYPE_CHECKING:
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.reports.render.rows import SectionTable
    from esper_analyze.reports.render.section import Section

MOST_LISTED = 200
"""Sentences shown in a list, such as one for each head."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A section with its figure (None when nothing was recorded or drawn), its sentences and the rows it lists."""

    section: Section
    figure: Drawn | None
    words: tuple[str, ...]
    rows: SectionTable | None = None

    @property
    def paragraph(self) -> str:
        """The sentences in one paragraph."""
        return " ".join(self.words)

    @property
    def items(self) -> tuple[str, ...]:
        """The first sentences, and one that counts the others."""
        more = len(self.words) - MOST_LISTED
        return (*self.words[:MOST_LISTED], *([f"{more:,} more are in report.json."] if more > 0 else []))


def answered(evidence: Evidence, section: Section, *, figures: bool) -> Answer:
    """Return the answer to ``section``, drawn if ``figures``; its frame, which may be large, is released."""
    data = section.frame(evidence)
    if data is None:
        return Answer(section, None, ())
    axis = evidence.moments.axis if evidence.excerpt_of is None else UPDATES
    figure = drawn(section, data, axis) if figures else None
    return Answer(section, figure, tuple(section.words(data)), section.listing(data))
