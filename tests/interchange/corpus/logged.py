"""What stands in a log of any of the formats, read without the importers: the numbers by name, as they were written."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from esper_analyze.interchange.event_file import records, scalars

Series = dict[str, list[str]]
_SECTION = re.compile(r"^\| (\w+)/\s*\|\s*\|$")
_ROW = re.compile(r"^\|\s+(\S.*?)\s*\|\s+(\S+)\s*\|$")
_BLOCK_ROW = re.compile(r"^\s*([A-Z][\w /()]+):\s+(-?[\d.]+(?:e[-+]?\d+)?|nan|-?inf)\s*(?:s|steps/s)?\s*$")
_STEP = re.compile(r"step:\d+ - ")


def series(path: Path) -> Series:
    """Return the numbers of the file by name, in the order of the file; empty cells are left out."""
    return _by_name(_pairs(path))


def _by_name(pairs: Iterator[tuple[str, str]]) -> Series:
    named: Series = defaultdict(list)
    for name, number in pairs:
        named[name].append(number)
    return dict(named)


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    if ".tfevents." in path.name:
        for payload in records(path.read_bytes()).payloads:
            yield from ((scalar.tag, repr(scalar.value)) for scalar in scalars(payload))
    elif "scalars" in path.parts:  # TorchRL: a file a name, with lines of step and number
        name = path.as_posix().rpartition("/scalars/")[2].removesuffix(".csv")
        yield from ((name, line.partition(",")[2]) for line in path.read_text(encoding="utf-8").splitlines())
    elif path.suffix == ".csv":
        yield from _csv(path)
    elif path.suffix in (".json", ".jsonl"):
        yield from _json(path.read_text(encoding="utf-8"), lines=path.suffix == ".jsonl" or path.name == "result.json")
    else:
        yield from _console(path.read_text(encoding="utf-8"))


def _csv(path: Path) -> Iterator[tuple[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    if lines and lines[0].startswith("#"):  # monitor.csv: what the environment is
        lines = lines[1:]
    for row in csv.DictReader(lines):
        yield from ((name, number) for name, number in row.items() if number)


def _json(text: str, *, lines: bool) -> Iterator[tuple[str, str]]:
    documents = [json.loads(line, parse_float=str, parse_int=str) for line in text.splitlines()] if lines else []
    whole = [] if lines else [json.loads(text, parse_float=str, parse_int=str)]
    for document in whole:
        documents += document.get("log_history", [document])
    for document in documents:
        yield from _leaves(document, "")


def _leaves(node: object, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, inner in node.items():
            yield from _leaves(inner, f"{prefix}/{name}" if prefix else name)
    elif isinstance(node, (str, float)):
        yield prefix, str(node).lower() if isinstance(node, float) else node


def _console(text: str) -> Iterator[tuple[str, str]]:
    section = ""
    for line in text.splitlines():
        if match := _SECTION.match(line):
            section = match[1]
        elif match := _ROW.match(line):
            yield f"{section}/{match[1]}", match[2]
        elif _STEP.search(line):
            yield from _verl(line)
        elif line.lstrip().startswith("{'"):
            yield from ((name, str(number)) for name, number in ast.literal_eval(_quoted(line.strip())).items())
        elif match := _BLOCK_ROW.match(line):
            yield match[1].strip(), match[2]


def _quoted(line: str) -> str:
    return re.sub(r": (nan|-?inf)(?=[,}])", r": '\1'", line)


def _verl(line: str) -> Iterator[tuple[str, str]]:
    for part in line[line.index("step:") :].split(" - "):
        name, _, number = part.rpartition(":")
        yield name, number.strip()
