"""``esper-analyze compact``: many small shards become few, with the same rows."""

from __future__ import annotations

from dataclasses import asdict

from esper_analyze.commands.changing import changing
from esper_analyze.commands.options import RunPath, takes_options
from esper_analyze.commands.output import Form, TextOutput
from esper_analyze.terminal import path_words


@takes_options("run_path", "form", "as_json", "out")
def compact(output: TextOutput, run_path: RunPath) -> None:
    """Merge the many small shards of RUN into few: the same rows in the same order, faster to open and to query.

    Only a sound run without a writer is compacted. May be killed at any time: readers see the old shards or the
    new ones, and the next run of `compact` or `repair` finishes. Programs that have the run open must open it again.

    Example: esper-analyze compact RUN
    """
    from esper_analyze.storage.maintenance.compact import compact as join
    from esper_analyze.strict_json import strict_json
    from esper_analyze.wording import many

    form = output.resolved
    with changing(run_path, "compacting") as step:
        done = join(run_path, step)
    if form is Form.JSON:
        output.write(strict_json({"run": str(run_path), **asdict(done)}))
        return
    if done.shards[0] == done.shards[1]:
        output.write(f"{path_words(run_path)}: nothing to join, {many(done.shards[0], 'shard')} as before\n")
        return
    (shards, shards_now), (size, size_now), (rows, rows_now) = done.shards, done.bytes, done.rows
    output.write(
        f"{path_words(run_path)}: {many(shards, 'shard')}, {size:,} bytes, {many(rows, 'row')} before; "
        f"{many(shards_now, 'shard')}, {size_now:,} bytes, {many(rows_now, 'row')} now\n"
    )
