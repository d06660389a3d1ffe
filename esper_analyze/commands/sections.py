"""The commands that answer one section of the report each, generated from the list below: one entry a command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import cleandoc

from esper_analyze.commands.options import takes_options
from esper_analyze.commands.questions import AnswerOptions, answer

_OF_WHAT = """--from, --to and --last limit sentences, rows and picture to these updates. Rules judge the whole run, and
--fail-on goes by the findings in effect in these updates. Several runs are answered one after the other."""


@dataclass(frozen=True, slots=True)
class SectionCommand:
    """One command: its name, what it answers, and its help.

    The section of the same name is imported when the command runs: help stays quick. ``judges``: the command takes
    thresholds and rules, since what it shows is judged again.
    """

    name: str
    asks: str
    help: str
    judges: bool = True
    former_name: str | None = None

    def function(self) -> Callable[..., None]:
        """Return the command as a function whose signature declares its options."""

        def command(options: AnswerOptions) -> None:
            from esper_analyze.reports.section_list import section_named

            answer(options, section_named(self.name))

        description, example = cleandoc(self.help).rsplit("\n\n", 1)
        command.__doc__ = f"{description}\n\n{_OF_WHAT}\n\n{example}"
        judging = ("assignments", "thresholds", "rules_files", "rank", "fail_on") if self.judges else ("rank",)
        return takes_options(
            *("paths", "form", "as_json", "out", "first", "last", "latest"), *judging, *("skip_broken", "safe")
        )(command)


SECTION_COMMANDS: tuple[SectionCommand, ...] = (
    SectionCommand(
        name="timeline",
        asks="When were incidents open, and when was more detail recorded?",
        help="""List incidents in the order in which they began, with causes; as a picture, with the telemetry level.

        Of some updates, the incidents that were open in them; sentences stay about the whole run, and say so.

        Example: esper-analyze timeline RUN --format csv
        """,
    ),
    SectionCommand(
        name="drift",
        asks="Which gradients drifted from their baseline?",
        help="""Show how far each group's gradient norm is from its own earlier level, and which groups drifted.

        The rule gradient_drift gives information, never an alarm: --fail-on finds nothing here.

        Example: esper-analyze drift RUN --set gradient_drift.info=0.4 --out drift.png
        """,
    ),
    SectionCommand(
        name="heads",
        asks="What does each head learn, and is its zero explained?",
        help="""Show of each head its gradient, how often it had a choice, its entropy, and whether a zero is expected.

        --fail-on goes by the rules head_entropy_collapse, mask_collapse and gradient_missing.

        Example: esper-analyze heads RUN --fail-on critical
        """,
    ),
    SectionCommand(
        name="layers",
        asks="Which layer went bad first, and how do gradients flow?",
        help="""Show the gradient of each layer, the worst first: NaN, exploding, vanishing, never reached, or flowing.

        As a picture: a heatmap of layers and updates, in which no cell hides what is worse than it.

        Example: esper-analyze layers RUN --out layers.png
        """,
        judges=False,
    ),
    SectionCommand(
        name="lstm",
        asks="Is the recurrent state healthy?",
        help="""Show size and saturation of the recurrent state, its gates, and how far one environment stands out.

        --fail-on goes by the rules whose names begin with lstm.

        Example: esper-analyze lstm RUN --format json
        """,
    ),
    SectionCommand(
        name="slots",
        asks="Which seed modules pass the quality gate, and which do not?",
        help="""Show the seed module of each environment and slot: gradient ratio to its host, health, what stops it.

        The gate takes a ratio of at least 0.10 and a health of at least 0.7. --fail-on goes by the rules seed_dormant,
        host_dominating, slot_gradient_explosion and slot_gradient_vanishing.

        Example: esper-analyze slots RUN --out slots.svg
        """,
        former_name="seeds",
    ),
)
"""In the order in which the help lists them."""
