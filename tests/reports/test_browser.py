"""The page in a real browser, where one is installed: what it asks the network for, and what it prints."""

import json
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


def browse(scratch: Path, *arguments: str) -> None:
    command = [str(BROWSER), *QUIET, NOWHERE, f"--user-data-dir={scratch / 'profile'}", *arguments]
    ended = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    if ended.returncode:
        pytest.skip(f"the browser does not run here: {ended.stderr.decode(errors='replace')[-200:]}")


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
