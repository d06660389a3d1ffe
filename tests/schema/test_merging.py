"""The columns of a table that is merged have a merge rule each, and no others."""

from __future__ import annotations

import pytest

from esper_analyze.schema import TABLES
from esper_analyze.schema.column import RANK, UPDATE, Column, Table, real
from esper_analyze.schema.merging import FIRST, MAX, SUM, Mean, RankRows


@pytest.mark.parametrize(
    ("column", "ranks", "fault"),
    [
        (real("kl", "divergence"), RankRows.MERGED, "losses.kl: no merge rule"),
        (real("kl", "divergence", merge=FIRST), RankRows.OF_ALL, "losses.kl: needless merge rule"),
    ],
)
def test_a_table_refuses_a_column_whose_merge_rule_does_not_fit(column: Column, ranks: RankRows, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Table("losses", "Losses.", ("rank", "update"), (RANK, UPDATE, column), ranks)


def test_only_columns_that_are_merged_have_a_rule() -> None:
    table = Table("x", "X.", ("rank", "update"), (RANK, UPDATE, real("kl", "kl", merge=SUM)), RankRows.MERGED)
    assert table.merge_rules == {"kl": SUM}
    assert Table("x", "X.", ("rank", "update"), (RANK, UPDATE, real("kl", "kl"))).merge_rules == {}


def test_a_mean_is_weighted_by_a_count_of_the_same_table() -> None:
    for table in TABLES:
        rules = table.merge_rules
        weights = {rule.weight for rule in rules.values() if isinstance(rule, Mean)}
        assert {rules[weight] for weight in weights} <= {SUM, MAX}
