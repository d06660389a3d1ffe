"""Takes the files of a training into the corpus: small, without a word of the machine, and listed in ``cases.json``."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.interchange.corpus import LIST, ROOT, Cell, LoggedCase
from tests.interchange.corpus.logged import Series, series

LARGEST = 100_000
"""Bytes of a file."""
_KEYS = {"hostname": "host", "node_ip": "127.0.0.1", "pid": "1"}
_PATHS = re.compile(r"/(?:root|tmp|work|home)(?:/[\w.@+-]+)*")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong with a training: the class of fault, in words, and the first update in which it is."""

    fault: str
    wrong: str
    first_broken: int | None


SOUND = Diagnosis("none", "nothing", None)
Names = Mapping[str, str | None]
"""The names of a log of which cells are listed, with their columns."""


def sound(why: str) -> Diagnosis:
    """Return that nothing is wrong, though ``why`` may look so."""
    return replace(SOUND, wrong=f"nothing: {why}")


def refused(algorithm: str) -> Diagnosis:
    """Return that the log is one of another algorithm."""
    return Diagnosis("refused", f"{algorithm}, not PPO", None)


@dataclass(frozen=True, slots=True)
class Collection:
    """The cases of one framework. ``version`` of files that were written says which version's names they have."""

    framework: str
    version: str
    origin: str = "recorded"

    def keep(
        self,
        files: Iterable[tuple[Path, str]],
        path: str,
        diagnosis: Diagnosis,
        *,
        split: str,
        names: Names | None = None,
        update_of: Callable[[str, int], int] = lambda _, index: index,
        updates: int | None = None,
        cells_of: str | None = None,
        runs: int = 1,
    ) -> None:
        """Copy ``files`` to their names in the folder of the framework, and list them as the case ``path`` in it.

        ``path`` is one of the names, or the folder they are in. Cells are chosen from the file ``cells_of`` (else the
        first). ``update_of`` is the update of the number at an index of a name; ``updates`` how many there are, else
        as many as the first of ``names`` has numbers.
        """
        folder = self.framework.replace("-", "_")
        targets = []
        for source, name in files:
            target = ROOT / folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.resolve() != target.resolve():
                shutil.copyfile(source, target)
            scrub(target)
            size = target.stat().st_size
            if size > LARGEST:
                raise ValueError(f"{target} has {size:,} bytes, above {LARGEST:,}: train less or log less")
            targets.append(target)
        read = targets[0] if cells_of is None else ROOT / folder / cells_of
        logged = series(read) if names else {}
        missing = [name for name in names or {} if name not in logged]
        if missing:
            raise ValueError(f"{read} has no {missing}; it has {sorted(logged)}")
        relative = read.relative_to(ROOT).as_posix()
        if updates is None and names:
            first = next(iter(names))
            updates = update_of(first, len(logged[first]) - 1) + 1
        case = LoggedCase(
            path=f"{folder}/{path}",
            framework=self.framework,
            version=self.version,
            origin=self.origin,
            fault=diagnosis.fault,
            wrong=diagnosis.wrong,
            first_broken=diagnosis.first_broken,
            updates=updates,
            refused=diagnosis.wrong if diagnosis.fault == "refused" else None,
            split=split,
            runs=runs,
            cells=tuple(chosen(relative, logged, names or {}, update_of)),
        )
        _list(case)
        print(case.path, case.fault, case.first_broken, case.updates)  # noqa: T201


def chosen(file: str, logged: Series, names: Names, update_of: Callable[[str, int], int]) -> Iterable[Cell]:
    """Yield one cell a name: of the first, the last and updates between, by turns.

    Of a name that was not logged in each update the update of a number is not known here: it gives no cell.
    """
    updates = len(logged[next(iter(names))]) if names else 0
    for turn, (name, column) in enumerate(names.items()):
        count = len(logged[name])
        if count < updates:
            continue
        index = (0, count - 1, count // 2, count // 3, 2 * count // 3)[turn % 5]
        yield Cell(file, name, index, logged[name][index], "updates", column, update_of(name, index))


def _list(case: LoggedCase) -> None:
    """Put the case into the list in place of the one with its path; cases whose files are gone leave it."""
    entries = json.loads(LIST.read_text(encoding="utf-8")) if LIST.exists() else []
    entries = [entry for entry in entries if entry["path"] != case.path and (ROOT / entry["path"]).exists()]
    entries.append(asdict(case))
    entries.sort(key=lambda entry: str(entry["path"]))
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    LIST.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def scrub(path: Path) -> None:
    """Replace what a text says of the machine: host, address, process and paths. No number of a training changes.

    Of an event file, records with a path in them are left out: those of the settings, which hold no number.
    """
    if ".tfevents." in path.name:
        kept = b"".join(record for record in raw_records(path.read_bytes()) if not _PATHS.search(str(record)))
        path.write_bytes(kept)
        return
    text = path.read_bytes().decode()  # line ends stay as they are
    for key, value in _KEYS.items():
        text = re.sub(rf'"{key}": ("[^"]*"|\d+)', f'"{key}": "{value}"' if key != "pid" else f'"{key}": {value}', text)
    text = _PATHS.sub("/runs", text)
    text = re.sub(rf"(?<=[,\s]){re.escape(socket.gethostname())}(?=[,\s])", "host", text)
    path.write_bytes((_table(text) if path.suffix == ".csv" else text).encode())


def _table(text: str) -> str:
    """Return the CSV with other cells under the names of ``_KEYS``, as RLlib's have them."""
    header = text.split("\n", 1)[0].strip().split(",")
    replaced = {header.index(key): value for key, value in _KEYS.items() if key in header}
    lines = text.splitlines(keepends=True)
    if not replaced:
        return text
    return lines[0] + "".join(
        ",".join(replaced.get(index, cell) for index, cell in enumerate(line.split(","))) for line in lines[1:]
    )


def raw_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of an event file with their lengths and checksums; the last may be cut."""
    offset = 0
    while offset < len(data):
        length = int.from_bytes(data[offset : offset + 8], "little")
        yield data[offset : offset + length + 16]
        offset += length + 16


def event_files(folder: Path) -> list[Path]:
    """Return the event files below ``folder``, oldest first."""
    return sorted(folder.rglob("events.out.tfevents.*"))


def event_name(number: int = 0) -> str:
    """Return the name of an event file, which a logger makes of time, host and process."""
    return f"events.out.tfevents.{1700000000 + number}.host.1.{number}"
