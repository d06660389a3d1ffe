"""The rows of the fault matrix, written out."""

from __future__ import annotations

from tests.faults import bombs, bulk, company, decoders, disks, files, kills, names, queries, writing
from tests.faults.outcome import Row

MATRIX: tuple[tuple[str, str, Row], ...] = (
    ("1", "SIGKILL at random points", kills.random_kills),
    ("2+3", "SIGKILL at each system call", kills.kills_at_calls),
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
    ("16", "one bad run among 100", files.one_bad_run),
    ("23", "fork: DataLoader workers, os.fork", company.forks),
    ("24", "8 threads hand over rows", company.threads),
    ("25", "two processes, one run", company.two_processes),
    ("28", "clock jumps", company.clock),
    ("29", "live reads while writing", company.live_reads),
    ("30", "hostile names", names.hostile_names),
    ("31", "hostile SQL", queries.hostile_sql),
    ("32", "SQL resource bombs", queries.sql_bombs),
    ("33", "Parquet bomb", bombs.parquet_bombs),
    ("34", "cells that break decoders, panics", decoders.bad_cells),
    ("35", "more data than memory", bulk.more_than_memory),
    ("38", "the recorder's own errors", company.own_errors),
    ("39", "disk stalls seconds", disks.slow_disk),
    ("40", "crash while writing a report", writing.report_kills),
    ("stop", "SIGSTOP, then SIGCONT", kills.stopped),
    ("writer", "writer or sealer thread dies", company.writer_dies),
)
TOOLS = "verify, repair and compact have trials of their own"
BENCH = "tested in pytest, no trial here"
LATER: tuple[tuple[str, str, str], ...] = (
    ("4", "SIGKILL during repair, then repair", TOOLS),
    ("15", "manifest lost, torn, edited", TOOLS),
    ("17", "NaN/Inf rows, 4 engines, 3 writers", BENCH),
    ("18", "value round trip", BENCH),
    ("19", "integer overflow in aggregates", "no trial written"),
    ("20", "columns extra, missing, retyped, reordered", "no trial written"),
    ("21", "shard of a newer major version", "no trial written"),
    ("22", "files of every past version", "there is one version so far"),
    ("26", "8 ranks, one killed", "ranks are not recorded yet"),
    ("27", "resume with the step counter rewound", "resume has trials of its own"),
)
