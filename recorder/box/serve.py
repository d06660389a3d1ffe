"""The box at work: frames of the ring go through the pipeline, in order, until the recording ends."""

from __future__ import annotations

import contextlib
import pickle
import select
import socket
from collections.abc import Callable

import numpy as np

from esper_analyze.storage import layout
from recorder.act.alerts import Alerts
from recorder.box import ring as words
from recorder.box.messages import FromBox
from recorder.box.ring import Ring, RingDamagedError
from recorder.box.wire import (
    BoxSetup,
    EndOfRecording,
    HandedUpdate,
    NewParameters,
    NewState,
    StateRequest,
    unpacked,
)
from recorder.guard import ErrorGuard
from recorder.online_detector import OnlineDetector
from recorder.pipeline import Pipeline
from recorder.store.claimed_folder import ClaimedFolder
from recorder.store.store import Store

SETTLE_SECONDS = 5.0
"""Longest wait for an update to reach the log, before the state after it is kept."""
LAST_SECONDS = 5.0
"""Longest wait for alerts on their way once the training is dead."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.005, 0.25
"""Seconds between two looks into an empty ring."""


class Box:
    """Serves one recording."""

    def __init__(self, setup: BoxSetup, connection: socket.socket, say: Callable[[FromBox], None]) -> None:
        self._socket, self._say = connection, say
        self._alive, self._ended = True, False
        self._pause = SHORTEST_PAUSE
        self._folder = setup.claim.path
        self._ring = Ring(setup.ring)
        self._store = Store.of(ClaimedFolder.adopted(setup.claim))
        detector = OnlineDetector(setup.thresholds, setup.level, setup.rules, quiet=setup.quiet, stop_on=setup.stop_on)
        self._guarded = ErrorGuard(strict=False)
        self._pipeline = Pipeline(
            setup.heads,
            setup.parameters,
            detector,
            self._store,
            self._guarded,
            Alerts(setup.alerts, detector),
            records_gradients=setup.records_gradients,
        )
        self._judged = -1  # last update of a box before this one, whose state this one continues
        if setup.state is not None:
            self._pipeline.load_state_dict(setup.state)
            self._judged = setup.state["update"]

    def serve(self) -> None:
        """Work until the recording is closed, or the training has died and all that it left is stored."""
        while not self._ended:
            if self._serve_next():
                continue
            if not self._alive:
                self._store.put({"losses_of_data": self._pipeline.alerts.close(LAST_SECONDS)})
                self._store.leave()
                self._clear_away()
                return
            self._sleep()

    def _sleep(self) -> None:
        """Wait for the next frame, longer the longer there is none; an end of the training ends the wait."""
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        ready, _, _ = select.select([self._socket], [], [], self._pause)
        if ready:
            try:
                self._alive = bool(self._socket.recv(1 << 12))
            except OSError:
                self._alive = False

    def _serve_next(self) -> bool:
        """Process the next frame; return whether there was one."""
        try:
            frame = self._ring.next()
        except RingDamagedError as error:
            lost = self._ring.skip_all()
            self._guarded.lose(f"reading the ring: {lost} bytes", error)
            return True
        if frame is None:
            return False
        with self._guarded("update"), np.errstate(all="ignore"):
            self._process(unpacked(frame.message, frame.buffers))
        self._ring.release(frame)
        self._pause = SHORTEST_PAUSE
        return True

    def _process(self, message: object) -> None:
        match message:
            case HandedUpdate():
                self._update(message)
            case NewParameters(parameters):
                self._pipeline.follow(parameters)
            case StateRequest(number):
                self._say(FromBox(state=self._pipeline.state_dict(), number=number))
            case NewState(state):
                self._pipeline.load_state_dict(state)
            case EndOfRecording(reason, losses):
                self._ended = True
                self._store.put({"losses_of_data": [*losses, *self._pipeline.alerts.close()]})
                self._store.close(reason)
                self._clear_away()

    def _update(self, message: HandedUpdate) -> None:
        if message.facts.update <= self._judged:
            return
        self._pipeline.set_trainable(message.trainable)
        measured = self._pipeline.measure(message.captured)
        feedback = self._pipeline.finish(message.facts, measured, weights=message.weights)
        if feedback.as_clipped is not None:
            self._ring.set_word(words.AS_CLIPPED, int(feedback.as_clipped))
        self._ring.set_word(words.DEBUG_UNTIL, self._pipeline.detector.detector.escalation.until)
        self._ring.set_word(words.FINISHED, message.facts.update)
        stop = self._pipeline.detector.stop_reason
        if stop is not None and not self._ring.word(words.STOP):
            self._say(FromBox(stop=stop))
            self._ring.set_word(words.STOP, 1)
        if feedback.contradicted:
            self._say(FromBox(contradicted=feedback.contradicted))
        self._keep_state(message.facts.update)

    def _clear_away(self) -> None:
        """Remove what served this process alone: the ring is empty."""
        self._ring.path.unlink(missing_ok=True)
        (self._folder / layout.BOX_STATE_FILE).unlink(missing_ok=True)

    def _keep_state(self, update: int) -> None:
        """Write the state after ``update``, from which another box could continue."""
        self._store.settle(SETTLE_SECONDS)
        state = pickle.dumps(self._pipeline.state_dict() | {"update": update})
        path = self._folder / layout.BOX_STATE_FILE
        temporary = path.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            temporary.write_bytes(state)  # not synced: it serves a process that dies, not a machine that does
            temporary.replace(path)
