"""Drift by its definition: held against plain recurrences over the finite values, metric by metric."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from esper_analyze.detector.detector import Detector
from esper_analyze.detector.rules.gradient_drift import RULE
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Verdict
from tests.detector.batches import judge_cells
from tests.detector.test_ema import by_hand

INFO, N = 0.3, 90


def averages(values: list[float | None], keep: float, warmup: int) -> list[float]:
    """Return the moving average before each value, NaN where it is not known or nothing is averaged."""
    at = [i for i, value in enumerate(values) if value is not None]
    found = [math.nan] * len(values)
    for i, average in zip(at, by_hand([value for value in values if value is not None], keep, warmup), strict=True):
        found[i] = average
    return found


def expected(
    cells: list[Any], keep: float, warmup: int, noise: float, sustained: int, *, falling: bool
) -> tuple[list[str], list[float]]:
    """Return the verdict at each update, and the drift."""
    finite = [x if x is not None and math.isfinite(x) else None for x in cells]
    average = averages(finite, keep, warmup)
    changes, last = list[float | None](), None
    for x in finite:
        changes.append(None if x is None or last is None else abs(x - last))
        last = last if x is None else x
    step = averages(changes, keep, max(warmup - 1, 1))
    verdicts, drifts, far = list[str](), list[float](), 0
    for i, x in enumerate(finite):
        if x is None or math.isnan(average[i]):
            verdicts.append("no_data" if cells[i] is None else "not_applicable")
            drifts.append(math.nan)
            continue
        drift = abs(x - average[i]) / (average[i] + 1e-8)
        beyond = abs(x - average[i]) > noise * step[i] and (not falling or x < average[i])
        far = far + 1 if beyond and drift > INFO else 0
        verdicts.append("info" if far >= sustained else "ok")
        drifts.append(drift)
    return verdicts, drifts


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("keep", "warmup", "noise", "sustained"), [
    (0.9, 1, 0.5, 1), (0.9, 2, 0.5, 1), (0.9, 3, 0.6, 2), (0.99, 10, 1.0, 1), (0.0, 1, 0.2, 1), (0.5, 5, 0.0, 3),
])  # fmt: skip
def test_verdicts_and_drifts_are_those_of_the_definition(
    keep: float, warmup: int, noise: float, sustained: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)

    def course() -> list[Any]:
        walk = np.exp(np.cumsum(rng.normal(0, 0.15, N)) + rng.choice([0.0, 0.0, 0.0, 1.5, -1.5], N))
        odd = rng.random(N)
        return [None if o < 0.05 else math.nan if o < 0.1 else float(x) for o, x in zip(odd, walk, strict=True)]

    cells = {"grad_norm": course(), "health": course()}
    thresholds = Thresholds.defaults([RULE]).merged(
        {
            "gradient_drift": {
                "momentum": keep,
                "warmup": warmup,
                "noise": noise,
                "sustained": sustained,
                "info": INFO,
            }
        }
    )
    outcome = judge_cells(Detector(thresholds, rules=[RULE]), "groups", cells, N)
    (judged,) = outcome.judged
    seen = set[str]()
    for judgement, column in zip(judged.judgements, ("drift_norm", "drift_health"), strict=True):
        verdicts, drifts = expected(
            cells[judgement.metric], keep, warmup, noise, sustained, falling=judgement.metric == "health"
        )
        assert [Verdict(code).word for code in judgement.code[:, 0].tolist()] == verdicts
        filled = outcome.filled["groups", column][1][:, 0]
        assert filled.tolist() == pytest.approx(drifts, rel=1e-9, nan_ok=True)
        seen |= set(verdicts)
    assert {"ok", "no_data", "not_applicable", "info"} <= seen


def test_a_norm_that_is_not_finite_is_not_the_rule_s_to_judge_and_says_so_quietly() -> None:
    cells = {"grad_norm": [1.0] * 11 + [math.nan, None], "health": 1.0}
    outcome = judge_cells(Detector(rules=[RULE]), "groups", cells, 13)
    judgement = outcome.judged[0].judgements[0]
    words = [judgement.reasons[i] for i in judgement.reason[:, 0].tolist()]
    assert words[0] == "warming up"
    assert words[10:] == ["", "non-finite: judged by numerical_instability", "grad_norm is missing"]
    assert {judgement.reasons[i] for i in judgement.quiet} == {
        "warming up",
        "non-finite: judged by numerical_instability",
    }
    assert [one.reason for one in outcome.findings if one.metric == "grad_norm"] == ["grad_norm is missing"]
