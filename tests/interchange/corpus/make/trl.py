"""Records the cases of TRL: ``python -m tests.interchange.corpus.make.trl FOLDER``.

The model is a small one with random weights, made from its configuration: nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, set_seed
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from tests.interchange.corpus.make.collect import SOUND, Collection, Diagnosis, event_files, event_name, sound

NAMES = {
    "entropy": "entropy",
    "reward": None,
    "kl": None,
    "grad_norm": None,
    "clip_ratio/region_mean": "clip_fraction",
}
TRL = Collection("trl", trl.__version__)
WORDS = [f"w{index}" for index in range(28)]


def model_and_tokenizer(folder: Path, seed: int) -> tuple[Any, Any]:
    """Return a model of two layers, saved so that the reference model can be read again, and its tokenizer."""
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", "go", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    set_seed(seed)
    config = GPT2Config(vocab_size=len(vocabulary), n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=1,
                        eos_token_id=1, pad_token_id=0, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder / "model")
    fast.save_pretrained(folder / "model")
    return GPT2LMHeadModel.from_pretrained(folder / "model"), fast


class Words:
    """The reward: the share of words with a small number. From a call on it may be the same for all."""

    __name__ = "words"

    def __init__(self, constant_from: int | None) -> None:
        self.left = constant_from

    def __call__(self, completions: list[str], **_: Any) -> list[float]:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                return [0.0] * len(completions)
        words = [completion.split() for completion in completions]
        return [sum(word in WORDS[:10] for word in row) / max(len(row), 1) for row in words]


def train(
    folder: Path,
    *,
    algorithm: str = "grpo",
    updates: int = 28,
    factor: tuple[int, float] = (10**9, 1.0),
    constant_from: int | None = None,
    seed: int = 1,
    **arguments: Any,
) -> Path:
    """Train; from the update ``factor[0]`` on the learning rate is ``factor[1]`` times as large."""
    folder.mkdir(parents=True)
    trainer_class, config_class = (GRPOTrainer, GRPOConfig) if algorithm == "grpo" else (RLOOTrainer, RLOOConfig)
    model, tokenizer = model_and_tokenizer(folder, seed)
    settings: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 16,
        "num_generations": 4,
        "max_completion_length": 12,
        "max_steps": updates,
        "logging_steps": 1,
        "beta": 0.02,
        "report_to": "tensorboard",
        "disable_tqdm": True,
        "save_strategy": "no",
        "use_cpu": True,
        "seed": seed,
        "max_grad_norm": 1.0,
    }
    settings |= arguments
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor[1] if step >= factor[0] else 1.0)
    with (folder / "console.txt").open("w") as console, contextlib.redirect_stdout(console):
        trainer = trainer_class(
            model=model,
            args=config_class(**settings),
            processing_class=tokenizer,
            reward_funcs=Words(constant_from),
            train_dataset=Dataset.from_dict({"prompt": [f"go {word}" for word in WORDS]}),
            optimizers=(optimizer, schedule),
        )
        trainer.train()
        trainer.state.save_to_json(str(folder / "trainer_state.json"))
    return folder


def state(folder: Path, diagnosis: Diagnosis, split: str, names: Any = NAMES) -> None:
    path = f"{folder.name}/trainer_state.json"
    TRL.keep([(folder / "trainer_state.json", path)], path, diagnosis, split=split, names=names)


def console(folder: Path, diagnosis: Diagnosis, split: str, names: Any = NAMES) -> None:
    path = f"{folder.name}_console/console.txt"
    TRL.keep([(folder / "console.txt", path)], path, diagnosis, split=split, names=names)


def events(folder: Path, diagnosis: Diagnosis, split: str, names: Any = NAMES) -> None:
    path = f"{folder.name}_events/{event_name()}"
    names = {f"train/{name}": column for name, column in names.items()}
    TRL.keep([(event_files(folder)[0], path)], path, diagnosis, split=split, names=names)


def main(out: Path) -> None:
    folder = train(out / "grpo")
    state(folder, SOUND, "tune")
    console(folder, SOUND, "held")
    events(folder, SOUND, "held")
    why = sound("one iteration a generation: the clip ratio is 0 by construction; no reference, so no KL is logged")
    names = {name: column for name, column in NAMES.items() if name != "kl"}
    state(train(out / "grpo_no_reference", beta=0.0, seed=2), why, "held", names)
    wrong = (
        "learning rate 100 times too large from update {} on: the KL to the reference jumps, entropy falls to a fifth"
    )
    fault = Diagnosis("policy_dead", wrong.format(14), 15)
    folder = train(out / "grpo_rate_too_large", factor=(14, 100.0), seed=3)
    state(folder, fault, "tune")
    fault = Diagnosis("no_longer_learns", "every reward is 0 from update 15 on: no advantage, no gradient", 15)
    state(train(out / "grpo_no_reward", constant_from=15, seed=4, beta=0.0), fault, "held", names)
    rloo = {name: column for name, column in NAMES.items() if not name.startswith("clip")}
    folder = train(out / "rloo", algorithm="rloo", seed=5)
    state(folder, SOUND, "held", rloo)
    fault = Diagnosis("policy_dead", wrong.format(13), 14)
    folder = train(out / "rloo_rate_too_large", algorithm="rloo", factor=(13, 100.0), seed=6)
    state(folder, fault, "held", rloo)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
