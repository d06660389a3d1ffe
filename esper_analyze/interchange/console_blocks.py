"""Lines of ``key: value``: blocks of rsl_rl, nested results of RLlib, and what loops of one's own print."""

from __future__ import annotations

import re

from esper_analyze.interchange.console_record import NUMBER, ConsoleRecord, PrintedForm, number, plain_number

_ITERATION = re.compile(r"Learning iteration (\d{1,18})(?:\s*/\s*\d{1,18})?")
_ENTRY = re.compile(r"(\s*)([A-Za-z_][^:=|]{0,100}?)\s*[:=](?:\s+(.*))?$")
_LEADING = re.compile(rf"({NUMBER})(?:\s*(?:s|steps/s|steps)\b.*)?$", re.IGNORECASE)
_TIMES = re.compile(r"collection: ([\d.]{1,20})s, learning:? ([\d.]{1,20})s")
_RSL_RL = {
    "Value function loss": "Loss/value_function",
    "Mean value_function loss": "Loss/value_function",
    "Mean value function loss": "Loss/value_function",
    "Surrogate loss": "Loss/surrogate",
    "Entropy": "Loss/entropy",
    "Mean action noise std": "Policy/mean_noise_std",
    "Mean action std": "Policy/mean_std",
    "Mean reward": "Train/mean_reward",
    "Mean total reward": "Train/mean_reward",
    "Mean episode length": "Train/mean_episode_length",
    "Computation": "Perf/total_fps",
    "Steps per second": "Perf/total_fps",
    "Collection time": "Perf/collection_time",
    "Learning time": "Perf/learning_time",
}
"""What rsl_rl prints, of all its versions, and the names of its event files."""
_ONLY_RSL_RL = (
    "Value function loss",
    "Mean surrogate loss",
    "Mean value_function loss",
    "Mean value loss",
)
"""What begins a block whose first line was not copied: loops of TRPO print ``Surrogate loss``, too."""
_LOSS = re.compile(r"Mean (\w{1,60}) loss")
_EPISODE = re.compile(r"Mean episode (\w{1,80})")
_RESULT = re.compile(r"\s*(?:Result for|Trial) (\S{1,200}?)(?: reported .{0,80})?:$")
_RLLIB = re.compile(r"learner_stats/|^(?:training_iteration|episode_reward_mean)$")
_VALUE = re.compile(rf"[:=]\s{{0,40}}({NUMBER})(?:m?s|(%))?(?=[\s,;|:)\]]|$)", re.IGNORECASE)
_KEY = re.compile(r"[A-Za-z_][\w./%@-]{0,80}(?: [\w./%()-]{1,40}){0,4}")
_COUNTER = re.compile(
    r"(update|iter(?:ation)?|epoch|step|episode) {0,4}#?(\d{1,18})(?:/\d{1,18})?(?=\W|$)", re.IGNORECASE
)
_SEPARATORS = " \t,;|:-()[]"
_LONGEST_LINE = 4_000
_SUMMARY = re.compile(rf"wandb:\s+(\S{{1,200}})\s+({NUMBER})$", re.IGNORECASE)
_LETTER = re.compile(r"[^\W_]")


class BlockReader:
    """Reads lines of ``key: value`` into ``records``; a key seen again begins the next record."""

    def __init__(self, records: list[ConsoleRecord]) -> None:
        self._records = records
        self._open: ConsoleRecord | None = None
        self._run = ""
        self._above: list[tuple[int, str]] = []

    def begins(self, text: str) -> bool:
        """Begin the block of an iteration of rsl_rl, and return whether ``text`` is its first line."""
        iteration = _ITERATION.search(text) if "Learning iteration" in text else None
        if iteration is not None:
            self._open = ConsoleRecord(PrintedForm.RSL_RL, int(iteration[1]))
            self._records.append(self._open)
        return iteration is not None

    def take(self, text: str) -> bool:
        """Read ``text``, and return whether it is a line of a block."""
        if len(text) > _LONGEST_LINE or not (":" in text or "=" in text):
            return False
        if result := _RESULT.match(text):
            self._open, self._above, self._run = None, [], result[1]
            return True
        if summary := _SUMMARY.match(text):
            return self._keep(summary[1], summary[2], PrintedForm.PLAIN)
        entry = _ENTRY.match(text)
        if (
            entry is not None
            and entry[2] in _ONLY_RSL_RL
            and (self._open is None or self._open.form is not PrintedForm.RSL_RL)
        ):
            self._open = ConsoleRecord(PrintedForm.RSL_RL)
            self._records.append(self._open)
        if self._open is not None and self._open.form is PrintedForm.RSL_RL:
            return entry is not None and self._rsl_rl(self._open, entry[2], entry[3] or "")
        return (entry is not None and self._nested(len(entry[1]), entry[2], entry[3] or "")) or self._pairs(text)

    def _nested(self, indent: int, key: str, value: str) -> bool:
        """Read one ``key: value``, below the keys without a value that are indented less."""
        while self._above and self._above[-1][0] >= indent:
            self._above.pop()
        if not value:
            self._above.append((indent, key))
            return True
        if number(value) is None:  # words, such as a date, a host or an empty dictionary
            of_rllib = bool(self._run) or (self._open is not None and self._open.form is PrintedForm.RLLIB)
            return of_rllib and " " not in key
        return self._keep("/".join([*(name for _, name in self._above), key]), value, PrintedForm.PLAIN)

    def _rsl_rl(self, record: ConsoleRecord, key: str, value: str) -> bool:
        leading = _LEADING.match(value)
        if leading is None:
            return key in ("Time elapsed", "ETA", "Total time")
        name = _RSL_RL.get(key)
        if name is None and (loss := _LOSS.fullmatch(key)):
            name = f"Loss/{loss[1]}"
        if name is None and (episode := _EPISODE.fullmatch(key)):
            name = f"Episode/{episode[1]}"
        record.cells.setdefault(name or key, plain_number(leading[1]))
        if key == "Computation" and (times := _TIMES.search(value)):
            parsed = [number(time) for time in times.groups()]
            names = ("Perf/collection_time", "Perf/learning_time")
            record.cells |= {name: time for name, time in zip(names, parsed, strict=True) if time is not None}
        return True

    def _pairs(self, text: str) -> bool:
        """Read several ``key: value`` of one line; a line with other words in it is none."""
        pairs, end = [], 0
        if counter := _COUNTER.match(text.strip(_SEPARATORS)):
            pairs.append((counter[1], counter[2]))
            end = text.index(counter[0]) + len(counter[0])
        for value in _VALUE.finditer(text, end):
            key = text[end : value.start()].strip(_SEPARATORS)
            if not _KEY.fullmatch(key):
                return False
            pairs.append((key, value[1] + "e-2" if value[2] and "e" not in value[1].lower() else value[1]))
            end = value.end()
        if not pairs or _LETTER.search(text, end):
            return False
        for key, printed in pairs:
            self._keep(key, printed, PrintedForm.PLAIN)
        return True

    def _keep(self, name: str, value: str, form: PrintedForm) -> bool:
        parsed = number(value)
        if parsed is None:
            return False
        if self._open is None or name in self._open.cells:
            self._open = ConsoleRecord(form, run=self._run)
            self._records.append(self._open)
        self._open.cells[name] = parsed
        if self._open.form is PrintedForm.PLAIN and _RLLIB.search(name):
            self._open.form = PrintedForm.RLLIB
        return True
