"""Which parameters belong to which group, down to rows of a shared output layer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from esper_analyze.schema.constants import HEAD_GROUP

_WORDS = {
    "critic": ("critic", "value", "vf", "v_net"),
    "actor": ("actor", "policy", "pi", "action", "head", "log_std", "logstd"),
    "lstm": ("lstm", "gru", "rnn"),
}


@dataclass(frozen=True, slots=True)
class ParameterRows:
    """Rows ``start`` to ``stop`` of a parameter: one head's share of a common output layer."""

    parameter: nn.Parameter
    start: int
    stop: int


Part = nn.Module | nn.Parameter | ParameterRows
Parts = Part | Iterable[Part]


Spans = tuple[tuple[int, int], ...]
"""Ranges of rows, ascending and disjoint, with a gap between any two."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The elements behind one norm: an entire parameter (``rows`` None) or some of its rows."""

    tensor: int
    rows: Spans | None
    elements: int


@dataclass(frozen=True, slots=True)
class Atom:
    """Consecutive rows of a parameter that each group contains entirely or not at all."""

    tensor: int
    start: int  # first element
    stop: int

    def every(self, step: int) -> int:
        """Return how many of its elements remain when every ``step``-th element of the tensor is taken."""
        return -(-self.stop // step) + (-self.start // step)


@dataclass(frozen=True, slots=True)
class Group:
    """A named set of pieces, at most one for each parameter tensor."""

    name: str
    pieces: tuple[int, ...]
    elements: int

    @property
    def tensors(self) -> int:
        """Number of parameter tensors in the group."""
        return len(self.pieces)


class ParameterMap:
    """A model's parameters, and groups of them down to rows.

    ``pieces``: the entire parameters in the model's order, then the row ranges used by groups; ``cut``: indices of the
    parameters with such ranges. ``groups`` has no empty group but ``all``; ``members``: the pieces of all groups
    concatenated, ``starts``: where each group begins. ``shapes``: those of the parameters when the map was made.
    ``removed``: heads that had parameters before and have none now.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Mapping[str, Parts],
        heads: Mapping[str, Parts | None],
        removed: frozenset[str] = frozenset(),
    ) -> None:
        named = dict(model.named_parameters())
        self.names = [name.removeprefix("_orig_mod.") for name in named]
        self.parameters: list[nn.Parameter] = list(named.values())
        self.shapes = [tuple(parameter.shape) for parameter in self.parameters]
        self.removed = removed
        self._tensor = {id(parameter): index for index, parameter in enumerate(self.parameters)}
        members = {name: list(_rows(parts)) for name, parts in groups.items()}
        members |= {HEAD_GROUP + name: list(_rows(parts)) for name, parts in heads.items() if parts is not None}
        members["all"] = [ParameterRows(parameter, 0, length_of(parameter)) for parameter in self.parameters]
        self._check(members)
        self.pieces = [Piece(index, None, p.numel()) for index, p in enumerate(self.parameters)]
        self._piece_of: dict[tuple[int, Spans], int] = {}
        self.groups = [self._group(name, rows) for name, rows in members.items() if rows]
        self.group_index = {group.name: number for number, group in enumerate(self.groups)}
        self.cut = sorted({piece.tensor for piece in self.pieces if piece.rows is not None})
        self.elements = sum(parameter.numel() for parameter in self.parameters)
        self.members = np.array([piece for group in self.groups for piece in group.pieces], np.int64)
        self.starts = np.cumsum([0, *(group.tensors for group in self.groups)])[:-1]
        self.atoms: list[Atom] = []
        self.atoms_of: list[range] = []  # by tensor, the indices of its atoms
        for tensor, edges in enumerate(self._edges()):
            first = len(self.atoms)
            self.atoms += self._cut(tensor, edges)
            self.atoms_of.append(range(first, len(self.atoms)))
        self.group_atoms = [self._group_atoms(group) for group in self.groups]

    def __getstate__(self) -> dict[str, Any]:
        """Return the map for another process: of the parameters their shapes."""
        state = vars(self) | {"parameters": [(p.shape, p.dtype, p.requires_grad) for p in self.parameters]}
        del state["_tensor"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Stand for the parameters of another process: with their shapes, and without numbers."""
        vars(self).update(state)
        self.parameters = [
            nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"), requires_grad=trainable)
            for shape, dtype, trainable in state["parameters"]
        ]
        self._tensor = {id(parameter): index for index, parameter in enumerate(self.parameters)}

    def _edges(self) -> list[set[int]]:
        """Return, by tensor, the rows at which a range of any group begins or ends."""
        edges: list[set[int]] = [set() for _ in self.parameters]
        for piece in self.pieces:
            edges[piece.tensor].update(edge for span in piece.rows or () for edge in span)
        return edges

    def _cut(self, tensor: int, edges: set[int]) -> list[Atom]:
        length, elements = length_of(self.parameters[tensor]), self.parameters[tensor].numel()
        width = elements // max(length, 1)
        cuts = pairwise(sorted({0, length, *edges}))
        return [Atom(tensor, a * width, b * width) for a, b in cuts] or [Atom(tensor, 0, elements)]

    def _group_atoms(self, group: Group) -> npt.NDArray[np.int64]:
        """Return the indices of the group's atoms, ascending; atoms of a tensor are ordered, so ranges are bisected."""
        inside: list[int] = []
        for index in group.pieces:
            piece = self.pieces[index]
            atoms, width = self.atoms_of[piece.tensor], self._width(piece.tensor)
            if piece.rows is None:
                inside += atoms
            for a, b in piece.rows or ():
                low, high = (bisect_left(atoms, row * width, key=self._start) for row in (a, b))
                inside += atoms[low:high]
        return np.array(sorted(inside), np.int64)

    def _start(self, atom: int) -> int:
        return self.atoms[atom].start

    def _width(self, tensor: int) -> int:
        return self.parameters[tensor].numel() // max(length_of(self.parameters[tensor]), 1)

    def owns(self, parameter: Tensor) -> bool:
        """Return whether ``parameter`` belongs to the model."""
        return id(parameter) in self._tensor

    def tensor_index(self, parameter: Tensor) -> int | None:
        """Return the index of ``parameter`` in the model; None if it is not the model's."""
        return self._tensor.get(id(parameter))

    def members_of(self, name: str) -> list[tuple[nn.Parameter, int]]:
        """Return the parameters of a group and the number of elements of each in it; empty for an unknown group."""
        index = self.group_index.get(name)
        pieces = [] if index is None else [self.pieces[piece] for piece in self.groups[index].pieces]
        return [(self.parameters[piece.tensor], piece.elements) for piece in pieces]

    def _check(self, named: Mapping[str, list[ParameterRows]]) -> None:
        for name, members in named.items():
            for rows in members:
                if not self.owns(rows.parameter):
                    shape = tuple(rows.parameter.shape)
                    raise ValueError(f"group {name!r} names a parameter of shape {shape} that the model does not have")

    def _piece(self, tensor: int, spans: Spans) -> int:
        length = length_of(self.parameters[tensor])
        if spans == ((0, length),):
            return tensor
        if (tensor, spans) not in self._piece_of:
            self._piece_of[tensor, spans] = len(self.pieces)
            width = self.parameters[tensor].numel() // max(length, 1)
            self.pieces.append(Piece(tensor, spans, sum(b - a for a, b in spans) * width))
        return self._piece_of[tensor, spans]

    def _group(self, name: str, members: Iterable[ParameterRows]) -> Group:
        wanted: dict[int, list[tuple[int, int]]] = {}
        for rows in members:
            start, stop = max(rows.start, 0), min(rows.stop, length_of(rows.parameter))
            wanted.setdefault(self._tensor[id(rows.parameter)], []).append((start, stop))
        places = tuple(self._piece(tensor, _union(spans)) for tensor, spans in sorted(wanted.items()))
        return Group(
            name,
            places,
            sum(self.pieces[index].elements for index in places),
        )

    def frozen(self, group: Group) -> bool:
        """Return whether no parameter of the group is trainable now."""
        return not any(self.parameters[self.pieces[index].tensor].requires_grad for index in group.pieces)


def _union(spans: list[tuple[int, int]]) -> Spans:
    """Return the ranges merged where they touch or overlap."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return tuple(joined)


def length_of(parameter: nn.Parameter) -> int:
    """Return the number of rows; a parameter without dimensions is one row."""
    return len(parameter) if parameter.dim() else 1


def _rows(parts: Parts) -> Iterable[ParameterRows]:
    if isinstance(parts, ParameterRows):
        yield parts
    elif isinstance(parts, nn.Parameter):
        yield ParameterRows(parts, 0, length_of(parts))
    elif isinstance(parts, nn.Module):
        yield from (ParameterRows(parameter, 0, length_of(parameter)) for parameter in parts.parameters())
    else:
        for part in parts:
            yield from _rows(part)


def outputs(parts: Parts | None) -> int | None:
    """Return the number of outputs of a head's last layer, counted as its rows; None if it cannot be inferred."""
    if isinstance(parts, ParameterRows):
        return max(min(parts.stop, length_of(parts.parameter)) - max(parts.start, 0), 0)
    if isinstance(parts, nn.Parameter):
        return length_of(parts)
    if isinstance(parts, nn.Module):
        layers = [layer.out_features for layer in parts.modules() if isinstance(layer, nn.Linear)]
        return layers[-1] if layers else None
    widths = [outputs(part) for part in parts or ()]
    return next((width for width in reversed(widths) if width is not None), None)


def groups_by_name(model: nn.Module, heads: Mapping[str, Parts | None] | None = None) -> dict[str, list[nn.Parameter]]:
    """Return the groups actor, critic, lstm and shared by words in the parameter names; empty groups are omitted.

    Parameters of a head belong to the actor, whatever their name.
    """
    head_parameters = {
        id(rows.parameter) for parts in (heads or {}).values() if parts is not None for rows in _rows(parts)
    }
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault("actor" if id(parameter) in head_parameters else _group_of(name), []).append(parameter)
    return groups


def _group_of(name: str) -> str:
    parts = name.lower().split(".")
    for group, words in _WORDS.items():
        for part in parts:
            if any(part == word or part.startswith(f"{word}_") or part.endswith(f"_{word}") for word in words):
                return group
    return "shared"
