"""Neurons of this package in loops, one a file, found by themselves.

Every file has a function ``find(step)``, which returns a :class:`Found`, or raises
:class:`~synapse_onnx.compiler.loops.step.UnknownNeuronError` with the reason why the loop is none
of its neurons. Files are asked in the order of their names.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache

from synapse_onnx._discovery import public_modules
from synapse_onnx.compiler.loops.found import Found
from synapse_onnx.compiler.loops.step import Step, UnknownNeuronError
from synapse_onnx.errors import SynapseError

__all__ = ["find"]


@cache
def _kinds() -> Sequence[Callable[[Step], Found]]:
    """Return the ``find`` of every file in this folder."""
    return [importlib.import_module(f"{__name__}.{n}").find for n in public_modules(__path__)]


def find(step: Step) -> Found | None:
    """Return the neuron that a loop is; None if it is none of this package."""
    for kind in _kinds():
        try:
            return kind(step)
        except (UnknownNeuronError, SynapseError):
            continue
    return None
