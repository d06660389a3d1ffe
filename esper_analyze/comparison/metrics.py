"""The metrics that are compared, by topic, and the scale on which each is judged."""

from __future__ import annotations

from dataclasses import dataclass

TOPICS = ("returns", "policy", "value", "gradients", "heads", "lstm")


@dataclass(frozen=True, slots=True)
class Metric:
    """A column of a table with one row per update, or per update and subject.

    ``log``: judged by its logarithm. ``least``: a difference, on the scale judged, that never counts. ``sparse``:
    sometimes null in healthy runs. ``drawn``: has its own panel even where no run diverges.
    """

    table: str
    column: str
    title: str
    topic: str
    log: bool = False
    least: float = 0.0
    sparse: bool = False
    drawn: bool = True

    def name(self, subject: str = "") -> str:
        """Return the metric's name: column, or table:subject.column."""
        return f"{self.table}:{subject}.{self.column}" if subject else self.column


_SHARE = 0.02
"""Differences of a share below 0.02 do not count."""

METRICS: tuple[Metric, ...] = (
    Metric("updates", "episode_return_mean", "Episode return", "returns", sparse=True),
    Metric("updates", "episode_length_mean", "Episode length, steps", "returns", sparse=True),
    Metric("updates", "kl_k3", "KL (k3), nats", "policy", log=True),
    Metric("updates", "ratio_max", "Largest ratio", "policy", log=True),
    Metric("updates", "clip_fraction", "Share of samples clipped", "policy", least=_SHARE),
    Metric("updates", "entropy", "Entropy, nats", "policy", least=_SHARE),
    Metric("updates", "policy_loss", "Policy loss", "policy"),
    Metric("updates", "first_ratio_error", "Ratio error in the first minibatch", "policy", least=1e-4),
    Metric("updates", "value_loss", "Value loss", "value", log=True),
    Metric("updates", "explained_variance", "Explained variance", "value", least=_SHARE),
    Metric("updates", "value_mean", "Mean predicted value", "value"),
    Metric("updates", "value_std", "Spread of predicted values", "value", log=True, drawn=False),
    Metric("updates", "return_mean", "Mean value target", "value"),
    Metric("updates", "return_std", "Spread of value targets", "value", log=True, drawn=False),
    Metric("updates", "advantage_std", "Spread of advantages", "value", log=True),
    Metric("updates", "grad_norm_pre_clip", "Gradient norm before clipping", "gradients", log=True),
    Metric("groups", "grad_norm", "Gradient norm of {}", "gradients", log=True),
    Metric("heads", "entropy_norm", "Entropy of {}, share of the most", "heads", least=_SHARE, sparse=True),
    Metric("heads", "grad_norm", "Gradient norm of head {}", "heads", log=True),
    Metric("heads", "learnable_fraction", "Learnable fraction of {}", "heads", least=_SHARE),
    Metric("lstm", "h_rms", "Hidden state (h), {}", "lstm", log=True),
    Metric("lstm", "c_rms", "Cell state (c), {}", "lstm", log=True),
)

SLOTS: tuple[Metric, ...] = (
    Metric("slots", "host_grad_norm_max", "Largest host gradient of all slots", "gradients", log=True, sparse=True),
    Metric(
        "slots", "normalized_ratio_min", "Least seed-to-host ratio of all slots", "gradients", log=True, sparse=True
    ),
)
"""Of table slots, over all slots of an update: slots come and go, and runs differ in which grow seed modules."""
CLOCKS = (
    "rank",
    "update",
    "seq",
    "wall_time",
    "progress",
    "rollout_s",
    "optimisation_s",
    "recorder_ms",
    "recorder_fraction",
)
"""Columns of updates that say when or how fast: they differ between any two runs."""
