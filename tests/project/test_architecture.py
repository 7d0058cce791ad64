"""The import table of ARCHITECTURE.md holds, and the public API is what is written here."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import synapse_onnx as so
from synapse_onnx.model import graph

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "synapse_onnx"

PUBLIC = {
    "ExportError", "InputError", "ModelError", "QuantizationError", "RegistryError", "Report",
    "Session", "ShapeError", "SynapseError", "__version__", "axon", "block", "cluster", "convert",
    "dendrite", "drawing", "events", "export", "flat", "freeze", "neuron", "ops", "play", "plot",
    "quantize", "readers", "synapse", "to_nir", "verify",
}  # fmt: skip
#: a reader is a file, and the public function of that name
LOADERS = {
    f"load_{path.stem}": f"readers.{path.stem}" for path in (PACKAGE / "readers").glob("[!_]*.py")
}
PUBLIC |= set(LOADERS)

#: public function -> the module of the table that it stands in
HOMES = {
    "Report": "verifier", "Session": "runtime", "__version__": "_version", "convert": "converter",
    "export": "exporter", "flat": "flattener", "freeze": "freezer",
    "to_nir": "readers.nir", "verify": "verifier",
    **LOADERS,
    **{name: "errors" for name in PUBLIC if name.endswith("Error")},
}  # fmt: skip


def table(page: str) -> dict[str, tuple[set[str], bool]]:
    """Module -> (modules that it imports, whether it must not import torch)."""
    result: dict[str, tuple[set[str], bool]] = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and re.fullmatch(r"`\w+`", cells[0]):
            name = cells[0].strip("`")
            assert name not in result, f"{name} stands in the table twice"
            assert cells[2] in ("yes", ""), f"{name}: {cells[2]!r} is neither yes nor empty"
            result[name] = (set(re.findall(r"`(\w+)`", cells[1])), cells[2] == "yes")
    return result


TABLE = table((ROOT / "ARCHITECTURE.md").read_text())


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below this one that runs: imports for type checkers are left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from running(other)
            continue
        yield child
        yield from running(child)


def imports(source: str, package: str) -> set[str]:
    """Modules of the table that a source text of a package imports, anywhere in it."""
    names: set[str] = set()  # dotted, of what is imported or reached through synapse_onnx
    for node in running(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "synapse_onnx":
            names.add(f"synapse_onnx.{node.attr}")
    parts = [name.split(".") for name in names]
    found = {part[1] for part in parts if part[0] == "synapse_onnx" and len(part) > 1}
    return {HOMES.get(name, name).partition(".")[0] for name in found}


def used_by(module: str) -> set[str]:
    """Modules of the table that this one imports, itself left out."""
    folder = PACKAGE / module
    paths = sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{module}.py"]
    used: set[str] = set()
    for path in paths:
        package = ".".join(path.parent.relative_to(ROOT).parts)
        used |= imports(path.read_text(), package)
    return used - {module}


def python(program: str) -> int:
    return subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT).returncode


# -- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from synapse_onnx.errors import InputError", {"errors"}),
        ("import synapse_onnx.ops.cuba", {"ops"}),
        ("from synapse_onnx import fixed, neuron", {"fixed", "neuron"}),
        ("from . import base\nfrom .base import Neuron", {"neuron"}),
        ("from .. import fixed", {"fixed"}),
        ("from ..ops.cuba import cuba", {"ops"}),
        (
            "def f():\n    if True:\n        from synapse_onnx.runtime.session import Session",
            {"runtime"},
        ),
        ("import synapse_onnx\nsynapse_onnx.export(0)", {"exporter"}),
        ("from synapse_onnx import verify, __version__", {"verifier", "_version"}),
        ("if TYPE_CHECKING:\n    import synapse_onnx.ops\nelse:\n    import torch", set()),
        ("if typing.TYPE_CHECKING:\n    pass\nelse:\n    from .. import fixed", {"fixed"}),
        ("import torch\nfrom synapse import onnx", set()),
    ],
)
def test_imports_are_found_in_every_form(source: str, expected: set[str]) -> None:
    assert imports(source, "synapse_onnx.neuron") == expected


def test_the_table_names_every_module() -> None:
    there = {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    there |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(TABLE) == there


def test_imports_point_one_way() -> None:
    done: set[str] = set()
    while len(done) < len(TABLE):
        free = {name for name, (uses, _) in TABLE.items() if name not in done and uses <= done}
        assert free, f"a cycle among {sorted(set(TABLE) - done)}, or a name that has no row"
        done |= free


@pytest.mark.parametrize("module", TABLE)
def test_a_module_imports_what_the_table_says(module: str) -> None:
    said, used = TABLE[module][0], used_by(module)
    assert used <= said, f"{module} imports {sorted(used - said)}, which its row does not name"
    assert said <= used, f"{module} does not import {sorted(said - used)}, which its row names"


def test_the_domain_is_named_once() -> None:
    found = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value == graph.DOMAIN
    ]
    assert found == ["graph.py"]


def test_what_runs_a_model_is_marked_as_free_of_torch() -> None:
    marked = {name for name, (_, no_torch) in TABLE.items() if no_torch}
    assert {"cli", "errors", "files", "metadata", "runtime"} <= marked


@pytest.mark.parametrize("module", [name for name, (_, no_torch) in TABLE.items() if no_torch])
def test_what_needs_no_torch_does_not_import_it(module: str) -> None:
    assert python(f"import sys, synapse_onnx.{module}; sys.exit('torch' in sys.modules)") == 0


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


@pytest.mark.parametrize("name", sorted(HOMES))
def test_a_public_name_stands_in_its_module(name: str) -> None:
    home = importlib.import_module(f"synapse_onnx.{HOMES[name]}")
    assert getattr(home, name) is getattr(so, name)


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
