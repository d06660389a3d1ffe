"""Verdicts, and how a rule's bounds are turned into verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache, reduce

import numpy as np
import numpy.typing as npt

from esper_analyze.detector.signals import Bools, Floats, Signal

Codes = npt.NDArray[np.int8]


class Verdict(IntEnum):
    """A rule's verdict on one subject at one update; from OK on, higher is worse."""

    ABSENT = 0  # the subject has never had a row: no verdict
    NOT_APPLICABLE = 1
    NO_DATA = 2
    OK = 3
    INFO = 4
    WARNING = 5
    CRITICAL = 6

    @property
    def word(self) -> str:
        """The verdict as findings spell it."""
        return WORDS[self]


WORDS = tuple(verdict.name.lower() for verdict in Verdict)
"""Words of the verdicts, by code."""
BY_WORD = {verdict.word: verdict for verdict in Verdict}
"""Verdicts by the word findings spell them with."""

NONFINITE = "non-finite"
_OK, _INFO, _WARNING, _CRITICAL = map(int, (Verdict.OK, Verdict.INFO, Verdict.WARNING, Verdict.CRITICAL))
_NOT_APPLICABLE, _NO_DATA = int(Verdict.NOT_APPLICABLE), int(Verdict.NO_DATA)
# plain numbers: accessing a member of an enum costs as much as the array operation that uses it


@dataclass(slots=True)
class Excuse:
    """Where a rule is not applicable, and why. A ``quiet`` excuse (a warm-up) produces no finding."""

    where: Bools
    why: str
    quiet: bool = False


def excused(excuses: Iterable[Excuse]) -> Bools:
    """Return where any of ``excuses`` holds."""
    first, *others = (excuse.where for excuse in excuses)
    return reduce(np.logical_or, others, first)


@dataclass(slots=True)
class Bounds:
    """Which cells cross which bound. ``info_at``, ``warning_at`` and ``critical_at`` are the numbers crossed.

    They are scalars or arrays that broadcast to [n, k]. ``info_at`` is ``warning_at`` where it is None.
    """

    warning: Bools | bool = False
    critical: Bools | bool = False
    info: Bools | bool = False
    warning_at: Floats | float = np.nan
    critical_at: Floats | float = np.nan
    info_at: Floats | float | None = None


def above(signal: Signal, warning: float, critical: float) -> Bounds:
    """Return the bounds that values greater than ``warning`` or ``critical`` cross."""
    crossed = signal.values > warning
    if critical >= warning and not np.count_nonzero(crossed):
        return Bounds()
    return Bounds(crossed, signal.values > critical, warning_at=warning, critical_at=critical)


def below(signal: Signal, warning: float, critical: float) -> Bounds:
    """Return the bounds that values less than ``warning`` or ``critical`` cross."""
    crossed = signal.values < warning
    if critical <= warning and not np.count_nonzero(crossed):
        return Bounds()
    return Bounds(crossed, signal.values < critical, warning_at=warning, critical_at=critical)


@dataclass(slots=True)
class Judgement:
    """Verdicts of one rule on one metric: arrays [n, k], and ``reasons`` indexed by ``reason`` (0: none).

    ``code`` judges each update by itself; ``after_hysteresis`` applies ``Limits.clear_after`` (None: the same).
    """

    metric: str
    code: Codes
    value: Floats
    threshold: Floats
    baseline: Floats
    reason: Codes
    reasons: tuple[str, ...]
    quiet: frozenset[int]
    after_hysteresis: Codes | None = None

    @classmethod
    def joined(cls, parts: Sequence[Judgement]) -> Judgement:
        """Return judgements of one metric over consecutive updates as one."""
        reasons = [*dict.fromkeys(word for part in parts for word in part.reasons)]
        index_of = {word: index for index, word in enumerate(reasons)}
        renamed = [np.array([index_of[word] for word in part.reasons], np.int8)[part.reason] for part in parts]
        return cls(
            parts[0].metric,
            np.concatenate([part.code for part in parts]),
            np.concatenate([part.value for part in parts]),
            np.concatenate([part.threshold for part in parts]),
            np.concatenate([part.baseline for part in parts]),
            np.concatenate(renamed),
            tuple(reasons),
            frozenset(index_of[part.reasons[k]] for part in parts for k in part.quiet),
        )

    @property
    def standing(self) -> Codes:
        """The verdicts after hysteresis: a better verdict counts only after it has lasted."""
        return self.code if self.after_hysteresis is None else self.after_hysteresis


def settle(
    metric: str,
    signal: Signal,
    bounds: Bounds,
    *,
    excuses: Sequence[Excuse] = (),
    missing: str | None = None,
    needs: Sequence[Signal] = (),
    unknown: Sequence[Excuse] = (),
    baseline: Floats | None = None,
    nonfinite: bool = True,
    judged: Floats | None = None,
) -> Judgement:
    """Return the verdicts on ``signal``: not applicable, then missing, then non-finite, then ``bounds``.

    ``missing`` names the missing column where the signal is null (its own name by default); ``needs`` are other
    columns without which it cannot be judged; ``unknown`` gives more specific reasons why the signal is null.
    ``baseline`` [n, k] is what values were compared with. With ``nonfinite=False`` the signal itself counts non-finite
    values and is not checked for them. ``judged`` [n, k] is the statistic of the signal that ``bounds`` compare (NaN
    while it is not known), None: the signal itself.
    """
    value = _judged(signal, judged)
    ok, nothing, unexplained = _all_ok(value.shape)
    baselines = nothing if baseline is None else baseline
    crossed = _crossed(bounds)
    excused = [excuse for excuse in excuses if np.count_nonzero(excuse.where)]
    if not crossed and not excused and signal.all_finite and (not needs or all(needed.all_finite for needed in needs)):
        return Judgement(metric, ok, value, nothing, baselines, unexplained, ("",), frozenset())
    code, threshold, reason = ok.copy(), nothing.copy(), unexplained.copy()
    for verdict, where, at in crossed:
        np.copyto(code, verdict, where=where)
        np.copyto(threshold, at, where=where)
    reasons = ["", NONFINITE]
    if nonfinite and not signal.all_finite:
        _overrule(code, threshold, reason, signal.nonfinite, _CRITICAL, 1)
    absent = [(needed.null, f"{needed.name} is missing") for needed in needs]
    absent += [(signal.null, f"{missing or signal.name} is missing"), *((cause.where, cause.why) for cause in unknown)]
    for where, why in absent:
        reasons.append(why)
        _overrule(code, threshold, reason, where, _NO_DATA, len(reasons) - 1)
    quiet = set()
    for excuse in reversed(excused):  # the first one takes precedence
        reasons.append(excuse.why)
        if excuse.quiet:
            quiet.add(len(reasons) - 1)
        _overrule(code, threshold, reason, excuse.where, _NOT_APPLICABLE, len(reasons) - 1)
    silent = code <= _NO_DATA
    if np.count_nonzero(silent):
        value, baselines = np.where(silent, np.nan, value), np.where(silent, np.nan, baselines)
    return Judgement(metric, code, value, threshold, baselines, reason, tuple(reasons), frozenset(quiet))


def _judged(signal: Signal, judged: Floats | None) -> Floats:
    """Return the values to compare: ``judged`` where the signal is finite."""
    if judged is None:
        return signal.values
    return judged if signal.all_finite else np.where(signal.nonfinite, signal.values, judged)


def _crossed(bounds: Bounds) -> list[tuple[int, Bools | bool, Floats | float]]:
    """Return verdict, cells and bound of each bound that was crossed anywhere, the worst last."""
    watched = (
        (_INFO, bounds.info, bounds.warning_at if bounds.info_at is None else bounds.info_at),
        (_WARNING, bounds.warning, bounds.warning_at),
        (_CRITICAL, bounds.critical, bounds.critical_at),
    )
    return [bound for bound in watched if bound[1] is not False and np.count_nonzero(bound[1])]


@lru_cache(maxsize=64)
def _all_ok(shape: tuple[int, ...]) -> tuple[Codes, Floats, Codes]:
    """Return code, threshold and reason for OK everywhere: read-only broadcasts of one cell."""
    code, threshold, reason = np.int8(_OK), np.float64(np.nan), np.int8(0)
    return np.broadcast_to(code, shape), np.broadcast_to(threshold, shape), np.broadcast_to(reason, shape)


def is_all_ok(code: Codes) -> bool:
    """Whether ``code`` is the shared all-OK array: the usual case, tested at no cost."""
    return code is _all_ok(code.shape)[0]


def _overrule(code: Codes, threshold: Floats, reason: Codes, where: Bools, verdict: int, why: int) -> None:
    if np.count_nonzero(where):
        np.copyto(code, verdict, where=where)
        np.copyto(threshold, np.nan, where=where)
        np.copyto(reason, why, where=where)
