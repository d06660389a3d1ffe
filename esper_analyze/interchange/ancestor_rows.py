"""What the ancestor's events say of one batch, as rows of our tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from esper_analyze.interchange.ancestor_names import COUNTS, HEADS, INNER_LOOP, LSTM, PHASES, STATES, UPDATES
from esper_analyze.interchange.cells import CellError, fitted, flag, real, whole_number
from esper_analyze.interchange.imported import Imported, ImportLosses, Row
from esper_analyze.schema.constants import HEAD_GROUP
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.schema.zero import explain_zero

_NOISE = 1e-5
"""Float noise of a ratio that is 1 by construction; of a KL that is 0."""
_SAME_STEPS = 1e-6
_TRAINING = ("training", "blending")


@dataclass(slots=True)
class Payload:
    """The ``data`` of an event; a cell that cannot be read is null, and counted."""

    cells: dict[str, Any]
    losses: ImportLosses
    where: str
    reported: set[str] = field(default_factory=set)

    def _read(self, kind: Any, name: str) -> Any:
        cell = self.cells.get(name)
        try:
            return kind(cell)
        except CellError:
            if name in self.reported:
                return None
            self.reported.add(name)
            self.losses.count("unreadable_value", "unreadable value, taken as null", f"{name}, {self.where}")
            return None

    def real(self, name: str) -> float | None:
        """Return a number."""
        return self._read(real, name)  # type: ignore[no-any-return]

    def whole_number(self, name: str) -> int | None:
        """Return a whole number."""
        return self._read(whole_number, name)  # type: ignore[no-any-return]

    def flag(self, name: str) -> bool | None:
        """Return true or false."""
        return self._read(flag, name)  # type: ignore[no-any-return]

    def column(self, table: str, column: str, name: str) -> object:
        """Return the cell ``name`` as ``column`` of ``table`` holds it."""
        return self._read(lambda cell: fitted(BY_NAME[table].column(column), cell), name)


@dataclass(slots=True)
class SeedModule:
    """One slot of one environment over the inner epochs of a batch."""

    calls: int = 0
    last: Payload | None = None
    health: list[float] = field(default_factory=list)
    vanishing: list[bool] = field(default_factory=list)
    exploding: list[bool] = field(default_factory=list)

    def take(self, seed: Payload) -> None:
        """Take in one inner epoch. Health 0 with nothing wrong is a default, not a measurement."""
        self.calls += 1
        self.last = seed
        health, vanishing, exploding = seed.real("grad_ratio"), seed.flag("has_vanishing"), seed.flag("has_exploding")
        if health is None or (health == 0 and not vanishing and not exploding):
            return
        self.health.append(health)
        self.vanishing.append(bool(vanishing))
        self.exploding.append(bool(exploding))

    def row(self) -> Row:
        """Return the cells of ``slots``."""
        cells: Mapping[str, Any] = self.last.cells if self.last else {}
        stage = cells.get("stage")
        measured = bool(self.health)
        return {
            "calls": self.calls,
            "stage": None if stage is None else str(stage),
            "blueprint": None if cells.get("blueprint_id") is None else str(cells["blueprint_id"]),
            "alpha": self.last.real("alpha") if self.last else None,
            "should_train": None if stage is None else str(stage).lower() in _TRAINING,
            "health": sum(self.health) / len(self.health) if measured else None,
            "has_vanishing": any(self.vanishing) if measured else None,
            "has_exploding": any(self.exploding) if measured else None,
        }


@dataclass(slots=True)
class AncestorBatch:
    """What was gathered of one batch; ``masks`` are steps with at most one valid action, and steps, by head."""

    number: int
    update: Payload | None = None
    time: float | None = None
    episodes_done: int | None = None
    skipped: bool | None = None
    masks: dict[str, tuple[int, int]] = field(default_factory=dict)
    seeds: dict[tuple[int, str], SeedModule] = field(default_factory=dict)
    episodes: list[Payload] = field(default_factory=list)

    def has_head(self, head: str) -> bool:
        """Whether the events say anything of ``head``."""
        cells = self.update.cells if self.update else {}
        return head in self.masks or cells.get(f"head_{head}_grad_norm") is not None


def measurable(batches: Iterable[AncestorBatch]) -> bool | None:
    """Return whether ratio, KL and clip fraction moved in any update; None when none has them.

    The events do not say how many inner epochs there were: with one, they are 1, 0 and 0 in all updates.
    """
    measured = [
        batch.update for batch in batches if batch.update is not None and batch.update.real("ratio_max") is not None
    ]
    return any(_moved(update) for update in measured) if measured else None


def _moved(update: Payload) -> bool:
    still = {"ratio_max": 1.0, "ratio_min": 1.0, "kl_divergence": 0.0, "clip_fraction": 0.0}
    numbers = ((update.real(name), rest) for name, rest in still.items())
    return any(number is not None and not abs(number - rest) <= _NOISE for number, rest in numbers)


def update_columns(caveats: Mapping[str, str]) -> dict[str, str]:
    """Return our columns of ``updates`` with the payload's name, and how its number differs."""
    named = UPDATES | INNER_LOOP | {name: name for name in COUNTS}
    return {ours: "; ".join(filter(None, (theirs, caveats.get(ours)))) for ours, theirs in named.items()}


def batch_rows(imported: Imported, batch: AncestorBatch, batches: int | None, usable: bool | None) -> None:
    """Add the rows of one batch; without an event of its update only what says that it was skipped."""
    if batch.update is not None:
        imported.add("updates", _update_row(batch, batch.update, batches, usable))
        _head_rows(imported, batch, batch.update, usable)
        _group_rows(imported, batch.number, batch.update)
        _lstm_rows(imported, batch.number, batch.update)
    elif batch.skipped:
        reason = "the source reports skipped_update without a reason"
        row = {"update": batch.number, "level": "NORMAL", "status": "no_usable_steps", "skip_reason": reason}
        imported.add("updates", row | _episodes(batch))
    for (env, slot), seed in batch.seeds.items():
        keys = {"update": batch.number, "place": f"env {env}, {slot}", "env": env, "slot": slot}
        imported.add("slots", keys | seed.row())
    for episode in batch.episodes:
        cells = {"env": episode.whole_number("env_id"), "episode_return": episode.real("episode_reward")}
        imported.add("episodes", {"update": batch.number, **cells, "length": episode.whole_number("episode_length")})


def _update_row(batch: AncestorBatch, data: Payload, batches: int | None, usable: bool | None) -> Row:
    row: Row = {"update": batch.number, "level": "NORMAL", "wall_time": batch.time, **_status(data)}
    row |= {ours: data.column("updates", ours, theirs) for ours, theirs in UPDATES.items()}
    if usable is not False:
        row |= {ours: data.column("updates", ours, theirs) for ours, theirs in INNER_LOOP.items()}
    took = data.real("update_time_ms")
    row |= {
        "inner_loop_measurable": usable,
        "episodes": batch.episodes_done,
        "progress": min((batch.number + 1) / batches, 1.0) if batches else None,
        "optimisation_s": None if took is None else took / 1000,
        "nonfinite_sources": _nonfinite(data),
    }
    row |= {name: data.whole_number(name) or None for name in COUNTS}
    return row | _episodes(batch)


def _status(data: Payload) -> Row:
    if data.flag("update_skipped") or data.flag("skipped"):
        overflow = data.flag("amp_overflow_detected")
        status = "nonfinite_skipped" if overflow else "no_usable_steps"
        return {
            "status": status,
            "skip_reason": "overflow" if overflow else "the source reports a skipped update without a reason",
        }
    return {"status": "performed" if data.whole_number("early_stop_epoch") is None else "kl_stopped"}


def _nonfinite(data: Payload) -> str | None:
    named = []
    for kind in ("nan", "inf"):
        flags = data.cells.get(f"head_{kind}_detected")
        named += [f"head {head}" for head, bad in flags.items() if bad is True] if isinstance(flags, Mapping) else []
    return ",".join(dict.fromkeys(named)) or None


def _episodes(batch: AncestorBatch) -> Row:
    returns = [
        number for number in (episode.real("episode_reward") for episode in batch.episodes) if number is not None
    ]
    lengths = [
        number
        for number in (episode.whole_number("episode_length") for episode in batch.episodes)
        if number is not None
    ]
    return {
        "episodes_finished": len(batch.episodes) or None,
        "episode_return_mean": sum(returns) / len(returns) if returns else None,
        "episode_length_mean": sum(lengths) / len(lengths) if lengths else None,
    }


def _head_rows(imported: Imported, batch: AncestorBatch, data: Payload, usable: bool | None) -> None:
    for head in HEADS:
        if not batch.has_head(head):
            continue
        single, total = batch.masks.get(head, (0, 0))
        learnable = 1 - single / total if total else None
        effective = data.real(f"head_{head}_learnable_fraction")
        row: Row = {
            "head": head,
            "kind": "categorical",
            "grad_norm": data.real(f"head_{head}_grad_norm"),
            "rollout_samples": total or None,
            "single_action_fraction": single / total if total else None,
            "learnable_fraction": learnable,
            "effective_fraction": effective,
            "entropy_norm": _entropy_norm(data.real(f"head_{head}_entropy"), learnable, effective),
        }
        if usable is not False:
            row["ratio_max"] = data.real(f"head_{head}_ratio_max")
            row["clip_fraction"] = data.real(f"head_{head}_clip_fraction")
        row["grad_state"] = _grad_state(data.cells.get(f"head_{head}_gradient_state"), row["grad_norm"])
        row["zero_explained"] = explain_zero(row)
        imported.add("heads", {"update": batch.number, **row})


def _entropy_norm(entropy: float | None, learnable: float | None, effective: float | None) -> float | None:
    """Return H / ln(n_valid) over steps with a choice: known where the head mattered in just those steps.

    The ancestor's is over all steps, those that count nothing included.
    """
    if entropy is None or not learnable or effective is None or abs(learnable - effective) > _SAME_STEPS:
        return None
    return entropy / effective


def _grad_state(recorded: object, norm: object) -> str | None:
    if recorded not in STATES:
        return None
    state = STATES[str(recorded)]
    if state is not None or not isinstance(norm, float):
        return state
    return "finite" if abs(norm) < float("inf") else "nonfinite"


def _group_rows(imported: Imported, update: int, data: Payload) -> None:
    named = {f"{HEAD_GROUP}{head}": f"head_{head}_grad_norm" for head in HEADS}
    named |= {"value": "head_value_grad_norm", "q": "head_q_grad_norm", "all": "pre_clip_grad_norm"}
    for group, name in named.items():
        norm = data.real(name)
        if norm is not None:
            imported.add("groups", {"update": update, "group": group, "grad_norm": norm})


def _lstm_rows(imported: Imported, update: int, data: Payload) -> None:
    for phase, prefix in PHASES.items():
        cells: Row = {name: data.real(prefix + name) for name in LSTM}
        if any(cell is not None for cell in cells.values()):
            flags = {name: data.flag(prefix + name) for name in ("has_nan", "has_inf")}
            imported.add("lstm", {"update": update, "phase": phase, **cells, **flags})
