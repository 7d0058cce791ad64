"""NIR graphs: networks of snnTorch, Norse, SpikingJelly, sinabs, Rockpool and others.

A graph holds nodes and edges; several edges into a node are added. NIR defines neurons by
differential equations, and :mod:`synapse_onnx.readers._nir.convention` states how each framework
discretises them. Source of the format: the package nir, ``nir/ir/*.py``.
"""

from __future__ import annotations

import io
import os
from typing import Any

from torch import nn

from synapse_onnx._extra import needed
from synapse_onnx.errors import InputError
from synapse_onnx.files import write_atomically
from synapse_onnx.readers._fields import Shape
from synapse_onnx.readers._nir import network
from synapse_onnx.readers._nir.writer import GraphWriter
from synapse_onnx.readers._registry import Reader, register

__all__ = ["load_nir", "to_nir"]


def load_nir(
    path: Any,
    dt: float | None = None,
    framework: str = "",
    reset: str = "",
    integration: str = "",
) -> nn.Module:
    """Read a NIR graph as a torch module in the float regime.

    Args:
        path: a ``.nir`` file, or a ``nir.NIRGraph``.
        dt: time step in seconds; by default that of the framework.
        framework: the framework that wrote the graph, which settles what NIR leaves open: nir (the
            equations by the Euler method), snntorch, norse, spikingjelly, sinabs, rockpool. By
            default the one that the graph's metadata name, or nir.
        reset: "zero" (to v_reset), "subtract" (the threshold), "delayed" (subtract in the next
            time step) or "delayed_zero"; by default that of the framework.
        integration: "euler" or "exponential"; by default that of the framework.

    Returns:
        A module that takes (N, C[, H, W], T), and (N, C, 1, L, T) for NIR's one-dimensional
        images (C, L); in evaluation mode. Its layers are children of ``layers``, by their names.

    Raises:
        InputError: no such file, no NIR graph or a damaged one, an unknown node, a parameter that
            cannot be right, or nir is not installed; the message names file and node.
        ShapeError: nodes that do not fit each other.
    """
    nir = needed("nir", "nir", "load_nir")
    file = os.fspath(path) if isinstance(path, str | os.PathLike) else "the graph"
    graph = path if isinstance(path, nir.NIRGraph) else network.read_graph(nir, file)
    nodes, edges = network.flatten_subgraphs(file, graph)
    convention = network.convention_of(file, graph, framework).with_values(
        dt=dt, reset=reset, integration=integration
    )
    return network.Builder(file, nodes, edges, convention).build().eval()


def to_nir(
    module: nn.Module,
    path: str | os.PathLike[str] | None = None,
    *,
    input_shape: Shape | None = None,
    dt: float = 1e-4,
) -> Any:
    """Write a network as a NIR graph.

    NIR has nodes for real Dense and Conv synapses (the weights in use are written), pools whose
    windows cover the image, lif neurons, cuba neurons in the float regime, delays, Flatten, and
    every layer that :func:`load_nir` makes. ``nn.Sequential``, blocks and networks of
    :func:`load_nir` are followed. The graph's metadata hold what NIR leaves open (dt, reset,
    strictness), so that ``load_nir`` returns the same network.

    Args:
        module: the network.
        path: where to write the graph; the file is written whole or not at all.
        input_shape: shape of one sample without batch and time, (C,) or (C, H, W); by default
            that of the file from which the network was read.
        dt: time step in seconds.

    Returns:
        The graph, a ``nir.NIRGraph``.

    Raises:
        InputError: a layer that NIR has no node for, by its path; or nir is not installed.
        ShapeError: the input's shape does not fit the network.
    """
    nir = needed("nir", "nir", "to_nir")
    shapes = [input_shape] if input_shape is not None else getattr(module, "input_shapes", None)
    if not shapes or None in shapes:
        raise InputError("to_nir: give input_shape, (C,) or (C, H, W) of one sample")
    graph = GraphWriter(nir, dt).write(module, shapes)
    if path is not None:
        buffer = io.BytesIO()
        nir.write(buffer, graph)
        write_atomically(path, buffer.getvalue())
    return graph


register(
    Reader(
        name="NIR",
        suffixes=(".nir",),
        extra="nir",
        load=load_nir,
        doc="graphs of snnTorch, Norse, SpikingJelly, sinabs, Rockpool, in floats",
    )
)
