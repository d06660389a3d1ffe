"""Text from a run cannot steer a terminal, in results or in the log."""

from __future__ import annotations

import logging
import sys
import unicodedata

import pytest

from esper_analyze.schema.printable import LOG, PrintableFilter, invisible, printable

VISIBLE = " ~aé漢🙂−"
HIDDEN = "\x00\n\t\x1b\x7f\x9b\u200e\u202e\ud800\ue000\u2028\u2029"


def test_every_character_that_a_terminal_interprets_is_invisible() -> None:
    assert [character for character in VISIBLE if invisible(character)] == []
    assert [character for character in HIDDEN if not invisible(character)] == []
    kinds = {
        unicodedata.category(character) for character in map(chr, range(sys.maxunicode + 1)) if invisible(character)
    }
    assert kinds == {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain ~", "plain ~"),
        ("é漢🙂", "é漢🙂"),
        ("a\x1b[31mé", "a\\x1b[31mé"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\u202e", "\\u202e"),
    ],
)
def test_only_invisible_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_what_is_allowed_stays() -> None:
    assert printable("a\nb\x07\t", "\n\t") == "a\nb\\x07\t"


def record(message: object, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("recorder", logging.WARNING, __file__, 1, message, args, info)


def test_a_log_record_is_escaped_with_its_arguments() -> None:
    made = record("head %s", "op\x1b")
    assert PrintableFilter().filter(made)
    assert (made.getMessage(), made.args, made.exc_text) == ("head op\\x1b", (), None)


def test_a_traceback_is_escaped_and_keeps_its_lines() -> None:
    try:
        raise ValueError("\x1b[2J")
    except ValueError as error:
        made = record("failed", error=error)
    assert PrintableFilter().filter(made)
    assert made.exc_text is not None
    lines = made.exc_text.split("\n")
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: \\x1b[2J"


@pytest.mark.parametrize("info", [(None, None, None), None, ()])
def test_a_record_without_an_error_has_no_traceback(info: object) -> None:
    made = record("quiet")
    made.exc_info = info  # type: ignore[assignment]
    assert PrintableFilter().filter(made)
    assert made.exc_text is None


def test_an_error_without_its_type_is_shown_all_the_same() -> None:
    made = record("odd")
    made.exc_info = (None, ValueError("\x07"), None)  # type: ignore[assignment]
    assert PrintableFilter().filter(made)
    assert made.exc_text == "ValueError: \\x07"


def test_a_record_that_cannot_be_formatted_goes_on_unchanged() -> None:
    made = record("%d", "text")
    assert PrintableFilter().filter(made)
    assert (made.msg, made.args) == ("%d", ("text",))


def test_the_recorder_s_log_is_filtered() -> None:
    assert any(isinstance(one, PrintableFilter) for one in LOG.filters)
    assert LOG.name == "recorder"
