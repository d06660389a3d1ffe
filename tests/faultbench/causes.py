"""How often a report's list of look-alikes has the cause that was put in: ``python -m tests.faultbench.causes OUT``."""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from esper_analyze.detector.rules import RULES
from esper_analyze.detector.thresholds import Thresholds
from esper_analyze.replay.evidence import gather
from esper_analyze.reports.causes.look_alikes import PossibleCause, look_alikes
from esper_analyze.reports.narrative.primary_incident import primary_incident
from esper_analyze.runs.run import open_run
from esper_analyze.terminal import RESULTS, put, show_table
from tests.faultbench.draw import SPLITS
from tests.faultbench.faults import FAULTS
from tests.faultbench.held_causes import HELD_TRUE
from tests.faultbench.outcome import FILE, Made, read
from tests.faultbench.tune_causes_3 import TRUE_3
from tests.faultbench.tune_causes_4 import TRUE_4

TRUE: dict[str, tuple[str, ...]] = {
    "learning_rate_x30": ("setting",),
    "learning_rate_0": ("learning_rate_0", "setting"),
    "step_forgotten": ("no_step",),
    "entropy_sign": ("setting",),
    "entropy_x100": ("setting",),
    "advantage_sign": ("advantages_sign", "advantages_wrong"),
    "advantage_shuffled": ("advantages_order", "advantages_wrong"),
    "rewards_x1000_unnormalised": ("reward_scale",),
    "stale_log_probs": ("stale_log_probs",),
    "log_probs_of_the_step_before": ("stale_log_probs",),
    "mask_mismatch": ("masks_differ",),
    "ends_ignored": ("ends_ignored", "returns_wrong"),
    "gamma_above_1": ("gamma", "setting"),
    "value_coefficient_x100": ("value_weight", "setting"),
    "critic_detached": ("gradient_lost",),
    "head_detached": ("gradient_lost",),
    "nan_reward": ("nan_reward",),
    "inf_observation_acting": ("bad_observation",),
    "inf_observation_stored": ("bad_stored",),
    "weights_x10000": ("weights_scaled", "policy_replaced"),
    "weights_reset": ("weights_reset", "policy_replaced"),
    "observation_drifts": ("observations_changed",),
    "state_zeroed": ("hidden_state",),
    "clip_x50": ("setting",),
    "epochs_x10": ("setting",),
    "reward_0": ("reward_constant",),
    "reward_sign": ("reward_sign",),
    "reward_noise": ("reward_unrelated",),
    "action_logged_shifted": ("actions_shifted", "ratio_mismatch"),
    "other_action_executed": ("other_action",),
    "clip_gone_rate_x10": ("setting", "clip_gone"),
    "dead_relus": ("gradient_zero", "dead_units", "policy_replaced", "bias_pushed"),
    "policy_bias_pushed": ("bias_pushed", "policy_replaced"),
    "environments_identical": ("environments_identical",),
    "value_target_shifted": ("returns_wrong",),
    "normaliser_reset": ("normaliser_reset", "observations_changed"),
    "moments_lost": ("optimizer_restarted",),
    "float16_overflow": ("overflow",),
    "gae_across_environments": ("returns_wrong",),
    "bootstrap_missing": ("returns_wrong",),
    "advantages_absolute": ("advantages_sign", "advantages_wrong"),
    "log_prob_of_another_sample": ("stale_log_probs", "ratio_mismatch"),
    "observations_of_another_environment": ("ratio_mismatch",),
    "next_observation_stored": ("ratio_mismatch", "actions_shifted"),
    "gradients_accumulated": ("large_steps", "advantages_wrong"),
    "weight_decay_1": ("weights_scaled", "setting"),
    "critic_rate_0": ("learning_rate_0",),
    "policy_loss_sign": ("loss_changed", "advantages_sign", "advantages_wrong"),
    "reward_delayed": ("reward_unrelated",),
    "environments_stuck": ("observations_changed",),
    "observations_half_garbage": ("observations_changed",),
    "sensor_dead": ("observations_changed",),
    "actions_partly_another": ("other_action",),
    "temperature_while_acting": ("ratio_mismatch",),
    "dropout_in_update": ("dropout",),
    "body_frozen": ("gradient_lost",),
    "plain_sgd": ("optimizer_restarted",),
    "rollout_reused": ("stale_log_probs",),
} | TRUE_3 | TRUE_4 | HELD_TRUE  # fmt: skip
"""The causes that name each kind of fault; of those that a report lists, any of them."""


@dataclass(frozen=True)
class Listed:
    """What the report of one faulty training lists, and whether the primary incident began with the fault."""

    made: Made
    rule: str
    causes: tuple[PossibleCause, ...]

    @property
    def true(self) -> tuple[PossibleCause, ...]:
        """Return the listed causes that name the fault."""
        return tuple(cause for cause in self.causes if cause.name in TRUE[self.made.setup.kind])

    @property
    def answers(self) -> set[str]:
        """Return what is said of them."""
        return {cause.answer.value for cause in self.true}

    @property
    def first_is_true(self) -> bool:
        """Return whether the first likely cause names the fault."""
        return bool(self.causes) and self.causes[0].answer == "likely" and self.causes[0] in self.true


def listed(out: Path, split: str) -> Iterator[Listed]:
    """Yield what is listed for each faulty training whose primary incident began with the fault or later."""
    for file in sorted(out.glob(f"{split}-*/{FILE}")):
        made = read(file.parent)
        if made.setup.kind not in FAULTS:
            continue
        evidence = gather(open_run(file.parent), Thresholds.defaults(RULES))
        incidents = evidence.replay.incidents
        if incidents:
            lead = incidents[primary_incident(incidents, evidence.replay.rules)]
            if lead.start >= made.setup.onset:
                yield Listed(made, lead.rule, look_alikes(evidence, lead))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print how often the true cause is listed, not ruled out, likely and first."""
    parser = argparse.ArgumentParser(prog="python -m tests.faultbench.causes", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the runs")
    parser.add_argument("--split", choices=SPLITS, default="tune", help="tasks and kinds of fault (default tune)")
    parser.add_argument("--each", action="store_true", help="print every list")
    options = parser.parse_args(arguments)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in listed(options.out, options.split):
        ruled_out = bool(one.true) and one.answers == {"ruled out"}
        marks = {
            "runs": True,
            "listed": bool(one.true),
            "not ruled out": bool(one.true) and not ruled_out,
            "likely": "likely" in one.answers,
            "likely first": one.first_is_true,
            "likely alone": one.first_is_true
            and sum(c.answer == "likely" for c in one.causes if c not in one.true) == 0,
            "ruled out": ruled_out,
            "not recorded": bool(one.true) and one.answers <= {"ruled out", "not recorded"} and not ruled_out,
        }
        for kind in (one.made.setup.kind, "all"):
            counts[kind].update(name for name, true in marks.items() if true)
        if options.each:
            put(f"\n{one.made.setup.name} (onset {one.made.setup.onset}), {one.rule}\n")
            RESULTS.write("".join(f"  {'*' if cause in one.true else ' '} {cause.line}\n" for cause in one.causes))
    names = ("runs", "listed", "not ruled out", "likely", "likely first", "likely alone", "not recorded", "ruled out")
    rows = [
        (kind, *(str(counts[kind][name]) for name in names)) for kind in sorted(counts, key=lambda kind: kind == "all")
    ]
    show_table(("fault", *names), rows, right=names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
