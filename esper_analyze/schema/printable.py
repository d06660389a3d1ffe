"""Escape text from a run or a training so that no character in it moves a cursor or hides others in a terminal."""

from __future__ import annotations

import logging
import re
import traceback
import unicodedata

INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Unicode categories that a terminal interprets or does not show: control, format (direction), surrogate, private use,
line and paragraph separators."""
_SUSPECT = re.compile(r"[^\x20-\x7e]")


def invisible(character: str) -> bool:
    """Return whether a terminal would interpret ``character`` or not show it."""
    return unicodedata.category(character) in INVISIBLE


def printable(text: str, allowed: str = "") -> str:
    r"""Return ``text`` with each invisible character not in ``allowed`` as an escape such as ``\x1b``."""
    if _SUSPECT.search(text) is None:
        return text
    return "".join(
        character.encode("unicode_escape").decode() if character not in allowed and invisible(character) else character
        for character in text
    )


class PrintableFilter(logging.Filter):
    """Makes log records printable: they contain names of heads and messages of foreign exceptions."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape the message and traceback of ``record``; a record that cannot be formatted is unchanged."""
        try:
            record.msg, record.args = printable(record.getMessage()), ()
            if record.exc_info and record.exc_info[1] is not None:
                traceback_text = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
                record.exc_text = printable(traceback_text, "\n\t")
        except Exception:
            return True
        return True


LOG = logging.getLogger("recorder")
"""The recorder's log."""
LOG.addFilter(PrintableFilter())
