"""Write the outputs that the documentation shows anew: ``python -m tests.docs``. Each keeps its number of lines."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from esper_analyze import cli, terminal
from tests.docs.blocks import BLOCKS, DOCUMENTS, outputs
from tests.docs.commands import WIDTH, comparable, lines, run
from tests.docs.folder import fill


def call(*words: str) -> tuple[int, str]:
    """Run one of our commands; return its exit code and what it prints."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(out):
        code = cli.run(words)
    return code, out.getvalue()


def main() -> None:
    """Run all commands of each document in order, and put in what they print."""
    terminal._PIPE_WIDTH = WIDTH
    os.environ["COLUMNS"] = str(WIDTH)
    shown_by = dict(outputs())
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").splitlines()
        edits = []
        with TemporaryDirectory() as folder:
            fill(Path(folder))
            os.chdir(folder)
            for block in (block for block in BLOCKS if block.document == document and block.language == "bash"):
                out = ""
                for words in lines(block):
                    _, out = run(words, Path(folder), call)
                if (shown := shown_by.get(block)) is not None:
                    old = shown.code.splitlines()
                    new = [line.rstrip() for line in out.splitlines()][: len(old)]
                    if comparable("\n".join(old)) != comparable("\n".join(new)):
                        edits.append((shown.line - 1, len(old), new))
            os.chdir(document.parent)
        for start, length, new in reversed(edits):
            text[start : start + length] = new
        document.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
