"""Statistics of a minibatch too large to be measured at once, combined from those of its pieces, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

PIECE = 1 << 20
"""Samples measured at once: intermediate results take many times their memory."""
SUM, MEAN, VARIANCE, MINIMUM, MAXIMUM = "sum", "mean", "variance", "least", "most"
COVARIANCE = "covariance"


def joined(pieces: Sequence[Tensor], fields: Sequence[str], how: Mapping[str, str]) -> Tensor:
    """Return statistics [F, …] of all samples from those of pieces of them, each [F, …].

    ``how``: the kind of each of the ``fields``; "count" counts the samples. A variance is the population's about the
    mean of the preceding field (Chan, Golub, LeVeque 1983); a covariance is preceded by mean and variance of both
    quantities. A piece without counted samples is ignored in means.
    """
    cells = torch.stack(list(pieces)).double()  # [pieces, F, …]
    of = {name: cells[:, index] for index, name in enumerate(fields)}
    counts = of["count"]
    total = counts.sum(0)
    statistics: list[Tensor] = []
    for index, name in enumerate(fields):
        match how[name]:
            case "sum":
                statistics.append(of[name].sum(0))
            case "least":
                statistics.append(of[name].amin(0))
            case "most":
                statistics.append(of[name].amax(0))
            case "mean":
                statistics.append(_mean(of[name], counts, total))
            case "covariance":
                apart = [torch.where(counts > 0, cells[:, at] - statistics[at], 0.0) for at in (index - 4, index - 2)]
                statistics.append(_mean(of[name] + apart[0] * apart[1], counts, total))
            case _:
                away = torch.where(counts > 0, cells[:, index - 1] - statistics[index - 1], 0.0)
                statistics.append(_mean(of[name] + away.square(), counts, total))
    return torch.stack(statistics)


def _mean(means: Tensor, counts: Tensor, total: Tensor) -> Tensor:
    return torch.where(counts > 0, means * counts, 0.0).sum(0) / total
