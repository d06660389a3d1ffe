"""Custom rules: a module that defines ``RULES``, or a sequence of rules, checked and made safe to run."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterable, Sequence
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
"""Name of the list of ``Rule`` that a module with rules defines."""
_NEXT = "a module with rules defines RULES = [Rule(...), …]; `esper-analyze rules --example` prints one"


class CustomRulesError(UsageError):
    """Invalid custom rules; the message names file, line, rule and the problem."""


@dataclass(frozen=True, slots=True)
class CustomRules:
    """Custom rules, and the file they come from (None: given as a sequence) with its SHA-256."""

    rules: tuple[Rule, ...] = ()
    file: str | None = None
    sha256: str | None = None

    def facts(self) -> dict[str, object] | None:
        """Return the entry for run.json, None without rules."""
        if not self.rules:
            return None
        return {"rules": [rule.name for rule in self.rules], "file": self.file, "sha256": self.sha256}


def custom_rules(source: Path | str | Sequence[Rule] | None) -> CustomRules:
    """Return the rules of a file or of a sequence. Raises ``CustomRulesError``."""
    if source is None:
        return CustomRules()
    if isinstance(source, (str, Path)):
        return load_rules(Path(source).absolute())
    return CustomRules(_checked(list(source), _Source("rules"), RULES))


def load_rules(path: Path, beside: Sequence[Rule] = RULES) -> CustomRules:
    """Run the module at ``path`` and return its rules, checked; ``beside`` are the rules used together with them.

    Raises ``CustomRulesError``: file missing, code that does not run, no ``RULES``, or an invalid rule.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CustomRulesError(f"{path} cannot be read: {error.strerror}", hint=_NEXT) from error
    digest = hashlib.sha256(content).hexdigest()
    source, code = _compiled(path, content)
    module = _executed(path, code, f"esper_analyze_rules_{digest[:16]}")
    if not hasattr(module, NAME):
        raise CustomRulesError(f"{path} does not define {NAME}", hint=_NEXT)
    return CustomRules(_checked(getattr(module, NAME), source, beside), str(path), digest)


def load_rule_files(files: Iterable[Path]) -> tuple[CustomRules, ...]:
    """Return the checked rules of each file, to be used together. Raises ``CustomRulesError``."""
    loaded: list[CustomRules] = []
    for file in files:
        loaded.append(load_rules(file, with_custom(loaded)))
    return tuple(loaded)


def with_custom(custom: Iterable[CustomRules]) -> tuple[Rule, ...]:
    """Return the built-in rules and ``custom`` ones after them."""
    return (*RULES, *(rule for file in custom for rule in file.rules))


def _compiled(path: Path, content: bytes) -> tuple[_Source, CodeType]:
    try:
        tree = ast.parse(content, str(path))
        return _Source(str(path), tree), compile(tree, str(path), "exec")
    except SyntaxError as error:
        raise CustomRulesError(f"{path}, line {error.lineno}: not Python: {error.msg}") from error
    except ValueError as error:
        raise CustomRulesError(f"{path}: not Python: {error}") from error


def _executed(path: Path, code: CodeType, name: str) -> ModuleType:
    """Run ``code`` as a module of its own; an exception is reported with file and line."""
    module = ModuleType(name)
    module.__file__ = str(path.absolute())
    sys.modules[name] = module  # dataclasses and pickle look modules up by name
    try:
        with contextlib.chdir("."):  # a module that changes the working directory must not affect relative paths
            exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise CustomRulesError(f"{path}{_line_in(error, str(path))}: {_described(error)}", hint=_NEXT) from error
    return module


def _checked(declared: object, source: _Source, beside: Sequence[Rule]) -> tuple[Rule, ...]:
    if not isinstance(declared, (list, tuple)) or not declared:
        raise CustomRulesError(f"{source.where()}: {NAME} must be a list of rules, not {declared!r}", hint=_NEXT)
    for index, rule in enumerate(declared):
        if not isinstance(rule, Rule):
            raise CustomRulesError(f"{source.where()}: {NAME}[{index}] must be a Rule, not {rule!r}", hint=_NEXT)
    names = [str(rule.name) for rule in (*beside, *declared)]
    return tuple(_ready(rule, names, len(beside) + index, source) for index, rule in enumerate(declared))


def _ready(rule: Rule, names: Sequence[str], position: int, source: _Source) -> Rule:
    """Return ``rule``, which is ``names[position]``, checked and with a judge whose errors name file and line."""
    where = f"{source.where(rule.name)}: rule {rule.name!r}"
    if names.index(str(rule.name)) < position:
        kind = "a built-in rule" if rule.name in {built_in.name for built_in in RULES} else "another rule"
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
    """Where rules come from, and the line of each declaration as far as it can be determined."""

    file: str
    tree: ast.Module | None = None

    def where(self, name: object = None) -> str:
        """Return the file, and the line of the call that declares the rule or the example called ``name``."""
        for node in ast.walk(self.tree) if self.tree is not None else ():
            if isinstance(node, ast.Call) and name is not None and _calls(node) == name:
                return f"{self.file}, line {node.lineno}"
        return self.file


def _calls(call: ast.Call) -> object:
    """Return the ``name`` or ``title`` that a call passes as a plain string, else None."""
    texts = [keyword.value for keyword in call.keywords if keyword.arg in ("name", "title")] or call.args[:1]
    return texts[0].value if texts and isinstance(texts[0], ast.Constant) else None


@dataclass(frozen=True, slots=True)
class _Guarded:
    """A rule's ``judge`` whose errors name rule, file and line, and whose verdicts have the right shape."""

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
            raise self._error(_described(error), _line_in(error, self.file)) from error
        if not isinstance(judgements, list) or not all(isinstance(judgement, Judgement) for judgement in judgements):
            raise self._error(f"judge must return a list of Judgement, not {judgements!r:.80}", self._first_line())
        for judgement in judgements:
            if judgement.code.shape != frame.present.shape:
                words = (
                    f"verdicts on {judgement.metric!r} have the shape {judgement.code.shape}, not {frame.present.shape}"
                )
                raise self._error(words, self._first_line())
        return judgements

    def _first_line(self) -> str:
        code = getattr(self.rule.judge, "__code__", None)
        return f", line {code.co_firstlineno}" if code is not None else ""

    def _error(self, words: str, line: str) -> CustomRulesError:
        return CustomRulesError(f"{self.file or 'rules'}{line}: rule {self.rule.name!r}: {words}")


def unjudged(metric: str, shape: tuple[int, ...], why: str) -> Judgement:
    """Return ``no_data`` on ``metric`` everywhere, for a rule that could not judge."""
    nothing, codes = np.full(shape, np.nan), np.ones(shape, np.int8)
    return Judgement(metric, codes * np.int8(Verdict.NO_DATA), nothing, nothing, nothing, codes, ("", why), frozenset())


def _line_in(error: BaseException, file: str) -> str:
    """Return ", line n" of the last call within ``file`` in the traceback of ``error``, empty without one."""
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    return line


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
