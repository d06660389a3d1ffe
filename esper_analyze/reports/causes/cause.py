"""A cause that others look like, and what the numbers of a run say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esper_analyze.reports.causes.numbers import Numbers


class Likelihood(StrEnum):
    """What the recorded numbers say of a cause."""

    LIKELY = "likely"
    POSSIBLE = "possible"
    NOT_RECORDED = "not recorded"
    RULED_OUT = "ruled out"


@dataclass(frozen=True, slots=True)
class Checked:
    """An answer with the numbers it rests on, in words."""

    answer: Likelihood
    words: str


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause that looks like others in the incidents of ``rules``.

    ``columns`` of ``updates`` are needed to tell it from them (any of them missing: not recorded), ``record`` is the
    call of the recorder that fills them. ``check`` says what they show.
    """

    name: str
    sentence: str
    rules: tuple[str, ...]
    columns: tuple[str, ...]
    record: str
    check: Callable[[Numbers], Checked]


def likely(words: str) -> Checked:
    """Return that the numbers show it."""
    return Checked(Likelihood.LIKELY, words)


def possible(words: str) -> Checked:
    """Return that the numbers do not exclude it."""
    return Checked(Likelihood.POSSIBLE, words)


def ruled_out(words: str) -> Checked:
    """Return that the numbers exclude it."""
    return Checked(Likelihood.RULED_OUT, words)


def not_recorded(words: str) -> Checked:
    """Return that what would tell is not recorded."""
    return Checked(Likelihood.NOT_RECORDED, words)
