"""The one door from the analysis side to the recorder: what it hands on, and what it says when it cannot."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from stable_baselines3 import PPO
from torch import nn

import esper_analyze as ea
import recorder
from esper_analyze.record import Recorder, Rows, attach, td_errors
from tests.patience import PATIENCE
from tests.test_imports import loaded_after

ROOT = Path(__file__).parents[1]
NO_TORCH = "import sys; sys.modules['torch'] = None\n"


def said(code: str, folder: Path, *, blocked: str = "") -> str:
    """Run ``code`` as a script in ``folder``, where it must fail, and return the last line of its error."""
    script = folder / "training.py"
    script.write_text(f"{blocked}import sys; sys.path.append({str(ROOT)!r})\n{code}", encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


def test_the_door_hands_on_the_recorder_itself() -> None:
    assert Recorder is recorder.Recorder
    assert (Rows, td_errors) == (recorder.Rows, recorder.td_errors)


def test_the_door_loads_torch_only_when_it_is_used() -> None:
    assert not loaded_after("import esper_analyze.record, sys; dir(esper_analyze.record)") & {"torch", "recorder"}


@pytest.mark.parametrize(
    "code", ["import recorder", "from esper_analyze.record import Recorder", "from recorder.adapters import sb3"]
)
def test_without_torch_the_error_says_what_to_install(code: str, tmp_path: Path) -> None:
    line = said(code, tmp_path, blocked=NO_TORCH)
    assert line == "ModuleNotFoundError: recording needs torch: pip install 'esper-analyze[record]'"


def test_attach_without_torch_says_what_to_install(tmp_path: Path) -> None:
    code = """
from esper_analyze.record import attach
PPO = type("PPO", (), {"__module__": "stable_baselines3.ppo.ppo"})
attach(PPO(), "run")
"""
    assert said(code, tmp_path, blocked=NO_TORCH).endswith("pip install 'esper-analyze[record]'")


@pytest.mark.parametrize("name", ["recorder.py", "recorder/__init__.py"])
def test_a_file_that_hides_the_recorder_is_named(name: str, tmp_path: Path) -> None:
    hiding = tmp_path / name
    hiding.parent.mkdir(exist_ok=True)
    hiding.write_text("raise SystemExit(3)  # must not be run", encoding="utf-8")
    line = said("from esper_analyze.record import Recorder", tmp_path)
    assert line.startswith(f"ImportError: {hiding} hides the package recorder")
    assert "rename" in line


def test_a_script_called_recorder_is_told_of_itself(tmp_path: Path) -> None:
    script = tmp_path / "recorder.py"
    code = f"import sys; sys.path.append({str(ROOT)!r})\nfrom esper_analyze.record import Recorder"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert f"{script} hides the package recorder" in done.stderr.splitlines()[-1]


def test_attach_records_a_model_of_sb3(tmp_path: Path) -> None:
    model = PPO("MlpPolicy", gymnasium.make("CartPole-v1"), n_steps=32, batch_size=16, n_epochs=1, seed=1, device="cpu")
    with attach(model, tmp_path / "run", total_timesteps=64, heads="move") as rec:
        model.learn(64)
    assert isinstance(rec, Recorder)
    assert ea.open(tmp_path / "run").updates.height == 2


def test_attach_takes_a_class_derived_from_a_supported_one(tmp_path: Path) -> None:
    class Own(PPO):
        pass

    model = Own("MlpPolicy", gymnasium.make("CartPole-v1"), n_steps=32, batch_size=16, n_epochs=1, device="cpu")
    with attach(model, tmp_path / "run"):
        model.learn(32)
    assert ea.open(tmp_path / "run").last_update == 0


def test_attach_names_what_it_takes_when_it_is_given_something_else(tmp_path: Path) -> None:
    with pytest.raises(ea.EsperError, match=r"builtins.object is not of a supported framework") as caught:
        attach(object(), tmp_path / "run")
    for name in ("Stable-Baselines3", "skrl", "TorchRL", "Lightning", "Recorder"):
        assert name in caught.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": ["action"]}, "attach() has no argument 'head'; did you mean 'heads'?"),
        ({"total_timestep": 64}, "attach() has no argument 'total_timestep'; did you mean 'total_timesteps'?"),
        ({"lvel": "DEBUG"}, "attach() has no argument 'lvel'; did you mean 'level'?"),
        ({"sizes": {"action": 2}}, "attach() determines sizes itself, from the model: leave it out"),
        ({"total_env_steps": 64}, "attach() determines total_env_steps itself"),
        ({"total_timesteps": "many"}, "total_timesteps: 'many' is not a number"),
        ({"heads": ["a", "b"]}, "2 head names for an action space of 1 head: Discrete(2)"),
    ],
)
def test_options_that_attach_cannot_use_are_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    model = PPO("MlpPolicy", gymnasium.make("CartPole-v1"), n_steps=32, batch_size=16, n_epochs=1, seed=1, device="cpu")
    with pytest.raises((TypeError, ValueError), match=re.escape(words)), attach(model, tmp_path / "run", **options):
        pass
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ("model", "attach was given 'model' where the training is expected"),
        (Path("runs/first"), "attach was given 'runs/first' where the training is expected"),
        (PPO, "attach was given the class PPO: pass an instance of it"),
        (nn.Linear(3, 4), "Linear is not of a supported framework: a network alone has no training loop to attach to"),
        (3, "builtins.int is not of a supported framework"),
    ],
)
def test_attach_says_what_it_was_given_and_what_it_takes(training: object, words: str) -> None:
    with pytest.raises(ea.EsperError, match=re.escape(words)) as refused:
        attach(training, "run")
    assert "attach takes a PPO, RecurrentPPO or MaskablePPO" in refused.value.hint
