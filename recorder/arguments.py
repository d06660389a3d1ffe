"""Conversion of arguments from a training, one by one: an unusable argument costs only its own columns.

Tensors, numpy arrays and scalars, lists and numbers are accepted. Type, shape and device are checked, never a value on
a device: nothing here waits for one.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from esper_analyze.schema.column import Kind
from esper_analyze.schema.tables.updates import UPDATES
from recorder.guard import ErrorGuard

ArrayLike = Tensor | np.ndarray[Any, Any] | np.generic | Sequence[Any] | float
PerHead = Mapping[str, ArrayLike] | ArrayLike
"""By head; for a single head also without a mapping."""
State = tuple[Tensor, Tensor | None]
"""Recurrent state: h and c; c is None for networks without one (GRU)."""
Taken = TypeVar("Taken")


class UnknownNameError(ValueError):
    """An undeclared name; the message has the nearest declared one."""


def take(guarded: ErrorGuard, argument: str, convert: Callable[[Any], Taken], value: Any) -> Taken | None:
    """Return ``convert(value)``, None if nothing was passed or it cannot be used: then the loss is counted."""
    if value is None:
        return None
    with guarded(argument):
        return convert(value)
    return None


def unknown(name: object, declared: Collection[str], what: str) -> UnknownNameError:
    """Return the error for a name that is not ``declared``."""
    short = [candidate for candidate in declared if "".join(word[:1] for word in candidate.split("_")) == name]
    near = short or difflib.get_close_matches(str(name), declared, 1, 0.0)
    return UnknownNameError(f"no {what} is called {name!r}" + (f"; the nearest is {near[0]!r}" if near else ""))


def tensor(numbers: Any) -> Tensor:
    """Return numbers of any shape as a tensor; a tensor is not copied.

    Raises ``TypeError`` for non-numeric arguments, ``ValueError`` for tensors that cannot be measured (complex, sparse)
    and for empty ones.
    """
    if isinstance(numbers, (list, tuple)) and numbers and all(isinstance(part, Tensor) for part in numbers):
        numbers = torch.stack(list(numbers))
    if not isinstance(numbers, Tensor):
        numbers = torch.from_numpy(_array(numbers))
    if numbers.layout != torch.strided or numbers.is_complex() or numbers.is_quantized:
        raise ValueError(f"a tensor of {numbers.dtype}, {numbers.layout} on {numbers.device} cannot be measured")
    if numbers.numel() == 0:
        raise ValueError(f"an empty tensor of shape {tuple(numbers.shape)}")
    detached: Tensor = numbers.detach()
    return detached


def _array(numbers: Any) -> np.ndarray[Any, Any]:
    """Return numbers as a new array of a dtype that torch supports."""
    copied = np.array(numbers)
    if copied.dtype.kind not in "biuf":
        raise TypeError(f"{_short(numbers)} is not numbers")
    if copied.dtype.kind == "f":
        return copied.astype(np.float32 if copied.dtype.itemsize < 8 else np.float64)
    return copied if copied.dtype.kind == "b" else copied.astype(np.int64)


def like(numbers: Any, model: Tensor) -> Tensor:
    """Return numbers as a tensor on the device of ``model``; in its precision if they were not a tensor."""
    converted = tensor(numbers)
    if not isinstance(numbers, Tensor) and converted.is_floating_point() and model.is_floating_point():
        converted = converted.to(model.dtype)
    return on_device(converted, model.device)


def on_device(numbers: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on ``device``. Raises ``ValueError`` if the copy would wait for the tensor's own device."""
    if numbers.device == device:
        return numbers
    if device.type == "cpu":
        raise ValueError(f"it lies on {numbers.device} and the rest on the host: a copy would wait for the device")
    return numbers.to(device, non_blocking=True)


def common_device(tensors: Iterable[Tensor]) -> torch.device:
    """Return the device to which all can move without waiting: the first other than the host, else the host."""
    devices = dict.fromkeys(tensor.device for tensor in tensors)
    chosen = [device for device in devices if len(devices) == 1 or device.type not in ("cpu", "meta")]
    return chosen[0] if chosen else torch.device("cpu")


def together(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors on one device, without waiting."""
    device = common_device(tensors)
    return [on_device(tensor, device) for tensor in tensors]


def number(value: Any) -> float:
    """Return one number. Raises ``TypeError`` for anything else, ``ValueError`` for a number on a device."""
    if isinstance(value, Tensor):
        if value.device.type != "cpu":
            raise ValueError(f"a tensor on {value.device}: pass a plain number, reading it would wait for the device")
        value = tensor(value).tolist()
    if isinstance(value, (bool, int, float)):
        return float(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise TypeError(f"{_short(value)} is not a number")
    return float(array.reshape(-1)[0])


def integer(argument: Any) -> int:
    """Return a whole number that fits 64 bits. Raises ``TypeError`` or ``ValueError`` for anything else."""
    value = argument if type(argument) is int else number(argument)
    if not math.isfinite(value) or value != int(value) or not -(2**63) <= value < 2**63:
        raise ValueError(f"{_short(argument)} is not a whole number")
    return int(value)


def truth(argument: Any) -> bool:
    """Return a boolean, passed as such or as 1 or 0. Raises ``TypeError`` or ``ValueError`` for anything else."""
    value = number(argument)
    if value not in (0.0, 1.0):
        raise ValueError(f"{_short(argument)} is neither true nor false")
    return bool(value)


def words(value: Any) -> str:
    """Return text. Raises ``TypeError`` for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{_short(value)} is not text")
    return value


_COLUMNS = {column.name: column for column in UPDATES.columns}
_KEPT = ("rank", "update", "seq", "level", "recorder_ms", "recorder_fraction", "dropped_rows", "sampled_steps")
"""Columns of ``updates`` that only the recorder sets."""


def cell(name: str, value: Any) -> Any:
    """Return the cell of column ``name`` of ``updates``; a number on a device stays a tensor of one element.

    Raises ``UnknownNameError`` for a name that the loop cannot set, ``TypeError`` or ``ValueError`` for a value of
    another type.
    """
    if name not in _COLUMNS or name in _KEPT:
        raise unknown(
            name,
            [column_name for column_name in _COLUMNS if column_name not in _KEPT],
            "column of updates that a loop can set",
        )
    column = _COLUMNS[name]
    if value is None:
        return None
    if column.kind is Kind.FLOAT and isinstance(value, Tensor) and tensor(value).numel() == 1:
        return value.detach().reshape(1)
    converted = _CELLS[column.kind](value)
    if column.choices and converted not in column.choices:
        raise ValueError(f"{name} {_short(value)} is none of {', '.join(column.choices)}")
    return converted


_CELLS: dict[Kind, Callable[[Any], Any]] = {
    Kind.FLOAT: number,
    Kind.INT: integer,
    Kind.BOOL: truth,
    Kind.TEXT: words,
    Kind.CHOICE: words,
}


def recurrent_state(state: Any) -> State:
    """Return (h, c) of a recurrent network; c is None for a single state, as a GRU has it.

    Each is layers × environments × hidden, or environments × hidden. Raises ``ValueError`` for other shapes.
    """
    pair = isinstance(state, tuple) or (isinstance(state, list) and isinstance(state[0], (Tensor, np.ndarray)))
    first, second = (*state, None)[:2] if pair and len(state) in (1, 2) else (state, None)
    hidden, cell = tensor(first), None if second is None else tensor(second)
    for part in (hidden, cell):
        if part is not None and (part.dim() not in (2, 3) or part.shape[:-1] != hidden.shape[:-1]):
            raise ValueError(
                f"a state of shape {tuple(part.shape)}: h and c are layers × environments × hidden, or environments × "
                "hidden"
            )
    return hidden, None if cell is None else on_device(cell, hidden.device)


def by_head(argument: Any, names: Sequence[str]) -> Mapping[str, Any]:
    """Return the argument by head; a single head needs no mapping. Raises ``ValueError`` without a needed mapping."""
    if type(argument) is dict or isinstance(argument, Mapping):
        return argument
    if len(names) != 1:
        raise ValueError(f"pass a mapping from head to tensor: heads are {', '.join(names)}")
    return {names[0]: argument}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
