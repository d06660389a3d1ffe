"""The live screen, driven as a user drives it, on runs that lie still and on one that grows and is killed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from esper_analyze.watch.follow import Follower
from esper_analyze.watch.panels import printed, sections
from esper_analyze.watch.snapshot import snapshot
from esper_analyze.watch.view import PolledScreen, RunScreen, RunsScreen, ScreenPart, WatchApp
from tests.reports.conftest import trouble
from tests.reports.synthetic import write_run
from tests.watch.growing import GrowingRun, WriterProcess
from tests.watch.test_panels import SAMPLES, many_heads

NEVER = 3600.0
"""Seconds between two looks of the clock: a test looks when it wants to."""
BELOW = re.compile(r" \d+ more ↓$")
Play = Callable[[WatchApp, Pilot[BaseException]], Awaitable[None]]


def played(path: Path, play: Play, size: tuple[int, int] = (80, 24), interval: float = NEVER) -> WatchApp:
    """Run the screen on the run ``path`` and let ``play`` use it once the first look is shown."""
    return played_by(WatchApp([path], interval, only=path), play, size)


def played_by(app: WatchApp, play: Play, size: tuple[int, int] = (80, 24)) -> WatchApp:
    """Run ``app`` and let ``play`` use it once the first look is shown."""

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await shown(app, pilot)
            await play(app, pilot)

    asyncio.run(run())
    return app


async def shown(app: WatchApp, pilot: Pilot[BaseException]) -> None:
    """Wait for the look under way, and for the screen."""
    await pilot.pause()
    await app.workers.wait_for_complete()
    await pilot.pause()


async def look(app: WatchApp, pilot: Pilot[BaseException]) -> None:
    """Look once, as the clock would."""
    polled(app).poll()
    await shown(app, pilot)


def polled(app: WatchApp) -> PolledScreen[Any]:
    """Return the topmost screen that looks at runs."""
    return next(screen for screen in reversed(app.screen_stack) if isinstance(screen, PolledScreen))


def polls(app: WatchApp) -> int:
    """Return how often the run in sight was looked at."""
    screen = polled(app)
    assert isinstance(screen, RunScreen)
    return screen.follower.polls


def lines_of(app: WatchApp) -> list[str]:
    """Return what stands on the screen, line by line."""
    return [strip.text for strip in app.screen._compositor.render_strips()]


def screen_of(path: Path, size: tuple[int, int] = (80, 24)) -> list[str]:
    found: list[str] = []

    async def play(app: WatchApp, _: Pilot[BaseException]) -> None:
        found.extend(lines_of(app))

    played(path, play, size)
    return found


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
@pytest.mark.parametrize("name", ["one_update_collapse", "lstm_masks"])
def test_the_screen_shows_whole_lines_of_the_snapshot(name: str, size: tuple[int, int]) -> None:
    lines = screen_of(SAMPLES / name, size)
    assert [len(line) for line in lines] == [size[0]] * size[1]
    seen = Follower(SAMPLES / name)
    seen.poll()
    whole = {line.plain.rstrip() for line in printed(sections(snapshot(seen), size[0] - 1), size[0] - 1)}
    own = {BELOW.sub("", line).rstrip(" ▁▂▃▄▅▆▇█").rstrip("─ ") for line in lines[2:-1]}
    known = {line.rstrip(" ▁▂▃▄▅▆▇█").rstrip("─ ") for line in whole}
    assert own - known - {""} == set()


def test_at_80_by_24_header_incidents_heads_state_and_keys_are_all_there() -> None:
    said = "\n".join(screen_of(SAMPLES / "lstm_masks"))
    wanted = ["ENDED", "no open incidents ──", "4 heads", "recurrent state", "no data lost", "q quit"]
    assert [words for words in wanted if words not in said] == []
    assert "more ↓" not in said
    assert [head for head in ("style", "op ", "slot", "tempo") if head not in said] == []


def test_a_growing_run_is_followed_until_it_is_killed(tmp_path: Path) -> None:
    child, said = WriterProcess(tmp_path / "run"), []

    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        for update in range(3):
            child.add()
            await look(app, pilot)
            said.append("\n".join(lines_of(app)))
            assert f"update {update} of 200" in said[-1]
        child.kill()
        await look(app, pilot)
        said.append("\n".join(lines_of(app)))

    played(tmp_path / "run", play)
    assert all("RUNNING" in words for words in said[:3])
    assert "CRASHED" in said[3]
    assert "its writer is gone and did not close the run" in said[3]
    assert "update 2 of 200" in said[3]


def test_a_run_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        said = "\n".join(lines_of(app))
        assert "no run there yet" in said
        assert "no open incidents" not in said
        await look(app, pilot)
        write_run(tmp_path / "run", 3)
        await look(app, pilot)
        await shown(app, pilot)
        assert "update 2 of 3" in "\n".join(lines_of(app))

    played_by(WatchApp([tmp_path / "run"], NEVER), play)


def test_a_paused_screen_does_not_look_and_says_so(tmp_path: Path) -> None:
    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        await pilot.press("p")
        looks = polls(app)
        await look(app, pilot)
        assert (polls(app), "PAUSED" in lines_of(app)[-1]) == (looks, True)
        await pilot.press("p")
        await shown(app, pilot)
        assert (polls(app), "PAUSED" in lines_of(app)[-1]) == (looks + 1, False)

    played(write_run(tmp_path / "run", 3), play)


def test_tab_goes_from_part_to_part_and_arrows_scroll(tmp_path: Path) -> None:
    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        assert any(line.startswith("h10 ") for line in lines_of(app))
        await pilot.press("end")
        await pilot.pause()
        assert not any(line.startswith("h10 ") for line in lines_of(app))
        before = app.focused
        await pilot.press("tab")
        assert app.focused is not before
        await pilot.press("left")
        assert app.focused is before

    played(write_run(tmp_path / "run", 40, many_heads), play)


def test_help_explains_the_signs_and_goes_away_again() -> None:
    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        await pilot.press("question_mark")
        assert all(sign in str(app.screen.query_one(Static).render()) for sign in "▲▼○◇◐●·×")
        await look(app, pilot)
        await pilot.press("escape")
        assert "heads" in "\n".join(lines_of(app))
        await pilot.press("q")

    assert played(SAMPLES / "masked_healthy", play).return_code == 0


def test_the_clock_looks_by_itself(tmp_path: Path) -> None:
    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        while polls(app) < 3:
            await pilot.pause(0.02)

    played(write_run(tmp_path / "run", 3), play, interval=0.02)


def test_an_error_that_nobody_foresaw_ends_the_screen_and_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Follower) -> None:
        raise ZeroDivisionError("boom")

    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        monkeypatch.setattr(Follower, "poll", broken)
        polled(app).poll()
        while app.return_value is None:
            await pilot.pause(0.01)

    assert isinstance(played(write_run(tmp_path / "run", 3), play).return_value, ZeroDivisionError)


def part_of(app: WatchApp, name: str) -> ScreenPart:
    return app.screen.query_one(f"#{name}", ScreenPart)


def below(app: WatchApp, name: str) -> str:
    """Return what the title line of a part says of the lines below, without the part's other words."""
    line = lines_of(app)[part_of(app, name).region.y]
    found = BELOW.search(line)
    return "" if found is None else found[0].strip()


def test_a_part_says_how_many_lines_are_below_and_counts_down_as_it_scrolls(tmp_path: Path) -> None:
    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        in_sight = part_of(app, "heads").scrolled.size.height
        assert below(app, "heads") == f"{64 - in_sight} more ↓"
        await pilot.press("down", "down")
        await pilot.pause()
        assert below(app, "heads") == f"{62 - in_sight} more ↓"
        await pilot.press("end")
        await pilot.pause()
        assert below(app, "heads") == ""
        assert below(app, "recurrent") == ""

    played(write_run(tmp_path / "run", 40, many_heads), play)


@pytest.mark.parametrize("height", [24, 30, 34, 40, 60])
@pytest.mark.parametrize("name", ["growing_exploding", "one_update_collapse", "lstm_masks", "nan_reward"])
def test_all_parts_are_in_sight_whole_whatever_the_height(name: str, height: int) -> None:
    async def play(app: WatchApp, _: Pilot[BaseException]) -> None:
        shown_parts = [part for part in app.screen.query(ScreenPart) if part.display]
        assert [part.id for part in shown_parts][-1] == "data"
        assert max(part.region.bottom for part in shown_parts) < height
        assert all(part.scrolled.region.bottom <= part.region.bottom for part in shown_parts)
        assert "q quit" in lines_of(app)[-1]
        if any(below(app, str(part.id)) for part in shown_parts):
            assert max(part.region.bottom for part in shown_parts) == height - 1, "room is left though lines are hidden"

    played(SAMPLES / name, play, (80, height))


def test_the_worst_slot_is_in_sight_at_80_by_24() -> None:
    said = "\n".join(screen_of(SAMPLES / "growing_disconnected"))
    assert re.search(r"16 slots, 15 of 16 seed modules pass the gate ─+ \d+ more ↓", said)
    assert "env 5, early ⊘ disconnected" in said


def listing(path: Path, play: Play, size: tuple[int, int] = (80, 24)) -> WatchApp:
    return played_by(WatchApp([path], NEVER), play, size)


def test_a_list_opens_a_run_and_goes_back(tmp_path: Path) -> None:
    runs = [GrowingRun(tmp_path / name) for name in ("first", "second")]
    for count, run in enumerate(runs, start=3):
        run.add(count)
    write_run(tmp_path / "third", 9)

    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        assert "2 runs are being written" in lines_of(app)[1]
        for key, words in (("down", ""), ("enter", "update 3 of 200"), ("escape", ""), ("3", "update 8 of 9")):
            await pilot.press(key)
            await shown(app, pilot)
            if words:
                assert words in "\n".join(lines_of(app))
                assert "esc back" in lines_of(app)[-1]
        await pilot.press("backspace")
        await pilot.pause()
        assert isinstance(app.screen, RunsScreen)
        await pilot.press("9")
        await pilot.pause()
        assert isinstance(app.screen, RunsScreen)

    listing(tmp_path, play)
    for run in runs:
        run.die()


def test_a_list_shows_a_run_that_begins_and_one_that_dies_and_keeps_the_highlight(tmp_path: Path) -> None:
    first = GrowingRun(tmp_path / "m")
    first.add(3)
    write_run(tmp_path / "over", 2)

    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        assert "1 run is being written" in lines_of(app)[1]
        second = GrowingRun(tmp_path / "a")
        second.add(30, trouble)
        await look(app, pilot)
        lines = lines_of(app)
        assert "2 runs are being written" in lines[1]
        assert [line.split()[3] for line in lines[3:5]] == ["a", "m"]
        await pilot.press("enter")
        await shown(app, pilot)
        assert "m · " in lines_of(app)[0], "the highlighted run stays highlighted when another one comes before it"
        await pilot.press("escape")
        second.die()
        await look(app, pilot)
        said = "\n".join(lines_of(app))
        assert "1 run is being written" in said
        assert "2 ended lately, 1 of them died" in said
        assert re.search(r"✗ crashed a +29 ", said)

    listing(tmp_path, play)
    first.die()


def test_a_list_says_how_many_runs_are_below(tmp_path: Path) -> None:
    runs = [GrowingRun(tmp_path / f"run_{index}") for index in range(12)]
    for run in runs:
        run.add(1)

    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        assert below(app, "running") == "5 more ↓"
        await pilot.press("end")
        await pilot.pause()
        assert below(app, "running") == ""
        await look(app, pilot)
        assert below(app, "running") == "", "a poll scrolls back"

    listing(tmp_path, play, (80, 11))
    for run in runs:
        run.die()


def test_one_run_of_a_directory_is_shown_above_the_list(tmp_path: Path) -> None:
    path = write_run(tmp_path / "only", 3)

    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        assert "update 2 of 3" in "\n".join(lines_of(app))
        await pilot.press("escape")
        await shown(app, pilot)
        assert "1 ended lately" in "\n".join(lines_of(app))

    played_by(WatchApp([tmp_path], NEVER, only=path), play)


def test_a_run_alone_has_no_list_to_go_back_to() -> None:
    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        await pilot.press("escape", "backspace")
        await pilot.pause()
        assert isinstance(app.screen, RunScreen)
        assert "esc back" not in lines_of(app)[-1]

    played(SAMPLES / "masked_healthy", play)


def test_a_run_that_cannot_be_read_has_a_line_and_does_not_end_the_screen(tmp_path: Path) -> None:
    growing = GrowingRun(tmp_path / "sound")
    growing.add(2)
    broken = GrowingRun(tmp_path / "broken")
    broken.add(2)
    (broken.path / "run.json").write_text("{")

    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        assert re.search(r"1 ✗ damaged broken +\S", "\n".join(lines_of(app)))
        await pilot.press("1")
        await shown(app, pilot)
        assert isinstance(app.screen, RunsScreen)
        await pilot.press("2")
        await shown(app, pilot)
        assert "update 1 of 200" in "\n".join(lines_of(app))

    assert listing(tmp_path, play, (140, 24)).return_value is None
    for run in (growing, broken):
        run.die()
