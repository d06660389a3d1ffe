"""``esper-analyze rules``: the detector's rules, with thresholds and examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from esper_analyze.commands.options import Json
from esper_analyze.errors import UsageError
from esper_analyze.terminal import put


def rules(
    as_json: Json = False,
    as_toml: Annotated[bool, typer.Option("--toml", help="Every threshold as TOML, to edit for --thresholds.")] = False,
    rules_files: Annotated[
        list[Path] | None,
        typer.Option("--rules", metavar="FILE", help="Execute this Python file, check its rules, and print only them."),
    ] = None,
) -> None:
    """Print every rule of the detector: what it means, what to look at first, its thresholds and examples.

    Example: esper-analyze rules --toml > t.toml
    """
    from esper_analyze.detector.custom import load_rule_files
    from esper_analyze.detector.page import rule_facts, rules_page
    from esper_analyze.detector.rules import RULES
    from esper_analyze.detector.thresholds import Thresholds
    from esper_analyze.detector.toml import thresholds_to_toml
    from esper_analyze.strict_json import strict_json

    if as_json and as_toml:
        raise UsageError("--json and --toml exclude each other", hint="give one of them")
    custom = load_rule_files(rules_files or ())
    shown = tuple(rule for file in custom for rule in file.rules) or RULES
    if as_json:
        put(strict_json([rule_facts(rule) for rule in shown]))
    elif as_toml:
        put(thresholds_to_toml(Thresholds.defaults(shown), shown))
    else:
        put(rules_page(shown))
