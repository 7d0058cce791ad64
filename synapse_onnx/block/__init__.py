"""Blocks of every neuron: ``block.cuba.Dense``, ``block.rf.Conv`` and so on.

Each neuron in ``synapse_onnx.neuron`` has a module of blocks here, which is made when this package
is imported.
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


class Blocks(ModuleType):
    """The module of one neuron's blocks, as type checkers and editors see it.

    Not every neuron has all of them: Output is for sigma-delta neurons, and Affine, Recurrent and
    KWTA are for the others.
    """

    KWTA: type[base.KWTA]
    Affine: type[base.Affine]
    Average: type[base.Average]
    Conv: type[base.Conv]
    ConvT: type[base.ConvT]
    Dense: type[base.Dense]
    Flatten: type[base.Flatten]
    Input: type[base.Input]
    Output: type[base.Decoded]
    Pool: type[base.Pool]
    Recurrent: type[base.Recurrent]
    TimeDecimation: type[base.TimeDecimation]
    Unpool: type[base.Unpool]


def _missing(kind: str, labels: Iterable[str], name: str) -> Any:
    raise AttributeError(
        f"block.{kind} has no {name}; the blocks of {kind} neurons are: {', '.join(sorted(labels))}"
    )


def _make() -> dict[str, Blocks]:
    modules = {}
    for kind, neurons in neuron.kinds().items():
        module = Blocks(f"{__name__}.{kind}", f"Blocks of {kind} neurons.")
        blocks = base.blocks(kind, neurons)
        vars(module).update(blocks, __all__=sorted(blocks))
        vars(module)["__getattr__"] = partial(_missing, kind, blocks)
        # so that `import synapse_onnx.block.cuba` and pickles find it
        modules[kind] = sys.modules[module.__name__] = module
    return modules


_MODULES = _make()


def __getattr__(name: str) -> Blocks:
    if name not in _MODULES:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; blocks are made for: "
            f"{', '.join(_MODULES)}"
        )
    return _MODULES[name]


def __dir__() -> list[str]:
    return [*__all__, *_MODULES]
