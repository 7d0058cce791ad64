"""synapse-onnx: trained spiking networks as ONNX files, with a proof that they are the same.

Import it as ``so``: the names below are loaded when they are first used, so that running a
model needs no torch.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from synapse_onnx._discovery import public_modules
from synapse_onnx._version import __version__
from synapse_onnx.errors import (
    ExportError,
    InputError,
    ModelError,
    QuantizationError,
    RegistryError,
    ShapeError,
    SynapseError,
)

if TYPE_CHECKING:
    from synapse_onnx import axon, block, dendrite, neuron, ops, quantize, readers, synapse
    from synapse_onnx.compiler.exporter import export as export
    from synapse_onnx.compiler.freezer import freeze as freeze
    from synapse_onnx.compiler.steps import over_time as over_time
    from synapse_onnx.deploy import play as play
    from synapse_onnx.readers.frameworks import convert as convert
    from synapse_onnx.readers.net import load_net as load_net
    from synapse_onnx.readers.nir import load_nir as load_nir
    from synapse_onnx.readers.nir import to_nir as to_nir
    from synapse_onnx.report import drawing as drawing
    from synapse_onnx.report import plot as plot
    from synapse_onnx.report.metrics import neurobench as neurobench
    from synapse_onnx.report.result import Report as Report
    from synapse_onnx.runtime import cluster as cluster
    from synapse_onnx.runtime import events as events
    from synapse_onnx.runtime.inlined import flat as flat
    from synapse_onnx.runtime.session import Session as Session
    from synapse_onnx.verification.verifier import verify as verify

#: public name -> module; the name is that of the module itself, or of what it holds
_LAZY = {
    "Report": "report.result",
    "Session": "runtime.session",
    "axon": "axon",
    "block": "block",
    "cluster": "runtime.cluster",
    "convert": "readers.frameworks",
    "dendrite": "dendrite",
    "drawing": "report.drawing",
    "events": "runtime.events",
    "export": "compiler.exporter",
    "flat": "runtime.inlined",
    "freeze": "compiler.freezer",
    "neurobench": "report.metrics",
    "neuron": "neuron",
    "ops": "ops",
    "over_time": "compiler.steps",
    "play": "deploy.play",
    "plot": "report.plot",
    "quantize": "quantize",
    "readers": "readers",
    "synapse": "synapse",
    "to_nir": "readers.nir",
    "verify": "verification.verifier",
}


def _loaders(folders: Iterable[str]) -> dict[str, str]:
    """Every file of the readers is one function more: load_net of readers/net.py."""
    return {f"load_{name}": f"readers.{name}" for name in public_modules(folders)}


__all__ = [
    "ExportError", "InputError", "ModelError", "QuantizationError", "RegistryError", "ShapeError",
    "SynapseError", "__version__", "axon", "block", "dendrite", "neuron", "ops", "quantize",
    "readers", "synapse",
]  # fmt: skip
__all__ += list(_LAZY.keys() - set(__all__))
__all__.sort()
__all__ += list(_loaders([os.path.join(os.path.dirname(__file__), "readers")]))


def __getattr__(name: str) -> Any:
    known = _LAZY
    if name.startswith("load_"):
        known = _loaders(importlib.import_module(f"{__name__}.readers").__path__)
    if name not in known:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "ops":  # neurons register theirs
        importlib.import_module(f"{__name__}.neuron")
    value = importlib.import_module(f"{__name__}.{known[name]}")
    if known[name].rpartition(".")[2] != name:
        value = getattr(value, name)
    globals()[name] = value  # over the submodule of the same name that the import has set
    return value


def __dir__() -> list[str]:
    return __all__
