"""The live screen, driven as a user drives it, on runs that lie still and on one that grows and is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from esper_analyze.watch.follow import Follower
from esper_analyze.watch.panels import plain
from esper_analyze.watch.snapshot import snapshot
from esper_analyze.watch.view import WatchApp
from tests.reports.synthetic import write_run
from tests.watch.growing import Child
from tests.watch.test_panels import SAMPLES, many_heads

NEVER = 3600.0
"""Seconds between two looks of the clock: a test looks when it wants to."""
Play = Callable[[WatchApp, Pilot[BaseException]], Awaitable[None]]


def played(path: Path, play: Play, size: tuple[int, int] = (80, 24), interval: float = NEVER) -> WatchApp:
    """Run the screen on ``path`` and let ``play`` use it once the first look is shown."""
    app = WatchApp(Follower(path), interval)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await shown(app, pilot)
            await play(app, pilot)

    asyncio.run(run())
    return app


async def shown(app: WatchApp, pilot: Pilot[BaseException]) -> None:
    """Wait for the look under way, and for the screen."""
    await app.workers.wait_for_complete()
    await pilot.pause()


async def look(app: WatchApp, pilot: Pilot[BaseException]) -> None:
    """Look once, as the clock would."""
    app.refresh_run()
    await shown(app, pilot)


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
    whole = {line.plain.rstrip() for line in plain(snapshot(seen), size[0] - 1)}
    own = {line.rstrip(" ▁▂▃▄▅▆▇█").rstrip("─ ") for line in lines[2:-1]}
    known = {line.rstrip(" ▁▂▃▄▅▆▇█").rstrip("─ ") for line in whole}
    assert own - known - {""} == set()


def test_at_80_by_24_header_incidents_heads_state_and_keys_are_all_there() -> None:
    said = "\n".join(screen_of(SAMPLES / "lstm_masks"))
    wanted = ["ENDED", "1 open incident", "4 heads", "recurrent state", "no data lost", "q quit"]
    assert [words for words in wanted if words not in said] == []
    assert [head for head in ("style", "op ", "slot", "tempo") if head not in said] == []


def test_a_growing_run_is_followed_until_it_is_killed(tmp_path: Path) -> None:
    child, said = Child(tmp_path / "run"), []

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
        write_run(tmp_path / "run", 3)
        await look(app, pilot)
        assert "update 2 of 3" in "\n".join(lines_of(app))

    played(tmp_path / "run", play)


def test_a_paused_screen_does_not_look_and_says_so(tmp_path: Path) -> None:
    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        await pilot.press("p")
        looks = app.follower.polls
        await look(app, pilot)
        assert (app.follower.polls, "PAUSED" in lines_of(app)[-1]) == (looks, True)
        await pilot.press("p")
        await shown(app, pilot)
        assert (app.follower.polls, "PAUSED" in lines_of(app)[-1]) == (looks + 1, False)

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
        while app.follower.polls < 3:
            await pilot.pause(0.02)

    played(write_run(tmp_path / "run", 3), play, interval=0.02)


def test_an_error_that_nobody_foresaw_ends_the_screen_and_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Follower) -> None:
        raise ZeroDivisionError("boom")

    async def play(app: WatchApp, pilot: Pilot[BaseException]) -> None:
        monkeypatch.setattr(Follower, "poll", broken)
        app.refresh_run()
        while app.return_value is None:
            await pilot.pause(0.01)

    assert isinstance(played(write_run(tmp_path / "run", 3), play).return_value, ZeroDivisionError)
