"""A channel: one endpoint with a bounded queue and a daemon thread of its own, so that nothing ever waits for it.

Every message handed over ends as sent, failed, dropped (the queue was full) or unsent (the training ended first).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections import Counter, deque
from queue import SimpleQueue

from esper_analyze.schema.printable import LOG
from recorder.act.delivery import DeliveryError, Endpoint
from recorder.act.message import Message

MAX_WAITING = 64
"""Messages waiting for one endpoint; beyond this, new ones are dropped: the first ones say where the trouble began."""
BACK_OFF = (1.0, 5.0, 25.0)
"""Seconds before each further try of a delivery that may be tried again."""
CLOSING_BACK_OFF = 0.5
"""The same while the training waits for the last messages."""
PACE_MESSAGES, PACE_SECONDS = 20, 600.0
"""An endpoint that people read gets at most so many messages in so many seconds; further ones wait in the queue."""

_LIVE: weakref.WeakSet[Channel] = weakref.WeakSet()


def _forget_in_child() -> None:
    for channel in list(_LIVE):
        channel.inert = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


class Channel:
    """Delivers messages to one endpoint in order. ``put`` takes microseconds; after a fork the child's is inert.

    ``noun`` is what logs call a message.
    """

    def __init__(self, endpoint: Endpoint, noun: str = "alert") -> None:
        self.endpoint = endpoint
        self.inert = False
        self.put_count = self.sent = self.failed = self.dropped = 0
        self._noun = noun
        self._waiting: SimpleQueue[Message | None] = SimpleQueue()  # reentrant: a signal handler may put, too
        self._closed = self._given_up = False
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._sent_at: deque[float] = deque(maxlen=PACE_MESSAGES)
        self._reasons: SimpleQueue[str] = SimpleQueue()
        self._logged: set[str] = set()
        self._dropped_told = self._dropped_counted = 0
        _LIVE.add(self)

    def put(self, message: Message) -> None:
        """Hand over a message, which belongs to the channel from now on. Never waits."""
        if self.inert or self._closed:
            return
        self.put_count += 1
        if self._waiting.qsize() >= MAX_WAITING:
            self.dropped += 1
            self._warn_once(
                "dropped", f"{self._noun}s to {self.endpoint.label} are dropped: {MAX_WAITING} wait already"
            )
            return
        self._waiting.put(message)
        self.start()

    def start(self) -> None:
        """Start the thread unless it runs. Early, because none can be started any more when the interpreter ends."""
        if self._thread is not None and self._thread.is_alive():
            return
        thread = threading.Thread(target=self._work, name=f"recorder-{self._noun}s", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads: what waits is tried with the next message
            self._warn_once("thread", f"{self._noun}s to {self.endpoint.label} wait: {error}")
            return
        self._thread = thread

    @property
    def unsent(self) -> int:
        """Messages that are neither sent nor given up."""
        return self.put_count - self.sent - self.failed - self.dropped

    def take_reasons(self) -> Counter[str]:
        """Return why messages failed since the last call, with how many did."""
        reasons: Counter[str] = Counter()
        while not self._reasons.empty():
            reasons[self._reasons.get()] += 1
        return reasons

    def take_dropped(self) -> int:
        """Return how many messages were dropped since the last call."""
        new, self._dropped_counted = self.dropped - self._dropped_counted, self.dropped
        return new

    def begin_close(self) -> None:
        """Take no more messages; deliver what waits without pace and long back-off."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
            self._closing.set()

    def end_close(self, deadline: float) -> None:
        """Wait for what is left until ``deadline`` (``time.monotonic``); the thread then ends with the try it is at."""
        if self._thread is not None and not self.inert and threading.current_thread() is not self._thread:
            self._thread.join(max(deadline - time.monotonic(), 0.0))
        self._given_up = True

    def _work(self) -> None:
        while (message := self._waiting.get()) is not None and not self._given_up:
            try:
                self._wait_for_pace()
                self._deliver(message)
            except BaseException as error:  # nothing may end the thread
                self._fail(type(error).__name__)

    def _wait_for_pace(self) -> None:
        if self.endpoint.paced and len(self._sent_at) == PACE_MESSAGES:
            left = self._sent_at[0] + PACE_SECONDS - time.monotonic()
            if left > 0:
                self._closing.wait(left)
        self._sent_at.append(time.monotonic())

    def _deliver(self, message: Message) -> None:
        dropped = self.dropped
        message["dropped_before"] = dropped - self._dropped_told
        for wait in (*BACK_OFF, None):
            try:
                self.endpoint.deliver(message)
            except DeliveryError as error:
                if self._given_up:  # counted as unsent
                    return
                if wait is None or not error.retry:
                    self._fail(str(error))
                    return
                self._back_off(wait if error.after is None else error.after)
            else:
                self.sent += 1
                self._dropped_told = dropped
                return

    def _back_off(self, seconds: float) -> None:
        if self._closing.is_set() or self._closing.wait(seconds):
            time.sleep(min(seconds, CLOSING_BACK_OFF))

    def _fail(self, why: str) -> None:
        self.failed += 1
        self._reasons.put(why)
        self._warn_once(
            why,
            f"{self._noun} to {self.endpoint.label} failed: {why}; training continues, "
            "failures are counted in table losses_of_data",
        )

    def _warn_once(self, kind: str, words: str) -> None:
        if kind not in self._logged:
            self._logged.add(kind)
            with contextlib.suppress(Exception):  # a handler of the training's own
                LOG.warning("recorder: %s", words)
