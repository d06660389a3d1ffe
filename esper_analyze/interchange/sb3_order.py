"""Rows of a Stable-Baselines3 log in the order of its training, each once: files get joined, copied and sorted.

What tells the order is ``train/n_updates``, which never goes back, not even where ``learn`` is called again. Without
it, it is the count of iterations (or environment steps), which starts again at its first number with each call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from esper_analyze.interchange.cells import CellError, whole_number
from esper_analyze.interchange.imported import Imported, Row
from esper_analyze.interchange.series import LogRow

ITERATION, STEPS, EPOCHS = "time/iterations", "time/total_timesteps", "train/n_updates"
_TRAINED = "train/"
_Group = list[LogRow]
_ColumnKey = tuple[int, ...]


def counted(cells: Mapping[str, object], name: str) -> int | None:
    """Return the whole number that ``cells`` have under ``name``, None when there is none."""
    try:
        return whole_number(cells.get(name))
    except CellError:
        return None


def models(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows of each model that was trained with the same logger, one after the other.

    The epochs of a model begin with those of its first training, and never go back. A file that was copied behind
    itself, or sorted otherwise, is of one model. With the first rollout of the next model the logger mostly writes what
    it still holds of the last training of the one before, which tells that it went on in that file.
    """
    starts, last, before, held = [0], -1, -1, set[int]()
    for place, row in enumerate(rows):
        epochs = counted(row, EPOCHS)
        if epochs is None:
            continue
        if epochs < before:
            if last > starts[-1] and _goes_back(rows[last - 1], rows[last]):
                held.add(last)
            starts.append(last if last in held else _first_of_next(rows, last, place))
        last, before = place, epochs
    parts = [list(rows[start:end]) for start, end in zip(starts, [*starts[1:], len(rows)], strict=True)]
    for number, start in enumerate(starts):
        if start in held:
            parts[number - 1].append({name: cell for name, cell in rows[start].items() if name.startswith(_TRAINED)})
            parts[number][0] = {name: cell for name, cell in rows[start].items() if not name.startswith(_TRAINED)}
    epochs_of = [[epochs for row in part if (epochs := counted(row, EPOCHS)) is not None] for part in parts]
    if len(parts) == 1 or any(len(epochs) < 2 for epochs in epochs_of):
        return [list(rows)]
    early = sorted(set(epochs_of[0]))[:2][-1]
    copied = any(all(row in parts[0] for row in part) for part in parts[1:])
    apart = any(epochs[0] > early or (not held and set(epochs).isdisjoint(epochs_of[0])) for epochs in epochs_of)
    return [list(rows)] if copied or apart else parts


def _goes_back(before: Row, row: Row) -> bool:
    steps, begun = counted(before, STEPS), counted(row, STEPS)
    return steps is not None and begun is not None and begun < steps


def _first_of_next(rows: Sequence[Row], last: int, place: int) -> int:
    """Return where the next model's rows begin, after ``last`` of the one before: its first rollout has no epochs."""
    steps = counted(rows[last], STEPS)
    for between in range(last + 1, place):
        taken = counted(rows[between], STEPS)
        if steps is not None and taken is not None and taken < steps:
            return between
    return place


def in_order(rows: Sequence[LogRow], dumped: Callable[[LogRow], bool], imported: Imported) -> list[LogRow]:
    """Return ``rows`` in order; of repeated ones the last stands. What was odd is counted in ``imported``.

    What something else dumped within a rollout stays with the dump of that rollout, and within the last one, where
    there is none, behind the dump before it. Rows that say nothing of their place stay as they are.
    """
    groups = list(_groups(rows, dumped))
    if not any(_iteration_of(rows_of_dump) is not None for rows_of_dump in groups):
        return list(rows)
    by_training = any(_trained(rows_of_dump) >= 0 for rows_of_dump in groups)
    keys: list[_ColumnKey] = (
        [(_trained(rows_of_dump), _iteration_of(rows_of_dump) or 0) for rows_of_dump in groups]
        if by_training
        else _by_calls(groups)
    )
    if len(groups) > 1 and not dumped(groups[-1][-1]) and _unplaced(groups[-1], groups[-2], by_training=by_training):
        keys[-1] = (*keys[-2], 1)  # within the last rollout, which nothing dumped: behind the dump before it
    latest: dict[_ColumnKey, _Group] = {}
    before = keys[0]
    for key, group in zip(keys, groups, strict=True):
        if key in latest:
            imported.losses.count("repeated_row", "row logged again, the last stands", f"row {group[-1].step}")
        elif key < before:
            imported.losses.count(
                "unordered_row", "row before which later ones stand, put in order", f"row {group[-1].step}"
            )
        latest[key], before = group, max(before, key)
    return list(_trained_once(sorted(latest.items()), imported))


def _unplaced(group: _Group, before: _Group, *, by_training: bool) -> bool:
    """Whether a group without a dump says nothing of its place that can be compared with that of the dump before."""
    if by_training:
        return _trained(group) < 0
    return _iteration_of(group) is None or counted(before[-1].cells, ITERATION) is not None


def _groups(rows: Sequence[LogRow], dumped: Callable[[LogRow], bool]) -> Iterator[_Group]:
    group: _Group = []
    for row in rows:
        group.append(row)
        if dumped(row):
            yield group
            group = []
    if group:
        yield group


def _trained(group: _Group) -> int:
    """Return how many epochs were trained before a group, -1 where it says nothing: before the first training."""
    return max((count for row in group if (count := counted(row.cells, EPOCHS)) is not None), default=-1)


def _iteration_of(group: _Group) -> int | None:
    number = counted(group[-1].cells, ITERATION)
    return counted(group[-1].cells, STEPS) if number is None else number


def _by_calls(groups: Sequence[_Group]) -> list[_ColumnKey]:
    """Return keys by the calls of ``learn``, each of which begins with the number that the first one began with."""
    keys: list[_ColumnKey] = []
    first, call, last = _iteration_of(groups[0]), 0, groups[0]
    for group in groups:
        number = _iteration_of(group)
        begins = (
            number is not None
            and number == first
            and number != _iteration_of(last)
            and group[-1].cells != groups[0][-1].cells
        )
        call += begins
        keys.append((call, -1 if number is None else number))
        last = group
    return keys


def _trained_once(ordered: Sequence[tuple[_ColumnKey, _Group]], imported: Imported) -> Iterator[LogRow]:
    """Yield the rows; what is said of a training that an earlier one has told of is left out."""
    reported: set[int] = set()
    for _, group in ordered:
        epochs = _trained(group)
        if epochs > 0 and epochs in reported:
            imported.losses.count("repeated_row", "training logged again, left out", f"row {group[-1].step}")
            yield from (replace(row, cells=_untrained(row)) for row in group)
            continue
        reported.add(epochs)
        yield from group


def _untrained(row: LogRow) -> dict[str, object]:
    return {name: cell for name, cell in row.cells.items() if not name.startswith(_TRAINED)}
