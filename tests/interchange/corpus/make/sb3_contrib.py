"""Records the cases of sb3-contrib: ``python -m tests.interchange.corpus.make.sb3_contrib FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import sb3_contrib
import torch
from sb3_contrib import TRPO, MaskablePPO, RecurrentPPO
from sb3_contrib.common.wrappers import ActionMasker

from tests.interchange.corpus.make.collect import SOUND, Collection, Diagnosis, event_files, event_name, refused
from tests.interchange.corpus.make.environments import Choice, Reaching
from tests.interchange.corpus.make.stable_baselines3 import ROLLOUT, TRAIN, From, cartpole, faster, one_action, train

CONTRIB = Collection("sb3-contrib", sb3_contrib.__version__)


def _allowed(env: Any) -> Any:
    return np.asarray(env.unwrapped.allowed)


def masked() -> Any:
    """Return an environment that says which actions are allowed."""
    return ActionMasker(Choice(), _allowed)


def csv(folder: Path, diagnosis: Diagnosis, split: str, **more: Any) -> None:
    path = f"{folder.name}/progress.csv"
    CONTRIB.keep([(folder / "progress.csv", path)], path, diagnosis, split=split, **{"names": TRAIN | ROLLOUT} | more)


def events(folder: Path, diagnosis: Diagnosis, split: str) -> None:
    path = f"{folder.name}/{event_name()}"
    CONTRIB.keep([(event_files(folder)[0], path)], path, diagnosis, split=split, names=TRAIN | ROLLOUT)


def main(out: Path) -> None:
    maskable: dict[str, Any] = {"algorithm": MaskablePPO, "env": masked}
    csv(train(out / "maskable", **maskable), SOUND, "tune")
    fault = Diagnosis("kl_too_high", "learning rate 100 times too large from update 22 on", 22)
    folder = train(out / "maskable_rate_too_large", callbacks=(From(22, faster),), seed=2, **maskable)
    csv(folder, fault, "held")
    recurrent: dict[str, Any] = {"algorithm": RecurrentPPO, "policy": "MlpLstmPolicy"}
    recurrent |= {"updates": 36, "env": Reaching, "learning_rate": 1e-3}
    recurrent["policy_kwargs"] = {"net_arch": [16], "lstm_hidden_size": 16}
    events(train(out / "recurrent", **recurrent), SOUND, "held")
    recurrent |= {"env": cartpole, "updates": 30, "learning_rate": 2e-3}
    fault = Diagnosis("policy_dead", "the policy takes one action only, entropy 0, from update 14 on", 14)
    csv(train(out / "recurrent_policy_dead", callbacks=(From(14, one_action),), seed=3, **recurrent), fault, "tune")
    fault = Diagnosis("critic_never_learns", "value coefficient 0: the critic is never trained", 0)
    csv(train(out / "maskable_critic_never_learns", vf_coef=0.0, seed=4, updates=60, **maskable), fault, "tune")
    trpo: dict[str, Any] = {"algorithm": TRPO, "updates": 20, "n_epochs": None, "max_grad_norm": None}
    folder = train(out / "trpo", **trpo)
    csv(folder, refused("TRPO"), "tune", names=None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
