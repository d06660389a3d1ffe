"""Row 52: the training, the box beside it, or both are killed at random."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from esper_analyze.storage import layout
from recorder.box.ring import Ring
from tests.faults.children import Child
from tests.faults.judge import TrialVerdict, Twin, judged
from tests.faults.outcome import LONGEST, Bench, TrialTally, facts
from tests.patience import PATIENCE

BOXED: dict[str, Any] = {"box": True, "level": "DEBUG"}
"""At DEBUG the same is measured however late the box answers."""


def killed_boxes(bench: Bench) -> TrialTally:
    """SIGKILL: what was handed over is recorded, the training goes on without its box, and nothing is wrong."""
    outcome = TrialTally()
    plain = bench.nursery.run(LONGEST, record=False)
    twin = Twin.of(bench.nursery.run(LONGEST, place={"level": "DEBUG"}), plain)
    rows: dict[str, Callable[[Bench, Twin, TrialTally], None]] = {
        "training": _training_killed,
        "box": _box_killed,
        "both": _both_killed,
    }
    counts = {name: bench.trials(4, 100 if name == "both" else 200) for name in rows}
    for name, row in rows.items():
        for _ in range(counts[name]):
            row(bench, twin, outcome)
    outcome.notes.append(facts(**counts))
    return outcome


def _training_killed(bench: Bench, twin: Twin, outcome: TrialTally) -> None:
    child = _begun(bench)
    child.signal(signal.SIGKILL)
    child.ended()
    verdict = TrialVerdict(wrong=["the box did not end"])
    if _gone(child.writer):
        verdict = judged(child.run_dir, twin, child.done + 1)
    outcome.add(verdict, "training killed")
    bench.discard(child, keep=not verdict.sound)


def _box_killed(bench: Bench, twin: Twin, outcome: TrialTally) -> None:
    child = _begun(bench)
    _kill(child.writer)
    child.listen(lambda one: one.sha is not None)
    child.go()
    child.ended()
    verdict = judged(child.run_dir, twin, child.done + 1, one_writer=False)
    if child.status != 0 or child.sha != bench.sha(LONGEST):
        outcome.harmed += 1
        verdict.wrong.append(f"training harmed, status {child.status}: {(child.warnings or ['no word'])[-1]}")
    outcome.add(verdict, "box killed")
    bench.discard(child, keep=not verdict.sound)


def _both_killed(bench: Bench, twin: Twin, outcome: TrialTally) -> None:
    child = _begun(bench)
    _kill(child.writer)
    child.signal(signal.SIGKILL)
    child.ended()
    verdict = judged(child.run_dir, twin, 0)
    if verdict.last < child.done and not _left(child.run_dir):
        verdict.wrong.append(f"{child.done - verdict.last} updates are neither recorded nor left in the ring")
    outcome.add(verdict, "both killed")
    bench.discard(child, keep=not verdict.sound)


def _begun(bench: Bench) -> Child:
    """Return a training at a random moment, its box still starting or at work."""
    pace = bench.random.choice([0.0, 0.005, 0.05])
    child = bench.nursery.start(LONGEST, pace=pace, place=BOXED, hold=["trained"])
    last = bench.random.randrange(LONGEST - 1)
    child.listen(lambda one: one.writer > 0 and one.done >= last)
    time.sleep(bench.random.random() * 0.02)
    return child


def _left(run_dir: Path) -> bool:
    """Whether updates are left in a ring."""
    return any(Ring(path).waiting for path in run_dir.rglob(layout.BOX_RING_FILE))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _gone(pid: int) -> bool:
    """Wait for the end of a process that is not our child."""
    end = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
