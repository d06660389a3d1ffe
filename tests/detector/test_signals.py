"""Rows of one update as the detector's columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from esper_analyze.detector.signals import Batch, Frame, Signal, batch_from_rows, choice_code

WANTED = {"heads": ("entropy_norm", "kind", "learnable_fraction"), "updates": ("kl_k3", "nonfinite_sources", "status")}


def test_null_nan_and_a_cell_that_is_not_there_are_kept_apart() -> None:
    rows: list[dict[str, object]] = [
        {"head": "op", "entropy_norm": math.nan, "kind": "categorical", "learnable_fraction": 1},
        {"head": "slot", "entropy_norm": None, "kind": None, "learnable_fraction": True},
        {"head": "style", "entropy_norm": 0.5, "kind": "categorical"},
    ]
    frame = batch_from_rows(7, {"heads": rows}, WANTED).frames["heads"]
    assert frame.subjects == ("op", "slot", "style")
    assert frame.present.tolist() == [[True] * 3]
    entropy, kind, learnable = (frame[name] for name in WANTED["heads"])
    assert entropy.null.tolist() == [[False, True, False]]
    assert entropy.nonfinite.tolist() == [[True, False, False]]
    assert np.array_equal(entropy.values, [[math.nan, math.nan, 0.5]], equal_nan=True)
    assert kind.equals(choice_code("heads", "kind", "categorical")).tolist() == [[True, False, True]]
    assert kind.null.tolist() == [[False, True, False]]
    assert learnable.equals(1.0).tolist() == [[True, True, False]]
    assert [frame[name].all_finite for name in WANTED["heads"]] == [False] * 3


def test_a_text_counts_as_said_and_a_table_without_rows_has_no_frame() -> None:
    rows = {"updates": [{"kl_k3": 0.1, "nonfinite_sources": "values: 2", "status": "performed"}], "heads": []}
    frames = batch_from_rows(0, rows, WANTED).frames
    assert list(frames) == ["updates"]
    assert frames["updates"]["nonfinite_sources"].values.tolist() == [[1.0]]
    assert all(frames["updates"][name].all_finite for name in WANTED["updates"])


def test_a_choice_that_is_not_declared_is_refused() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        batch_from_rows(0, {"updates": [{"status": "perhaps"}]}, WANTED)


def alternating(n: int, k: int, names: Sequence[str] = ("entropy", "grad_norm")) -> Frame:
    """Return a frame in which every cell, null and presence is one of its own."""
    rng = np.random.default_rng(n + k)
    columns = {}
    for number, name in enumerate(names):
        null = rng.random((n, k)) < 0.3
        values = np.where(null, math.nan, 100.0 * number + np.arange(n * k, dtype=float).reshape(n, k))
        columns[name] = Signal(name, values, null)
    return Frame(tuple(f"s{i}" for i in range(k)), rng.random((n, k)) < 0.7, columns)


def equal(one: Frame, subjects: Sequence[str], rows: slice | list[int], picked: list[int], of: Frame) -> bool:
    return one.subjects == tuple(subjects) and all(
        np.array_equal(mine, whole[rows][:, picked], equal_nan=True)
        for mine, whole in (
            (one.present, of.present),
            *((one[name].values, of[name].values) for name in one.columns),
            *((one[name].null, of[name].null) for name in one.columns),
        )
    )


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_last_update_and_any_stretch_of_a_frame_are_those_rows(n: int) -> None:
    whole = alternating(n, 3)
    last = whole.last(["grad_norm"])
    assert list(last.columns) == ["grad_norm"]
    assert last.present.shape == last["grad_norm"].values.shape == last["grad_norm"].null.shape == (1, 3)
    assert equal(last, whole.subjects, [n - 1], [0, 1, 2], whole)
    for start in range(n):
        for stop in range(start, n + 1):
            part = whole.rows(start, stop)
            assert list(part.columns) == ["entropy", "grad_norm"]
            assert equal(part, whole.subjects, slice(start, stop), [0, 1, 2], whole)


def test_an_aligned_frame_has_the_subjects_asked_for_and_no_rows_of_new_ones() -> None:
    whole = alternating(4, 3)
    assert whole.aligned(whole.subjects) is whole
    turned = whole.aligned(("s2", "new", "s0"))
    assert turned.subjects == ("s2", "new", "s0")
    assert equal(turned.aligned(("s2", "s0")), ("s2", "s0"), slice(0, 4), [2, 0], whole)
    alone = turned.aligned(("new",))
    assert not alone.present.any()
    assert alone["entropy"].null.all()
    assert np.isnan(alone["entropy"].values).all()
    assert alone["entropy"].values.shape == (4, 1)


def test_columns_beside_are_those_of_the_subject_of_that_name() -> None:
    groups, heads = alternating(4, 3), alternating(4, 2, ("entropy_norm",))
    joined = groups.beside("heads", heads, ("entropy_norm",), ("s1", "nobody", "s0"))
    assert list(joined.columns) == ["entropy", "grad_norm", "heads.entropy_norm"]
    column = joined["heads.entropy_norm"]
    assert column.name == "entropy_norm"
    for k, source in enumerate((1, None, 0)):
        for i in range(4):
            missing = source is None or not groups.present[i, k] or bool(heads["entropy_norm"].null[i, source])
            assert bool(column.null[i, k]) == missing
            expected = math.nan if missing or source is None else heads["entropy_norm"].values[i, source]
            assert np.array_equal(column.values[i, k], expected, equal_nan=True)
    nothing = groups.beside("heads", None, ("entropy_norm",), ("s1", "s0", "s0"))["heads.entropy_norm"]
    assert nothing.null.all()
    assert np.isnan(nothing.values).all()


@pytest.mark.parametrize("present", [True, False])
def test_a_table_with_one_row_an_update_speaks_for_every_subject(present: bool) -> None:
    groups, updates = alternating(3, 3), Frame(("run",), np.ones((3, 1), bool), alternating(3, 1, ("kl_k3",)).columns)
    if present:
        groups = Frame(groups.subjects, np.ones((3, 3), bool), groups.columns)
    column = groups.beside("updates", updates, ("kl_k3",), ("run",))["updates.kl_k3"]
    null = np.repeat(updates["kl_k3"].null, 3, axis=1) | ~groups.present
    assert np.array_equal(column.null, null)
    assert np.array_equal(column.values, np.where(null, math.nan, updates["kl_k3"].values), equal_nan=True)


def test_one_subject_of_another_name_is_not_taken_for_it() -> None:
    groups, other = alternating(3, 2), alternating(3, 1, ("kl_k3",))
    for names in (("else",), ("else", "else")):
        assert groups.beside("heads", other, ("kl_k3",), names)["heads.kl_k3"].null.all()


def test_a_part_of_a_batch_has_the_subjects_that_have_rows_in_it_in_the_order_of_their_first() -> None:
    present = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], bool)
    values = np.arange(16.0).reshape(4, 4)
    cells = Signal("entropy", np.where(present, values, math.nan), ~present)
    whole = Batch(np.array([3, 5, 6, 9]), {"heads": Frame(("a", "b", "c", "d"), present, {"entropy": cells})})
    part = whole.part(0, 4)
    assert part.update.tolist() == [3, 5, 6, 9]
    assert part.frames["heads"].subjects == ("b", "a", "c")
    assert np.array_equal(part.frames["heads"].present, present[:, [1, 0, 2]])
    assert np.array_equal(part.frames["heads"]["entropy"].values, cells.values[:, [1, 0, 2]], equal_nan=True)
    assert np.array_equal(part.frames["heads"]["entropy"].null, cells.null[:, [1, 0, 2]])
    part = whole.part(1, 2)
    assert part.update.tolist() == [5]
    assert part.frames["heads"].subjects == ("a",)
    assert part.frames["heads"]["entropy"].values.tolist() == [[4.0]]
    assert whole.part(2, 3).frames["heads"].subjects == ("a", "b", "c")
    assert whole.part(3, 4).frames == {}
    assert len(whole.part(2, 2).update) == 0


def test_cells_are_those_of_their_own_table_subject_and_column() -> None:
    """Three tables with one, two and three subjects, and one number for each cell."""
    wanted = {"updates": ("kl_k3", "entropy"), "heads": ("entropy",), "groups": ("grad_norm", "health", "tensors")}
    rows: dict[str, list[dict[str, object]]] = {
        "groups": [{"group": f"g{i}", "grad_norm": 10.0 + i, "tensors": 30 + i, "health": 20.0 + i} for i in range(3)],
        "heads": [{"head": f"h{i}", "entropy": 5.0 + i} for i in range(2)],
        "updates": [{"entropy": 2.0, "kl_k3": 1.0}],
    }
    batch = batch_from_rows(4, rows, wanted)
    assert batch.update.tolist() == [4]
    cells = {
        (table, name, subject): signal.values[0, k]
        for table, frame in batch.frames.items()
        for name, signal in frame.columns.items()
        for k, subject in enumerate(frame.subjects)
    }
    assert cells == {
        ("updates", "kl_k3", "run"): 1.0,
        ("updates", "entropy", "run"): 2.0,
        ("heads", "entropy", "h0"): 5.0,
        ("heads", "entropy", "h1"): 6.0,
        **{("groups", "grad_norm", f"g{i}"): 10.0 + i for i in range(3)},
        **{("groups", "health", f"g{i}"): 20.0 + i for i in range(3)},
        **{("groups", "tensors", f"g{i}"): 30.0 + i for i in range(3)},
    }
    assert all(frame.present.all() for frame in batch.frames.values())
    assert [len(frame.columns) for frame in batch.frames.values()] == [2, 1, 3]
    assert batch.sheet is not None
    assert batch.sheet.all_finite
    del rows["groups"][1]["health"]
    groups = batch_from_rows(5, rows, wanted).frames["groups"]
    assert groups["health"].null.tolist() == [[False, True, False]]
    assert groups["tensors"].values.tolist() == [[30.0, 31.0, 32.0]]
    assert not groups["tensors"].null.any()


def test_whether_all_is_finite_is_known_once_and_right() -> None:
    for cell, null in ((1.0, False), (math.nan, False), (math.inf, False), (math.nan, True)):
        signal = Signal("kl_k3", np.array([[1.0, cell]]), np.array([[False, null]]))
        for _ in range(2):
            assert bool(signal.all_finite) is (cell == 1.0)
        assert signal.finite.tolist() == [[True, cell == 1.0]]
        assert signal.nonfinite.tolist() == [[False, cell != 1.0 and not null]]
        assert signal.equals(1.0).tolist() == [[True, cell == 1.0]]
    undefined = Signal("kl_k3", np.array([[1.0, 1.0]]), np.array([[False, True]]))  # of a null cell the value is not
    assert undefined.equals(1.0).tolist() == [[True, False]]
    assert undefined.nonfinite.tolist() == [[False, False]]
