"""One operator of a module changed at a time: every place where that can be done, and the module with one change.

Left alone, because no test of behaviour can tell: annotations, decorators, texts and f-strings, raised errors,
``strict=`` of ``zip``, and assignments to a plain name (without them Python itself fails). So are the ``Example`` cells
that a rule brings with it, and what only makes these: they are the inputs of a test, and another input may well end on
the same verdict.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_PAIRS = (
    ("min", "max"),
    ("amin", "amax"),
    ("nanmin", "nanmax"),
    ("argmin", "argmax"),
    ("minimum", "maximum"),
    ("fmin", "fmax"),
    ("sum", "mean"),
    ("any", "all"),
    ("floor", "ceil"),
    ("rstrip", "lstrip"),
    ("startswith", "endswith"),
)
_NAMES = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}


@dataclass(frozen=True)
class Change:
    """The ``number``-th change of a file; ``function`` is the qualified name around it, empty at module level."""

    file: str
    number: int
    line: int
    function: str
    first_line: int  # of the innermost function, 0 at module level
    before: str
    after: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What stays the same when lines move."""
        return self.file, self.function, self.before, self.after

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}\n    {self.before}\n  → {self.after}"


@dataclass
class _Edit:
    """``new`` in place of ``node``; ``put`` puts either where the other is. ``statement`` is the one around them."""

    node: ast.AST
    new: ast.AST
    put: Callable[[Any], None]
    statement: ast.stmt
    function: str
    first_line: int


def changes(file: str, source: str) -> list[Change]:
    """Return every change of a module."""
    found = []
    for number, edit in enumerate(_edits(ast.parse(source))):
        before, line = _text(edit.statement), getattr(edit.node, "lineno", edit.statement.lineno)
        edit.put(edit.new)
        after = _text(edit.new if edit.node is edit.statement else edit.statement)
        edit.put(edit.node)
        found.append(Change(file, number, line, edit.function, edit.first_line, before, after))
    return [change for change in found if change.before != change.after]


def changed(source: str, number: int) -> ast.Module:
    """Return the module with one change."""
    tree = ast.parse(source)
    edit = _edits(tree)[number]
    edit.put(ast.copy_location(edit.new, edit.node))
    return ast.fix_missing_locations(tree)


def _text(statement: ast.AST) -> str:
    """Return a statement, of a compound one its head."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        statement = _with(statement, decorator_list=[])
    return ast.unparse(statement).split("\n")[0]


def _edits(tree: ast.Module) -> list[_Edit]:
    walk, inputs = _Walk(), _inputs_of_tests(tree)
    for place, statement in enumerate(tree.body):
        if statement not in inputs:
            walk.visit(statement, _putter(tree.body, place), statement)
    return walk.edits


def _putter(holder: Any, place: int | str) -> Callable[[Any], None]:
    def put(new: Any) -> None:
        if isinstance(place, int):
            holder[place] = new
        else:
            setattr(holder, place, new)

    return put


_WITHOUT_BEHAVIOUR = (ast.JoinedStr, ast.Raise, ast.Import, ast.ImportFrom, ast.Assert)
_FIELDS_LEFT_ALONE = ("annotation", "returns", "decorator_list")


@dataclass
class _Walk:
    edits: list[_Edit] = field(default_factory=list)
    names: tuple[str, ...] = ()
    first_line: int = 0

    def visit(self, node: ast.AST, put: Callable[[Any], None], statement: ast.stmt) -> None:
        if isinstance(node, _WITHOUT_BEHAVIOUR) or _input_of_a_test(node):
            return
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return
        statement = node if isinstance(node, ast.stmt) else statement
        function = ".".join(self.names)
        self.edits += [_Edit(node, new, put, statement, function, self.first_line) for new in replacements(node)]
        around = self.names, self.first_line
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self.names = (*self.names, node.name)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self.first_line = node.lineno
        for child, place in _children(node):
            self.visit(child, place, statement)
        self.names, self.first_line = around


def _input_of_a_test(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Example"


def _inputs_of_tests(tree: ast.Module) -> list[ast.stmt]:
    """Return the private functions and constants of a module that nothing but its examples uses."""
    named: dict[str, ast.stmt] = {}
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            named[statement.name] = statement
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            named[statement.targets[0].id] = statement
    examples = [node for node in ast.walk(tree) if _input_of_a_test(node)]
    found = {name: one for name, one in named.items() if name.startswith("_") and name in _names(examples)}
    while True:
        elsewhere = _names([one for one in tree.body if one not in found.values()], but=_input_of_a_test)
        if not elsewhere & set(found):
            return list(found.values())
        found = {name: one for name, one in found.items() if name not in elsewhere}


def _names(nodes: Sequence[ast.AST], but: Callable[[ast.AST], bool] = lambda _: False) -> set[str]:
    """Return the names that are read in ``nodes``, but for what is inside of those that ``but`` picks."""
    found, waiting = set[str](), list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
        waiting += [child for child in ast.iter_child_nodes(node) if not but(child)]
    return found


def _children(node: ast.AST) -> Iterator[tuple[ast.AST, Callable[[Any], None]]]:
    """Yield what stands inside a node, and how to put something else there."""
    for name, value in ast.iter_fields(node):
        if name in _FIELDS_LEFT_ALONE:
            continue
        if isinstance(value, ast.AST):
            yield value, _putter(node, name)
        elif isinstance(value, list):
            yield from ((one, _putter(value, place)) for place, one in enumerate(value) if isinstance(one, ast.AST))


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in a node's place, without looking inside it."""
    for kind, others in _RULES:
        if isinstance(node, kind):
            yield from others(node)


def _other_operator(node: Any) -> Iterator[ast.AST]:
    for kind in _OPERATORS.get(type(node.op), ()):
        yield _with(node, op=kind())


def _other_comparisons(node: Any) -> Iterator[ast.AST]:
    for place, operator in enumerate(node.ops):
        for kind in _OPERATORS.get(type(operator), ()):
            yield _with(node, ops=[*node.ops[:place], kind(), *node.ops[place + 1 :]])


def _without_operator(node: Any) -> Iterator[ast.AST]:
    if isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
        yield node.operand


def _other_constants(node: Any) -> Iterator[ast.AST]:
    yield from (ast.Constant(value) for value in _other_values(node.value))


def _other_name(node: Any) -> Iterator[ast.AST]:
    name = "attr" if isinstance(node, ast.Attribute) else "id"
    if isinstance(node.ctx, ast.Load) and getattr(node, name) in _NAMES:
        yield _with(node, **{name: _NAMES[getattr(node, name)]})


def _returned_none(node: Any) -> Iterator[ast.AST]:
    if node.value is not None and not isinstance(node.value, ast.Constant):
        yield ast.Return(ast.Constant(None))


def _opposite_test(node: Any) -> Iterator[ast.AST]:
    if isinstance(node.test, (ast.Name, ast.Attribute, ast.Call, ast.NamedExpr)):
        yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))


def _nothing(node: Any) -> Iterator[ast.AST]:
    if _removable(node):
        yield ast.Pass()


def _removable(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if isinstance(node, ast.Assign):
        return all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets)
    return isinstance(node, ast.AugAssign)


_SYMMETRIC = ("min", "max", "minimum", "maximum", "fmin", "fmax", "equal")
"""Functions of two arguments whose order makes no difference."""


def _other_calls(node: ast.Call) -> Iterator[ast.AST]:
    function = getattr(node.func, "id", getattr(node.func, "attr", ""))
    if len(node.args) == 2 and not node.keywords and function not in ("isinstance", "issubclass", *_SYMMETRIC):
        first, second = node.args
        if not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred):
            yield _with(node, args=[second, first])


def _other_values(value: object) -> Iterator[str | float]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, str) and value in ("amin", "amax"):
        yield _NAMES[value]
    elif isinstance(value, int):
        yield {0: 1, 1: 0}.get(value, value + 1)
        if value == 1:
            yield 2
    elif isinstance(value, float):
        yield 2 * value if value else 1.0


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


_RULES: tuple[tuple[Any, Callable[[Any], Iterator[ast.AST]]], ...] = (
    ((ast.BinOp, ast.BoolOp, ast.AugAssign), _other_operator),
    (ast.Compare, _other_comparisons),
    (ast.UnaryOp, _without_operator),
    (ast.Constant, _other_constants),
    ((ast.Attribute, ast.Name), _other_name),
    (ast.Call, _other_calls),
    (ast.Return, _returned_none),
    ((ast.If, ast.IfExp, ast.While), _opposite_test),
    ((ast.Expr, ast.Assign, ast.AugAssign), _nothing),
)
