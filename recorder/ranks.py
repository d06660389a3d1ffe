"""The rank of this process in a distributed training, and the model it can measure.

Each rank writes its own folder: no collective operation, no lock and no waiting between ranks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from esper_analyze.schema.printable import LOG


@dataclass(frozen=True, slots=True)
class RankRole:
    """Rank ``rank`` of ``ranks``; ``records_gradients``: it records gradients and parameters as well."""

    rank: int
    ranks: int
    records_gradients: bool


def rank_role(rank: int | None, ranks: int | None, *, all_ranks: bool) -> RankRole:
    """Return the role of this process: from the arguments, else ``torch.distributed``, else its launcher's environment.

    Raises ``ValueError`` for a rank outside 0 … ``ranks`` − 1.
    """
    launched, size = _launched_rank()
    if rank is None and ranks is None:
        rank, ranks = launched, size
    rank = launched if rank is None else rank
    ranks = max(size, rank + 1) if ranks is None else ranks
    if not 0 <= rank < ranks:
        raise ValueError(f"rank {rank} of {ranks}: ranks are counted from 0")
    return RankRole(rank, ranks, all_ranks or rank == 0)


def _launched_rank() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    try:
        rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return 0, 1
    return (rank, ranks) if 0 <= rank < ranks else (0, 1)


def measurable_model(model: nn.Module | None) -> nn.Module | None:
    """Return the module whose gradients this rank can measure: the one inside a ``DistributedDataParallel``.

    None, with a warning, if this rank holds only shards of parameters: norms of shards are not norms of parameters.
    """
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    if inner is not None and sharded(inner):
        LOG.warning("recorder: the model's parameters are sharded over ranks, so no gradient is recorded")
        return None
    return inner


def sharded(model: nn.Module) -> bool:
    """Return whether parameters are sharded (FSDP, DTensor). Checked by name: importing DTensor takes seconds."""
    return any(_is_called(parameter, "DTensor") for parameter in model.parameters()) or any(
        _is_called(module, "FullyShardedDataParallel") for module in model.modules()
    )


def _is_called(thing: object, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(thing).__mro__)
