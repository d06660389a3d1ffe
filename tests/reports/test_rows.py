import pytest

from esper_analyze.reports.render.csv import section_csv
from esper_analyze.reports.render.html import _environment
from esper_analyze.reports.render.rows import MOST_ROWS, Mark, SectionTable, spelled

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("cell", "said"),
    [(None, "–"), (NAN, "NaN"), (-INF, "−Inf"), (0.0, "0"), (0, "0"), (12345, "12,345"), (True, "yes"), ("a\x1b", "a")],
)
def test_null_nan_and_zero_are_spelled_apart(cell: object, said: str) -> None:
    assert spelled(cell) == said


def test_csv_leaves_null_empty_writes_nan_and_has_no_sign_for_the_eye() -> None:
    rows = SectionTable(("a", "b", "c", "d"), ((None, NAN, 0.0, Mark("ok", "fine", "●")),))
    assert section_csv(rows) == "a,b,c,d\n,nan,0.0,fine\n"
    assert [row["d"] for row in rows.records()] == ["fine"]
    assert [spelled(row[-1]) for row in rows.cells] == ["● fine"]


def test_the_narrow_table_has_its_own_headings_and_the_records_all_columns() -> None:
    rows = SectionTable(("name", "grad_norm", "other"), (("a", 1.0, None),), (("name", "name"), ("grad_norm", "norm")))
    assert rows.narrow.columns == ("name", "norm")
    assert rows.narrow.cells == (("a", 1.0),)
    assert rows.narrow.numbers == ("norm",)
    assert list(rows.records()) == [{"name": "a", "grad_norm": 1.0, "other": None}]
    assert SectionTable(("grad_norm",), ()).narrow.columns == ("grad norm",)


def test_no_cell_becomes_markup_and_what_is_left_out_is_counted() -> None:
    rows = SectionTable(("<i>",), (("<b>x</b>",), (Mark("ok", "<u>"),), *[("c",)] * MOST_ROWS))
    page = _environment().from_string('{% import "macros.html.j2" as m %}{{ m.rows(table) }}').render(table=rows)
    assert "<b>" not in page
    assert "<u>" not in page
    assert "<i>" not in page
    assert 'class="chip ok"' in page
    assert "2 more of 26 rows are not shown." in page
