"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


def machine() -> dict[str, object]:
    """Return the kind of processor and the versions that matter."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "pyarrow", "numpy")},
    }


def load() -> float:
    """Return the load average of the last minute: how busy the machine was."""
    return os.getloadavg()[0]
