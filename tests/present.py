"""For the types: what a run of the tests has, though another run need not have it."""

from typing import TypeVar

T = TypeVar("T")


def present(value: T | None) -> T:
    """Return a value that is there."""
    assert value is not None
    return value
