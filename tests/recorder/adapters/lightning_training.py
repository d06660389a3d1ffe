"""A small PPO as a ``LightningModule``: an epoch of the trainer is a rollout and the passes over it."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.utils.data import DataLoader

from recorder.adapters.lightning import attach, recorder_of

SAMPLES, BATCH, PASSES, ACTIONS, CLIP = 64, 32, 2, 3, 0.2
NAMES = (
    "log_prob",
    "old_log_prob",
    "entropy",
    "masks",
    "policy_loss",
    "value_loss",
    "entropy_loss",
    "epoch",
    "clip_range",
)


class SignBandit(LightningModule):
    """One-step episodes: the action that pays is told by the sign of what is seen. Masks leave one or more actions."""

    def __init__(self, learning_rate: float = 1e-2) -> None:  # noqa: ARG002 - kept by Lightning
        super().__init__()
        self.save_hyperparameters()
        self.actor = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, ACTIONS))
        self.critic = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        self.random = torch.Generator().manual_seed(1)
        self.rollout: dict[str, Tensor] = {}
        self.norms: list[float] = []
        self.fails_at: int | None = None

    def policy(self, batch: dict[str, Tensor]) -> Categorical:
        return Categorical(logits=torch.where(batch["mask"], self.actor(batch["x"]), -1e8))

    def train_dataloader(self) -> DataLoader[Any]:
        """Collect; return the minibatches of all passes."""
        x = torch.randn(SAMPLES, 4, generator=self.random)
        mask = torch.rand(SAMPLES, ACTIONS, generator=self.random) < 0.6
        mask[:, 0] = True
        with torch.no_grad():
            dist = self.policy({"x": x, "mask": mask})
            action = dist.sample()
            returns, values = (action == (x[:, 0] > 0).long()).float(), self.critic(x)[:, 0]
        self.rollout = {"x": x, "mask": mask, "action": action, "old": dist.log_prob(action), "returns": returns}
        self.values, self.returns, self.advantages = values, returns, returns - values
        self.rollout |= {"values": values, "advantages": self.advantages}
        minibatches = [
            {name: one[part] for name, one in self.rollout.items()} | {"pass": turn}
            for turn in range(PASSES)
            for part in torch.randperm(SAMPLES, generator=self.random).split(BATCH)
        ]
        return DataLoader(minibatches, batch_size=None)  # type: ignore[arg-type]

    def loss(self, batch: dict[str, Any]) -> dict[str, Any]:
        dist, values = self.policy(batch), self.critic(batch["x"])[:, 0]
        new, entropy = dist.log_prob(batch["action"]), dist.entropy()
        ratio = (new - batch["old"]).exp()
        clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
        policy_loss = -torch.min(ratio * batch["advantages"], clipped * batch["advantages"]).mean()
        value_loss, entropy_loss = (values - batch["returns"]).square().mean(), -entropy.mean()
        self.log("policy_loss", policy_loss)
        self.log("value_loss", value_loss)
        self.log("entropy", entropy.mean())
        self.log("clip_fraction", ((ratio - 1).abs() > CLIP).float().mean())
        self.log("kl_k3", ((ratio - 1) - (new - batch["old"])).mean())
        loss = policy_loss + 0.5 * value_loss + 0.01 * entropy_loss
        parts = (
            new,
            batch["old"],
            entropy,
            {"action": batch["mask"]},
            policy_loss,
            value_loss,
            entropy_loss,
            batch["pass"],
            CLIP,
        )
        return {"loss": loss} | dict(zip(NAMES, parts, strict=True))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:  # noqa: ARG002
        if self.global_step == self.fails_at:
            raise FloatingPointError("nothing left")
        return self.loss(batch)

    def on_after_backward(self) -> None:
        grads = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        self.norms.append(float(nn.utils.get_total_norm(grads)))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["learning_rate"])


class ByHand(SignBandit):
    """The same with manual optimisation."""

    hands_over = True

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.automatic_optimization = False

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:  # noqa: ARG002
        given = self.loss(batch)
        optimizer: Any = self.optimizers()
        rec = recorder_of(self.trainer)
        if rec is not None and self.hands_over:
            rec.minibatch(**given)
        optimizer.zero_grad()
        self.manual_backward(given["loss"])
        self.clip_gradients(optimizer, 0.5, "norm")
        optimizer.step()
        return given


class Kept(Callback):
    """Keeps what the module logged in each step."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.logged.append({name: float(one) for name, one in trainer.callback_metrics.items()})


@dataclass
class Fitted:
    module: SignBandit
    kept: Kept = field(default_factory=Kept)


def trainer(epochs: int, *callbacks: Callback, **options: Any) -> Trainer:
    """Return a silent trainer."""
    settings = {"gradient_clip_val": 0.5, "enable_checkpointing": False} | options
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        reload_dataloaders_every_n_epochs=1,
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def handed_over(module: Any) -> dict[str, Any]:
    """Return what ``Recorder.update`` is given."""
    given = {name: module.rollout[name] for name in ("values", "returns", "advantages")}
    return given | {"masks": {"action": module.rollout["mask"]}, "env_steps": SAMPLES * (module.current_epoch + 1)}


def train(
    run_dir: Path | None, kind: type[SignBandit] = SignBandit, *, epochs: int = 3, recording: Any = None, **options: Any
) -> Fitted:
    """Train, recorded into ``run_dir`` unless that is None."""
    torch.manual_seed(0)
    trained = Fitted(kind())
    fit = trainer(epochs, trained.kept, **options)
    given = {"rollout": handed_over, "sizes": {"action": ACTIONS}, "strict": True} | (recording or {})
    with nullcontext() if run_dir is None else attach(fit, trained.module, run_dir, **given), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice about workers, and what it calls deprecated
        fit.fit(trained.module)
    return trained
