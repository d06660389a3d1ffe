"""What a training hands over, taken up argument by argument: one that cannot be used costs only its own columns.

Tensors, numpy arrays and scalars, lists and numbers are taken. What is checked is type, shape and device, never a
value on a device: nothing here waits for one.
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
"""By head; of one head also without a mapping."""
State = tuple[Tensor, Tensor | None]
"""Recurrent state: h, and c where there is one (an LSTM has it, a GRU does not)."""
Taken = TypeVar("Taken")


class UnknownNameError(ValueError):
    """A name that is not declared; the message has the nearest one that is."""


def take(guarded: ErrorGuard, argument: str, convert: Callable[[Any], Taken], given: Any) -> Taken | None:
    """Return ``convert(given)``, None where nothing is given or it cannot be used: then the loss is counted."""
    if given is None:
        return None
    with guarded(argument):
        return convert(given)
    return None


def unknown(name: object, known: Collection[str], what: str) -> UnknownNameError:
    """Return the error for a name that is not among the ``known`` ones."""
    short = [one for one in known if "".join(word[:1] for word in one.split("_")) == name]
    near = short or difflib.get_close_matches(str(name), known, 1, 0.0)
    return UnknownNameError(f"no {what} is called {name!r}" + (f"; the nearest is {near[0]!r}" if near else ""))


def tensor(given: Any) -> Tensor:
    """Return numbers of any shape as a tensor; those of a tensor are not copied.

    Raises ``TypeError`` for what is not numbers, ``ValueError`` for tensors that cannot be measured (complex, sparse)
    and for none at all.
    """
    if isinstance(given, (list, tuple)) and given and all(isinstance(one, Tensor) for one in given):
        given = torch.stack(list(given))
    if not isinstance(given, Tensor):
        given = torch.from_numpy(_array(given))
    if given.layout != torch.strided or given.is_complex() or given.is_quantized:
        raise ValueError(f"a tensor of {given.dtype}, {given.layout} on {given.device} cannot be measured")
    if given.numel() == 0:
        raise ValueError(f"an empty tensor of shape {tuple(given.shape)}")
    found: Tensor = given.detach()
    return found


def _array(given: Any) -> np.ndarray[Any, Any]:
    """Return numbers as an array of their own that torch can take up."""
    found = np.array(given)
    if found.dtype.kind not in "biuf":
        raise TypeError(f"{_short(given)} is not numbers")
    if found.dtype.kind == "f":
        return found.astype(np.float32 if found.dtype.itemsize < 8 else np.float64)
    return found if found.dtype.kind == "b" else found.astype(np.int64)


def like(given: Any, model: Tensor) -> Tensor:
    """Return numbers as a tensor on the device of ``model``, and in its precision where they are not a tensor yet."""
    found = tensor(given)
    if not isinstance(given, Tensor) and found.is_floating_point() and model.is_floating_point():
        found = found.to(model.dtype)
    return on_device(found, model.device)


def on_device(found: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on ``device``. Raises ``ValueError`` where the copy would wait for the tensor's own device."""
    if found.device == device:
        return found
    if device.type == "cpu":
        raise ValueError(f"it lies on {found.device} and the rest on the host: a copy would wait for the device")
    return found.to(device, non_blocking=True)


def common_device(tensors: Iterable[Tensor]) -> torch.device:
    """Return the device that all can come to without waiting: the first one other than the host, else the host."""
    devices = dict.fromkeys(one.device for one in tensors)
    return next((one for one in devices if len(devices) == 1 or one.type not in ("cpu", "meta")), torch.device("cpu"))


def together(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors on one device, without waiting for any."""
    device = common_device(tensors)
    return [on_device(one, device) for one in tensors]


def number(given: Any) -> float:
    """Return one number. Raises ``TypeError`` for anything else, ``ValueError`` for a number on a device."""
    if isinstance(given, Tensor):
        if given.device.type != "cpu":
            raise ValueError(f"a tensor on {given.device}: give a plain number, reading it would wait for the device")
        given = tensor(given).tolist()
    if isinstance(given, (bool, int, float)):
        return float(given)
    found = np.asarray(given)
    if found.size != 1 or found.dtype.kind not in "biuf":
        raise TypeError(f"{_short(given)} is not a number")
    return float(found.reshape(-1)[0])


def integer(given: Any) -> int:
    """Return a whole number that 64 bits hold. Raises ``TypeError`` or ``ValueError`` for anything else."""
    found = given if type(given) is int else number(given)
    if not math.isfinite(found) or found != int(found) or not -(2**63) <= found < 2**63:
        raise ValueError(f"{_short(given)} is not a whole number")
    return int(found)


def truth(given: Any) -> bool:
    """Return true or false, given as such or as 1 or 0. Raises ``TypeError`` or ``ValueError`` for anything else."""
    found = number(given)
    if found not in (0.0, 1.0):
        raise ValueError(f"{_short(given)} is neither true nor false")
    return bool(found)


def words(given: Any) -> str:
    """Return text. Raises ``TypeError`` for anything else."""
    if not isinstance(given, str):
        raise TypeError(f"{_short(given)} is not text")
    return given


_COLUMNS = {column.name: column for column in UPDATES.columns}
_KEPT = ("rank", "update", "seq", "level", "recorder_ms", "recorder_fraction", "dropped_rows", "sampled_steps")
"""Columns of ``updates`` that only the recorder knows."""


def cell(name: str, given: Any) -> Any:
    """Return the cell of column ``name`` of ``updates``; a number on a device stays a tensor of one element.

    Raises ``UnknownNameError`` for a name that the loop cannot set, ``TypeError`` or ``ValueError`` for what the column
    does not hold.
    """
    if name not in _COLUMNS or name in _KEPT:
        raise unknown(name, [one for one in _COLUMNS if one not in _KEPT], "column of updates that a loop can set")
    column = _COLUMNS[name]
    if given is None:
        return None
    if column.kind is Kind.FLOAT and isinstance(given, Tensor) and tensor(given).numel() == 1:
        return given.detach().reshape(1)
    taken = _CELLS[column.kind](given)
    if column.choices and taken not in column.choices:
        raise ValueError(f"{name} {_short(given)} is none of {', '.join(column.choices)}")
    return taken


_CELLS: dict[Kind, Callable[[Any], Any]] = {
    Kind.FLOAT: number,
    Kind.INT: integer,
    Kind.BOOL: truth,
    Kind.TEXT: words,
    Kind.CHOICE: words,
}


def recurrent_state(given: Any) -> State:
    """Return (h, c) of a recurrent network; c is None for a single state, as a GRU has it.

    Each is layers × environments × hidden, or environments × hidden. Raises ``ValueError`` for other shapes.
    """
    pair = isinstance(given, tuple) or (isinstance(given, list) and isinstance(given[0], (Tensor, np.ndarray)))
    first, second = (*given, None)[:2] if pair and len(given) in (1, 2) else (given, None)
    hidden, cell = tensor(first), None if second is None else tensor(second)
    for one in (hidden, cell):
        if one is not None and (one.dim() not in (2, 3) or one.shape[:-1] != hidden.shape[:-1]):
            raise ValueError(
                f"a state of shape {tuple(one.shape)}: h and c are layers × environments × hidden, or environments × "
                "hidden"
            )
    return hidden, None if cell is None else on_device(cell, hidden.device)


def by_head(given: Any, names: Sequence[str]) -> Mapping[str, Any]:
    """Return what is given by head. One head's needs no mapping. Raises ``ValueError`` where it does."""
    if type(given) is dict or isinstance(given, Mapping):
        return given
    if len(names) != 1:
        raise ValueError(f"give a mapping from head to tensor: heads are {', '.join(names)}")
    return {names[0]: given}


def _short(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 80 else text[:77] + "…"
