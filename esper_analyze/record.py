"""The recorder, from where it cannot be shadowed unnoticed: ``from esper_analyze.record import Recorder, attach``.

Loaded at first use; needs torch.
"""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper_analyze.errors import UsageError

if TYPE_CHECKING:
    from recorder import Recorder, Rows, td_errors

__all__ = ["Recorder", "Rows", "attach", "td_errors"]

_PACKAGE = Path(__file__).resolve().parents[1] / "recorder" / "__init__.py"
_ADAPTERS = {
    "stable_baselines3": "recorder.adapters.sb3",
    "sb3_contrib": "recorder.adapters.sb3",
    "skrl": "recorder.adapters.skrl",
    "torchrl": "recorder.adapters.torchrl",
    "lightning": "recorder.adapters.lightning",
}
"""Package that defines a training's class → its adapter."""
_SUPPORTED = (
    "attach takes a PPO, RecurrentPPO or MaskablePPO of Stable-Baselines3 and sb3-contrib, a PPO agent of skrl, "
    "a ClipPPOLoss of TorchRL, or a Trainer of Lightning (with the module after it); "
    "a loop of your own makes a Recorder(run_dir, model), see `esper-analyze help own-loop`"
)


def attach(training: object, /, *arguments: Any, **options: Any) -> AbstractContextManager[Recorder]:
    """Return the context in which ``training`` is recorded: ``with attach(model, run_dir) as rec: model.learn(…)``.

    Arguments and options are those of the framework's adapter (``recorder.adapters.sb3.attach`` …), chosen by the
    package that defines the class of ``training``. Raises ``EsperError`` for a class of no supported framework.
    """
    for kind in type(training).__mro__:
        adapter = _ADAPTERS.get(kind.__module__.partition(".")[0])
        if adapter is not None:
            _recorder()
            context: AbstractContextManager[Recorder] = import_module(adapter).attach(training, *arguments, **options)
            return context
    raise _unsupported(training)


def _unsupported(training: object) -> UsageError:
    """Return the error for what ``attach`` cannot record, with a hint that fits what was passed instead."""
    kind = type(training)
    if isinstance(training, type):
        return UsageError(f"attach was given the class {training.__name__}: pass an instance of it", hint=_SUPPORTED)
    if isinstance(training, (str, Path)):
        return UsageError(
            f"attach was given {str(training)!r:.80} where the training is expected",
            hint=f"the training comes first, then the run's directory; {_SUPPORTED}",
        )
    what = f"{kind.__module__}.{kind.__qualname__} is not of a supported framework"
    if any(base.__module__ == "torch.nn.modules.module" for base in kind.__mro__):
        return UsageError(
            f"{what}: a network alone has no training loop to attach to",
            hint=_SUPPORTED,
        )
    return UsageError(what, hint=_SUPPORTED)


if not TYPE_CHECKING:  # a type checker knows the names above, and shall miss any other

    def __getattr__(name: str) -> object:
        """Load a name of the recorder at its first use."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(_recorder(), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _recorder() -> Any:
    """Return the package ``recorder``. Raises ``ImportError`` when another file has its name."""
    spec = importlib.util.find_spec("recorder")
    if spec is None or spec.origin is None:
        raise ImportError("package recorder is not installed beside esper_analyze: install esper-analyze again")
    if Path(spec.origin).resolve() != _PACKAGE:
        raise ImportError(
            f"{spec.origin} hides the package recorder, which has the same name: rename that file or folder "
            "(and remove its __pycache__)"
        )
    return import_module("recorder")
