"""Rollouts without any reward: their returns and advantages are the critic's own values."""

from __future__ import annotations

import numpy as np

from esper_analyze.detector.conditions.convergence import EPISODE_RETURN
from esper_analyze.detector.rule import Condition, Memory
from esper_analyze.detector.signals import Bools, Floats, Frame
from esper_analyze.detector.verdict import Excuse

REWARDS = ("reward_min", "reward_max")


def largest_reward(frame: Frame) -> Floats:
    """Return the largest |reward| of each rollout, [n, 1]; where rewards were not recorded, the |mean return|.

    NaN where neither is known.
    """
    least, most, returns = frame[REWARDS[0]], frame[REWARDS[1]], frame[EPISODE_RETURN]
    largest = np.where(least.finite & most.finite, np.fmax(np.abs(least.values), np.abs(most.values)), np.nan)
    unknown = least.null & most.null & returns.finite
    largest_: Floats = np.where(unknown, np.abs(returns.values), largest)
    return largest_


def _unrewarded(frame: Frame, memory: Memory) -> Bools:  # noqa: ARG001
    """Return where no step was rewarded: what is small then, is small because there is nothing to learn from."""
    silent: Bools = largest_reward(frame) == 0.0
    return silent


UNREWARDED = Condition("unrewarded", (*REWARDS, EPISODE_RETURN), _unrewarded, "no step of the rollout was rewarded")


def nothing_rewarded(frame: Frame) -> Excuse:
    """Excuse updates without any reward: a critic cannot explain returns that are its own values."""
    return Excuse(UNREWARDED.holds(frame), "no step was rewarded: returns are the critic's own values", quiet=True)
