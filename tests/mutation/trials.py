"""Tests on the package as it is, and on the package with a fault.

No file is edited: a mutant runs in a process forked from one that has everything imported, and
there its function gets another code. What runs while the package is imported is planted in a copy
of the package.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import io
import os
import shutil
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import coverage
import pytest

from .faults import Mutant
from .processes import Job, run_all
from .selection import PACKAGE, ROOT, names_beside, names_of, select

#: processor seconds of tests, on the package as it is, that a mutant is given at the most
SECONDS = 60.0


def warm() -> None:
    """Import and use once what every mutant needs, but not the package."""
    import hypothesis  # noqa: F401
    import onnxruntime  # noqa: F401
    import torch
    import torch.testing._internal.optests

    torch.set_num_threads(1)
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(2, 3),))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for opset in (21, 24):
            torch.onnx.export(program, dynamo=True, verbose=False, opset_version=opset)


class Here(importlib.abc.MetaPathFinder):
    """Finds the package in a folder, wherever it is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name.partition(".")[0] != PACKAGE.name:
            return None
        return importlib.machinery.PathFinder.find_spec(name, path or [self.folder])


def copy_of_the_package(folder: Path, mutant: Mutant | None) -> None:
    """Put the package into a folder, with its fault, and let it be imported from there."""
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("_native"))
    if mutant is not None:
        path = folder / mutant.path
        path.write_text(mutant.apply(path.read_text()))
    sys.meta_path.insert(0, Here(folder))
    os.environ["PYTHONPATH"] = str(folder)
    package = importlib.import_module(PACKAGE.name)
    assert str(package.__file__).startswith(str(folder)), package.__file__


class Chosen:
    """A pytest plugin: run these tests in this order, and note what became of them."""

    def __init__(self, choose: Callable[[list[Any]], list[Any]], cover: Any = None) -> None:
        self.choose, self.cover = choose, cover
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = self.choose(items)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        if self.cover is not None:
            self.cover.switch_context(item.nodeid)
            for value in vars(item.module).values():  # or what it made would have no lines here
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
        begun = time.process_time()
        yield
        self.seconds[item.nodeid] = time.process_time() - begun

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def run_tests(files: Sequence[str], plugin: Chosen) -> int:
    paths = [str(ROOT / name) for name in files]
    options = [
        "-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line", "--assert=plain",
        "-m", "not slow", "--spread", "1000",  # what is taken of them is chosen here
    ]  # fmt: skip
    return int(pytest.main([*paths, *options], plugins=[plugin]))


@dataclass
class Baseline:
    """The tests of one file: how long each takes, and which of them run a line."""

    path: str
    files: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[int, list[str]] = field(default_factory=dict)

    def of(self, mutant: Mutant, text: str) -> tuple[list[str], bool]:
        """The tests that run a mutant's statement, quickest first; whether its import does."""
        found: set[str] = set()
        for line in _statement(text, mutant.line):
            found |= set(self.lines.get(line, ()))
        imported = "" in found
        if imported:
            found = set(self.seconds)
        chosen, total = [], 0.0
        for test in sorted(found, key=lambda test: (self.seconds[test], test)):
            total += self.seconds[test]
            if total > SECONDS and chosen:
                break
            chosen.append(test)
        return chosen, imported


def _statement(text: str, line: int) -> range:
    """Lines of the innermost statement around a line."""
    best = range(line, line + 1)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            last = node.body[0].lineno - 1 if hasattr(node, "body") else node.end_lineno or line
            if node.lineno <= line <= last:
                best = range(node.lineno, last + 1)
    return best


def baseline(
    paths: Sequence[str], files: tuple[str, ...], spread: int, folder: Path
) -> dict[str, Any]:
    """Run the tests of some files on the package as it is; each test once."""
    # the core that tells lines from contexts, on every Python
    os.environ["COVERAGE_CORE"] = "ctrace"
    cover = coverage.Coverage(data_file=None, include=[str(folder / PACKAGE.name / "*")])
    cover.start()
    copy_of_the_package(folder, None)
    chosen: dict[str, set[str]] = {}

    def choose(items: list[Any]) -> list[Any]:
        for path in paths:
            names, beside = names_of(ROOT / path), names_beside(ROOT / path)
            chosen[path] = {item.nodeid for item in select(items, names, spread, beside)}
        return [item for item in items if item.nodeid in set().union(*chosen.values())]

    plugin = Chosen(choose, cover)
    code = run_tests(files, plugin)
    cover.stop()
    results = {}
    for path, tests in chosen.items():
        lines = cover.get_data().contexts_by_lineno(str(folder / path))
        results[path] = {
            "seconds": {test: plugin.seconds[test] for test in sorted(tests)},
            "lines": {
                str(line): [test for test in contexts if test in tests or not test]
                for line, contexts in lines.items()
            },
        }
    log = (folder / "log").read_text()[-3000:]
    return {"code": code, "failed": plugin.failed, "log": log, "found": results}


def trial(mutant: Mutant, files: tuple[str, ...], tests: Sequence[str], folder: Path) -> Any:
    """Run tests on a copy of the package with a mutant, until one fails."""
    try:
        copy_of_the_package(folder, mutant)
    except Exception as error:
        return f"import: {type(error).__name__}"
    plugin = Chosen(lambda items: _ordered(items, tests))
    code = run_tests(_only(files, tests), plugin)
    if code == pytest.ExitCode.OK:
        return None
    return plugin.failed[0] if plugin.failed else f"pytest: exit code {code}"


def _ordered(items: list[Any], tests: Sequence[str]) -> list[Any]:
    by_name = {item.nodeid: item for item in items}
    return [by_name[test] for test in tests if test in by_name]


def _only(files: Sequence[str], tests: Sequence[str]) -> list[str]:
    wanted = {test.partition("::")[0] for test in tests}
    return [name for name in files if name in wanted]


@dataclass
class Trial:
    """A mutant, the tests that it is given and the time that they may take."""

    mutant: Mutant | None
    tests: list[str]
    seconds: float


def trials(batch: Sequence[Trial], files: tuple[str, ...], folder: Path) -> list[Any]:
    """Run tests on mutants of one file, each in a process that has the package imported."""
    copy_of_the_package(folder, None)
    plugin = Swapping(batch, folder)
    every = [test for each in batch for test in each.tests]
    run_tests(_only(files, every), plugin)
    assert len(plugin.results) == len(batch), "pytest has stopped"
    return plugin.results


class Swapping(Chosen):
    """A pytest plugin: in place of the tests, run them on every mutant, in a process of its own."""

    def __init__(self, batch: Sequence[Trial], folder: Path) -> None:
        super().__init__(lambda items: items)
        self.batch, self.folder = batch, folder
        self.results: list[Any] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: Any) -> bool:
        self.path = str(self.folder / self.batch[0].mutant.path)
        self.text = Path(self.path).read_text()
        self.live: dict[Any, list[Any]] = defaultdict(list)
        gc.unfreeze()  # what is frozen is not among the objects
        gc.collect()
        for thing in gc.get_objects():
            if type(thing) is FunctionType and thing.__code__.co_filename == self.path:
                self.live[thing.__code__].append(thing)
        gc.freeze()
        # first without a fault: what fails then says nothing
        control = Trial(None, self.batch[0].tests[:3], 600)
        for each in (control, *self.batch):
            job = Job(
                lambda _, each=each: self._one(each, session.items), each.seconds,
                self.results.append,
            )  # fmt: skip
            run_all([job], 1)
        assert self.results.pop(0) is None, "tests fail without a fault"
        return True

    def _one(self, each: Trial, items: list[Any]) -> Any:
        if each.mutant is not None and not self._swap(each.mutant):
            return {"imported": True}
        ordered = _ordered(items, each.tests)
        for item, after in zip(ordered, [*ordered[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if self.failed:
                return self.failed[0]
        return None

    def _swap(self, mutant: Mutant) -> bool:
        """Give the functions that have a mutant in them their new code."""
        old, new = (
            list(_codes(compile(text, self.path, "exec", dont_inherit=True)))
            for text in (self.text, mutant.apply(self.text))
        )
        if len(old) != len(new):  # a lambda has gone
            return False
        swapped = 0
        for before, after in zip(old, new, strict=True):
            for function in self.live.get(before, ()) if before != after else ():
                if before.co_freevars != after.co_freevars:
                    return False
                function.__code__ = after
                swapped += 1
        return swapped > 0


def _codes(code: Any) -> Iterator[Any]:
    """A code and all within it, in the order of the text."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
