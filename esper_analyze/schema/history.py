"""The versions of the schema, and what each changed; ``esper_analyze.storage.shapes`` reads the older ones by it.

A run is not rewritten when the schema changes. Each shard carries the fingerprint of the columns it was written with;
by it the reader finds the shard's version, and reads today's columns out of it: those that were called otherwise under
their name of then, those that were not recorded yet as null. Shards of several versions may lie in one run.

Whoever changes a table adds a ``Version`` here, and a run of it to ``tests/golden``. Adding columns (which may be
empty) or tables, and giving a column another name, is a minor version. Anything that an older reader would understand
wrongly (another type, unit or meaning, a column left out) is a major one: older readers refuse the run by its number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NUMBER = re.compile(r"(\d{1,4})\.(\d{1,4})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Version:
    """What one version changed against the one before it.

    ``tables``: new tables. ``columns``: new columns by table. ``renamed``: by table, a column's name from this version
    on and the one before.
    """

    number: str
    meaning: str
    tables: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


VERSIONS: tuple[Version, ...] = (
    Version("1.0", "The first: updates, steps, heads, groups, lstm, episodes, levels, findings, losses_of_data."),
    Version(
        "1.1",
        "Detail of gradients by parameter tensor, the worst transitions, stability reports; direction, histogram and "
        "noise scale of gradients by group. Runs that say 1.0 may hold it: it had no number of its own at first.",
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
        "How many samples each mean is of, so that ranks can be joined as sums; what must agree between ranks; host "
        "and seeds of a growing network.",
        tables=("ranks", "slots"),
        columns={
            "updates": ("samples", "choice_samples", "rollout_samples", "episodes_finished"),
            "heads": ("samples", "relevant_samples", "choice_samples", "rollout_samples"),
            "lstm": ("elements", "gate_values"),
        },
    ),
    Version(
        "1.3",
        "Whether the valid actions of categorical heads are known. What of the training itself changed: parameters "
        "added, removed or replaced, and the groups whose parameters are others from then on; a head whose parameters "
        "are gone has grad_state removed.",
        tables=("events",),
        columns={"updates": ("choices_unknown",), "groups": ("parameters_changed",)},
    ),
)
VERSION = VERSIONS[-1].number
"""Schema version written to run.json and into the footer of every shard."""
VERSION_KEY = "schema_version"
"""Where run.json and a shard's footer name it."""


def parsed(number: str) -> tuple[int, int] | None:
    """Return a version's number as (major, minor), None when it is none."""
    match = _NUMBER.match(number)
    return (int(match[1]), int(match[2])) if match else None


def is_newer(number: str) -> bool:
    """Return whether ``number`` is of a version this program does not know yet."""
    found = parsed(number)
    return found is not None and found > (parsed(VERSION) or (0, 0))


def is_newer_major(number: str) -> bool:
    """Return whether ``number`` is of a major version that this program must refuse."""
    found = parsed(number)
    return found is not None and found[0] > (parsed(VERSION) or (0, 0))[0]


def was_declared(number: str) -> bool:
    """Return whether ``number`` is one of the versions so far."""
    return any(number == version.number for version in VERSIONS)
