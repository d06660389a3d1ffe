"""Table ``slots``: host and seed modules of a growing network, measured after their backward passes."""

from esper_analyze.schema.column import RANK, SEQ, UPDATE, Table, choice, count, flag, key, real, text
from esper_analyze.schema.merging import RankRows

LOW_RATIO = 0.10
"""A ``normalized_ratio`` below this is low: the seed module gets a tenth of the host's gradient per parameter.

``low_ratio_cause`` then says why (gradient review, L4).
"""

LOW_RATIO_CAUSES = ("dormant", "host_learning_fast", "saturated", "disconnected")

_CALLS = "over calls with a gradient"
_NO_SEED = "the slot is empty: it has no seed module"
_NO_GRADIENT = "no tensor of the seed module had a gradient in any call, or the slot is empty"
_NO_RATIO = "in no call did seed module and host both have a gradient"

SLOTS = Table(
    "slots",
    "Host and seed modules of a growing network: one row per update and slot measured. Gradients after backward and "
    "before clipping, of trainable parameters; the host's are those outside the seed module.",
    ("rank", "update", "place"),
    (
        RANK,
        UPDATE,
        SEQ,
        text("place", "environment and slot: env 0, r0c1; of joined ranks: rank 1, env 0, r0c1", required=True),
        key("env", "index of the environment"),
        text("slot", "name of the slot in its environment's host", required=True),
        count("calls", "backward passes of the update that were measured", "calls", "sum"),
        text("stage", "stage of the seed module as given in the last call"),
        text("blueprint", "blueprint of the seed module as given in the last call"),
        real("alpha", "weight of the seed module's output, as given in the last call", "share", "", "not given"),
        flag(
            "should_train",
            "the stage is training or blending, in upper or lower case; without a stage: the seed module has "
            "trainable parameters",
            "last call",
            "never",
        ),
        count("tensors", "trainable parameter tensors of the seed module", "tensors", "max over calls", _NO_SEED),
        count("tensors_without_grad", "of these, whose gradient was None", "tensors", "worst call", _NO_SEED),
        count("tensors_nonfinite", "of these, with NaN or ±Inf in the gradient", "tensors", "worst call", _NO_GRADIENT),
        real(
            "grad_norm",
            "sqrt(Σ n_i²) with n_i the L2 norms of the seed module's tensors",
            "1",
            f"mean {_CALLS}",
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
            "share of the seed module's tensors with n_i < 1e-7 (exact zeros count)",
            "share",
            f"mean {_CALLS}",
            _NO_GRADIENT,
        ),
        real(
            "exploding_severity",
            "share of the seed module's tensors with n_i > 10 × max_grad_norm (5.0 without one) or non-finite",
            "share",
            f"mean {_CALLS}",
            _NO_GRADIENT,
        ),
        flag("has_vanishing", "some tensor of the seed module vanished in some call", f"any {_CALLS}", _NO_GRADIENT),
        flag("has_exploding", "some tensor of the seed module exploded in some call", f"any {_CALLS}", _NO_GRADIENT),
        real(
            "host_grad_norm",
            "L2 norm over the host's tensors outside the seed module",
            "1",
            f"mean {_CALLS}",
            "no tensor of the host had a gradient in any call, or no host was given",
        ),
        real(
            "seed_grad_norm",
            "grad_norm over the calls that normalized_ratio is computed from",
            "1",
            "mean over calls in which both had a gradient",
            _NO_RATIO,
        ),
        count(
            "seed_elements",
            "parameters of the seed module in tensors with a gradient",
            "elements",
            "max over calls",
            _NO_SEED,
        ),
        count(
            "host_elements",
            "parameters of the host in tensors with a gradient",
            "elements",
            "max over calls",
            "no host was given",
        ),
        real(
            "normalized_ratio",
            "(seed / sqrt(seed elements)) / (host / sqrt(host elements) + 1e-8) of the gradient norms; 0 if one of "
            "them is below 1e-8; NaN or Inf if one is, and NaN, not 0, if the host's is Inf",
            "1",
            "mean over calls in which both had a gradient",
            _NO_RATIO,
        ),
        real(
            "ratio_ema",
            "EMA of normalized_ratio over updates, decay 0.9, this update included; begins with the first ratio",
            "1",
            "",
            "the update has no ratio, or a non-finite one (which is never added)",
        ),
        choice(
            "low_ratio_cause",
            "why the ratio is below 0.10 or missing. disconnected: the seed module should train, and some of its "
            "tensors (without a ratio: all) had no gradient in any call; host_learning_fast: compared with the host's "
            "usual gradient it would not be low; saturated: the ratio was not low before, in at least three updates; "
            "dormant: it was always low, or seed modules do not train in this stage",
            LOW_RATIO_CAUSES,
            "the ratio is not low, not finite, or there is nothing to explain: no ratio and no seed module that should "
            "train",
        ),
    ),
    RankRows.OF_PLACES,
)
