"""Attach to skrl's PPO (torch).

The losses are computed by the same operations in the same order as in skrl's own ``update``, which keeps them in
local variables. Values and returns are recorded before a value preprocessor; the losses use them after it. Their
difference before it is the raw advantage: only its direction and relative size matter for ``advantage_alignment``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from skrl.agents.torch.ppo import PPO
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from recorder.adapters.gaussian import bounds_of, std_of
from recorder.adapters.roles import actor_and_critic
from recorder.adapters.wrapped import Wrappers, recorded
from recorder.measure.values import td_errors
from recorder.options import refuse_determined, refuse_misspelt
from recorder.plan import TrainingPlan
from recorder.recorder import ARGUMENTS, Recorder

ADVANTAGE_FLOOR = 1e-8
"""What skrl adds to the advantages' standard deviation."""
_HYPERPARAMETERS = (
    "rollouts",
    "learning_epochs",
    "mini_batches",
    "discount_factor",
    "gae_lambda",
    "grad_norm_clip",
    "ratio_clip",
    "value_clip",
    "entropy_loss_scale",
    "value_loss_scale",
    "kl_threshold",
    "time_limit_bootstrap",
    "mixed_precision",
)


@contextmanager
def attach(agent: PPO, run_dir: Path | str | None = None, **options: Any) -> Iterator[Recorder]:
    """Record the training of ``agent`` inside the ``with`` into ``run_dir``.

    The joint action is one head, named ``action``, with all parameters that only the policy uses: skrl stores one
    log-prob a sample. ``options`` go to ``Recorder``.
    Raises ``TypeError`` for another agent; an exception of the training passes through after the interrupted
    update has been recorded.
    """
    with recorded(SkrlAttachment(agent, run_dir, **options)) as recorder:
        yield recorder


@dataclass(slots=True)
class _Minibatch:
    """One minibatch between the forwards of policy and value network."""

    log_prob: Tensor
    entropy: Tensor | None
    std: Tensor | None
    sampled: dict[str, Tensor]
    index: Tensor | None
    epoch: int


class SkrlAttachment:
    """The wrappers around one agent, and the state of the update in progress."""

    def __init__(self, agent: PPO, run_dir: Path | str | None = None, **options: Any) -> None:
        if not isinstance(agent, PPO) or agent.policy is None or agent.value is None or agent.memory is None:
            raise TypeError(f"{type(agent).__name__} is no PPO of skrl that can train: policy, value, memory")
        refuse_misspelt(options, ARGUMENTS, "attach")
        refuse_determined(options, dict.fromkeys(("heads", "sizes", "kinds", "groups"), "leave it out"))
        self.agent = agent
        model = nn.ModuleDict({"policy": agent.policy, "value": agent.value})
        kind, size = _head(agent.action_space)
        groups = actor_and_critic(agent.policy, agent.value)
        self.recorder = Recorder(
            run_dir,
            model,
            heads={"action": groups["actor"]},
            sizes={} if size is None else {"action": size},
            kinds={"action": kind},
            groups=groups,
            **(_facts(agent) | options),
        )
        self.recorder.minibatch_reader.losses_recomputed = True
        self._grad = bool(options.get("separate_backward"))
        self._wrappers, self._gae = Wrappers(self.recorder.guarded), Wrappers(self.recorder.guarded)
        self._updating = False
        self._kind, self._bounds = kind, bounds_of(agent.action_space)
        self._batches: dict[int, tuple[dict[str, Tensor], Tensor | None]] = {}
        self._minibatch: _Minibatch | None = None
        self._visited = self._env_steps = 0
        self._rollout: dict[str, Any] = {}
        self._steps: list[tuple[Tensor, Tensor]] = []
        self._before: np.ndarray[Any, Any] | None = None
        self._plan = TrainingPlan()
        self._hook: RemovableHandle | None = None
        self._wrappers.wrap(agent, "record_transition", before=self._on_transition)
        self._wrappers.wrap(agent, "update", before=self._on_update, after=lambda *_: self._end_update(None))
        self._wrappers.wrap(agent.memory, "sample", after=self._on_sample)
        for network in {id(part): part for part in (agent.policy, agent.value)}.values():
            self._wrappers.wrap(network, "act", after=self._on_act)
        if agent.cfg.grad_norm_clip <= 0:
            self._hook = agent.optimizer.register_step_pre_hook(lambda *_: self.recorder.gradients())

    def detach(self, reason: str) -> None:
        """Record the update in progress, remove wrappers and hook, close the run."""
        with self.recorder.guarded("detach"):
            if self._updating:
                self._end_update(reason)
        self._gae.undo()
        self._wrappers.undo()
        if self._hook is not None:
            self._hook.remove()
        self.recorder.close(reason)

    def _on_transition(self, _: Any, arguments: dict[str, Any]) -> None:
        """Keep the environment's rewards (skrl may change them in place) and the ends of episodes."""
        if self.agent.training:
            self._env_steps += arguments["rewards"].shape[0]
            self._steps.append(
                (arguments["rewards"].detach().clone(), arguments["terminated"] | arguments["truncated"])
            )

    def _episodes(self) -> None:
        """Record the episodes that ended since the last update."""
        steps, self._steps = self._steps, []
        if not steps:
            return
        rewards, ends = (torch.stack(column).flatten(1).cpu().numpy() for column in zip(*steps, strict=True))
        sums = np.cumsum(rewards, axis=0, dtype=np.float64)
        self._before = np.zeros((2, sums.shape[1])) if self._before is None else self._before
        for env in range(sums.shape[1]):
            before = self._before[:, env]  # return and length of the episode in progress
            for step in np.flatnonzero(ends[:, env]):
                now = np.array([sums[step, env], step + 1])
                self.recorder.episode(*(before + now).tolist(), env=env)
                before = -now
            self._before[:, env] = before + np.array([sums[-1, env], len(sums)])

    def _on_update(self, _: Any, arguments: dict[str, Any]) -> None:
        if self._updating:  # the last update raised, and the caller continues
            self._end_update("the update did not finish")
        self._updating, self._rollout, self._visited = True, {}, 0
        if arguments.get("timestep") is not None:
            self._plan.reach(arguments["timestep"] + 1, arguments.get("timesteps"))
        module = _module_with(type(self.agent), "compute_gae")
        if module is not None:
            mine = threading.get_ident()  # agents in other threads call the same function
            self._gae.wrap(module, "compute_gae", after=self._on_gae, when=lambda: threading.get_ident() == mine)

    def _on_gae(self, _: Any, arguments: dict[str, Any], result: Any) -> None:
        """Record values and returns before preprocessing, and advantages before normalisation."""
        self._gae.undo()
        values, returns = arguments["values"].detach().clone(), result[0].detach().clone()
        ends = (
            arguments["terminated"] | arguments["truncated"]
            if arguments.get("time_limit_bootstrap")
            else arguments["terminated"]
        )
        rewards, gamma = arguments["rewards"].squeeze(-1), arguments["discount_factor"]
        errors = td_errors(values.squeeze(-1), rewards, ends.squeeze(-1), arguments["last_values"].detach(), gamma)
        self._rollout = {"values": values, "returns": returns, "advantages": returns - values, "td_errors": errors}
        self._rollout |= {"rewards": arguments["rewards"].detach().clone(), "ends": ends.clone(), "gamma": gamma}

    def _on_sample(self, _: Any, arguments: dict[str, Any], batches: Any) -> None:
        """Keep the minibatches of an epoch, each identified by its tensor of actions."""
        names = arguments.get("names", ())
        if not self._updating or "log_prob" not in names or "actions" not in names:
            return
        indexes = self.agent.memory.get_sampling_indexes()
        parts = [None] * len(batches) if indexes is None else np.array_split(np.asarray(indexes), len(batches))
        sampled = [dict(zip(names, batch, strict=True)) for batch in batches]
        self._batches = {
            id(batch["actions"]): (batch, None if part is None else torch.as_tensor(part))
            for batch, part in zip(sampled, parts, strict=True)
        }

    def _on_act(self, args: tuple[Any, ...], arguments: dict[str, Any], result: Any) -> None:
        if not self._updating:
            return
        inputs = args[0] if args else arguments["inputs"]
        if arguments.get("role") == "policy" and "taken_actions" in inputs:
            self._on_policy(inputs["taken_actions"], result[1]["log_prob"])
        elif arguments.get("role") == "value" and self._minibatch is not None:
            self._hand_over(result[0])

    def _on_policy(self, actions: Tensor, log_prob: Tensor) -> None:
        self._flush()
        self.recorder.expect_minibatch()
        sampled, index = self._batches[id(actions)]
        with torch.set_grad_enabled(self._grad):
            entropy = self.agent.policy.get_entropy(role="policy")
        std = std_of(self.agent.policy.distribution(role="policy")) if self._kind == "gaussian" else None
        samples = log_prob.shape[0]
        by_sample = entropy.dim() > 0 and entropy.shape[0] == samples
        epoch = self._visited // max(len(self.agent.memory), 1)
        self._visited += samples
        self._minibatch = _Minibatch(log_prob, entropy if by_sample else None, std, sampled, index, epoch)

    def _flush(self) -> None:
        """Record a minibatch that was evaluated and then skipped because its KL was above the threshold."""
        if self._minibatch is not None:
            self._hand_over(None)

    def _hand_over(self, values: Tensor | None) -> None:
        minibatch, self._minibatch = self._minibatch, None
        if minibatch is None:
            return
        sampled, rows, index = minibatch.sampled, minibatch.log_prob.shape[0], minibatch.index
        envs = self.agent.memory.num_envs
        self.recorder.minibatch(
            log_prob=minibatch.log_prob.reshape(rows, -1).sum(-1),
            old_log_prob=sampled["log_prob"].reshape(rows, -1).sum(-1),
            entropy=None if minibatch.entropy is None else minibatch.entropy.reshape(rows, -1).sum(-1),
            std=minibatch.std,
            clip_range=float(self.agent.cfg.ratio_clip),
            values=None if values is None else values.reshape(-1),
            actions=sampled["actions"].reshape(-1) if self._kind == "categorical" else None,
            advantages=sampled["advantages"].reshape(-1),
            returns=self._of_rollout("returns", index),
            old_values=self._of_rollout("values", index),
            index=index,
            env=None if index is None else index % envs,
            step=None if index is None else index // envs,
            epoch=minibatch.epoch,
            **self._losses(minibatch, values),
        )

    def _of_rollout(self, name: str, index: Tensor | None) -> Tensor | None:
        """Return a minibatch's part of the rollout as recorded before a value preprocessor; None if unknown."""
        rollout: Tensor | None = self._rollout.get(name)
        if rollout is None or index is None:
            return None
        return rollout.reshape(-1)[index.to(rollout.device, non_blocking=True)]

    def _losses(self, minibatch: _Minibatch, predicted: Tensor | None) -> dict[str, Any]:
        """Return the unscaled losses, and the loss that skrl differentiates.

        No value loss, and so no sum, for a minibatch skipped before the values were predicted.
        """
        cfg, sampled = self.agent.cfg, minibatch.sampled
        with torch.set_grad_enabled(self._grad):
            ratio = torch.exp(minibatch.log_prob - sampled["log_prob"])
            surrogate = sampled["advantages"] * ratio
            clipped = sampled["advantages"] * torch.clip(ratio, 1.0 - cfg.ratio_clip, 1.0 + cfg.ratio_clip)
            losses = {"policy_loss": -torch.min(surrogate, clipped).mean()}
            if minibatch.entropy is not None:
                losses["entropy_loss"] = -minibatch.entropy.mean()
            if predicted is not None:
                losses["value_loss"] = self._value_loss(sampled, predicted)
                losses["loss"] = losses["policy_loss"] + cfg.value_loss_scale * losses["value_loss"]
                if cfg.entropy_loss_scale and minibatch.entropy is not None:
                    losses["loss"] = losses["loss"] + cfg.entropy_loss_scale * losses["entropy_loss"]
        return losses

    def _value_loss(self, sampled: dict[str, Tensor], predicted: Tensor) -> Tensor:
        bound = self.agent.cfg.value_clip
        if bound > 0:
            predicted = sampled["values"] + torch.clip(predicted - sampled["values"], min=-bound, max=bound)
        return functional.mse_loss(sampled["returns"], predicted)

    def _at_bounds(self) -> Tensor | None:
        """Return which components of the rollout's actions lie at a bound."""
        if self._bounds is None:
            return None
        actions = self.agent.memory.get_tensor_by_name("actions")
        low, high = (torch.as_tensor(bound).to(actions.device, non_blocking=True) for bound in self._bounds)
        at: Tensor = (actions <= low) | (actions >= high)
        return at

    def _end_update(self, interrupted: str | None) -> None:
        self._gae.undo()
        self._flush()
        self._episodes()
        cfg = self.agent.cfg
        self.recorder.update(
            **self._rollout,
            at_bounds=self._at_bounds(),
            advantage_floor=ADVANTAGE_FLOOR,
            env_steps=self._env_steps,
            **self._plan.cells(planned=self.recorder.planned),
            entropy_coef=cfg.entropy_loss_scale,
            target_kl=cfg.kl_threshold or None,
            status=None if interrupted is None else "interrupted",
            reason=interrupted,
        )
        self._updating, self._rollout = False, {}
        self._batches.clear()


def _module_with(kind: type, name: str) -> ModuleType | None:
    """Return the module with the function ``name`` in which a class or one of its bases is defined."""
    modules = [sys.modules.get(base.__module__) for base in kind.__mro__]
    return next((module for module in modules if module is not None and hasattr(module, name)), None)


def _head(space: Any) -> tuple[str, int | None]:
    if isinstance(space, spaces.Discrete):
        return "categorical", int(space.n)
    return ("gaussian" if isinstance(space, spaces.Box) else "other"), None


def _facts(agent: PPO) -> dict[str, Any]:
    return {
        "framework": "skrl",
        "algorithm": type(agent).__name__,
        "policy": type(agent.policy).__name__,
        "action_space": str(agent.action_space),
        "hyperparameters": {name: getattr(agent.cfg, name, None) for name in _HYPERPARAMETERS},
        "attach_points": ["update", "memory", "act", "compute_gae", "clip_grad_norm_", "optimizer step"],
    }
