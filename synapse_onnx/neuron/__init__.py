"""Spiking neurons: currents (N, C[, H, W], T) in, spikes of the same shape out.

Every file here without a leading underscore is discovered and loaded when it is first used. Those
with a class ``Neuron`` are the neurons that :func:`kinds` lists, except ``base``.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from synapse_onnx._discovery import public_modules
from synapse_onnx.ops import add_package

if TYPE_CHECKING:
    # an editor follows no __getattr__: with these it shows the arguments of neuron.cuba.Neuron, and
    # so on. A neuron that is not listed works as well
    from synapse_onnx.neuron import adrf as adrf
    from synapse_onnx.neuron import adrf_iz as adrf_iz
    from synapse_onnx.neuron import alif as alif
    from synapse_onnx.neuron import base as base
    from synapse_onnx.neuron import cuba as cuba
    from synapse_onnx.neuron import dropout as dropout
    from synapse_onnx.neuron import lif as lif
    from synapse_onnx.neuron import norm as norm
    from synapse_onnx.neuron import rf as rf
    from synapse_onnx.neuron import rf_iz as rf_iz
    from synapse_onnx.neuron import sigma_delta as sigma_delta
    from synapse_onnx.neuron.dropout import Dropout as Dropout
    from synapse_onnx.neuron.stepped import step as step

__all__ = ["kinds"]

add_package(__name__)

#: what this package itself offers -> the file that it stands in; lava-dl has Dropout here
_ELSEWHERE = {"Dropout": "dropout", "step": "stepped"}


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)
    if name.startswith("_") or name not in _files():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return [*__all__, *_ELSEWHERE, *_files()]


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
