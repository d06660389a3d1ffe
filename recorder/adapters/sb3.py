"""Attach to Stable-Baselines3 PPO and sb3-contrib RecurrentPPO and MaskablePPO.

Nothing is stored in the model itself (``save`` would pickle it): methods of the policy and buffer instances are
wrapped while attached. ``train()`` is not replaced.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from recorder.adapters.gaussian import bounds_of, std_of
from recorder.adapters.sb3_checkpoints import follow_saves
from recorder.adapters.sb3_minibatch import Hyperparameters, RolloutRows, Sb3Capture, separate_losses
from recorder.adapters.sb3_policy import PolicyLayout, policy_layout
from recorder.adapters.wrapped import Wrappers, for_later, recorded
from recorder.measure.values import td_errors
from recorder.options import integer, refuse_determined, refuse_misspelt
from recorder.plan import TrainingPlan
from recorder.recorder import ARGUMENTS, Recorder

STEPS_TOGETHER = 16
"""Rollout steps whose logits are copied by one operation."""
_HYPERPARAMETERS = (
    "n_steps",
    "batch_size",
    "n_epochs",
    "gamma",
    "gae_lambda",
    "ent_coef",
    "vf_coef",
    "max_grad_norm",
    "normalize_advantage",
    "target_kl",
    "learning_rate",
    "n_envs",
    "seed",
    "use_sde",
)

_DETERMINED = dict.fromkeys(("sizes", "kinds", "groups"), "leave it out") | {
    "total_env_steps": "leave it out, or pass total_timesteps="
}
"""Arguments of ``Recorder`` that the model determines, and what to do instead."""


@contextmanager
def attach(
    model: Any,
    run_dir: Path | str | None = None,
    *,
    heads: Sequence[str] | None = None,
    total_timesteps: int | None = None,
    **options: Any,
) -> Iterator[Recorder]:
    """Record ``model.learn(...)`` inside the ``with`` into ``run_dir``.

    ``heads`` names the factors of a MultiDiscrete action space. ``total_timesteps``: planned length of the run over
    all its calls of ``learn``, for ``progress``; without it the plan is that of the first ``learn``, and progress is
    null once another call changes it. ``options`` go to ``Recorder`` (level, thresholds, strict, name …).
    Raises ``TypeError`` for a model other than PPO; an exception of the training passes through after the
    interrupted update has been recorded.
    """
    with recorded(Sb3Attachment(model, run_dir, heads=heads, total_timesteps=total_timesteps, **options)) as recorder:
        yield recorder


class Sb3RecorderCallback(BaseCallback):
    """Callback that records a ``learn``. Takes the arguments of ``attach``, without the model.

    Used in several calls of ``learn`` of one model, it records one run: each call is an attempt, which continues
    numbering and detector where the one before ended. Another model is recorded as another run, into ``run_dir-2``.

    SB3 does not notify callbacks when ``learn`` raises; the run is then closed at exit. ``attach`` closes it at once.
    """

    def __init__(self, run_dir: Path | str | None = None, **options: Any) -> None:
        super().__init__()
        self._options = for_later(run_dir, options)  # the working directory may change before training starts
        self._plan = TrainingPlan()
        self._attachment: Sb3Attachment | None = None
        self._again: dict[str, Any] = {}  # options for a further ``learn`` of the same model
        self._state: dict[str, Any] | None = None
        self._trained: weakref.ref[Any] | None = None

    def _on_training_start(self) -> None:
        if self._attachment is not None:
            return
        if self._trained is not None and self._trained() is not self.model:
            self._again, self._state, self._plan = {"exists": "number", "resume": False}, None, TrainingPlan()
        self._attachment = Sb3Attachment(self.model, plan=self._plan, **(self._options | self._again))
        recorder = self._attachment.recorder
        if self._state is not None:
            recorder.load_state_dict(self._state)
        self._trained = weakref.ref(self.model)
        self._again = {"run_dir": recorder.run_dir, "exists": "refuse", "resume": True}

    def _on_step(self) -> bool:
        return self._attachment is None or not self._attachment.recorder.should_stop()

    def _on_training_end(self) -> None:
        if self._attachment is not None:
            self._attachment.end_update()
            self._state = self._attachment.recorder.state_dict()
            self._attachment.detach("closed")
            self._attachment = None


RecorderCallback = Sb3RecorderCallback
"""The public name of the callback."""


class Sb3Attachment:
    """The wrappers around one model, and the state of the rollout and minibatch in progress."""

    def __init__(
        self,
        model: Any,
        run_dir: Path | str | None = None,
        *,
        heads: Sequence[str] | None = None,
        total_timesteps: int | None = None,
        plan: TrainingPlan | None = None,
        **options: Any,
    ) -> None:
        if not (hasattr(model, "rollout_buffer") and hasattr(model, "clip_range") and hasattr(model, "policy")):
            raise TypeError(f"{type(model).__name__} is no PPO of Stable-Baselines3: it has no clip range or buffer")
        refuse_misspelt(options, ("heads", "total_timesteps", *ARGUMENTS), "attach")
        refuse_determined(options, _DETERMINED)
        self.model = model
        self.layout: PolicyLayout = policy_layout(model, heads)
        self.recorder = Recorder(
            run_dir,
            model.policy,
            heads=self.layout.head_parts,
            sizes=self.layout.heads.sizes,
            kinds=self.layout.heads.kinds,
            groups=self.layout.groups,
            total_env_steps=integer("total_timesteps", total_timesteps),
            **_facts(model),
            **options,
        )
        self._wrappers = Wrappers(self.recorder.guarded)
        self._plan = plan or TrainingPlan()
        self._sampled: np.ndarray[Any, Any] | None = None
        self._visited = 0
        self._collected = False
        self._step_logits: list[Tensor] = []  # per head [envs, size], of the last steps, head after head
        self._kept_logits: deque[Tensor] = deque(maxlen=-(-int(model.n_steps) // STEPS_TOGETHER) + 1)
        self._steps_kept = 0
        self._acted: list[tuple[Any, list[Tensor]]] = []
        self._old_heads: Tensor | None = None
        self._train_settings: Hyperparameters | None = None
        self._rollout: RolloutRows | None = None
        self._td_errors: Tensor | None = None
        self._ends: np.ndarray[Any, Any] | None = None  # [T, B]
        self._last_episode: Any = None
        self._finished: list[Any] = []  # of the last step, in the order of environments
        buffer, policy = model.rollout_buffer, model.policy
        self._wrappers.wrap(buffer, "reset", before=lambda *_: self._boundary())
        self._wrappers.wrap(buffer, "add", after=self._on_add)
        self._wrappers.wrap(buffer, "compute_returns_and_advantage", after=self._on_collected)
        self._wrappers.wrap(buffer, "_get_samples", after=self._on_samples)
        self._wrappers.wrap(policy, "evaluate_actions", after=self._on_evaluated)
        if self.layout.factored:
            self._wrappers.wrap(policy, "forward", after=self._on_forward)
        follow_saves(self._wrappers, model, self.recorder)

    def end_update(self, interrupted: str | None = None) -> None:
        """Record the update in progress."""
        with self.recorder.guarded("detach"):
            self._record_episodes(None)
            self._boundary(interrupted)

    def detach(self, reason: str) -> None:
        """Record the update in progress, remove the wrappers, close the run."""
        self.end_update(None if reason == "closed" else reason)
        self._wrappers.undo()
        self.recorder.close(reason)

    def _on_add(self, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
        """Keep the logits of the step and its finished episodes; the model keeps only the last 100 of them."""
        if self.layout.factored:
            self._keep_logits(args[5] if len(args) > 5 else kwargs.get("log_prob"))
        self._record_episodes(args[3] if len(args) > 3 else kwargs.get("episode_start"))
        ring = self.model.ep_info_buffer
        if not ring or ring[-1] is self._last_episode:
            return
        finished = []
        for episode in reversed(ring):
            if episode is self._last_episode:
                break
            finished.append(episode)
        self._last_episode = finished[0]
        self._finished = finished[::-1]

    def _record_episodes(self, ended: Any) -> None:
        """Record the episodes that finished in the step before; ``ended`` [B]: where an episode ended with it.

        SB3 lists them in the order of environments. Where not each end is the end of a listed episode, as with wrappers
        that end an episode with a life, it is unknown whose they are.
        """
        if not self._finished:
            return
        finished, self._finished = self._finished, []
        environments = [] if ended is None else np.flatnonzero(np.asarray(ended)).tolist()
        for index, episode in enumerate(finished):
            env = environments[index] if len(environments) == len(finished) else None
            self.recorder.episode(float(episode["r"]), int(episode["l"]), env=env)

    def _on_forward(self, _: tuple[Any, ...], __: dict[str, Any], result: Any) -> None:
        """Keep the logits from which actions were sampled: SB3 stores only the sum of the heads' log-probs."""
        if not result[1].requires_grad:
            self._acted.append((result[2], [distribution.logits for distribution in self._distributions()]))

    def _keep_logits(self, log_probs: Any) -> None:
        """Keep the logits of the forward whose log-probs go into the buffer; a callback may have run other forwards.

        They are copied together every few steps: a copy per step, or thousands of small live tensors, cost more.
        """
        for forward_log_probs, logits in self._acted:
            if forward_log_probs is log_probs:
                self._step_logits += logits
                self._steps_kept += 1
                if self._steps_kept % STEPS_TOGETHER == 0:
                    self._kept_logits.append(torch.cat(self._step_logits, dim=1))
                    self._step_logits.clear()
        self._acted.clear()

    def _distributions(self) -> Sequence[Any]:
        dist = self.model.policy.action_dist
        distributions: Sequence[Any] = getattr(dist, "distributions", None) or dist.distribution
        return distributions

    def _on_collected(self, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
        """Compute TD errors while the buffer still separates time and environments; count the collected steps."""
        self._collected = True
        self._plan.reach(int(self.model.num_timesteps), getattr(self.model, "_total_timesteps", None))
        arguments = dict(zip(("last_values", "dones"), args, strict=False)) | kwargs
        buffer = self.model.rollout_buffer
        last, dones = arguments.get("last_values"), arguments.get("dones")
        self._record_episodes(dones)
        if last is not None and dones is not None:
            self._ends = np.concatenate([buffer.episode_starts[1:], np.asarray(dones)[None]]).astype(np.float32)
            self._td_errors = td_errors(
                torch.as_tensor(buffer.values),
                torch.as_tensor(buffer.rewards),
                torch.as_tensor(self._ends),
                torch.as_tensor(last).detach().cpu().flatten(),
                float(buffer.gamma),
            )

    def _on_samples(self, args: tuple[Any, ...], *_: Any) -> None:
        self._sampled = np.asarray(args[0])

    def _on_evaluated(self, _: tuple[Any, ...], __: dict[str, Any], result: Any) -> None:
        if self._sampled is None:
            return
        indices, self._sampled = self._sampled, None
        self.recorder.expect_minibatch()
        values, log_prob, entropy = result
        buffer, policy = self.model.rollout_buffer, self.model.policy
        if self._rollout is None:
            self._rollout = RolloutRows(buffer, self._old_log_probs, log_prob.device)
        capture = Sb3Capture(
            self.layout,
            self._settings(),
            self._rollout,
            indices,
            getattr(buffer, "seq_start_indices", None),
            values.detach(),
            log_prob.detach(),
            None if entropy is None else entropy.detach(),
            tuple([distribution.logits.detach() for distribution in self._distributions()])
            if self.layout.factored
            else (),
            None if self.layout.heads.categorical else std_of(getattr(policy.action_dist, "distribution", None)),
        )
        epoch = self._visited // max(len(buffer.actions), 1)
        self._visited += len(indices)  # even if something fails below
        self.recorder.captured(capture, epoch)
        if self.recorder.separates:
            losses = separate_losses(capture, values, log_prob, entropy)
            self.recorder.separate(losses["policy_loss"], losses["value_loss"], losses["entropy_loss"])

    def _settings(self) -> Hyperparameters:
        """Return the inputs of SB3's loss; SB3 evaluates its schedules once per ``train``."""
        if self._train_settings is None:
            model = self.model
            progress = model._current_progress_remaining
            bound = None if model.clip_range_vf is None else float(model.clip_range_vf(progress))
            self._train_settings = Hyperparameters(
                float(model.clip_range(progress)), bound, model.normalize_advantage, model.ent_coef, model.vf_coef
            )
        return self._train_settings

    def _old_log_probs(self) -> Tensor:
        """Return log-probs per head [H, envs·steps] of the entire rollout, in the order of the flattened buffer."""
        if self._old_heads is not None:
            return self._old_heads
        rollout = self._rollout
        if rollout is None or self._steps_kept < rollout.steps or rollout.steps != self.model.n_steps:
            raise RuntimeError(
                f"only {self._steps_kept} steps of the rollout were recorded: attached during a rollout?"
            )
        width = rollout.steps * sum(self.layout.factored)
        collected = torch.cat([*self._kept_logits, *self._step_logits], dim=1)[:, -width:]
        logits = collected.reshape(rollout.steps * rollout.envs, -1)
        actions = rollout("actions").long()
        parts = torch.split(logits, list(self.layout.factored), dim=1)
        self._old_heads = torch.stack(
            [part.gather(1, actions[:, column : column + 1]).squeeze(1) for column, part in enumerate(parts)]
        )
        return self._old_heads

    def _boundary(self, interrupted: str | None = None) -> None:
        """End the update whose rollout is in the buffer, if that was complete."""
        if self._collected:
            model, buffer = self.model, self.model.rollout_buffer
            self.recorder.update(
                values=_timesteps(buffer, "values"),
                returns=_timesteps(buffer, "returns"),
                advantages=_timesteps(buffer, "advantages"),
                masks=self._rollout_masks(buffer),
                at_bounds=self._at_bounds(buffer),
                lstm=self._lstm_state(),
                td_errors=self._td_errors,
                ends=self._ends,
                observations=getattr(buffer, "observations", None),
                rewards=_timesteps(buffer, "rewards"),  # with what SB3 adds to them at a time limit
                advantage_floor=1e-8 if model.normalize_advantage else None,
                env_steps=self._plan.done,
                **self._plan.cells(planned=self.recorder.planned),
                entropy_coef=model.ent_coef,
                value_coef=model.vf_coef,
                gamma=buffer.gamma,
                target_kl=model.target_kl,
                status=None if interrupted is None else "interrupted",
                reason=interrupted,
            )
        self._collected, self._visited, self._sampled, self._old_heads = False, 0, None, None
        self._train_settings = self._rollout = self._td_errors = self._ends = None
        self._steps_kept = 0
        self._step_logits.clear()
        self._kept_logits.clear()

    def _rollout_masks(self, buffer: Any) -> dict[str, Any] | None:
        masks = getattr(buffer, "action_masks", None)
        if masks is None or not self.layout.heads.categorical:
            return None
        flat = masks.reshape(-1, masks.shape[-1])
        edges = np.cumsum(self.layout.factored or (0,))[:-1]
        return dict(zip(self.layout.heads.names, np.split(flat, edges, axis=1), strict=True))

    def _at_bounds(self, buffer: Any) -> np.ndarray[Any, Any] | None:
        """Return which components of the actions lie at a bound; a policy that squashes stores them from −1 to 1."""
        bounds = bounds_of(self.model.action_space)
        if bounds is None:
            return None
        low, high = (-1.0, 1.0) if self.model.policy.squash_output else bounds
        at: np.ndarray[Any, Any] = (buffer.actions <= low) | (buffer.actions >= high)
        return at

    def _lstm_state(self) -> tuple[Tensor, Tensor] | None:
        """Return h and c at the end of collection, the critic's layers after the actor's."""
        states = getattr(self.model, "_last_lstm_states", None)
        if states is None:
            return None
        if getattr(self.model.policy, "lstm_critic", None) is None:
            return states.pi[0], states.pi[1]
        return torch.cat([states.pi[0], states.vf[0]]), torch.cat([states.pi[1], states.vf[1]])


def _timesteps(buffer: Any, name: str) -> np.ndarray[Any, Any]:
    """Return an array of the buffer as [T, B]; sampling from the buffer flattens it, environment after environment."""
    array: np.ndarray[Any, Any] = getattr(buffer, name)
    steps, count = int(buffer.buffer_size), int(buffer.n_envs)
    return array if array.shape == (steps, count) else array.reshape(count, steps).swapaxes(0, 1)


def _facts(model: Any) -> dict[str, Any]:
    hyperparameters = {name: getattr(model, name, None) for name in _HYPERPARAMETERS}
    hyperparameters["clip_range"] = model.clip_range
    for name in ("learning_rate", "clip_range"):
        schedule = getattr(model, name)
        schedule = getattr(schedule, "value_schedule", schedule)  # SB3 wraps what it is given, a number too
        if callable(schedule):
            hyperparameters[name] = _schedule(schedule)
    try:
        environment = _environment(model)
    except Exception:  # vectorised environments of others need not know their parts
        environment = None
    points = ["evaluate_actions", "rollout buffer", "clip_grad_norm_", "optimizer step"]
    return {
        "framework": "stable-baselines3",
        "algorithm": type(model).__name__,
        "policy": type(model.policy).__name__,
        "environment": environment,
        "action_space": str(model.action_space),
        "hyperparameters": hyperparameters,
        "attach_points": points,
    }


def _schedule(schedule: Any) -> str | float:
    """Return the name of a schedule, with its values at the start and at the end of training; one value as a number."""
    qualified = getattr(schedule, "__qualname__", type(schedule).__name__)
    name = ".".join(qualified.split(".<locals>.")[-2:]).replace("<lambda>", "lambda")  # the function, and what made it
    try:
        first, last = float(schedule(1.0)), float(schedule(0.0))
    except Exception as error:  # it is the training's own; SB3 will say so
        return f"{name}: {type(error).__name__}"
    return first if first == last else f"{name}: {first:.6g} → {last:.6g}"


def _environment(model: Any) -> str | None:
    """Return the id of the environment, None if it has none or runs in other processes."""
    parts = getattr(model.env.unwrapped, "envs", None)  # of this process alone: a worker may not be able to answer
    spec = getattr(getattr(parts[0], "unwrapped", None), "spec", None) if parts else None
    return None if spec is None else str(spec.id)
