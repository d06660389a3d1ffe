"""Attach to TorchRL's ``ClipPPOLoss``, and to the collector whose rollouts it trains on.

The loss shares its modules with the collector, so they are observed only while the loss runs: its distribution, the
log-prob and entropy computed from it, the values of its critic. Nothing that costs more than a sum is computed twice,
and nothing is sampled at random.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tensordict import is_tensor_collection
from torch import Tensor
from torchrl.objectives import PPOLoss

from recorder.adapters.roles import actor_and_critic
from recorder.adapters.torchrl_policy import chosen, entropy_key, heads_of, masks_of, model_of, rows, stds_of
from recorder.adapters.wrapped import Wrappers, recorded
from recorder.capture.parameters import Parts
from recorder.options import refuse_determined, refuse_misspelt
from recorder.recorder import ARGUMENTS, Recorder

STANDARDIZE_FLOOR = torch.finfo(torch.float).resolution
"""Least divisor of ``normalize_advantage``."""
UNSEEN_ROLLOUT = (
    "minibatches but no rollout seen, so all of them count as one update; "
    "pass collector=, or pass each batch to TorchRLAttachment.rollout()"
)
_COEFFICIENTS = ("clip_epsilon", "clip_epsilon_low", "clip_epsilon_high", "entropy_coeff", "critic_coeff", "clip_value")
_SETTINGS = ("entropy_bonus", "loss_critic_type", "normalize_advantage", "separate_losses")


@contextmanager
def attach(
    loss: PPOLoss,
    run_dir: Path | str | None = None,
    *,
    collector: Any = None,
    heads: Sequence[str] | Mapping[str, Parts | None] | None = None,
    **options: Any,
) -> Iterator[Recorder]:
    """Record the training inside the ``with`` into ``run_dir``.

    ``collector``: what the loop (or TorchRL's ``Trainer``) iterates over; each batch begins an update. A loop
    without one creates a ``TorchRLAttachment`` and passes its batches to ``rollout``. ``heads`` names the factors of a
    ``CompositeDistribution``, in its order, with their own modules if it is a mapping; a single head has all parameters
    that only the actor uses. ``options`` go to ``Recorder``. Ratios are relative to the stored log-probs, also with a
    delayed actor. The loss must be called with a tensordict. Raises ``TypeError`` for another loss,
    ``ValueError`` for heads that do not fit.
    """
    with recorded(TorchRLAttachment(loss, run_dir, collector=collector, heads=heads, **options)) as recorder:
        yield recorder


@dataclass(slots=True)
class _LossCall:
    """Observations of one call of the loss."""

    distribution: Any = None
    log_probs: list[Any] = field(default_factory=list)
    entropies: list[Any] = field(default_factory=list)
    values: Tensor | None = None
    thread: int = field(default_factory=threading.get_ident)


class TorchRLAttachment:
    """The wrappers around one loss and its collector, and the state of the update in progress."""

    def __init__(
        self,
        loss: PPOLoss,
        run_dir: Path | str | None = None,
        *,
        collector: Any = None,
        heads: Sequence[str] | Mapping[str, Parts | None] | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(loss, PPOLoss):
            raise TypeError(f"{type(loss).__name__} is no PPO loss of TorchRL")
        refuse_misspelt(options, ("collector", *ARGUMENTS), "attach")
        refuse_determined(options, dict.fromkeys(("kinds", "groups"), "leave it out"))
        self.loss, self.heads = loss, heads_of(loss, heads)
        names = [head.name for head in self.heads]
        model = model_of(loss)
        groups = None if model is loss else actor_and_critic(loss.actor_network, loss.critic_network)
        parts: dict[str, Parts | None] = dict(heads) if isinstance(heads, Mapping) else {}
        if len(names) == 1 and groups is not None:
            parts.setdefault(names[0], groups["actor"])
        self.recorder = Recorder(
            run_dir,
            model,
            heads={name: parts.get(name) for name in names},
            kinds={head.name: head.kind for head in self.heads},
            groups=groups,
            **(_facts(loss, collector) | options),
        )
        self._separate = bool(options.get("separate_backward"))
        self._wrappers = Wrappers(self.recorder.guarded)
        self._call: _LossCall | None = None
        self._data: Any = None
        self._rollout_arguments: dict[str, Any] | None = None
        self._masks: dict[str, list[Tensor]] = {}
        self._visited = self._frames = 0
        self._coefficients: dict[str, float] = {}
        self._wrappers.wrap(loss, "forward", before=self._on_call, after=self._on_loss)
        self._wrappers.wrap(loss.actor_network, "get_dist", after=self._on_distribution, when=self._listening)
        if loss.critic_network is not None:
            self._wrappers.wrap(loss.critic_network, "forward", after=self._on_values, when=self._listening)
        if collector is not None:
            self._wrappers.wrap(collector, "iterator", after=lambda _, __, iterator: self._rollouts(iterator))

    def detach(self, reason: str) -> None:
        """Record the update in progress, remove the wrappers, close the run."""
        with self.recorder.guarded("detach"):
            self._end_update(None if reason == "closed" else reason)
        self._wrappers.undo()
        self.recorder.close(reason)

    def rollout(self, data: Any) -> Any:
        """Use ``data``, just collected, as the rollout of the next update; the previous update ends. Return ``data``.

        Also usable as an operation for ``Trainer.register_op("batch_process", …)``.
        """
        if data is self._data and self._rollout_arguments is None:  # passed twice
            return data
        with self.recorder.guarded("rollout"):
            self._end_update(None)
            self._data = data
            self._frames += data.numel()
            self._episodes(data)
        return data

    def _rollouts(self, iterator: Iterator[Any]) -> Iterator[Any]:
        for data in iterator:
            yield self.rollout(data)

    def _episodes(self, data: Any) -> None:
        """Record finished episodes, if ``RewardSum`` and ``StepCounter`` kept their return and length."""
        sums, ends = data.get(("next", "episode_reward"), None), data.get(("next", "done"), None)
        if sums is None or ends is None or sums.shape != ends.shape:
            return
        lengths = data.get(("next", "step_count"), None)
        for index in ends.cpu().nonzero().tolist():
            at = tuple(index)
            env = index[0] if data.ndim > 1 else None
            self.recorder.episode(float(sums[at]), None if lengths is None else int(lengths[at]), env=env)

    def _on_call(self, *_: Any) -> None:
        self._call = _LossCall() if torch.is_grad_enabled() else None

    def _listening(self) -> bool:
        """Return whether the loss runs in this thread; a collector may use the same modules in another one."""
        call = self._call
        return call is not None and call.thread == threading.get_ident()

    def _on_distribution(self, _: Any, __: Any, distribution: Any) -> None:
        """Observe the first distribution of the loss: a second one is that of a delayed actor."""
        call = self._call
        if call is None or call.distribution is not None:
            return
        call.distribution = distribution
        distribution.log_prob = _recording_results(distribution.log_prob, call.log_probs)
        distribution.entropy = _recording_results(distribution.entropy, call.entropies)

    def _on_values(self, _: Any, __: Any, data: Any) -> None:
        if self._call is not None and is_tensor_collection(data):
            self._call.values = data.get(self.loss.tensor_keys.value, None)

    def _on_loss(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        self.recorder.expect_minibatch()
        for name in ("log_prob", "entropy"):
            vars(call.distribution).pop(name, None)
        data = args[0] if args else kwargs.get("tensordict")
        if not is_tensor_collection(data):
            raise TypeError(
                "the loss was called with tensors by name; call it with a tensordict so that it can be recorded"
            )
        if self._rollout_arguments is None:
            self._rollout_arguments = self._arguments_of_rollout()
            self._coefficients = _coefficients(self.loss)
        self._minibatch(data, result, call)

    def _arguments_of_rollout(self) -> dict[str, Any]:
        """Return values, returns and advantages from before the first minibatch: later epochs replace them."""
        if self._data is None:
            return {}
        keys = self.loss.tensor_keys
        keys_of = {"values": keys.value, "returns": keys.value_target, "advantages": keys.advantage}
        keys_of["rewards"] = ("next", keys.reward)
        tensors = {name: self._data.get(key, None) for name, key in keys_of.items()}
        if tensors["values"] is None:  # a batch without values: nothing to compare returns with
            tensors["returns"] = None
        return {name: None if tensor is None else self._timesteps(tensor) for name, tensor in tensors.items()}

    def _timesteps(self, tensor: Tensor) -> Tensor:
        """Return a copy of a tensor [B, T, 1] of the rollout as [T, B]; of any other batch size as [N]."""
        assert self._data is not None
        copied = tensor.detach().clone()
        two = self._data.ndim == 2 and copied.numel() == self._data.numel()
        return copied.reshape(self._data.shape).transpose(0, 1) if two else copied.reshape(-1)

    def _minibatch(self, data: Any, result: Any, call: _LossCall) -> None:
        keys = self.loss.tensor_keys
        advantages = data.get(keys.advantage, None)
        samples = data.numel() if advantages is None else advantages.numel()
        masks = masks_of(call.distribution, self.heads, samples)
        actions = {head.name: chosen(data.get(head.action), samples) for head in self.heads if head.name in masks}
        returns, old_values = data.get(keys.value_target, None), data.get(keys.value, None)
        both = returns is not None and old_values is not None
        self.recorder.minibatch(
            log_prob=self._by_head(call.log_probs[0], samples, [head.log_prob for head in self.heads]),
            old_log_prob={head.name: rows(data.get(head.log_prob), samples) for head in self.heads},
            entropy=self._entropy(call, result, samples),
            std=stds_of(call.distribution, self.heads) or None,
            valid_actions=self._counts(masks),
            clip_range=self._coefficients.get("clip_epsilon"),
            values=None if call.values is None else call.values.reshape(-1),
            actions=actions or None,
            advantages=None if advantages is None or self._changes_advantages else advantages.reshape(-1),
            returns=returns if both else None,
            old_values=old_values if both else None,
            epoch=self._visit(samples, masks),
            **self._losses(result),
        )

    def _visit(self, samples: int, masks: dict[str, Tensor]) -> int:
        """Count the samples of a minibatch; return its epoch. The masks of the first epoch are the rollout's."""
        if self._data is None:
            self.recorder.guarded.warn_once("rollout", UNSEEN_ROLLOUT)
            return 0
        size, before = self._data.numel(), self._visited
        if before < size:
            for name, mask in masks.items():
                self._masks.setdefault(name, []).append(mask)
        self._visited += samples
        return int(before // size)

    def _counts(self, masks: dict[str, Tensor]) -> Tensor | None:
        """Return counts of valid actions [H, N], 0 for a head that is not categorical."""
        if not masks:
            return None
        counts = {name: mask.sum(-1) for name, mask in masks.items()}
        nothing = torch.zeros_like(next(iter(counts.values())))
        return torch.stack([counts.get(head.name, nothing) for head in self.heads])

    @property
    def _changes_advantages(self) -> bool:
        """Whether the loss uses other advantages than those in the data; then they are not recorded."""
        return bool(self.loss.normalize_advantage or getattr(self.loss, "advantage_norm", None) is not None)

    def _by_head(self, numbers: Any, samples: int, keys: Sequence[Any]) -> dict[str, Tensor]:
        if not is_tensor_collection(numbers):
            return {self.heads[0].name: rows(numbers, samples)}
        if len(self.heads) > 1:
            return {head.name: rows(numbers.get(key), samples) for head, key in zip(self.heads, keys, strict=True)}
        parts = [rows(part, samples) for part in numbers.values(include_nested=True, leaves_only=True)]
        return {self.heads[0].name: torch.stack(parts).sum(0)}

    def _entropy(self, call: _LossCall, result: Any, samples: int) -> dict[str, Tensor] | None:
        """Return closed-form entropies; None for those that the loss estimates by sampling."""
        composite = result.get("composite_entropy", None)
        if composite is not None:
            keys = [entropy_key(head.log_prob) for head in self.heads]
            return self._by_head(composite, samples, keys)
        if hasattr(call.distribution, "dists"):
            return None
        if not call.entropies:
            try:
                call.entropies.append(call.distribution.entropy().detach())
            except NotImplementedError:
                return None
        return self._by_head(call.entropies[0], samples, ())

    def _losses(self, result: Any) -> dict[str, Any]:
        """Return the losses without their coefficients, and the differentiated sum."""
        parts = {name: _mean(loss) for name, loss in result.items() if name.startswith("loss_")}
        critic, bonus, entropy = parts.get("loss_critic"), parts.get("loss_entropy"), result.get("entropy", None)
        weight, scale = (self._coefficients.get(name) for name in ("critic_coeff", "entropy_coeff"))
        if self._separate and bonus is not None and scale:  # the entropy itself has no graph
            entropy = -bonus / scale
        return {
            "policy_loss": parts["loss_objective"],
            "value_loss": critic / weight if critic is not None and weight else None,
            "entropy_loss": None if entropy is None else -entropy,
            "loss": torch.stack(list(parts.values())).sum(),
        }

    def _end_update(self, interrupted: str | None) -> None:
        if self._data is not None and (self._rollout_arguments is not None or interrupted is None):
            masks = {name: torch.cat(parts) for name, parts in self._masks.items()}
            normalised = self.loss.normalize_advantage
            self.recorder.update(
                **(self._rollout_arguments or {}),
                masks={name: mask for name, mask in masks.items() if len(mask) == self._data.numel()} or None,
                advantage_floor=STANDARDIZE_FLOOR if normalised else None,
                env_steps=self._frames,
                entropy_coef=self._coefficients.get("entropy_coeff"),
                status=None if interrupted is None else "interrupted",
                reason=interrupted,
            )
        self._data, self._rollout_arguments, self._visited = None, None, 0
        self._masks.clear()


Attachment = TorchRLAttachment
"""Alias for loops written for earlier versions."""


def _recording_results(method: Callable[..., Any], results: list[Any]) -> Callable[..., Any]:
    """Return ``method`` with its results appended to ``results``, detached."""

    def listening(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        results.append(result.detach())
        return result

    return listening


def _mean(loss: Tensor) -> Tensor:
    return loss.reshape(()) if loss.numel() == 1 else loss.mean()


def _coefficients(loss: PPOLoss) -> dict[str, float]:
    """Return the loss's current coefficients (they may follow a schedule), rounded to the decimals passed by the user.

    With entropy weights by head, TorchRL sets the single weight to 0; it is left out.
    """
    attributes = {name: getattr(loss, name, None) for name in _COEFFICIENTS}
    numbers = {name: float(f"{float(value):.7g}") for name, value in attributes.items() if value is not None}
    if isinstance(loss.tensor_keys.sample_log_prob, list) and numbers.get("entropy_coeff") == 0.0:
        del numbers["entropy_coeff"]
    return numbers


def _facts(loss: PPOLoss, collector: Any) -> dict[str, Any]:
    frames = getattr(collector, "total_frames", None)
    settings = {name: getattr(loss, name, None) for name in _SETTINGS}
    return {
        "framework": "torchrl",
        "algorithm": type(loss).__name__,
        "policy": type(loss.actor_network).__name__,
        "hyperparameters": _coefficients(loss) | settings,
        "total_env_steps": int(frames) if isinstance(frames, int) and frames > 0 else None,
        "attach_points": ["loss", "get_dist", "critic", "collector", "clip_grad_norm_", "optimizer step"],
    }
