"""Checkpoints of Stable-Baselines3: every file that ``model.save`` writes, as ``CheckpointCallback`` has it written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common import base_class
from torch import Tensor

from recorder.adapters.wrapped import Wrappers
from recorder.recorder import Recorder


def follow_saves(wrappers: Wrappers, model: Any, recorder: Recorder) -> None:
    """Note the checkpoints of ``model``. The function that writes them is wrapped: ``save`` pickles all of a model."""

    def saved(args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
        path = args[0] if args else kwargs["save_path"]
        if isinstance(path, (str, os.PathLike)) and _is_of(model, kwargs.get("params")):
            name = Path(path)
            recorder.checkpoint(name if name.suffix else f"{path}.zip", int(model.num_timesteps))

    wrappers.wrap(base_class, "save_to_zip_file", after=saved)


def _is_of(model: Any, parameters: object) -> bool:
    """Whether saved parameters are those of ``model``: other models may be saved at the same time."""
    saved = parameters.get("policy") if isinstance(parameters, Mapping) else None
    if not isinstance(saved, Mapping):
        return False
    own = {parameter.data_ptr() for parameter in model.policy.parameters()}
    return any(isinstance(tensor, Tensor) and tensor.data_ptr() in own for tensor in saved.values())
