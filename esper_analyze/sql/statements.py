"""Split SQL text into statements, and answer the prompt's dot commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.schema import BY_NAME as TABLES_BY_NAME
from esper_analyze.schema import TABLES
from esper_analyze.schema.column import Column, Kind
from esper_analyze.schema.macros import BY_NAME as MACROS_BY_NAME
from esper_analyze.schema.macros import MACROS

_TOKEN = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|;|[^;'\"$/-]+|.", re.DOTALL
)
_DOT_COMMAND = re.compile(r"\.[a-z]")
_COMMENT = re.compile(r"\s+|--[^\n]*|/\*.*?\*/", re.DOTALL)
COMMANDS = {
    ".tables": "the tables and macros",
    ".schema": "the columns of a table, or the query of a macro: .schema heads",
    ".examples": "example queries",
    ".help": "this list",
    ".quit": "leave (also exit, quit, Ctrl-D)",
}
LEAVE = ("exit", "quit")
"""Words that leave the prompt, as in other shells; with a dot, too."""
_HELP = "A query ends with ; and may span several lines. NaN is larger than every number: isfinite(x)."
_TYPES = {Kind.FLOAT: "double", Kind.INT: "bigint", Kind.BOOL: "boolean", Kind.TEXT: "text", Kind.CHOICE: "text"}


@dataclass(frozen=True, slots=True)
class ExampleQuery:
    """A query and the question that it answers."""

    asks: str
    query: str


EXAMPLES: tuple[ExampleQuery, ...] = (
    *(ExampleQuery(macro.asks, macro.example) for macro in MACROS),
    ExampleQuery(
        "where did KL pass 0.1?",
        "select run, update, kl_k3, clip_fraction from updates where isfinite(kl_k3) and kl_k3 > 0.1 order by kl_k3",
    ),
    ExampleQuery(
        "which metrics are null, and which NaN?",
        "select run, count(*) - count(kl_k3) as kl_null, count(*) filter (isnan(kl_k3)) as kl_nan, "
        "count(*) - count(explained_variance) as ev_null from updates group by run",
    ),
    ExampleQuery(
        "how do two heads move together?",
        "select run, a.head, b.head as other, corr(a.entropy_norm, b.entropy_norm) as correlation from heads a "
        "join heads b using (run, rank, update) where a.head < b.head and isfinite(a.entropy_norm) "
        "and isfinite(b.entropy_norm) group by run, a.head, b.head order by correlation desc",
    ),
)


def statements(text: str) -> Iterator[str]:
    """Yield the statements of ``text`` without semicolons; a line that begins with a dot is a dot command."""
    rest = text
    while rest.strip():
        begin = rest.lstrip()
        if begin.startswith("."):
            line, _, rest = begin.partition("\n")
            yield line.strip().rstrip(";").strip()
            continue
        end = _end(rest)
        statement = rest[:end].strip()
        rest = rest[end + 1 :]
        if statement.lower() in LEAVE:
            statement = ".quit"
        if _COMMENT.sub("", statement):
            yield statement


def _end(text: str) -> int:
    """Return the offset of the first semicolon outside texts, quoted names and comments."""
    return next((token.start() for token in _TOKEN.finditer(text) if token[0] == ";"), len(text))


def complete(text: str) -> bool:
    """Return whether ``text`` is complete: it ends a statement, its last line is a command, or it is empty."""
    stripped = text.strip()
    return not stripped or _end(stripped) < len(stripped) or is_command(stripped.rpartition("\n")[2])


def is_command(line: str) -> bool:
    """Return whether a line is a dot command, or one of the words that leave."""
    word = line.strip().rstrip(";").rstrip().lower()
    return _DOT_COMMAND.match(word) is not None or word in LEAVE


def unfinished(text: str) -> tuple[str, str]:
    """Return the lines of a statement that is not finished, and the command on the last line below; else "" and all."""
    above, _, last = text.rstrip().rpartition("\n")
    waits = bool(above.strip()) and is_command(last) and not complete(above)
    return (above + "\n", last) if waits else ("", text)


def command_text(command: str) -> str | None:
    """Return a dot command's output, None for ``.quit``. Raises ``UsageError`` for an unknown command."""
    name, _, about = command.partition(" ")
    if name in (".quit", ".exit"):
        return None
    if name == ".tables":
        return _tables()
    if name == ".schema":
        return _schema(about.strip().rstrip(";"))
    if name == ".examples":
        return "\n".join(f"-- {example.asks}\n{example.query};\n" for example in EXAMPLES)
    if name == ".help":
        listing = "\n".join(f"{command:<10} {what}" for command, what in COMMANDS.items())
        return f"{listing}\n{_HELP}\n"
    raise UsageError(f"there is no command {name}{did_you_mean(name, COMMANDS)}")


def _tables() -> str:
    wide = max(len(name) for name in (*TABLES_BY_NAME, *MACROS_BY_NAME)) + 4
    listed = [f"{table.name:<{wide}} {table.meaning}" for table in TABLES]
    asked = [f"{macro.name + '()':<{wide}} {macro.asks}" for macro in MACROS]
    return "\n".join([*listed, "", *asked]) + "\n"


def _schema(about: str) -> str:
    if not about:
        return "\n".join(f"{table.name}({', '.join(('run', *table.names))})" for table in TABLES) + "\n"
    name = about.removesuffix("()")
    if name in MACROS_BY_NAME:
        macro = MACROS_BY_NAME[name]
        return f"{macro.name}({macro.parameters}): {macro.asks}\n{macro.select}\n"
    if name not in TABLES_BY_NAME:
        raise UsageError(f"there is no table {name}{did_you_mean(name, [*TABLES_BY_NAME, *MACROS_BY_NAME])}")
    lines = ["run text: the run's name", *(_column(column) for column in TABLES_BY_NAME[name].columns)]
    return "\n".join(lines) + "\n"


def _column(column: Column) -> str:
    unit = f", {column.unit}" if column.unit not in ("", "1") else ""
    choices = f" ({', '.join(column.choices)})" if column.choices else ""
    return f"{column.name} {_TYPES[column.kind]}: {column.meaning}{choices}{unit}; null: {column.empty}"
