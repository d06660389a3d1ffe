"""The places of the recorder at which the fault matrix raises: each is there, or nothing would be raised."""

from __future__ import annotations

import functools
import importlib

import pytest

from tests.faults.company import WHERE


@pytest.mark.parametrize("where", WHERE)
def test_a_place_at_which_an_error_is_raised_is_there(where: str) -> None:
    module, _, path = where.partition(":")
    assert callable(functools.reduce(getattr, path.split("."), importlib.import_module(module)))
