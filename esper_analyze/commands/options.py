"""Arguments and options that several commands take, declared once, and commands that take a dataclass of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from enum import StrEnum
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from esper_analyze.terminal import say


class FailOn(StrEnum):
    """The verdict from which on a command exits 1."""

    WARNING = "warning"
    CRITICAL = "critical"


RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of one recorded run (it holds run.json).")]
Json = Annotated[
    bool,
    typer.Option("--json", help='Strict JSON; NaN and ±Inf are the texts "NaN", "Infinity", "-Infinity".'),
]
RunPaths = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN…", help="Recorded runs (directories that hold run.json), directories of such, or patterns."
    ),
]
AllAttempts = Annotated[bool, typer.Option("--all-attempts", help="Include rows that were superseded after a resume.")]
Rank = Annotated[
    int | None,
    typer.Option("--rank", metavar="N", help="Use only this rank of a distributed training.", min=0),
]
SkipBroken = Annotated[bool, typer.Option("--skip-broken", help="Leave out damaged files and say how many.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="RULE.FIELD=VALUE", help="Change one threshold; repeatable."),
]
ThresholdsFile = Annotated[
    Path | None,
    typer.Option("--thresholds", metavar="FILE", help="TOML file with thresholds, as `rules --toml` prints."),
]
RulesFiles = Annotated[
    list[Path] | None,
    typer.Option("--rules", metavar="FILE", help="Python file with custom rules; it is executed. Repeatable."),
]


Fail = Annotated[
    FailOn | None,
    typer.Option(
        "--fail-on",
        help="Exit 1 if a finding is at least this severe. A training that died of an exception counts as critical, "
        "a killed one as a warning.",
    ),
]


Open = Annotated[bool, typer.Option("--open", help="Open what was written, as a double click does.")]


def show_file(path: Path | None, *, wanted: bool) -> None:
    """Open a written file in the program that the desktop has for it, if ``wanted``; say so where there is none."""
    if wanted and path is not None and typer.launch(str(path)):
        say(f"{path} cannot be opened here")


def absolute(path: Path | None) -> Path | None:
    """Return the absolute output path, independent of later changes of the working directory."""
    return None if path is None else path.absolute()


def takes_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command whose first parameter is a dataclass of options one option for each of ``names``.

    ``names`` are fields of the dataclass and the command's other parameters, in the order in which help lists them.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        kind = hints[next(iter(signature(command).parameters))]
        hints |= get_type_hints(kind, include_extras=True)
        declared = {**signature(kind).parameters, **signature(command).parameters}
        own = {field.name for field in fields(kind)}

        def run(**values: Any) -> None:
            options = kind(**{name: value for name, value in values.items() if name in own})
            command(options, **{name: value for name, value in values.items() if name not in own})

        parameters = [declared[name].replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY) for name in names]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__annotations__ = {name: hints[name] for name in names}
        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate
