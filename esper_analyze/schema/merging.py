"""How the rows of several ranks for one update are merged into one: an explicit rule for every column.

Gradients and settings are the same on every rank, so the first rank's are used. Statistics of samples are pooled: each
rank's mean is weighted by its number of samples, and variances are pooled with their means (Chan et al. 1983).
Quantiles cannot be pooled and are null where more than one rank has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FIRST, SUM, MAX, MIN, ANY = "first", "sum", "max", "min", "any"
ALONE = "alone"
"""The value of the only rank that has one; null where several have, because they cannot be pooled."""
TOLD = "told"
"""The texts of all ranks, each with its rank."""
DERIVED = "derived"
"""Computed from several columns, in ``esper_analyze.runs.merge_ranks``."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over samples; ``weight`` is the column with their number."""

    weight: str


How = str | Mean


def _each(how: How, names: str) -> dict[str, How]:
    return dict.fromkeys(names.split(), how)


_SAMPLES, _CHOICES, _RELEVANT = Mean("samples"), Mean("choice_samples"), Mean("relevant_samples")
_ROLLOUT, _MINIBATCHES, _EPISODES = Mean("rollout_samples"), Mean("minibatches"), Mean("episodes_finished")
_ELEMENTS, _GATES = Mean("elements"), Mean("gate_values")

UPDATES: Mapping[str, How] = {
    **_each(SUM, "env_steps episodes samples choice_samples rollout_samples episodes_finished"),
    **_each(SUM, "ratio_nonfinite nonfinite_minibatches dropped_rows"),
    **_each(MAX, "wall_time rollout_s optimisation_s minibatches optimizer_steps recorder_ms recorder_fraction"),
    **_each(MAX, "ratio_max first_ratio_error value_max advantage_max return_max sampled_steps"),
    **_each(MIN, "progress ratio_min value_min advantage_min return_min"),
    **_each(ANY, "inner_loop_measurable advantage_std_floored choices_unknown"),
    **_each(FIRST, "learning_rate clip_range entropy_coef target_kl max_grad_norm loss_scale level"),
    **_each(FIRST, "clip_active_fraction"),
    **_each(FIRST, "grad_norm_pre_clip grad_norm_pre_clip_max grad_norm_pre_clip_last clip_scale_mean"),
    **_each(FIRST, "grad_norm_post_clip grad_norm_post_clip_max grad_norm_post_clip_last"),
    **_each(FIRST, "nan_grad_count inf_grad_count tensors_nonfinite"),
    **_each(TOLD, "skip_reason nonfinite_sources"),
    **_each(_SAMPLES, "ratio_mean clamped_fraction kl_k1 kl_k2 kl_k3 entropy choice_fraction"),
    **_each(_CHOICES, "entropy_norm"),
    **_each(_MINIBATCHES, "kl_k3_last_epoch clip_fraction clip_fraction_positive clip_fraction_negative"),
    **_each(_MINIBATCHES, "policy_loss value_loss entropy_loss total_loss"),
    **_each(_ROLLOUT, "value_mean return_mean advantage_mean td_error_mean bellman_error advantage_positive_fraction"),
    **_each(_EPISODES, "episode_return_mean episode_length_mean"),
    **_each(ALONE, "value_error_p01 value_error_p10 value_error_p50 value_error_p90 value_error_p99"),
    **_each(ALONE, "return_p10 return_p50 return_p90"),
    **_each(DERIVED, "ratio_std ess_fraction"),
    **_each(DERIVED, "explained_variance return_variance ev_low_variance value_nrmse"),
    **_each(DERIVED, "value_return_correlation value_std td_error_std advantage_std return_std"),
    **_each(DERIVED, "advantage_skewness advantage_kurtosis return_skewness"),
    "status": DERIVED,
}
STEPS: Mapping[str, How] = {
    **_each(SUM, "samples"),
    **_each(Mean("samples"), "kl_k1 kl_k2 kl_k3 clip_fraction entropy policy_loss value_loss"),
    **_each(MAX, "ratio_max"),
    **_each(MIN, "ratio_min"),
    **_each(FIRST, "grad_norm_pre_clip grad_norm_post_clip stepped"),
}
HEADS: Mapping[str, How] = {
    **_each(FIRST, "kind grad_norm grad_state params_without_grad params_nonfinite params_finite coefficient"),
    **_each(SUM, "samples relevant_samples choice_samples rollout_samples"),
    **_each(MAX, "ratio_max log_prob_max valid_actions_max"),
    **_each(MIN, "ratio_min log_prob_min valid_actions_min"),
    **_each(_RELEVANT, "kl_k3 clip_fraction"),
    **_each(_SAMPLES, "entropy"),
    **_each(_CHOICES, "entropy_conditional entropy_norm"),
    **_each(_ROLLOUT, "valid_actions_mean single_action_fraction learnable_fraction"),
    **_each(_ROLLOUT, "relevant_fraction effective_fraction"),
    "zero_explained": DERIVED,
}
LSTM: Mapping[str, How] = {
    **_each(SUM, "elements gate_values"),
    **_each(DERIVED, "h_l2_total h_rms c_l2_total c_rms"),
    **_each(_ELEMENTS, "h_env_rms_mean c_env_rms_mean h_mean c_mean h_saturation"),
    **_each(MAX, "h_env_rms_max c_env_rms_max h_max c_max"),
    **_each(ANY, "has_nan has_inf"),
    **_each(_GATES, "forget_saturation input_saturation output_saturation cell_mean"),
}

MERGED: Mapping[str, Mapping[str, How]] = {"updates": UPDATES, "steps": STEPS, "heads": HEADS, "lstm": LSTM}
"""Tables merged to one row per key; of the others, the first rank's or all ranks' rows are kept."""
OF_FIRST = ("groups", "layers", "tensors")
"""Tables of gradients, which are averaged and so equal on every rank: the first rank's rows are kept."""
OF_PLACES = ("slots",)
"""Tables of per-rank environments: all ranks' rows are kept, their place prefixed with the rank."""
MUST_AGREE = (
    "grad_norm_pre_clip", "grad_norm_post_clip", "optimizer_steps", "learning_rate", "clip_range", "entropy_coef",
    "target_kl", "max_grad_norm", "loss_scale",
)  # fmt: skip
"""Columns of ``updates`` that are the same on every rank of a training in step."""
