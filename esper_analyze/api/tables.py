"""The recorded tables of a run as polars frames: one property for each declared table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.runs.damaged_shard import naming_damaged_shard
from esper_analyze.schema.lookup import HINT, declared_table

if TYPE_CHECKING:
    import polars

    from esper_analyze.runs.run import RecordedRun
    from esper_analyze.schema.column import Table


class RunTables:
    """Reads the tables of one recorded run. Each access reads the files again: keep the frame you work with.

    A cell that is null was not measured; NaN and ±Inf were measured and came out so. A table without rows is an empty
    frame with its columns and types.
    """

    recorded: RecordedRun

    def frame(self, table: str, columns: Sequence[str] | None = None) -> polars.DataFrame:
        """Return ``table``, ordered by rank and sequence; ``columns`` picks some (a large run is read faster so).

        Raises ``EsperError`` for a table or column that is not declared, and for damaged files.
        """
        names = None if columns is None else _known_columns(declared_table(table), columns)
        with naming_damaged_shard(self.recorded):
            return self.recorded.frame(declared_table(table).name, names)

    @property
    def updates(self) -> polars.DataFrame:
        """One row per PPO update: clock, policy change, losses, value function, advantages, gradients, returns."""
        return self.frame("updates")

    @property
    def steps(self) -> polars.DataFrame:
        """One row per minibatch: the inner loop, not reduced."""
        return self.frame("steps")

    @property
    def heads(self) -> polars.DataFrame:
        """One row per update and action head."""
        return self.frame("heads")

    @property
    def groups(self) -> polars.DataFrame:
        """One row per update and group of parameters: actor, critic, shared, lstm, each head, all."""
        return self.frame("groups")

    @property
    def layers(self) -> polars.DataFrame:
        """Gradients of single parameter tensors, of the updates that were measured in detail."""
        return self.frame("layers")

    @property
    def lstm(self) -> polars.DataFrame:
        """One row per update and phase of a recurrent training: the recurrent state."""
        return self.frame("lstm")

    @property
    def slots(self) -> polars.DataFrame:
        """One row per update and slot of a growing network: the host and its seed modules."""
        return self.frame("slots")

    @property
    def transitions(self) -> polars.DataFrame:
        """The samples that moved furthest from the old policy, of updates whose ratio exploded or collapsed."""
        return self.frame("transitions")

    @property
    def tensors(self) -> polars.DataFrame:
        """One row per parameter tensor, of updates at which something was not finite."""
        return self.frame("tensors")

    @property
    def episodes(self) -> polars.DataFrame:
        """One row per finished episode."""
        return self.frame("episodes")

    @property
    def levels(self) -> polars.DataFrame:
        """One row per change of the telemetry level."""
        return self.frame("levels")

    @property
    def findings(self) -> polars.DataFrame:
        """What the live detector said: one row per change of verdict."""
        return self.frame("findings")

    @property
    def events(self) -> polars.DataFrame:
        """One row per change of the training itself: parameters added, removed or replaced."""
        return self.frame("events")

    @property
    def losses_of_data(self) -> polars.DataFrame:
        """One row per loss of data: rows dropped, errors of the recorder, gaps."""
        return self.frame("losses_of_data")

    @property
    def ranks(self) -> polars.DataFrame:
        """What must be the same on every rank of a distributed training, side by side."""
        return self.frame("ranks")


def _known_columns(table: Table, columns: Sequence[str]) -> list[str]:
    if isinstance(columns, str) or not isinstance(columns, Sequence):
        raise UsageError(f"columns must be a list of names, not {columns!r:.80}", hint=f"as in {list(table.key)}")
    for name in columns:
        if name not in table.names:
            raise UsageError(
                f"table {table.name} has no column {name!r}{did_you_mean(str(name), table.names)}", hint=HINT
            )
    return list(dict.fromkeys(columns))
