"""Recorder: takes an update's measurements; writes rows, findings and telemetry levels."""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import numpy.ma  # noqa: F401  # by np.unique at its first call, when no file may be openable any more
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from esper_analyze.detector.rule import Rule, revisions
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.schema.printable import LOG
from esper_analyze.schema.row_types import EventsRow, LossesOfDataRow, UpdatesRow
from esper_analyze.schema.tables.events import CONTINUED, RESUMED_FRESH
from esper_analyze.schema.tables.updates import STATUSES
from recorder import amp, arguments, clip, options, ranks, run_names, shutdown, slots
from recorder.act.alerts import AlertPlan, Alerts
from recorder.act.checkpoints import CheckpointLog
from recorder.arguments import ArrayLike, PerHead, State
from recorder.between_updates import BetweenUpdates
from recorder.box.link import BoxLink, unboxable
from recorder.box.wire import BoxSetup
from recorder.capture.batch import Capture
from recorder.capture.gradient_snapshot import GradientReader, GradientSnapshot
from recorder.capture.parameters import ParameterMap, ParameterRows, Parts, outputs
from recorder.capture.update_buffer import UpdateBuffer
from recorder.clip import Clipped
from recorder.clock import Clock
from recorder.console import Console
from recorder.detail_schedule import UNSAMPLED_LEVELS, DetailSchedule
from recorder.diagnostics import ratio_bounds
from recorder.guard import ErrorGuard
from recorder.heads import Heads
from recorder.live_model import LiveModel
from recorder.measure.gradients import total_norm
from recorder.measure.lstm import lstm_statistics
from recorder.minibatch_reader import MinibatchReader
from recorder.observations import Observations
from recorder.online_detector import OnlineDetector
from recorder.optimizer_state import OptimizerStates
from recorder.pipeline import CapturedUpdate, Feedback, Pipeline
from recorder.process_state import by_default
from recorder.rollout import rollout_inputs
from recorder.rows import Episode, UpdateFacts
from recorder.sink import Inline, UpdateSink
from recorder.slots import Parameters, Slots
from recorder.store.claimed_folder import ClaimedFolder
from recorder.store.resume import begin
from recorder.store.store import Store
from recorder.transfer import Handle, Outgoing
from recorder.uninterrupted import Uninterrupted

MAX_MINIBATCHES = 100_000
"""Minibatches of one update kept in memory; a loop that never calls ``update`` must not fill it."""

RESUMES = {
    "resumed": ", and so does the detector",
    RESUMED_FRESH: "; the detector starts fresh",
    CONTINUED: "; the detector continues from another recording, whose state a replay of this one lacks",
}
"""Kinds of a resume in table ``losses_of_data``, and their meaning for verdicts."""

P = ParamSpec("P")
R = TypeVar("R")


def completed(
    progress: Callable[[Recorder], object],
) -> Callable[[Callable[Concatenate[Recorder, P], R]], Callable[Concatenate[Recorder, P], R]]:
    """Complete a method that Ctrl-C interrupts: call it again unless ``progress`` shows that it was done.

    Every step of such a method may be repeated. The interruption is then raised.
    """

    def decorate(method: Callable[Concatenate[Recorder, P], R]) -> Callable[Concatenate[Recorder, P], R]:
        @wraps(method)
        def entered(self: Recorder, /, *args: P.args, **kwargs: P.kwargs) -> R:
            start = None
            try:
                start = self.guarded.mark(), progress(self)
                return method(self, *args, **kwargs)
            except Exception:
                raise
            except BaseException:
                if start is not None:
                    self.guarded.leave(start[0])
                if start is None or progress(self) == start[1]:
                    method(self, *args, **kwargs)
                raise

        return entered

    return decorate


def restored(method: Callable[Concatenate[Recorder, P], R]) -> Callable[Concatenate[Recorder, P], R]:
    """Restore this thread's blocks and grad mode where Ctrl-C interrupts a method that is not completed."""

    @wraps(method)
    def entered(self: Recorder, /, *args: P.args, **kwargs: P.kwargs) -> R:
        mark = self.guarded.mark()
        try:
            return method(self, *args, **kwargs)
        except Exception:
            raise
        except BaseException:
            self.guarded.leave(mark)
            raise

    return entered


class Recorder:
    """Records one PPO training into ``run_dir``.

    In a hand-written loop: create it, call ``minibatch`` before each backward, call ``update`` after each inner
    loop. Gradients are recorded in ``torch.nn.utils.clip_grad_norm_`` (call it by its module) and in the optimizer's
    step. The training's numbers are never changed, and errors of the recorder do not reach it unless ``strict``.

    Parameters
    ----------
    run_dir
        New directory for the run, relative to the current working directory; default:
        ``runs/<script>-<date>-<time>``.
    exists
        What to do if ``run_dir`` already holds a run: "refuse" (``RunExistsError``), or "number": if the directory
        exists, take ``run_dir-2``, ``run_dir-3`` and so on.
    quiet
        Log no alarms, and neither where the run is nor how to look at it; warnings of lost data and errors stay.
        Where the training has not configured logging, all of it goes to stderr.
    model
        The network(s) trained; without it no gradient is recorded.
    heads
        Action heads in order: name → its own modules, parameters or ``Rows`` of a shared layer (None: unknown),
        or just the names.
    sizes, kinds
        Number of actions, and kind (categorical, gaussian, bernoulli, other; default categorical) by head. A
        categorical head without a size has as many actions as its last linear layer has outputs, unless its entropy
        shows otherwise; without that layer its entropy cannot be normalised, which is logged once.
    groups
        Groups of parameters by name; default: ``actor`` (the heads' own, and names with actor, policy, pi, action or
        head), ``critic`` (critic, value, vf, v_net), ``lstm`` (lstm, gru, rnn), ``shared`` (the rest).
    total_updates, total_env_steps
        Planned length, for ``progress``; None: unknown.
    thresholds
        Detector thresholds in place of the defaults; stored in run.json.
    rules
        Custom rules, added to the built-in ones: a Python file that defines ``RULES`` and is executed, or ``Rule``s.
        Checked here (``UsageError``); names and SHA-256 of the file are stored in run.json.
    level
        Base telemetry level: OFF, MINIMAL, NORMAL or DEBUG.
    strict
        Raise errors of the recorder instead of counting them (for tests).
    overhead_budget
        Share of the training's time that recording may take: detail (layers, histogram, direction, gates) is
        measured on as many updates as fit. Core statistics are never thinned. None: detail of every update.
    separate_backward
        On sampled updates differentiate policy, value and entropy loss once more, each separately, for
        ``cosine_actor_critic`` and ``entropy_grad_norm``. Needs a backward that can be repeated.
    coefficients
        Weights of heads in the loss.
    rank, world_size
        This process in a distributed training; default: from ``torch.distributed`` or its launcher's environment.
        Every rank creates a ``Recorder`` with the same ``run_dir``.
    all_ranks
        Let every rank write ``groups``, ``layers`` and ``tensors``, to compare them. Otherwise only the first rank
        does: after the all-reduce they are equal on all ranks.
    resume
        Resume the run in ``run_dir`` as a new attempt; a new directory is started as usual. Pass the result of
        ``state_dict`` to ``load_state_dict``: updates are numbered and judged from that checkpoint on, and those
        recorded after it are kept, but superseded. Without it, numbering continues after the last recorded update
        and the detector starts fresh. ``ResumeError`` if heads, groups, thresholds or level differ from before,
        ``LockedError`` while another process writes the run.
    box
        Measure, judge and store in a process beside the training, which only copies: with a processor core to spare the
        training waits less, and the recording survives the training's death. Tensors on a device, and custom rules that
        are not a file, are handled in the training's own process.
    on_finding
        What to do when an incident begins, becomes critical or ends, as text, one or several: ``"command: program"``,
        a webhook's URL, ``"slack: ${WEBHOOK}"``, ``"apprise: URL"``, ``"python: module:function"``; see
        ``esper-analyze help alerts``. Sent in threads of their own: an endpoint that fails costs the training nothing.
        ``UsageError`` for text that names none.
    alert_seconds
        Longest wait, at the end of the training, for alerts on their way, in seconds; default: 3.
    stop_on
        Conditions for ``should_stop``: "RULE:VERDICT" or "RULE:VERDICT for N" updates, such as "kl_spike:critical for
        3"; "any" stands for every rule. See ``esper-analyze help backtest`` for how to try them on recorded runs.
    facts
        Further facts for run.json: name, framework, algorithm, hyperparameters, seeds, notes …
    """

    @by_default
    def __init__(
        self,
        run_dir: Path | str | None = None,
        model: nn.Module | None = None,
        *,
        exists: str = "refuse",
        quiet: bool = False,
        heads: Mapping[str, Parts | None] | Sequence[str] = ("action",),
        sizes: Mapping[str, int] | None = None,
        kinds: Mapping[str, str] | None = None,
        groups: Mapping[str, Parts] | None = None,
        total_updates: int | None = None,
        total_env_steps: int | None = None,
        thresholds: Thresholds | None = None,
        rules: Path | str | Sequence[Rule] | None = None,
        level: str = "NORMAL",
        strict: bool = False,
        overhead_budget: float | None = 0.02,
        separate_backward: bool = False,
        coefficients: Mapping[str, float] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        all_ranks: bool = False,
        resume: bool = False,
        box: bool = False,
        on_finding: str | Sequence[str] | None = None,
        alert_seconds: float | None = None,
        stop_on: str | Sequence[str] = (),
        **facts: object,
    ) -> None:
        options.refuse_misspelt(facts, ARGUMENTS, "Recorder")
        self.run_dir = options.run_directory(run_names.default_directory() if run_dir is None else run_dir)
        self.rank_role = ranks.rank_role(
            options.integer("rank", rank), options.integer("world_size", world_size), all_ranks=all_ranks
        )
        run_names.check(run_dir, exists, self.rank_role.ranks, resume=resume)
        model = ranks.measurable_model(options.network(model))
        self.guarded, self._uninterrupted = ErrorGuard(strict=strict), Uninterrupted()
        heads = options.head_names(heads)
        sizes = options.by_name("sizes", sizes, "head to number of actions", "{'action': 4}")
        kinds = options.by_name("kinds", kinds, "head to kind", "{'action': 'gaussian'}")
        coefficients = options.by_name("coefficients", coefficients, "head to weight", "{'action': 1.0}")
        groups = options.by_name("groups", groups, "group to modules or parameters", "{'actor': model.actor}")
        parts = (
            {name: _parts(name, head_parts) for name, head_parts in heads.items()} if isinstance(heads, Mapping) else {}
        )
        widths = {name: width for name, head_parts in parts.items() if (width := outputs(head_parts)) is not None}
        self.heads = Heads(tuple(heads), sizes or {}, kinds or {}, coefficients or {}, widths)
        self.minibatch_reader = MinibatchReader(self.heads, self.guarded)
        self._model = None if model is None else LiveModel(model, groups, parts)
        self.parameters: ParameterMap | None = None if self._model is None else self._model.parameters
        self._events: list[EventsRow] = []
        self._changed_groups: frozenset[str] = frozenset()  # in the update in progress
        self._thread = threading.get_ident()  # that of the last minibatch
        self._reader = None if self.parameters is None else GradientReader(self.parameters)
        self._detail_schedule = DetailSchedule(
            model,
            self.parameters if self.rank_role.records_gradients else None,
            options.share("overhead_budget", overhead_budget),
            separate=separate_backward,
        )
        self._total_updates = options.integer("total_updates", total_updates)
        self._total_env_steps = options.integer("total_env_steps", total_env_steps)
        self._quiet, alerts = quiet, AlertPlan.of(on_finding, alert_seconds)
        self._detector = OnlineDetector(options.limits(thresholds), level, rules, quiet=quiet, stop_on=stop_on)
        self.run_dir = run_names.claimed(self.run_dir, number=run_dir is None or exists == "number")
        earlier = begin(self.run_dir, self.rank_role.rank, self._identity(facts), resume=resume)
        self._attempt = earlier.attempt
        self._sink, self._checkpoints = self._new_sink(rules, alerts, box=box), CheckpointLog()
        self._update = self._first_update = earlier.last_update + 1
        self._resumed = RESUMED_FRESH if earlier.attempt else None
        self._bounds = ratio_bounds(self._detector.detector.thresholds.as_dict())
        self._stability = False  # a stability report was asked for
        self._buffer, self._slots = self._new_buffer(), Slots()
        self._states: dict[str, State] = {}
        self._episodes: deque[Episode] = (
            deque()
        )  # a growing list would make malloc consolidate in the middle of a rollout
        self._spent, self._episode_count = 0.0, 0
        self._learning_rate: float | Tensor | None = None
        self._optimizer_states, self._between_updates = OptimizerStates(), BetweenUpdates()
        self._observations = Observations()
        self._clock = Clock()
        self._closed = self._cut_short = False  # cut short: the last update was interrupted
        if not earlier.attempt:  # else the model is likely to be loaded after this
            self._remember_parameters()
        if self.parameters is not None:
            clip.watch(self)
            amp.watch()
        self._console = None if quiet or self.rank_role.rank else Console(self.run_dir)
        shutdown.close_at_exit(self)

    def _new_sink(self, rules: Path | str | Sequence[Rule] | None, alerts: AlertPlan, *, box: bool) -> UpdateSink:
        """Return where ended updates go: the box if it is asked for and can be had, else the pipeline in this process.

        A box takes tensors in host memory, and custom rules as a file.
        """
        claimed = ClaimedFolder(self.run_dir, rank=self.rank_role.rank, attempt=self._attempt)
        alerts = alerts.begun(claimed.path, self.rank_role.rank, quiet=self._quiet)
        if box:
            reason = unboxable(self.parameters, rules)
            if reason is None:
                with self.guarded("starting the recording process"):
                    return self._boxed(claimed, alerts, None if rules is None else Path(cast("Path | str", rules)))
            else:
                LOG.warning("recorder: recording in the training's own process: %s", reason)
        store = Store.of(claimed)
        pipeline = Pipeline(
            self.heads,
            self.parameters,
            self._detector,
            store,
            self.guarded,
            Alerts(alerts, self._detector),
            records_gradients=self.rank_role.records_gradients,
        )
        return Inline(pipeline, store, self.guarded, self._uninterrupted, self._learn)

    def _boxed(self, claimed: ClaimedFolder, alerts: AlertPlan, rules: Path | None) -> BoxLink:
        setup = BoxSetup(
            claimed.described(),
            heads=self.heads,
            parameters=self.parameters,
            thresholds=self._detector.detector.thresholds.as_dict(),
            rules=rules,
            level=self._detector.level(0),
            quiet=self._quiet,
            records_gradients=self.rank_role.records_gradients,
            alerts=alerts,
            stop_on=tuple(map(str, self._detector.policy.conditions)),
        )
        return BoxLink(setup, claimed, self.guarded, self._learn)

    def _learn(self, feedback: Feedback | None) -> None:
        """Capture the next updates as the measurements of one suggest; None: it could not be finished."""
        if self._reader is None:
            return
        self._reader.forget_copies()
        if feedback is not None and feedback.as_clipped is not None:
            self._reader.trusted = feedback.as_clipped

    def _identity(self, facts: Mapping[str, object]) -> dict[str, object]:
        """Return the facts of the run for run.json."""
        names = [group.name for group in self.parameters.groups if group.tensors] if self.parameters else []
        return {
            "name": self.run_dir.name,
            "ranks": self.rank_role.ranks,
            "heads": {name: self.heads.size(name) for name in self.heads.names},
            "sizes_inferred": list(self.heads.inferred),
            "head_kinds": {name: self.heads.kind(name) for name in self.heads.names},
            "groups": names,
            "parameters": sum(p.numel() for p in self.parameters.parameters) if self.parameters else None,
            "device": str(self.parameters.parameters[0].device) if names and self.parameters else None,
            "total_updates": self._total_updates,
            "total_env_steps": self._total_env_steps,
            "thresholds": self._detector.detector.thresholds.as_dict(),
            "rule_revisions": revisions(self._detector.detector.rules),
            "custom_rules": self._detector.custom.facts(),
            "level": self._detector.level(0),
            "stop_on": [str(condition) for condition in self._detector.policy.conditions],
            "attach_points": ["clip_grad_norm_", "optimizer step"] if self.parameters else [],
            **facts,
        }

    def _new_buffer(self) -> UpdateBuffer:
        heads, every = len(self.heads.names), self.level == "DEBUG"
        buffer = UpdateBuffer(self._reader, heads, self._detail_schedule.detail, self._bounds, every_step=every)
        buffer.changed_groups = self._changed_groups
        return buffer

    @property
    def planned(self) -> bool:
        """Whether the run's planned length was passed, so that ``progress`` follows from it."""
        return bool(self._total_updates or self._total_env_steps)

    @property
    def level(self) -> str:
        """The telemetry level of the update in progress."""
        return self._sink.level(self._update)

    @completed(lambda self: (self._update, len(self._buffer.minibatches)))  # type: ignore[arg-type]  # self is never passed by keyword
    def minibatch(
        self,
        *,
        log_prob: PerHead,
        old_log_prob: PerHead,
        entropy: PerHead | None = None,
        std: PerHead | None = None,
        masks: PerHead | None = None,
        valid_actions: ArrayLike | None = None,
        relevant: PerHead | None = None,
        valid: ArrayLike | None = None,
        clip_range: float | None = None,
        policy_loss: Tensor | float | None = None,
        value_loss: Tensor | float | None = None,
        entropy_loss: Tensor | float | None = None,
        loss: Tensor | float | None = None,
        values: ArrayLike | None = None,
        epoch: int = 0,
        lstm: tuple[ArrayLike, ArrayLike] | ArrayLike | None = None,
        joint_log_ratio: ArrayLike | None = None,
        joint_entropy: ArrayLike | None = None,
        actions: PerHead | None = None,
        advantages: ArrayLike | None = None,
        returns: ArrayLike | None = None,
        old_values: ArrayLike | None = None,
        index: ArrayLike | None = None,
        env: ArrayLike | None = None,
        step: ArrayLike | None = None,
        **misspelt: object,
    ) -> None:
        """Record one minibatch, before its backward.

        Tensors, numpy arrays and lists are accepted, of any shape with one number a sample ([N], or time × environments
        [T, B]); arguments by head need no mapping for a single head. An optional argument that cannot be used is left
        out, counted in ``losses_of_data`` and logged once; so is one of an unknown name (``misspelt``).

        Log-probs and entropies are [N] per head, one number a sample (of an action of several dimensions their sum),
        new ones from this minibatch's forward, old ones as stored at collection. ``std``: of Gaussian heads, the
        standard deviation of this forward's distribution before any squashing, [N, A] with A the dimensions of the
        action, or [A]. ``masks``: the **stored** boolean
        masks [N, K] per head, or ``valid_actions``: their counts [H, N]. ``relevant``: boolean [N] per head, where
        the head was relevant to the action. ``valid``: boolean [N], False on padding. ``lstm``: (h, c) after this
        forward, or h alone (GRU), each layers × environments × hidden.
        ``joint_log_ratio`` and ``joint_entropy`` [N]: the framework's own, if it has them. For the worst samples of
        table ``transitions``: ``actions`` [N] per discrete head, ``advantages`` [N] as the loss uses them, and the
        origin of the samples: ``index`` in the flattened rollout, ``env``, ``step``, each [N]. For
        ``advantage_alignment``, both: ``returns`` [N], the targets of the value loss, and ``old_values`` [N], the
        values stored at collection; their difference is the raw advantage. With ``advantages`` and ``clip_range`` it
        is recorded whether ``policy_loss`` is PPO's, with ``values`` [N] (of this forward) and ``returns`` what
        multiple of mean (V − R)² ``value_loss`` is.
        """
        if self._closed or self._sink.inert:
            return
        self.expect_minibatch()
        with self.guarded("minibatch"), torch.no_grad():
            for name in misspelt:
                self.guarded.refuse(f"minibatch({name})", arguments.unknown(name, _MINIBATCH, "minibatch argument"))
            if not self._begin_minibatch():
                return
            number = epoch if type(epoch) is int and abs(epoch) < 2**31 else 0
            if number is not epoch:
                number = self._converted("minibatch(epoch)", arguments.integer, epoch) or 0
            capture = self.minibatch_reader.read(
                {
                    "log_prob": log_prob,
                    "old_log_prob": old_log_prob,
                    "entropy": entropy,
                    "std": std,
                    "joint_log_ratio": joint_log_ratio,
                    "joint_entropy": joint_entropy,
                    "values": values,
                    "advantages": advantages,
                    "returns": returns,
                    "old_values": old_values,
                    "actions": actions,
                    "index": index,
                    "env": env,
                    "step": step,
                    "masks": masks,
                    "valid_actions": valid_actions,
                    "relevant": relevant,
                    "valid": valid,
                    "policy_loss": policy_loss,
                    "value_loss": value_loss,
                    "entropy_loss": entropy_loss,
                    "loss": loss,
                    "clip_range": clip_range,
                },
                number,
            )
            state = self._converted("minibatch(lstm)", arguments.recurrent_state, lstm)
            if state is not None:
                self._states["update"] = (state[0].clone(), None if state[1] is None else state[1].clone())
            if self.separates and isinstance(policy_loss, Tensor) and isinstance(value_loss, Tensor):
                with self.guarded("minibatch: separate losses"):
                    self.separate(policy_loss, value_loss, entropy_loss if isinstance(entropy_loss, Tensor) else None)
            self._add(capture, number)

    def expect_minibatch(self) -> None:
        """Announce the next minibatch: if recording it fails, its gradients are not attributed to the previous one."""
        self._buffer.announce()

    def captured(self, capture: Capture, epoch: int) -> None:
        """Add a minibatch that an adapter will measure when the update ends. Call it within ``guarded``."""
        if not self._closed and not self._sink.inert and self._begin_minibatch():
            self._add(capture, epoch)

    def _add(self, capture: Capture, epoch: int) -> None:
        """Add the minibatch announced: last, because an interrupted call is repeated unless it has been added."""
        with self.guarded("minibatch: lstm gates"):
            self._detail_schedule.record_gates(self._buffer.announced)
        self._buffer.add(capture, epoch)

    @property
    def separates(self) -> bool:
        """Whether to call ``separate`` with the losses of the minibatch announced last."""
        return self._detail_schedule.wants_losses(self._buffer.announced)

    def separate(self, policy_loss: Tensor, value_loss: Tensor, entropy_loss: Tensor | None) -> None:
        """Differentiate the losses of a minibatch one by one, before its backward."""
        self._detail_schedule.losses(policy_loss, value_loss, entropy_loss)

    def should_stop(self) -> bool:
        """Return whether ``stop_on`` is met by the updates judged so far; False without ``stop_on``.

        An update is judged as it ends; on a device when the next one begins to optimise, and with ``box`` a little
        later. The recorder itself never stops a training.
        """
        return self.stop_reason is not None

    @property
    def stop_reason(self) -> str | None:
        """Why the training is to stop: condition, rule and update; None: it is not."""
        return self._sink.stop_reason

    def stability_report(self) -> None:
        """Request the rows of ``tensors`` for the update in progress."""
        self._stability = True

    def _begin_minibatch(self) -> bool:
        """Finish the previous update, record the start of optimisation; return whether to record this minibatch."""
        self._sink.finish()
        self._thread = threading.get_ident()
        if not self._buffer.minibatches:
            with self.guarded("parameters"):
                self._follow_model()
            with self.guarded("parameters between updates"):
                self._between_updates.begin(self._trained(), self._buffer.other_steps)
        self._clock.optimise()
        self._detail_schedule.begin(self._update, self.level)
        if len(self._buffer.minibatches) >= MAX_MINIBATCHES:
            raise RuntimeError(f"{MAX_MINIBATCHES} minibatches without update(): call it after each inner loop")
        return self.level != "OFF"

    def _follow_model(self) -> None:
        """Rebuild the parameter map if the model's parameters have changed since the previous update."""
        if self._model is None or not self._model.changed:
            return
        events = self._model.follow()
        self.parameters = self._model.parameters
        self._reader = GradientReader(self.parameters)
        self._sink.follow(self.parameters)
        self._detail_schedule.follow(self._model.model, self.parameters if self.rank_role.records_gradients else None)
        self._changed_groups = self._model.changed_groups
        earlier, self._buffer = self._buffer, self._new_buffer()
        self._buffer.succeed(earlier)
        if self.rank_role.records_gradients:
            self._events += [{"update": self._update, **cells} for cells in events]

    def _trained(self) -> Sequence[Tensor]:
        return self.parameters.parameters if self.parameters is not None and self.level != "OFF" else ()

    def _remember_parameters(self) -> None:
        with self.guarded("parameters between updates"):
            self._between_updates.end(self._trained())

    def _forget_weights(self) -> None:
        """Discard the copied parameters of a sampled update if the model's parameters changed during it."""
        if self._detail_schedule.wanted and self._model is not None and self._model.changed:
            self._detail_schedule.forget_before()

    @completed(lambda self: self._update)  # type: ignore[arg-type]  # self is never passed by keyword
    def update(
        self,
        *,
        values: ArrayLike | None = None,
        returns: ArrayLike | None = None,
        advantages: ArrayLike | None = None,
        masks: PerHead | None = None,
        relevant: PerHead | None = None,
        lstm: tuple[ArrayLike, ArrayLike] | ArrayLike | None = None,
        td_errors: ArrayLike | None = None,
        rewards: ArrayLike | None = None,
        ends: ArrayLike | None = None,
        at_bounds: PerHead | None = None,
        observations: Mapping[str, ArrayLike] | tuple[ArrayLike, ...] | ArrayLike | None = None,
        advantage_floor: float | None = None,
        env_steps: int | None = None,
        status: str | None = None,
        reason: str | None = None,
        **cells: object,
    ) -> None:
        """End one update, after its inner loop.

        ``values``, ``returns``, ``advantages``: of the entire rollout, before the update, any shape, advantages not
        normalised. ``masks``, ``relevant``: of the entire rollout, each timestep once, [..., K] and [...] per head.
        ``lstm``: (h, c), or h alone, at the end of collection. ``td_errors``: r + γV' − V of the rollout, any shape
        (see ``recorder.td_errors``). ``rewards``: of the rollout as the training uses them (scaled, clipped), any
        shape. ``ends``: true at timesteps with which an episode ended, so that returns do not look beyond them. With
        values, returns, rewards and ends each as [T, B] (timesteps × environments) it is recorded whether they agree;
        what a loop adds to returns at a time limit belongs to the rewards. ``at_bounds``: boolean [..., A] by head,
        which components of the rollout's actions lie at or beyond a bound of the space. ``observations``: of the
        rollout as the networks see them (normalised), timesteps first: [T, B, …] or [N, …], or a mapping or tuple of
        such arrays; with values, returns or rewards.
        ``advantage_floor``: the least divisor of the loop's advantage normalisation, or its epsilon.
        ``env_steps``: since the start of the run. ``status`` and ``reason`` override what was recorded (see table
        ``updates``). ``cells``: further columns of ``updates`` known to the loop, such as learning_rate, entropy_coef,
        value_coef, gamma, target_kl, kl_reference, eval_return_mean.
        """
        if self._closed or self._sink.inert:
            return
        shutdown.recording(self)
        number = self._update
        with self.guarded("update"), torch.no_grad():
            self._sink.finish()
            rollout = {
                "values": values,
                "returns": returns,
                "advantages": advantages,
                "td_errors": td_errors,
                "rewards": rewards,
                "ends": ends,
                "masks": masks,
                "relevant": relevant,
                "at_bounds": at_bounds,
            }
            inputs = rollout_inputs(self.heads, rollout, self.guarded)
            lengths = [array.numel() for array in inputs.arrays.values()]
            self._stack_minibatches(max(lengths, default=None))
            outgoing, of_observations = Outgoing(), None
            if observations is not None:
                with self.guarded("update(observations)"):
                    of_observations = outgoing.add(self._observations.statistics(observations, lengths))
            state = self._converted("update(lstm)", arguments.recurrent_state, lstm)
            if state is not None:
                self._states["rollout"] = state
            gates = None
            with self.guarded("update: detail"):
                self._forget_weights()
                gates = self._detail_schedule.tensors(self._buffer, self._states, outgoing)
            of_states = self._state_tensors(outgoing)
            with self.guarded("update: slots"):
                outgoing |= self._slots.tensors()
            status = self._converted("update(status)", _checked_status, status)
            self._cut_short = status == "interrupted"
            if status not in ("interrupted", "nonfinite_skipped"):
                self._check_relevant(relevant)
            reason = self._converted("update(reason)", arguments.words, reason)
            floor = self._converted("update(advantage_floor)", arguments.number, advantage_floor)
            steps = self._converted("update(env_steps)", arguments.integer, env_steps)
            loop_cells, scalars = self._cells(cells)
            scalars = self._loss_scale() | self._between_updates.cells() | scalars
            of_scalars = {name: outgoing.add(cell) for name, cell in scalars.items()}
            keeps_gradients = not self._detail_schedule.wanted and self.level not in UNSAMPLED_LEVELS
            captured = CapturedUpdate(number, self._buffer, inputs, outgoing, of_observations, keeps_gradients)
            handed = self._sink.prepare(captured)

            def end() -> None:
                facts = UpdateFacts(
                    update=number,
                    cells=self._host_cells(steps) | loop_cells,
                    episodes=self._episodes,
                    status=status,
                    reason=reason,
                    advantage_floor=floor,
                    slots=self._slots.now,
                    states=of_states,
                    gates=gates,
                    scalars=of_scalars,
                    events=self._events,
                    losses=self._losses(number),
                    stability=self._stability,
                )
                self._sink.put(facts, handed)
                self._events, self._stability, self._resumed = [], False, None
                self._next_update()
                self._sink.advance()

            self._uninterrupted.run(end)
        if self._update == number:  # after an error: its rows are lost, the next update has its own number
            with self.guarded("update: end"):
                self._next_update()

    def _stack_minibatches(self, rollout: int | None) -> None:
        """Stack the minibatches for measuring; if that fails, the update keeps its row without them."""
        try:
            self.minibatch_reader.judge_matrices(len(self._buffer.minibatches), rollout)
            self._buffer.stack()
        except Exception as error:
            self.guarded.refuse("update: minibatches", error)
            self._buffer = self._buffer.emptied()

    def _converted(self, argument: str, convert: Callable[[Any], Any], value: Any) -> Any:
        return arguments.take(self.guarded, argument, convert, value)

    def _cells(self, cells_of_loop: Mapping[str, Any]) -> tuple[UpdatesRow, dict[str, Tensor]]:
        """Return the cells of ``updates`` from the loop or its optimizer, and those that are numbers on a device."""
        cells: dict[str, Any] = {"learning_rate": None}
        hooked = {"learning_rate": self._learning_rate, "optimizer_state_lost": self._optimizer_states.lost}
        for name, cell in (*hooked.items(), *cells_of_loop.items()):
            with self.guarded(f"update({name})"):
                cells[name] = arguments.cell(name, cell)
        on_device = {name: cell for name, cell in cells.items() if isinstance(cell, Tensor)}
        return cast("UpdatesRow", {name: cell for name, cell in cells.items() if name not in on_device}), on_device

    def _check_relevant(self, of_rollout: object) -> None:
        """Count a loss if only one of ``minibatch`` and ``update`` was passed causal masks."""
        if self.minibatch_reader.causal and of_rollout is None:
            missing = "passed to minibatch() but not to update(): the heads' relevant_fraction is unknown"
            self.guarded.refuse("update(relevant)", ValueError(missing))
        elif of_rollout is not None and self._buffer.minibatches and not self.minibatch_reader.causal:
            missing = "passed to update() but not to minibatch(): ratio and KL count the heads at every sample"
            self.guarded.refuse("update(relevant)", ValueError(missing))

    def _state_tensors(self, outgoing: Outgoing) -> dict[str, Handle]:
        """Schedule the statistics of recurrent states; return their handles by phase."""
        handles: dict[str, Handle] = {}
        for phase, (hidden, cell) in self._states.items():
            with self.guarded(f"lstm ({phase})"):
                statistics = lstm_statistics(hidden.detach(), None if cell is None else cell.detach())
                handles[phase] = outgoing.add(statistics)
        return handles

    def _loss_scale(self) -> dict[str, Tensor]:
        """Return the loss scale of automatic mixed precision as the cell of its column; empty without one."""
        scale = None if self.parameters is None else amp.loss_scale(self.parameters.parameters)
        return {} if scale is None else {"loss_scale": scale.reshape(-1)}

    def _host_cells(self, env_steps: int | None) -> UpdatesRow:
        """Return the columns of ``updates`` known on the host without a transfer."""
        progress = None
        if self._total_env_steps and env_steps is not None:
            progress = min(env_steps / self._total_env_steps, 1.0)
        elif self._total_updates:
            progress = min((self._update + 1) / self._total_updates, 1.0)
        self._spent = self.guarded.take()
        return self._clock.cells(self._update, self._spent) | {
            "env_steps": env_steps,
            "episodes": self._episode_count if self._episodes or self._episode_count else None,
            "progress": progress,
            "level": self.level,
            "sampled_steps": self._buffer.sampled_steps,
        }

    def _next_update(self) -> None:
        elapsed, ended, buffer = self._clock.elapsed, self._update, self._buffer
        self._update += 1
        self._changed_groups = frozenset()
        self._buffer = self._new_buffer()
        self.minibatch_reader.begin()
        self._optimizer_states.begin()
        self._remember_parameters()
        self._observations.end()
        self._states, self._episodes = {}, deque()
        self._slots.forget_calls()
        self._clock.next()
        with self.guarded("update: budget"):
            self._detail_schedule.end(ended, buffer, elapsed=elapsed, spent=self._spent)

    def skip_update(self, reason: str, **arguments: Any) -> None:
        """End an update without an optimizer step because of non-finite numbers; its row is recorded."""
        self.update(status="nonfinite_skipped", reason=reason, **arguments)

    def episode(
        self, episode_return: float, length: int | None = None, *, env: int | None = None, success: bool | None = None
    ) -> None:
        """Record a finished episode."""
        if self._closed or self._sink.inert:
            return
        with self.guarded("episode"):
            total = float(episode_return)
            steps = self._converted("episode(length)", arguments.integer, length)
            where = self._converted("episode(env)", arguments.integer, env)
            won = self._converted("episode(success)", arguments.truth, success)
            self._episode_count += 1
            self._episodes.append((total, steps, where, won))

    def checkpoint(self, path: Path | str, env_steps: int | None = None) -> None:
        """Record that the training has saved a checkpoint at ``path``, so that a report can say where to resume.

        It counts as saved after the last update that has optimizer steps, also if that has not ended yet.
        ``env_steps``: since the start of the run, of a loop that knows them. The path is kept as given.
        """
        if self._closed or self._sink.inert:
            return
        with self.guarded("checkpoint"):
            steps = self._converted("checkpoint(env_steps)", arguments.integer, env_steps)
            update = self._update if self._buffer.minibatches else self._update - 1
            self._checkpoints.add(self._sink.folder, path, update, steps)

    @restored
    def slot(
        self,
        env: int,
        slot: str,
        *,
        seed: Parameters | None,
        host: Parameters | None,
        stage: object = None,
        blueprint: object = None,
        alpha: float | Tensor | None = None,
        max_grad_norm: float | None = None,
    ) -> None:
        """Record the gradients of a seed and its host for table ``slots``, after a backward and before any clipping.

        Call it any number of times: while collecting, between minibatches, for many environments and slots. ``seed``,
        ``host``: module or parameters (None: an empty slot, no host); the seed's parameters are excluded from the host.
        ``stage``, ``blueprint``: text or enum members. ``max_grad_norm``: tensor norms above ten times it
        count as exploded. Nothing is recorded at level MINIMAL.
        """
        if self._closed or self._sink.inert or self.level in ("OFF", "MINIMAL"):
            return
        with self.guarded("slot"), torch.no_grad():
            labels = {
                "stage": self._converted("slot(stage)", slots.word, stage),
                "blueprint": self._converted("slot(blueprint)", slots.word, blueprint),
                "alpha": self._converted("slot(alpha)", slots.amount, alpha),
            }
            around = self._converted("slot(host)", slots.parameters, host)
            bound = self._converted("slot(max_grad_norm)", arguments.number, max_grad_norm)
            self._slots.take_snapshot(env, slot, seed, around, labels, bound)

    @restored
    def gradients(self, max_norm: float | None = None) -> None:
        """Measure the gradients now, in a loop that does not call ``torch.nn.utils.clip_grad_norm_``."""
        if self._model is not None and self._watching:
            with self.guarded("gradients"), torch.no_grad():
                bound = self._converted("gradients(max_norm)", arguments.number, max_norm)
                snapshot = self._take_snapshot(list(self._model.model.parameters()))
                self._buffer.minibatches[-1].record_clip(None if snapshot is None else self._wider(snapshot), bound)

    @property
    def _watching(self) -> bool:
        return self._reader is not None and not self._closed and self._buffer.attributable

    def _owns(self, parameters: Sequence[Tensor]) -> bool:
        """Return whether any of the parameters is the model's. Other trainings may call at any time, from any thread.

        Parameters added during an update are searched for in the training's own thread only: no other thread may
        iterate over a model that is being changed.
        """
        if self.parameters is None or self._model is None:
            return False
        if any(map(self.parameters.owns, parameters)):
            return True
        return threading.get_ident() == self._thread and self._model.has(parameters)

    def _take_snapshot(self, parameters: Sequence[Tensor]) -> GradientSnapshot | None:
        return self._buffer.snapshot_gradients(parameters, amp.carried(parameters))

    @staticmethod
    def _wider(snapshot: GradientSnapshot) -> Tensor | None:
        """Return the norm over all listed gradients if the map does not have them all yet, else None."""
        if snapshot.plan.complete:
            return None
        gradients = [parameter.grad for parameter in snapshot.plan.listed if parameter.grad is not None]
        if not gradients:
            return None
        total = total_norm(gradients, small=False, on_host=False)
        return total if snapshot.scale is None else total / snapshot.scale

    @restored
    def before_clip(self, parameters: list[Tensor], *, plain: bool) -> Clipped | None:
        """Record gradients before a clip call; with their total norm if it equals torch's own bit for bit.

        Then the clip need not compute it, and the time is not counted as the recorder's.
        """
        if not self._watching or not self._owns(parameters):
            return None
        spent, snapshot, wider = self.guarded.spent, None, None
        with self.guarded("gradients"), torch.no_grad():
            snapshot = self._take_snapshot(parameters)
            wider = None if snapshot is None or plain else self._wider(snapshot)
        if snapshot is None:
            return None
        total = snapshot.total if plain and snapshot.plan.complete else None
        if total is not None:
            self.guarded.spent = spent
        return Clipped(self._buffer.minibatches[-1], snapshot, total, wider)

    @restored
    def after_clip(self, clipped: Clipped, total: Tensor, max_norm: object, norm_type: float) -> None:
        """Record the norm returned by the clip call."""
        with self.guarded("clip"), torch.no_grad():
            snapshot, norm = clipped.snapshot, clipped.wider
            if norm_type == 2.0 and snapshot.scale is None:
                norm = total
            elif norm_type == 2.0 and snapshot.scale is not None and not snapshot.plan.complete:
                norm = total / snapshot.scale
            bound = float(max_norm) if norm_type == 2.0 and isinstance(max_norm, (int, float)) else None
            clipped.minibatch.record_clip(norm, bound)

    @restored
    def before_step(self, optimizer: Optimizer) -> None:
        """Record gradients as the optimizer takes them."""
        if self._reader is None or self._closed:
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not self._owns(parameters):
            return
        if not self._watching:
            self._buffer.other_steps += 1
            return
        with self.guarded("step"), torch.no_grad():
            self._buffer.record_step(parameters, amp.carried(parameters))
            self._learning_rate = optimizer.param_groups[0].get("lr")
            self._optimizer_states.before_step(optimizer)

    def _losses(self, update: int) -> list[LossesOfDataRow]:
        """Return the rows of ``losses_of_data`` for wall-clock changes and a resume."""
        losses: list[LossesOfDataRow] = []
        moved = self._clock.step(update)
        if moved is not None:
            detail = f"the wall clock was set by {moved:+.1f} s"
            losses.append({"update": update, "kind": "clock_step", "detail": detail, "rows": 0})
        if self._resumed is not None:
            detail = f"attempt {self._attempt} continues at update {update}{RESUMES[self._resumed]}"
            losses.append({"update": update, "kind": self._resumed, "detail": detail, "rows": 0})
        return losses

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the next update and the state of detector and slots, as plain data for a checkpoint.

        Call it between updates. Waits for the transfer of the ended update, if it is still in progress.
        """
        return {"update": self._update, "episodes": self._episode_count, **self._sink.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a checkpoint: number updates from there and judge them as without an interruption.

        ``state["detector"]`` None: only the numbering continues, the detector starts fresh.
        Raises ``RuntimeError`` after an update was recorded, ``ValueError`` if the state does not fit the rules.
        """
        if self._update != self._first_update or self._buffer.minibatches:
            raise RuntimeError("load_state_dict() must come before the first update of this recording")
        self._sink.load(state)
        self._update = self._first_update = int(state["update"])
        self._episode_count = int(state["episodes"])
        if state["detector"] is not None:
            self._resumed = CONTINUED if self._resumed is None else "resumed"

    @completed(lambda self: self._closed)
    def close(self, reason: str = "closed") -> None:
        """End the recording: the update in progress is kept as interrupted, everything is sealed. Idempotent.

        An exception interrupts an update wherever it comes, also before the first minibatch.
        """
        if self._closed:
            return
        failed = isinstance(reason, shutdown.Failure)
        try:
            if not self._sink.inert:
                self._cut_off(reason, failed=failed)
                with self.guarded("close"):
                    self._sink.finish()
        except Exception as error:
            if not failed:  # else the exception that ended the training is the one to be seen
                raise
            LOG.error("recorder: the update that was cut short could not be recorded: %s", error)
        finally:
            self._uninterrupted.run(lambda: self._end_recording(reason))

    def _cut_off(self, reason: str, *, failed: bool) -> None:
        """Record the update in progress as interrupted."""
        if self._buffer.minibatches or (failed and self._update > 0 and not self._cut_short):
            self.update(status="interrupted", reason=reason)

    def _end_recording(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        losses = self.guarded.take_losses(self._update) + self._slots.left_out(self._update)
        losses += self._checkpoints.close(self._update)
        self._detail_schedule.close()
        if self.parameters is not None:
            clip.unwatch(self)
            amp.unwatch()
        shutdown.forget(self)
        with self.guarded("close"):
            self._sink.close(reason, losses)
            if self._console is not None:
                self._console.ended(self._update, reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("closed" if error is None else shutdown.reason_of(error))


ARGUMENTS: tuple[str, ...] = tuple(inspect.signature(Recorder).parameters)
"""The names of the arguments of ``Recorder``, and that of its further facts."""
_MINIBATCH = [name for name in inspect.signature(Recorder.minibatch).parameters if name not in ("self", "misspelt")]


def _parts(name: str, parts: Parts | None) -> Parts | None:
    """Return a head's parts, an iterator as a list. Raises ``TypeError`` for other types."""
    if parts is None or isinstance(parts, (nn.Module, nn.Parameter, ParameterRows)):
        return parts
    if not isinstance(parts, Iterable):
        raise TypeError(
            f"heads[{name!r}] is of type {type(parts).__name__}: pass a module, parameters, Rows or None; "
            "pass numbers of actions as sizes="
        )
    return list(parts)


def _checked_status(status: str) -> str:
    if status not in STATUSES:
        raise ValueError(f"status {status!r} is none of {', '.join(STATUSES)}; the row has the recorded status instead")
    return status
