"""``esper-analyze ls``: the runs below a directory, one per line."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import Fail, takes_options
from esper_analyze.commands.output import Form, RowOutput
from esper_analyze.errors import DAMAGED, FINDINGS, UsageError
from esper_analyze.terminal import cleaned, escaped, path_words, progress, put, say, show_table
from esper_analyze.wording import SIGNS, lasting

if TYPE_CHECKING:
    from esper_analyze.reports.listing import RunSummary

_WIDE = ("run", "name", "framework", "algorithm", "updates", "status", "verdict")
WIDTH = 80
"""Columns of the terminal that a line takes at most."""
_NARROW = ("", "run", "updates", "steps", "return", "state", "worst incident")
_COLUMNS = (
    *("path", "name", "framework", "algorithm", "created", "updates", "env_steps", "episode_return", "ended", "status"),
    *(
        "verdict",
        "label",
        "worst_rule",
        "worst_subject",
        "worst_verdict",
        "worst_update",
        "judged",
        "unjudged",
        "fault",
        "stalled_s",
    ),
)
"""Of CSV: the fields of a summary."""
_LEAST_NAME = 22
FEW = 20
"""Runs up to which reading them shows no bar."""
_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class Sort(StrEnum):
    """What runs are ordered by."""

    NAME = "name"
    CREATED = "created"
    UPDATES = "updates"
    RETURN = "return"
    WORST = "worst"


@takes_options(
    *("directory", "sort", "broken", "since", "wide", "form", "as_json", "out"),
    *("fail_on", "safe"),
)
def ls(
    output: RowOutput,
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Directory to look in, at any depth. [default: runs, if it exists, else .]"),
    ] = None,
    sort: Annotated[
        Sort, typer.Option("--sort", help="Order: by path, newest, longest or best first, or the worst first.")
    ] = Sort.NAME,
    broken: Annotated[
        bool, typer.Option("--broken", help="Only runs with an alarm, that crashed, were killed, or are damaged.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="Only runs that began since: 30m, 12h, 3d, 2w or 2026-05-31."),
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="All columns, as wide as they are: framework, status, and why.")
    ] = False,
    fail_on: Fail = None,
) -> None:
    """List the runs below DIR, a line each: how far they came, what they return, how they stand.

    ✗ critical, ! warning, ? rules had no data, · stopped, ✓ ok: by what the live detector said and how the training
    ended: running, stalled (alive, but it stores nothing), ended, stopped, crashed (an exception), killed, out of
    memory, or the name of a fatal signal. The return is the mean of the last tenth of the updates, the number after an
    incident the update in which it began. A run that cannot be read is listed with its reason and hides no other; the
    exit code is then 3.

    Example: esper-analyze ls sample_runs/runs

    Example: esper-analyze ls runs --broken --since 2d --sort worst
    """
    from esper_analyze.csv_text import records_csv
    from esper_analyze.strict_json import strict_json

    form = output.resolved
    earliest = None if since is None else _moment(since)
    directory = directory or (Path("runs") if Path("runs").is_dir() else Path())
    summaries = _summaries(directory)
    shown = [one for one in summaries if _asked_for(one, broken=broken, earliest=earliest)]
    shown.sort(key=_ORDERS[sort])
    if form is Form.JSON:
        output.write(strict_json(shown))
    elif form is Form.CSV:
        output.write(records_csv(_COLUMNS, map(_record, shown), safe=output.safe))
    elif shown:
        output.write(lambda: _print(shown, directory, wide=wide))
    else:
        say(f"no recorded run at or below {directory}" if not summaries else f"none of {len(summaries)} runs fits")
    bad = sum(summary.fault is not None for summary in shown)
    if bad:
        say(f"{bad} of {len(shown)} runs cannot be read in full")
        raise typer.Exit(DAMAGED)
    verdicts = {"warning": ("warning", "critical"), "critical": ("critical",)}.get(
        "" if fail_on is None else fail_on, ()
    )
    if any(summary.verdict in verdicts for summary in shown):
        raise typer.Exit(FINDINGS)


def _summaries(directory: Path) -> list[RunSummary]:
    """Return the summary of every run below ``directory``. Raises ``UsageError`` where that is no directory."""
    from esper_analyze.reports.listing import summarise
    from esper_analyze.storage.maintenance.verify import orphans
    from esper_analyze.storage.run_info import find_runs

    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory", hint="give a directory with recorded runs below it")
    paths = find_runs(directory)
    paths = sorted([*paths, *orphans(directory, paths)])
    if len(paths) <= FEW:
        return [summarise(path) for path in paths]
    summaries = []
    with progress("reading", len(paths)) as step:
        for path in paths:
            summaries.append(summarise(path))
            step(len(summaries))
    return summaries


def _print(summaries: Sequence[RunSummary], directory: Path, *, wide: bool) -> None:
    """Print a line a run; what is wrong with one that cannot be read goes to stderr, unless there is room for it."""
    if wide:
        rows = [[escaped(cell) for cell in summary.cells(directory)] for summary in summaries]
        show_table(_WIDE, rows, right=("updates",))
        return
    put("".join(f"{line}\n" for line in _lines(summaries, directory)))
    for summary in summaries:
        if summary.fault is not None:
            say(f"{path_words(summary.path)}: {summary.fault}")


def _record(summary: RunSummary) -> dict[str, object]:
    worst = {f"worst_{name}": cell for name, cell in (summary.worst or {}).items()}
    return {name: getattr(summary, name, None) for name in _COLUMNS} | worst


def _moment(since: str) -> float:
    """Return seconds since 1970. Raises ``UsageError`` for what is neither a span nor a date."""
    span = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", since)
    if span is not None:
        return time.time() - float(span[1]) * _UNITS[span[2]]
    try:
        return time.mktime(time.strptime(since, "%Y-%m-%d"))
    except ValueError:
        raise UsageError(
            f"--since must be a span or a date, not {since!r}", hint="such as 30m, 12h, 3d, 2w or 2026-05-31"
        ) from None


def _asked_for(summary: RunSummary, *, broken: bool, earliest: float | None) -> bool:
    """Return whether a run is asked for; one of which it is unknown when it began always is."""
    begun = earliest is None or summary.created is None or summary.created >= earliest
    return begun and (summary.troubled or not broken)


def _by_worst(summary: RunSummary) -> tuple[int, str]:
    if summary.fault is not None:
        return 0, str(summary.path)
    return 1 + [*SIGNS].index(summary.verdict or "no_data"), str(summary.path)


_ORDERS: dict[Sort, Callable[[RunSummary], tuple[object, ...]]] = {
    Sort.NAME: lambda summary: (str(summary.path),),
    Sort.CREATED: lambda summary: (-(summary.created or 0.0), str(summary.path)),
    Sort.UPDATES: lambda summary: (-(summary.updates or 0), str(summary.path)),
    Sort.RETURN: lambda summary: (
        math.inf if summary.episode_return is None else -summary.episode_return,
        str(summary.path),
    ),
    Sort.WORST: _by_worst,
}


def _lines(summaries: Sequence[RunSummary], directory: Path) -> list[str]:
    """Return titles and a line a run, none wider than ``WIDTH``: names lose their beginning, incidents their end."""
    rows = [_NARROW, *(_cells(summary, directory) for summary in summaries)]
    widths = [max(_columns(row[column]) for row in rows) for column in range(len(_NARROW))]
    room = WIDTH - sum(widths[2:-1]) - widths[0] - 2 * (len(widths) - 1)
    widths[1] = min(widths[1], max(_LEAST_NAME, room - widths[-1]))
    widths[-1] = min(widths[-1], room - widths[1])
    lines = [_line(row, widths) for row in rows]
    return [lines[0], "─" * max(map(_columns, lines)), *lines[1:]]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    sign, name, *reached, state, alarm = row
    numbers = [cell.rjust(width) for cell, width in zip(reached, widths[2:-2], strict=True)]
    cells = (sign.ljust(widths[0]), _tail(name, widths[1]), *numbers, state.ljust(widths[-2]))
    rule, space, update = alarm.rpartition(" ")
    short = (
        f"{rule[: widths[-1] - len(update) - 2]}…{space}{update}" if update.isdecimal() else cleaned(alarm, widths[-1])
    )
    short = alarm if len(alarm) <= widths[-1] else short
    return "  ".join((*cells, short)).rstrip()


def _tail(text: str, width: int) -> str:
    """Return ``text`` in so many columns of the terminal, without its beginning where it is longer."""
    shown = text
    while _columns(shown) > width:
        text = text[1:]
        shown = f"…{text}"
    return shown + " " * (width - _columns(shown))


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _cells(summary: RunSummary, directory: Path) -> tuple[str, ...]:
    inside = summary.path.relative_to(directory) if summary.path.is_relative_to(directory) else summary.path
    name = cleaned(summary.path.name if str(inside) == "." else inside, 200)
    if summary.ended is None:
        return "✗", name, "–", "–", "–", "damaged", str(summary.fault)
    worst = summary.worst
    alarm = "–" if worst is None else f"{worst['rule']} {worst['update']}"
    if worst is None and summary.judged:
        alarm = f"{summary.judged} judged"
    reached = (_short(summary.updates), _short(summary.env_steps), _short(summary.episode_return))
    state = "damaged" if summary.fault else summary.ended
    if summary.stalled_s is not None and not summary.fault:
        state = f"{state} {lasting(summary.stalled_s)}"
    return SIGNS[summary.verdict or "no_data"], name, *reached, state, alarm


def _short(value: float | None) -> str:
    """Return a number in at most 6 characters or so, "1.23M"; above 10,000 with three digits."""
    if value is None:
        return "–"
    if abs(value) < 1e4:
        return f"{value:.0f}" if isinstance(value, int) else f"{value:.4g}"
    for size, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if abs(value) < 999.5 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.2g}"
