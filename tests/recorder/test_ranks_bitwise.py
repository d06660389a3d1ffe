"""Recording changes no bit of a training on several ranks, whether they share gradients or shards of the model."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from esper_analyze.runs.run import open_run
from recorder import Recorder
from sample_runs import lstm_loop

RANKS, UPDATES = 2, 2


def sharded(rank: int, run_dir: Path | None) -> list[Tensor]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    fully_shard(model, mesh=init_device_mesh("cpu", (RANKS,)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    rec = Mock(spec=Recorder) if run_dir is None else Recorder(run_dir, model, heads=("a",), strict=True)
    for update in range(UPDATES):
        loss = model(torch.ones(4, 3) * (1 + rank + update)).square().sum()
        zeros = torch.zeros(4)
        rec.minibatch(log_prob={"a": zeros}, old_log_prob={"a": zeros}, clip_range=0.2, loss=loss)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rec.update()
    rec.close()
    return [parameter.to_local().detach() for parameter in model.parameters()]  # type: ignore[attr-defined]


def averaged(rank: int, run_dir: Path | None) -> list[Tensor]:
    torch.manual_seed(1)
    agent = lstm_loop.Agent()
    model = DistributedDataParallel(agent)
    torch.manual_seed(100 + rank)
    yards = lstm_loop.Yards(100 + rank)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    envs = lstm_loop.ENVS
    state, start = (torch.zeros(1, envs, 32), torch.zeros(1, envs, 32)), torch.ones(envs)
    options = {"total_updates": UPDATES, "overhead_budget": None, "strict": True}
    rec = Mock(spec=Recorder) if run_dir is None else lstm_loop.recorder(run_dir, agent, model=model, **options)
    for update in range(UPDATES):
        rollout = lstm_loop.collect(agent, yards, state, start, rec)
        state, start = rollout["state"], rollout["next"]
        lstm_loop.train(model, optimizer, rollout, rec)
        lstm_loop.end_update(rec, rollout, update)
    rec.close()
    return [parameter.detach() for parameter in agent.parameters()]


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=RANKS)
    for train in (sharded, averaged):
        for run_dir in (None, folder / train.__name__):
            kind = "without" if run_dir is None else "recorded"
            torch.save(train(rank, run_dir), folder / f"{train.__name__}-{kind}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    spawn(work, (folder,), nprocs=RANKS)
    return folder


@pytest.mark.parametrize("train", ["sharded", "averaged"])
@pytest.mark.parametrize("rank", range(RANKS))
def test_recording_changes_no_bit(trained: Path, train: str, rank: int) -> None:
    without, recorded = (torch.load(trained / f"{train}-{kind}-{rank}.pt") for kind in ("without", "recorded"))
    assert all(torch.equal(one, other) for one, other in zip(without, recorded, strict=True))
    assert open_run(trained / train).only(rank).rows["updates"] == UPDATES


def test_no_norm_of_a_part_is_taken_for_the_gradient_of_a_sharded_model(trained: Path) -> None:
    run = open_run(trained / "sharded")
    rows = run.only(0).frame("updates").to_dicts()
    assert [row["status"] for row in rows] == ["performed"] * UPDATES
    assert {(row["grad_norm_pre_clip"], row["grad_norm_post_clip"]) for row in rows} == {(None, None)}
    assert run.rows["groups"] == run.rows["layers"] == 0
