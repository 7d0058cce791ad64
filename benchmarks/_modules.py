"""A network as torch modules of ours, or of lava-dl, whose API ours is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

import synapse_onnx as so
from benchmarks._networks import (
    CURRENT_DECAY,
    PERIOD,
    RESONATOR_DECAY,
    RESONATOR_THRESHOLD,
    THRESHOLD,
    VOLTAGE_DECAY,
    Layer,
    Network,
)

CUBA = {
    "threshold": THRESHOLD,
    "current_decay": CURRENT_DECAY,
    "voltage_decay": VOLTAGE_DECAY,
}
RF = {"threshold": RESONATOR_THRESHOLD, "period": PERIOD, "decay": RESONATOR_DECAY}


def build(network: Network) -> nn.Module:
    """Return the network as blocks of ours, in evaluation mode."""
    q8 = network.numbers == "q8"
    hook = so.quantize.q8 if q8 else None
    return stack(network, so.block, {"regime": "slayer" if q8 else "float"}, pre_hook_fx=hook)


def stack(
    network: Network, blocks: Any, neuron: Mapping[str, Any] | None = None, **synapse: Any
) -> nn.Module:
    """Return the network as blocks of slayer's API, in evaluation mode.

    Args:
        network: what to build.
        blocks: where to take them from: ``synapse_onnx.block``, or lava-dl's.
        neuron: further parameters of every neuron.
        synapse: further arguments of every block with a synapse.
    """
    more = {"delay_shift": False, **synapse}
    made = (_block(layer, blocks, dict(neuron or {}), more) for layer in network.layers)
    return nn.Sequential(*made).eval()


def _block(layer: Layer, blocks: Any, neuron: dict[str, Any], more: dict[str, Any]) -> nn.Module:
    """Return one layer with its neuron."""
    if layer.kind == "flatten":
        flatten: nn.Module = blocks.cuba.Flatten()
        return flatten
    params = (RF if layer.kind == "resonator" else CUBA) | neuron
    made: Any
    if layer.kind == "pool":
        made = blocks.cuba.Pool(params, 2, **more)
        made.synapse.weight.data.fill_(0.5)
        return made  # type: ignore[no-any-return]
    weight = layer.matrix
    outputs, inputs = weight.shape[-2:] if layer.kind == "resonator" else weight.shape[:2]
    if layer.kind == "conv":
        size = tuple(weight.shape[2:])
        geometry = {"stride": layer.stride, "padding": layer.padding}
        made = blocks.cuba.Conv(params, inputs, outputs, size, **geometry, **more)
        parts = [(made.synapse, weight)]
    elif layer.kind == "resonator":
        made = blocks.rf.Dense(params, inputs, outputs, **more)
        parts = [(made.synapse.real, weight[0]), (made.synapse.imag, weight[1])]
    elif layer.kind == "recurrent":
        assert layer.feedback is not None
        made = blocks.cuba.Recurrent(params, inputs, outputs, **more)
        parts = [(made.input_synapse, weight), (made.recurrent_synapse, layer.feedback)]
    else:
        made = blocks.cuba.Dense(params, inputs, outputs, **more)
        parts = [(made.synapse, weight)]
    for synapse, values in parts:
        synapse.weight.data.copy_(values.reshape(synapse.weight.shape))
    return made  # type: ignore[no-any-return]
