"""Scores of a backtest, worked out by hand from results made up for each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.replay import backtest as module
from esper_analyze.replay.backtest import STEPS, Backtest, backtest, labelled_faults
from esper_analyze.replay.labels import LabelledFault, Labels, LabelsError
from esper_analyze.replay.scores import ALL_RULES, Detection, Score, detections, scores
from esper_analyze.replay.sweep import Sweep, Variant, parse_sweep
from tests.replay.made import in_parts, run, updates

A, B = Variant("a"), Variant("b")
LOW, HIGH = Variant("a", (("limit", 0.5),)), Variant("a", (("limit", 2.0),))


def finding(update: int, verdict: str, previous: str | None = "ok", rule: str = "a") -> Finding:
    return Finding(update, rule, "run", "m", verdict, previous, 1.0, None, None, None)


def labelled(*faults: LabelledFault, healthy: int = 0, false: dict[Variant, int] | None = None,
           found: dict[tuple[Variant, int], int] | None = None) -> module.Tested:  # fmt: skip
    return module.Tested(Path("run"), Labels(faults), 0, healthy, Counter(false or {}), dict(found or {}))


@pytest.mark.parametrize(
    ("verdict", "previous", "false", "found"),
    [
        ("warning", "ok", 1, True), ("critical", None, 1, True), ("critical", "info", 1, True),
        ("critical", "warning", 0, True), ("warning", "critical", 0, False), ("warning", "warning", 0, False),
        ("info", "ok", 0, False), ("ok", "critical", 0, False), ("no_data", "ok", 0, False),
    ],
)  # fmt: skip
def test_an_incident_that_begins_is_a_false_alarm_and_an_alarm_that_worsens_a_detection(
    verdict: str, previous: str | None, false: int, found: bool
) -> None:
    healthy, faulty = labelled(), labelled(LabelledFault("f", 5, ("a",)))
    healthy.take(A, finding(3, verdict, previous))
    faulty.take(A, finding(7, verdict, previous))
    assert (healthy.false_alarms[A], healthy.found) == (false, {})
    assert (faulty.false_alarms[A], faulty.found) == (0, {(A, 0): 7} if found else {})


def test_before_its_onset_an_alarm_is_false_and_from_it_on_a_detection_by_the_listed_rules() -> None:
    faults = LabelledFault("first", 5, ("a",), until=8), LabelledFault("second", 7, ("a", "b"))
    one = labelled(*faults)
    one.take(A, finding(4, "warning"))
    one.take(A, finding(5, "warning"))
    one.take(B, finding(6, "warning", rule="b"))
    one.take(A, finding(8, "critical"))
    one.take(B, finding(9, "warning", rule="b"))
    assert one.false_alarms == Counter({A: 1})
    assert one.found == {(A, 0): 5, (A, 1): 8, (B, 1): 9}
    assert labelled_faults(Backtest((), Sweep({}, ((),)), [one])) == [(one, 0, faults[0]), (one, 1, faults[1])]


def result(*runs: module.Tested, sweep: Sweep | None = None) -> Backtest:
    return Backtest(("a", "b"), sweep or Sweep({}, ((),)), list(runs))


def test_every_rule_and_all_together_are_scored() -> None:
    one = labelled(LabelledFault("f", 5, ("a", "b")), LabelledFault("g", 9, ("b",)), healthy=40, false={A: 1, B: 2},
                 found={(A, 0): 7, (B, 0): 5, (B, 1): 19})  # fmt: skip
    two = labelled(LabelledFault("h", 0, ("a",)), healthy=10, false={B: 1})
    found = scores(result(one, two))
    assert found == [
        Score("a", "", (), 2, 1, 0, 0.5, 2, 2, 1, 50, 20.0),
        Score("b", "", (), 2, 2, 1, 1.0, 5.0, 10, 3, 50, 60.0),
        Score(ALL_RULES, "", (), 3, 2, 1, 2 / 3, 5.0, 10, 4, 50, 80.0),
    ]


def test_without_faults_or_healthy_updates_there_is_no_rate() -> None:
    (a, _, every) = scores(result(labelled(healthy=10)))
    assert (a.recall, a.median_delay, a.longest_delay, a.per_1000) == (None, None, None, 0.0)
    assert (every.faults, every.recall) == (0, None)
    (missed, _, _) = scores(result(labelled(LabelledFault("f", 0, ("a",)), healthy=0)))
    assert (missed.recall, missed.median_delay, missed.per_1000) == (0.0, None, None)


def test_each_setting_of_a_swept_rule_is_scored_and_each_combination() -> None:
    sweep = Sweep({"a": (LOW, HIGH)}, ((LOW,), (HIGH,)))
    one = labelled(LabelledFault("f", 5, ("a", "b")), healthy=100, false={LOW: 3, B: 1},
                 found={(LOW, 0): 5, (HIGH, 0): 8, (B, 0): 7})  # fmt: skip
    found = scores(result(one, sweep=sweep))
    assert [(score.rule, score.setting, score.values, score.false_alarms, score.longest_delay) for score in found] == [
        ("a", "limit=0.5", (("limit", 0.5),), 3, 0),
        ("a", "limit=2", (("limit", 2.0),), 0, 3),
        (ALL_RULES, "a.limit=0.5", (("a.limit", 0.5),), 4, 0),
        (ALL_RULES, "a.limit=2", (("a.limit", 2.0),), 1, 2),  # b found it first
    ]


def test_each_setting_detects_each_fault_by_the_rule_that_was_first() -> None:
    sweep = Sweep({"a": (LOW, HIGH)}, ((LOW,), (HIGH,)))
    faults = LabelledFault("f", 5, ("a", "b"), hard=True), LabelledFault("g", 9, ("b",))
    one = labelled(*faults, found={(LOW, 0): 5, (HIGH, 0): 8, (B, 0): 5})
    assert detections(result(one, sweep=sweep)) == [
        Detection("run", "f", 5, True, "a.limit=0.5", "a", 5, 0),
        Detection("run", "g", 9, False, "a.limit=0.5", None, None, None),
        Detection("run", "f", 5, True, "a.limit=2", "b", 5, 0),
        Detection("run", "g", 9, False, "a.limit=2", None, None, None),
    ]


@pytest.mark.parametrize(
    ("update", "last", "told"), [(0, 9, 100), (9, 9, 1000), (3, 7, 500), (4, None, 1000), (0, 0, 1000)]
)
def test_progress_is_in_thousandths_of_a_run(update: int, last: int | None, told: int) -> None:
    steps: list[int] = []
    module._Progress(steps.append, 2 * STEPS).at(update, last)
    assert steps == [2000 + told]
    module._Progress(None, 0).at(update, last)
    module._Progress(None, 0).done()
    assert STEPS == 1000


@pytest.mark.parametrize(
    ("rows", "onset", "fault"),
    [
        (3, 2, None),
        (3, 3, "begins at update 3, the run ends at update 2"),
        (0, 0, "begins at update 0, the run has no update"),
        (1, 1, "begins at update 1, the run ends at update 0"),
    ],
)
def test_a_fault_that_begins_after_the_run_is_refused(rows: int, onset: int, fault: str | None) -> None:
    made = run(updates=updates(rows)) if rows else run()
    labels = Labels((LabelledFault("f", onset, ("a",)),))
    if fault is None:
        module._check_onsets(made, labels, Path("labels.toml"))
        return
    with pytest.raises(LabelsError, match=fault):
        module._check_onsets(made, labels, Path("labels.toml"))


def test_each_update_of_a_labelled_run_counts_and_those_before_its_onset_are_healthy(tmp_path: Path) -> None:
    rules = tuple(rule for rule in RULES if rule.name == "kl_spike")
    rows = updates(40, kl_k3=0.01, inner_loop_measurable=True)
    for at in (3, 4, 5, 20, 21):
        rows[at]["kl_k3"] = 99.0
    made = run(path=tmp_path, updates=rows)
    defaults = Thresholds.defaults(RULES)
    sweep = parse_sweep((), rules)
    for labels, healthy, false, found in (
        (Labels(), 40, 2, {}),
        (Labels(healthy=False), 0, 0, {}),
        (Labels((LabelledFault("f", 20, ("kl_spike",)),), healthy=False), 20, 1, {0: 20}),
        (Labels((LabelledFault("f", 0, ("kl_spike",)),)), 0, 0, {0: 3}),
    ):
        steps: list[int] = []
        result = module._test_run(made, labels, rules, sweep, defaults, module._Progress(steps.append, 0))
        assert (result.updates, result.healthy_updates, steps) == (40, healthy, [1000])
        assert sum(result.false_alarms.values()) == false
        assert {index: update for (_, index), update in result.found.items()} == found
        assert [[(one.rule, one.start, one.verdict) for one in of] for of in result.alarms] == [
            [("kl_spike", 3, "critical"), ("kl_spike", 20, "critical")]
        ]
    pieces = in_parts(path=tmp_path, updates=[list(range(10)), list(range(10, 40))])
    steps = []
    assert module._test_run(pieces, Labels(), rules, sweep, defaults, module._Progress(steps.append, 0)).updates == 40
    assert steps == [250, 1000]


def test_a_swept_rule_has_a_detector_for_each_variant_and_all_others_share_one() -> None:
    defaults = Thresholds.defaults(RULES)
    sweep = parse_sweep(("kl_spike.warning=0.1,0.2",), RULES)
    found = list(module._detectors(RULES, sweep, defaults))
    assert [list(variants) for variants, _ in found] == [
        [rule.name for rule in RULES if rule.name != "kl_spike"], ["kl_spike"], ["kl_spike"],
    ]  # fmt: skip
    assert [variants["kl_spike"].label for variants, _ in found[1:]] == ["warning=0.1", "warning=0.2"]
    assert [detector.thresholds["kl_spike"].warning for _, detector in found[1:]] == [0.1, 0.2]  # type: ignore[attr-defined]
    assert all(variant.values == () for variant in found[0][0].values())


def test_a_run_that_cannot_be_read_is_told_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "labels.toml").write_text("healthy = true")
    steps: list[int] = []
    sweep = parse_sweep((), RULES)
    paths = [tmp_path / "none", tmp_path / "bare"]
    (tmp_path / "bare").mkdir()
    found = backtest(paths, RULES, sweep, lambda _: Thresholds.defaults(RULES), progress=steps.append)
    ((path, why),) = found.broken
    assert path == tmp_path / "none"
    assert "not a recorded run" in why
    assert found.unlabelled == [tmp_path / "bare"]
    assert steps == [1000, 2000]
    assert found.rules == tuple(rule.name for rule in RULES)
