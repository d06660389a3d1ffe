"""Runs made up row by row, written by the real store and judged by the real detector."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from recorder.online_detector import OnlineDetector
from recorder.store.run_file import create_run
from recorder.store.store import Store

Rows = dict[str, list[dict[str, object]]]
HEADS = ("slot", "op")


def quiet(update: int, total: int, noise: np.random.Generator) -> Rows:
    """Rows of one update of a sound training; the head ``slot`` never has a choice."""
    done = (update + 1) / total
    wave = noise.normal
    kl = 0.01 * math.exp(0.2 * wave())
    norm = 1.2 * math.exp(0.15 * wave())
    row = {
        "update": update,
        "env_steps": 512 * (update + 1),
        "episodes": 4 * (update + 1),
        "wall_time": 1.7e9 + 2.0 * update,
        "rollout_s": 1.2,
        "optimisation_s": 0.8,
        "progress": done,
        "learning_rate": 3e-4 * (1 - update / total),
        "clip_range": 0.2,
        "entropy_coef": 0.01,
        "status": "performed",
        "minibatches": 32,
        "optimizer_steps": 32,
        "inner_loop_measurable": True,
        "ratio_max": 1.4 + 0.1 * abs(wave()),
        "ratio_min": 0.7 - 0.05 * min(abs(wave()), 3.0),
        "ratio_mean": 1.0,
        "ratio_std": 0.08,
        "ratio_nonfinite": 0,
        "clamped_fraction": 0.0,
        "first_ratio_error": 2e-7,
        "ess_fraction": 0.97,
        "kl_k1": kl * 0.95,
        "kl_k2": kl,
        "kl_k3": kl,
        "kl_k3_last_epoch": kl * 1.3,
        "clip_fraction": 0.08 + 0.01 * wave(),
        "clip_fraction_positive": 0.04,
        "clip_fraction_negative": 0.04,
        "entropy": 2.0 - done,
        "entropy_norm": 0.9 - 0.4 * done,
        "choice_fraction": 1.0,
        "policy_loss": -0.01 + 0.002 * wave(),
        "value_loss": 0.5 * math.exp(-done) + 0.01 * abs(wave()),
        "entropy_loss": -(2.0 - done),
        "total_loss": 0.2,
        "explained_variance": 0.9 * (1 - math.exp(-5 * done)) + 0.02 * wave(),
        "return_variance": 2.0,
        "ev_low_variance": False,
        "value_nrmse": 0.4,
        "value_return_correlation": 0.9,
        "value_mean": 10 * done,
        "value_std": 1.0,
        "value_min": 10 * done - 2,
        "value_max": 10 * done + 2,
        "advantage_mean": 0.0,
        "advantage_std": 1.0,
        "advantage_min": -3.0,
        "advantage_max": 3.2,
        "advantage_alignment": 0.3,
        "return_mean": 10 * done + 0.1 * wave(),
        "return_std": 1.4,
        "return_min": 10 * done - 3,
        "return_max": 10 * done + 3,
        "episode_return_mean": 20 * done,
        "episode_length_mean": 100.0,
        "grad_norm_pre_clip": norm,
        "grad_norm_pre_clip_max": norm * 2,
        "grad_norm_pre_clip_last": norm,
        "grad_norm_post_clip": min(norm, 0.5),
        "grad_norm_post_clip_max": 0.5,
        "max_grad_norm": 0.5,
        "clip_active_fraction": 0.9,
        "clip_scale_mean": 0.4,
        "nan_grad_count": 0,
        "inf_grad_count": 0,
        "tensors_nonfinite": 0,
        "nonfinite_minibatches": 0,
        "level": "NORMAL",
        "recorder_ms": 12.0 + abs(wave()),
        "recorder_fraction": 0.006,
        "dropped_rows": 0,
        "sampled_steps": 32,
    }
    return {
        "updates": [row],
        "heads": [_masked_head(update), _open_head(update, done, wave())],
        "groups": [_group(update, name, norm) for name in ("actor", "critic", "head:op")],
        "lstm": [_lstm(update, phase) for phase in ("rollout", "update")],
        "episodes": [
            {"update": update, "env": env, "episode_return": 20 * done + wave(), "length": 100} for env in range(4)
        ],
    }


def _masked_head(update: int) -> dict[str, object]:
    return {
        "update": update,
        "head": "slot",
        "kind": "categorical",
        "grad_norm": 0.0,
        "grad_state": "finite",
        "params_without_grad": 0,
        "params_nonfinite": 0,
        "params_finite": 2,
        "entropy": 0.0,
        "valid_actions_mean": 1.0,
        "single_action_fraction": 1.0,
        "learnable_fraction": 0.0,
        "zero_explained": "masked",
    }


def _open_head(update: int, done: float, wave: float) -> dict[str, object]:
    return {
        "update": update,
        "head": "op",
        "kind": "categorical",
        "grad_norm": 0.016 * math.exp(0.3 * wave),
        "grad_state": "finite",
        "params_without_grad": 0,
        "params_nonfinite": 0,
        "params_finite": 2,
        "ratio_max": 1.3,
        "ratio_min": 0.8,
        "kl_k3": 0.01,
        "clip_fraction": 0.05,
        "entropy": 1.5 - done,
        "entropy_conditional": 1.5 - done,
        "entropy_norm": 0.95 - 0.4 * done,
        "valid_actions_mean": 3.4,
        "single_action_fraction": 0.3,
        "learnable_fraction": 0.7,
        "zero_explained": "not_zero",
    }


def _group(update: int, name: str, norm: float) -> dict[str, object]:
    return {
        "update": update,
        "group": name,
        "tensors": 4,
        "elements": 4000,
        "tensors_without_grad": 0,
        "grad_norm": norm / (2 if name == "critic" else 1),
        "health": 1.0,
        "vanishing_severity": 0.0,
        "exploding_severity": 0.0,
        "has_vanishing": False,
        "has_exploding": False,
        "min_tensor_norm": 0.01,
        "max_tensor_norm": norm,
        "norm_ratio": norm * 100,
        "cosine_previous_update": 0.3 if update else None,
        "cosine_minibatches": 0.2,
        "noise_scale": 500.0 * norm,
    }


def _lstm(update: int, phase: str) -> dict[str, object]:
    row: dict[str, object] = {"update": update, "phase": phase, "has_nan": False, "has_inf": False}
    for letter, size in (("h", 0.3), ("c", 0.8)):
        row |= {
            f"{letter}_l2_total": size * 8,
            f"{letter}_rms": size,
            f"{letter}_env_rms_mean": size,
            f"{letter}_env_rms_max": size * 1.1,
            f"{letter}_max": size * 2,
            f"{letter}_mean": 0.0,
        }
    return {**row, "h_saturation": 0.01, "forget_saturation": 0.1, "input_saturation": 0.1, "output_saturation": 0.1}


def write_run(
    path: Path,
    updates: int = 60,
    edit: Callable[[int, Rows], None] | None = None,
    *,
    close: bool = True,
    reason: str = "closed",
    facts: Mapping[str, object] | None = None,
) -> Path:
    """Write a run of ``updates`` updates; ``edit`` may change the rows of each. Returns ``path``."""
    live = OnlineDetector(None, "NORMAL")
    named = {
        "name": path.name,
        "framework": "hand-written loop",
        "algorithm": "PPO",
        "hyperparameters": {"learning_rate": 3e-4, "n_steps": 128, "target_kl": None},
        "heads": {"slot": 4, "op": 5},
        "groups": ["actor", "critic", "head:op"],
        "total_updates": updates,
        "level": "NORMAL",
        "attach_points": ["clip_grad_norm_", "optimizer step"],
        "thresholds": live.detector.thresholds.as_dict(),
        **(facts or {}),
    }
    create_run(path, named)
    store = Store(path)
    noise = np.random.default_rng(7)
    for update in range(updates):
        rows = quiet(update, updates, noise)
        if edit is not None:
            edit(update, rows)
        store.put(live.judge(update, rows).rows)
    if close:
        store.close(reason)
    else:
        store.flush()
        store.inert = True
        store.claimed.release()
    return path
