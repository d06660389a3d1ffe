"""Whether a log is of discrete or continuous actions, and its entropy where their number is given."""

from __future__ import annotations

import math
from typing import Any

import pytest

from esper_analyze.commands.import_run import head_sizes
from esper_analyze.errors import UsageError
from esper_analyze.interchange.action_kind import GAUSSIAN, describe_actions
from esper_analyze.interchange.imported import Imported
from esper_analyze.runs.log_source import is_log


def logged(*entropies: float | None, **cells: Any) -> Imported:
    imported = Imported("csv")
    for update, entropy in enumerate(entropies):
        imported.add("updates", {"update": update, "entropy": entropy, **cells})
    return imported


def kinds(imported: Imported, **sizes: int) -> list[object]:
    describe_actions(imported, sizes)
    return [row.get("choices_unknown") for row in imported.rows["updates"]]


def test_entropy_that_stays_above_0_is_of_discrete_actions() -> None:
    assert kinds(logged(1.38, 1.2, None, 0.0)) == [True, True, None, True]


@pytest.mark.parametrize("entropies", [(1.3, 0.2, -0.4), (GAUSSIAN, 1.3), (6 * GAUSSIAN * 1.004, 8.0)])
def test_entropy_of_a_gaussian_is_of_continuous_actions(entropies: tuple[float, ...]) -> None:
    assert kinds(logged(*entropies)) == [None] * len(entropies)


def test_a_standard_deviation_is_of_continuous_actions() -> None:
    imported = logged(1.3, 1.2)
    imported.add("heads", {"update": 0, "head": "action", "std_mean": 0.8})
    assert kinds(imported) == [None, None]


def test_the_entropy_loss_is_the_entropy_negated() -> None:
    imported = logged(None, entropy_loss=-1.2)
    imported.columns["updates.entropy_loss"] = "train/entropy_loss"
    assert kinds(imported) == [True]
    assert imported.rows["updates"][0]["entropy"] == 1.2
    assert imported.columns["updates.entropy"] == "train/entropy_loss; negated"


def test_with_the_number_of_actions_the_share_is_exact() -> None:
    imported = logged(math.log(4), math.log(2), 0.0, None)
    assert kinds(imported, action=4) == [None] * 4
    assert [row.get("entropy_norm") for row in imported.rows["updates"]] == [1.0, 0.5, 0.0, None]
    heads = logged(math.log(32))
    describe_actions(heads, {"op": 4, "slot": 8})
    assert heads.rows["updates"][0]["entropy_norm"] == pytest.approx(1.0)
    assert heads.facts["heads"] == {"op": 4, "slot": 8}


def test_what_export_wrote_stays_as_it_is() -> None:
    imported = logged(1.2)
    imported.format = "own"
    assert kinds(imported) == [None]


def test_an_export_in_the_format_of_another_tool_stays_as_it_is() -> None:
    imported = logged(None, entropy_loss=-1.2)
    imported.columns["all"] = "as exported"
    assert kinds(imported) == [None]
    assert imported.rows["updates"][0]["entropy"] is None
    source = {"columns": imported.columns}
    assert not is_log({"imported_from": "tensorboard", "source": source})
    assert is_log({"imported_from": "tensorboard", "source": {"columns": {}}})
    assert not is_log({})


def test_numbers_of_actions_are_read_or_refused() -> None:
    assert head_sizes(None, None) == {}
    assert head_sizes(4, None) == {"action": 4}
    assert head_sizes(None, "op=4, slot=8") == {"op": 4, "slot": 8}
    for heads in ("op", "op=", "op=x", "=4", "op=0", "op=4,op=8", "op=-1", "op=4294967296", ""):
        with pytest.raises(UsageError, match="is not NAME=N"):
            head_sizes(None, heads)
    with pytest.raises(UsageError, match="exclude each other"):
        head_sizes(4, "op=4")
