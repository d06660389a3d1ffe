"""A box beside the training sends word of incidents, also when the training has been killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from esper_analyze.runs.run import open_run
from esper_analyze.storage.checkpoints import checkpoints_of
from recorder import Recorder
from recorder.box.link import BoxLink
from tests.patience import PATIENCE
from tests.recorder.act.loopback import fall_ill, refused_url, served, update


def test_a_box_sends_what_the_training_would_send_and_counts_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sent = {}
    for box in (True, False):
        with served(200) as server:
            run_dir = tmp_path / f"run-{box}" / "mine"
            endpoints = [server.url, "command: no-such-program"]
            with Recorder(run_dir, box=box, on_finding=endpoints, alert_seconds=30.0) as rec:
                assert isinstance(rec._sink, BoxLink) is box
                update(rec)
                rec.checkpoint("model.pt")
                fall_ill(rec, sound=2)
            (sent[box],) = server.messages
        assert [row["kind"] for row in open_run(run_dir).frame("losses_of_data").to_dicts()] == ["alert_failed"]
        assert [saved.update for saved in checkpoints_of(open_run(run_dir).attempts)] == [0]
    differing = ("id", "run_dir", "report")
    assert [{name: cell for name, cell in message.items() if name not in differing} for message in sent.values()] == [
        {name: cell for name, cell in sent[False].items() if name not in differing}
    ] * 2
    assert "recorder: alert to command no-such-program failed: cannot be started" in caplog.text


KILLED = """
import os, signal, sys
from recorder import Recorder
from tests.recorder.act.loopback import fall_ill
rec = Recorder(sys.argv[1], box=True, on_finding=sys.argv[2:], alert_seconds=30.0)
fall_ill(rec)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_box_sends_word_after_the_death_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with served(200) as server:
        line = [sys.executable, "-c", KILLED, str(tmp_path / "run"), server.url, f"{refused_url()}/hook"]
        done = subprocess.run(line, cwd=Path(__file__).parents[3], timeout=PATIENCE, capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL
        (message,) = server.wait_for(1)
    assert (message["event"], message["update"]) == ("began", 3)
