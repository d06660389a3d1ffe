"""The narrative and its findings as parts of the page, each with links to the figures that show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from esper_analyze.reports.narrative.explained import Explained, explained
from esper_analyze.reports.render import html

if TYPE_CHECKING:
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.reports.narrative.story import Point, Story

_LONGEST = 4_000


def story_part(story: Story, sections: Mapping[str, str]) -> str:
    """Return the verdict with NOW, WHY and NEXT. ``sections`` maps the names on the page to their titles."""
    parts = "".join(_part(title, "".join(_point(point, sections) for point in points)) for title, points in story.parts)
    caveats = "".join(f'<p class="caveat">{html.text(caveat)}</p>' for caveat in story.caveats)
    chip = html.chip(story.verdict, story.standing.label)
    return (
        f'<div class="story {story.verdict}" id="story">{chip}<h2>{html.text(story.headline)}</h2>'
        f"{parts}{caveats}</div>"
    )


def _part(title: str, points: str) -> str:
    return f'<div class="part {title.lower()}"><h3>{title}</h3><ul>{points}</ul></div>'


def _point(point: Point, sections: Mapping[str, str]) -> str:
    command = f"<br><code>{html.text(point.command, _LONGEST)}</code>" if point.command else ""
    return f"<li>{html.text(point.words, _LONGEST)}{links(point.figures, sections)}{command}</li>"


def links(names: Iterable[str], sections: Mapping[str, str]) -> str:
    """Return a link to each of ``names`` that is on the page."""
    anchors = [f'<a href="#{html.text(name)}">{html.text(sections[name])}</a>' for name in names if name in sections]
    return f' <span class="see">→\u00a0{" · ".join(anchors)}</span>' if anchors else ""


def findings_part(evidence: Evidence, sections: Mapping[str, str]) -> str:
    """Return each rule with incidents: evidence, meaning, recommended action, source."""
    explanations = explained(evidence)
    return "".join(_finding(explanation, sections, shown=index == 0) for index, explanation in enumerate(explanations))


def _finding(explanation: Explained, sections: Mapping[str, str], *, shown: bool) -> str:
    bounds = (
        f"<br><small>Bounds used: {html.text('; '.join(explanation.bounds), 1_200)}.</small>"
        if explanation.bounds
        else ""
    )
    parts = (
        ("Evidence", html.text(" ".join(explanation.evidence), _LONGEST) + links(explanation.figures, sections)),
        ("Meaning", html.text(explanation.meaning, 1_200)),
        ("To do", html.text(explanation.do, 1_200)),
        ("Source", html.text(explanation.source, 1_200) + bounds),
    )
    rows = "".join(f"<div><dt>{what}</dt><dd>{content}</dd></div>" for what, content in parts)
    mark = "" if explanation.root else " <small>consequence</small>"
    title = f"<strong>{html.text(explanation.title)}</strong> <code>{html.text(explanation.rule)}</code>{mark}"
    chip, state = html.chip(explanation.verdict), " open" if shown else ""
    return (
        f'<details class="finding"{state}><summary>{chip} {title}</summary>'
        f'<dl id="rule-{html.text(explanation.rule)}">{rows}</dl></details>'
    )
