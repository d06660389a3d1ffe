"""labels.toml: what it may say, and how a mistake in it is answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from esper_analyze.replay.labels import LabelledFault, Labels, LabelsError, read_labels, read_labels_of_many

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


def test_a_label_may_say_harm_twin_change_and_groups(tmp_path: Path) -> None:
    (tmp_path / "labels.toml").write_text('twin = "../sound"\ngroups = {task = "pole"}\n' + FAULT + "harm = 0.15\n")
    labels = read_labels(tmp_path, RULES)
    assert labels is not None
    assert labels.twin == (tmp_path.parent / "sound").resolve()
    assert labels.groups == {"task": "pole"}
    assert [(fault.harm, fault.did_harm) for fault in labels.faults] == [(0.15, True)]
    (tmp_path / "labels.toml").write_text('healthy = true\nchange = "clip_halved"')
    changed = read_labels(tmp_path, RULES)
    assert changed == Labels((), healthy=True, change="clip_halved")
    assert not changed.sound


@pytest.mark.parametrize(
    ("labels", "sound", "healthy"),
    [
        (Labels(), True, (True, True)),
        (Labels(healthy=False), False, (False, False)),
        (Labels(change="c"), False, (True, True)),
        (Labels((LabelledFault("f", 4, ()),), healthy=False), False, (True, False)),
    ],
)
def test_what_is_sound_and_which_updates_are_healthy(labels: Labels, sound: bool, healthy: tuple[bool, bool]) -> None:
    assert labels.sound == sound
    assert (labels.healthy_at(3), labels.healthy_at(4)) == healthy


def test_one_file_has_the_labels_of_many_runs_with_paths_from_its_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    toml = '["runs/a"]\nhealthy = true\n["runs/b"]\ntwin = "runs/a"\n' + FAULT.replace("fault", '"runs/b".fault')
    (tmp_path / "labels.toml").write_text(toml)
    fault = {"name": "spike", "onset": 4, "rules": ["kl_spike"], "until": None}
    tables = {"runs/a": {"healthy": True}, "runs/b": {"twin": "runs/a", "fault": [fault]}}
    (tmp_path / "labels.json").write_text(json.dumps(tables))
    a, b = ((tmp_path / "runs" / name).resolve() for name in ("a", "b"))
    expected = {a: Labels(), b: Labels((LabelledFault("spike", 4, ("kl_spike",)),), healthy=False, twin=a)}
    assert read_labels_of_many(tmp_path / "labels.toml", RULES) == expected
    assert read_labels_of_many(tmp_path / "labels.json", RULES) == expected


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("l.json", "[]", "must hold a table for each run"),
        ("l.json", "{", "is not JSON"),
        ("l.toml", "{", "is not TOML"),
        ("l.json", '{"x": {"healthy": true}}', "there is no run 'x' in"),
        ("l.json", '{"a": 3}', "run 'a': it must be a table, not 3"),
        ("l.json", '{"a": {"healthy": true}, "./a": {"healthy": true}}', "run './a' has labels twice"),
        ("l.json", '{"a": {"healty": true}}', "run 'a': there is no key 'healty'; did you mean 'healthy'?"),
    ],
)
def test_a_mistake_in_the_file_of_many_is_named_with_the_run(name: str, text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(LabelsError) as caught:
        read_labels_of_many(tmp_path / name, RULES)
    assert told in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(LabelsError, match="nowhere"):
        read_labels_of_many(tmp_path / "nowhere.toml", RULES)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it has neither healthy = true nor any [[fault]]"),
        ('change = "rate"', "it has neither healthy = true nor any [[fault]]"),
        ('change = "rate"\n' + FAULT, "change and [[fault]] exclude each other"),
        ("healthy = true\ntwin = 3", "twin must be a text, not 3"),
        ("healthy = true\ngroups = 3", "groups must be a table of texts, not 3"),
        ("healthy = true\ngroups = {task = 3}", "groups.task must be a text, not 3"),
        (FAULT + "harm = 1.2", "fault 'spike': harm must be the share of the return that was lost, 0 to 1, not 1.2"),
        (FAULT + "harm = nan", "0 to 1, not nan"),
        (FAULT + "harm = true", "0 to 1, not True"),
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
