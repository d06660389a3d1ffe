"""Which training library's names a log of scalars has, and its updates by them."""

from __future__ import annotations

from itertools import islice

from esper_analyze.errors import UsageError
from esper_analyze.interchange import names_cleanrl, names_own, names_sb3
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.series import ScalarLog

_LANGUAGES = (names_own, names_sb3, names_cleanrl)

FRAMEWORKS: tuple[str, ...] = (
    "export",
    "stable-baselines3",
    "cleanrl",
    "rsl_rl",
    "rl_games",
    "rllib",
    "trl",
    "verl",
    "ml-agents",
    "baselines",
    "skrl",
    "torchrl",
    "pufferlib",
    "tianshou",
    "sample-factory",
)
"""Whose names are known: what ``--from`` may say."""


def take_updates(log: ScalarLog, imported: Imported, where: str, framework: str | None = None) -> None:
    """Add what ``log`` holds of updates to ``imported``. Raises ``UsageError`` when it knows none of its names.

    ``framework``, one of ``FRAMEWORKS``, says whose names they are; without it they are recognised.
    """
    for language in _LANGUAGES:
        if language.speaks(log):
            language.take(log, imported)
            return
    if not log.series:
        raise UsageError(f"{where} holds no scalar", hint="; ".join(imported.losses.sentences()))
    named = ", ".join(islice(log.series, 5)) + (" …" if len(log.series) > 5 else "")
    raise UsageError(
        f"{where} has {len(log.series)} names and none that is known of a PPO training: {named}",
        hint="known are those of Stable-Baselines3 (train/approx_kl …), CleanRL (losses/approx_kl …) and `export`",
    )
