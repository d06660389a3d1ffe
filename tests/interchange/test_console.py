"""Pasted text: every number that is understood is the one printed, and what is not understood is counted."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esper_analyze.errors import DamagedError, UsageError
from esper_analyze.interchange import import_console
from esper_analyze.interchange.console_record import PrintedForm
from esper_analyze.interchange.console_text import ConsoleText, parse
from esper_analyze.interchange.sources import read_source
from tests.commands.conftest import Command
from tests.interchange.conftest import Taken
from tests.interchange.consoles import PRINTED, RSL_RL, sb3_table
from tests.interchange.logs import sb3_rows, write_csv

NUMBERS = st.one_of(st.floats(), st.integers(-(2**40), 2**40))
SB3_NAMES = ("rollout/ep_rew_mean", "time/iterations", "time/fps", "train/approx_kl", "train/loss", "train/std")
NAMES = {
    "table": SB3_NAMES,
    "rsl_rl": tuple(RSL_RL),
    "verl": ("actor/ppo_kl", "actor/pg_loss", "critic/score/mean", "timing_s/gen", "val-core/acc/mean@1"),
    "dictionary": ("loss", "kl", "reward", "rewards/format/mean", "epoch"),
}
SB3 = "\n".join(sb3_table(row) for _, row in sb3_rows(6))


def encoded(printed: str) -> bytes:
    return printed.encode("utf-8", "replace")


def text(printed: str) -> ConsoleText:
    return parse(printed.split("\n"))


def records(printed: str) -> list[dict[str, float]]:
    return [record.cells for record in text(printed).records]


def same(one: object, other: object) -> bool:
    return repr(one) == repr(other)


@pytest.mark.parametrize("form", PRINTED)
@given(data=st.data())
def test_what_is_printed_is_read_as_the_same_numbers(form: str, data: st.DataObject) -> None:
    names = NAMES.get(form, NAMES["dictionary"])
    rows = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(names, NUMBERS)), min_size=1, max_size=4))
    understood = text(PRINTED[form](rows))
    assert same(understood.unread, 0)
    printed = [{name: cell for name, cell in record.cells.items() if name in names} for record in understood.records]
    assert same([dict(sorted(one.items())) for one in printed], [dict(sorted(one.items())) for one in rows])


@given(
    st.binary(max_size=2_000) | st.text("{}[]()'\":,|-=/. \t\r\n0123456789eNnaif\\abstep", max_size=300).map(str.encode)
)
def test_no_bytes_at_all_give_anything_but_numbers_or_an_error_with_a_hint(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "console.log"
    file.write_bytes(data)
    with suppress(UsageError, DamagedError):
        read_source(file)


ML_AGENTS = {"Environment/Cumulative Reward": -1.17, "Std of Reward": 0.7}
SPEEDS = {
    "performance/step_fps": 9000,
    "performance/step_inference_fps": 800.5,
    "performance/step_inference_rl_update_fps": 700,
    "info/epochs": 5,
}


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        ("global_step=128, episodic_return=[9.]", {"charts/episodic_return": 9.0}),
        (
            "global_step=128, episodic_return=12.5, episodic_length=30",
            {"charts/episodic_return": 12.5, "charts/episodic_length": 30},
        ),
        (
            "[INFO] Ball. Step: 128. Time Elapsed: 20.1 s. Mean Reward: -1.17. Std of Reward: 0.70. Training.",
            ML_AGENTS,
        ),
        (
            "INFO:mlagents.trainers: run-0: Ball: Step: 128. Mean Reward: -1.17. Std of Reward: 0.7. Training.",
            ML_AGENTS,
        ),
        ("> Step: 128. Mean Reward: -1.17. Std of Reward: 0.7.", ML_AGENTS),
        ("step:128 - actor/lr:0.000 - actor/ppo_kl:-0.000 - actor/pg_loss:0.000", {"actor/pg_loss": 0.0}),
        ("step:128 - actor/lr:0.0 - actor/ppo_kl:0.001", {"actor/lr": 0.0, "actor/ppo_kl": 0.001}),
        ("fps step: 9000 fps step and policy inference: 800.5 fps total: 700 epoch: 5/100 frames: 128", SPEEDS),
        ("step:128 - actor/pg_loss:np.float64(-0.01) - actor/lr:1e-06", {"actor/pg_loss": -0.01, "actor/lr": 1e-06}),
        ('2026-01-01 12:00:00,5 INFO {"step": 128, "data": {"actor/ppo_kl": 0.5}}', {"actor/ppo_kl": 0.5}),
    ],
)
def test_forms_of_one_line(line: str, cells: dict[str, float]) -> None:
    (record,) = text(line).records
    assert (record.step, record.cells) == (128, cells)


def test_a_line_that_a_terminal_broke_is_read_as_one() -> None:
    whole = "step:3 - actor/ppo_kl:0.001234 - critic/score/mean:-0.5 - response_length/mean:330.25"
    for place in range(8, len(whole) - 1):
        if whole[place] != " " and whole[place - 1] != " ":
            assert records(f"{whole[:place]}\n{whole[place:]}") == records(whole), place


def every_line(change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda printed: "\n".join(map(change, printed.split("\n")))


@pytest.mark.parametrize(
    "change",
    [
        lambda printed: printed.replace("\n", "\r\n"),
        lambda printed: f"```bash\n(venv) me@box:~/rl$ python train.py\n{printed}\n```",
        lambda printed: printed.replace("|", "│").replace("-" * 40, "─" * 40),
        lambda printed: printed.replace("|    ", "| ").replace(" ", "\u00a0"),
        lambda printed: printed.replace("|", "&#124;"),
        lambda printed: printed.replace("-" * 40 + "\n", ""),
        lambda printed: printed.replace("\n", "\n\n"),
        every_line(lambda line: f"> {line}"),
        every_line(lambda line: f"\x1b[32m2026-01-01 12:00:00,123 INFO: {line}\x1b[0m"),
        every_line(lambda line: line.removeprefix("|").removesuffix("|")),
    ],
)
def test_what_stands_around_a_table_changes_no_number(change: Callable[[str], str]) -> None:
    assert records(change(SB3)) == records(SB3)


def test_tables_of_a_console_give_the_run_that_their_progress_csv_gives(taken: Taken, tmp_path: Path) -> None:
    rows = sb3_rows(6, evaluate=3)
    (tmp_path / "saved.log").write_text("Using cpu device\n" + "\n".join(sb3_table(row) for _, row in rows))
    pasted = taken(tmp_path / "saved.log")
    logged = taken(write_csv(tmp_path / "progress.csv", [row for _, row in rows]))
    columns = ["update", "kl_k3_last_epoch", "total_loss", "episode_return_mean", "env_steps"]
    assert pasted.frame("updates", columns).to_dicts() == logged.frame("updates", columns).to_dicts()
    (unread,) = pasted.frame("losses_of_data").filter(kind="unread_line").to_dicts()
    assert unread["detail"] == "1 × line not understood: line 1: 'Using cpu device'"


def test_a_table_without_its_first_lines_is_of_the_update_before(taken: Taken, tmp_path: Path) -> None:
    def printed(update: int) -> str:
        clock = {"time/iterations": update + 2, "train/n_updates": 10 * (update + 1)}
        return sb3_table({"rollout/ep_rew_mean": 1.0, "train/loss": float(update), **clock})

    rest = printed(7).split("train/")[1].split("\n", 1)[1]
    (tmp_path / "saved.txt").write_text(f"{rest}\n{printed(8)}")
    rows = taken(tmp_path / "saved.txt").frame("updates").to_dicts()
    assert [(row["update"], row["total_loss"]) for row in rows] == [(7, 7.0), (8, 8.0)]
    (tmp_path / "alone.txt").write_text(rest)
    assert [row["total_loss"] for row in taken(tmp_path / "alone.txt").frame("updates").to_dicts()] == [7.0]


def test_an_old_baselines_table_has_the_names_of_its_file() -> None:
    names = {"approxkl": 0.5, "explained_variance": math.nan, "nupdates": 3, "ep_rewmean": -2, "total_timesteps": 64}
    (cells,) = records("\n".join(f"| {name} | {value} |" for name, value in names.items()))
    assert math.isnan(cells.pop("misc/explained_variance"))
    assert cells == {"loss/approxkl": 0.5, "misc/nupdates": 3, "eprewmean": -2, "misc/total_timesteps": 64}


def test_a_name_that_is_cut_counts_where_only_one_name_begins_so() -> None:
    understood = text(
        "| train/ | |\n|    policy_gradi... | 0.5 |\n|    clip_... | 0.2 |\n|    my_own_met... | 1 |\n|    loss | 2 |"
    )
    assert [record.cells for record in understood.records] == [{"train/policy_gradient_loss": 0.5, "train/loss": 2}]
    assert understood.cut_names == ["train/clip_...", "train/my_own_met..."]


def test_numbers_at_a_cut_are_left_out() -> None:
    assert records("| train/ | |\n|    loss | 0.5 |\n|    std | 0.2") == [{"train/loss": 0.5}]
    understood = text("{'loss': 0.5, 'kl': 0.1}\n{'loss': 0.25, 'kl': 0.00")
    assert [record.cells for record in understood.records] == [{"loss": 0.5, "kl": 0.1}, {"loss": 0.25}]
    assert understood.cut == 1


def test_an_evaluation_is_of_the_step_before_it_and_a_list_of_numbers_is_none() -> None:
    printed = (
        "{'loss': 0.5, 'epoch': 0.1}\n{'eval_loss': 0.7, 'epoch': 0.1}\n{'loss': 0.4, 'sizes': [1, 2], 'epoch': 0.2}"
    )
    assert records(printed) == [{"loss": 0.5, "epoch": 0.1, "eval_loss": 0.7}, {"loss": 0.4, "epoch": 0.2}]


def test_a_block_of_rsl_rl_without_its_first_lines_is_of_the_iteration_before() -> None:
    printed = PRINTED["rsl_rl"]([{"Loss/surrogate": 0.5}, {"Loss/surrogate": 0.25}]).replace(
        "iteration 1/", "iteration 12/"
    )
    understood = text(printed.split("\n", 2)[2])
    import_console._complete_first(*understood.records)
    assert [(record.step, record.cells["Loss/surrogate"]) for record in understood.records] == [(11, 0.5), (12, 0.25)]


def test_results_of_rllib_are_nested_by_their_indents() -> None:
    lines = ("  date: 2026-01-01", "  info:", "    learner:", "      learner_stats:", "        kl: 0.5")
    printed = "\n".join(["Result for PPO_a_1:", *lines, "  training_iteration: 3"])
    (record,) = text(printed).records
    assert (record.form, record.run) == (PrintedForm.RLLIB, "PPO_a_1")
    assert record.cells == {"info/learner/learner_stats/kl": 0.5, "training_iteration": 3}
    table = (
        "| Trial name | status | iter | ts | reward |\n|---+---+---+---+---|\n| PPO_a_1 | RUNNING | 3 | 4000 | 22.5 |"
    )
    assert records(table) == [{"training_iteration": 3, "timesteps_total": 4000, "episode_reward_mean": 22.5}]


OLDEST_RLLIB = """episode_reward_mean: -819.93
info:
  default:
    cur_lr: 4.999999873689376e-05
    kl: 0.012007000856101513
    vf_loss: 132067.53125
timesteps_total: 108000
training_iteration: 27
"""


def test_results_of_rllib_before_0_7_are_of_policy_default(taken: Taken, tmp_path: Path) -> None:
    (tmp_path / "saved.txt").write_text(OLDEST_RLLIB)
    (row,) = taken(tmp_path / "saved.txt").frame("updates").to_dicts()
    assert (row["update"], row["kl_k3"], row["value_loss"]) == (26, 0.012007000856101513, 132067.53125)
    assert (row["env_steps"], row["episode_return_mean"]) == (108000, -819.93)


def test_the_statistics_that_a_learner_of_rllib_prints_are_its_updates(taken: Taken, tmp_path: Path) -> None:
    learner = {"cur_lr": 5e-05, "total_loss": 0.25, "policy_loss": -0.02, "vf_loss": 0.5, "kl": 0.0163, "entropy": 1.37}
    (tmp_path / "saved.txt").write_text(f"{ {'learner_stats': learner} }\n" * 2)
    rows = taken(tmp_path / "saved.txt").frame("updates").to_dicts()
    assert [(row["kl_k3"], row["learning_rate"], row["total_loss"]) for row in rows] == [(0.0163, 5e-05, 0.25)] * 2


def test_a_surrogate_loss_alone_is_no_block_of_rsl_rl(tmp_path: Path) -> None:
    lines = ("** Iteration {} **", "KL between old and new distribution: 0.01", "Entropy: 1.5", "Surrogate loss: -0.1")
    (tmp_path / "saved.txt").write_text("\n".join(line.format(k) for k in range(3) for line in lines))
    with pytest.raises(UsageError, match="is a log of TRPO"):
        read_source(tmp_path / "saved.txt")


def test_a_share_in_percent_is_a_fraction() -> None:
    printed = "Iter 1/2 | Mean Reward: 5.0 | clip: 6.5%\nIter 2/2 | Mean Reward: 7.0 | clip: 0.5%"
    assert [record["clip"] for record in records(printed)] == [0.065, 0.005]


def test_a_table_of_a_notebook_with_few_columns_is_trl_s(taken: Taken, tmp_path: Path) -> None:
    (tmp_path / "saved.txt").write_text("Step | Training Loss | reward | reward_std | kl\n-- | -- | -- | -- | --\n"
                                        "1 | -0.5 | 2.5 | 1.5 | nan\n2 | -0.25 | 3.5 | 1.25 | nan\n")  # fmt: skip
    rows = taken(tmp_path / "saved.txt").frame("updates").to_dicts()
    assert [(row["total_loss"], row["episode_return_mean"]) for row in rows] == [(-0.5, 2.5), (-0.25, 3.5)]


def test_an_entropy_that_begins_at_0_has_no_share(command: Command, tmp_path: Path) -> None:
    head = "Step | Training Loss | reward | reward_std | kl | entropy\n"
    rows = [f"{k} | -0.5 | 2.5 | 1.5 | 0.1 | {'0' if k < 2 else 'No Log'}\n" for k in range(1, 6)]
    (tmp_path / "saved.txt").write_text(head + "".join(rows))
    told = command("diagnose", tmp_path / "saved.txt")
    assert told.code == 0
    assert "GRPO or RLOO" in told.out
    assert "NaN" not in told.out


def test_a_table_of_a_notebook_has_the_names_of_trl() -> None:
    (record,) = text("Step\tTraining Loss\treward\tcompletions / mean_length\n10\t0.5\tNo Log\t99.5").records
    assert (record.form, record.step) == (PrintedForm.DICTIONARY, 10)
    assert record.cells == {"loss": 0.5, "completions/mean_length": 99.5}


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        (b"hello\nworld 5 times\n", "the first line not understood: line 1: 'hello'"),
        (b" \n", "is empty"),
        (b"\0\1\2" * 100, "is not text"),
        (b"Result for a:\n  training_iteration: 1\nResult for b:\n  training_iteration: 1", "2 trainings: a, b"),
        (b"| rollout/ | |\n|    ep_rew_mean | 1 |\n| time/ | |\n|    iterations | 1 |", "holds no update"),
        (b"lines: 5\nwords: 7\n", "none that is known"),
    ],
)  # fmt: skip
def test_text_that_tells_nothing_of_a_training_is_refused(tmp_path: Path, printed: bytes, words: str) -> None:
    (tmp_path / "saved.out").write_bytes(printed)
    with pytest.raises(UsageError) as refused:
        read_source(tmp_path / "saved.out")
    assert words in f"{refused.value.message} {refused.value.hint}"


def test_lines_of_ml_agents_are_updates_with_their_returns(taken: Taken, tmp_path: Path) -> None:
    line = "[INFO] Ball. Step: {}. Time Elapsed: 20.1 s. Mean Reward: {}. Std of Reward: 0.7. Training.\n"
    (tmp_path / "saved.log").write_text("".join(line.format(1000 * k, k / 2) for k in range(4)))
    rows = taken(tmp_path / "saved.log").frame("updates").to_dicts()
    assert [(row["env_steps"], row["episode_return_mean"]) for row in rows] == [
        (0, 0.0),
        (1000, 0.5),
        (2000, 1.0),
        (3000, 1.5),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_rows_of_a_file_are_read_as_that_file(taken: Taken, tmp_path: Path, kind: str, encoding: str) -> None:
    rows = [row for _, row in sb3_rows(6)]
    printed = write_csv(tmp_path / "history.csv", rows).read_text()
    if kind == "jsonl":
        printed = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "saved.txt").write_bytes(f"\n{printed}".encode(encoding))
    assert taken(tmp_path / "saved.txt").frame("updates")["total_loss"].to_list() == [10.0, 11.0, 12.0, 13.0, 14.0]


def test_a_line_that_is_too_long_is_left_out_and_counted(taken: Taken, tmp_path: Path) -> None:
    (tmp_path / "saved.log").write_text("{'loss': " * 100_000 + "\n" + SB3)
    run = taken(tmp_path / "saved.log")
    assert run.frame("updates").height == 5
    assert "1 × line of more than 256 KiB" in run.frame("losses_of_data").filter(kind="unread_line")["detail"][0]


def test_import_and_diagnose_read_standard_input(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paste() -> None:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(SB3.encode()), isatty=lambda: True))

    paste()
    said = command("import", "-", "--out", tmp_path / "run")
    assert said.code == 0
    assert "5 updates from console, Stable-Baselines3" in said.out
    assert "paste what the training printed" in said.err
    paste()
    told = command("diagnose", "-")
    assert told.code == 0
    assert told.out.startswith("log: Stable-Baselines3")
    assert "esper-analyze import - --out RUN" in told.out
    paste()
    assert command("import", "-", "--out", tmp_path / "other", "--format", "sb3").code == 2
