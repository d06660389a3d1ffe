"""Forms that print all numbers of a step in one line: verl, Unity ML-Agents, CleanRL, rl_games."""

from __future__ import annotations

import re

from esper_analyze.interchange.console_record import NUMBER, ConsoleRecord, PrintedForm, number, plain_number

_VERL = re.compile(r"\bstep: ?(\d{1,18}) +- +(?=[A-Za-z_])")
_VERL_GOES_ON = re.compile(
    r"(?:[\w/.@-]{0,120}:)?[-+\w.()]{0,40}(?: - ?| ?-$|$)(?=[\w/.@-]{1,120}(?::(?:[-+.\d]|nan|inf|np\.)|$)|$)"
    r"|- ?[\w/.@-]{1,120}:(?:[-+.\d]|nan|inf|np\.)"
)
"""A name or value that was begun on the line before, then the next entry."""
_LOST_IN_ROUNDING = re.compile(r"\w+/lr:-?0\.000|actor/ppo_kl:-?0\.000")
"""verl up to 0.3 prints three decimals: what is always small is then not known."""
_BETWEEN = re.compile(r"\s+-\s*(?=[A-Za-z_])")
_ML_AGENTS = re.compile(r"(?:(.{0,200}?)[.:] )?Step: (\d{1,18})\. (.{0,400})")
_ML_AGENTS_REWARD = re.compile(rf"Mean Reward: ({NUMBER})\. Std of Reward: ({NUMBER})\.(?:\s|$)", re.IGNORECASE)
_CLEANRL = re.compile(
    rf"global_step[=:] ?(\d{{1,18}}), *episod(?:ic_return|e_reward)[=:] ?"
    rf"(?:(?:array\()?\[ ?({NUMBER}) ?\]|({NUMBER})(?=[,\s]|$))",
    re.IGNORECASE,
)
_CLEANRL_LENGTH = re.compile(r"episodic_length[=:] ?\[? ?(\d{1,18})[.,]? ?\]?(?:[,\s]|$)")
_SPEED = re.compile(r"SPS: (\d{1,12})")
_RL_GAMES = re.compile(r"fps step: .{0,200}?\bepoch: (\d{1,18})(?:/\S{1,20})? frames: (\d{1,18})")
_RL_GAMES_SPEED = re.compile(rf"fps (step and policy inference|step|total): ({NUMBER})(?=\s|$)")
_RL_GAMES_BEST = re.compile(rf"saving next best rewards: +\[? ?({NUMBER}) ?\]?", re.IGNORECASE)
_SPEEDS = {
    "step": "performance/step_fps",
    "step and policy inference": "performance/step_inference_fps",
    "total": "performance/step_inference_rl_update_fps",
}


class OneLineReader:
    """Reads lines one by one into ``records``; a verl line may go on in the next, where a terminal broke it."""

    def __init__(self, records: list[ConsoleRecord]) -> None:
        self._records = records
        self._last: ConsoleRecord | None = None
        self._verl_parts: list[str] = []

    def take(self, text: str) -> bool:
        """Read ``text``, and return whether it is of one of the forms."""
        if self._verl(text):
            return True
        if self._verl_parts:
            self.end()
        return self._ml_agents(text) or self._cleanrl(text) or self._rl_games(text)

    def end(self) -> None:
        """Read the verl line whose last part was taken."""
        line, self._verl_parts = "".join(self._verl_parts).rstrip(" -"), []
        for item in _BETWEEN.split(line):
            name, _, printed = item.rpartition(":")
            value = number(printed)
            if _LOST_IN_ROUNDING.fullmatch(item.strip()):
                continue
            if name and value is not None and self._last is not None:
                self._last.cells[name.strip()] = value

    def _verl(self, text: str) -> bool:
        line = _VERL.search(text) if "step:" in text else None
        if line is not None:
            self.end()
            self._last = ConsoleRecord(PrintedForm.VERL, int(line[1]))
            self._records.append(self._last)
            self._verl_parts = [text[line.end() :]]
        elif self._verl_parts and _VERL_GOES_ON.match(text.lstrip()):
            gap = " " if self._verl_parts[-1].endswith(" -") else ""
            self._verl_parts.append(gap + text.lstrip())
        else:
            return False
        return True

    def _ml_agents(self, text: str) -> bool:
        line = _ML_AGENTS.match(text) if "Step: " in text else None
        if line is None:
            return False
        behaviour = re.split(r"[:\]] ", line[1] or "")[-1].strip()
        reward = _ML_AGENTS_REWARD.search(line[3])
        if reward is not None:
            cells = {"Environment/Cumulative Reward": plain_number(reward[1]), "Std of Reward": plain_number(reward[2])}
            self._records.append(ConsoleRecord(PrintedForm.ML_AGENTS, int(line[2]), cells, behaviour))
        return reward is not None or "No episode was completed" in line[3]

    def _cleanrl(self, text: str) -> bool:
        line = _CLEANRL.search(text) if "global_step" in text else None
        if line is not None:
            cells = {"charts/episodic_return": plain_number(line[2] or line[3])}
            if length := _CLEANRL_LENGTH.search(text, line.end()):
                cells["charts/episodic_length"] = int(length[1])
            self._last = ConsoleRecord(PrintedForm.CLEANRL, int(line[1]), cells)
            self._records.append(self._last)
            return True
        speed = _SPEED.fullmatch(text.strip())
        if speed is not None and self._last is not None and self._last.form is PrintedForm.CLEANRL:
            self._last.cells["charts/SPS"] = int(speed[1])
        return speed is not None

    def _rl_games(self, text: str) -> bool:
        line = _RL_GAMES.search(text) if "frames:" in text else None
        if line is not None:
            speeds = {_SPEEDS[what]: plain_number(value) for what, value in _RL_GAMES_SPEED.findall(text)}
            self._last = ConsoleRecord(PrintedForm.RL_GAMES, int(line[2]), speeds | {"info/epochs": int(line[1])})
            self._records.append(self._last)
            return True
        best = _RL_GAMES_BEST.fullmatch(text.strip())
        if best is not None and self._last is not None and self._last.form is PrintedForm.RL_GAMES:
            self._last.cells["rewards/step"] = plain_number(best[1])
        return best is not None
