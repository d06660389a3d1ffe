"""Where ended updates go: a pipeline in this process, or a box beside it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from esper_analyze.schema.row_types import LossesOfDataRow
from recorder.capture.parameters import ParameterMap
from recorder.guard import ErrorGuard
from recorder.pipeline import CapturedUpdate, Feedback, Pipeline
from recorder.rows import MeasuredUpdate, UpdateFacts
from recorder.store.store import Store
from recorder.uninterrupted import Uninterrupted

Handed = CapturedUpdate | MeasuredUpdate


class UpdateSink(Protocol):
    """Takes the ended updates of one recording, in order."""

    @property
    def inert(self) -> bool:
        """Whether nothing is recorded any more: in a forked child."""

    @property
    def folder(self) -> Path:
        """The folder of the attempt that is written."""

    @property
    def stop_reason(self) -> str | None:
        """Why the training is to stop, as far as updates have been judged; None: it is not."""

    def level(self, update: int) -> str:
        """Return the telemetry level in effect for ``update``."""

    def follow(self, parameters: ParameterMap) -> None:
        """Continue with other parameters."""

    def prepare(self, captured: CapturedUpdate) -> Handed:
        """Do what may be interrupted and repeated of handing over an update."""

    def put(self, facts: UpdateFacts, handed: Handed) -> None:
        """Hand over an update. Not to be interrupted."""

    def advance(self) -> None:
        """Finish the update handed over last, unless that would have to wait for a device. Not to be interrupted."""

    def finish(self) -> None:
        """Finish the update handed over last. May wait for a device."""

    def state(self) -> dict[str, Any]:
        """Return the pipeline's state as plain data, for a checkpoint."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a state. Raises ``ValueError`` if it does not fit the rules."""

    def close(self, reason: str, losses: Sequence[LossesOfDataRow]) -> None:
        """Store what is left and end the recording."""


class Inline:
    """The pipeline in the training's process. ``notify`` gets its feedback after each update."""

    def __init__(
        self,
        pipeline: Pipeline,
        store: Store,
        guarded: ErrorGuard,
        uninterrupted: Uninterrupted,
        notify: Callable[[Feedback | None], None],
    ) -> None:
        self.store, self._uninterrupted = store, uninterrupted
        self._pipeline, self._guarded, self._notify = pipeline, guarded, weakref.WeakMethod(notify)
        self._pending: tuple[UpdateFacts, MeasuredUpdate] | None = None

    @property
    def inert(self) -> bool:
        """Whether nothing is recorded any more: in a forked child."""
        return self.store.inert

    @property
    def folder(self) -> Path:
        """The folder of the attempt that is written."""
        return self.store.folder

    @property
    def stop_reason(self) -> str | None:
        """Why the training is to stop; None: it is not."""
        return self._pipeline.detector.stop_reason

    def level(self, update: int) -> str:
        """Return the telemetry level in effect for ``update``."""
        return self._pipeline.detector.level(update)

    def follow(self, parameters: ParameterMap) -> None:
        """Continue with other parameters."""
        self._pipeline.follow(parameters)

    def prepare(self, captured: CapturedUpdate) -> Handed:
        """Measure the update; start the transfer of its numbers."""
        return self._pipeline.measure(captured)

    def put(self, facts: UpdateFacts, handed: Handed) -> None:
        """Keep an update until its numbers have arrived."""
        assert isinstance(handed, MeasuredUpdate)
        self._pending = (facts, handed)

    def advance(self) -> None:
        """Finish the update if its numbers are on the host."""
        if self._pending is not None and not self._pending[1].transfer.waits:
            self._finish()

    def finish(self) -> None:
        """Finish the update: the only step that may wait for the device."""
        if self._pending is None:
            return
        try:
            self._pending[1].transfer.arrays()  # waits here, in the thread whose device it is
        except Exception:
            self._pending = None
            raise
        self._uninterrupted.run(self._finish)

    def _finish(self) -> None:
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        feedback = None
        try:
            feedback = self._pipeline.finish(*pending)
        finally:
            notify = self._notify()
            if notify is not None:
                notify(feedback)

    def state(self) -> dict[str, Any]:
        """Return the pipeline's state, with the last update in it."""
        with self._guarded("state_dict"):
            self.finish()
        return self._pipeline.state_dict()

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self._pipeline.load_state_dict(state)

    def close(self, reason: str, losses: Sequence[LossesOfDataRow]) -> None:
        """Store what is left and seal everything."""
        with self._guarded("close"):
            if not self.store.inert:
                self.store.put({"losses_of_data": [*losses, *self._pipeline.alerts.close()]})
        with self._guarded("close"):
            self.store.close(reason)
