"""The same trainings by Stable-Baselines3 PPO and sb3-contrib MaskablePPO and RecurrentPPO.

Knobs are turned where a user would: settings of the model, the environments, and the buffer as a rollout ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from recorder.adapters.sb3 import attach
from tests.faultbench.draw import Setup
from tests.faultbench.loop import Body
from tests.faultbench.training import Episode, LoopOutcome, Training, World, estimates

ALGORITHMS: dict[str, Any] = {"ppo": PPO, "maskable": MaskablePPO, "recurrent": RecurrentPPO}
_STATES = ("hidden_states_pi", "cell_states_pi", "hidden_states_vf", "cell_states_vf")


class Environments(VecEnv):
    """A ``World`` as SB3 asks for it. A time limit counts as an end, as in the hand-written loop."""

    def __init__(self, world: World) -> None:
        self.world, task = world, world.task
        self.episodes: list[Episode] = []
        self._actions: dict[str, Tensor] = {}
        sizes = list(task.sizes.values())
        space: spaces.Space[Any]
        if task.dimensions:
            space = spaces.Box(-2.0, 2.0, (task.dimensions,), np.float32)
        else:
            space = spaces.Discrete(sizes[0]) if len(sizes) == 1 else spaces.MultiDiscrete(sizes)
        super().__init__(task.count, spaces.Box(-np.inf, np.inf, task.shape, np.float32), space)

    def reset(self) -> np.ndarray:
        return self.world.observe().numpy()

    def step_async(self, actions: np.ndarray) -> None:
        task, cells = self.world.task, torch.from_numpy(actions)
        if task.dimensions:
            self._actions = {"move": cells}
        else:
            columns = cells.reshape(task.count, -1).unbind(1)
            self._actions = dict(zip(task.sizes, columns, strict=True))

    def step_wait(self) -> Any:
        reward, over, episodes = self.world.act(self._actions)
        self.episodes += episodes
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for one in episodes:
            infos[one.env]["episode"] = {"r": one.total, "l": one.length, "t": 0.0}
        x, over_seen = self.world.observe(), over.numpy().astype(bool)
        if self.world.knobs.ignore_ends:
            over_seen = np.zeros_like(over_seen)
        return x.numpy(), reward.numpy(), over_seen, infos

    def close(self) -> None:
        """Nothing is held."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:  # noqa: ARG002
        known = {"render_mode": None} | ({"action_masks": True} if self.world.task.masked else {})
        if attr_name not in known:
            raise AttributeError(attr_name)
        return [known[attr_name]] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:  # noqa: ARG002
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *_: Any, indices: Any = None, **__: Any) -> list[Any]:  # noqa: ARG002
        assert method_name == "action_masks"
        return list(torch.cat(list(self.world.masks().values()), dim=1).numpy())

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:  # noqa: ARG002
        return [False] * self.num_envs


class Features(BaseFeaturesExtractor):
    """The body of the hand-written loop."""

    def __init__(self, observation_space: spaces.Box, hidden: int, activation: str) -> None:
        super().__init__(observation_space, hidden)
        self.body = Body(observation_space.shape, hidden, activation)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return found


class Sb3Training(Training):
    """A training by ``learn``."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        policy: dict[str, Any] = {
            "features_extractor_class": Features,
            "features_extractor_kwargs": {"hidden": setup.hidden, "activation": setup.activation},
            "share_features_extractor": setup.shared,
            "net_arch": [],
            "optimizer_kwargs": {"eps": 1e-5},
        }
        if setup.recurrent:
            policy |= {
                "lstm_hidden_size": setup.hidden,
                "shared_lstm": setup.shared,
                "enable_critic_lstm": not setup.shared,
            }
        self.environments = Environments(self.world)
        self.model = ALGORITHMS[setup.algorithm](
            "MlpLstmPolicy" if setup.recurrent else "MlpPolicy",
            self.environments,
            learning_rate=setup.learning_rate,
            n_steps=setup.steps,
            batch_size=setup.steps * setup.environments // setup.minibatches,
            n_epochs=setup.epochs,
            gamma=setup.gamma,
            gae_lambda=setup.gae_lambda,
            clip_range=setup.clip,
            normalize_advantage=setup.normalise_advantages,
            ent_coef=setup.entropy_coefficient,
            vf_coef=setup.value_coefficient,
            max_grad_norm=setup.max_grad_norm,
            policy_kwargs=policy,
            seed=setup.number,
            device="cpu",
        )
        self._of_critic = self.model.policy.value_net.register_forward_hook(self._critic_output)
        self._of_policy = self.model.policy.register_forward_pre_hook(self._policy_input, with_kwargs=True)

    @property
    def network(self) -> nn.Module:
        found: nn.Module = self.model.policy
        return found

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        found: torch.optim.Optimizer = self.model.policy.optimizer
        return found

    def replace_optimizer(self, new: torch.optim.Optimizer) -> None:
        self.model.policy.optimizer = new

    def policy_body(self) -> nn.Module:
        found: nn.Module = self.model.policy.pi_features_extractor.body
        return found

    def action_layers(self) -> Sequence[tuple[nn.Linear, Sequence[int]]]:
        return [(self.model.policy.action_net, tuple(self.world.task.sizes.values()))]

    def critic_body(self) -> nn.Module | None:
        policy = self.model.policy
        return None if policy.share_features_extractor else policy.vf_features_extractor.body

    def change_state(self, change: Callable[[Tensor], Tensor]) -> None:
        states = self.model._last_lstm_states
        self.model._last_lstm_states = type(states)(*(tuple(map(change, one)) for one in states))

    def restart(self, where: NDArray[np.bool_]) -> None:
        super().restart(where)
        self.model._last_obs = self.environments.reset()

    def run(self, run_dir: Path, before: Callable[[Training, int], None]) -> LoopOutcome:
        total = self.setup.updates * self.setup.steps * self.setup.environments
        heads = list(self.world.task.sizes) if len(self.world.task.sizes) > 1 else None
        options = {"overhead_budget": None, "seeds": {"torch": self.setup.number}}
        try:
            with attach(self.model, run_dir, heads=heads, total_timesteps=total, **options):
                self.model.learn(total, callback=_AtRollouts(self, before), log_interval=None)
        except (ValueError, RuntimeError) as error:
            self.outcome.died = f"{type(error).__name__}: {error}"
        return self.outcome

    def turn_settings(self, update: int) -> None:
        """Give the model the settings that the knobs ask for."""
        model, knobs, setup = self.model, self.knobs, self.setup
        rate, clip = self.rate(update), setup.clip * knobs.clip
        model.lr_schedule = lambda _: rate
        model.clip_range = lambda _: clip
        model.ent_coef = knobs.entropy_coefficient(setup)
        model.vf_coef = setup.value_coefficient * knobs.value
        model.max_grad_norm = setup.max_grad_norm * knobs.grad_norm if knobs.clip_gradients else float("inf")
        if knobs.value_clip is not None:
            model.clip_range_vf = lambda _: knobs.value_clip
        model.batch_size = max(setup.steps * setup.environments // (setup.minibatches * knobs.minibatches), 2)
        model.n_epochs = setup.epochs * knobs.epochs
        model.gamma = model.rollout_buffer.gamma = knobs.gamma_of(setup)
        model.normalize_advantage = knobs.normalises(setup)
        model.target_kl = knobs.target_kl

    def turn_buffer(self) -> None:
        """Change what was collected as the knobs ask for."""
        buffer, knobs = self.model.rollout_buffer, self.knobs
        asked = (knobs.estimate, knobs.stored_values)
        if knobs.across_environments or not knobs.bootstrap or asked != (None, None):
            self._estimate_again()
        if knobs.target_shift:
            buffer.returns = np.roll(buffer.returns, knobs.target_shift, 0)
        if knobs.targets is not None:
            buffer.returns = knobs.targets(torch.from_numpy(buffer.returns), torch.from_numpy(buffer.rewards)).numpy()
        if knobs.stored_starts is not None:
            buffer.episode_starts = knobs.stored_starts(torch.from_numpy(buffer.episode_starts)).numpy()
        self._turn_stored()
        for name, change in (("advantages", knobs.advantages), ("log_probs", knobs.log_prob)):
            if change is not None:
                setattr(buffer, name, change(torch.from_numpy(getattr(buffer, name))).numpy())

    def _turn_stored(self) -> None:
        buffer, knobs = self.model.rollout_buffer, self.knobs
        if knobs.next_observation:
            buffer.observations = np.concatenate([buffer.observations[1:], self.model._last_obs[None]])
        for name, change in (("observations", knobs.stored_observation), ("actions", knobs.logged)):
            if change is not None:
                cells = torch.from_numpy(getattr(buffer, name))
                setattr(buffer, name, torch.stack([change(step) for step in cells]).numpy())
        forgotten = () if knobs.masks_in_update else ("action_masks",)
        for name in (*forgotten, *(_STATES if knobs.zero_state else ())):
            getattr(buffer, name)[:] = float(name == "action_masks")

    def _estimate_again(self) -> None:
        """Estimate the advantages as the knobs ask for; the values after the rollout follow from SB3's own."""
        buffer = self.model.rollout_buffer
        cells = (buffer.rewards, buffer.values, buffer.advantages, self._ends())
        reward, value, advantages, end = (torch.as_tensor(one).float() for one in cells)
        ahead = advantages[-1] - reward[-1] + value[-1]
        last = torch.where(end[-1] > 0, 0.0, ahead / self.knobs.gamma_of(self.setup))
        if self.knobs.stored_values is not None:
            value = self.knobs.stored_values(value)
            buffer.values = value.numpy()
        new = estimates(self.knobs, self.setup, reward, value, end, last)
        buffer.advantages, buffer.returns = new.numpy(), (new + value).numpy()

    def _ends(self) -> np.ndarray:
        """Return [T, B]: whether an episode ended with the step."""
        starts = [self.model.rollout_buffer.episode_starts[1:], np.asarray(self.model._last_episode_starts)[None]]
        return np.concatenate(starts).astype(np.float32)

    def play(self, world: World, steps: int) -> None:
        environments = Environments(world)
        x: Any = environments.reset()
        state, starts = None, np.ones(self.setup.environments, bool)
        for _ in range(steps):
            options: dict[str, Any] = {}
            if world.task.masked:
                options["action_masks"] = np.stack(environments.env_method("action_masks"))
            elif self.setup.recurrent:
                options |= {"state": state, "episode_start": starts}
            actions, state = self.model.predict(x, deterministic=True, **options)
            x, _, starts, _ = environments.step(actions)

    def _critic_output(self, _: nn.Module, __: Any, value: Tensor) -> Tensor:
        return value.detach() if self.knobs.detach_critic else value

    def _policy_input(self, _: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return given, options | ({"deterministic": True} if self.knobs.greedy else {})


class _AtRollouts(BaseCallback):
    """Ends one update and begins the next where SB3 begins a rollout."""

    def __init__(self, training: Sb3Training, before: Callable[[Training, int], None]) -> None:
        super().__init__()
        self._training, self._before, self._update = training, before, 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._ended()
        self._before(self._training, self._update)
        self._training.turn_settings(self._update)
        self._update += 1

    def _on_rollout_end(self) -> None:
        self._training.ended(self._training.environments.episodes)
        self._training.environments.episodes = []
        self._training.turn_buffer()

    def _on_training_end(self) -> None:
        self._ended()

    def _ended(self) -> None:
        if self._update:
            self._training.outcome.value_losses.append(float(self.logger.name_to_value["train/value_loss"]))
