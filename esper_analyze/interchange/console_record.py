"""What is read out of a console: numbers by name, of one update or line, and the form in which they were printed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

Number = int | float
NUMBER = r"[-+]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,4})?|[-+]?(?:nan|inf(?:inity)?)\b"
"""A number as a program prints it; bounded, so that matching takes linear time. Words in any case."""
_NUMBER = re.compile(NUMBER, re.IGNORECASE)
_WRAPPED = re.compile(
    rf"(?:\w{{1,20}}\.)?(?:float|int|tensor|array)\d*\(\s*({NUMBER})\s*(?:,[^()]{{0,80}})?\)", re.IGNORECASE
)


class PrintedForm(StrEnum):
    """How a program prints its numbers; the value says it in words."""

    TABLE = "table of Stable-Baselines3, OpenAI baselines or Spinning Up"
    RSL_RL = "rsl_rl block (Learning iteration …)"
    VERL = "verl line (step:… - actor/…)"
    DICTIONARY = "dictionary of TRL or of JSON ({'loss': …})"
    ML_AGENTS = "ML-Agents line (Step: … Mean Reward: …)"
    CLEANRL = "CleanRL line (global_step=…, episodic_return=…)"
    RL_GAMES = "rl_games line (fps step: … epoch: … frames: …)"
    RLLIB = "RLlib result"
    PLAIN = "lines of key: value"


@dataclass(slots=True)
class ConsoleRecord:
    """``step``: as printed, None where nothing is. ``run``: whose numbers these are, where the text says so."""

    form: PrintedForm
    step: int | None = None
    cells: dict[str, Number] = field(default_factory=dict)
    run: str = ""


def number(text: str) -> Number | None:
    """Return the number that ``text`` is, also one printed as ``np.float64(0.1)``; None when it is none."""
    text = text.strip()
    if _NUMBER.fullmatch(text) is None:
        wrapped = _WRAPPED.fullmatch(text)
        if wrapped is None:
            return None
        text = wrapped[1]
    return plain_number(text)


def plain_number(text: str) -> Number:
    """Return the number of a text that matches ``NUMBER``."""
    return int(text) if text.lstrip("+-").isdecimal() else float(text)
