"""Runs that are sound, then ill, for the rules on host and seeds of a growing network; see ``drives``."""

from __future__ import annotations

from typing import Any

from tests.recorder.drives import CRITICAL, INFO, WARNING, Drive, Stage
from tests.recorder.growing import Growing
from tests.recorder.sick_loop import FaultyLoop

PLACE = "env 0, r0c0"
RATIO, REACHED = (PLACE, "normalized_ratio"), (PLACE, "low_ratio_cause")
EXPLODED, VANISHED = (PLACE, "exploding_severity"), (PLACE, "vanishing_severity")


def grown(**symptoms: Any) -> Stage:
    """Give the loop a host with a seed that has these symptoms."""

    def stage(loop: FaultyLoop) -> None:
        loop.growing = Growing(**symptoms)

    return stage


SOUND = {0: grown()}
FAST_HOST = {3: grown(host_pull=4.0)}
FADED = {3: grown(host_pull=0.4, seed_pull=0.01)}

SLOTS: dict[str, tuple[Drive, ...]] = {
    "seed_dormant": (
        Drive({3: grown(seed_pull=0.01), 6: grown(seed_pull=1e-3)}, {RATIO: {5: WARNING, 8: CRITICAL}}, SOUND),
        Drive(FAST_HOST, {RATIO: {5: INFO}}, SOUND),
        Drive({3: grown(lost=range(5))}, {REACHED: {5: CRITICAL}}, SOUND),
    ),
    "host_dominating": (
        Drive(FAST_HOST, {RATIO: {5: WARNING}}, SOUND),
        Drive(FADED, {RATIO: {5: INFO}}, SOUND),
    ),
    "slot_gradient_explosion": (
        Drive(
            {3: grown(seed_pull=1.5), 6: grown(seed_pull=3.0)}, {EXPLODED: {3: INFO, 4: WARNING, 7: CRITICAL}}, SOUND
        ),
    ),
    "slot_gradient_vanishing": (
        Drive({3: grown(faint=2), 6: grown(faint=3)}, {VANISHED: {5: WARNING, 8: CRITICAL}}, SOUND),
    ),
}
