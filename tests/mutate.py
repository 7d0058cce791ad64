"""Plant faults in the package, one at a time, and see that the tests of just that file notice.

    python tests/mutate.py synapse_onnx/ops --sample 30 --seed 1

Which tests those are follows from their names: for a file that declares an op or a neuron, the
tests that are given it or name it; for a pass, those of ``test_passes.py`` that name it; for a file
that several ops or neurons share (``ops/_synapse.py``), the tests of these. Any other module has
all tests of the files that bear its name (``test_layout.py``); without one, of the files that
import it, or else of the modules that do. Of a test with many parameters a few are taken. They are
run once on the package as it is, to see that they pass, how long they take and which lines they
run. A mutant is given the tests that run its line, quickest first, until one fails. No file is
edited: a mutant runs in a process forked from one that has everything imported, and there its
function gets another code; what runs while the package is imported is planted in a copy of the
package.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import inspect
import io
import itertools
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NoReturn

import click
import coverage
import pytest
from forked import leave
from mutants import Mutant, plant
from quick_export import quick_export

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "synapse_onnx"
EXCUSES = Path(__file__).with_name("mutants.toml")

#: tests of a package or a module that do not bear its name
TESTS: dict[str, tuple[str, ...]] = {
    "ops": (
        "test_ops", "test_ops_bodies", "test_equations", "test_ranges", "test_integer_products",
        "test_neuron_forms", "test_training",
    ),
    "neuron": ("test_equations", "test_ranges", "test_training", "test_loihi"),
    "exporter": ("test_export", "test_streaming"),
    "freezer": ("test_freeze",),
    "runtime": ("test_streaming", "test_layout"),
}  # fmt: skip

#: a name of what several files share
SHARED = "*"
#: processor seconds of tests, on the package as it is, that a mutant is given at the most
SECONDS = 60.0
#: how much longer than processor seconds a job may last: others may use the machine as well
PATIENCE = 15
#: mutants of a file that are tried by one process
BATCH = 20
#: memory that a mutant may take
MEMORY = 16 << 30


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


# -- which tests -----------------------------------------------------------------------------------


def tests_of(path: Path) -> tuple[str, ...]:
    """The files of tests of a file of the package, without ``.py``; none where it has none."""
    *packages, stem = path.resolve().relative_to(PACKAGE).with_suffix("").parts
    tests = sorted((ROOT / "tests").glob("test_*.py"))
    found: list[str] = []
    for name in (*packages, stem):
        found += TESTS.get(name, ())
        found += [test.stem for test in tests if f"{test.stem}_".startswith(f"test_{name}_")]
    if not found and not packages:
        found = [test.stem for test in tests if _imports(test, stem)]
        users = [path for path in sorted(PACKAGE.glob("*.py")) if _imports(path, stem)]
        found = found or [test for path in users for test in tests_of(path)]
    return tuple(dict.fromkeys(found))


def _imports(path: Path, module: str) -> bool:
    """Whether a file imports a module of the package, and does so by its name."""
    name = rf"{PACKAGE.name}(?:\.{module}\b| import [^\n]*\b{module}\b)"
    return re.search(rf"^(?:import|from) {name}", path.read_text(), re.MULTILINE) is not None


def names() -> dict[str, set[str]]:
    """File -> the names in tests of what it declares or shares: ops, neurons, passes."""
    from synapse_onnx import ops
    from synapse_onnx._discovery import public_modules

    found: dict[str, set[str]] = defaultdict(set)

    def add(module: str, op: Any) -> None:
        path = f"{module.replace('.', '/')}.py"
        found[path] |= {op.name, f"synapse.{op.torch_op._schema.name.partition('::')[2]}"}

    table = ops.all_ops()
    for package in ("ops", "neuron", "passes"):
        whole = importlib.import_module(f"synapse_onnx.{package}")
        for stem in public_modules(whole.__path__):
            module = importlib.import_module(f"{whole.__name__}.{stem}")
            found[f"synapse_onnx/{package}/{stem}.py"] |= {stem, f"{package}.{stem}"}
            for value in vars(module).values():
                for op in value if isinstance(value, tuple) else (value,):
                    if isinstance(op, ops.OpDef):
                        add(module.__name__, op)
            for op in table.values():
                equation = getattr(getattr(op.symbolic, "__self__", None), "e", None)
                if equation is not None and type(equation).__module__ == module.__name__:
                    add(module.__name__, op)
    for op in table.values():
        for file in {op.symbolic.__module__, op.body.__module__}:
            add(file, op)
    for path in (PACKAGE / "ops").rglob("_*.py"):  # what every op is built from
        found.setdefault(str(path.relative_to(ROOT)), set(table)).add(SHARED)
    neurons = [path for path in (PACKAGE / "neuron").glob("*.py") if path.stem != "__init__"]
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in neurons}
    own = {path: set(found[path]) for path in texts}
    for path in texts:  # what neurons share has the names of those that import it
        stem = Path(path).stem
        users = [user for user, text in texts.items() if _shares(text, stem) and user != path]
        found[path] |= set().union(*(own[user] for user in users))
        if len(users) > 1:
            found[path].add(SHARED)
    declared = {path: _declared(path) for path in found}
    often = Counter(itertools.chain.from_iterable(declared.values()))
    for path, those in declared.items():  # what several files declare tells none of them
        found[path] |= {name for name in those if often[name] == 1}
    return found


def _declared(path: str) -> set[str]:
    """Names of the functions and classes of a file."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {
        node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, kinds)
    }


def _shares(text: str, stem: str) -> bool:
    """Whether the text of a neuron's file imports a file of its package."""
    return re.search(rf"neuron(?:\.| import [^\n]*\b){stem}\b", text) is not None


def concerns(item: Any, known: set[str], all_names: set[str]) -> bool:
    """Whether a test is of what bears these names: it is given one of them, or says one.

    A test that says no name at all is of what several files share.
    """
    call = getattr(item, "callspec", None)
    if call is not None:
        named = [getattr(value, "name", value) for value in call.params.values()]
        given = {value for value in named if isinstance(value, str)}
        given |= set(re.split(r"[^\w]+", call.id))
        if given & known:
            return True
        if given & all_names:  # a test of another one
            return False
    text = _said(item.function) if hasattr(item, "function") else ""
    return _names(text, known) or (SHARED in known and not _names(text, all_names))


def _names(text: str, names: set[str]) -> bool:
    """Whether a text says one of the names that are no common word."""
    words = [name for name in names if "." in name or not name.islower() or "_" in name]
    return any(re.search(rf"\b{re.escape(word)}\b", text) for word in words if word != SHARED)


def _said(function: Any) -> str:
    """The text of a test, and of the functions of its file that it calls."""
    there = vars(sys.modules[function.__module__])
    said, waiting = dict[str, str](), [inspect.unwrap(function)]
    while waiting:
        each = waiting.pop()
        said[each.__name__] = inspect.getsource(each)
        names = {name for code in _codes(each.__code__) for name in code.co_names}
        called = [inspect.unwrap(there[name]) for name in sorted(names & set(there))]
        waiting += [
            one for one in called
            if inspect.isfunction(one) and one.__module__ == function.__module__
            and one.__name__ not in said
        ]  # fmt: skip
    return "\n".join(said.values())


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
    paths = [str(ROOT / "tests" / f"{name}.py") for name in files]
    options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=line", "--assert=plain"]
    return int(pytest.main([*paths, *options], plugins=[plugin]))


# -- processes -------------------------------------------------------------------------------------


@dataclass
class Job:
    """Work for a process of its own, which returns something that JSON holds.

    It may take so many processor seconds; ``PATIENCE`` times as long by the clock.
    """

    work: Callable[[Path], Any]
    seconds: float
    done: Callable[[Any], None]
    pid: int = 0
    begun: float = 0.0
    folder: str = ""


def run_all(jobs: Sequence[Job], workers: int) -> None:
    """Run jobs in forked processes, so many at once; each is told of its end here.

    The result is ``{"ended": ...}`` where a process died or was stopped after its time.
    """
    waiting, running = list(jobs), list[Job]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(_start(waiting.pop(0)))
            time.sleep(0.02)
            for job in list(running):
                late = time.monotonic() - job.begun > PATIENCE * job.seconds
                if late:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(job.pid, signal.SIGKILL)
                pid, status = os.waitpid(job.pid, 0 if late else os.WNOHANG)
                if pid == 0:
                    continue
                running.remove(job)
                result = Path(job.folder, "result.json")
                if late:
                    found: Any = {"ended": "stopped after its time"}
                elif status == 0 and result.exists():
                    found = json.loads(result.read_text())
                else:
                    log = Path(job.folder, "log").read_text(errors="replace")
                    found = {"ended": f"wait status {status}", "log": log[-3000:]}
                shutil.rmtree(job.folder, ignore_errors=True)
                job.done(found)
    finally:
        for job in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            os.waitpid(job.pid, 0)
            shutil.rmtree(job.folder, ignore_errors=True)


def _start(job: Job) -> Job:
    job.folder, job.begun = tempfile.mkdtemp(prefix="mutate-"), time.monotonic()
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of forks beside threads
        job.pid = os.fork()
    if job.pid == 0:
        _child(job.work, Path(job.folder), int(job.seconds))
    return job


def _child(work: Callable[[Path], Any], folder: Path, seconds: int) -> NoReturn:
    def limited() -> None:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None
        (folder / "result.json").write_text(json.dumps(work(folder)))

    leave(limited, failed=1)


# -- baseline --------------------------------------------------------------------------------------


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
    known = names()
    everything = set().union(*known.values())
    chosen: dict[str, set[str]] = {}

    def of(path: str, items: list[Any]) -> list[Any]:
        mine = known.get(path)
        if mine is not None:
            items = [item for item in items if concerns(item, mine, everything)]
        # a pass has few tests, and all of them are short
        return items if "/passes/" in path else _spread(items, spread)

    def choose(items: list[Any]) -> list[Any]:
        for path in paths:
            chosen[path] = {item.nodeid for item in of(path, items)}
        return [item for item in items if item.nodeid in set().union(*chosen.values())]

    plugin = Chosen(choose, cover)
    code = run_tests(files, plugin)
    cover.stop()
    found = {}
    for path, tests in chosen.items():
        lines = cover.get_data().contexts_by_lineno(str(folder / path))
        found[path] = {
            "seconds": {test: plugin.seconds[test] for test in sorted(tests)},
            "lines": {
                str(line): [test for test in contexts if test in tests or not test]
                for line, contexts in lines.items()
            },
        }
    log = (folder / "log").read_text()[-3000:]
    return {"code": code, "failed": plugin.failed, "log": log, "found": found}


def _spread(items: list[Any], most: int) -> list[Any]:
    """A few of the tests of each function, from all over its parameters."""
    by_function: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        by_function[item.nodeid.partition("[")[0]].append(item)
    chosen = []
    for group in by_function.values():
        count = min(most, len(group))
        chosen += [group[i * len(group) // count] for i in range(count)]
    return chosen


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
    return [name for name in files if f"tests/{name}.py" in wanted]


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


# -- the command -----------------------------------------------------------------------------------


def excuses() -> list[dict[str, str]]:
    """Mutants that change nothing, each with its reason."""
    return tomllib.loads(EXCUSES.read_text()).get("excuse", []) if EXCUSES.exists() else []


def excused(mutant: Mutant, text: str, known: Sequence[dict[str, str]]) -> dict[str, str] | None:
    """The entry that a mutant falls under: of a function, a line, and what becomes of it."""
    line = text.splitlines()[mutant.line - 1].strip()
    change = f"{mutant.old} → {mutant.new}"
    for entry in known:
        if entry["file"] != mutant.path:
            continue
        if not re.fullmatch(entry.get("function", ".*"), mutant.function):
            continue
        if entry.get("line", line) != line:
            continue
        if entry.get("change", change) == change:
            return entry
    return None


def sources(given: Sequence[str]) -> list[str]:
    """The files of the package that have tests, of those given or of all."""
    places = [ROOT / each for each in given] or [PACKAGE]
    files = ([place] if place.is_file() else place.rglob("*.py") for place in places)
    paths = itertools.chain.from_iterable(files)
    return sorted({str(path.resolve().relative_to(ROOT)) for path in paths if tests_of(path)})


@dataclass
class Result:
    """What became of a mutant."""

    mutant: Mutant
    by: str | None
    excuse: str | None = None


@click.command(help=__doc__.partition("\n")[0])
@click.argument("paths", nargs=-1)
@click.option("--sample", type=int, help="Mutants of each file, drawn at random; all without it.")
@click.option("--seed", default=1, show_default=True)
@click.option("--workers", default=os.cpu_count() or 1, show_default=True)
@click.option("--spread", default=6, show_default=True, help="Tests of a function with parameters.")
@click.option("--least", default=0.9, show_default=True, help="Score that each run must reach.")
@click.option("--json", "target", type=click.Path(dir_okay=False, path_type=Path))
def command(
    paths: tuple[str, ...], sample: int | None, seed: int, workers: int, spread: int,
    least: float, target: Path | None,
) -> None:  # fmt: skip
    """Run mutants, print a table and the survivors, and leave with 1 below the score."""
    logging.disable(logging.WARNING)  # torch tells of packages that are not there
    os.environ.update(OMP_NUM_THREADS="1", SYNAPSE_ONNX_LIBRARY="none")
    os.chdir(ROOT)
    sys.dont_write_bytecode = True
    begun = time.monotonic()
    with quick_export():
        results = mutate(sources(paths), sample, seed, workers, spread)
    total = report(results)
    print(f"{time.monotonic() - begun:.0f} s")
    if target is not None:
        rows = [
            {"file": r.mutant.path, "line": r.mutant.line, "old": r.mutant.old,
             "new": r.mutant.new, "caught": r.by, "excuse": r.excuse}
            for r in results
        ]  # fmt: skip
        target.write_text(json.dumps({"score": total, "mutants": rows}, indent=1) + "\n")
    sys.exit(0 if total >= least else 1)


def mutate(
    files: Sequence[str], sample: int | None, seed: int, workers: int, spread: int
) -> list[Result]:
    """Plant a sample of faults in every file, and try them."""
    if not files:
        raise click.UsageError("no file of the package with tests is among these")
    warm()
    texts = {path: (ROOT / path).read_text() for path in files}
    drawn = {}
    for path, text in texts.items():
        every = plant(path, text)
        random.Random(f"{seed} {path}").shuffle(every)
        some = (mutant for mutant in every if mutant.is_python(text))
        drawn[path] = list(itertools.islice(some, sample))
    bases = {path: Baseline(path, tests_of(ROOT / path)) for path in files if drawn[path]}

    def first(part: Sequence[str]) -> Job:
        some = [bases[path] for path in part]
        return Job(
            lambda folder: baseline(part, some[0].files, spread, folder),
            3600, lambda found: _fill(some, found),
        )  # fmt: skip

    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path, base in bases.items():
        alike[base.files].append(path)
    parts = [those[i::workers] for those in alike.values() for i in range(workers)]
    run_all([first(part) for part in parts if part], workers)
    known, results = excuses(), list[Result]()
    singles, batches = list[Job](), list[Job]()

    def end(mutant: Mutant, by: Any, reason: str | None = None) -> None:
        results.append(Result(mutant, by.get("ended") if isinstance(by, dict) else by, reason))
        if results[-1].by is None and reason is None:
            print(f"survived: {mutant.path}\n{mutant.diff(texts[mutant.path])}", flush=True)

    def single(base: Baseline, each: Trial) -> Job:
        return Job(
            lambda folder: trial(each.mutant, base.files, each.tests, folder),
            each.seconds, lambda found: end(each.mutant, found),
        )  # fmt: skip

    def batch(base: Baseline, each: list[Trial]) -> Job:
        def done(found: Any) -> None:
            if isinstance(found, dict):
                raise click.ClickException(f"{base.path}: {found['ended']}\n{found.get('log')}")
            for one, by in zip(each, found, strict=True):
                if isinstance(by, dict) and "imported" in by:
                    singles.append(single(base, one))
                else:
                    end(one.mutant, by)

        seconds = 60 + sum(one.seconds for one in each)
        return Job(lambda folder: trials(each, base.files, folder), seconds, done)

    for path, base in bases.items():
        quick = []
        for mutant in drawn[path]:
            entry = excused(mutant, texts[path], known)
            tests, imported = base.of(mutant, texts[path])
            if entry is not None or not tests:
                end(mutant, None, None if entry is None else entry["reason"])
                continue
            each = Trial(mutant, tests, 20 + 4 * sum(base.seconds[test] for test in tests))
            if imported:
                singles.append(single(base, each))
            else:
                quick.append(each)
        batches += [batch(base, quick[i : i + BATCH]) for i in range(0, len(quick), BATCH)]
    run_all(batches, workers)
    run_all(singles, workers)
    return sorted(results, key=lambda r: (r.mutant.path, r.mutant.start, r.mutant.new))


def _fill(bases: Sequence[Baseline], found: dict[str, Any]) -> None:
    if found.get("code") != 0:
        print(found.get("log", ""), file=sys.stderr)
        paths = ", ".join(base.path for base in bases)
        raise click.ClickException(f"the tests of {paths} do not pass on the package as it is")
    for base in bases:
        of = found["found"][base.path]
        base.seconds = of["seconds"]
        base.lines = {int(line): contexts for line, contexts in of["lines"].items()}
        took = sum(base.seconds.values())
        print(f"{base.path}: {len(base.seconds)} tests, {took:.0f} s", flush=True)


def report(results: Sequence[Result]) -> float:
    """Print a row for every file, and return the whole score."""
    files = sorted({result.mutant.path for result in results})
    rows = [(path, [r for r in results if r.mutant.path == path]) for path in files]
    rows.append(("all", list(results)))
    print(f"\n{'file':44}{'mutants':>8}{'caught':>8}{'survived':>9}{'excused':>8}{'score':>7}")
    score = 1.0
    for path, group in rows:
        excuse = sum(r.by is None and r.excuse is not None for r in group)
        caught = sum(r.by is not None for r in group)
        survived = len(group) - excuse - caught
        score = caught / (caught + survived) if caught + survived else 1.0
        print(f"{path:44}{len(group):8}{caught:8}{survived:9}{excuse:8}{score:7.1%}")
    return score


if __name__ == "__main__":
    command()
