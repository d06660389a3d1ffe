"""Host and seeds of a growing network, recorded: what travels how, what is never harmed, and a real training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.runs.merge_ranks import merge_ranks
from esper_analyze.runs.run import RecordedRun, open_run
from recorder import Recorder, amp
from recorder.module_gradients import ModuleSnapshots
from tests.recorder.growing import Growing
from tests.recorder.loop import Loop
from tests.recorder.plain import Plain, ordinary


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return open_run(run_dir).frame("slots").to_dicts()


def grown(module: nn.Module, gradient: float = 1.0) -> nn.Module:
    """Give every parameter the same gradient in all its elements."""
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    return module


class Stage(IntEnum):
    TRAINING = 3


def test_many_environments_slots_and_calls_of_one_update_are_a_row_each(tmp_path: Path) -> None:
    places = [(env, slot) for env in range(3) for slot in ("r0c0", "r1c0")]
    with Recorder(tmp_path / "run", strict=True) as rec:
        for update in range(3):
            for number, place in enumerate(places if update != 1 else reversed(places)):
                Growing(calls=number + 1, seed_pull=0.2 + number, place=place).backward(rec)
            rec.update()
    found = rows(tmp_path / "run")
    names = [f"env {env}, {slot}" for env, slot in places]
    assert [row["place"] for row in found] == names * 3, "always in the order they were first met in"
    assert [(row["env"], row["slot"]) for row in found] == places * 3
    assert [row["calls"] for row in found] == [1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2, 1, 1, 2, 3, 4, 5, 6]
    assert found[3]["grad_norm"] == pytest.approx(3.2 * 32**0.5, rel=1e-6)


def test_an_update_without_minibatches_has_its_slots_and_calls_after_the_last_one_make_none(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", Plain(), strict=True) as rec:
        Growing().backward(rec)
        rec.update()
        ordinary(rec)
        Growing().backward(rec)
        rec.update()
        Growing().backward(rec)
    assert [row["update"] for row in rows(tmp_path / "run")] == [0, 1]
    status = open_run(tmp_path / "run").frame("updates")["status"].to_list()
    assert status == ["no_usable_steps", "no_usable_steps"]


def test_an_empty_slot_has_its_stage_and_the_rest_null(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", strict=True) as rec:
        rec.slot(0, "r0c0", seed=None, host=grown(nn.Linear(2, 2)), stage="DORMANT")
        rec.slot(0, "r1c0", seed=None, host=None)
        rec.update()
    first, second = rows(tmp_path / "run")
    assert (first["stage"], first["should_train"], first["host_elements"]) == ("DORMANT", False, 6)
    for name in ("tensors", "tensors_nonfinite", "grad_norm", "health", "has_vanishing", "seed_elements"):
        assert first[name] is None
    assert (second["stage"], second["host_elements"], second["host_grad_norm"]) == (None, None, None)


def test_words_are_those_of_the_last_call_and_may_be_of_an_enum_or_on_a_device(tmp_path: Path) -> None:
    seed, alpha = grown(nn.Linear(2, 2)), torch.tensor([0.25])
    with Recorder(tmp_path / "run", strict=True) as rec:
        rec.slot(0, "a", seed=seed, host=None, stage="GERMINATED", blueprint="conv", alpha=0.0)
        rec.slot(0, "a", seed=seed, host=None, stage=Stage.TRAINING, blueprint="norm", alpha=alpha)
        alpha.fill_(0.75)
        rec.slot(0, "b", seed=seed, host=None, alpha=alpha)
        rec.slot(0, "b", seed=seed, host=None)
        rec.update()
    first, second = rows(tmp_path / "run")
    assert (first["stage"], first["blueprint"], first["alpha"], first["should_train"]) == (
        "TRAINING",
        "norm",
        0.25,
        True,
    )
    assert (second["stage"], second["alpha"], second["should_train"]) == (None, None, True)


def test_parameters_of_the_seed_are_not_the_hosts_and_frozen_ones_nobodys(tmp_path: Path) -> None:
    host = nn.ModuleDict({"body": nn.Linear(3, 3), "seed": nn.Linear(2, 2)})
    grown(host)
    host["body"].bias.requires_grad_(False)
    with Recorder(tmp_path / "run", strict=True) as rec:
        rec.slot(0, "a", seed=host["seed"], host=host)
        rec.slot(0, "b", seed=iter(host["seed"].parameters()), host=host.parameters())
        rec.slot(0, "c", seed=[*host["seed"].parameters()] * 2, host=[*host.parameters()] * 2)
        rec.update()
    for row in rows(tmp_path / "run"):
        assert (row["seed_elements"], row["host_elements"], row["tensors"]) == (6, 9, 2)
        assert (row["grad_norm"], row["host_grad_norm"]) == pytest.approx((6**0.5, 3.0), rel=1e-7)


def test_the_clip_norm_sets_what_explodes(tmp_path: Path) -> None:
    seed = grown(nn.Linear(2, 2), 3.0)  # norms 6 and 4.24
    with Recorder(tmp_path / "run", strict=True) as rec:
        for number, clip in enumerate((None, 0.6, 0.1)):
            rec.slot(number, "a", seed=seed, host=None, max_grad_norm=clip)
        rec.update()
    assert [row["exploding_severity"] for row in rows(tmp_path / "run")] == [0.5, 0.0, 1.0]


def test_a_loss_scale_is_taken_out_of_the_norms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed, host = grown(nn.Linear(2, 2), 1024.0), grown(nn.Linear(2, 2), 2048.0)
    with Recorder(tmp_path / "run", strict=True) as rec:
        monkeypatch.setattr(amp, "carried", lambda _: torch.tensor(1024.0))
        rec.slot(0, "a", seed=seed, host=host)
        monkeypatch.undo()
        rec.slot(0, "a", seed=grown(seed, 1.0), host=grown(host, 2.0))
        rec.update()
    (row,) = rows(tmp_path / "run")
    assert (row["grad_norm"], row["host_grad_norm"]) == pytest.approx((6**0.5, 2 * 6**0.5), rel=1e-7)
    assert not row["has_exploding"]


@pytest.mark.parametrize(("level", "number"), [("OFF", 0), ("MINIMAL", 0), ("NORMAL", 1), ("DEBUG", 1)])
def test_slots_are_recorded_from_normal_on(tmp_path: Path, level: str, number: int) -> None:
    with Recorder(tmp_path / "run", level=level, strict=True) as rec:
        Growing().backward(rec)
        assert len(rec._slots.now.calls) == 2 * number
        rec.update()
    assert len(rows(tmp_path / "run")) == number


def test_errors_are_counted_and_reach_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL, "recorder"), Recorder(tmp_path / "run") as rec:
        rec.slot(0, "a", seed=3, host=None)  # type: ignore[arg-type]
        rec.slot("x", "a", seed=None, host=None)  # type: ignore[arg-type]
        rec.slot(0, "a", seed=grown(nn.Linear(2, 2)), host=None, max_grad_norm="x")  # type: ignore[arg-type]
        Growing().backward(rec)
        rec.update()
        rec.slot(0, "a", seed=None, host=None)
        rec.update()
    rec.slot(0, "a", seed=None, host=None)
    assert len(rows(tmp_path / "run")) == 3
    lost = open_run(tmp_path / "run").frame("losses_of_data").to_dicts()
    assert [row["detail"].split(":")[0] for row in lost] == ["slot", "slot", "slot(max_grad_norm)"]


def test_slots_that_cannot_be_measured_cost_their_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("injected")

    with Recorder(tmp_path / "run") as rec:
        for number, name in enumerate(("module_gradients.module_statistics", "slots.slot_rows", None)):
            with monkeypatch.context() as broken:
                if name is not None:
                    broken.setattr(f"recorder.{name}", refuse)
                Growing(seed_pull=number + 1.0).backward(rec)
                rec.update()
    run = open_run(tmp_path / "run")
    assert run.frame("updates")["update"].to_list() == [0, 1, 2]
    assert [(row["update"], row["tensors"]) for row in rows(tmp_path / "run")] == [(2, 5)]
    assert len(run.frame("losses_of_data")) == 2


def test_a_loop_that_never_ends_its_update_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("recorder.module_gradients.MAX_SNAPSHOTS", 10)
    with caplog.at_level(logging.CRITICAL, "recorder"), Recorder(tmp_path / "run") as rec:
        Growing(calls=8).backward(rec)
        rec.update()
    (row,) = rows(tmp_path / "run")
    assert row["calls"] == 5
    (lost,) = open_run(tmp_path / "run").frame("losses_of_data").to_dicts()
    assert (lost["rows"], "without update()" in lost["detail"]) == (3, True)


def test_what_another_stream_writes_is_waited_for_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """With tensors and streams that only note what is asked of them: no device is at hand."""
    own, other = Mock(name="own"), Mock(name="other")
    written, looks = Mock(device=torch.device("cuda", 0)), ModuleSnapshots()
    for writer in (own, other):
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _, stream=writer: stream)
        looks.note(written)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: own)
    looks.join([written])
    assert [own.wait_stream.call_args.args, own.wait_stream.call_count] == [(other,), 1]
    assert written.record_stream.call_args.args == (own,)
    alone = ModuleSnapshots()
    alone.note(written)
    alone.join([written])
    assert (own.wait_stream.call_count, written.record_stream.call_count) == (1, 1)


class Network(nn.Module):
    """A host of two layers with four slots between them; the detached seed's output carries no gradient back."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
        self.seeds = nn.ModuleDict({name: _seed() for name in ("healthy", "exploding", "disconnected", "dormant")})

    @property
    def host(self) -> Iterator[Tensor]:
        yield from self.body.parameters()
        yield from self.out.parameters()

    def forward(self, x: Tensor, harm: float) -> Tensor:
        hidden = torch.tanh(self.body(x))
        found = {name: seed(hidden) for name, seed in self.seeds.items()}
        grown = found["healthy"] + harm * found["exploding"] + found["disconnected"].detach() + 1e-4 * found["dormant"]
        logits: Tensor = self.out(hidden + grown)
        return logits


def _seed() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))


def train(run_dir: Path | None, updates: int = 12) -> tuple[Network, list[float]]:
    """Train host and seeds on a classification, five batches an update; from update 8 on one seed explodes."""
    torch.manual_seed(0)
    network, random, losses = Network(), torch.Generator().manual_seed(1), []
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    rec = None if run_dir is None else Recorder(run_dir, strict=True)
    for update in range(updates):
        for _ in range(5):
            x = torch.randn(64, 6, generator=random)
            labels = x[:, :3].argmax(1)
            loss = nn.functional.cross_entropy(network(x, 2000.0 if update >= 8 else 1.0), labels)
            optimizer.zero_grad()
            loss.backward()
            if rec is not None:
                for name, seed in network.seeds.items():
                    rec.slot(0, name, seed=seed, host=network.host, stage="TRAINING", blueprint="mlp", alpha=1.0)
            nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()
            losses.append(loss.item())
        if rec is not None:
            rec.update()
    if rec is not None:
        rec.close()
    return network, losses


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    path = tmp_path_factory.mktemp("slots") / "run"
    train(path)
    return open_run(path)


def test_seeds_of_a_real_training_are_told_apart(trained: RecordedRun) -> None:
    found: dict[str, list[Any]] = {}
    for row in trained.frame("slots").to_dicts():
        found.setdefault(row["slot"], []).append(row)
    causes = {name: {row["low_ratio_cause"] for row in some[:8]} for name, some in found.items()}
    expected = {"healthy": None, "exploding": None, "disconnected": "disconnected", "dormant": "dormant"}
    assert causes == {name: {cause} for name, cause in expected.items()}
    assert {row["low_ratio_cause"] for row in found["healthy"][8:]} == {"host_learning_fast"}
    assert {row["normalized_ratio"] for row in found["disconnected"]} == {None}
    assert not any(row["has_exploding"] for row in found["exploding"][:8])
    assert all(row["has_exploding"] for row in found["exploding"][8:])
    assert {row["host_elements"] for row in found["healthy"]} == {6 * 8 + 8 + 8 * 3 + 3}


def test_rules_find_each_ill_seed_and_leave_the_healthy_one_alone(trained: RecordedRun) -> None:
    alarms = {
        (one.subject, one.rule, one.metric): (one.update, one.verdict)
        for one in reversed(recorded(trained)[0])
        if one.verdict in ("warning", "critical") and one.subject != "run"
    }
    assert alarms == {
        ("env 0, disconnected", "seed_dormant", "low_ratio_cause"): (2, "critical"),
        ("env 0, dormant", "seed_dormant", "normalized_ratio"): (2, "critical"),
        ("env 0, exploding", "slot_gradient_explosion", "exploding_severity"): (9, "critical"),
        ("env 0, healthy", "host_dominating", "normalized_ratio"): (10, "warning"),  # drowned by the explosion
    }


def test_replay_says_what_was_said_live(trained: RecordedRun) -> None:
    assert differences(replay(trained), recorded(trained)) == []


def test_recording_slots_changes_no_bit_of_the_training(tmp_path: Path) -> None:
    (alone, losses), (watched, seen) = train(None, 4), train(tmp_path / "run", 4)
    assert [one.hex() for one in losses] == [one.hex() for one in seen]
    for one, other in zip(alone.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_slots_do_not_change_what_else_is_recorded(tmp_path: Path) -> None:
    for name in ("with", "without"):
        loop, growing = Loop(), Growing()
        with loop.recorder(tmp_path / name, overhead_budget=None) as rec:
            for _ in range(3):
                if name == "with":
                    growing.backward(rec)
                loop.update(rec)
    ours, theirs = (open_run(tmp_path / name) for name in ("with", "without"))
    for table in ("steps", "heads", "groups", "layers"):
        assert ours.frame(table).drop("seq").equals(theirs.frame(table).drop("seq"), null_equal=True)


def test_slots_are_of_every_rank_and_joined_places_of_their_own(tmp_path: Path) -> None:
    for rank in range(2):
        with Recorder(tmp_path, rank=rank, world_size=2, strict=True) as rec:
            for update in range(4):
                Growing(seed_pull=0.2 if rank == 0 or update < 1 else 1e-4).backward(rec)
                rec.update()
    run = open_run(tmp_path)
    assert run.frame("slots")["rank"].to_list() == [0] * 4 + [1] * 4
    whole = merge_ranks(run).frame("slots")
    assert whole["place"].to_list() == ["rank 0, env 0, r0c0", "rank 1, env 0, r0c0"] * 4
    assert (set(whole["rank"]), whole["seq"].to_list()) == ({0}, list(range(8)))
    said = [one for one in replay(run).findings if one.rule == "seed_dormant"]
    assert [(one.update, one.subject, one.verdict) for one in said] == [(3, "rank 1, env 0, r0c0", "critical")]
    for rank in run.ranks:
        assert differences(replay(run.only(rank)), recorded(run.only(rank))) == []


def test_a_resumed_run_goes_on_remembering_its_seeds(tmp_path: Path) -> None:
    with Recorder(tmp_path, strict=True) as rec:
        for _ in range(4):
            Growing().backward(rec)
            rec.update()
        saved = rec.state_dict()
    with Recorder(tmp_path, resume=True, strict=True) as rec:
        rec.load_state_dict(saved)
        Growing(seed_pull=0.01).backward(rec)
        rec.update()
    assert [row["low_ratio_cause"] for row in rows(tmp_path)] == [None] * 4 + ["saturated"]
    with Recorder(tmp_path, resume=True, strict=True) as rec:
        rec.load_state_dict({name: cell for name, cell in saved.items() if name != "slots"})
        Growing(seed_pull=0.01).backward(rec)
        rec.update()
    assert rows(tmp_path)[-1]["low_ratio_cause"] == "dormant", "a checkpoint from before there were slots"
