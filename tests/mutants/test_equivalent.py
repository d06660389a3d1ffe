"""Changes that are stated to make no difference are changes of the code as it is."""

from __future__ import annotations

from tests.mutants.__main__ import equivalent
from tests.mutants.changes import changes
from tests.mutants.packages import ROOT


def test_every_stated_change_can_still_be_made() -> None:
    stated = equivalent()
    files = {key[0]: (ROOT / key[0]).read_text() for key in stated}
    possible = {change.key for file, source in files.items() for change in changes(file, source)}
    assert [key for key in stated if key not in possible] == []
