"""Rows of one update as the detector's columns."""

from __future__ import annotations

import math

import numpy as np
import pytest

from esper_analyze.detector.signals import batch_from_rows, choice_code

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
