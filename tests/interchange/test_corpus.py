"""The corpus of foreign logs is whole, small, and says nothing of the machine it was recorded on."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from esper_analyze.schema.tables import UPDATES
from tests.interchange.corpus import FAULTS, ROOT, LoggedCase, cases
from tests.interchange.corpus.logged import series

PATHS = re.compile(rb"/(?:root|tmp|work|home|opt|Users)/")
ADDRESS = re.compile(rb"\b(?:10|172|192)\.\d{1,3}\.\d{1,3}\.\d{1,3}\b")
HOST = re.compile(r'"(?:hostname|node_ip|pid)": ("[^"]*"|\d+)')
FRAMEWORKS = {
    "baselines", "cleanrl", "ml-agents", "phasic", "procgen", "pufferlib", "rl_games", "rllib", "rsl_rl",
    "sample-factory", "sb3-contrib", "skrl", "stable-baselines2", "stable-baselines3", "tianshou", "torchrl",
    "trl", "verl",
}  # fmt: skip


def logs() -> list[Path]:
    """Return the files of the corpus that are logs."""
    return [path for folder in ROOT.iterdir() if folder.is_dir() and folder.name not in ("make", "__pycache__")
            for path in folder.rglob("*") if path.is_file()]  # fmt: skip


def files_of(case: LoggedCase) -> list[Path]:
    return [case.location] if case.location.is_file() else [path for path in case.location.rglob("*") if path.is_file()]


def test_every_case_exists_and_every_log_is_of_a_case() -> None:
    listed = {path for case in cases() for path in files_of(case)}
    assert [case.path for case in cases() if not files_of(case)] == []
    assert sorted(set(logs()) - listed) == []
    assert len({case.path for case in cases()}) == len(cases())


def test_the_corpus_is_small() -> None:
    assert {path: size for path in logs() if (size := path.stat().st_size) > 100_000} == {}
    assert sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file() and path.suffix != ".pyc") < 2_600_000


@pytest.mark.parametrize("path", logs(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_log_names_no_machine(path: Path) -> None:
    data = path.read_bytes()
    assert PATHS.findall(data) == []
    assert ADDRESS.findall(data) == []
    if path.suffix in (".json", ".jsonl"):
        assert set(HOST.findall(data.decode())) <= {'"host"', '"127.0.0.1"', "1"}
    if ".tfevents." in path.name:
        assert re.fullmatch(r"events\.out\.tfevents\.17000000\d\d\.host\.1\.\d", path.name)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.path)
def test_the_cells_of_a_case_are_in_its_log(case: LoggedCase) -> None:
    logged = {cell.file: series(ROOT / cell.file) for cell in case.cells}
    for cell in case.cells:
        numbers = logged[cell.file][cell.name]
        assert numbers[cell.index] == cell.number
        float(cell.number)
        assert cell.column is None or cell.column in UPDATES.names
        assert case.updates is not None
        assert 0 <= cell.update < case.updates
    assert case.fault == "refused" or case.runs > 1 or case.cells or case.updates is None


def test_a_case_says_what_is_wrong_with_it() -> None:
    for case in cases():
        assert case.fault in FAULTS
        assert case.origin in ("recorded", "written")
        assert case.split in ("tune", "held")
        assert (case.refused is not None) == (case.fault == "refused")
        assert case.wrong.startswith("nothing") == case.sound
        assert (case.first_broken is None) == (case.fault in ("none", "refused"))
        if case.first_broken is not None and case.updates is not None:
            assert 0 <= case.first_broken <= case.updates


def test_both_halves_have_sound_and_broken_logs_of_every_framework_but_the_smallest() -> None:
    assert {case.framework for case in cases()} == FRAMEWORKS
    halves = Counter(case.split for case in cases())
    assert min(halves.values()) / len(cases()) > 0.4
    by_split = defaultdict(set)
    for case in cases():
        by_split[case.split].add(case.fault)
    assert set(FAULTS) == by_split["tune"] == by_split["held"]


def begins_at(numbers: list[float]) -> int | None:
    """Return where the first number is that is not finite."""
    return next((index for index, number in enumerate(numbers) if not math.isfinite(number)), None)


def rises(before: list[float], after: list[float]) -> bool:
    return max(after[:4]) > max(0.05, 5 * statistics.median(before or [0.0]))


def vanishes(before: list[float], after: list[float]) -> bool:
    """Whether entropy vanishes: a discrete one to less than a quarter, a Gaussian one far below 0."""
    first, late = (before or after)[0], statistics.median(after)
    return abs(late) < 0.25 * abs(first) or late < -5 * abs(first)


def finite_before(before: list[float], after: list[float]) -> bool:
    return begins_at(before + after) in (len(before), None)


SHOWN: dict[str, Callable[[list[float], list[float]], bool]] = {
    "kl_too_high": rises,
    "policy_dead": vanishes,
    "critic_never_learns": lambda _, after: statistics.median(after[len(after) // 2 :]) < 0.15,
    "std_runaway": lambda _, after: after[-1] > 5 * after[0],
    "std_nonpositive": lambda before, _: 0 <= before[-1] < 0.2 * before[0],
    "no_longer_learns": lambda before, after: max(map(abs, after)) < 1e-7 < before[-1],  # but for rounding
    "nan": finite_before,
}
"""Whether the numbers before and from the onset on show the fault."""
WITNESSES = {
    "kl_too_high": re.compile(r"kl$|mean_kl_loss$"),
    "policy_dead": re.compile(r"[Ee]ntropy(_loss)?( loss)?$|/ent_loss/mean$"),
    "critic_never_learns": re.compile(r"expl(ained)?_var(iance)?$|explained_var$|/EV$"),
    "std_runaway": re.compile(r"(/|_|action )std$|Standard deviation$"),
    "std_nonpositive": re.compile(r"(_| )std$"),
    "no_longer_learns": re.compile(r"approx_kl$|^grad_norm$"),
    "nan": re.compile(r"."),
}
"""The names whose numbers show a fault."""


@pytest.mark.parametrize(
    "case", [case for case in cases() if case.fault in WITNESSES and case.cells], ids=lambda case: case.path
)
def test_the_fault_that_is_stated_shows_from_its_update_on(case: LoggedCase) -> None:
    logged = series(ROOT / case.cells[0].file)
    names = [name for name in dict.fromkeys(cell.name for cell in case.cells) if WITNESSES[case.fault].search(name)]
    numbers = {name: [float(number) for number in logged[name]] for name in names}
    assert case.first_broken is not None
    onset = case.first_broken
    assert all(SHOWN[case.fault](series_of[:onset], series_of[onset:]) for series_of in numbers.values())
    if case.fault == "nan":
        assert any(begins_at(series_of) == onset for series_of in numbers.values())
    assert names or case.framework == "torchrl"  # it logs no standard deviation
