"""labels.toml: what it may say, and how a mistake in it is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from esper_analyze.replay.labels import LabelledFault, LabelsError, read_labels

RULES = ("kl_spike", "first_ratio")
FAULT = '[[fault]]\nname = "spike"\nonset = 4\nrules = ["kl_spike"]\n'


def read(tmp_path: Path, text: str) -> tuple[LabelledFault, ...]:
    (tmp_path / "labels.toml").write_text(text)
    labels = read_labels(tmp_path, RULES)
    assert labels is not None
    return labels.faults


def test_a_run_without_the_file_is_not_labelled(tmp_path: Path) -> None:
    assert read_labels(tmp_path, RULES) is None


def test_a_healthy_run_has_no_fault(tmp_path: Path) -> None:
    assert read(tmp_path, "healthy = true") == ()


def test_a_fault_has_name_onset_and_rules_and_may_have_an_end_and_be_hard(tmp_path: Path) -> None:
    assert read(tmp_path, FAULT) == (LabelledFault("spike", 4, ("kl_spike",)),)
    (fault,) = read(tmp_path, "healthy = false\n" + FAULT + "until = 9\nhard = true\n")
    assert fault == LabelledFault("spike", 4, ("kl_spike",), 9, hard=True)
    assert [fault.covers(update) for update in (3, 4, 9, 10)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it has neither healthy = true nor any [[fault]]"),
        ("healthy = false", "it has neither healthy = true nor any [[fault]]"),
        ("healthy = 1", "healthy must be true or false, not 1"),
        ("health = true", "there is no key 'health'; did you mean 'healthy'?"),
        ("healthy = true\n" + FAULT, "exclude each other"),
        ("fault = 3", "fault must be one or more tables [[fault]]"),
        ("[fault]\nonset = 1", "fault must be one or more tables [[fault]]"),
        ("healthy = tru", "is not TOML"),
        (FAULT + FAULT, "two faults are called 'spike'"),
        (FAULT.replace("name", "nam"), "fault 1: there is no key 'nam'; did you mean 'name'?"),
        (FAULT.replace('name = "spike"\n', ""), "fault 1: name is missing"),
        (FAULT.replace('"spike"', "3"), "fault 1: name must be a text, not 3"),
        (FAULT.replace("onset = 4\n", ""), "fault 1: onset is missing"),
        (FAULT.replace("onset = 4", "onset = -1"), "fault 'spike': onset must be an update"),
        (FAULT.replace("onset = 4", "onset = true"), "fault 'spike': onset must be an update"),
        (FAULT.replace("onset = 4", "onset = 4.0"), "whole number of at least 0, not 4.0"),
        (FAULT + "until = 3", "fault 'spike': until must be an update, a whole number of at least 4, not 3"),
        (FAULT + "hard = 1", "fault 'spike': hard must be true or false, not 1"),
        (FAULT.replace('["kl_spike"]', '"kl_spike"'), "rules must be a list of rule names, not 'kl_spike'"),
        (FAULT.replace('["kl_spike"]', "[]"), "rules must be a list of rule names, not []"),
        (FAULT.replace('["kl_spike"]', "[3]"), "rules must hold names, not 3"),
        (FAULT.replace("kl_spike", "kl_spik"), "there is no rule 'kl_spik'; did you mean 'kl_spike'?"),
        (FAULT.replace("kl_spike", "zzz"), "there is no rule 'zzz'; there are kl_spike, first_ratio"),
    ],
)
def test_a_mistake_is_named_with_file_key_and_the_nearest_valid_name(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(LabelsError) as caught:
        read(tmp_path, text)
    assert told in str(caught.value)
    assert str(tmp_path / "labels.toml") in str(caught.value)
    assert caught.value.exit_code == 3
