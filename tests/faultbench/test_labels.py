"""The bench's labels: from them and the recordings alone, ``backtest`` computes the figures of the bench's report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.replay.backtest import backtest, labelled_alarms
from esper_analyze.replay.labels import read_labels_of_many
from esper_analyze.replay.recall import (
    TITLES,
    AlarmSpan,
    LabelledAlarms,
    Recall,
    Share,
    false_alarms,
    fault_kinds,
    recall,
    run_groups,
)
from esper_analyze.replay.sweep import parse_sweep
from esper_analyze.strict_json import plain
from tests.faultbench import report
from tests.faultbench.draw import Setup, draw
from tests.faultbench.labels import main
from tests.faultbench.outcome import Made, write
from tests.faultbench.score import Judged, breakdown, judge, summary, with_twins
from tests.faultbench.tasks import TASKS
from tests.faultbench.training import LoopOutcome
from tests.reports.synthetic import Rows, write_run

UPDATES = 40
KINDS = ("", "nan_reward", "entropy_sign", "advantage_sign", "rate_halved", "clip_halved")
NAMES = tuple(rule.name for rule in RULES)


def setup(number: int, kind: str, onset: int) -> Setup:
    return replace(draw("tune", number), kind=kind, onset=onset if kind else 0, updates=UPDATES)


def made(one: Setup, random: np.random.Generator) -> Made:
    """Return a training that learns, stands still, or falls back after its onset."""
    known = TASKS[one.task]
    shares = np.linspace(0.0, random.choice([0.05, 0.5, 0.9]), UPDATES)
    if one.kind and random.random() < 0.6:
        shares[one.onset :] *= random.choice([0.2, 0.9])
    returns = known.by_chance + shares * (known.good - known.by_chance)
    return Made(one, LoopOutcome(returns.tolist(), [0.1] * UPDATES, str(random.choice(["", "", "", "ValueError"]))))


def trouble(random: np.random.Generator) -> Callable[[int, Rows], None]:
    """Return an edit that lets KL, ratio and gradients alarm here and there."""
    starts = {int(start) for start in random.integers(5, UPDATES, size=random.integers(0, 3))}
    wanted = str(random.choice(["kl", "nan", "ratio"]))

    def edit(update: int, rows: Rows) -> None:
        if update in starts:
            row = rows["updates"][0]
            row |= {"kl_k3": 3.0} if wanted == "kl" else {"ratio_max": 90.0}
            if wanted == "nan":
                row |= {"policy_loss": float("nan"), "kl_k3": 3.0}

    return edit


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of recordings as the bench leaves them, of trainings made up for each."""
    out, random = tmp_path_factory.mktemp("bench"), np.random.default_rng(0)
    for number in range(8):
        for kind in KINDS if number < 2 else ("", str(random.choice(KINDS[1:]))):
            one = setup(number, kind, int(random.integers(5, 30)))
            write(write_run(out / one.name, UPDATES, trouble(random)), made(one, random))
    return out


def theirs(judged: list[Judged]) -> tuple[object, ...]:
    rate = report.RATE
    groups = {
        (by, name): (figures["recall"], figures["sound updates"], figures["false incidents"], figures[rate])
        for by, members in breakdown(judged).items()
        for name, figures in members.items()
    }
    kinds = [
        (kind, of["runs"], of["harmed"], of["found"], of["named"], of["found first by"], of["missed"])
        for kind, of in report.by_kind(judged).items()
    ]
    false = [(of.rule, of.verdict, of.times, of.runs) for of in report.of_sound(judged)]
    return plain(summary(judged)), plain(groups), plain(kinds), plain(false)


def ours(runs: list[LabelledAlarms]) -> tuple[object, ...]:
    groups = {
        (of.group, of.value): (of.recall_net, of.sound_updates, of.false_incidents, of.false_per_1000)
        for of in run_groups(runs)
    }
    kinds = [
        (of.name, of.faults, of.harmful, of.found, of.named, of.found_first_by, of.missed) for of in fault_kinds(runs)
    ]
    false = [(of.rule, of.verdict, of.times, of.runs) for of in false_alarms(runs)]
    return (
        plain({TITLES[name]: value for name, value in recall(runs).items()}),
        plain(groups),
        plain(kinds),
        plain(false),
    )


def test_a_backtest_of_the_recordings_gives_the_bench_s_tables(bench: Path, tmp_path: Path) -> None:
    judged = judge(bench, "tune")
    file = tmp_path / "labels.json"
    assert main([str(bench), "--file", str(file)]) == 0
    defaults = Thresholds.defaults(RULES)
    result = backtest(sorted(bench.iterdir()), RULES, parse_sweep((), RULES), lambda _: defaults, labels_file=file)
    assert (result.broken, result.unlabelled) == ([], [])
    runs = [replace(run, run=Path(run.run).name) for run in labelled_alarms(result, 0)]
    assert ours(runs) == theirs(judged)
    figures = summary(judged)
    assert figures["recall"]["hits"] > figures["recall, net of the twin"]["hits"] > 0
    assert figures["false incidents"] > 0


def test_the_figures_agree_on_whatever_alarms(bench: Path, tmp_path: Path) -> None:
    file, random = tmp_path / "labels.json", np.random.default_rng(1)
    main([str(bench), "--file", str(file)])
    labels = {path.name: of for path, of in read_labels_of_many(file, NAMES).items()}
    trainings = judge(bench, "tune")
    for _ in range(200):
        drawn = [replace(one, alarms=alarms(random), twin=None) for one in trainings]
        judged = with_twins(drawn)
        spans = {one.made.setup.name: one.alarms for one in judged}
        runs = {name: LabelledAlarms(name, labels[name], UPDATES, of) for name, of in spans.items()}
        twins = {name: runs[of.labels.twin.name] for name, of in runs.items() if of.labels.twin is not None}
        assert ours([replace(of, twin=twins.get(name)) for name, of in runs.items()]) == theirs(judged)


def alarms(random: np.random.Generator) -> tuple[AlarmSpan, ...]:
    """Return some alarms of rules that name some of the faults, by start."""
    names = ("numerical_instability", "setting_changed", "advantage_misaligned", "kl_spike")
    spans = []
    for start in sorted(random.integers(0, UPDATES, size=random.integers(0, 4)).tolist()):
        end = None if random.random() < 0.3 else start + int(random.integers(0, 20))
        verdict = str(random.choice(["warning", "critical"]))
        spans.append(AlarmSpan(str(random.choice(names)), start, end, verdict, bool(random.random() < 0.7)))
    return tuple(spans)


def test_without_a_training_there_are_no_labels(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 2
    assert (tmp_path / "labels-tune.json").read_text() == "{}\n"


def test_every_figure_has_a_title_and_of_nothing_there_is_none() -> None:
    figures = dict(recall([]).items())
    assert list(figures) == list(TITLES) == list(Recall.__dataclass_fields__)
    assert figures["recall_net"] == Share(0, 0, 0.0, 1.0)
    assert figures["false_per_1000"] is None
    assert plain({TITLES[name]: value for name, value in figures.items()}) == plain(summary([]))
    assert Share(8, 10, 0.4901625, 0.9433178).words == "8 of 10: 80 % (49–94)"
