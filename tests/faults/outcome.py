"""What came of a row of the matrix, and the bench every row works on."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.children import Child, Nursery
from tests.faults.judge import TrialVerdict, Twin, counted, judged

UPDATES = 24
LONGEST = 120
"""Updates of the twin; a shorter training gives the same rows up to its end."""


@dataclass
class TrialTally:
    """The tally of one row: trials, rows lost, trainings harmed, and all that should not be."""

    trials: int = 0
    lost: int = 0
    harmed: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def met(self) -> bool:
        """Whether nothing was lost beyond the count, nothing harmed, nothing wrong."""
        return not self.lost and not self.harmed and not self.wrong

    def add(self, verdict: TrialVerdict, label: str = "") -> None:
        """Count one trial."""
        self.trials += 1
        self.lost += verdict.lost
        for text in verdict.wrong:
            self.wrong[f"{label}: {text}" if label else text] += 1


@dataclass
class Bench:
    """What rows share: children, a twin nobody harms, chance, and how much is asked for."""

    nursery: Nursery
    scratch: Path
    long: bool
    random: random.Random
    _twin: Twin | None = None
    _shas: dict[int, str] = field(default_factory=dict)

    def trials(self, short: int, long: int) -> int:
        """Return how many trials to make."""
        return long if self.long else short

    @property
    def twin(self) -> Twin:
        """The run nobody harmed."""
        if self._twin is None:
            plain = self.nursery.run(LONGEST, record=False)
            self._twin = Twin.of(self.nursery.run(LONGEST), plain)
        return self._twin

    def sha(self, updates: int) -> str:
        """Return the parameters after ``updates`` without a recorder."""
        if updates not in self._shas:
            child = self.nursery.run(updates, record=False)
            assert child.sha is not None
            self._shas[updates] = child.sha
        return self._shas[updates]

    def judge(self, child: Child, outcome: TrialTally, label: str = "") -> TrialVerdict:
        """Judge a child that was killed, or ended by its own harm: what it finished must be there."""
        verdict = judged(child.run_dir, self.twin, child.done + 1)
        outcome.add(verdict, label)
        self.discard(child, keep=not verdict.sound)
        return verdict

    def judge_trained(
        self, child: Child, outcome: TrialTally, updates: int, label: str = "", *, complete: bool = False
    ) -> TrialVerdict:
        """Judge a child whose disk was harmed: it must have trained on, and counted what is missing exactly.

        ``complete``: nothing may be missing, counted or not.
        """
        verdict = judged(child.run_dir, self.twin, child.done + 1)
        harmed = child.status != 0 or child.sha != self.sha(updates) or child.done + 1 != updates
        if harmed:
            outcome.harmed += 1
            verdict.wrong.append(f"training harmed, status {child.status}: {(child.warnings or ['no word'])[-1]}")
        verdict.wrong += counted(child, verdict)
        if not complete and child.lost:
            verdict.wrong = [text for text in verdict.wrong if "where the twin has" not in text]
            verdict.lost = 0  # counted, exactly, or told above
        outcome.add(verdict, label)
        self.discard(child, keep=not verdict.sound)
        return verdict

    def discard(self, child: Child, *, keep: bool) -> None:
        """Delete a trial's files; a run that showed something wrong is kept for looking at."""
        if not keep:
            shutil.rmtree(child.errors.parent, ignore_errors=True)


Row = Callable[[Bench], TrialTally]


def facts(**cells: Any) -> str:
    """Return facts as a note."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in cells.items())
