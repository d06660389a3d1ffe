"""Process and thread settings of a training, suspended while the recorder works.

Every entry of the recorder goes through ``Guard``, which asks ``is_altered`` and enters ``as_by_default`` where it is:
modes over torch's functions and operations (a default device is one of them), autocast and inference mode. All of these
belong to the calling thread. Settings of the entire process are never changed, other threads rely on them: so every
tensor is made with its own ``dtype`` (a default dtype), and nothing here warns (warnings as errors).
numpy's error settings are suspended by ``ignored_errors`` where numpy computes: it costs more than most entries.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch.utils import _python_dispatch

P = ParamSpec("P")
R = TypeVar("R")


def _of_torch(module: object, name: str, otherwise: Any) -> Any:
    """Return torch's private attribute, where there is no public one; ``otherwise`` in versions without it.

    The setting it reports or suspends then stays as the training has set it.
    """
    return getattr(module, name, otherwise)


def _no() -> bool:
    return False


_C = _of_torch(torch, "_C", None)
_functions, _operations = (_of_torch(_C, f"_len_torch_{kind}_stack", _no) for kind in ("function", "dispatch"))
_autocast, _inference = _of_torch(_C, "_is_any_autocast_enabled", _no), torch.is_inference_mode_enabled
_without_functions = _of_torch(_C, "DisableTorchFunction", contextlib.nullcontext)
_without_operations = _of_torch(_python_dispatch, "_disable_current_modes", contextlib.nullcontext)
_without_autocast = _of_torch(_C, "_DisableAutocast", contextlib.nullcontext)


def is_altered() -> bool:
    """Return whether this thread computes with other settings than torch's defaults. Takes less than a microsecond."""
    return bool(_functions() or _operations() or _autocast() or _inference())


def as_by_default() -> contextlib.ExitStack:
    """Return an entered context in which this thread computes with torch's defaults; close it to restore."""
    stack = contextlib.ExitStack()
    if _functions():
        stack.enter_context(_without_functions())
    if _operations():
        stack.enter_context(_without_operations())
    if _autocast():
        stack.enter_context(_without_autocast())
    if _inference():
        stack.enter_context(torch.inference_mode(mode=False))
    return stack


def ignored_errors() -> np.errstate:
    """Return a context in which numpy computes with NaN, ±Inf and 0 without raising or warning."""
    return np.errstate(all="ignore")


def by_default(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function`` computed with torch's and numpy's defaults; its exceptions pass through."""

    @wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        with ignored_errors(), as_by_default():
            return function(*args, **kwargs)

    return computed
