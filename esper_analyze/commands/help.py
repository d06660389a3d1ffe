"""``esper-analyze help``: the documentation that is installed with the package."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Annotated

import typer

from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.terminal import put, show_markdown

TOPICS: tuple[tuple[str, str], ...] = (
    ("recording", "Record Stable-Baselines3; options, and what recording costs."),
    ("adapters", "TorchRL, skrl and Lightning in one `with` each."),
    ("own-loop", "Record a training loop of your own."),
    ("growing", "Seed modules that grow in the slots of a host network."),
    ("ranks", "Distributed training: one run of several processes."),
    ("resume", "Continue a recording after a checkpoint."),
    ("alerts", "Commands, webhooks and chats when an incident begins; checkpoints."),
    ("watch", "Follow one run or several in the terminal while they train."),
    ("report", "The page, single questions as commands, exit codes."),
    ("rules", "Rules and thresholds: what-if replay, rules of your own."),
    ("backtest", "Score rules and thresholds on labelled runs."),
    ("compare", "The update at which runs diverge, and how far to trust it."),
    ("sql", "Queries, macros, the prompt, output formats, limits."),
    ("python", "Runs in Python: tables, SQL, figures, replay, fleets."),
    ("formats", "What is on disk, and runs of other schema versions."),
    ("repair", "After a crash: verify, repair, compact."),
    ("interchange", "Import from and export to other tools."),
    ("benchmarks", "Measured: detection, false alarms, speed, fault injection."),
    ("limits", "Known limits."),
    ("glossary", "The words of this documentation, one meaning each."),
)
"""Each topic is a file of ``esper_analyze/docs``, with one line that describes it."""

_MOST_NAMED = 3
"""The most topics that an error names."""


def help_topic(
    context: typer.Context,
    topic: Annotated[str | None, typer.Argument(metavar="TOPIC", help="A topic; without one, they are listed.")] = None,
) -> None:
    """Print the documentation of TOPIC: formatted in a terminal, Markdown in a pipe.

    Example: esper-analyze help sql
    """
    if topic is None:
        width = max(len(name) for name, _ in TOPICS)
        put("".join(f"{name:<{width}}  {line.replace('`', '')}\n" for name, line in TOPICS))
        return
    show_markdown(documentation(topic, _commands(context)))


def _commands(context: typer.Context) -> Collection[str]:
    """Return the names of all commands."""
    parent = context.parent
    return () if parent is None else getattr(parent.command, "commands", ())


def documentation(topic: str, commands: Collection[str] = ()) -> str:
    """Return the Markdown of a topic, without the comments that are there for the tests.

    Raises ``UsageError`` for an unknown topic: it names the topics that mention the word, or the nearest.
    """
    if topic not in (name for name, _ in TOPICS):
        raise UsageError(f"there is no help topic {topic!r}{_instead(topic)}", hint=_command_hint(topic, commands))
    return _text(topic)


def _text(topic: str) -> str:
    from importlib.resources import files

    lines = files("esper_analyze").joinpath("docs", f"{topic}.md").read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("<!--"))


def _instead(word: str) -> str:
    """Return the end of a sentence: topics spelt nearly so, else those whose line or text has the word most often."""
    names = [name for name, _ in TOPICS]
    if difflib.get_close_matches(word, names, 1, 0.7) or not word.strip():
        return did_you_mean(word, names)
    stem = word.lower().rstrip("s")
    mentioned = {name: 100 * line.lower().count(stem) + _text(name).lower().count(stem) for name, line in TOPICS}
    best = sorted((name for name in names if mentioned[name]), key=lambda name: -mentioned[name])[:_MOST_NAMED]
    return f"; it is explained in {', '.join(best)}" if best else f"; there are {', '.join(names)}"


def _command_hint(word: str, commands: Collection[str]) -> str:
    return f"`esper-analyze {word} --help` explains the command" if word in commands else ""
