"""The commands that answer one section of the report each, generated from the list below."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esper_analyze.commands.options import takes_options
from esper_analyze.commands.questions import AnswerOptions, answer

if TYPE_CHECKING:
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.reports.render.rows import SectionTable
    from esper_analyze.reports.render.section import Question

    Section = tuple[Question, Callable[[Evidence, Any], SectionTable], Iterable[str]]


@dataclass(frozen=True, slots=True)
class SectionCommand:
    """One command: its name, what it answers, its help, and the section with its rows and rules.

    ``load`` imports the section; the rules are those that ``--fail-on`` goes by, none named means all. ``judges``: the
    command takes thresholds and rules, since what it shows is judged again.
    """

    name: str
    asks: str
    help: str
    load: Callable[[], Section]
    judges: bool = True
    former_name: str | None = None

    def function(self) -> Callable[..., None]:
        """Return the command as a function whose signature declares its options."""

        def command(options: AnswerOptions) -> None:
            answer(options, *self.load())

        command.__doc__ = self.help
        judging = ("assignments", "thresholds", "rules_files", "rank", "fail_on") if self.judges else ("rank",)
        return takes_options("path", "form", "out", *judging, "skip_broken", "safe")(command)


def _timeline() -> Section:
    from esper_analyze.reports.judgement_rows import timeline_rows
    from esper_analyze.reports.sections.escalation import QUESTION

    return QUESTION, timeline_rows, ()


def _drift() -> Section:
    from esper_analyze.reports.judgement_rows import DRIFT_RULES, drift_rows
    from esper_analyze.reports.sections.drift import QUESTION

    return QUESTION, drift_rows, DRIFT_RULES


def _heads() -> Section:
    from esper_analyze.reports.judgement_rows import HEAD_RULES, head_rows
    from esper_analyze.reports.sections.heads import QUESTION

    return QUESTION, head_rows, HEAD_RULES


def _layers() -> Section:
    from esper_analyze.reports.sections.layers import QUESTION, rows

    return QUESTION, lambda _, data: rows(data), ()


def _lstm() -> Section:
    from esper_analyze.reports.sections.lstm import QUESTION, RULES, rows

    return QUESTION, lambda _, data: rows(data), RULES


def _slots() -> Section:
    from esper_analyze.reports.sections.slot_findings import RULES
    from esper_analyze.reports.sections.slots import QUESTION, rows

    return QUESTION, lambda _, data: rows(data), RULES


SECTION_COMMANDS: tuple[SectionCommand, ...] = (
    SectionCommand(
        name="timeline",
        asks="When were incidents open, and when was more detail recorded?",
        help="""List incidents in the order in which they began, with causes; as a picture, with the telemetry level.

        Example: esper-analyze timeline RUN --format csv
        """,
        load=_timeline,
    ),
    SectionCommand(
        name="drift",
        asks="Which gradients drifted from their baseline?",
        help="""Show how far each group's gradient norm is from its own earlier level, and which groups alarmed for it.

        --fail-on goes by the rule gradient_drift.

        Example: esper-analyze drift RUN --set gradient_drift.warning=0.4 --out drift.png
        """,
        load=_drift,
    ),
    SectionCommand(
        name="heads",
        asks="What does each head learn, and is its zero explained?",
        help="""Show of each head its gradient, how often it had a choice, its entropy, and whether a zero is expected.

        --fail-on goes by the rules head_entropy_collapse, mask_collapse and gradient_missing.

        Example: esper-analyze heads RUN --fail-on critical
        """,
        load=_heads,
    ),
    SectionCommand(
        name="layers",
        asks="Which layer went bad first, and how do gradients flow?",
        help="""Show the gradient of each layer, the worst first: NaN, exploding, vanishing, never reached, or flowing.

        As a picture: a heatmap of layers and updates, in which no cell hides what is worse than it.

        Example: esper-analyze layers RUN --out layers.png
        """,
        load=_layers,
        judges=False,
    ),
    SectionCommand(
        name="lstm",
        asks="Is the recurrent state healthy?",
        help="""Show size and saturation of the recurrent state, its gates, and how far one environment stands out.

        --fail-on goes by the rules whose names begin with lstm.

        Example: esper-analyze lstm RUN --format json
        """,
        load=_lstm,
    ),
    SectionCommand(
        name="slots",
        asks="Which seed modules pass the quality gate, and which do not?",
        help="""Show the seed module of each environment and slot: gradient ratio to its host, health, what stops it.

        The gate takes a ratio of at least 0.10 and a health of at least 0.7. --fail-on goes by the rules seed_dormant,
        host_dominating, slot_gradient_explosion and slot_gradient_vanishing.

        Example: esper-analyze slots RUN --out slots.svg
        """,
        load=_slots,
        former_name="seeds",
    ),
)
"""In the order in which the help lists them."""
