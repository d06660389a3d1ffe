"""Name the shard at fault when work on a run fails although the checksum vouches for every file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from esper_analyze.errors import DamagedError, EsperError
from esper_analyze.runs.run import RecordedRun
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage.decode_errors import NEXT
from esper_analyze.storage.shapes import shapes


@contextmanager
def naming_damaged_shard(run: RecordedRun) -> Iterator[None]:
    """Turn an unforeseen error into ``DamagedError`` when a shard of ``run`` holds what no recorder writes.

    Cells are checked only after an error: to check all of them whenever a run is opened would take as long as to read
    it.
    """
    try:
        yield
    except (EsperError, MemoryError):
        raise
    except Exception as error:
        fault = _first_fault(run)
        if fault is None:
            raise
        raise DamagedError(fault, hint=NEXT) from error


def _first_fault(run: RecordedRun) -> str | None:
    from esper_analyze.storage.shard_scan import entry_faults, shard_contents

    for attempt in run.attempts:
        for path, entry in attempt.shards:
            declared = shapes(BY_NAME[entry.table])[entry.schema].table
            contents = shard_contents(path, declared, attempt.rank)
            for fault in (*contents.faults, *entry_faults(entry, contents)):
                return f"{path} {fault}"
    return None
