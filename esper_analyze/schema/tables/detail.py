"""Tables of detail, recorded on samples or when something happened: ``layers``, ``transitions``, ``tensors``."""

from esper_analyze.schema.column import RANK, SEQ, UPDATE, Table, choice, count, flag, key, real, text
from esper_analyze.schema.merging import RankRows

_NO_GRADIENT = "the tensor had no gradient at the sampled step"
_SAMPLE = "the loop does not say"

_UNSAMPLED = "an update before an escalation that was not sampled at the time"

LAYERS = Table(
    "layers",
    "Gradients of single parameter tensors before clipping, at one optimizer step of a sampled update, and of the last "
    "updates before an escalation.",
    ("rank", "update", "layer"),
    (
        RANK,
        UPDATE,
        SEQ,
        text("layer", "qualified name of the parameter", required=True),
        key("minibatch", "minibatch whose gradient this is"),
        count("elements", "parameters in the tensor", "elements"),
        real("grad_norm", "L2 norm of the gradient", "1", "", _NO_GRADIENT),
        real("mean", "gradient elements", "1", "mean over elements", _NO_GRADIENT),
        real("std", "gradient elements (population)", "1", "standard deviation over elements", _NO_GRADIENT),
        real("min", "gradient elements", "1", "min over elements; NaN if any element is NaN", _NO_GRADIENT),
        real("max", "gradient elements", "1", "max over elements; NaN if any element is NaN", _NO_GRADIENT),
        real("zero_fraction", "share of elements exactly 0", "share", "", _NO_GRADIENT),
        real("small_fraction", "share of elements with |g| < 1e-6, zeros included", "share", "", _NO_GRADIENT),
        real("large_fraction", "share of elements with |g| > 10, Inf included", "share", "", _NO_GRADIENT),
        count("nan_count", "elements that are NaN", "elements", "", _NO_GRADIENT),
        count("inf_count", "elements that are ±Inf", "elements", "", _NO_GRADIENT),
        real("weight_norm", "L2 norm of the parameter before the update", "1", "", _UNSAMPLED),
        real(
            "update_ratio",
            "‖θ after the update − θ before‖ / ‖θ before‖; from up to 65,536 evenly spaced elements of the tensor",
            "1",
            "",
            f"the parameter was all 0, or {_UNSAMPLED}",
        ),
    ),
    RankRows.OF_FIRST,
)

TRANSITIONS = Table(
    "transitions",
    "The samples with the largest |log r| of an update in which a ratio exploded or collapsed: one row per sample, "
    "for the joint action and for each head concerned.",
    ("rank", "update", "head", "place"),
    (
        RANK,
        UPDATE,
        SEQ,
        text("head", "head whose |log r| the samples are sorted by; empty for the joint action", required=True),
        key("place", "0 is the worst"),
        count("bad", "samples of the update beyond the warning bounds of ratio_explosion or ratio_collapse", "samples"),
        count("nonfinite", "samples of the update whose log-ratio is NaN or ±Inf (they come first)", "samples"),
        count("index", "position in the flattened rollout", empty=_SAMPLE),
        count("env", "environment", empty=_SAMPLE),
        count("step", "timestep within the rollout of its environment", empty=_SAMPLE),
        count("minibatch", "minibatch within the update"),
        count("epoch", "pass over the rollout"),
        real("log_ratio", "log r of the head (of the joint action in joint rows), unclamped", "nats"),
        real("joint_log_ratio", "log r of the joint action, unclamped", "nats"),
        real("log_prob", "new log-prob of the head's action", "nats"),
        real("old_log_prob", "log-prob of the head's action at collection", "nats"),
        count("action", "action taken by the head", empty="a joint row, a continuous head, or the loop does not say"),
        real("advantage", "advantage of the sample", "1", "", _SAMPLE),
    ),
)

TENSORS = Table(
    "tensors",
    "Numerical stability report: every parameter tensor at an update in which something non-finite appeared, or on "
    "request.",
    ("rank", "update", "tensor"),
    (
        RANK,
        UPDATE,
        SEQ,
        text("tensor", "qualified name of the parameter", required=True),
        choice("cause", "why the report was taken", ("nonfinite", "asked"), required=True),
        count("elements", "parameters in the tensor", "elements"),
        flag("weight_nonfinite", "the parameter holds NaN or ±Inf after the update"),
        real("weight_abs_max", "largest |w| after the update; NaN if any weight is NaN", "1"),
        flag("grad_nonfinite", "its gradient held NaN or ±Inf at some optimizer step", empty="it had no gradient"),
        real("grad_abs_max", "largest |g| over the steps examined; NaN if any is NaN", "1", "", "not stored"),
        real("grad_norm_max", "largest L2 norm of its gradient over the optimizer steps, before clipping", "1"),
        real("grad_norm_pre_clip", "whole-model norm before clipping", "1", "max over the optimizer steps"),
        flag("loss_finite", "all losses of the update were finite", empty="no loss was handed over"),
    ),
    RankRows.OF_FIRST,
)
