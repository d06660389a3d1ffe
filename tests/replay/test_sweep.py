"""Sweeps: what is asked for becomes variants of rules and every combination of them."""

from __future__ import annotations

import pytest

from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import ThresholdError, Thresholds
from esper_analyze.replay.sweep import MOST_SETTINGS, Variant, parse_sweep


def test_nothing_asked_is_one_setting_in_which_nothing_is_set() -> None:
    sweep = parse_sweep((), RULES)
    assert (sweep.variants, sweep.settings) == ({}, ((),))


def test_several_sweeps_make_every_combination_but_a_rule_only_its_own() -> None:
    asked = ("kl_spike.warning=0.05, 0.1", "ratio_explosion.warning=3,5,9", "kl_spike.window=3,5")
    sweep = parse_sweep(asked, RULES)
    assert len(sweep.settings) == 12
    assert len(sweep.variants["kl_spike"]) == 4
    assert [variant.label for variant in sweep.variants["ratio_explosion"]] == ["warning=3", "warning=5", "warning=9"]
    assert sweep.variants["kl_spike"][1].label == "warning=0.05, window=5"


def test_a_variant_changes_its_fields_and_nothing_else() -> None:
    defaults = Thresholds.defaults(RULES)
    limits = Variant("kl_spike", (("warning", 0.07), ("window", 3))).limits(defaults)
    assert limits == defaults.assigned("kl_spike.warning=0.07").assigned("kl_spike.window=3")["kl_spike"]


def test_a_value_given_twice_is_tried_once() -> None:
    assert len(parse_sweep(("kl_spike.warning=0.1,0.10,0.2",), RULES).settings) == 2


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("kl_spike.warning",), "'kl_spike.warning' is not of the form rule.field=a,b,c"),
        (("kl_spike.warning=",), "is not of the form rule.field=a,b,c"),
        (("kl_spike.warning=1,,2",), "is not of the form rule.field=a,b,c"),
        (("kl_spike=1,2",), "is not of the form rule.field=a,b,c"),
        (("kl_spik.warning=1",), "there is no rule 'kl_spik'; did you mean 'kl_spike'?"),
        (("kl_spike.warnin=1",), "rule kl_spike has no threshold 'warnin'; did you mean 'warning'?"),
        (("kl_spike.warning=1,high",), "kl_spike.warning must be a finite number, not 'high'"),
        (("kl_spike.window=5,51",), "kl_spike.window must be a whole number of at least 1 and below 51, not 51"),
        (("head_entropy_collapse.per_head=0.1",), "per_head must be a table"),
        (("kl_spike.warning=1", "kl_spike.warning=2"), "kl_spike.warning is swept twice"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_words(asked: tuple[str, ...], told: str) -> None:
    with pytest.raises(ThresholdError) as caught:
        parse_sweep(asked, RULES)
    assert told in str(caught.value)


def test_a_grid_of_just_the_most_settings_is_tried() -> None:
    many, some = (",".join(str(place / 100) for place in range(1, 1 + count)) for count in (40, 25))
    assert len(parse_sweep((f"kl_spike.warning={many}", f"ratio_explosion.warning={some}"), RULES).settings) == 1_000
    assert MOST_SETTINGS == 1_000


def test_a_grid_of_an_absurd_size_is_refused_with_its_size() -> None:
    many = ",".join(str(place / 100) for place in range(1, 41))
    with pytest.raises(ThresholdError, match=rf"40 × 40 values make 1,600 settings, more than {MOST_SETTINGS:,}"):
        parse_sweep((f"kl_spike.warning={many}", f"ratio_explosion.warning={many}"), RULES)
