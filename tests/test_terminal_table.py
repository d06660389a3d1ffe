"""Tables on narrow terminals keep every letter and break no word."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from esper_analyze.terminal_table import broken, print_table

WORDS = st.text("abc_/: 01.", min_size=1, max_size=40)
TITLES = ("verdict", "rule", "worst")
ROWS = [["critical", "head_entropy_collapse", "9.36e-14 at 40"], ["warning", "[bold]kl_spike[/bold]", "1,000.5 at 3"]]


def shown(width: int, titles: Sequence[str] = TITLES, rows: Sequence[Sequence[str]] = ROWS) -> list[str]:
    file = io.StringIO()
    print_table(Console(file=file, width=width), titles, rows, right=("worst",))
    return [line.rstrip() for line in file.getvalue().splitlines()]


@given(WORDS, st.integers(1, 30))
def test_breaking_loses_nothing_but_blanks_and_keeps_to_the_width_where_a_joint_allows_it(
    text: str, width: int
) -> None:
    lines = broken(Text(text), width).plain.split("\n")
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    for line in lines:
        assert len(line) <= width or not any(joint in line.rstrip("_/: ") for joint in "_/: ")


def test_a_wide_table_has_a_line_for_each_row() -> None:
    assert len(shown(80)) == 2 + len(ROWS)


@pytest.mark.parametrize("width", [30, 36, 44])
def test_a_narrow_table_breaks_at_joints_and_never_within_a_number(width: int) -> None:
    lines = shown(width)
    assert all(len(line) <= width for line in lines)
    words = " ".join(lines).split()
    assert {"critical", "9.36e-14", "1,000.5", "collapse"} <= set(words)


def test_where_columns_have_no_room_each_row_is_a_list_of_pairs_as_many_on_a_line_as_fit() -> None:
    assert shown(24) == [
        "verdict critical",
        "  rule head_entropy_",
        "  collapse",
        "  worst 9.36e-14 at 40",
        "",
        "verdict warning",
        "  rule kl_spike",
        "  worst 1,000.5 at 3",
        "",
    ]
    five = shown(30, "abcde", [[str(number) * 8 for number in range(5)]])
    assert five == ["a 00000000  b 11111111", "  c 22222222  d 33333333", "  e 44444444", ""]
