import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from esper_analyze.detector.incidents import Incident
from esper_analyze.replay.evidence import Evidence, gather
from esper_analyze.reports.listing import status_words
from esper_analyze.reports.narrative import onset, story
from esper_analyze.reports.narrative.primary_incident import children_of, consequences, judged_rules, primary_incident
from esper_analyze.reports.sections import escalation
from esper_analyze.reports.tables import incident_list
from esper_analyze.runs.run import open_run
from esper_analyze.watch.follow import Follower
from esper_analyze.watch.snapshot import snapshot
from tests.reports.conftest import trouble
from tests.reports.synthetic import Rows, write_run

SEEDS = Path(__file__).parents[2] / "sample_runs" / "runs" / "growing_exploding"


def incident(rule: str, start: int, worst: str = "warning", cause: int | None = None) -> Incident:
    return Incident(
        rule=rule,
        subject="run",
        metric="kl_k3",
        onset=start,
        start=start,
        end=start + 3,
        ended="cleared",
        peak=1.0,
        peak_update=start,
        peak_verdict=worst,
        count=4,
        cause=cause,
    )


def test_the_story_tells_what_began_when_how_far_it_went_and_what_to_look_at(troubled: Evidence) -> None:
    told = story.frame(troubled)
    assert told.verdict == "critical"
    assert told.headline == "KL divergence spiked at update 20"
    assert (
        "At update 20 kl_k3 was 0.7, beyond the critical bound of 0.5. In the updates before it was" in told.paragraph
    )
    assert "As its consequences: ratio_explosion from update 20" in told.paragraph
    assert "Later and unrelated:" in told.paragraph
    assert "numerical_instability from update 30" in told.paragraph
    assert told.look_first.startswith("Learning rate")


def test_a_setting_that_jumped_is_not_said_to_have_jumped_for_one_update_only(tmp_path: Path) -> None:
    def jumped(update: int, rows: Rows) -> None:
        rows["updates"][0]["learning_rate"] = 1e-3 if update < 38 else 3e-2

    told = story.frame(gather(open_run(write_run(tmp_path / "jumped", 60, jumped))))
    assert told.headline == "A setting jumped at update 38"
    assert "A setting jumped (warning) at update 38. At update 38 learning_rate was 0.03" in told.paragraph


def test_a_fall_from_the_best_returns_is_told(tmp_path: Path) -> None:
    def fell(update: int, rows: Rows) -> None:
        returns = 42.0 if update < 20 else 298.0 if update < 59 else 25.0
        rows["updates"][0]["episode_return_mean"] = returns + 0.5 * (update % 3)

    told = story.frame(gather(open_run(write_run(tmp_path / "fell", 60, fell)))).paragraph
    assert "it was 42.5 in the first 10. The best level was 298, about update 21; at the end it was 26." in told


def test_returns_that_scatter_fall_from_nothing(healthy: Evidence) -> None:
    assert "best level" not in story.frame(healthy).paragraph


def test_what_stopped_before_the_end_is_not_told_as_still_in_alarm(tmp_path: Path) -> None:
    def short(update: int, rows: Rows) -> None:
        if update in (7, 8):
            rows["updates"][0]["first_ratio_error"] = 0.7

    evidence = gather(open_run(write_run(tmp_path / "short", 12, short)))
    told, end = story.frame(evidence).paragraph, "when the recording ends at 11"
    assert f"from update 7 until update 8; better since, but not yet cleared {end}" in told
    assert "still when" not in told
    assert "better, not cleared yet" in {group.ended for group in incident_list(evidence).groups}


def test_rules_without_data_are_counted_as_they_are_listed(troubled: Evidence, tmp_path: Path) -> None:
    def bare(update: int, rows: Rows) -> None:
        rows["updates"] = [{"update": update, "status": "performed", "level": "NORMAL"}]

    for evidence in (troubled, gather(open_run(write_run(tmp_path / "bare", 10, bare)))):
        never = judged_rules(evidence)[1]
        (listed,) = [one for one in story.frame(evidence).caveats if "which judged nothing" in one] or [""]
        assert [name for name in never if name in listed] == never
        assert listed.count(",") == len(never) if never else not listed


def test_nothing_looked_closer_at_an_imported_run(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "imported", 60, trouble, facts={"imported_from": "a log"}))
    evidence = gather(run)
    assert evidence.replay.levels
    assert not any("looked closer" in point.words for point in story.frame(evidence).after)
    data = escalation.frame(evidence)
    assert data is not None
    assert (data.triggers, data.rises) == ((), ())


def test_missing_data_is_a_caveat_and_never_healthy(troubled: Evidence) -> None:
    assert any("value_collapse" in caveat and "missing" in caveat for caveat in story.frame(troubled).caveats)


def test_a_healthy_run_says_what_was_judged_and_that_nothing_fired(healthy: Evidence) -> None:
    told = story.frame(healthy)
    assert (told.verdict, told.headline, told.lead) == ("ok", "No rule fired", None)
    assert "judged 60 updates and none reached a warning" in told.paragraph
    assert "kl_spike begins beyond 0.1" in told.paragraph


def test_a_run_that_was_killed_says_so(tmp_path: Path) -> None:
    told = story.frame(gather(open_run(write_run(tmp_path / "killed", 5, close=False))))
    assert "not closed, last complete update 4" in told.paragraph


def test_a_run_without_updates_has_nothing_to_judge(tmp_path: Path) -> None:
    told = story.frame(gather(open_run(write_run(tmp_path / "empty", 0))))
    assert told.verdict == "no_data"
    assert told.headline == "No complete update was recorded"


def test_a_warning_that_turns_critical_tells_both(tmp_path: Path) -> None:
    def worse(update: int, rows: Rows) -> None:
        rows["updates"][0]["first_ratio_error"] = 0.0 if update < 10 else 5e-4 if update < 15 else 0.5

    told = story.frame(gather(open_run(write_run(tmp_path / "worse", 20, worse))))
    assert "beyond the warning bound of 0.0001." in told.paragraph
    assert "From update 15 it was critical:" in told.paragraph
    assert "still when the recording ends at update 19" in told.paragraph


def test_a_value_that_is_too_low_is_below_the_bound(tmp_path: Path) -> None:
    def low(update: int, rows: Rows) -> None:
        rows["updates"][0] |= {"entropy_norm": 0.9 if update < 10 else 0.01, "episode_return_mean": 10.0}

    told = story.frame(gather(open_run(write_run(tmp_path / "low", 20, low))))
    assert re.search(r"entropy_norm was [\d.]+, below the \w+ bound of 0\.", told.paragraph)
    assert "beyond" not in told.paragraph


def test_now_does_not_tell_an_incident_that_is_over(tmp_path: Path) -> None:
    def spiked(update: int, rows: Rows) -> None:
        if 10 <= update < 13:
            rows["updates"][0]["kl_k3"] = 2.0

    told = story.frame(gather(open_run(write_run(tmp_path / "over", 40, spiked))))
    now = [point.words for point in told.now]
    assert not any("spiked" in words for words in now)
    assert "No incident is open when the recording ends at update 39; the last was in alarm until update 15." in now
    assert told.why[0].words.startswith("KL divergence spiked (critical) from update 10 until update 15.")


def test_what_words_said_is_quoted(tmp_path: Path) -> None:
    def broken(update: int, rows: Rows) -> None:
        if update == 7:
            rows["updates"][0] |= {"value_loss": float("nan"), "nonfinite_sources": "value_loss: 3"}

    told = story.frame(gather(open_run(write_run(tmp_path / "nan", 8, broken))))
    assert "at update 7, the last one recorded" in told.paragraph
    assert "nonfinite_sources said: value_loss: 3." in told.paragraph


def test_the_first_cause_of_the_first_critical_incident_leads() -> None:
    several = [incident("a", 1), incident("b", 5, "critical", cause=0), incident("c", 9, "critical")]
    assert primary_incident(several) == 0
    assert primary_incident(several[:2]) == 0


def named(rule: str, start: int, end: int, worst: str = "warning", onset: int | None = None) -> Incident:
    one = incident(rule, start, worst)
    return replace(one, onset=start if onset is None else onset, end=end, ended="open" if end > 90 else "cleared")


@pytest.mark.parametrize(
    ("several", "lead"),
    [
        # pushed to determinism: the entropy went first, and the critic after it
        ([named("entropy_collapse", 36, 99), named("value_collapse", 43, 99, "critical", 39)], 0),
        # value coefficient × 100: one explosion, over when the gradient has drifted
        ([named("gradient_explosion", 40, 40), named("gradient_drift", 44, 99, "critical", 42)], 0),
        # the same, found at once, while the drift's streak may have begun an update earlier
        (
            [named("gradient_explosion", 41, 99, "critical"), named("gradient_drift", 42, 47, "critical", 40)],
            0,
        ),
        ([named("entropy_collapse", 43, 99, "critical"), named("head_entropy_collapse", 44, 99, "critical", 42)], 0),
        # an old wobble, mild or critical and over, explains no late collapse
        ([named("kl_spike", 10, 12), named("entropy_collapse", 80, 99, "critical")], 1),
        (
            [
                named("kl_spike", 10, 12, "critical"),
                named("entropy_collapse", 80, 99, "critical"),
                named("frozen_update", 82, 99, "critical"),
            ],
            1,
        ),
        # open since long ago and declared a cause
        ([named("kl_spike", 10, 99), named("entropy_collapse", 80, 99, "critical")], 0),
        # open since long ago, and nothing says that it could
        ([named("clip_saturation", 10, 99), named("numerical_instability", 80, 99, "critical")], 1),
        # NaN comes of what went before it
        ([named("gradient_explosion", 40, 44), named("numerical_instability", 42, 99, "critical")], 0),
        # begun together: the declared cause
        ([named("kl_spike", 40, 99, "critical"), named("first_ratio", 40, 99)], 1),
        # what explains nothing never leads
        ([named("data_lost", 38, 38), named("kl_spike", 40, 99, "critical")], 1),
        ([named("performance_degradation", 38, 38), named("kl_spike", 40, 99, "critical")], 1),
    ],
)
def test_the_headline_goes_by_time_and_cause(several: list[Incident], lead: int) -> None:
    assert primary_incident(several) == lead


def test_badge_and_headline_agree_where_a_warning_leads(tmp_path: Path) -> None:
    def pushed(update: int, rows: Rows) -> None:
        if update >= 10:
            rows["updates"][0]["episode_return_mean"] = 1.0
        if update >= 30:
            rows["updates"][0]["entropy_norm"] = 0.05
            rows["updates"][0] |= {"explained_variance": -3.0, "value_nrmse": 2.0}

    told = story.frame(gather(open_run(write_run(tmp_path / "pushed", 50, pushed))))
    assert told.verdict == "critical"
    assert told.headline.startswith("Entropy collapsed at update 30; critical since: Value function collapsed")


def test_what_several_rules_see_of_one_nan_is_one_incident(tmp_path: Path) -> None:
    def broken(update: int, rows: Rows) -> None:
        if update >= 30:
            nan = dict.fromkeys(("explained_variance", "value_nrmse", "advantage_std", "value_loss"), math.nan)
            rows["updates"][0] |= {**nan, "nonfinite_sources": "value_loss: 1"}
        if update >= 33:
            rows["updates"][0]["entropy_norm"] = math.nan

    path = write_run(tmp_path / "nan", 40, broken)
    evidence = gather(open_run(path))
    first, later = evidence.replay.incidents
    assert (first.rule, first.start, first.ended, later.start, later.cause) == (
        "numerical_instability",
        30,
        "open",
        33,
        0,
    )
    alarms = [one for one in evidence.replay.findings if one.alarm and one.update == 30]
    assert {(one.rule, one.subject, one.metric) for one in alarms} == {
        (one.rule, one.subject, one.metric) for one in first.parts
    }
    assert len(first.seen_by) == len({one.rule for one in alarms}) >= 5
    assert f"{len(first.seen_by)} rules see the same NaN: numerical_instability" in story.frame(evidence).paragraph
    seen = Follower(path)
    seen.poll()
    shown = snapshot(seen).incidents
    assert [(one.rule, one.start, one.seen_by) for one in shown] == [
        (one.rule, one.start, one.seen_by) for one in evidence.replay.incidents
    ]


def test_consequences_are_followed_to_their_end() -> None:
    chain = [incident("a", 1), incident("b", 2, cause=0), incident("c", 3, cause=1), incident("d", 4)]
    assert consequences(children_of(chain), 0) == [1, 2]
    assert consequences(children_of(chain), 3) == []


def test_a_training_that_raised_names_its_error(tmp_path: Path) -> None:
    path = write_run(tmp_path / "raised", 5, reason="ValueError: Expected parameter logits\nof shape (64, 4)")
    run = open_run(path)
    assert status_words(run) == "died: ValueError after update 4"
    told = story.frame(gather(run))
    assert told.verdict == "critical"
    assert told.headline.startswith("The training died of ValueError after update 4; no rule had fired")
    assert "after update 4: Expected parameter logits of shape (64, 4)" in told.paragraph


def test_the_same_rule_elsewhere_is_told_as_the_same(tmp_path: Path) -> None:
    def both(update: int, rows: Rows) -> None:
        if update >= 30:
            rows["groups"][0]["grad_norm"] = rows["groups"][1]["grad_norm"] = 500.0

    told = story.frame(gather(open_run(write_run(tmp_path / "both", 40, both))))
    assert "The same rule elsewhere or again: gradient_explosion on critic from update 32" in told.paragraph
    assert "Later and unrelated" not in told.paragraph


def test_a_run_of_which_hardly_anything_was_recorded_is_not_called_healthy(tmp_path: Path) -> None:
    def bare(update: int, rows: Rows) -> None:
        rows["updates"] = [{"update": update, "status": "performed", "level": "NORMAL"}]

    told = story.frame(gather(open_run(write_run(tmp_path / "bare", 10, bare))))
    assert told.verdict == "no_data"
    assert re.fullmatch(
        r"No rule fired, but only \d+ of \d+ rules could judge: no minibatch was seen; .*", told.headline
    )


def test_the_story_is_told_in_three_parts_with_figures(troubled: Evidence) -> None:
    told = story.frame(troubled)
    assert [title for title, _ in told.parts] == ["Now", "Why", "Next"]
    assert told.why[0].figures == ("policy",)
    assert told.after[-1].words.startswith("The level was raised in updates 21 to")


def test_the_command_it_gives_can_be_run(tmp_path: Path) -> None:
    def stepped(update: int, rows: Rows) -> None:
        high = update == 8
        rows["updates"][0]["kl_k3"] = 2.0 if high else 0.01
        rows["steps"] = [
            {"update": update, "epoch": k // 4, "minibatch": k % 4, "kl_k3": 3.0 if high and k >= 5 else 0.01}
            for k in range(8)
        ]

    evidence = gather(open_run(write_run(tmp_path / "a run's", 10, stepped)))
    told = story.frame(evidence)
    assert "first crossed the bound in minibatch 6 of 8 (epoch 1, minibatch 1): 3." in told.paragraph
    name, command, path, query = shlex.split(told.after[-1].command)
    assert (name, command, path) == ("esper-analyze", "sql", str(evidence.run.path))
    assert len(evidence.run.connection().sql(query).fetchall()) == 8


@pytest.mark.parametrize("place", ["env 0, $(touch harm)", "env 0, `touch harm`", "env 0, r'c", 'env 0, "'])
def test_a_command_to_copy_holds_no_name_that_means_something_to_a_shell(place: str) -> None:
    evidence = gather(open_run(SEEDS))
    lead = next(one for one in evidence.replay.incidents if one.rule == "slot_gradient_explosion")
    began = onset.frame(evidence.run, lead)
    commands = [one.command for one in story._next(evidence, replace(lead, subject=place), began, ())]
    assert not any(place in command for command in commands)
    assert any("from slots where update between" in command for command in commands)
    named = [one.command for one in story._next(evidence, lead, began, ())]
    assert any("place = 'env 3, late'" in command for command in named)
