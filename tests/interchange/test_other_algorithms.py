"""Logs of other algorithms are refused by name; no log of PPO is."""

from __future__ import annotations

import pytest

from esper_analyze.errors import UsageError
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.naming import take_updates
from esper_analyze.interchange.other_algorithms import OTHER_ALGORITHMS, other_algorithm
from tests.interchange.framework_logs import LOGS, FrameworkLog, scalar_log

_ROLLOUT = "rollout/ep_rew_mean rollout/ep_len_mean time/fps time/total_timesteps train/n_updates train/learning_rate"
_SKRL = "Reward / Total reward (mean)|Loss / Policy loss|Loss / Critic loss|Q-network / Q1 (mean)"
REFUSED = {
    "sb3 dqn": ("DQN", f"{_ROLLOUT} time/episodes rollout/exploration_rate train/loss"),
    "sb3 qr-dqn in event files": ("DQN", "rollout/ep_rew_mean rollout/exploration_rate train/loss"),
    "sb3 a2c": ("A2C", f"{_ROLLOUT} time/iterations train/policy_loss train/value_loss train/entropy_loss "
                       "train/explained_variance train/std"),
    "sb3 sac": ("SAC", f"{_ROLLOUT} train/actor_loss train/critic_loss train/ent_coef train/ent_coef_loss"),
    "sb3 td3": ("TD3 or DDPG", f"{_ROLLOUT} train/actor_loss train/critic_loss"),
    "sb3 trpo": ("TRPO", f"{_ROLLOUT} train/policy_objective train/value_loss train/kl_divergence_loss "
                         "train/explained_variance train/is_line_search_success train/std"),
    "sb3 ars": ("ARS", f"{_ROLLOUT} train/delta_std train/step_size"),
    "cleanrl dqn": ("DQN", "charts/episodic_return charts/SPS losses/td_loss losses/q_values charts/epsilon"),
    "cleanrl c51": ("C51", "charts/episodic_return losses/loss losses/q_values"),
    "cleanrl sac": ("SAC", "charts/SPS losses/qf1_values losses/qf1_loss losses/actor_loss losses/alpha"),
    "cleanrl td3": ("TD3 or DDPG", "charts/SPS losses/qf1_values losses/qf1_loss losses/actor_loss"),
    "ml-agents sac": ("SAC", "Environment/Cumulative Reward|Losses/Policy Loss|Losses/Value Loss|Losses/Q1 Loss"),
    "ml-agents sac, its coefficient": ("SAC", "Losses/Policy Loss|Policy/Continuous Entropy Coeff"),
    "skrl dqn": ("DQN", "Loss / Q-network loss|Exploration / Exploration epsilon|Target / Target (mean)"),
    "skrl sac": ("SAC", f"{_SKRL}|Q-network / Q2 (mean)|Coefficient / Entropy coefficient"),
    "skrl td3": ("TD3", f"{_SKRL}|Q-network / Q2 (mean)|Exploration / Exploration noise (mean)"),
    "skrl ddpg": ("DDPG", f"{_SKRL}|Exploration / Exploration noise (mean)"),
    "skrl sac without entropy": ("SAC or TD3", f"{_SKRL}|Q-network / Q2 (mean)"),
    "skrl trpo": ("TRPO", "Loss / Policy loss|Loss / Value loss|Learning / Value learning rate"),
    "tianshou dqn": ("DQN or REINFORCE", "train/reward update/loss update/gradient_step"),
    "tianshou sac": ("SAC", "update/loss/actor update/loss/critic1 update/loss/critic2 update/loss/alpha"),
    "tianshou td3": ("TD3", "update/actor_loss update/critic1_loss update/critic2_loss"),
    "tianshou ddpg": ("DDPG", "update/loss/actor update/loss/critic"),
    "tianshou a2c": ("A2C", "update/loss update/loss/actor update/loss/vf update/loss/ent"),
    "rllib dqn": ("DQN", "training_iteration info/learner/default_policy/learner_stats/mean_q"),
    "rllib new dqn": ("DQN", "training_iteration learners/default_policy/qf_loss learners/default_policy/qf_mean"),
    "rllib sac": ("SAC", "info/learner/default_policy/learner_stats/alpha_value"),
    "rllib impala": ("IMPALA", "info/learner/default_policy/learner_stats/var_gnorm "
                               "info/learner/default_policy/learner_stats/policy_loss"),
    "baselines deepq": ("DQN", "steps|episodes|mean 100 episode reward|% time spent exploring"),
    "baselines ddpg": ("DDPG", "rollout/return rollout/Q_mean train/loss_actor train/loss_critic"),
    "baselines trpo": ("TRPO", "optimgain meankl entloss surrgain entropy"),
    "modular_rl trpo": ("TRPO", "Surrogate loss|KL between old and new distribution|Entropy"),
    "baselines a2c": ("A2C or ACKTR", "nupdates total_timesteps fps policy_entropy value_loss explained_variance"),
    "stable baselines 2 sac": ("SAC", "qf1_loss qf2_loss value_loss entropy policy_loss ent_coef"),
    "stable baselines 2 td3": ("TD3", "qf1_loss qf2_loss policy_loss"),
    "stable baselines 2 trpo": ("TRPO", "loss/policy_gradient_loss loss/value_function_loss loss/entropy_loss "
                                        "loss/approximate_kullback-leibler input_info/kl_clip_range"),
    "stable baselines 2 a2c": ("A2C or ACKTR", "loss/policy_gradient_loss loss/value_function_loss loss/entropy_loss"),
    "rl_games sac": ("SAC", "losses/a_loss losses/c1_loss losses/c2_loss losses/entropy info/alpha"),
}  # fmt: skip


def listed(names: str) -> list[str]:
    return names.split("|") if "|" in names else names.split()


@pytest.mark.parametrize(("algorithm", "names"), REFUSED.values(), ids=REFUSED.keys())
def test_a_log_of_another_algorithm_is_refused_by_name(algorithm: str, names: str) -> None:
    log = scalar_log([(64, dict.fromkeys(listed(names), 0.5))])
    with pytest.raises(UsageError, match=rf"^the log is a log of {algorithm} \(.*\), not of PPO\n") as refused:
        take_updates(log, Imported("x"), "the log")
    evidence = refused.value.message.split("(")[1].split("), not")[0]
    assert any(name in refused.value.message for name in listed(names)), evidence
    with pytest.raises(UsageError, match="not of PPO"):
        take_updates(log, Imported("x"), "the log", "stable-baselines3")


@pytest.mark.parametrize("example", LOGS.values(), ids=LOGS.keys())
def test_no_log_of_ppo_is_refused(example: FrameworkLog) -> None:
    names = list(scalar_log(example.points).series)
    assert other_algorithm(names) is None


@pytest.mark.parametrize(
    "names",
    [
        "train/policy_loss train/value_loss train/entropy_loss train/approx_kl rollout/ep_rew_mean",
        "train/policy_loss train/value_loss train/entropy_loss",  # a script of one's own
        "train/actor_loss train/critic_loss train/entropy rollout/ep_rew_mean",
        "losses/clipfrac losses/td_loss",
        "Losses/Policy Loss|Losses/Value Loss|Losses/Baseline Loss|Policy/Beta",  # POCA
        "learners/p/pi_loss learners/p/mean_kl_loss",
        "x",
    ],
)
def test_what_can_be_ppo_is_not_refused(names: str) -> None:
    assert other_algorithm(listed(names)) is None


def test_every_entry_refuses_something() -> None:
    reached = set()
    for _, names in REFUSED.values():
        reached.add(next(entry for entry in OTHER_ALGORITHMS if entry.evidence(listed(names))))
    assert {entry.name for entry in OTHER_ALGORITHMS} == {entry.name for entry in reached}


def test_our_own_export_is_no_log_of_another_algorithm() -> None:
    imported = Imported("x")
    take_updates(scalar_log([(0, {"updates/td_error_mean": 0.5})]), imported, "the log")
    assert imported.rows["updates"][0]["td_error_mean"] == 0.5
