"""Wrappers around methods of a framework's objects while the recorder is attached."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from recorder.brief_lock import BriefLock
from recorder.guard import ErrorGuard
from recorder.options import run_directory
from recorder.recorder import Recorder
from recorder.run_names import check, default_directory
from recorder.shutdown import reason_of

Before = Callable[[tuple[Any, ...], dict[str, Any]], None]
"""Called with the arguments of the method."""
After = Callable[[tuple[Any, ...], dict[str, Any], Any], Any]
"""Called with the arguments of the method and its result; its return value, unless None, replaces the result."""
When = Callable[[], bool]
"""Returns whether a call is this training's own: others may call the wrapped method at the same time."""


class Attached(Protocol):
    """An adapter's attachment to a training while it is recorded."""

    @property
    def recorder(self) -> Recorder:
        """The recorder of the training."""

    def detach(self, reason: str) -> None:
        """Record the update in progress, remove all wrappers, close the run."""


@contextmanager
def recorded(attachment: Attached) -> Iterator[Recorder]:
    """Detach when the block ends, with the exception that ended it as the reason; the exception passes through."""
    try:
        yield attachment.recorder
    except BaseException as error:
        attachment.detach(reason_of(error))
        raise
    attachment.detach("closed")


def for_later(run_dir: Path | str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a ``Recorder`` created later: relative paths are resolved, and a run is named, now."""
    rules = options.get("rules")
    absolute = {"rules": Path(rules).absolute()} if isinstance(rules, (str, Path)) else {}
    if run_dir is None:
        check(None, "refuse", 1, resume=bool(options.get("resume")))
        return {**options, **absolute, "run_dir": default_directory(), "exists": "number"}
    return {**options, **absolute, "run_dir": run_directory(run_dir)}


class Wrapped:
    """A wrapper around a method of one object. Copies and pickles of the object get the unwrapped method."""

    def __init__(
        self,
        owner: Any,
        name: str,
        block: AbstractContextManager[None],
        before: Before | None,
        after: After | None,
        when: When | None,
    ) -> None:
        self._owner, self._name, self._block = owner, name, block
        self._shadowed = owner.__dict__.get(name)
        self._original = getattr(owner, name)
        self.__wrapped__ = getattr(self._original, "__wrapped__", self._original)  # frameworks inspect its signature
        self._before, self._after, self._when = before, after, when

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method, and the callbacks before and after it."""
        if self._when is not None and not self._when():
            return self._original(*args, **kwargs)
        if self._before is not None:
            with self._block:
                self._before(args, kwargs)
        result = self._original(*args, **kwargs)
        if self._after is not None:
            with self._block:
                replaced = self._after(args, kwargs, result)
                result = result if replaced is None else replaced
        return result

    def __getattr__(self, name: str) -> Any:
        """Return attributes of the method that the wrapper lacks: its name, code, a framework's markers."""
        if name == "_original":  # not set yet; avoids infinite recursion
            raise AttributeError(name)
        return getattr(self._original, name)

    def take_off(self) -> None:
        """Remove the wrapper, also below another wrapper; restore an instance attribute that it replaced."""
        with _lock:
            self._take_off()

    def _take_off(self) -> None:
        above = self._owner.__dict__.get(self._name)
        while isinstance(above, Wrapped) and above is not self:
            if above._original is self:
                above._original, above._shadowed = self._original, self._shadowed
                return
            above = above._original
        self._owner.__dict__.pop(self._name, None)
        if self._shadowed is not None:
            setattr(self._owner, self._name, self._shadowed)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        twin = memo.get(id(self._owner))
        if self._shadowed is not None or twin is None:
            return copy.deepcopy(self._shadowed, memo)
        return getattr(type(twin), self._name).__get__(twin)

    def __reduce__(self) -> Any:
        return (getattr, (self._owner, self._name)) if self._shadowed is None else (_itself, (self._shadowed,))


_lock = BriefLock()
"""Serialises wrapping: trainings in several threads may wrap a module's function at the same time."""


def _itself(thing: Any) -> Any:
    return thing


class Wrappers:
    """The wrapped methods of one attachment."""

    def __init__(self, guarded: ErrorGuard) -> None:
        self._guarded = guarded
        self._wrapped: list[Wrapped] = []

    def wrap(
        self,
        owner: Any,
        name: str,
        *,
        before: Before | None = None,
        after: After | None = None,
        when: When | None = None,
    ) -> None:
        """Wrap ``owner.name``; an error in ``before`` or ``after`` is counted and suppressed."""
        with _lock:
            wrapped = Wrapped(owner, name, self._guarded(name), before, after, when)
            setattr(owner, name, wrapped)
        self._wrapped.append(wrapped)

    def undo(self) -> None:
        """Remove all wrappers in reverse order."""
        while self._wrapped:
            self._wrapped.pop().take_off()
