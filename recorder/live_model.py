"""The current model: its parameter map, rebuilt by the same rules when parameters are added, removed or replaced."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from esper_analyze.schema.constants import HEAD_GROUP
from esper_analyze.schema.row_types import EventsRow
from recorder.capture.parameters import ParameterMap, ParameterRows, Part, Parts, groups_by_name, length_of

MAX_EVENTS = 1_000
"""Rows of one kind for one change; the rest is one more row with their number."""


@dataclass(frozen=True, slots=True)
class _Named:
    """A part of the model as passed by the user, and its qualified name in the model (None: it has none)."""

    part: Part
    name: str | None


class LiveModel:
    """A model, and the groups and heads as passed by the user.

    A part is followed by identity while the model has it, afterwards by its qualified name.
    """

    def __init__(self, model: nn.Module, groups: Mapping[str, Parts] | None, heads: Mapping[str, Parts | None]) -> None:
        self.model = model
        modules = {id(module): name for name, module in model.named_modules()}
        parameters = {id(parameter): name for name, parameter in model.named_parameters()}
        names = modules | parameters
        self._heads = {name: None if parts is None else list(_named(parts, names)) for name, parts in heads.items()}
        self._groups = None if groups is None else {name: list(_named(parts, names)) for name, parts in groups.items()}
        self._foreign: dict[int, weakref.ref[Tensor]] = {}
        head_parts = {
            name: None if parts is None else [named.part for named in parts] for name, parts in self._heads.items()
        }
        if self._groups is None:
            groups = groups_by_name(model, head_parts)
        else:
            groups = {name: [named.part for named in parts] for name, parts in self._groups.items()}
        self.parameters = ParameterMap(model, groups, head_parts)
        self.changed_groups: frozenset[str] = frozenset()  # whose parameters changed in the last ``follow``
        self._known_heads = {name for name in head_parts if HEAD_GROUP + name in self.parameters.group_index}

    @property
    def changed(self) -> bool:
        """Whether the model has other parameters than the map."""
        now, then = dict(self.model.named_parameters()), self.parameters
        if len(now) != len(then.parameters):
            return True
        return any(
            parameter is not before or tuple(parameter.shape) != shape
            for parameter, before, shape in zip(now.values(), then.parameters, then.shapes, strict=True)
        )

    def has(self, parameters: Iterable[Tensor]) -> bool:
        """Return whether any of the parameters is the model's now. Others are cached until the map is rebuilt."""
        unknown = [p for p in parameters if (foreign := self._foreign.get(id(p))) is None or foreign() is not p]
        if not unknown:
            return False
        live = {id(parameter) for parameter in self.model.parameters()}
        self._foreign |= {id(p): weakref.ref(p) for p in unknown if id(p) not in live}
        return any(id(parameter) in live for parameter in unknown)

    def follow(self) -> list[EventsRow]:
        """Rebuild the map; return the changes as rows of ``events`` without ``update``."""
        before = self.parameters
        resolve = _Resolver(self.model)
        heads = {name: None if parts is None else resolve(parts) for name, parts in self._heads.items()}
        if self._groups is None:
            groups: Mapping[str, Parts] = groups_by_name(self.model, heads)
        else:
            groups = {name: resolve(parts) for name, parts in self._groups.items()}
        self._known_heads |= {name for name, parts in heads.items() if parts}
        removed = frozenset(name for name in self._known_heads if not heads[name])
        self.parameters = ParameterMap(self.model, groups, heads, removed)
        self._foreign.clear()
        self.changed_groups = frozenset(
            group.name
            for group in self.parameters.groups
            if _identities(before, group.name) != _identities(self.parameters, group.name)
        )
        return [*_parameter_events(before, self.parameters), *_head_events(before, self.parameters, heads)]


def _named(parts: Parts, names: Mapping[int, str]) -> Iterator[_Named]:
    """Yield the parts one by one; an iterator is consumed here, once."""
    if isinstance(parts, ParameterRows):
        yield _Named(parts, names.get(id(parts.parameter)))
    elif isinstance(parts, (nn.Module, nn.Parameter)):
        yield _Named(parts, names.get(id(parts)))
    else:
        for part in parts:
            yield from _named(part, names)


class _Resolver:
    """Finds the parts passed by the user in the current model."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = dict(model.named_parameters())
        self._modules = dict(model.named_modules())
        self._owned = {id(parameter) for parameter in self._parameters.values()}
        self._inside = {id(module) for module in self._modules.values()}

    def __call__(self, parts: Iterable[_Named]) -> list[Part]:
        """Return rows and parameters that the model has."""
        return [part for named in parts for part in self._resolved(named)]

    def _resolved(self, named: _Named) -> Iterator[Part]:
        part = named.part
        if isinstance(part, nn.Module):
            module = part
            if id(part) not in self._inside and named.name is not None:
                module = self._modules.get(named.name, part)
            yield from (parameter for parameter in module.parameters() if id(parameter) in self._owned)
            return
        parameter = part.parameter if isinstance(part, ParameterRows) else part
        now = parameter if id(parameter) in self._owned else self._parameters.get(named.name or "")
        if now is not None and isinstance(part, ParameterRows):
            stop = min(part.stop, length_of(now))
            if part.start < stop:
                yield ParameterRows(now, part.start, stop)
        elif now is not None:
            yield now


def _identities(parameters: ParameterMap, group: str) -> list[tuple[int, int]]:
    return [(id(parameter), size) for parameter, size in parameters.members_of(group)]


def _parameter_events(before: ParameterMap, now: ParameterMap) -> list[EventsRow]:
    old = dict(zip(before.names, zip(before.parameters, before.shapes, strict=True), strict=True))
    new = dict(zip(now.names, zip(now.parameters, now.shapes, strict=True), strict=True))
    both = [name for name in new if name in old and (new[name][0] is not old[name][0] or new[name][1] != old[name][1])]
    kinds = {
        "parameters_added": [(name, f"shape {new[name][1]}") for name in new if name not in old],
        "parameters_removed": [(name, f"shape {old[name][1]} before") for name in old if name not in new],
        "parameters_replaced": [(name, f"shape {old[name][1]} before, {new[name][1]} now") for name in both],
    }
    events: list[EventsRow] = []
    for kind, changes in kinds.items():
        events += [{"kind": kind, "subject": name, "detail": detail} for name, detail in changes[:MAX_EVENTS]]
        if len(changes) > MAX_EVENTS:
            events.append({"kind": kind, "subject": "others", "detail": f"{len(changes) - MAX_EVENTS:,} parameters"})
    return events


def _head_events(before: ParameterMap, now: ParameterMap, heads: Iterable[str]) -> list[EventsRow]:
    """Return one row for each head whose parameters changed."""
    events: list[EventsRow] = []
    for subject in (HEAD_GROUP + name for name in heads):
        then, after = before.members_of(subject), now.members_of(subject)
        if _identities(before, subject) == _identities(now, subject):
            continue
        kind = "parameters_added" if not then else "parameters_replaced" if after else "parameters_removed"
        sizes = [f"{len(members)} tensors, {sum(size for _, size in members):,} elements" for members in (then, after)]
        events.append({"kind": kind, "subject": subject, "detail": f"{sizes[0]} before; {sizes[1]} now"})
    return events
