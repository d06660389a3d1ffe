"""Word of incidents is sent as promised, and an endpoint that fails costs the training nothing but a row."""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from esper_analyze.errors import UsageError
from esper_analyze.runs.run import open_run
from recorder import Recorder
from recorder.act import channel, webhook
from recorder.act.alerts import LONGEST_CLOSE, AlertPlan
from recorder.act.channel import Channel
from recorder.act.delivery import DeliveryError
from recorder.act.endpoints import endpoints
from recorder.sink import Inline
from tests.patience import PATIENCE
from tests.recorder.act.loopback import fall_ill, refused_url, served, update


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy between a test and its server, and no long waits between tries."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(channel, "BACK_OFF", (0.01, 0.01, 0.01))


def losses(run_dir: Path) -> list[tuple[str, str, int]]:
    return open_run(run_dir).frame("losses_of_data").select("kind", "detail", "rows").rows()


def alerting(run_dir: Path, *on_finding: str, **options: Any) -> Recorder:
    return Recorder(run_dir, strict=True, on_finding=[*on_finding], **({"alert_seconds": LONGEST_CLOSE} | options))


def test_an_incident_is_told_when_it_begins_and_when_it_ends_and_never_twice(tmp_path: Path) -> None:
    with served(200) as server:
        with alerting(tmp_path / "run", server.url) as rec:
            fall_ill(rec)
            update(rec, 3.0)
            for _ in range(12):
                update(rec)
        began, *_, ended = server.messages
    assert (began["event"], began["update"], began["verdict"], began["env_steps"]) == ("began", 3, "critical", 100)
    assert (began["run"], began["run_dir"], began["rank"]) == ("run", str(tmp_path / "run"), 0)
    assert began["report"].endswith(str(tmp_path / "run"))
    assert isinstance(began["value"], float)
    assert ended["event"] == "ended"
    assert ended["began"] == 3
    told = [(part["event"], part["rule"], part["subject"]) for one in server.messages for part in (one, *one["also"])]
    assert len(set(told)) == len(told)
    assert {event for event, *_ in told} == {"began", "ended"}
    assert not losses(tmp_path / "run")


def test_a_number_that_json_lacks_is_told_as_text(tmp_path: Path) -> None:
    with served(200) as server:
        with alerting(tmp_path / "run", server.url) as rec:
            update(rec, float("nan"))
        (message,) = server.messages
    assert "NaN" in [part["value"] for part in (message, *message["also"])]


@pytest.mark.parametrize("form", ["slack", "discord", "mattermost"])
def test_chats_get_text(tmp_path: Path, form: str) -> None:
    with served(200) as server:
        with alerting(tmp_path / "a<b>@all", f"{form}: {server.url}/hook") as rec:
            fall_ill(rec)
        ((path, message),) = server.requests
    text = message["content" if form == "discord" else "text"]
    assert path == "/hook"
    assert text.startswith("CRITICAL · a")
    assert "look with: esper-analyze report" in text
    assert "<b>" not in text or form != "slack"
    assert "@all" not in text or form != "mattermost"
    assert form != "discord" or message["allowed_mentions"] == {"parse": []}


def test_chats_are_known_by_their_host() -> None:
    hosts = (
        "hooks.slack.com",
        "discord.com",
        "canary.discord.com",
        "mattermost.example.org",
        "example.org",
        "slack.example",
    )
    known = [webhook.format_of_host(host) for host in hosts]
    assert known == ["slack", "discord", "discord", "mattermost", "webhook", "webhook"]


@pytest.mark.parametrize(
    ("statuses", "requests", "why"),
    [
        ((500, 429, 200), 3, None),
        ((500,), 4, "HTTP 500: no such hook … (1 alert)"),
        ((404,), 1, "HTTP 404: no such hook … (1 alert)"),
        ((302,), 1, "HTTP 302 (a redirect, which is not followed) (1 alert)"),
    ],
)
def test_a_delivery_is_tried_again_where_that_may_help_and_failures_are_rows(
    tmp_path: Path, statuses: tuple[int, ...], requests: int, why: str | None
) -> None:
    with served(*statuses, headers={"Location": "/elsewhere"}, body="no such hook /TOKEN-1") as server:
        with alerting(tmp_path / "run", f"{server.url}/TOKEN-1") as rec:
            fall_ill(rec)
        assert len(server.requests) == requests
    label = server.url.removeprefix("http://")
    assert losses(tmp_path / "run") == ([] if why is None else [("alert_failed", f"webhook {label}: {why}", 0)])


def test_what_hangs_or_refuses_costs_at_most_the_seconds_set_and_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refused = refused_url()
    with served(0) as server:
        with alerting(tmp_path / "run", server.url, refused, alert_seconds=0.2) as rec:
            fall_ill(rec)
            server.wait_for(1)
        assert server.requests
    by_kind = dict(row[:2] for row in losses(tmp_path / "run"))
    assert by_kind["alert_unsent"].endswith("not delivered when the training ended (1 alert)")
    assert open_run(tmp_path / "run").closed
    assert "1 not delivered at the end" in caplog.text
    if "alert_failed" in by_kind:  # the back-off of the refused one may outlast the seconds set
        assert "Connection refused" in by_kind["alert_failed"]


def test_a_flood_is_dropped_counted_and_told_with_the_next_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "MAX_WAITING", 2)
    with served(0) as server:
        (endpoint,) = endpoints(server.url)
        flooded = Channel(endpoint)
        flooded.put({"number": 0})
        server.wait_for(1)
        for number in range(1, 10):
            flooded.put({"number": number})
        server.statuses[:] = [200]
        server.ended.set()
        flooded.begin_close()
        flooded.end_close(time.monotonic() + PATIENCE)
        delivered = [(message["number"], message["dropped_before"]) for message in server.messages]
    assert flooded.put_count == 10 == flooded.sent + flooded.dropped
    assert flooded.dropped == 7
    assert delivered[-2:] == [(1, 7), (2, 0)]


def test_people_get_so_many_messages_at_a_time_and_the_rest_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "PACE_MESSAGES", 2)
    with served(200) as server:
        (endpoint,) = endpoints(server.url)
        paced = Channel(endpoint)
        for number in range(4):
            paced.put({"number": number})
        server.wait_for(2)
        assert paced.unsent >= 2
        paced.begin_close()
        paced.end_close(time.monotonic() + PATIENCE)
    assert (paced.sent, paced.unsent) == (4, 0)


ECHO = """
import sys
open(sys.argv[1], 'a').write(sys.stdin.read())
print('said', sys.argv[2], file=sys.stderr)
sys.exit({code})
"""


@pytest.mark.parametrize("code", [0, 3])
def test_a_command_gets_one_object_on_stdin_and_no_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setenv("ALERT_TOKEN", "s3cret;touch")
    program, out = tmp_path / "echo.py", tmp_path / "out"
    program.write_text(ECHO.format(code=code))
    command = f"command: {sys.executable} {program} {out} ${{ALERT_TOKEN}}"
    with alerting(tmp_path / "run", command) as rec:
        fall_ill(rec)
    (line,) = out.read_text().splitlines()
    assert json.loads(line)["update"] == 3
    expected = [("alert_failed", f"command {sys.executable}: exit code 3: said … (1 alert)", 0)]
    assert losses(tmp_path / "run") == (expected if code else [])


def test_a_command_that_is_missing_or_takes_too_long_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recorder.act.command.LONGEST_SECONDS", 0.1)
    sleeping = f"command: {sys.executable} -c 'import time; time.sleep({PATIENCE})'"
    with alerting(tmp_path / "run", "command: no-such-program --token t0ken", sleeping) as rec:
        fall_ill(rec)
    details = sorted(detail for _, detail, _ in losses(tmp_path / "run"))
    assert "still running after 0.1 s, and was killed" in details[0]
    assert details[1] == "command no-such-program: cannot be started (No such file or directory) (1 alert)"


def test_a_function_gets_a_dictionary_and_may_raise_what_it_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "told_by_alerts.py").write_text(
        "heard = []\ndef hear(m): heard.append(m)\ndef leave(m): raise SystemExit(m)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    names = [f"python: told_by_alerts:{name}" for name in ("hear", "leave", "absent")]
    with alerting(tmp_path / "run", *names) as rec:
        fall_ill(rec)
    (message,) = sys.modules["told_by_alerts"].heard
    assert type(message) is dict
    assert message["update"] == 3
    assert sorted(detail for _, detail, _ in losses(tmp_path / "run")) == [
        "python told_by_alerts:absent: cannot be imported (AttributeError) (1 alert)",
        "python told_by_alerts:leave: raised SystemExit in told_by_alerts.py:3 (1 alert)",
    ]


APPRISE = """
import logging
class Apprise:
    def add(self, url):
        self.url = url
        logging.getLogger("apprise").error("cannot parse %s", url)
        return "bad" not in url
    def notify(self, body, title):
        with open(URL, "a") as file:
            print(self.url, title, file=file)
        return "down" not in self.url
"""


def test_services_go_through_apprise_whose_log_is_silenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "apprise.py").write_text(APPRISE.replace("URL", repr(str(tmp_path / "sent"))))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "apprise", raising=False)
    monkeypatch.setenv("TELEGRAM", "tgram://t0ken/chat")
    services = ("apprise: ${TELEGRAM}", "tgram://down-t0ken/chat", "apprise: bad://t0ken")
    with alerting(tmp_path / "run", *services) as rec:
        fall_ill(rec)
    sent = (tmp_path / "sent").read_text().splitlines()
    assert "tgram://t0ken/chat run: first_ratio" in sent
    assert len(sent) == 5
    assert sorted(detail for _, detail, _ in losses(tmp_path / "run")) == [
        "apprise bad://: apprise does not know this address; `apprise --details` lists what it knows (1 alert)",
        "apprise tgram://: the service did not take the message (1 alert)",
    ]
    assert "t0ken" not in caplog.text
    sys.modules.pop("apprise")


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")
def test_apprise_itself_takes_the_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("apprise", reason="apprise is not installed (extra: alerts)")
    caplog.set_level(logging.DEBUG)
    with served(200) as server:
        with alerting(
            tmp_path / "run", f"{server.url.replace('http', 'json')}/T0KEN", "json://", "nosuch://T0KEN"
        ) as rec:
            fall_ill(rec)
        ((path, message),) = server.requests
    assert path == "/T0KEN"
    assert "CRITICAL · run: " in message["message"]
    assert len(losses(tmp_path / "run")) == 2
    assert "T0KEN" not in caplog.text


def test_without_apprise_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with alerting(tmp_path / "run", "ntfy://t0pic") as rec:
        fall_ill(rec)
    assert "pip install 'esper-analyze[alerts]'" in caplog.text
    assert len(losses(tmp_path / "run")) == 1


def test_no_secret_is_stored_logged_or_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    token = "T0KEN-9f8e7d"
    with served(404, body=f"unknown hook {token}") as server:
        monkeypatch.setenv("HOOK_PATH", f"services/{token}")
        monkeypatch.setenv("HOOK_URL", f"{server.url}/services/{token}")
        monkeypatch.setattr(sys, "argv", ["train.py", f"--hook=https://hooks.slack.com/services/{token}"])
        entries = (
            f"slack: {server.url}/${{HOOK_PATH}}",
            "${HOOK_URL}",
            f"{server.url}/hooks/{token}?key={token}",
            f"http://user:{token}@{server.url.removeprefix('http://')}/",
            f"command: {sys.executable} -c 'import sys; sys.exit(sys.argv[1])' ${{HOOK_PATH}}",
            "webhook: ftp://${HOOK_PATH}",
            "https://${NOT_SET}/hook",
        )
        with alerting(tmp_path / "run", *entries) as rec:
            fall_ill(rec)
        paths = [path for path, _ in server.requests]
        assert sum(token in path for path in paths) == 3
        assert f"/ Basic {base64.b64encode(f'user:{token}'.encode()).decode()}" in paths
    assert len(losses(tmp_path / "run")) == len(entries)
    assert token not in caplog.text
    assert token not in "".join(capfd.readouterr())
    for file in (tmp_path / "run").rglob("*"):
        assert file.is_dir() or token.encode() not in file.read_bytes(), file
    for text in (
        f"teams: https://x/{token}",
        f"http:/{token}",
        f"python: {token}",
        f"apprise: {token}",
        f"command: '{token}",
    ):
        with pytest.raises(UsageError) as refused:
            endpoints(text)
        assert token not in refused.value.message + refused.value.hint or text.startswith("python")


@pytest.mark.parametrize(
    ("on_finding", "words"),
    [
        ("slak: https://hooks.slack.com/x", "no kind 'slak'; did you mean 'slack'"),
        ("notify-team", "names nothing to do"),
        ("slack:", "names nothing after it"),
        ("slack: hooks.slack.com/x", "needs a URL that begins with http"),
        ("python: mine.function", "needs module and function"),
        ("command: 'open", "cannot be split into words"),
        (["log", 3], "texts only"),
        ({"slack": "https://x"}, "not dict"),
        ("", "empty entry"),
    ],
)
def test_what_names_no_endpoint_is_refused_before_a_run_is_begun(tmp_path: Path, on_finding: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        Recorder(tmp_path / "run", on_finding=on_finding)
    assert refused.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seconds", ["3", -1, float("nan"), True])
def test_seconds_that_are_no_number_are_refused(seconds: Any) -> None:
    with pytest.raises(UsageError, match="alert_seconds must be"):
        AlertPlan.of("log", seconds)


def test_endpoints_can_be_pickled_and_log_is_what_happens_anyway() -> None:
    texts = ["log", "https://example.org/hook", "command: a b", "python: a:b", "ntfy://topic", "slack: ${HOOK}"]
    assert pickle.loads(pickle.dumps(endpoints(texts))) == endpoints(texts)
    assert endpoints("log") == endpoints(None) == []


def test_only_the_first_rank_sends(tmp_path: Path) -> None:
    with served(200) as server:
        for rank in (0, 1):
            with alerting(tmp_path / "run", server.url, rank=rank, world_size=2) as rec:
                fall_ill(rec)
        assert [message["rank"] for message in server.messages] == [0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_sends_nothing(tmp_path: Path) -> None:
    with served(200) as server:
        with alerting(tmp_path / "run", server.url) as rec:
            fall_ill(rec)
            server.wait_for(1)
            assert isinstance(rec._sink, Inline)
            (channel_of_parent,) = rec._sink._pipeline.alerts._channels
            child = os.fork()
            if child == 0:
                channel_of_parent.put({"from": "child"})
                channel_of_parent.begin_close()
                channel_of_parent.end_close(time.monotonic() + PATIENCE)
                rec.close()
                os._exit(0 if channel_of_parent.put_count == 1 else 1)
            assert os.waitpid(child, 0)[1] == 0
        assert len(server.requests) == 1


class _Stubborn:
    label, paced = "stubborn", False

    def deliver(self, message: Any) -> None:
        raise MemoryError if message["number"] else DeliveryError("no")


def test_nothing_ends_the_thread_of_a_channel() -> None:
    stubborn = Channel(_Stubborn())
    for number in range(3):
        stubborn.put({"number": number})
    stubborn.begin_close()
    stubborn.end_close(time.monotonic() + PATIENCE)
    assert stubborn.take_reasons() == {"no": 1, "MemoryError": 2}
    assert stubborn.unsent == 0
