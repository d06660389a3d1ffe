"""Which parameters belong to which group, down to rows of a shared output layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

HEAD_PREFIX = "head:"
_WORDS = {
    "critic": ("critic", "value", "vf", "v_net"),
    "actor": ("actor", "policy", "pi", "action", "head", "log_std", "logstd"),
    "lstm": ("lstm", "gru", "rnn"),
}


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows ``start`` to ``stop`` of a parameter: one head's share of a common output layer."""

    parameter: nn.Parameter
    start: int
    stop: int


Part = nn.Module | nn.Parameter | Rows
Parts = Part | Iterable[Part]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one norm stands for: a whole parameter (``rows`` None) or some of its rows."""

    tensor: int
    rows: tuple[int, int] | None
    elements: int


@dataclass(frozen=True, slots=True)
class Group:
    """A named set of pieces, sorted by tensor: ``starts`` says where each tensor's pieces begin."""

    name: str
    pieces: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    elements: int
    frozen: bool

    @property
    def tensors(self) -> int:
        """Number of parameter tensors in the group."""
        return len(self.starts)


class ParameterMap:
    """A model's parameters, and groups of them down to rows.

    ``pieces`` are all parameters whole, in the model's order, then the row ranges that some group wants; ``cut``
    names the parameters of which such ranges exist.
    """

    def __init__(self, model: nn.Module, groups: Mapping[str, Parts], heads: Mapping[str, Parts | None]) -> None:
        named = dict(model.named_parameters())
        self.names = [name.removeprefix("_orig_mod.") for name in named]
        self.parameters: list[nn.Parameter] = list(named.values())
        self._tensor = {id(parameter): index for index, parameter in enumerate(self.parameters)}
        members = {name: list(_rows(parts)) for name, parts in groups.items()}
        members |= {HEAD_PREFIX + name: list(_rows(parts)) for name, parts in heads.items() if parts is not None}
        self._check(members)
        self.pieces = [Piece(index, None, p.numel()) for index, p in enumerate(self.parameters)]
        self._places: dict[tuple[int, int, int], int] = {}
        self.groups = [self._group(name, rows) for name, rows in members.items()]
        everything = [Rows(parameter, 0, _length(parameter)) for parameter in self.parameters]
        self.groups.append(self._group("all", everything))
        self.cut = sorted({piece.tensor for piece in self.pieces if piece.rows is not None})
        self.elements = sum(parameter.numel() for parameter in self.parameters)

    def owns(self, parameter: Tensor) -> bool:
        """Whether ``parameter`` belongs to the model."""
        return id(parameter) in self._tensor

    def place(self, parameter: Tensor) -> int | None:
        """Return the index of ``parameter`` in the model, None when it has no such parameter."""
        return self._tensor.get(id(parameter))

    def _check(self, named: Mapping[str, list[Rows]]) -> None:
        for name, members in named.items():
            for rows in members:
                if not self.owns(rows.parameter):
                    shape = tuple(rows.parameter.shape)
                    raise ValueError(f"group {name!r} names a parameter of shape {shape} that the model does not have")

    def _piece(self, rows: Rows) -> int:
        tensor = self._tensor[id(rows.parameter)]
        length = _length(rows.parameter)
        if rows.start <= 0 and rows.stop >= length:
            return tensor
        key = (tensor, rows.start, rows.stop)
        if key not in self._places:
            self._places[key] = len(self.pieces)
            elements = (rows.stop - rows.start) * (rows.parameter.numel() // max(length, 1))
            self.pieces.append(Piece(tensor, (rows.start, rows.stop), elements))
        return self._places[key]

    def _group(self, name: str, members: Iterable[Rows]) -> Group:
        places = sorted({self._piece(rows) for rows in members}, key=lambda place: (self.pieces[place].tensor, place))
        tensors = [self.pieces[place].tensor for place in places]
        whole = {tensor for place, tensor in zip(places, tensors, strict=True) if self.pieces[place].rows is None}
        kept = [place for place, t in zip(places, tensors, strict=True) if t not in whole or place == t]
        tensors = [self.pieces[place].tensor for place in kept]
        starts = [i for i, tensor in enumerate(tensors) if i == 0 or tensors[i - 1] != tensor]
        return Group(
            name,
            np.array(kept, np.int64),
            np.array(starts, np.int64),
            sum(self.pieces[place].elements for place in kept),
            not any(self.parameters[tensor].requires_grad for tensor in tensors),
        )


def _length(parameter: nn.Parameter) -> int:
    return len(parameter) if parameter.dim() else 1


def _rows(parts: Parts) -> Iterable[Rows]:
    if isinstance(parts, Rows):
        yield parts
    elif isinstance(parts, nn.Parameter):
        yield Rows(parts, 0, _length(parts))
    elif isinstance(parts, nn.Module):
        yield from (Rows(parameter, 0, _length(parameter)) for parameter in parts.parameters())
    else:
        for part in parts:
            yield from _rows(part)


def groups_by_name(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return actor, critic, lstm and shared by the words in the parameters' names; empty ones are left out."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault(_group_of(name), []).append(parameter)
    return groups


def _group_of(name: str) -> str:
    parts = name.lower().split(".")
    for group, words in _WORDS.items():
        for part in parts:
            if any(part == word or part.startswith(f"{word}_") or part.endswith(f"_{word}") for word in words):
                return group
    return "shared"
