"""Whether the recurrent state is alive, bounded and unsaturated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.detector.rules import rules_over, shaded_in
from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.draw import bounds, finish, from_zero, incidents_behind, line, scale
from esper_analyze.reports.render.rows import SectionTable
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.render.style import FIRST, SECOND, THIRD
from esper_analyze.runs.series import Series, by_subject
from esper_analyze.wording import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.detector.incidents import Incident

_GATES = ("forget_saturation", "input_saturation", "output_saturation")
_SIZES = ("h_env_rms_max", "c_env_rms_max", "h_env_rms_mean", "c_env_rms_mean", "h_max", "c_max")
_COLUMNS = (*_SIZES, "h_saturation", *_GATES, "cell_mean", "gate_values")
_BRIEF = (
    ("phase", "phase"),
    ("metric", "metric"),
    ("last", "last"),
    ("least", "least"),
    ("most", "most"),
    ("most_at", "at"),
    ("broken", "NaN"),
)
OUTLIER = 3.0
"""An environment whose state is so many times the mean environment's stands out; told, not judged."""
_COLOURS = {"rollout": FIRST, "update": SECOND}


@dataclass(frozen=True, slots=True)
class LstmFrame:
    """Columns of ``lstm`` by phase, bounds by rule, incidents to shade."""

    phases: dict[str, dict[str, Series]]
    explosion: tuple[float | None, float | None]
    vanishing: tuple[float | None, float | None]
    incidents: tuple[Incident, ...]


def frame(evidence: Evidence) -> LstmFrame | None:
    """Return the recurrent state's columns, None when the policy has no recorded LSTM."""
    phases = by_subject(evidence.run, "lstm", _COLUMNS)
    if not phases:
        return None
    limits = evidence.bounds("lstm_explosion"), evidence.bounds("lstm_vanishing")
    return LstmFrame(phases, *limits, tuple(evidence.replay.single_incidents))


def layout(data: LstmFrame) -> Layout:
    """Cell state, hidden state, outliers, saturation, and the gates where they were looked at."""
    return Layout((140, 120, 90, 90, *((100, 90) if _gated(data) else ())))


def _gated(data: LstmFrame) -> bool:
    return any(not columns[name].empty for columns in data.phases.values() for name in (*_GATES, "cell_mean"))


def draw(data: LstmFrame, axes: Sequence[Axes]) -> None:
    """Draw size and largest element of c and h, how far one environment stands out, and what is saturated."""
    for index, (letter, what) in enumerate((("c", "Cell state c"), ("h", "Hidden state h"))):
        _draw_state(data, axes[index], letter)
        finish(axes[index], f"{what}: largest rms of an environment, and (thin) largest element", legend=True)
        incidents_behind(axes[index], data.incidents, shaded_in("lstm.state"))
        bounds(axes[index], *data.explosion)
        bounds(axes[index], *data.vanishing)
    _draw_phases(axes[2], {phase: outliers(columns) for phase, columns in data.phases.items()})
    finish(axes[2], "Cell state of the largest environment, as a multiple of the mean one", legend=True)
    saturated = {phase: columns["h_saturation"] for phase, columns in data.phases.items()}
    _draw_phases(axes[3], saturated)
    from_zero(axes[3], *saturated.values(), least=0.05)
    finish(axes[3], "Share of |h| > 0.99", last=len(axes) == 4, legend=True)
    incidents_behind(axes[3], data.incidents, shaded_in("lstm.saturation"))
    if len(axes) > 4:
        _draw_gates(data, axes[4], axes[5])


def outliers(columns: dict[str, Series]) -> Series:
    """Return the largest environment's rms of c over the mean one's; null where there is nothing to divide by."""
    most, mean = columns["c_env_rms_max"], columns["c_env_rms_mean"]
    usable = most.finite & mean.finite & (mean.value > 0)
    ratio = np.divide(most.value, mean.value, out=np.full(len(usable), np.nan), where=usable)
    return Series(most.update, ratio, ~usable)


def _draw_phases(axes: Axes, phases: dict[str, Series]) -> None:
    for phase, series in phases.items():
        if not series.empty:
            line(axes, series, _COLOURS.get(phase, THIRD), phase, width=1.1)
    scale(axes, *phases.values())


def _draw_gates(data: LstmFrame, saturation: Axes, mean: Axes) -> None:
    columns = _sampled(data)
    for name, colour, width in zip(_GATES, (FIRST, SECOND, THIRD), (1.3, 1.1, 1.1), strict=True):
        line(saturation, columns[name], colour, name.removesuffix("_saturation"), width=width)
    from_zero(saturation, *(columns[name] for name in _GATES), least=0.05)
    finish(saturation, "Share of each gate's values below 0.05 or above 0.95, sampled minibatches", legend=True)
    incidents_behind(saturation, data.incidents, shaded_in("lstm.saturation"))
    line(mean, columns["cell_mean"])
    scale(mean, columns["cell_mean"])
    finish(mean, "Mean cell candidate, sampled minibatches", last=True)


def _sampled(data: LstmFrame) -> dict[str, Series]:
    """Return the phase whose gates were looked at, the update's where none was."""
    gated = [columns for columns in data.phases.values() if not columns["forget_saturation"].empty]
    return gated[0] if gated else data.phases.get("update") or next(iter(data.phases.values()))


def _draw_state(data: LstmFrame, axes: Axes, letter: str) -> None:
    shown = []
    for phase, columns in data.phases.items():
        colour = _COLOURS.get(phase, THIRD)
        line(axes, columns[f"{letter}_env_rms_max"], colour, phase)
        line(axes, columns[f"{letter}_max"], colour, f"_{phase}, largest value", width=0.6)
        shown += [columns[f"{letter}_env_rms_max"], columns[f"{letter}_max"]]
    scale(axes, *shown)


def words(data: LstmFrame) -> list[str]:
    """Say what the bounds mean for h, which environment stood out, what the gates did, and what was broken."""
    sentences = [
        "|h| never exceeds 1 in an LSTM without projection, so bounds on its size can only fire on something else; "
        "c is where a state explodes, saturation where h suffers."
    ]
    for phase, columns in data.phases.items():
        broken = columns["c_env_rms_max"].nonfinite | columns["h_env_rms_max"].nonfinite
        if broken.any():
            first = columns["c_env_rms_max"].update[broken][0]
            count = many(int(broken.sum()), "update")
            sentences.append(f"In phase {phase} the state was NaN or infinite at {count}, first at {first}.")
        sentences += _outstanding(phase, outliers(columns))
    return sentences + _gate_words(data)


def _outstanding(phase: str, ratio: Series) -> list[str]:
    if not ratio.finite.any() or ratio.value[ratio.largest] < OUTLIER:
        return []
    far = int((ratio.finite & (ratio.value >= OUTLIER)).sum())
    return [
        f"In phase {phase} one environment's cell state was {ratio.value[ratio.largest]:.3g} times the mean one's at "
        f"update {ratio.update[ratio.largest]}, and at least {OUTLIER:g} times in {many(far, 'update')}: look at that "
        "environment's observations."
    ]


def _gate_words(data: LstmFrame) -> list[str]:
    if not _gated(data):
        return ["Gates were not looked at: those of an nn.LSTM of one layer and one direction are, on sampled updates."]
    columns = _sampled(data)
    gates = []
    for name in _GATES:
        numbers = columns[name].value[columns[name].finite]
        if len(numbers):
            gate = name.removesuffix("_saturation")
            gates.append(f"{gate} {np.median(numbers):.0%}, at most {numbers.max():.0%}")
    return [f"Saturated share of the gates, usually: {'; '.join(gates)}."] if gates else []


def rows(data: LstmFrame) -> SectionTable:
    """Return each phase's numbers at its last update, with the worst of the run."""
    columns = ("phase", "metric", "last", "least", "most", "most_at", "broken", "first_broken")
    cells = []
    for phase, series in data.phases.items():
        for name, values in {**series, "c_env_max_over_mean": outliers(series)}.items():
            if not values.empty and name != "gate_values":
                cells.append((phase, name, values.last, *_extremes(values)))
    return SectionTable(columns, tuple(cells), _BRIEF)


def _extremes(series: Series) -> tuple[float | None, float | None, int | None, int, int | None]:
    """Return least, most and where, how often it was broken and when first."""
    numbers, broken = series.value[series.finite], series.update[series.nonfinite]
    first = int(broken[0]) if len(broken) else None
    if not len(numbers):
        return None, None, None, len(broken), first
    return float(numbers.min()), float(numbers.max()), int(series.update[series.largest]), len(broken), first


SECTION = Section(
    name="lstm",
    title="Recurrent state",
    asks="Is the recurrent state alive, bounded and unsaturated?",
    without="No recurrent state was recorded: the policy has no LSTM, or its states were not handed over: "
    "rec.minibatch(lstm=(h, c)) and rec.update(lstm=(h, c)) record them.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
    rows=rows,
    rules=rules_over("lstm"),
)
