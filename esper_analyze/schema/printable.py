"""Text from a run or a training, harmless to whatever shows it: no character in it moves a cursor or hides others."""

from __future__ import annotations

import logging
import re
import traceback
import unicodedata

INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Categories of Unicode that a terminal obeys or does not show: control, format (direction), surrogate, private use,
separators of lines and paragraphs."""
_SUSPECT = re.compile(r"[^\x20-\x7e]")


def invisible(character: str) -> bool:
    """Return whether a terminal would obey ``character`` or not show it."""
    return unicodedata.category(character) in INVISIBLE


def printable(text: str, kept: str = "") -> str:
    r"""Return ``text`` with each invisible character as an escape such as ``\x1b``, those in ``kept`` as they are."""
    if _SUSPECT.search(text) is None:
        return text
    return "".join(
        character.encode("unicode_escape").decode() if character not in kept and invisible(character) else character
        for character in text
    )


class PrintableFilter(logging.Filter):
    """Makes log records printable: names of heads and messages of other people's errors stand in them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape the message and the traceback of ``record``; a record that cannot be formatted is left as it is."""
        try:
            record.msg, record.args = printable(record.getMessage()), ()
            if record.exc_info and record.exc_info[1] is not None:
                said = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
                record.exc_text = printable(said, "\n\t")
        except Exception:
            return True
        return True


LOG = logging.getLogger("recorder")
"""The recorder's log."""
LOG.addFilter(PrintableFilter())
