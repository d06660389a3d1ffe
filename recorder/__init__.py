"""Flight recorder for PPO training: measures on the device, judges live, appends Parquet."""

try:
    import torch as _torch  # noqa: F401 - before anything else misses it
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError("recording needs torch: pip install 'esper-analyze[record]'", name="torch") from error

from recorder.capture.parameters import ParameterRows as Rows
from recorder.measure.values import td_errors
from recorder.recorder import Recorder

__all__ = ["Recorder", "Rows", "td_errors"]
