"""Attach to a PPO written as a ``LightningModule``: gradients are recorded, the rest is returned by ``training_step``.

Under Lightning's automatic optimisation an optimizer's step begins with the closure that runs ``training_step`` and
``backward``; a hook at its beginning would see the gradients of the previous minibatch. So a hook at its end is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim.optimizer import Optimizer
from torch.utils.hooks import RemovableHandle

from recorder.adapters.wrapped import Wrappers, for_later, recorded
from recorder.clip import Clipped
from recorder.options import refuse_misspelt
from recorder.recorder import ARGUMENTS, Recorder
from recorder.shutdown import reason_of

Rollout = Callable[[Any], Mapping[str, Any]]
"""Called with the module when an update ends; returns arguments of ``Recorder.update``."""
NOTHING_RETURNED = (
    "training_step returns no mapping with log_prob and old_log_prob, so its minibatches are not recorded; "
    "return them with the loss, or call recorder_of(self.trainer).minibatch() before backward"
)
STEPPED_BEFORE = (
    "under manual optimisation training_step returns after its steps, when the gradients can no longer be "
    "attributed to a minibatch; call recorder_of(self.trainer).minibatch() before each backward"
)
_ARGUMENTS = tuple(inspect.signature(Recorder.minibatch).parameters)[1:]


@contextmanager
def attach(
    trainer: Trainer,
    module: LightningModule,
    run_dir: Path | str | None = None,
    *,
    updates: Literal["epoch", "batch"] = "epoch",
    rollout: Rollout | None = None,
    **options: Any,
) -> Iterator[Recorder]:
    """Record ``trainer.fit(module)`` inside the ``with`` into ``run_dir``.

    ``training_step`` returns a mapping with ``loss``, ``log_prob``, ``old_log_prob`` and further arguments of
    ``Recorder.minibatch`` by name; under manual optimisation it calls that itself, see ``recorder_of``.
    ``updates``: whether one update is an epoch of the trainer or a batch. ``rollout`` returns arguments of
    ``Recorder.update`` (values, returns, advantages, masks, env_steps …) when an update ends. ``options`` go
    to ``Recorder`` (heads, sizes, groups, thresholds …).
    """
    callback = RecorderCallback(run_dir, updates=updates, rollout=rollout, **options)
    callback.begin(module)
    callback.stays = True
    trainer.callbacks.insert(0, callback)  # type: ignore[attr-defined]
    try:
        with recorded(callback) as recorder:
            yield recorder
    finally:
        if callback in trainer.callbacks:  # type: ignore[attr-defined]
            trainer.callbacks.remove(callback)  # type: ignore[attr-defined]


class ClosureRecorder(Recorder):
    """A recorder for optimizers whose steps run a closure: notified when a step ends."""

    expected = clipped = False
    """Whether there has been a minibatch, and whether the gradients of the last one were clipped by norm."""

    def expect_minibatch(self) -> None:
        """Announce the next minibatch."""
        self.expected, self.clipped = True, False
        super().expect_minibatch()

    def before_clip(self, parameters: list[Tensor], *, plain: bool) -> Clipped | None:
        """Record gradients before a clip call."""
        clipped = super().before_clip(parameters, plain=plain)
        self.clipped = self.clipped or clipped is not None
        return clipped

    def before_step(self, optimizer: Optimizer) -> None:
        """Do nothing: the closure has not run, the gradients are those of an earlier step."""

    def after_step(self, optimizer: Optimizer) -> None:
        """Record gradients as the optimizer took them; a step does not change them."""
        super().before_step(optimizer)


class LightningRecorderCallback(Callback):
    """Callback that records a ``fit``. Takes the arguments of ``attach``, without trainer and module."""

    stays = False
    """Whether the recording stays open after the training, for the next one."""

    def __init__(
        self,
        run_dir: Path | str | None = None,
        *,
        updates: Literal["epoch", "batch"] = "epoch",
        rollout: Rollout | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if updates not in ("epoch", "batch"):
            raise ValueError(f"updates={updates!r}: one update is an 'epoch' or a 'batch'")
        refuse_misspelt(options, ("updates", "rollout", *ARGUMENTS), "attach")
        self._options = for_later(run_dir, options)  # the working directory may change before training starts
        self._updates, self._rollout = updates, rollout
        self._recorder: ClosureRecorder | None = None
        self._wrappers: Wrappers | None = None
        self._hooks: list[RemovableHandle] = []
        self._module: LightningModule | None = None

    @property
    def recorder(self) -> ClosureRecorder:
        """The recorder. Raises ``RuntimeError`` before the training starts."""
        if self._recorder is None:
            raise RuntimeError("the recorder is made when the training starts")
        return self._recorder

    def begin(self, module: LightningModule) -> None:
        """Create the recorder, unless it exists."""
        if self._recorder is None:
            self._recorder = ClosureRecorder(model=module, **(_facts(module) | self._options))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wrap ``training_step`` and hook the optimizers' steps."""
        self.begin(pl_module)
        self._unhook()
        with self.recorder.guarded("on_train_start"):
            self._module, self._wrappers = pl_module, Wrappers(self.recorder.guarded)
            self._wrappers.wrap(pl_module, "training_step", after=self._on_minibatch)
            self._wrappers.wrap(trainer, "save_checkpoint", after=self._on_saved)
            for optimizer in trainer.optimizers:
                self._hooks.append(
                    optimizer.register_step_post_hook(lambda stepped, *_: self.recorder.after_step(stepped))
                )

    def _on_minibatch(self, _: tuple[Any, ...], __: dict[str, Any], result: Any) -> None:
        returned = isinstance(result, Mapping) and "log_prob" in result and "old_log_prob" in result
        if self._module is None or self._module.automatic_optimization:
            if returned:
                self.recorder.minibatch(**{name: result[name] for name in _ARGUMENTS if name in result})
            elif not self.recorder.expected:
                self.recorder.guarded.warn_once("training_step", NOTHING_RETURNED)
        elif not self.recorder.expected:
            self.recorder.guarded.warn_once("training_step", STEPPED_BEFORE)

    def _on_saved(self, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
        """Note a checkpoint, as ``ModelCheckpoint`` saves it."""
        self.recorder.checkpoint(args[0] if args else kwargs["filepath"])

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:  # noqa: ARG002
        """Record gradients if no clip call by norm was recorded or follows."""
        with self.recorder.guarded("on_before_optimizer_step"):
            if not self.recorder.clipped and not _clips(trainer, pl_module):
                self.recorder.gradients()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """End the update if one update is a batch."""
        if self._updates == "batch":
            self._end_update(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the update if one update is an epoch."""
        if self._updates == "epoch":
            self._end_update(trainer, pl_module)

    def _end_update(self, trainer: Trainer, module: LightningModule) -> None:
        arguments: Mapping[str, Any] = {}
        with self.recorder.guarded("rollout"):
            arguments = {} if self._rollout is None else dict(self._rollout(module))
        with self.recorder.guarded("update"):
            self.recorder.update(**arguments)
        trainer.should_stop = trainer.should_stop or self.recorder.should_stop()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Close the run, unless ``attach`` does."""
        self._unhook()
        if not self.stays:
            self.detach("closed")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Record the interrupted update and close the run."""
        if self._recorder is not None:
            self.detach(reason_of(exception))

    def detach(self, reason: str) -> None:
        """Remove wrapper and hooks, close the run. Idempotent."""
        self._unhook()
        self.recorder.close(reason)

    def _unhook(self) -> None:
        if self._wrappers is not None:
            self._wrappers.undo()
        while self._hooks:
            self._hooks.pop().remove()


RecorderCallback = LightningRecorderCallback
"""The public name of the callback."""


def recorder_of(trainer: Trainer) -> Recorder | None:
    """Return the recorder of a training in progress, for a ``training_step`` that calls ``minibatch`` itself."""
    attached = [callback for callback in trainer.callbacks if isinstance(callback, RecorderCallback)]  # type: ignore[attr-defined]
    return attached[0].recorder if attached else None


def _clips(trainer: Trainer, module: LightningModule) -> bool:
    """Return whether a clip call by norm follows, or may follow, ``on_before_optimizer_step``."""
    if not module.automatic_optimization:
        return False
    if type(module).configure_gradient_clipping is not LightningModule.configure_gradient_clipping:
        return True
    return bool(trainer.gradient_clip_val) and trainer.gradient_clip_algorithm in (None, "norm")


def _facts(module: LightningModule) -> dict[str, Any]:
    plain = (bool, int, float, str, type(None))
    hyperparameters = {
        name: value if isinstance(value, plain) else str(value) for name, value in module.hparams.items()
    }
    return {
        "framework": "lightning",
        "algorithm": type(module).__name__,
        "hyperparameters": hyperparameters,
        "attach_points": ["training_step", "clip_grad_norm_", "on_before_optimizer_step", "optimizer step"],
    }
