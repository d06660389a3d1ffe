"""Records as trainings print them, in every form, made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

Cells = Mapping[str, float]
RSL_RL = {
    "Loss/value_function": "Mean value_function loss",
    "Loss/surrogate": "Mean surrogate loss",
    "Loss/entropy": "Mean entropy loss",
    "Policy/mean_noise_std": "Mean action noise std",
    "Train/mean_reward": "Mean reward",
    "Train/mean_episode_length": "Mean episode length",
    "Episode_Reward/track": "Episode_Reward/track",
}


def sb3_table(cells: Cells) -> str:
    """Return ``cells`` as Stable-Baselines3 prints them."""
    lines, section = ["-" * 40], ""
    for name in sorted(cells):
        part, _, rest = name.partition("/")
        if part != section:
            lines.append(f"| {part + '/':<20} |              |")
            section = part
        lines.append(f"|    {rest:<17} | {cells[name]!r:<12} |")
    return "\n".join([*lines, "-" * 40])


def rsl_rl_block(iteration: int, cells: Cells) -> str:
    """Return ``cells`` as rsl_rl prints them."""
    head = ["#" * 80, f"Learning iteration {iteration}/1500".center(80), ""]
    entries = [f"{RSL_RL[name]:>35}: {value!r}" for name, value in cells.items()]
    foot = ["-" * 80, f"{'Total timesteps':>35}: 98304", f"{'Time elapsed':>35}: 00:00:12", f"{'ETA':>35}: 01:00:00"]
    return "\n".join([*head, *entries, *foot])


def verl_line(step: int, cells: Cells) -> str:
    """Return ``cells`` as verl prints them, by way of Ray."""
    return f"\x1b[36m(TaskRunner pid=7)\x1b[0m step:{step} - " + " - ".join(f"{n}:{v!r}" for n, v in cells.items())


def trl_dictionary(cells: Cells) -> str:
    """Return ``cells`` as TRL prints them, behind the progress bar of the step."""
    return f"  3%|▎         | 10/300 [00:05<02:30,  1.93it/s]\r{dict(cells)!r}"


PRINTED: dict[str, Callable[[Sequence[Cells]], str]] = {
    "table": lambda records: "\n".join(map(sb3_table, records)),
    "rsl_rl": lambda records: "\n".join(rsl_rl_block(step, cells) for step, cells in enumerate(records)),
    "verl": lambda records: "\n".join(verl_line(step, cells) for step, cells in enumerate(records)),
    "dictionary": lambda records: "\n".join(map(trl_dictionary, records)),
    "strings": lambda records: "\n".join(str({name: repr(cell) for name, cell in one.items()}) for one in records),
    "JSON": lambda records: "\n".join("log: " + json.dumps(dict(one)) for one in records),
    "pairs": lambda records: "\n".join(", ".join(f"{n} = {v!r}" for n, v in one.items()) for one in records),
}
"""By form: many records as text."""
