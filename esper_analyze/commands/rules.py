"""``esper-analyze rules``: what the detector watches, with thresholds and examples."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from esper_analyze.commands.options import Json
from esper_analyze.errors import UsageError


def rules(
    as_json: Json = False,
    as_toml: Annotated[bool, typer.Option("--toml", help="Every threshold as TOML, to edit for --thresholds.")] = False,
) -> None:
    """Print every rule of the detector: what it means, what to look at first, its thresholds and examples.

    Example: esper-analyze rules --toml > t.toml
    """
    from esper_analyze.detector.page import rule_facts, rules_page
    from esper_analyze.detector.rules import RULES
    from esper_analyze.detector.thresholds import Thresholds
    from esper_analyze.detector.toml import thresholds_to_toml
    from esper_analyze.strict_json import strict_json

    if as_json and as_toml:
        raise UsageError("--json and --toml exclude each other", hint="give one of them")
    if as_json:
        sys.stdout.write(strict_json([rule_facts(rule) for rule in RULES]))
    elif as_toml:
        sys.stdout.write(thresholds_to_toml(Thresholds.defaults(RULES), RULES))
    else:
        sys.stdout.write(rules_page(RULES))
