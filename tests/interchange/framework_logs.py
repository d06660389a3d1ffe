"""Two rows of each framework's log, by the names that its logger writes, and the cells that these are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from esper_analyze.interchange.series import ScalarLog
from esper_analyze.schema.tables import BY_NAME

Points = Sequence[tuple[int, Mapping[str, Any]]]


@dataclass(frozen=True)
class FrameworkLog:
    """``points``: step and cells of each row; ``updates`` and ``heads``: the rows they are, by update."""

    framework: str
    points: Points
    updates: Mapping[int, Mapping[str, Any]]
    heads: Mapping[int, float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    timesteps: bool = True


def scalar_log(points: Points, *, timesteps: bool = True, walls: bool = True) -> ScalarLog:
    """Return the log of ``points``, each logged a second after the one before."""
    log = ScalarLog(timesteps=timesteps)
    for at, (step, cells) in enumerate(points):
        for name, value in cells.items():
            log.add(name, step, value, 1000.0 + at if walls else None)
    return log


def in_columns(cells: Mapping[str, Any], table: str = "updates") -> dict[str, Any]:
    """Return those of ``cells`` whose column the schema has."""
    return {name: cell for name, cell in cells.items() if name in BY_NAME[table].names}


SB3 = FrameworkLog(
    "stable-baselines3",
    [
        (2048, {"time/iterations": 1, "time/total_timesteps": 2048, "time/fps": 900, "rollout/ep_rew_mean": -1200.0,
                "rollout/ep_len_mean": 200.0, "rollout/success_rate": 0.0}),
        (3000, {"eval/mean_reward": -900.0, "eval/mean_ep_length": 190.0, "eval/success_rate": 0.5,
                "time/total_timesteps": 3000, "train/approx_kl": 0.01, "train/clip_fraction": 0.1,
                "train/clip_range": 0.2, "train/entropy_loss": -1.4, "train/explained_variance": 0.5,
                "train/learning_rate": 3e-4, "train/loss": 10.0, "train/policy_gradient_loss": -0.01,
                "train/value_loss": 20.0, "train/std": 0.99, "train/n_updates": 10}),
        (4096, {"time/iterations": 2, "time/total_timesteps": 4096, "time/fps": 900, "rollout/ep_rew_mean": -1100.0,
                "rollout/ep_len_mean": 199.0, "rollout/success_rate": 0.1}),
        (5000, {"train/approx_kl": -1e-9, "train/loss": 9.0, "train/std": 0.98, "train/n_updates": 20}),
    ],
    {
        0: {"env_steps": 2048, "episode_return_mean": -1200.0, "episode_length_mean": 200.0, "eval_return_mean": -900.0,
            "eval_length_mean": 190.0, "kl_k3_last_epoch": 0.01, "clip_fraction": 0.1, "clip_range": 0.2,
            "entropy_loss": -1.4, "explained_variance": 0.5, "learning_rate": 3e-4, "total_loss": 10.0,
            "policy_loss": -0.01, "value_loss": 20.0},
        1: {"env_steps": 4096, "episode_return_mean": -1100.0, "episode_length_mean": 199.0, "total_loss": 9.0,
            "kl_k3_last_epoch": -1e-9},
    },
    heads={0: 0.99, 1: 0.98},
    left_out=("rollout/success_rate", "eval/success_rate", "time/fps"),
)  # fmt: skip

CLEANRL = FrameworkLog(
    "cleanrl",
    [
        (500, {"charts/episodic_return": 20.0, "charts/episodic_length": 20.0}),
        (512, {"charts/learning_rate": 2.5e-4, "losses/value_loss": 1.0, "losses/policy_loss": -0.1,
               "losses/entropy": 0.69, "losses/old_approx_kl": 0.003, "losses/approx_kl": 0.002,
               "losses/clipfrac": 0.05, "losses/explained_variance": 0.1, "charts/SPS": 900.0}),
        (1024, {"charts/learning_rate": 2e-4, "losses/value_loss": 2.0}),
    ],
    {
        0: {"env_steps": 512, "learning_rate": 2.5e-4, "value_loss": 1.0, "policy_loss": -0.1, "entropy": 0.69,
            "kl_k1": 0.003, "kl_k3_last_epoch": 0.002, "clip_fraction": 0.05, "explained_variance": 0.1,
            "episode_return_mean": 20.0, "episode_length_mean": 20.0},
        1: {"env_steps": 1024, "learning_rate": 2e-4, "value_loss": 2.0},
    },
    left_out=("charts/SPS",),
)  # fmt: skip

RSL_RL = FrameworkLog(
    "rsl_rl",
    [
        (0, {"Loss/value_function": 0.5, "Loss/surrogate": -0.01, "Loss/entropy": 12.0, "Loss/learning_rate": 1e-3,
             "Policy/mean_noise_std": 1.0, "Perf/total_fps": 9e4}),
        (1, {"Loss/value_function": 0.4, "Loss/surrogate": -0.02, "Loss/entropy": 11.9, "Loss/learning_rate": 1.5e-3,
             "Policy/mean_noise_std": 0.99, "Train/mean_reward": 3.0, "Train/mean_episode_length": 24.0,
             "Episode_Reward/tracking": 0.1}),
        (77, {"Train/mean_reward/time": 3.0, "Train/mean_episode_length/time": 24.0}),
    ],
    {
        0: {"env_steps": None, "value_loss": 0.5, "policy_loss": -0.01, "entropy": 12.0, "learning_rate": 1e-3},
        1: {"value_loss": 0.4, "policy_loss": -0.02, "entropy": 11.9, "learning_rate": 1.5e-3,
            "episode_return_mean": 3.0, "episode_length_mean": 24.0},
    },
    heads={0: 1.0, 1: 0.99},
    left_out=("Train/mean_reward/time", "Episode_Reward/tracking", "Perf/total_fps"),
)  # fmt: skip

RSL_RL_5 = FrameworkLog(
    "rsl_rl",
    [(100, {"Loss/value": 0.5, "Loss/surrogate": -0.01, "Policy/mean_std": 0.5}),
     (101, {"Loss/value": 0.4, "Loss/surrogate": -0.02, "Policy/mean_std": 0.25})],
    {100: {"value_loss": 0.5, "policy_loss": -0.01}, 101: {"value_loss": 0.4, "policy_loss": -0.02}},
    heads={100: 0.5, 101: 0.25},
)  # fmt: skip

RL_GAMES = FrameworkLog(
    "rl_games",
    [
        (65536, {"losses/a_loss": 0.01, "losses/c_loss": 1.5, "losses/entropy": 9.9, "losses/bounds_loss": 0.0,
                 "info/last_lr": 3e-4, "info/lr_mul": 1.0, "info/e_clip": 0.2, "info/kl": 0.008, "info/epochs": 1,
                 "performance/step_fps": 1e5}),
        (131072, {"losses/a_loss": 0.02, "losses/c_loss": 1.4, "info/kl": 0.009, "info/epochs": 2,
                  "rewards/step": 7.0, "episode_lengths/step": 64.0}),
        (2, {"rewards/iter": 7.0, "episode_lengths/iter": 64.0}),
        (9, {"rewards/time": 7.0, "episode_lengths/time": 64.0}),
    ],
    {
        0: {"env_steps": 65536, "policy_loss": 0.01, "value_loss": 1.5, "entropy": 9.9, "learning_rate": 3e-4,
            "clip_range": 0.2, "kl_k3": 0.008},
        1: {"env_steps": 131072, "policy_loss": 0.02, "value_loss": 1.4, "kl_k3": 0.009, "episode_return_mean": 7.0,
            "episode_length_mean": 64.0},
    },
    left_out=("losses/bounds_loss", "rewards/iter", "rewards/time", "info/lr_mul"),
)  # fmt: skip

ML_AGENTS = FrameworkLog(
    "ml-agents",
    [
        (10000, {"Environment/Cumulative Reward": 0.5, "Environment/Episode Length": 90.0, "Policy/Entropy": 1.42,
                 "Policy/Extrinsic Value Estimate": 0.1}),
        (20000, {"Environment/Cumulative Reward": 0.7, "Environment/Episode Length": 80.0, "Policy/Entropy": 1.41,
                 "Policy/Extrinsic Value Estimate": 0.2, "Policy/Extrinsic Reward": 0.7, "Losses/Policy Loss": 0.02,
                 "Losses/Value Loss": 0.05, "Policy/Learning Rate": 3e-4, "Policy/Epsilon": 0.2, "Policy/Beta": 5e-3}),
        (30000, {"Environment/Cumulative Reward": 0.9, "Losses/Policy Loss": 0.03, "Losses/Value Loss": 0.04}),
    ],
    {
        0: {"env_steps": 20000, "episode_return_mean": 0.7, "episode_length_mean": 80.0, "entropy": 1.41,
            "value_mean": 0.2, "policy_loss": 0.02, "value_loss": 0.05, "learning_rate": 3e-4, "clip_range": 0.2,
            "entropy_coef": 5e-3},
        1: {"env_steps": 30000, "episode_return_mean": 0.9, "policy_loss": 0.03, "value_loss": 0.04},
    },
    left_out=("Policy/Extrinsic Reward",),
)  # fmt: skip

SKRL = FrameworkLog(
    "skrl",
    [
        (100, {"Loss / Policy loss": -0.01, "Loss / Value loss": 2.0, "Loss / Entropy loss": -0.01,
               "Policy / Standard deviation": 0.9, "Learning / Learning rate": 1e-3,
               "Reward / Total reward (mean)": 12.0, "Reward / Total reward (max)": 15.0,
               "Reward / Instantaneous reward (mean)": 0.1, "Episode / Total timesteps (mean)": 120.0}),
        (200, {"Loss / Policy loss": -0.02, "Loss / Value loss": 1.0, "Policy / Standard deviation": 0.8}),
    ],
    {
        0: {"env_steps": None, "policy_loss": -0.01, "value_loss": 2.0, "learning_rate": 1e-3,
            "episode_return_mean": 12.0, "episode_length_mean": 120.0},
        1: {"policy_loss": -0.02, "value_loss": 1.0},
    },
    heads={0: 0.9, 1: 0.8},
    left_out=("Loss / Entropy loss", "Reward / Total reward (max)", "Reward / Instantaneous reward (mean)"),
)  # fmt: skip

TORCHRL = FrameworkLog(
    "torchrl",
    [
        (2048, {"train/reward": 100.0, "train/episode_length": 90.0, "train/loss_objective": -0.01,
                "train/loss_critic": 0.25, "train/loss_entropy": -0.001, "train/lr": 3e-4, "train/clip_epsilon": 0.2,
                "train/sampling_time": 1.0}),
        (4096, {"train/loss_objective": -0.02, "train/loss_critic": 0.2, "train/kl_approx": 0.01,
                "train/clip_fraction": 0.1, "train/ESS": 0.9, "train/entropy": 1.2, "eval/reward": 150.0}),
    ],
    {
        0: {"env_steps": 2048, "episode_return_mean": 100.0, "episode_length_mean": 90.0, "policy_loss": -0.01,
            "value_loss": 0.25, "learning_rate": 3e-4, "clip_range": 0.2},
        1: {"env_steps": 4096, "policy_loss": -0.02, "value_loss": 0.2, "kl_k1": 0.01, "clip_fraction": 0.1,
            "ess_fraction": 0.9, "entropy": 1.2, "eval_return_mean": 150.0},
    },
    left_out=("loss_entropy",),
)  # fmt: skip

PUFFERLIB = FrameworkLog(
    "pufferlib",
    [
        (131072, {"agent_steps": 131072, "epoch": 1, "SPS": 1e6, "learning_rate": 0.015, "environment/score": 0.4,
                  "environment/episode_return": 0.5, "environment/episode_length": 30.0, "losses/policy_loss": -0.01,
                  "losses/value_loss": 0.1, "losses/entropy": 1.3, "losses/old_approx_kl": 0.002,
                  "losses/approx_kl": 0.003, "losses/clipfrac": 0.04, "losses/importance": 1.01,
                  "losses/explained_variance": 0.2, "performance/train": 1.0}),
        (393216, {"agent_steps": 393216, "epoch": 3, "losses/approx_kl": 0.004, "environment/score": 0.6}),
    ],
    {
        0: {"env_steps": 131072, "learning_rate": 0.015, "episode_return_mean": 0.5, "episode_length_mean": 30.0,
            "policy_loss": -0.01, "value_loss": 0.1, "entropy": 1.3, "kl_k1": 0.002, "kl_k3": 0.003,
            "clip_fraction": 0.04, "ratio_mean": 1.01, "explained_variance": 0.2},
        2: {"env_steps": 393216, "kl_k3": 0.004, "episode_return_mean": 0.6},
    },
    left_out=("agent_steps", "performance/train"),
)  # fmt: skip

TIANSHOU_1 = FrameworkLog(
    "tianshou",
    [
        (2048, {"train/returns_stat/mean": 12.0, "train/lens_stat/mean": 20.0, "train/env_step": 2048}),
        (320, {"update/clip_loss/mean": -0.01, "update/vf_loss/mean": 3.0, "update/ent_loss/mean": 0.6,
               "update/loss/mean": 1.5, "update/gradient_step": 320}),
        (4096, {"test/returns_stat/mean": 30.0, "test/lens_stat/mean": 31.0, "train/env_step": 4096}),
        (640, {"update/clip_loss/mean": -0.02, "update/vf_loss/mean": 2.0}),
    ],
    {
        0: {"env_steps": 2048, "episode_return_mean": 12.0, "episode_length_mean": 20.0, "policy_loss": -0.01,
            "value_loss": 3.0, "entropy": 0.6, "total_loss": 1.5},
        1: {"env_steps": 4096, "eval_return_mean": 30.0, "eval_length_mean": 31.0, "policy_loss": -0.02,
            "value_loss": 2.0},
    },
    left_out=("update/gradient_step",),
)  # fmt: skip

TIANSHOU_0 = FrameworkLog(
    "tianshou",
    [
        (2048, {"train/reward": 12.0, "train/length": 20.0, "test/reward": 15.0, "test/length": 22.0}),
        (320, {"update/loss": 1.5, "update/loss/clip": -0.01, "update/loss/vf": 3.0, "update/loss/ent": 0.6}),
    ],
    {0: {"episode_return_mean": 12.0, "episode_length_mean": 20.0, "eval_return_mean": 15.0, "eval_length_mean": 22.0,
         "policy_loss": -0.01, "value_loss": 3.0, "entropy": 0.6, "total_loss": 1.5, "env_steps": None}},
)  # fmt: skip

SAMPLE_FACTORY = FrameworkLog(
    "sample-factory",
    [
        (4096, {"train/policy_loss": -0.01, "train/value_loss": 0.3, "train/entropy": 1.1, "train/kl_divergence": 0.01,
                "train/kl_divergence_max": 0.9, "train/fraction_clipped": 0.2, "train/ratio_min": 0.5,
                "train/ratio_max": 1.6, "train/ratio_mean": 0.04, "train/value": 2.0, "train/loss": 0.2,
                "train/lr": 1e-4, "train/same_policy_fraction": 1.0}),
        (5000, {"reward/reward": 4.0, "reward/reward_max": 9.0, "len/len": 100.0}),
        (9000, {"train/policy_loss": -0.02, "train/value_loss": 0.2}),
    ],
    {
        0: {"env_steps": 4096, "policy_loss": -0.01, "value_loss": 0.3, "entropy": 1.1, "kl_k3_last_epoch": 0.01,
            "clip_fraction": 0.2, "ratio_min": 0.5, "ratio_max": 1.6, "value_mean": 2.0, "total_loss": 0.2,
            "learning_rate": 1e-4},
        1: {"env_steps": 9000, "policy_loss": -0.02, "value_loss": 0.2, "episode_return_mean": 4.0,
            "episode_length_mean": 100.0},
    },
    left_out=("train/ratio_mean", "train/kl_divergence_max", "reward/reward_max"),
)  # fmt: skip

TRL_GRPO = FrameworkLog(
    "trl",
    [
        (10, {"train/loss": 0.01, "train/grad_norm": 0.4, "train/learning_rate": 1e-6, "train/kl": 0.002,
              "train/entropy": 0.5, "train/reward": 0.3, "train/reward_std": 0.2, "train/frac_reward_zero_std": 0.25,
              "train/completions/mean_length": 200.0, "train/completions/max_length": 512.0,
              "train/completions/clipped_ratio": 0.1, "train/clip_ratio/region_mean": 0.0,
              "train/clip_ratio/low_mean": 0.0, "train/clip_ratio/high_mean": 0.0}),
        (20, {"train/loss": 0.02, "train/kl": 0.003, "train/clip_ratio/region_mean": 0.0}),
        (30, {"train/loss": 0.03, "train/kl": 0.004, "train/clip_ratio/region_mean": 0.0}),
    ],
    {
        9: {"total_loss": 0.01, "grad_norm_pre_clip": 0.4, "learning_rate": 1e-6, "kl_reference": 0.002, "entropy": 0.5,
            "episode_return_mean": 0.3, "reward_zero_std_fraction": 0.25, "response_length_mean": 200.0,
            "response_length_max": 512.0, "response_clipped_fraction": 0.1, "clip_fraction": None,
            "clip_fraction_positive": None, "env_steps": None},
        19: {"total_loss": 0.02, "kl_reference": 0.003},
        29: {"total_loss": 0.03, "kl_reference": 0.004},
    },
    left_out=("clip_ratio/region_mean", "reward_std"),
)  # fmt: skip

TRL_PPO = FrameworkLog(
    "trl",
    [
        (1, {"eps": 1, "objective/kl": 6.8, "objective/entropy": 114.4, "objective/rlhf_reward": 2.0,
             "objective/scores": 2.4, "policy/approxkl_avg": 0.0027, "policy/clipfrac_avg": 0.009,
             "loss/policy_avg": -0.003, "loss/value_avg": 0.35, "val/clipfrac_avg": 0.005, "policy/entropy_avg": 1.11,
             "val/ratio": 0.97, "lr": 9e-6, "episode": 96}),
        (2, {"objective/scores": 1.5, "policy/clipfrac_avg": 0.0}),
    ],
    {
        0: {"kl_reference": 6.8, "episode_return_mean": 2.4, "kl_k2": 0.0027, "clip_fraction": 0.009,
            "policy_loss": -0.003, "value_loss": 0.35, "entropy": 1.11, "ratio_mean": 0.97, "learning_rate": 9e-6},
        1: {"episode_return_mean": 1.5, "clip_fraction": 0.0},
    },
    left_out=("val/clipfrac_avg", "objective/entropy", "eps"),
)  # fmt: skip

VERL = FrameworkLog(
    "verl",
    [
        (0, {"val-core/gsm8k/acc/mean@1": 0.1}),
        (1, {"actor/pg_loss": 0.01, "actor/entropy_loss": 0.4, "actor/ppo_kl": 0.0001, "actor/pg_clipfrac": 0.002,
             "actor/kl_loss": 0.001, "actor/grad_norm": 0.3, "actor/lr": 1e-6, "critic/vf_loss": 0.05,
             "critic/vf_explained_var": 0.2, "critic/score/mean": 0.55, "critic/rewards/mean": 0.5,
             "critic/advantages/mean": 0.0, "critic/returns/mean": 0.4, "critic/returns/max": 1.0,
             "critic/returns/min": -0.1, "critic/values/mean": 0.3, "critic/values/max": 0.9,
             "critic/values/min": -0.2, "response_length/mean": 300.0, "response_length/max": 1024.0,
             "response_length/clip_ratio": 0.02, "timing_s/step": 20.0}),
        (2, {"actor/pg_loss": 0.02, "actor/entropy": 0.3}),
    ],
    {
        0: {"policy_loss": 0.01, "entropy": 0.4, "kl_k1": 0.0001, "clip_fraction": 0.002, "kl_reference": 0.001,
            "grad_norm_pre_clip": 0.3, "learning_rate": 1e-6, "value_loss": 0.05, "explained_variance": 0.2,
            "episode_return_mean": 0.55, "return_mean": 0.4, "return_max": 1.0, "return_min": -0.1, "value_mean": 0.3,
            "value_max": 0.9, "value_min": -0.2, "response_length_mean": 300.0, "response_length_max": 1024.0,
            "response_clipped_fraction": 0.02},
        1: {"policy_loss": 0.02, "entropy": 0.3},
    },
    left_out=("critic/advantages/mean", "critic/rewards/mean", "timing_s/step", "val-core/gsm8k/acc/mean@1"),
)  # fmt: skip

RLLIB_OLD = FrameworkLog(
    "rllib",
    [
        (0, {"training_iteration": 1, "timesteps_total": 4000, "episode_reward_mean": 22.0, "episode_len_mean": 22.0,
             **{f"info/learner/default_policy/learner_stats/{name}": value for name, value in (
                 ("cur_kl_coeff", 0.2), ("cur_lr", 5e-5), ("entropy", 0.66), ("entropy_coeff", 0.0), ("kl", 0.028),
                 ("policy_loss", -0.03), ("total_loss", 8.86), ("vf_explained_var", 0.007), ("vf_loss", 8.89))}}),
        (1, {"training_iteration": 2, "timesteps_total": 8000, "episode_reward_mean": 40.0,
             "info/learner/default_policy/learner_stats/kl": 0.0}),
    ],
    {
        0: {"env_steps": 4000, "episode_return_mean": 22.0, "episode_length_mean": 22.0, "learning_rate": 5e-5,
            "entropy": 0.66, "entropy_coef": 0.0, "kl_k3": 0.028, "policy_loss": -0.03, "total_loss": 8.86,
            "explained_variance": 0.007, "value_loss": 8.89},
        1: {"env_steps": 8000, "episode_return_mean": 40.0, "kl_k3": 0.0},
    },
    left_out=("learner/cur_kl_coeff",),
    timesteps=False,
)  # fmt: skip

RLLIB_NEW = FrameworkLog(
    "rllib",
    [
        (step, {"ray/tune/training_iteration": step + 1, "ray/tune/env_runners/episode_return_mean": 10.0 + step,
                "ray/tune/num_env_steps_sampled_lifetime": 4000 * (step + 1),
                "ray/tune/learners/p1/mean_kl_loss": 0.0, "ray/tune/learners/p1/policy_loss": -0.01 * (step + 1),
                "ray/tune/learners/p1/vf_loss": 5.0, "ray/tune/learners/p1/vf_explained_var": 0.1,
                "ray/tune/learners/p1/entropy": 0.7, "ray/tune/learners/p1/curr_entropy_coeff": 0.01,
                "ray/tune/learners/p1/default_optimizer_learning_rate": 1e-4,
                "ray/tune/learners/p2/policy_loss": 9.0, "ray/tune/learners/__all_modules__/num_trainable": 1.0})
        for step in (0, 1)
    ],
    {
        number: {"env_steps": 4000 * (number + 1), "episode_return_mean": 10.0 + number, "kl_k3": None,
                 "policy_loss": -0.01 * (number + 1), "value_loss": 5.0, "explained_variance": 0.1, "entropy": 0.7,
                 "entropy_coef": 0.01, "learning_rate": 1e-4}
        for number in (0, 1)
    },
    left_out=("learner/mean_kl_loss", "learners/p2/policy_loss"),
    timesteps=False,
)  # fmt: skip

BASELINES = FrameworkLog(
    "baselines",
    [
        (0, {"nupdates": 1, "total_timesteps": 2048, "explained_variance": 0.1, "eprewmean": 1.0, "eplenmean": 20.0,
             "policy_loss": -0.01, "value_loss": 0.2, "policy_entropy": 1.0, "approxkl": 0.004, "clipfrac": 0.1,
             "fps": 900, "serial_timesteps": 128}),
        (1, {"nupdates": 10, "total_timesteps": 20480, "approxkl": 0.005}),
        (2, {"nupdates": 20, "total_timesteps": 40960, "approxkl": 0.006}),
        (3, {"nupdates": 30, "total_timesteps": 61440, "approxkl": 0.007}),
    ],
    {
        0: {"env_steps": 2048, "explained_variance": 0.1, "episode_return_mean": 1.0, "episode_length_mean": 20.0,
            "policy_loss": -0.01, "value_loss": 0.2, "entropy": 1.0, "kl_k2": 0.004, "clip_fraction": 0.1},
        9: {"env_steps": 20480, "kl_k2": 0.005},
        19: {"env_steps": 40960, "kl_k2": 0.006},
        29: {"env_steps": 61440, "kl_k2": 0.007},
    },
    left_out=("fps", "serial_timesteps"),
    timesteps=False,
)  # fmt: skip

BASELINES_SECTIONS = FrameworkLog(
    "baselines",
    [(0, {"misc/nupdates": 1, "misc/total_timesteps": 2048, "misc/explained_variance": 0.1, "loss/policy_loss": -0.01,
          "loss/value_loss": 0.2, "loss/policy_entropy": 1.0, "loss/approxkl": 0.004, "loss/clipfrac": 0.1,
          "eprewmean": 1.0})],
    {0: {"env_steps": 2048, "explained_variance": 0.1, "policy_loss": -0.01, "value_loss": 0.2, "entropy": 1.0,
         "kl_k2": 0.004, "clip_fraction": 0.1, "episode_return_mean": 1.0}},
    timesteps=False,
)  # fmt: skip

PPO1 = FrameworkLog(
    "baselines",
    [
        (0, {"EpLenMean": 20.0, "EpRewMean": 1.5, "EpThisIter": 4, "EpisodesSoFar": 4, "TimeElapsed": 2.5,
             "TimestepsSoFar": 256, "ev_tdlam_before": -0.5, "loss_ent": 1.25, "loss_kl": 0.004,
             "loss_pol_entpen": -0.0125, "loss_pol_surr": -0.01, "loss_vf_loss": 0.75}),
        (1, {"TimestepsSoFar": 512, "loss_kl": 0.005}),
    ],
    {
        0: {"episode_length_mean": 20.0, "episode_return_mean": 1.5, "env_steps": 256, "explained_variance": -0.5,
            "entropy": 1.25, "kl_k3_last_epoch": 0.004, "policy_loss": -0.01, "value_loss": 0.75},
        1: {"env_steps": 512, "kl_k3_last_epoch": 0.005},
    },
    left_out=("EpThisIter", "EpisodesSoFar", "TimeElapsed", "loss_pol_entpen"),
    timesteps=False,
)  # fmt: skip

STABLE_BASELINES = FrameworkLog(
    "baselines",
    [
        (100, {"episode_reward": 9.0}),
        (128, {"loss/policy_gradient_loss": -0.01, "loss/value_function_loss": 0.2, "loss/entropy_loss": 1.0,
               "loss/approximate_kullback-leibler": 0.004, "loss/clip_factor": 0.1, "loss/loss": 0.3,
               "input_info/learning_rate": 2.5e-4, "input_info/clip_range": 0.2, "input_info/advantage": 0.0}),
    ],
    {0: {"episode_return_mean": 9.0, "policy_loss": -0.01, "value_loss": 0.2, "entropy": 1.0, "kl_k2": 0.004,
         "clip_fraction": 0.1, "total_loss": 0.3, "learning_rate": 2.5e-4, "clip_range": 0.2, "env_steps": None}},
    left_out=("input_info/advantage",),
)  # fmt: skip

LOGS = {
    "sb3": SB3, "cleanrl": CLEANRL, "rsl_rl": RSL_RL, "rsl_rl 5": RSL_RL_5, "rl_games": RL_GAMES,
    "ml-agents": ML_AGENTS, "skrl": SKRL, "torchrl": TORCHRL, "pufferlib": PUFFERLIB, "tianshou 1": TIANSHOU_1,
    "tianshou 0": TIANSHOU_0, "sample-factory": SAMPLE_FACTORY, "trl grpo": TRL_GRPO, "trl ppo": TRL_PPO, "verl": VERL,
    "rllib old": RLLIB_OLD, "rllib new": RLLIB_NEW, "baselines": BASELINES, "baselines sections": BASELINES_SECTIONS,
    "stable baselines": STABLE_BASELINES, "ppo1": PPO1,
}  # fmt: skip
