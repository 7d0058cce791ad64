"""A network as torch modules of ours."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

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
    blocks = [block(layer, network.numbers == "q8") for layer in network.layers]
    return nn.Sequential(*blocks).eval()


def block(layer: Layer, q8: bool) -> nn.Module:
    """Return one layer with its neuron."""
    if layer.kind == "flatten":
        return so.block.cuba.Flatten()
    params: dict[str, Any] = dict(RF if layer.kind == "resonator" else CUBA)
    params["regime"] = "slayer" if q8 else "float"
    hook: Any = so.quantize.q8 if q8 else None
    made: Any
    if layer.kind == "pool":
        made = so.block.cuba.Pool(params, 2, pre_hook_fx=hook, delay_shift=False)
        made.synapse.weight.data.fill_(0.5)
        return made
    weight = layer.matrix
    outputs, inputs = weight.shape[-2:] if layer.kind == "resonator" else weight.shape[:2]
    if layer.kind == "conv":
        made = so.block.cuba.Conv(
            params, inputs, outputs, weight.shape[2:], stride=layer.stride,
            padding=layer.padding, pre_hook_fx=hook, delay_shift=False,
        )  # fmt: skip
        _set(made.synapse.weight, weight)
    elif layer.kind == "dense":
        made = so.block.cuba.Dense(params, inputs, outputs, pre_hook_fx=hook, delay_shift=False)
        _set(made.synapse.weight, weight)
    elif layer.kind == "recurrent":
        made = so.block.cuba.Recurrent(params, inputs, outputs, pre_hook_fx=hook, delay_shift=False)
        _set(made.input_synapse.weight, weight)
        assert layer.feedback is not None
        _set(made.recurrent_synapse.weight, layer.feedback)
    else:
        made = so.block.rf.Dense(params, inputs, outputs, pre_hook_fx=hook, delay_shift=False)
        for part, values in zip((made.synapse.real, made.synapse.imag), weight, strict=True):
            _set(part.weight, values)
    return made


def _set(parameter: Tensor, values: Tensor) -> None:
    parameter.data.copy_(values.reshape(parameter.shape))
