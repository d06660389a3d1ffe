"""Alerts by any service that apprise knows, such as mail, Telegram, Teams or ntfy.

See https://github.com/caronc/apprise. It is imported here only, in the thread that sends.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from recorder.act.delivery import DeliveryError
from recorder.act.message import as_text
from recorder.act.secrets import MissingVariableError, expanded, references, secrets_in

MISSING = "apprise is not installed: pip install 'esper-analyze[alerts]'"
_TALKATIVE = ("apprise", "urllib3.connectionpool")
"""Loggers that name addresses with the tokens in them."""


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """Notifies through apprise; ``${NAME}`` in ``url`` is expanded for each message."""

    url: str
    paced: bool = True

    @property
    def label(self) -> str:
        """The scheme alone: everything after it may be a token."""
        scheme = self.url.partition("://")[0]
        return f"apprise ${{{references(self.url)[0]}}}" if references(scheme) else f"apprise {scheme}://"

    def deliver(self, message: Mapping[str, Any]) -> None:
        """Notify once. apprise says only that it failed, not why; it may be tried again."""
        try:
            url = expanded(self.url).strip()
        except MissingVariableError as error:
            raise DeliveryError(str(error)) from None
        with _silenced(secrets_in(self.url)):
            try:
                import apprise
            except ImportError:
                raise DeliveryError(MISSING) from None
            try:
                service = apprise.Apprise()
                accepted = service.add(url)
                sent = accepted and service.notify(body=as_text(message), title=f"{message['run']}: {message['rule']}")
            except Exception as error:
                raise DeliveryError(f"apprise raised {type(error).__name__}") from None
        if not accepted:
            raise DeliveryError("apprise does not know this address; `apprise --details` lists what it knows")
        if not sent:
            raise DeliveryError("the service did not take the message", retry=True)


@contextlib.contextmanager
def _silenced(secrets: Sequence[str]) -> Iterator[None]:
    """Drop what apprise logs, and what its HTTP library logs with a secret; apprise sends in threads of its own."""
    shown = [*secrets, *map(quote, secrets)]

    def without_secret(record: logging.LogRecord) -> bool:
        return record.name != "apprise" and not any(secret in record.getMessage() for secret in shown)

    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    for logger in loggers:
        logger.addFilter(without_secret)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(without_secret)
