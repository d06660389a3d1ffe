"""Flight recorder for PPO training: measures on the device, judges live, appends Parquet."""

from recorder.parameters import Rows
from recorder.recorder import Recorder

__all__ = ["Recorder", "Rows"]
