import errno
import json
import os
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from esper_analyze.errors import UsageError
from esper_analyze.replay.evidence import Evidence, gather
from esper_analyze.reports import write
from esper_analyze.reports.answer import MOST_LISTED
from esper_analyze.reports.render.html import scripts
from esper_analyze.reports.section_list import SECTIONS
from esper_analyze.reports.write import write_report
from esper_analyze.runs.run import open_run
from tests.reports.own_scripts import without_own_scripts
from tests.reports.synthetic import Rows, write_run

EVIL = "<script>alert('x')</script>\"&'$x_{$ \x1b[31mred\x07\u202e \u0007 日本" + "y" * 300


class Tags(HTMLParser):
    """Every tag with its attributes, and the text outside of style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def evil(update: int, rows: Rows) -> None:
    rows["heads"][0]["head"] = EVIL
    rows["groups"][0]["group"] = EVIL
    if update == 3:
        rows["updates"][0] |= {"nonfinite_sources": EVIL, "value_loss": float("nan"), "skip_reason": EVIL}
        rows["heads"][0]["zero_explained"] = "unexplained"
    rows["losses_of_data"] = [{"update": update, "kind": EVIL, "detail": EVIL, "rows": 1}]


@pytest.fixture
def one_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask one question only, where the figures do not matter."""
    monkeypatch.setattr(write, "SECTIONS", [one for one in SECTIONS if one.name in ("heads", "cost")])


@pytest.fixture(scope="module")
def evil_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evil")
    hyper = {EVIL: EVIL, "nested": {"a": [EVIL]}, "surrogate": "\ud800"}
    facts = {"name": EVIL, "algorithm": EVIL, "framework": EVIL, "hyperparameters": hyper, "attach_points": [EVIL]}
    run = open_run(write_run(folder / "run", 6, evil, facts=facts))
    return write_report(gather(run), folder / "out")


def test_the_page_its_pictures_and_its_facts_lie_together(page: Path) -> None:
    names = {file.name for file in page.parent.iterdir()}
    told = json.loads((page.parent / "report.json").read_text())["questions"]
    drawn = [one["name"] for one in told if one["answered"]]
    assert names == {
        "index.html",
        "report.json",
        "report.md",
        *(f"{one}.{kind}" for one in drawn for kind in ("png", "svg")),
    }
    assert len(drawn) > 10


def test_the_page_loads_nothing_and_runs_nothing_but_its_own_scripts(page: Path) -> None:
    text = without_own_scripts(page.read_text())
    parsed = Tags(text)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in parsed.tags}
    for _, attributes in parsed.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("href", "xlink:href", "src"):
                assert str(value).startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"url\((?!#)|@import", text)
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|eval\(|innerHTML|new Function", "".join(scripts()))


def test_a_content_security_policy_forbids_what_the_page_does_not_need(page: Path) -> None:
    policy = next(a["content"] for t, a in Tags(page.read_text()).tags if a.get("http-equiv"))
    assert "default-src 'none'" in str(policy)
    (allowed,) = re.findall(r"script-src ([^;]*);", str(policy))
    digests = [b64encode(sha256(script.encode()).digest()).decode() for script in scripts()]
    assert allowed.split() == [f"'sha256-{digest}'" for digest in digests]


def test_the_page_reads_in_light_and_dark(page: Path) -> None:
    text = page.read_text()
    assert "prefers-color-scheme: dark" in text
    assert "stroke: var(--first)" in text
    assert "#1f2328" not in text.split("</style>", 1)[1]


def test_every_link_of_the_contents_leads_somewhere(page: Path) -> None:
    parsed = Tags(page.read_text())
    targets = {attributes.get("id") for _, attributes in parsed.tags}
    links = [str(a["href"]) for t, a in parsed.tags if t == "a"]
    assert links
    assert {link.removeprefix("#") for link in links} <= targets


def test_the_narrative_comes_before_any_figure(page: Path) -> None:
    text = page.read_text()
    story, incidents = text.index("KL divergence spiked at update 20"), text.index("Incidents</h2>")
    assert story < incidents < text.index("<figure")


def test_no_text_from_a_run_becomes_markup(evil_page: Path) -> None:
    parsed = Tags(without_own_scripts(evil_page.read_text()))
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert "<script>alert" in parsed.words
    assert all(not name.startswith("on") for _, attributes in parsed.tags for name in attributes)


def test_no_control_character_from_a_run_reaches_the_page(evil_page: Path) -> None:
    text = evil_page.read_text()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e\ud800-\udfff]", text)
    assert "日本" in text


def test_long_names_are_cut(evil_page: Path) -> None:
    assert "y" * 601 not in evil_page.read_text()


def test_the_facts_are_strict_json(evil_page: Path, page: Path) -> None:
    def refuse(token: str) -> None:
        raise AssertionError(token)

    for folder in (evil_page.parent, page.parent):
        facts = json.loads((folder / "report.json").read_text(), parse_constant=refuse)
        assert facts["incidents"]
    assert "Infinity" in {incident["peak"] for incident in facts["incidents"]}
    assert facts["headline"] == "KL divergence spiked at update 20"
    assert [question["name"] for question in facts["questions"]] == [question.name for question in SECTIONS]


@pytest.mark.usefixtures("one_figure")
def test_a_page_that_cannot_be_finished_leaves_the_old_one(
    tmp_path: Path, troubled: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = write_report(troubled, tmp_path)
    before = page.read_bytes()

    really = os.fdopen

    def full(descriptor: int, mode: str, **how: Any) -> Any:
        if mode != "wb":
            return really(descriptor, mode, **how)
        os.close(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(UsageError, match="No space left"):
        write_report(troubled, page.parent)
    assert page.read_bytes() == before
    assert not [file for file in page.parent.iterdir() if file.name.startswith(".")]


@pytest.mark.usefixtures("one_figure")
def test_a_place_that_cannot_be_written_is_named(troubled: Evidence, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/out cannot be written"):
        write_report(troubled, tmp_path / "file" / "out")


@pytest.mark.usefixtures("one_figure")
def test_what_was_left_out_is_counted_on_the_page(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", 6)
    shard = next(path.rglob("heads-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-10])
    text = write_report(gather(open_run(path, skip_broken=True)), tmp_path / "out").read_text()
    assert "Left out: 1 file, damaged: heads-000001.parquet has" in text
    assert "<strong>Heads</strong>: No head was recorded." in text


@pytest.mark.usefixtures("one_figure")
def test_a_report_that_cannot_be_written_whole_leaves_the_old_one(
    healthy: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(healthy, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    known, count = os.fdopen, iter(range(100))

    def failing(descriptor: int, mode: str, **how: Any) -> object:
        if mode == "wb" and next(count) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return known(descriptor, mode, **how)

    monkeypatch.setattr(os, "fdopen", failing)
    monkeypatch.setattr(Path, "replace", lambda *_: pytest.fail("a file of the new report is in its place"))
    with pytest.raises(UsageError, match="cannot be written: No space left"):
        write_report(healthy, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("one_figure")
def test_hundreds_of_heads_are_listed_in_part_and_told_in_full(tmp_path: Path) -> None:
    def many(_: int, rows: Rows) -> None:
        rows["heads"] = [rows["heads"][1] | {"head": f"head {k}"} for k in range(MOST_LISTED + 50)]

    write_report(gather(open_run(write_run(tmp_path / "run", 3, many))), tmp_path)
    page = (tmp_path / "index.html").read_text()
    told = json.loads((tmp_path / "report.json").read_text())["questions"]
    words = next(one["words"] for one in told if one["name"] == "heads")
    assert len(re.findall(r"<li>head \d+: gradient", page)) == MOST_LISTED
    assert f"{len(words) - MOST_LISTED} more are in report.json." in page
    assert sum(": gradient " in sentence for sentence in words) == MOST_LISTED + 50
