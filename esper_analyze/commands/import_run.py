"""``esper-analyze import``: convert the logs of another tool into runs that every command reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import Json
from esper_analyze.errors import EsperError, UsageError
from esper_analyze.terminal import cleaned, escaped, path_words, progress, put, say, show_table

if TYPE_CHECKING:
    from esper_analyze.interchange.imported import Imported
    from esper_analyze.interchange.sources import SourceRuns
    from esper_analyze.interchange.write import Written

_NAMED = 5
_MOST_ACTIONS = 1 << 31

SourcePath = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="File or directory of another tool; - is pasted text.")
]
NewRun = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="RUN", help="Directory of the new run, or of several; it must not exist."),
]
LogFormat = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="NAME", help="Format of SOURCE (csv, tensorboard, …), or the framework that logged it."
    ),
]
Actions = Annotated[
    int | None,
    typer.Option("--actions", metavar="N", min=2, help="Number of actions: entropy as a share of the possible one."),
]
HeadSizes = Annotated[
    str | None,
    typer.Option("--heads", metavar="NAME=N,…", help="The same for a policy with several action heads: op=4,slot=8."),
]
OldFormat = Annotated[str | None, typer.Option("--format", hidden=True)]


def import_run(
    source: SourcePath,
    out: NewRun,
    name: LogFormat = None,
    actions: Actions = None,
    heads: HeadSizes = None,
    kind: OldFormat = None,
    as_json: Json = False,
) -> None:
    """Make a run out of SOURCE, so that every command works on it; SOURCE is only read.

    What it lacks is null and the rules on it say no_data; numbers that are constants by construction are null too.
    Lines that are cut or malformed and updates that are missing are counted, told, and kept in losses_of_data. Alarms
    of the source's own detector are kept beside what ours says, under names like ancestor:value_collapse_detected.

    A directory that holds several runs becomes a directory of runs. Those that fail are named, and the others imported.

    Example: esper-analyze import logs/progress.csv --out runs/imported

    Example: esper-analyze import logs --out runs/all_of_them

    Example: esper-analyze import - --out runs/pasted
    """
    from esper_analyze.interchange.destination import refuse_existing
    from esper_analyze.interchange.sources import find_logs

    refuse_existing(out)
    logs = find_logs(source, name or kind, head_sizes(actions, heads))
    tell_not_logs(logs)
    with progress("importing", len(logs.groups) if len(logs.groups) > 1 else None) as step:
        runs = logs.read(step)
        first_name, first = next(runs)
        imports = _several(source, out, chain([(first_name, first)], runs)) if first_name else _only(out, first)
    imports.failed += [(str(error.message), error) for error in logs.unreadable]
    if not first_name:
        _print_run(imports.runs[0], as_json=as_json)
    else:
        _print_runs(out, imports, as_json=as_json)
    if imports.failed:
        raise typer.Exit(max(error.exit_code for _, error in imports.failed))


def head_sizes(actions: int | None, heads: str | None) -> dict[str, int]:
    """Return the number of actions by head, empty when not given. Raises ``UsageError``."""
    if actions is not None and heads is not None:
        raise UsageError("--actions and --heads exclude each other", hint="--heads op=4,slot=8 for several heads")
    if actions is not None:
        return {"action": actions}
    sizes = {}
    for part in (heads or "").split(",") if heads is not None else ():
        name, _, number = part.strip().rpartition("=")
        if not name or not number.isdecimal() or not 1 <= int(number) < _MOST_ACTIONS or name in sizes:
            raise UsageError(f"--heads {cleaned(heads, 60)}: {cleaned(part, 40)!r} is not NAME=N", hint="op=4,slot=8")
        sizes[name] = int(number)
    return sizes


@dataclass(slots=True)
class _ImportedRun:
    """A run that was made, and what is told of it. Its rows are in its files."""

    name: str
    imported: Imported
    written: Written


@dataclass(slots=True)
class _Imports:
    """The runs that were made, and those that were not."""

    runs: list[_ImportedRun] = field(default_factory=list)
    failed: list[tuple[str, EsperError]] = field(default_factory=list)

    def write(self, out: Path, name: str, imported: Imported | EsperError) -> None:
        """Write one run to ``out``, and forget its rows; keep the error where that cannot be."""
        from esper_analyze.interchange.write import write_imported

        try:
            if isinstance(imported, EsperError):
                raise imported
            written = write_imported(out, imported)
        except EsperError as error:
            self.failed.append((name, error))
            return
        imported.rows, imported.attempts = {}, []
        self.runs.append(_ImportedRun(name, imported, written))


def _only(out: Path, imported: Imported | EsperError) -> _Imports:
    imports = _Imports()
    imports.write(out, "", imported)
    for _, error in imports.failed:
        raise error
    return imports


def _several(source: Path, out: Path, runs: Iterable[tuple[str, Imported | EsperError]]) -> _Imports:
    """Make a directory of runs, all at once: one that is interrupted leaves none."""
    from esper_analyze.interchange.destination import staged

    imports = _Imports()
    with staged(out) as folder:
        for name, imported in runs:
            imports.write(folder / name, name, imported)
        if not imports.runs:
            name, error = imports.failed[0]
            raise UsageError(
                f"none of the {len(imports.failed)} logs in {source} can be imported: {name}: {error.message}",
                hint=error.hint,
            )
    for run in imports.runs:
        run.written = replace(run.written, path=out / run.name)
    return imports


def tell_not_logs(logs: SourceRuns) -> None:
    """Say which files only ended like logs."""
    if logs.not_logs:
        named = ", ".join(path_words(name) for name, _ in logs.not_logs[:_NAMED])
        more = f" and {len(logs.not_logs) - _NAMED:,} more" if len(logs.not_logs) > _NAMED else ""
        say(f"esper-analyze: not read, no logs of a PPO training: {named}{more}")


def tell_of_import(imported: Imported, name: str = "") -> None:
    """Say how the files of a run were put together, and what of them was broken or missing.

    Of several runs it is not said that the last rollout was not trained on: it is so in all of Stable-Baselines3.
    """
    before, usual = (f"{cleaned(name)}: ", ("unfinished_update",)) if name else ("", ())
    for sentence in (*imported.remarks, *imported.losses.sentences(but=usual)):
        say(f"esper-analyze: {before}{sentence}")


def _facts(run: _ImportedRun) -> dict[str, object]:
    imported, written = run.imported, run.written
    return {
        "run": str(written.path),
        "format": imported.format,
        "framework": imported.facts.get("framework"),
        "updates": written.updates,
        "rows": written.rows,
        "alarms": written.alarms,
        "foreign_alarms": written.foreign,
        "losses": imported.losses.rows(),
        "remarks": imported.remarks,
        "columns": imported.columns,
        "left_out": imported.left_out,
    }


def _print_run(run: _ImportedRun, *, as_json: bool) -> None:
    from esper_analyze.strict_json import strict_json
    from esper_analyze.wording import many

    imported, written = run.imported, run.written
    tell_of_import(imported)
    if as_json:
        put(strict_json(_facts(run)))
        return
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


def _print_runs(out: Path, imports: _Imports, *, as_json: bool) -> None:
    from esper_analyze.strict_json import strict_json
    from esper_analyze.wording import many

    for run in imports.runs:
        tell_of_import(run.imported, run.name)
    for name, error in imports.failed:
        say(f"esper-analyze: not imported: {cleaned(name)}: {error.message}")
    if as_json:
        failed = [{"name": name, "error": error.message, "hint": error.hint} for name, error in imports.failed]
        put(strict_json({"out": str(out), "runs": [_facts(run) for run in imports.runs], "failed": failed}))
        return
    rows = [
        (
            escaped(run.name),
            f"{run.written.updates:,}",
            f"{run.written.alarms:,}",
            escaped(run.imported.facts.get("framework") or run.imported.format),
        )
        for run in imports.runs
    ]
    show_table(("run", "updates", "alarms", "from"), rows, right=("updates", "alarms"))
    failures = f", {len(imports.failed):,} not" if imports.failed else ""
    put(f"{path_words(out)}: {many(len(imports.runs), 'run')} imported{failures}\n")
