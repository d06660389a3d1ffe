"""The live screen: looks again and again in a thread of its own, and shows the lines of ``panels``."""

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
from esper_analyze.watch.panels import Section, sections
from esper_analyze.watch.snapshot import Snapshot, snapshot

PARTS = ("incidents", "heads", "recurrent", "data")
KEYS = " q quit  p pause  tab next part  ↑↓ scroll  ? help"
HELP = """\
q              quit; the run does not notice
p              pause, and go on
tab, shift+tab next part, part before; also → and ←
↑ ↓ page keys  scroll in the part
?  esc         this help, and back

▲ exploding, NaN, infinite     ▼ vanishing
○ dead: no gradient; frozen    ◇ deterministic; no choice
◐ partly masked: a choice at some steps only     ● ok

In a line of bars each cell shows its largest value,
from zero up. 0: exactly zero; ·: not measured;
×: NaN or infinite. Open incidents are what the
detector in the training said; `esper-analyze report`
judges the whole run again.
"""


class Part(Vertical):
    """One part of the screen: a title, fixed heads of columns, and lines that scroll."""

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        self._title, self._rule, self._columns, self._lines = (
            Static(classes=place, markup=False) for place in ("title", "rule", "columns", "lines")
        )

    def compose(self) -> ComposeResult:
        """Make the title, the heads and the scrolling lines."""
        yield Horizontal(self._title, self._rule)
        yield self._columns
        yield VerticalScroll(self._lines)

    def show(self, section: Section) -> None:
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
        """Make the one text."""
        yield Static(HELP, markup=False)


class WatchApp(App[BaseException]):
    """Shows a run that grows. Returns the error that nobody foresaw, None when it was quit."""

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
    Part, Part Horizontal { height: auto; }
    .title { width: auto; padding-right: 1; }
    .rule { width: 1fr; height: 1; text-style: dim; }
    Part VerticalScroll { height: auto; overflow-x: hidden; scrollbar-size-vertical: 1; }
    .title { text-style: bold; }
    Part:focus-within .title { text-style: bold reverse; }
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
        self._looking = False
        # kept, because a look may end while the help stands before them, or while they are taken down
        self._header = Static(f"reading {path_words(follower.path)} …", id="header", markup=False)
        self._parts = {name: Part(name) for name in PARTS}
        self._keys = Static(KEYS, id="keys", markup=False)

    def compose(self) -> ComposeResult:
        """Make the parts, empty."""
        yield self._header
        yield from self._parts.values()
        yield self._keys

    def on_mount(self) -> None:
        """Begin to look."""
        self.theme = "ansi-dark"
        self.query_one("#heads VerticalScroll").focus()
        self.set_interval(self.interval, self.look)
        self.look()

    def look(self) -> None:
        """Look once more, unless the last look is still under way."""
        if self.paused or self._looking:
            return
        self._looking = True
        self.run_worker(self._look, thread=True, exit_on_error=False)

    def _look(self) -> Snapshot:
        self.follower.look()
        return snapshot(self.follower)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Show what a look found."""
        if event.state == WorkerState.SUCCESS:
            self._looking = False
            self.shot = event.worker.result
            self.show()
        elif event.state == WorkerState.ERROR:
            self.exit(event.worker.error)

    def on_resize(self, event: Resize) -> None:  # noqa: ARG002
        """Lay the lines out anew."""
        self.show()

    def show(self) -> None:
        """Show the last snapshot; one column is kept for scroll bars."""
        if self.shot is None or not self.is_running:
            return
        found = {section.name: section for section in sections(self.shot, max(self.size.width - 1, 40))}
        self._header.update(Text("\n").join(found["header"].lines))
        for name, part in self._parts.items():
            part.display = name in found
            if name in found:
                part.show(found[name])
        self._keys.update(("  PAUSED " if self.paused else "") + KEYS)

    def action_pause(self) -> None:
        """Stop looking, or go on."""
        self.paused = not self.paused
        self.show()
        self.look()

    def action_help(self) -> None:
        """Show keys and signs."""
        self.push_screen(Help())
