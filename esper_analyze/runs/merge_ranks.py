"""Merge the ranks of a distributed training into one run, by the rule declared with each column."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce

import polars as pl

from esper_analyze.runs.run import RecordedRun
from esper_analyze.schema import merging
from esper_analyze.schema.arrow import arrow_schema
from esper_analyze.schema.column import Column, Kind, Table
from esper_analyze.schema.constants import TINY_STD
from esper_analyze.schema.merging import RankRows
from esper_analyze.schema.tables import BY_NAME, TABLES
from esper_analyze.schema.tables.updates import LOW_VARIANCE, STATUSES
from esper_analyze.schema.zero import explain_zero

_RANKED = ("rank", "seq")


def merge_ranks(run: RecordedRun) -> RecordedRun:
    """Return ``run`` with one merged row, of rank 0, for the rows of all ranks; a run of one rank is unchanged.

    An update that only some ranks recorded is merged from these. Rows of slots are not merged, because each rank has
    environments of its own: their place names the rank. Events (episodes, findings, levels, losses) and the worst
    transitions keep their rank. All rows are held in memory.
    """
    if len(run.ranks) < 2:
        return run
    frames: dict[str, pl.DataFrame] = {}
    for table in TABLES:
        if table.ranks is RankRows.MERGED:
            frames[table.name] = _one_row(table, run.frame(table.name))
        elif table.ranks is RankRows.OF_FIRST:
            rows = run.frame(table.name)
            frames[table.name] = rows.filter(pl.col("rank") == pl.col("rank").min()).with_columns(rank=pl.lit(0))
        elif table.ranks is RankRows.OF_PLACES:
            frames[table.name] = _slot_rows(run.frame(table.name))
        elif table.ranks is RankRows.OF_ALL:
            frames[table.name] = run.frame(table.name)
    frames["ranks"] = side_by_side(run)
    tables = {name: frame.to_arrow().cast(arrow_schema(BY_NAME[name])) for name, frame in frames.items()}
    return replace(run, merged=tables)


def _slot_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of all ranks as rows of rank 0; each place is prefixed with its rank."""
    named = rows.with_columns(place=pl.format("rank {}, {}", pl.col("rank"), pl.col("place")))
    return named.sort("update", "rank", "seq", maintain_order=True).with_columns(
        rank=pl.lit(0, pl.Int64), seq=pl.int_range(pl.len(), dtype=pl.Int64)
    )


def _one_row(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Return one merged row for each key of ``table``."""
    keys = [name for name in table.key if name != "rank"]
    expressions = [
        _expression(table.column(name), rule).alias(name)
        for name, rule in table.merge_rules.items()
        if rule != merging.DERIVED
    ]
    expressions += [expression.alias(name) for name, expression in _DERIVED.get(table.name, {}).items()]
    merged = (
        rows.sort("rank", "seq")
        .group_by(keys, maintain_order=True)
        .agg(*expressions)
        .sort("update", maintain_order=True)
    )
    if table.name == "heads":
        cells = ["grad_state", "grad_norm", "learnable_fraction", "relevant_fraction", "effective_fraction"]
        explanations = [explain_zero(row) for row in merged.select(cells).to_dicts()]
        merged = merged.with_columns(zero_explained=pl.Series(explanations, dtype=pl.String))
    schema = rows.schema
    return merged.with_columns(rank=pl.lit(0), seq=pl.int_range(pl.len())).select(
        pl.col(name).cast(schema[name]) for name in table.names
    )


def _expression(declared: Column, rule: merging.MergeRule) -> pl.Expr:
    column = pl.col(declared.name)
    if isinstance(rule, merging.Mean):
        return _mean(column, pl.col(rule.weight))
    any_value = column.is_not_null().any()
    by_rule: dict[str, pl.Expr] = {
        merging.FIRST: column.drop_nulls().first(),
        merging.SUM: pl.when(any_value).then(_total(column) if declared.kind is Kind.INT else column.sum()),
        merging.MAX: column.nan_max(),
        merging.MIN: column.nan_min(),
        merging.ANY: pl.when(any_value).then(column.any()),
        merging.ALONE: pl.when(column.count() == 1).then(column.drop_nulls().first()),
        merging.TOLD: pl.when(any_value).then(
            pl.format("rank {}: {}", pl.col("rank"), column).drop_nulls().str.join("; ")
        ),
    }
    return by_rule[str(rule)]


def _total(column: pl.Expr) -> pl.Expr:
    """Return the sum of integers, limited to 64 bits: polars' own sum wraps."""
    return column.cast(pl.Int128).sum().clip(-(2**63), 2**63 - 1)


def _weight(value: pl.Expr, weight: pl.Expr) -> pl.Expr:
    """Return the weight of each rank; null where ``value`` is null."""
    return pl.when(value.is_not_null()).then(weight).cast(pl.Float64)


def _mean(value: pl.Expr, weight: pl.Expr) -> pl.Expr:
    """Return the weighted mean; null if no rank with a positive weight has the value."""
    counts = _weight(value, weight)
    total = counts.sum()
    return pl.when(total > 0).then(pl.when(counts > 0).then(value.cast(pl.Float64) * counts).sum() / total)


def _variance(mean: pl.Expr, variance: pl.Expr, weight: pl.Expr) -> pl.Expr:
    """Return the population variance of all ranks' samples together; exactly 0 where all are equal."""
    center = _mean(mean, weight).clip(mean.min(), mean.max())  # rounding must not give equal values a spread
    return _mean(variance + (mean - center).pow(2), weight)


def _std(name: str, mean: str, weight: str) -> pl.Expr:
    return _variance(pl.col(mean), pl.col(name).pow(2), pl.col(weight)).sqrt()


def _moment(what: str, order: int) -> pl.Expr:
    """Return skewness (``order`` 3) or excess kurtosis (4) of all ranks' samples together (Pébay 2008)."""
    mean, std, weight = pl.col(f"{what}_mean"), pl.col(f"{what}_std"), pl.col("rollout_samples")
    away, spread = mean - _mean(mean, weight), _std(f"{what}_std", f"{what}_mean", "rollout_samples")
    third = pl.col(f"{what}_skewness").fill_null(0.0) * std.pow(3)
    if order == 3:
        central = third + 3 * away * std.pow(2) + away.pow(3)
    else:
        flat = pl.when(pl.col(f"{what}_kurtosis").is_null()).then(0.0).otherwise(pl.col(f"{what}_kurtosis") + 3)
        central = flat * std.pow(4) + 4 * away * third + 6 * away.pow(2) * std.pow(2) + away.pow(4)
    largest = pl.max_horizontal(pl.col(f"{what}_max").nan_max(), -pl.col(f"{what}_min").nan_min())
    value = _mean(central, weight) / spread.pow(order) - (3 if order == 4 else 0)
    return pl.when(~(spread <= TINY_STD * largest)).then(value)


def _value_cells() -> dict[str, pl.Expr]:
    """Return the value-function statistics derived from each rank's means, variances and explained variance."""
    weight = pl.col("rollout_samples")
    value, target = pl.col("value_mean"), pl.col("return_mean")
    spread = pl.col("return_variance")
    explained = pl.col("explained_variance")
    of_value = pl.col("value_std").pow(2)
    error = pl.when(explained.is_null() & spread.is_not_null()).then(of_value).otherwise((1 - explained) * spread)
    together = (spread + of_value - error) / 2  # covariance of value and target
    all_target, all_error = _variance(target, spread, weight), _variance(target - value, error, weight)
    bias = _mean(target - value, weight)
    covariance = _mean(together + (value - _mean(value, weight)) * (target - _mean(target, weight)), weight)
    product = (_variance(value, of_value, weight) * all_target).sqrt()
    return {
        "return_variance": all_target,
        "ev_low_variance": all_target < LOW_VARIANCE,
        "explained_variance": pl.when(all_target != 0).then(1 - all_error / all_target),
        "value_nrmse": pl.when(all_target != 0).then(((all_error + bias.pow(2)) / all_target).sqrt()),
        "value_return_correlation": pl.when(product != 0).then(covariance / product),
    }


def _ratio_cells() -> dict[str, pl.Expr]:
    mean, std = _mean(pl.col("ratio_mean"), pl.col("samples")), _std("ratio_std", "ratio_mean", "samples")
    return {"ratio_std": std, "ess_fraction": mean.pow(2) / (mean.pow(2) + std.pow(2))}


def _status() -> pl.Expr:
    """Return the worst status of the update over the ranks."""
    worst = ("interrupted", "nonfinite_skipped", "no_usable_steps", "kl_stopped", "performed")
    assert set(worst) == set(STATUSES)
    choose: Callable[[pl.Expr | None, str], pl.Expr] = lambda rest, status: (  # noqa: E731
        pl.when((pl.col("status") == status).any()).then(pl.lit(status)).otherwise(rest)
    )
    return reduce(choose, reversed(worst), pl.lit(None))


def _state_cells(letter: str) -> dict[str, pl.Expr]:
    squares = pl.col(f"{letter}_l2_total").pow(2).sum()
    any_value = pl.col(f"{letter}_l2_total").is_not_null().any()
    numbers = _weight(pl.col(f"{letter}_rms"), pl.col("elements"))
    return {
        f"{letter}_l2_total": pl.when(any_value).then(squares.sqrt()),
        f"{letter}_rms": _mean(pl.col(f"{letter}_rms").pow(2), numbers).sqrt(),
    }


_DERIVED: Mapping[str, Mapping[str, pl.Expr]] = {
    "updates": {
        **_value_cells(),
        **_ratio_cells(),
        "status": _status(),
        **{f"{name}_std": _std(f"{name}_std", f"{name}_mean", "rollout_samples") for name in ("value", "advantage")},
        **{f"{name}_std": _std(f"{name}_std", f"{name}_mean", "rollout_samples") for name in ("return", "td_error")},
        "reward_std": _std("reward_std", "reward_mean", "rollout_samples"),
        "advantage_skewness": _moment("advantage", 3),
        "advantage_kurtosis": _moment("advantage", 4),
        "return_skewness": _moment("return", 3),
    },
    "heads": {
        "std_min_dimension": pl.col("std_min_dimension")
        .sort_by(pl.col("std_min").fill_nan(-math.inf), nulls_last=True)
        .drop_nulls()
        .first()
    },
    "lstm": {**_state_cells("h"), **_state_cells("c")},
}


def side_by_side(run: RecordedRun) -> pl.DataFrame:
    """Return table ``ranks``: values that must agree between ranks, one row per update and metric."""
    parts = [_compared(run.frame("updates", ["rank", "update", *merging.MUST_AGREE]), merging.MUST_AGREE)]
    groups = run.frame("groups", ["rank", "update", "group", "grad_norm", "update_ratio"])
    if groups["rank"].n_unique() > 1:
        for (group,), rows in groups.group_by(["group"], maintain_order=True):
            wide = rows.rename({name: f"{group}.{name}" for name in ("grad_norm", "update_ratio")})
            parts.append(_compared(wide, [f"{group}.grad_norm", f"{group}.update_ratio"]))
    order = {name: index for index, name in enumerate(dict.fromkeys(pl.concat(parts)["metric"].to_list()))}
    ordered = pl.concat(parts).with_columns(order=pl.col("metric").replace_strict(order, return_dtype=pl.Int64))
    return (
        ordered.sort("update", "order")
        .with_columns(rank=pl.lit(0, pl.Int64), seq=pl.int_range(pl.len(), dtype=pl.Int64))
        .select(BY_NAME["ranks"].names)
    )


def _compared(rows: pl.DataFrame, metrics: Sequence[str]) -> pl.DataFrame:
    long = rows.select("update", *(pl.col(name).cast(pl.Float64) for name in metrics)).unpivot(
        index="update", variable_name="metric", value_name="value"
    )
    value = pl.col("value")
    finite = value.is_finite()
    split = finite.any() & ~finite.all()
    least, most = value.nan_min(), value.nan_max()
    largest = pl.max_horizontal(least.abs(), most.abs())
    spread = pl.when(split).then(float("inf")).when(~finite.any() | (largest == 0)).then(0.0)
    groups = long.drop_nulls("value").group_by("update", "metric", maintain_order=True)
    return groups.agg(
        ranks=pl.len().cast(pl.Int64),
        least=pl.when(~split).then(least),
        most=pl.when(~split).then(most),
        spread=pl.when(pl.len() > 1).then(spread.otherwise((most - least) / largest)),
    )
