"""The versions of the schema and what each changed; ``esper_analyze.storage.shapes`` reads older shards with it.

A run is not rewritten when the schema changes. Each shard has the fingerprint of the columns it was written with. From
it the reader determines the version and reads today's columns: renamed ones under their former name, columns that were
not recorded yet as null. Shards of several versions may be in one run.

Every change of a table adds a ``Version`` here, and a run of it to ``tests/golden``. New columns (nullable) or tables,
and renamed columns, are a minor version. A change that an older reader would misread (another type, unit or meaning,
a removed column) is a major version: older readers refuse the run by its number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NUMBER = re.compile(r"(\d{1,4})\.(\d{1,4})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Version:
    """The changes of one version since the one before.

    ``tables``: new tables. ``columns``: new columns by table. ``renamed``: by table, the new name of a column and the
    former one.
    """

    number: str
    meaning: str
    tables: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


VERSIONS: tuple[Version, ...] = (
    Version("1.0", "First version: updates, steps, heads, groups, lstm, episodes, levels, findings, losses_of_data."),
    Version(
        "1.1",
        "Gradients per parameter tensor, the worst transitions, stability reports; direction, histogram and noise "
        "scale of gradients per group. Runs that say 1.0 may have it: at first it had no number of its own.",
        tables=("layers", "transitions", "tensors"),
        columns={
            "groups": (
                "zero_fraction",
                "hist_zero",
                "hist_below_1e_6",
                "hist_1e_6_to_1e_4",
                "hist_1e_4_to_1e_2",
                "hist_1e_2_to_1",
                "hist_1_and_above",
                "hist_nonfinite",
                "sign_positive_fraction",
                "cosine_minibatches",
                "cosine_previous_update",
                "cosine_actor_critic",
                "entropy_grad_norm",
                "noise_scale",
                "update_ratio",
            )
        },
    ),
    Version(
        "1.2",
        "The number of samples behind each mean, so that ranks can be pooled; values that must agree between ranks; "
        "host and seed modules of a growing network.",
        tables=("ranks", "slots"),
        columns={
            "updates": ("samples", "choice_samples", "rollout_samples", "episodes_finished"),
            "heads": ("samples", "relevant_samples", "choice_samples", "rollout_samples"),
            "lstm": ("elements", "gate_values"),
        },
    ),
    Version(
        "1.3",
        "Whether the valid actions of categorical heads are known. Changes of the training itself: parameters added, "
        "removed or replaced, and the groups affected; a head whose parameters were removed has grad_state removed.",
        tables=("events",),
        columns={"updates": ("choices_unknown",), "groups": ("parameters_changed",)},
    ),
    Version(
        "1.4",
        "Whether the policy moves towards actions with a positive advantage, and the rewards that the training used.",
        columns={
            "updates": ("advantage_alignment", "reward_mean", "reward_std", "reward_min", "reward_max"),
            "heads": ("advantage_alignment",),
        },
    ),
    Version(
        "1.5",
        "Whether advantages, returns, rewards and ends of a rollout agree; how many environments differ; whether the "
        "optimizer kept its moments; value coefficient, discount and epochs.",
        columns={
            "updates": (
                "value_coef",
                "gamma",
                "epochs",
                "optimizer_state_lost",
                "minibatch_advantage_consistency",
                "advantage_consistency",
                "environments",
                "environments_distinct",
                "rollout_ends",
                "ends_continued_fraction",
                "return_residual",
                "return_gamma",
                "return_lambda",
            ),
        },
    ),
    Version(
        "1.6",
        "Whether anything changed the parameters between two updates, whether the losses passed are PPO's, and "
        "observations.",
        columns={
            "updates": (
                "parameter_shift_between_updates",
                "policy_loss_error",
                "value_loss_factor",
                "observation_mean",
                "observation_std",
                "observation_min",
                "observation_max",
                "observation_nonfinite_fraction",
                "observation_constant_fraction",
                "observation_shift",
            ),
        },
    ),
    Version(
        "1.7",
        "The standard deviation of Gaussian heads, actions at a bound; returns of evaluations, and what trainings of "
        "language models log: lengths of responses, groups of equal rewards, KL to a reference model.",
        columns={
            "updates": (
                "kl_reference",
                "eval_return_mean",
                "eval_length_mean",
                "response_length_mean",
                "response_length_max",
                "response_clipped_fraction",
                "reward_zero_std_fraction",
            ),
            "heads": (
                "std_min",
                "std_mean",
                "std_max",
                "std_nonpositive_fraction",
                "std_min_dimension",
                "action_bound_fraction",
            ),
        },
    ),
)
VERSION = VERSIONS[-1].number
"""Schema version written to run.json and into the footer of every shard."""
VERSION_KEY = "schema_version"
"""Key of the version in run.json and in a shard's footer."""


def parsed(number: str) -> tuple[int, int] | None:
    """Return a version number as (major, minor), None for any other text."""
    match = _NUMBER.match(number)
    return (int(match[1]), int(match[2])) if match else None


def is_newer(number: str) -> bool:
    """Return whether ``number`` is newer than this program's version."""
    version = parsed(number)
    return version is not None and version > (parsed(VERSION) or (0, 0))


def is_newer_major(number: str) -> bool:
    """Return whether ``number`` has a newer major version, which this program must refuse."""
    version = parsed(number)
    return version is not None and version[0] > (parsed(VERSION) or (0, 0))[0]


def was_added_after(number: str, table: str, column: str) -> bool:
    """Return whether ``column`` of ``table`` was declared by a version after ``number``."""
    before = parsed(number) or (0, 0)
    later = [version for version in VERSIONS if (parsed(version.number) or (0, 0)) > before]
    return any(table in version.tables or column in version.columns.get(table, ()) for version in later)


def was_declared(number: str) -> bool:
    """Return whether ``number`` is one of ``VERSIONS``."""
    return any(number == version.number for version in VERSIONS)
