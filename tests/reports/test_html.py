"""Templates escape, clean and cut what they show, and miss nothing in silence."""

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from esper_analyze.reports import render as package
from esper_analyze.reports.render.html import _environment, render

TEMPLATES = sorted((Path(package.__file__).parent / "templates").glob("*.j2"))


def shown(source: str, **values: object) -> str:
    return _environment().from_string(source).render(values)


def test_what_is_shown_is_escaped_cleaned_and_cut_without_being_asked_for() -> None:
    assert shown("{{ x }}", x="<b a='1' c=\"2\">&\x1b[31m\u202e\n") == "&lt;b a=&#39;1&#39; c=&#34;2&#34;&gt;&amp;[31m "
    assert shown("{{ x }}", x="y" * 700) == "y" * 599 + "…"
    assert shown("{{ x | cut(10) }}", x="<" * 20) == "&lt;" * 9 + "…"


def test_a_part_that_was_rendered_is_not_escaped_again_nor_cut() -> None:
    source = "{% macro part(x) %}<i>{{ x }}</i>{% endmacro %}{% for x in xs %}{{ part(x) }}{% endfor %}"
    assert shown(source, xs=["&"] * 300) == "<i>&amp;</i>" * 300


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("notebook_comparison.html.j2", sentences=[])


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_no_template_switches_escaping_off(template: Path) -> None:
    assert not re.search(r"\|\s*(safe|forceescape|tojson|xmlattr)\b|autoescape", template.read_text())
