"""The overall verdict: a training that died, was killed or stopped, or could not be judged is never ok."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from esper_analyze.cli import run as command
from esper_analyze.detector.rules import RULES
from esper_analyze.replay.evidence import gather
from esper_analyze.replay.standing import Coverage, live_coverage, of_replay, standing
from esper_analyze.reports.listing import summarise
from esper_analyze.reports.narrative.missing_calls import CALLS, missing_calls
from esper_analyze.reports.narrative.story import frame
from esper_analyze.runs.ending import TrainingEnd, end_of_run
from esper_analyze.runs.run import open_run
from esper_analyze.schema import BY_NAME
from esper_analyze.storage.attempt_end import End, end_of
from esper_analyze.watch.follow import Follower
from esper_analyze.watch.panels import printed, sections
from esper_analyze.watch.snapshot import snapshot
from recorder import Recorder
from tests.recorder.inline import store_of
from tests.reports.conftest import trouble
from tests.reports.synthetic import Rows, write_run
from tests.watch.growing import GrowingRun

ENDS: dict[str, tuple[str, str, str, str, int, int]] = {
    # reason → verdict, label, headline, status, exit codes with --fail-on critical and warning
    "closed": ("ok", "ok", "No rule fired", "closed", 0, 0),
    "exit": ("ok", "ok", "No rule fired", "closed", 0, 0),
    "imported": ("ok", "ok", "No rule fired", "closed", 0, 0),
    "early stop: solved": ("ok", "ok", "No rule fired", "closed", 0, 0),
    "SystemExit: 0": ("ok", "ok", "No rule fired", "closed", 0, 0),
    "SystemExit: 3": (
        "critical",
        "died",
        "The training died of exit code 3 after update 29; no rule had fired",
        "died: exit code 3 after update 29",
        1,
        1,
    ),
    "ValueError: nan in logits": (
        "critical",
        "died",
        "The training died of ValueError after update 29; no rule had fired",
        "died: ValueError after update 29",
        1,
        1,
    ),
    "torch.OutOfMemoryError: ": (
        "critical",
        "died",
        "The training died of torch.OutOfMemoryError after update 29; no rule had fired",
        "died: torch.OutOfMemoryError after update 29",
        1,
        1,
    ),
    "KeyboardInterrupt: ": (
        "info",
        "stopped",
        "The training was stopped by Ctrl-C after update 29; no rule had fired",
        "stopped by Ctrl-C after update 29",
        0,
        0,
    ),
    "SIGTERM": (
        "info",
        "stopped",
        "The training was stopped by SIGTERM after update 29; no rule had fired",
        "stopped by SIGTERM after update 29",
        0,
        0,
    ),
    "": (
        "warning",
        "not closed",
        "The training ended without closing after update 29; no rule had fired",
        "not closed, last complete update 29",
        0,
        1,
    ),
}


@pytest.mark.parametrize("reason", sorted(ENDS))
def test_every_view_gives_the_verdict_of_how_a_sound_training_ended(tmp_path: Path, reason: str) -> None:
    verdict, label, headline, status, critical, warning = ENDS[reason]
    path = write_run(tmp_path / "run", 30, close=bool(reason), reason=reason)
    told = frame(gather(open_run(path)))
    assert (told.verdict, told.standing.label, told.headline) == (verdict, label, headline)
    listed = summarise(path)
    assert (listed.verdict, listed.label, listed.status) == (verdict, label, status)
    assert command(["report", str(path), "--out", str(tmp_path / "page"), "--fail-on", "critical"]) == critical
    assert command(["replay", str(path), "--fail-on", "warning"]) == warning
    assert command(["heads", str(path), "--fail-on", "critical"]) == critical
    facts = json.loads((tmp_path / "page" / "report.json").read_text())
    assert (facts["verdict"], facts["label"], facts["ended"]["words"]) == (verdict, label, status)
    page = (tmp_path / "page" / "index.html").read_text()
    assert f'<span class="chip {verdict}">{label}</span><h2>{headline}' in page
    assert f"## {headline}\n\n**{label}**" in (tmp_path / "page" / "report.md").read_text()


def test_a_training_that_still_runs_is_not_called_dead(tmp_path: Path) -> None:
    def step(rec: Recorder) -> None:
        rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), clip_range=0.2)
        rec.update()

    with Recorder(tmp_path / "run", strict=True) as rec:
        step(rec)
        step(rec)
        store_of(rec).flush()
        end = end_of_run(open_run(tmp_path / "run"))
        assert (end.end, end.status, end.headline) == (End.RUNNING, "running, last complete update 1", "")


def test_an_incident_before_the_death_is_told_after_it(tmp_path: Path) -> None:
    def fast(update: int, rows: Rows) -> None:
        if 20 <= update < 25:
            rows["updates"][0] |= {"clip_fraction": 0.4, "kl_k3": 0.2}

    path = write_run(tmp_path / "run", 30, fast, reason="ValueError: no")
    told = frame(gather(open_run(path)))
    assert told.lead is not None
    assert told.lead.peak_verdict == "warning"
    assert (told.verdict, told.standing.label) == ("critical", "died")
    assert told.headline.startswith("The training died of ValueError after update 29; before: ")


def test_the_worst_of_incident_and_end_is_the_verdict(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", 60, trouble, reason="KeyboardInterrupt: ")
    told = frame(gather(open_run(path)))
    assert (told.verdict, told.standing.label) == ("critical", "critical")
    assert "The training was stopped by Ctrl-C after update 59." in told.paragraph
    assert summarise(path).status == "stopped by Ctrl-C after update 59"


@pytest.mark.parametrize(
    ("end", "worst", "lacking", "expected"),
    [
        (End.CLOSED, None, {}, ("ok", "ok")),
        (End.RUNNING, None, {}, ("ok", "ok")),
        (End.CLOSED, None, {"a": "x is missing"}, ("no_data", "partly judged")),
        (End.STOPPED, None, {"a": "x is missing"}, ("no_data", "partly judged")),
        (End.DIED, None, {"a": "x is missing"}, ("critical", "died")),
        (End.UNCLOSED, "warning", {}, ("warning", "warning")),
        (End.DIED, "warning", {}, ("critical", "died")),
        (End.DIED, "critical", {}, ("critical", "critical")),
    ],
)
def test_what_counts_first(end: End, worst: str | None, lacking: dict[str, str], expected: tuple[str, str]) -> None:
    coverage = Coverage(3, 3 + len(lacking), lacking, "x")
    overall = standing(TrainingEnd(end, "ValueError: no", 4), worst, coverage)
    assert (overall.verdict, overall.label) == expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("a sentence: with a colon", End.CLOSED),
        ("done", End.CLOSED),
        ("StopIteration: ", End.DIED),
        ("SystemExit: None", End.CLOSED),
        ("SystemExit: no such file", End.DIED),
        ("repaired", End.UNCLOSED),
        ("ValueError: two\nlines", End.DIED),
    ],
)
def test_what_a_reason_says(reason: str, expected: End) -> None:
    assert end_of(reason)[0] is expected


DEATH = """
import sys, torch
from torch.distributions import Categorical
from recorder import Recorder
policy = torch.nn.Linear(3, 4)
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
rec = Recorder(sys.argv[1], policy, strict=True)
x = torch.randn(64, 3)
for update in range(3):
    with torch.no_grad():
        dist = Categorical(logits=policy(x)); action = dist.sample(); old = dist.log_prob(action)
    new = Categorical(logits=policy(x))
    rec.minibatch(log_prob=new.log_prob(action), old_log_prob=old, entropy=new.entropy(), clip_range=0.2)
    optimizer.zero_grad(); (-(new.log_prob(action) - old).exp().mean()).backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
    optimizer.step()
    rec.update()
Categorical(logits=policy(x * float("nan")))
"""


def test_nan_logits_in_the_rollout_after_a_sound_update_are_a_death(tmp_path: Path) -> None:
    path = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", DEATH, str(path)], capture_output=True, check=False, timeout=120)
    assert done.returncode == 1
    told = frame(gather(open_run(path)))
    assert (told.verdict, told.standing.label) == ("critical", "died")
    assert "died of ValueError in update 3" in told.headline
    assert summarise(path).status == "died: ValueError in update 3"
    assert command(["report", str(path), "--out", str(tmp_path / "page"), "--fail-on", "critical"]) == 1
    seen = Follower(path)
    seen.poll()
    shot = snapshot(seen)
    assert shot.status.state == "crashed"
    assert shot.status.why.startswith("died: ValueError: Expected parameter logits")


def recorded(path: Path, updates: int = 3, **given: Any) -> Path:
    """Record a small loop that hands over ``given`` as well."""
    policy = nn.Linear(3, 4)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    with Recorder(path, policy if given.pop("model", True) else None, strict=True) as rec:
        for _ in range(updates):
            x = torch.randn(64, 3)
            new = torch.distributions.Categorical(logits=policy(x))
            action = new.sample()
            log_prob = new.log_prob(action)
            rec.minibatch(log_prob=log_prob, old_log_prob=log_prob.detach(), entropy=new.entropy(), clip_range=0.2)
            optimizer.zero_grad()
            log_prob.mean().backward()
            optimizer.step()
            rec.update()
    return path


def test_a_run_without_gradients_is_partly_judged_and_says_why(tmp_path: Path) -> None:
    path = recorded(tmp_path / "run", model=False)
    told = frame(gather(open_run(path)))
    coverage = told.standing.coverage
    assert (told.verdict, told.standing.label) == ("no_data", "partly judged")
    assert 0 < coverage.judged < coverage.applicable
    assert coverage.lacking["gradient_explosion"] == "table groups has no rows"
    words = f"{coverage.judged} of {coverage.applicable} rules could judge: "
    assert told.headline.startswith(f"No rule fired, but only {words}")
    assert "no gradients were recorded" in coverage.why
    assert "rollout values were not handed over" in coverage.why
    listed = summarise(path)
    assert (listed.verdict, listed.label) == ("no_data", "partly judged")
    assert listed.unjudged == coverage.words
    seen = Follower(path)
    seen.poll()
    assert snapshot(seen).judged == coverage
    assert coverage.words in " ".join(line.plain.strip() for line in printed(sections(snapshot(seen), 100), 100))


def test_the_calls_that_would_record_what_rules_lack_are_named_in_next(tmp_path: Path) -> None:
    told = frame(gather(open_run(recorded(tmp_path / "run"))))
    named = [point.words for point in told.after]
    assert "Record what performance_degradation lacked: rec.episode(episode_return, length) where an episode ends." in (
        named
    )
    assert any("gradient_vanishing" in words and "clip_grad_norm_(…), called by its module" in words for words in named)
    assert any("value_divergence" in words and words.endswith("rec.update(values=…, returns=…).") for words in named)
    assert not any("clipping_always" in words for words in named)
    told = frame(gather(open_run(recorded(tmp_path / "without", model=False))))
    assert any(words.endswith(": Recorder(run_dir, model, …).") for words in (point.words for point in told.after))


ALWAYS = {"status", "dropped_rows", "inner_loop_measurable", "kind", "zero_explained"}
"""Columns that rules need, and that the recorder writes whatever a loop hands over."""


def test_every_column_without_which_a_rule_cannot_judge_has_its_call() -> None:
    optional = ("lstm", "slots", "ranks", "losses_of_data")
    for rule in RULES:
        if rule.table in optional or rule.finiteness:
            continue
        needed = set(rule.columns) - set(rule.context) - ALWAYS
        assert {column for column in needed if (rule.table, column) not in CALLS} == set(), rule.name
    assert all(column in BY_NAME[table].names for table, column in CALLS)


def test_what_adapters_and_other_tools_recorded_gets_no_advice_on_a_loop(tmp_path: Path) -> None:
    for facts in ({"attach_points": ["evaluate_actions"]}, {"attach_points": [], "imported_from": "csv"}):
        path = recorded(tmp_path / f"run{len(facts)}")
        info = json.loads((path / "run.json").read_text())
        (path / "run.json").write_text(json.dumps(info | facts))
        assert missing_calls(gather(open_run(path))) == {}


def test_rules_for_which_it_is_too_early_are_named_with_what_they_need(tmp_path: Path) -> None:
    evidence = gather(open_run(write_run(tmp_path / "run", 15)))
    words = frame(evidence).paragraph
    assert "Too early: critic_not_learning needs 60 updates; " in words
    assert "value_divergence and gradient_explosion need 21 updates" in words
    assert "gradient_drift" not in words
    assert "lstm" not in " ".join(frame(evidence).caveats)
    assert "Too early" not in frame(gather(open_run(write_run(tmp_path / "long", 70)))).paragraph


def test_all_samples_could_be_judged_by_every_rule_that_applies() -> None:
    samples = sorted((Path(__file__).parents[2] / "sample_runs" / "runs").iterdir())
    assert samples
    for path in samples:
        evidence = gather(open_run(path))
        assert of_replay(evidence.run, evidence.replay).coverage.lacking == {}, path.name
        assert live_coverage(open_run(path)).lacking == {}, path.name


@pytest.mark.parametrize(("without", "lacks"), [(1, False), (30, True)])
def test_a_first_update_without_an_episode_is_no_lack_of_data(tmp_path: Path, without: int, lacks: bool) -> None:
    with Recorder(tmp_path / "run", heads=("op",), sizes={"op": 3}) as rec:
        for update in range(30):  # too few for performance_degradation, which needs twenty and twenty more
            for _ in range(update >= without):
                rec.episode(1.0, 10)
            for _ in range(2):
                old = torch.zeros(8)
                rec.minibatch(log_prob=old, old_log_prob=old, entropy=torch.ones(8), clip_range=0.2)
            rec.update(values=torch.arange(8.0), returns=torch.arange(8.0) + 0.1, advantages=torch.arange(8.0) - 3)
    run = open_run(tmp_path / "run")
    coverage = live_coverage(run)
    assert ("performance_degradation" in coverage.lacking) is lacks
    seen = Follower(tmp_path / "run")
    seen.poll()
    assert snapshot(seen).judged == coverage


def test_a_run_with_a_rule_of_its_own_is_listed_and_watched(tmp_path: Path) -> None:
    own = replace(RULES[0], name="own_rule", title="Own", causes=(), confirmed_by=None)
    with Recorder(tmp_path / "run", rules=[own]) as rec:
        rec.minibatch(log_prob=torch.zeros(4), old_log_prob=torch.zeros(4), clip_range=0.2)
        rec.update()
    listed = summarise(tmp_path / "run")
    assert (listed.fault, listed.label) == (None, "partly judged")
    seen = Follower(tmp_path / "run")
    seen.poll()
    assert seen.trouble is None
    assert seen.coverage is not None
    assert seen.coverage.words == listed.unjudged


def test_a_follower_counts_the_rules_again_when_the_run_has_grown(tmp_path: Path) -> None:
    growing, seen = GrowingRun(tmp_path / "run"), Follower(tmp_path / "run")
    counted = []
    for _ in range(30):
        growing.add()
        seen.poll()
        counted.append(seen.coverage == live_coverage(open_run(growing.path)))
    growing.die()
    seen.poll()
    assert all(counted)
    assert seen.coverage == live_coverage(open_run(growing.path))


@pytest.mark.parametrize(
    ("reason", "headline", "status"),
    [
        ("closed", "Nothing can be said: the rows of its updates are lost", "closed"),
        (
            "ValueError: no",
            "The training died of ValueError at a lost update; no rule had fired",
            "died: ValueError at a lost update",
        ),
    ],
)
def test_a_run_whose_updates_are_lost_did_not_end_before_its_first(
    tmp_path: Path, reason: str, headline: str, status: str
) -> None:
    path = write_run(tmp_path / "run", 30, reason=reason)
    for shard in path.rglob("updates-*.parquet"):
        shard.write_bytes(shard.read_bytes()[:-9])
    run = open_run(path, skip_broken=True)
    told = frame(gather(run))
    assert (told.headline, end_of_run(run).status) == (headline, status)
    assert told.verdict != "ok"


def test_a_run_that_lost_some_updates_does_not_say_that_it_ended_after_the_last_one_left(tmp_path: Path) -> None:
    growing = GrowingRun(tmp_path / "run")
    growing.add(20)
    growing.seal()
    growing.add(20)
    growing.store.close("ValueError: no")
    assert end_of_run(open_run(growing.path)).when == "after update 39"
    sorted(growing.path.rglob("updates-*.parquet"))[-1].unlink()
    end = end_of_run(open_run(growing.path, skip_broken=True))
    assert end.when == "after update 19, the last of those left"


def test_an_update_that_an_exception_cut_short_is_neither_called_skipped_nor_named_twice(tmp_path: Path) -> None:
    def cut_short(update: int, rows: Rows) -> None:
        if update == 29:
            rows["updates"][0]["status"] = "interrupted"

    told = frame(gather(open_run(write_run(tmp_path / "run", 30, cut_short, reason="RuntimeError: boom"))))
    assert told.headline == "The training died of RuntimeError in update 29; no rule had fired before"
    words = [point.words for point in told.now]
    assert "The training died of RuntimeError in update 29: boom" in words
    assert words[0].startswith("Update not completed (warning) at update 29")
    assert "skipped (" not in " ".join(words)
    silent = frame(gather(open_run(write_run(tmp_path / "silent", 30, reason="RuntimeError: "))))
    assert "The training died of RuntimeError after update 29." in [point.words for point in silent.now]
