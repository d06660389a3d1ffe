"""Text as a training printed it: numbers by name, of each step, and how much of it was not understood.

Nothing is evaluated and nothing read but the text. Time is linear in its length.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from esper_analyze.interchange.console_blocks import BlockReader
from esper_analyze.interchange.console_dicts import DictionaryReader
from esper_analyze.interchange.console_lines import plain_lines
from esper_analyze.interchange.console_one_line import OneLineReader
from esper_analyze.interchange.console_record import ConsoleRecord, PrintedForm
from esper_analyze.interchange.console_tables import TableReader

_NAMED = 6


@dataclass(slots=True)
class ConsoleText:
    """``unread`` counts the lines not understood; ``first_unread`` are the first of them, by number.

    ``cut`` counts dictionaries of which the end is missing; ``cut_names`` could each be several names.
    """

    records: list[ConsoleRecord] = field(default_factory=list)
    unread: int = 0
    first_unread: list[tuple[int, str]] = field(default_factory=list)
    cut: int = 0
    cut_names: list[str] = field(default_factory=list)

    def main_form(self) -> PrintedForm | None:
        """Return the form that most numbers have; lines of ``key: value`` only where there is no other."""
        counts: dict[PrintedForm, int] = {}
        for record in self.records:
            counts[record.form] = counts.get(record.form, 0) + len(record.cells)
        forms = [form for form, count in counts.items() if count]
        return max(forms, key=lambda form: (form is not PrintedForm.PLAIN, counts[form]), default=None)


def parse(lines: Iterable[str]) -> ConsoleText:
    """Read ``lines``; those that are no line of a known form are counted."""
    text = ConsoleText()
    one_line, dictionaries = OneLineReader(text.records), DictionaryReader(text.records)
    tables, blocks = TableReader(text.records), BlockReader(text.records)
    for line_number, line in plain_lines(lines):
        if not line:
            continue
        if line == "-":
            tables.end()
            continue
        if one_line.take(line) or blocks.begins(line) or (line.lstrip().startswith("|") and tables.take(line)):
            if dictionaries.is_open:
                dictionaries.close()
        elif not (dictionaries.take(line) or tables.take(line) or blocks.take(line)):
            text.unread += 1
            if len(text.first_unread) < _NAMED:
                text.first_unread.append((line_number, line.strip()))
    one_line.end()
    tables.end()
    dictionaries.close()
    text.records = [record for record in text.records if record.cells]
    text.cut, text.cut_names = dictionaries.cut, tables.cut_names
    return text
