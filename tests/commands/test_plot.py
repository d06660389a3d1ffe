"""``plot``: metrics of runs as a picture, over updates, steps, time or each other."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import esper_analyze as ea
from esper_analyze.detector.incidents import Incident
from esper_analyze.reports.metric_plots import Panel, against, between, fleet_panel, metric_named, plotted, run_panel
from esper_analyze.runs.run import RecordedRun, open_run
from esper_analyze.runs.series import Series
from tests.commands.conftest import Command
from tests.reports.synthetic import Rows, write_run


def spiked(update: int, rows: Rows) -> None:
    if 20 <= update < 24:
        rows["updates"][0]["kl_k3"] = 3.0


@pytest.fixture
def run(tmp_path: Path) -> RecordedRun:
    return open_run(write_run(tmp_path / "runs" / "one", 40, spiked))


def test_a_picture_is_written_and_named_on_stdout(command: Command, run: RecordedRun, tmp_path: Path) -> None:
    for name, magic in (("a.png", b"\x89PNG"), ("deep/b.svg", b"<?xml")):
        said = command("plot", run.path, "kl_k3", "entropy", "--out", tmp_path / name)
        assert (said.code, said.err, said.out) == (0, "", f"{tmp_path / name}\n")
        assert (tmp_path / name).read_bytes().startswith(magic)


@pytest.mark.parametrize("x", ["update", "env_steps", "time", "explained_variance"])
def test_several_runs_are_drawn_over_what_is_asked(x: str, command: Command, run: RecordedRun, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "two", 30)
    said = command("plot", f"{run.path.parent}/*", "kl_k3", "--x", x, "--last", 10, "--out", tmp_path / "a.svg")
    assert said.code == 0
    assert "one" in (tmp_path / "a.svg").read_text()
    assert "two" in (tmp_path / "a.svg").read_text()


def test_every_line_is_drawn_and_of_many_those_that_end_highest_and_lowest_are_named() -> None:
    last = dict(zip("abcdefghijkl", (5.0, 3.0, 9.0, 1.0, 2.0, 8.0, 7.0, 6.0, np.nan, 4.0, 0.0, 10.0), strict=True))
    updates = np.arange(3)
    measured = np.zeros(3, bool)
    lines = {name: Series(updates, np.array([7.0, 7.0, end]), measured) for name, end in last.items()}
    panel = Panel("kl", lines, 12)
    top, below = plotted([panel, replace(panel, title="other")]).axes
    legend = top.get_legend()
    assert legend is not None
    assert "".join(text.get_text()[0] for text in legend.get_texts()) == "lcfgbedk"
    assert len(top.lines) >= len(below.lines) >= 12
    assert "12 lines; named" in top.get_title(loc="left")
    assert "named" not in below.get_title(loc="left")


def test_places_on_the_x_axis_are_those_recorded(run: RecordedRun) -> None:
    updates = np.array([0, 3, 39])
    rows = run.frame("updates")
    assert against([("", run)], "update").of("")(updates) is updates
    steps = against([("", run)], "env_steps")
    assert (steps.title, steps.points) == ("env steps", False)
    assert steps.of("")(updates).tolist() == [rows["env_steps"][int(update)] for update in updates]
    clock = rows["wall_time"]
    time = against([("", run)], "time").of("")(updates)
    assert time.tolist() == pytest.approx([clock[int(update)] - clock[0] for update in updates])
    points = against([("", run)], "entropy")
    assert points.points
    assert points.of("")(np.array([3, 99])).tolist() == pytest.approx([rows["entropy"][3], math.nan], nan_ok=True)


def test_only_the_updates_asked_for_are_drawn_and_shaded(run: RecordedRun) -> None:
    incident = Incident("kl_spike", "run", "kl_k3", 20, 20, 23, "cleared", 3.0, 20, "critical", 4)
    panel = run_panel(run, metric_named("kl_k3"), None, [incident])
    whole, middle = between(panel, None, None), between(panel, 22, 30)
    assert whole.incidents == (incident,)
    assert middle.lines[""].update.tolist() == list(range(22, 31))
    assert [(one.start, one.end) for one in middle.incidents] == [(22, 23)]
    latest = between(panel, -5, None)
    assert latest.lines[""].update.tolist() == [35, 36, 37, 38, 39]
    assert latest.incidents == ()


def test_the_last_updates_are_those_of_each_run(run: RecordedRun, tmp_path: Path) -> None:
    other = open_run(write_run(tmp_path / "runs" / "two", 30))
    panel = between(fleet_panel([("one", run), ("two", other)], metric_named("kl_k3"), None), -3, None)
    assert {label: series.update.tolist() for label, series in panel.lines.items()} == {
        "one": [37, 38, 39],
        "two": [27, 28, 29],
    }


def test_incidents_are_shaded_where_their_updates_are(run: RecordedRun) -> None:
    figure = ea.open(run.path).plot("kl_k3", x="env_steps")
    steps = run.frame("updates")["env_steps"]
    (shaded,) = [patch.get_window_extent() for patch in figure.axes[0].patches if patch.get_alpha() == 0.16][:1]
    edges = figure.axes[0].transData.inverted().transform([[shaded.x0, 0], [shaded.x1, 0]])[:, 0]
    assert edges[0] == pytest.approx(steps[20], abs=60)


def test_a_run_without_a_clock_is_not_drawn_over_time(command: Command, tmp_path: Path) -> None:
    def clockless(update: int, rows: Rows) -> None:
        spiked(update, rows)
        rows["updates"][0]["wall_time"] = None

    path = write_run(tmp_path / "runs" / "one", 40, clockless)
    said = command("plot", path, "kl_k3", "--x", "time", "--out", tmp_path / "a.png")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "this run has no wall_time" in said.err


WRONG = [
    (["kl_k3"], "there is no run 'kl_k3'"),
    (["RUN"], "plot needs a metric"),
    (["RUN", "kl_k33"], "there is no metric 'kl_k33'"),
    (["RUN", "kl_k3", "--x", "heads.grad_norm"], "has a value for each head"),
    (["RUN", "kl_k3", "--x", "nothing"], "there is no metric 'nothing'"),
    (["RUN", "kl_k3", "--out", "a.pdf"], "neither .png nor .svg"),
    (["RUN", "kl_k3", "--last", "3", "--from", "2"], "cannot be combined"),
    (["RUN", "kl_k3", "--out", "RUN/a.png"], "lies inside a recorded run"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_what_cannot_be_drawn_is_said_in_a_sentence(
    words: list[str], message: str, command: Command, run: RecordedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = command("plot", *(word.replace("RUN", str(run.path)) for word in words))
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert message in said.err
    assert list(tmp_path.glob("*.p*")) == []


def test_the_python_api_draws_the_same(run: RecordedRun) -> None:
    figure = ea.open(run.path).plot("kl_k3", x="env_steps")
    (line, *_) = figure.axes[0].get_lines()
    assert np.asarray(line.get_xdata())[-1] == run.frame("updates")["env_steps"][39]
    assert figure.axes[0].get_xlabel() == "env steps"
