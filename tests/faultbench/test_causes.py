"""How often the list of look-alikes has the cause that was put in, counted on recordings made up for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from esper_analyze.reports.causes.cause_list import CAUSES
from tests.faultbench.causes import TRUE, listed, main
from tests.faultbench.draw import draw
from tests.faultbench.faults import FAULTS
from tests.faultbench.outcome import Made, write
from tests.faultbench.training import LoopOutcome
from tests.reports.synthetic import Rows, write_run

ONSET, UPDATES = 20, 40


def jittered(update: int, rows: Rows) -> None:
    """Record log-probs that are too low from the onset on."""
    if update >= ONSET:
        rows["updates"][0] |= {"first_ratio_error": 0.3, "ratio_mean": 1.16, "kl_k1": -0.15, "kl_k2": 0.02}


def test_every_fault_has_causes_that_name_it_and_they_exist() -> None:
    assert set(TRUE) == set(FAULTS)
    assert {name for names in TRUE.values() for name in names} <= {cause.name for cause in CAUSES}


def test_what_was_put_in_is_looked_for_among_the_causes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("stale_log_probs", "mask_mismatch", ""):
        setup = replace(draw("tune", 0), kind=kind, onset=ONSET, updates=UPDATES)
        run = write_run(tmp_path / setup.name, UPDATES, jittered)
        write(run, Made(setup, LoopOutcome([0.0] * UPDATES, [0.1] * UPDATES)))
    found = {one.made.setup.kind: one for one in listed(tmp_path, "tune")}
    assert set(found) == {"stale_log_probs", "mask_mismatch"}
    assert found["stale_log_probs"].first_is_true
    assert found["mask_mismatch"].answers == {"ruled out"}
    assert not found["mask_mismatch"].first_is_true
    assert main([str(tmp_path), "--each"]) == 0
    out = capsys.readouterr().out
    assert "* Likely: stored log-probs are stale" in out
    assert next(line.split() for line in out.splitlines() if line.startswith("all ")) == [
        *("all", "2", "2", "1", "1", "1", "1", "0", "1"),
    ]
