"""Whether advantages, returns, values, rewards and ends of a rollout agree; and how many environments differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from recorder.measure.joined import PIECE
from recorder.measure.values import PiecewiseRows

CONSISTENCY_FIELDS = ("advantage_consistency", "defined")
ENVIRONMENT_FIELDS = ("environments", "environments_distinct")
RETURN_FIELDS = ("ends_continued_fraction", "return_residual", "return_gamma", "return_lambda")
DEFINED_FIELDS = ("ends_defined", "fit_defined", "lambda_defined")
ROUNDING = 256.0
"""Times the precision of two numbers: a smaller difference of them is rounding."""
EQUAL = 8.0
"""Times the precision of values: a batch computes those of equal observations up to so much the same."""
CONTINUED = 1e-3
"""Difference of return and reward at an end, as a share of the returns' root mean square, from which it goes on."""
FEWEST = 8
"""Timesteps that a fit of two numbers needs."""
COLLINEAR = 1e-9
"""Share of the product of two sums of squares up to which their determinant is rounding."""


def consistency(advantages: Tensor, returns: Tensor, values: Tensor) -> Tensor:
    """Return ``CONSISTENCY_FIELDS``: the Pearson correlation of advantages with returns − values, each [N].

    It is defined where both differ from constants by more than the rounding of returns and values.
    """
    rows = PiecewiseRows([advantages, returns, values], derived=lambda three: three[1:2] - three[2:3])
    low, high, mean = rows.extremes_and_mean()
    centre = mean[[0, 3]]

    def products(piece: Tensor) -> Tensor:
        centred = piece[[0, 3]] - centre
        return torch.cat([centred.square(), centred[:1] * centred[1:]])

    used, raw, both = rows.mean_of(products)
    noise = ROUNDING * precision(returns, values) * torch.maximum(high[1:3], -low[1:3]).amax()
    constant = (used <= 0) | (raw <= noise.square())
    return torch.stack([(both / (used * raw).sqrt()).clamp(-1.0, 1.0), (~constant).double()])


def precision(*tensors: Tensor) -> float:
    """Return the relative rounding of the least precise of the tensors; that of float32 for integers."""
    return max(torch.finfo(t.dtype if t.is_floating_point() else torch.float32).eps for t in tensors)


def rounding(returns: Tensor, values: Tensor) -> Tensor:
    """Return up to which the differences of returns and values [..., N] are rounding, of each row of N."""
    largest = torch.maximum(returns.abs().amax(-1), values.abs().amax(-1))
    return ROUNDING * precision(returns, values) * largest.double()


def environment_statistics(values: Tensor) -> Tensor:
    """Return ``ENVIRONMENT_FIELDS`` for values [T, B]: environments, and how many differ in their values.

    Each environment's values are summed with fixed weights of different sizes; sums that differ by no more than
    rounding count as equal.
    """
    sums, sizes = [], []
    for start, part in _cuts(values):
        steps = torch.arange(start, start + len(part), dtype=torch.float64, device=part.device)
        weights = (12.9898 * steps + 0.5).sin()  # no multiple of the step is a full turn, so they do not repeat
        piece = part.double()
        sums.append(weights @ piece)
        sizes.append(weights.abs() @ piece.abs())
    signature, size = reduce(torch.add, sums), reduce(torch.add, sizes)
    apart = signature.sort().values.diff() > EQUAL * precision(values) * size.amax()
    return torch.stack([signature.new_full((), len(signature)), 1 + apart.sum()])


def return_statistics(values: Tensor, returns: Tensor, rewards: Tensor, ends: Tensor) -> Tensor:
    """Return ``RETURN_FIELDS`` and ``DEFINED_FIELDS`` for a rollout, each [T, B]; a flag of 0 means null.

    NaN if any of values, returns and rewards is NaN or ±Inf.

    Generalised advantage estimation (Schulman et al. 2016) makes R = r + γ·((1 − λ)·V' + λ·R') where no episode ended,
    which is linear in R' and R' − V' with the coefficients γ and −γ(1 − λ): fitted by least squares. Where one ended,
    R = r.
    """
    pieces = _Steps(values, returns, rewards, ends)
    products, others = (reduce(torch.add, parts) for parts in zip(*map(_sums, pieces), strict=True))
    (y_one, y_two), (one, mixed), two = products[0, 1:], products[1, 1:], products[2, 2]
    alive, ended, square = others
    scale = (square / returns.numel()).sqrt()
    determinant = one * two - mixed.square()
    apart = determinant > COLLINEAR * one * two
    gamma = torch.where(apart, (y_one * two - y_two * mixed) / determinant, y_one / one)
    other = torch.where(apart, (y_two * one - y_one * mixed) / determinant, 0.0)
    weights = torch.stack([torch.ones_like(gamma), -gamma, -other])

    def misses(piece: _Piece) -> Tensor:
        continued = piece.over & (piece.target.abs() > CONTINUED * scale)
        return torch.stack([(weights @ piece.rows).square().sum(), continued.sum().double()])

    missed, continued = reduce(torch.add, map(misses, pieces))
    cells = torch.stack([continued / ended, (missed / alive).sqrt() / scale, gamma, 1 + other / gamma])
    broken = ~torch.stack([array.sum(dtype=torch.float64) for array in (values, returns, rewards)]).isfinite().all()
    fits = (alive >= FEWEST) & (broken | (one > 0))
    defined = torch.stack([ended > 0, fits, fits & (broken | apart)])
    return torch.cat([torch.where(broken, torch.nan, cells), defined.double()])


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some timesteps, each with the next. ``rows`` [3, N] are R − r, R' and R' − V', 0 where the episode ended."""

    rows: Tensor
    lives: Tensor  # where the episode goes on, of the timesteps that have a next one
    target: Tensor  # R − r
    over: Tensor  # where the episode ended
    returns: Tensor


class _Steps:
    """The timesteps of a rollout, piece by piece in float64."""

    def __init__(self, values: Tensor, returns: Tensor, rewards: Tensor, ends: Tensor) -> None:
        self._arrays = values, returns, rewards, ends
        cuts = list(_cuts(returns))
        self._starts = [start for start, _ in cuts]
        self._rows = len(cuts[0][1])
        self._only = self._piece(0) if len(cuts) == 1 else None

    def __iter__(self) -> Iterator[_Piece]:
        if self._only is not None:
            yield self._only
            return
        for start in self._starts:
            yield self._piece(start)

    def _piece(self, start: int) -> _Piece:
        values, returns, rewards, ends = self._arrays
        stop = min(start + self._rows, len(returns))
        ahead = slice(start + 1, stop + 1)
        here, after = returns[start:stop].double(), returns[ahead].double()
        target, over = here - rewards[start:stop].double(), ends[start:stop] != 0
        count = len(after)  # one less at the end of the rollout: its last timestep has no next
        lives = ~over[:count]
        rows = torch.stack([target[:count], after, after - values[ahead]]) * lives
        return _Piece(rows.reshape(3, -1), lives, target, over, here)


def _sums(piece: _Piece) -> tuple[Tensor, Tensor]:
    """Return the products of the rows [3, 3]; and timesteps that go on, timesteps that ended, and the sum of R² [3]."""
    others = [piece.lives.sum(), piece.over.sum(), piece.returns.square().sum()]
    return piece.rows @ piece.rows.T, torch.stack([cell.double() for cell in others])


def _cuts(array: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield an array [T, B] in pieces of about ``PIECE`` numbers, each with its first timestep."""
    rows = max(1, PIECE // max(1, array[0].numel()))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]
