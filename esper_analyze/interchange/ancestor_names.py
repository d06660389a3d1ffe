"""The ancestor's payload names, and the columns that hold the same quantity."""

from __future__ import annotations

HEADS = ("op", "slot", "blueprint", "style", "tempo", "alpha_target", "alpha_speed", "alpha_curve")
"""Its action heads; which of them are there is read from the events."""

UPDATES = {
    "policy_loss": "policy_loss",
    "value_loss": "value_loss",
    "explained_variance": "explained_variance",
    "ev_low_variance": "ev_low_return_variance",
    "return_variance": "return_variance",
    "value_return_correlation": "v_return_correlation",
    "value_mean": "value_mean",
    "value_std": "value_std",
    "value_min": "value_min",
    "value_max": "value_max",
    "td_error_mean": "td_error_mean",
    "td_error_std": "td_error_std",
    "bellman_error": "bellman_error",
    "advantage_mean": "pre_norm_advantage_mean",
    "advantage_std": "pre_norm_advantage_std",
    "advantage_skewness": "advantage_skewness",
    "advantage_kurtosis": "advantage_kurtosis",
    "advantage_std_floored": "advantage_std_floored",
    "return_mean": "return_mean",
    "return_skewness": "return_skewness",
    "return_p10": "return_p10",
    "return_p50": "return_p50",
    "return_p90": "return_p90",
    "grad_norm_pre_clip": "pre_clip_grad_norm",
    "learning_rate": "lr",
    "entropy_coef": "entropy_coef",
    "loss_scale": "loss_scale",
}
"""Columns of ``updates`` by the payload's name for the same number."""

INNER_LOOP = {
    "ratio_max": "ratio_max",
    "ratio_min": "ratio_min",
    "ratio_mean": "ratio_mean",
    "ratio_std": "ratio_std",
    "kl_k3": "kl_divergence",
    "clip_fraction": "clip_fraction",
    "clip_fraction_positive": "clip_fraction_positive",
    "clip_fraction_negative": "clip_fraction_negative",
}
"""The same of what one inner epoch makes 1, 0 and 0 by construction: null then."""

COUNTS = ("nan_grad_count", "inf_grad_count")
"""Counts that are 0 also when not counted: 0 becomes null."""

LSTM = (
    "h_l2_total",
    "h_rms",
    "h_env_rms_mean",
    "h_env_rms_max",
    "h_max",
    "c_l2_total",
    "c_rms",
    "c_env_rms_mean",
    "c_env_rms_max",
    "c_max",
)
PHASES = {"rollout": "rollout_lstm_", "update": "lstm_"}

STATES = {"finite": "finite", "nonfinite": "nonfinite", "missing": "missing", "not_learnable": None}
"""Its gradient states; of one that says only that the head could not learn, the norm decides."""

LEFT_OUT = {
    "entropy": "a weighted sum of the heads' normalised entropies (up to 9.4), not the joint entropy in nats",
    "entropy_loss": "0 also when not measured",
    "grad_norm": "the same number as pre_clip_grad_norm; the norm after clipping was never recorded",
    "value_nrmse": "relative to 1 + std(returns), not to std(returns)",
    "advantage_mean, advantage_std, advantage_positive_ratio": "of advantages after normalisation; ours are before",
    "return_std, ev_return_variance": "of a sample; ours are of the population, see return_variance",
    "dead_layers, exploding_layers, layer_gradient_health, gradient_cv": "0 also when not measured, bounds unknown",
    "log_prob_min, log_prob_max": "over all heads; ours are of each",
    "head_X_entropy": "over all steps; entropy_norm is over steps with a choice, filled where the head mattered in "
    "just those",
}
"""What of the payload is in no column, and why."""

CAVEATS = {
    "kl_k3": "estimator as the ancestor computed it, not named in its events",
    "health": "grad_ratio, mean over inner epochs",
    "entropy_norm": "head_X_entropy / head_X_learnable_fraction",
}

ALARMS = (
    "RATIO_EXPLOSION_DETECTED",
    "RATIO_COLLAPSE_DETECTED",
    "VALUE_COLLAPSE_DETECTED",
    "NUMERICAL_INSTABILITY_DETECTED",
    "GRADIENT_ANOMALY",
    "GRADIENT_PATHOLOGY_DETECTED",
    "PERFORMANCE_DEGRADATION",
    "PLATEAU_DETECTED",
)
VERDICTS = {"critical": "critical", "error": "critical", "warning": "warning"}
"""Our verdict by the severity of an alarm; any other is information."""
