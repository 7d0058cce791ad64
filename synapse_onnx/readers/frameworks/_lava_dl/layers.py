"""Synapses, neurons, axons and dendrites of lava-dl: one function a kind of class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from synapse_onnx import axon, dendrite, neuron, synapse
from synapse_onnx._layer import Deployable
from synapse_onnx.errors import InputError
from synapse_onnx.readers.frameworks._lava_dl.source import Source, lava_classes

#: neuron -> its module here
KINDS = neuron.kinds()

#: synapse -> arguments of ours, from the layer and its (kernel, stride, padding, dilation)
GEOMETRY: dict[str, Callable[[Any, list[tuple[int, ...]]], tuple[Any, ...]]] = {
    "Dense": lambda old, g: ((g[0][1], g[0][0], old.in_channels), old.out_channels),
    "Conv": lambda old, g: (old.in_channels, old.out_channels, *g, old.groups),
    "ConvTranspose": lambda old, g: (old.in_channels, old.out_channels, *g, old.groups),
    "Pool": lambda old, g: tuple(g),
    "Unpool": lambda old, g: tuple(g),
}


def real_synapse(old: Source) -> nn.Module:
    """Synapse of :mod:`synapse_onnx.synapse`."""
    names = ("kernel_size", "stride", "padding", "dilation")
    sizes = [tuple(getattr(old.layer, name)[:2]) for name in names]
    merged = {"merge_channels": True} if old.name.endswith("ool") else {}
    new = getattr(synapse, old.name)(*GEOMETRY[old.name](old.layer, sizes), **merged)
    if "weight_g" in old.layer._parameters:
        new.enable_weight_norm()
    # not through the property: torch registers a hook that is a module as a child
    old.set_later(new, "_pre_hook_fx", old.layer._pre_hook_fx)
    return new  # type: ignore[no-any-return]


def complex_synapse(old: Source) -> nn.Module:
    """Synapse of :mod:`synapse_onnx.synapse.complex`, from its two real synapses."""
    kind = getattr(synapse.complex, old.name)
    new = kind.__new__(kind)
    Deployable.__init__(new)
    new.real, new.imag = old.part("real"), old.part("imag")
    return new  # type: ignore[no-any-return]


def spiking_neuron(old: Source) -> nn.Module:
    """Any neuron but sigma-delta."""
    layer, make = old.layer, KINDS[old.module.rpartition(".")[-1]].Neuron
    options = old.attributes(
        "scale", "shared_param", "persistent_state", "requires_grad", "graded_spike", "log_init",
        "threshold_step",
    )  # fmt: skip
    # the example's decays and the like are replaced by the parameters that the layer holds
    new = make(**{**make.example, "threshold": _threshold(layer), **options})
    _set_common(old, new)
    # lava-dl draws a channel's parameters at the first input, unless it knows its shape by then
    drawn = layer.shared_param or layer.shape is not None
    new._ranges = {} if drawn else {
        name: (getattr(layer, f"{name}_min"), getattr(layer, f"{name}_max")) for name in new._ranges
    }  # fmt: skip
    for state in new.equation.states:
        if state.start:
            new.register_state(state.name, torch.int64, new.constants()[state.start])
    return new  # type: ignore[no-any-return]


def _threshold(layer: Any) -> float:
    if layer._threshold is None or layer._threshold < 0:
        raise InputError(
            f"its threshold is {layer._threshold}, with which lava-dl marks the neuron of an "
            f"Affine block; give it one that is never reached"
        )
    return float(layer._threshold)


def sigma_delta(old: Source) -> nn.Module:
    """Sigma-delta neuron, with its sigma and delta."""
    options = old.attributes("scale", "shared_param", "requires_grad")
    new = KINDS["sigma_delta"].Neuron(old.layer._threshold, None, **options)
    _set_common(old, new)
    new.sigma, new.delta = old.part("sigma"), old.part("delta")
    new.bias_is_set = old.layer.bias_is_set
    old.set_later(new, "activation", old.layer.activation)
    return new  # type: ignore[no-any-return]


def _set_common(old: Source, new: Any) -> None:
    """Set what every neuron has: threshold, surrogate gradient, shape, norms and dropout."""
    layer = old.layer
    new._threshold, new.tau_rho, new.scale_rho = layer._threshold, layer.tau_rho, layer.scale_rho
    if layer.shape is not None:
        new.shape = torch.Size(layer.shape)
        new.num_neurons = new.shape.numel()
    for name in (*new._norm_names(), "drop"):
        part = getattr(layer, name)
        if part is not None and lava_classes(part):
            setattr(new, name, old.part(name))
        elif part is not None:
            old.set_later(new, name, part)


def norm(old: Source) -> nn.Module:
    """Norm of :mod:`synapse_onnx.neuron.norm`."""
    options = old.attributes("num_features", "momentum", "weight_exp_bits", "eps")
    new = getattr(neuron.norm, old.name)(**options)
    new.update = old.layer.update
    old.set_later(new, "pre_hook_fx", old.layer.pre_hook_fx)
    return new  # type: ignore[no-any-return]


def dropout(old: Source) -> nn.Module:
    """Dropout."""
    return neuron.dropout.Dropout(old.layer.p, old.layer.inplace)


def delay(old: Source) -> nn.Module:
    """Axonal delay."""
    new = axon.Delay(**old.attributes("max_delay", "sampling_time", "grad_scale"))
    new.init = old.layer.init
    return new


def delta(old: Source) -> nn.Module:
    """Delta encoder; its threshold is a parameter."""
    options = old.attributes(
        "scale", "tau_grad", "scale_grad", "cum_error", "shared_param", "persistent_state",
        "requires_grad",
    )  # fmt: skip
    new = axon.Delta(1.0, **options)
    new.shape = old.layer.shape
    return new


def sigma(old: Source) -> nn.Module:
    """Sigma decoder."""
    new = dendrite.Sigma(old.layer.persistent_state)
    new.shape = old.layer.shape
    return new
