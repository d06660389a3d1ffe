"""The live screen: polls the run in a worker thread and shows the lines of ``panels``."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Static
from textual.worker import Worker, WorkerState

from esper_analyze.terminal import path_words
from esper_analyze.watch.follow import Follower
from esper_analyze.watch.panels import ScreenSection, sections
from esper_analyze.watch.snapshot import Snapshot, snapshot

HIGH = 34
"""Lines of the screen from which on the curves are shown: incidents and heads come first."""
PARTS = ("incidents", "curves", "heads", "recurrent", "data")
KEYS = " q quit  p pause  tab next part  ↑↓ scroll  ? help"
HELP = """\
q              quit; the training is not affected
p              pause or continue
tab, shift+tab next part, previous part; also → and ←
↑ ↓ page keys  scroll in the part
?  esc         show or close this help

▲ exploding, NaN, infinite     ▼ vanishing
○ dead: no gradient; frozen    ◇ deterministic; no choice
◐ partly masked: a choice at some steps only     ● ok

Each cell of a sparkline shows its largest value,
from zero up. 0: exactly zero; ·: not measured;
×: NaN or infinite. Open incidents come from the
detector in the training; `esper-analyze report`
judges the whole run again.
"""


class ScreenPart(Vertical):
    """One part of the screen: a title, fixed column titles, and scrolling lines."""

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        self._title, self._rule, self._columns, self._lines = (
            Static(classes=css_class, markup=False) for css_class in ("title", "rule", "columns", "lines")
        )

    def compose(self) -> ComposeResult:
        """Create the title, the column titles and the scrolling lines."""
        yield Horizontal(self._title, self._rule)
        yield self._columns
        yield VerticalScroll(self._lines)

    def show(self, section: ScreenSection) -> None:
        """Show the lines of ``section``."""
        self._title.update(section.title)
        self._rule.update("─" * self.size.width)
        self._columns.display = section.heads is not None
        self._columns.update(section.heads or "")
        self._lines.display = bool(section.lines)
        self._lines.update(Text("\n").join(section.lines))


class Help(ModalScreen[None]):
    """Keys and signs."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,question_mark,q", "dismiss", "back")]

    def compose(self) -> ComposeResult:
        """Create the help text."""
        yield Static(HELP, markup=False)


class WatchApp(App[BaseException]):
    """Shows a growing run. Returns an unexpected error, None when it was quit."""

    TITLE = "esper-analyze watch"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c,ctrl+q", "quit", "quit", priority=False),
        Binding("p", "pause", "pause"),
        Binding("question_mark", "help", "help"),
        Binding("right", "app.focus_next", show=False),
        Binding("left", "app.focus_previous", show=False),
    ]
    CSS = """
    #header, #keys, .columns, .lines { height: auto; width: 100%; }
    ScreenPart, ScreenPart Horizontal { height: auto; }
    .title { width: auto; padding-right: 1; }
    .rule { width: 1fr; height: 1; text-style: dim; }
    ScreenPart VerticalScroll { height: auto; overflow-x: hidden; scrollbar-size-vertical: 1; }
    .title { text-style: bold; }
    ScreenPart:focus-within .title { text-style: bold reverse; }
    #incidents { max-height: 40%; }
    #incidents VerticalScroll { max-height: 100%; }
    #heads { height: 1fr; min-height: 4; }
    #heads VerticalScroll { height: 1fr; }
    #recurrent VerticalScroll, #data VerticalScroll { max-height: 3; }
    #keys { text-style: dim; }
    Help { align: center middle; }
    Help Static { width: 60; max-width: 100%; height: auto; border: round; padding: 0 1; }
    """

    def __init__(self, follower: Follower, interval: float = 1.0) -> None:
        super().__init__(ansi_color=True)
        self.follower, self.interval = follower, interval
        self.shot: Snapshot | None = None
        self.paused = False
        self._polling = False
        # held here, because a poll may end while the help covers them, or while they are removed
        self._header = Static(f"reading {path_words(follower.path)} …", id="header", markup=False)
        self._parts = {name: ScreenPart(name) for name in PARTS}
        self._keys = Static(KEYS, id="keys", markup=False)

    def compose(self) -> ComposeResult:
        """Create the empty parts."""
        yield self._header
        yield from self._parts.values()
        yield self._keys

    def on_mount(self) -> None:
        """Start polling."""
        self.theme = "ansi-dark"
        self.query_one("#heads VerticalScroll").focus()
        self.set_interval(self.interval, self.refresh_run)
        self.refresh_run()

    def refresh_run(self) -> None:
        """Poll once more, unless the last poll is still running."""
        if self.paused or self._polling:
            return
        self._polling = True
        self.run_worker(self._poll, thread=True, exit_on_error=False)

    def _poll(self) -> Snapshot:
        self.follower.poll()
        return snapshot(self.follower)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Show the result of a poll."""
        if event.state == WorkerState.SUCCESS:
            self._polling = False
            self.shot = event.worker.result
            self.show()
        elif event.state == WorkerState.ERROR:
            self.exit(event.worker.error)

    def on_resize(self, event: Resize) -> None:  # noqa: ARG002
        """Lay out the lines for the new size."""
        self.show()

    def show(self) -> None:
        """Show the last snapshot; one column is reserved for scroll bars."""
        if self.shot is None or not self.is_running:
            return
        by_name = {section.name: section for section in sections(self.shot, max(self.size.width - 1, 40))}
        self._header.update(Text("\n").join(by_name["header"].lines))
        if self.size.height < HIGH:
            by_name.pop("curves", None)
        for name, part in self._parts.items():
            part.display = name in by_name
            if name in by_name:
                part.show(by_name[name])
        self._keys.update(("  PAUSED " if self.paused else "") + KEYS)

    def action_pause(self) -> None:
        """Pause or continue polling."""
        self.paused = not self.paused
        self.show()
        self.refresh_run()

    def action_help(self) -> None:
        """Show keys and signs."""
        self.push_screen(Help())
