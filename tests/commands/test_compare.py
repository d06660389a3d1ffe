"""``compare``: two runs, groups, settings, and input that makes no sense."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.commands.conftest import Command
from tests.reports.own_scripts import without_own_scripts
from tests.reports.synthetic import Rows, write_run

UPDATES = 40
Edit = Callable[[int, Rows], None]


def other_seed(seed: int, then: Edit | None = None) -> Edit:
    """Shake what moves, as another seed would; then edit."""
    noise = np.random.default_rng(seed)

    def edit(update: int, rows: Rows) -> None:
        for row in (*rows["updates"], *rows["heads"], *rows["groups"]):
            for name in ("kl_k3", "grad_norm_pre_clip", "grad_norm", "value_loss"):
                if isinstance(row.get(name), float):
                    row[name] *= math.exp(0.1 * noise.normal())  # type: ignore[operator]
        if then is not None:
            then(update, rows)

    return edit


def loud_from(update: int) -> Edit:
    def edit(now: int, rows: Rows) -> None:
        if now >= update:
            rows["updates"][0]["value_loss"] = 1000.0

    return edit


@pytest.fixture(scope="session")
def _seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    for seed in range(5):
        write_run(folder / f"seed-{seed}", UPDATES, other_seed(seed), facts={"seeds": {"torch": seed}})
    write_run(folder / "loud", UPDATES, other_seed(7, loud_from(25)), facts={"seeds": {"torch": 7}})
    return folder


@pytest.fixture
def seeds(_seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return _seeds


def one_sentence(text: str) -> bool:
    return text.count("\n") == 1 and "Traceback" not in text


def test_a_run_and_its_copy_are_equal_in_all_columns(seeds: Path, command: Command, tmp_path: Path) -> None:
    shutil.copytree(seeds / "seed-0", tmp_path / "copy")
    said = command("compare", seeds / "seed-0", tmp_path / "copy", "--fail-on-parting", "--no-page")
    assert (said.code, said.err) == (0, "")
    assert "copy are equal in all" in said.out
    assert "Tables not compared: episodes" in said.out


def test_a_change_in_one_run_is_found_in_its_update_and_named(command: Command, tmp_path: Path) -> None:
    for name, edit in (("before", None), ("after", loud_from(25))):
        write_run(tmp_path / name, UPDATES, edit)
    said = command("compare", tmp_path / "before", tmp_path / "after", "--no-page")
    assert said.code == 0
    assert "before and after diverge at update 25: Value loss is 1,000 in after" in said.out
    assert "Up to update 24 they are equal in all" in said.out


def test_a_jump_in_the_last_updates_may_be_a_parting_and_a_short_run_is_too_short(
    command: Command, tmp_path: Path
) -> None:
    write_run(tmp_path / "before", UPDATES)
    write_run(tmp_path / "jump", UPDATES, loud_from(UPDATES - 2))
    write_run(tmp_path / "short", 2)
    said = command("compare", tmp_path / "before", tmp_path / "jump", "--no-page")
    assert "before and jump may be diverging: at update 38 Value loss is 1,000 in jump" in said.out
    assert "The last 3 updates cannot be judged" in said.out
    told = json.loads(command("compare", tmp_path / "before", tmp_path / "short", "--no-page", "--json").out)
    assert told["too_short"] == ["before", "short"]
    assert "do not diverge" not in told["headline"]


def test_a_column_that_is_not_judged_counts_as_a_difference(command: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "one", UPDATES)
    write_run(tmp_path / "two", UPDATES, lambda now, rows: rows["updates"][0].update(kl_k1=7.0 + now))
    told = json.loads(command("compare", tmp_path / "one", tmp_path / "two", "--no-page", "--json").out)
    assert told["first_difference"] == {"update": 0, "metrics": ["kl_k1"]}


def test_a_sparse_metric_that_is_measured_no_more_is_named(command: Command, tmp_path: Path) -> None:
    def silent(now: int, rows: Rows) -> None:
        rows["updates"][0]["episode_return_mean"] = None if now >= 20 else 1.0

    write_run(tmp_path / "one", UPDATES)
    write_run(tmp_path / "two", UPDATES, silent)
    said = command("compare", tmp_path / "one", tmp_path / "two", "--no-page")
    assert "episode_return_mean in two (last at update 19)" in said.out


def test_an_exploding_host_is_found_in_the_slots(command: Command) -> None:
    samples = Path(__file__).parents[2] / "sample_runs" / "runs"
    told = json.loads(
        command("compare", samples / "growing_healthy", samples / "growing_exploding", "--no-page", "--json").out
    )
    assert "diverge at update 20" in told["headline"]
    assert told["runs"][1]["parts_first_in"] == "normalized_ratio_min"


def test_of_a_group_only_the_faulty_run_leaves_and_the_page_has_all(
    seeds: Path, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "page"
    said = command("compare", seeds, "--json", "--out", out, "--fail-on-parting")
    assert said.code == 1
    told = json.loads(said.out)
    assert {run["run"]: run["parts_at"] for run in told["runs"] if run["parts_at"] is not None} == {"loud": 25}
    assert told["settings"][0]["name"] == "seeds.torch"
    assert told == json.loads((out / "compare.json").read_text())
    page = without_own_scripts((out / "index.html").read_text())
    assert not re.search(r"<script|src=|url\((?!#)|https?://(?!www\.w3\.org)", page)
    assert page.count("<figure") == len(list(out.glob("*.png"))) >= 5
    assert "1 of 6 runs diverges from the others: loud at update 25" in page


def test_a_pattern_a_directory_and_a_run_twice_are_each_run_once(seeds: Path, command: Command) -> None:
    said = command("compare", f"{seeds}/seed-[01]", seeds, seeds / "loud", "--json", "--no-page")
    assert [run["run"] for run in json.loads(said.out)["runs"]][:3] == ["seed-0", "seed-1", "loud"]
    assert len(json.loads(said.out)["runs"]) == 6


def test_names_that_occur_twice_are_told_apart(seeds: Path, command: Command, tmp_path: Path) -> None:
    shutil.copytree(seeds / "seed-1", tmp_path / "again" / "seed-0")
    said = command("compare", seeds / "seed-0", tmp_path / "again" / "seed-0", "--json", "--no-page")
    assert [run["run"] for run in json.loads(said.out)["runs"]] == [f"{seeds.name}/seed-0", "again/seed-0"]


@pytest.mark.parametrize(
    ("paths", "answer"),
    [
        (["SEEDS/seed-0"], "seed-0 is the only run given"),
        (["SEEDS/seed-0", "SEEDS/seed-0"], "seed-0 is the only run given"),
        (["SEEDS/seed-0", "EMPTY"], "only seed-0 has a complete update"),
        (["EMPTY", "OTHER"], "only other has a complete update"),
        (["SEEDS/seed-0", "OTHER"], "no metric in common"),
        (["SEEDS/seed-0", "nowhere"], "nowhere does not exist"),
        (["SEEDS/seed-0", "none-*"], "no recorded run matches none-*"),
        (["SEEDS/seed-0", "."], ". is not a recorded run"),
    ],
)
def test_odd_input_is_one_sentence(
    paths: list[str], answer: str, seeds: Path, command: Command, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    write_run(folder / "empty", 0)
    write_run(folder / "other", 5, _nothing_known)
    given = [
        path.replace("SEEDS", str(seeds))
        .replace("EMPTY", str(folder / "empty"))
        .replace("OTHER", str(folder / "other"))
        for path in paths
    ]
    said = command("compare", *given)
    assert (said.code, said.out) == (2, "")
    assert one_sentence(said.err)
    assert answer in said.err


def _nothing_known(_update: int, rows: Rows) -> None:
    kept = ("update", "status", "level")
    rows["updates"] = [{name: row[name] for name in kept} for row in rows["updates"]]
    rows["heads"] = rows["groups"] = rows["lstm"] = rows["episodes"] = []


def test_a_damaged_run_is_refused_or_left_out(seeds: Path, command: Command, tmp_path: Path) -> None:
    shutil.copytree(seeds, tmp_path / "runs")
    (tmp_path / "runs" / "seed-4" / "run.json").write_text("{")
    refused = command("compare", tmp_path / "runs")
    assert refused.code == 3
    assert one_sentence(refused.err)
    said = command("compare", tmp_path / "runs", "--skip-broken", "--json", "--no-page")
    assert said.code == 0
    assert "left out" in said.err
    assert len(json.loads(said.out)["runs"]) == 5


def test_a_run_of_another_kind_is_compared_in_what_is_common_and_said_to_be_so(
    seeds: Path, command: Command, tmp_path: Path
) -> None:
    def without_heads(_update: int, rows: Rows) -> None:
        rows["heads"] = rows["lstm"] = []

    write_run(tmp_path / "other", UPDATES, without_heads, facts={"algorithm": "A2C", "heads": {}})
    said = command("compare", seeds / "seed-0", tmp_path / "other", "--no-page")
    assert said.code == 0
    assert "different algorithms or heads" in said.out
    assert "Not measured in every run" in said.out
    assert "algorithm: PPO | A2C" in said.out


def test_text_from_runs_cannot_steer_terminal_or_page(command: Command, tmp_path: Path) -> None:
    evil = "<script>x</script>[bold red]x[/] \x1b[31mred\x07 \u202e"

    def rename(_update: int, rows: Rows) -> None:
        rows["heads"][1] |= {"head": evil}

    write_run(tmp_path / "one", 30, rename, facts={"name": evil, "hyperparameters": {evil: evil}})
    write_run(tmp_path / "two", 30, rename, facts={"name": evil})
    said = command("compare", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "page")
    assert said.code == 0
    assert said.out.endswith(f"{tmp_path / 'page' / 'index.html'}\n")
    page = without_own_scripts((tmp_path / "page" / "index.html").read_text())
    assert not {"\x1b", "\x07", "\u202e"} & set(said.out + page)
    assert "<script" not in page


def test_help_teaches(command: Command) -> None:
    said = command("compare", "--help")
    assert said.code == 0
    assert "Example: esper-analyze compare runs/before runs/after" in " ".join(said.out.split())


def test_the_table_of_tenths_stands_first_and_groups_follow(seeds: Path, command: Command) -> None:
    said = command("compare", seeds, "--group", "^(loud|seed)", "--no-page")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].split()[:3] == ["run", "return", "KL"]
    assert "worst incident" in lines[0]
    assert [line.split()[0] for line in lines[2:8]] == ["loud", *(f"seed-{seed}" for seed in range(5))]
    assert "95 % confidence interval" in lines[9]
    assert [line.split()[:2] for line in lines[12:14]] == [["loud", "1"], ["seed", "5"]]


def test_settings_that_differ_name_the_runs_and_runs_are_grouped_by_them(command: Command, tmp_path: Path) -> None:
    for number in range(6):
        rate = (0.1, 0.01)[number % 2]
        facts = {"hyperparameters": {"learning_rate": rate, "gamma": 0.9}}
        write_run(tmp_path / f"run-{number}", UPDATES, other_seed(number), facts=facts)
    said = command("compare", tmp_path, "--by", "learning_rate", "--json", "--no-page")
    groups = json.loads(said.out)["groups"]
    assert [(group["group"], group["runs"]) for group in groups] == [
        ("0.01", ["run-1", "run-3", "run-5"]),
        ("0.1", ["run-0", "run-2", "run-4"]),
    ]
    said = command("compare", tmp_path, "--no-page")
    assert "learning_rate: 0.1 (run-0, run-2 and 1 more) | 0.01 (run-1, run-3 and 1 more)" in said.out
    said = command("compare", tmp_path, "--by", "gamma", "--no-page")
    assert (said.code, said.out) == (2, "")
    assert "gamma is 0.9 in all 6 runs" in said.err
    assert "hyperparameters.learning_rate" in said.err
