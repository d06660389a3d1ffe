import re
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

from esper_analyze.reports import render
from esper_analyze.reports.render.style import VARIABLES, VERDICTS
from tests.reports.test_page import Tags

CSS = resources.files(render).joinpath("templates/page.css").read_text(encoding="utf-8")
TEXT_ON = [(text, ground) for text in ("ink", "muted", "first") for ground in ("paper", "panel")]
ENOUGH = 4.5
"""Contrast of text that WCAG 2.1 asks for at level AA; 3 for lines."""


def variables(block: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))


def blocks() -> dict[str, dict[str, str]]:
    light = variables(CSS[: CSS.index("@media (prefers-color-scheme: dark)")])
    dark = variables(CSS[CSS.index("@media (prefers-color-scheme: dark)") : CSS.index(':root[data-theme="dark"]')])
    chosen = variables(CSS[CSS.index(':root[data-theme="dark"]') : CSS.index("* { box-sizing")])
    printed = variables(CSS[CSS.index("@media print") :])
    return {"light": light, "dark": light | dark, "chosen": light | chosen, "print": light | printed}


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.fixture(scope="module")
def text(page: Path) -> str:
    return page.read_text()


def test_contrast_is_counted_as_the_standard_counts_it() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
@pytest.mark.parametrize(("words", "ground"), TEXT_ON)
def test_text_can_be_told_from_its_ground(scheme: str, words: str, ground: str) -> None:
    colours = blocks()[scheme]
    assert contrast(colours[words], colours[ground]) >= ENOUGH


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("line", ["first", "second", "third"])
def test_lines_can_be_told_from_paper(scheme: str, line: str) -> None:
    colours = blocks()[scheme]
    assert contrast(colours[line], colours["paper"]) >= 3


def test_dark_is_the_same_whether_chosen_or_asked_for() -> None:
    assert blocks()["dark"] == blocks()["chosen"]


def test_a_verdict_has_one_colour_on_the_page_and_in_every_figure() -> None:
    for scheme, colours in blocks().items():
        assert {name: colours[name] for name in VERDICTS} == VERDICTS, scheme


def test_the_light_page_has_the_colours_of_the_figures() -> None:
    light = blocks()["light"]
    assert {variable: light[variable.removeprefix("--")] for variable in VARIABLES.values()} == {
        variable: colour for colour, variable in VARIABLES.items()
    }


def test_no_verdict_is_told_by_colour_alone(text: str) -> None:
    chips = re.findall(r'<span class="chip (\w+)">([^<]*)</span>', text)
    assert chips
    assert all(word.strip() for _, word in chips)
    assert all(sign.strip() for sign in re.findall(r'<span class="sign \w+">([^<]*)</span>', text))


def test_headings_go_down_one_step_at_a_time(text: str) -> None:
    levels = [int(tag[1]) for tag, _ in Tags(text).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_picture_has_words_and_every_table_a_head(text: str) -> None:
    tags = Tags(text).tags
    pictures = [attributes for tag, attributes in tags if tag == "figure" or attributes.get("class") == "spark"]
    assert len(pictures) > 10
    assert all(one.get("role") == "img" and len(str(one.get("aria-label"))) > 10 for one in pictures)
    heads = [attributes for tag, attributes in tags if tag == "th"]
    assert all(one.get("scope") == "col" for one in heads)
    assert ("html", {"lang": "en"}) in tags
