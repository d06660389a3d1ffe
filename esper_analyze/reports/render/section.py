"""What a figure report is: a question, a frame that computes, a draw that only draws, and words below."""

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
class Question:
    """One report.

    ``frame`` computes arrays (None: nothing was recorded, ``without`` says so and what records it), ``layout`` says
    which axes they need, ``draw`` draws them, ``words`` puts them into sentences, ``table`` lists what the page shows
    under the figure (None: nothing is worth listing), ``markup`` is a table of the page that needs more than words.
    """

    name: str
    title: str
    asks: str
    without: str
    frame: Callable[[Evidence], Any]
    layout: Callable[[Any], Layout]
    draw: Callable[[Any, Sequence[Axes]], None]
    words: Callable[[Any], list[str]]
    table: Callable[[Any], SectionTable | None] | None = None
    markup: Callable[[Any], str] | None = None
