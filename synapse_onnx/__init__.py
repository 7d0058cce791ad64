"""synapse-onnx: trained spiking networks as ONNX files, with a proof that they are the same.

Import it as ``so``: the names below are loaded when they are first used, so that running a
model needs no torch.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
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
    from synapse_onnx.compiler.exporter import export
    from synapse_onnx.compiler.freezer import freeze
    from synapse_onnx.deploy import play
    from synapse_onnx.readers.frameworks import convert
    from synapse_onnx.readers.net import load_net as load_net
    from synapse_onnx.readers.nir import load_nir as load_nir
    from synapse_onnx.readers.nir import to_nir
    from synapse_onnx.report import drawing, plot
    from synapse_onnx.report.result import Report
    from synapse_onnx.runtime import cluster, events
    from synapse_onnx.runtime.inlined import flat
    from synapse_onnx.runtime.session import Session
    from synapse_onnx.verification.verifier import verify

__all__ = [
    "ExportError",
    "InputError",
    "ModelError",
    "QuantizationError",
    "RegistryError",
    "Report",
    "Session",
    "ShapeError",
    "SynapseError",
    "__version__",
    "axon",
    "block",
    "cluster",
    "convert",
    "dendrite",
    "drawing",
    "events",
    "export",
    "flat",
    "freeze",
    "neuron",
    "ops",
    "play",
    "plot",
    "quantize",
    "readers",
    "synapse",
    "to_nir",
    "verify",
]


def _loaders(folders: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Every file of the readers is one function more: load_net of readers/net.py."""
    return {f"load_{name}": (f"readers.{name}", f"load_{name}") for name in public_modules(folders)}


__all__ += list(_loaders([os.path.join(os.path.dirname(__file__), "readers")]))

#: public name -> (module, attribute; None for the module itself)
_LAZY: dict[str, tuple[str, str | None]] = {
    "Report": ("report.result", "Report"),
    "Session": ("runtime.session", "Session"),
    "axon": ("axon", None),
    "block": ("block", None),
    "cluster": ("runtime.cluster", None),
    "convert": ("readers.frameworks", "convert"),
    "dendrite": ("dendrite", None),
    "drawing": ("report.drawing", None),
    "events": ("runtime.events", None),
    "export": ("compiler.exporter", "export"),
    "flat": ("runtime.inlined", "flat"),
    "freeze": ("compiler.freezer", "freeze"),
    "neuron": ("neuron", None),
    "ops": ("ops", None),
    "play": ("deploy.play", None),
    "plot": ("report.plot", None),
    "quantize": ("quantize", None),
    "readers": ("readers", None),
    "synapse": ("synapse", None),
    "to_nir": ("readers.nir", "to_nir"),
    "verify": ("verification.verifier", "verify"),
}


def __getattr__(name: str) -> Any:
    known: Mapping[str, tuple[str, str | None]] = _LAZY
    if name.startswith("load_"):
        known = _loaders(importlib.import_module(f"{__name__}.readers").__path__)
    if name not in known:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "ops":  # neurons register theirs
        importlib.import_module(f"{__name__}.neuron")
    module, attribute = known[name]
    loaded = importlib.import_module(f"{__name__}.{module}")
    value = loaded if attribute is None else getattr(loaded, attribute)
    globals()[name] = value  # over the submodule of the same name that the import has set
    return value


def __dir__() -> list[str]:
    return __all__
