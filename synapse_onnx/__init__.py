"""synapse-onnx: trained spiking networks as ONNX files, with a proof that they are the same.

Import it as ``so``: the names below are loaded when they are first used, so that running a
model needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
    from synapse_onnx import axon, block, dendrite, neuron, ops, quantize, synapse
    from synapse_onnx.exporter import export
    from synapse_onnx.freezer import freeze
    from synapse_onnx.runtime import Session
    from synapse_onnx.verifier import Report, verify

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
    "dendrite",
    "export",
    "freeze",
    "neuron",
    "ops",
    "quantize",
    "synapse",
    "verify",
]

#: public name -> (module, attribute; None for the module itself)
_LAZY: dict[str, tuple[str, str | None]] = {
    "Report": ("synapse_onnx.verifier", "Report"),
    "Session": ("synapse_onnx.runtime", "Session"),
    "axon": ("synapse_onnx.axon", None),
    "block": ("synapse_onnx.block", None),
    "dendrite": ("synapse_onnx.dendrite", None),
    "export": ("synapse_onnx.exporter", "export"),
    "freeze": ("synapse_onnx.freezer", "freeze"),
    "neuron": ("synapse_onnx.neuron", None),
    "ops": ("synapse_onnx.ops", None),
    "quantize": ("synapse_onnx.quantize", None),
    "synapse": ("synapse_onnx.synapse", None),
    "verify": ("synapse_onnx.verifier", "verify"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    loaded = importlib.import_module(module)
    value = loaded if attribute is None else getattr(loaded, attribute)
    globals()[name] = value  # over the submodule of the same name that the import has set
    return value


def __dir__() -> list[str]:
    return __all__
