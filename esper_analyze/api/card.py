"""How a run shows itself in a notebook: the verdict with NOW, WHY and NEXT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esper_analyze.reports.render import html
from esper_analyze.reports.story_html import story_part

if TYPE_CHECKING:
    from esper_analyze.reports.narrative.story import Story

_STYLE = """
.esper-card { border-left: 6px solid #6b7480; padding: .4em 1em; max-width: 56em; }
.esper-card.ok { border-color: #009e73; } .esper-card.info { border-color: #56b4e9; }
.esper-card.warning { border-color: #e69f00; } .esper-card.critical { border-color: #d55e00; }
.esper-card.no_data { border-color: #cc79a7; }
.esper-card h2 { font-size: 1.2em; margin: .3em 0; }
.esper-card h3 { font-size: .8em; margin: .8em 0 .1em; text-transform: uppercase; letter-spacing: .06em; }
.esper-card ul { list-style: none; margin: 0; padding: 0; }
.esper-card .chip { font-weight: 600; border: 1px solid; border-radius: 3px; padding: 0 .5em; }
.esper-card .caveat, .esper-card .subtitle { opacity: .75; }
"""


def card(title: str, story: Story) -> str:
    """Return the card as an HTML element; every word from the run is escaped."""
    return (
        f'<div class="esper-card {html.text(story.verdict)}"><style>{_STYLE}</style>'
        f'<p class="subtitle">{html.text(title)}</p>{story_part(story, {})}</div>'
    )
