"""The code blocks of the README and of ``esper_analyze/docs``, with the comments above them that concern the tests.

``<!-- example: NAME -->`` names a block whose surroundings a test sets up, ``<!-- exit: CODE -->`` says how the last
command ends, ``<!-- command: NAME -->`` marks the README's commands that CI runs. A block ``text`` below a block
``bash`` is how the output of its last command begins; ``<!-- shown: WHEN -->`` marks one that no command of the
documents prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "esper_analyze" / "docs").glob("*.md")))
_MARK = re.compile(r"<!-- (\w+): (.+) -->$")


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """One fenced block. ``line``: that of its first line of code, from 1. ``marks``: the comment above it, by kind."""

    document: Path
    line: int
    language: str
    code: str
    marks: dict[str, str] = field(hash=False)

    @property
    def name(self) -> str:
        """Where the block is, or what it is called."""
        return self.marks.get("example") or f"{self.document.name}:{self.line}"


def blocks_of(document: Path) -> Iterator[CodeBlock]:
    """Yield the blocks of a document in order."""
    lines = document.read_text(encoding="utf-8").splitlines()
    index = 0
    while index < len(lines):
        if not lines[index].startswith("```"):
            index += 1
            continue
        end = lines.index("```", index + 1)
        mark = _MARK.match(lines[index - 1]) if index else None
        code = "".join(line + "\n" for line in lines[index + 1 : end])
        yield CodeBlock(document, index + 2, lines[index][3:], code, {mark[1]: mark[2]} if mark else {})
        index = end + 1


BLOCKS = tuple(block for document in DOCUMENTS for block in blocks_of(document))


def outputs() -> Iterator[tuple[CodeBlock, CodeBlock]]:
    """Yield each block of commands together with the block that shows what it prints."""
    for commands, shown in pairwise(BLOCKS):
        same = commands.document == shown.document
        if same and commands.language == "bash" and shown.language == "text" and not shown.marks:
            yield commands, shown
