"""Where along the network the gradient flows: which tensor went bad first, which vanish and which explode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from esper_analyze.replay.evidence import Evidence
from esper_analyze.reports.render.heat import Heat, draw_heat
from esper_analyze.reports.render.rows import Mark, SectionTable
from esper_analyze.reports.render.section import Layout, Section
from esper_analyze.reports.sections.layer_cells import Layer, LayerGrid, read_layers
from esper_analyze.runs.series import all_series
from esper_analyze.schema.constants import DEFAULT_CLIP_NORM, EXPLODING_FACTOR, VANISHING
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LANES = 64
"""Rows of the heatmap; with more layers, neighbours share one."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class LayerFrame:
    """Every layer in the network's order, the heatmap of them, and what they were held against.

    ``sampled`` is the number of updates with rows, ``updates`` that of all.
    """

    layers: tuple[Layer, ...]
    heat: Heat
    exploding: float
    sampled: int
    updates: int

    @property
    def shared(self) -> int:
        """How many layers one row of the heatmap stands for, at most."""
        return -(-len(self.layers) // len(self.heat.names))


def frame(evidence: Evidence) -> LayerFrame | None:
    """Return the layers' gradients, None when no layer was sampled."""
    if not evidence.run.row_sources("layers"):
        return None
    exploding = EXPLODING_FACTOR * _clip_norm(evidence)
    layers, cells = read_layers(evidence.run, VANISHING, exploding)
    return LayerFrame(layers, heat_of(layers, cells), exploding, cells.sampled, evidence.replay.updates)


def _clip_norm(evidence: Evidence) -> float:
    """Return the clip norm last in effect."""
    recorded = all_series(evidence.run, "updates", ["max_grad_norm"])["max_grad_norm"]
    numbers = recorded.value[recorded.finite]
    return float(numbers[-1]) if len(numbers) else DEFAULT_CLIP_NORM


def heat_of(layers: Sequence[Layer], cells: LayerGrid) -> Heat:
    """Return the heatmap of ``cells``, neighbouring layers in one row when there are too many.

    Of what falls into one cell the worst is kept: NaN or infinite; else the value farthest from its own layer's usual
    one, by its logarithm; else a zero.
    """
    usual = cells.usual[:, None]
    log = np.where(np.abs(cells.least - usual) > np.abs(cells.most - usual), cells.least, cells.most)
    away = np.nan_to_num(np.abs(log - usual), nan=-1.0)
    size = -(-len(layers) // MOST_LANES)
    starts = np.arange(0, len(layers), size)
    worst = [start + away[start : start + size].argmax(0) for start in starts]
    chosen = np.stack([log[rows, np.arange(log.shape[1])] for rows in worst])
    broken = np.logical_or.reduceat(cells.broken, starts, axis=0)
    zero = np.logical_or.reduceat(cells.zeros, starts, axis=0) & np.isnan(chosen)
    names = tuple(_lane(layers, int(start), size) for start in starts)
    return Heat(names, cells.first, cells.width, np.where(broken, np.nan, chosen), zero & ~broken, broken)


def _lane(layers: Sequence[Layer], start: int, size: int) -> str:
    more = min(start + size, len(layers)) - start - 1
    return f"{layers[start].name} + {more}" if more else layers[start].name


def layout(data: LayerFrame) -> Layout:
    """One row a layer, thinner when there are many."""
    lanes = len(data.heat.names)
    return Layout(((18 if lanes <= 24 else 12) * lanes + 4,), left=210)


def draw(data: LayerFrame, axes: Sequence[Axes]) -> None:
    """Draw the norms of all layers."""
    draw_heat(axes[0], data.heat, "Gradient norm before clipping")


def words(data: LayerFrame) -> list[str]:
    """Name the first layer to go bad, those that exploded or vanished, and what a cell stands for."""
    sentences = [_first_bad(data)]
    exploded = [layer for layer in data.layers if layer.exploded]
    vanished = [layer for layer in data.layers if layer.vanished and not layer.always_zero]
    still = [layer for layer in data.layers if layer.always_zero]
    silent = [layer for layer in data.layers if not layer.measured and not layer.broken]
    if exploded:
        sentences.append(f"▲ Exploding, above {number(data.exploding)}: {_since(exploded, 'exploded')}.")
    if vanished:
        sentences.append(f"▼ Vanishing, below {VANISHING:g}: {_since(vanished, 'vanished')}.")
    if still:
        expected = "expected of a head that never had a choice (see Heads), a fault anywhere else"
        sentences.append(f"○ Exactly zero whenever sampled: {_named(still)}; {expected}.")
    if silent:
        sentences.append(f"No gradient ever: {_named(silent)}; frozen, or not reached by the loss.")
    return [*sentences, _sampling(data)]


def _first_bad(data: LayerFrame) -> str:
    bad = [layer for layer in data.layers if layer.first_broken is not None]
    if not bad:
        return "No layer's gradient was ever NaN or infinite."
    update = min(layer.first_broken for layer in bad if layer.first_broken is not None)
    first = [layer for layer in bad if layer.first_broken == update]
    if len(first) == 1:
        later = f"; {many(len(bad) - 1, 'other layer')} later" if len(bad) > 1 else ""
        return f"The first layer to go bad was {_named(first)}, NaN or infinite at update {update}{later}."
    nearest = cleaned(first[-1].name, 60)
    if len(first) == len(data.layers):
        return (
            f"All {len(first)} layers went bad at once, NaN or infinite at update {update}: it came through the loss, "
            f"not from one layer."
        )
    return (
        f"{len(first)} of {len(data.layers)} layers were the first to go bad, NaN or infinite at update {update}: "
        f"{_named(first)}. Of these {nearest} is last in the network's order, so nearest to the loss: look there first."
    )


def _since(layers: Sequence[Layer], how: str) -> str:
    when = min(getattr(layer, f"first_{how}") for layer in layers)
    most = max(layers, key=lambda layer: int(getattr(layer, how)))
    often = f"{getattr(most, how):,} of {many(most.sampled, 'sampled update')}"
    return f"{_named(layers)}, in at most {often}, first at update {when}"


def _named(layers: Sequence[Layer]) -> str:
    named = ", ".join(cleaned(layer.name, 60) for layer in layers[:_NAMED])
    return named if len(layers) <= _NAMED else f"{named} and {many(len(layers) - _NAMED, 'more layer')}"


def _sampling(data: LayerFrame) -> str:
    heat = data.heat
    sentence = f"{many(len(data.layers), 'layer')}, sampled in {data.sampled:,} of {many(data.updates, 'update')}."
    if data.shared == 1 and heat.width == 1:
        return sentence
    of = [f"{many(heat.width, 'update')}"] if heat.width > 1 else []
    of += [f"{many(data.shared, 'neighbouring layer')}"] if data.shared > 1 else []
    return f"{sentence} A cell stands for up to {' and '.join(of)} and shows the worst: broken, or farthest from usual."


def rows(data: LayerFrame) -> SectionTable:
    """Return every layer, the worst first and those alike in the network's order."""
    columns = (
        "layer",
        "state",
        "typical_norm",
        "least_norm",
        "most_norm",
        "elements",
        "sampled",
        "zeros",
        "vanished",
        "first_vanished",
        "exploded",
        "first_exploded",
        "broken",
        "first_broken",
        "largest_update_ratio",
    )
    brief = (
        ("layer", "layer"),
        ("state", "state"),
        ("typical_norm", "usual"),
        ("least_norm", "least"),
        ("most_norm", "most"),
        ("first_broken", "NaN at"),
    )
    return SectionTable(columns, tuple(_row(layer) for layer in data.layers), brief).worst_first


def _row(layer: Layer) -> tuple[Any, ...]:
    return (
        layer.name,
        state(layer),
        layer.typical,
        layer.least,
        layer.most,
        layer.elements,
        layer.sampled,
        layer.zeros,
        layer.vanished,
        layer.first_vanished,
        layer.exploded,
        layer.first_exploded,
        layer.broken,
        layer.first_broken,
        layer.update_ratio,
    )


def state(layer: Layer) -> Mark:
    """Return the worst that a layer was, as a mark; exploding is critical when it is so half of the time."""
    if layer.broken:
        return Mark("critical", "NaN", "✕")
    if layer.exploded:
        return Mark("critical" if 2 * layer.exploded >= layer.sampled else "warning", "exploding", "▲")
    if not layer.measured:
        return Mark("no_data", "no gradient", "–")
    if layer.always_zero:
        return Mark("not_applicable", "zero", "○")
    return Mark("warning", "vanishing", "▼") if layer.vanished else Mark("ok", "flowing", "●")


def listed(data: LayerFrame) -> SectionTable:
    """Return the layers that were anything but flowing."""
    return rows(data).having("critical", "warning", "no_data", "not_applicable")


SECTION = Section(
    name="layers",
    title="Gradient flow by layer",
    asks="Which layer went bad first, and where along the network do gradients vanish or explode?",
    without="No layer was sampled. Layers are sampled within overhead_budget, in every update with "
    'Recorder(..., level="DEBUG") or overhead_budget=None, where the loop clips by torch or calls rec.gradients().',
    frame=frame,
    layout=layout,
    draw=draw,
    words=words,
    rows=rows,
    listed=listed,
    itemised=True,
)
