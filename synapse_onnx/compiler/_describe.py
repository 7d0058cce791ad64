"""Metadata of an exported model: layers, states, regime, exact outputs, notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import nn

from synapse_onnx._version import __version__
from synapse_onnx.compiler._streaming import State, Streamed
from synapse_onnx.compiler.exactness import exact_values, has_exact_sums
from synapse_onnx.compiler.freezer import deployables
from synapse_onnx.compiler.loops.rolled import Rolled
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.model.options import Options
from synapse_onnx.ops import DOMAIN

__all__ = ["describe"]

Layers = Sequence[Mapping[str, Any]]


def describe(
    model: onnx.ModelProto,
    frozen: nn.Module,
    streamed: Streamed | None,
    options: Options,
    arithmetic: Mapping[str, str],
) -> None:
    """Write the metadata of a model that was traced from a frozen network.

    ``arithmetic`` says in which numbers each layer computes, by its path.
    """
    # what each layer says of itself, and the numbers that its nodes compute in
    layers: list[dict[str, Any]] = []
    for path, layer in deployables(frozen):
        layers.append({"path": path, **layer.describe()})
        if path in arithmetic:
            layers[-1]["arithmetic"] = arithmetic[path]
    # a wide sum is exact here and rounded in the module that was not frozen
    exact = exact_values(model, {layer["path"]: has_exact_sums(layer) for layer in layers})
    states = [] if streamed is None else streamed.states
    state_outputs = {state.output for state in states}
    outputs = [value.name for value in model.graph.output if value.name not in state_outputs]
    Metadata(
        version=__version__,
        torch_version=torch.__version__,
        opset=options.opset,
        regime=_regime(model, layers, exact),
        streaming=options.streaming,
        dynamic=options.dynamic,
        chunk=1 if streamed is None else streamed.chunk,
        layout=options.layout,
        input_type=options.input_type,
        axes=options.axes,
        open_time=options.open_time,
        steps=options.steps,
        loops=isinstance(frozen, Rolled),
        states=tuple(map(_state, states)),
        layers=tuple(layers),
        exact=tuple(name for name in outputs if name in exact),
        notes=tuple(_notes(layers, options)),
    ).write(model)


def _regime(model: onnx.ModelProto, layers: Layers, exact: set[str]) -> str:
    regimes = {str(layer["regime"]) for layer in layers if "regime" in layer}
    own = (node for node in model.graph.node if node.domain == DOMAIN)
    if all(name in exact for node in own for name in node.output):
        return next(iter(regimes)) if len(regimes) == 1 else "mixed"
    return "mixed" if regimes - {"float"} else "float"


def _notes(layers: Layers, options: Options) -> Iterator[str]:
    """Yield a sentence for every synapse whose sums or products are rounded, and on a fixed T."""
    synapses = [(layer["path"] or "the synapse", layer) for layer in layers if "quantized" in layer]
    quantized = [(name, layer) for name, layer in synapses if layer["quantized"]]
    for name in (name for name, layer in synapses if not layer["quantized"]):
        reason = "its hook leaves no integer grid of 16 bits, or it has no hook"
        yield f"{name}: float weights; {reason}"
    for name in (name for name, layer in quantized if not layer["power_of_two"]):
        yield (
            f"{name}: steps are no powers of two; sums are exact, and the product with the step is "
            f"rounded once"
        )
    for name in (name for name, layer in quantized if layer["wide"]):
        yield (
            f"{name}: sums pass 2**24; they are taken in two parts, exactly, and rounded once, "
            f"where the module that was not frozen rounds within the sum"
        )
    if not options.open_time:
        yield "forward() takes one number of time steps alone, so T is fixed in the file"


def _state(state: State) -> dict[str, Any]:
    return {
        "input": state.name,
        "output": state.output,
        "dtype": str(state.example.dtype).removeprefix("torch."),
        # the stream chooses the batch size, the first axis
        "shape": [None, *state.example.shape[1:]],
        "start": state.start,
    }
