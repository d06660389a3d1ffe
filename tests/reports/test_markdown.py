import json
import re
from pathlib import Path

from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.markdown import text
from esper_analyze.reports.write import report_json


def test_the_markdown_tells_the_story_and_shows_every_figure(page: Path) -> None:
    told = (page.parent / "report.md").read_text()
    assert told.index("## KL divergence spiked at update 20") < told.index("## Incidents") < told.index("## Timeline")
    assert "**Now**" in told
    assert "| ↳ Probability ratio exploded |" in told
    assert "To do: Learning rate" in told
    images = re.findall(r"!\[[^\]]*\]\((\w+\.png)\)", told)
    assert set(images) == {file.name for file in page.parent.glob("*.png")}
    assert len(images) > 10


def test_text_from_a_run_is_no_markdown() -> None:
    assert text("*a* <b> [c](d) `e` | _f_\n# g") == r"\*a\* \<b\> \[c\](d) \`e\` \| \_f\_ \# g"


def test_the_facts_without_figures_are_those_beside_them(troubled: Evidence, page: Path) -> None:
    assert json.loads(report_json(troubled)) == json.loads((page.parent / "report.json").read_text())


def test_every_point_of_the_story_and_every_row_is_among_the_facts(troubled: Evidence) -> None:
    facts = json.loads(report_json(troubled))
    assert [one["figures"] for one in facts["now"]] == [["timeline"], ["returns"], ["unjudged"]]
    assert {one["rule"] for one in facts["explained"]} == {one["rule"] for one in facts["incidents"]}
    assert all(one["do"] and one["source"] for one in facts["explained"])
    rows = {one["name"]: one["rows"] for one in facts["questions"]}
    assert [row["head"] for row in rows["heads"]] == ["slot", "op"]
    assert rows["timeline"][0]["raised_by"] == "kl_spike"
