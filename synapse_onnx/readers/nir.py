"""NIR graphs: networks of snnTorch, Norse, SpikingJelly, sinabs, Rockpool and others.

A graph holds nodes and edges; several edges into a node are added. NIR defines neurons by
differential equations, and :mod:`synapse_onnx.readers._nir.convention` states how each framework
discretises them. Source of the format: the package nir, ``nir/ir/*.py``.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from synapse_onnx._extra import needed
from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.files import write_atomically
from synapse_onnx.readers._fields import Shape
from synapse_onnx.readers._nir import network
from synapse_onnx.readers._nir.chosen import choose
from synapse_onnx.readers._nir.convention import Convention
from synapse_onnx.readers._nir.writer import GraphWriter
from synapse_onnx.readers._registry import Reader, register

__all__ = ["load_nir", "to_nir"]


def load_nir(
    path: Any,
    dt: float | None = None,
    framework: str = "",
    reset: str = "",
    integration: str = "",
    version: str = "",
    *,
    zero_behind: str = "",
    strict: bool | None = None,
    max_spikes: float | None = None,
    min_v_mem: str | float = "",
    tau_unit: float | None = None,
    arrives: str = "",
    enters: str = "",
    readout_enters: str = "",
    integrate: str = "",
    rest: str = "",
) -> nn.Module:
    """Read a NIR graph as a torch module in the float regime.

    NIR leaves open how a framework discretises its equations, and no exporter writes it down. What
    you give here holds; the rest is what the graph's metadata say, or what the framework does by
    default. A ``UserWarning`` says in one sentence what of that is assumed; where nothing is,
    there is none. For a live network, ``so.export(network, x)`` needs no assumptions.

    Args:
        path: a ``.nir`` file, or a ``nir.NIRGraph``.
        dt: time step in seconds.
        framework: the framework that wrote the graph: nir (the equations by the Euler method),
            snntorch, norse, spikingjelly, sinabs, rockpool. By default the one that the graph's
            metadata name, or nir.
        reset: "zero" (to v_reset), "subtract" (the threshold), "delayed" (subtract in the next
            time step) or "delayed_zero" (to v_reset in the next time step).
        integration: "euler": a state decays by the fraction dt / tau in a time step;
            "exponential": by 1 - exp(-dt / tau).
        version: the framework's version, as in "1.1.0". Norse 1.1.0 writes other time constants
            than other versions; by default they are compared with dt.
        zero_behind: the reset in place of "zero" for neurons with a synaptic current or with
            feedback: "zero" or "delayed_zero". A given reset="zero" holds for them, too.
        strict: whether a neuron spikes above its threshold, and not at it.
        max_spikes: most spikes of a neuron in a time step, 1 to ``math.inf``; with more than one
            the output is a count, and the reset is "subtract" or "zero".
        min_v_mem: lowest voltage after a time step: a number; "none"; "-v_threshold"; or "if", the
            latter of IF nodes alone.
        tau_unit: unit of the time constants in the file, in seconds.
        arrives: factor on the input of a synaptic current: "spread", the fraction by which the
            current decays; "jump", 1; "decayed", the fraction that is kept.
        enters: factor on r x, the input of a leaky neuron's voltage: "lost", the fraction by which
            the voltage decays; "euler", dt / tau; "kept", dt / tau divided by the fraction that is
            kept; "whole", 1.
        readout_enters: the same for neurons that never spike.
        integrate: input of IF and I in a time step: "dt", r dt x; "step", r x.
        rest: initial voltage: "zero", "v_reset" or "v_leak".

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
    given = {
        "dt": dt, "reset": reset, "integration": integration, "zero_behind": zero_behind,
        "strict": strict, "max_spikes": max_spikes, "min_v_mem": min_v_mem, "tau_unit": tau_unit,
        "arrives": arrives, "enters": enters, "readout_enters": readout_enters,
        "integrate": integrate, "rest": rest,
    }  # fmt: skip
    convention, assumed = choose(file, graph.metadata, nodes, framework, version, given)
    module, more = _built(file, nodes, edges, convention)
    for sentence in (*assumed, *more):
        warnings.warn(sentence, stacklevel=2)
    return module


def _built(
    file: str, nodes: Mapping[str, Any], edges: network.Edges, convention: Convention
) -> tuple[nn.Module, list[str]]:
    """Return the network of a graph, and what is assumed of its cycles."""
    try:
        builder = network.Builder(file, nodes, edges, convention)
        return builder.build().eval(), builder.assumed
    except (InputError, ShapeError) as error:
        raise type(error)(network.with_advice(str(error))) from error


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
