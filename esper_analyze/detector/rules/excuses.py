"""Excuses that several rules share."""

from __future__ import annotations

from esper_analyze.detector.signals import Frame, choice_code
from esper_analyze.detector.verdict import Excuse

_CATEGORICAL = choice_code("heads", "kind", "categorical")


def inner_loop_not_measurable(frame: Frame) -> Excuse:
    """One epoch of one minibatch makes ratio 1, KL 0 and clip 0 by construction."""
    return Excuse(
        frame["inner_loop_measurable"].equals(0.0),
        "one epoch of one minibatch: ratio, KL and clip fraction are 1, 0 and 0 by construction",
    )


def nothing_learnable(frame: Frame) -> Excuse:
    """No step offered the head a choice."""
    return Excuse(
        frame["learnable_fraction"].equals(0.0),
        "0 % learnable: no step offered this head more than one valid action",
    )


def not_categorical(frame: Frame) -> Excuse:
    """Excuse heads without a set of actions: they have neither masks nor normalised entropy."""
    kind = frame["kind"]
    return Excuse(~kind.null & ~kind.equals(_CATEGORICAL), "not a categorical head")


def joint_entropy_undefined(frame: Frame) -> list[Excuse]:
    """Excuse updates without a normalised joint entropy by nature: no choice at all, or a continuous head."""
    return [
        Excuse(frame["choice_fraction"].equals(0.0), "no head had a choice at any step"),
        Excuse(
            frame["entropy_norm"].null & frame["choice_fraction"].null & ~frame["entropy"].null,
            "continuous actions have no normalised entropy",
        ),
    ]
