"""``python -m tests.bench.alerts``: what alerts cost a training, with an endpoint that is well and with dead ones.

A PPO of Stable-Baselines3 is trained without alerts and with alerts to a server of this machine that answers, hangs,
refuses, answers 500, or is flooded with an alert an update; turn by turn, the order turning round. An incident of a
rule that is here for the purpose begins or ends every tenth update (every update in a flood), which is more than any
training does. Beside the wall time, which on a busy machine says little below a percent, stand the two times that make
up what alerts cost: in the training's thread, and the CPU time of the threads that send.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3 import PPO

from esper_analyze.detector.rule import Example, Limits, Memory, Rule, limit
from esper_analyze.detector.signals import Frame
from esper_analyze.detector.verdict import Bounds, Judgement, settle
from recorder.act.channel import Channel
from recorder.act.webhook import WebhookEndpoint
from recorder.adapters.sb3 import attach
from recorder.sink import Inline
from tests.bench.machine import load, machine
from tests.recorder.act.loopback import refused_url, served

STEPS, UPDATES, SELDOM, CLOSE_SECONDS = 256, 60, 10, 0.5
TARGET = 0.1
"""Percent of added wall time."""


@dataclass(frozen=True, slots=True)
class FlappingLimits(Limits):
    """No detail after an alarm, and an incident that ends at once."""

    escalate: int = limit(0, "the training without alerts shall do the same", at_least=0)
    clear_after: int = limit(1, "an incident every other time", at_least=1)


def flapping(every: int) -> Rule:
    """Return a rule that is in alarm for ``every`` updates, then for as many not."""

    def judge(frame: Frame, memory: Memory, limits: FlappingLimits) -> list[Judgement]:  # noqa: ARG001
        steps = frame["env_steps"]
        alarm = steps.finite & (steps.values // STEPS % (2 * every) < every)
        return [settle("env_steps", steps, Bounds(warning=alarm, warning_at=0.0))]

    words: dict[str, Any] = dict.fromkeys(
        ("title", "meaning", "look_first", "reference"), "An incident for the benchmark"
    )
    examples = (
        Example("nothing", "no_data", {"env_steps": None}),
        Example("alarm", "warning", {"env_steps": STEPS - 1}),
        Example("sound", "ok", {"env_steps": STEPS * every}),
    )
    return Rule("flapping", "updates", ("env_steps",), FlappingLimits, judge, examples=examples, **words)


@dataclass
class CaseFigures:
    """The trainings of one case: seconds of each; ``counts``: sent, failed, dropped, unsent of the last."""

    seconds: list[float] = field(default_factory=list)
    closing: list[float] = field(default_factory=list)
    in_training: list[float] = field(default_factory=list)
    sending: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def timed(figures: list[float], function: Callable[..., Any], clock: Callable[[], float]) -> Callable[..., Any]:
    """Return ``function`` with its time added to the last of ``figures``."""

    def call(*args: Any, **kwargs: Any) -> Any:
        began = clock()
        try:
            return function(*args, **kwargs)
        finally:
            figures[-1] += clock() - began

    return call


def training(folder: Path, figures: CaseFigures, updates: int, every: int, on_finding: str | None) -> None:
    """Train once; the seconds are those of ``learn``, without the end of the recording."""
    model = PPO("MlpPolicy", gym.make("CartPole-v1"), n_steps=STEPS, batch_size=64, n_epochs=4, seed=0, device="cpu")
    figures.in_training.append(0.0)
    figures.sending.append(0.0)
    options: dict[str, Any] = {"on_finding": on_finding, "alert_seconds": CLOSE_SECONDS}
    with attach(model, folder, rules=[flapping(every)], quiet=True, **options) as rec:
        assert isinstance(rec._sink, Inline)
        alerts = rec._sink._pipeline.alerts
        channels: list[Channel] = alerts._channels
        if channels:
            rec._detector.on_findings = timed(figures.in_training, alerts.take, time.perf_counter)
        alerts.take_losses = timed(figures.in_training, alerts.take_losses, time.perf_counter)  # type: ignore[method-assign]
        began = time.perf_counter()
        model.learn(STEPS * updates)
        figures.seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    figures.closing.append(time.perf_counter() - began)
    names = ("sent", "failed", "dropped", "unsent")
    figures.counts = {name: sum(getattr(channel, name) for channel in channels) for name in names}


CASES = {"without": SELDOM, "without again": SELDOM, "answers": SELDOM, "hangs": SELDOM, "refuses": SELDOM}
CASES |= {"answers 500": SELDOM, "without, flapping": 1, "flooded": 1, "flooded, hangs": 1}
"""Updates from one alert to the next, by case."""
BESIDE = {"flooded": "without, flapping", "flooded, hangs": "without, flapping"}
"""The case that another one is compared with, where it is not "without"."""
STATUS = {"answers": 200, "hangs": 0, "answers 500": 500, "flooded": 200, "flooded, hangs": 0}


def measure(repeats: int, updates: int) -> dict[str, CaseFigures]:
    """Return the figures of all cases."""
    cases = {name: CaseFigures() for name in CASES}
    by_url: dict[str, CaseFigures] = {}
    sender = WebhookEndpoint.deliver

    def deliver(self: WebhookEndpoint, message: Mapping[str, Any]) -> None:
        timed(by_url[self.url].sending, sender, time.thread_time)(self, message)

    WebhookEndpoint.deliver = deliver  # type: ignore[method-assign]
    with TemporaryDirectory() as folder, ExitStack() as stack:
        urls: dict[str, str | None] = {name: stack.enter_context(served(code)).url for name, code in STATUS.items()}
        urls["refuses"] = refused_url()
        by_url |= {url: cases[name] for name, url in urls.items() if url is not None}
        training(Path(folder) / "warm", CaseFigures(), min(updates, 4), 1, None)
        for repeat in range(repeats):
            for name in list(CASES) if repeat % 2 else list(CASES)[::-1]:
                figures = cases[name]
                path = Path(folder) / f"{name}-{repeat}"
                training(path, figures, updates, CASES[name], urls.get(name))
        WebhookEndpoint.deliver = sender  # type: ignore[method-assign]
    return cases


def summary(cases: dict[str, CaseFigures], updates: int) -> list[dict[str, Any]]:
    """Return one row a case; shares in percent of the training's wall time."""
    rows = []
    for name, figures in cases.items():
        beside = cases[BESIDE.get(name, "without")]
        added = [100 * (mine / other - 1) for mine, other in zip(figures.seconds, beside.seconds, strict=True)]
        shares = {
            what: [100 * part / total for part, total in zip(parts, figures.seconds, strict=True)]
            for what, parts in (("in_training", figures.in_training), ("sending", figures.sending))
        }
        rows.append(
            {
                "case": name,
                "alerts": 0 if name.startswith("without") else updates // CASES[name],
                **figures.counts,
                "added_percent": [min(added), statistics.median(added), max(added)],
                "in_training_percent": statistics.median(shares["in_training"]),
                "sending_cpu_percent": statistics.median(shares["sending"]),
                "seconds": statistics.median(figures.seconds),
                "closing_seconds": statistics.median(figures.closing),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.alerts", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="trainings of each case (default 5)")
    parser.add_argument("--quick", action="store_true", help="a smoke run: the figures mean nothing")
    parser.add_argument("--json", type=Path, help="file the figures are written to as well")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    updates = 4 if options.quick else UPDATES
    before = load()
    rows = summary(measure(1 if options.quick else options.repeats, updates), updates)
    sys.stdout.write(
        "case                 added wall time, %         in training  sending CPU  close  sent/fail/drop/left\n"
    )
    for row in rows:
        low, middle, high = row["added_percent"]
        counts = "/".join(str(row[name]) for name in ("sent", "failed", "dropped", "unsent"))
        shares = f"{row['in_training_percent']:9.4f} %  {row['sending_cpu_percent']:9.4f} %"
        spread = f"{row['seconds']:5.2f} s {middle:+6.2f} [{low:+6.2f} … {high:+6.2f}]"
        sys.stdout.write(f"{row['case']:<20} {spread}  {shares}  {row['closing_seconds']:4.2f} s  {counts}\n")
    facts = {"updates": updates, "target_percent": TARGET, "load_before": before, "load_after": load(), "cases": rows}
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), **facts}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
