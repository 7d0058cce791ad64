"""Blocks: synapse, neuron and delay as one layer, with the arguments of lava-dl's blocks.

A block is an ordinary torch module around layers of this package; each of these is exported and
compared by itself. :func:`blocks` derives the blocks of one kind of neuron.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from synapse_onnx import synapse
from synapse_onnx.block._block import Block
from synapse_onnx.block._ends import Affine, Decoded, Input
from synapse_onnx.block._feedback import KWTA, Bias, Recurrent
from synapse_onnx.block._reductions import Average, Flatten, TimeDecimation
from synapse_onnx.block._synaptic import Conv, ConvT, Dense, Pool, Unpool

__all__ = [
    "KWTA",
    "Affine",
    "Average",
    "Bias",
    "Block",
    "Conv",
    "ConvT",
    "Decoded",
    "Dense",
    "Flatten",
    "Input",
    "Pool",
    "Recurrent",
    "TimeDecimation",
    "Unpool",
    "blocks",
]


def blocks(name: str, neurons: ModuleType) -> dict[str, type[Block]]:
    """Derive the blocks of one kind of neuron, by name.

    Args:
        name: the kind, "cuba" for example: the blocks then belong to the module
            ``synapse_onnx.block.cuba``.
        neurons: module with the class ``Neuron``.
    """
    neuron: Any = neurons.Neuron
    steps = hasattr(neuron, "equation")
    bases: list[type[Block]] = [
        Input, Flatten, Average, TimeDecimation, Dense, Conv, ConvT, Pool, Unpool,
    ]  # fmt: skip
    # a sigma-delta neuron has no equation of steps: there is nothing to feed spikes back into
    bases += [Affine, Recurrent, KWTA] if steps else [Decoded]
    attributes = {
        "neurons": neurons,
        "synapses": synapse.complex if neuron.complex else synapse,
        # a sigma-delta layer sends changes, which are not delayed by default
        "shifts": steps,
    }
    derived = {}
    for base in bases:
        label = "Output" if base is Decoded else base.__name__
        module = f"{__package__}.{name}"
        body = {**attributes, "__module__": module, "__qualname__": label, "__doc__": base.__doc__}
        derived[label] = type(label, (base,), body)
    return derived
