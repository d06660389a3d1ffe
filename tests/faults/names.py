"""Row 30: names that mean harm, of heads, groups, runs, hyperparameters and directories, through every output."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.commands import Done, batch, measured
from tests.faults.outcome import Bench, TrialTally, facts
from tests.patience import PATIENCE
from tests.reports.own_scripts import without_own_scripts

if TYPE_CHECKING:
    from tests.reports.synthetic import Rows

UPDATES = 6
LONG = "x" * 100_000
NAMES = (
    "<script>document.title='pwned'</script>",
    "</title></style></script><img src=x onerror=document.title='pwned'>",
    "<svg onload=document.title='pwned'>",
    '"><a href=javascript:alert(1)>pwned</a>',
    "' onmouseover='document.title=1",
    "]]></text><script>document.title='pwned'</script><!--",
    "&lt;b&gt;&amp;&#60;i&#62;",
    "'; DROP TABLE heads; --",
    '"; DROP TABLE heads; --',
    "../../../../tmp/pwned",
    "/etc/pwned",
    ".hidden",
    "two\nlines\r\nand\tmore",
    "nul\0inside",
    "\x1b[31mred\x1b]0;pwned\x07\x9b31m",
    "right\u202eto\u2066left\u200f",
    "[bold red]markup[/] [link=http://pwned]x[/link] :smile:",
    "$x_{$ \\frac{1}{2} $$",
    "{0} {name} %s %(x)s ${HOME} $(id) `id`",
    ' , ; | "quoted" , \\',
    '=HYPERLINK("http://pwned")',
    "\U0001f600 emoji \u0301\u0301\u0301 \ufeff\u200b\u00a0 日本",
    "",
    LONG,
)
"""24 names; the last two are no name at all and one of 100,000 characters."""
_BAD = {"Cc", "Cf", "Cs", "Co"}
_TAGS = {"script", "link", "iframe", "object", "embed", "base", "form", "img", "a", "i", "b"}
DIRECTORIES = (
    "plain", "with space", "quote'\"; drop", "[a-z]*?{x,y}", "new\nline", "\x1b[31mred", "%s {0} $(id) `id`", ".hidden",
    "<img src=x onerror=alert(1)>", "\u202egnp.exe", "日本 \U0001f600", "back\\slash", "x" * 200, "C:", "~", "a=b&c#d",
)  # fmt: skip
_SURROGATE = "half \ud83d emoji"


def hostile_names(bench: Bench) -> TrialTally:
    """Round trips are exact, nothing becomes a tag, a terminal's command, SQL or a path."""
    outcome = TrialTally()
    here = bench.scratch / "names"
    shutil.rmtree(here, ignore_errors=True)
    (here / "inner").mkdir(parents=True)
    run_dir = hostile_run(here / "inner" / "run")
    before = _tree(here)
    for label, faults in (
        ("JSON and CSV", _round_trips(run_dir, here)),
        ("terminal", _terminal(run_dir, here)),
        ("page", _page(outcome, run_dir, here / "inner" / "page")),
        ("directory", _directories(bench, outcome, here / "inner")),
        ("many", _many(bench, outcome, here / "inner" / "many")),
    ):
        for fault in faults:
            outcome.wrong[f"{label}: {fault}"] += 1
    outcome.trials += len(NAMES) * 8
    strange = [name for name in _tree(here) if name not in before and not name.startswith("inner/")]
    if strange:
        outcome.wrong[f"files outside: {strange}"] += 1
    return outcome


def _tree(here: Path) -> set[str]:
    return {str(path.relative_to(here)) for path in here.rglob("*")}


def hostile_run(path: Path) -> Path:
    """Write a run in which everything that has a name has a hostile one."""
    from tests.reports.synthetic import write_run

    def hostile(update: int, rows: Rows) -> None:
        head, group = rows["heads"][1], rows["groups"][0]
        rows["heads"] = [head | {"head": name, "zero_explained": "unexplained"} for name in NAMES]
        rows["groups"] = [group | {"group": name} for name in NAMES]
        if update == 3:
            rows["updates"][0] |= {
                "value_loss": float("nan"),
                "nonfinite_sources": ", ".join(NAMES),
                "skip_reason": LONG,
            }

    told: dict[str, object] = {name: name for name in (*NAMES, _SURROGATE)}
    facts = {
        "name": NAMES[0] + _SURROGATE, "framework": NAMES[1] + NAMES[14], "algorithm": NAMES[2], "notes": list(NAMES),
        "run_id": LONG, "hyperparameters": told, "heads": dict.fromkeys(NAMES, 3), "groups": list(NAMES),
        "versions": told, "git_commit": NAMES[15], "created": NAMES[3], "seeds": told, **told,
    }  # fmt: skip
    return write_run(path, UPDATES, hostile, reason="ValueError: " + "".join(NAMES), facts=facts)


def _round_trips(run_dir: Path, here: Path) -> Iterator[str]:
    wanted = sorted(NAMES)
    query = "select head, count(*) n from heads group by head order by head"
    single = [name for name in NAMES if "\0" not in name and name != LONG]
    literals = [name.replace("'", "''") for name in single]
    as_json, as_csv, replayed, *found = batch(
        ("sql", run_dir, query, "--json"),
        ("sql", run_dir, query, "--csv"),
        ("replay", run_dir, "--json"),
        *(("sql", run_dir, f"select count(*) n from heads where head = '{one}'", "--csv") for one in literals),
        cwd=here,
    )
    if sorted(row["head"] for row in json.loads(as_json.out)) != wanted:
        yield "sql --json has other names"
    if sorted(row[0] for row in list(csv.reader(io.StringIO(as_csv.out, newline="")))[1:]) != wanted:
        yield "sql --csv has other names"
    if missing := set(NAMES) - {finding["subject"] for finding in json.loads(replayed.out)["findings"]}:
        yield f"replay --json lacks {sorted(name[:40] for name in missing)}"
    for name, done in zip(single, found, strict=True):
        if done.out != f"n\n{UPDATES}\n":
            yield f"sql does not find {name!r}: {done.err[:200]}"


def _terminal(run_dir: Path, here: Path) -> Iterator[str]:
    lines: list[tuple[object, ...]] = [
        ("ls", run_dir.parent), ("replay", run_dir), ("verify", run_dir), ("sql", run_dir, "from heads"),
        ("sql", run_dir, "select head as \"\x1b[31m<b>\" from heads"), ("replay", run_dir, "--set", "\x1b[31m=1"),
        ("report", here / "no\x1b[31msuch\nrun"), ("sql", run_dir, "select \x1b[31m"),
    ]  # fmt: skip
    for words, done in zip(lines, batch(*lines, cwd=here), strict=True):
        yield from _clean(done, words[0])


def _clean(done: Done, what: object) -> Iterator[str]:
    if done.code not in (0, 2):
        yield f"{what}: exit {done.code}: {done.err[-300:]}"
    found = {f"U+{ord(c):04X}" for c in done.out + done.err if unicodedata.category(c) in _BAD and c != "\n"}
    if found:
        yield f"{what} writes {', '.join(sorted(found))}"
    if "Traceback" in done.err:
        yield f"{what}: a traceback"
    if max(map(len, (done.out + done.err).splitlines()), default=0) > 12_000:
        yield f"{what} writes a very long line"


_ANCHOR = re.compile(r"#[a-z][a-z0-9_-]*")


class _Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.on: list[str] = []
        self.outward: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.on += [name for name, _ in attrs if name.startswith("on")]
        self.outward += [f"{value}" for name, value in attrs if name == "href" and not _ANCHOR.fullmatch(value or "")]
        self.on += [name for name, value in attrs if value and "javascript:" in value and name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.words += data


def _page(outcome: TrialTally, run_dir: Path, out: Path) -> Iterator[str]:
    from esper_analyze.reports.section_list import SECTIONS

    done = measured("report", run_dir, "--out", out, cwd=out.parent)
    yield from _clean(done, "report")
    if done.code:
        return
    pictures = {f"{question.name}.{form}" for question in SECTIONS for form in ("png", "svg")}
    files = {path.name for path in out.iterdir()}
    if strange := files - pictures - {"index.html", "report.json", "report.md"}:
        yield f"strange files {strange}"
    told = json.loads((out / "report.json").read_text(encoding="ascii"))
    if missing := set(NAMES) - {finding["subject"] for finding in told["findings"]}:
        yield f"report.json lacks {sorted(name[:40] for name in missing)}"
    if told["info"]["name"] != NAMES[0] + _SURROGATE:
        yield "report.json has another name"
    if raw := re.findall(r"(?<!\\)<[a-z/!][^>]*>", (out / "report.md").read_text(encoding="utf-8"), re.IGNORECASE):
        yield f"report.md has {raw[:3]}"
    text = (out / "index.html").read_text(encoding="utf-8")
    yield from _markup(text, "index.html")
    dom = _in_browser(out)
    if dom is None:
        outcome.notes.append("chromium is not installed: the page was parsed, not opened")
        return
    yield from _markup(dom, "the browser's page")
    if not re.search(r"<title>[^<]*document\.title=", dom):
        yield "the browser's title is another one"
    outcome.notes.append(facts(page=f"{len(text):,} bytes", browser="no script ran, no element of a name"))


def _markup(text: str, what: str) -> Iterator[str]:
    parsed = _Tags(text := without_own_scripts(text))
    if raw := [tag for tag in parsed.found if tag in _TAGS and tag != "a"]:
        yield f"{what} has tags {sorted(set(raw))}"
    if parsed.outward or parsed.on:
        yield f"{what} has links {parsed.outward[:3]}, handlers {parsed.on[:3]}"
    bad = {f"U+{ord(c):04X}" for c in text if unicodedata.category(c) in _BAD and c not in "\n\t"}
    if bad:
        yield f"{what} has {sorted(bad)}"
    if "<script>document.title='pwned'</script>" not in parsed.words:
        yield f"{what} does not show the name"


def _in_browser(out: Path) -> str | None:
    """Return the page as a real browser holds it once it is loaded, None without one."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        return None
    line = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            f"--user-data-dir={out.parent / 'profile'}", "--dump-dom", (out / "index.html").as_uri()]  # fmt: skip
    done = subprocess.run(line, capture_output=True, timeout=PATIENCE, check=False)
    return done.stdout.decode("utf-8", errors="replace")


def _directories(bench: Bench, outcome: TrialTally, inner: Path) -> Iterator[str]:
    """Give the run's directory, and the report's, names that mean something to somebody."""
    from tests.faults.forged import copied

    sample = copied(inner / "sample")
    place = inner / "directories"
    place.mkdir()
    names = list(DIRECTORIES)
    for name in names:
        shutil.copytree(sample, place / name)
    names = names if bench.long else bench.random.sample(names, 4)
    readers = (("replay",), ("sql", "select count(*) from heads"), ("report",))
    lines = [(words[0], place / name, *words[1:]) for name in names for words in readers[: bench.trials(2, 3)]]
    lines.append(("report", place / names[0]))
    for words, done in zip(lines, batch(*lines, cwd=inner), strict=True):
        outcome.trials += 1
        name = Path(str(words[1])).name
        yield from (f"{name[:20]!r}: {fault}" for fault in _clean(done, words[0]))
        if words[0] == "report" and not (inner / "reports" / name / "index.html").is_file():
            yield f"{name[:20]!r}: the report is not where it should be"
    for words in (("ls", place), ("ls", place, "--json"), ("verify", place)):
        (done,) = batch(words, cwd=inner)
        yield from _clean(done, words[0])
    foreign = place / b"not \xff utf-8".decode("utf-8", "surrogateescape")
    shutil.copytree(sample, foreign)
    for words in (("replay", foreign), ("verify", foreign)):
        outcome.trials += 1
        if fault := measured(*words, cwd=inner).refusal_fault(2):
            yield f"a directory's name that is no text: {words[0]}: {fault}"


def _many(bench: Bench, outcome: TrialTally, path: Path) -> Iterator[str]:
    """Thousands of heads: every command goes through, and the page stays one that a browser opens."""
    from tests.reports.synthetic import write_run

    count = bench.trials(5_000, 100_000)

    def many(_: int, rows: Rows) -> None:
        head = rows["heads"][1]
        rows["heads"] = [head | {"head": f"<b>{k}\x1b", "zero_explained": "unexplained"} for k in range(count)]

    write_run(path, 3, many)
    out = path.with_name("many-page")
    lines = [("report", path, "--out", out), ("replay", path), ("replay", path, "--json"), ("ls", path)]
    lines = lines if bench.long else lines[:1]
    for words, done in zip(lines, batch(*lines, cwd=path.parent), strict=True):
        outcome.trials += 1
        if words[-1] != "--json":
            yield from _clean(done, words[0])
        if done.code:
            yield f"{words[0]}: exit {done.code}: {done.err[-200:]}"
    page = out / "index.html"
    if page.is_file():
        outcome.notes.append(facts(heads=count, their_page=f"{page.stat().st_size:,} bytes"))
        if page.stat().st_size > 20_000_000:
            yield f"a page of {page.stat().st_size:,} bytes"
