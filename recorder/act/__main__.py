"""``python -m recorder.act ENTRY …``: send one message for a try to each entry of ``on_finding``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from esper_analyze.detector.findings import Finding
from esper_analyze.detector.rules import RULES
from esper_analyze.errors import UsageError
from recorder.act.changes import IncidentChanges
from recorder.act.delivery import DeliveryError
from recorder.act.endpoints import EXAMPLES, endpoints
from recorder.act.message import Message, MessageWriter


def trial_message() -> Message:
    """Return a message about an incident that is none, of a run called "trial"."""
    finding = Finding(41, "kl_spike", "run", "kl_k3", "critical", "ok", 0.9, 0.5, 0.01, None)
    changes = IncidentChanges().take([finding])
    return MessageWriter(Path.cwd() / "trial", "trial", 0, {rule.name: rule for rule in RULES}).message(changes, {})


def main(entries: Sequence[str]) -> int:
    """Send the message to each entry, without further tries; return 1 if one did not arrive, 2 for no entry."""
    if not entries:
        sys.stderr.write(f"usage: python -m recorder.act ENTRY …\nentries are {EXAMPLES}\n")
        return 2
    try:
        targets = endpoints(list(entries))
    except UsageError as error:
        sys.stderr.write(f"{error.message}\nhint: {error.hint}\n")
        return 2
    failed = 0
    for endpoint in targets:
        try:
            endpoint.deliver(trial_message())
        except DeliveryError as error:
            failed += 1
            sys.stdout.write(f"{endpoint.label}: failed: {error}\n")
        else:
            sys.stdout.write(f"{endpoint.label}: sent\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
