"""The causes that name each kind of fault that is held back, chosen by what they say before any list was made."""

from __future__ import annotations

HELD_TRUE: dict[str, tuple[str, ...]] = {
    "gae_across_environments": ("returns_wrong",),
    "bootstrap_missing": ("returns_wrong",),
    "advantages_absolute": ("advantages_sign", "advantages_wrong"),
    "log_prob_of_another_sample": ("stale_log_probs", "ratio_mismatch"),
    "observations_of_another_environment": ("ratio_mismatch",),
    "next_observation_stored": ("ratio_mismatch", "actions_shifted"),
    "gradients_accumulated": ("large_steps", "advantages_wrong"),
    "weight_decay_1": ("weights_scaled", "setting"),
    "critic_rate_0": ("learning_rate_0",),
    "policy_loss_sign": ("advantages_sign", "advantages_wrong"),
    "reward_delayed": ("reward_unrelated",),
    "environments_stuck": ("observations_changed",),
    "observations_half_garbage": ("observations_changed",),
    "sensor_dead": ("observations_changed",),
    "actions_partly_another": ("other_action",),
    "temperature_while_acting": ("ratio_mismatch",),
    "dropout_in_update": ("dropout",),
    "body_frozen": ("gradient_lost",),
    "plain_sgd": ("optimizer_restarted",),
    "rollout_reused": ("stale_log_probs",),
}
