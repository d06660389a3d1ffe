"""Logs of algorithms other than PPO, by names that only these write: they are refused."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

_PPO = re.compile(
    r"(.*[/ ])?(approx_?kl(_avg)?|ppo_kl|kl_approx|approximate_kullback-leibler|mean_kl_loss|clip_?frac(tion)?(_avg)?|"
    r"fraction_clipped|pg_clipfrac|clip_factor|clip_range|policy_gradient_loss|surrogate|clip_loss|clip_epsilon)",
    re.IGNORECASE,
)
"""Names of what only algorithms that clip a ratio have."""
_NOT_ONLY_PPO = re.compile(r"loss/(policy_gradient_loss|approximate_kullback-leibler)")
"""What Stable Baselines 2 logs of A2C and TRPO, too."""
_SB3 = ("rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "time/total_timesteps")


@dataclass(frozen=True, slots=True)
class OtherAlgorithm:
    """One algorithm of one framework: ``every`` name pattern is there, one of ``some`` if there are, none of ``no``."""

    name: str
    every: tuple[str, ...]
    some: tuple[str, ...] = ()
    no: tuple[str, ...] = ()

    def evidence(self, names: Collection[str]) -> list[str]:
        """Return the names that give it away, none when it is not this one."""
        each = [_first(names, pattern) for pattern in self.every]
        one = [name for pattern in self.some if (name := _first(names, pattern)) is not None]
        if None in each or (self.some and not one) or any(_first(names, pattern) for pattern in self.no):
            return []
        return [name for name in each if name is not None] or one[:2]


def _first(names: Collection[str], pattern: str) -> str | None:
    return pattern if pattern in names else next((name for name in names if fnmatchcase(name, pattern)), None)


_ACTOR_CRITIC = ("train/actor_loss", "train/critic_loss")
OTHER_ALGORITHMS = (
    # Stable-Baselines3 and sb3-contrib
    OtherAlgorithm("DQN", ("rollout/exploration_rate",)),
    OtherAlgorithm("SAC", ("train/ent_coef", *_ACTOR_CRITIC)),
    OtherAlgorithm("TD3 or DDPG", _ACTOR_CRITIC, some=_SB3, no=("*entropy*", "*kl*", "*clip*")),
    OtherAlgorithm("TRPO", ("train/kl_divergence_loss", "train/is_line_search_success")),
    OtherAlgorithm("TRPO", ("train/policy_objective",), some=("train/kl_divergence_loss",)),
    OtherAlgorithm("A2C", ("train/policy_loss", "train/entropy_loss", "train/value_loss"), some=_SB3),
    OtherAlgorithm("ARS", ("train/delta_std",), some=("train/step_size",)),
    # CleanRL
    OtherAlgorithm("DQN", ("losses/td_loss",)),
    OtherAlgorithm("C51", ("losses/q_values", "losses/loss")),
    OtherAlgorithm("SAC", ("losses/qf1_loss", "losses/alpha")),
    OtherAlgorithm("TD3 or DDPG", ("losses/qf1_loss", "losses/actor_loss"), no=("losses/alpha",)),
    # Unity ML-Agents
    OtherAlgorithm("SAC", ("Losses/Q1 Loss",)),
    OtherAlgorithm("SAC", (), some=("Policy/Discrete Entropy Coeff", "Policy/Continuous Entropy Coeff")),
    # skrl
    OtherAlgorithm("DQN", ("Loss / Q-network loss",)),
    OtherAlgorithm("SAC", ("Coefficient / Entropy coefficient", "Q-network / Q1 (mean)")),
    OtherAlgorithm("TD3", ("Exploration / Exploration noise (mean)", "Q-network / Q2 (mean)")),
    OtherAlgorithm("DDPG", ("Q-network / Q1 (mean)",), no=("Q-network / Q2 (mean)",)),
    OtherAlgorithm("SAC or TD3", ("Q-network / Q2 (mean)",)),
    OtherAlgorithm("TRPO", ("Learning / Value learning rate", "Loss / Policy loss")),
    # tianshou
    OtherAlgorithm("SAC", (), some=("update/loss/alpha", "update/alpha_loss", "update/alpha")),
    OtherAlgorithm("TD3", (), some=("update/loss/critic1", "update/critic1_loss")),
    OtherAlgorithm("DDPG", (), some=("update/loss/critic", "update/critic_loss")),
    OtherAlgorithm("A2C", ("update/loss/actor", "update/loss/vf")),
    OtherAlgorithm("DQN or REINFORCE", ("update/loss", "update/gradient_step"), no=("update/loss/*", "update/*_loss*")),
    # RLlib
    OtherAlgorithm("SAC", (), some=("*/learner_stats/alpha_value", "learners/*/alpha_value", "learners/*/alpha_loss")),
    OtherAlgorithm("DQN", (), some=("*/learner_stats/mean_q", "learners/*/qf_loss", "*/td_error_mean",
                                     "*/mean_td_error")),
    OtherAlgorithm("IMPALA", (), some=("*/learner_stats/var_gnorm", "learners/*/pi_loss", "learners/*/mean_pi_loss"),
                   no=("*/learner_stats/kl", "*/learner_stats/KL_Coeff", "learners/*/mean_kl_loss")),
    # OpenAI baselines and Stable Baselines 2
    OtherAlgorithm("DQN", ("% time spent exploring",)),
    OtherAlgorithm("SAC", ("qf1_loss", "ent_coef")),
    OtherAlgorithm("SAC", ("loss/qf1_loss", "loss/entropy")),
    OtherAlgorithm("TD3", (), some=("qf1_loss", "loss/qf1_loss")),
    OtherAlgorithm("DDPG", (), some=("rollout/Q_mean", "train/loss_critic"), no=("train/loss_objective",)),
    OtherAlgorithm("TRPO", (), some=("optimgain", "surrgain", "input_info/kl_clip_range")),
    OtherAlgorithm("A2C or ACKTR", ("policy_entropy", "value_loss"), some=("nupdates", "n_updates")),
    OtherAlgorithm("A2C or ACKTR", ("loss/policy_gradient_loss", "loss/value_function_loss", "loss/entropy_loss"),
                   no=("loss/approximate_kullback-leibler",)),
    OtherAlgorithm("TRPO", ("KL between old and new distribution",)),  # loops that follow modular_rl
    # rl_games
    OtherAlgorithm("SAC", ("losses/c1_loss", "losses/c2_loss")),
)  # fmt: skip
"""The more particular one of a framework first."""


def other_algorithm(names: Collection[str]) -> tuple[str, list[str]] | None:
    """Return the algorithm whose log has ``names`` and its evidence, None where it can be PPO."""
    if any(_PPO.fullmatch(name) and not _NOT_ONLY_PPO.fullmatch(name) for name in names):
        return None
    for algorithm in OTHER_ALGORITHMS:
        evidence = algorithm.evidence(names)
        if evidence:
            return algorithm.name, evidence
    return None
