"""The first sight of a run: whether it got better, four courses, and alarms behind them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from esper_analyze.replay.evidence import gather
from esper_analyze.replay.recorded_rules import known_thresholds
from esper_analyze.reports.narrative.course import SHOWN, SIZE, better, frame
from esper_analyze.runs.run import open_run
from esper_analyze.runs.series import Series
from tests.reports.synthetic import Rows, write_run

NAN = math.nan


def returns(*values: float, nan_at: int | None = None) -> Series:
    cells = np.array(values)
    null = np.isnan(cells)
    if nan_at is not None:
        cells[nan_at] = NAN
    return Series(np.arange(len(cells)), cells, null)


RISING = [float(value) for value in range(40)]


@pytest.mark.parametrize(
    ("series", "words"),
    [
        (
            returns(*RISING),
            "Yes: returns rose from 1.5 in the first tenth (4 updates with episodes) to 37.5 in the last.",
        ),
        (returns(*RISING[::-1]), "No: returns fell from 37.5"),
        (returns(*([3.0, 5.0] * 20)), "No clear change: returns went from 4 "),
        (
            returns(*RISING[:9]),
            "Too short to tell: returns went from 0 in the first tenth (1 update with episodes) to 8",
        ),
        (returns(*RISING, nan_at=39), "to 36.5 in the last. In 1 update they were NaN or infinite."),
        (returns(*[NAN] * 5), "Not known: no return of an episode was recorded."),
        (returns(), "Not known"),
        (returns(*RISING, *[2.0] * 10), "The best level was 38, about update 38; at the end it was 2."),
    ],
)
def test_the_first_sentence_says_whether_it_got_better(series: Series, words: str) -> None:
    assert better(series).startswith("Did it get better? ")
    assert words in better(series)


def late_alarm(update: int, rows: Rows) -> None:
    if update >= 90:
        rows["updates"][0]["first_ratio_error"] = 1.0


def test_four_courses_have_their_tenths_and_what_was_open_behind_them(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "run", 100, late_alarm))
    sight = frame(gather(run, known_thresholds(run)))
    assert [course.title for course in sight.courses] == list(SHOWN.values())
    for course in sight.courses:
        ((left, width, verdict),) = course.shaded
        assert verdict == "critical"
        assert left == pytest.approx(2 + (SIZE[0] - 4) * 90 / 99, abs=1)
        assert left + width == SIZE[0] - 1
        assert (course.line.width, course.line.height) == SIZE
        x = [point[0] for piece in course.line.pieces for point in piece]
        assert (min(x), max(x)) == (2, SIZE[0] - 2)
    rows = run.frame("updates")["entropy"].to_numpy()
    first, last = rows[:10].mean(), rows[-10:].mean()
    assert sight.courses[2].words == f"{first:.3g} → {last:.3g} (×{last / first:.3g})"


def test_a_metric_that_was_never_measured_has_no_course(tmp_path: Path) -> None:
    def bare(_update: int, rows: Rows) -> None:
        rows["updates"][0] |= {"explained_variance": None, "episode_return_mean": None}

    run = open_run(write_run(tmp_path / "run", 12, bare))
    sight = frame(gather(run, known_thresholds(run)))
    assert [course.title for course in sight.courses] == ["KL (k3), nats", "Entropy, nats"]
    assert "Not known" in sight.answer
