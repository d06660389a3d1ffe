"""What the faults that are held back do to memory, parameters and optimizer, and to schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.faultbench.loop import LoopTraining
from tests.faultbench.training import Training

# A memory


def exchange_states(training: Training, _: int) -> None:
    """Begin each rollout with the memory of another environment."""
    training.change_state(lambda state: state.roll(1, 1))


def close_forget_gate(training: Training) -> None:
    """Push the second gate of each memory, which keeps the old state, towards 0."""
    with torch.no_grad():
        for one in training.network.modules():
            if isinstance(one, nn.LSTM | nn.GRU):
                size = one.hidden_size
                one.get_parameter("bias_ih_l0")[size : 2 * size] -= 6.0


def stop_gradient_in_time(training: Training) -> None:
    """Detach the state before each step."""
    assert isinstance(training, LoopTraining)
    assert training.agent.memory is not None

    def detached(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        x, state = given
        return x, tuple(one.detach() for one in state) if isinstance(state, tuple) else state.detach()

    training.agent.memory.register_forward_pre_hook(detached)


# Parameters and optimizer


def critic_head(training: Training) -> nn.Linear:
    """Return the layer that ends in the value."""
    heads = [one for name, one in training.network.named_modules() if name in ("critic", "value_net")]
    assert isinstance(heads[0], nn.Linear)
    return heads[0]


def lose_activations(training: Training) -> None:
    """Leave the body of the policy linear, as where a conversion drops what it does not know."""
    for layer in training.policy_body().modules():
        if isinstance(layer, nn.Tanh | nn.ReLU):
            layer.register_forward_hook(lambda _, given, __: given[0])


def quantise(training: Training) -> None:
    """Round each matrix to fifteen levels."""
    with torch.no_grad():
        for one in training.network.parameters():
            if one.dim() > 1:
                level = one.abs().max().clamp(min=1e-12) / 7
                one.copy_((one / level).round() * level)


def round_to_half(training: Training) -> None:
    """Save the parameters in half precision, and load them again."""
    with torch.no_grad():
        for one in training.network.parameters():
            one.copy_(one.half())


def exchange_bodies(training: Training) -> None:
    """Load the actor's layers into the critic, and the critic's into the actor."""
    own, other = training.policy_body(), training.critic_body()
    assert other is not None
    with torch.no_grad():
        for one, two in zip(own.parameters(), other.parameters(), strict=True):
            before = one.clone()
            one.copy_(two)
            two.copy_(before)


def lose_biases(training: Training) -> None:
    """Set every bias to 0, as a checkpoint does that has none."""
    with torch.no_grad():
        for name, one in training.network.named_parameters():
            if "bias" in name:
                one.zero_()


def squash_logits(training: Training) -> None:
    """Keep logits between −1 and 1 by a unit too many, while acting and in the update."""
    for layer, _ in training.action_layers():
        layer.register_forward_hook(lambda _, __, logits: logits.tanh())


def squash_values(training: Training) -> None:
    """End the critic in a unit that goes from −1 to 1."""
    critic_head(training).register_forward_hook(lambda _, __, value: value.tanh())


def stop_at_heads(training: Training) -> None:
    """Let no gradient of the policy through to the layers before its last."""
    for layer, _ in training.action_layers():
        layer.register_forward_pre_hook(lambda _, given: (given[0].detach(),))


def fix_spread(training: Training) -> None:
    """Take the standard deviation of actions out of what is trained."""
    next(one for name, one in training.network.named_parameters() if name.endswith("log_std")).requires_grad_(False)


def on_gradients(training: Training, hook: Callable[[], Callable[[Tensor], Tensor]]) -> None:
    """Change the gradient of each parameter by a hook of its own."""
    for one in training.network.parameters():
        if one.requires_grad:
            one.register_hook(hook())


def few_levels(gradient: Tensor) -> Tensor:
    """Round a gradient to five levels, as where it is sent in few bits and the error is not kept."""
    level = gradient.abs().max().clamp(min=1e-20) / 2
    return (gradient / level).round() * level


def a_little_noise(gradient: Tensor) -> Tensor:
    """Add a tenth of a gradient's size as noise."""
    return gradient + 0.1 * gradient.square().mean().sqrt() * torch.randn_like(gradient)


def hurry_critic(training: Training) -> None:
    """Give the critic's last layer a learning rate of its own, with two zeros too many."""
    optimizer = training.optimizer
    critic = list(critic_head(training).parameters())
    numbers = {id(one) for one in critic}
    actor = optimizer.param_groups[0]
    actor["params"] = [one for one in actor["params"] if id(one) not in numbers]
    optimizer.add_param_group({name: value for name, value in actor.items() if name != "params"} | {"params": critic})
    training.knobs.critic_rate = 100.0


def step_twice(training: Training) -> None:
    """Step in the loop, and again in what it calls."""
    optimizer = training.optimizer
    step = optimizer.step

    def twice() -> None:
        step()
        step()

    setattr(optimizer, "step", twice)  # noqa: B010


def mix_moments(training: Training) -> None:
    """Load the optimizer's moments in another order than that of the weights they belong to."""
    for state in training.optimizer.state.values():
        for name in ("exp_avg", "exp_avg_sq"):
            moment = state[name]
            state[name] = moment.flatten().flip(0).view_as(moment).clone()


def moments_in_bfloat16(training: Training, _: int) -> None:
    """Round the optimizer's moments, as where they are kept in fewer bits."""
    for state in training.optimizer.state.values():
        for name in ("exp_avg", "exp_avg_sq"):
            state[name].copy_(state[name].bfloat16())


def clamp_weights(training: Training) -> None:
    """Keep all parameters between −0.1 and 0.1 after each step."""

    def clamped(*_: Any) -> None:
        with torch.no_grad():
            for one in training.network.parameters():
                one.clamp_(-0.1, 0.1)

    training.optimizer.register_step_post_hook(clamped)


# Schedules


def rate_spikes(training: Training, age: int) -> None:
    """Multiply the learning rate by 10 at every tenth update."""
    training.knobs.rate = 10.0 if age % 10 == 0 else 1.0


def rate_wobbles(training: Training, age: int) -> None:
    """Let the learning rate swing by 30 % within 20 updates."""
    training.knobs.rate = 1.0 + 0.3 * float(np.sin(0.1 * np.pi * (age + 1)))


def entropy_falls_below_0(training: Training, age: int) -> None:
    """Lower the entropy bonus by a quarter of what it was, beyond 0."""
    training.knobs.entropy = max(1.0 - (age + 1) / 4, -10.0)


def epochs_alternate(training: Training, age: int) -> None:
    """Double the epochs at every second update."""
    training.knobs.epochs = 2 if age % 2 == 0 else 1
