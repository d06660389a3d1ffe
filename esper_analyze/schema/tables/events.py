"""Tables of events: ``episodes``, ``levels``, ``findings``, ``events``, ``losses_of_data``; and ``ranks``."""

from esper_analyze.schema.column import RANK, SEQ, UPDATE, Table, choice, count, flag, key, real, text
from esper_analyze.schema.merging import RankRows

LEVELS = ("OFF", "MINIMAL", "NORMAL", "DEBUG")
VERDICTS = ("not_applicable", "no_data", "ok", "info", "warning", "critical")

RESUMED_FRESH = "resumed_fresh"
"""Kind of loss: a resume without the detector's state."""
CONTINUED = "continued"
"""Kind of loss: a recording that begins with the state of another recording's detector."""
ALERT_FAILED, ALERT_DROPPED, ALERT_UNSENT = "alert_failed", "alert_dropped", "alert_unsent"
"""Kinds of loss without lost rows: alerts refused, too many at a time, or on their way when the training ended."""
CHECKPOINT_LOST = "checkpoint_lost"
"""Kind of loss without lost rows: a checkpoint of the training that could not be noted in ``checkpoints.jsonl``."""

EPISODES = Table(
    "episodes",
    "One row per finished episode.",
    ("rank", "seq"),
    (
        RANK,
        UPDATE,
        SEQ,
        count("env", "index of the environment"),
        real("episode_return", "undiscounted sum of rewards as the environment reported it", "1"),
        count("length", "steps in the episode", "steps"),
        flag("success", "the environment reported success", empty="the environment does not report it"),
    ),
)

LEVEL_CHANGES = Table(
    "levels",
    "One row per change of telemetry level.",
    ("rank", "seq"),
    (
        RANK,
        UPDATE,
        SEQ,
        choice("level", "level from this update on", LEVELS, required=True),
        choice("previous", "level before", LEVELS, required=True),
        text("rule", "rule whose finding caused the change", "the escalation ran out"),
        text("subject", "subject of that finding", "the escalation ran out"),
        count("finding_update", "update of that finding", empty="the escalation ran out"),
        key("until", "last update of the escalation as known then; the update itself when it ran out"),
    ),
)

FINDINGS = Table(
    "findings",
    "Findings of the live detector: one row per change of verdict.",
    ("rank", "update", "rule", "subject", "metric"),
    (
        RANK,
        UPDATE,
        SEQ,
        text("rule", "name of the rule", required=True),
        text("subject", "head, group, phase, place, or run", required=True),
        text("metric", "column that was judged", required=True),
        choice("verdict", "verdict from this update on", VERDICTS, required=True),
        choice("previous", "last verdict by bounds before", VERDICTS, "never judged by its bounds before"),
        real("value", "value judged", "as the metric", empty="the metric was missing or did not apply"),
        real("threshold", "bound that was crossed", "as the metric", empty="no bound was crossed"),
        real("baseline", "baseline that the value was compared with", "as the metric", empty="no baseline"),
        text("reason", "why not applicable, which column is missing, or non-finite", "judged by its bounds"),
    ),
)

LOSSES_OF_DATA = Table(
    "losses_of_data",
    "One row per loss: rows dropped, recorder errors, gaps.",
    ("rank", "seq"),
    (
        RANK,
        UPDATE,
        SEQ,
        text("kind", "what happened", required=True),
        text("detail", "where and why"),
        key("rows", "rows lost"),
    ),
)

EVENT_KINDS = ("parameters_added", "parameters_removed", "parameters_replaced")

EVENTS = Table(
    "events",
    "One row per change of the training itself: parameters added, removed or replaced.",
    ("rank", "seq"),
    (
        RANK,
        UPDATE,
        SEQ,
        choice("kind", "what changed; holds from this update on", EVENT_KINDS, required=True),
        text("subject", "parameter by its qualified name, or head:NAME", required=True),
        text("detail", "its shape and type before and now"),
    ),
)

RANKS = Table(
    "ranks",
    "Values that must agree between the ranks of a distributed training. No rank writes this table: it is computed "
    "when a run's ranks are merged.",
    ("rank", "update", "metric"),
    (
        RANK,
        UPDATE,
        SEQ,
        text("metric", "compared column of table updates; of table groups as group.column", required=True),
        count("ranks", "ranks that have a value", "ranks"),
        real("least", "smallest value", "1", "min over ranks", "NaN or ±Inf on some ranks only"),
        real("most", "largest value", "1", "max over ranks", "NaN or ±Inf on some ranks only"),
        real(
            "spread",
            "(most − least) / larger magnitude of the two; Inf if only some ranks are non-finite",
            "share",
            "",
            "fewer than two ranks have a value",
        ),
    ),
    RankRows.COMPUTED,
)
