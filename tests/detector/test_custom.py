"""Rules of a user's own: a sound file is taken, everything else is refused with file, line and what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from esper_analyze.detector.checks import check_rule
from esper_analyze.detector.custom import CustomRulesError, custom_rules, load_rules
from esper_analyze.detector.detector import Detector
from esper_analyze.detector.examples import ending
from esper_analyze.detector.rule import Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.verdict import Verdict
from tests.detector.batches import judge_cells

OWN = Path(__file__).parents[2] / "sample_runs" / "own_rules.py"
Broken = Callable[[str, str], Path]


@pytest.fixture
def broken(tmp_path: Path) -> Broken:
    """Return a function that writes the module with one text replaced."""

    def write(old: str, new: str) -> Path:
        text = OWN.read_text()
        assert old in text
        (tmp_path / "own.py").write_text(text.replace(old, new, 1))
        return tmp_path / "own.py"

    return write


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), start=1) if text in line)


def refused(path: Path) -> str:
    with pytest.raises(CustomRulesError) as caught:
        load_rules(path)
    assert caught.value.exit_code == 2
    return str(caught.value) + f" ({caught.value.hint})"


def test_a_sound_file_gives_its_rules_its_name_and_its_digest() -> None:
    found = load_rules(OWN)
    assert [rule.name for rule in found.rules] == ["wide_ratio"]
    assert found.facts() == {"rules": ["wide_ratio"], "file": str(OWN), "sha256": found.sha256}
    assert found.sha256 is not None
    assert len(found.sha256) == 64


def test_the_rules_of_a_file_judge_like_any_other() -> None:
    (rule,) = load_rules(OWN).rules
    outcome = judge_cells(Detector(rules=[rule]), "updates", {"ratio_std": [0.9, 0.9, None]}, 3)
    codes = outcome.judged[0].judgements[0].code[:, 0]
    assert codes.tolist() == [Verdict.OK, Verdict.WARNING, Verdict.NO_DATA]


def test_rules_may_be_given_as_a_sequence_or_not_at_all() -> None:
    rules = load_rules(OWN).rules
    given = custom_rules(rules)
    assert [rule.name for rule in given.rules] == ["wide_ratio"]
    assert given.facts() == {"rules": ["wide_ratio"], "file": None, "sha256": None}
    assert custom_rules(None).facts() is None
    with pytest.raises(CustomRulesError, match="rule 'kl_spike' has the name of a built-in rule"):
        custom_rules([rule for rule in RULES if rule.name == "kl_spike"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_built_in_rules_pass_the_checks_a_user_s_rule_must_pass(rule: Rule) -> None:
    if not rule.fills:
        check_rule(rule, [one.name for one in RULES])
    for example in rule.examples:
        got = ending(rule, example)
        assert (got.verdict, got.course) == (example.verdict, got.in_one_batch)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name="wide_ratio"', 'name="kl_spike"', "has the name of a built-in rule (give it another name)"),
        ('name="wide_ratio"', 'name="Wide ratio"', "lower-case letters"),
        ('table="updates"', 'table="update"', "there is no table 'update'; did you mean 'updates'?"),
        ('columns=("ratio_std",)', 'columns=("ratio_sd",)', "no column 'ratio_sd'; did you mean 'ratio_std'?"),
        ('columns=("ratio_std",)', 'columns=("ratio_std")', "columns must be a tuple, not 'ratio_std'"),
        ("limits=WideRatioLimits", "limits=WideRatioLimits()", "limits must be a class made from Limits"),
        (
            "@dataclass(frozen=True, slots=True)\n",
            "",
            "WideRatioLimits is not a dataclass, so warning is not a threshold",
        ),
        ('limit(0.5, "own runs: sound ones stay below 0.3")', "0.5", "threshold warning does not say where"),
        ('limit(0.5, "own runs: sound ones', 'limit("x", "own runs: sound ones', "threshold warning must be a number"),
        ("judge=judge", "judge=None", "judge must be a function, not None"),
        ('meaning="The policy moves far on many samples at once."', 'meaning=""', "meaning must be a text, not ''"),
        ('causes=("kl_spike",)', 'causes=("kl_spik",)', "causes: there is no rule 'kl_spik'; did you mean 'kl_spike'?"),
        ('confirmed_by="updates"', 'confirmed_by="update"', "no threshold 'update'; did you mean 'updates'?"),
        ('confirmed_by="updates"', 'confirmed_by="warning"', "warning must be a whole number of at least 1"),
        ('confirmed_by="updates"', 'fills=("drift_norm",)', "only built-in rules can"),
        ('memory={"wide": zeros}', 'memory={"wide": 0}', "memory must map names to functions"),
        ('memory={"wide": zeros}', 'beside=("heads",)', "beside must map tables to their columns"),
        ('memory={"wide": zeros}', 'beside={"head": ()}', "there is no table 'head'; did you mean 'heads'?"),
    ],
)
def test_a_rule_that_is_not_declared_right_is_refused(old: str, new: str, told: str, broken: Broken) -> None:
    path = broken(old, new)
    said = refused(path)
    assert told in said
    assert said.startswith(f"{path}, line {line_of(path, '    Rule(')}: rule '")


@pytest.mark.parametrize(
    ("new", "told"),
    [
        ('Example("wide twice", "critical", {"ratio_std": [0.9, 0.9]}, updates=2)', "expected critical, got warning"),
        ('Example("wide twice", "alarm", {"ratio_std": [0.9, 0.9]}, updates=2)', "there is no verdict 'alarm'"),
        ('Example("wide twice", "warnin", {"ratio_std": [0.9, 0.9]}, updates=2)', "did you mean 'warning'?"),
        ('Example("wide twice", "warning", {"ratio_sd": [0.9, 0.9]}, updates=2)', "did you mean 'ratio_std'?"),
        ('Example("wide twice", "warning", {"ratio_std": [0.9, 0.9]}, updates=3)', "has 2 values for 3 updates"),
        ('Example("wide twice", "warning", {"ratio_std": 0.9}, updates=0)', "updates must be a whole number"),
        ('Example("wide twice", "warning", {"ratio_std": "much"}, updates=2)', "cannot be judged: ValueError"),
        ('Example("wide twice", "warning", 0.9)', "cells must map columns to values, not 0.9"),
        (
            'Example("wide twice", "no_data", {"ratio_std": None}, reason="broken")',
            "expected the reason 'broken', got 'ratio_std is missing'",
        ),
    ],
)
def test_an_example_that_does_not_come_out_is_refused_with_its_line(new: str, told: str, broken: Broken) -> None:
    path = broken('Example("wide twice", "warning", {"ratio_std": [0.9, 0.9]}, updates=2)', new)
    said = refused(path)
    assert told in said
    line = line_of(path, '"wide twice"')
    assert said.startswith(f"{path}, line {line}: rule 'wide_ratio': example 'wide twice': ")


def test_a_rule_without_evidence_is_refused(broken: Broken) -> None:
    path = broken('Example("a sound update", "ok", {"ratio_std": 0.1}),', '"a sound update",')
    assert "examples must hold Example(title, verdict, cells), not 'a sound update'" in refused(path)
    assert "it has no example" in refused(broken("examples=(", "examples=()[:0] and ("))


def test_a_rule_that_calls_missing_data_healthy_is_refused(broken: Broken) -> None:
    path = broken('Example("not recorded", "no_data", {"ratio_std": None}),', "")
    healthy = "[settle('ratio_std', Signal('x', np.zeros(frame.present.shape), np.zeros(frame.present.shape, bool)), "
    text = path.read_text().replace('[settle("ratio_std", spread, ', healthy)
    path.write_text(text.replace("import Frame\n", "import Frame, Signal\nimport numpy as np\n"))
    assert "with every column missing: expected no_data, got ok (settle() takes care of it)" in refused(path)


def test_a_rule_that_keeps_state_outside_its_memory_is_refused(broken: Broken) -> None:
    path = broken('memory["wide"]', "zeros(len(frame.subjects))")
    assert "update 1 is ok when updates come one by one and warning when they come together" in refused(path)


def test_what_judge_raises_is_told_with_its_line(broken: Broken) -> None:
    path = broken('spread = frame["ratio_std"]', 'spread = frame["ratio_std"]\n    1 / 0')
    said = refused(path)
    assert said.startswith(f"{path}, line {line_of(path, '1 / 0')}: rule 'wide_ratio': ZeroDivisionError")
    assert "in example 'a sound update'" in said


def test_what_judge_returns_must_be_judgements_of_the_right_shape(broken: Broken) -> None:
    path = broken('return [settle("ratio_std"', 'return None and [settle("ratio_std"')
    assert f"line {line_of(path, 'def judge')}: rule 'wide_ratio': judge must return a list" in refused(path)
    path = broken('return [settle("ratio_std", spread,', 'return [settle("ratio_std", Signal("x", ONE, ONE > 2),')
    path.write_text(
        path.read_text().replace("import Frame\n", "import Frame, Signal\nimport numpy as np\nONE = np.ones((7, 1))\n")
    )
    assert "verdicts on 'ratio_std' have the shape (7, 1), not (1, 1)" in refused(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "own.py does not define RULES"),
        ("RULES = []\n", "RULES must be a list of rules, not []"),
        ("RULES = 3\n", "RULES must be a list of rules, not 3"),
        ("RULES = ['kl_spike']\n", "RULES[0] must be a Rule, not 'kl_spike'"),
        ("x = 1\nRULES = [\n", "own.py, line 2: not Python: '[' was never closed"),
        ("x = 1\nimport nowhere_to_be_found\n", "own.py, line 2: ModuleNotFoundError"),
        ("def f():\n    raise KeyError\n\n\nf()\n", "own.py, line 2: KeyError"),
        ("raise SystemExit(4)\n", "own.py, line 1: SystemExit: 4"),
        ("x = '\0'\n", "not Python"),
    ],
)
def test_a_file_that_does_not_run_is_told_with_its_line(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(text)
    assert told in refused(tmp_path / "own.py")


def test_a_file_that_is_not_there_is_told() -> None:
    assert "nowhere.py cannot be read: No such file" in refused(Path("nowhere.py"))


def test_two_rules_of_one_name_are_refused(broken: Broken) -> None:
    path = broken("RULES = [", "RULES = 2 * [")
    assert "has the name of another rule" in refused(path)


def test_a_judge_that_fails_on_data_names_rule_file_and_line(broken: Broken) -> None:
    path = broken(
        'spread = frame["ratio_std"]', 'spread = frame["ratio_std"]\n    assert not (spread.values > 5).any()'
    )
    (rule,) = load_rules(path).rules
    with pytest.raises(CustomRulesError) as caught:
        judge_cells(Detector(rules=[rule]), "updates", {"ratio_std": np.inf}, 1)
    assert str(caught.value) == f"{path}, line {line_of(path, 'assert')}: rule 'wide_ratio': AssertionError"
