"""Dictionaries as Python and JSON print them, in one line or many: scanned, never evaluated; time is linear."""

from __future__ import annotations

import re

from esper_analyze.interchange.console_record import NUMBER, ConsoleRecord, Number, PrintedForm, number, plain_number

LONGEST = 1 << 18
"""Characters of one dictionary, over all its lines."""
_BEGINS = re.compile(r"\{\s*(?:['\"]|$)")
_BARE = re.compile(r"(?:,\s*)?(['\"])[^'\"]{1,200}\1\s*:\s*[^,]{1,200},\s*\1")
"""Two pairs of a dictionary whose brace was not copied."""
_STRING = re.compile(r"'(?:\\.|[^'\\]){0,300}'|\"(?:\\.|[^\"\\]){0,300}\"", re.DOTALL)
_MARK = re.compile(_STRING.pattern + r"|[{}\[\]()]", re.DOTALL)
_NEXT = re.compile(r"['\"\[(}]")
_KEY = re.compile(r"'([^'\\]{1,200})'\s*:\s*|\"([^\"\\]{1,200})\"\s*:\s*")
_SCALAR = re.compile(r"((?:\w{1,20}\.)?\w{1,20}\([^(){}]{1,120}\)|[^\s,'\"()\[\]{}]{1,60})\s*(?=[,}\])])")
_PRINTED = re.compile(rf"(['\"]?)\s{{0,9}}({NUMBER})\s{{0,9}}\1\s{{0,9}}(?=[,}}\])])", re.IGNORECASE)
_OF_ALL = re.compile(r"(['\"])(\d{1,18})/\d{1,18}\1")
_STEP_OF_ALL = "global_step/max_steps"
_STEPS = ("step", "global_step", _STEP_OF_ALL)
_CLOCK = "epoch"
_DATA = "data/"
"""verl's file logger puts the metrics of a step under this name."""
_RLLIB = ("training_iteration", "episode_reward_mean")


class DictionaryReader:
    """Reads dictionaries out of lines into ``records``; ``cut`` counts those that end in their middle."""

    def __init__(self, records: list[ConsoleRecord]) -> None:
        self._records = records
        self._parts: list[str] = []
        self._size = self._depth = 0
        self._current: ConsoleRecord | None = None
        self.cut = 0

    def take(self, text: str) -> bool:
        """Read ``text``, and return whether it holds a dictionary or a part of one."""
        begins = _BEGINS.search(text) if "{" in text else None
        if self._parts and begins is not None and not text[: begins.start()].strip() and not self._waits():
            self.close()
        if self._parts:
            return self._go_on(text, 0)
        if begins is not None:
            return self._go_on(text, begins.start())
        if _BARE.match(text.lstrip()):
            self.cut += not text.endswith("}")
            return self._keep(text)
        return False

    @property
    def is_open(self) -> bool:
        """Whether a dictionary was begun and not ended."""
        return bool(self._parts)

    def _waits(self) -> bool:
        """Whether what was read so far may go on with a nested dictionary."""
        return self._parts[-1].rstrip().endswith((":", "[", "(", ",", "{"))

    def close(self) -> None:
        """Read a dictionary that was not closed, without its last value."""
        if self._parts:
            text = "".join(self._parts)
            self._parts, self._size, self._depth = [], 0, 0
            self.cut += 1
            self._keep(text)

    def _go_on(self, text: str, start: int) -> bool:
        is_one = False
        for mark in _MARK.finditer(text, start):
            if mark[0] in "{[(":
                if self._depth == 0 and mark[0] == "{":
                    start = mark.start()
                self._depth += 1
            elif mark[0] in ")]}" and self._depth > 0:
                self._depth -= 1
                if self._depth == 0:
                    is_one = self._keep("".join([*self._parts, text[start : mark.end()]])) or is_one
                    self._parts, self._size = [], 0
        if self._depth == 0:
            return is_one
        self._parts.append(text[start:] + ("\n" if text.endswith((",", "{")) else ""))
        self._size += len(text)
        if self._size > LONGEST:
            self.close()
        return True

    def _keep(self, text: str) -> bool:
        """Keep the numbers of ``text`` as a record, or with the one before where no name is in both."""
        cells = numbers(text)
        if not cells:
            return False
        step = next((int(cells[name]) for name in _STEPS if isinstance(cells.get(name), int)), None)
        if step is not None:
            cells = {name.removeprefix(_DATA): value for name, value in cells.items() if name not in _STEPS}
        before = self._current
        if before is not None and before.step == step and _complement(before.cells, cells):
            before.cells |= cells
            return True
        form = PrintedForm.RLLIB if any(name in cells for name in _RLLIB) else PrintedForm.DICTIONARY
        self._current = ConsoleRecord(form, step, cells)
        self._records.append(self._current)
        return True


def _complement(before: dict[str, Number], cells: dict[str, Number]) -> bool:
    """Whether ``cells``, those of an evaluation for one, are other numbers of the same time as those ``before``."""
    is_same_time = _CLOCK in cells and cells[_CLOCK] == before.get(_CLOCK)
    return is_same_time and not (cells.keys() - {_CLOCK}) & before.keys()


def numbers(text: str) -> dict[str, Number]:
    """Return the numbers of a printed dictionary; of nested ones under names with slashes. Lists are left out.

    A value counts only where something ends it: one at the end of the text may be cut. A name that comes twice is none.
    """
    cells: dict[str, Number] = {}
    doubled: set[str] = set()
    names: list[str] = []
    position = 0
    while position < len(text):
        key = _KEY.match(text, position)
        if key is None:
            position = _after_mark(text, position, names)
            continue
        names.append(key[1] or key[2])
        if text.startswith("{", key.end()):
            position = key.end() + 1
            continue
        name = "/".join(names)
        names.pop()
        value, position = _value(text, key.end())
        if value is not None:
            doubled |= {name} & cells.keys()
            cells[name] = value
    return {name: value for name, value in cells.items() if name not in doubled}


def _after_mark(text: str, position: int, names: list[str]) -> int:
    """Return where to look on: behind a list, or at the next quote, bracket or brace; a brace ends the last name."""
    if text[position] in "[(":
        return _after_list(text, position)
    if text[position] == "}" and names:
        names.pop()
    mark = _NEXT.search(text, position + 1)
    return len(text) if mark is None else mark.start()


def _value(text: str, position: int) -> tuple[Number | None, int]:
    """Return the number at ``position``, None when it is none, and where to go on."""
    if printed := _PRINTED.match(text, position):
        return plain_number(printed[2]), printed.end()
    if step := _OF_ALL.match(text, position):
        return int(step[2]), step.end()
    if string := _STRING.match(text, position):
        return None, string.end()
    if text.startswith(("[", "("), position):
        return None, _after_list(text, position)
    scalar = _SCALAR.match(text, position)
    if scalar is None:
        return None, position
    return number(scalar[1]), scalar.end()


def _after_list(text: str, position: int) -> int:
    depth = 0
    for mark in _MARK.finditer(text, position):
        depth += (mark[0] in "{[(") - (mark[0] in "}])")
        if depth <= 0:
            return mark.end()
    return len(text)
