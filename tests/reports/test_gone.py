"""Reports on runs of which something is gone, or was NaN: what is said stays true."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from esper_analyze.cli import run as command
from esper_analyze.replay.evidence import Evidence, gather
from esper_analyze.reports.narrative import onset
from esper_analyze.reports.narrative import story as stories
from esper_analyze.reports.sections import drift, escalation
from esper_analyze.runs.run import open_run
from tests.reports.synthetic import write_run

RUNS = Path(__file__).parents[2] / "sample_runs" / "runs"


def damaged(name: str, table: str, path: Path) -> Path:
    """Return a copy of a sample run whose ``table`` was damaged, and that was then repaired."""
    shutil.copytree(RUNS / name, path)
    for shard in path.rglob(f"{table}-*.parquet"):
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    assert command(["repair", str(path)]) == 0
    return path


def story(path: Path) -> stories.Story:
    return stories.frame(gather(open_run(path)))


def written(path: Path, change: Any, updates: int = 40) -> Evidence:
    write_run(path, updates, change)
    return gather(open_run(path))


def test_an_alarm_that_cannot_be_judged_again_is_not_forgotten(tmp_path: Path) -> None:
    told = story(damaged("growing_disconnected", "slots", tmp_path / "run"))
    assert told.verdict == "no_data"
    assert "cannot be judged again: seed_dormant on env 5, early, critical live at update 22" in told.headline
    assert any("were lost: a repair removed damaged files" in caveat for caveat in told.caveats)
    assert not any("could not be written" in caveat for caveat in told.caveats)


def test_a_masked_head_does_not_become_an_alarm_because_its_masks_are_gone(tmp_path: Path) -> None:
    evidence = gather(open_run(damaged("lstm_masks", "heads", tmp_path / "run")))
    assert [one for one in evidence.replay.incidents if one.rule == "gradient_vanishing"] == []
    assert stories.frame(evidence).verdict == "no_data"


def test_a_run_whose_updates_are_gone_is_still_reported(tmp_path: Path) -> None:
    path = damaged("lstm_masks", "updates", tmp_path / "run")
    assert command(["report", str(path), "--out", str(tmp_path / "page")]) == 0


def test_a_setting_that_changed_before_the_streak_is_named(tmp_path: Path) -> None:
    def change(update: int, rows: Any) -> None:
        rows["updates"][0]["learning_rate"] = 3e-4 if update < 27 else 0.0
        if update >= 30:
            rows["updates"][0]["kl_k3"] = 0.9

    evidence = written(tmp_path / "run", change)
    lead = next(one for one in evidence.replay.incidents if one.rule == "kl_spike")
    assert lead.onset == 30
    told = onset.frame(evidence.run, lead)
    assert [(one.name, one.update, one.at) for one in told.settings] == [("learning_rate", 27, 0.0)]
    assert any("changed before the onset" in sentence for sentence in told.sentences)


def test_a_number_that_was_nan_is_not_called_a_spike(tmp_path: Path) -> None:
    def change(update: int, rows: Any) -> None:
        if update >= 20:
            rows["updates"][0]["kl_k3"] = float("nan")

    told = stories.frame(written(tmp_path / "run", change))
    assert told.headline == "kl_k3 was NaN at update 20"


def test_groups_that_nobody_judged_did_not_stand_still(tmp_path: Path) -> None:
    data = drift.frame(written(tmp_path / "run", None, updates=3))
    assert data is not None
    assert "could be judged" in drift.words(data)[0]


def test_the_timeline_says_what_began_first() -> None:
    data = escalation.frame(gather(open_run(RUNS / "nan_reward")))
    assert data is not None
    words = escalation.words(data)
    assert words[0].startswith("NaN or Inf (critical) at update 25")
    assert any("2 incidents in total, 1 of them shown under their causes" in line for line in words[1:])
    quiet = escalation.frame(gather(open_run(RUNS / "masked_healthy")))
    assert quiet is not None
    assert re.match(r"No incident; \d\d rules judged", escalation.words(quiet)[0])
