"""Names of frameworks for control and games that log all of an update at one step, as their own sources write them."""

from __future__ import annotations

from esper_analyze.interchange.framework import NameMap, StepMeaning, window
from esper_analyze.interchange.series import Named

_SCALED = "times its coefficient in the loss"
_LAST_EPISODES = window("the last 100 episodes")
_STD = Named("std_mean", "mean over dimensions, at the end of the update", table="heads")
_SUMMARY = "averaged over all that was trained since the row before"
_NO_REFERENCE = "the same number against another axis"

RSL_RL = NameMap(  # 1.0 to 5.5; Loss/value_function and Policy/mean_noise_std until 2, Loss/value and mean_std since 3
    "rsl_rl",
    "rsl_rl",
    ("Loss/value_function", "Loss/surrogate", "Policy/mean_noise_std", "Policy/mean_std", "Train/mean_episode_length"),
    {
        "Loss/surrogate": Named("policy_loss"),
        "Loss/value_function": Named("value_loss"),
        "Loss/value": Named("value_loss"),
        "Loss/entropy": Named("entropy"),
        "Loss/learning_rate": Named("learning_rate"),
        "Policy/mean_noise_std": _STD,
        "Policy/mean_std": _STD,
        "Train/mean_reward": Named("episode_return_mean", _LAST_EPISODES),
        "Train/mean_episode_length": Named("episode_length_mean", _LAST_EPISODES),
    },
    reasons={
        "Train/mean_reward/time": _NO_REFERENCE,
        "Train/mean_episode_length/time": _NO_REFERENCE,
        "Episode_Reward/": "one term of the reward",
        "Episode_Termination/": "share of one kind of end",
        "Episode/": "logged by the environment",
    },
    note="rsl_rl logs neither KL nor clip fraction; with an adaptive schedule the learning rate follows the KL",
)

RL_GAMES = NameMap(  # 1.1 to 1.6
    "rl_games",
    "rl_games",
    ("losses/a_loss", "losses/c_loss", "info/e_clip", "info/lr_mul", "info/last_lr"),
    {
        "losses/a_loss": Named("policy_loss"),
        "losses/c_loss": Named("value_loss"),
        "losses/entropy": Named("entropy"),
        "info/last_lr": Named("learning_rate"),
        "info/e_clip": Named("clip_range"),
        "info/kl": Named("kl_k3", "closed form, new to old policy, mean over all minibatches"),
    },
    between={
        "rewards/step": Named("episode_return_mean", _LAST_EPISODES),
        "rewards0/step": Named("episode_return_mean", _LAST_EPISODES),
        "episode_lengths/step": Named("episode_length_mean", _LAST_EPISODES),
    },
    step=StepMeaning.ENV_STEPS,
    counts=("info/epochs",),
    reasons={
        "losses/bounds_loss": "a penalty on actions outside of their bounds",
        "rewards": _NO_REFERENCE,
        "shaped_rewards": "rewards after shaping; rewards/step are those of the task",
        "episode_lengths/": _NO_REFERENCE,
    },
)

ML_AGENTS = NameMap(  # 0.15 to 1.1
    "ml-agents",
    "Unity ML-Agents",
    ("Environment/Cumulative Reward", "Losses/Policy Loss", "Losses/Value Loss", "Policy/* Value Estimate",
     "Policy/Beta", "Policy/Epsilon"),
    {
        "Losses/Policy Loss": Named("policy_loss", f"its absolute value, {_SUMMARY}"),
        "Losses/Value Loss": Named("value_loss", _SUMMARY),
        "Policy/Learning Rate": Named("learning_rate"),
        "Policy/Epsilon": Named("clip_range"),
        "Policy/Beta": Named("entropy_coef"),
    },
    between={
        "Environment/Cumulative Reward": Named("episode_return_mean", "episodes since the summary before"),
        "Environment/Episode Length": Named("episode_length_mean", "episodes since the summary before"),
        "Policy/Entropy": Named("entropy", "of the policy that acted"),
        "Policy/Extrinsic Value Estimate": Named("value_mean"),
    },
    step=StepMeaning.ENV_STEPS_AT_TIMES,
    reasons={
        "Losses/Baseline Loss": "the counterfactual baseline of POCA",
        "Environment/Group Cumulative Reward": "the return of groups of agents",
    },
    algorithms={"Losses/Baseline Loss": "POCA"},
    note="a row is a summary over summary_freq steps: it can be of several updates, and is numbered as one",
)  # fmt: skip

SKRL = NameMap(  # 0.8 to 2.1
    "skrl",
    "skrl",
    ("Loss / Policy loss", "Loss / Value loss", "Policy / Standard deviation", "Reward / Total reward (mean)",
     "Learning / Learning rate"),
    {
        "Loss / Policy loss": Named("policy_loss", _SUMMARY),
        "Loss / Value loss": Named("value_loss", f"{_SCALED}, {_SUMMARY}"),
        "Policy / Standard deviation": Named("std_mean", f"mean over dimensions, {_SUMMARY}", table="heads"),
        "Learning / Learning rate": Named("learning_rate", _SUMMARY),
    },
    between={
        "Reward / Total reward (mean)": Named("episode_return_mean", _LAST_EPISODES),
        "Episode / Total timesteps (mean)": Named("episode_length_mean", _LAST_EPISODES),
    },
    step=StepMeaning.OTHER,
    reasons={"Loss / Entropy loss": "times the entropy's coefficient, which is not logged",
             "Reward / Instantaneous": "rewards of single steps"},
    note="skrl logs by write_interval: a row can be of several updates, and is numbered as one; its steps are those "
    "of one environment. PPO and A2C log the same names",
)  # fmt: skip

TORCHRL = NameMap(  # 0.2 to 0.14: the PPO examples, and the trainer
    "torchrl",
    "TorchRL",
    ("loss_objective", "kl_approx"),
    {
        "loss_objective": Named("policy_loss"),
        "loss_critic": Named("value_loss", _SCALED),
        "entropy": Named("entropy"),
        "kl_approx": Named("kl_k1"),
        "clip_fraction": Named("clip_fraction"),
        "ESS": Named("ess_fraction"),
        "explained_variance": Named("explained_variance", "mean over minibatches"),
        "lr": Named("learning_rate"),
        "clip_epsilon": Named("clip_range"),
        "grad_norm": Named("grad_norm_pre_clip"),
    },
    between={
        "reward": Named("episode_return_mean"),
        "episode_length": Named("episode_length_mean"),
        "eval/reward": Named("eval_return_mean"),
    },
    step=StepMeaning.ENV_STEPS,
    prefixes=("train/",),
    reasons={"loss_entropy": "times the entropy's coefficient, which is not logged",
             "r_training": "the mean reward of a step"},
)  # fmt: skip

PUFFERLIB = NameMap(  # 2.0 to 3.0
    "pufferlib",
    "PufferLib",
    ("agent_steps", "environment/*", "0verview/*", "overview/agent_steps"),
    {
        "losses/policy_loss": Named("policy_loss"),
        "losses/value_loss": Named("value_loss", "half the squared error"),
        "losses/entropy": Named("entropy"),
        "losses/old_approx_kl": Named("kl_k1"),
        "losses/approx_kl": Named("kl_k3"),
        "losses/clipfrac": Named("clip_fraction"),
        "losses/explained_variance": Named("explained_variance"),
        "losses/importance": Named("ratio_mean"),
        "learning_rate": Named("learning_rate"),
        "environment/episode_return": Named("episode_return_mean"),
        "environment/score": Named("episode_return_mean", "the task's own score"),
        "environment/episode_length": Named("episode_length_mean"),
    },
    step=StepMeaning.ENV_STEPS_AT_TIMES,
    counts=("epoch",),
    reasons={"environment/": "logged by the environment", "performance/": "a time"},
    note="PufferLib logs four times a second at most; what it logs under losses/ is of the update it logged before",
)

TIANSHOU = NameMap(  # 0.4 to 2.0
    "tianshou",
    "tianshou",
    ("update/gradient_step", "update/update_step", "update/loss/clip", "update/clip_loss/*", "update/vf_loss/*",
     "update/ent_loss/*", "*/returns_stat/*"),
    {
        "update/loss/clip": Named("policy_loss"),
        "update/clip_loss/mean": Named("policy_loss"),
        "update/actor_loss/mean": Named("policy_loss"),
        "update/loss/vf": Named("value_loss"),
        "update/vf_loss/mean": Named("value_loss"),
        "update/loss/ent": Named("entropy"),
        "update/ent_loss/mean": Named("entropy"),
        "update/loss": Named("total_loss"),
        "update/loss/mean": Named("total_loss"),
    },
    between={
        "train/reward": Named("episode_return_mean"),
        "train/length": Named("episode_length_mean"),
        "train/returns_stat/mean": Named("episode_return_mean"),
        "train/lens_stat/mean": Named("episode_length_mean"),
        "training/returns_stat/mean": Named("episode_return_mean"),
        "training/lens_stat/mean": Named("episode_length_mean"),
        "train/env_step": Named("env_steps"),
        "training/env_step": Named("env_steps"),
        "test/reward": Named("eval_return_mean"),
        "test/length": Named("eval_length_mean"),
        "test/returns_stat/mean": Named("eval_return_mean"),
        "test/lens_stat/mean": Named("eval_length_mean"),
    },
    step=StepMeaning.OTHER,
    by_clock=True,
    note="tianshou counts updates by optimizer steps and returns by environment steps: they are put together by the "
    "time of logging. Since 2.0 PPO and A2C log the same names",
)  # fmt: skip

SAMPLE_FACTORY = NameMap(  # 1.120 to 2.1
    "sample-factory",
    "Sample Factory",
    ("train/fraction_clipped", "train/kl_divergence", "train/kl_divergence_max", "train/same_policy_fraction",
     "train/version_diff_*", "policy_stats/*"),
    {
        "train/policy_loss": Named("policy_loss", "one minibatch, not the mean"),
        "train/value_loss": Named("value_loss", f"{_SCALED}, one minibatch, not the mean"),
        "train/entropy": Named("entropy", "one minibatch, not the mean"),
        "train/kl_divergence": Named("kl_k3_last_epoch", "closed form, last minibatch, not the mean over its epoch"),
        "train/fraction_clipped": Named("clip_fraction", "last minibatch, not the mean"),
        "train/ratio_min": Named("ratio_min", "last minibatch only"),
        "train/ratio_max": Named("ratio_max", "last minibatch only"),
        "train/value": Named("value_mean", "one minibatch, not the mean"),
        "train/loss": Named("total_loss", "one minibatch, not the mean"),
        "train/lr": Named("learning_rate"),
    },
    between={
        "reward/reward": Named("episode_return_mean", _LAST_EPISODES),
        "len/len": Named("episode_length_mean", _LAST_EPISODES),
    },
    step=StepMeaning.ENV_STEPS_AT_TIMES,
    reasons={"train/ratio_mean": "the mean of |ratio − 1|, not of the ratio"},
    note="Sample Factory logs one minibatch from time to time, not every update; rows are numbered in their order",
)  # fmt: skip

CONTROL = (RSL_RL, RL_GAMES, ML_AGENTS, SKRL, TORCHRL, PUFFERLIB, TIANSHOU, SAMPLE_FACTORY)
