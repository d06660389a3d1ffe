"""The benchmarks run; what they measure is judged where the machine is quiet, not here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]


def figures(command: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a benchmark's smoke run in a process of its own, as one would; return its JSON."""
    found = folder / "figures.json"
    line = [sys.executable, "-m", f"tests.bench.{command}", "--quick", "--json", str(found), *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(found.read_text()))


def test_recording_is_measured_in_every_case_and_leaves_parameters_bit_equal(tmp_path: Path) -> None:
    cases = {case["case"]: case for case in figures("record", tmp_path)["cases"]}
    assert set(cases) == {
        f"{name}-{level}" for name in ("maskable", "recurrent", "loop") for level in ("normal", "debug")
    }
    for case in cases.values():
        assert case["parameters_equal"]
        assert case["seconds"] > 0
        assert case["account"]["recorder_ms"] > 0
        assert case["account"]["lost_rows"] == 0
        shares = [spread["median"] for kind in ("added", "noise") for spread in case[kind].values()]
        assert all(math.isfinite(share) and share > -1 for share in shares)


def test_handing_over_is_measured_for_the_store_and_for_a_peer_that_is_always_there(tmp_path: Path) -> None:
    found = figures("handover", tmp_path, *(f"--only={name}" for name in ("nothing", "recorder", "jsonl", "rerun")))
    writers = found["writers"]
    for name in ("recorder", "jsonl"):
        assert writers[name].pop("state") == "measured"
        assert writers[name].pop("background_ms") >= 0
        assert all(math.isfinite(value) and value > 0 for value in writers[name].values())
    assert writers["nothing"]["disk_bytes"] == 0
    assert writers["rerun"]["state"] in ("measured", "not installed")
    assert len(found["targets"]) == 6


def test_the_live_detector_is_measured_on_as_many_heads_and_groups_as_promised(tmp_path: Path) -> None:
    found = figures("live", tmp_path)
    assert (found["heads"], found["groups"], found["updates"]) == (8, 20, 120)
    assert 0 < found["least_median_us"] <= found["median_us"] <= found["most_median_us"] <= found["p99_us"]


def test_reading_opening_and_asking_are_measured_and_tensorboard_reads_the_same_numbers(tmp_path: Path) -> None:
    found = figures("load", tmp_path)["figures"]
    assert all(math.isfinite(one["value"]) and one["value"] > 0 for one in found)
    assert sum(one["what"].startswith(("open", "3-column", "p99")) for one in found) == 4


def test_large_minibatches_many_heads_and_large_models_are_measured(tmp_path: Path) -> None:
    found = figures("large", tmp_path)
    assert all(math.isfinite(found[name]) and found[name] >= 0 for name in ("memory_over_inputs", "sampled_over_plain"))
    assert found["ten_times_the_heads"] > 0


def test_replay_is_measured_beside_decoding_and_a_detector_by_row(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    line = [sys.executable, "-m", "tests.bench.replay", "--sizes", "3000", "--repeats", "1", "--json", str(figures)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert figures.exists()
