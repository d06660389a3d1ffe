"""The lines of a block ``bash``, and what running them prints."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

from tests.docs.blocks import ROOT, CodeBlock

OURS = "esper-analyze"
WIDTH = 84
"""Columns of the outputs shown."""
_VARYING = (re.compile(r"closed .* ago"), re.compile(r"[\d,]+ bytes"), re.compile(r"bytes [\d,]+–[\d,]+"))
"""What a run's age and the versions of pyarrow change."""


def lines(block: CodeBlock) -> list[list[str]]:
    """Return the words of each command, comments left out."""
    return [words for line in block.code.splitlines() if (words := shlex.split(line, comments=True))]


def comparable(text: str) -> list[str]:
    """Return the lines of an output without what differs between two sound machines."""
    for pattern in _VARYING:
        text = pattern.sub("…", text)
    return [line.rstrip() for line in text.splitlines()]


def run(words: list[str], folder: Path, call: Callable[..., tuple[int, str]]) -> tuple[int, str]:
    """Run a command of the documentation; ``call`` runs one of ours. Return exit code and output."""
    if words[0] != OURS:
        check_other(words)
        return 0, ""
    if words[-2] != ">":
        return call(*words[1:])
    code, out = call(*words[1:-2])
    (folder / words[-1]).write_text(out, encoding="utf-8")
    return code, ""


def check_other(words: list[str]) -> None:
    """Hold a command that is not ours against the repository: extras and modules that exist, options they have."""
    if words[:2] == ["pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = re.findall(r"(?:^|/clone|esper-analyze|\.)\[(\w+)\]", words[-1])
        assert extras or words[-1] in " ".join(project["optional-dependencies"]["bench"]), words
        assert set(extras) <= set(project["optional-dependencies"])
        return
    assert words[:2] == ["python", "-m"], f"the tests do not know how to check {shlex.join(words)}"
    source = _source(words[2])
    for option in (word for word in words[3:] if word.startswith("--")):
        assert f'"{option}"' in source, f"{words[2]} has no option {option}"


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no module {module}"
    if spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")
