"""Secrets in the texts of alerts: expanded when an alert is sent, and left out of everything that is logged."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SHORTEST = 4
"""Shorter parts of an address are words such as "api" or a port, and would blot out half of a message."""
BLANK = "…"


class MissingVariableError(LookupError):
    """A text refers to an environment variable that is not set."""


def references(text: str) -> list[str]:
    """Return the names of the environment variables that ``text`` refers to as ``${NAME}``."""
    return _REFERENCE.findall(text)


def expanded(text: str) -> str:
    """Return ``text`` with each ``${NAME}`` replaced from the environment. Raises ``MissingVariableError``."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise MissingVariableError(f"environment variable {match[1]} is not set")
        return os.environ[match[1]]

    return _REFERENCE.sub(value, text)


def secrets_in(text: str) -> list[str]:
    """Return what must not be shown of ``text``: the values it refers to, and an address with its parts but the host.

    The longest comes first. What is not set is left out.
    """
    values = [os.environ[name] for name in references(text) if os.environ.get(name)]
    try:
        address = expanded(text)
    except MissingVariableError:
        address = ""
    parts = (part for value in (address, *values) for part in _parts_of_address(value))
    return sorted({*values, *(part for part in parts if len(part) >= _SHORTEST)}, key=len, reverse=True)


def _parts_of_address(text: str) -> Iterable[str]:
    try:
        address = urlsplit(text.strip())
    except ValueError:
        return
    if not address.scheme or "://" not in text:
        return
    yield text.strip()
    yield from (address.path, address.query, address.fragment, address.username or "", address.password or "")
    yield from re.split(r"[/?&=#;]", f"{address.path}&{address.query}")
    if address.scheme not in ("http", "https"):  # of services such as slack:// the host is a token as well
        yield address.netloc


def without_secrets(message: str, secrets: Iterable[str]) -> str:
    """Return ``message`` with each secret replaced by ``…``."""
    for secret in secrets:
        message = message.replace(secret, BLANK)
    return message
