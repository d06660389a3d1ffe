"""Which training framework's names a log of scalars has, and its updates by them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import islice

from esper_analyze.errors import UsageError
from esper_analyze.interchange import names_generic
from esper_analyze.interchange.cells import CellError, real
from esper_analyze.interchange.framework import Framework
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.names_baselines import BASELINES, PPO1, STABLE_BASELINES
from esper_analyze.interchange.names_cleanrl import CLEANRL
from esper_analyze.interchange.names_control import CONTROL
from esper_analyze.interchange.names_language import LANGUAGE
from esper_analyze.interchange.names_own import EXPORT
from esper_analyze.interchange.names_rllib import RLLIB
from esper_analyze.interchange.names_sb3 import SB3
from esper_analyze.interchange.other_algorithms import other_algorithm
from esper_analyze.interchange.series import ScalarLog
from esper_analyze.terminal import cleaned

_ALL = (
    EXPORT,
    SB3,
    CLEANRL,
    *(names.framework() for names in (*CONTROL, *LANGUAGE, RLLIB, BASELINES, PPO1, STABLE_BASELINES)),
)
FRAMEWORKS: tuple[str, ...] = tuple(dict.fromkeys(framework.name for framework in _ALL))
"""Whose names are known: what ``--from`` may say."""
_SHOWN, _LONGEST = 5, 60
"""Names shown in an error, and letters of each."""


def take_updates(log: ScalarLog, imported: Imported, where: str, framework: str | None = None) -> None:
    """Add what ``log`` holds of updates to ``imported``.

    ``framework``, one of ``FRAMEWORKS``, says whose names they are; without it they are recognised. Raises
    ``UsageError`` when it knows none of them, when two frameworks fit alike, or when the log is of another algorithm.
    """
    if not log.series:
        raise UsageError(f"{where} holds no scalar", hint="; ".join(imported.losses.sentences()))
    other = None if EXPORT.tells(log.series) else other_algorithm(log.series)
    if other is not None:
        algorithm, evidence = other
        raise UsageError(
            f"{where} is a log of {algorithm} ({_listed(evidence)}), not of PPO",
            hint="only trainings with PPO can be judged",
        )
    fitting = _fitting(log.series) if framework is None else [_asked(log, where, framework)]
    if len({candidate.name for candidate in fitting}) > 1:
        raise _ambiguous(log.series, where, fitting)
    if fitting:
        fitting[0].take(log, imported)
    elif names_generic.guessed(log.series):
        names_generic.take(log, imported)
    else:
        raise UsageError(
            f"{where} has {len(log.series)} names and none that is known of a PPO training: {_listed(log.series)}",
            hint=f"known are the names of {', '.join(FRAMEWORKS)}",
        )
    if not fitting or fitting[0] is not EXPORT:
        _undefined_variance(imported)
        _no_episode(imported)
        _no_deviation(imported)


def _fitting(names: Collection[str]) -> list[Framework]:
    """Return the frameworks that ``names`` fit best: several when nothing tells them apart, none when it can be any.

    Names that only one framework writes decide, where several are there the most known ones. Without any, names that
    are clearly of PPO can be those of several.
    """
    telling = [framework for framework in _ALL if framework.tells(names)]
    guessed = names_generic.guessed(names)
    trained = [framework for framework in telling if framework.trains(names)]
    if trained or (telling and not guessed):
        counts = {framework: len(framework.knows(names)) for framework in trained or telling}
        return [framework for framework, count in counts.items() if count == max(counts.values())]
    candidates = [framework for framework in _ALL if guessed and len(framework.knows(guessed)) == len(guessed)]
    return candidates if len(candidates) > 1 else []


def _asked(log: ScalarLog, where: str, name: str) -> Framework:
    """Return the framework called ``name``; raises ``UsageError`` when the log has none of its names."""
    candidates = [framework for framework in _ALL if framework.name == name]
    if not candidates:
        raise UsageError(f"{name} is not the name of a framework", hint=f"known: {', '.join(FRAMEWORKS)}")
    best = max(candidates, key=lambda framework: len(framework.knows(log.series)))
    if best.knows(log.series):
        return best
    likely = " or ".join(framework.title for framework in _fitting(log.series))
    raise UsageError(
        f"{where} has no name that {best.title} writes: {_listed(log.series)}",
        hint=f"it looks like a log of {likely}" if likely else "leave out --from",
    )


def _ambiguous(names: Collection[str], where: str, fitting: Sequence[Framework]) -> UsageError:
    titles = ", ".join(framework.title for framework in fitting[:-1]) + f" or {fitting[-1].title}"
    return UsageError(
        f"{where} can be a log of {titles}: {_listed(fitting[0].knows(names))}",
        hint="say which: " + " or ".join(f"--from {framework.name}" for framework in fitting),
    )


def _listed(names: Collection[str]) -> str:
    return ", ".join(cleaned(name, _LONGEST) for name in islice(names, _SHOWN)) + (" …" if len(names) > _SHOWN else "")


def _undefined_variance(imported: Imported) -> None:
    """Take an explained variance that divides by a variance of 0 for what it is: undefined, not broken.

    Where the value loss of the update is finite, returns and values are numbers: only equal returns make it NaN or
    −Inf. Where the value loss is NaN as well, or not known, it stays.
    """
    source = imported.columns.get("updates.explained_variance", "").split(";")[0]
    for row in imported.rows.get("updates", []):
        explained, loss = row.get("explained_variance"), row.get("value_loss")
        if isinstance(explained, float) and (math.isnan(explained) or explained == -math.inf) and _finite(loss):
            row |= {"explained_variance": None, "ev_low_variance": True}
            caveat = "NaN while the value loss is finite: returns do not vary"
            imported.columns["updates.ev_low_variance"] = f"{source}; {caveat}"


def _no_episode(imported: Imported) -> None:
    """Take a mean return and length that are both NaN for what they are: no episode ended."""
    for row in imported.rows.get("updates", []):
        if _is_nan(row.get("episode_return_mean")) and _is_nan(row.get("episode_length_mean")):
            row |= {"episode_return_mean": None, "episode_length_mean": None}


def _no_deviation(imported: Imported) -> None:
    """Leave out a standard deviation that is NaN in every row: the actions are discrete."""
    heads = imported.rows.get("heads", [])
    if heads and all(_is_nan(row.get("std_mean")) for row in heads):
        del imported.rows["heads"]
        imported.facts.pop("heads", None)
        name = imported.columns.pop("heads.std_mean", "").split(";")[0]
        imported.left_out[name] = "NaN in every row: the actions are discrete"


def _is_nan(cell: object) -> bool:
    return isinstance(cell, float) and math.isnan(cell)


def _finite(cell: object) -> bool:
    try:
        number = real(cell)
    except CellError:
        return False
    return number is not None and math.isfinite(number)
