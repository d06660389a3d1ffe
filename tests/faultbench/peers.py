"""Other detectors on the same recordings: rlprobe, rl-doctor, and the thresholds of a dashboard.

Each gets every scalar it asks for that the recording has, by its own name and meaning, with its own defaults, and is
asked on growing prefixes of the run: an alarm counts from the update at which it could have been told. What was not
measured is left out, as their formats have it. Both were written for language models. Of what they ask for there is no

* KL divergence to a reference model: they get the policy's own, of the new to the old one (rl-doctor maps the keys
  ``policy/approxkl`` and ``actor/ppo_kl`` to the same field);
* completion: neither its length, truncation nor repetition. The length of an episode is left out: where living longer
  is the reward, rlprobe takes it for padded answers, and no fault of the bench shows in it alone;
* held-out score, reward component, group of completions, or text of a sample.

A reward is the undiscounted return of an episode. rlprobe is asked at every update, as its ``watch`` does, from its
30th step on. rl-doctor's ``LiveMonitor`` waits for 60 steps and then looks at every 25th; that is the column
``rldoctor``, with its report at the end of the run. In the column ``rldoctor, each update`` it is asked at every update
from the 8th on, below which it never judges.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any

from esper_analyze.replay.recall import AlarmSpan
from esper_analyze.storage.atomic import write_whole
from tests.faultbench import alarms, dashboard, recording
from tests.faultbench.alarms import Check, stretches
from tests.faultbench.recording import Recording, renamed, updates_of

FILE = "peers.json"
"""Beside the outcome of a run: the alarms of the peers that are packages, which take seconds to ask."""

LIVE_EVERY, LIVE_WARM_UP = 25, 60
"""The defaults of rl-doctor's ``LiveMonitor``."""

_RLPROBE = {
    "reward_mean": "reward_mean",
    "reward_std": "reward_std",
    "reward_min": "reward_min",
    "reward_max": "reward_max",
    "kl_mean": "approx_kl",
    "entropy_mean": "entropy",
    "ratio_mean": "ratio_mean",
    "clip_fraction": "clip_fraction",
    "adv_mean": "advantage_mean",
    "adv_std": "advantage_std",
    "value_loss": "value_loss",
    "value_explained_variance": "explained_variance",
    "loss": "total_loss",
    "lr": "learning_rate",
    "grad_norm": "grad_norm_pre_clip",
    "grad_norm_post_clip": "grad_norm_post_clip",
    "nan_count": "nan_grad_count",
    "inf_count": "inf_grad_count",
    "step_time_s": "seconds",
}
_RLDOCTOR = {
    "reward_mean": "reward_mean",
    "reward_std": "reward_std",
    "reward_min": "reward_min",
    "reward_max": "reward_max",
    "kl": "approx_kl",
    "entropy": "entropy",
    "pg_clipfrac": "clip_fraction",
    "pg_clipfrac_low": "clip_fraction_negative",
    "pg_clipfrac_high": "clip_fraction_positive",
    "advantage_mean": "advantage_mean",
    "advantage_std": "advantage_std",
    "value_explained_var": "explained_variance",
    "policy_loss": "policy_loss",
    "lr": "learning_rate",
    "grad_norm": "grad_norm_pre_clip",
    "time_per_step": "seconds",
}

_STEPS = ("kl_spike", "ratio_explosion", "ratio_collapse", "clip_saturation")
_CRITIC = ("critic_constant", "critic_not_learning", "value_collapse", "value_divergence")
_ENTROPY = ("entropy_collapse", "entropy_low", "head_entropy_collapse")
_GRADIENTS = ("numerical_instability", "update_skipped", "gradient_explosion", "gradient_drift", "lstm_nonfinite")


@dataclass(frozen=True)
class Peer:
    """A detector of others. ``means``: for each of its rules those of this project that tell the same.

    A rule of a peer names the cause of a fault where one of those does.
    """

    judge: Callable[[Recording], tuple[AlarmSpan, ...]]
    means: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    package: str = ""
    """Name and version on PyPI, empty for what needs no package."""

    @cached_property
    def installed(self) -> str | None:
        """Return the version that is installed, None without."""
        if not self.package:
            return None
        try:
            return metadata.version(self.package.partition("==")[0])
        except metadata.PackageNotFoundError:
            return None

    @property
    def version(self) -> str:
        """Return what alarms depend on: the package's version (of none, the one named here), and this code's."""
        sources = b"".join(Path(str(module.__file__)).read_bytes() for module in (alarms, recording))
        code = zlib.crc32(sources + Path(__file__).read_bytes())
        return f"{self.installed or self.package.partition('==')[2]} {code:08x}"


def alarms_of(peer: Peer, name: str, run_dir: Path, scalars: Recording) -> tuple[AlarmSpan, ...] | None:
    """Return a peer's alarms on a run, cached beside it; None where it was never asked and is not installed."""
    if not peer.package:
        return peer.judge(scalars)
    cached = _cached(run_dir)
    if cached.get(name, {}).get("version") == peer.version:
        return tuple(AlarmSpan(**cells) for cells in cached[name]["alarms"])
    if peer.installed is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = peer.judge(scalars)
    cells = [{"rule": a.rule, "start": a.start, "end": a.end, "verdict": a.verdict} for a in answer]
    entries = cached | {name: {"version": peer.version, "alarms": cells}}
    write_whole(run_dir / FILE, json.dumps(entries).encode())
    return answer


def _cached(run_dir: Path) -> dict[str, Any]:
    file = run_dir / FILE
    entries: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return entries


def _rlprobe(scalars: Recording) -> tuple[AlarmSpan, ...]:
    from rlprobe.doctor.engine import diagnose_view
    from rlprobe.doctor.runview import RunView
    from rlprobe.schemas import RunManifest, StepRecord

    updates = list(updates_of(scalars.rows))
    steps = [
        StepRecord(step=update, **renamed(row, _RLPROBE)) for update, row in zip(updates, scalars.rows, strict=True)
    ]
    manifest = RunManifest(run_id="run", created_at="", algorithm="ppo")
    verdicts = {"warn": "warning", "critical": "critical"}

    def checks() -> Iterator[Check]:
        for count, update in enumerate(updates, 1):
            firing: dict[str, str] = {}
            for finding in diagnose_view(RunView(manifest, steps[:count])):  # the most severe first
                if finding.severity in verdicts:
                    firing.setdefault(finding.signature_id, verdicts[finding.severity])
            yield update, firing

    return stretches(checks())


def _rldoctor(scalars: Recording, *, every: int, warm_up: int) -> tuple[AlarmSpan, ...]:
    """Ask it as its ``LiveMonitor`` does: every ``every`` updates from the ``warm_up``-th on, and at the end.

    The monitor reads all records again each time, which takes most of its time; a prefix of what it read is the same.
    """
    from rl_doctor.detectors.base import Severity
    from rl_doctor.diagnosis import diagnose
    from rl_doctor.ingest.base import run_from_records

    updates = list(updates_of(scalars.rows))
    if not updates:
        return ()
    config = {"algorithm": "ppo", "max_steps": scalars.total_updates}
    records = [{"step": update} | renamed(row, _RLDOCTOR) for update, row in zip(updates, scalars.rows, strict=True)]
    run = run_from_records(records, config)

    def checks() -> Iterator[Check]:
        for count, update in enumerate(updates, 1):
            if count == len(updates) or (count >= warm_up and count % every == 0):
                findings = diagnose(_prefix(run, count)).problems  # the most severe first
                yield (
                    update,
                    {
                        finding.detector: finding.severity.name.lower()
                        for finding in findings
                        if finding.severity >= Severity.WARNING
                    },
                )

    return stretches(checks())


def _prefix(run: Any, count: int) -> Any:
    """Return the first ``count`` steps of a run as rl-doctor read it."""
    last = float(run.steps[count - 1])
    return replace(
        run,
        steps=run.steps[:count],
        series={name: values[:count] for name, values in run.series.items()},
        nonfinite_steps={
            name: before
            for name, steps in run.nonfinite_steps.items()
            if (before := [step for step in steps if step <= last])
        },
    )


_RLDOCTOR_MEANS = {
    "kl_drift": (*_STEPS, "frozen_update"),
    "clip_saturation": _STEPS,
    "entropy_collapse": _ENTROPY,
    "gradient_pathology": (*_GRADIENTS, "gradient_vanishing", "gradient_missing"),
    "plateau": ("performance_degradation", "advantage_collapse"),
}

PEERS: dict[str, Peer] = {
    "rlprobe": Peer(
        _rlprobe,
        {
            "KL_BLOWUP": _STEPS,
            "CLIP_SATURATION": _STEPS,
            "ENTROPY_COLLAPSE": _ENTROPY,
            "ADV_COLLAPSE": ("advantage_collapse",),
            "REWARD_STD_DEATH": ("advantage_collapse",),
            "VALUE_DIVERGENCE": _CRITIC,
            "GRAD_PATHOLOGY": _GRADIENTS,
        },
        "rlprobe==0.1.0",
    ),
    "rldoctor": Peer(partial(_rldoctor, every=LIVE_EVERY, warm_up=LIVE_WARM_UP), _RLDOCTOR_MEANS, "rldoctor==0.2.0"),
    "rldoctor, each update": Peer(partial(_rldoctor, every=1, warm_up=8), _RLDOCTOR_MEANS, "rldoctor==0.2.0"),
    "dashboard": Peer(
        dashboard.judge,
        {
            "approx_kl": _STEPS,
            "clip_fraction": _STEPS,
            "explained_variance": _CRITIC,
            "entropy": _ENTROPY,
            "gradient_norm": _GRADIENTS,
            "episode_return": ("performance_degradation",),
            "not_finite": _GRADIENTS,
        },
    ),
}
"""The columns beside this project's detector, in the order of the tables."""
