"""Rule ``entropy_collapse``: the policy has become deterministic where it had a choice."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.rules.excuses import joint_entropy_undefined
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.verdict import Judgement, below, settle


@dataclass(frozen=True, slots=True)
class EntropyCollapseLimits(Limits):
    """Bounds on ``updates.entropy_norm``, a share of the entropy the masks leave room for."""

    warning: float = limit(0.1, "subsystem review: 0.1 of normalised entropy")
    critical: float = limit(0.02, "detector specification")


def judge(frame: Frame, memory: Memory, limits: EntropyCollapseLimits) -> list[Judgement]:  # noqa: ARG001
    """Judge normalised entropy, never raw nats."""
    entropy = frame["entropy_norm"]
    bounds = below(entropy, limits.warning, limits.critical)
    return [settle("entropy_norm", entropy, bounds, excuses=joint_entropy_undefined(frame))]


def _cells(norm: float | None, choice: float | None = 1.0, entropy: float | None = 1.0) -> dict[str, object]:
    return {"entropy_norm": norm, "choice_fraction": choice, "entropy": entropy}


RULE = Rule(
    name="entropy_collapse",
    table="updates",
    columns=("entropy_norm", "choice_fraction", "entropy"),
    limits=EntropyCollapseLimits,
    judge=judge,
    title="Entropy collapsed",
    meaning="Where the masks left a choice, the policy takes nearly always the same action. It no longer explores and "
    "its gradient vanishes; after a collapse within one update everything else looks calm.",
    look_first="kl_k3 and ratio_max of the update before; entropy coefficient; learning rate; whether the return "
    "says that being deterministic is right.",
    reference="Subsystem review C1; Andrychowicz et al. 2021, section on policy entropy",
    examples=(
        Example("exploring", "ok", _cells(0.7)),
        Example("nearly deterministic", "warning", _cells(0.05)),
        Example("collapsed", "critical", _cells(0.001)),
        Example("NaN never passes", "critical", _cells(float("nan"))),
        Example("every head had one valid action", "not_applicable", _cells(None, choice=0.0)),
        Example("Gaussian actions", "not_applicable", _cells(None, choice=None)),
        Example("not recorded", "no_data", _cells(None, choice=None, entropy=None)),
    ),
    causes=("numerical_instability", "kl_spike"),
    higher_is_worse=False,
)
