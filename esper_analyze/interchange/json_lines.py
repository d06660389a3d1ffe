"""Lines of JSON as other tools write them: NaN as bare tokens, lines cut or malformed, packed or not."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from esper_analyze.errors import UsageError
from esper_analyze.interchange.imported import ImportLosses, Row

LONGEST_LINE = 1 << 26
"""Bytes of one line: an event with every layer of a large model is some hundred thousand."""


def json_lines(path: Path, losses: ImportLosses) -> Iterator[tuple[int, Row]]:
    """Yield (line number, object) of each line that holds one; all others are counted in ``losses``."""
    tokens = 0

    def constant(word: str) -> float:
        nonlocal tokens
        tokens += 1
        return float(word)

    for number, line in _lines(path, losses):
        if not line.strip():
            continue
        try:
            parsed = json.loads(line, parse_constant=constant)
        except (ValueError, RecursionError):
            cut = not line.endswith(b"\n")
            what = f"{'cut line, the last' if cut else 'line that is no JSON'} of {path.name}"
            losses.count("cut_line" if cut else "malformed_line", what, f"line {number}", lost=1)
            continue
        if isinstance(parsed, dict):
            yield number, parsed
        else:
            losses.count("malformed_line", f"line that is no JSON object of {path.name}", f"line {number}", lost=1)
    if tokens:
        losses.count("nonfinite_tokens", "NaN or Infinity as a bare token, read as the number", times=tokens)


def _lines(path: Path, losses: ImportLosses) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with opened(path) as file:
            while line := file.readline(LONGEST_LINE):
                number += 1
                yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        losses.count("cut_file", f"packed file that ends or breaks in its middle ({error})", f"after line {number}")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error


def opened(path: Path) -> BinaryIO | gzip.GzipFile:
    """Open a file that may be packed by gzip."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")
