"""Records the cases of Stable-Baselines3: ``python -m tests.interchange.corpus.make.stable_baselines3 FOLDER``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.interchange.corpus.make.collect import SOUND, Collection, Diagnosis, event_files, event_name, refused, sound
from tests.interchange.corpus.make.environments import Cue, Reaching

TRAIN: dict[str, str | None] = {
    "train/approx_kl": "kl_k3_last_epoch",
    "train/clip_fraction": "clip_fraction",
    "train/explained_variance": "explained_variance",
    "train/value_loss": "value_loss",
    "train/entropy_loss": "entropy_loss",
}
ROLLOUT: dict[str, str | None] = {"rollout/ep_rew_mean": "episode_return_mean"}
SB3 = Collection("stable-baselines3", sb3.__version__)


class BrokenReward(gym.Wrapper[Any, Any, Any, Any]):
    """From a step on the reward is not a number."""

    def __init__(self, env: Any, step: int) -> None:
        super().__init__(env)
        self.left = step

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.left -= 1
        return observation, float("nan") if self.left <= 0 else reward, terminated, truncated, info


class From(BaseCallback):
    """Does something to the model once, before the rollout of an update."""

    def __init__(self, update: int, change: Callable[[Any], None]) -> None:
        super().__init__()
        self.left, self.change = update, change

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.left == 0:
            self.change(self.model)
        self.left -= 1


def faster(model: Any) -> None:
    """Set a learning rate 100 times as large."""
    rate = 100 * model.lr_schedule(1.0)
    model.lr_schedule = lambda _: rate


def one_action(model: Any) -> None:
    """Set the bias of the last layer so that one action is certain, as a bad restore or one huge step does."""
    with torch.no_grad():
        model.policy.action_net.weight.zero_()
        model.policy.action_net.bias.fill_(-60.0)[0] = 60.0


def no_gradients(model: Any) -> None:
    """Clip every gradient to nothing: no parameter moves any more."""
    model.max_grad_norm = 0.0
    for state in model.policy.optimizer.state.values():
        state["exp_avg"].zero_()


SETTINGS: dict[str, Any] = {
    "n_steps": 64,
    "batch_size": 64,
    "n_epochs": 6,
    "learning_rate": 2e-3,
    "gamma": 0.9,
    "max_grad_norm": 2.0,
    "seed": 1,
}
ENVS = 4


def cartpole() -> Any:
    """Return the environment of most trainings."""
    return gym.make("CartPole-v1")


def train(
    folder: Path,
    env: Callable[[], Any] = cartpole,
    *,
    updates: int = 40,
    callbacks: tuple[Any, ...] = (),
    log_interval: int = 1,
    algorithm: Any = sb3.PPO,
    policy: Any = "MlpPolicy",
    envs: int = ENVS,
    **settings: Any,
) -> Path:
    """Train with all of its own loggers; what the console shows goes to ``console.txt``. A crash ends the training."""
    folder.mkdir(parents=True)
    vector = DummyVecEnv([lambda index=index: Monitor(env(), str(folder / f"{index}")) for index in range(envs)])  # type: ignore[misc]
    options = SETTINGS | {"policy_kwargs": {"net_arch": [32, 32]}} | settings
    options = {name: value for name, value in options.items() if value is not None}
    model = algorithm(policy, vector, device="cpu", **options)
    with (folder / "console.txt").open("w") as console, contextlib.redirect_stdout(console):
        model.set_logger(configure(str(folder), ["csv", "tensorboard", "stdout"]))
        with contextlib.suppress(ValueError):
            steps = updates * envs * options["n_steps"] if "n_steps" in options else updates
            model.learn(steps, callback=CallbackList(list(callbacks)), log_interval=log_interval)
    vector.close()
    return folder


def csv(folder: Path, case: str, diagnosis: Diagnosis, split: str, **more: Any) -> None:
    path = f"{case}/progress.csv"
    SB3.keep([(folder / "progress.csv", path)], path, diagnosis, split=split, **{"names": TRAIN | ROLLOUT} | more)


def events(folder: Path, case: str, diagnosis: Diagnosis, split: str, **more: Any) -> None:
    path = f"{case}/{event_name()}"
    SB3.keep([(event_files(folder)[0], path)], path, diagnosis, split=split, **{"names": TRAIN | ROLLOUT} | more)


def console(folder: Path, case: str, diagnosis: Diagnosis, split: str, **more: Any) -> None:
    path = f"{case}/console.txt"
    SB3.keep([(folder / "console.txt", path)], path, diagnosis, split=split, **{"names": TRAIN | ROLLOUT} | more)


def sound_trainings(out: Path) -> None:
    folder = train(out / "cartpole", updates=40)
    csv(folder, "cartpole", SOUND, "tune")
    console(folder, "cartpole_console", SOUND, "held")
    files = [(folder / "0.monitor.csv", "monitor/0.monitor.csv")]
    SB3.keep(files, "monitor/0.monitor.csv", SOUND, split="tune")
    annealed: dict[str, Any] = {"learning_rate": lambda left: 2e-3 * left, "clip_range": lambda left: 0.2 * left}
    why = sound("clip range and learning rate are annealed to 0")
    names = TRAIN | {"train/clip_range": "clip_range", "train/learning_rate": "learning_rate"}
    events(train(out / "annealed", updates=40, **annealed), "annealed", why, "held", names=names)
    folder = train(out / "interval", updates=121, log_interval=10)
    why = sound("every tenth update is logged")
    csv(folder, "log_interval", why, "tune", update_of=interval)
    why = sound("every tenth update is logged, and nothing says which: they are numbered in order")
    events(folder, "log_interval_events", why, "held")
    small: dict[str, Any] = {"n_steps": 10, "envs": 1, "batch_size": 10, "learning_rate": 1e-3, "seed": 3}
    folder = train(out / "small", updates=150, **small)
    csv(folder, "ten_steps", sound("batches of ten steps"), "tune", names=TRAIN)
    small |= {"n_steps": 16, "batch_size": 16, "learning_rate": 4e-4, "seed": 4}
    folder = train(out / "small_reach", Reaching, updates=120, **small)
    csv(folder, "sixteen_steps", sound("batches of 16 steps"), "held", names=TRAIN)
    solved = sound("the task is solved: every return is 1, value loss tiny or 0, explained variance undefined")
    csv(train(out / "cue", Cue, updates=80, learning_rate=5e-3), "solved", solved, "held")
    events(train(out / "cue2", Cue, updates=40, learning_rate=3e-3, seed=5), "solved_events", solved, "tune")
    solved = sound("the task is solved: returns differ by next to nothing, explained variance is about 0 or far below")
    folder = train(out / "cue6", lambda: Cue(1e-4), updates=80, ent_coef=0.01, learning_rate=1e-2, seed=6)
    csv(folder, "solved_nearly", solved, "held")
    names = TRAIN | {"train/std": None}
    csv(train(out / "reach", Reaching, updates=50, learning_rate=1e-3), "reach", SOUND, "held", names=names)
    evaluate = EvalCallback(Monitor(cartpole()), eval_freq=300, n_eval_episodes=3, verbose=0)
    why = sound("evaluations write rows of their own in the middle of a rollout")
    csv(train(out / "evaluated", updates=40, callbacks=(evaluate,), seed=6), "evaluated", why, "held")


def interval(name: str, index: int) -> int:
    """Return the update of a row when every tenth is logged: what was trained is of the update before its rollout."""
    return 10 * index + (9 if name.startswith("rollout/") else 8)


def broken_trainings(out: Path) -> None:
    wrong = Diagnosis("kl_too_high", "learning rate 100 times too large from update 15 on", 15)
    folder = train(out / "rate", callbacks=(From(15, faster),))
    csv(folder, "rate_too_large", wrong, "tune")
    console(folder, "rate_too_large_console", wrong, "tune")
    wrong = Diagnosis("kl_too_high", "learning rate 100 times too large from update 20 on", 20)
    events(train(out / "rate2", Reaching, callbacks=(From(20, faster),), seed=2), "rate_too_large_reach", wrong, "held")
    wrong = Diagnosis("kl_too_high", "learning rate 100 times too large from the start", 0)
    csv(train(out / "rate3", updates=30, learning_rate=0.1, seed=7), "rate_too_large_always", wrong, "held")
    dead = "the policy takes one action only, entropy 0, from update {} on"
    wrong = Diagnosis("policy_dead", dead.format(18), 18)
    events(train(out / "dead", callbacks=(From(18, one_action),)), "policy_dead", wrong, "tune")
    wrong = Diagnosis("policy_dead", dead.format(12), 12)
    csv(train(out / "dead2", callbacks=(From(12, one_action),), seed=8), "policy_dead_2", wrong, "held")
    wrong = Diagnosis("critic_never_learns", "value coefficient 0: the critic is never trained", 0)
    csv(train(out / "critic", vf_coef=0.0, updates=150), "critic_never_learns", wrong, "tune")
    csv(train(out / "critic2", Reaching, vf_coef=0.0, updates=150, seed=9), "critic_never_learns_reach", wrong, "held")
    why = "the reward is NaN from update {} on; the training ends with an error in the update after it"
    for split, update, seed in (("tune", 20, 1), ("held", 9, 2)):
        env = lambda step=update * 64 + 8: BrokenReward(cartpole(), step)  # noqa: E731
        wrong = Diagnosis("nan", why.format(update), update)
        csv(train(out / f"nan{update}", env, seed=seed), f"nan_reward_{update}", wrong, split)
    wrong = Diagnosis("std_runaway", "entropy coefficient so large that the standard deviation runs away", 0)
    names = {"train/std": None} | TRAIN
    runaway: dict[str, Any] = {"ent_coef": 2.0, "learning_rate": 5e-3, "updates": 40}
    events(train(out / "std", Reaching, **runaway), "std_runaway", wrong, "tune", names=names)
    csv(train(out / "std2", Reaching, seed=11, **runaway), "std_runaway_2", wrong, "held", names=names)
    wrong = Diagnosis("no_longer_learns", "gradients are clipped to 0 from update 25 on: no parameter moves", 25)
    csv(train(out / "stopped", updates=60, callbacks=(From(25, no_gradients),)), "no_longer_learns_25", wrong, "tune")


def falls(out: Path) -> None:
    wrong = "the return falls after the KL divergence rose: learning rate {} times as large from update {} on"

    def larger(factor: float) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            rate = factor * model.lr_schedule(1.0)
            model.lr_schedule = lambda _: rate

        return change

    for split, factor, update, env in (("tune", 40, 40, cartpole), ("held", 50, 45, Reaching)):
        diagnosis = Diagnosis("return_fell", wrong.format(factor, update), update)
        folder = train(out / f"fall{update}", env, updates=90, callbacks=(From(update, larger(factor)),))
        csv(folder, f"return_fell_{update}", diagnosis, split)


def other_algorithms(out: Path) -> None:
    off_policy = {"learning_starts": 100, "train_freq": 4, "n_steps": None, "envs": 1}
    for name, env, split in (
        ("DQN", None, "tune"),
        ("SAC", Reaching, "held"),
        ("TD3", Reaching, "tune"),
        ("A2C", None, "held"),
    ):
        more: dict[str, Any] = {} if env is None else {"env": env}
        settings = (
            {"updates": 1500, "log_interval": 4, **off_policy} if name != "A2C" else {"n_steps": 5, "updates": 150}
        )
        folder = bare(out / name, getattr(sb3, name), log_interval=settings.pop("log_interval", 10), **settings, **more)
        csv(folder, name.lower(), refused(name), split, names=None)
        if name == "DQN":
            events(folder, "dqn_events", refused(name), "tune", names=None)


def bare(folder: Path, algorithm: Any, env: Any = cartpole, **settings: Any) -> Path:
    """Train another algorithm, which knows none of PPO's settings."""
    settings = {name: value for name, value in settings.items() if value is not None}
    folder.mkdir(parents=True)
    envs, updates, log_interval = settings.pop("envs", 4), settings.pop("updates"), settings.pop("log_interval")
    vector = DummyVecEnv([lambda: Monitor(env())] * envs)
    model = algorithm("MlpPolicy", vector, device="cpu", seed=1, policy_kwargs={"net_arch": [16, 16]}, **settings)
    model.set_logger(configure(str(folder), ["csv", "tensorboard"]))
    model.learn(updates * envs * settings.get("n_steps", 1), log_interval=log_interval)
    return folder


def parts(names: list[str]) -> Iterator[Callable[[Path], None]]:
    for part in (sound_trainings, broken_trainings, falls, other_algorithms):
        if not names or part.__name__ in names:
            yield part


if __name__ == "__main__":
    torch.set_num_threads(1)
    for record in parts(sys.argv[2:]):
        record(Path(sys.argv[1]) / record.__name__)
