"""The tasks of the bench: bounds of rules are chosen on ``TUNE``; ``HELD`` is looked at once per release."""

from __future__ import annotations

from tests.faultbench.held_tasks import HELD
from tests.faultbench.tune_tasks import TUNE

TASKS = TUNE | HELD
