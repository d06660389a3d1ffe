from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esper_analyze.replay.evidence import gather
from esper_analyze.reports.render.figure import drawn
from esper_analyze.reports.sections import ranks
from esper_analyze.reports.sections.ranks import RankFrame
from esper_analyze.runs.run import open_run
from esper_analyze.runs.series import Series
from recorder.store.store import Store
from tests.present import present
from tests.reports.synthetic import quiet, write_run

SAMPLES = Path(__file__).parents[2] / "sample_runs" / "runs"
NAN = float("nan")


def series(*values: float | None, start: int = 0) -> Series:
    held = np.array([NAN if value is None else value for value in values])
    return Series(np.arange(start, start + len(values)), held, np.array([value is None for value in values]))


def made(*norms: Series, seconds: tuple[float, ...] = ()) -> RankFrame:
    times = seconds or (1.0,) * len(norms)
    found: dict[int, dict[str, Series]] = {}
    for rank, (norm, took) in enumerate(zip(norms, times, strict=True)):
        same = Series(norm.update, np.full(len(norm.update), took / 2), np.zeros(len(norm.update), bool))
        found[rank] = dict.fromkeys(("kl_k3", "return_mean", "rollout_s", "optimisation_s"), same)
        found[rank]["grad_norm_pre_clip"] = norm
    return RankFrame(found, series(0.0, 0.0), (1e-4, 1e-2), (), ())


def two(path: Path, edit: Any, updates: int = 6) -> Any:
    """Return the frame of a run of two ranks; ``edit(update, row)`` changes the second one's row."""
    write_run(path, updates, facts={"ranks": 2})
    store, noise = Store(path, rank=1), np.random.default_rng(7)
    for update in range(updates):
        rows = quiet(update, updates, noise)
        edit(update, rows["updates"][0])
        store.put(rows)
    store.close("closed")
    return ranks.frame(gather(open_run(path)))


def test_ranks_in_step_are_told_to_be_equal() -> None:
    data = present(ranks.frame(gather(open_run(SAMPLES / "two_ranks"))))
    assert ranks.words(data)[0] == "2 ranks stayed in sync: synchronised metrics are bitwise equal."
    assert [str(row[1]) for row in ranks.rows(data).cells] == ["● in sync"] * 2
    drawn(ranks.SECTION, data)


def test_one_process_has_no_ranks_to_compare(tmp_path: Path) -> None:
    assert ranks.frame(gather(open_run(write_run(tmp_path / "run", 2)))) is None


def test_the_update_the_ranks_parted_at_is_named_with_what_differs(tmp_path: Path) -> None:
    def edit(update: int, row: dict[str, Any]) -> None:
        if update >= 3:
            row["grad_norm_pre_clip"] *= 3

    data = two(tmp_path / "run", edit)
    assert ranks.words(data)[0].startswith("The ranks diverged at update 3: grad_norm_pre_clip differ")
    assert [str(row[1]) for row in ranks.rows(data).cells] == ["▲ apart"] * 2
    drawn(ranks.SECTION, data)


def test_a_norm_that_is_nan_on_one_rank_only_is_apart(tmp_path: Path) -> None:
    def edit(update: int, row: dict[str, Any]) -> None:
        row["grad_norm_pre_clip"] = NAN if update == 2 else row["grad_norm_pre_clip"]

    data = two(tmp_path / "run", edit)
    assert ranks.distance_to_others(data) == {0: float("inf"), 1: float("inf")}
    drawn(ranks.SECTION, data)


def test_of_three_ranks_the_odd_one_is_named() -> None:
    data = made(series(1.0, 2.0), series(1.0, 2.0), series(1.0, 5.0))
    assert ranks.distance_to_others(data) == {0: 0.0, 1: 0.0, 2: 1.5}


@pytest.mark.parametrize("odd", [0.0, NAN, float("inf"), None])
def test_null_is_not_compared_and_nothing_else_is_equal_to_a_number(odd: float | None) -> None:
    apart = ranks.distance_to_others(made(series(1.0, 1.0), series(1.0, 1.0), series(1.0, odd)))
    assert apart[0] == apart[1] == 0.0
    assert (apart[2] > 0) == (odd is not None)


def test_a_rank_that_stopped_and_a_slow_one_are_named() -> None:
    data = made(series(1.0, 1.0, 1.0), series(1.0, 1.0), seconds=(1.0, 3.0))
    said = ranks.words(data)
    assert "Rank 1 stopped at update 1, the others came to 2." in said
    assert "Rank 1 takes longest: 3 times the fastest one's time; the others wait for it." in said


def test_the_ranks_farthest_from_the_rest_are_drawn() -> None:
    norms = [series(1.0, 1.0 + (rank == 9)) for rank in range(12)]
    data = made(*norms)
    assert f"{ranks.MOST_DRAWN} of 12 ranks are drawn" in ranks.words(data)[-1]
    assert "rank 9" in drawn(ranks.SECTION, data).svg
