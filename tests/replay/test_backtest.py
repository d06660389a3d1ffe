"""Backtest: its numbers are those of one full replay for each setting, at the price of reading each run once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from esper_analyze.detector.rule import Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import streak, zeros
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.detector.verdict import Bounds, Judgement, settle
from esper_analyze.replay import backtest as module
from esper_analyze.replay.backtest import Backtest, backtest
from esper_analyze.replay.batches import read_batches
from esper_analyze.replay.replay import replay
from esper_analyze.replay.scores import ALL_RULES, Score, detections, scores
from esper_analyze.replay.sweep import parse_sweep
from esper_analyze.runs.run import RecordedRun, open_run
from tests.reports.synthetic import Rows, write_run

SWEEPS = ("far.critical=0.005,0.02,0.5,3", "far.times=1,3", "loud.warning=1.5,5,50")


@dataclass(frozen=True, slots=True)
class Bound(Limits):
    """Bounds on one column, the lower one ``times`` running."""

    warning: float = limit(0.1, "made up")
    critical: float = limit(0.5, "made up")
    times: int = limit(2, "made up", at_least=1)


def bounded(name: str, column: str, limits: type[Limits] = Bound) -> Rule:
    """Return a rule on one column of ``updates`` that no change of the built-in rules touches."""

    def judge(frame: Frame, memory: Memory, limits: Bound) -> list[Judgement]:
        seen = frame[column]
        often = streak(seen.values > limits.warning, seen.values <= limits.warning, memory["often"]) >= limits.times
        return [settle(column, seen, Bounds(warning=often, critical=seen.values > limits.critical))]

    return Rule(name, "updates", (column,), limits, judge, name, name, name, name, (), memory={"often": zeros})


@dataclass(frozen=True, slots=True)
class Loud(Bound):
    """Bounds for ratios."""

    warning: float = limit(5.0, "made up")
    critical: float = limit(20.0, "made up")
    times: int = limit(1, "made up", at_least=1)


RULES = (bounded("far", "kl_k3"), bounded("silent", "first_ratio_error"), bounded("loud", "ratio_max", Loud))


def spike(at: int, kl: float = 0.7) -> Callable[[int, Rows], None]:
    """From ``at`` on, KL and ratio are too high for four updates."""

    def edit(update: int, rows: Rows) -> None:
        if at <= update < at + 4:
            rows["updates"][0] |= {"kl_k3": kl, "ratio_max": 8.0 * (1 + update - at)}

    return edit


def label(path: Path, *faults: tuple[str, int, str]) -> Path:
    text = "".join(f'[[fault]]\nname = "{name}"\nonset = {onset}\nrules = [{rules}]\n' for name, onset, rules in faults)
    (path / "labels.toml").write_text(text or "healthy = true")
    return path


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("labelled")
    return [
        label(write_run(folder / "healthy", 50)),
        label(write_run(folder / "early", 40, spike(10)), ("early", 10, '"far"')),
        label(write_run(folder / "milder", 40, spike(10, 0.3)), ("milder", 8, '"far", "loud"')),
        label(write_run(folder / "overlooked", 30), ("nothing to see", 20, '"far"')),
    ]


def defaults(_run: RecordedRun) -> Thresholds:
    return Thresholds.defaults(RULES)


def judged(paths: list[Path], *asked: str) -> Backtest:
    return backtest(paths, RULES, parse_sweep(asked, RULES), defaults)


def alarm_starts(path: Path, thresholds: Thresholds, rules: set[str]) -> list[int]:
    return [i.start for i in replay(open_run(path), thresholds, rules=RULES).incidents if i.rule in rules]


def expected(paths: list[Path], score: Score) -> tuple[int, list[int]]:
    """Return false alarms and delays of one setting from a full replay of every run."""
    onsets = {"healthy": 50, "early": 10, "milder": 8, "overlooked": 20}
    listed = {"early": {"far"}, "milder": {"far", "loud"}, "overlooked": {"far"}}
    rules = {rule.name for rule in RULES} if score.rule == ALL_RULES else {score.rule}
    false, delays = 0, []
    for path in paths:
        thresholds = Thresholds.defaults(RULES)
        for name, value in score.values:
            thresholds = thresholds.assigned(f"{name if '.' in name else f'{score.rule}.{name}'}={value}")
        false += sum(start < onsets[path.name] for start in alarm_starts(path, thresholds, rules))
        found = alarm_starts(path, thresholds, rules & listed.get(path.name, set()))
        delays += [start - onsets[path.name] for start in found if start >= onsets[path.name]][:1]
    return false, delays


def test_one_pass_gives_the_numbers_of_a_full_replay_for_each_setting(labelled: list[Path]) -> None:
    found = scores(judged(labelled, *SWEEPS))
    assert len(found) == 8 + 3 + 24
    for score in found:
        false, delays = expected(labelled, score)
        assert (score.false_alarms, score.found) == (false, len(delays)), score
        assert score.longest_delay == max(delays, default=None)
    assert len({score.false_alarms for score in found}) > 2


def test_without_a_sweep_every_rule_is_scored_as_recorded(labelled: list[Path]) -> None:
    found = scores(judged(labelled))
    assert [score.rule for score in found] == [*(rule.name for rule in RULES), ALL_RULES]
    by_rule = {score.rule: score for score in found}
    assert (by_rule["far"].found, by_rule["far"].faults) == (2, 3)
    assert by_rule["far"].recall == pytest.approx(2 / 3)
    assert by_rule["far"].healthy_updates == 50 + 10 + 8 + 20
    assert by_rule["silent"].recall is None
    assert by_rule[ALL_RULES].faults == 3


def test_rates_are_per_thousand_healthy_updates(labelled: list[Path]) -> None:
    score = scores(judged(labelled, "loud.warning=1.2"))[0]
    assert score.false_alarms > 0
    assert score.per_1000 == pytest.approx(1000 * score.false_alarms / 88)


def test_each_run_is_read_once_however_many_settings(labelled: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    whole = read_batches

    def counted(run: RecordedRun, wanted: dict[str, tuple[str, ...]]) -> object:
        read.append(run.path)
        return whole(run, wanted)

    monkeypatch.setattr(module, "read_batches", counted)
    judged(labelled, *SWEEPS)
    assert read == labelled


def test_detections_say_which_rule_found_each_fault_and_when(labelled: list[Path]) -> None:
    found = {one.fault: one for one in detections(judged(labelled))}
    assert (found["early"].rule, found["early"].update, found["early"].delay) == ("far", 10, 0)
    assert (found["milder"].rule, found["milder"].delay) == ("loud", 2)
    assert (found["nothing to see"].rule, found["nothing to see"].update) == (None, None)


def test_an_alarm_after_the_fault_is_over_does_not_find_it(tmp_path: Path) -> None:
    path = label(write_run(tmp_path / "run", 40, spike(10)), ("over", 5, '"far"'))
    (path / "labels.toml").write_text((path / "labels.toml").read_text() + "until = 9\n")
    score = next(score for score in scores(judged([path])) if score.rule == "far")
    assert (score.found, score.false_alarms) == (0, 0)


def test_a_verdict_that_gets_worse_in_a_fault_finds_it_though_the_incident_began_before(tmp_path: Path) -> None:
    def worsening(update: int, rows: Rows) -> None:
        rows["updates"][0]["ratio_max"] = 7.0 if update < 20 else 90.0

    path = label(write_run(tmp_path / "run", 30, worsening), ("worse", 20, '"loud"'))
    score = next(score for score in scores(judged([path])) if score.rule == "loud")
    assert (score.found, score.median_delay, score.false_alarms) == (1, 0, 1)


def test_unlabelled_and_broken_runs_are_named_and_stop_no_other(labelled: list[Path], tmp_path: Path) -> None:
    bare = write_run(tmp_path / "bare", 5)
    damaged = label(write_run(tmp_path / "damaged", 5))
    next(damaged.rglob("updates-*.parquet")).write_bytes(b"")
    late = label(write_run(tmp_path / "late", 5), ("never came", 5, '"far"'))
    wrong = write_run(tmp_path / "wrong", 5)
    (wrong / "labels.toml").write_text("healty = true")
    result = judged([bare, damaged, late, wrong, *labelled])
    assert result.unlabelled == [bare]
    assert [run.path for run in result.tested] == labelled
    told = dict(result.broken)
    assert "updates-000001.parquet has 0 bytes" in told[damaged]
    assert "fault 'never came' begins at update 5, the run ends at update 4" in told[late]
    assert "there is no key 'healty'; did you mean 'healthy'?" in told[wrong]
    assert scores(result) == scores(judged(labelled))


def test_progress_is_told_in_thousandths_of_runs(labelled: list[Path]) -> None:
    told: list[int] = []
    backtest(labelled, RULES, parse_sweep((), RULES), defaults, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == len(labelled) * module.STEPS
