"""Measurements: tensors in, device scalars out. Nothing here waits for the device."""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
"""Measurements on the host."""
