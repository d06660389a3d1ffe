"""Value function, returns and advantages of one rollout, before the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor

from esper_analyze.schema.constants import TINY_STD
from recorder.measure.joined import PIECE

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
MOMENTS = ("mean", "std", "min", "max", "skewness", "kurtosis")
FIELDS = (
    "rollout_samples",
    "explained_variance",
    "return_variance",
    "value_nrmse",
    "value_return_correlation",
    *(f"value_{name}" for name in MOMENTS),
    *(f"return_{name}" for name in MOMENTS),
    *(f"value_error_p{round(100 * q):02d}" for q in QUANTILES),
    "return_p10",
    "return_p50",
    "return_p90",
    "explained_variance_defined",
    "value_return_correlation_defined",
    "value_moments_defined",
    "return_moments_defined",
)
ADVANTAGE_FIELDS = (
    "rollout_samples",
    *(f"advantage_{name}" for name in MOMENTS),
    "advantage_positive_fraction",
    "advantage_moments_defined",
)


REWARD_FIELDS = ("rollout_samples", "reward_mean", "reward_std", "reward_min", "reward_max")
TD_FIELDS = ("td_error_mean", "td_error_std", "bellman_error")


def td_errors(values: Tensor, rewards: Tensor, ends: Tensor, last_values: Tensor, gamma: float) -> Tensor:
    """Return r + γ·V(s') − V(s) of a rollout [T, B]; V(s') is 0 where the episode ended with that step.

    ``ends`` [T, B] is true there; ``last_values`` [B] are the values of the states after the last step.
    """
    ahead = torch.cat([values[1:], last_values.reshape(1, -1).to(values)])
    return rewards + gamma * ahead * (1 - ends.to(values.dtype)) - values


def td_statistics(errors: Tensor) -> Tensor:
    """Return ``TD_FIELDS`` for TD errors of any shape: mean, standard deviation (population), mean |error|."""
    rows = PiecewiseRows([errors])
    _, _, mean = rows.extremes_and_mean()
    variance, size = rows.mean_of(lambda piece: torch.cat([(piece - mean).square(), piece.abs()]))
    return torch.stack([mean.squeeze(), variance.sqrt(), size])


def reward_statistics(rewards: Tensor) -> Tensor:
    """Return ``REWARD_FIELDS`` for rewards of any shape; the standard deviation is the population's."""
    rows = PiecewiseRows([rewards])
    low, high, mean = rows.extremes_and_mean()
    variance = rows.mean_of(lambda piece: (piece - mean).square())
    samples = mean.new_full((), rewards.numel())
    return torch.stack([samples, mean.squeeze(), variance.sqrt().squeeze(), low.squeeze(), high.squeeze()])


def value_statistics(values: Tensor, returns: Tensor) -> Tensor:
    """Return ``FIELDS`` for values and returns [N]; a ``_defined`` field of 0 means that its number is null."""
    rows = PiecewiseRows([values, returns], derived=lambda both: both[1:] - both[:1])
    low, high, mean = rows.extremes_and_mean()
    squares = rows.mean_of(lambda piece: _squares_and_products(piece, mean))
    std = squares[:2, None].sqrt()
    moments, defined = _moments(rows, low[:2], high[:2], mean[:2], std)
    value_std, return_std = moments[0, 1], moments[1, 1]
    variance, errors, together, spread = squares[1], squares[2], squares[3], value_std * return_std
    flags = torch.stack([variance != 0, spread != 0, *defined]).double()
    samples = variance.new_full((), values.numel())
    head = torch.stack([samples, 1 - errors / variance, variance, squares[4].sqrt() / return_std, together / spread])
    quantiles = _quantiles(rows.row_slice(slice(1, 3)), QUANTILES)
    return torch.cat([head, moments.reshape(-1), quantiles[1], quantiles[0, 1:4], flags])


def _squares_and_products(piece: Tensor, mean: Tensor) -> Tensor:
    """Return, for values, returns and errors [3, N], five rows whose means are second moments.

    Centred squares of each, products of centred values and returns, squares of the errors.
    """
    centred = piece - mean
    return torch.cat([centred.square(), centred[:1] * centred[1:2], piece[2:].square()])


def advantage_statistics(advantages: Tensor) -> Tensor:
    """Return ``ADVANTAGE_FIELDS`` for advantages [N] before normalisation."""
    rows = PiecewiseRows([advantages])
    low, high, mean = rows.extremes_and_mean()
    std = rows.mean_of(lambda piece: (piece - mean).square())[:, None].sqrt()
    moments, defined = _moments(rows, low, high, mean, std)
    samples = mean.new_full((1,), advantages.numel())
    positive = rows.mean_of(lambda piece: (piece > 0).double())
    return torch.cat([samples, moments[0], positive, defined.double()])


class PiecewiseRows:
    """R quantities of N numbers each, read as float64 [R, at most ``PIECE`` numbers in all].

    ``derived`` computes further rows from a piece of the others. Reading in pieces bounds the memory of intermediate
    results; a single piece is read once.
    """

    def __init__(self, rows: Sequence[Tensor], derived: Callable[[Tensor], Tensor] | None = None) -> None:
        self._derived = derived
        self._rows = [row.reshape(-1) for row in rows]
        self._cuts = list(zip(*(torch.split(row, max(1, PIECE // len(rows))) for row in self._rows), strict=True))
        self._only = self._read(self._cuts[0]) if len(self._cuts) == 1 else None

    def _read(self, cut: Sequence[Tensor]) -> Tensor:
        piece = torch.stack(list(cut)).double()
        return piece if self._derived is None else torch.cat([piece, self._derived(piece)])

    def pieces(self) -> Iterator[Tensor]:
        """Yield the numbers piece by piece [R, numbers]."""
        if self._only is not None:
            yield self._only
            return
        for cut in self._cuts:
            yield self._read(cut)

    def mean_of(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the mean of each row of ``function(piece)`` over all numbers."""
        sums = (function(piece).sum(-1) for piece in self.pieces())
        return reduce(torch.add, sums) / len(self._rows[0])

    def extremes_and_mean(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return minimum, maximum and mean of each row, each [R, 1]."""
        low = reduce(torch.minimum, (piece.amin(-1, keepdim=True) for piece in self.pieces()))
        high = reduce(torch.maximum, (piece.amax(-1, keepdim=True) for piece in self.pieces()))
        mean = self.mean_of(lambda piece: piece)[:, None]
        return low, high, mean.clamp(low, high)  # rounding must not give equal numbers a spread

    def row_slice(self, chosen: slice) -> Tensor:
        """Return the rows in ``chosen``, unsplit, as a new tensor [rows, N]."""
        if self._only is not None:
            return self._only[chosen].clone()
        count = len(self._rows[0])
        rows, start = self._rows[0].new_empty(0), 0
        for piece in self.pieces():
            part = piece[chosen]
            rows = part.new_empty((len(part), count)) if not start else rows
            rows[:, start : start + part.shape[1]] = part
            start += part.shape[1]
        return rows


def _moments(rows: PiecewiseRows, low: Tensor, high: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``MOMENTS`` of the first rows, and whether the last two are defined; all arguments are [R, 1].

    Moments are the population's; kurtosis is in excess of the normal's 3.
    """
    count = len(mean)

    def powers(piece: Tensor) -> Tensor:
        scaled = (piece[:count] - mean) / std
        squares = scaled.square()
        return torch.cat([scaled * squares, squares.square()])

    third, fourth = rows.mean_of(powers).reshape(2, count, 1)
    defined = ~(std <= TINY_STD * torch.maximum(high, -low)).squeeze(-1)
    return torch.cat([mean, std, low, high, third, fourth - 3], dim=-1), defined


def _quantiles(rows: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """Return linearly interpolated quantiles of each row, NaN where it holds a NaN. Sorts the rows in place."""
    if rows.device.type == "cpu":
        rows.numpy().sort(axis=-1)  # torch makes a copy and indices; NaN comes last in both
    else:
        rows = rows.sort(dim=-1).values
    picked = []
    for q in quantiles:
        position = q * (rows.shape[-1] - 1)
        low = int(position)
        high = min(low + 1, rows.shape[-1] - 1)
        picked.append(torch.lerp(rows[..., low], rows[..., high], position - low))
    return torch.stack(picked, dim=-1) + torch.where(rows[..., -1:].isnan(), torch.nan, 0.0)
