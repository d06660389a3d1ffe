"""What TorchRL's PPO loss trains: heads of its action, their masks, its networks as groups of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict.nn import ProbabilisticTensorDictModule
from torch import Tensor, nn
from torchrl.objectives import PPOLoss

from recorder.adapters.gaussian import std_of
from recorder.capture.parameters import Parts

KINDS = {"Categorical": "categorical", "Ordinal": "categorical", "Normal": "gaussian", "Bernoulli": "bernoulli"}
"""Kind of a head by how the name of its distribution ends."""


@dataclass(frozen=True, slots=True)
class Head:
    """One factor of the action: its name, where data holds its action and stored log-prob, and its kind."""

    name: str
    action: Any
    log_prob: Any
    kind: str


def rows(tensor: Tensor, samples: int) -> Tensor:
    """Return one number a sample [N]: log-probs, or entropies, of independent dimensions are summed."""
    flat = tensor.detach().reshape(samples, -1)
    return flat[:, 0] if flat.shape[1] == 1 else flat.sum(-1)


def chosen(action: Tensor, samples: int) -> Tensor:
    """Return the index of the action [N]; a one-hot action is converted to its index."""
    if action.numel() == samples:
        return action.reshape(samples)
    return action.reshape(samples, -1).long().argmax(-1)


def factors_of(distribution: Any) -> list[Any]:
    """Return the distributions of the heads."""
    factors = getattr(distribution, "dists", None)
    return [distribution] if factors is None else list(factors.values())


def stds_of(distribution: Any, heads: Sequence[Head]) -> dict[str, Tensor]:
    """Return the standard deviations [..., dimensions] by Gaussian head, before any squashing."""
    gaussian = zip(heads, factors_of(distribution), strict=False)
    stds = {head.name: std_of(factor) for head, factor in gaussian if head.kind == "gaussian"}
    return {name: std for name, std in stds.items() if std is not None}


def masks_of(distribution: Any, heads: Sequence[Head], samples: int) -> dict[str, Tensor]:
    """Return the valid actions, boolean [N, K], by categorical head; all True without a mask."""
    masks = {}
    for head, factor in zip(heads, factors_of(distribution), strict=False):
        logits, mask = getattr(factor, "logits", None), getattr(factor, "mask", None)
        if head.kind != "categorical" or logits is None:
            continue
        if mask is not None and mask.shape[-1] == logits.shape[-1]:
            masks[head.name] = mask.detach().bool().expand(logits.shape).reshape(samples, -1)
        else:
            masks[head.name] = torch.ones(1, 1, dtype=torch.bool, device=logits.device).expand(
                samples, logits.shape[-1]
            )
    return masks


def entropy_key(log_prob: Any) -> Any:
    """Return the key of a head's entropy, as named by ``CompositeDistribution``, from that of its log-prob."""
    if isinstance(log_prob, str):
        return log_prob.removesuffix("_log_prob") + "_entropy"
    return (*log_prob[:-1], entropy_key(log_prob[-1]))


def heads_of(loss: PPOLoss, named_heads: Sequence[str] | Mapping[str, Parts | None] | None) -> list[Head]:
    """Return the factors of the action; one head if only the sum of log-probs is stored."""
    actions, log_probs = loss.tensor_keys.action, loss.tensor_keys.sample_log_prob
    factored = isinstance(log_probs, list) and isinstance(actions, list) and len(log_probs) == len(actions) > 1
    keys = list(zip(actions, log_probs, strict=True)) if factored else [(actions, log_probs)]
    names = _names([key for key, _ in keys]) if factored else ["action"]
    if named_heads is not None:
        if len(named_heads) != len(names):
            raise ValueError(f"{len(named_heads)} head names for an action of {len(names)} heads: {', '.join(names)}")
        names = list(named_heads)
    kinds = _kinds(loss, [key for key, _ in keys])
    return [Head(name, *key, kind) for name, key, kind in zip(names, keys, kinds, strict=True)]


def _names(keys: Sequence[Any]) -> list[str]:
    """Return the last part of each key if these differ, else all parts joined by dots."""
    paths = [(key,) if isinstance(key, str) else tuple(key) for key in keys]
    last = [path[-1] for path in paths]
    return last if len(set(last)) == len(last) else [".".join(path) for path in paths]


def _kinds(loss: PPOLoss, keys: Sequence[Any]) -> list[str]:
    modules = loss.actor_network.modules()
    makers = [module for module in modules if isinstance(module, ProbabilisticTensorDictModule)]
    classes = makers[-1].distribution_kwargs.get("distribution_map") if makers else None
    if classes is None:
        return [_kind(makers[-1].distribution_class if makers else None)] * len(keys)
    return [_kind(kind) for kind in classes.values()] if len(classes) == len(keys) else ["other"] * len(keys)


def _kind(distribution: Any) -> str:
    name = getattr(distribution, "__name__", "")
    return next((kind for ending, kind in KINDS.items() if name.endswith(ending)), "other")


def model_of(loss: PPOLoss) -> nn.Module:
    """Return the networks by role; the loss itself if it trains copies of their parameters."""
    networks = {"actor": loss.actor_network, "critic": loss.critic_network}
    model = nn.ModuleDict({name: network for name, network in networks.items() if network is not None})
    return model if {id(p) for p in model.parameters()} == {id(p) for p in loss.parameters()} else loss
