"""A comparison in sentences and table rows, the same on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from esper_analyze.comparison.divergence import HITS, LEAST_EARLY, STRETCH
from esper_analyze.comparison.side_by_side import ComparedMetric, RunDivergence, SideBySide
from esper_analyze.runs.log_source import is_log, source_of_log
from esper_analyze.wording import many, number

MOST_NAMED = 4
"""Metrics or runs named in a sentence."""
READING = (
    "A run diverges from the others at the first update from which on 4 of 5 updates lie outside the others' range "
    "between 0.7 and 1.3 of that update (so that learning the same a little later does not count), by more than 6 "
    "standard deviations of the runs' own update-to-update noise over their first 20 values. KL, losses, norms and "
    "spreads are judged by their logarithms. Of five or more others a fifth at each end is left out, and the band "
    "reaches at least 1.5 interquartile ranges beyond the quartiles. A run with NaN, +Inf or −Inf where the others "
    "have something else diverges at once. Different at the end: the last tenth of a run (5 values at least, from the "
    "10 % to the 90 % quantile) does not overlap those of the others, of which one in five is left out at each end, by "
    "more than 1 % of its size. Settings, including those recorded in every update, are not judged.",
    "Error rates (python -m tests.bench.parting): of 45 pairs of healthy runs with different random seeds, for each of "
    "five kinds of training, up to five diverged before update 50 and up to 27 within 200 to 390 updates, because "
    "learning differs between random seeds; of healthy runs in groups of five or ten, 1 in 50 diverged, late. Noise "
    "alone diverges less than once in 100 series, also when each value keeps 0.9 of the one before. Of 75 runs with a "
    "fault injected at a known update, 74 diverged from a group of five healthy runs, most in that very update.",
)


def headline(comparison: SideBySide) -> str:
    """Return the comparison in one sentence."""
    if len(comparison.labels) == 2:
        return _of_two(comparison)
    left = first_divergences(comparison)
    if not left:
        if len(comparison.too_short) == len(comparison.labels):
            return f"{many(len(comparison.labels), 'run')}, too short to tell whether any diverges."
        maybe = "; " + _possible(comparison) if comparison.pending else ""
        judged = f"{many(len(comparison.labels), 'run')}, {many(_judged(comparison), 'metric')} judged{maybe}"
        if comparison.end_differences:
            return f"No run diverges at an identifiable update, but the runs {_end_difference(comparison)} ({judged})."
        return f"No run diverges from the others: {judged}."
    first = left[0]
    rest = f", then {_listed([comparison.labels[entry.run] for entry in left[1:]])}" if len(left) > 1 else ""
    verb = "diverges" if len(left) == 1 else "diverge"
    return (
        f"{len(left)} of {len(comparison.labels)} runs {verb} from the others: {comparison.labels[first.run]} at "
        f"update {first.update:,} ({first.compared.title}){rest}."
    )


def _of_two(comparison: SideBySide) -> str:
    first_label, second_label = comparison.labels
    if not comparison.divergences:
        return f"{first_label} and {second_label} {_not_diverged(comparison)}."
    return f"{first_label} and {second_label} {_first_divergence(comparison)}."


def _first_divergence(comparison: SideBySide) -> str:
    first = comparison.divergences[0]
    where = f"diverge at update {first.update:,}"
    return f"{where}: {first.compared.title} {value_against_others(comparison, first)}"


def _not_diverged(comparison: SideBySide) -> str:
    if comparison.first_difference is None and not comparison.not_common:
        return f"are equal in all {_columns_compared(comparison)} compared columns"
    if comparison.end_differences:
        return f"do not diverge at an identifiable update, but {_end_difference(comparison)}"
    if comparison.pending:
        return f"may be diverging: {_possible(comparison)}"
    if comparison.too_short:
        return "are too short to tell whether they diverge"
    return "do not diverge" + (" in the metrics both measured" if comparison.not_common or comparison.ceased else "")


def _end_difference(comparison: SideBySide) -> str:
    """Describe the first metric, in their order (returns first), whose last tenths do not overlap."""
    metric, run, end = comparison.end_differences[0]
    rest = len({other.name for other, _, _ in comparison.end_differences}) - 1
    more = f", and {many(rest, 'further metric')}" if rest else ""
    values = f"{number(end.run)} in {comparison.labels[run]}, {number(end.others)} in {_rest(comparison)}"
    return f"are different at the end: {metric.title} is {values} over the last {many(end.values, 'value')}{more}"


def _possible(comparison: SideBySide) -> str:
    first = comparison.pending[0]
    difference = value_against_others(comparison, first)
    return f"at update {first.update:,} {first.compared.title} {difference}, too near the end to be sure"


def _columns_compared(comparison: SideBySide) -> int:
    return len(comparison.metrics) + sum(bool(cells.has_measurements.any()) for _, cells in comparison.exact)


def _judged(comparison: SideBySide) -> int:
    return (
        0
        if len(comparison.labels) == 2 and comparison.too_short
        else len(comparison.metrics) - len(comparison.unjudged)
    )


def first_divergences(comparison: SideBySide) -> list[RunDivergence]:
    """Return the first divergence of every run that has one, in order of updates."""
    firsts = [comparison.first(run) for run in range(len(comparison.labels))]
    return sorted((entry for entry in firsts if entry is not None), key=lambda entry: entry.order)


def value_against_others(comparison: SideBySide, left: RunDivergence) -> str:
    """Return a run's value at its divergence and the others' there, as words."""
    value, others = values_at(left)
    who = f" in {comparison.labels[left.run]}"
    if left.divergence.kind == "missing":
        return f"is no longer measured{who}, {others} in {_rest(comparison)}"
    return f"is {value}{who}, {others} in {_rest(comparison)}"


def _rest(comparison: SideBySide) -> str:
    return "the other" if len(comparison.labels) == 2 else "the median of the others"


def values_at(left: RunDivergence) -> tuple[str, str]:
    """Return the run's value at its divergence, and the median of the others' there."""
    cells, at = left.compared.cells, left.divergence.index
    measured = cells.measured[:, at]
    measured_value = number(float(cells.value[left.run, at])) if measured[left.run] else "not measured"
    there = np.delete(measured, left.run)
    others = np.delete(cells.value[:, at], left.run)[there]
    numbers = others[np.isfinite(others)]
    if len(numbers):
        return measured_value, number(float(np.median(numbers)))
    return measured_value, " or ".join(dict.fromkeys(number(float(other)) for other in others)) or "not measured"


def sentences(comparison: SideBySide) -> list[str]:
    """Return the sentences below the headline: exact equality, ends, and what was judged."""
    lines = [_exactness(comparison)] if len(comparison.labels) == 2 else []
    if comparison.first_difference is None and len(comparison.labels) == 2:
        return [*lines, *_ends(comparison)]
    unknown = set(comparison.unjudged)
    together = sum(
        metric.name not in unknown and not any((*metric.judged.divergences, *metric.judged.pending, *metric.ends))
        for metric in comparison.metrics
    )
    if _judged(comparison):
        lines.append(
            f"{together} of {many(len(comparison.metrics), 'metric')} stay together over {_updates(comparison)}."
        )
    if comparison.end_differences:
        names = _listed(list(dict.fromkeys(metric.name for metric, _, _ in comparison.end_differences)))
        lines.append(f"Different at the end, where last tenths do not overlap: {names}.")
    return [*lines, *_near_the_end(comparison), *_ends(comparison)]


def _near_the_end(comparison: SideBySide) -> list[str]:
    """Return the sentences on what cannot be judged: the last updates, and runs that are too short."""
    lines = []
    if comparison.too_short:
        names = _listed([comparison.labels[run] for run in comparison.too_short])
        lines.append(
            f"Too short: {HITS} common updates, and {LEAST_EARLY} values to estimate the noise, are needed: {names}."
        )
    elif not comparison.pending:
        lines.append(
            f"A divergence that begins in the last {HITS - 1} updates cannot be seen yet; no last value lies outside."
        )
    if comparison.pending:
        named = [
            f"{entry.compared.name} of {comparison.labels[entry.run]} from {entry.update:,} on"
            for entry in comparison.pending
        ]
        lines.append(
            f"The last {HITS - 1} updates cannot be judged: a divergence takes {HITS} of {STRETCH}. The last values "
            f"lie outside and may be a divergence: {_listed(named)}."
        )
    return lines


def _updates(comparison: SideBySide) -> str:
    return f"{many(int((comparison.rows.sum(axis=0) > 1).sum()), 'update')} that two runs at least have"


def _exactness(comparison: SideBySide) -> str:
    first = comparison.first_difference
    if first is None:
        return f"All {_columns_compared(comparison)} compared columns are equal at every common update."
    update, names = first
    if update == int(comparison.updates[0]):
        return (
            f"They differ from their first common update on, as runs with different random seeds do ({_listed(names)})."
        )
    return (
        f"Up to update {update - 1:,} they are equal in all {_columns_compared(comparison)} compared columns; the "
        f"first to differ, at update {update:,}: {_listed(names)}."
    )


def _ends(comparison: SideBySide) -> list[str]:
    last = [comparison.last_update(run) for run in range(len(comparison.labels))]
    if len(set(last)) == 1:
        return []
    short = sorted((end, label) for end, label in zip(last, comparison.labels, strict=True) if end < max(last))
    ends = _listed([f"{label} at update {end:,}" for end, label in short])
    return [f"Some end before the last update {max(last):,}: {ends}."]


def caveats(comparison: SideBySide) -> list[str]:
    """Return the limits of the comparison."""
    lines = []
    if comparison.not_common:
        names = _listed([metric.name for metric in comparison.not_common])
        lines.append(f"Not measured in every run and compared only among those that did: {names}.")
    if comparison.unjudged:
        lines.append(f"Too few values to estimate the noise; only NaN was checked: {_listed(comparison.unjudged)}.")
    if comparison.ceased:
        ceased_metrics = [
            f"{name} in {comparison.labels[run]} (last at update {update:,})" for name, run, update in comparison.ceased
        ]
        lines.append(f"No longer measured while other runs continue: {_listed(ceased_metrics)}.")
    if comparison.tables:
        lines.append(f"Tables not compared: {', '.join(comparison.tables)}.")
    logs = [
        f"{label} ({source_of_log(info)})"
        for label, info in zip(comparison.labels, comparison.infos, strict=True)
        if is_log(info)
    ]
    if logs:
        lines.append(f"Logs of other tools, which do not hold what happens within an update: {_listed(logs)}.")
    kinds = {(str(info.get("algorithm")), tuple(info.get("heads") or ())) for info in comparison.infos}
    if len(kinds) > 1:
        lines.append("These runs have different algorithms or heads: divergences may come from that, not from a fault.")
    if comparison.functions:
        named = _listed(comparison.functions)
        lines.append(f"Given as a function and therefore not comparable: {named}.")
    return lines


def divergence_table(comparison: SideBySide) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return titles and rows of every divergence of two runs, or of the first divergence of every run of many."""
    if len(comparison.labels) == 2:
        titles = ("update", "metric", "run", "value", "other's value", "beyond band")
        return titles, [_row(comparison, entry) for entry in _once(comparison.divergences)]
    named = ("run", "updates", "diverges at", "first metric", "value", "median of others", "metrics diverged")
    return named, [_run_row(comparison, run) for run in _order(comparison)]


def _once(leavings: Sequence[RunDivergence]) -> list[RunDivergence]:
    """Return one divergence for each metric: of two runs, both lie outside the other's band."""
    by_metric: dict[str, RunDivergence] = {}
    for entry in leavings:
        by_metric.setdefault(entry.compared.name, entry)
    return list(by_metric.values())


def _row(comparison: SideBySide, left: RunDivergence) -> tuple[str, ...]:
    value, other = values_at(left)
    return f"{left.update:,}", left.compared.name, comparison.labels[left.run], value, other, beyond(left)


def beyond(left: RunDivergence) -> str:
    """Return how far a value lies outside the band, or that it is missing or not finite."""
    kind = left.divergence.kind
    return (
        f"{left.divergence.size:.3g} σ" if kind == "beyond" else {"nonfinite": "not finite", "missing": "missing"}[kind]
    )


def _order(comparison: SideBySide) -> list[int]:
    left = [entry.run for entry in first_divergences(comparison)]
    return [*left, *(run for run in range(len(comparison.labels)) if run not in left)]


def _run_row(comparison: SideBySide, run: int) -> tuple[str, ...]:
    first = comparison.first(run)
    start = (comparison.labels[run], f"{int(comparison.rows[run].sum()):,}")
    if first is None:
        return (*start, "–", "–", "–", "–", "0")
    out = sum(metric.judged.divergences[run] is not None for metric in comparison.metrics)
    return (*start, f"{first.update:,}", first.compared.name, *values_at(first), str(out))


def undiverged(comparison: SideBySide) -> list[ComparedMetric]:
    """Return the metrics in which no run diverges or ends differently."""
    return [metric for metric in comparison.metrics if not any((*metric.judged.divergences, *metric.ends))]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
