"""The loop of ``lstm_loop`` on several processes: DistributedDataParallel averages the gradients, each rank records.

    python -m sample_runs.ddp_loop OUT [--ranks 2] [--updates 20]

Every rank makes a ``Recorder`` with the same directory and writes a folder of its own; nothing waits for another rank.
``esper-analyze report OUT`` joins them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from sample_runs.lstm_loop import ENVS, Agent, Yards, collect, end_update, recorder, train

Harm = Callable[[DistributedDataParallel, int, int], None]
"""Called before each update with model, rank and update: what tests break on purpose."""


def worker(rank: int, ranks: int, meeting: str, run_dir: Path, updates: int, harm: Harm | None = None) -> None:
    """Train and record as one rank; ``meeting`` is a file the ranks find each other by."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    torch.manual_seed(1)  # the same parameters on every rank
    agent = Agent()
    model = DistributedDataParallel(agent)
    torch.manual_seed(100 + rank)  # but actions and minibatches of its own
    yards = Yards(100 + rank)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    state, start = (torch.zeros(1, ENVS, 32), torch.zeros(1, ENVS, 32)), torch.ones(ENVS)
    with recorder(
        run_dir, agent, model=model, total_updates=updates, framework="hand-written, DistributedDataParallel"
    ) as rec:
        for update in range(updates):
            if harm is not None:
                harm(model, rank, update)
            rollout = collect(agent, yards, state, start, rec)
            state, start = rollout["state"], rollout["next"]
            train(model, optimizer, rollout, rec)
            end_update(rec, rollout, update)
    dist.destroy_process_group()


def two_ranks(run_dir: Path, tell: Callable[[int], None]) -> None:
    """Two processes, nothing wrong."""
    tell(0)
    record(run_dir)


def record(run_dir: Path, ranks: int = 2, updates: int = 20, harm: Harm | None = None) -> None:
    """Train on ``ranks`` processes of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        spawn(worker, (ranks, meeting, run_dir, updates, harm), nprocs=ranks)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--updates", type=int, default=20)
    given = parser.parse_args()
    record(given.out, given.ranks, given.updates)
