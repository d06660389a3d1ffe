"""Alerts by a command: it gets one JSON object on stdin. No shell."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from recorder.act.delivery import DeliveryError
from recorder.act.secrets import MissingVariableError, expanded, secrets_in, without_secrets

LONGEST_SECONDS = 30.0
"""A command that takes longer is killed, with what it has started."""
_MOST_READ = 500
"""Bytes at the end of what the command writes to stderr that are read."""


@dataclass(frozen=True, slots=True)
class CommandEndpoint:
    """Runs ``words`` for each message, in the working directory ``folder``; ``${NAME}`` in them is expanded then."""

    words: tuple[str, ...]
    folder: str
    paced: bool = False

    @property
    def label(self) -> str:
        """The program without its arguments, which may hold a token."""
        return f"command {shlex.quote(self.words[0])}"

    def deliver(self, message: Mapping[str, Any]) -> None:
        """Run the command once. It is not tried again: it may have done its work before it failed."""
        try:
            words = [expanded(word) for word in self.words]
        except MissingVariableError as error:
            raise DeliveryError(str(error)) from None
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    words,
                    cwd=self.folder,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,  # Ctrl-C ends the training, not the alert about it
                )
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or type(error).__name__
                raise DeliveryError(f"cannot be started ({why})") from None
            self._finish(process, json.dumps(message, allow_nan=False).encode() + b"\n", errors)

    def _finish(self, process: subprocess.Popen[bytes], line: bytes, errors: BinaryIO) -> None:
        try:
            process.communicate(line, timeout=LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise DeliveryError(f"still running after {LONGEST_SECONDS:g} s, and was killed") from None
        if process.returncode:
            raise DeliveryError(f"exit code {process.returncode}{self._last_line(errors)}")

    def _last_line(self, errors: BinaryIO) -> str:
        """Return the last line of stderr as the end of a sentence; empty without one."""
        errors.seek(max(errors.seek(0, os.SEEK_END) - _MOST_READ, 0))
        lines = errors.read().decode("utf-8", "replace").strip().splitlines()
        secrets = [secret for word in self.words for secret in secrets_in(word)]
        return f": {without_secrets(lines[-1][:160], secrets)}" if lines else ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the command and what it has started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    for pipe in filter(None, (process.stdin,)):
        with contextlib.suppress(OSError):
            pipe.close()
    process.wait()
