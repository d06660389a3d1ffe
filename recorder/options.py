"""Arguments of ``Recorder`` and ``attach``: misspelt names and wrong types are refused with what is expected."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from esper_analyze.detector.thresholds import Thresholds
from recorder import arguments

Value = TypeVar("Value")

_ALIKE = 0.8
"""Similarity from which a name that is no argument is taken for a misspelt one, not for a fact of the run."""


def refuse_misspelt(passed: Iterable[str], names: Collection[str], call: str) -> None:
    """Raise ``TypeError`` for a name that is nearly that of an argument; others are facts for run.json."""
    plain = {_plain(name): name for name in names}
    for name in passed:
        near = difflib.get_close_matches(_plain(name), plain, 1, _ALIKE)
        if name not in names and near:
            raise TypeError(
                f"{call}() has no argument {name!r}; did you mean {plain[near[0]]!r}? "
                "(Facts for run.json need names unlike those of arguments.)"
            )


def refuse_determined(options: Mapping[str, Any], determined: Mapping[str, str]) -> None:
    """Raise ``TypeError`` for an option that an adapter determines itself: name → what to do instead."""
    for name, instead in determined.items():
        if name in options:
            raise TypeError(f"attach() determines {name} itself, from the model: {instead}")


def _plain(name: str) -> str:
    return name.lower().replace("_", "").rstrip("s")


def run_directory(run_dir: object) -> Path:
    """Return the absolute path of the run's directory. Raises ``TypeError`` for anything but a path."""
    if not isinstance(run_dir, (str, Path)) and not hasattr(run_dir, "__fspath__"):
        raise TypeError(
            f"run_dir is {_described(run_dir)}: pass the run's directory first, then the model: "
            "Recorder('runs/mine', model)"
        )
    return Path(run_dir).absolute()  # the training may change its working directory


def network(model: object) -> nn.Module | None:
    """Return the model. Raises ``TypeError`` for anything but a module or None."""
    if model is None or isinstance(model, nn.Module):
        return model
    if isinstance(model, type):
        raise TypeError(f"model is the class {model.__name__}: pass an instance of it")
    raise TypeError(f"model is {_described(model)}: pass the torch.nn.Module that is trained")


def by_name(argument: str, value: Mapping[str, Value] | None, what: str, example: str) -> Mapping[str, Value] | None:
    """Return a mapping. Raises ``TypeError`` for anything else, which names ``what`` it maps and an ``example``."""
    if value is None or isinstance(value, Mapping):
        return value
    raise TypeError(f"{argument} is {_described(value)}: pass a mapping from {what}, such as {argument}={example}")


def head_names(heads: object) -> Any:
    """Return ``heads``, a single name as a sequence. Raises ``TypeError`` for other types."""
    if isinstance(heads, str):
        return (heads,)
    if isinstance(heads, Iterable):
        return heads
    raise TypeError(
        f"heads is {_described(heads)}: pass a mapping from head to its module, such as "
        "heads={'action': model.actor}, or the heads' names"
    )


def limits(thresholds: object) -> Thresholds | None:
    """Return thresholds. Raises ``TypeError`` for other types."""
    if thresholds is None or isinstance(thresholds, Thresholds):
        return thresholds
    raise TypeError(
        f"thresholds is {_described(thresholds)}: pass Thresholds, such as "
        "Thresholds.defaults().assigned('kl_spike.warning=0.05') of esper_analyze.detector.thresholds"
    )


def share(argument: str, value: object) -> float | None:
    """Return a number or None. Raises ``TypeError`` for anything else."""
    if value is None or (isinstance(value, numbers.Real) and not isinstance(value, bool)):
        return None if value is None else float(value)
    raise TypeError(f"{argument} is {_described(value)}: pass a share, such as {argument}=0.02, or None")


def integer(argument: str, value: Any) -> int | None:
    """Return a whole number or None. Raises ``ValueError`` for anything else."""
    try:
        return None if value is None else arguments.integer(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument}: {error}") from error


def _described(value: object) -> str:
    """Return a value with its type, "2 (int)"; the type alone of a module."""
    kind = type(value).__name__
    return f"a {kind}" if isinstance(value, nn.Module) else f"{value!r:.80} ({kind})"
