"""The table of NIR's primitives: what makes a layer of each.

A new primitive is a function from a :class:`Node` to a layer and the shape of its output, and a row
here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from synapse_onnx.readers._nir import neurons, stateless
from synapse_onnx.readers._nir.node import Layer, Node

__all__ = ["LINEAR", "PRIMITIVES", "SPIKING"]

#: name of a primitive -> the function that makes a layer of it
PRIMITIVES: Mapping[str, Callable[[Node], Layer]] = {
    "Affine": stateless.linear,
    "AvgPool2d": stateless.pool,
    "Conv1d": stateless.convolution,
    "Conv2d": stateless.convolution,
    "CubaLI": neurons.current_based,
    "CubaLIF": neurons.current_based,
    "Delay": stateless.delay,
    "Flatten": stateless.flatten,
    "I": neurons.integrator,
    "IF": neurons.integrator,
    "LI": neurons.leaky,
    "LIF": neurons.leaky,
    "Linear": stateless.linear,
    "Scale": stateless.scale,
    "SumPool2d": stateless.pool,
    "Threshold": stateless.threshold,
}
#: primitives whose feedback arrives one time step later
SPIKING = ("IF", "LIF", "CubaLIF")
#: primitives that a feedback path may hold: each is a matrix, and so is their product
LINEAR = ("Linear", "Affine", "Scale")
