"""Blocks of lava-dl: one function a kind of block, for all neurons.

A block of ours is built with sizes of 1 and an example neuron; then it gets the converted parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from synapse_onnx import block
from synapse_onnx.errors import InputError
from synapse_onnx.readers.frameworks._lava_dl.layers import KINDS
from synapse_onnx.readers.frameworks._lava_dl.source import Source, lava_classes, without_identity


def synaptic(old: Source) -> nn.Module:
    """Dense, Conv, ConvT, Pool, Unpool."""
    make, example = _block_class(old)
    sizes = (1, 1, 1)[: {"Dense": 2, "Conv": 3, "ConvT": 3}.get(make.__name__, 1)]
    new = make(example, *sizes, count_log=old.layer.count_log)
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
