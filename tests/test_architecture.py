"""The import table of ARCHITECTURE.md holds, and the public API is what is written here."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import synapse_onnx as so

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "synapse_onnx"

PUBLIC = {
    "ExportError", "InputError", "ModelError", "QuantizationError", "RegistryError", "Report",
    "Session", "ShapeError", "SynapseError", "__version__", "export", "freeze", "neuron", "ops",
    "quantize", "synapse", "verify",
}  # fmt: skip


def table() -> dict[str, tuple[set[str], bool]]:
    """Module -> (modules that it may import, whether it must not import torch)."""
    result = {}
    for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and re.fullmatch(r"`\w+`", cells[0]):
            result[cells[0].strip("`")] = (set(re.findall(r"`(\w+)`", cells[1])), cells[2] == "yes")
    return result


TABLE = table()


def imports(path: Path, *, top_level: bool) -> set[str]:
    """Dotted names that a file imports; with ``top_level`` only those of its import."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    nodes = [*tree.body] if top_level else [*ast.walk(tree)]
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(module: str) -> list[Path]:
    folder = PACKAGE / module
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{module}.py"]


def test_the_table_names_every_module() -> None:
    there = {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    there |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(TABLE) == there


def test_imports_point_one_way() -> None:
    order: list[str] = []
    left = {name: set(may) for name, (may, _) in TABLE.items()}
    while left:
        free = [name for name, may in left.items() if may <= set(order)]
        assert free, f"a cycle among {sorted(left)}"
        order += free
        for name in free:
            del left[name]


@pytest.mark.parametrize("module", TABLE)
def test_a_module_imports_what_the_table_allows(module: str) -> None:
    may, _ = TABLE[module]
    used: set[str] = set()
    for path in files(module):
        for name in imports(path, top_level=False):
            match = re.match(r"synapse_onnx\.(\w+)", name)
            if match and match[1] != module:
                used.add(match[1])
    # "from synapse_onnx import export" is the public function, whose module the table names
    used = {
        {"export": "exporter", "verify": "verifier", "freeze": "freezer"}.get(n, n) for n in used
    }
    assert used <= may | {"__version__"}, f"{module} imports {sorted(used - may)}"


@pytest.mark.parametrize("module", [name for name, (_, no_torch) in TABLE.items() if no_torch])
def test_what_needs_no_torch_does_not_import_it(module: str) -> None:
    program = f"import sys, synapse_onnx.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_public_names_are_these() -> None:
    assert set(so.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(so, name) is not None
    assert callable(so.export)
    assert callable(so.freeze)
    assert callable(so.verify)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = so.nothing


def test_public_functions_and_classes_are_documented() -> None:
    modules = [so.synapse, so.synapse.complex, so.neuron.base, so.neuron.cuba, so.quantize, so.ops]
    things = [getattr(so, name) for name in PUBLIC if name != "__version__"]
    things += [getattr(module, name) for module in modules for name in module.__all__]
    for thing in things:
        if inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing):
            assert inspect.getdoc(thing), thing
        if inspect.isclass(thing):
            for name, member in vars(thing).items():
                if inspect.isfunction(member) and not name.startswith("_"):
                    assert inspect.getdoc(getattr(thing, name)), f"{thing}.{name}"


def test_signatures_are_those_of_the_contract() -> None:
    assert list(inspect.signature(so.export).parameters) == [
        "module", "args", "path", "streaming", "dynamic", "layout", "opset",
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
