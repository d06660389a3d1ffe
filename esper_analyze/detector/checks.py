"""Checks that a custom rule must pass: its declaration, its thresholds, and the verdicts of its examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields

from esper_analyze.detector.examples import Ending, ending, length
from esper_analyze.detector.rule import Example, Limits, Rule
from esper_analyze.detector.verdict import WORDS
from esper_analyze.errors import EsperError, did_you_mean
from esper_analyze.schema.tables import BY_NAME

_TEXTS = ("name", "table", "title", "meaning", "look_first", "reference")
_TUPLES = ("columns", "examples", "causes", "follows", "fills")
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_DATACLASS = "put @dataclass(frozen=True, slots=True) above it"


class Refusal(ValueError):  # noqa: N818 (it is the answer, not an accident)
    """Why a rule cannot be used, and a hint; ``about`` is the title of the example concerned, if any."""

    def __init__(self, message: str, hint: str = "", about: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.about = about


def check_rule(rule: Rule, names: Sequence[str]) -> None:
    """Check that a rule is declared completely and that its examples have the verdicts they state.

    ``names`` are all rules it may name as causes. Raises ``Refusal``.
    """
    _check_types(rule)
    _check_columns(rule)
    _check_limits(rule.limits)
    _check_confirmed(rule)
    for cause in (*rule.causes, *rule.follows):
        if cause not in names:
            raise Refusal(f"causes: there is no rule {cause!r}{did_you_mean(str(cause), names)}")
    if rule.fills:
        raise Refusal("fills columns of the recording, which only built-in rules can", "leave fills out")
    _check_examples(rule)


def _check_types(rule: Rule) -> None:
    for name in _TEXTS:
        value = getattr(rule, name)
        if not isinstance(value, str) or not value:
            raise Refusal(f"{name} must be a text, not {value!r}")
    if not _NAME.match(rule.name):
        raise Refusal("its name must be lower-case letters, digits and underscores")
    for name in _TUPLES:
        value = getattr(rule, name)
        if not isinstance(value, tuple):
            raise Refusal(f"{name} must be a tuple, not {value!r:.80}", f'write {name}=("…",)')
    if not callable(rule.judge):
        raise Refusal(f"judge must be a function, not {rule.judge!r}")
    if not isinstance(rule.memory, Mapping) or not all(callable(first) for first in rule.memory.values()):
        raise Refusal("memory must map names to functions from the number of subjects to the first value")


def _check_columns(rule: Rule) -> None:
    if rule.table not in BY_NAME:
        raise Refusal(f"there is no table {rule.table!r}{did_you_mean(rule.table, BY_NAME)}")
    if not rule.columns:
        raise Refusal("columns names no column to judge")
    if not isinstance(rule.beside, Mapping):
        raise Refusal(f"beside must map tables to their columns, not {rule.beside!r:.80}")
    for table, columns in {rule.table: rule.columns, **rule.beside}.items():
        if table not in BY_NAME:
            raise Refusal(f"there is no table {table!r}{did_you_mean(table, BY_NAME)}")
        for column in columns:
            if column not in BY_NAME[table].names:
                raise Refusal(
                    f"table {table} has no column {column!r}{did_you_mean(str(column), BY_NAME[table].names)}"
                )


def _check_limits(limits: type[Limits]) -> None:
    if not (isinstance(limits, type) and issubclass(limits, Limits)):
        raise Refusal(f"limits must be a class made from Limits, not {limits!r}")
    bare = [name for name, value in vars(limits).items() if isinstance(value, Field)]
    if bare:
        raise Refusal(f"{limits.__name__} is not a dataclass, so {bare[0]} is not a threshold", _DATACLASS)
    try:
        defaults = limits()
    except TypeError as error:
        raise Refusal(f"{limits.__name__} cannot be made from its defaults: {error}") from error
    for item in fields(limits):
        value = getattr(defaults, item.name)
        if isinstance(value, bool) or not isinstance(value, (int, float, dict)):
            raise Refusal(f"threshold {item.name} must be a number, not {value!r}")
        if not item.metadata.get("source"):
            raise Refusal(
                f"threshold {item.name} does not say where its default comes from",
                f'write {item.name}: {type(value).__name__} = limit({value!r}, "source")',
            )


def _check_confirmed(rule: Rule) -> None:
    declared = {item.name: item for item in fields(rule.limits)}
    name = rule.confirmed_by
    if name is None:
        return
    if name not in declared:
        raise Refusal(f"confirmed_by: there is no threshold {name!r}{did_you_mean(str(name), declared)}")
    if not isinstance(getattr(rule.limits(), name), int) or (declared[name].metadata.get("at_least") or 0) < 1:
        raise Refusal(f"confirmed_by: {name} must be a whole number of at least 1", "limit(3, …, at_least=1)")


def _check_examples(rule: Rule) -> None:
    if not rule.examples:
        raise Refusal("it has no example", "a rule brings its evidence: at least what is ok and what is not")
    columns = {*rule.columns, *(f"{table}.{name}" for table, names in rule.beside.items() for name in names)}
    for example in rule.examples:
        if not isinstance(example, Example) or not isinstance(example.title, str):
            raise Refusal(f"examples must hold Example(title, verdict, cells), not {example!r:.80}")
        try:
            _check_cells(example, columns)
            _check_ending(rule, example)
        except Refusal as refusal:
            raise Refusal(f"example {example.title!r}: {refusal}", refusal.hint, example.title) from None
    _check_missing(rule)


def _check_cells(example: Example, columns: set[str]) -> None:
    if example.verdict not in WORDS[1:]:
        raise Refusal(f"there is no verdict {example.verdict!r}{did_you_mean(str(example.verdict), WORDS[1:])}")
    if not isinstance(example.updates, int) or example.updates < 1:
        raise Refusal(f"updates must be a whole number of at least 1, not {example.updates!r}")
    if not isinstance(example.cells, Mapping):
        raise Refusal(f"cells must map columns to values, not {example.cells!r:.80}")
    for name, cells in example.cells.items():
        if name not in columns:
            raise Refusal(f"the rule reads no column {name!r}{did_you_mean(str(name), sorted(columns))}")
        wanted = length(example) if example.updates == 1 else example.updates
        if isinstance(cells, list) and (len(cells) != wanted or not cells):
            raise Refusal(f"{name} has {len(cells)} values for {wanted} updates")


def _check_ending(rule: Rule, example: Example) -> None:
    got = _judged(rule, example)
    if got.course != got.in_one_batch:
        index = next(i for i, pair in enumerate(zip(got.course, got.in_one_batch, strict=True)) if pair[0] != pair[1])
        raise Refusal(
            f"update {index} is {got.course[index]} when updates come one by one "
            f"and {got.in_one_batch[index]} when they come together",
            "what is carried from update to update belongs into the memory",
        )
    if got.verdict != example.verdict:
        why = f" ({got.reason})" if got.reason else ""
        raise Refusal(f"expected {example.verdict}, got {got.verdict}{why}")
    if example.reason and example.reason != got.reason:
        raise Refusal(f"expected the reason {example.reason!r}, got {got.reason!r}")


def _check_missing(rule: Rule) -> None:
    got = _judged(rule, Example("nothing was recorded", "no_data", {}))
    if got.verdict not in ("no_data", "not_applicable"):
        raise Refusal(f"with every column missing: expected no_data, got {got.verdict}", "settle() takes care of it")


def _judged(rule: Rule, example: Example) -> Ending:
    try:
        return ending(rule, example)
    except EsperError as error:
        error.hint = f"in example {example.title!r}"
        raise
    except Exception as error:
        raise Refusal(f"cannot be judged: {type(error).__name__}: {error}") from error
