"""Offline laboratory for recorded PPO runs: ``import esper_analyze as ea``, then ``ea.open(path)``.

Everything is loaded at its first use, so that the import itself costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esper_analyze.api.backtests import BacktestResult, backtest
    from esper_analyze.api.compared import Comparison, compare
    from esper_analyze.api.declarations import columns, thresholds_from_toml, thresholds_to_toml
    from esper_analyze.api.fleet import Fleet, open_fleet
    from esper_analyze.api.run import ReplayedRun, Run, open  # noqa: A004 - ea.open, as gzip.open
    from esper_analyze.api.sections import ReportSection
    from esper_analyze.detector.thresholds import Thresholds
    from esper_analyze.errors import EsperError

__all__ = [
    "BacktestResult",
    "Comparison",
    "EsperError",
    "Fleet",
    "ReplayedRun",
    "ReportSection",
    "Run",
    "Thresholds",
    "backtest",
    "columns",
    "compare",
    "open",
    "open_fleet",
    "thresholds_from_toml",
    "thresholds_to_toml",
]

_HOMES = {
    "BacktestResult": "esper_analyze.api.backtests",
    "Comparison": "esper_analyze.api.compared",
    "EsperError": "esper_analyze.errors",
    "Fleet": "esper_analyze.api.fleet",
    "ReplayedRun": "esper_analyze.api.run",
    "ReportSection": "esper_analyze.api.sections",
    "Run": "esper_analyze.api.run",
    "Thresholds": "esper_analyze.detector.thresholds",
    "backtest": "esper_analyze.api.backtests",
    "columns": "esper_analyze.api.declarations",
    "compare": "esper_analyze.api.compared",
    "open": "esper_analyze.api.run",
    "open_fleet": "esper_analyze.api.fleet",
    "thresholds_from_toml": "esper_analyze.api.declarations",
    "thresholds_to_toml": "esper_analyze.api.declarations",
}
"""Public name → the module that defines it."""


if not TYPE_CHECKING:  # a type checker knows the names above, and shall miss any other

    def __getattr__(name: str) -> object:
        """Load a public name at its first use."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
