"""Bounds of action spaces, without the package that declares them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from gymnasium import spaces

from recorder.adapters.gaussian import bounds_of


def test_standard_deviations_need_no_gymnasium() -> None:
    code = "import recorder.adapters.gaussian, sys; sys.exit('gymnasium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_a_space_with_a_finite_bound_has_bounds() -> None:
    bounds = bounds_of(spaces.Box(-1.0, np.array([2.0, np.inf], np.float32)))
    assert bounds is not None
    assert bounds[0].tolist() == [-1.0, -1.0]
    assert bounds[1].tolist() == [2.0, np.inf]
    assert bounds_of(spaces.Box(-np.inf, np.inf, (2,))) is None
    assert bounds_of(spaces.Discrete(3)) is None
    assert bounds_of(None) is None
