"""Names of RLlib's PPO and APPO: ``progress.csv``, ``result.json`` and TensorBoard files, one policy of it.

Old names are ``info/learner/POLICY/learner_stats/NAME``, before 0.7 ``info/default/NAME``, and those of the new API
``learners/MODULE/NAME``. What is printed of one policy begins with ``learner_stats``.
"""

from __future__ import annotations

import re

from esper_analyze.interchange.framework import NameMap, StepMeaning, window
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.series import Named, ScalarLog

_POLICY = re.compile(
    r"(?:info/learner/(?P<old>[^/]+)(?:/learner_stats)?|learners/(?P<new>[^/]+)|info/default|"
    r"(?:default_policy/)?learner_stats)/(?P<name>.+)"
)
_USUAL = ("default_policy", "default_agent")
_ALL = "__all_modules__"
_WINDOW = window("the last episodes (100 by default)")
_KL = "closed form, old to new policy"


def one_policy(log: ScalarLog, imported: Imported) -> ScalarLog:
    """Return ``log`` with the names of one policy as ``learner/NAME``; those of others keep their names."""
    parts = {name: match for name in log.series if (match := _POLICY.fullmatch(name)) is not None}
    policies = sorted({_policy(match) for match in parts.values()} - {_ALL})
    policies.sort(key=lambda policy: policy not in _USUAL)
    if len(policies) > 1:
        imported.facts["notes"] = f"of {len(policies)} policies this is {policies[0]}"
    plain = ScalarLog(timesteps=log.timesteps)
    for name, series in log.series.items():
        match = parts.get(name)
        mine = match is not None and _policy(match) == policies[0]
        plain.series[f"learner/{match['name']}" if match is not None and mine else name] = series
    return plain


def _policy(match: re.Match[str]) -> str:
    return match["old"] or match["new"] or _USUAL[0]


RLLIB = NameMap(  # 0.6 to 2.x, both APIs
    "rllib",
    "RLlib",
    ("info/learner/*", "learners/*", "info/default/*", "learner_stats/*", "default_policy/learner_stats/*",
     "env_runners/*", "num_env_steps_sampled_lifetime"),
    {
        "learner/policy_loss": Named("policy_loss"),
        "learner/vf_loss": Named("value_loss", "cut off at vf_clip_param"),
        "learner/total_loss": Named("total_loss"),
        "learner/entropy": Named("entropy"),
        "learner/kl": Named("kl_k3", _KL, zero_if_off=True),
        "learner/mean_kl_loss": Named("kl_k3", _KL, zero_if_off=True),
        "learner/vf_explained_var": Named("explained_variance", "of minibatches, and never below −1"),
        "learner/cur_lr": Named("learning_rate"),
        "learner/default_optimizer_learning_rate": Named("learning_rate"),
        "learner/entropy_coeff": Named("entropy_coef"),
        "learner/curr_entropy_coeff": Named("entropy_coef"),
    },
    between={
        "episode_reward_mean": Named("episode_return_mean", _WINDOW),
        "env_runners/episode_reward_mean": Named("episode_return_mean", _WINDOW),
        "env_runners/episode_return_mean": Named("episode_return_mean", _WINDOW),
        "episode_len_mean": Named("episode_length_mean", _WINDOW),
        "env_runners/episode_len_mean": Named("episode_length_mean", _WINDOW),
        "evaluation/episode_reward_mean": Named("eval_return_mean"),
        "evaluation/env_runners/episode_return_mean": Named("eval_return_mean"),
        "num_env_steps_sampled_lifetime": Named("env_steps"),
        "num_env_steps_sampled": Named("env_steps"),
        "timesteps_total": Named("env_steps"),
    },
    step=StepMeaning.OTHER,
    counts=("training_iteration",),
    prefixes=("ray/tune/",),
    reasons={"info/learner/": "of another policy", "learners/": "of another policy"},
    prepare=one_policy,
    patterns=("info/learner/*", "learners/*", "info/default/*", "learner_stats/*", "default_policy/learner_stats/*"),
)  # fmt: skip
