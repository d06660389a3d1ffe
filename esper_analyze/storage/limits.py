"""Size limits of a run's files, checked before anything is decoded: a decompression bomb is refused by name.

Each limit is far above what the recorder writes and far below the memory of a machine.
"""

from __future__ import annotations

LARGEST_FRAME = 1 << 28
"""Bytes of one frame of the log: an update takes a few thousand, at DEBUG some millions."""
LARGEST_FRAME_ROWS = 1 << 22
"""Rows that one frame may declare: a constant column takes no space in a frame, but eight bytes a row in memory."""
LARGEST_LOG = 1 << 30
"""Bytes of a log file: it is read at once, and ends when its rows are sealed (32,768 of a table, or five minutes)."""
LARGEST_TEXT = 1 << 26
"""Bytes of run.json, a manifest, a marker: a manifest of 100,000 shards is half of that."""
LARGEST_FOOTER = 1 << 24
"""Bytes of a Parquet footer: 150 columns in 100 row groups are 2 MB."""
LARGEST_SHARD_CELLS = 1 << 26
"""Cells of a shard, rows times columns: the recorder keeps at most 400,000 rows waiting, the widest table has 135
columns; ``compact`` joins shards up to a quarter of this."""
LARGEST_SHARD = 1 << 29
"""Bytes of a shard once all its pages are unpacked: as many cells, of eight bytes each."""
LARGEST_COLUMN = 1 << 28
"""Bytes of one column of one row group before compression: 100,000 rows are 800 kB of numbers, long names more."""
