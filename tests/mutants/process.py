"""Tests run in forks of a process that has the slow imports behind it, with one module changed in memory."""

from __future__ import annotations

import ast
import atexit
import builtins
import contextlib
import importlib
import importlib.util
import json
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest

from tests.mutants.packages import ROOT

PRELOADED = ("torch", "numpy", "pyarrow.parquet", "polars", "duckdb", "hypothesis.extra.numpy", "typer", "rich.table")
Function = tuple[str, int]
"""File and first line of a function."""


def preload() -> None:
    """Import what takes long and is not changed: every fork has it."""
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import hypothesis
    import torch

    torch.set_num_threads(1)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode, sys.pycache_prefix = False, tempfile.mkdtemp(prefix="mutants-pyc-")
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)
    with contextlib.suppress(AttributeError):  # reads every module's source for constants, a third of a fork's time
        hypothesis.internal.conjecture.providers._get_local_constants = hypothesis.internal.constants_ast.Constants
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # a failure is enough: nobody reads the example
    hypothesis.settings.register_profile("mutants", database=None, phases=phases, derandomize=True, print_blob=False)
    hypothesis.settings.load_profile("mutants")


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self._tree = tree

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        code: CodeType = compile(self._tree, self.path, "exec")
        return code


def module_name(file: str) -> str:
    """Return what a module is imported as."""
    parts = Path(file).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class Changed:
    """Finder of one changed module: nothing is written into the source tree."""

    def __init__(self, file: str, tree: ast.Module) -> None:
        self._name, self._path, self._tree = module_name(file), ROOT / file, tree

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Return the spec of the changed module, None for any other."""
        if name != self._name:
            return None
        loader = _Loader(name, str(self._path), self._tree)
        return importlib.util.spec_from_file_location(name, self._path, loader=loader)


@dataclass
class Test:
    """One test as it is without a change: seconds of the processor, and the functions of the package that it calls."""

    seconds: float = 0.0
    passed: bool = True
    calls: set[Function] = field(default_factory=set)


class Called:
    """Finder of the package's modules, in which each function notes that it is called."""

    NOTE = "__called_in_a_test__"

    def __init__(self, files: Sequence[str]) -> None:
        self._names = {module_name(file): file for file in files}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Return the spec of a module of the package, None for any other."""
        file = self._names.get(name)
        if file is None:
            return None
        tree = ast.parse((ROOT / file).read_text())
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                place = 1 if ast.get_docstring(node, clean=False) is not None else 0
                node.body.insert(place, ast.parse(f"{self.NOTE}(({file!r}, {node.lineno}))").body[0])
        loader = _Loader(name, str(ROOT / file), ast.fix_missing_locations(tree))
        return importlib.util.spec_from_file_location(name, ROOT / file, loader=loader)


class CallWatch:
    """Plugin of the run without a change: what each test calls and how long it takes, and what imports call."""

    def __init__(self) -> None:
        self.tests: dict[str, Test] = defaultdict(Test)
        self._calls: set[Function] = set()
        self.imports: set[Function] = set()
        setattr(builtins, Called.NOTE, self._calls.add)

    def pytest_collection_finish(self) -> None:
        """Note what was called so far, by no test."""
        self.imports = set(self._calls)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note calls and processor time of one test, set-up included."""
        self._calls.clear()
        start = sum(os.times()[:4])
        try:
            return (yield)
        finally:
            test = self.tests[item.nodeid]
            test.calls, test.seconds = set(self._calls), sum(os.times()[:4]) - start

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note whether a phase failed."""
        self.tests[report.nodeid].passed &= not report.failed


@dataclass(eq=False)  # pytest puts plugins into sets
class Chosen:
    """Plugin that runs only some tests, in their order."""

    order: dict[str, int]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the chosen ones."""
        items[:] = sorted((one for one in items if one.nodeid in self.order), key=lambda one: self.order[one.nodeid])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """End at once when a file cannot be imported."""
        if report.failed:
            os._exit(1)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """End at once when a test fails."""
        if report.failed:
            os._exit(1)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """End without tidying up: the fork's folder is removed."""
        os._exit(exitstatus)


_OPTIONS = (
    *("-o", "addopts=", "--strict-markers"),  # in one process, and those that take long too
    *("-q", "--no-header", "-W", "ignore::pytest.PytestAssertRewriteWarning"),
    *("-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:unraisableexception"),
    *("-p", "_hypothesis_pytestplugin"),  # the only one: looking for plugins takes as long as many a test
)


def _pytest(paths: Sequence[str], plugin: object, scratch: Path, *options: str) -> int:
    return int(pytest.main([*paths, *_OPTIONS, *options, f"--basetemp={scratch / 'tests'}"], plugins=[plugin]))


def forked(task: Callable[[Path], int], log: Path) -> tuple[int, Path]:
    """Start ``task`` in a fork with a process group of its own; return its id and its scratch folder."""
    scratch = Path(tempfile.mkdtemp(prefix="mutant-"))
    child = os.fork()
    if child:
        return child, scratch
    code = 70
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(scratch / "hypothesis")
        code = task(scratch)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int, scratch: Path) -> None:
    """Kill what a fork has left running and remove its files."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    shutil.rmtree(scratch, ignore_errors=True)


def unchanged(files: Sequence[str], tests: Sequence[str], log: Path) -> tuple[dict[str, Test], set[Function]]:
    """Run all tests once without a change; return them, and the functions that imports call."""
    result = log.with_suffix(".json")

    def task(scratch: Path) -> int:
        sys.meta_path.insert(0, Called(files))
        watch = CallWatch()
        code = _pytest(tests, watch, scratch)
        found = {name: [test.seconds, test.passed, sorted(test.calls)] for name, test in watch.tests.items()}
        result.write_text(json.dumps([found, sorted(watch.imports)]))
        return code

    child, scratch = forked(task, log)
    os.waitpid(child, 0)
    ended(child, scratch)
    if not result.exists():
        raise RuntimeError(f"the tests could not be run:\n{log.read_text()[-4000:]}")
    found, imports = json.loads(result.read_text())
    known = {name: Test(one[0], one[1], {(file, line) for file, line in one[2]}) for name, one in found.items()}
    return known, {(file, line) for file, line in imports}


def start(file: str, tree: ast.Module, order: Sequence[str], seconds: float, log: Path) -> tuple[int, Path]:
    """Start the tests in ``order`` with a module changed, up to the first that fails.

    Beyond ``seconds`` of the processor the kernel ends it: a loop has become endless.
    """

    def task(scratch: Path) -> int:
        if math.isfinite(seconds):
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds)))
        sys.meta_path.insert(0, Changed(file, tree))
        places = {name: place for place, name in enumerate(order)}
        paths = list(dict.fromkeys(name.split("::")[0] for name in order))
        return _pytest(paths, Chosen(places), scratch, "-x")

    return forked(task, log)


def wait(child: int, deadline: float) -> int | None:
    """Return the exit code of a fork, negative when it was killed for its time, None while it runs."""
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        return os.waitstatus_to_exitcode(status)
    if time.monotonic() > deadline:
        os.killpg(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None
