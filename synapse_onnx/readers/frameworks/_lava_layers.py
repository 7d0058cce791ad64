"""Layers of lava-dl: one function a kind of class.

A block of ours is built with sizes of 1 and an example neuron; then it gets the converted parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from synapse_onnx import axon, block, dendrite, neuron, synapse
from synapse_onnx._layer import Deployable
from synapse_onnx.errors import InputError
from synapse_onnx.readers.frameworks._convert import Conversion

#: package of lava-dl's classes
PACKAGE = "lava.lib.dl"
PREFIX = f"{PACKAGE}."


@dataclass(frozen=True)
class Source:
    """A layer of lava-dl.

    Attributes:
        conversion: the conversion of the whole module.
        path: path of the layer, for errors.
        layer: the layer.
        module: module of its class below slayer: "neuron.cuba".
        name: name of its class: "Neuron", "AbstractDense".
    """

    conversion: Conversion
    path: str
    layer: Any
    module: str
    name: str

    def part(self, name: str) -> Any:
        """Return ours for the layer in an attribute."""
        return self.conversion.layer(self.path, getattr(self.layer, name), part=name)

    def attributes(self, *names: str) -> dict[str, Any]:
        """Return those of these attributes that the layer has, by name."""
        return {name: getattr(self.layer, name) for name in names if hasattr(self.layer, name)}

    def set_later(self, new: Any, name: str, value: Any) -> None:
        """Set an attribute of ours to a value of lava-dl's, once every layer is converted."""
        value = without_identity(value)
        self.conversion.later(lambda: setattr(new, name, self.conversion.copied(value)))


def lava_classes(thing: object) -> list[type]:
    """Return the classes of lava-dl that a thing is of or derives from, the nearest first."""
    return [kind for kind in type(thing).__mro__ if kind.__module__.startswith(PREFIX)]


def without_identity(value: Any) -> Any:
    """Return a value, and None for ``lambda x: x`` of lava-dl, its default for hooks."""
    is_lambda = getattr(value, "__qualname__", "").endswith("<lambda>")
    lavas = (getattr(value, "__module__", None) or "").startswith(PREFIX)
    return None if is_lambda and lavas else value


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
    if layer._threshold is None or layer._threshold < 0:
        raise InputError(
            f"its threshold is {layer._threshold}, with which lava-dl marks the neuron of an "
            f"Affine block; give it one that is never reached"
        )
    options = old.attributes(
        "scale", "shared_param", "persistent_state", "requires_grad", "graded_spike", "log_init",
        "threshold_step",
    )  # fmt: skip
    # the example's decays and the like are replaced by the parameters that the layer holds
    new = make(**{**make.example, "threshold": float(layer._threshold), **options})
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


#: block with a synapse -> how many sizes it takes
SIZES = {"Dense": 2, "Conv": 3, "ConvT": 3, "Pool": 1, "Unpool": 1}


def synaptic(old: Source) -> nn.Module:
    """Block of a synapse and a neuron."""
    make, example = _block_class(old)
    new = make(example, *[1] * SIZES[make.__name__], count_log=old.layer.count_log)
    new.synapse, new.neuron = old.part("synapse"), old.part("neuron")
    _set_delays(old, new)
    _set_mask(old, new)
    return new  # type: ignore[no-any-return]


def input_(old: Source) -> nn.Module:
    """Input: transformation of the input and, where it has one, a neuron."""
    layer = old.layer
    make, _ = _block_class(old)
    levels = {n: None if getattr(layer, n) is None else 0.0 for n in ("weight", "bias")}
    new = make(None, **levels, count_log=layer.count_log)
    if layer.neuron is not None:
        new.neuron = old.part("neuron")
    _set_delays(old, new)
    if make.neurons is KINDS["sigma_delta"] and layer.neuron is not None:
        # lava-dl's forward neither delays nor counts here, whatever the options are
        new.neuron.as_encoder()
        new.step, new.delay_shift, new.count_log = None, False, False
    new.input_shape = layer.input_shape
    hook = without_identity(layer.pre_hook_fx)
    if hook is not None:
        old.set_later(new, "pre_hook_fx", hook)
    return new  # type: ignore[no-any-return]


def without_neuron(old: Source) -> nn.Module:
    """Flatten, Average, TimeDecimation."""
    make, _ = _block_class(old)
    sizes = old.attributes("num_outputs", "factor").values()
    new = make(*sizes, count_log=old.layer.count_log)
    if make.__name__ == "Flatten":
        new.shape = old.layer.shape
    return new  # type: ignore[no-any-return]


def affine(old: Source) -> nn.Module:
    """Affine: a synapse, and a neuron whose voltage is the output."""
    layer = old.layer
    make, example = _block_class(old)
    new = make(example, 1, 1, dynamics=layer.dynamics, count_log=layer.count_log)
    new.synapse = old.part("synapse")
    # lava-dl marks a neuron without spikes by a threshold of -1 or None, which ours refuses
    threshold, layer.neuron._threshold = layer.neuron._threshold, 0.0
    try:
        new.neuron = old.part("neuron")
    finally:
        layer.neuron._threshold = threshold
    new.neuron.as_readout()
    _set_mask(old, new)
    return new  # type: ignore[no-any-return]


def recurrent(old: Source) -> nn.Module:
    """Recurrent: a neuron that receives its own spikes through a synapse."""
    make, example = _block_class(old)
    new = make(example, 1, 1, count_log=old.layer.count_log)
    new.num_neurons = old.layer.num_neurons
    new.input_synapse = old.part("input_synapse")
    new.recurrent_synapse = old.part("recurrent_synapse")
    _set_feedback_neuron(old, new)
    new.neuron.feed_back(new.recurrent_synapse)
    _set_delays(old, new, keeps=False)
    return new  # type: ignore[no-any-return]


def kwta(old: Source) -> nn.Module:
    """KWTA: k winners take all, a neuron with lateral inhibition."""
    make, example = _block_class(old)
    count, winners = old.layer.num_neurons, old.layer.num_winners
    new = make(example, 1, count, winners, count_log=old.layer.count_log)
    new.synapse = old.part("synapse")
    _set_feedback_neuron(old, new)
    new.lateral.pre_hook_fx = new.neuron.quantize_8bit
    new.neuron.feed_back(new.lateral)
    new.set_bias()
    _set_delays(old, new)
    return new  # type: ignore[no-any-return]


def output(old: Source) -> nn.Module:
    """Output of a sigma-delta network: a synapse and the sum of its messages."""
    make, example = _block_class(old)
    new = make(example, 1, 1, count_log=old.layer.count_log)
    new.synapse, new.neuron = old.part("synapse"), old.part("neuron")
    new.neuron.as_decoder()
    return new  # type: ignore[no-any-return]


def _block_class(old: Source) -> tuple[Any, Mapping[str, Any]]:
    """Our class of a block, and example arguments of its neuron."""
    layer, name = old.layer, old.name.removeprefix("Abstract")
    owner = layer.neuron if getattr(layer, "neuron", None) is not None else layer
    modules = [kind.__module__.rsplit(".", 1)[-1] for kind in lava_classes(owner)]
    kind = next((module for module in modules if module in KINDS), None)
    if kind is None:
        raise InputError(f"its neuron is a {type(owner).__qualname__}, which is none of lava-dl")
    return getattr(getattr(block, kind), name), KINDS[kind].Neuron.example


def _set_delays(old: Source, new: Any, *, keeps: bool = True) -> None:
    """Set step delay and axonal delay.

    Where states persist, the step delay keeps its last input; that of a Recurrent block does not.
    """
    new._delays(False, old.layer.delay_shift)
    if new.step is not None:
        new.step.persistent_state = new.step.persistent_state and keeps
        last_input = getattr(old.layer, "delay_buffer", None)
        if new.step.persistent_state and last_input is not None:
            new.step.line_state = last_input.detach().unsqueeze(-1)
    if old.layer.delay is not None:
        new.delay = old.part("delay")


def _set_mask(old: Source, new: Any) -> None:
    """Set the mask of the weights; lava-dl ignores it under weight norm."""
    mask = getattr(old.layer, "mask", None)
    if mask is not None and not new.synapse.weight_norm_enabled:
        hooked = new.synapse.real if new.synapse.complex else new.synapse
        old.conversion.later(lambda: new._hook(new.synapse, hooked.pre_hook_fx, mask))


def _set_feedback_neuron(old: Source, new: Any) -> None:
    """Set the neuron of a block that receives its own spikes."""
    if getattr(old.layer, "bias", None) is not None:
        raise InputError("a bias was set on it, which its current here does not have")
    if not old.layer.neuron.persistent_state:
        raise InputError(
            "its neuron has persistent_state=False, with which lava-dl starts it afresh at every "
            "time step; set it to True"
        )
    new.neuron = old.part("neuron")
    new.keeps_spikes = False  # lava-dl keeps voltages from call to call, and no spikes
