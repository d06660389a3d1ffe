"""``esper-analyze import``: convert the log of another tool into a run that every command reads."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import Json
from esper_analyze.terminal import path_words, put, say

if TYPE_CHECKING:
    from esper_analyze.interchange.imported import Imported
    from esper_analyze.interchange.write import Written


class ImportFormat(StrEnum):
    """Formats of a source."""

    AUTO = "auto"
    ANCESTOR = "ancestor"
    TENSORBOARD = "tensorboard"
    SB3 = "sb3"
    WANDB = "wandb"
    RLPROBE = "rlprobe"
    OWN = "own"
    CONSOLE = "console"


SourcePath = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="File or directory of another tool; - is pasted text.")
]
NewRun = Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="Directory of the new run; must not exist.")]
SourceFormat = Annotated[ImportFormat, typer.Option("--format", help="Format of SOURCE; auto detects it.")]


def import_run(source: SourcePath, out: NewRun, kind: SourceFormat = ImportFormat.AUTO, as_json: Json = False) -> None:
    """Make a run out of SOURCE, so that every command works on it; SOURCE is only read.

    What it lacks is null and the rules on it say no_data; numbers that are constants by construction are null too.
    Lines that are cut or malformed and updates that are missing are counted, told, and kept in losses_of_data. Alarms
    of the source's own detector are kept beside what ours says, under names like ancestor:value_collapse_detected.

    Example: esper-analyze import logs/progress.csv --out runs/imported

    Example: esper-analyze import - --out runs/pasted
    """
    from esper_analyze.interchange.destination import refuse_existing
    from esper_analyze.interchange.sources import read_source
    from esper_analyze.interchange.write import write_imported

    refuse_existing(out)
    imported = read_source(source, None if kind is ImportFormat.AUTO else kind.value)
    written = write_imported(out, imported)
    for sentence in imported.losses.sentences():
        say(f"esper-analyze: {sentence}")
    if as_json:
        _print_json(imported, written)
    else:
        _print_words(imported, written)


def _print_json(imported: Imported, written: Written) -> None:
    from esper_analyze.strict_json import strict_json

    facts = {
        "run": str(written.path),
        "format": imported.format,
        "updates": written.updates,
        "rows": written.rows,
        "alarms": written.alarms,
        "foreign_alarms": written.foreign,
        "losses": imported.losses.rows(),
        "columns": imported.columns,
        "left_out": imported.left_out,
    }
    put(strict_json(facts))


def _print_words(imported: Imported, written: Written) -> None:
    from esper_analyze.wording import many

    framework = imported.facts.get("framework")
    framework_words = f", {framework}" if framework and str(framework) != imported.format else ""
    theirs = f", {many(written.foreign, 'alarm')} of its own detector" if written.foreign else ""
    put(
        f"{path_words(written.path)}: {many(written.updates, 'update')} from {imported.format}{framework_words}; "
        f"{many(written.alarms, 'alarm')} of ours{theirs}\n"
    )
    tables = ", ".join(f"{name} {rows:,}" for name, rows in written.rows.items())
    put(f"rows: {tables}\n")
    if imported.left_out:
        say(f"not imported, no column holds it (why is in run.json): {', '.join(imported.left_out)}")
