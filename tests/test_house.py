"""The house rules that a program can check: no circles, one meaning a class name, names that say what they hold."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from tests.pacing import LONG, SLOW

ROOT = Path(__file__).parents[1]
PACKAGES = ("esper_analyze", "recorder")
PLACEHOLDERS = {"found", "one", "place", "said", "told", "given", "held", "kept", "own", "whole", "look", "seen"}
PLACEHOLDERS |= {"known", "made", "taken"}
MOST_PLACEHOLDERS = 0.01
"""Share of bindings that may have a placeholder for a name: where it says literally that."""


@cache
def modules() -> dict[str, ast.Module]:
    """Return every module of the source by its dotted name."""
    files = [path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {dotted(file): ast.parse((ROOT / file).read_text(encoding="utf-8")) for file in files}


def dotted(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def file_of(module: str) -> str:
    path = ROOT / module.replace(".", "/")
    return str((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).relative_to(ROOT))


def imports(module: str) -> Iterator[str]:
    """Yield the modules of the source that ``module`` imports, inside functions and for type checkers too."""
    for node in ast.walk(modules()[module]):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [
                full if (full := f"{node.module}.{alias.name}") in modules() else node.module for alias in node.names
            ]
        yield from (name for name in names if name in modules() and name != module)


def room(module: str) -> str:
    """Return the package that ``module`` lies in: ``esper_analyze.reports``, ``recorder.capture``, or the module."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "esper_analyze" or len(parts) > 2 else "recorder"


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the shortest circle through each node that is in one."""
    shortest = []
    for start in sorted(graph):
        paths, visited = [[start]], set[str]()
        while paths:
            path = paths.pop(0)
            for target in sorted(graph.get(path[-1], ())):
                if target == start:
                    shortest.append([*path, start])
                    paths.clear()
                    break
                if target not in visited:
                    visited.add(target)
                    paths.append([*path, target])
    return shortest


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c", "b"], ["c", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {module: set(imports(module)) for module in modules()}
    assert [" → ".join(map(file_of, circle)) for circle in circles(graph)] == []


def test_no_packages_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        if module not in PACKAGES:  # what a package hands on to its users is not an import of its parts' own
            graph[room(module)] |= {room(name) for name in imports(module)} - {room(module), *PACKAGES}
    assert [" → ".join(circle) for circle in circles(graph)] == []


def test_no_two_classes_share_a_name() -> None:
    definitions = defaultdict(list)
    for package in (*PACKAGES, "tests"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    definitions[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    shared = [f"{name}: {', '.join(lines)}" for name, lines in definitions.items() if len(lines) > 1]
    assert not shared, "\n".join(["give all but one of each another name:", *shared])


def bindings(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield every name that is bound, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case _:
                pass


def test_names_say_what_they_hold() -> None:
    count, lines = 0, []
    for module, tree in modules().items():
        for name, line in bindings(tree):
            count += 1
            if name.strip("_") in PLACEHOLDERS:
                lines.append(f"{file_of(module)}:{line} {name}")
    assert len(lines) <= MOST_PLACEHOLDERS * count, "\n".join([f"{len(lines)} of {count}", *lines])


TAG = re.compile(r"</?(?:a|br|circle|code|dd|details|div|dl|dt|h[1-6]|img|li|ol|p|path|polyline|pre|section|small|span|"
                 r"strong|style|summary|svg|table|tbody|td|th|thead|tr|ul)(?=[\s>/])[^<]*>")  # fmt: skip
SVG_FILES = {"esper_analyze.reports.render.figure"}
"""Takes matplotlib's SVG apart; makes none."""


def strings(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield every string that is not a docstring, the parts of f-strings too."""
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in statements:
            yield node.value, node.lineno


def test_html_is_found() -> None:
    tree = ast.parse("def f(x):\n    '<p>'\n    return f'<td class=\"a\">{x} < y > z</td>' + 'RUN <name> <p'")
    assert [text for text, _ in strings(tree) if TAG.search(text)] == ['<td class="a">', " < y > z</td>"]


def test_html_is_written_in_templates_only() -> None:
    lines = [
        f"{file_of(module)}:{line} {text!r}"
        for module, tree in modules().items()
        if module not in SVG_FILES
        for text, line in strings(tree)
        if TAG.search(text)
    ]
    assert lines == []


def test_the_files_said_to_take_long_exist() -> None:
    files = (*LONG, *SLOW)
    assert len(set(files)) == len(files)
    assert [file for file in files if not (ROOT / "tests" / file).is_file()] == []


def test_the_files_that_contributing_names_exist() -> None:
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:recorder|esper_analyze|tests)/[\w/]+(?:\.py)?)`", text)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
