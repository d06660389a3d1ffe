"""Rule ``gradient_explosion``: a group's gradient is many times what it has been."""

from __future__ import annotations

from dataclasses import dataclass

from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.typical import typical, typical_memory
from esper_analyze.detector.verdict import Bounds, Excuse, Judgement, settle


@dataclass(frozen=True, slots=True)
class GradientExplosionLimits(Limits):
    """Bounds on ``groups.grad_norm`` over the group's own rolling median."""

    warning: float = limit(10.0, "detector specification: 10 × own rolling median", at_least=1.0)
    critical: float = limit(100.0, "detector specification: 100 × own rolling median", at_least=1.0)


def judge(frame: Frame, memory: Memory, limits: GradientExplosionLimits) -> list[Judgement]:
    """Judge the norm before clipping against the median of the group's last 50 updates."""
    norm = frame["grad_norm"]
    level = typical(norm.values, norm.finite, memory, "level")
    known = norm.finite & (level > 0.0)
    bounds = Bounds(
        warning=known & (norm.values > limits.warning * level),
        critical=known & (norm.values > limits.critical * level),
        warning_at=limits.warning * level,
        critical_at=limits.critical * level,
    )
    young = Excuse(norm.finite & ~known, "too early to know its typical level", quiet=True)
    return [settle(norm.name, norm, bounds, excuses=[young], baseline=level)]


def _cells(*values: float | None) -> dict[str, object]:
    return {"grad_norm": list(values)}


RULE = Rule(
    name="gradient_explosion",
    table="groups",
    columns=("grad_norm",),
    limits=GradientExplosionLimits,
    judge=judge,
    title="Gradients exploded",
    meaning="The group's gradient norm before clipping is ten times its own median (the baseline) or more. Sound PPO "
    "runs clip norms hundreds of times the clip norm for good, so it is the change that tells, not the size.",
    look_first="Which group came first; rewards and returns of that rollout; first_ratio_error and ratio_max.",
    reference="Detector specification; Pascanu et al. 2013, On the difficulty of training recurrent neural networks",
    examples=(
        Example("steady", "ok", _cells(*[1.0] * 25), updates=25),
        Example("large all along", "ok", _cells(*[700.0] * 25), updates=25),
        Example("twenty times its level", "warning", _cells(*[1.0] * 24, 20.0), updates=25),
        Example("two hundred times its level", "critical", _cells(*[1.0] * 24, 200.0), updates=25),
        Example("infinite", "critical", _cells(*[1.0] * 24, float("inf")), updates=25),
        Example("NaN in the first update", "critical", _cells(float("nan"))),
        Example("too early to say", "not_applicable", _cells(1.0)),
        Example("no gradient", "no_data", _cells(None)),
    ),
    memory=typical_memory("level"),
    causes=("numerical_instability", "first_ratio", "kl_spike", "value_divergence"),
)
