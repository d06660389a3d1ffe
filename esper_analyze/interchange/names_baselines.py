"""Names of OpenAI baselines and Stable Baselines 2: PPO1 and PPO2, progress.csv and TensorBoard files."""

from __future__ import annotations

from esper_analyze.interchange.framework import NameMap, StepMeaning, window
from esper_analyze.interchange.series import Named

_WINDOW = window("the last 100 episodes")
_K2 = "mean over all minibatches, unweighted"

BASELINES = NameMap(  # baselines 0.1.x (names with and without loss/ and misc/), Stable Baselines 2.0 to 2.10
    "baselines",
    "OpenAI baselines or Stable Baselines 2",
    ("approxkl", "loss/approxkl", "eprewmean", "policy_entropy", "loss/policy_entropy", "misc/explained_variance",
     "misc/nupdates"),
    {
        "policy_loss": Named("policy_loss"),
        "loss/policy_loss": Named("policy_loss"),
        "value_loss": Named("value_loss", "half the squared error, clipped"),
        "loss/value_loss": Named("value_loss", "half the squared error, clipped"),
        "policy_entropy": Named("entropy"),
        "loss/policy_entropy": Named("entropy"),
        "approxkl": Named("kl_k2", _K2),
        "loss/approxkl": Named("kl_k2", _K2),
        "clipfrac": Named("clip_fraction"),
        "loss/clipfrac": Named("clip_fraction"),
        "explained_variance": Named("explained_variance"),
        "misc/explained_variance": Named("explained_variance"),
        "eprewmean": Named("episode_return_mean", _WINDOW),
        "ep_reward_mean": Named("episode_return_mean", _WINDOW),
        "eplenmean": Named("episode_length_mean", _WINDOW),
        "ep_len_mean": Named("episode_length_mean", _WINDOW),
        "total_timesteps": Named("env_steps"),
        "misc/total_timesteps": Named("env_steps"),
    },
    step=StepMeaning.ENV_STEPS,
    counts=("nupdates", "misc/nupdates", "n_updates"),
)  # fmt: skip

PPO1 = NameMap(  # baselines 0.1.x, Stable Baselines 2.0 to 2.10; losses of a last pass, after all steps
    "baselines",
    "PPO1 of OpenAI baselines or Stable Baselines 2",
    ("ev_tdlam_before", "loss_pol_surr", "loss_pol_entpen", "loss_vf_loss"),
    {
        "loss_pol_surr": Named("policy_loss"),
        "loss_vf_loss": Named("value_loss", "the squared error, not halved"),
        "loss_ent": Named("entropy"),
        "loss_kl": Named("kl_k3_last_epoch", "the exact KL, old to new, after the last step"),
        "ev_tdlam_before": Named("explained_variance"),
        "EpRewMean": Named("episode_return_mean", _WINDOW),
        "EpLenMean": Named("episode_length_mean", _WINDOW),
        "TimestepsSoFar": Named("env_steps"),
    },
)

STABLE_BASELINES = NameMap(  # 2.0 to 2.10, event files
    "baselines",
    "Stable Baselines 2",
    ("loss/approximate_kullback-leibler", "loss/clip_factor"),
    {
        "loss/policy_gradient_loss": Named("policy_loss"),
        "loss/value_function_loss": Named("value_loss", "half the squared error, clipped"),
        "loss/entropy_loss": Named("entropy", "the entropy, its sign not turned"),
        "loss/approximate_kullback-leibler": Named("kl_k2"),
        "loss/clip_factor": Named("clip_fraction"),
        "loss/loss": Named("total_loss"),
        "input_info/learning_rate": Named("learning_rate"),
        "input_info/clip_range": Named("clip_range"),
    },
    between={"episode_reward": Named("episode_return_mean", "the episode that ended last")},
    step=StepMeaning.OTHER,
    note="Stable Baselines 2 logs every minibatch to event files: each is numbered as an update",
)
