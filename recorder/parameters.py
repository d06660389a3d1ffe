"""Which parameters belong to which group, down to rows of a shared output layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

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
    """What one norm is taken of: a whole parameter (``rows`` None) or some of its rows."""

    parameter: nn.Parameter
    tensor: int
    rows: tuple[int, int] | None

    def gradient(self) -> Tensor | None:
        """Return the gradient of the piece, None where the parameter has none."""
        gradient = self.parameter.grad
        if gradient is None or self.rows is None:
            return gradient
        return gradient[self.rows[0] : self.rows[1]]

    @property
    def elements(self) -> int:
        """Number of parameters in the piece."""
        if self.rows is None:
            return self.parameter.numel()
        return (self.rows[1] - self.rows[0]) * (self.parameter.numel() // max(len(self.parameter), 1))


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
    """Cuts a model's parameters into pieces so that every group is a set of whole pieces."""

    def __init__(self, model: nn.Module, groups: Mapping[str, Parts], heads: Mapping[str, Parts | None]) -> None:
        self.parameters = list(dict.fromkeys(model.parameters()))
        self._tensor = {id(parameter): index for index, parameter in enumerate(self.parameters)}
        named = {name: list(_rows(parts)) for name, parts in groups.items()}
        named |= {HEAD_PREFIX + name: list(_rows(parts)) for name, parts in heads.items() if parts is not None}
        self._check(named)
        self.pieces = self._cut([rows for members in named.values() for rows in members])
        self.groups = [self._group(name, members) for name, members in named.items()]
        everything = [Rows(parameter, 0, _length(parameter)) for parameter in self.parameters]
        self.groups.append(self._group("all", everything))

    def owns(self, parameter: Tensor) -> bool:
        """Whether ``parameter`` belongs to the model."""
        return id(parameter) in self._tensor

    def _check(self, named: Mapping[str, list[Rows]]) -> None:
        for name, members in named.items():
            for rows in members:
                if not self.owns(rows.parameter):
                    shape = tuple(rows.parameter.shape)
                    raise ValueError(f"group {name!r} names a parameter of shape {shape} that the model does not have")

    def _cut(self, wanted: Iterable[Rows]) -> list[Piece]:
        edges: dict[int, set[int]] = {}
        for index, parameter in enumerate(self.parameters):
            edges[index] = {0, _length(parameter)}
        for rows in wanted:
            edges[self._tensor[id(rows.parameter)]] |= {rows.start, rows.stop}
        pieces = []
        for index, parameter in enumerate(self.parameters):
            cuts = sorted(edges[index])
            if len(cuts) <= 2:
                pieces.append(Piece(parameter, index, None))
            else:
                pieces += [Piece(parameter, index, pair) for pair in pairwise(cuts)]
        return pieces

    def _group(self, name: str, members: Iterable[Rows]) -> Group:
        inside: set[int] = set()
        for rows in members:
            tensor = self._tensor[id(rows.parameter)]
            inside |= {
                place
                for place, piece in enumerate(self.pieces)
                if piece.tensor == tensor
                and (piece.rows is None or (piece.rows[0] >= rows.start and piece.rows[1] <= rows.stop))
            }
        places = sorted(inside)
        tensors = [self.pieces[place].tensor for place in places]
        starts = [i for i, tensor in enumerate(tensors) if i == 0 or tensors[i - 1] != tensor]
        return Group(
            name,
            np.array(places, np.int64),
            np.array(starts, np.int64),
            sum(self.pieces[place].elements for place in places),
            not any(self.pieces[place].parameter.requires_grad for place in places),
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
