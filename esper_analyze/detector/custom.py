"""Rules of a user's own: a module that defines ``RULES``, or a sequence of rules, checked and made safe to run."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from esper_analyze.detector.checks import Refusal, check_rule
from esper_analyze.detector.rule import Memory, Rule
from esper_analyze.detector.rules import RULES
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.verdict import Judgement, Verdict
from esper_analyze.errors import UsageError

NAME = "RULES"
"""What a module with rules defines: a list of ``Rule``."""
_NEXT = "a module with rules defines RULES = [Rule(...), …], as esper_analyze/detector/rules/ratio_explosion.py does"


class CustomRulesError(UsageError):
    """Rules that cannot be used; the message says file, line, rule and what is wrong."""


@dataclass(frozen=True, slots=True)
class CustomRules:
    """Rules beside the built-in ones, and the file they come from (None: given as a sequence) with its SHA-256."""

    rules: tuple[Rule, ...] = ()
    file: str | None = None
    sha256: str | None = None

    def facts(self) -> dict[str, object] | None:
        """Return what run.json keeps of them, None when there are none."""
        if not self.rules:
            return None
        return {"rules": [rule.name for rule in self.rules], "file": self.file, "sha256": self.sha256}


def custom_rules(given: Path | str | Sequence[Rule] | None) -> CustomRules:
    """Return the rules of a file or of a sequence. Raises ``CustomRulesError``."""
    if given is None:
        return CustomRules()
    if isinstance(given, (str, Path)):
        return load_rules(Path(given).absolute())
    return CustomRules(_checked(list(given), _Source("rules"), RULES))


def load_rules(path: Path, beside: Sequence[Rule] = RULES) -> CustomRules:
    """Run the module at ``path`` and return its rules, checked; ``beside`` are the rules they will work with.

    Raises ``CustomRulesError``: file missing, code that does not run, no ``RULES``, or a rule that cannot be used.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CustomRulesError(f"{path} cannot be read: {error.strerror}", hint=_NEXT) from error
    digest = hashlib.sha256(content).hexdigest()
    source, code = _compiled(path, content)
    found = _executed(path, code, f"esper_analyze_rules_{digest[:16]}")
    if not hasattr(found, NAME):
        raise CustomRulesError(f"{path} does not define {NAME}", hint=_NEXT)
    return CustomRules(_checked(getattr(found, NAME), source, beside), str(path), digest)


def _compiled(path: Path, content: bytes) -> tuple[_Source, CodeType]:
    try:
        tree = ast.parse(content, str(path))
        return _Source(str(path), tree), compile(tree, str(path), "exec")
    except SyntaxError as error:
        raise CustomRulesError(f"{path}, line {error.lineno}: not Python: {error.msg}") from error
    except ValueError as error:
        raise CustomRulesError(f"{path}: not Python: {error}") from error


def _executed(path: Path, code: CodeType, name: str) -> ModuleType:
    """Run ``code`` as a module of its own; what it raises is told with file and line."""
    module = ModuleType(name)
    module.__file__ = str(path.absolute())
    sys.modules[name] = module  # dataclasses and pickle look modules up by name
    try:
        with contextlib.chdir("."):  # a module that changes the working directory does not move relative paths
            exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise CustomRulesError(f"{path}{_line_in(error, str(path))}: {_told(error)}", hint=_NEXT) from error
    return module


def _checked(found: object, source: _Source, beside: Sequence[Rule]) -> tuple[Rule, ...]:
    if not isinstance(found, (list, tuple)) or not found:
        raise CustomRulesError(f"{source.where()}: {NAME} must be a list of rules, not {found!r}", hint=_NEXT)
    for place, rule in enumerate(found):
        if not isinstance(rule, Rule):
            raise CustomRulesError(f"{source.where()}: {NAME}[{place}] must be a Rule, not {rule!r}", hint=_NEXT)
    names = [str(rule.name) for rule in (*beside, *found)]
    return tuple(_ready(rule, names, len(beside) + place, source) for place, rule in enumerate(found))


def _ready(rule: Rule, names: Sequence[str], place: int, source: _Source) -> Rule:
    """Return ``rule``, which is ``names[place]``, checked and with a judge whose errors can be told."""
    where = f"{source.where(rule.name)}: rule {rule.name!r}"
    if names.index(str(rule.name)) < place:
        kind = "a built-in rule" if rule.name in {one.name for one in RULES} else "another rule"
        raise CustomRulesError(f"{where} has the name of {kind}", hint="give it another name")
    safe = replace(rule, judge=_Guarded(rule)) if callable(rule.judge) else rule
    try:
        check_rule(safe, names)
    except Refusal as refusal:
        where = f"{source.where(refusal.about or rule.name)}: rule {rule.name!r}"
        raise CustomRulesError(f"{where}: {refusal}", hint=refusal.hint) from refusal
    return safe


@dataclass(frozen=True, slots=True)
class _Source:
    """Where rules come from, and the line of each declaration as far as it can be told."""

    file: str
    tree: ast.Module | None = None

    def where(self, name: object = None) -> str:
        """Return the file, and the line of the call that declares the rule or the example called ``name``."""
        for node in ast.walk(self.tree) if self.tree is not None else ():
            if isinstance(node, ast.Call) and name is not None and _calls(node) == name:
                return f"{self.file}, line {node.lineno}"
        return self.file


def _calls(call: ast.Call) -> object:
    """Return the ``name`` or ``title`` that a call gives as plain text, None when it gives none."""
    given = [keyword.value for keyword in call.keywords if keyword.arg in ("name", "title")] or call.args[:1]
    return given[0].value if given and isinstance(given[0], ast.Constant) else None


@dataclass(frozen=True, slots=True)
class _Guarded:
    """A rule's ``judge`` whose errors say rule, file and line, and whose verdicts have the right shape."""

    rule: Rule
    file: str = field(init=False)

    def __post_init__(self) -> None:
        code = getattr(self.rule.judge, "__code__", None)
        object.__setattr__(self, "file", getattr(code, "co_filename", ""))

    def __call__(self, frame: Frame, memory: Memory, limits: Any) -> list[Judgement]:
        judge: Callable[..., Any] = self.rule.judge
        try:
            judgements = judge(frame, memory, limits)
        except Exception as error:
            raise self._error(_told(error), _line_in(error, self.file)) from error
        if not isinstance(judgements, list) or not all(isinstance(one, Judgement) for one in judgements):
            raise self._error(f"judge must return a list of Judgement, not {judgements!r:.80}", self._first_line())
        for one in judgements:
            if one.code.shape != frame.present.shape:
                words = f"verdicts on {one.metric!r} have the shape {one.code.shape}, not {frame.present.shape}"
                raise self._error(words, self._first_line())
        return judgements

    def _first_line(self) -> str:
        code = getattr(self.rule.judge, "__code__", None)
        return f", line {code.co_firstlineno}" if code is not None else ""

    def _error(self, words: str, line: str) -> CustomRulesError:
        return CustomRulesError(f"{self.file or 'rules'}{line}: rule {self.rule.name!r}: {words}")


def unjudged(metric: str, shape: tuple[int, ...], why: str) -> Judgement:
    """Return ``no_data`` on ``metric`` everywhere: what is said where a rule could not judge."""
    nothing, codes = np.full(shape, np.nan), np.ones(shape, np.int8)
    return Judgement(metric, codes * np.int8(Verdict.NO_DATA), nothing, nothing, nothing, codes, ("", why), frozenset())


def _line_in(error: BaseException, file: str) -> str:
    """Return ", line n" of the last call within ``file`` on the way to ``error``, empty when there is none."""
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    return line


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
