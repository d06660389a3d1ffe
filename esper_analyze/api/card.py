"""How a run shows itself in a notebook: the verdict with NOW, WHY and NEXT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esper_analyze.reports.render.html import render

if TYPE_CHECKING:
    from esper_analyze.reports.narrative.story import Story


def card(title: str, story: Story) -> str:
    """Return the card as an HTML element; every word from the run is escaped."""
    return render("card.html.j2", title=title, story=story)
