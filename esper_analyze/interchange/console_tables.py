"""Tables of two columns, as Stable-Baselines3, OpenAI baselines and Spinning Up print them, and of several columns."""

from __future__ import annotations

from collections.abc import Mapping

from esper_analyze.interchange import names_sb3
from esper_analyze.interchange.console_record import ConsoleRecord, Number, PrintedForm, number

_CUT = "..."
_SECTIONED = {
    name.rpartition("/")[2]: name
    for name in (
        *names_sb3.TRAIN,
        *names_sb3.ROLLOUT,
        *(
            "train/n_updates",
            "train/std",
            "train/clip_range_vf",
            "train/actor_loss",
            "train/critic_loss",
            "train/ent_coef",
        ),
        *("time/fps", "time/iterations", "time/time_elapsed", "time/episodes", "rollout/success_rate"),
        *("rollout/exploration_rate", "eval/mean_reward", "eval/mean_ep_length"),
    )
}
"""What Stable-Baselines3 prints below a section, for tables whose first lines were not copied."""
_BASELINES = {
    "approxkl": "loss/approxkl",
    "clipfrac": "loss/clipfrac",
    "policy_entropy": "loss/policy_entropy",
    "policy_loss": "loss/policy_loss",
    "value_loss": "loss/value_loss",
    "explained_variance": "misc/explained_variance",
    "nupdates": "misc/nupdates",
    "n_updates": "misc/nupdates",
    "serial_timesteps": "misc/serial_timesteps",
    "total_timesteps": "misc/total_timesteps",
    "time_elapsed": "misc/time_elapsed",
    "ep_rewmean": "eprewmean",
    "ep_reward_mean": "eprewmean",
    "eplenmean": "eplenmean",
    "ep_len_mean": "eplenmean",
    "fps": "fps",
}
"""Names in tables of Stable Baselines 2 and old baselines, and those of newer baselines' progress.csv."""
_SPINNING_UP = {
    "AverageEpRet": "episode_return_mean",
    "EpLen": "episode_length_mean",
    "LossPi": "policy_loss",
    "LossV": "value_loss",
    "Entropy": "entropy",
    "KL": "old_approx_kl",
    "ClipFrac": "clip_fraction",
}
"""Names of Spinning Up, and those in use elsewhere; its KL is the mean of log-probability, old less new."""
_OF_BASELINES = ("approxkl", "clipfrac", "policy_entropy", "serial_timesteps", "nupdates", "eprewmean")
_COLUMNS = {
    "iter": "training_iteration",
    "ts": "timesteps_total",
    "reward": "episode_reward_mean",
}
"""Columns of the tables of Ray Tune, and RLlib's names of them."""
_RUN, _STEP, _TRAINING_LOSS = "Trial name", "Step", "Training Loss"
_LONGEST_NAME = _MOST_COLUMNS = 200
_LONGEST_ROW = 10_000


class TableReader:
    """Reads rows of tables into ``records``; ``cut_names`` are names that end in dots and could be several."""

    def __init__(self, records: list[ConsoleRecord]) -> None:
        self._records = records
        self._open: ConsoleRecord | None = None
        self._section, self._indent, self._is_barred = "", 0, False
        self._header: list[str] = []
        self.cut_names: list[str] = []

    def take(self, text: str) -> bool:
        """Read ``text``, and return whether it is a row of a table."""
        if len(text) > _LONGEST_ROW:
            return False
        if "\t" in text and "|" not in text:
            return self._wide([cell.strip() for cell in text.strip("\n").split("\t")])
        if "|" not in text:
            return False
        body = text.strip()
        is_barred = body.startswith("|") and body.endswith("|")
        cells = body.strip("|").split("|")
        if len(cells) > 2:
            return self._wide([cell.strip() for cell in cells])
        if len(cells) == 1 and not cells[0].rstrip().endswith("/"):
            return False
        name, value = cells[0].rstrip(), cells[1].strip() if len(cells) == 2 else ""
        return self._row(name, value, is_barred=is_barred)

    def end(self) -> None:
        """End the table: a line of dashes (not one below its first section), or the end of the text."""
        if self._open is not None and not self._open.cells:
            return
        if self._open is not None:
            self._open.cells = _full_names(self._open.cells)
        self._open, self._section = None, ""

    def _row(self, cell: str, value: str, *, is_barred: bool) -> bool:
        name, indent = cell.strip(), len(cell) - len(cell.lstrip())
        if not name or len(name) > _LONGEST_NAME:
            return False
        if not value and name.endswith("/"):
            return self._begin_section(name, is_barred=is_barred)
        parsed = number(value)
        if parsed is None:
            return self._open is not None or (is_barred and bool(value))
        if self._is_barred and self._open is not None and not is_barred:
            return False  # the end of the text cut it: its number may be shorter than it was
        if self._section:
            self._indent = self._indent or indent
        name = name if indent < self._indent else self._section + name
        return self._keep(name, parsed, is_barred=is_barred)

    def _begin_section(self, name: str, *, is_barred: bool) -> bool:
        if self._open is not None and name <= self._section:  # sections are sorted: this is the next table
            self.end()
        self._begun(is_barred=is_barred)
        self._section, self._indent = name, 0
        return True

    def _keep(self, name: str, value: Number, *, is_barred: bool) -> bool:
        if name.endswith(_CUT):
            return self._cut(name, value, is_barred=is_barred)
        if self._open is not None and name in self._open.cells:
            section = self._section
            self.end()
            self._section = section
        self._begun(is_barred=is_barred).cells[name] = value
        return True

    def _cut(self, name: str, value: Number, *, is_barred: bool) -> bool:
        """Take a name that ends in dots as the one known name that begins so; tell of one that could be several."""
        begun = name.removesuffix(_CUT)
        candidates = {known for known in _SECTIONED.values() if known.startswith(begun)} if self._section else set()
        cells = self._begun(is_barred=is_barred).cells
        if len(candidates) == 1 and begun != self._section and not candidates & cells.keys():
            cells[candidates.pop()] = value
        elif name not in self.cut_names:
            self.cut_names.append(name)
        return True

    def _begun(self, *, is_barred: bool) -> ConsoleRecord:
        if self._open is None:
            self._open, self._is_barred = ConsoleRecord(PrintedForm.TABLE), is_barred
            self._records.append(self._open)
        return self._open

    def _wide(self, cells: list[str]) -> bool:
        """Read a row of several columns: names, or the numbers under them."""
        if len(cells) < 3 or len(cells) > _MOST_COLUMNS:
            return False
        values = [number(cell) for cell in cells]
        if not any(value is not None for value in values):
            is_header = (
                all(cells) and len(set(cells)) == len(cells) and not any(":" in cell or "=" in cell for cell in cells)
            )
            self._header = cells if is_header else []
            return bool(self._header)
        if len(cells) != len(self._header):
            return False
        row = dict(zip(self._header, cells, strict=True))
        printed = {name: value for name, value in zip(self._header, values, strict=True) if value is not None}
        self._records.append(_wide_record(row, printed))
        return True


def _wide_record(row: Mapping[str, str], cells: Mapping[str, Number]) -> ConsoleRecord:
    """Return a row of several columns: of Ray Tune, of a notebook's table of TRL, or of any other."""
    if _RUN in row:
        return ConsoleRecord(
            PrintedForm.RLLIB, None, {_COLUMNS.get(name, name): cells[name] for name in cells}, row[_RUN]
        )
    if _TRAINING_LOSS not in row:
        return ConsoleRecord(PrintedForm.PLAIN, None, _full_names(cells))
    step = cells.get(_STEP)
    named = {name.replace(" / ", "/"): value for name, value in cells.items() if name not in (_STEP, _TRAINING_LOSS)}
    if _TRAINING_LOSS in cells:
        named["loss"] = cells[_TRAINING_LOSS]
    return ConsoleRecord(PrintedForm.DICTIONARY, step if isinstance(step, int) else None, named)


def _full_names(cells: Mapping[str, Number]) -> dict[str, Number]:
    """Return ``cells`` under the names of the logger's file, where a table prints them without their section."""
    bare = [name for name in cells if "/" not in name]
    known: Mapping[str, str] = _SECTIONED
    if any(name in cells for name in _OF_BASELINES):
        known = _BASELINES
    elif "AverageEpRet" in cells:
        known = _SPINNING_UP
    elif len(bare) < len(cells) or not all(name in _SECTIONED for name in bare):
        known = {}
    named = {known.get(name, name): value for name, value in cells.items()}
    return named if len(named) == len(cells) else dict(cells)
