"""What a training sets for its whole process or thread, set aside while the recorder works.

Every entry of the recorder goes through ``Guard``, which asks ``is_altered`` and enters ``as_by_default`` where it is:
modes over torch's functions and operations (a default device is one of them), autocast and inference mode. All of these
belong to the calling thread. What belongs to the whole process is never touched, other threads rely on it: so every
tensor is made with its own ``dtype`` (a default dtype), and nothing here warns (warnings as errors).
numpy's errors are set aside by ``ignored_errors`` where numpy computes: entering that costs more than most entries.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

P = ParamSpec("P")
R = TypeVar("R")
_functions, _operations = torch._C._len_torch_function_stack, torch._C._len_torch_dispatch_stack
_autocast, _inference = torch._C._is_any_autocast_enabled, torch.is_inference_mode_enabled


def is_altered() -> bool:
    """Whether this thread computes otherwise than torch does by default. Takes less than a microsecond."""
    return bool(_functions() or _operations() or _autocast() or _inference())


def as_by_default() -> contextlib.ExitStack:
    """Return an entered context in which this thread computes as torch does by default; close it to go back."""
    stack = contextlib.ExitStack()
    if _functions():
        stack.enter_context(torch._C.DisableTorchFunction())
    if _operations():
        stack.enter_context(_disable_current_modes())
    if _autocast():
        stack.enter_context(torch._C._DisableAutocast())
    if _inference():
        stack.enter_context(torch.inference_mode(mode=False))
    return stack


def ignored_errors() -> np.errstate:
    """Return a context in which numpy computes with NaN, ±Inf and 0 without raising or warning."""
    return np.errstate(all="ignore")


def by_default(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function`` as computed by torch's and numpy's defaults; what it raises passes through."""

    @wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        with ignored_errors(), as_by_default():
            return function(*args, **kwargs)

    return computed
