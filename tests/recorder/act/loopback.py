"""A webhook's server on the loopback interface, and a training that falls ill when it is told to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from recorder import Recorder
from tests.patience import PATIENCE


class Webhook(ThreadingHTTPServer):
    """Answers each POST with the next of ``statuses``, the last one again and again; 0 hangs until the server ends."""

    daemon_threads = True

    def __init__(self, *statuses: int, headers: dict[str, str] | None = None, body: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses, self.headers, self.body = [*statuses], headers or {}, body
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.ended, self.arrived = threading.Event(), threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [message for _, message in self.requests]

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """Return the messages once there are ``count``."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.requests) >= count, PATIENCE)
        return self.messages


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        if "Authorization" in self.headers:
            self.path += f" {self.headers['Authorization']}"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.arrived:
            self.server.requests.append((self.path, json.loads(body)))
            status = self.server.statuses.pop(0) if len(self.server.statuses) > 1 else self.server.statuses[0]
            self.server.arrived.notify_all()
        if not status:
            self.server.ended.wait(PATIENCE)
            return
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def served(*statuses: int, headers: dict[str, str] | None = None, body: str = "") -> Iterator[Webhook]:
    """Serve in a thread until the block ends."""
    webhook = Webhook(*statuses, headers=headers, body=body)
    thread = threading.Thread(target=webhook.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield webhook
    finally:
        webhook.ended.set()
        webhook.shutdown()
        webhook.server_close()
        thread.join(PATIENCE)


def refused_url() -> str:
    """Return a URL on this machine at which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def update(rec: Recorder, log_ratio: float = 0.0) -> None:
    """Record an update whose ratios are all e^``log_ratio``: from 3 on a critical incident of several rules."""
    old = torch.zeros(8)
    rec.minibatch(log_prob=old + log_ratio, old_log_prob=old, clip_range=0.2)
    rec.update(env_steps=100)


def fall_ill(rec: Recorder, sound: int = 3) -> None:
    """Record sound updates, then one that is not."""
    for _ in range(sound):
        update(rec)
    update(rec, 3.0)
