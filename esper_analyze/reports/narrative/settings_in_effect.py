"""The settings in effect when a run went wrong, against the defaults of the framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from esper_analyze.runs.series import all_series
from esper_analyze.terminal import cleaned
from esper_analyze.wording import number

if TYPE_CHECKING:
    from esper_analyze.detector.incidents import Incident
    from esper_analyze.runs.run import RecordedRun

RULES = (
    "kl_spike", "ratio_explosion", "ratio_collapse", "clip_saturation", "entropy_collapse", "head_entropy_collapse",
    "gradient_explosion", "gradient_drift", "clipping_always", "value_divergence", "value_collapse", "value_fit_lost",
    "critic_not_learning", "performance_degradation", "frozen_update", "setting_changed",
)  # fmt: skip
"""Rules whose incidents settings can explain."""
_SB3: Mapping[str, float | None] = {
    "learning_rate": 3e-4,
    "n_steps": 2048,
    "batch_size": 64,
    "n_epochs": 10,
    "clip_range": 0.2,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "ent_coef": 0.0,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "target_kl": None,
}
"""Defaults of PPO in Stable-Baselines3 2."""
_OTHER = {"RecurrentPPO": {"n_steps": 128, "batch_size": 128}}
"""Those that differ, by algorithm."""
_RECORDED = {
    "learning_rate": "learning_rate",
    "clip_range": "clip_range",
    "entropy_coef": "ent_coef",
    "value_coef": "vf_coef",
    "gamma": "gamma",
    "max_grad_norm": "max_grad_norm",
    "target_kl": "target_kl",
}
"""Columns of table updates, and the names that Stable-Baselines3 has for them."""


def settings_in_effect(run: RecordedRun, lead: Incident) -> str:
    """Return the settings at the onset of an incident in a sentence, empty if none is known or none can explain it."""
    if lead.rule not in RULES:
        return ""
    used = dict(_used(run, lead.onset))
    if str(run.info.get("framework")).lower() != "stable-baselines3":
        named = ", ".join(f"{name} {number(value)}" for name, value in used.items())
        return f"Settings in effect at update {lead.onset:,}: {named}." if named else ""
    values = _hyperparameters(run) | {_RECORDED[name]: value for name, value in used.items()}
    defaults = {**_SB3, **_OTHER.get(str(run.info.get("algorithm")), {})}
    others = [_against(name, values[name], defaults[name]) for name in defaults if name in values]
    changed = [words for words in others if words]
    same = [name for name in defaults if name in values and not _against(name, values[name], defaults[name])]
    parts = [", ".join(changed), f"at Stable-Baselines3's defaults: {', '.join(same)}" if same else ""]
    told = "; ".join(part for part in parts if part)
    return f"Settings in effect at update {lead.onset:,}: {told}." if told else ""


def _used(run: RecordedRun, update: int) -> Iterator[tuple[str, float]]:
    """Yield the last values of settings recorded up to an update."""
    for name, series in all_series(run, "updates", list(_RECORDED)).items():
        known = np.flatnonzero(~series.null & (series.update <= update))
        if len(known):
            yield name, float(series.value[known[-1]])


def _hyperparameters(run: RecordedRun) -> dict[str, object]:
    found = run.info.get("hyperparameters")
    return {name: found[name] for name in _SB3 if name in found} if isinstance(found, Mapping) else {}


def _against(name: str, value: object, default: float | None) -> str:
    """Return a setting against its default, empty where it has that."""
    if value is None:
        return "" if default is None else f"{name} not set (default {number(default)})"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{name} {cleaned(value, 40)}"
    if default is None:
        return f"{name} {number(value)} (not set by default)"
    if np.isclose(value, default, rtol=1e-6, atol=0.0):
        return ""
    return f"{name} {number(value)} (default {number(default)})"
