"""``esper-analyze import``: what another tool logged becomes a run that every command reads."""

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


class Format(StrEnum):
    """What a source may be."""

    AUTO = "auto"
    ANCESTOR = "ancestor"
    TENSORBOARD = "tensorboard"
    SB3 = "sb3"
    WANDB = "wandb"
    RLPROBE = "rlprobe"
    OWN = "own"


Source = Annotated[Path, typer.Argument(metavar="SOURCE", help="File or directory that another tool wrote.")]
Out = Annotated[Path, typer.Option("--out", metavar="RUN", help="Directory of the new run; must not exist.")]
Kind = Annotated[Format, typer.Option("--format", help="What SOURCE is; auto looks.")]


def import_run(source: Source, out: Out, kind: Kind = Format.AUTO, as_json: Json = False) -> None:
    """Make a run out of SOURCE, so that every command works on it; SOURCE is only read.

    What it lacks is null and the rules on it say no_data; numbers that are constants by construction are null too.
    Lines that are cut or malformed and updates that are missing are counted, told, and kept in losses_of_data. Alarms
    of the source's own detector are kept beside what ours says, under names like ancestor:value_collapse_detected.

    Example: esper-analyze import logs/progress.csv --out runs/imported
    """
    from esper_analyze.interchange.destination import refuse_existing
    from esper_analyze.interchange.sources import read_source
    from esper_analyze.interchange.write import write_imported

    refuse_existing(out)
    found = read_source(source, None if kind is Format.AUTO else kind.value)
    written = write_imported(out, found)
    for sentence in found.losses.sentences():
        say(f"esper-analyze: {sentence}")
    if as_json:
        _print_json(found, written)
    else:
        _print_words(found, written)


def _print_json(found: Imported, written: Written) -> None:
    from esper_analyze.strict_json import strict_json

    facts = {
        "run": str(written.path),
        "format": found.format,
        "updates": written.updates,
        "rows": written.rows,
        "alarms": written.alarms,
        "foreign_alarms": written.foreign,
        "losses": found.losses.rows(),
        "columns": found.columns,
        "left_out": found.left_out,
    }
    put(strict_json(facts))


def _print_words(found: Imported, written: Written) -> None:
    from esper_analyze.wording import many

    framework = found.facts.get("framework")
    known = f", {framework}" if framework and str(framework) != found.format else ""
    theirs = f", {many(written.foreign, 'alarm')} of its own detector" if written.foreign else ""
    put(
        f"{path_words(written.path)}: {many(written.updates, 'update')} from {found.format}{known}; "
        f"{many(written.alarms, 'alarm')} of ours{theirs}\n"
    )
    tables = ", ".join(f"{name} {rows:,}" for name, rows in written.rows.items())
    put(f"rows: {tables}\n")
    if found.left_out:
        say(f"not imported, no column holds it (why is in run.json): {', '.join(found.left_out)}")
