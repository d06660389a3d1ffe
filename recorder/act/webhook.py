"""Alerts by HTTP: one JSON object to a URL, in the form that Slack, Discord or Mattermost expect, or as it is."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from recorder.act.delivery import DeliveryError
from recorder.act.message import as_text
from recorder.act.secrets import MissingVariableError, expanded, references, secrets_in, without_secrets

TIMEOUT_SECONDS = 10.0
"""Longest wait for a connection, and for each piece of an answer."""
LONGEST_WAIT = 60.0
"""Most seconds of a ``Retry-After`` that are honoured."""
_AGAIN = (408, 425, 429)
_MOST_READ = 200
"""Bytes of an answer that are read: services say in it why they refuse."""
_SILENT_AT = "@\u200b"
"""An at sign that notifies nobody: names of heads and runs may contain one."""


def _slack(message: Mapping[str, Any]) -> dict[str, Any]:
    text = as_text(message)
    for character, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, escape)
    return {"text": text}


def _discord(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": as_text(message)[:2000], "allowed_mentions": {"parse": []}}


def _mattermost(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": as_text(message).replace("@", _SILENT_AT)}


FORMATS: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "slack": _slack,
    "discord": _discord,
    "mattermost": _mattermost,
    "webhook": lambda message: message,
}
"""The form of a message by the prefix of the endpoint; ``webhook`` is decided by the host."""


def format_of_host(host: str) -> str:
    """Return the prefix that a host stands for; "webhook" if none is known."""
    if host == "hooks.slack.com" or host.endswith(".slack.com"):
        return "slack"
    if host in ("discord.com", "discordapp.com") or host.endswith((".discord.com", ".discordapp.com")):
        return "discord"
    return "mattermost" if host.split(".", maxsplit=1)[0] == "mattermost" else "webhook"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a POST would be repeated as a GET without the message, and look delivered."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request; the answer is then an error."""


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """POSTs each message to ``url``, whose ``${NAME}`` are expanded for each message."""

    url: str
    form: str = "webhook"
    paced: bool = True

    @property
    def label(self) -> str:
        """The form and the host, which is left out where it comes from the environment."""
        if references(self.url.split("/")[2] if self.url.count("/") > 1 else self.url):
            return f"{self.form} ${{{references(self.url)[0]}}}"
        return f"{self.form} {urlsplit(self.url).netloc.rpartition('@')[2]}"

    def deliver(self, message: Mapping[str, Any]) -> None:
        """POST one message. Answers 408, 425, 429 and 5xx, and connections that fail, may be tried again."""
        try:
            url = expanded(self.url).strip()
            parts = urlsplit(url)
        except (MissingVariableError, ValueError) as error:
            raise DeliveryError(self._shown(error)) from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DeliveryError("is not a URL that begins with http:// or https://")
        form = format_of_host(parts.hostname) if self.form == "webhook" else self.form
        body = json.dumps(FORMATS[form](message), allow_nan=False).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "esper-analyze"}
        user, at, host = parts.netloc.rpartition("@")
        if at:
            headers["Authorization"] = f"Basic {base64.b64encode(unquote(user).encode()).decode()}"
        self._post(urlunsplit(parts._replace(netloc=host)), body, headers)

    def _post(self, url: str, body: bytes, headers: dict[str, str]) -> None:
        try:
            request = urllib.request.Request(url, body, headers, method="POST")
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT_SECONDS) as answer:
                answer.read(_MOST_READ)
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except TimeoutError:
            raise DeliveryError(f"no answer within {TIMEOUT_SECONDS:g} s", retry=True) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise DeliveryError(f"no connection within {TIMEOUT_SECONDS:g} s", retry=True) from None
            why = getattr(reason, "strerror", None) or type(reason).__name__
            raise DeliveryError(self._shown(why), retry=not isinstance(error, ValueError)) from None

    def _refused(self, error: urllib.error.HTTPError) -> DeliveryError:
        with error:
            try:
                words = error.read(_MOST_READ).decode("utf-8", "replace").strip()
            except (OSError, http.client.HTTPException):
                words = ""
            wait = error.headers.get("Retry-After", "")
        after = min(float(wait), LONGEST_WAIT) if wait.isdecimal() else None
        redirect = " (a redirect, which is not followed)" if 300 <= error.code < 400 else ""
        line = next(iter(words.splitlines()), "")[:80]
        why = f"HTTP {error.code}{redirect}" + (f": {self._shown(line)}" if line and not redirect else "")
        return DeliveryError(why, retry=error.code in _AGAIN or error.code >= 500, after=after)

    def _shown(self, what: object) -> str:
        return without_secrets(str(what), secrets_in(self.url))
