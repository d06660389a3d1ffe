"""The store of a recording whose pipeline runs in this process."""

from __future__ import annotations

from recorder.recorder import Recorder
from recorder.sink import Inline
from recorder.store.store import Store


def store_of(rec: Recorder) -> Store:
    """Return the store that ``rec`` writes to."""
    assert isinstance(rec._sink, Inline)
    return rec._sink.store
