from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from esper_analyze.replay.evidence import gather
from esper_analyze.reports.render.figure import drawn
from esper_analyze.reports.sections import layers
from esper_analyze.reports.sections.layer_cells import COLUMNS, Layer, LayerGrid, read_layers
from esper_analyze.runs.run import open_run
from tests.present import present
from tests.reports.synthetic import Rows, write_run

NAN, INF = float("nan"), float("inf")
NAMES = ("body.weight", "body.bias", "head.weight")


def layer(update: int, name: str, norm: float | None, **cells: object) -> dict[str, object]:
    row = {"update": update, "layer": name, "minibatch": 0, "elements": 64, "grad_norm": norm}
    return row | {"nan_count": 0, "inf_count": 0} | cells


def frame_of(path: Path, norms: Any, updates: int = 8) -> Any:
    """Return the frame of a run in which ``norms(update, name)`` are the norms of three layers."""

    def edit(update: int, rows: Rows) -> None:
        rows["layers"] = [layer(update, name, norms(update, name)) for name in NAMES]

    return layers.frame(gather(open_run(write_run(path, updates, edit))))


def test_the_first_layer_to_go_bad_is_named_with_its_update(tmp_path: Path) -> None:
    def norms(update: int, name: str) -> float:
        return NAN if update >= (3 if name == "body.bias" else 5) else 0.5

    said = layers.words(frame_of(tmp_path / "run", norms))
    assert said[0] == ("The first layer to go bad was body.bias, NaN or infinite at update 3; 2 other layers later.")


def test_of_several_that_break_together_the_one_nearest_to_the_loss_is_named(tmp_path: Path) -> None:
    data = frame_of(tmp_path / "run", lambda update, name: INF if update == 4 and name != "head.weight" else 0.5)
    assert "2 of 3 layers were the first to go bad" in layers.words(data)[0]
    assert "Of these body.bias is last in the network's order" in layers.words(data)[0]


def test_all_layers_at_once_point_to_the_loss(tmp_path: Path) -> None:
    data = frame_of(tmp_path / "run", lambda update, _: NAN if update == 4 else 0.5)
    assert (
        "All 3 layers went bad at once, NaN or infinite at update 4: it came through the loss" in layers.words(data)[0]
    )


def test_null_zero_and_nan_are_three_kinds_of_cells(tmp_path: Path) -> None:
    cells = {0: None, 1: 0.0, 2: NAN}
    data = frame_of(tmp_path / "run", lambda update, _: cells.get(update, 0.5))
    heat = data.heat
    assert (heat.zero[:, 1] & ~heat.broken[:, 1]).all()
    assert (heat.broken[:, 2] & ~heat.zero[:, 2]).all()
    assert not (heat.zero[:, 0] | heat.broken[:, 0]).any()
    assert np.isnan(heat.log[:, :3]).all()
    assert np.allclose(heat.log[:, 3:], np.log10(0.5))
    drawn(layers.SECTION, data)


def test_each_layer_has_the_state_it_earned(tmp_path: Path) -> None:
    def norms(update: int, name: str) -> float:
        return {"body.weight": 6.0, "body.bias": 1e-9 if update == 2 else 0.1, "head.weight": 0.0}[name]

    data = frame_of(tmp_path / "run", norms)
    states = {one.name: str(layers.state(one)) for one in data.layers}
    assert states == {"body.weight": "▲ exploding", "body.bias": "▼ vanishing", "head.weight": "○ zero"}
    said = " ".join(layers.words(data))
    assert "▲ Exploding, above 5: body.weight, in at most 8 of 8 sampled updates, first at update 0." in said
    assert "▼ Vanishing, below 1e-07: body.bias, in at most 1 of 8 sampled updates, first at update 2." in said
    assert "○ Exactly zero whenever sampled: head.weight; expected of a head that never had a choice" in said
    assert [row[0] for row in layers.listed(data).cells] == ["body.weight", "body.bias", "head.weight"]


def test_a_layer_without_any_gradient_is_told_and_not_called_fine(tmp_path: Path) -> None:
    data = frame_of(tmp_path / "run", lambda _, name: None if name == "body.bias" else 0.5)
    assert str(layers.state(data.layers[1])) == "– no gradient"
    assert "No gradient ever: body.bias; frozen, or not reached by the loss." in layers.words(data)


@dataclass
class LayersInMemory:
    """A run as far as layers go: a table in memory."""

    held: duckdb.DuckDBPyConnection

    def connection(self) -> duckdb.DuckDBPyConnection:
        return self.held


def made(query: str) -> Any:
    held = duckdb.connect(":memory:")
    held.execute(f"create table layers as {query}")
    return LayersInMemory(held)


def test_a_spike_in_one_of_a_million_updates_is_drawn() -> None:
    run = made(
        "select i * 500 as update, 'w' as layer, i as seq, 4 as elements, 0.1 as update_ratio, "
        "case when i = 777 then 300.0 when i = 1500 then 1e-30 else 1.0 end as grad_norm, "
        "0 as nan_count, 0 as inf_count from range(2000) t(i)"
    )
    found, cells = read_layers(run, 1e-7, 5.0)
    heat = layers.heat_of(found, cells)
    assert heat.log.shape[1] <= COLUMNS
    assert np.isclose(np.nanmax(heat.log), np.log10(300.0))
    assert np.isclose(np.nanmin(heat.log), -30)
    assert (found[0].first_exploded, found[0].first_vanished) == (777 * 500, 1500 * 500)


def test_two_thousand_layers_share_rows_and_none_is_lost() -> None:
    run = made(
        "select u as update, 'layer ' || l as layer, l as seq, 4 as elements, 0.1 as update_ratio, "
        "case when l = 1234 and u = 7 then 'nan'::double else 1.0 end as grad_norm, 0 as nan_count, 0 as inf_count "
        "from range(10) t(u), range(2000) s(l)"
    )
    found, cells = read_layers(run, 1e-7, 5.0)
    heat = layers.heat_of(found, cells)
    assert len(heat.names) <= layers.MOST_LANES
    assert heat.names[0] == "layer 0 + 31"
    assert np.argwhere(heat.broken).tolist() == [[1234 // 32, 7]]


@settings(max_examples=60, deadline=None)
@given(
    log=arrays.arrays(np.float64, st.tuples(st.integers(1, 200), st.integers(1, 5)), elements=st.floats(-30, 30)),
    gaps=st.integers(0, 2**32),
)
def test_no_cell_of_the_heatmap_hides_what_is_worse_than_it(log: np.ndarray, gaps: int) -> None:
    noise = np.random.default_rng(gaps)
    broken, null = noise.random(log.shape) < 0.05, noise.random(log.shape) < 0.2
    held = np.where(null, np.nan, log)
    cells = LayerGrid(0, 1, log.shape[1], held, held, noise.random(log.shape) < 0.1, broken)
    usual = cells.usual
    found = [Layer(f"l{k}", 1, 1, 1, 0, 1, 1, 0, None, 0, None, 0, None, None, float(u)) for k, u in enumerate(usual)]
    heat = layers.heat_of(found, cells)
    size = -(-len(log) // layers.MOST_LANES)
    for row, start in enumerate(range(0, len(log), size)):
        part = slice(start, start + size)
        assert (heat.broken[row] == broken[part].any(axis=0)).all()
        away = np.abs(held[part] - usual[part, None])
        for column in range(log.shape[1]):
            known = away[:, column][~np.isnan(away[:, column])]
            if len(known) and not heat.broken[row, column]:
                place = np.nanargmax(away[:, column])
                assert heat.log[row, column] == held[part][place, column]
            else:
                assert np.isnan(heat.log[row, column])


def test_a_run_whose_layers_were_all_null_is_drawn_empty(tmp_path: Path) -> None:
    data = frame_of(tmp_path / "run", lambda *_: None)
    assert not (data.heat.zero | data.heat.broken).any()
    drawn(layers.SECTION, data)
    assert not any("nan" in sentence for sentence in layers.words(data))


@pytest.mark.parametrize("name", ["<b>", "x" * 400, "a\x1b[31m\u202eb"])
def test_names_of_layers_are_harmless(name: str, tmp_path: Path) -> None:
    def edit(update: int, rows: Rows) -> None:
        rows["layers"] = [layer(update, name, NAN)]

    data = present(layers.frame(gather(open_run(write_run(tmp_path / "run", 2, edit)))))
    assert "\x1b" not in " ".join(layers.words(data))
    assert "<b>" not in drawn(layers.SECTION, data).svg
