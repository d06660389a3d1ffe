"""A log of (name, step, value, time) points, as trackers of experiments keep them."""

from __future__ import annotations

from collections.abc import Iterable

from esper_analyze.interchange.series import ScalarLog

Point = tuple[str, int | None, object, float | None]
"""Name, step (None: not given), value, UTC epoch."""


def log_of(points: Iterable[Point]) -> ScalarLog:
    """Return the log of ``points``.

    Steps are what the training gave as such: environment steps in most libraries. Where no step differs (MLflow's is 0
    unless given), the points of each name are numbered by their time. Steps 0, 1, 2 … are counts.
    """
    ordered = sorted(points, key=lambda point: (point[3] is not None, point[3] or 0.0))
    steps = {step for _, step, _, _ in ordered if step is not None}
    log = ScalarLog(timesteps=len(steps) > 1 and steps != set(range(min(steps), min(steps) + len(steps))))
    counts: dict[str, int] = {}
    for name, step, value, wall in ordered:
        counts[name] = counts.get(name, -1) + 1
        log.add(name, counts[name] if step is None or len(steps) < 2 else step, value, wall)
    return log
