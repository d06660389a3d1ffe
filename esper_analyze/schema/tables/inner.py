"""Tables of the inner loop and of parts of the network: ``steps``, ``heads``, ``groups``, ``lstm``."""

from esper_analyze.schema.column import RANK, SEQ, UPDATE, Column, Table, choice, count, flag, key, real, text
from esper_analyze.schema.merging import ANY, DERIVED, FIRST, MAX, MIN, SUM, Mean, RankRows
from esper_analyze.schema.tables.updates import ALIGNMENT_UNKNOWN

_NO_CLIP = "no clip call and no explicit gradient call was seen"
_NO_GRADIENT = f"no tensor of the group had a gradient; or {_NO_CLIP}"
_STEPS = "over the update's optimizer steps"
_RELEVANT = "over samples where the head is relevant"
_NO_RELEVANT = "the head was never relevant, or its log-probs were not handed over"

_DIMENSIONS = "over the dimensions and samples of all minibatches"
_NO_STD = "not Gaussian, or its standard deviation was not handed over with each minibatch"

_ONE_STEP = "one sampled optimizer step"
_THINNED = "; from up to 65,536 evenly spaced elements of each tensor of a large model"
_NO_DETAIL = "not a sampled update, or no gradient at the sampled step"

_BY_SAMPLES, _BY_CHOICES, _BY_RELEVANT = Mean("samples"), Mean("choice_samples"), Mean("relevant_samples")
_BY_ROLLOUT, _BY_ELEMENTS, _BY_GATES = Mean("rollout_samples"), Mean("elements"), Mean("gate_values")

HISTOGRAM = (
    ("zero", "g = 0"),
    ("below_1e_6", "0 < |g| < 1e-6"),
    ("1e_6_to_1e_4", "1e-6 ≤ |g| < 1e-4"),
    ("1e_4_to_1e_2", "1e-4 ≤ |g| < 1e-2"),
    ("1e_2_to_1", "1e-2 ≤ |g| < 1"),
    ("1_and_above", "1 ≤ |g| < ∞"),
    ("nonfinite", "g NaN or ±Inf"),
)
"""Bins of the magnitude histogram: suffix of the column's name, meaning."""

STEPS = Table(
    "steps",
    "The un-reduced inner loop: one row per minibatch.",
    ("rank", "update", "epoch", "minibatch"),
    (
        RANK,
        UPDATE,
        SEQ,
        key("epoch", "pass over the rollout, from 0"),
        key("minibatch", "minibatch within the update, from 0"),
        count("samples", "samples, padding left out", "samples", merge=SUM),
        real("kl_k1", "mean(−log r) of the joint ratio", "nats", merge=_BY_SAMPLES),
        real("kl_k2", "mean(½ log² r)", "nats", merge=_BY_SAMPLES),
        real("kl_k3", "mean(r − 1 − log r)", "nats", merge=_BY_SAMPLES),
        real("ratio_max", "largest joint ratio", "1", merge=MAX),
        real("ratio_min", "smallest joint ratio", "1", merge=MIN),
        real("clip_fraction", "share of samples with |r − 1| > clip_range", "share", merge=_BY_SAMPLES),
        real("entropy", "joint entropy", "nats", "mean over samples", merge=_BY_SAMPLES),
        real("policy_loss", "clipped surrogate loss", "1", merge=_BY_SAMPLES),
        real("value_loss", "value loss", "1", merge=_BY_SAMPLES),
        real("grad_norm_pre_clip", "whole-model norm as the clip call returned it", "1", "", _NO_CLIP, merge=FIRST),
        real(
            "grad_norm_post_clip",
            "the same at the optimizer step, see table updates",
            "1",
            "",
            "no optimizer step",
            merge=FIRST,
        ),
        flag("stepped", "an optimizer step followed this minibatch", empty="no optimizer hook", merge=FIRST),
    ),
    RankRows.MERGED,
)

GRAD_STATES = ("finite", "nonfinite", "missing", "frozen", "removed")
ZERO_EXPLANATIONS = ("not_zero", "masked", "irrelevant", "frozen", "unexplained")
HEAD_KINDS = ("categorical", "gaussian", "bernoulli", "other")

HEADS = Table(
    "heads",
    "One row per update and action head.",
    ("rank", "update", "head"),
    (
        RANK,
        UPDATE,
        SEQ,
        text("head", "name of the head as given", required=True),
        choice("kind", "distribution of the head", HEAD_KINDS, merge=FIRST),
        real(
            "grad_norm",
            "L2 norm of the head's own parameters' gradient, before clipping",
            "1",
            f"mean {_STEPS}",
            "gradient missing or not measured, see grad_state",
            merge=FIRST,
        ),
        choice(
            "grad_state",
            "finite; nonfinite: NaN or ±Inf somewhere; missing: trainable, every gradient None; "
            "frozen: nothing trainable; removed: the model no longer has any of its parameters",
            GRAD_STATES,
            "no clip call was seen, or the head's parameters are not known",
            merge=FIRST,
        ),
        count(
            "params_without_grad",
            "parameter tensors whose gradient was None",
            "tensors",
            "worst optimizer step",
            _NO_CLIP,
            merge=FIRST,
        ),
        count(
            "params_nonfinite",
            "parameter tensors with NaN or ±Inf in the gradient",
            "tensors",
            "worst optimizer step",
            _NO_CLIP,
            merge=FIRST,
        ),
        count(
            "params_finite",
            "parameter tensors with a finite gradient",
            "tensors",
            "worst optimizer step",
            _NO_CLIP,
            merge=FIRST,
        ),
        count(
            "samples",
            "samples evaluated, padding left out, each once an epoch",
            "samples",
            "sum",
            _NO_RELEVANT,
            merge=SUM,
        ),
        count(
            "relevant_samples", "those of them where the head is relevant", "samples", "sum", _NO_RELEVANT, merge=SUM
        ),
        count(
            "choice_samples",
            "samples where the head had more than one valid action",
            "samples",
            "sum",
            "its valid actions or its entropy are not known",
            merge=SUM,
        ),
        real("ratio_max", "largest ratio of this head alone", "1", f"max {_RELEVANT}", _NO_RELEVANT, merge=MAX),
        real("ratio_min", "smallest ratio of this head alone", "1", f"min {_RELEVANT}", _NO_RELEVANT, merge=MIN),
        real(
            "kl_k3",
            "mean(r − 1 − log r) of this head alone",
            "nats",
            f"mean {_RELEVANT}",
            _NO_RELEVANT,
            merge=_BY_RELEVANT,
        ),
        real(
            "advantage_alignment",
            "correlation of this head's log-ratio with the raw advantage, as in table updates",
            "1",
            f"mean over the last epoch's minibatches, weighted; {_RELEVANT}",
            ALIGNMENT_UNKNOWN,
            merge=_BY_RELEVANT,
        ),
        real(
            "clip_fraction",
            "share with |r − 1| > clip_range",
            "share",
            f"mean {_RELEVANT}",
            _NO_RELEVANT,
            merge=_BY_RELEVANT,
        ),
        real("entropy", "entropy of the head", "nats", "mean over all samples", "not handed over", merge=_BY_SAMPLES),
        real(
            "entropy_conditional",
            "entropy where the head had a choice",
            "nats",
            "mean over samples with more than one valid action",
            "the head never had a choice",
            merge=_BY_CHOICES,
        ),
        real(
            "entropy_norm",
            "H / ln(n_valid) where the head had a choice, in [0, 1]",
            "share",
            "mean over samples with more than one valid action",
            "the head never had a choice, or is continuous",
            merge=_BY_CHOICES,
        ),
        real("log_prob_min", "smallest new log-prob of an action taken", "nats", "min over all samples", merge=MIN),
        real("log_prob_max", "largest new log-prob of an action taken", "nats", "max over all samples", merge=MAX),
        real(
            "std_min",
            "smallest standard deviation of a Gaussian head, before any squashing of its actions; NaN if one is NaN",
            "1",
            f"min {_DIMENSIONS}",
            _NO_STD,
            merge=MIN,
        ),
        real(
            "std_mean", "standard deviation of a Gaussian head", "1", f"mean {_DIMENSIONS}", _NO_STD, merge=_BY_SAMPLES
        ),
        real("std_max", "largest standard deviation of a Gaussian head", "1", f"max {_DIMENSIONS}", _NO_STD, merge=MAX),
        real(
            "std_nonpositive_fraction",
            "share of the standard deviations of a Gaussian head that are ≤ 0 or NaN: such a distribution cannot be "
            "sampled from",
            "share",
            _DIMENSIONS,
            _NO_STD,
            merge=_BY_SAMPLES,
        ),
        count(
            "std_min_dimension",
            "dimension of the action, from 0, with the smallest standard deviation, a NaN being the smallest; of the "
            "first minibatch that has it",
            "",
            _DIMENSIONS,
            _NO_STD,
            merge=DERIVED,
        ),
        real(
            "action_bound_fraction",
            "share of the action's components that lie at or beyond a bound of the action space, where the "
            "environment clips them",
            "share",
            "over dimensions and timesteps of the rollout",
            "not continuous, or the bounds are infinite or not known",
            merge=_BY_SAMPLES,
        ),
        count(
            "rollout_samples", "timesteps of the rollout with stored masks", "steps", "", "not categorical", merge=SUM
        ),
        real("valid_actions_min", "valid actions", "actions", "min over the rollout", "not categorical", merge=MIN),
        real(
            "valid_actions_mean",
            "valid actions",
            "actions",
            "mean over the rollout",
            "not categorical",
            merge=_BY_ROLLOUT,
        ),
        real("valid_actions_max", "valid actions", "actions", "max over the rollout", "not categorical", merge=MAX),
        real(
            "single_action_fraction",
            "share of steps with exactly one valid action",
            "share",
            "over the rollout",
            "not categorical",
            merge=_BY_ROLLOUT,
        ),
        real(
            "learnable_fraction",
            "steps with more than one valid action / all steps, each timestep once, from "
            "the masks stored at collection",
            "share",
            "over the rollout",
            "not categorical",
            merge=_BY_ROLLOUT,
        ),
        real(
            "relevant_fraction",
            "steps where the head matters for the action taken (causal mask)",
            "share",
            "over the rollout",
            "no causal mask was given",
            merge=_BY_ROLLOUT,
        ),
        real(
            "effective_fraction",
            "steps with a choice where the head also matters",
            "share",
            "over the rollout",
            "no causal mask was given",
            merge=_BY_ROLLOUT,
        ),
        real("coefficient", "weight of the head in the loss", "1", "", "the loss does not weigh heads", merge=FIRST),
        choice(
            "zero_explained",
            "why a zero or missing gradient is expected; unexplained: it is not, which points to a bug",
            ZERO_EXPLANATIONS,
            "no gradient was measured",
            merge=DERIVED,
        ),
    ),
    RankRows.MERGED,
)

GROUPS = Table(
    "groups",
    "One row per update and group of parameters: actor, critic, shared, lstm, each head, all. Before clipping.",
    ("rank", "update", "group"),
    (
        RANK,
        UPDATE,
        SEQ,
        text("group", "name of the group; heads are head:<name>", required=True),
        count("tensors", "parameter tensors in the group", "tensors"),
        count("elements", "parameters in the group", "elements"),
        flag(
            "parameters_changed",
            "parameters of the group were added, removed or replaced since the previous update; baselines of the "
            "group, and of the head of that name, restart here",
        ),
        count(
            "tensors_without_grad",
            "tensors whose gradient was None",
            "tensors",
            "worst optimizer step",
            _NO_CLIP,
        ),
        real(
            "grad_norm",
            "sqrt(Σ n_i²) with n_i the L2 norms of the tensors, accumulated in float64",
            "1",
            f"mean {_STEPS}",
            _NO_GRADIENT,
        ),
        real(
            "health",
            "clamp(1 − 0.5·vanishing_severity − 0.8·exploding_severity, 0, 1); 0 when non-finite",
            "share",
            "from the mean severities",
            _NO_GRADIENT,
        ),
        real(
            "vanishing_severity",
            "share of tensors with n_i < 1e-7 (exact zeros count)",
            "share",
            f"mean {_STEPS}",
            _NO_GRADIENT,
        ),
        real(
            "exploding_severity",
            "share of tensors with n_i > 10 × max_grad_norm (5.0 without one) or non-finite",
            "share",
            f"mean {_STEPS}",
            _NO_GRADIENT,
        ),
        flag("has_vanishing", "some tensor vanished at some step", f"any {_STEPS}", _NO_GRADIENT),
        flag("has_exploding", "some tensor exploded at some step", f"any {_STEPS}", _NO_GRADIENT),
        real("min_tensor_norm", "smallest n_i", "1", f"min {_STEPS}", _NO_GRADIENT),
        real("max_tensor_norm", "largest n_i", "1", f"max {_STEPS}", _NO_GRADIENT),
        real("norm_ratio", "max_tensor_norm / min_tensor_norm", "1", "", "min_tensor_norm is 0, or no gradient"),
        real(
            "concentration",
            "normalised entropy of n_i² across tensors: 1 evenly spread, 0 all in one",
            "share",
            f"mean {_STEPS}",
            "fewer than two tensors, or a zero or non-finite gradient",
        ),
        real(
            "zero_fraction",
            "share of gradient elements that are exactly 0",
            "share",
            _ONE_STEP,
            _NO_DETAIL,
        ),
        *(
            real(f"hist_{name}", f"share of gradient elements with {meaning}", "share", _ONE_STEP, _NO_DETAIL)
            for name, meaning in HISTOGRAM
        ),
        real("sign_positive_fraction", "share of gradient elements > 0", "share", _ONE_STEP, _NO_DETAIL),
        real(
            "cosine_minibatches",
            "pairwise cosine of the minibatches' gradients, weighted by their norms: "
            "(‖Σg‖² − Σ‖g‖²) / ((Σ‖g‖)² − Σ‖g‖²)" + _THINNED,
            "1",
            "over the sampled optimizer steps of the update",
            "fewer than two sampled steps, a zero gradient, or not a sampled update",
        ),
        real(
            "cosine_previous_update",
            "cosine between the mean gradient of this update's sampled steps and that of the previous sampled update"
            + _THINNED,
            "1",
            "",
            "no earlier sampled update with the same gradients, a zero gradient, or not a sampled update",
        ),
        real(
            "cosine_actor_critic",
            "cosine between the gradients of policy loss and value loss alone" + _THINNED,
            "1",
            _ONE_STEP,
            "separate backward passes were not requested, or one of the losses does not reach the group",
        ),
        real(
            "entropy_grad_norm",
            "L2 norm of the gradient of the entropy loss alone, before its coefficient" + _THINNED,
            "1",
            _ONE_STEP,
            "separate backward passes were not requested, or the entropy does not reach the group",
        ),
        real(
            "noise_scale",
            "simple gradient noise scale tr(Σ)/|G|² from minibatch gradients and their mean "
            "(McCandlish et al. 2018, appendix A)" + _THINNED,
            "samples",
            "over the sampled optimizer steps of the update",
            "fewer than two sampled steps, an estimate of |G|² that is not positive, or not a sampled update",
        ),
        real(
            "update_ratio",
            "‖θ after the update − θ before‖ / ‖θ before‖" + _THINNED,
            "1",
            "",
            "not a sampled update, or the parameters were all 0",
        ),
        real(
            "drift_norm",
            "|x − ema|/(ema + 1e-8) of grad_norm, with the EMA before x is added",
            "1",
            "",
            "warming up, missing or non-finite",
        ),
        real("drift_health", "the same of health", "1", "", "warming up, missing or non-finite"),
    ),
    RankRows.OF_FIRST,
)

_H = "hidden state h"
_C = "cell state c"


def _state(letter: str, what: str) -> tuple[Column, ...]:
    return (
        real(f"{letter}_l2_total", f"‖{letter}‖₂ of the whole {what} (grows with its size)", "1", merge=DERIVED),
        real(f"{letter}_rms", f"root mean square of {what}", "1", merge=DERIVED),
        real(
            f"{letter}_env_rms_mean",
            f"rms of {what} per environment",
            "1",
            "mean over environments",
            merge=_BY_ELEMENTS,
        ),
        real(f"{letter}_env_rms_max", f"rms of {what} per environment", "1", "max over environments", merge=MAX),
        real(f"{letter}_max", f"largest |x| of {what}", "1", "max", merge=MAX),
        real(f"{letter}_mean", f"{what}", "1", "mean", merge=_BY_ELEMENTS),
    )


LSTM = Table(
    "lstm",
    "Recurrent state of shape layers × environments × hidden; one row per update and phase.",
    ("rank", "update", "phase"),
    (
        RANK,
        UPDATE,
        SEQ,
        choice(
            "phase",
            "rollout: state at the end of collection; update: state after the last re-evaluated minibatch",
            ("rollout", "update"),
            required=True,
        ),
        count("elements", "numbers in h: layers × environments × hidden", "elements", merge=SUM),
        *_state("h", _H),
        *_state("c", _C),
        real(
            "h_saturation",
            "share of |h| > 0.99; |h| ≤ 1 always for an nn.LSTM without projection",
            "share",
            merge=_BY_ELEMENTS,
        ),
        flag("has_nan", "some element of h or c is NaN", merge=ANY),
        flag("has_inf", "some element of h or c is ±Inf", merge=ANY),
        count("gate_values", "values of each gate that were examined", "values", "sampled minibatch", merge=SUM),
        real(
            "forget_saturation",
            "share of forget-gate values < 0.05 or > 0.95",
            "share",
            "sampled minibatch",
            merge=_BY_GATES,
        ),
        real(
            "input_saturation",
            "share of input-gate values < 0.05 or > 0.95",
            "share",
            "sampled minibatch",
            merge=_BY_GATES,
        ),
        real(
            "output_saturation",
            "share of output-gate values < 0.05 or > 0.95",
            "share",
            "sampled minibatch",
            merge=_BY_GATES,
        ),
        real("cell_mean", "mean cell candidate over the sampled minibatch", "1", "sampled minibatch", merge=_BY_GATES),
    ),
    RankRows.MERGED,
)
