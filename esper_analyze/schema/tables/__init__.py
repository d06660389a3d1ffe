"""All tables of a run."""

from esper_analyze.schema.column import Table
from esper_analyze.schema.tables.detail import LAYERS, TENSORS, TRANSITIONS
from esper_analyze.schema.tables.events import (
    EPISODES,
    EVENTS,
    FINDINGS,
    LEVEL_CHANGES,
    LEVELS,
    LOSSES_OF_DATA,
    RANKS,
    VERDICTS,
)
from esper_analyze.schema.tables.inner import GROUPS, HEADS, LSTM, STEPS
from esper_analyze.schema.tables.slots import SLOTS
from esper_analyze.schema.tables.updates import UPDATES

TABLES: tuple[Table, ...] = (
    UPDATES,
    STEPS,
    HEADS,
    GROUPS,
    LAYERS,
    LSTM,
    SLOTS,
    TRANSITIONS,
    TENSORS,
    EPISODES,
    LEVEL_CHANGES,
    FINDINGS,
    EVENTS,
    LOSSES_OF_DATA,
    RANKS,
)
BY_NAME: dict[str, Table] = {table.name: table for table in TABLES}

__all__ = [
    "BY_NAME",
    "EPISODES",
    "EVENTS",
    "FINDINGS",
    "GROUPS",
    "HEADS",
    "LAYERS",
    "LEVELS",
    "LEVEL_CHANGES",
    "LOSSES_OF_DATA",
    "LSTM",
    "RANKS",
    "SLOTS",
    "STEPS",
    "TABLES",
    "TENSORS",
    "TRANSITIONS",
    "UPDATES",
    "VERDICTS",
]
