"""What a rule of a user's own must declare: each thing that is missing or wrong, with its sentence and its hint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from esper_analyze.detector.checks import Refusal, check_rule
from esper_analyze.detector.custom import CustomRules, CustomRulesError, custom_rules, unjudged, with_custom
from esper_analyze.detector.examples import ending, length
from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.streaks import tally, zeros
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, Verdict, settle

NAMES = [rule.name for rule in RULES]


@dataclass(frozen=True, slots=True)
class OwnLimits(Limits):
    """Bounds on the norm."""

    warning: float = limit(5.0, "by design")
    updates: int = limit(2, "by design", at_least=1)
    loose: int = limit(2, "by design")


def judge(frame: Frame, memory: Memory, limits: OwnLimits) -> list[Judgement]:
    """Judge the norm: a warning from the second update above its bound on, with any head's entropy at hand."""
    norm = frame["grad_norm"]
    number = tally(norm.finite & (norm.values > limits.warning), memory["number"])
    odd = Excuse(frame["heads.entropy"].equals(9.0), "odd entropy")
    bounds = Bounds(info=norm.values > limits.warning, warning=number >= limits.updates, warning_at=limits.warning)
    return [settle("grad_norm", norm, bounds, excuses=[odd])]


OWN = Rule(
    name="own",
    table="groups",
    columns=("grad_norm",),
    limits=OwnLimits,
    judge=judge,
    title="A title",
    meaning="A meaning",
    look_first="Look",
    reference="A reference",
    beside={"heads": ("entropy",)},
    memory={"number": zeros},
    causes=("kl_spike",),
    follows=("own",),
    confirmed_by="updates",
    examples=(
        Example("small", "ok", {"grad_norm": 1.0}),
        Example("once", "info", {"grad_norm": [1.0, 9.0]}),
        Example("twice", "warning", {"grad_norm": 9.0, "heads.entropy": 1.0}, updates=2),
        Example("odd", "not_applicable", {"grad_norm": 9.0, "heads.entropy": 9.0}, reason="odd entropy"),
        Example("none", "no_data", {"grad_norm": None}, reason="grad_norm is missing"),
    ),
)


def refusal(**changed: Any) -> tuple[str, str, str | None]:
    with pytest.raises(Refusal) as caught:
        check_rule(replace(OWN, **changed), [*NAMES, "own"])
    return str(caught.value), caught.value.hint, caught.value.about


def test_a_sound_rule_passes() -> None:
    check_rule(OWN, [*NAMES, "own"])
    check_rule(replace(OWN, name="a1_b", confirmed_by=None, causes=(), follows=()), [])


NUMBERED = ("name", "table", "title", "meaning", "look_first", "reference")


@pytest.mark.parametrize("name", NUMBERED)
@pytest.mark.parametrize("value", ["", 3, None])
def test_texts_are_texts(name: str, value: object) -> None:
    assert refusal(**{name: value}) == (f"{name} must be a text, not {value!r}", "", None)


@pytest.mark.parametrize("name", ["columns", "examples", "causes", "follows", "fills"])
def test_tuples_are_tuples(name: str) -> None:
    assert refusal(**{name: ["x"]}) == (f"{name} must be a tuple, not ['x']", f'write {name}=("…",)', None)


@pytest.mark.parametrize("name", ["Own", "1own", "own rule", "own-rule", "_own", "own\n"])
def test_a_name_is_lower_case(name: str) -> None:
    assert refusal(name=name)[0] == "its name must be lower-case letters, digits and underscores"


@pytest.mark.parametrize(
    ("changed", "words", "hint"),
    [
        ({"judge": None}, "judge must be a function, not None", ""),
        ({"memory": [zeros]}, "memory must map names to functions from the number of subjects to the first value", ""),
        ({"memory": {"number": 3}}, "memory must map names to functions from the number of subjects to the first", ""),
        ({"table": "group"}, "there is no table 'group'; did you mean 'groups'?", ""),
        ({"columns": ()}, "columns names no column to judge", ""),
        ({"columns": ("grad_nor",)}, "table groups has no column 'grad_nor'; did you mean 'grad_norm'?", ""),
        ({"beside": ("heads",)}, "beside must map tables to their columns, not ('heads',)", ""),
        ({"beside": {"head": ("entropy",)}}, "there is no table 'head'; did you mean 'heads'?", ""),
        ({"beside": {"heads": ("entrop",)}}, "table heads has no column 'entrop'; did you mean 'entropy'?", ""),
        ({"limits": OwnLimits()}, "limits must be a class made from Limits, not OwnLimits(", ""),
        ({"limits": dict}, "limits must be a class made from Limits, not <class 'dict'>", ""),
        ({"causes": ("kl_spik",)}, "causes: there is no rule 'kl_spik'; did you mean 'kl_spike'?", ""),
        ({"follows": ("kl_spik",)}, "causes: there is no rule 'kl_spik'; did you mean 'kl_spike'?", ""),
        (
            {"fills": ("drift_norm",)},
            "fills columns of the recording, which only built-in rules can",
            "leave fills out",
        ),
        ({"confirmed_by": "update"}, "confirmed_by: there is no threshold 'update'; did you mean 'updates'?", ""),
        (
            {"confirmed_by": "warning"},
            "confirmed_by: warning must be a whole number of at least 1",
            "limit(3, …, at_least=1)",
        ),
        (
            {"confirmed_by": "loose"},
            "confirmed_by: loose must be a whole number of at least 1",
            "limit(3, …, at_least=1)",
        ),
        (
            {"examples": ()},
            "it has no example",
            "a rule brings its evidence: at least what is ok and what is not",
        ),
        ({"examples": ("x",)}, "examples must hold Example(title, verdict, cells), not 'x'", ""),
        (
            {
                "examples": (Example(3, "ok", {}),)  # type: ignore[arg-type]
            },
            "examples must hold Example(title, verdict, cells)",
            "",
        ),
    ],
)
def test_what_is_declared_wrong_is_refused_in_words(changed: dict[str, Any], words: str, hint: str) -> None:
    said, said_hint, about = refusal(**changed)
    assert said.startswith(words)
    assert (said_hint, about) == (hint, None)


def test_limits_must_be_a_dataclass_with_sources_and_numbers() -> None:
    class Bare(Limits):
        warning: float = limit(5.0, "why")

    said, hint, _ = refusal(limits=Bare, confirmed_by=None)
    assert said == "Bare is not a dataclass, so warning is not a threshold"
    assert hint == "put @dataclass(frozen=True, slots=True) above it"

    @dataclass(frozen=True, slots=True)
    class Needing(Limits):
        warning: float = field(kw_only=True)

    assert refusal(limits=Needing, confirmed_by=None)[0].startswith("Needing cannot be made from its defaults: ")

    @dataclass(frozen=True, slots=True)
    class Worded(Limits):
        warning: str = limit("high", "why")

    assert refusal(limits=Worded, confirmed_by=None)[0] == "threshold warning must be a number, not 'high'"

    @dataclass(frozen=True, slots=True)
    class Flagged(Limits):
        warning: bool = limit(True, "why")

    assert refusal(limits=Flagged, confirmed_by=None)[0] == "threshold warning must be a number, not True"

    @dataclass(frozen=True, slots=True)
    class Unsourced(Limits):
        warning: float = 5.0

    said, hint, _ = refusal(limits=Unsourced, confirmed_by=None)
    assert said == "threshold warning does not say where its default comes from"
    assert hint == 'write warning: float = limit(5.0, "source")'


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"verdict": "absent"},
            "there is no verdict 'absent'; there are not_applicable, no_data, ok, info, warning, critical",
        ),
        ({"verdict": "warn"}, "there is no verdict 'warn'; did you mean 'warning'?"),
        ({"updates": 0}, "updates must be a whole number of at least 1, not 0"),
        ({"updates": 1.5}, "updates must be a whole number of at least 1, not 1.5"),
        ({"cells": [1]}, "cells must map columns to values, not [1]"),
        ({"cells": {"grad_nor": 1.0}}, "the rule reads no column 'grad_nor'; did you mean 'grad_norm'?"),
        ({"cells": {"heads.entropi": 1.0}}, "the rule reads no column 'heads.entropi'; did you mean 'heads.entropy'?"),
        ({"cells": {"grad_norm": [1.0, 1.0]}, "updates": 3}, "grad_norm has 2 values for 3 updates"),
        ({"cells": {"grad_norm": []}}, "grad_norm has 0 values for 0 updates"),
        ({"cells": {"grad_norm": [1.0, 1.0], "heads.entropy": [1.0]}}, "heads.entropy has 1 values for 2 updates"),
        ({"cells": {"grad_norm": "x"}}, "cannot be judged: ValueError: could not convert string to float: 'x'"),
        ({"verdict": "critical"}, "expected critical, got ok"),
        ({"cells": {"grad_norm": None}}, "expected ok, got no_data (grad_norm is missing)"),
        ({"reason": "why"}, "expected the reason 'why', got ''"),
    ],
)
def test_an_example_that_does_not_hold_is_refused_by_its_title(changed: dict[str, Any], words: str) -> None:
    said, _, about = refusal(examples=(replace(OWN.examples[0], **changed),))
    assert (said, about) == (f"example 'small': {words}", "small")


def test_a_rule_whose_state_is_not_in_its_memory_is_refused() -> None:
    def forgetting(frame: Frame, _: Memory, limits: OwnLimits) -> list[Judgement]:
        return judge(frame, {"number": zeros(1)}, limits)

    said, hint, about = refusal(judge=forgetting, examples=(replace(OWN.examples[2], updates=3),))
    words = "update 1 is info when updates come one by one and warning when they come together"
    assert said == f"example 'twice': {words}"
    assert (hint, about) == ("what is carried from update to update belongs into the memory", "twice")


def test_a_rule_that_finds_nothing_missing_is_refused() -> None:
    def healthy(frame: Frame, _: Memory, __: OwnLimits) -> list[Judgement]:
        shape = frame.present.shape
        codes, nothing = np.full(shape, int(Verdict.OK), np.int8), np.full(shape, np.nan)
        return [Judgement("grad_norm", codes, nothing, nothing, nothing, codes * 0, ("",), frozenset())]

    said, hint, _ = refusal(judge=healthy, examples=OWN.examples[:1])
    assert said == "with every column missing: expected no_data, got ok"
    assert hint == "settle() takes care of it"


def test_the_course_and_the_end_of_an_example() -> None:
    got = ending(OWN, OWN.examples[2])
    assert (got.verdict, got.reason, got.course) == ("warning", "", ("info", "warning"))
    assert got.in_one_batch == got.course
    got = ending(OWN, OWN.examples[3])
    assert (got.verdict, got.reason) == ("not_applicable", "odd entropy")
    assert [length(one) for one in OWN.examples] == [1, 2, 2, 1, 1]


def test_of_several_metrics_the_worst_verdict_counts_and_missing_data_before_ok() -> None:
    def both(one: Verdict, other: Verdict) -> str:
        def judging(frame: Frame, _: Memory, __: Limits) -> list[Judgement]:
            shape = frame.present.shape
            nothing, reason = np.full(shape, np.nan), np.zeros(shape, np.int8)
            return [
                Judgement(
                    name, np.full(shape, int(code), np.int8), nothing, nothing, nothing, reason, ("",), frozenset()
                )
                for name, code in (("a", one), ("b", other))
            ]

        return ending(replace(OWN, judge=judging), OWN.examples[0]).verdict

    order = [Verdict.OK, Verdict.NOT_APPLICABLE, Verdict.NO_DATA, Verdict.INFO, Verdict.WARNING, Verdict.CRITICAL]
    for i, better in enumerate(order):
        for worse in order[i:]:
            assert both(better, worse) == both(worse, better) == worse.word


def test_rules_given_as_a_sequence_are_checked_by_place() -> None:
    given = custom_rules([OWN])
    assert given.facts() == {"rules": ["own"], "file": None, "sha256": None}
    assert [rule.name for rule in with_custom([given, given])] == [*NAMES, "own", "own"]
    assert CustomRules().facts() is None
    for rules, words in (
        ([OWN, OWN], "rules: rule 'own' has the name of another rule"),
        ([replace(OWN, name="kl_spike")], "rules: rule 'kl_spike' has the name of a built-in rule"),
        ([OWN, "x"], "rules: RULES[1] must be a Rule, not 'x'"),
        ([], "rules: RULES must be a list of rules, not []"),
        ([replace(OWN, title="")], "rules: rule 'own': title must be a text, not ''"),
    ):
        with pytest.raises(CustomRulesError) as caught:
            custom_rules(rules)  # type: ignore[arg-type]
        assert caught.value.message == words


def test_a_rule_that_could_not_judge_has_no_data_everywhere() -> None:
    judged = unjudged("grad_norm", (2, 3), "it failed")
    assert judged.code.tolist() == [[Verdict.NO_DATA] * 3] * 2
    assert [[judged.reasons[i] for i in row] for row in judged.reason.tolist()] == [["it failed"] * 3] * 2
    for cells in (judged.value, judged.threshold, judged.baseline):
        assert cells.shape == (2, 3)
        assert np.isnan(cells).all()
    assert (judged.metric, judged.quiet) == ("grad_norm", frozenset())
