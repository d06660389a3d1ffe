"""Every harm to a real run is named with its file, by ``verify`` and by readers; a clean or killed run is fine."""

from __future__ import annotations

import json
import random
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from esper_analyze.errors import DamagedError
from esper_analyze.runs.run import open_run
from esper_analyze.schema import BY_NAME
from esper_analyze.schema.arrow import arrow_schema, fingerprint
from esper_analyze.storage import limits
from esper_analyze.storage.layout import ShardEntry
from esper_analyze.storage.maintenance.verify import Verified, runs_at, verify
from recorder.store.run_file import create_run
from recorder.store.store import Store
from tests.runs.stored import UPDATES, copied, files, folder, frames, relist, same, write

SAMPLES = Path(__file__).parents[3] / "sample_runs" / "runs"
SHARD = "heads-000002.parquet"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("closed") / "run")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("killed") / "run", close=False)


def named(found: Verified) -> set[str]:
    return {fault.file.rsplit("/", maxsplit=1)[-1] for fault in found.damage}


def test_sample_runs_are_fine() -> None:
    for run in runs_at(SAMPLES):
        found = verify(run)
        assert not found.damage
        assert not found.faults


def test_a_closed_and_a_killed_run_are_fine_and_say_how_they_ended(closed: Path, killed: Path) -> None:
    one, other = verify(closed), verify(killed)
    assert one.faults == other.faults == []
    assert (one.rows, one.updates) == (other.rows, other.updates)
    assert one.status == f"closed, last complete update {UPDATES - 1}"
    assert other.status == f"not closed, last complete update {UPDATES - 1}"


def test_verify_changes_nothing(killed: Path, tmp_path: Path) -> None:
    run = copied(killed, tmp_path / "run")
    before = files(run)
    verify(run)
    assert files(run) == before


def test_a_torn_tail_is_a_note_at_every_byte(killed: Path, tmp_path: Path) -> None:
    run = copied(killed, tmp_path / "run")
    log = next(folder(run).glob(".wal-*"))
    whole = log.read_bytes()
    rng = random.Random(0)
    for size in [*range(12), *rng.sample(range(len(whole)), 25)]:
        log.write_bytes(whole[:size])
        found = verify(run)
        assert not found.damage
        assert UPDATES - 3 < int(found.status.rsplit(maxsplit=1)[-1]) + 1 < UPDATES + 1


def test_a_bad_frame_with_good_ones_after_it_is_damage_with_position_and_rows(tmp_path: Path) -> None:
    run = copied(write(tmp_path / "long", close=False, updates=UPDATES + 1), tmp_path / "run")
    log = next(folder(run).glob(".wal-*"))
    data = bytearray(log.read_bytes())
    second = data.index(b"\xf5ES\xfa", data.index(b"\xf5ES\xfa") + 1)
    data[second + 40] ^= 4
    log.write_bytes(data)
    (fault,) = verify(run).damage
    assert fault.file.endswith(log.name)
    assert f"bytes {second:,}" in fault.reason
    assert fault.rows == 12  # 1 update, 2 heads, 3 groups, 2 lstm, 4 episodes
    with pytest.raises(DamagedError, match="does not match its checksum"):
        open_run(run)


@pytest.mark.parametrize("part", ["data", "footer"])
def test_a_flipped_bit_is_named_and_never_read(closed: Path, tmp_path: Path, part: str) -> None:
    run = copied(closed, tmp_path / "run")
    shard = folder(run) / SHARD
    whole, rng = shard.read_bytes(), random.Random(1)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for _ in range(40):
        place = rng.randrange(footer, len(whole)) if part == "footer" else rng.randrange(footer)
        data = bytearray(whole)
        data[place] ^= 1 << rng.randrange(8)
        shard.write_bytes(data)
        assert named(verify(run)) == {SHARD}
        with pytest.raises(DamagedError, match=SHARD):
            open_run(run)
    left = frames(run, skip_broken=True)
    clean = frames(closed)
    assert same(left | {"heads": left["updates"]}, clean | {"heads": left["updates"]})
    assert left["heads"].equals(clean["heads"].filter(~pl.col("update").is_in(list(range(4, 8)))), null_equal=True)


def test_a_truncated_shard_is_named_at_every_offset(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    shard = folder(run) / SHARD
    whole = shard.read_bytes()
    for size in [0, 1, 7, 8, 11, 12, *random.Random(2).sample(range(len(whole)), 40)]:
        shard.write_bytes(whole[:size])
        (fault,) = verify(run).damage
        assert (fault.file.rsplit("/", maxsplit=1)[-1], fault.table, fault.rows) == (SHARD, "heads", 8)
        assert fault.reason == f"has {size} bytes, the manifest says {len(whole)}"


def test_a_missing_shard_is_named(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    (folder(run) / SHARD).unlink()
    (fault,) = verify(run).damage
    assert fault.reason == "is missing, the manifest lists it"
    assert any("rows are in no sound shard" in note.reason and note.rows == 8 for note in verify(run).faults)


def test_swapped_shards_are_both_named(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    one, other = folder(run) / SHARD, folder(run) / "heads-000003.parquet"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert named(verify(run)) == {one.name, other.name}


def test_a_copied_shard_is_passed_over_and_noted(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    shutil.copy(folder(run) / SHARD, folder(run) / "heads-000044.parquet")
    found = verify(run)
    assert not found.damage
    assert [fault.file.rsplit("/", maxsplit=1)[-1] for fault in found.faults] == ["heads-000044.parquet"]
    assert same(frames(run), frames(closed))


def forge(run: Path, change: Callable[[pa.Table], pa.Table], name: str = SHARD) -> None:
    """Put another Parquet file in a shard's place, and make the manifest vouch for it."""
    path = folder(run) / name
    with pq.ParquetFile(path) as file:
        pq.write_table(change(file.read()), path)
    content = path.read_bytes()
    relist(run, name, size=len(content), crc32=zlib.crc32(content))


def with_column(name: str, cells: object) -> Callable[[pa.Table], pa.Table]:
    def change(data: pa.Table) -> pa.Table:
        place = data.schema.get_field_index(name)
        column = pa.array([cells] * len(data), data.schema.field(place).type)
        return data.set_column(place, data.schema.field(place), column)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.drop_columns(["entropy"]), "column entropy is missing"),
        (lambda data: data.append_column("extra", pa.array([1.0] * len(data))), "column extra is not declared"),
        (
            lambda data: data.set_column(2, "seq", data["seq"].cast(pa.int32())),
            "column seq has type int32, declared is int64",
        ),
        (lambda data: data.select([*data.column_names[1:], data.column_names[0]]), "not in the declared order"),
        (lambda data: data.rename_columns([name.upper() for name in data.column_names]), "column rank is missing"),
        (lambda data: data.slice(1), "holds 7 rows, the manifest says 8"),
        (lambda _: pa.table({"a": [1]}), "column rank is missing"),
    ],
)
def test_a_shard_with_other_columns_or_rows_is_refused_though_its_checksum_is_right(
    closed: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], words: str
) -> None:
    run = copied(closed, tmp_path / "run")
    forge(run, change)
    (fault,) = verify(run).damage
    assert fault.file.endswith(SHARD)
    assert words in fault.reason
    with pytest.raises(DamagedError, match=SHARD):
        open_run(run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_column("rank", 3), "holds rows of rank 3, its folder is of rank 0"),
        (with_column("seq", 5), "holds the sequence numbers 5–5, the manifest says "),
        (with_column("update", 5), "holds the updates 5–5, the manifest says 4–7"),
        (with_column("zero_explained", "perhaps"), "column zero_explained has the value 'perhaps'"),
        (lambda data: data.take(list(reversed(range(len(data))))), "has sequence numbers that do not increase"),
    ],
)
def test_cells_that_cannot_be_are_named_though_checksum_and_columns_are_right(
    closed: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], words: str
) -> None:
    run = copied(closed, tmp_path / "run")
    forge(run, change)
    (fault,) = verify(run).damage
    assert fault.file.endswith(SHARD)
    assert words in fault.reason


def test_a_column_that_would_take_too_much_memory_is_refused_before_it_is_decoded(
    closed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(closed, tmp_path / "run")
    rows = limits.LARGEST_SHARD_CELLS // len(BY_NAME["levels"].columns) + 1
    schema = arrow_schema(BY_NAME["levels"])
    cells = {pa.int64(): 0, pa.string(): "NORMAL", pa.float64(): 0.0}
    path = folder(run) / SHARD.replace("heads", "levels")
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=True) as writer:
        for start in range(0, rows, 1 << 20):
            n = min(1 << 20, rows - start)
            writer.write_table(
                pa.Table.from_arrays([pa.repeat(pa.scalar(cells[f.type], f.type), n) for f in schema], schema=schema)
            )
    content = path.read_bytes()
    assert len(content) < 1_000_000
    line = json.loads((folder(run) / "manifest.jsonl").read_bytes().splitlines()[0])
    line.pop("crc")
    entry = ShardEntry(
        **line
        | {"shard": path.name, "table": "levels", "number": 2, "size": len(content), "crc32": zlib.crc32(content)}
        | {"rows": rows, "first_seq": 10**6, "schema": fingerprint(BY_NAME["levels"])}
    )
    with (folder(run) / "manifest.jsonl").open("ab") as manifest:
        manifest.write(entry.as_line())
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(DamagedError, match=rf"says to hold {rows:,} rows, {rows - 1:,} are the most"):
        open_run(run)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda data: data[:-30], "torn or malformed line"),
        (lambda data: data.replace(b'"rows": 4', b'"rows": 5', 1), "does not match its own checksum"),
        (lambda data: data + data.splitlines()[0] + b"\n", "is listed twice"),
    ],
)
def test_a_torn_edited_or_doubled_manifest_line_is_named(
    closed: Path, tmp_path: Path, harm: Callable[[bytes], bytes], words: str
) -> None:
    run = copied(closed, tmp_path / "run")
    manifest = folder(run) / "manifest.jsonl"
    manifest.write_bytes(harm(manifest.read_bytes()))
    found = verify(run)
    assert any(fault.file.endswith("manifest.jsonl") and words in fault.reason for fault in found.damage)
    with pytest.raises(DamagedError, match=words):
        open_run(run)


@pytest.mark.parametrize("close", [True, False])
def test_a_lost_manifest_never_makes_rows_go_missing_in_silence(tmp_path: Path, close: bool) -> None:
    run = write(tmp_path / "run", close=close)
    (folder(run) / "manifest.jsonl").unlink()
    with pytest.raises(DamagedError, match="is missing, and there are shards"):
        open_run(run)
    assert SHARD in named(verify(run))


@pytest.mark.parametrize(
    "content", ["", "[]", '{"tables": {"heads": {"rows": 1e999}}}', "[" * 100_000, '{"tables":{}, "lost_rows": "x"}']
)
def test_a_spoilt_marker_is_named(closed: Path, tmp_path: Path, content: str) -> None:
    run = copied(closed, tmp_path / "run")
    (folder(run) / "closed.json").write_text(content)
    assert named(verify(run)) == {"closed.json"}


def test_a_marker_that_counts_otherwise_is_named(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    marker = folder(run) / "closed.json"
    marker.write_text(marker.read_text().replace('"rows": 28', '"rows": 29', 1))
    assert named(verify(run)) == {"closed.json"}


def test_stray_files_are_noted_and_hurt_nobody(closed: Path, tmp_path: Path) -> None:
    run = copied(closed, tmp_path / "run")
    for name in ("core.1234", ".heads-000009.parquet.77.tmp", "nonsense-000001.parquet"):
        (folder(run) / name).write_bytes(b"?")
    (run / "notes.txt").write_text("mine")
    found = verify(run)
    assert not found.damage
    assert len(found.faults) == 4
    assert same(frames(run), frames(closed))


def test_a_run_that_is_written_is_fine_and_the_writer_is_named(tmp_path: Path) -> None:
    create_run(tmp_path, {"name": "x"})
    store = Store(tmp_path)
    store.put({"updates": [{"update": 0, "status": "performed", "level": "NORMAL"}]})
    store._take_up()
    found = verify(tmp_path)
    assert not found.damage
    assert found.status.startswith("is being written by pid ")
    store.close("closed")


def test_updates_and_rows_that_are_missing_or_stand_alone_are_named(tmp_path: Path) -> None:
    create_run(tmp_path, {"name": "x"})
    store = Store(tmp_path)
    for update in (0, 1, 4):
        store.put({"updates": [{"update": update, "status": "performed", "level": "NORMAL"}]})
    store.put({"episodes": [{"update": 3, "length": 7}]})
    store.close("closed")
    reasons = [fault.reason for fault in verify(tmp_path).damage]
    assert reasons == [
        "updates 2–3 have no row",
        "has rows of updates that table updates does not have: 1, the first is 3",
    ]


def test_one_bad_run_among_many_hides_no_other(closed: Path, tmp_path: Path) -> None:
    for number in range(5):
        copied(closed, tmp_path / f"run{number}")
    (tmp_path / "run1" / "run.json").unlink()
    (tmp_path / "run2" / "run.json").write_text("{")
    found = {path.name: named(verify(path)) for path in runs_at(tmp_path)}
    assert found == {"run0": set(), "run1": {"run.json"}, "run2": {"run.json"}, "run3": set(), "run4": set()}
