"""Spiking neurons: currents (N, C[, H, W], T) in, spikes of the same shape out.

Every file here without a leading underscore is found by itself; those with a class ``Neuron`` are
the neurons that :func:`kinds` lists.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from synapse_onnx._discovery import public_modules
from synapse_onnx.ops import add_package

__all__ = ["kinds"]

add_package(__name__)


def __getattr__(name: str) -> Any:
    if name == "Dropout":  # lava-dl has it here
        return importlib.import_module(f"{__name__}.dropout").Dropout
    if name.startswith("_") or name not in _files():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return [*__all__, *_files()]


def _files() -> list[str]:
    return public_modules(__path__)


def kinds() -> dict[str, ModuleType]:
    """Return the module of every neuron, by name."""
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in _files()}
    return {
        name: module
        for name, module in modules.items()
        if name != "base" and hasattr(module, "Neuron")
    }
