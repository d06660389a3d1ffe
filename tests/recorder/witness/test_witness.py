"""Every cell of trainings drawn at random is what its definition says, computed independently in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from tests.recorder.witness import gradients, policy, rollouts
from tests.recorder.witness.drawn import Drawn, Update, close, numbered

SEEDS = range(30)
Cells = dict[str, Any]
PRECISE = {"rtol": 1e-9, "atol": 1e-12}
SINGLE = {"rtol": 2e-5, "atol": 1e-9}
"""Gradients are measured in the model's precision."""


@pytest.fixture(params=SEEDS, scope="module")
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    with np.errstate(all="ignore"):
        return Drawn(request.param, tmp_path_factory.mktemp("drawn") / "run")


def compared(row: Mapping[str, Any], wanted: Cells, tolerance: Mapping[str, float]) -> list[str]:
    """Return what differs, in words."""
    return [
        f"{name}: {row[name]!r} is recorded, {value!r} is right"
        for name, value in wanted.items()
        if not close(row[name], value, **tolerance)
    ]


def differences(
    drawn: Drawn, table: str, key: str | None, wanted: Callable[[int, Update, Any], tuple[Cells, Mapping[str, float]]]
) -> list[str]:
    """Return all that differs between the rows of a table and what they should be."""
    found = []
    for row in drawn.rows(table):
        subject = None if key is None else row[key]
        cells, tolerance = wanted(row["update"], drawn.updates[row["update"]], subject)
        found += [f"update {row['update']} {subject}: {one}" for one in compared(row, cells, tolerance)]
    return found


def described(drawn: Drawn) -> list[int | None]:
    """Return which minibatch of each update table ``layers`` describes."""
    of = {row["update"]: row["minibatch"] for row in drawn.rows("layers")}
    return [of.get(number) for number, _ in numbered(drawn)]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with np.errstate(all="ignore"):
        yield


def test_policy_cells_of_updates(drawn: Drawn) -> None:
    def wanted(_: int, now: Update, __: Any) -> tuple[Cells, Mapping[str, float]]:
        cells = policy.update_cells(drawn, now)
        cells.pop("nonfinite_sources")
        return cells, drawn.tolerance

    assert not differences(drawn, "updates", None, wanted)


def test_sources_of_what_is_not_finite(drawn: Drawn) -> None:
    for row in drawn.rows("updates"):
        sources = policy.update_cells(drawn, drawn.updates[row["update"]])["nonfinite_sources"]
        said = row["nonfinite_sources"]
        counts = None if said is None else {one.split(": ")[0]: int(one.split(": ")[1]) for one in said.split(", ")}
        assert counts == sources


def test_value_cells_of_updates(drawn: Drawn) -> None:
    assert not differences(drawn, "updates", None, lambda _, now, __: (rollouts.value_cells(now), PRECISE))


def test_gradient_cells_of_updates(drawn: Drawn) -> None:
    assert not differences(drawn, "updates", None, lambda _, now, __: (gradients.model_cells(now), SINGLE))


def test_steps(drawn: Drawn) -> None:
    rows = drawn.rows("steps")
    assert len(rows) == sum(len(now.minibatches) for now in drawn.updates)
    for number, now in numbered(drawn):
        known = all(one.clip_range is not None for one in now.minibatches)
        losses = [one.losses.get("policy_loss") for one in now.minibatches]
        for place, one in enumerate(now.minibatches):
            row = next(row for row in rows if (row["update"], row["minibatch"]) == (number, place))
            cells = policy.step_cells(drawn, one, place, clip_known=known)
            cells["policy_loss"] = None if None in losses else losses[place]
            assert not compared(row, cells, drawn.tolerance)
            assert not compared(row, gradients.step_cells(one), SINGLE)


def test_heads(drawn: Drawn) -> None:
    assert len(drawn.rows("heads")) == len(drawn.heads) * len(drawn.updates)
    assert not differences(
        drawn, "heads", "head", lambda _, now, head: (policy.head_cells(drawn, now, head), drawn.tolerance)
    )
    assert not differences(
        drawn, "heads", "head", lambda _, now, head: (rollouts.mask_cells(drawn, now, head), PRECISE)
    )
    assert not differences(
        drawn, "heads", "head", lambda _, now, head: (gradients.head_cells(drawn, now, head), SINGLE)
    )
    assert [row["zero_explained"] for row in drawn.rows("heads")] == [
        gradients.why_zero(row) for row in drawn.rows("heads")
    ]


def test_groups(drawn: Drawn) -> None:
    assert len(drawn.rows("groups")) == len(drawn.members()) * len(drawn.updates)
    assert not differences(
        drawn, "groups", "group", lambda _, now, group: (gradients.group_cells(drawn, now, group), SINGLE)
    )


def test_detail_of_groups(drawn: Drawn) -> None:
    chosen = described(drawn)
    close_to = {"rtol": 1e-4, "atol": 1e-6}
    assert not differences(
        drawn,
        "groups",
        "group",
        lambda number, _, group: (gradients.detail_cells(drawn, number, group, chosen), close_to),
    )


def test_layers(drawn: Drawn) -> None:
    chosen = described(drawn)
    assert all((one is None) == (drawn.clip == "none") for one in chosen)

    def wanted(number: int, now: Update, layer: str) -> tuple[Cells, Mapping[str, float]]:
        place = chosen[number]
        assert place is not None
        return gradients.layer_cells(now, layer, place), {"rtol": 1e-4, "atol": 1e-6}

    assert not differences(drawn, "layers", "layer", wanted)


def test_lstm(drawn: Drawn) -> None:
    rows = {(row["update"], row["phase"]): row for row in drawn.rows("lstm")}
    for number, now in numbered(drawn):
        assert now.state is not None
        gates = rollouts.gate_cells(now)
        assert not compared(rows[number, "rollout"], rollouts.state_cells(*now.state) | dict.fromkeys(gates), PRECISE)
        last = now.minibatches[-1].state
        if last is not None:
            assert not compared(rows[number, "update"], rollouts.state_cells(*last), PRECISE)
            assert not compared(rows[number, "update"], gates, {"rtol": 1e-4, "atol": 1e-6})
        assert ((number, "update") in rows) == (last is not None or len(now.minibatches) > 1)


def test_transitions(drawn: Drawn) -> None:
    bounds = Thresholds.defaults(RULES).as_dict()
    low, high = float(bounds["ratio_collapse"]["warning"]), float(bounds["ratio_explosion"]["warning"])
    rows = drawn.rows("transitions")
    for number, now in numbered(drawn):
        parts = [policy.ratios(drawn, one) for one in now.minibatches]
        for head in ("", *(drawn.heads if len(drawn.heads) > 1 else ())):
            r = policy.joined([one[head].ratio for one in parts])
            raw = policy.joined([one[head].raw for one in parts])
            some = [row for row in rows if (row["update"], row["head"]) == (number, head)]
            concerned = len(r) > 0 and not (r.max() <= high and r.min() >= low and math.isfinite(r.max()))
            assert len(some) == (min(len(raw), 100) if concerned else 0)
            size = np.where(np.isfinite(raw), np.abs(raw), np.inf)
            found = [np.inf if not math.isfinite(row["log_ratio"]) else abs(row["log_ratio"]) for row in some]
            np.testing.assert_allclose(found, -np.sort(-size)[: len(some)], rtol=1e-5, atol=1e-6)
            with np.errstate(all="ignore"):
                bad = int(((raw < math.log(low)) | (raw > math.log(high))).sum())
            for place, row in enumerate(some):
                counts = {"place": place, "bad": bad, "nonfinite": int((~np.isfinite(raw)).sum())}
                assert not compared(row, counts | sample(drawn, now, head, row), {"rtol": 1e-5, "atol": 1e-6})


def sample(drawn: Drawn, now: Update, head: str, row: Cells) -> Cells:
    """Return what the sample of a row of ``transitions`` is, found by its index."""
    place, at = next(
        (place, int(np.flatnonzero(one.rows["index"] == row["index"])[0]))
        for place, one in enumerate(now.minibatches)
        if row["index"] in one.rows["index"]
    )
    one = now.minibatches[place]
    matters = [h for h in drawn.heads if one.relevant.get(h, np.ones(one.samples, bool))[at]]
    heads = matters if head == "" else [head]
    new, old = (float(sum(one.by_head[what][h][at] for h in heads)) for what in ("log_prob", "old_log_prob"))
    joint = float(sum(one.by_head["log_prob"][h][at] - one.by_head["old_log_prob"][h][at] for h in matters))
    joint = float(one.rows["joint_log_ratio"][at]) if "joint_log_ratio" in one.rows else joint
    return {
        "env": int(one.rows["env"][at]),
        "step": int(one.rows["step"][at]),
        "minibatch": place,
        "epoch": one.epoch,
        "log_ratio": joint if head == "" else new - old,
        "joint_log_ratio": joint,
        "log_prob": new,
        "old_log_prob": old,
        "action": None if head not in one.actions else int(one.actions[head][at]),
        "advantage": float(one.rows["advantages"][at]),
    }


def test_tensors(drawn: Drawn) -> None:
    before, rows = False, {(row["update"], row["tensor"]): row for row in drawn.rows("tensors")}
    for number, now in numbered(drawn):
        row = policy.update_cells(drawn, now)
        unstable = bool(gradients.model_cells(now)["tensors_nonfinite"] or row["nonfinite_sources"])
        reported = now.asked or (unstable and not before)
        before = unstable
        for tensor in now.weights:
            assert ((number, tensor) in rows) == reported
            if reported:
                losses = [row[name] for name in ("policy_loss", "value_loss", "entropy_loss", "total_loss")]
                cause = "nonfinite" if unstable else "asked"
                cells = gradients.tensor_cells(now, tensor, cause=cause, losses=losses)
                assert not compared(rows[number, tensor], cells, SINGLE)
