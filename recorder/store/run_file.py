"""run.json: the facts of the run, written once before anything else."""

from __future__ import annotations

import json
import math
import platform
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from esper_analyze.schema import VERSION
from esper_analyze.storage.atomic import write_once
from esper_analyze.storage.layout import RUN_FILE

_PACKAGES = ("esper-analyze", "torch", "numpy", "stable-baselines3", "sb3-contrib", "gymnasium")

GIT_SECONDS = 1.0
"""Seconds that git may take to say whether files were changed."""
_SECRET = re.compile(
    r"(?:^|[-_.+/])(?:api_?key|key|token|secret|passw\w*|passphrase|pwd|auth\w*|credentials?)(?:$|[-_.])", re.IGNORECASE
)
_IN_ADDRESS = re.compile(r"(://)[^/@\s]+@")
_OF_WEBHOOK = re.compile(r"(https?://[^\s/]+/(?:[^\s/]+/)*?(?:services|hooks|webhooks?)/)\S+", re.IGNORECASE)
"""An address of a webhook: who has it can write, as with a password."""


class RunExistsError(FileExistsError):
    """The directory already holds a run."""


def create_run(run_dir: Path, facts: Mapping[str, object]) -> dict[str, object]:
    """Create ``run_dir`` and its run.json; return the content.

    Raises ``RunExistsError`` if the directory already holds a run.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / RUN_FILE
    exists_error = RunExistsError(
        f"{run_dir} already holds a run: record into a new directory, or resume it with resume=True"
    )
    if path.exists():
        raise exists_error
    info = {
        "schema_version": VERSION,
        "run_id": uuid.uuid4().hex,
        "created": time.time(),
        "ranks": 1,
        "python": sys.version.split()[0],
        "versions": _versions(),
        "argv": shown_arguments(sys.argv),
        "host": platform.node(),
        **_git(Path.cwd()),
        **facts,
    }
    if not write_once(path, json.dumps(plain(info), indent=1, allow_nan=False).encode()):
        raise exists_error
    return info


def plain(value: object) -> object:
    """Return ``value`` as strict JSON; NaN, Inf and objects of unknown types become text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, Mapping):
        return {str(name): plain(cell) for name, cell in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(cell) for cell in value]
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "size", None) == 1:
        return plain(item())
    return str(value)


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def shown_arguments(argv: Sequence[str]) -> list[str]:
    """Return the command line with ``…`` for values named like a secret, passwords in addresses and webhooks."""
    shown: list[str] = []
    hidden = False  # the next argument belongs to an option named like a secret
    for argument in argv:
        name, equals, _ = argument.partition("=")
        secret = _SECRET.search(name) is not None
        if hidden:
            shown.append("…")
        elif secret and equals:
            shown.append(f"{name}=…")
        else:
            shown.append(_OF_WEBHOOK.sub(r"\1…", _IN_ADDRESS.sub(r"\1…@", argument)))
        hidden = not hidden and secret and not equals and name.startswith("-")
    return shown


def _git(start: Path) -> dict[str, object]:
    """Return commit of the checkout around ``start``, and whether its tracked files were changed; None: unknown."""
    line = ["git", "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    try:
        process = subprocess.Popen(line, cwd=start, stdin=null, stdout=pipe, stderr=null, text=True)
        try:
            said, _ = process.communicate(timeout=GIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()  # and not waited for: on a file system that hangs it does not end
            process.returncode = -9
            if process.stdout is not None:
                process.stdout.close()
            said = ""
    except (OSError, ValueError, subprocess.SubprocessError):
        return {"git_commit": _git_commit(start), "git_dirty": None}
    if process.returncode != 0:
        return {"git_commit": _git_commit(start), "git_dirty": None}
    lines = said.splitlines()
    commit = next((row.split()[-1] for row in lines if row.startswith("# branch.oid ")), None)
    known = commit is not None and commit != "(initial)"
    return {"git_commit": commit if known else None, "git_dirty": any(not row.startswith("#") for row in lines)}


def _git_commit(start: Path) -> str | None:
    """Read the commit of the checkout around ``start`` from .git itself; None outside a checkout."""
    for folder in (start, *start.parents):
        head = folder / ".git" / "HEAD"
        if not head.is_file():
            continue
        try:
            text = head.read_text().strip()
            if not text.startswith("ref: "):
                return text
            ref = folder / ".git" / text.removeprefix("ref: ")
            return ref.read_text().strip() if ref.is_file() else _packed_ref(folder, text.removeprefix("ref: "))
        except OSError:
            return None
    return None


def _packed_ref(folder: Path, ref: str) -> str | None:
    packed = folder / ".git" / "packed-refs"
    lines = packed.read_text().splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {ref}")), None)
