"""Blocks of every neuron: ``block.cuba.Dense``, ``block.rf.Conv`` and so on.

Each neuron in ``synapse_onnx.neuron`` has a module of its blocks here, made by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from types import ModuleType
from typing import Any

from synapse_onnx import neuron
from synapse_onnx.block import base

__all__ = ["base"]


def _missing(kind: str, made: Iterable[str], name: str) -> Any:
    raise AttributeError(
        f"block.{kind} has no {name}; the blocks of {kind} neurons are: {', '.join(sorted(made))}"
    )


def _make() -> dict[str, ModuleType]:
    modules = {}
    for kind, neurons in neuron.kinds().items():
        module = ModuleType(f"{__name__}.{kind}", f"Blocks of {kind} neurons.")
        made = base.blocks(kind, neurons)
        vars(module).update(made, __all__=sorted(made), __getattr__=partial(_missing, kind, made))
        # so that `import synapse_onnx.block.cuba` and pickles find it
        modules[kind] = sys.modules[module.__name__] = module
    return modules


_MODULES = _make()


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; blocks are made for: "
            f"{', '.join(_MODULES)}"
        )
    return _MODULES[name]


def __dir__() -> list[str]:
    return [*__all__, *_MODULES]
