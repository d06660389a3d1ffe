"""Which call of a loop of one's own would record what a rule lacks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from esper_analyze.detector.conditions.applicability import ACTIONS_UNKNOWN
from esper_analyze.replay.standing import missing_column, without_data

if TYPE_CHECKING:
    from esper_analyze.detector.rule import Rule
    from esper_analyze.replay.evidence import Evidence
    from esper_analyze.runs.run import RecordedRun

_OWN_LOOP = {"clip_grad_norm_", "optimizer step"}
"""What ``Recorder`` attaches to by itself; an adapter attaches to more, and makes these calls."""
_MODEL = "Recorder(run_dir, model, …)"
_CLIP = "torch.nn.utils.clip_grad_norm_(…), called by its module, or rec.gradients() after each backward"
_HEADS = "Recorder(heads={name: its module})"
_SIZES = "Recorder(sizes={head: number of actions}) or rec.minibatch(masks=…)"
_RATIO = "rec.minibatch(log_prob=…, old_log_prob=…)"
_VALUES = "rec.update(values=…, returns=…)"
_ADVANTAGES = "rec.update(advantages=…)"
_STEPS = "rec.update(values=…, returns=…, rewards=…, ends=…), each as timesteps × environments"
_ENTROPY = "rec.minibatch(entropy=…)"
_EPISODE = "rec.episode(episode_return, length) where an episode ends"
_CLIP_RANGE = "rec.minibatch(clip_range=…)"

CALLS: Mapping[tuple[str, str], str] = {
    ("updates", "first_ratio_error"): _RATIO,
    ("updates", "kl_k3"): _RATIO,
    ("updates", "ratio_max"): _RATIO,
    ("updates", "ratio_min"): _RATIO,
    ("updates", "clip_fraction"): _CLIP_RANGE,
    ("updates", "clip_range"): _CLIP_RANGE,
    ("updates", "learning_rate"): _MODEL,
    ("updates", "entropy_coef"): "rec.update(entropy_coef=…)",
    ("updates", "entropy"): _ENTROPY,
    ("updates", "entropy_norm"): _ENTROPY,
    ("updates", "advantage_std"): _ADVANTAGES,
    ("updates", "advantage_min"): _ADVANTAGES,
    ("updates", "advantage_max"): _ADVANTAGES,
    ("updates", "advantage_alignment"): "rec.minibatch(returns=…, old_values=…)",
    ("updates", "advantage_consistency"): _ADVANTAGES,
    ("updates", "minibatch_advantage_consistency"): "rec.minibatch(advantages=…, returns=…, old_values=…)",
    ("updates", "rollout_ends"): "rec.update(ends=…)",
    ("updates", "episodes_finished"): _EPISODE,
    ("updates", "ends_continued_fraction"): _STEPS,
    ("updates", "return_residual"): _STEPS,
    ("updates", "return_gamma"): _STEPS,
    ("updates", "environments"): _STEPS,
    ("updates", "environments_distinct"): _STEPS,
    ("updates", "optimizer_state_lost"): _MODEL,
    ("updates", "parameter_shift_between_updates"): _MODEL,
    ("updates", "policy_loss_error"): "rec.minibatch(policy_loss=…, advantages=…, clip_range=…)",
    ("updates", "value_loss_factor"): "rec.minibatch(value_loss=…, values=…, returns=…)",
    ("updates", "observation_nonfinite_fraction"): "rec.update(observations=…)",
    ("updates", "observation_shift"): "rec.update(observations=…)",
    ("updates", "explained_variance"): _VALUES,
    ("updates", "value_nrmse"): _VALUES,
    ("updates", "value_return_correlation"): _VALUES,
    ("updates", "bellman_error"): "rec.update(td_errors=…)",
    ("updates", "grad_norm_pre_clip"): _CLIP,
    ("updates", "grad_norm_pre_clip_max"): _CLIP,
    ("updates", "grad_norm_post_clip_max"): _MODEL,
    ("updates", "clip_active_fraction"): _CLIP,
    ("updates", "optimizer_steps"): _MODEL,
    ("updates", "episode_return_mean"): _EPISODE,
    ("heads", "learnable_fraction"): _SIZES,
    ("heads", "entropy_norm"): _ENTROPY,
    ("heads", "std_mean"): "rec.minibatch(std=…)",
    ("heads", "grad_state"): _HEADS,
    ("groups", "grad_norm"): _CLIP,
    ("groups", "vanishing_severity"): _CLIP,
    ("groups", "health"): _CLIP,
    ("groups", "tensors"): _CLIP,
    ("groups", "tensors_without_grad"): _CLIP,
}
"""The call that fills a column that rules need."""


def missing_calls(evidence: Evidence) -> dict[str, list[str]]:
    """Return call → the rules that it would let judge, those that judged nothing first; optional rules are left out.

    Empty for runs of an adapter, and imported ones.
    """
    if not is_own_loop(evidence.run):
        return {}
    needed: dict[str, list[str]] = defaultdict(list)
    entirely = without_data(evidence.replay)
    for rule, call in sorted(_lacking(evidence), key=lambda pair: pair[0] in entirely, reverse=True):
        if rule not in needed[call]:
            needed[call].append(rule)
    return dict(needed)


def is_own_loop(run: RecordedRun) -> bool:
    """Return whether the run is of a hand-written loop, which makes the recorder's calls itself."""
    points = run.info.get("attach_points")
    return "imported_from" not in run.info and isinstance(points, list) and _OWN_LOOP.issuperset(map(str, points))


def _lacking(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Yield rule and missing call: for each metric that was missing in every update, and for rules without rows."""
    replay, rules = evidence.replay, evidence.rules
    for rule in replay.rules:
        if not replay.verdict_counts.get(rule.name) and rule.table == "groups":
            yield rule.name, _MODEL
    norms = not any(unjudged.reason == "grad_norm is missing" for unjudged in replay.unjudged)
    gradients = bool(evidence.run.rows["groups"])
    for unjudged in replay.unjudged:
        if unjudged.verdict != "no_data" or unjudged.count < replay.updates or rules[unjudged.rule].optional:
            continue
        call = _call(rules[unjudged.rule], unjudged.reason)
        if call in (_CLIP, _HEADS) and not gradients:
            call = _MODEL
        elif call == _HEADS and not norms:
            call = _CLIP
        if call is not None:
            yield unjudged.rule, call


def _call(rule: Rule, reason: str) -> str | None:
    if reason == ACTIONS_UNKNOWN:
        return _SIZES
    column = missing_column(rule, reason)
    return None if column is None else CALLS.get(column)
