"""``esper-analyze rules``: the detector's rules, with thresholds and examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esper_analyze.commands.options import takes_options
from esper_analyze.commands.output import Form, PageOutput
from esper_analyze.errors import UsageError, did_you_mean
from esper_analyze.terminal import show_markdown

if TYPE_CHECKING:
    from esper_analyze.detector.rule import Rule


Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]…", help="Print only these rules.", show_default=False)
]


@takes_options("names", "form", "as_json", "as_toml", "out", "rules_files", "example", "safe")
def rules(
    output: PageOutput,
    names: Names = None,
    as_toml: Annotated[bool, typer.Option("--toml", help="Every threshold as TOML, to edit for --thresholds.")] = False,
    rules_files: Annotated[
        list[Path] | None,
        typer.Option("--rules", metavar="FILE", help="Execute this Python file, check its rules, and print only them."),
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print a complete file with a custom rule, to edit for --rules.")
    ] = False,
) -> None:
    """Print every rule of the detector: what it means, what to look at first, its thresholds and examples.

    Formatted in a terminal, Markdown in a pipe; as CSV, a line for each threshold.

    Example: esper-analyze rules kl_spike

    Example: esper-analyze rules --toml --out t.toml

    Example: esper-analyze rules --example > own_rules.py
    """
    if example:
        _write_example(output, alone=not (names or output.as_json or output.form or as_toml or rules_files))
        return
    from esper_analyze.csv_text import records_csv
    from esper_analyze.detector.custom import load_rule_files
    from esper_analyze.detector.page import rule_facts, rules_page, threshold_records
    from esper_analyze.detector.rules import RULES
    from esper_analyze.detector.thresholds import Thresholds
    from esper_analyze.detector.toml import thresholds_to_toml
    from esper_analyze.strict_json import strict_json

    if as_toml and (output.as_json or output.form):
        raise UsageError("--json, --format and --toml exclude each other", hint="give one of them")
    form = Form.TABLE if as_toml else output.resolved
    custom = load_rule_files(rules_files or ())
    shown = _named(names or (), tuple(rule for file in custom for rule in file.rules) or RULES)
    if as_toml:
        output.write(thresholds_to_toml(Thresholds.defaults(shown), shown))
    elif form is Form.JSON:
        output.write(strict_json([rule_facts(rule) for rule in shown]))
    elif form is Form.CSV:
        records = [record for rule in shown for record in threshold_records(rule)]
        output.write(records_csv(list(records[0]), records, safe=output.safe))
    else:
        output.write(lambda: show_markdown(rules_page(shown)))


def _named(names: Sequence[str], rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return the rules called ``names``, all without one. Raises ``UsageError`` for an unknown name."""
    by_name = {rule.name: rule for rule in rules}
    for name in names:
        if name not in by_name:
            raise UsageError(f"there is no rule {name!r}{did_you_mean(name, by_name)}")
    return tuple(by_name[name] for name in names) if names else rules


def _write_example(output: PageOutput, *, alone: bool) -> None:
    """Write the file of ``esper_analyze/docs`` that declares a rule of one's own."""
    from importlib.resources import files

    if not alone:
        raise UsageError("--example prints one file and takes no other option", hint="give it alone")
    output.write(files("esper_analyze").joinpath("docs", "own_rules.py").read_text(encoding="utf-8"))
