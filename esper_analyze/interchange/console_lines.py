"""Lines of a console without what a terminal, a web page, a progress bar or a logger put around the numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator

_ANSI = re.compile(r"\x1b\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)|\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-Z\\-_]")
_ANSI_REST = re.compile(r"\[\d{1,3}(?:;\d{1,3}){0,8}m")
"""What is left of a colour when a web page or an editor dropped its escape character."""
_BAR = re.compile(
    r"(?:[^\s|:'\"]{1,40}: {0,4})?\b\d{1,3}%\|[^|]{0,400}\| {0,9}[\d.,]{1,20}[a-zA-Z]{0,3}/[\d.,?]{1,20}[a-zA-Z]{0,3}"
    r"(?: {0,4}\[[^\]]{0,200}\])?|\b\d{1,12}it \[[^\]]{0,200}\]"
)
_PROMPT = re.compile(
    r"\s*(?:\([\w.-]{1,60}\) {0,4})?(?:[\w.-]{1,60}@[\w.-]{1,60}[: ][^$#]{0,200}[$#] |\$ +\w"
    r"|(?:PS )?[A-Z]:\\[^>]{0,200}>|>>> |\.\.\. \w|(?:In|Out) ?\[\d+\]:)"
)
_QUOTE = re.compile(r"(?:\s{0,3}>){1,9} ?")
_PREFIX = re.compile(
    r"""\s*(?:
      \([A-Za-z_][\w.:-]{0,60}\s+(?:pid|actor_id)=[^)]{1,80}\)
    | \[?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?\]?
    | \[\d\d:\d\d:\d\d\]
    | \[(?:DEBUG|INFO|WARNING|ERROR)\] | (?:DEBUG|INFO|WARNING|ERROR)\b(?::[\w.]{0,80}:)?
    | \[rank\d{1,6}\]
    | \[[\w./-]{1,80}:\d{1,6}\]
    )(?:\s?[-|:](?=\s))?\ ?""",
    re.VERBOSE,
)
_LETTER = re.compile(r"[^\W_]")
_UPRIGHT = "│┃║┆┇┊┋╎╏|"
_TRANSLATED = (
    dict.fromkeys(range(9472, 9600), "-")
    | {ord(character): "|" for character in _UPRIGHT}
    | {0xA0: " ", 0x2212: "-", 0x2009: " ", 0x202F: " "}
    | dict.fromkeys((0xFEFF, 0x200B, 0x200C, 0x200D, 0x2060))
)
"""Box characters, the minus of a typesetter, and spaces of no or odd width."""


def plain_lines(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield (line number, text): "" for an empty line, a prompt or a code fence, "-" for one without letter and digit.

    A carriage return within a line ends what a progress bar overwrote: both parts are yielded, under one number.
    """
    for line_number, line in enumerate(lines, start=1):
        for part in _ANSI.sub("", line).split("\r") if "\x1b" in line or "\r" in line else (line,):
            yield line_number, _plain(part)


def _plain(line: str) -> str:
    text = _translated(line.rstrip())
    if _PROMPT.match(text) or text.lstrip().startswith("```"):
        return ""
    if quote := _QUOTE.match(text):
        text = text[quote.end() :]
    if "%|" in text or "it [" in text:
        text = _BAR.sub("", text)
    for _ in range(4):
        prefix = _PREFIX.match(text)
        if prefix is None:
            break
        text = text[prefix.end() :]
    if not text or text.isspace():
        return ""
    return text if _LETTER.search(text) else "-"


def _translated(text: str) -> str:
    if not text.isascii():
        text = text.translate(_TRANSLATED)
    if "[" in text:
        text = _ANSI_REST.sub("", text)
    return html.unescape(text).replace("\xa0", " ") if "&" in text else text
