"""A tiny hand-written PPO loop on random data: three heads, one optimizer, everything known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from recorder import Recorder

SIZES = {"op": 4, "slot": 3, "style": 2}


class LoopAgent(nn.Module):
    """Body, one linear layer per head, and a critic."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 8)
        self.heads = nn.ModuleDict({name: nn.Linear(8, size) for name, size in SIZES.items()})
        self.critic = nn.Linear(8, 1)

    def forward(self, x: Tensor, masks: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        hidden = torch.tanh(self.body(x))
        logits = {}
        for name, head in self.heads.items():
            raw = torch.where(masks[name], head(hidden), torch.tensor(-1e8))
            logits[name] = raw - raw.logsumexp(-1, keepdim=True)
        return logits, self.critic(hidden).squeeze(-1)


@dataclass
class Loop:
    """Makes rollouts and updates; the fields switch faults on."""

    seed: int = 0
    samples: int = 32
    minibatches: int = 2
    epochs: int = 2
    clip: bool = True
    step: bool = True
    detach_head: str | None = None
    only_choice: tuple[str, ...] = ("style",)
    scaler: torch.amp.GradScaler | None = None
    unscale: bool = True  # before the clip
    agent: LoopAgent = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.agent = LoopAgent()
        self.optimizer = torch.optim.Adam(self.agent.parameters(), lr=1e-2)
        self.random = torch.Generator().manual_seed(self.seed)

    def recorder(self, run_dir: Any, **options: Any) -> Recorder:
        heads = {name: self.agent.heads[name] for name in SIZES}
        groups = {"actor": self.agent.heads, "critic": self.agent.critic, "shared": self.agent.body}
        usual: dict[str, Any] = {"strict": True, "total_updates": 20, "groups": groups}
        return Recorder(run_dir, self.agent, heads=heads, **(usual | options))

    def rollout(self) -> dict[str, Any]:
        x = torch.randn(self.samples, 5, generator=self.random)
        masks = {}
        for name, size in SIZES.items():
            mask = torch.rand(self.samples, size, generator=self.random) < 0.7
            mask[:, 0] = True
            if name in self.only_choice:
                mask[:, 1:] = False
            masks[name] = mask
        with torch.no_grad():
            logits, values = self.agent(x, masks)
            actions = {
                name: torch.multinomial(one.exp(), 1, generator=self.random).squeeze(1) for name, one in logits.items()
            }
            old = {name: logits[name].gather(1, actions[name][:, None]).squeeze(1) for name in SIZES}
        returns = values + torch.randn(self.samples, generator=self.random)
        return {"x": x, "masks": masks, "actions": actions, "old": old, "values": values, "returns": returns}

    def train(self, rec: Recorder | None, rollout: dict[str, Any]) -> None:
        """One update's inner loop."""
        advantages = rollout["returns"] - rollout["values"]
        size = self.samples // self.minibatches
        for epoch in range(self.epochs):
            for start in range(0, self.samples, size):
                self._minibatch(rec, rollout, advantages, slice(start, start + size), epoch)

    def _minibatch(self, rec: Recorder | None, rollout: Any, advantages: Tensor, part: slice, epoch: int) -> None:
        masks = {name: mask[part] for name, mask in rollout["masks"].items()}
        old = {name: one[part] for name, one in rollout["old"].items()}
        logits, values = self.agent(rollout["x"][part], masks)
        new = {name: one.gather(1, rollout["actions"][name][part, None]).squeeze(1) for name, one in logits.items()}
        entropy = {name: -(one.exp() * one).sum(-1) for name, one in logits.items()}
        if self.detach_head is not None:
            new[self.detach_head] = new[self.detach_head].detach()
            entropy[self.detach_head] = entropy[self.detach_head].detach()
        ratio = (sum(new.values()) - sum(old.values())).exp()
        policy_loss = -torch.min(ratio * advantages[part], ratio.clamp(0.8, 1.2) * advantages[part]).mean()
        value_loss = (values - rollout["returns"][part]).square().mean()
        loss = policy_loss + 0.5 * value_loss - 0.01 * sum(entropy.values()).mean()
        if rec is not None:
            rec.minibatch(
                log_prob=new,
                old_log_prob=old,
                entropy=entropy,
                masks=masks,
                clip_range=0.2,
                policy_loss=policy_loss,
                value_loss=value_loss,
                loss=loss,
                values=values,
                epoch=epoch,
            )
        self.optimizer.zero_grad()
        self._backward(loss)
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.agent.parameters(), 0.5)
        if self.step and self.scaler is None:
            self.optimizer.step()
        elif self.step and self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def _backward(self, loss: Tensor) -> None:
        if self.scaler is None:
            loss.backward()
            return
        scaled = self.scaler.scale(loss)
        assert isinstance(scaled, Tensor)
        scaled.backward()
        if self.unscale:
            self.scaler.unscale_(self.optimizer)

    def update(self, rec: Recorder | None, **given: Any) -> dict[str, Any]:
        """Roll out, train, end the update; return the rollout."""
        rollout = self.rollout()
        self.train(rec, rollout)
        if rec is not None:
            rec.update(
                values=rollout["values"],
                returns=rollout["returns"],
                advantages=rollout["returns"] - rollout["values"],
                masks=rollout["masks"],
                **given,
            )
        return rollout
