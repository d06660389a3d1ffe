"""Whether the recurrent state is alive, bounded and unsaturated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from esper_analyze.reports.draw import bounds, finish, from_zero, incidents_behind, line, scale
from esper_analyze.reports.evidence import Evidence
from esper_analyze.reports.question import Layout, Question
from esper_analyze.reports.series import Series, by_subject
from esper_analyze.reports.style import FIRST, SECOND, THIRD
from esper_analyze.reports.words import many

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from esper_analyze.detector.incidents import Incident

_SATURATIONS = ("h_saturation", "forget_saturation", "input_saturation", "output_saturation")
_COLUMNS = ("h_env_rms_max", "c_env_rms_max", "h_max", "c_max", *_SATURATIONS)
_STATE_RULES = ("lstm_explosion", "lstm_vanishing", "lstm_nonfinite")
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
    return LstmFrame(phases, *limits, tuple(evidence.replay.incidents))


def layout(data: LstmFrame) -> Layout:  # noqa: ARG001
    """Cell state, hidden state, saturation."""
    return Layout((140, 120, 120))


def draw(data: LstmFrame, axes: Sequence[Axes]) -> None:
    """Draw size and largest element of c and h, and how much of them is saturated."""
    for place, (letter, what) in enumerate((("c", "Cell state c"), ("h", "Hidden state h"))):
        _draw_state(data, axes[place], letter)
        finish(axes[place], f"{what}: largest rms of an environment, and (thin) largest element", legend=True)
        incidents_behind(axes[place], data.incidents, _STATE_RULES)
        bounds(axes[place], *data.explosion)
        bounds(axes[place], *data.vanishing)
    last = axes[2]
    shown = data.phases.get("update") or next(iter(data.phases.values()))
    for name, colour, width in zip(_SATURATIONS, (FIRST, SECOND, THIRD, THIRD), (1.3, 1.1, 1.1, 0.7), strict=True):
        if not shown[name].empty:
            line(last, shown[name], colour, name.removesuffix("_saturation"), width=width)
    from_zero(last, *(shown[name] for name in _SATURATIONS), least=0.05)
    finish(last, "Saturated share: |h| > 0.99, gates beyond 0.05 and 0.95", last=True, legend=True)
    incidents_behind(last, data.incidents, ("lstm_saturation",))


def _draw_state(data: LstmFrame, axes: Axes, letter: str) -> None:
    shown = []
    for phase, columns in data.phases.items():
        colour = _COLOURS.get(phase, THIRD)
        line(axes, columns[f"{letter}_env_rms_max"], colour, phase)
        line(axes, columns[f"{letter}_max"], colour, width=0.6)
        shown += [columns[f"{letter}_env_rms_max"], columns[f"{letter}_max"]]
    scale(axes, *shown)


def words(data: LstmFrame) -> list[str]:
    """Say what the bounds mean for h."""
    said = [
        "|h| never exceeds 1 in an LSTM without projection, so bounds on its size can only fire on something else; "
        "c is where a state explodes, saturation where h suffers."
    ]
    for phase, columns in data.phases.items():
        broken = columns["c_env_rms_max"].nonfinite | columns["h_env_rms_max"].nonfinite
        if broken.any():
            first = columns["c_env_rms_max"].update[broken][0]
            count = many(int(broken.sum()), "update")
            said.append(f"In phase {phase} the state was NaN or infinite at {count}, first at {first}.")
    return said


QUESTION = Question(
    name="lstm",
    title="Recurrent state",
    asks="Is the recurrent state alive, bounded and unsaturated?",
    without="No recurrent state was recorded: the policy has no LSTM, or its states were not handed over.",
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
)
