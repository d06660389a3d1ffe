"""One section of the report by itself: what it computed, its sentences, its rows and its figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.reports.render.html import render
from esper_analyze.reports.section_list import SECTIONS

if TYPE_CHECKING:
    import polars
    from matplotlib.figure import Figure

    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.reports.render.section import Section

NAMES: tuple[str, ...] = tuple(section.name for section in SECTIONS)
"""The sections of the report, in order."""


@dataclass(frozen=True, eq=False)
class ReportSection:
    """One section of the report; in a notebook it shows its sentences and its figure.

    ``data`` is what the section computed, the dataclass that it draws: None when the run lacks what it needs, and then
    ``sentences`` say what would record it. The dataclass may change from version to version; ``rows`` keep theirs.
    """

    name: str
    title: str
    asks: str
    sentences: tuple[str, ...]
    data: Any = field(repr=False)
    section: Section = field(repr=False)
    updates: str = field(default="update", repr=False)
    """The label of axes of updates."""

    @property
    def rows(self) -> polars.DataFrame | None:
        """What the page lists under the figure, None when the section lists nothing."""
        from esper_analyze.api.frames import row_frame

        rows = None if self.data is None else self.section.listing(self.data)
        return None if rows is None else row_frame(rows)

    @property
    def figure(self) -> Figure | None:
        """The section's figure, drawn at each access; None when the run lacks the data."""
        from esper_analyze.reports.render.figure import figure_of

        return None if self.data is None else figure_of(self.section, self.data, self.updates)

    def __repr__(self) -> str:
        state = "not recorded" if self.data is None else f"{len(self.sentences)} sentences"
        return f"<ReportSection {self.name}: {state}>"

    def _repr_html_(self) -> str:
        from esper_analyze.reports.render.figure import picture

        image = None if self.data is None else picture(self.section, self.data, "png", self.updates)
        return render("notebook_section.html.j2", section=self, image=image)


def section_of(evidence: Evidence, name: str) -> ReportSection:
    """Return the section called ``name``. Raises ``UsageError`` with the nearest name when there is none."""
    section = next((section for section in SECTIONS if section.name == name), None)
    if section is None:
        raise UsageError(
            f"the report has no section {name!r}{did_you_mean(str(name), NAMES)}", hint=f"sections: {', '.join(NAMES)}"
        )
    data = section.frame(evidence)
    sentences = (section.without,) if data is None else tuple(section.words(data))
    return ReportSection(section.name, section.title, section.asks, sentences, data, section, evidence.moments.axis)
