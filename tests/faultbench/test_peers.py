"""Tests of the peers in the fault bench: what they are given, how their alarms are counted, and the tables."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from esper_analyze.detector.rules import RULES
from esper_analyze.replay.recall import AlarmSpan
from esper_analyze.runs.run import open_run
from tests.faultbench import dashboard
from tests.faultbench.__main__ import main
from tests.faultbench.alarms import Check, stretches
from tests.faultbench.draw import draw
from tests.faultbench.make import make, setups
from tests.faultbench.outcome import Made
from tests.faultbench.peers import _RLDOCTOR, FILE, LIVE_EVERY, LIVE_WARM_UP, PEERS, Peer, _rldoctor, alarms_of
from tests.faultbench.recording import COLUMNS, EPISODES, Recording, recording, renamed
from tests.faultbench.report import DETECTORS, tables
from tests.faultbench.score import OURS, Judged, breakdown, judge_with, summary
from tests.faultbench.tasks import TASKS
from tests.faultbench.training import LoopOutcome

ROOT = Path(__file__).parents[2]


def checks(updates: int, firing: dict[int, str], every: int = 1) -> list[Check]:
    return [(n, {"rule": firing[n]} if n in firing else {}) for n in range(0, updates, every)]


def test_a_stretch_of_updates_in_alarm_is_one_alarm_of_its_worst_verdict() -> None:
    firing = {3: "warning", 4: "critical", 5: "warning"}
    assert stretches(checks(20, firing)) == (AlarmSpan("rule", 3, 5, "critical"),)


def test_an_alarm_that_returns_before_it_has_cleared_is_the_same() -> None:
    soon, late = dict.fromkeys((3, 7), "warning"), dict.fromkeys((3, 9), "warning")
    assert [(alarm.start, alarm.end) for alarm in stretches(checks(20, soon))] == [(3, 7)]
    assert [(alarm.start, alarm.end) for alarm in stretches(checks(20, late))] == [(3, 3), (9, 9)]


def test_an_alarm_at_the_last_check_has_no_end() -> None:
    assert stretches(checks(20, {19: "warning"})) == (AlarmSpan("rule", 19, None, "warning"),)
    assert AlarmSpan("rule", 19, None, "warning").lasts_until(100)


def test_of_a_detector_asked_every_25_updates_one_quiet_check_ends_an_alarm() -> None:
    firing = dict.fromkeys((25, 50, 100), "warning")
    spans = [(alarm.start, alarm.end) for alarm in stretches(checks(150, firing, 25))]
    assert spans == [(25, 50), (100, 100)]


SOUND: dict[str, float | None] = {
    "approx_kl": 0.01, "clip_fraction": 0.1, "entropy": 1.2, "policy_loss": -0.01, "value_loss": 0.5, "total_loss": 0.2,
    "explained_variance": 0.6, "advantage_mean": 0.1, "advantage_std": 1.0, "learning_rate": 3e-4, "ratio_mean": 1.0,
    "grad_norm_pre_clip": 0.8, "grad_norm_post_clip": 0.5, "nan_grad_count": 0, "inf_grad_count": 0,
    "nonfinite_minibatches": 0, "clip_fraction_negative": 0.05, "clip_fraction_positive": 0.05, "seconds": 0.1,
    "reward_mean": 10.0, "reward_std": 2.0, "reward_min": 5.0, "reward_max": 15.0, "recent_return_mean": 10.0,
    "recent_return_std": 2.0,
}  # fmt: skip


def scalars(updates: int, **changed: Callable[[int], float | None]) -> Recording:
    """Return a training that goes well, but for the values ``changed``, which are functions of the update."""
    rows = [SOUND | {"update": n} | {name: of(n) for name, of in changed.items()} for n in range(updates)]
    return Recording(tuple(rows), updates)


def from_update(onset: int, before: float | None, after: float | None) -> Callable[[int], float | None]:
    return lambda update: after if update >= onset else before


def test_the_dashboard_tells_nothing_of_a_training_that_goes_well() -> None:
    assert dashboard.judge(scalars(100, recent_return_mean=lambda n: 10.0 + n % 3)) == ()


@pytest.mark.parametrize("name", ["value_loss", "entropy", "grad_norm_pre_clip"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_dashboard_tells_what_is_not_a_number_in_that_update(name: str, value: float) -> None:
    alarms = dashboard.judge(scalars(50, **{name: lambda n: value if n == 20 else 1.0}))
    assert alarms == (AlarmSpan("not_finite", 20, 20, "critical"),)


@pytest.mark.parametrize(
    ("rule", "name", "beyond"),
    [
        ("approx_kl", "approx_kl", 0.06),
        ("clip_fraction", "clip_fraction", 0.51),
        ("explained_variance", "explained_variance", -0.01),
        ("entropy", "entropy", 0.11),
        ("gradient_norm", "grad_norm_pre_clip", 101.0),
    ],
)
def test_a_threshold_is_crossed_for_three_updates_before_the_dashboard_tells_it(
    rule: str, name: str, beyond: float
) -> None:
    assert dashboard.judge(scalars(50, **{name: from_update(20, SOUND[name], beyond)})) == (
        AlarmSpan(rule, 22, None, "warning"),
    )
    twice = {name: lambda n: beyond if n in (20, 21) else SOUND[name]}
    assert dashboard.judge(scalars(50, **twice)) == ()


def test_what_was_not_measured_neither_crosses_a_threshold_nor_ends_a_streak() -> None:
    every_other = {"approx_kl": lambda n: None if n % 2 else 0.06}
    assert [alarm.start for alarm in dashboard.judge(scalars(20, **every_other))] == [4]


def test_the_dashboard_tells_returns_below_half_way_to_their_best() -> None:
    rises_and_falls = {"recent_return_mean": lambda n: 10.0 + n if n < 30 else 20.0}
    assert dashboard.judge(scalars(50, **rises_and_falls)) == (AlarmSpan("episode_return", 32, None, "warning"),)
    noise = {"recent_return_mean": lambda n: 10.0 + (n < 30)}
    assert dashboard.judge(scalars(50, **noise)) == ()


def test_peers_see_the_cells_of_the_recorded_run() -> None:
    run = open_run(ROOT / "sample_runs/runs/masked_healthy")
    rows, updates = recording(run).rows, run.frame("updates").sort("update")
    kept = [name for name in COLUMNS if name in rows[0]]
    assert {"entropy", "explained_variance", "nan_grad_count"} <= {*kept}
    for name in kept:
        assert [row[name] for row in rows] == pytest.approx(updates[name].to_list(), nan_ok=True), name
    assert [row["reward_mean"] for row in rows] == pytest.approx(updates["episode_return_mean"].to_list())
    episodes = updates["episodes_finished"].cum_sum().to_list()
    assert [row["recent_return_mean"] is not None for row in rows] == [count >= EPISODES for count in episodes]


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.package])
def test_a_peer_tells_a_gradient_that_is_not_a_number_in_that_update(name: str) -> None:
    pytest.importorskip(PEERS[name].package.partition("==")[0].replace("rldoctor", "rl_doctor"))
    broken = {"nan_grad_count": from_update(99, 0, 5), "grad_norm_pre_clip": from_update(99, 0.8, math.nan)}
    last = PEERS[name].judge(scalars(100, **broken))[-1]
    assert (last.rule.lower(), last.start, last.end) in {
        ("grad_pathology", 99, None),
        ("gradient_pathology", 99, None),
    }
    assert last.verdict == "critical"


@pytest.mark.parametrize("every", [1, LIVE_EVERY])
def test_rl_doctor_is_asked_as_its_live_monitor_asks(every: int) -> None:
    live = pytest.importorskip("rl_doctor.live")
    rows = scalars(
        160,
        entropy=lambda n: 1.2 * 0.95**n,
        approx_kl=from_update(120, None, math.nan),
        grad_norm_pre_clip=lambda n: math.inf if n == 130 else 1.0 + n % 5,
        reward_mean=lambda n: math.sin(n / 9) - (n / 50) ** 2,
    )
    warm_up = live.DEFAULT_MIN_STEPS
    monitor = live.LiveMonitor({"algorithm": "ppo", "max_steps": 160}, check_every=every, on_finding=lambda _: None)
    told = []
    for row in rows.rows:
        told += [
            (int(row["update"] or 0), each.detector) for each in monitor.log(renamed(row, _RLDOCTOR), row["update"])
        ]
    alarms = _rldoctor(rows, every=every, warm_up=warm_up)
    first: dict[str, int] = {}
    for update, detector in told:
        first.setdefault(detector, update)
    assert len(first) >= 2
    assert {alarm.rule: alarm.start for alarm in reversed(alarms)} == first
    assert inspect.signature(live.LiveMonitor).parameters["check_every"].default == LIVE_EVERY
    assert warm_up == LIVE_WARM_UP


def test_the_rules_that_a_peers_rules_stand_for_exist() -> None:
    assert {rule for peer in PEERS.values() for means in peer.means.values() for rule in means} <= {
        rule.name for rule in RULES
    }


def test_a_peers_answer_is_cached_until_its_version_changes(tmp_path: Path) -> None:
    asked: list[int] = []
    alarms = (AlarmSpan("rule", 3, None, "warning"),)

    def answers(of: Recording) -> tuple[AlarmSpan, ...]:
        asked.append(len(of.rows))
        return alarms

    peer = Peer(answers, package="numpy==1")
    assert [alarms_of(peer, "peer", tmp_path, scalars(5)) for _ in range(2)] == [alarms, alarms]
    assert asked == [5]
    cached = json.loads((tmp_path / FILE).read_text())
    cached["peer"]["version"] = "an earlier one"
    (tmp_path / FILE).write_text(json.dumps(cached))
    assert alarms_of(peer, "peer", tmp_path, scalars(6)) == alarms
    assert asked == [5, 6]


def test_what_is_not_installed_answers_from_its_cache_alone(tmp_path: Path) -> None:
    peer = Peer(lambda _: (), package="no-such-package==1")
    assert alarms_of(peer, "peer", tmp_path, scalars(5)) is None
    (tmp_path / FILE).write_text(json.dumps({"peer": {"version": peer.version, "alarms": []}}))
    assert alarms_of(peer, "peer", tmp_path, scalars(5)) == ()


def judged(kind: str, shares: list[float], *alarms: AlarmSpan, onset: int = 2, detector: str = OURS) -> Judged:
    """Return a training with these returns, 0 that of random actions and 1 a good one."""
    task = TASKS["chain"]
    returns = [task.by_chance + share * (task.good - task.by_chance) for share in shares]
    setup = replace(draw("tune", 0), task="chain", kind=kind, onset=onset, updates=len(shares))
    return Judged(Made(setup, LoopOutcome(returns, [0.1] * len(shares))), alarms, None, detector)


GOOD, FALLEN = [0.1, 0.5, 0.9, 0.9, 0.9], [0.1, 0.5, 0.4, 0.4, 0.4]
LATER = AlarmSpan("later", 3, None, "warning")


@pytest.mark.parametrize(
    ("of_twin", "counted"),
    [
        ((LATER,), False),
        ((AlarmSpan("later", 0, 2, "warning"),), False),
        ((AlarmSpan("later", 0, 1, "critical"),), True),
        ((AlarmSpan("another", 0, None, "warning"),), True),
    ],
)
def test_a_rule_that_alarms_the_twin_from_the_onset_on_is_not_counted(
    of_twin: tuple[AlarmSpan, ...], counted: bool
) -> None:
    faulty = replace(judged("reward_sign", FALLEN, LATER), twin=judged("", GOOD, *of_twin))
    assert (faulty.after_change.found is not None) is counted
    assert summary([faulty])["recall"]["hits"] == 1


def test_a_fault_counts_as_much_as_the_returns_that_it_cost() -> None:
    sound = judged("", GOOD)
    found = replace(judged("reward_sign", FALLEN, LATER), twin=sound)
    missed = replace(judged("reward_0", [0.1, 0.5, 0.8, 0.8, 0.8]), twin=sound)
    assert [found.harm, missed.harm] == pytest.approx([0.5, 0.1])
    assert summary([sound, found, missed])["recall, net, weighted by harm"] == pytest.approx(0.5 / 0.6)
    died = replace(found, made=replace(found.made, outcome=replace(found.made.outcome, died="ValueError")))
    assert died.harm == 1.0
    assert replace(judged("reward_sign", [0.1, 0.5, 1.0, 1.0, 1.0]), twin=sound).harm == 0.0


def test_a_peer_names_a_cause_by_what_its_rule_stands_for() -> None:
    fallen = AlarmSpan("episode_return", 3, None, "warning")
    assert judged("reward_sign", FALLEN, fallen, detector="dashboard").after_change.named
    assert not judged("reward_sign", FALLEN, fallen).after_change.named
    assert not judged("reward_sign", FALLEN, replace(fallen, rule="entropy"), detector="dashboard").after_change.named


def test_consequences_and_repetitions_are_counted_apart() -> None:
    again, under = AlarmSpan("again", 0, 0, "warning"), AlarmSpan("under", 1, 1, "critical", leading=False)
    figures = summary([judged("", [0.9] * 500, again, replace(again, start=90, end=90), under)])
    rate = "false incidents per 1,000 sound updates"
    assert figures[rate] == pytest.approx(4.0)
    assert figures[f"{rate}, with consequences"] == pytest.approx(6.0)
    assert figures[f"{rate}, each rule once a training"] == pytest.approx(2.0)


def test_trainings_are_grouped_by_length() -> None:
    lengths = [judged("", [0.5] * updates) for updates in (120, 121, 240, 241)]
    groups = breakdown(lengths)["length"]
    assert [(name, figures["sound updates"] > 0) for name, figures in groups.items()] == [
        ("120 updates or fewer", False),
        ("121–240 updates", False),
        ("241 updates or more", False),
    ]


def test_a_detector_that_is_not_installed_has_a_cell_that_says_so() -> None:
    sound = judged("", GOOD)
    trainings = {OURS: [sound, replace(judged("reward_sign", FALLEN, LATER), twin=sound)]}
    for table in tables(trainings, (OURS, "rlprobe"), "tune")[:3]:
        assert table.rows[0][table.columns.index("rlprobe")] == "not installed: pip install rlprobe==0.1.0"
    assert "| figure | ours | rlprobe |" in tables(trainings, (OURS, "rlprobe"), "tune")[0].as_markdown()


def test_the_report_stands_beside_its_peers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for setup in setups("tune", 1, 1):
        quick = replace(setup, environments=4, steps=16, epochs=1, minibatches=2)
        make(tmp_path / "runs", replace(quick, updates=6, onset=min(setup.onset, 3)))
    by_detector = judge_with((OURS, "dashboard"), tmp_path / "runs", "tune")
    assert [training.twin for training in by_detector["dashboard"]] == [None, by_detector["dashboard"][0]]
    files = {name: tmp_path / f"figures.{name}" for name in ("json", "markdown")}
    options = [part for name, file in files.items() for part in (f"--{name}", str(file))]
    assert main([str(tmp_path / "runs"), "--report", "--processes", "1", *options]) == 0
    shown, figures = capsys.readouterr().out, json.loads(files["json"].read_text())
    assert all(name in shown for name in DETECTORS)
    assert {OURS, "dashboard"} <= figures["detectors"].keys() <= {*DETECTORS}
    kinds = figures["detectors"][OURS]["kinds"].values()
    assert all(len(of["missed"]) + of["found"] == of["runs"] for of in kinds)
    assert files["markdown"].read_text().count("\n| --- |") == 5
