"""The live screens: they poll runs in a worker thread and show the lines of ``panels`` and ``run_lines``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import Resize
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import Worker, WorkerState

from esper_analyze.terminal import cleaned, path_words
from esper_analyze.watch.follow import Follower
from esper_analyze.watch.panels import ScreenSection, sections
from esper_analyze.watch.run_lines import list_sections
from esper_analyze.watch.run_list import DAMAGED, RunLine, RunLines, RunList
from esper_analyze.watch.snapshot import Snapshot, snapshot

HIGH = 34
"""Lines of the screen from which on the curves are shown: incidents and heads come first."""
LEAST = {"incidents": 5, "heads": 2, "slots": 2, "recurrent": 2, "data": 1, "running": 4, "ended": 3}
"""Lines that a part has before another one has more; the curves are shown whole or not at all."""
PARTS = ("incidents", "curves", "heads", "slots", "recurrent", "data")
KEYS = "q quit  p pause  tab next part  ↑↓ scroll  ? help"
LIST_KEYS = "q quit  p pause  enter or 1–9 open a run  tab ↑↓ move  ? help"
BACK_KEY = "esc back  "
MOST_NUMBERED = 9
HELP = """\
q              quit; no training is affected
p              pause or continue
tab, shift+tab next part, previous part; also → and ←
↑ ↓ page keys  scroll in the part
enter, 1 to 9  open a run of a list
esc, backspace back to the list; esc closes this help

▲ exploding, NaN, infinite     ▼ vanishing
○ dead: no gradient; frozen    ◇ deterministic; no choice
◐ partly masked: a choice at some steps only     ● ok
✗ critical  ! warning  ? rules had no data  ✓ ok

Each cell of a sparkline shows its largest value,
from zero up. 0: exactly zero; ·: not measured;
×: NaN or infinite. Open incidents come from the
detector in the training; `esper-analyze report`
judges the whole run again.
"""
_News = TypeVar("_News")


def share_lines(parts: Sequence[ScreenSection], room: int) -> dict[str, int]:
    """Return how many lines of each part are in sight on ``room`` lines without header and keys.

    Each part gets what it needs at least, then all get one more in turn, as long as they have more and there is room.
    """
    wanted = {part.name: len(part.lines) for part in parts}
    shares = {part.name: _least(part) for part in parts}
    spare = room - least_height(parts)
    while spare > 0 and (short := [name for name, count in wanted.items() if shares[name] < count]):
        shares |= {name: shares[name] + 1 for name in short[:spare]}
        spare -= len(short)
    return shares


def least_height(parts: Iterable[ScreenSection]) -> int:
    """Return the lines that parts need at least, with their titles and column titles."""
    return sum(1 + (part.heads is not None) + _least(part) for part in parts)


def _least(part: ScreenSection) -> int:
    return min(len(part.lines), LEAST.get(part.name, len(part.lines)))


class ScreenPart(Vertical):
    """One part of a screen: a title, fixed column titles, and what scrolls; the title's rule says how much is below."""

    def __init__(self, name: str, scrolled: Widget) -> None:
        super().__init__(id=name)
        self._title, self._rule, self._below, self._columns = (
            Static(classes=css_class, markup=False) for css_class in ("title", "rule", "below", "columns")
        )
        self.scrolled = scrolled
        self._hidden = 0

    def compose(self) -> ComposeResult:
        """Create the title, the column titles and what scrolls."""
        yield Horizontal(self._title, self._rule, self._below)
        yield self._columns
        yield self.scrolled

    def on_mount(self) -> None:
        """Count the lines below again whenever it is scrolled."""
        self.watch(self.scrolled, "scroll_y", self._count)

    def show(self, section: ScreenSection, in_sight: int) -> None:
        """Show title and column titles of ``section``; of its lines, ``in_sight`` are seen at once."""
        self._title.update(section.title)
        self._rule.update("─" * self.app.size.width)
        self._columns.display = section.heads is not None
        self._columns.update(section.heads or "")
        self.scrolled.styles.height = in_sight
        self._hidden = len(section.lines) - in_sight
        self._count()

    def _count(self) -> None:
        """Say how many lines are below those in sight."""
        below = self._hidden - round(self.scrolled.scroll_y)
        self._below.update(f" {below} more ↓" if below > 0 else "")


class TextPart(ScreenPart):
    """A part of lines."""

    def __init__(self, name: str) -> None:
        self._lines = Static(classes="lines", markup=False)
        super().__init__(name, VerticalScroll(self._lines))

    def show(self, section: ScreenSection, in_sight: int) -> None:
        """Show the lines of ``section``."""
        super().show(section, in_sight)
        self._lines.update(Text("\n").join(section.lines))


class RunsPart(ScreenPart):
    """A part of lines that open a run each."""

    def __init__(self, name: str) -> None:
        self.options = OptionList(compact=True, markup=False)
        super().__init__(name, self.options)

    def list_runs(self, section: ScreenSection, in_sight: int, lines: Sequence[RunLine], first: int) -> None:
        """Show a numbered line for each run, counted from ``first``; the run that was highlighted stays so."""
        self.show(section, in_sight)
        self._columns.update(Text("  ").append_text(section.heads or Text()))
        texts = [
            Text(f"{number} " if number <= MOST_NUMBERED else "  ").append_text(text)
            for number, text in enumerate(section.lines, start=first)
        ]
        paths = [line.path for line in lines]
        if paths == [option.id for option in self.options.options]:
            for index, text in enumerate(texts):
                self.options.replace_option_prompt_at_index(index, text)
            return
        before = self.options.highlighted_option
        self.options.set_options(Option(text, id=path) for text, path in zip(texts, paths, strict=True))
        if paths:
            self.options.highlighted = paths.index(before.id) if before is not None and before.id in paths else 0


class Help(ModalScreen[None]):
    """Keys and signs."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,question_mark,q", "dismiss", "back")]

    def compose(self) -> ComposeResult:
        """Create the help text."""
        yield Static(HELP, markup=False)


class PolledScreen(Screen[None], Generic[_News]):
    """A screen that reads what is new in a thread, each ``interval`` seconds, and shows it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "pause"),
        Binding("question_mark", "help", "help"),
        Binding("right", "app.focus_next", show=False),
        Binding("left", "app.focus_previous", show=False),
    ]

    def __init__(self, interval: float, words: str) -> None:
        super().__init__()
        self.interval = interval
        self.news: _News | None = None
        self.paused = False
        self._polling = False
        # held here, because a poll may end while the help covers them, or while they are removed
        self._header = Static(words, id="header", markup=False)
        self._keys = Static(id="keys", markup=False)

    def read(self) -> _News:
        """Return what there is to show; called in a thread."""
        raise NotImplementedError

    def show(self, news: _News) -> str:
        """Show ``news`` and return the keys that are of use."""
        raise NotImplementedError

    def on_mount(self) -> None:
        """Start polling."""
        self.set_interval(self.interval, self.poll)
        self.poll()

    def poll(self) -> None:
        """Read once more, unless the last poll is still running."""
        if self.paused or self._polling:
            return
        self._polling = True
        self.run_worker(self.read, thread=True, exit_on_error=False)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Show the result of a poll."""
        if event.state == WorkerState.SUCCESS:
            self._polling = False
            self.news = event.worker.result
            self.show_again()
        elif event.state == WorkerState.ERROR:
            self.app.exit(event.worker.error)

    def on_resize(self, event: Resize) -> None:  # noqa: ARG002
        """Lay out the lines for the new size."""
        self.show_again()

    def show_again(self) -> None:
        """Show the last news."""
        if self.news is None or not self.is_running:
            return
        self._keys.update((" PAUSED  " if self.paused else " ") + self.show(self.news))

    def action_pause(self) -> None:
        """Pause or continue polling."""
        self.paused = not self.paused
        self.show_again()
        self.poll()

    def action_help(self) -> None:
        """Show keys and signs."""
        self.app.push_screen(Help())


class RunScreen(PolledScreen[Snapshot]):
    """One run. With ``listed``, the screen below lists runs."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,backspace", "back", "back")]

    def __init__(self, follower: Follower, interval: float, *, listed: bool = False) -> None:
        super().__init__(interval, f"reading {path_words(follower.path)} …")
        self.follower, self._listed = follower, listed
        self._parts = {name: TextPart(name) for name in PARTS}

    def compose(self) -> ComposeResult:
        """Create the empty parts."""
        yield self._header
        yield from self._parts.values()
        yield self._keys

    def on_mount(self) -> None:
        """Let keys scroll the heads."""
        self._parts["heads"].scrolled.focus()

    def read(self) -> Snapshot:
        """Poll the run."""
        self.follower.poll()
        return snapshot(self.follower)

    def show(self, news: Snapshot) -> str:
        """Show a snapshot; one column is reserved for scroll bars."""
        header, *parts = sections(news, max(self.size.width - 1, 40))
        self._header.update(Text("\n").join(header.lines))
        room = self.size.height - len(header.lines) - 1
        if self.size.height < HIGH or least_height(parts) > room:
            parts = [part for part in parts if part.name != "curves"]
        shares, by_name = share_lines(parts, room), {part.name: part for part in parts}
        for name, part in self._parts.items():
            part.display = name in by_name
            if name in by_name:
                part.show(by_name[name], shares[name])
        return (BACK_KEY if self._listed else "") + KEYS

    def action_back(self) -> None:
        """Return to the list of runs, if there is one."""
        if self._listed:
            self.dismiss()


class RunsScreen(PolledScreen[RunLines]):
    """Runs, a line each. ``rank`` is the one that is shown of a run that is opened.

    Where there was no run at all, the first one that begins is opened.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(str(number), f"open_run({number})", show=False) for number in range(1, MOST_NUMBERED + 1)
    ]

    def __init__(self, runs: RunList, interval: float, rank: int | None = None) -> None:
        super().__init__(interval, f"looking for runs in {path_words(runs.directory)} …")
        self.runs, self._rank, self._waiting = runs, rank, False
        self._parts = {name: RunsPart(name) for name in ("running", "ended")}

    def compose(self) -> ComposeResult:
        """Create the empty parts."""
        yield self._header
        yield from self._parts.values()
        yield self._keys

    def on_mount(self) -> None:
        """Let keys move among the running runs."""
        self._parts["running"].options.focus()

    def read(self) -> RunLines:
        """Poll every run that is being written."""
        return self.runs.poll()

    def show(self, news: RunLines) -> str:
        """Show the lines; columns are reserved for scroll bars and numbers."""
        header, *parts = list_sections(news, max(self.size.width - 3, 40))
        self._header.update(Text("\n").join(header.lines))
        shares = share_lines(parts, self.size.height - len(header.lines) - 1)
        by_name = {part.name: part for part in parts}
        self._parts["running"].list_runs(by_name["running"], shares["running"], news.running, 1)
        self._parts["ended"].display = "ended" in by_name
        if "ended" in by_name:
            self._parts["ended"].list_runs(by_name["ended"], shares["ended"], news.ended, len(news.running) + 1)
        if self._waiting and len(news.shown) == 1:
            self._open(news.shown[0])
        self._waiting = news.is_empty
        return LIST_KEYS

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Open the run of the line that Enter was pressed on."""
        if self.news is not None:
            self._open(next((line for line in self.news.shown if line.path == event.option_id), None))

    def action_open_run(self, number: int) -> None:
        """Open the run with a number."""
        if self.news is not None:
            self._open(next(iter(self.news.shown[number - 1 : number]), None))

    def _open(self, line: RunLine | None) -> None:
        """Show one run above the list; of one that cannot be read, the list says all there is."""
        if line is not None and line.state == DAMAGED:
            self.notify(cleaned(line.fault), severity="error", markup=False)
        elif line is not None:
            follower = Follower(Path(line.path), self._rank)
            self.app.push_screen(RunScreen(follower, self.interval, listed=True))


class WatchApp(App[BaseException]):
    """Shows runs that grow: ``only`` one of them, or a list. Returns an unexpected error, None when it was quit."""

    TITLE = "esper-analyze watch"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [Binding("q,ctrl+c,ctrl+q", "quit", "quit", priority=False)]
    CSS = """
    #header, #keys, .columns, .lines { height: auto; width: 100%; }
    ScreenPart, ScreenPart Horizontal { height: auto; }
    .title { width: auto; padding-right: 1; }
    .rule { width: 1fr; height: 1; text-style: dim; }
    .below { width: auto; }
    ScreenPart VerticalScroll, OptionList { height: auto; overflow-x: hidden; scrollbar-size-vertical: 1; }
    OptionList, OptionList:focus { border: none; padding: 0; background: transparent; }
    .title { text-style: bold; }
    ScreenPart:focus-within .title { text-style: bold reverse; }
    #keys { text-style: dim; dock: bottom; }
    Screen { overflow: hidden; }
    Help { align: center middle; }
    Help Static { width: 60; max-width: 100%; height: auto; border: round; padding: 0 1; }
    """

    def __init__(
        self, paths: Sequence[Path], interval: float = 1.0, rank: int | None = None, only: Path | None = None
    ) -> None:
        super().__init__(ansi_color=True)
        self._paths, self._interval, self._rank, self._only = paths, interval, rank, only

    def on_mount(self) -> None:
        """Show the run, above the list where a directory was given."""
        self.theme = "ansi-dark"
        listed = self._only is None or self._only not in self._paths
        if listed:
            self.push_screen(RunsScreen(RunList(self._paths), self._interval, self._rank))
        if self._only is not None:
            self.push_screen(RunScreen(Follower(self._only, self._rank), self._interval, listed=listed))
