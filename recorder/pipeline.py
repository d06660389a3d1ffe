"""The pipeline of one recording: an ended update as captured is measured, reduced to rows, judged and stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from esper_analyze.schema.merging import RankRows
from esper_analyze.schema.tables import BY_NAME
from recorder.act.alerts import Alerts
from recorder.capture.detail import Detail
from recorder.capture.parameters import ParameterMap
from recorder.capture.update_buffer import UpdateBuffer
from recorder.diagnostics import Diagnostics
from recorder.guard import ErrorGuard
from recorder.heads import Heads
from recorder.measure import Numbers
from recorder.online_detector import OnlineDetector
from recorder.pretrigger import Pretrigger
from recorder.reduce.slots import SlotHistory
from recorder.rollout import RolloutInputs, rollout_tensors
from recorder.rows import MeasuredUpdate, UpdateFacts, rows_of, undeclared_cells
from recorder.slots import rows_of_slots
from recorder.store.store import Store
from recorder.transfer import Handle, Outgoing, Transfer

UNSEEN_CLIP = (
    "optimizer steps but no clip call seen, so gradients before clipping are not recorded; call it by its module "
    "(torch.nn.utils.clip_grad_norm_) or call rec.gradients() after backward"
)


@dataclass(frozen=True, slots=True)
class CapturedUpdate:
    """An ended update as captured: nothing but ``outgoing`` is measured yet."""

    update: int
    buffer: UpdateBuffer
    inputs: RolloutInputs
    outgoing: Outgoing  # what the capture had to measure itself
    observations: Handle | None  # of ``outgoing``
    keeps_gradients: bool  # for an escalation: the update is not sampled for detail

    def with_gradients(self, most: int) -> CapturedUpdate:
        """Return the update with copied gradients of at most so many optimizer steps of each list of parameters."""
        return replace(self, buffer=self.buffer.with_gradients(most))

    def emptied(self) -> CapturedUpdate:
        """Return the update without its minibatches."""
        return replace(self, buffer=self.buffer.emptied())


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the measurements of an update say about how to capture the next ones.

    ``as_clipped``: the optimizer takes gradients as the clip leaves them; None: not compared. ``contradicted``: heads
    whose entropy shows that their inferred size is wrong.
    """

    as_clipped: bool | None
    contradicted: tuple[str, ...]


class Pipeline:
    """Turns the updates of one recording into stored rows, in order."""

    def __init__(
        self,
        heads: Heads,
        parameters: ParameterMap | None,
        detector: OnlineDetector,
        store: Store,
        guarded: ErrorGuard,
        alerts: Alerts,
        *,
        records_gradients: bool,
    ) -> None:
        self.heads = heads
        self.alerts = alerts
        self.detector = detector
        self.slot_history = SlotHistory()
        self._parameters = parameters
        self._store = store
        self._guarded = guarded
        self._records_gradients = records_gradients
        self._diagnostics = Diagnostics(detector.detector.thresholds.as_dict(), parameters)
        self._pretrigger = Pretrigger(Detail(parameters)) if records_gradients and parameters is not None else None

    def follow(self, parameters: ParameterMap) -> None:
        """Continue with other parameters."""
        self._parameters = self._diagnostics.parameters = parameters
        if self._pretrigger is not None:
            self._pretrigger.detail = Detail(parameters)

    def set_trainable(self, flags: bytes) -> None:
        """Set which parameters are trainable, where the map stands for those of another process."""
        if self._parameters is not None:
            for parameter, trainable in zip(self._parameters.parameters, flags, strict=True):
                parameter.requires_grad_(bool(trainable))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of slots and detector as plain data, for a checkpoint."""
        detector = self.detector
        return {
            "slots": self.slot_history.state_dict(),
            "detector": detector.detector.state_dict(),
            "stop": detector.policy.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state. Raises ``ValueError`` if it does not fit the rules."""
        if state["detector"] is not None:
            self.detector.detector.load_state_dict(state["detector"])
            if "stop" in state:
                self.detector.policy.load_state_dict(state["stop"])
        self.slot_history.load_state_dict(state.get("slots", {}))

    def measure(self, captured: CapturedUpdate) -> MeasuredUpdate:
        """Measure an update, and start the transfer of its numbers. Nothing waits for a device."""
        outgoing = Outgoing(captured.outgoing)
        buffer, measured = self._minibatches(captured.buffer)
        outgoing |= measured
        rollout = rollout_tensors(self.heads, captured.inputs, self._guarded, outgoing)
        rollout.observations = captured.observations
        if self._pretrigger is not None and captured.keeps_gradients:
            with self._guarded("update: detail"):
                self._pretrigger.keep(captured.update, buffer.stacks)
        return MeasuredUpdate(buffer, rollout, Transfer(outgoing))

    def _minibatches(self, buffer: UpdateBuffer) -> tuple[UpdateBuffer, Outgoing]:
        """Measure the minibatches; if they cannot be measured, the update keeps its row without them."""
        try:
            return buffer, buffer.tensors()
        except Exception as error:
            self._guarded.refuse("update: minibatches", error)
            return buffer.emptied(), Outgoing()

    def finish(self, facts: UpdateFacts, measured: MeasuredUpdate, weights: Numbers | None = None) -> Feedback:
        """Reduce a measured update to rows, judge and store them. Waits for the transfer.

        ``weights``: the largest magnitude of each parameter [T], where they cannot be read here.
        """
        buffer = measured.buffer
        facts.cells["dropped_rows"] = self._store.take_losses()
        rows = rows_of(facts, measured, self.heads, self._parameters)
        for name in rows.contradicted:
            self._forget_size(name)
        tables = rows.tables | self._diagnostics.rows(buffer, rows, weights, asked=facts.stability)
        with self._guarded("slot: rows"):
            tables["slots"] = rows_of_slots(facts.slots, rows.arrays, self.slot_history, facts.update)
        if not self._records_gradients:
            tables = {name: some for name, some in tables.items() if BY_NAME[name].ranks is not RankRows.OF_FIRST}
        judged = self.detector.judge(facts.update, tables, facts.cells["level"])
        for table, names in undeclared_cells(judged.rows).items():
            undeclared = ValueError(f"not declared, so not stored: {', '.join(names)}")
            self._guarded.refuse(f"cells of {table}", undeclared)
        losses = [*self._guarded.take_losses(facts.update), *facts.losses, *self.alerts.take_losses(facts.update)]
        self._store.put(judged.rows | {"events": facts.events, "losses_of_data": losses})
        if judged.escalates and self._pretrigger is not None:
            for block in self._pretrigger.take():
                self._store.put({"layers": block})
        self._store.settle()
        steps = any(minibatch.steps for minibatch in buffer.minibatches)
        if steps and rows.update.get("grad_norm_pre_clip") is None:
            self._guarded.warn_once("clip", UNSEEN_CLIP)
        return Feedback(rows.as_clipped, tuple(rows.contradicted))

    def _forget_size(self, head: str) -> None:
        size = self.heads.inferred.pop(head, None)
        wrong = f"head {head!r}: its entropies do not fit {size} actions, the outputs of its last layer: pass sizes="
        self._guarded.lose("minibatch(entropy)", ValueError(wrong))
