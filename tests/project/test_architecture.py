"""Rooms, imports and the public API are those that ARCHITECTURE.md and pyproject.toml state."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import grimp
import pytest

import synapse_onnx as so
from synapse_onnx.model import graph

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "synapse_onnx"

PUBLIC = {
    "ExportError", "InputError", "ModelError", "QuantizationError", "RegistryError", "Report",
    "Session", "ShapeError", "SynapseError", "__version__", "axon", "block", "cluster", "convert",
    "dendrite", "drawing", "events", "export", "flat", "freeze", "neurobench", "neuron", "ops",
    "over_time", "play", "plot", "quantize", "readers", "synapse", "to_nir", "verify",
}  # fmt: skip
#: a reader is a file, and the public function of that name
LOADERS = {
    f"load_{path.stem}": f"readers.{path.stem}" for path in (PACKAGE / "readers").glob("[!_]*.py")
}
PUBLIC |= set(LOADERS)

#: rooms that no import of which may bring torch
WITHOUT_TORCH = ("cli", "deploy", "errors", "files", "model", "report", "runtime")


def rooms(page: str) -> list[str]:
    """Paths in the layout that a page prints: two spaces, a name, a description; deeper, deeper."""
    (block,) = re.findall(r"```\nsynapse_onnx/\n(.*?)```", page, re.DOTALL)
    path: list[str] = []
    result = []
    for line in block.splitlines():
        match = re.fullmatch(r"((?:  )+)(\w+)/? +\S.*", line)
        assert match, f"not a room and its description: {line!r}"
        path = [*path[: len(match[1]) // 2 - 1], match[2]]
        result.append("/".join(path))
    return result


def tree(package: Path) -> list[str]:
    """Modules of the ground floor, and every folder with Python files that is not private."""
    modules = {path.stem for path in package.glob("*.py")}
    folders = (path.parent.relative_to(package) for path in package.rglob("*/__init__.py"))
    public = {f.as_posix() for f in folders if not any(p.startswith("_") for p in f.parts)}
    return sorted(modules | public)


def python(program: str) -> int:
    return subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT).returncode


# -- rooms ---------------------------------------------------------------------------------------


def test_the_layout_that_is_printed_is_the_tree() -> None:
    assert sorted(rooms((ROOT / "ARCHITECTURE.md").read_text())) == tree(PACKAGE)


def test_the_layout_is_read() -> None:
    lines = ("synapse_onnx/", "  errors  exceptions", "  ops/    ops", "    equation/  steps")
    assert rooms("\n".join(["```", *lines, "```"])) == ["errors", "ops", "ops/equation"]
    with pytest.raises(AssertionError, match="not a room and its description: '  ops/'"):
        rooms("```\nsynapse_onnx/\n  ops/\n```")


#: runs import-linter on the package in this folder; an editable install would be found before it
_LINT = """
import sys
from importlinter.cli import lint_imports_command
sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith("_editable")]
sys.path.insert(0, ".")
lint_imports_command()
"""


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package in a folder, with the contracts of pyproject.toml."""
    return subprocess.run(
        [sys.executable, "-c", _LINT, "--no-cache", str(ROOT / "pyproject.toml")],
        cwd=folder, check=False, capture_output=True, text=True,
    )  # fmt: skip


def copy_of_the_package(folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "_native", "_web", "site")
    return Path(shutil.copytree(PACKAGE, folder / "synapse_onnx", ignore=ignored))


def test_imports_point_one_way(tmp_path: Path) -> None:
    copy_of_the_package(tmp_path)
    outcome = lint(tmp_path)
    assert outcome.returncode == 0, outcome.stdout
    assert "0 broken" in outcome.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("ops/_symbolic.py", "import synapse_onnx.neuron", "Imports point one way"),
        (
            "report/page.py",
            "if TYPE_CHECKING:\n    from synapse_onnx.verification import verifier",
            "Imports point one way",
        ),
        ("runtime/native.py", "def f():\n    import torch", "needs no torch"),
    ],
)
def test_an_import_that_points_upwards_is_found(
    tmp_path: Path, module: str, line: str, contract: str
) -> None:
    path = copy_of_the_package(tmp_path) / module
    path.write_text(f"{path.read_text()}\n{line}\n")
    outcome = lint(tmp_path)
    assert outcome.returncode == 1
    assert re.search(f"{contract}.* BROKEN", outcome.stdout)


def intruders(imports: Mapping[str, set[str]]) -> list[str]:
    """Imports (module -> what imports it) of private modules from outside their package."""
    found = []
    for module, importers in imports.items():
        parts = module.split(".")
        private = next((i for i, part in enumerate(parts) if i and part.startswith("_")), None)
        home = ".".join(parts[:private])
        if private is not None:
            found += [
                f"{importer} imports {module}"
                for importer in sorted(importers)
                if importer != home and not importer.startswith(f"{home}.")
            ]
    return found


def test_a_private_module_is_imported_within_its_package_alone() -> None:
    imports = grimp.build_graph("synapse_onnx", cache_dir=None)
    assert not intruders({m: imports.find_modules_that_directly_import(m) for m in imports.modules})
    # the check can tell
    assert intruders({"a.b._c": {"a.b", "a.b._d", "a.e"}}) == ["a.e imports a.b._c"]


def strings_that_name_modules(package: Path) -> dict[str, set[str]]:
    """Module -> other rooms that its strings name as ``synapse_onnx.<room>``: imports by string."""
    found: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for room in re.findall(r"^synapse_onnx\.(\w+)[\w.]*$", node.value):
                    module = path.relative_to(package)
                    there = (package / room).is_dir() or (package / f"{room}.py").is_file()
                    if there and module.parts[0] != room:
                        found.setdefault(module.as_posix(), set()).add(room)
    return found


def test_no_room_is_imported_through_a_string() -> None:
    assert not strings_that_name_modules(PACKAGE)


def test_the_domain_is_named_once() -> None:
    found = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value == graph.DOMAIN
    ]
    assert found == ["model/graph.py"]


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_what_needs_no_torch_does_not_import_it(room: str) -> None:
    folder = PACKAGE / room
    names = [room]
    if folder.is_dir():
        found = pkgutil.walk_packages([str(folder)], f"{room}.")
        names += [module.name for module in found]
    lines = "; ".join(f"import synapse_onnx.{name}" for name in names)
    assert python(f"import sys; {lines}; sys.exit('torch' in sys.modules)") == 0


# -- the public API ------------------------------------------------------------------------------


def test_the_package_itself_does_not_import_torch() -> None:
    assert python("import sys, synapse_onnx; sys.exit('torch' in sys.modules)") == 0
    # the check can tell: a public name that needs torch brings it
    assert (
        python("import sys, synapse_onnx as so; so.freeze; sys.exit('torch' in sys.modules)") == 1
    )


def test_the_public_names_are_these() -> None:
    assert sorted(so.__all__) == sorted(PUBLIC)
    assert set(dir(so)) == PUBLIC
    for name in PUBLIC:
        assert getattr(so, name) is not None
    # a public function, and not the module of that name
    assert all(callable(thing) for thing in (so.export, so.freeze, so.verify))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = so.nothing


def modules() -> list[ModuleType]:
    """Every module of the package that says by ``__all__`` what is public in it."""
    found = pkgutil.walk_packages([str(PACKAGE)], "synapse_onnx.")
    loaded = [importlib.import_module(module.name) for module in found]
    return [so, *(module for module in loaded if hasattr(module, "__all__"))]


def members(thing: Any) -> Iterator[tuple[str, Any]]:
    """A class's own public methods and properties; those of a base may document them."""
    for name, member in vars(thing).items() if inspect.isclass(thing) else ():
        kinds = (property, classmethod, staticmethod)
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, kinds)):
            yield name, getattr(thing, name)


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_what_is_public_is_documented(module: ModuleType) -> None:
    assert module.__doc__
    bare = []
    for name in module.__all__:
        thing = getattr(module, name)
        if not (inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)):
            continue
        if "<locals>" in getattr(thing, "__qualname__", ""):  # a value that a call has made
            continue
        # a class without a docstring would show its base's
        if not (thing.__doc__ or "").strip() or (thing.__doc__ or "").startswith(f"{name}("):
            bare.append(name)
        bare += [f"{name}.{n}" for n, member in members(thing) if not inspect.getdoc(member)]
    assert not bare, f"{module.__name__}: no docstring on {', '.join(bare)}"


def test_signatures_are_those_of_the_contract() -> None:
    assert list(inspect.signature(so.export).parameters) == [
        "module", "args", "path", "streaming", "dynamic", "layout", "opset", "input_type",
        "axes",
    ]  # fmt: skip
    assert list(inspect.signature(so.verify).parameters)[:3] == [
        "module", "model_or_path", "inputs",
    ]  # fmt: skip
    assert list(inspect.signature(so.Session).parameters)[:3] == [
        "model_or_path", "providers", "native",
    ]  # fmt: skip
    assert list(inspect.signature(so.Session.run).parameters) == ["self", "inputs"]
    assert list(inspect.signature(so.freeze).parameters) == ["module"]
    fields = {"ok", "max_abs_diff", "spike_flips", "first_divergence", "layers"}
    assert fields <= set(so.Report.__dataclass_fields__)
