"""What TorchRL and skrl switch off for the whole process is off for their tests only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch.distributions import Distribution


@pytest.fixture(scope="module", autouse=True)
def _unchecked_distributions() -> Iterator[None]:
    """Leave the arguments of distributions unchecked, as both do when they are imported."""
    Distribution.set_default_validate_args(False)
    yield
    Distribution.set_default_validate_args(True)
