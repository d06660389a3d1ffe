"""A last resort: a log of unknown names whose last parts are those that most PPO implementations use.

What is taken for what is said in the notes: the names are clear, how the numbers were computed is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from esper_analyze.interchange.framework import NameMap, StepMeaning
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.series import Named, ScalarLog
from esper_analyze.terminal import cleaned

_KL = "estimator and minibatches not known"
TRAINED = {
    Named("kl_k3_last_epoch", _KL): ("approx_kl", "approxkl", "approx_kl_div", "kl_approx", "pi_approxkl"),
    Named("kl_k1"): ("old_approx_kl",),
    Named("clip_fraction"): ("clip_fraction", "clipfrac", "clip_frac", "clipped_fraction", "pg_clipfrac"),
    Named("policy_loss"): ("policy_loss", "pg_loss", "pi_loss", "policy_gradient_loss", "actor_loss", "loss_policy",
                           "loss_pi", "surrogate_loss"),
    Named("value_loss"): ("value_loss", "v_loss", "vf_loss", "critic_loss", "value_function_loss", "loss_value",
                          "loss_v", "loss_vf"),
    Named("entropy"): ("entropy", "policy_entropy", "dist_entropy", "mean_entropy"),
    Named("explained_variance"): ("explained_variance", "explained_var", "vf_explained_var", "ev"),
}  # fmt: skip
BESIDE = {
    Named("learning_rate"): ("learning_rate", "lr"),
    Named("clip_range"): ("clip_range", "clip_coef", "clip_epsilon"),
    Named("episode_return_mean"): ("ep_rew_mean", "eprewmean", "ep_reward_mean", "episode_reward_mean", "mean_reward",
                                   "episodic_return", "episode_return", "episode_return_mean", "mean_return",
                                   "mean_episode_reward", "episode_reward", "mean_100_episode_reward"),
    Named("episode_length_mean"): ("ep_len_mean", "eplenmean", "episodic_length", "episode_length", "ep_length_mean",
                                   "mean_episode_length", "episode_len_mean"),
}  # fmt: skip
_AT_LEAST = 2
_OTHER_PART = re.compile(r"(^|[/_. ])(eval|test|val|valid|validation)(uation)?([/_. ]|$)", re.IGNORECASE)
_LAST_PART = re.compile(r"[/.:]")


def guessed(names: Iterable[str]) -> dict[str, Named]:
    """Return what ``names`` are taken for; of several names of one quantity the first counts."""
    taken_for: dict[str, Named] = {}
    columns: set[str] = set()
    for name in names:
        named = None if _OTHER_PART.search(name) else _column(name)
        if named is not None and named.column not in columns:
            columns.add(named.column)
            taken_for[name] = named
    trained = columns & {named.column for named in TRAINED}
    return taken_for if len(trained) >= _AT_LEAST else {}


def _column(name: str) -> Named | None:
    last = re.sub(r"[^a-z0-9]+", "_", _LAST_PART.split(name)[-1].lower()).strip("_")
    return next((named for named, words in (TRAINED | BESIDE).items() if last in words), None)


def take(log: ScalarLog, imported: Imported) -> None:
    """Add the updates of ``log`` to ``imported``."""
    taken_for = guessed(log.series)
    trained = {name: named for name, named in taken_for.items() if named in TRAINED}
    between = {name: named for name, named in taken_for.items() if named in BESIDE}
    words = ", ".join(f"{cleaned(name, 60)} as {named.column}" for name, named in taken_for.items())
    note = f"the names are of no known framework; guessed: {words}; rows are numbered in their order"
    reasons = {"": "not understood"}
    NameMap("", "", (), trained, between, step=StepMeaning.OTHER, note=note, reasons=reasons).take(log, imported)
    imported.facts["framework"] = None
