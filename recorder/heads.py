"""The action heads of a run: names, sizes, kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from esper_analyze.errors import did_you_mean

KINDS = ("categorical", "gaussian", "bernoulli", "other")


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads in order. ``sizes`` gives the number of actions of a categorical head where it is known."""

    names: tuple[str, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    coefficients: Mapping[str, float] = field(default_factory=dict)  # weight of a head in the loss
    widths: Mapping[str, int] = field(default_factory=dict)  # outputs of a head's last layer, if known
    inferred: dict[str, int] = field(
        default_factory=dict, init=False
    )  # sizes inferred from ``widths`` where none was passed

    def __post_init__(self) -> None:
        self._check_names()
        for name, size in self.sizes.items():
            if isinstance(size, bool) or not hasattr(size, "__index__") or int(size) < 1:
                raise ValueError(f"sizes[{name!r}] is {size!r:.80}: pass the number of actions")
        self.inferred.update(
            {
                name: self.widths[name]
                for name in self.categorical
                if self.widths.get(name, 0) > 1 and name not in self.sizes
            }
        )

    def _check_names(self) -> None:
        if not all(isinstance(name, str) for name in self.names):
            raise ValueError(f"heads: pass their names as text, not {list(self.names)!r:.200}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"head names must differ: {list(self.names)}")
        for name, kind in self.kinds.items():
            if kind not in KINDS:
                raise ValueError(f"head {name!r} has the kind {kind!r}{did_you_mean(str(kind), KINDS)}")
        for name in (*self.sizes, *self.kinds, *self.coefficients):
            if name not in self.names:
                raise ValueError(f"there is no head {name!r}{did_you_mean(str(name), self.names)}")

    def size(self, name: str) -> int | None:
        """Return the number of actions of a head, as passed or inferred from its last layer; None if unknown."""
        return self.sizes.get(name, self.inferred.get(name))

    def kind(self, name: str) -> str:
        """Return the kind of a head; categorical by default."""
        return self.kinds.get(name, "categorical")

    @property
    def categorical(self) -> tuple[str, ...]:
        """Names of the categorical heads."""
        return tuple(name for name in self.names if self.kind(name) == "categorical")
