"""Which tests concern which package; the quick ones of them run first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Package:
    """Folders of source, and folders or files of tests."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]

    def files(self) -> list[str]:
        """Return the modules, as paths below the project."""
        found = [path for source in self.sources for path in sorted((ROOT / source).rglob("*.py"))]
        return [path.relative_to(ROOT).as_posix() for path in found]

    def present_tests(self) -> list[str]:
        """Return the tests that there are."""
        return [test for test in self.tests if (ROOT / test).exists()]


_NUMBERS = (
    "tests/recorder/witness/test_witness.py",
    "tests/recorder/measure",
    "tests/recorder/reduce",
    "tests/recorder/test_loop.py",
    "tests/recorder/test_detail.py",
    "tests/recorder/test_slots.py",
    "tests/recorder/test_slot_causes.py",
    "tests/recorder/test_odd_loops.py",
)
PACKAGES = {
    "measure": Package(("recorder/measure",), _NUMBERS),
    "reduce": Package(("recorder/reduce",), _NUMBERS),
    "detector": Package(
        ("esper_analyze/detector",),
        (
            "tests/detector",
            "tests/recorder/test_every_rule.py",
            "tests/replay/test_replay.py",
            "tests/replay/test_whatif.py",
            "tests/golden/test_golden.py",
        ),
    ),
    "store": Package(
        ("recorder/store",),
        (
            "tests/recorder/store",
            "tests/recorder/test_store.py",
            "tests/recorder/test_store_faults.py",
            "tests/recorder/test_resume.py",
        ),
    ),
    "readers": Package(
        tuple(f"esper_analyze/{room}" for room in ("runs", "storage", "replay", "comparison", "schema", "interchange")),
        (
            *(f"tests/{room}" for room in ("schema", "runs", "storage", "replay", "comparison", "interchange")),
            *(f"tests/commands/test_{name}.py" for name in ("compare", "backtest", "repairing")),
            *(f"tests/reports/test_{name}.py" for name in ("ranks", "series")),
        ),
    ),
    "api": Package(("esper_analyze/api",), ("tests/test_api.py",)),
}
