"""What shards of past versions are read as today: renamed, with columns that did not exist then as null."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pytest

from esper_analyze.schema.arrow import arrow_schema, fingerprint
from esper_analyze.schema.history import Version
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage import shapes as module
from esper_analyze.storage.block import Block
from esper_analyze.storage.entries import arrow_table
from esper_analyze.storage.shapes import Shape, former_names, history, read_shard, shapes, upgraded, with_names
from esper_analyze.storage.shard_file import GROUP_ROWS, parquet_bytes, seal
from tests.storage.handmade import heads

HEADS = BY_NAME["heads"]


PAST = (
    Version("1.0", "", tables=("updates", "heads")),
    Version("1.1", "", columns={"heads": ("old_kind",)}),
    Version("1.2", "", columns={"updates": ("level",)}),
    Version("1.3", "", columns={"heads": ("entropy_norm",)}, renamed={"heads": {"entropy": "old_entropy"}}),
    Version("1.4", "", renamed={"heads": {"kind": "old_kind"}}),
)
"""The table was there from the beginning; two columns came later, two have had other names."""


def test_every_shape_of_a_table_with_where_today_s_columns_come_from() -> None:
    found = history(HEADS, PAST)
    assert [shape.version for shape in found] == ["1.4", "1.3", "1.2", "1.0"]
    today = {name: name for name in HEADS.names}
    assert [dict(shape.sources) for shape in found] == [
        today,
        today | {"kind": "old_kind"},
        today | {"kind": "old_kind", "entropy": "old_entropy", "entropy_norm": None},
        today | {"kind": None, "entropy": "old_entropy", "entropy_norm": None},
    ]
    assert [shape.current for shape in found] == [True, False, False, False]
    for shape in found:
        assert set(shape.table.names) == {then for then in shape.sources.values() if then is not None}
        kinds = {shape.sources[column.name]: column.kind for column in HEADS.columns}
        assert all(kinds[column.name] is column.kind for column in shape.table.columns)
    assert [len(shape.table.names) for shape in found] == [len(HEADS.names) - lost for lost in (0, 0, 1, 2)]


def test_the_history_of_a_table_ends_where_it_began() -> None:
    late = (*PAST[:2], Version("1.2", "", tables=("heads",)), *PAST[3:])
    assert [shape.version for shape in history(HEADS, late)] == ["1.4", "1.3", "1.2"]
    assert [shape.version for shape in history(HEADS, PAST[:1])] == ["1.0"]
    assert [shape.version for shape in history(BY_NAME["steps"], PAST)] == ["1.4"], "nothing of it changed"


def test_each_shape_has_a_fingerprint_and_the_current_one_is_first() -> None:
    for table in (HEADS, BY_NAME["updates"]):
        found = shapes(table)
        assert next(iter(found)) == fingerprint(table)
        assert next(iter(found.values())).current
        assert all(fingerprint(shape.table) == mark for mark, shape in found.items())


def test_rows_of_a_log_are_read_under_the_names_of_all_versions() -> None:
    names = {"old": "new", "older": "new_too"}
    assert with_names([{"old": 1, "x": 2}, {"older": 3}], names) == [{"new": 1, "x": 2}, {"new_too": 3}]
    block = with_names(Block(2, {"old": [1, 2], "x": 3}), names)
    assert block == Block(2, {"new": [1, 2], "x": 3})
    rows = [{"old": 1}]
    assert with_names(rows, {}) is rows
    for table in BY_NAME.values():
        for then, today in former_names(table).items():
            assert then not in table.names
            assert today in table.names


def test_former_names_are_of_all_shapes_but_for_those_another_column_has_now(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {"kind": "old_kind", "entropy": "kind", "entropy_norm": None, "samples": "samples"}
    past = {"a": Shape("1", HEADS, {name: name for name in HEADS.names}), "b": Shape("0", HEADS, sources)}
    monkeypatch.setattr(module, "shapes", lambda _: past)
    assert former_names(HEADS) == {"old_kind": "kind"}


def test_upgraded_rows_have_today_s_columns() -> None:
    data = pa.table({"old_kind": ["x", "y"], "samples": pa.array([1, 2], pa.int64())})
    shape = Shape("1.0", HEADS, {"kind": "old_kind", "entropy": None, "samples": "samples"})
    rows = upgraded(HEADS, shape, data, ["samples", "entropy", "kind"])
    assert rows.to_pydict() == {"samples": [1, 2], "entropy": [None, None], "kind": ["x", "y"]}
    assert rows.schema.field("entropy").type == arrow_schema(HEADS).field("entropy").type


def test_a_shard_of_a_past_version_is_read_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    past = {fingerprint(shape.table): shape for shape in history(HEADS, PAST)}
    monkeypatch.setattr(module, "shapes", lambda _: past)
    marks = {shape.version: mark for mark, shape in past.items()}
    shape = past[marks["1.0"]]
    rows = [{"update": 1, "head": "a", "old_entropy": 0.5}, {"update": 1, "head": "b", "old_entropy": math.nan}]
    data = arrow_table(shape.table, [(3, rows)])
    (tmp_path / "x").write_bytes(parquet_bytes(shape.table, data))
    whole = read_shard(HEADS, tmp_path / "x", marks["1.0"])
    assert whole.column_names == list(HEADS.names)
    assert whole["head"].to_pylist() == ["a", "b"]
    assert whole["kind"].to_pylist() == whole["entropy_norm"].to_pylist() == [None, None]
    assert whole["entropy"].to_pylist()[0] == 0.5
    part = read_shard(HEADS, tmp_path / "x", marks["1.0"], ["kind", "entropy", "head"], ["head", "kind"])
    assert part.column_names == ["kind", "entropy", "head"]
    assert isinstance(part["head"].type, pa.DictionaryType)
    assert part["kind"].to_pylist() == [None, None]
    only = read_shard(HEADS, tmp_path / "x", marks["1.0"], ["kind"])
    assert only.to_pydict() == {"kind": [None, None]}
    with pytest.raises(KeyError):
        read_shard(HEADS, tmp_path / "x", "unknown")


def test_a_sealed_shard_is_read_as_it_was_and_its_line_counts_it(tmp_path: Path) -> None:
    data = arrow_table(HEADS, [(7, heads(5, "a", "b")), (9, heads(3, "a"))], rank=2)
    entry = seal(tmp_path, HEADS, 4, data)
    path = tmp_path / "heads-000004.parquet"
    facts = (entry.shard, entry.table, entry.number, entry.size, entry.rows, entry.schema, entry.rebuilt)
    assert facts == (path.name, "heads", 4, path.stat().st_size, 3, fingerprint(HEADS), False)
    assert (entry.first_seq, entry.last_seq, entry.first_update, entry.last_update) == (7, 9, 3, 5)
    assert read_shard(HEADS, path, entry.schema).equals(data)
    words = read_shard(HEADS, path, entry.schema, ["head", "seq"], ["head"])
    assert words["head"].to_pylist() == ["a", "b", "a"]
    assert isinstance(words["head"].type, pa.DictionaryType)
    assert not isinstance(read_shard(HEADS, path, entry.schema, ["head"])["head"].type, pa.DictionaryType)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert GROUP_ROWS == 100_000
