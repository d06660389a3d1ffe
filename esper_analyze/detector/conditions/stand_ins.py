"""What the logs of other tools have in place of a column that the recorder measures.

A rule judges the stand-in under its own name, so that a finding says what was judged. A run whose minibatches the
recorder saw has the column itself, or lacks it for a reason, and is never judged by a stand-in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from esper_analyze.detector.baselines import First, early_level
from esper_analyze.detector.best_level import EPISODES, UPDATES
from esper_analyze.detector.conditions.convergence import EPISODE_RETURN
from esper_analyze.detector.rule import Condition, Memory, Statistic
from esper_analyze.detector.signals import Bools, Floats, Frame, Signal
from esper_analyze.detector.streaks import blank, nothing_yet, previous, zeros
from esper_analyze.detector.verdict import Excuse, Judgement, Verdict

COUNTED = "minibatches"
"""The recorder counts minibatches; no logger that is imported does."""
VALUE_LOG = (COUNTED, "value_loss", "env_steps")
"""The columns that rules on the critic read of a log besides their own."""
KL, LAST_EPOCH = "kl_k3", "kl_k3_last_epoch"
KL_LOGGED = (LAST_EPOCH, "kl_k2", "kl_k1")
"""What stands in for ``KL``, the first that a log has, by the same bounds. In known sound trainings of the fault bench
the last epoch's mean is 1.7 to 2.9 times the update's, and yet only in 1 of 200 (26,467 updates) it raised an alarm."""
KL_LOG = (*KL_LOGGED, COUNTED)
"""The columns that rules on KL read of a log."""


def _logged(frame: Frame, memory: Memory) -> Bools:
    """Return where no minibatch has been counted so far."""
    counted = ~frame[COUNTED].null
    if np.count_nonzero(counted) == counted.size and counted.size:
        memory["counted"][:] = 1
        return ~counted
    so_far = np.logical_or.accumulate(np.concatenate([memory["counted"][None] > 0, counted]), axis=0)[1:]
    if len(so_far):
        memory["counted"][:] = so_far[-1]
    return ~so_far


LOGGED = Condition("logged", (COUNTED,), _logged, "the run is the log of another tool", {"counted": zeros})


def stands_in(frame: Frame, measured: str) -> Bools | None:
    """Return where another column stands in for ``measured``, [n, k]; None where it does nowhere."""
    if frame[measured].all_finite:
        return None
    used: Bools = LOGGED.holds(frame) & frame[measured].null
    return used if np.count_nonzero(used) else None


def filled_by(frame: Frame, measured: str, stand_in: Signal) -> Signal:
    """Return the column ``measured`` with ``stand_in`` where that stands in for it."""
    signal, used = frame[measured], stands_in(frame, measured)
    if used is None:
        return signal
    values = np.where(used, stand_in.values, signal.values)
    return Signal(measured, values, np.where(used, stand_in.null, signal.null))


def movement(frame: Frame) -> Signal:
    """Return how far each update moved the policy: ``kl_k3``, or in a log the first of ``KL_LOGGED`` that it has."""
    signal = frame[KL]
    for name, used in kl_logged(frame):
        logged = np.abs(frame[name].values)  # k1 is negative by chance where the policy hardly moves
        signal = Signal(KL, np.where(used, logged, signal.values), signal.null & ~(used & ~frame[name].null))
    return signal


def kl_logged(frame: Frame) -> list[tuple[str, Bools]]:
    """Return the columns that stand in for ``kl_k3``, each with where it does, [n, k]; empty where none does.

    Where a log has none of them in an update, the first one stands in, and is missing.
    """
    rest = stands_in(frame, KL)
    if rest is None:
        return []
    given = [rest & ~frame[name].null for name in KL_LOGGED]
    parts = []
    for name, used in zip(KL_LOGGED, given, strict=True):
        parts.append((name, used & rest))
        rest = rest & ~used
    first, where = parts[0]
    return [(first, where | rest), *(part for part in parts[1:] if np.count_nonzero(part[1]))]


def value_error(frame: Frame) -> Signal:
    """Return ``value_nrmse``, or in a log its least value: √(1 − explained variance), as if there were no bias."""
    ev = frame["explained_variance"]
    least = Signal("value_nrmse", np.sqrt(np.maximum(1.0 - ev.values, 0.0)), ev.null)
    return filled_by(frame, "value_nrmse", least)


def apart(judgement: Judgement, stand_ins: Sequence[tuple[str, Bools]]) -> list[Judgement]:
    """Return ``judgement``, the cells of each of ``stand_ins`` as judgements of that column."""
    if not stand_ins:
        return [judgement]
    absent, measured = np.int8(Verdict.ABSENT), ~reduce(np.logical_or, [used for _, used in stand_ins])
    columns = [(judgement.metric, measured), *stand_ins]
    return [replace(judgement, metric=name, code=np.where(of, judgement.code, absent)) for name, of in columns]


def only_of_log(judgement: Judgement, used: Bools) -> Judgement:
    """Return ``judgement`` of a column where it stands in for another, absent elsewhere."""
    return replace(judgement, code=np.where(used, judgement.code, np.int8(Verdict.ABSENT)))


ENTROPY_OF_START = Statistic("entropy as a share of its first updates", baseline="mean of the first updates, nats")
ENTROPY_START = 3
"""Updates whose mean entropy is that of a policy before it learnt: close to the most that its actions allow."""


def share_of_start(frame: Frame, memory: Memory) -> tuple[Signal, Floats]:
    """Return ``entropy_norm``, or in a log the entropy as a share of its first updates; and the mean of those, nats.

    The share says nothing of continuous actions, whose entropy has no zero, and there is none of a start at 0. Needs
    ``EARLY_MEMORY``.
    """
    norm, used = frame["entropy_norm"], stands_in(frame, "entropy_norm")
    if used is None:
        return norm, np.broadcast_to(np.nan, norm.values.shape)
    entropy = frame["entropy"]
    start = early_level(entropy.values, used & entropy.finite, memory, ENTROPY_START)
    no_level = start == 0.0
    share = Signal("entropy_norm", entropy.values / np.where(no_level, 1.0, start), entropy.null | no_level)
    return filled_by(frame, "entropy_norm", share), np.where(used, start, np.nan)


VALUE_MEMORY: Mapping[str, First] = {"largest_variance": blank, "steps_before": nothing_yet}
"""The memory that ``unexplained`` needs."""
SETTLED = 1e-3
"""Share of the largest variance of returns so far below which returns hardly vary: 0.03 of their standard deviation."""
FEW_STEPS = 64
"""Environment steps of an update below which the returns of a rollout vary too little to be explained."""


def unexplained(frame: Frame, memory: Memory) -> list[Excuse]:
    """Excuse updates of a log whose explained variance says nothing: few steps, or returns that hardly vary any more.

    From 1 − EV = Var(R − V) / Var(R) and a value loss of Var(R − V): Var(R) is about value_loss / (1 − EV). A factor
    in the value loss changes nothing; clipped value losses, and targets that are normalised anew, do.
    """
    used = stands_in(frame, "return_variance")
    if used is None:
        return []
    loss, ev, steps = frame["value_loss"], frame["explained_variance"], frame["env_steps"]
    known = used & loss.finite & ev.finite & (ev.values < 1.0) & (loss.values >= 0.0)
    variance = np.where(known, loss.values / (1.0 - ev.values), 0.0)
    largest = np.maximum.accumulate(np.concatenate([memory["largest_variance"][None], variance]))[1:]
    if len(largest):
        memory["largest_variance"][:] = largest[-1]
    taken = steps.values - previous(steps.values, used & steps.finite, memory["steps_before"])
    return [
        Excuse(used & steps.finite & (taken < FEW_STEPS), "of so few steps explained variance says nothing"),
        Excuse(
            known & (variance < SETTLED * largest),
            "value loss and explained variance say that the returns hardly vary any more",
        ),
    ]


SMOOTHING_MEMORY: Mapping[str, First] = {"steps_before": nothing_yet}
"""The memory that ``smoothing`` needs."""
SMOOTHED = ("env_steps", "episode_length_mean", COUNTED)
"""The columns that ``smoothing`` reads besides those of returns."""
WINDOW = 100
"""Episodes whose mean return Stable-Baselines3, rsl_rl, rl_games and OpenAI baselines log at every update."""


def episodes_of(frame: Frame) -> Signal:
    """Return the episodes of each mean return: where a log does not say, as many as let ``UPDATES`` of them judge."""
    finished, used = frame["episodes_finished"], stands_in(frame, "episodes_finished")
    if used is None:
        return finished
    return Signal(finished.name, np.where(used, -(-EPISODES // UPDATES), finished.values), finished.null & ~used)


def smoothing(frame: Frame, memory: Memory) -> Floats | float:
    """Return by how much the steps between logged returns understate the error of a mean of ``UPDATES`` of them.

    A log without the number of episodes has the mean of the last ``WINDOW``, of which m = steps / length are new. Its
    steps have a variance of 2 m / W² of an episode's, the mean of L such values one of about 1 / (W + L m).
    """
    used = stands_in(frame, "episodes_finished")
    if used is None:
        return 1.0
    steps, length = frame["env_steps"], frame["episode_length_mean"]
    taken = steps.values - previous(steps.values, used & steps.finite, memory["steps_before"])
    known = used & steps.finite & length.finite & (taken > 0.0) & (length.values > 0.0)
    new = np.clip(np.where(known, taken / length.values, WINDOW), 1.0, WINDOW)
    factor: Floats = np.sqrt(UPDATES * WINDOW**2 / (new * (WINDOW + UPDATES * new)))
    return np.where(new < WINDOW, np.maximum(factor, 1.0), 1.0)


RISING_MEMORY: Mapping[str, First] = {"first_return": nothing_yet, "best_return": nothing_yet}
"""The memory that ``rising`` needs."""
AS_HIGH = 0.01
"""Share of the rise so far by which a return may be below the highest, and count as it."""


def rising(frame: Frame, used: Bools, memory: Memory) -> Bools:
    """Return where the logged return is the highest so far and above the first, of the updates in ``used``, [n, k].

    Logs smooth returns, so that a task that is learnt within a few updates is at its best only long afterwards.
    """
    returns = frame[EPISODE_RETURN]
    line = np.concatenate([memory["best_return"][None], np.where(used & returns.finite, returns.values, np.nan)])
    best = np.fmax.accumulate(line)
    first = memory["first_return"]
    for row in line[1:]:
        np.copyto(first, row, where=np.isnan(first))
    memory["best_return"][:] = best[-1]
    highest: Bools = (
        used & returns.finite & (returns.values > best[1:] - AS_HIGH * (best[1:] - first)) & (best[1:] > first)
    )
    return highest
