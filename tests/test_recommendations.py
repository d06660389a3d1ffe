"""The table of what earlier reviews asked for names columns, rules and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from esper_analyze.detector.rules import RULES
from esper_analyze.schema.tables import BY_NAME

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("recommendations.md")
LINES = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLE.read_text().splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| id "))
]
ASKED = {
    "Review of the gradient collector": "C1 C2 C3 H1 H2 H3 H4 M1 M2 M3 M4 M5 L1 L2 L3 L4 L5 RL1 RL2 RL3",
    "Review of the telemetry subsystem": "C1 C2 H1 H2 M1 M2 M3 L1 L2 L3 L4 L5 R3 R5 R6 RL2 RL3 RL5 EV",
    "Freeze bug": "1 2 3 4 5 6 7 +",
}


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("section", ASKED)
def test_everything_that_was_asked_for_has_a_line(section: str) -> None:
    body = TABLE.read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| (\S+) \|", body, re.MULTILINE)[1:] == ASKED[section].split()


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line[0]} {line[1]}")
def test_what_a_line_names_exists(line: list[str]) -> None:
    _, asked, columns, rules, tests = line
    assert asked
    for column in quoted(columns):
        table, name = column.split(".")
        assert name in [one.name for one in BY_NAME[table].columns]
    assert set(quoted(rules)) <= {rule.name for rule in RULES}
    assert quoted(tests)
    for test in quoted(tests):
        file, _, name = test.partition("::")
        assert f"def {name or 'test_'}" in (ROOT / file).read_text()


def sources() -> list[Path]:
    return [path for package in ("recorder", "esper_analyze") for path in (ROOT / package).rglob("*.py")]


def test_no_private_function_of_torch_is_used() -> None:
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                assert not node.attr.startswith("_"), f"{path.name}:{node.lineno} torch.{node.attr}"
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_foreach"), f"{path.name}:{node.lineno}"


def test_no_result_depends_on_a_flag() -> None:
    """No measuring function returns one type or another, nor a dictionary of private keys."""
    for path in sorted((ROOT / "recorder" / "measure").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert node.returns is not None
                returned = ast.unparse(node.returns)
                assert "|" not in returned.replace(" | None", ""), f"{path.name}: {node.name} -> {returned}"
                assert "dict[str, Any]" not in returned, f"{path.name}: {node.name} -> {returned}"
