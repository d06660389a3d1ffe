import inspect
from importlib import import_module
from pathlib import Path

import pytest

from esper_analyze.detector.rule import Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.narrative.links import figures_of
from esper_analyze.reports.section_list import SECTIONS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_has_a_figure_that_shows_what_it_judges(rule: Rule) -> None:
    names = {section.name for section in SECTIONS} | {"run"}
    assert set(figures_of(rule)) <= names


def test_every_panel_that_a_rule_names_is_one_that_its_section_shades() -> None:
    panels = {panel for rule in RULES for panel in rule.panels}
    for panel in panels:
        section = import_module(f"esper_analyze.reports.sections.{panel.partition('.')[0]}")
        assert f'shaded_in("{panel}")' in inspect.getsource(section)


def test_each_finding_leads_to_its_figure_and_each_incident_to_its_finding(troubled: Evidence, page: Path) -> None:
    text = page.read_text()
    for rule in {incident.rule for incident in troubled.replay.incidents}:
        finding = text[text.index(f'id="rule-{rule}"') :]
        assert '<a href="#' in finding[: finding.index("</dl>")]
        assert f'href="#rule-{rule}"' in text
