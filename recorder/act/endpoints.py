"""``on_finding`` as text: which endpoint each of its entries names."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.schema.printable import LOG
from recorder.act.command import CommandEndpoint
from recorder.act.delivery import Endpoint
from recorder.act.function import FunctionEndpoint
from recorder.act.secrets import BLANK, references
from recorder.act.service import ServiceEndpoint
from recorder.act.webhook import FORMATS, WebhookEndpoint

EXAMPLES = (
    '"log", "command: notify-team", "https://…", "slack: ${SLACK_WEBHOOK}", "apprise: ${APPRISE_URL}", '
    '"python: package.module:function"'
)
_PREFIXES = ("log", "command", *FORMATS, "apprise", "python")
_PREFIX = re.compile(r"([A-Za-z]+):(?!//)(.*)\Z", re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)\Z")


def endpoints(on_finding: str | Sequence[str] | None) -> list[Endpoint]:
    """Return the endpoints of ``on_finding``; "log" is none, because alarms are always logged.

    Raises ``UsageError`` for an entry that names none. Variables that are not set are only logged: they are read when
    an alert is sent.
    """
    if on_finding is None:
        return []
    listed = [on_finding] if isinstance(on_finding, str) else on_finding
    if not isinstance(listed, (list, tuple)) or not all(isinstance(text, str) for text in listed):
        kind = type(on_finding).__name__
        wrong = f"on_finding must be text or a list of texts, not {kind}"
        if isinstance(listed, (list, tuple)):
            wrong = "on_finding must hold texts only"
        raise UsageError(wrong, hint=f"entries are {EXAMPLES}")
    parsed = [endpoint for text in listed if (endpoint := _endpoint(text.strip())) is not None]
    for text in listed:
        for name in references(text):
            if name not in os.environ:
                LOG.warning(
                    "recorder: on_finding refers to ${%s}, which is not set; it is read when an alert is sent", name
                )
    return parsed


def _endpoint(text: str) -> Endpoint | None:
    if text == "log":
        return None
    match = _PREFIX.match(text)
    if match is not None:
        return _prefixed(match[1].lower(), match[2].strip())
    scheme = _SCHEME.match(text)
    if (scheme is not None and scheme[1].lower() in ("http", "https")) or text.startswith("${"):
        return _webhook("webhook", text)
    if scheme is not None:
        return ServiceEndpoint(text)
    if not text:
        raise UsageError("on_finding has an empty entry", hint=f"entries are {EXAMPLES}")
    shown = text if text.isidentifier() else BLANK
    raise UsageError(f"on_finding entry {shown!r} names nothing to do", hint=f"entries are {EXAMPLES}")


def _prefixed(prefix: str, rest: str) -> Endpoint | None:
    if prefix not in _PREFIXES:
        near = did_you_mean(prefix, _PREFIXES)
        raise UsageError(f"on_finding has no kind {prefix!r}{near}", hint=f"entries are {EXAMPLES}")
    if prefix == "log":
        raise UsageError("on_finding entry 'log:' takes nothing after it", hint='write "log"')
    if not rest:
        raise UsageError(f"on_finding entry '{prefix}:' names nothing after it", hint=f"entries are {EXAMPLES}")
    if prefix == "command":
        return _command(rest)
    if prefix == "python":
        return _function(rest)
    if prefix == "apprise":
        if not references(rest) and _SCHEME.match(rest) is None:
            raise UsageError("on_finding entry 'apprise:' needs an address", hint='such as "apprise: ntfy://my-topic"')
        return ServiceEndpoint(rest)
    return _webhook(prefix, rest)


def _command(rest: str) -> CommandEndpoint:
    try:
        words = tuple(shlex.split(rest))
    except ValueError as error:
        raise UsageError(
            f"on_finding entry 'command:' cannot be split into words: {error}", hint="close the quotes"
        ) from None
    if not words:
        raise UsageError("on_finding entry 'command:' names no program", hint='such as "command: notify-team --ppo"')
    return CommandEndpoint(words, str(Path.cwd()))


def _function(rest: str) -> FunctionEndpoint:
    match = _FUNCTION.match(rest)
    if match is None:
        hint = 'such as "python: package.module:function"'
        raise UsageError(f"on_finding entry 'python:' needs module and function, not {rest!r}", hint=hint)
    return FunctionEndpoint(match[1], match[2])


def _webhook(form: str, url: str) -> WebhookEndpoint:
    if not references(url) and not re.match(r"https?://[^/\s]", url, re.IGNORECASE):
        raise UsageError(
            f"on_finding entry '{form}:' needs a URL that begins with http:// or https://",
            hint=f'such as "{form}: ${{WEBHOOK_URL}}"',
        )
    return WebhookEndpoint(url, form)
