"""A list of runs as lines of text for a given width, the same on the live screen and in a pipe."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.text import Text

from esper_analyze.reports.render.style import VERDICTS
from esper_analyze.terminal import cleaned, path_words
from esper_analyze.watch.panels import MUTED, ScreenSection, lasting, padded, wrapped
from esper_analyze.watch.run_list import DAMAGED, RunLine, RunLines
from esper_analyze.watch.writer import CRASHED, RUNNING
from esper_analyze.wording import SIGNS, number, tail

_TITLES = ("", "", "run", "update", "", "return", "left", "since", "worst incident")
_RIGHT = (3, 4, 5, 6, 7)
_NAME, _LAST = 2, 8
_LEAST_NAME = 16
_CLEANLY = "closed"


def list_sections(lines: RunLines, width: int) -> list[ScreenSection]:
    """Return the header, the running runs, and those that ended lately, where there are any."""
    rows = [_cells(line) for line in lines.shown]
    widths = _widths([_TITLES, *rows], width)
    drawn = [_line(line, row, widths, width) for line, row in zip(lines.shown, rows, strict=True)]
    count = len(lines.running)
    title = Text(f"{count or 'no'} {'run is' if count == 1 else 'runs are'} being written", "bold")
    running = ScreenSection("running", title, _columns(widths, width) if drawn else None, drawn[:count])
    return [_header(lines, width), running, *([_ended(lines, drawn[count:])] if lines.ended else [])]


def _header(lines: RunLines, width: int) -> ScreenSection:
    """Return where the runs lie, and how many are not shown."""
    words = []
    if lines.ended_lately > len(lines.ended):
        words.append(f"{lines.ended_lately - len(lines.ended):,} more ended lately")
    if lines.ended_earlier:
        words.append(f"{lines.ended_earlier:,} ended earlier")
    header = [Text(path_words(lines.directory), "bold")]
    if lines.is_empty:
        header += wrapped(f"waiting for {path_words(lines.directory)}: no run there yet", width)
    if words:
        command = f"esper-analyze ls {path_words(shlex.quote(lines.directory))}"
        header += wrapped(f"{', '.join(words)}: {command}", width, MUTED)
    return ScreenSection("header", Text(""), None, header)


def _ended(lines: RunLines, drawn: list[Text]) -> ScreenSection:
    title = f"{lines.ended_lately:,} ended lately" + (
        f", {lines.died_lately:,} of them died" if lines.died_lately else ""
    )
    return ScreenSection("ended", Text(title, "bold"), None, drawn)


def _cells(line: RunLine) -> tuple[str, ...]:
    """Return the cells of a line; what is unknown is –."""
    running = line.state == RUNNING
    share = f"{100 * line.progress:.0f} %" if running and line.progress is not None else ""
    return (
        *(SIGNS[line.verdict], _state(line), cleaned(line.name, 200)),
        *("–" if line.update is None else f"{line.update:,}", share, number(line.episode_return), _time(line)),
        "–" if line.worst is None else f"{line.worst.start:,}",
        _trouble(line),
    )


def _state(line: RunLine) -> str:
    if line.stalled_s is not None:
        return "stalled"
    return "late" if line.late else line.state


def _time(line: RunLine) -> str:
    """Return the time left, or since the last write of a late or ended run."""
    if line.state == RUNNING and not line.late:
        return "–" if line.left_s is None else lasting(line.left_s)
    return "–" if line.silent_s is None else f"{lasting(line.silent_s)} ago"


def _trouble(line: RunLine) -> str:
    """Return the worst open incident, what cannot be read, and how a run ended that did not close as planned."""
    ended = "" if line.state in (RUNNING, DAMAGED) or line.why == _CLEANLY else line.why
    rule = "" if line.worst is None else line.worst.rule
    return "; ".join(cleaned(words, 200) for words in (rule, line.fault, ended) if words) or "–"


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the width of each column; names and incidents share what the others leave."""
    widths = [max(Text(row[column]).cell_len for row in rows) for column in range(len(_TITLES))]
    room = width - (sum(widths) - widths[_NAME] - widths[_LAST]) - len(widths) + 1
    widths[_NAME] = min(widths[_NAME], max(_LEAST_NAME, room - widths[_LAST]))
    widths[_LAST] = max(1, min(widths[_LAST], room - widths[_NAME]))
    return widths


def _line(line: RunLine, row: Sequence[str], widths: Sequence[int], width: int) -> Text:
    bad = line.late or line.state in (CRASHED, DAMAGED)
    incident = "critical" if line.fault else None if line.worst is None else line.worst.verdict
    styles = {0: VERDICTS[line.verdict], 1: VERDICTS["warning"] if bad else ""}
    return _joined(row, widths, width, styles | {_LAST: "" if incident is None else VERDICTS[incident]})


def _columns(widths: Sequence[int], width: int) -> Text:
    return _joined(_TITLES, widths, width, dict.fromkeys(range(len(_TITLES)), MUTED))


def _joined(row: Sequence[str], widths: Sequence[int], width: int, styles: dict[int, str]) -> Text:
    joined = Text()
    for column, (cell, wide) in enumerate(zip(row, widths, strict=True)):
        text = padded(tail(cell, wide) if column == _NAME else cell, wide)
        if column in _RIGHT:
            text = Text(cell.rjust(wide))
        text.stylize(styles.get(column, ""))
        joined.append_text(text).append(" ")
    joined.rstrip()
    joined.truncate(width, overflow="ellipsis")
    return joined
