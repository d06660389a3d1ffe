"""Names of trainings of language models: TRL's PPO, GRPO and RLOO, and verl."""

from __future__ import annotations

from esper_analyze.interchange.framework import NameMap
from esper_analyze.interchange.series import Named

_BINDS = "share of tokens where the clipping takes effect"
_TOKENS = "mean over tokens"
_OFF = "with one iteration over the rollout the ratio is 1 by construction"

TRL = NameMap(  # PPO and RLOO 0.11 to 0.24 (objective/, policy/, loss/, val/), GRPO and RLOO 0.14 to 1.16 (the others)
    "trl",
    "TRL",
    ("frac_reward_zero_std", "reward_std", "completions/mean_length", "completions/clipped_ratio", "completion_length",
     "clip_ratio/*", "objective/kl", "objective/rlhf_reward", "policy/approxkl_avg", "policy/clipfrac_avg"),
    {
        "loss/policy_avg": Named("policy_loss"),
        "loss/value_avg": Named("value_loss", "half the squared error, clipped"),
        "loss": Named("total_loss"),
        "policy/entropy_avg": Named("entropy", _TOKENS),
        "entropy": Named("entropy", _TOKENS),
        "policy/approxkl_avg": Named("kl_k2"),
        "policy/clipfrac_avg": Named("clip_fraction", _BINDS),
        "clip_ratio/region_mean": Named("clip_fraction", f"{_BINDS}; {_OFF}", zero_if_off=True),
        "clip_ratio": Named("clip_fraction", f"{_BINDS}; {_OFF}", zero_if_off=True),
        "clip_ratio/high_mean": Named("clip_fraction_positive", f"{_BINDS}; {_OFF}", zero_if_off=True),
        "clip_ratio/low_mean": Named("clip_fraction_negative", f"{_BINDS}; {_OFF}", zero_if_off=True),
        "val/ratio": Named("ratio_mean"),
        "objective/kl": Named("kl_reference", "sum over a response's tokens"),
        "kl": Named("kl_reference", _TOKENS),
        "objective/scores": Named("episode_return_mean", "mean score of the responses"),
        "reward": Named("episode_return_mean", "mean reward of the responses"),
        "completions/mean_length": Named("response_length_mean"),
        "completion_length": Named("response_length_mean"),
        "completions/max_length": Named("response_length_max"),
        "completions/clipped_ratio": Named("response_clipped_fraction"),
        "frac_reward_zero_std": Named("reward_zero_std_fraction"),
        "grad_norm": Named("grad_norm_pre_clip", "last optimizer step"),
        "learning_rate": Named("learning_rate"),
        "lr": Named("learning_rate"),
    },
    first=1,
    prefixes=("train/",),
    reasons={
        "rewards/": "one part of the reward",
        "eval_": "of an evaluation",
        "reward_std": "over a batch, not the rollout",
        "val/clipfrac_avg": "of the value loss",
    },
    algorithms={"frac_reward_zero_std": "GRPO or RLOO", "completions/mean_length": "GRPO or RLOO",
                "completion_length": "GRPO", "reward_std": "GRPO or RLOO"},
    note="steps are optimizer steps; with logging_steps above 1 a row is the mean over those since the row before",
)  # fmt: skip

VERL = NameMap(  # 0.1 to 0.9
    "verl",
    "verl",
    ("actor/ppo_kl", "actor/pg_clipfrac", "actor/pg_loss", "actor/entropy_loss", "actor/kl_loss",
     "critic/vf_explained_var", "critic/score/*"),
    {
        "actor/pg_loss": Named("policy_loss"),
        "critic/vf_loss": Named("value_loss"),
        "actor/entropy": Named("entropy", _TOKENS),
        "actor/entropy_loss": Named("entropy", f"the entropy, its sign not turned, {_TOKENS}"),
        "actor/ppo_kl": Named("kl_k1"),
        "actor/pg_clipfrac": Named("clip_fraction", _BINDS),
        "actor/kl_loss": Named("kl_reference", _TOKENS),
        "actor/reward_kl_penalty": Named("kl_reference", _TOKENS),
        "critic/kl": Named("kl_reference", _TOKENS),
        "actor/grad_norm": Named("grad_norm_pre_clip"),
        "actor/lr": Named("learning_rate"),
        "critic/vf_explained_var": Named("explained_variance"),
        "critic/score/mean": Named("episode_return_mean", "mean score of the responses"),
        "critic/values/mean": Named("value_mean"),
        "critic/values/min": Named("value_min"),
        "critic/values/max": Named("value_max"),
        "critic/returns/mean": Named("return_mean"),
        "critic/returns/min": Named("return_min"),
        "critic/returns/max": Named("return_max"),
        "response_length/mean": Named("response_length_mean"),
        "response_length/max": Named("response_length_max"),
        "response_length/clip_ratio": Named("response_clipped_fraction"),
    },
    first=1,
    reasons={
        "critic/advantages/": "after normalisation; ours are before",
        "critic/rewards/": "the score less the KL penalty",
        "actor/pg_clipfrac_lower": "of the second clipping, where advantages are negative",
        "val": "of an evaluation",
        "timing": "a time",
        "perf/": "a time or a use of memory",
    },
)  # fmt: skip

LANGUAGE = (TRL, VERL)
