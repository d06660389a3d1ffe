"""Writes the cases of tools that were not run: ``python -m tests.interchange.corpus.make.written``.

The names, the files and the way a line looks are those of the tools' own loggers, read in their public source; the
numbers come from a generator, with one fault at a stated update.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from esper_analyze.interchange.event_file import event_file
from tests.interchange.corpus import ROOT
from tests.interchange.corpus.make.collect import SOUND, Collection, Diagnosis, Names, event_name, refused, sound

Row = dict[str, float]


def curves(updates: int, seed: int, fault: Diagnosis = SOUND) -> dict[str, list[float]]:
    """Return the numbers of a PPO training that learns: by kind, one an update; and what ``fault`` makes of them."""
    random = np.random.default_rng(seed)
    share = np.linspace(0, 1, updates)

    def noisy(level: np.ndarray, spread: float) -> np.ndarray:
        return level * (1 + spread * random.standard_normal(updates))

    kind = {
        "kl": np.abs(noisy(np.full(updates, 0.008), 0.3)),
        "clip": np.abs(noisy(np.full(updates, 0.09), 0.25)),
        "entropy": noisy(1.38 - 0.7 * share, 0.01),
        "policy_loss": noisy(np.full(updates, -0.012), 0.3),
        "value_loss": np.abs(noisy(4.0 - 3.2 * share, 0.15)),
        "explained": np.clip(noisy(0.95 - 0.9 * np.exp(-5 * share), 0.03), -1, 0.99),
        "return": noisy(20 + 160 * share, 0.04),
        "length": noisy(20 + 160 * share, 0.04),
        "rate": 3e-4 * (1 - share) + 1e-6,
        "gradient": np.abs(noisy(np.full(updates, 0.6), 0.2)),
    }
    start = fault.first_broken or 0
    broken = random.standard_normal(updates - start)
    if fault.fault == "kl_too_high":
        kind["kl"][start:] = 0.9 + 0.2 * np.abs(broken)
        kind["clip"][start:] = 0.7 + 0.02 * broken
    elif fault.fault == "policy_dead":
        kind["entropy"][start:] = 1e-5 * np.abs(broken)
        kind["kl"][start:] = kind["clip"][start:] = 0.0
        kind["return"][start:] = kind["length"][start:] = 9.3 + 0.1 * broken
    elif fault.fault == "critic_never_learns":
        kind["explained"] = 0.01 * random.standard_normal(updates)
        kind["value_loss"] = np.abs(noisy(np.full(updates, 40.0), 0.1))
    elif fault.fault == "nan":
        for name in ("kl", "policy_loss", "value_loss", "entropy", "gradient"):
            kind[name][start:] = np.nan
    elif fault.fault == "return_fell":
        kind["kl"][start - 4 : start] = 0.4
        kind["return"][start:] = kind["length"][start:] = 25 + broken
    return {name: [float(f"{number:.8g}") for number in numbers] for name, numbers in kind.items()}


def rows(names: Mapping[str, str], updates: int, seed: int, fault: Diagnosis) -> list[Row]:
    """Return one row an update: a name of the tool to the kind of number it stands for."""
    kind = curves(updates, seed, fault)
    return [{name: kind[source][update] for name, source in names.items()} for update in range(updates)]


def keep(
    collection: Collection,
    case: str,
    text: str | bytes,
    diagnosis: Diagnosis,
    split: str,
    names: Names | None,
    update_of: Callable[[str, int], int] = lambda _, index: index,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / Path(case).name
        source.write_bytes(text if isinstance(text, bytes) else text.encode())
        collection.keep([(source, case)], case, diagnosis, split=split, names=names, update_of=update_of)


def events(table: Iterable[Mapping[str, float]], step: int) -> bytes:
    """Return an event file with a row each ``step`` steps."""
    written = [((index + 1) * step, 1.7e9 + index, list(row.items())) for index, row in enumerate(table)]
    return event_file(written, 1.7e9)


def table_text(table: list[Row]) -> str:
    lines = [",".join(table[0])] + [",".join(repr(cell) for cell in row.values()) for row in table]
    return "\n".join(lines) + "\n"


def high(update: int) -> Diagnosis:
    return Diagnosis("kl_too_high", f"KL divergence near 1 and clip fraction 0.7 from update {update} on", update)


def dead(update: int) -> Diagnosis:
    return Diagnosis("policy_dead", f"entropy 0, no change of the policy, low return from update {update} on", update)


def nan(update: int) -> Diagnosis:
    return Diagnosis("nan", f"losses and gradients are NaN from update {update} on", update)


FLAT = Diagnosis("critic_never_learns", "explained variance stays at 0, value loss does not fall", 0)


def verl() -> None:
    tool = Collection("verl", "0.5 (names)", "written")
    names = {
        "actor/entropy": "entropy",
        "actor/pg_loss": "policy_loss",
        "actor/pg_clipfrac": "clip",
        "actor/ppo_kl": "kl",
        "actor/grad_norm": "gradient",
        "actor/lr": "rate",
        "critic/vf_explained_var": "explained",
        "critic/vf_loss": "value_loss",
        "critic/score/mean": "return",
        "critic/rewards/mean": "return",
        "response_length/mean": "length",
        "response_length/max": "length",
    }
    cells = {
        "actor/ppo_kl": "kl_k1",
        "actor/entropy": "entropy",
        "actor/pg_clipfrac": "clip_fraction",
        "actor/pg_loss": "policy_loss",
        "actor/grad_norm": None,
    }
    for case, fault, split in (("sound", SOUND, "tune"), ("kl", high(22), "held")):
        table = rows(names, 40, len(case), fault)
        lines = []
        for index, row in enumerate(table):
            parts = [f"step:{index + 1}", "training/epoch:0", *(f"{name}:{number}" for name, number in row.items())]
            lines.append("(TaskRunner pid=1) " + " - ".join(parts))
        keep(tool, f"{case}_console/console.txt", "\n".join(lines) + "\n", fault, split, cells)
    fault = nan(17)
    table = rows(names, 30, 9, fault)
    text = "".join(json.dumps({"step": index + 1, "data": row}) + "\n" for index, row in enumerate(table))
    keep(
        tool, "nan_jsonl/metrics.jsonl", text, fault, "held", {f"data/{name}": column for name, column in cells.items()}
    )


def ml_agents() -> None:
    tool = Collection("ml-agents", "1.1 (names)", "written")
    names = {
        "Environment/Cumulative Reward": "return",
        "Environment/Episode Length": "length",
        "Losses/Policy Loss": "gradient",
        "Losses/Value Loss": "value_loss",
        "Policy/Entropy": "entropy",
        "Policy/Extrinsic Value Estimate": "return",
        "Policy/Learning Rate": "rate",
    }
    cells = {
        "Policy/Entropy": "entropy",
        "Losses/Value Loss": "value_loss",
        "Policy/Learning Rate": "learning_rate",
        "Environment/Cumulative Reward": "episode_return_mean",
    }
    fell = Diagnosis("return_fell", "the return falls at update 30 and stays low", 30)
    for case, fault, split in (("sound", SOUND, "held"), ("dead", dead(28), "tune"), ("fell", fell, "held")):
        table = [row | {"Policy/Epsilon": 0.2, "Policy/Beta": 0.005} for row in rows(names, 50, len(case), fault)]
        keep(tool, f"{case}/{event_name()}", events(table, 10000), fault, split, cells)
    gauges = {
        f"Ball.{name.replace('/', '.').replace(' ', '')}.mean": {
            "value": number,
            "min": number,
            "max": number,
            "count": 50,
        }
        for name, number in rows(names, 50, 5, SOUND)[-1].items()
    }
    timers = {
        "name": "root",
        "gauges": gauges,
        "total": 60.0,
        "count": 1,
        "self": 0.1,
        "metadata": {"timer_format_version": "0.1.0"},
    }
    why = sound("the last numbers alone: there is no series in it")
    keep(tool, "timers/timers.json", json.dumps(timers, indent=4), why, "held", None)


BASELINES = {
    "loss/approxkl": "kl",
    "loss/clipfrac": "clip",
    "loss/policy_entropy": "entropy",
    "loss/policy_loss": "policy_loss",
    "loss/value_loss": "value_loss",
    "misc/explained_variance": "explained",
    "eprewmean": "return",
    "eplenmean": "length",
}
BASELINES_CELLS = {
    "loss/approxkl": "kl_k2",
    "loss/clipfrac": "clip_fraction",
    "loss/policy_entropy": "entropy",
    "misc/explained_variance": "explained_variance",
    "loss/value_loss": "value_loss",
    "eprewmean": "episode_return_mean",
}


def counted(table: list[Row], prefix: str, updates: str, batch: int = 2048) -> list[Row]:
    """Add the counters of baselines to each row."""
    return [
        {f"{prefix}{updates}": index + 1, f"{prefix}total_timesteps": (index + 1) * batch, "fps": 1000} | row
        for index, row in enumerate(table)
    ]


def baselines() -> None:
    tool = Collection("baselines", "0.1.6 (names)", "written")
    cases = (("sound", SOUND, "tune"), ("kl", high(20), "held"), ("critic", FLAT, "tune"), ("dead", dead(24), "held"))
    for case, fault, split in cases:
        table = counted(rows(BASELINES, 45, len(case), fault), "misc/", "nupdates")
        keep(tool, f"{case}/progress.csv", table_text(table), fault, split, BASELINES_CELLS)
    plain = {name.rpartition("/")[2]: source for name, source in BASELINES.items()}
    cells = {name.rpartition("/")[2]: column for name, column in BASELINES_CELLS.items()}
    table = counted(rows(plain, 45, 11, nan(19)), "", "nupdates")
    keep(tool, "nan_before_2018/progress.csv", table_text(table), nan(19), "tune", cells)
    procgen = Collection("procgen", "0.9 (names of baselines)", "written")
    table = counted(rows(BASELINES | {"eval_eprewmean": "return"}, 45, 12, SOUND), "misc/", "nupdates", 16384)
    keep(procgen, "sound/progress.csv", table_text(table), SOUND, "held", BASELINES_CELLS)
    a2c = {"policy_entropy": "entropy", "value_loss": "value_loss", "explained_variance": "explained"}
    table = counted(rows(a2c, 30, 13, SOUND), "", "nupdates")
    keep(tool, "a2c/progress.csv", table_text(table), refused("A2C"), "held", None)


def stable_baselines_2() -> None:
    tool = Collection("stable-baselines2", "2.10 (names)", "written")
    names = {
        "approxkl": "kl",
        "clipfrac": "clip",
        "ep_len_mean": "length",
        "ep_reward_mean": "return",
        "explained_variance": "explained",
        "policy_entropy": "entropy",
        "policy_loss": "policy_loss",
        "value_loss": "value_loss",
    }
    cells = {
        "approxkl": "kl_k2",
        "clipfrac": "clip_fraction",
        "policy_entropy": "entropy",
        "explained_variance": "explained_variance",
        "ep_reward_mean": "episode_return_mean",
    }
    for case, fault, split in (("sound", SOUND, "held"), ("kl", high(18), "tune")):
        table = counted(rows(names, 40, len(case), fault), "", "n_updates", 512)
        keep(tool, f"{case}/progress.csv", table_text(table), fault, split, cells)


def phasic() -> None:
    tool = Collection("phasic", "1 (names)", "written")
    names = {
        "EpRewMean": "return",
        "EpLenMean": "length",
        "Opt/approxkl": "kl",
        "Opt/clipfrac": "clip",
        "Opt/entropy": "entropy",
        "Opt/pg": "policy_loss",
        "Opt/loss_vf": "value_loss",
        "VFStats/EV": "explained",
    }
    cells = {
        "Opt/clipfrac": "clip_fraction",
        "Opt/entropy": "entropy",
        "VFStats/EV": "explained_variance",
        "EpRewMean": "episode_return_mean",
    }
    for case, fault, split in (("sound", SOUND, "tune"), ("critic", FLAT, "held")):
        table = rows(names, 45, len(case), fault)
        table = [row | {"Iter": index, "IPS_total": 8000.0} for index, row in enumerate(table)]
        keep(tool, f"{case}/progress.csv", table_text(table), fault, split, cells)


def pufferlib() -> None:
    tool = Collection("pufferlib", "3.0 (names)", "written")
    names = {
        "learning_rate": "rate",
        "environment/episode_return": "return",
        "environment/episode_length": "length",
        "losses/policy_loss": "policy_loss",
        "losses/value_loss": "value_loss",
        "losses/entropy": "entropy",
        "losses/old_approx_kl": "kl",
        "losses/approx_kl": "kl",
        "losses/clipfrac": "clip",
        "losses/explained_variance": "explained",
    }
    cells = {
        "losses/approx_kl": "kl_k3",
        "losses/clipfrac": "clip_fraction",
        "losses/entropy": "entropy",
        "losses/value_loss": "value_loss",
        "losses/explained_variance": "explained_variance",
    }
    for case, fault, split in (("sound", SOUND, "held"), ("kl", high(21), "tune")):
        table = [
            row | {"losses/importance": 1.0, "SPS": 90000.0, "agent_steps": (index + 1) * 8192, "epoch": index + 1}
            for index, row in enumerate(rows(names, 40, len(case), fault))
        ]
        keep(tool, f"{case}/{event_name()}", events(table, 8192), fault, split, cells)


def sample_factory() -> None:
    tool = Collection("sample-factory", "2.1 (names)", "written")
    names = {
        "train/kl_divergence": "kl",
        "train/fraction_clipped": "clip",
        "train/entropy": "entropy",
        "train/policy_loss": "policy_loss",
        "train/value_loss": "value_loss",
        "train/grad_norm": "gradient",
        "train/lr": "rate",
        "reward/reward": "return",
        "len/len": "length",
    }
    cells = {
        "train/fraction_clipped": "clip_fraction",
        "train/entropy": "entropy",
        "train/value_loss": "value_loss",
        "train/lr": "learning_rate",
    }
    for case, fault, split in (("sound", SOUND, "tune"), ("nan", nan(23), "held")):
        table = rows(names, 40, len(case), fault)
        keep(tool, f"{case}/{event_name()}", events(table, 4096), fault, split, cells)


def odd_files() -> None:
    """Write files that hold little or nothing, and what a crash leaves, out of recorded logs."""
    tool = Collection("stable-baselines3", "2.9.2")
    keep(tool, "empty/progress.csv", "", Diagnosis("refused", "an empty file", None), "tune", None)
    recorded = ROOT / "stable_baselines3"
    header = (recorded / "cartpole/progress.csv").read_text().partition("\n")[0]
    keep(
        tool,
        "header_only/progress.csv",
        header + "\n",
        Diagnosis("refused", "a header without rows", None),
        "held",
        None,
    )
    whole = (recorded / "annealed" / event_name()).read_bytes()
    names = {"train/approx_kl": "kl_k3_last_epoch", "train/value_loss": "value_loss"}
    why = sound("the file ends within a record, as that of a killed training does")
    keep(tool, f"cut/{event_name()}", whole[: len(whole) * 3 // 5 + 7], why, "tune", names)


def folders() -> None:
    """Put recorded files together to folders: a restarted training, several runs, both files of one run."""
    tool = Collection("stable-baselines3", "2.9.2")
    recorded = ROOT / "stable_baselines3"
    names = {"train/approx_kl": "kl_k3_last_epoch", "train/explained_variance": "explained_variance"}
    cut = (recorded / "cut" / event_name()).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "first", Path(folder) / "second"
        first.write_bytes(cut)
        second.write_bytes(_later(recorded / "annealed" / event_name(), 20))
        files = [(first, f"restarted/{event_name(0)}"), (second, f"restarted/{event_name(1)}")]
        why = sound("a training that was killed and resumed from an older checkpoint: the steps of both files overlap")
        tool.keep(files, "restarted", why, split="tune", names=names, updates=39)
    sources = ("rate_too_large_reach", "log_interval_events")
    files = [(recorded / name / event_name(), f"several_runs/{name}/{event_name()}") for name in sources]
    why = sound("two runs, each in a folder of its own: a learning rate too large, a sound one")
    tool.keep(files, "several_runs", why, split="held", runs=2)
    files = [(recorded / name / event_name(), f"several_runs_flat/{event_name(i)}") for i, name in enumerate(sources)]
    why = sound("two runs that were logged into one folder: their steps start again at the same numbers")
    tool.keep(files, "several_runs_flat", why, split="tune", runs=2)
    files = [
        (recorded / "log_interval/progress.csv", "both_files/progress.csv"),
        (recorded / "log_interval_events" / event_name(), f"both_files/{event_name()}"),
    ]
    why = sound("event file and CSV of the same run: it is read once")
    tool.keep(files, "both_files", why, split="held", names=names, update_of=lambda _, index: 10 * index + 8)


def _later(path: Path, row: int) -> bytes:
    """Return the event file without its first rows, an hour later: what the second start of a training logs."""
    from esper_analyze.interchange.event_file import records, scalars

    by_step: dict[int, list[tuple[str, float]]] = {}
    walls: dict[int, float] = {}
    for payload in records(path.read_bytes()).payloads:
        for scalar in scalars(payload):
            by_step.setdefault(scalar.step, []).append((scalar.tag, scalar.value))
            walls[scalar.step] = scalar.wall_time + 3600
    later = sorted(by_step)[row:]
    return event_file([(step, walls[step], by_step[step]) for step in later], walls[later[0]])


if __name__ == "__main__":
    for write in (
        verl,
        ml_agents,
        baselines,
        stable_baselines_2,
        phasic,
        pufferlib,
        sample_factory,
        odd_files,
        folders,
    ):
        write()
