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
    found = [f'<a href="#{html.text(name)}">{html.text(sections[name])}</a>' for name in names if name in sections]
    return f' <span class="see">→\u00a0{" · ".join(found)}</span>' if found else ""


def findings_part(evidence: Evidence, sections: Mapping[str, str]) -> str:
    """Return each rule that found something: evidence, meaning, what to do, where it comes from."""
    found = explained(evidence)
    return "".join(_finding(one, sections, shown=place == 0) for place, one in enumerate(found))


def _finding(one: Explained, sections: Mapping[str, str], *, shown: bool) -> str:
    bounds = f"<br><small>Bounds used: {html.text('; '.join(one.bounds), 1_200)}.</small>" if one.bounds else ""
    told = (
        ("Evidence", html.text(" ".join(one.evidence), _LONGEST) + links(one.figures, sections)),
        ("Means", html.text(one.meaning, 1_200)),
        ("To do", html.text(one.do, 1_200)),
        ("From", html.text(one.source, 1_200) + bounds),
    )
    rows = "".join(f"<div><dt>{what}</dt><dd>{content}</dd></div>" for what, content in told)
    mark = "" if one.root else " <small>consequence</small>"
    title = f"<strong>{html.text(one.title)}</strong> <code>{html.text(one.rule)}</code>{mark}"
    return (
        f'<details class="finding"{" open" if shown else ""}><summary>{html.chip(one.verdict)} {title}</summary>'
        f'<dl id="rule-{html.text(one.rule)}">{rows}</dl></details>'
    )
