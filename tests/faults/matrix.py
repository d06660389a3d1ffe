"""The rows of the fault matrix, written out."""

from __future__ import annotations

from tests.faults import (
    columns,
    company,
    disks,
    files,
    foreign,
    kills,
    manifests,
    numbers,
    sums,
    tools,
    values,
    versions,
)
from tests.faults.outcome import Row

MATRIX: tuple[tuple[str, str, Row], ...] = (
    ("1", "SIGKILL at random points", kills.random_kills),
    ("2+3", "SIGKILL at each system call", kills.kills_at_calls),
    ("4", "SIGKILL during repair and compact", tools.killed_tools),
    ("5", "SIGTERM, SIGINT, sys.exit, exception", kills.orderly_endings),
    ("6", "os._exit, segfault, abort", kills.crashes),
    ("7", "ENOSPC", disks.full_disk),
    ("8", "EIO from system calls", disks.failing_calls),
    ("9", "short writes", disks.short_writes),
    ("10", "EMFILE, deleted, no permission", disks.taken_away),
    ("11", "log cut at every byte", files.cut_logs),
    ("12", "log bit flips", files.flipped_logs),
    ("13", "shard bit flips, data and footer", files.flipped_shards),
    ("14", "shard empty, cut, missing, swapped, twice", files.broken_shards),
    ("15", "manifest lost, cut, edited, forged", manifests.manifests),
    ("16", "one bad run among 100", files.one_bad_run),
    ("17", "NaN, Inf and null, 4 engines, 4 writers", numbers.counts_of_nan),
    ("18", "value round trip: log, shard, repair, compact", values.round_trips),
    ("19", "integer overflow in aggregates", sums.sums),
    ("20", "columns that are not the declared ones", columns.odd_columns),
    ("21", "runs and shards of newer versions", versions.newer_versions),
    ("22", "runs of every past version", versions.past_versions),
    ("23", "fork: DataLoader workers, os.fork", company.forks),
    ("24", "8 threads hand over rows", company.threads),
    ("25", "two processes, one run", company.two_processes),
    ("26", "8 ranks, one killed", company.ranks),
    ("28", "clock jumps", company.clock),
    ("29", "live reads while writing", company.live_reads),
    ("38", "the recorder's own errors", company.own_errors),
    ("39", "disk stalls seconds", disks.slow_disk),
    ("foreign", "foreign files, wrong rank, shards twice", foreign.foreign_files),
    ("stop", "SIGSTOP, then SIGCONT", kills.stopped),
    ("writer", "writer or sealer thread dies", company.writer_dies),
)
LATER: tuple[tuple[str, str, str], ...] = (
    ("27", "resume with the step counter rewound", "resume has trials of its own"),
    ("30", "hostile names", "no trial written"),
    ("31", "hostile SQL", "no trial written"),
    ("32", "SQL resource bombs", "no trial written"),
    ("33", "Parquet bomb", "no trial written"),
    ("34", "polars panic in a reader", "no trial written"),
    ("35", "data 5x memory_limit", "no trial written"),
    ("40", "crash while writing a report", "no trial written"),
)
