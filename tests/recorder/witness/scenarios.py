"""Small recordings made for one column each: clocks, escalation, losses, ranks, seeds, drift, mixed precision."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from esper_analyze.runs.merge_ranks import merge_ranks
from esper_analyze.runs.run import RecordedRun, open_run
from recorder import Recorder
from recorder.rollout import RolloutHandles
from tests.recorder.measure.test_slots import expected as slot_cells
from tests.recorder.plain import Plain, ordinary
from tests.recorder.witness.expected import PRECISE, SINGLE, Expected, Law

Cells = dict[str, Any]


def rows_of(run: RecordedRun, table: str) -> list[Cells]:
    return run.frame(table).to_dicts()


@dataclass
class Time:
    """Stands in for the module ``time``: time goes by only when told to."""

    now: float = 100.0
    set_by: float = 1e9

    def perf_counter(self) -> float:
        return self.now

    def time(self) -> float:
        return self.set_by + self.now


def clock(run_dir: Path) -> Iterator[Expected]:
    """2 s of rollout, 3 s of optimisation, of which the recorder takes half a second; then the time of day is set.

    A quarter of a second that the recorder takes after an update belongs to the next one.
    """
    time = Time()

    def slow(*_: object) -> RolloutHandles:
        time.now += 0.5
        return RolloutHandles()

    next_update = Recorder._next_update

    def late(rec: Recorder) -> None:
        time.now += 0.25
        next_update(rec)

    with (
        patch.object(Recorder, "_next_update", late),
        patch("recorder.clock.time", time),
        patch("recorder.guard.time", time),
        patch("recorder.pipeline.rollout_tensors", slow),
        Recorder(run_dir, strict=True) as rec,
    ):
        time.now += 2.0
        ordinary(rec)
        time.now += 2.5
        rec.update()
        time.now, time.set_by = time.now + 1.0, time.set_by - 60.0
        rec.update()
    run = open_run(run_dir)
    first, second = rows_of(run, "updates")
    cells: Cells = {"rollout_s": 2.0, "optimisation_s": 3.0, "wall_time": 1e9 + 105, "recorder_ms": 500.0}
    yield Expected("updates", first, cells | {"recorder_fraction": 0.1}, PRECISE)
    cells = {"rollout_s": 1.75, "optimisation_s": 0.0, "wall_time": 1e9 + 46.75, "recorder_fraction": 0.75 / 1.75}
    yield Expected("updates", second, cells | {"recorder_ms": 750.0}, PRECISE)
    (row,) = rows_of(run, "losses_of_data")
    cells = {"kind": "clock_step", "rows": 0, "update": 1, "rank": 0, "seq": row["seq"]}
    cells["detail"] = Law("says by how much", lambda text: "-60.0 s" in text)
    yield Expected("losses_of_data", row, cells, PRECISE)


def losses(run_dir: Path) -> Iterator[Expected]:
    """Two errors of the recorder's own."""
    logging.getLogger("recorder").disabled = True
    try:
        with (
            patch("recorder.recorder.lstm_statistics", side_effect=ZeroDivisionError("by hand")),
            Recorder(run_dir) as rec,
        ):
            for _ in range(2):
                ordinary(rec, lstm=(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)))
                rec.update()
    finally:
        logging.getLogger("recorder").disabled = False
    rows = rows_of(open_run(run_dir), "losses_of_data")
    assert len(rows) == 2
    for update, row in enumerate(rows):
        cells: Cells = {"kind": "recorder_error", "rows": 1, "update": update, "rank": 0, "seq": row["seq"]}
        cells["detail"] = Law("where and why", lambda text: "lstm (update): ZeroDivisionError: by hand" in text)
        yield Expected("losses_of_data", row, cells, PRECISE)


def escalation(run_dir: Path) -> Iterator[Expected]:
    """A loss of NaN in one update: critical at once, ok after it, and 20 updates at DEBUG."""
    with Recorder(run_dir, strict=True) as rec:
        for update in range(25):
            same = torch.full((8,), -1.0)
            rec.minibatch(log_prob=same, old_log_prob=same, policy_loss=math.nan if update == 2 else 0.5)
            rec.update()
    run = open_run(run_dir)
    up, down = rows_of(run, "levels")
    cells: Cells = {"rank": 0, "update": 3, "seq": up["seq"], "level": "DEBUG", "previous": "NORMAL"}
    cells |= {"rule": "numerical_instability", "subject": "run", "finding_update": 2, "until": 22}
    yield Expected("levels", up, cells, PRECISE)
    cells = {"rank": 0, "update": 23, "seq": down["seq"], "level": "NORMAL", "previous": "DEBUG", "until": 23}
    yield Expected("levels", down, cells | dict.fromkeys(("rule", "subject", "finding_update")), PRECISE)
    for row in rows_of(run, "updates"):
        level = "DEBUG" if 3 <= row["update"] <= 22 else "NORMAL"
        yield Expected("updates", row, {"level": level}, PRECISE)
    findings = [row for row in rows_of(run, "findings") if row["rule"] == "numerical_instability"]
    verdicts = [(row["update"], row["metric"], row["verdict"]) for row in findings]
    assert (2, "nonfinite_sources", "critical") in verdicts, verdicts
    row = next(row for row in findings if row["verdict"] == "critical")
    cells = {"rank": 0, "update": 2, "seq": row["seq"], "rule": "numerical_instability", "subject": "run"}
    yield Expected("findings", row, cells | {"metric": "nonfinite_sources", "verdict": "critical"}, PRECISE)


def spike(run_dir: Path) -> Iterator[Expected]:
    """A ratio of e^1.5 in every second minibatch of an update, after updates with one of e^0.1."""
    with Recorder(run_dir, strict=True) as rec:
        for update in range(4):
            for place in range(2):
                new = torch.full((8,), -1.0 + place * (1.5 if update == 3 else 0.1), dtype=torch.float64)
                rec.minibatch(log_prob=new, old_log_prob=torch.full_like(new, -1.0), clip_range=0.2, epoch=place)
            rec.update()
    run = open_run(run_dir)
    k3 = (math.exp(1.5) - 1 - 1.5) / 2
    for row in rows_of(run, "findings"):
        if (row["rule"], row["update"], row["verdict"]) == ("kl_spike", 3, "critical"):
            cells: Cells = {"rank": 0, "metric": "kl_k3", "subject": "run", "value": k3, "previous": "ok"}
            cells["threshold"] = Law("a bound that the value is beyond", lambda bound: 0 < bound < k3)
            yield Expected("findings", row, cells, PRECISE)
        if (row["rule"], row["update"]) == ("head_entropy_collapse", 0):
            cells = {"verdict": "no_data", "reason": Law("a column", lambda text: "entropy" in text)}
            yield Expected("findings", row, cells, PRECISE)


def baseline(run_dir: Path) -> Iterator[Expected]:
    """Advantages that shrink to a hundredth of what they were: judged against their own early level."""
    with Recorder(run_dir, strict=True) as rec:
        for update in range(30):
            size = 1.0 if update < 20 else 0.01
            rec.update(advantages=torch.tensor([-size, size], dtype=torch.float64))
    rows = [row for row in rows_of(open_run(run_dir), "findings") if row["rule"] == "advantage_collapse"]
    row = next(row for row in rows if row["verdict"] == "info")
    yield Expected(
        "findings", row, {"metric": "advantage_std", "value": 0.01, "baseline": 1.0}, {"rtol": 1e-6, "atol": 0}
    )


def ranks(run_dir: Path) -> Iterator[Expected]:
    """Three ranks, one of which learns faster and one that broke."""
    rates = (1e-3, 4e-3, 2e-3)
    for rank, rate in enumerate(rates):
        with Recorder(run_dir, rank=rank, world_size=3, strict=True) as rec:
            ordinary(rec)
            rec.update(learning_rate=rate, entropy_coef=0.0, target_kl=math.nan if rank == 1 else 0.1)
    rows = {row["metric"]: row for row in rows_of(merge_ranks(open_run(run_dir)), "ranks")}
    wanted: dict[str, Cells] = {
        "learning_rate": {"ranks": 3, "least": 1e-3, "most": 4e-3, "spread": 0.75},
        "entropy_coef": {"ranks": 3, "least": 0.0, "most": 0.0, "spread": 0.0},
        "target_kl": {"ranks": 3, "least": None, "most": None, "spread": math.inf},
    }
    for metric, cells in wanted.items():
        row = rows[metric]
        yield Expected("ranks", row, {"rank": 0, "update": 0, "seq": row["seq"], "metric": metric} | cells, PRECISE)


RATIOS = {
    "fades": ([1.0, 1.0, 1.0, 0.01], 1.0, "saturated"),
    "sleeps": ([0.01, 0.02, 0.03, 0.04], 1.0, "dormant"),
    "outrun": ([1.0, 1.0, 1.0, 1.0], 20.0, "host_learning_fast"),
    "cut off": ([1.0, 1.0, 1.0, 0.01], 1.0, "disconnected"),
    "learns": ([1.0, 0.5, 2.0, 0.3], 1.0, None),
}
"""By slot: what each element of the seed's gradient is, update by update; of the host's in the last one; the cause."""


def seeds(run_dir: Path) -> Iterator[Expected]:
    """One seed for each cause of a low ratio, and a sound one; every call twice, the second with half the gradient."""
    calls: dict[tuple[int, str], list[Any]] = {}
    with Recorder(run_dir, strict=True) as rec:
        for update in range(4):
            for env, (slot, (sizes, host_size, _)) in enumerate(RATIOS.items()):
                for share in (1.0, 0.5):
                    pull = share * sizes[update]
                    seed = [torch.full((4,), pull), torch.full((2, 3), pull)]
                    if slot == "cut off" and update == 3:
                        seed[0] = None  # type: ignore[call-overload]
                    host = [torch.full((9,), share * (host_size if update == 3 else 1.0)), None]
                    given: dict[str, Any] = {"stage": "Training", "blueprint": f"b{env}", "alpha": 0.25 * share}
                    rec.slot(
                        env, slot, seed=with_gradients(seed), host=with_gradients(host), max_grad_norm=0.02, **given
                    )
                    calls.setdefault((update, slot), []).append((None, seed, host, 0.02))
            rec.update()
    averages: dict[str, float] = {}
    for row in rows_of(open_run(run_dir), "slots"):
        slot, update = row["slot"], row["update"]
        cells = slot_cells(calls[update, slot])
        ratio = cells["normalized_ratio"]
        averages[slot] = 0.9 * averages[slot] + 0.1 * ratio if slot in averages else ratio
        env = list(RATIOS).index(slot)
        cells |= {"rank": 0, "update": update, "seq": row["seq"], "env": env, "slot": slot}
        cells |= {"place": f"env {env}, {slot}", "stage": "Training", "blueprint": f"b{env}", "alpha": 0.125}
        cells |= {"should_train": True, "ratio_ema": averages[slot]}
        cells["low_ratio_cause"] = RATIOS[slot][2] if ratio < 0.1 else None
        yield Expected("slots", row, cells, SINGLE)


def with_gradients(gradients: list[Any]) -> list[nn.Parameter]:
    parameters = []
    for gradient in gradients:
        parameters.append(nn.Parameter(torch.zeros(3) if gradient is None else torch.zeros_like(gradient)))
        parameters[-1].grad = gradient
    return parameters


def drift(run_dir: Path) -> Iterator[Expected]:
    """Gradient norms of 1, 2, 3 …: no drift in the first ten updates, then against a bias-corrected average."""
    model, norms = Plain(), [1.0 + update for update in range(14)]
    with Recorder(run_dir, model, strict=True) as rec:
        for size in norms:
            ordinary(rec)
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            assert model.op.bias.grad is not None
            model.op.bias.grad[0] = size
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
            rec.update()
    rows = [row for row in rows_of(open_run(run_dir), "groups") if row["group"] == "all"]
    average = 0.0
    for update, (row, size) in enumerate(zip(rows, norms, strict=True)):
        cells: Cells = {"grad_norm": size, "health": 0.75, "drift_norm": None, "drift_health": None}
        if update >= 10:
            unbiased = average / (1 - 0.99**10) if update == 10 else average
            cells |= {"drift_norm": abs(size - unbiased) / (unbiased + 1e-8), "drift_health": 0.0}
            average = unbiased
        average = 0.99 * average + 0.01 * size
        yield Expected("groups", row, cells, {"rtol": 1e-9, "atol": 1e-9})


def scaled(run_dir: Path) -> Iterator[Expected]:
    """A loss scale of 1024 that is on the gradients when the optimizer steps, and not in what is recorded."""
    torch.manual_seed(0)
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with Recorder(run_dir, model, strict=True) as rec:
        ordinary(rec)
        loss = model.op(torch.ones(1, 3)).sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        scaler.step(optimizer)
        rec.update()
    (row,) = rows_of(open_run(run_dir), "updates")
    yield Expected("updates", row, {"loss_scale": 1024.0, "grad_norm_pre_clip": 4.0}, SINGLE)


def changes(run_dir: Path) -> Iterator[Expected]:
    """A head that is replaced, one that goes and a layer that comes, before the second of two updates."""
    model = nn.ModuleDict({"op": nn.Linear(3, 2), "old": nn.Linear(3, 1), "stays": nn.Linear(3, 1, bias=False)})
    zeros = {name: torch.zeros(4) for name in ("op", "old")}
    with Recorder(run_dir, model, heads={name: model[name] for name in zeros}, strict=True) as rec:
        for update in range(2):
            if update:
                del model["old"]
                model["op"], model["new"] = nn.Linear(3, 5, bias=False), nn.Linear(1, 1, bias=False)
            rec.minibatch(log_prob=zeros, old_log_prob=zeros)
            rec.update()
    run = open_run(run_dir)
    wanted = [
        ("parameters_added", "new.weight", "shape (1, 1)"),
        ("parameters_removed", "op.bias", "shape (2,) before"),
        ("parameters_removed", "old.weight", "shape (1, 3) before"),
        ("parameters_removed", "old.bias", "shape (1,) before"),
        ("parameters_replaced", "op.weight", "shape (2, 3) before, (5, 3) now"),
        ("parameters_replaced", "head:op", "2 tensors, 8 elements before; 1 tensors, 15 elements now"),
        ("parameters_removed", "head:old", "2 tensors, 4 elements before; 0 tensors, 0 elements now"),
    ]
    found = rows_of(run, "events")
    assert len(found) == len(wanted)
    for row, cells in zip(found, wanted, strict=True):
        named = dict(zip(("kind", "subject", "detail"), cells, strict=True))
        yield Expected("events", row, {"rank": 0, "update": 1, "seq": Law("a position", lambda x: x >= 0), **named}, {})
    for row in rows_of(run, "groups"):
        yield Expected("groups", row, {"parameters_changed": row["update"] == 1}, {})


def optimizers(run_dir: Path) -> Iterator[Expected]:
    """Adam in each update: its moments begin; carried on; restored from a checkpoint; zeroed; gone, with a new Adam."""
    model = nn.Linear(2, 3)
    steps = (2, 2, 4, 4, 4, 1, 4)
    lost: list[float | None] = [None, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0]
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters())
    with Recorder(run_dir, model, strict=True) as rec:
        for update, count in enumerate(steps):
            if update in (3, 4, 6):
                optimizer = _another(optimizer, zeroed=update == 4, empty=update == 6)
            for _ in range(count):
                ordinary(rec)
                model.zero_grad()
                model(torch.ones(4, 2)).square().sum().backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
            rec.update()
    for row, cell in zip(rows_of(open_run(run_dir), "updates"), lost, strict=True):
        yield Expected("updates", row, {"optimizer_state_lost": cell}, PRECISE)


def between_updates(run_dir: Path) -> Iterator[Expected]:
    """Parameters left alone; one written to; restored; stepped by an optimizer; one that broke; one replaced."""
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.copy_(torch.arange(6.0).reshape(3, 2))
        model.bias.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    norm = math.sqrt(0 + 1 + 4 + 9 + 16 + 25 + 3)
    shifts: list[float | None] = [0.0, 0.0, 2.0 / math.sqrt(norm**2 - 1 + 9), 0.0, None, math.nan, None, 0.0]
    with Recorder(run_dir, model, strict=True) as rec:
        for update in range(len(shifts)):
            if update == 2:
                model.bias.data[1] += 2.0
            if update == 3:
                model.bias.data[1] -= 2.0
                model.bias.data[1] += 2.0
            if update == 4:
                optimizer.step()
            if update == 5:
                model.weight.data[0, 0] = math.nan
            if update == 6:
                model.bias = nn.Parameter(torch.ones(3))
            ordinary(rec)
            rec.update()
    for row, shift in zip(rows_of(open_run(run_dir), "updates"), shifts, strict=True):
        yield Expected("updates", row, {"parameter_shift_between_updates": shift}, SINGLE)


def _another(optimizer: torch.optim.Optimizer, *, zeroed: bool, empty: bool) -> torch.optim.Optimizer:
    """Return a new Adam of the same parameters with the same state, or with first moments of 0, or without state."""
    made = torch.optim.Adam([p for group in optimizer.param_groups for p in group["params"]])
    if not empty:
        made.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for state in made.state.values() if zeroed else ():
        state["exp_avg"].zero_()
    return made


SCENARIOS: dict[str, Callable[[Path], Iterator[Expected]]] = {
    scenario.__name__: scenario
    for scenario in (
        clock,
        losses,
        escalation,
        spike,
        baseline,
        ranks,
        seeds,
        drift,
        scaled,
        changes,
        optimizers,
        between_updates,
    )
}
