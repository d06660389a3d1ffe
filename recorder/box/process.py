"""The box's process: started by the training, ended by its end."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from esper_analyze.schema.printable import LOG

IDLE_SECONDS = 1.0
"""Interval at which an idle box looks into the ring."""
NICE = 10


def main(setup_file: str, descriptor: str) -> None:
    """Serve the training that started this process until it closes the recording or dies."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    import torch

    from recorder.box.serve import Box
    from recorder.box.wire import unpacked

    torch.set_num_threads(1)
    connection = socket.socket(fileno=int(descriptor))
    path = Path(setup_file)
    message, buffers = pickle.loads(path.read_bytes())
    setup = unpacked(memoryview(message), [memoryview(bytearray(buffer)) for buffer in buffers])
    path.unlink()
    logging.lastResort = None
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    voice = _Voice(connection)
    LOG.addHandler(voice)
    with torch.no_grad():
        Box(setup, connection, voice.say).serve()
    connection.close()
    sys.exit(0)


class _Voice(logging.Handler):
    """Sends log records to the training, or writes them to stderr once it is dead."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._socket = connection

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        from recorder.box.messages import FromBox

        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
        self.say(FromBox(log=(record.levelno, text)))

    def say(self, message: Any) -> None:
        """Send a message; where the training does not read, it is written to stderr if it is a line to log."""
        from recorder.box.messages import sent

        try:
            self.acquire()  # threads that store and send log as well
            _, ready, _ = select.select([], [self._socket], [], IDLE_SECONDS)
            if ready:
                self._socket.sendall(sent(message))
                return
        except OSError:
            pass
        finally:
            self.release()
        if message.log is not None:
            with contextlib.suppress(OSError):
                sys.stderr.write(message.log[1] + "\n")
