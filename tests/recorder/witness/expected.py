"""What every cell of a drawn training should be: rows as recorded, beside the cells that follow from the inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from tests.recorder.witness import gradients, policy, rollouts
from tests.recorder.witness.drawn import OTHER_NUMBERS, DrawnTraining, DrawnUpdate, close, numbered

Cells = dict[str, Any]
PRECISE = {"rtol": 1e-9, "atol": 1e-12}
SINGLE = {"rtol": 2e-5, "atol": 1e-9}
"""Gradients are measured in the model's precision."""
FITTED = {"rtol": 1e-6, "atol": 1e-9}
"""A least-squares fit by normal equations, beside one by orthogonalisation."""
THINNED = {"rtol": 1e-4, "atol": 1e-6}
"""Directions and weights are compared in float32."""


@dataclass(frozen=True)
class Law:
    """What must hold of a cell that no formula gives: a clock, a cost, an identifier."""

    words: str
    holds: Callable[[Any], bool]

    def __repr__(self) -> str:
        return self.words


@dataclass(frozen=True)
class Expected:
    """One recorded row and what some of its cells should be."""

    table: str
    row: Mapping[str, Any]
    cells: Cells
    tolerance: Mapping[str, float]

    def differences(self) -> list[str]:
        """Return the cells that are not what they should be, in words."""
        where = ", ".join(f"{name} {self.row[name]}" for name in self.row if name in _SUBJECTS)
        return [
            f"{self.table} {where}: {name} is {self.row[name]!r}, should be {cell!r}"
            for name, cell in self.cells.items()
            if not agrees(self.row[name], cell, self.tolerance)
        ]


_SUBJECTS = ("update", "minibatch", "head", "group", "layer", "phase", "place", "tensor")


def agrees(cell: object, wanted: object, tolerance: Mapping[str, float]) -> bool:
    """Whether a cell is what it should be, or obeys its law."""
    return wanted.holds(cell) if isinstance(wanted, Law) else close(cell, wanted, **tolerance)


def expectations(drawn: DrawnTraining) -> Iterator[Expected]:
    """Yield what all cells of a drawn training should be; every row of every table comes up."""
    with np.errstate(all="ignore"):
        for of_table in (_updates, _steps, _heads, _groups, _layers, _lstm, _transitions, _tensors, _episodes):
            yield from of_table(drawn)


def identity(drawn: DrawnTraining, table: str) -> list[Cells]:
    """Return the rows of a table; their ranks and sequence numbers are looked at here."""
    rows = drawn.rows(table)
    positions = [row["seq"] for row in rows]
    assert positions == sorted(set(positions))
    return rows


def _updates(drawn: DrawnTraining) -> Iterator[Expected]:
    rows = identity(drawn, "updates")
    assert [row["update"] for row in rows] == list(range(len(drawn.updates)))
    finished = 0
    for (number, now), row in zip(numbered(drawn), rows, strict=True):
        cells = policy.update_cells(drawn, now)
        sources = cells.pop("nonfinite_sources")
        cells["nonfinite_sources"] = Law(f"{sources}", partial(same_counts, sources))
        yield Expected("updates", row, cells, drawn.tolerance)
        yield Expected("updates", row, rollouts.value_cells(now), PRECISE)
        yield Expected("updates", row, rollouts.agreement_cells(drawn, now), FITTED)
        before = drawn.updates[number - 1] if number else None
        yield Expected("updates", row, rollouts.observation_cells(before, now), FITTED)
        yield Expected("updates", row, {"parameter_shift_between_updates": 0.0}, PRECISE)
        yield Expected("updates", row, gradients.model_cells(now), SINGLE)
        finished += len(now.episodes)
        yield Expected("updates", row, clock_cells(drawn, number, now, row, finished), PRECISE)


def same_counts(sources: dict[str, int] | None, text: str | None) -> bool:
    """Whether ``nonfinite_sources`` names these sources and counts."""
    if text is None or sources is None:
        return text is None and sources is None
    return {name: int(count) for name, count in (one.split(": ") for one in text.split(", "))} == sources


def clock_cells(drawn: DrawnTraining, number: int, now: DrawnUpdate, row: Mapping[str, Any], finished: int) -> Cells:
    """Return cells of ``updates`` about time, settings, episodes and the recorder itself."""
    stepped = [one.stepped for one in now.minibatches]
    returns = [episode["episode_return"] for episode in now.episodes]
    lengths = [episode["length"] for episode in now.episodes if episode["length"] is not None]
    steps = 130 * (number + 1)
    seconds = row["rollout_s"] + row["optimisation_s"]
    detail = 0
    if drawn.clip != "none":
        kinds = [tuple(one.before) for one in now.minibatches]
        detail = min(max(kinds.count(kind) for kind in kinds), 4)
    earlier = [one.stepped for before in drawn.updates[: number + 1] for one in before.minibatches]
    status = how_it_ended(now, row)
    reason = Law("given unless performed", lambda cell: (cell is None) == (status in ("performed", "kl_stopped")))
    return {
        "rank": 0,
        "update": number,
        "seq": Law("a position", lambda cell: cell >= 0),
        "env_steps": steps,
        "episodes": finished or None,
        "wall_time": Law("within the recording", lambda cell: drawn.began <= cell <= drawn.ended),
        "rollout_s": Law("within the recording", lambda cell: 0 <= cell <= drawn.took),
        "optimisation_s": Law("within the recording", lambda cell: 0 <= cell <= drawn.took),
        "recorder_ms": Law("within the recording", lambda cell: 0 < cell <= 1000 * drawn.took),
        "recorder_fraction": row["recorder_ms"] / 1000 / seconds,
        "progress": min(steps / 500, 1.0) if drawn.seed % 2 else (number + 1) / 4,
        "learning_rate": 0.05 + drawn.seed / 1e3 if any(earlier) else None,
        "entropy_coef": now.settings["entropy_coef"],
        "target_kl": now.settings["target_kl"],
        "value_coef": now.settings["value_coef"],
        "gamma": now.settings["gamma"],
        **{name: now.settings[name] for name in OTHER_NUMBERS},
        "optimizer_state_lost": None,  # SGD without momentum has none
        "status": status,
        "skip_reason": reason,
        "inner_loop_measurable": any(stepped[:-1]),  # a step in between: else nothing could have changed
        "episodes_finished": len(returns) if finished else None,
        "episode_return_mean": float(np.mean(returns)) if returns else None,
        "episode_length_mean": float(np.mean(lengths)) if lengths else None,
        "level": Law("a level that detail is recorded at", lambda cell: cell in ("NORMAL", "DEBUG")),
        "dropped_rows": 0,
        "sampled_steps": detail,
    }


def how_it_ended(now: DrawnUpdate, row: Mapping[str, Any]) -> str:
    taken = sum(one.stepped for one in now.minibatches)
    if not taken and row["nonfinite_sources"]:
        return "nonfinite_skipped"
    if now.settings["target_kl"] and not now.minibatches[-1].stepped:
        return "kl_stopped"
    return "performed" if taken else "no_usable_steps"


def _steps(drawn: DrawnTraining) -> Iterator[Expected]:
    rows = {(row["update"], row["minibatch"]): row for row in identity(drawn, "steps")}
    assert len(rows) == sum(len(now.minibatches) for now in drawn.updates)
    for number, now in numbered(drawn):
        known = all(one.clip_range is not None for one in now.minibatches)
        losses = [one.losses.get("policy_loss") for one in now.minibatches]
        for place, one in enumerate(now.minibatches):
            row = rows[number, place]
            cells = policy.step_cells(drawn, one, place, clip_known=known)
            cells["policy_loss"] = None if None in losses else losses[place]
            yield Expected("steps", row, {"rank": 0, "update": number, "seq": row["seq"]} | cells, drawn.tolerance)
            yield Expected("steps", row, gradients.step_cells(one), SINGLE)


def _heads(drawn: DrawnTraining) -> Iterator[Expected]:
    rows = identity(drawn, "heads")
    names = [(number, head) for number, _ in numbered(drawn) for head in drawn.heads]
    for (number, head), row in zip(names, rows, strict=True):
        now = drawn.updates[number]
        cells = {"rank": 0, "update": number, "seq": row["seq"], "zero_explained": gradients.why_zero(row)}
        yield Expected("heads", row, cells | policy.head_cells(drawn, now, head), drawn.tolerance)
        yield Expected("heads", row, rollouts.mask_cells(drawn, now, head), PRECISE)
        yield Expected("heads", row, gradients.head_cells(drawn, now, head), SINGLE)


def described(drawn: DrawnTraining) -> list[int | None]:
    """Return which minibatch of each update table ``layers`` describes."""
    of = {row["update"]: row["minibatch"] for row in drawn.rows("layers")}
    return [of.get(number) for number, _ in numbered(drawn)]


def _groups(drawn: DrawnTraining) -> Iterator[Expected]:
    rows, chosen = identity(drawn, "groups"), described(drawn)
    assert len(rows) == len(drawn.members()) * len(drawn.updates)
    for row in rows:
        number, group = row["update"], row["group"]
        cells = {"rank": 0, "update": number, "seq": row["seq"], "drift_norm": None, "drift_health": None}
        yield Expected("groups", row, cells | gradients.group_cells(drawn, drawn.updates[number], group), SINGLE)
        yield Expected("groups", row, gradients.detail_cells(drawn, number, group, chosen), THINNED)


def _layers(drawn: DrawnTraining) -> Iterator[Expected]:
    rows = {(row["update"], row["layer"]): row for row in identity(drawn, "layers")}
    for place, (number, now) in zip(described(drawn), numbered(drawn), strict=True):
        assert (place is None) == (drawn.clip == "none")
        for layer in now.weights if place is not None else ():
            row = rows[number, layer]
            cells = {"rank": 0, "update": number, "seq": row["seq"]} | gradients.layer_cells(now, layer, place or 0)
            yield Expected("layers", row, cells, THINNED)


def _lstm(drawn: DrawnTraining) -> Iterator[Expected]:
    rows = {(row["update"], row["phase"]): row for row in identity(drawn, "lstm")}
    for number, now in numbered(drawn):
        gates, last = rollouts.gate_cells(now), now.minibatches[-1].state
        assert now.state is not None
        row = rows[number, "rollout"]
        cells = {"rank": 0, "update": number, "seq": row["seq"], "phase": "rollout"} | dict.fromkeys(gates)
        yield Expected("lstm", row, cells | rollouts.state_cells(*now.state), PRECISE)
        assert ((number, "update") in rows) == (last is not None or len(now.minibatches) > 1)
        if last is not None:
            yield Expected("lstm", rows[number, "update"], rollouts.state_cells(*last), PRECISE)
            yield Expected("lstm", rows[number, "update"], gates, THINNED)


def _transitions(drawn: DrawnTraining) -> Iterator[Expected]:
    bounds = Thresholds.defaults(RULES).as_dict()
    low, high = float(bounds["ratio_collapse"]["warning"]), float(bounds["ratio_explosion"]["warning"])
    rows = identity(drawn, "transitions")
    for number, now in numbered(drawn):
        parts = [policy.ratios(drawn, one) for one in now.minibatches]
        for head in ("", *(drawn.heads if len(drawn.heads) > 1 else ())):
            r, raw = (policy.joined([getattr(one[head], what) for one in parts]) for what in ("ratio", "raw"))
            worst = [row for row in rows if (row["update"], row["head"]) == (number, head)]
            concerned = len(r) > 0 and not (r.max() <= high and r.min() >= low and math.isfinite(r.max()))
            assert len(worst) == (min(len(raw), 100) if concerned else 0)
            size = np.where(np.isfinite(raw), np.abs(raw), np.inf)
            sizes = [abs(row["log_ratio"]) if math.isfinite(row["log_ratio"]) else np.inf for row in worst]
            np.testing.assert_allclose(sizes, -np.sort(-size)[: len(worst)], rtol=1e-5, atol=1e-6)
            counts = {
                "bad": int(((raw < math.log(low)) | (raw > math.log(high))).sum()),
                "nonfinite": int((~np.isfinite(raw)).sum()),
            }
            for place, row in enumerate(worst):
                cells = {"rank": 0, "update": number, "seq": row["seq"], "head": head, "place": place} | counts
                yield Expected("transitions", row, cells | _sample(drawn, now, head, row), {"rtol": 1e-5, "atol": 1e-6})


def _sample(drawn: DrawnTraining, now: DrawnUpdate, head: str, row: Mapping[str, Any]) -> Cells:
    """Return what the sample of a row of ``transitions`` is; its index in the rollout is unique."""
    place = row["index"] // 100
    one = now.minibatches[place]
    at = int(np.flatnonzero(one.rows["index"] == row["index"])[0])
    matters = [h for h in drawn.heads if one.relevant.get(h, np.ones(one.samples, bool))[at]]
    heads = matters if head == "" else [head]
    new, old = (float(sum(one.by_head[what][h][at] for h in heads)) for what in ("log_prob", "old_log_prob"))
    joint = float(sum(one.by_head["log_prob"][h][at] - one.by_head["old_log_prob"][h][at] for h in matters))
    joint = float(one.rows["joint_log_ratio"][at]) if "joint_log_ratio" in one.rows else joint
    return {
        "index": int(one.rows["index"][at]),
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


def _tensors(drawn: DrawnTraining) -> Iterator[Expected]:
    before, rows = False, {(row["update"], row["tensor"]): row for row in identity(drawn, "tensors")}
    for number, now in numbered(drawn):
        cells = policy.update_cells(drawn, now)
        losses = [cells[name] for name in ("policy_loss", "value_loss", "entropy_loss", "total_loss")]
        unstable = bool(gradients.model_cells(now)["tensors_nonfinite"] or cells["nonfinite_sources"])
        reported, before = now.asked or (unstable and not before), unstable
        cause = "nonfinite" if unstable else "asked"
        for tensor in now.weights:
            assert ((number, tensor) in rows) == reported
            if reported:
                row = rows[number, tensor]
                cells = {"rank": 0, "update": number, "seq": row["seq"]}
                cells |= gradients.tensor_cells(now, tensor, cause=cause, losses=losses)
                yield Expected("tensors", row, cells, SINGLE)


def _episodes(drawn: DrawnTraining) -> Iterator[Expected]:
    episodes = [(number, episode) for number, now in numbered(drawn) for episode in now.episodes]
    for (number, episode), row in zip(episodes, identity(drawn, "episodes"), strict=True):
        yield Expected("episodes", row, {"rank": 0, "update": number, "seq": row["seq"]} | episode, PRECISE)
