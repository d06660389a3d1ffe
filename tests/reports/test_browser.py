"""The page in a real browser, where one is installed: what it asks the network for, and what it prints."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.patience import PATIENCE

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


def test_the_policy_lets_the_figures_draw_and_no_other_script(folder: Path, tmp_path: Path) -> None:
    text = (folder / "index.html").read_text()
    (folder / "foreign.html").write_text(text.replace("</body>", "<script>document.title = 'foreign'</script></body>"))
    dom = browse(tmp_path, "--virtual-time-budget=2000", "--dump-dom", (folder / "foreign.html").as_uri())
    assert dom.count('class="uplot') > 10
    assert "<title>foreign" not in dom


def numbers_of(page: str) -> str:
    return "".join(re.findall(r'<script type="application/json" class="curves"[^>]*>(.*?)</script>', page))
