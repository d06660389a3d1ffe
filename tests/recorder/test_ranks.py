"""Ranks of a distributed training: each records for itself, and joined they say what one process would have said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from esper_analyze.errors import UsageError
from esper_analyze.replay.replay import differences, recorded, replay
from esper_analyze.reports.listing import status_words
from esper_analyze.runs.merge_ranks import merge_ranks
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.schema import BY_NAME, TABLES
from esper_analyze.schema.merging import ALONE, Mean, RankRows
from recorder import Recorder
from recorder.ranks import rank_role
from recorder.store.resume import ResumeError
from recorder.store.run_file import RunExistsError
from sample_runs.ddp_loop import record

SIZES = {"op": 4, "slot": 3}
UPDATES, EPOCHS, HIDDEN = 3, 2, 5
CLOCK = {"wall_time", "rollout_s", "optimisation_s", "recorder_ms", "recorder_fraction", "minibatches"}
MERGED = {table.name: table.merge_rules for table in TABLES if table.ranks is RankRows.MERGED}
Batch = dict[str, Any]


def batch(random: torch.Generator, count: int) -> Batch:
    """Return what a minibatch of ``count`` samples hands over."""
    masks = {name: torch.rand(count, size, generator=random) > 0.4 for name, size in SIZES.items()}
    masks["slot"] |= torch.nn.functional.one_hot(torch.zeros(count, dtype=torch.long), 3).bool()
    masks["op"][:, 1] = True

    def row(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=random, dtype=torch.float64)

    old = {name: row(-2, -0.5) for name in SIZES}
    return {
        "old_log_prob": old,
        "log_prob": {name: cells + row(-0.3, 0.3) for name, cells in old.items()},
        "entropy": {name: row(0, 1) for name in SIZES},
        "masks": masks,
        "relevant": {"slot": torch.rand(count, generator=random) > 0.5},
        "values": row(-1, 2),
    }


def rollout(random: torch.Generator, count: int) -> Batch:
    """Return what an update hands over of its rollout, ``count`` steps in ``count`` environments."""
    made = batch(random, count)
    state = [torch.randn(1, count, HIDDEN, generator=random, dtype=torch.float64) for _ in range(2)]
    values = made["values"]
    return {
        "values": values,
        "returns": values + torch.randn(count, generator=random, dtype=torch.float64),
        "advantages": torch.randn(count, generator=random, dtype=torch.float64).exp(),
        "td_errors": torch.randn(count, generator=random, dtype=torch.float64),
        "masks": made["masks"],
        "relevant": made["relevant"],
        "lstm": (state[0].tanh(), 3 * state[1]),
    }


def both(parts: list[Any], dim: int = 0) -> Any:
    """Return what the parts make together."""
    if isinstance(parts[0], dict):
        return {name: both([part[name] for part in parts], 1 if name == "lstm" else 0) for name in parts[0]}
    if isinstance(parts[0], tuple):
        return tuple(both(list(pair), dim) for pair in zip(*parts, strict=True))
    return torch.cat(parts, dim)


def hand_over(rec: Recorder, minibatches: list[Batch], of_rollout: Batch, returns: list[float]) -> None:
    """Record one update of two epochs."""
    for epoch in range(EPOCHS):
        for one in minibatches:
            losses = {name: float(one["values"].mean()) for name in ("policy_loss", "value_loss")}
            rec.minibatch(**one, **losses, clip_range=0.2, epoch=epoch)
    for total in returns:
        rec.episode(total, 7)
    steps = len(of_rollout["values"])
    rec.update(**of_rollout, env_steps=steps, learning_rate=1e-3)


def recorded_by(tmp_path: Path, counts: tuple[int, ...]) -> tuple[RecordedRun, RecordedRun]:
    """Return a run of as many ranks as ``counts`` has entries (samples a minibatch), and one of a single process."""
    random = torch.Generator().manual_seed(sum(counts))
    ranks = [
        Recorder(tmp_path / "ranks", heads=SIZES.keys(), sizes=SIZES, rank=r, world_size=len(counts), strict=True)  # type: ignore[arg-type]
        for r in range(len(counts))
    ]
    whole = Recorder(tmp_path / "whole", heads=tuple(SIZES), sizes=SIZES, strict=True)
    for _ in range(UPDATES):
        minibatches = [[batch(random, count) for _ in range(2)] for count in counts]
        rollouts = [rollout(random, 2 * count) for count in counts]
        returns = [torch.randn(2 + r, generator=random).tolist() for r in range(len(counts))]
        for rec, own, of_rollout, finished in zip(ranks, minibatches, rollouts, returns, strict=True):
            hand_over(rec, own, of_rollout, finished)
        together = [both([own[i] for own in minibatches]) for i in range(2)]
        hand_over(whole, together, both(rollouts), [one for own in returns for one in own])
    for rec in (*ranks, whole):
        rec.close()
    return open_run(tmp_path / "ranks"), open_run(tmp_path / "whole")


def unlike(run: RecordedRun, other: RecordedRun, leave: set[str]) -> list[tuple[object, ...]]:
    """Return cells of the joined tables that differ by more than rounding."""
    found: list[tuple[object, ...]] = []
    for table, rules in MERGED.items():
        names = [name for name in rules if name not in leave]
        frames = [one.frame(table).sort(*BY_NAME[table].key) for one in (run, other)]
        rows = [frame.select(names).to_dicts() for frame in frames]
        assert len(rows[0]) == len(rows[1]) > 0
        for number, (ours, theirs) in enumerate(zip(*rows, strict=True)):
            found += [
                (table, number, name, ours[name], theirs[name]) for name in names if not same(ours[name], theirs[name])
            ]
    return found


def same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9) or (math.isnan(one) and math.isnan(other))
    return one == other


@pytest.mark.parametrize("counts", [(8, 8), (6, 6, 6), (3, 13), (2, 40, 1)])
def test_joined_ranks_say_what_one_process_with_all_samples_says(tmp_path: Path, counts: tuple[int, ...]) -> None:
    ranks, whole = recorded_by(tmp_path, counts)
    leave = CLOCK | {name for rules in MERGED.values() for name, how in rules.items() if how == ALONE}
    leave |= {"advantage_consistency"}  # that of the worst rank
    if len(set(counts)) > 1:  # means of minibatches: there is no saying how one process would have cut them
        leave |= {name for rules in MERGED.values() for name, how in rules.items() if how == Mean("minibatches")}
    assert unlike(merge_ranks(ranks), whole, leave) == []


def test_what_one_rank_lacks_is_joined_of_the_others(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    ranks = [Recorder(tmp_path, heads=tuple(SIZES), sizes=SIZES, rank=r, world_size=2, strict=True) for r in range(2)]
    for number, rec in enumerate(ranks):
        given = rollout(random, 8)
        hand_over(
            rec, [batch(random, 8)], given if number else {name: given[name] for name in ("values", "relevant")}, []
        )
        rec.close()
    run = open_run(tmp_path)
    one, all_of = run.only(1).frame("updates").to_dicts()[0], merge_ranks(run).frame("updates").to_dicts()[0]
    assert all_of["explained_variance"] == pytest.approx(one["explained_variance"], rel=1e-12)
    assert all_of["advantage_kurtosis"] == pytest.approx(one["advantage_kurtosis"], rel=1e-12)
    assert all_of["episode_return_mean"] is None


@pytest.mark.parametrize("number", [0.7, 0.1, 1.1, -0.3])
def test_equal_numbers_on_all_ranks_have_no_spread(tmp_path: Path, number: float) -> None:
    for rank in range(2):
        with Recorder(tmp_path, rank=rank, world_size=2, strict=True) as rec:
            equal = torch.full((1 + rank,), number, dtype=torch.float64)
            rec.update(values=equal, returns=equal, advantages=equal)
    (row,) = merge_ranks(open_run(tmp_path)).frame("updates").to_dicts()
    assert (row["return_variance"], row["value_std"], row["advantage_std"]) == (0.0, 0.0, 0.0)
    assert (row["explained_variance"], row["value_nrmse"], row["value_return_correlation"]) == (None, None, None)


def out_of_step(model: DistributedDataParallel, rank: int, update: int) -> None:  # noqa: ARG001
    model.require_backward_grad_sync = update < 2


@pytest.fixture(scope="module")
def in_step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranks") / "in_step"
    record(path, ranks=2, updates=4)
    return path


def test_two_processes_record_and_agree(in_step: Path) -> None:
    run = open_run(in_step)
    assert (run.info["ranks"], run.ranks, run.closed) == (2, [0, 1], True)
    assert status_words(run) == "2 ranks closed"
    rows = [run.only(rank).frame("updates") for rank in run.ranks]
    assert rows[0]["grad_norm_pre_clip"].to_list() == rows[1]["grad_norm_pre_clip"].to_list()
    assert rows[0]["kl_k3"].to_list() != rows[1]["kl_k3"].to_list()
    for table in ("groups", "layers"):
        assert run.frame(table)["rank"].unique().to_list() == [0]
    whole = merge_ranks(run)
    assert whole.frame("ranks")["spread"].max() == 0.0
    assert whole.frame("updates")["samples"].to_list() == [2 * 4 * 16 * 32] * 4
    found = replay(run)
    assert found.updates == 4
    assert [one for one in found.findings if one.rule == "rank_desync"] == []
    for rank in run.ranks:
        own = run.only(rank)
        assert differences(replay(own), recorded(own)) == []


def test_a_gradient_that_is_not_averaged_is_found_in_the_very_update(tmp_path: Path) -> None:
    record(tmp_path / "run", ranks=2, updates=4, harm=out_of_step)
    found = [one for one in replay(open_run(tmp_path / "run")).findings if one.rule == "rank_desync"]
    assert {(one.update, one.subject, one.verdict) for one in found} >= {(2, "grad_norm_pre_clip", "critical")}
    assert min(one.update for one in found) == 2


def test_all_ranks_may_write_their_gradients(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    for rank in range(2):
        options: dict[str, Any] = {"rank": rank, "world_size": 2, "all_ranks": True, "overhead_budget": None}
        with Recorder(tmp_path, model, strict=True, **options) as rec:
            for _ in range(2):
                old = torch.zeros(4)
                rec.minibatch(log_prob=model(torch.ones(4, 3))[:, 0], old_log_prob=old, clip_range=0.2)
                model.zero_grad()
                model(torch.ones(4, 3) * (1 + rank)).sum().backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                rec.update()
    run = open_run(tmp_path)
    assert run.frame("groups")["rank"].unique().sort().to_list() == [0, 1]
    compared = merge_ranks(run).frame("ranks")
    apart = compared.filter(compared["metric"] == "all.grad_norm")["spread"].to_list()
    assert len(apart) == 2
    assert all(0.3 < spread < 0.6 for spread in apart)
    assert merge_ranks(run).frame("groups")["rank"].unique().to_list() == [0]


def test_the_place_comes_from_what_launched_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (rank_role(None, None, all_ranks=False).rank, rank_role(None, None, all_ranks=False).ranks) == (0, 1)
    monkeypatch.setenv("RANK", "3")
    assert rank_role(None, None, all_ranks=False).ranks == 1
    monkeypatch.setenv("WORLD_SIZE", "8")
    here = rank_role(None, None, all_ranks=False)
    assert (here.rank, here.ranks, here.records_gradients) == (3, 8, False)
    assert rank_role(0, 1, all_ranks=False).records_gradients
    for rank, ranks in ((2, 2), (-1, 4)):
        with pytest.raises(ValueError, match="counted from 0"):
            rank_role(rank, ranks, all_ranks=False)


def test_ranks_of_another_training_are_refused(tmp_path: Path) -> None:
    Recorder(tmp_path, heads=("a",), rank=0, world_size=2).close()
    with pytest.raises(RunExistsError):
        Recorder(tmp_path, heads=("a",), rank=0, world_size=2)
    with pytest.raises(ResumeError, match="heads"):
        Recorder(tmp_path, heads=("b",), rank=1, world_size=2)
    with pytest.raises(ResumeError, match="ranks"):
        Recorder(tmp_path, heads=("a",), rank=1, world_size=3)
    Recorder(tmp_path, heads=("a",), rank=1, world_size=2).close()
    with pytest.raises(RunExistsError):
        Recorder(tmp_path, heads=("a",), rank=1, world_size=2)


def test_a_rank_that_is_not_there_is_named(tmp_path: Path, in_step: Path) -> None:
    with pytest.raises(UsageError, match="no rank 7"):
        open_run(in_step).only(7)
    Recorder(tmp_path, heads=("a",), rank=1, world_size=3).close()
    assert "rank 0 recorded nothing; rank 2 recorded nothing" in status_words(open_run(tmp_path))
