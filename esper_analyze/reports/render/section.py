"""What a section of the report declares: how it computes its data, draws it, and puts it into sentences and rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.reports.render.rows import SectionTable


@dataclass(frozen=True, slots=True)
class Layout:
    """Heights of a figure's rows in pixels, how many axes stand in each, and room at the left for labels."""

    heights: tuple[int, ...]
    columns: int = 1
    left: int = 64


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure: ``layout`` says which axes the data need, ``draw`` only draws them."""

    name: str
    layout: Callable[[Any], Layout]
    draw: Callable[[Any, Sequence[Axes]], None]


@dataclass(frozen=True, slots=True)
class Section(Drawing):
    """One section of the report, from which page, Markdown, terminal, CSV, JSON and API are rendered.

    ``frame`` computes the typed data once (None: nothing was recorded, ``without`` says so and what records it);
    ``layout``, ``draw``, ``words``, ``rows`` and ``listed`` show them and compute nothing of their own.
    ``rows``: every row with all columns, as the section's command writes them to CSV and JSON; ``listed``: the rows
    that the report lists under the figure. ``rules``: those that ``--fail-on`` of the command goes by, none named means
    all. ``itemised``: the page shows the sentences as a list; ``template`` renders the section there.
    """

    title: str
    asks: str
    without: str
    frame: Callable[[Evidence], Any]
    words: Callable[[Any], list[str]]
    rows: Callable[[Any], SectionTable] | None = None
    listed: Callable[[Any], SectionTable] | None = None
    rules: tuple[str, ...] = ()
    itemised: bool = False
    template: str = "section.html.j2"

    def table(self, data: Any) -> SectionTable:
        """Return every row with all columns. Raises ``TypeError`` for a section that has none."""
        if self.rows is None:
            raise TypeError(f"section {self.name} has no rows")
        return self.rows(data)

    def listing(self, data: Any) -> SectionTable | None:
        """Return the rows that the report lists, None when there are none."""
        table = None if self.listed is None else self.listed(data)
        return table if table is not None and table.cells else None
