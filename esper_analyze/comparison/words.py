"""What a comparison says, in sentences and in rows, the same on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from esper_analyze.comparison.divergence import HITS, LEAST_EARLY, STRETCH
from esper_analyze.comparison.side_by_side import Compared, Left, SideBySide
from esper_analyze.wording import many, number

MOST_NAMED = 4
"""Metrics or runs named in a sentence."""
READING = (
    "A run parts from the others at the first update from which on 4 of 5 updates lie beyond all that the others do "
    "from 0.3 of the updates so far before it to as much after it (so that learning the same a little later is no "
    "parting), by more than 6 standard deviations of the noise that the runs themselves show from update to update "
    "over their first 20. KL, losses, norms and spreads are judged by their logarithms. Of five or more others the "
    "fifth part at each end is left out, and the band reaches at least 1.5 interquartile ranges beyond the quartiles. "
    "NaN, +Inf or −Inf where the others have something else parts at once. Different at the end: the last tenth of a "
    "run (5 values at least; from the 10 % to the 90 % quantile) does not overlap those of the others, of whom one in "
    "five is left out at each end, by more than 1 % of its size. Settings, as used in every update, are no metrics.",
    "How often that is wrong (python -m tests.bench.parting): of 45 pairs of sound seeds of each of five kinds of "
    "training, none to five parted before update 50 and none to 27 at all within 200 to 390 updates, for learning "
    "differs from seed to seed; of sound runs in groups of five or ten 1 in 50 left, late. Noise alone parts less than "
    "once in 100 series, also when each value keeps 0.9 of the one before. Of 75 runs with a fault put in at a known "
    "update 74 left a group of five sound seeds, most in that very update.",
)


def headline(found: SideBySide) -> str:
    """Return the comparison in one sentence."""
    if len(found.labels) == 2:
        return _of_two(found)
    left = runs_that_left(found)
    if not left:
        if len(found.too_short) == len(found.labels):
            return f"{many(len(found.labels), 'run')}, too short to tell whether one leaves the others."
        maybe = "; " + _maybe(found) if found.pending else ""
        judged = f"{many(len(found.labels), 'run')}, {_judged(found)} metrics judged{maybe}"
        if found.ends_apart:
            return f"No run leaves the others at an update that can be named, but {_apart(found)} ({judged})."
        return f"No run leaves the others: {judged}."
    first = left[0]
    rest = f", then {_listed([found.labels[one.run] for one in left[1:]])}" if len(left) > 1 else ""
    verb = "leaves" if len(left) == 1 else "leave"
    return (
        f"{len(left)} of {len(found.labels)} runs {verb} the others: {found.labels[first.run]} at update "
        f"{first.update:,} ({first.compared.title}){rest}."
    )


def _of_two(found: SideBySide) -> str:
    one, other = found.labels
    if not found.leavings:
        return f"{one} and {other} {_not_parted(found)}."
    first = found.leavings[0]
    return f"{one} and {other} part at update {first.update:,}: {first.compared.title} {what(found, first)}."


def _not_parted(found: SideBySide) -> str:
    if found.first_difference is None and not found.not_common:
        return f"are equal in all {_looked_at(found)} columns compared"
    if found.ends_apart:
        return f"do not part at an update that can be named, but {_apart(found)}"
    if found.pending:
        return f"may be parting: {_maybe(found)}"
    if found.too_short:
        return "are too short to tell whether they part"
    return "do not part" + (" in what both measured" if found.not_common or found.ceased else "")


def _apart(found: SideBySide) -> str:
    """Say which metric's last tenths do not overlap, the first in the order of the metrics: returns come first."""
    one, run, end = found.ends_apart[0]
    rest = len({other.name for other, _, _ in found.ends_apart}) - 1
    more = f", and {many(rest, 'further metric')}" if rest else ""
    values = f"{number(end.own)} in {found.labels[run]}, {number(end.others)} in {_rest(found)}"
    return f"are different at the end: {one.title} is {values} over the last {many(end.values, 'value')}{more}"


def _maybe(found: SideBySide) -> str:
    first = found.pending[0]
    return f"at update {first.update:,} {first.compared.title} {what(found, first)}, too near the end to be sure"


def _looked_at(found: SideBySide) -> int:
    return len(found.metrics) + sum(bool(cells.known.any()) for _, cells in found.exact)


def _judged(found: SideBySide) -> int:
    return 0 if len(found.labels) == 2 and found.too_short else len(found.metrics) - len(found.unjudged)


def runs_that_left(found: SideBySide) -> list[Left]:
    """Return the first parting of every run that has one, in order of updates."""
    firsts = [found.first(run) for run in range(len(found.labels))]
    return sorted((one for one in firsts if one is not None), key=lambda one: one.order)


def what(found: SideBySide, left: Left) -> str:
    """Return what a run has where it parts, against what the others have."""
    own, others = values_at(left)
    who = f" in {found.labels[left.run]}"
    if left.parting.kind == "missing":
        return f"is no longer measured{who}, {others} in {_rest(found)}"
    return f"is {own}{who}, {others} in {_rest(found)}"


def _rest(found: SideBySide) -> str:
    return "the other" if len(found.labels) == 2 else "the median of the others"


def values_at(left: Left) -> tuple[str, str]:
    """Return the run's own value at its parting, and the median of the others' there."""
    cells, place = left.compared.cells, left.parting.place
    measured = cells.measured[:, place]
    own = number(float(cells.value[left.run, place])) if measured[left.run] else "not measured"
    there = np.delete(measured, left.run)
    others = np.delete(cells.value[:, place], left.run)[there]
    numbers = others[np.isfinite(others)]
    if len(numbers):
        return own, number(float(np.median(numbers)))
    return own, " or ".join(dict.fromkeys(number(float(one)) for one in others)) or "not measured"


def sentences(found: SideBySide) -> list[str]:
    """Return what stands below the headline: exact sameness, ends, and what was judged."""
    said = [_exactness(found)] if len(found.labels) == 2 else []
    if found.first_difference is None and len(found.labels) == 2:
        return [*said, *_ends(found)]
    unknown = set(found.unjudged)
    together = sum(one.name not in unknown and not any((*one.judged.partings, *one.judged.pending, *one.ends))
                   for one in found.metrics)  # fmt: skip
    if _judged(found):
        said.append(f"{together} of {many(len(found.metrics), 'metric')} stay together over {_updates(found)}.")
    if found.ends_apart:
        names = _listed(list(dict.fromkeys(one.name for one, _, _ in found.ends_apart)))
        said.append(f"Different at the end, where last tenths do not overlap: {names}.")
    return [*said, *_near_the_end(found), *_ends(found)]


def _near_the_end(found: SideBySide) -> list[str]:
    """Return what cannot be judged: the last updates of a run, and a run that has no others."""
    said = []
    if found.too_short:
        names = _listed([found.labels[run] for run in found.too_short])
        said.append(
            f"Too short to tell: it takes {HITS} updates in common, and {LEAST_EARLY} values for the noise: {names}."
        )
    elif not found.pending:
        said.append(f"What begins in the last {HITS - 1} updates cannot be judged; no last value lies beyond.")
    if found.pending:
        named = [f"{one.compared.name} of {found.labels[one.run]} from {one.update:,} on" for one in found.pending]
        said.append(
            f"The last {HITS - 1} updates cannot be judged: a parting takes {HITS} of {STRETCH}. The last values lie "
            f"beyond, so may be parting: {_listed(named)}."
        )
    return said


def _updates(found: SideBySide) -> str:
    return f"{many(int((found.rows.sum(axis=0) > 1).sum()), 'update')} that two runs at least have"


def _exactness(found: SideBySide) -> str:
    first = found.first_difference
    if first is None:
        return f"All {_looked_at(found)} columns compared are equal at every common update."
    update, names = first
    if update == int(found.updates[0]):
        return f"They differ from their first common update on, as two seeds do ({_listed(names)})."
    return (
        f"Up to update {update - 1:,} they are equal in all {_looked_at(found)} columns compared; what first "
        f"differs, at update {update:,}, is {_listed(names)}."
    )


def _ends(found: SideBySide) -> list[str]:
    last = [found.last_update(run) for run in range(len(found.labels))]
    if len(set(last)) == 1:
        return []
    short = sorted((end, label) for end, label in zip(last, found.labels, strict=True) if end < max(last))
    told = _listed([f"{label} at update {end:,}" for end, label in short])
    return [f"Some end before the last update {max(last):,}: {told}."]


def caveats(found: SideBySide) -> list[str]:
    """Return what limits the comparison."""
    said = []
    if found.not_common:
        names = _listed([one.name for one in found.not_common])
        said.append(f"Not measured in every run, so compared only where it was: {names}.")
    if found.unjudged:
        said.append(f"Too few values to know their noise, so only NaN was looked for: {_listed(found.unjudged)}.")
    if found.ceased:
        told = [f"{name} in {found.labels[run]} (last at update {update:,})" for name, run, update in found.ceased]
        said.append(f"No longer measured, while others go on: {_listed(told)}.")
    if found.tables:
        said.append(f"Not compared: what tables {', '.join(found.tables)} hold.")
    kinds = {(str(info.get("algorithm")), tuple(info.get("heads") or ())) for info in found.infos}
    if len(kinds) > 1:
        said.append("These runs are of different algorithms or heads: what parts may be their kind, not a fault.")
    if found.functions:
        named = _listed(found.functions)
        said.append(f"Given as a function, so nobody can tell whether it is the same: {named}.")
    return said


def partings(found: SideBySide) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return titles and rows of every parting of two runs, or of the first parting of every run of many."""
    if len(found.labels) == 2:
        titles = ("update", "metric", "run", "has", "other has", "beyond band")
        return titles, [_row(found, one) for one in _once(found.leavings)]
    named = ("run", "updates", "leaves at", "first by", "has", "median", "metrics out")
    return named, [_run_row(found, run) for run in _order(found)]


def _once(leavings: Sequence[Left]) -> list[Left]:
    """Return one parting for each metric: of two runs both lie beyond the other."""
    found: dict[str, Left] = {}
    for one in leavings:
        found.setdefault(one.compared.name, one)
    return list(found.values())


def _row(found: SideBySide, left: Left) -> tuple[str, ...]:
    own, other = values_at(left)
    return f"{left.update:,}", left.compared.name, found.labels[left.run], own, other, beyond(left)


def beyond(left: Left) -> str:
    """Return how far a value lies beyond the band, or which fact it is."""
    kind = left.parting.kind
    return f"{left.parting.size:.3g} σ" if kind == "beyond" else {"nonfinite": "not finite", "missing": "missing"}[kind]


def _order(found: SideBySide) -> list[int]:
    left = [one.run for one in runs_that_left(found)]
    return [*left, *(run for run in range(len(found.labels)) if run not in left)]


def _run_row(found: SideBySide, run: int) -> tuple[str, ...]:
    first = found.first(run)
    start = (found.labels[run], f"{int(found.rows[run].sum()):,}")
    if first is None:
        return (*start, "–", "–", "–", "–", "0")
    out = sum(one.judged.partings[run] is not None for one in found.metrics)
    return (*start, f"{first.update:,}", first.compared.name, *values_at(first), str(out))


def silent(found: SideBySide) -> list[Compared]:
    """Return the metrics in which no run parts or ends apart."""
    return [one for one in found.metrics if not any((*one.judged.partings, *one.ends))]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
