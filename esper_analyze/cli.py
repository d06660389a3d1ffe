"""The command line: every command written out, and the one place where an error becomes an exit code."""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer

from esper_analyze.commands.backtest import backtest
from esper_analyze.commands.compact import compact
from esper_analyze.commands.compare import compare
from esper_analyze.commands.completion import INSTRUCTION, complete, completion
from esper_analyze.commands.diagnose import diagnose
from esper_analyze.commands.export import export
from esper_analyze.commands.help import help_topic
from esper_analyze.commands.import_run import import_run
from esper_analyze.commands.ls import ls
from esper_analyze.commands.plot import plot
from esper_analyze.commands.repair import repair
from esper_analyze.commands.replay import replay
from esper_analyze.commands.report import report
from esper_analyze.commands.rules import rules
from esper_analyze.commands.schema import schema
from esper_analyze.commands.sections import SECTION_COMMANDS
from esper_analyze.commands.sql import sql
from esper_analyze.commands.transitions import transitions
from esper_analyze.commands.verify import verify
from esper_analyze.commands.watch import watch
from esper_analyze.errors import DAMAGED, INTERNAL, OK, USAGE, EsperError
from esper_analyze.schema.printable import printable
from esper_analyze.shutdown import end_cleanly, exit_code
from esper_analyze.terminal import say, tell

TRACEBACK = "ESPER_ANALYZE_TRACEBACK"
PANIC = "PanicException"
"""What polars raises when it finds itself at fault; it is no ``Exception``, and polars may not be imported here."""

_UNREADABLE = (errno.EACCES, errno.EPERM, errno.ESTALE)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)

app = typer.Typer(
    name="esper-analyze",
    help="Reads PPO runs that `recorder` wrote: list them, report what went wrong and why, replay the anomaly "
    "detector with other thresholds, compare runs, query with SQL.\n\n"
    "Example: esper-analyze report sample_runs/runs/one_update_collapse",
    epilog="Exit codes: 0 fine, 1 findings at or above --fail-on, 2 wrong use, 3 data damaged or incomplete, "
    "70 internal error.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        sys.stdout.write(f"esper-analyze {version('esper-analyze')}\n")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


_FIRST: tuple[tuple[Callable[..., None], str], ...] = (
    (ls, "List the runs below a directory."),
    (report, "Write a page: what went wrong first, when, why, what next."),
    (diagnose, "Say the same in the terminal, of a run or another tool's log."),
    (watch, "Follow one run or several in the terminal while they grow."),
    (plot, "Draw metrics of one run or several."),
    (compare, "Say where runs diverge, in what, and how settings differ."),
    (replay, "Run the detector again, as recorded or with other thresholds."),
    (backtest, "Score rules and settings on labelled runs."),
)
_LAST: tuple[tuple[Callable[..., None], str], ...] = (
    (transitions, "Which samples moved furthest from the old policy?"),
    (sql, "Ask runs with SQL: one query, a pipe of them, or a prompt."),
    (import_run, "Make a run of what another tool recorded."),
    (export, "Write a run for other tools: TensorBoard, CSV, JSON, Parquet."),
    (verify, "Check runs down to the last cell."),
    (repair, "Repair a run after a crash; nothing is deleted."),
    (compact, "Join many small shards into few."),
    (schema, "Print every table and column, with unit and meaning."),
    (rules, "Print every rule: meaning, thresholds, examples."),
    (completion, "Print what lets a shell complete commands at Tab."),
    (help_topic, "Print the documentation of a topic, or list the topics."),
)


def _add(command: Callable[..., None], short: str) -> None:
    # "import" and "help" are taken in Python
    app.command(command.__name__.removesuffix("_run").removesuffix("_topic"), short_help=short)(command)


for _command, _short in _FIRST:
    _add(_command, _short)
for _section in SECTION_COMMANDS:
    app.command(_section.name, short_help=_section.asks)(_section.function())
for _command, _short in _LAST:
    _add(_command, _short)


_FORMER_NAMES = {section.former_name: section.name for section in SECTION_COMMANDS if section.former_name}
"""Former name of a command → its name; help does not list it."""


def main() -> None:
    """Run the command line and exit with its code."""
    open_standard_streams()
    end_cleanly()
    leave(run(sys.argv[1:]))


def leave(code: int) -> NoReturn:
    """End the process as ``sys.exit`` does, but for the end of the interpreter.

    A thread of Arrow or DuckDB that is still there at that moment aborts the process, and the exit code is lost.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            stream.flush()
    os._exit(code)


def open_standard_streams() -> None:
    """Open what of stdin, stdout and stderr is closed as nothing: else the next file would take its number.

    What is written to a closed stdout goes nowhere, as it does down a closed pipe.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every error is one sentence on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        _invoke([_FORMER_NAMES.get(arguments[0], arguments[0]), *arguments[1:]] if arguments else [])
        sys.stdout.flush()
    except typer.Exit as done:
        return done.exit_code
    except BrokenPipeError:
        _let_go_of_stdout()  # the reader of a pipe has had enough
        return OK
    except KeyboardInterrupt:
        return exit_code()
    except BaseException as error:
        return _failed(error)
    return OK


def _let_go_of_stdout() -> None:
    """Let what is left go nowhere: Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _invoke(arguments: list[str]) -> None:
    """Run a command without typer's own main, which would turn a closed pipe into exit code 1."""
    command = typer.main.get_command(app)
    instruction = os.environ.get(INSTRUCTION)
    if instruction:
        raise typer.Exit(complete(command, instruction))
    with command.make_context("esper-analyze", arguments) as context:
        command.invoke(context)


def _failed(error: BaseException) -> int:
    foreign = not isinstance(error, Exception) and type(error).__name__ != PANIC
    if foreign:
        raise error
    if os.environ.get(TRACEBACK):
        sys.stderr.write(printable("".join(traceback.format_exception(error)), "\n\t"))
        return INTERNAL
    if isinstance(error, EsperError):
        tell(error)
        return error.exit_code
    # typer brings its own copy of click since 0.20, so its errors are known by what they can do.
    words = getattr(error, "format_message", None)
    if callable(words):
        return _misused(error, str(words()))
    if isinstance(error, OSError) and (message := _system_error(error)) is not None:
        words, code = message
        say(f"esper-analyze: {words}")
        return code
    say(f"esper-analyze: internal error, {type(error).__name__}: {error} (set {TRACEBACK}=1 to see where)")
    return INTERNAL


def _system_error(error: OSError) -> tuple[str, int] | None:
    """Return what to say of an error of the file system and the exit code, None for an unexpected one."""
    if error.errno in _FULL:
        if not error.filename:
            _let_go_of_stdout()
        where = error.filename or "the result"
        return f"cannot write {where}: {error.strerror} (make room, or write elsewhere)", INTERNAL
    if error.errno in _UNREADABLE and error.filename:
        return f"{error.filename} cannot be read: {error.strerror}", DAMAGED
    if isinstance(error, FileNotFoundError) and not _in_a_directory():
        return "the current directory was deleted (change to another one, or give whole paths)", USAGE
    return None


def _in_a_directory() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - Path.cwd() is the same
    except FileNotFoundError:
        return False
    return True


def _misused(error: BaseException, words: str) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(words + "\n")
        return USAGE
    words = words.replace("Value error, ", "")  # put before the message of an enumeration by some versions of typer
    path = getattr(context, "command_path", "esper-analyze")
    say(f"esper-analyze: {words.rstrip('.')} (see `{path} --help`)")
    return USAGE


if __name__ == "__main__":
    main()
