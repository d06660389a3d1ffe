"""Alerts by a Python function, named by module and function so that another process can call it, too."""

from __future__ import annotations

import copy
import importlib
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recorder.act.delivery import DeliveryError


@dataclass(frozen=True, slots=True)
class FunctionEndpoint:
    """Calls ``module:function`` with each message, a plain dictionary of its own."""

    module: str
    function: str
    paced: bool = False

    @property
    def label(self) -> str:
        """The function's name."""
        return f"python {self.module}:{self.function}"

    def deliver(self, message: Mapping[str, Any]) -> None:
        """Call the function once. It is not tried again: it may have done its work before it failed."""
        try:
            target: Any = importlib.import_module(self.module)
            for name in self.function.split("."):
                target = getattr(target, name)
        except BaseException as error:  # a module may raise anything, SystemExit as well
            raise DeliveryError(f"cannot be imported ({type(error).__name__})") from None
        try:
            target(copy.deepcopy(dict(message)))
        except BaseException as error:
            raise DeliveryError(f"raised {type(error).__name__}{_where(error)}") from None


def _where(error: BaseException) -> str:
    """Return file and line of an error; not its message, which may hold a secret of the function."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    return f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
