"""A rule: a declaration with its meaning, its thresholds and its examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from esper_analyze.detector.deferral_guards import DeferralGuard
from esper_analyze.detector.signals import Bools, Frame
from esper_analyze.detector.verdict import Excuse, Judgement

Memory = dict[str, np.ndarray[Any, Any]]
"""A rule's carried state: arrays whose last axis is the k subjects."""


VERDICT = "verdict"
"""Among ``Rule.restated``: the rule judges otherwise than it did."""
LONGEST_HOLD = 50
"""Bound on ``Limits.clear_after``: the most verdicts carried per subject."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of one rule. Every field has a default whose ``source`` is in its metadata.

    ``escalate`` is how many updates after a warning or critical finding are recorded at DEBUG. ``clear_after`` is
    after how many consecutive better judged updates an alarm clears: an alarm that returns sooner is the same
    incident. 1 clears at once.
    """

    escalate: int = field(
        default=5,
        metadata={
            "source": "5 updates of detail unless the rule asks for more (set by design)",
            "at_least": 0,
        },
    )
    clear_after: int = field(
        default=5,
        metadata={
            "source": "recorded runs: most repeated incidents were a single fault that flapped",
            "at_least": 1,
            "below": LONGEST_HOLD + 1,
        },
    )

    @classmethod
    def sources(cls) -> dict[str, str]:
        """Return the source of each default."""
        return {item.name: str(item.metadata.get("source", "")) for item in fields(cls)}


def limit(default: Any, source: str, *, at_least: float | None = None, below: float | None = None) -> Any:
    """Declare one threshold with its default, the source of that default, and the valid range.

    An integer is at least 0 unless ``at_least`` is given; a real number is unbounded unless bounds are given.
    """
    if at_least is None and isinstance(default, int):
        at_least = 0
    facts = {"source": source, "at_least": at_least, "below": below}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=facts)
    return field(default=default, metadata=facts)


@dataclass(frozen=True, slots=True)
class Example:
    """A few updates and the rule's verdict after the last; each is a test and an entry on the rules page.

    ``cells`` maps columns to one value per update (None is null), for one subject. A single value is repeated
    over ``updates``.
    """

    title: str
    verdict: str
    cells: Mapping[str, object]
    updates: int = 1
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Statistic:
    """The quantity that a rule's verdicts on one metric have as ``value``, by its name in sentences.

    ``unit`` is empty for a plain number. ``baseline`` names the baseline. ``column`` is the recorded column with the
    same number at every update; None when the value is computed from several cells.
    """

    name: str
    unit: str = ""
    baseline: str = "its own earlier level"
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Sign:
    """A mark with its word, the verdict whose colour it has (empty: that of the alarm), and why it is so."""

    sign: str
    word: str
    verdict: str
    because: str

    def __str__(self) -> str:
        """Return mark and word."""
        return f"{self.sign} {self.word}"


@dataclass(frozen=True, slots=True)
class WarmUp:
    """The ``reason`` a rule gives while it is too early to judge, and the updates it needs, given its limits.

    ``updates`` counts updates in which the subject was measured, the first judged one included; its second argument
    says whether the training's planned length is known. Then ``progress`` is the share that must have passed as well.
    ``also``: what else it needs, in words. ``of_log``: the updates that it needs of another tool's log, if fewer.
    """

    reason: str
    updates: Callable[[Any, bool], int]
    progress: Callable[[Any], float] | None = None
    also: str = ""
    of_log: Callable[[Any], int] | None = None

    def excuse(self, where: Bools) -> Excuse:
        """Return the excuse; it produces no finding."""
        return Excuse(where, self.reason, quiet=True)

    def least(self, limits: Any, *, planned: bool, logged: bool) -> int:
        """Return how many updates the rule needs; ``logged``: of another tool's log."""
        return self.of_log(limits) if logged and self.of_log else self.updates(limits, planned)

    def needs(self, limits: Any, *, planned: bool, logged: bool = False) -> str:
        """Return what the rule needs in words, "20 updates and 10 % of the training"."""
        share = f" and {100 * self.progress(limits):.3g} % of the training" if planned and self.progress else ""
        return f"{self.least(limits, planned=planned, logged=logged)} updates{share}{self.also}"


CONDITIONS = "conditions"
"""In a rule's frame, the columns of conditions are named as if they were those of a table of this name."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What holds, or does not, of the complete training at an update: evaluated once, for all rules that name it.

    ``columns`` are those of table ``updates`` that ``evaluate`` reads. It gets their frame over a batch (one subject)
    and the condition's memory, which it changes in place, and returns where the condition holds, [n, 1]; that must not
    depend on how updates are cut into batches. ``meaning`` completes "whether …".
    """

    name: str
    columns: tuple[str, ...]
    evaluate: Callable[[Frame, Memory], Bools]
    meaning: str
    memory: Mapping[str, Callable[[int], np.ndarray[Any, Any]]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The name of its column in a rule's frame: 1.0 where it holds, else 0.0; null where a subject has no row."""
        return f"{CONDITIONS}.{self.name}"

    def holds(self, frame: Frame) -> Bools:
        """Return where it holds, [n, k]."""
        return frame[self.key].equals(1.0)


Judge = Callable[[Frame, Memory, Any], list[Judgement]]
GuardFunction = Callable[[Frame, Memory, Any], DeferralGuard | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule over one table.

    ``judge`` gets the frame of a batch (n updates × k subjects), the rule's memory (which it changes in place)
    and its limits, and returns one ``Judgement`` per metric. ``memory`` maps each name of carried state to a
    function from k to its first value; state must not depend on how updates are cut into batches.
    ``beside`` maps other tables to columns the rule also reads, as ``frame["table.column"]``: a table with one row an
    update speaks for every subject, heads for their groups (``head:NAME``), any other for the subject of that name.
    ``conditions`` are those it reads; it names their columns among its own or those ``beside`` it, too.
    ``context`` are those of ``columns`` that only qualify a judgement: missing or non-finite, they excuse nothing.
    ``causes`` are rules whose open incident explains this one; ``follows`` are further ones that can have led to it if
    they began earlier, open or not: a report tells the first. ``fills`` are columns that ``judge`` leaves in
    the memory under the same name for the batch just judged: the recorder writes them. ``confirmed_by`` names the
    limit with the number of consecutive updates after which it is an alarm.
    ``figures`` names the sections of the report whose figures show what it judges, the best first; empty: those of
    its table.
    ``panels`` names the panels of figures, as section.panel, in which its incidents are shaded. ``sign`` is the state
    of a head or a recurrent state that is in alarm; None: such an alarm changes nothing of the state that is shown.
    Of several rules in alarm the one with the lowest ``sign_order`` gives its sign.
    ``guard`` gets the frame of the last update, the memory after it and the limits, and returns under which conditions
    no new finding is possible (None: unknown), so that single updates can be judged later, several at once.
    ``meanings`` maps each metric that has a meaning of its own to it.
    ``warm_up`` says what the rule needs before its first verdict; None: it judges from the first update on.
    ``optional``: a further check between numbers that a loop may hand over; without them a run is judged all the same.
    ``finiteness`` marks a rule that judges whether values are finite: it reports the same NaN as other rules.
    ``persists`` marks a rule that tells an event: what it changed stays so when the alarm is over.
    ``reach`` is how many updates before its onset the rule's statistic includes: the fault may be that old.
    ``statistics`` maps each metric whose verdicts have another ``value`` than its own cell to that quantity.
    ``revision`` grows when fields of the rule's findings, named by ``restated`` (value, threshold, baseline), are
    computed differently: ``replay --verify`` compares findings of an older revision without these fields. With
    ``VERDICT`` among them the rule judges otherwise than it did, and nothing of its findings is compared.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    limits: type[Limits]
    judge: Judge
    title: str
    meaning: str
    look_first: str
    reference: str
    examples: tuple[Example, ...]
    memory: Mapping[str, Callable[[int], np.ndarray[Any, Any]]] = field(default_factory=dict)
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    context: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    panels: tuple[str, ...] = ()
    sign: Sign | None = None
    sign_order: int = 0
    causes: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    fills: tuple[str, ...] = ()
    confirmed_by: str | None = None
    higher_is_worse: bool = True
    guard: GuardFunction | None = None
    statistics: Mapping[str, Statistic] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    warm_up: WarmUp | None = None
    optional: bool = False
    reach: int = 0
    finiteness: bool = False
    persists: bool = False
    revision: int = 1
    restated: tuple[str, ...] = ()

    @property
    def joined(self) -> Mapping[str, tuple[str, ...]]:
        """The columns joined to those of its table: of other tables, and of the conditions it reads."""
        if not self.conditions:
            return self.beside
        return {**self.beside, CONDITIONS: tuple(condition.name for condition in self.conditions)}

    @property
    def columns_beside(self) -> tuple[str, ...]:
        """The columns joined to its own, by the names they have in the rule's frame."""
        return tuple(f"{table}.{name}" for table, names in self.joined.items() for name in names)

    def meaning_of(self, metric: str) -> str:
        """Return what a finding on ``metric`` means."""
        return self.meanings.get(metric, self.meaning)

    def statistic(self, metric: str) -> Statistic:
        """Return the quantity of a verdict's value on ``metric``: the metric itself unless declared otherwise."""
        return self.statistics.get(metric) or Statistic(metric, column=metric)


def revisions(rules: Iterable[Rule]) -> dict[str, int]:
    """Return the revisions of ``rules`` for run.json, only of rules that have been revised."""
    return {rule.name: rule.revision for rule in rules if rule.revision > 1}
