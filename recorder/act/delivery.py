"""What every endpoint of alerts has in common: a label that holds no secret, one delivery, and how it can fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class DeliveryError(Exception):
    """A message that was not delivered, and why, in words without secrets.

    ``retry``: trying again may help; ``after``: the seconds that the other side asks to wait, None if it does not.
    """

    def __init__(self, why: str, *, retry: bool = False, after: float | None = None) -> None:
        super().__init__(why)
        self.retry, self.after = retry, after


class Endpoint(Protocol):
    """Where messages go. Delivers in the thread of its channel, never in that of the training."""

    @property
    def label(self) -> str:
        """What logs and tables call it: no token, no password, no path of a webhook."""

    @property
    def paced(self) -> bool:
        """Whether people read it, so that a flood of incidents must not become a flood of messages."""

    def deliver(self, message: Mapping[str, Any]) -> None:
        """Deliver one message. Raises ``DeliveryError``."""
