"""Layout of an SB3 policy: its heads, their rows in the action net, and its groups of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces
from torch import nn

from recorder.capture.parameters import ParameterRows, Parts
from recorder.heads import Heads


@dataclass(frozen=True, slots=True)
class PolicyLayout:
    """Heads, their parameters, and groups of an SB3 policy. ``factored``: the heads are split by ``nvec``."""

    heads: Heads
    head_parts: dict[str, Parts | None]
    groups: dict[str, Parts]
    factored: tuple[int, ...]


def policy_layout(model: Any, names: Sequence[str] | None) -> PolicyLayout:
    """Return the layout of ``model.policy``. Raises ``ValueError`` when ``names`` do not fit the action space."""
    space, policy = model.action_space, model.policy
    factored = tuple(int(n) for n in space.nvec) if isinstance(space, spaces.MultiDiscrete) else ()
    names = (names,) if isinstance(names, str) else names
    head_names = tuple(names) if names is not None else _default_names(factored)
    if len(head_names) != (wanted := max(len(factored), 1)):
        heads_words = "1 head" if wanted == 1 else f"{wanted} heads"
        raise ValueError(f"{len(head_names)} head names for an action space of {heads_words}: {space}")
    if factored:
        heads = Heads(
            head_names, dict(zip(head_names, factored, strict=True)), dict.fromkeys(head_names, "categorical")
        )
        parts = _rows_of_heads(policy.action_net, head_names, factored)
    else:
        kind, size = _single_head(space)
        heads = Heads(head_names, {} if size is None else {head_names[0]: size}, {head_names[0]: kind})
        parts = {head_names[0]: _present(policy, "action_net", "log_std")}
    return PolicyLayout(heads, parts, _groups(policy), factored)


def _default_names(factored: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"head_{index}" for index in range(len(factored))) if factored else ("action",)


def _single_head(space: spaces.Space[Any]) -> tuple[str, int | None]:
    if isinstance(space, spaces.Discrete):
        return "categorical", int(space.n)
    if isinstance(space, spaces.Box):
        return "gaussian", None
    return ("bernoulli", None) if isinstance(space, spaces.MultiBinary) else ("other", None)


def _rows_of_heads(net: nn.Module, names: Sequence[str], sizes: Sequence[int]) -> dict[str, Parts | None]:
    parts: dict[str, Parts | None] = {}
    start = 0
    for name, size in zip(names, sizes, strict=True):
        parts[name] = [ParameterRows(parameter, start, start + size) for parameter in net.parameters()]
        start += size
    return parts


def _present(policy: Any, *names: str) -> list[nn.Module | nn.Parameter]:
    """Return the existing parts of the policy among dotted ``names``."""
    parts: list[nn.Module | nn.Parameter] = []
    for name in names:
        part = policy
        for step in name.split("."):
            part = getattr(part, step, None)
        if isinstance(part, (nn.Module, nn.Parameter)):
            parts.append(part)
    return parts


def _groups(policy: Any) -> dict[str, Parts]:
    actor = ["mlp_extractor.policy_net", "action_net", "log_std"]
    critic = ["mlp_extractor.value_net", "value_net"]
    shared: list[str] = []
    if getattr(policy, "share_features_extractor", True):
        shared.append("features_extractor")
    else:
        actor.append("pi_features_extractor")
        critic.append("vf_features_extractor")
    if getattr(policy, "shared_lstm", False):
        shared.append("lstm_actor")
    else:
        actor.append("lstm_actor")
        critic += ["lstm_critic", "critic"]
    groups: dict[str, Parts] = {
        "actor": _present(policy, *actor),
        "critic": _present(policy, *critic),
        "shared": _present(policy, *shared),
        "lstm": _present(policy, "lstm_actor", "lstm_critic"),
    }
    return groups
