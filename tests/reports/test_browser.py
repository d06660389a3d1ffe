"""The page in a real browser, where one is installed: what it asks the network for, and what it prints."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np
import pytest

from esper_analyze.reports.render.draw import finish, line
from esper_analyze.reports.render.figure import drawn
from esper_analyze.reports.render.html import as_json
from esper_analyze.reports.render.section import Drawing, Layout
from esper_analyze.runs.series import Series
from tests.patience import PATIENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for found in map(shutil.which, NAMES) if found), None)
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
NOWHERE = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(page.parent, tmp_path_factory.mktemp("served") / "report"))


@pytest.fixture(scope="module")
def origin(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def browse(scratch: Path, *arguments: str) -> str:
    command = [str(BROWSER), *QUIET, NOWHERE, f"--user-data-dir={scratch / 'profile'}", *arguments]
    ended = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    if ended.returncode:
        pytest.skip(f"the browser does not run here: {ended.stderr.decode(errors='replace')[-200:]}")
    return ended.stdout.decode()


def asked_for(page: str, origin: str, scratch: Path) -> set[str]:
    """Return the addresses that the page made the browser ask for, apart from its own."""
    log = scratch / "net.json"
    browse(scratch, f"--log-net-log={log}", "--dump-dom", f"{origin}/{page}")
    events = json.loads(log.read_text())["events"]
    told = [event.get("params") or {} for event in events]
    asked = {str(one["url"]) for one in told if "url" in one and origin in (one.get("initiator"), one.get("origin"))}
    return asked - {f"{origin}/{page}", f"{origin}/favicon.ico"}


def test_the_page_asks_the_network_for_nothing(folder: Path, origin: str, tmp_path: Path) -> None:
    (folder / "leaky.html").write_text(f'<img src="{origin}/policy.png"><img src="http://elsewhere.invalid/x.png">')
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert asked_for("leaky.html", origin, tmp_path / "a") == {
        f"{origin}/policy.png",
        "http://elsewhere.invalid/x.png",
    }
    assert asked_for("index.html", origin, tmp_path / "b") == set()


def test_the_page_prints(folder: Path, tmp_path: Path) -> None:
    printed = tmp_path / "page.pdf"
    browse(tmp_path, f"--print-to-pdf={printed}", "--no-pdf-header-footer", (folder / "index.html").as_uri())
    assert printed.read_bytes().startswith(b"%PDF")
    assert printed.stat().st_size > 50_000


PROBE = """
addEventListener("load", async () => {
  const wait = () => new Promise(done => setTimeout(done, 100));
  await wait();
  const over = plots[0].root.querySelector(".u-over"), edge = over.getBoundingClientRect();
  const mouse = (type, x, on = over) => on.dispatchEvent(new MouseEvent(type, {
    bubbles: true, clientX: edge.left + x, clientY: edge.top + 10, movementX: 7, movementY: 1, button: 0 }));
  const seen = () => plots.map(plot => [plot.scales.x.min, plot.scales.x.max]);
  const found = { whole: seen(), places: plots.map(plot => plot.root.closest("section").id) };
  mouse("mouseenter", 300); mouse("mousemove", 300);
  await wait();
  found.told = plots.map(plot => [...plot.root.querySelectorAll(".u-value")].map(value => value.textContent));
  mouse("mousedown", 100); mouse("mousemove", 200); mouse("mousemove", 300); mouse("mouseup", 300, document);
  await wait();
  found.zoomed = seen();
  mouse("dblclick", 300);
  await wait();
  found.reset = seen();
  plots[0].root.querySelectorAll(".u-series")[1].querySelector("th").click();
  found.shown = plots[0].series.map(series => series.show);
  const answer = document.createElement("pre");
  answer.id = "answer";
  answer.textContent = JSON.stringify(found);
  document.body.append(answer);
});
"""


def test_figures_are_hovered_zoomed_and_reset_together(folder: Path, tmp_path: Path) -> None:
    text = (folder / "index.html").read_text()
    probed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    (folder / "probed.html").write_text(probed.replace("</body>", f"<script>{PROBE}</script></body>"))
    dom = browse(tmp_path, "--virtual-time-budget=5000", "--dump-dom", (folder / "probed.html").as_uri())
    found = json.loads(re.findall(r'<pre id="answer">(.*?)</pre>', dom)[0])
    assert len(found["whole"]) == len(re.findall('"title":', numbers_of(text)))
    assert {"policy", "value", "losses"} <= set(found["places"])
    ((first, last),) = {tuple(seen) for seen in found["whole"]}
    assert first < 0 < last
    (update,) = {told[0] for told in found["told"]}
    assert re.fullmatch(r"\d+( · [\d,]+ env steps)?( · [\d.]+ s)?", update)
    ((low, high),) = {tuple(seen) for seen in found["zoomed"]}
    assert first < low < high < last
    assert {tuple(seen) for seen in found["reset"]} == {(first, last)}
    assert found["shown"][:2] == [True, False]


ZOOMED = """
addEventListener("load", async () => {
  const wait = () => new Promise(done => setTimeout(done, 100)), found = {};
  const place = plots.findIndex(plot => plot.panel.title === "Long"), plot = plots[place];
  const told = () => plot.data[0].map((update, at) => [update, plot.data[1][at]]).filter(([, value]) => value != null);
  found.whole = told();
  plots[place ? 0 : 1].setScale("x", { min: 54000, max: 56000 });
  await wait();
  found.zoomed = told();
  found.y = [plot.scales.y.min, plot.scales.y.max];
  const answer = document.createElement("pre");
  answer.id = "answer";
  answer.textContent = JSON.stringify(found);
  document.body.append(answer);
});
"""


def test_a_closer_look_shows_more_of_a_long_line_and_every_spike_at_its_update(folder: Path, tmp_path: Path) -> None:
    values = np.zeros(400_000)
    values[54_321], values[55_000], values[300_000] = 7.0, -2.0, 9.0

    def draw(_: object, axes: Sequence[Axes]) -> None:
        line(axes[0], Series(np.arange(len(values)), values, np.zeros(len(values), bool)))
        finish(axes[0], "Long", last=True)

    numbers = as_json(drawn(Drawing("one", lambda _: Layout((90,)), draw), None).panels)
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", (folder / "index.html").read_text())
    first = next(re.finditer(r'(<script type="application/json" class="curves"[^>]*>).*?(</script>)', text))
    text = f"{text[: first.start()]}{first[1]}{numbers}{first[2]}{text[first.end() :]}"
    (folder / "long.html").write_text(text.replace("</body>", f"<script>{ZOOMED}</script></body>"))
    dom = browse(tmp_path, "--virtual-time-budget=5000", "--dump-dom", (folder / "long.html").as_uri())
    found = json.loads(re.findall(r'<pre id="answer">(.*?)</pre>', dom)[0])
    whole, zoomed = dict(found["whole"]), dict(found["zoomed"])
    assert (whole[54_321], whole[300_000]) == (7, 9)
    assert len(whole) < 5_000
    assert (zoomed[54_321], zoomed[55_000]) == (7, -2)
    assert 300_000 not in zoomed
    assert len([update for update in zoomed if 54_000 <= update <= 56_000]) > 3 * len(
        [update for update in whole if 54_000 <= update <= 56_000]
    )
    assert found["y"][0] < -2 < 7 < found["y"][1] < 9


FAR = (
    ("log", 0.0, 1.6064142835545432e-31, 0.15937176231603467),
    ("log", 0.0, 8.520266817635468e-31, 0.7924935473054435),
    ("log", 0.0, 5e-324, 1e308),
    ("log", 0.0, 0.3, 0.7),
    ("symlog", 1e-14, -0.35, 1.3e-14),
    ("symlog", 1e-300, -1e300, 1e300),
    ("linear", 0.0, 1e-40, 3e-40),
    ("linear", 0.0, 1e16, 1e16 + 4),
    ("linear", 0.0, -1e308, 1e308),
)
"""Scale, its linear part, and ends of an axis that a broken training can have."""


def test_figures_are_drawn_whatever_their_numbers_are(folder: Path, tmp_path: Path) -> None:
    text = (folder / "index.html").read_text()
    first = next(re.finditer(r'(<script type="application/json" class="curves"[^>]*>)(.*?)(</script>)', text))
    panel = json.loads(first[2])[0]
    panels = [
        {**panel, "scale": scale, "linear_below": linear, "low": low, "high": high,
         "curves": [{**panel["curves"][0], "x": [0, 1], "y": [low, high]}]}
        for scale, linear, low, high in FAR
    ]  # fmt: skip
    others = text[first.end() :].replace('class="curves"', 'class="left-out"')
    (folder / "far.html").write_text(f"{text[: first.start()]}{first[1]}{json.dumps(panels)}{first[3]}{others}")
    dom = browse(tmp_path, "--virtual-time-budget=2000", "--dump-dom", (folder / "far.html").as_uri())
    assert dom.count('class="uplot') == len(FAR)


def test_the_policy_lets_the_figures_draw_and_no_other_script(folder: Path, tmp_path: Path) -> None:
    text = (folder / "index.html").read_text()
    (folder / "foreign.html").write_text(text.replace("</body>", "<script>document.title = 'foreign'</script></body>"))
    dom = browse(tmp_path, "--virtual-time-budget=2000", "--dump-dom", (folder / "foreign.html").as_uri())
    assert dom.count('class="uplot') > 10
    assert "<title>foreign" not in dom


def numbers_of(page: str) -> str:
    return "".join(re.findall(r'<script type="application/json" class="curves"[^>]*>(.*?)</script>', page))
