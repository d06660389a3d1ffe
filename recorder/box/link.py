"""The training's side of the box: hands ended updates over, reads flags and a few messages, waits for nothing.

The box is not woken: on a busy machine that would cost the training its core. It looks into the ring by itself.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from esper_analyze.schema.printable import LOG
from esper_analyze.schema.row_types import LossesOfDataRow
from esper_analyze.storage import layout
from recorder.box import ring as words
from recorder.box.messages import FromBox, Inbox
from recorder.box.ring import Ring, RingFullError
from recorder.box.wire import (
    BoxSetup,
    EndOfRecording,
    HandedUpdate,
    NewParameters,
    NewState,
    StateRequest,
    packed,
)
from recorder.capture.parameters import ParameterMap
from recorder.guard import ErrorGuard
from recorder.pipeline import CapturedUpdate, Feedback
from recorder.rows import UpdateFacts
from recorder.sentinel.fatal_traceback import TracebackFile
from recorder.sink import Handed
from recorder.stability import largest_weights
from recorder.store.claimed_folder import ClaimedFolder

RING_BYTES = 64 << 20
"""Room for updates that the box has not read yet."""
ANSWER_SECONDS = 60.0
"""Longest wait for the answer to a request, and for the box's end after that of the recording."""
RESPAWNS = 1
"""How many times a box that died is replaced."""
_COMMAND = "import sys; sys.path[:] = sys.argv[3:]; from recorder.box.process import main; main(*sys.argv[1:3])"

_LIVE: weakref.WeakSet[BoxLink] = weakref.WeakSet()


def _forget_in_child() -> None:
    for link in list(_LIVE):
        link.inert = True


os.register_at_fork(after_in_child=_forget_in_child)


class BoxLink:
    """A box, and the ring that leads to it. Raises ``OSError`` where no process can be started."""

    def __init__(
        self,
        setup: BoxSetup,
        folder: ClaimedFolder,
        guarded: ErrorGuard,
        notify: Callable[[Feedback | None], None],
    ) -> None:
        self.inert = False
        self._folder, self._guarded = folder, guarded
        self._notify = weakref.WeakMethod(notify)
        self._parameters = setup.parameters
        self._lost_box = False
        self._stop_reason: str | None = None
        self._respawns = self._requests = 0
        self._unstable = False  # the last update had non-finite numbers, as far as the host shows
        self._traceback = TracebackFile(folder.path / layout.FAULT_FILE)
        self.ring = Ring(folder.path / layout.BOX_RING_FILE, RING_BYTES)
        self._base = setup.level
        self._setup = replace(setup, ring=self.ring.path)
        self._start()
        _LIVE.add(self)

    def _start(self) -> None:
        """Start a process for what is in the ring; the setup goes through a file, before all of it."""
        setup_file = self._folder.path / layout.BOX_SETUP_FILE
        message, buffers = packed(self._setup)
        setup_file.touch(mode=0o600)  # alerts may name endpoints that are secrets
        setup_file.write_bytes(pickle.dumps((message, [bytes(buffer) for buffer in buffers])))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        descriptors = [theirs.fileno(), *(descriptor for _, descriptor in self._setup.claim.locks)]
        command = [sys.executable, "-c", _COMMAND, str(setup_file), str(theirs.fileno()), *sys.path]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,  # a Ctrl-C in the terminal is the training's
            )
        except OSError:
            ours.close()
            setup_file.unlink()
            self.ring.path.unlink()
            raise
        finally:
            theirs.close()
        self._socket, self._inbox = ours, Inbox(ours)

    @property
    def folder(self) -> Path:
        """The folder of the attempt that is written."""
        return self._folder.path

    @property
    def stop_reason(self) -> str | None:
        """Why the training is to stop, as far as the box has judged; None: it is not."""
        if self._stop_reason is None and self.ring.word(words.STOP):
            self._receive()
        return self._stop_reason

    def level(self, update: int) -> str:
        """Return the telemetry level in effect for ``update``, as far as the box has judged."""
        escalated = self._base != "OFF" and update <= self.ring.word(words.DEBUG_UNTIL)
        return "DEBUG" if escalated else self._base

    def follow(self, parameters: ParameterMap) -> None:
        """Continue with other parameters."""
        self._parameters = parameters
        self._send(NewParameters(parameters))

    def prepare(self, captured: CapturedUpdate) -> Handed:
        """Return the update as it is: the box measures it."""
        return captured

    def put(self, facts: UpdateFacts, handed: Handed) -> None:
        """Copy an update into the ring. Without room, less of it, and what is left out is counted."""
        assert isinstance(handed, CapturedUpdate)
        parameters = self._parameters
        trainable = b"" if parameters is None else bytes(p.requires_grad for p in parameters.parameters)
        weights = None
        if parameters is not None and (facts.stability or self._newly_unstable(handed)):
            weights = largest_weights(parameters)
        for reduce, left_out in _REDUCTIONS:
            try:
                self._write(HandedUpdate(facts, reduce(handed), trainable, weights))
            except RingFullError as error:
                self._guarded.lose(f"handing over an update: {left_out}", error)
            else:
                break
        self._receive()

    def _newly_unstable(self, captured: CapturedUpdate) -> bool:
        """Whether norms or losses on the host are not finite, and those of the update before were."""
        before, buffer = self._unstable, captured.buffer
        numbers = [loss for batch in buffer.batches for loss in batch.losses.values()]
        if buffer.pre_clips is not None:
            numbers.append(buffer.pre_clips)
        self._unstable = not np.isfinite([float(some.sum()) for some in numbers]).all()
        return self._unstable and not before

    def advance(self) -> None:
        """Do nothing: the box goes on by itself."""

    def finish(self) -> None:
        """Do nothing: the box goes on by itself."""

    def _send(self, message: object) -> None:
        try:
            self._write(message)
        except RingFullError as error:
            self._guarded.lose(f"handing over {type(message).__name__}", error)

    def _write(self, message: object) -> None:
        if self._lost_box:
            return
        if self._process.poll() is not None and not self._respawned():
            return
        self.ring.write(*packed(message))

    def _respawned(self) -> bool:
        """Start another box for what the ring holds, once; return whether there is one."""
        code = self._process.returncode
        if self._respawns >= RESPAWNS:
            self._lost_box = True
            LOG.error("recorder: the recording process died again (%s); nothing more is recorded", _ending(code))
            return False
        self._respawns += 1
        LOG.warning("recorder: the recording process died (%s); another one continues from there", _ending(code))
        self._socket.close()
        state = self._folder.path / layout.BOX_STATE_FILE
        self._folder = self._folder.next()
        self._traceback.close()
        self._traceback = TracebackFile(self._folder.path / layout.FAULT_FILE)
        self._setup = replace(self._setup, claim=self._folder.described(), parameters=self._parameters, state=None)
        with contextlib.suppress(OSError, ValueError, EOFError, pickle.UnpicklingError):
            self._setup = replace(self._setup, state=pickle.loads(state.read_bytes()))
        self._start()
        return True

    def _receive(self) -> None:
        """Take the box's messages and what its flags say."""
        for message in self._inbox.messages():
            self._handle(message)
        trusted = self.ring.word(words.AS_CLIPPED)
        self._tell(Feedback(None if trusted < 0 else bool(trusted), ()))

    def _handle(self, message: FromBox) -> None:
        if message.log is not None:
            LOG.log(message.log[0], "%s", message.log[1])
        if message.stop is not None:
            self._stop_reason = message.stop
        if message.contradicted:
            self._tell(Feedback(None, message.contradicted))

    def _tell(self, feedback: Feedback) -> None:
        notify = self._notify()
        if notify is not None:
            notify(feedback)

    def state(self) -> dict[str, Any]:
        """Return the pipeline's state, with all updates handed over in it. Waits for the box."""
        self._requests += 1
        self._write(StateRequest(self._requests))
        for message in self._answers():
            self._handle(message)
            if message.state is not None and message.number == self._requests:
                return dict(message.state)
        raise RuntimeError("the recording process gave no state for the checkpoint")

    def _answers(self) -> Iterator[FromBox]:
        """Yield messages as they come, until the box ends or ``ANSWER_SECONDS`` have passed."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            yield from self._inbox.messages(wait=min(1.0, max(deadline - time.monotonic(), 0.0)))
            if self._inbox.ended:
                return

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self._send(NewState(state))

    def close(self, reason: str, losses: Sequence[LossesOfDataRow]) -> None:
        """Let the box store what is left and seal everything; wait for its end."""
        if self.inert:
            return
        with self._guarded("close"):
            self._write(EndOfRecording(reason, losses))
            for message in self._answers():
                self._handle(message)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=ANSWER_SECONDS)
            if self._process.returncode != 0:
                LOG.error(
                    "recorder: the recording process ended badly (%s): %d bytes of updates are left in %s",
                    _ending(self._process.returncode),
                    self.ring.waiting,
                    self.ring.path,
                )
        self._socket.close()
        self._traceback.close()
        self._folder.close()
        _LIVE.discard(self)


def unboxable(parameters: ParameterMap | None, rules: object) -> str | None:
    """Return why a recording cannot have a box; None if it can."""
    if rules is not None and not isinstance(rules, (str, Path)):
        return "custom rules were passed as objects; another process needs the file that defines them"
    devices = {p.device.type for p in parameters.parameters} if parameters is not None else set()
    return f"tensors on {', '.join(sorted(devices))} are measured there" if devices - {"cpu"} else None


_REDUCTIONS: tuple[tuple[Callable[[CapturedUpdate], CapturedUpdate], str], ...] = (
    (lambda captured: captured, "gradients of all but one optimizer step left out"),
    (lambda captured: captured.with_gradients(1), "all copied gradients left out"),
    (lambda captured: captured.with_gradients(0), "the minibatches left out"),
    (lambda captured: captured.emptied(), "the update left out"),
)
"""An update whole, then ever more reduced; each with what is left out next if there is no room for it."""


def _ending(code: int | None) -> str:
    """Return an exit code in words."""
    if code is None:
        return "it still runs"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
