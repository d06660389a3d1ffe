"""Every source that can be imported, written out, which of them a path is, and which runs it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from esper_analyze.errors import EsperError, UsageError, did_you_mean
from esper_analyze.interchange import (
    import_ancestor,
    import_console,
    import_csv,
    import_json,
    import_long,
    import_mlflow,
    import_own,
    import_rlprobe,
    import_tensorboard,
    import_torchrl_csv,
    import_trackio,
    import_wandb,
    monitor_files,
)
from esper_analyze.interchange.action_kind import describe_actions
from esper_analyze.interchange.found_run import FoundRun
from esper_analyze.interchange.import_folder import log_folders
from esper_analyze.interchange.imported import Imported
from esper_analyze.interchange.naming import FRAMEWORKS
from esper_analyze.storage.layout import RUN_FILE

_NAMED = 8
NO_SIZES: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of source: ``recognises`` returns the file or directory to read that a path is, or None.

    ``runs`` lists what such a path holds. ``is_sure``: what it recognises is of this kind, not only named like it.
    """

    name: str
    what: str
    recognises: Callable[[Path], Path | None]
    runs: Callable[[Path], list[FoundRun]]
    is_sure: bool = True


def _single(read: Callable[[Path, str | None], Imported]) -> Callable[[Path], list[FoundRun]]:
    return lambda path: [FoundRun(path.stem, partial(read, path))]


def _without_names(read: Callable[[Path], Imported]) -> Callable[[Path], list[FoundRun]]:
    return _single(lambda path, _: read(path))


SOURCES = (
    Source("rlprobe", "a directory that rlprobe wrote", import_rlprobe.recognises, _without_names(import_rlprobe.read)),
    Source("ancestor", "the ancestor's events.jsonl", import_ancestor.recognises, _without_names(import_ancestor.read)),
    Source("tensorboard", "TensorBoard event files", import_tensorboard.recognises, _single(import_tensorboard.read)),
    Source("csv", "a progress.csv", import_csv.recognises, import_csv.runs),
    Source("json", "a log as JSON", import_json.recognises, import_json.runs, is_sure=False),
    Source("own", "what `export` wrote as CSV, JSON lines or Parquet", import_own.recognises,
           _without_names(import_own.read)),
    Source("mlflow", "MLflow's database or the folder of a run", import_mlflow.recognises, import_mlflow.runs),
    Source("torchrl-csv", "a folder that TorchRL's CSVLogger wrote", import_torchrl_csv.recognises,
           _single(import_torchrl_csv.read)),
    Source("trackio", "trackio's database", import_trackio.recognises, import_trackio.runs),
    Source("table", "a table of points, of neptune-exporter, Aim or MLflow", import_long.recognises, import_long.runs),
    Source("monitor", "episodes of Stable-Baselines3's Monitor", monitor_files.recognises,
           _single(monitor_files.read), is_sure=False),
    Source("wandb", "a W&B history or other rows as .csv, .jsonl or .parquet", import_wandb.recognises,
           import_wandb.runs, is_sure=False),
    Source("console", "printed text, from - or a .log, .txt or .out", import_console.recognises,
           _single(import_console.read), is_sure=False),
)  # fmt: skip
"""In the order they are tried: a more particular one before one that takes any file of its ending."""
_ALIASES = {"sb3": "csv", "neptune": "table", "aim": "table"}
"""Other names of formats."""
_NOT_PRINTED = tuple(source.name for source in SOURCES if source.name != import_console.FORMAT)
_FOLDERS = ("rlprobe", "own", "mlflow", "torchrl-csv")
"""Sources that are a folder with several files."""


@dataclass(frozen=True, slots=True)
class ChosenSource:
    """What ``--from`` says: a format, the framework whose names a log has, or neither; and numbers of actions."""

    format: str | None = None
    framework: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str | None) -> ChosenSource:
        """Return what ``name`` chooses. Raises ``UsageError``."""
        formats = [source.name for source in SOURCES]
        if name is None or name == "auto":
            return cls()
        if name in FRAMEWORKS:
            return cls(framework=name)
        if _ALIASES.get(name, name) not in formats:
            hint = f"formats are {', '.join([*formats, *_ALIASES])}; frameworks are {', '.join(FRAMEWORKS)}"
            near = did_you_mean(name, [*formats, *_ALIASES, *FRAMEWORKS]).split("; there are")[0]
            raise UsageError(f"{name!r} is neither a format nor a framework{near}", hint=hint)
        return cls(format=_ALIASES.get(name, name))

    def sources(self) -> tuple[Source, ...]:
        """Return the sources to try."""
        return tuple(source for source in SOURCES if self.format in (None, source.name))


@dataclass(frozen=True, slots=True)
class LogGroup:
    """Logs that are looked at together, not yet read. ``name``: their path within the source, "" for the source.

    ``is_sure``: they are logs; else they may turn out to be something else.
    """

    path: Path
    name: str
    runs: Callable[[], list[FoundRun]]
    is_sure: bool = True


@dataclass(slots=True)
class SourceRuns:
    """What a source holds. ``not_logs``: files that only end like logs, with why they are none.

    ``unreadable``: folders that cannot be listed.
    """

    groups: list[LogGroup]
    chosen: ChosenSource
    not_logs: list[tuple[str, EsperError]] = field(default_factory=list)
    unreadable: list[EsperError] = field(default_factory=list)

    def read(self, progress: Callable[[int], None] | None = None) -> Iterator[tuple[str, Imported | EsperError]]:
        """Yield each run with its name, a relative path, or why it cannot be imported. A single one is called "".

        Names are distinct, and none lies within another. ``progress`` takes the number of groups that are done.
        """
        names = [group.name for group in self.groups]
        used: set[str] = set()
        for done, group in enumerate(self.groups):
            if progress is not None:
                progress(done)
            is_parent = len(names) > 1 and (not group.name or any(name.startswith(f"{group.name}/") for name in names))
            try:
                runs = group.runs()
            except EsperError as error:
                yield group.name or group.path.name, error
                continue
            inside = is_parent or len(runs) > 1
            for run in runs:
                name = "/".join(filter(None, (group.name, run.name if inside else "")))
                while name in used:
                    name += "-2"
                used.add(name)
                try:
                    imported = run.read(self.chosen.framework)
                except EsperError as error:
                    yield name, error
                    continue
                describe_actions(imported, self.chosen.sizes)
                imported.facts["source"] = {"path": group.path.name} | _mapping(imported.facts.get("source"))
                yield name, imported


def find_logs(path: Path, name: str | None = None, sizes: Mapping[str, int] = NO_SIZES) -> SourceRuns:
    """Return what can be imported of ``path``, as the format or framework called ``name`` or as what it is.

    ``sizes``: the number of actions by head, which logs do not say. Raises ``UsageError`` or ``DamagedError`` where
    there is nothing.
    """
    chosen = replace(ChosenSource.of(name), sizes=sizes)
    try:
        if path != import_console.STANDARD_INPUT:
            path.stat()
    except (OSError, ValueError) as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise UsageError(f"{path} {why}", hint="give the file or directory to import") from error
    if not path.is_dir():
        source = _recognised(path, chosen.sources())
        if source is None:
            raise _not_a_source(path, chosen)
        return SourceRuns([LogGroup(path, "", partial(source.runs, path))], chosen)
    return _in_folder(path, chosen)


def _recognised(path: Path, sources: Iterable[Source]) -> Source | None:
    return next((source for source in sources if source.recognises(path) is not None), None)


def _in_folder(top: Path, chosen: ChosenSource) -> SourceRuns:
    """Return the logs in a folder. Printed text in it is mostly that of the logs beside it, and read when asked for."""
    sources = [source for source in chosen.sources() if source.name in (chosen.format, *_NOT_PRINTED)]
    of_folders = [source for source in sources if source.name in _FOLDERS]
    result = SourceRuns([], chosen)
    unsure: list[LogGroup] = []

    def is_source(folder: Path) -> bool:
        return _recognised(folder, of_folders) is not None

    for logs, others in log_folders(top, {source.name for source in sources}, result.unreadable, is_source):
        if logs is not None:
            result.groups.append(LogGroup(logs.log_path, logs.name, logs.runs))
        for group in filter(None, (_group_of(path, top, sources) for path in others)):
            (result.groups if group.is_sure else unsure).append(group)
    for group in unsure:
        reason = _no_log(group, chosen)
        if reason is None:
            result.groups.append(group)
        else:
            result.not_logs.append((str(group.path.relative_to(top)), reason))
    if not result.groups:
        raise _nothing_in(top, result, chosen)
    return result


def _group_of(path: Path, top: Path, sources: Iterable[Source]) -> LogGroup | None:
    source = _recognised(path, sources)
    if source is None:
        return None
    name = "" if path == top else path.relative_to(top).with_suffix("").as_posix()
    return LogGroup(path, name, partial(source.runs, path), source.is_sure)


def _no_log(group: LogGroup, chosen: ChosenSource) -> EsperError | None:
    """Return why the file of ``group`` is no log, None when it is one."""
    try:
        for run in group.runs():
            run.read(chosen.framework)
    except EsperError as error:
        return error
    return None


def _nothing_in(top: Path, result: SourceRuns, chosen: ChosenSource) -> EsperError:
    if len(result.not_logs) == 1:
        return result.not_logs[0][1]
    if result.unreadable:
        return result.unreadable[0]
    error = _not_a_source(top, chosen)
    if result.not_logs:
        named = ", ".join(name for name, _ in result.not_logs[:3])
        error.hint = f"{len(result.not_logs):,} files are none: {named}; give one of them to learn why"
    return error


def _not_a_source(path: Path, chosen: ChosenSource) -> UsageError:
    if chosen.format is not None:
        what = next(source.what for source in SOURCES if source.name == chosen.format)
        return UsageError(f"{path} is not, and does not hold, {what}", hint="without --from the format is detected")
    kinds = "; ".join(f"{source.name}: {source.what}" for source in SOURCES)
    if (path / RUN_FILE).is_file():
        return UsageError(f"{path} is a recorded run", hint="every command reads it as it is")
    if path.is_dir():
        return UsageError(f"{path} holds no log that can be imported", hint=kinds)
    return UsageError(f"{path} is not in a format that can be imported", hint=kinds)


def read_source(path: Path, name: str | None = None) -> Imported:
    """Return the one run of ``path``. Raises ``UsageError`` where it holds several, or ``DamagedError``."""
    runs = list(find_logs(path, name).read())
    if len(runs) > 1:
        named = ", ".join(run for run, _ in runs[:_NAMED]) + (" …" if len(runs) > _NAMED else "")
        raise UsageError(f"{path} holds {len(runs)} runs: {named}", hint="give one of them")
    ((_, imported),) = runs
    if isinstance(imported, EsperError):
        raise imported
    return imported


def _mapping(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, dict) else {}
