"""Flight recorder for PPO training: measures on the device, judges live, appends Parquet."""

from recorder.capture.parameters import ParameterRows as Rows
from recorder.measure.values import td_errors
from recorder.recorder import Recorder

__all__ = ["Recorder", "Rows", "td_errors"]
