"""NEXT names the settings in effect when a run went wrong, against the framework's defaults."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from esper_analyze.detector.incidents import Incident
from esper_analyze.replay.evidence import gather
from esper_analyze.replay.recorded_rules import known_thresholds
from esper_analyze.reports.narrative import settings_in_effect as module
from esper_analyze.reports.narrative import story
from esper_analyze.reports.narrative.settings_in_effect import settings_in_effect
from esper_analyze.runs.run import open_run
from tests.reports.synthetic import Rows, write_run

SB3 = {"n_steps": 2048, "batch_size": 64, "n_epochs": 4, "gae_lambda": 0.95, "learning_rate": "linear.lambda: 0.1 → 0"}


@pytest.mark.parametrize("name", ["PPO", "RecurrentPPO", "MaskablePPO"])
def test_the_defaults_are_those_of_the_framework(name: str) -> None:
    library: Any = pytest.importorskip("stable_baselines3" if name == "PPO" else "sb3_contrib")
    parameters = inspect.signature(getattr(library, name).__init__).parameters
    expected = {key: parameters[key].default for key in module._SB3}
    assert {**module._SB3, **module._OTHER.get(name, {})} == expected


def spiked(update: int, rows: Rows) -> None:
    rows["updates"][0] |= {
        "learning_rate": 0.1 - 0.001 * update, "clip_range": 0.2, "entropy_coef": 0.0, "value_coef": 0.5,
        "gamma": 0.99, "max_grad_norm": 0.5, "target_kl": None,
    }  # fmt: skip
    if 20 <= update < 30:
        rows["updates"][0]["kl_k3"] = 3.0


def told(path: Path) -> str:
    run = open_run(path)
    evidence = gather(run, known_thresholds(run))
    points = dict(story.frame(evidence).parts)["Next"]
    return next((point.words for point in points if point.words.startswith("Settings in effect")), "")


def test_settings_of_the_framework_stand_against_its_defaults(tmp_path: Path) -> None:
    facts = {"framework": "stable-baselines3", "algorithm": "PPO", "hyperparameters": SB3 | {"target_kl": None}}
    write_run(tmp_path / "run", 40, spiked, facts=facts)
    assert told(tmp_path / "run") == (
        "Settings in effect at update 20: learning_rate 0.08 (default 0.0003), n_epochs 4 (default 10); at "
        "Stable-Baselines3's defaults: n_steps, batch_size, clip_range, gamma, gae_lambda, ent_coef, vf_coef, "
        "max_grad_norm, target_kl."
    )


def test_a_loop_s_settings_are_named_as_recorded(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 40, spiked)
    assert told(tmp_path / "run") == (
        "Settings in effect at update 20: learning_rate 0.08, clip_range 0.2, entropy_coef 0, value_coef 0.5, "
        "gamma 0.99, max_grad_norm 0.5."
    )


def incident(rule: str, onset: int) -> Incident:
    return Incident(rule, "run", "kl_k3", onset, onset, onset, "open", 1.0, onset, "critical", 1)


def test_an_incident_that_settings_cannot_explain_has_none(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "run", 40, spiked))
    assert settings_in_effect(run, incident("numerical_instability", 20)) == ""
    assert settings_in_effect(run, incident("kl_spike", 20)) != ""


@pytest.mark.parametrize(
    ("value", "default", "words"),
    [
        (None, None, ""),
        (None, 0.5, "x not set (default 0.5)"),
        (0.5, None, "x 0.5 (not set by default)"),
        (0.2 + 1e-9, 0.2, ""),
        (float("inf"), 0.5, "x +Inf (default 0.5)"),
        ("linear: 1 → 0", 0.5, "x linear: 1 → 0"),
    ],
)
def test_what_is_not_set_is_not_a_number(value: object, default: float | None, words: str) -> None:
    assert module._against("x", value, default) == words
