"""The store: takes rows from the training thread and seals them into shards in its own threads.

The training thread only appends to a queue. Failed writes are retried with back-off and never reach the training;
lost rows are counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from esper_analyze.schema.printable import LOG
from esper_analyze.schema.tables import BY_NAME
from esper_analyze.storage import layout
from esper_analyze.storage.atomic import append_line, write_whole
from esper_analyze.storage.block import Rows
from esper_analyze.storage.entries import Entry, fitting
from esper_analyze.storage.log_frames import encode
from esper_analyze.storage.shard_file import seal
from recorder.sentinel.launch import DeathWatch
from recorder.store.claimed_folder import ClaimedFolder
from recorder.store.log import WriteAheadLog

SEAL_ROWS = 32_768
"""A table with this many waiting rows is sealed at once."""
SEAL_SECONDS = 30.0
"""Older rows are sealed when at least ``SEAL_UPDATES`` updates wait …"""
SEAL_UPDATES = 16
SEAL_SECONDS_AT_MOST = 300.0
"""… and at the latest after this time."""
MAX_INBOX = 10_000
"""Hand-overs queued for the writer; beyond this, only tables that are never dropped are accepted."""
MAX_WAITING_ROWS = 400_000
"""Rows kept in memory while the disk fails; beyond this, rows are dropped in ``DROP_ORDER``, oldest first."""
SETTLE_SECONDS = 0.002
"""Longest wait of the training for an update to reach the log; no wait at all while the disk stalls …"""
SETTLE_AT_MOST = 0.05
"""… or this long if the writer is not waiting for a disk but has not been scheduled yet."""
LOG_BACK_OFF = 5.0
"""Seconds until a failed log is tried again."""
FIRST_BACK_OFF = 1.0
"""Seconds until failed sealing is tried again; doubled after each failure, up to a minute."""
DROP_ORDER = ("layers", "tensors", "transitions", "steps", "groups", "lstm", "heads", "episodes")

_LIVE: weakref.WeakSet[Store] = weakref.WeakSet()


def _forget_in_child() -> None:
    for store in list(_LIVE):
        store.inert = True


os.register_at_fork(after_in_child=_forget_in_child)


class Store:
    """One attempt of one rank: its folder, lock, shards, manifest and clean-close marker."""

    def __init__(self, run_dir: Path, *, rank: int = 0, attempt: int = 0) -> None:
        self._begin(ClaimedFolder(run_dir, rank=rank, attempt=attempt))

    @classmethod
    def of(cls, claimed: ClaimedFolder) -> Store:
        """Return a store that writes a folder claimed before."""
        store = cls.__new__(cls)
        store._begin(claimed)
        return store

    def _begin(self, claimed: ClaimedFolder) -> None:
        self.rank, self.attempt, self.folder = claimed.rank, claimed.attempt, claimed.path
        self.claimed = claimed
        self._death_watch = DeathWatch(self.folder, claimed.training)
        self.inert = False
        self.lost_rows = 0
        self._log = WriteAheadLog(self.folder)
        self._log_fails_until = 0.0
        self._unlogged: set[int] = set()  # first sequence numbers of entries that wait for sealing and are in no log
        self._given_up: dict[str, int] = {}  # rows counted as lost that are still in a kept log file
        self._handed = self._processed = 0  # hand-overs so far; those already logged or given up
        self._done = threading.Lock()  # released when the writer has emptied the inbox
        self._done.acquire()
        self._stalled = self._logging = False
        self._seq = 0
        self._number = 0
        self._waiting: dict[str, list[Entry]] = {}
        self._counts: dict[str, int] = {}
        self._since = 0.0
        self._inbox: deque[Mapping[str, Rows]] = deque()
        self._written: dict[str, dict[str, int]] = {}
        self._losses_reported = 0
        self._retry_at = 0.0
        self._back_off = FIRST_BACK_OFF
        self._guard = threading.RLock()  # reentrant: a signal handler may run while its thread holds it
        self._bell = threading.Lock()  # released to wake the writer: cheaper than an Event, without a lock to wait for
        self._bell.acquire()
        self._closing = False
        self._logged_kinds: set[str] = set()
        self._sealing: list[int] = []  # the last log file of each sealing in progress
        self._due_bell = threading.Lock()  # released to wake the sealer
        self._due_bell.acquire()
        _LIVE.add(self)
        self._thread = threading.Thread(target=self._work, name="recorder-writer", daemon=True)
        self._sealer = threading.Thread(target=self._seal_on, name="recorder-sealer", daemon=True)
        self._thread.start()
        self._sealer.start()

    def put(self, rows: Mapping[str, Rows]) -> None:
        """Hand over rows, row by row or as a ``Block``. Never waits for a disk.

        The rows belong to the store from now on: nothing is copied. The writer assigns rank and sequence numbers in
        the order of the hand-overs.
        """
        if self.inert or self._closing:
            return
        self._inbox.append(rows if len(self._inbox) < MAX_INBOX else self._stripped(rows))
        self._handed += 1

    def _stripped(self, rows: Mapping[str, Rows]) -> Mapping[str, Rows]:
        """Return the rows still accepted while the writer has fallen far behind; count the rest as lost."""
        accepted = {table: some for table, some in rows.items() if table not in DROP_ORDER}
        if len(self._inbox) >= 10 * MAX_INBOX:
            accepted = {}
        self.lost_rows += sum(len(some) for table, some in rows.items() if table not in accepted)
        return accepted

    def settle(self, seconds: float | None = None) -> None:
        """Wait until the writer has logged all hand-overs; at most ``seconds`` (default ``SETTLE_SECONDS``).

        After a timeout, because the disk stalls, there is no further wait until the writer has caught up.
        """
        if self.inert or self._closing:
            return
        self._revive()
        _ring(self._bell)
        seconds = SETTLE_SECONDS if seconds is None else seconds
        began, logs_since = time.monotonic(), None
        while self._processed < self._handed:
            now = time.monotonic()
            logs_since = (now if logs_since is None else logs_since) if self._logging else None
            waited = now - began >= max(seconds, SETTLE_AT_MOST)
            if self._stalled or (waited if logs_since is None else now - logs_since >= seconds):
                self._stalled = True
                return
            self._done.acquire(timeout=seconds)

    def _take_up(self) -> None:
        """Assign sequence numbers to the hand-overs, log them, and queue them for sealing."""
        with self._guard:
            if self._inbox and not self._waiting:
                self._since = time.monotonic()
            while self._inbox:
                try:
                    self._take(self._inbox.popleft())
                finally:
                    self._processed += 1
            self._drop_beyond_bound()
        self._stalled = False
        _ring(self._done)

    def _take(self, handed: Mapping[str, Rows]) -> None:
        entries = {}
        for table, rows in handed.items():
            count = len(rows)
            if count:
                entries[table] = (self._seq, rows)
                self._waiting.setdefault(table, []).append((self._seq, rows))
                self._counts[table] = self._counts.get(table, 0) + count
                self._seq += count
        if entries and not self._append(entries):
            self._unlogged.update(first for first, _ in entries.values())

    def _append(self, entries: Mapping[str, Entry]) -> bool:
        """Log one hand-over; return whether that succeeded. A failed log is not tried again for ``LOG_BACK_OFF``."""
        if time.monotonic() < self._log_fails_until:
            return False
        try:
            frame = encode(entries)
            self._logging = True
            self._log.append(frame)
        except OSError as error:
            self._log_failed(error)
        except Exception:  # a cell that cannot be logged cannot be sealed either: reported there
            return False
        else:
            return True
        finally:
            self._logging = False
        return False

    def _log_failed(self, error: OSError) -> None:
        if self._log_fails_until == 0.0:
            LOG.warning("recorder: cannot log to %s (%s); training continues, retrying", self.folder, error)
        self._log_fails_until = time.monotonic() + LOG_BACK_OFF

    def _drop_beyond_bound(self) -> None:
        excess = sum(self._counts.values()) - MAX_WAITING_ROWS
        for table in DROP_ORDER:
            waiting = self._waiting.get(table, [])
            while excess > 0 and waiting:
                entry = waiting.pop(0)
                excess -= len(entry[1])
                self._counts[table] -= len(entry[1])
                self._give_up(table, [entry])

    def _give_up(self, table: str, entries: Sequence[Entry]) -> None:
        """Count ``entries`` as lost; their loss is final once the log files that hold them are deleted."""
        logged = sum(len(rows) for first, rows in entries if first not in self._unlogged)
        self.lost_rows += sum(len(rows) for _, rows in entries)
        self._given_up[table] = self._given_up.get(table, 0) + logged
        self._unlogged.difference_update(first for first, _ in entries)

    def _due(self) -> bool:
        now = time.monotonic()
        if not self._waiting or now < self._retry_at:
            return False
        age = now - self._since
        return (
            any(count >= SEAL_ROWS for count in self._counts.values())
            or (age >= SEAL_SECONDS and self._counts.get("updates", 0) >= SEAL_UPDATES)
            or age >= SEAL_SECONDS_AT_MOST
        )

    def _work(self) -> None:
        """Log the hand-overs, and nothing else: no fsync may delay an update on its way to the log."""
        while not self._closing:
            self._bell.acquire(timeout=1.0)
            with self._forgiving():
                if not self._closing:
                    self._take_up()
                if self._due():
                    _ring(self._due_bell)

    def _seal_on(self) -> None:
        """Sync and seal: the operations that may wait long for a disk."""
        while not self._closing:
            self._due_bell.acquire(timeout=1.0)
            with self._forgiving():
                self._death_watch.start_if_due()
                if not self._closing:
                    self._sync()
                if not self._closing and self._due():
                    self._seal_waiting()

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        """Suppress errors, so that none ends a thread; each kind is logged once."""
        try:
            with np.errstate(all="ignore"):  # settings of the training may apply to new threads as well
                yield
        except Exception as error:
            if type(error).__name__ not in self._logged_kinds:
                self._logged_kinds.add(type(error).__name__)
                LOG.exception("recorder: error in the thread that writes %s; the thread continues", self.folder)

    def _revive(self) -> None:
        """Restart threads that have died. Their own errors are caught: this covers everything else."""
        if not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="recorder-writer", daemon=True)
            self._thread.start()
            LOG.warning("recorder: the thread that writes %s died and was restarted", self.folder)
        if not self._sealer.is_alive():
            self._sealer = threading.Thread(target=self._seal_on, name="recorder-sealer", daemon=True)
            self._sealer.start()
            LOG.warning("recorder: the thread that seals %s died and was restarted", self.folder)

    def _sync(self) -> None:
        try:
            self._log.sync()
        except OSError as error:
            with self._guard:
                self._log.rotate()  # its pages may be lost: never sync the same file again
            self._log_failed(error)

    def _seal_waiting(self) -> None:
        with self._guard:
            ended = self._log.rotate()
            waiting, self._waiting, self._counts = self._waiting, {}, {}
            self._sealing.append(ended)
            self._number += 1
            number = self._number
        left = dict(waiting)
        try:
            for table, entries in waiting.items():
                try:
                    self._seal_table(table, entries, number)
                    del left[table]
                except Exception as error:  # the rows stay in the log, and in memory while there is room
                    self._disk_failed(table, error)
        finally:
            self._end_sealing(left, ended)

    def _end_sealing(self, left: dict[str, list[Entry]], ended: int) -> None:
        with self._guard:
            self._sealing.remove(ended)
            if left:
                self._put_back(left)
                return
            self._back_off, self._retry_at, self._log_fails_until = FIRST_BACK_OFF, 0.0, 0.0
            if self._sealing:  # another sealing in progress still needs its log files
                return
            gone, self._given_up = self._given_up, {}
        if not self._log.forget(ended):  # outside the lock: deleting may take long, and the writer must not wait
            with self._guard:
                for table, rows in gone.items():  # still in the log
                    self._given_up[table] = self._given_up.get(table, 0) + rows

    def _seal_table(self, table: str, entries: Sequence[Entry], number: int) -> None:
        data, misfits = fitting(BY_NAME[table], entries, self.rank)
        if data.num_rows:
            self._write_shard(table, number, data)
        self._unlogged.difference_update(first for first, _ in entries)
        if misfits:
            self.lost_rows += misfits
            LOG.warning("recorder: %d rows of %s have a cell of a wrong type and are lost", misfits, table)

    def _write_shard(self, table: str, number: int, data: pa.Table) -> None:
        entry = seal(self.folder, BY_NAME[table], number, data)
        manifest = self.folder / layout.MANIFEST_FILE
        try:
            append_line(manifest, entry.as_line())
        except OSError:  # its rows will be sealed again: an unlisted shard would look like damage
            with contextlib.suppress(OSError):
                if entry.as_line() not in manifest.read_bytes():
                    (self.folder / entry.shard).unlink()
            raise
        total = self._written.setdefault(table, {"rows": 0, "last_update": -1})
        total["rows"] += entry.rows
        total["last_update"] = max(total["last_update"], entry.last_update)

    def _disk_failed(self, table: str, error: Exception) -> None:
        if self._retry_at == 0.0:
            LOG.warning("recorder: cannot write %s to %s (%s); training continues, retrying", table, self.folder, error)
        self._retry_at = time.monotonic() + self._back_off
        self._back_off = min(self._back_off * 2, 60.0)

    def _put_back(self, left: dict[str, list[Entry]]) -> None:
        for table, entries in left.items():
            self._waiting[table] = entries + self._waiting.get(table, [])
            self._counts[table] = self._counts.get(table, 0) + sum(len(rows) for _, rows in entries)
        self._drop_beyond_bound()

    def take_losses(self) -> int:
        """Return the rows lost since the last call."""
        lost, self._losses_reported = self.lost_rows - self._losses_reported, self.lost_rows
        return lost

    def flush(self) -> None:
        """Seal all waiting rows in the calling thread. For tests and for the end of a run."""
        if self.inert:
            return
        with np.errstate(all="ignore"):
            self._take_up()
            if self._waiting:
                self._seal_waiting()

    def close(self, reason: str) -> None:
        """Seal waiting rows, write closed.json with ``reason``, release the lock. Idempotent; raises no ``OSError``."""
        if self.inert or self._closing:
            return
        self._closing = True
        self._stop_threads()
        self.flush()
        if not self._waiting and not self._sealing and self._log.forget(self._log.rotate()):
            self._given_up.clear()
        self._count_unsealed()
        marker = {"reason": reason, "closed_at": time.time(), "lost_rows": self.lost_rows, "tables": self._written}
        with contextlib.suppress(OSError):
            (self.folder / layout.RESERVE_FILE).unlink()
        try:
            write_whole(self.folder / layout.CLOSED_FILE, json.dumps(marker, indent=1).encode())
        except OSError as error:
            LOG.warning("recorder: cannot write %s (%s)", layout.CLOSED_FILE, error)
        if self.lost_rows:
            LOG.warning("recorder: %d rows were lost in %s", self.lost_rows, self.folder)
        self._let_go()

    def leave(self) -> None:
        """Seal waiting rows and release the lock without a clean-close marker: the training has died."""
        self._closing = True
        self._stop_threads()
        self.flush()
        self._let_go()

    def _stop_threads(self) -> None:
        for bell, thread in ((self._bell, self._thread), (self._due_bell, self._sealer)):
            _ring(bell)
            if threading.current_thread() is not thread:
                thread.join(timeout=60.0)

    def _let_go(self) -> None:
        self._death_watch.close()
        self.claimed.release()
        _LIVE.discard(self)

    def _count_unsealed(self) -> None:
        """Count the rows that could not be sealed: they are in the log, or lost."""
        exists = self._log.exists()
        for table, entries in self._waiting.items():
            logged = sum(len(rows) for first, rows in entries if exists and first not in self._unlogged)
            self.lost_rows += sum(len(rows) for _, rows in entries) - logged
            self._count_written(table, logged)
        for table, count in self._given_up.items() if exists else ():
            self.lost_rows -= count
            self._count_written(table, count)

    def _count_written(self, table: str, rows: int) -> None:
        if rows:
            self._written.setdefault(table, {"rows": 0, "last_update": -1})["rows"] += rows


def _ring(bell: threading.Lock) -> None:
    """Wake the thread that waits for ``bell``; ringing twice wakes it once."""
    with contextlib.suppress(RuntimeError):
        bell.release()
