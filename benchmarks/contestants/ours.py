"""What this project makes: the exported file in ONNX Runtime, and our torch modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import synapse_onnx as so
from benchmarks._networks import CURRENT_DECAY, RF, THRESHOLD, VOLTAGE_DECAY, Layer, Network
from benchmarks.contestants import Contestant, Run, UnsupportedError
from synapse_onnx.runtime import native

CUBA = {"threshold": THRESHOLD, "current_decay": CURRENT_DECAY, "voltage_decay": VOLTAGE_DECAY}


def build(network: Network) -> nn.Module:
    """Return the network as blocks of ours, in evaluation mode."""
    q8 = network.numbers == "q8"
    hook = so.quantize.q8 if q8 else None
    return stack(network, so.block, {"regime": "slayer" if q8 else "float"}, pre_hook_fx=hook)


def stack(
    network: Network, blocks: Any, neuron: Mapping[str, Any] | None = None, **synapse: Any
) -> nn.Module:
    """Return the network as blocks of slayer's API, ours or lava-dl's, in evaluation mode.

    All neurons get these further parameters, and all blocks with a synapse these arguments.
    """
    more = {"delay_shift": False, **synapse}
    made = (_block(layer, blocks, dict(neuron or {}), more) for layer in network.layers)
    return nn.Sequential(*made).eval()


def _block(layer: Layer, blocks: Any, neuron: dict[str, Any], more: dict[str, Any]) -> nn.Module:
    """Return one layer with its neuron."""
    if layer.kind == "flatten":
        return blocks.cuba.Flatten()
    params = (RF if layer.kind == "resonator" else CUBA) | neuron
    if layer.kind == "pool":
        made = blocks.cuba.Pool(params, 2, **more)
        made.synapse.weight.data.fill_(0.5)
        return made
    weight = layer.weight
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
        made = blocks.cuba.Recurrent(params, inputs, outputs, **more)
        parts = [(made.input_synapse, weight), (made.recurrent_synapse, layer.feedback)]
    else:
        made = blocks.cuba.Dense(params, inputs, outputs, **more)
        parts = [(made.synapse, weight)]
    for synapse, values in parts:
        synapse.weight.data.copy_(values.reshape(synapse.weight.shape))
    return made


def portable(network: Network, spikes: Tensor, *, kernels: bool = False) -> Run:
    """Export and load; the input is (N, C[, H, W], T) in float32, as at the file's border."""
    model = so.export(build(network), spikes[:1, ..., :4])
    session, array = so.Session(model, native=kernels), spikes.numpy()
    return lambda: session.run(array)


def with_kernels(network: Network, spikes: Tensor) -> Run:
    """Run the same file with native kernels, where the install brought them."""
    if (problem := native.problem()) is not None:
        raise UnsupportedError(f"there are no native kernels: {problem}")
    return portable(network, spikes, kernels=True)


def eager(network: Network, spikes: Tensor) -> Run:
    """Freeze; the input is (N, C[, H, W], T)."""
    frozen = so.freeze(build(network))
    return torch.no_grad()(lambda: frozen(spikes))


CONTESTANTS = (
    Contestant("native", "the same file with native kernels", with_kernels, exact=True),
    Contestant(
        "onnx", "the exported file without native kernels, NCT float32", portable, exact=True
    ),
    Contestant("torch", "our modules, eager", eager, exact=True),
)
