"""Neurons of ``.net`` files, and layers with a synapse: its weights, delays, bias and mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synapse_onnx import block, neuron, synapse
from synapse_onnx.axon import Delay
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE
from synapse_onnx.ops.arithmetic.loihi import STATE_LIMIT
from synapse_onnx.readers._fields import Array, Shape
from synapse_onnx.readers._net.layer import WEIGHT_ONE, Layer
from synapse_onnx.readers._network import delay_line, with_weight

#: names of the decays in a file -> the neuron's parameters
_DECAYS = {
    "iDecay": "current_decay",
    "vDecay": "voltage_decay",
    "thDecay": "threshold_decay",
    "refDecay": "refractory_decay",
    "sinDecay": "sin_decay",
    "cosDecay": "cos_decay",
}
#: names of activations -> the function; lava-dl's netx computes relu where none is named
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "relu": torch.relu,
    "none": None,
    "unit": None,
    "identity": None,
}
#: longest delay in a file, in time steps: beyond Loihi's 62, for lava-dl trains longer ones (64 in
#: the baseline of Intel's N-DNS challenge)
_MAX_DELAY = 1 << 16
#: the exponent of a WgtScaleBatchNorm lies in -3 ... 3 while it trains; a file may hold others
_MAX_NORM_EXPONENT = 3


def _kinds() -> dict[str, tuple[str, ModuleType]]:
    """Name of a neuron in a file -> its name and module here, by what each neuron declares."""
    kinds = {
        module.Neuron.device_type: (name, module)
        for name, module in neuron.kinds().items()
        if module.Neuron.device_type
    }
    return kinds | {"LOIHI": kinds["CUBA"]}  # its name in older files


class NeuronSpec:
    """The neuron of a layer, as the group "neuron" of the layer describes it.

    Attributes:
        layer: the layer.
        kind: name of the neuron in :mod:`synapse_onnx.neuron`.
        module: that module.
        params: arguments of its constructor.
        decays: its parameters in 4096ths, by name: one, or one a channel.
        readout: no voltage reaches its threshold, so that the voltage is the output.
        decoder: it only sums the messages of a sigma-delta layer.
    """

    def __init__(self, layer: Layer) -> None:
        if not layer.is_group("neuron"):
            raise layer.invalid("neuron", "it is no group")
        kinds = _kinds()
        name = layer.text("neuron/type")
        if name not in kinds:
            raise layer.invalid(
                "neuron/type", f"there is no neuron {name!r}; known: {', '.join(sorted(kinds))}"
            )
        self.layer, (self.kind, self.module) = layer, kinds[name]
        layer.integer("neuron/messageBits", 0, 32, default=0)  # no message is cut off
        layer.integer("neuron/refDelay", 1, 1, default=1)
        device: dict[str, Any] = {"vThMant": layer.integer("neuron/vThMant", 0, (1 << 24) - 1)}
        if layer.has("neuron/vThStep"):
            device["vThStep"] = layer.integer("neuron/vThStep", 0, (1 << 24) - 1)
        decays: dict[str, Array] = {}
        for key, parameter in _DECAYS.items():
            if layer.has(f"neuron/{key}"):
                value = layer.integers(f"neuron/{key}").reshape(-1)
                if value.min() < 0 or value.max() > DECAY_ONE:
                    raise layer.invalid(f"neuron/{key}", f"a decay lies in 0 to {DECAY_ONE}")
                device[key] = int(value[0])
                decays[parameter] = value
        try:
            self.params: dict[str, Any] = self.module.neuron_params(device)
        except KeyError as error:
            raise layer.invalid(f"neuron/{error.args[0]}", "it is missing") from None
        self.params["regime"] = "loihi"
        sigma_delta = self.kind == "sigma_delta"
        if sigma_delta:
            self.params["activation"] = _activation(layer)
        else:
            self.params["graded_spike"] = layer.flag("neuron/gradedSpike")
            self.params["shared_param"] = all(value.size == 1 for value in decays.values())
        own = getattr(self.module.Neuron, "decays", ())
        self.decays = {name: value for name, value in decays.items() if name in own}
        self.readout = not sigma_delta and device["vThMant"] * WEIGHT_ONE >= STATE_LIMIT - 1
        self.decoder = sigma_delta and layer.flag("neuron/sigma_output")

    @property
    def shifts(self) -> bool:
        """Whether lava-dl's ``delay_shift`` delays its spikes by a time step."""
        return self.kind != "sigma_delta" and not self.readout

    def apply(self, layer: Any, channels: int) -> None:
        """Set the decays of a neuron that was built from ``params``.

        The constructor takes decays as fractions and rounds them; here they are the file's
        integers.
        """
        if self.readout:
            layer.as_readout()
        count = 1 if self.params.get("shared_param", True) else channels
        state = {}
        for key, parameter in _DECAYS.items():
            value = self.decays.get(parameter)
            if value is None:
                continue
            if value.size not in (1, count):
                raise self.layer.invalid(
                    f"neuron/{key}", f"it holds {value.size} decays for {channels} channels"
                )
            state[parameter] = torch.from_numpy(np.broadcast_to(value, count).astype(np.float32))
        layer.load_state_dict(state, strict=False)


def _activation(layer: Layer) -> Callable[[Tensor], Tensor] | None:
    name = layer.text("neuron/activation") if layer.has("neuron/activation") else "relu"
    if name not in _ACTIVATIONS:
        raise layer.invalid(
            "neuron/activation",
            f"there is no activation {name!r}; known: {', '.join(sorted(_ACTIVATIONS))}",
        )
    return _ACTIVATIONS[name]


@dataclass
class Synaptic:
    """A layer with a synapse.

    Attributes:
        layer: the layer of the file.
        kind: name of the block: "Dense", "Conv", "ConvT", "Pool", "Unpool", "Recurrent".
        arguments: those of the block, after the neuron's.
        weights: its weight as the file has it, or the real and imaginary part.
        delay_shift: delay the spikes by a time step, as lava-dl does in training.
    """

    layer: Layer
    kind: str
    arguments: Sequence[Any]
    weights: list[Tensor]
    delay_shift: bool

    def build(self, input_shape: Shape | None) -> tuple[Delay | None, nn.Module, Shape]:
        """Return the delay of the inputs if there is one, the layer, and the shape of its output.

        Args:
            input_shape: (C,) or (C, H, W); None where it is not known.
        """
        layer = self.layer
        spec = NeuronSpec(layer) if layer.has("neuron") else None
        exponent = 0
        if spec is not None:
            # a norm with a weight scale divides the current and the mean that it subtracts; its
            # exponent is clamped as in training
            norm = layer.integer("neuron/weight_exp", -(1 << 10), 1 << 10, default=0)
            exponent = -max(-_MAX_NORM_EXPONENT, min(_MAX_NORM_EXPONENT, norm))
        bias = _bias(layer, spec, exponent)
        if spec is not None:
            exponent += layer.integer("neuron/wgtExp", -8, 7, default=0)
        scale = 2.0**exponent
        weights = _masked(layer, [weight * scale for weight in self.weights])
        input_delay, delays = self._delays(weights[0])
        module = self._module(spec, len(weights) == 2, delays)
        feedforward = module.input_synapse if self.kind == "Recurrent" else module.synapse
        _store(layer, "weight", feedforward, weights)
        if self.kind == "Recurrent":
            recurrent = [weight * scale for weight in layer.weights("weight_rec", 2)]
            _store(layer, "weight_rec", module.recurrent_synapse, recurrent)
        shape = _output_shape(layer, feedforward, input_shape)
        if spec is not None and not spec.decoder:
            spec.apply(module.neuron, shape[0])
        if bias is not None:
            module.neuron.set_bias(_per_neuron(layer, "bias", bias, shape))
        if delays is not None:
            delays = _per_neuron(layer, "delay", delays, shape).flatten()
            module.delay.max_delay = max(module.delay.max_delay, float(delays.max()))
            module.delay.load_state_dict({"delay": delays})
        return input_delay, module, shape

    def _module(self, spec: NeuronSpec | None, is_complex: bool, delays: Tensor | None) -> Any:
        """Return the block; without a neuron, the synapse alone."""
        layer = self.layer
        if spec is None:
            if delays is not None:
                raise layer.invalid("delay", "a layer without a neuron takes no delay here")
            synapses: Any = synapse.complex if is_complex else synapse
            name = {"ConvT": "ConvTranspose"}.get(self.kind, self.kind)
            return Current(getattr(synapses, name)(*self.arguments, pre_hook_fx=None))
        blocks, name = getattr(block, spec.kind), layer.text("neuron/type")
        if spec.module.Neuron.complex != is_complex:
            wanted = "one real weight" if is_complex else "weight/real and weight/imag"
            raise layer.invalid("weight", f"a neuron of type {name} takes {wanted}")
        if spec.kind == "sigma_delta" and self.kind == "Recurrent":
            raise layer.invalid(
                "neuron/type", f"a neuron of type {name} takes no recurrent weights"
            )
        if spec.decoder:
            if self.kind != "Dense" or delays is not None:
                wanted = "no delay" if self.kind == "Dense" else "a dense layer alone"
                raise layer.invalid("neuron/sigma_output", f"an output of sums takes {wanted}")
            return blocks.Output(spec.params, *self.arguments, pre_hook_fx=None)
        return getattr(blocks, self.kind)(
            spec.params,
            *self.arguments,
            pre_hook_fx=None,
            delay=delays is not None,
            delay_shift=self.delay_shift and spec.shifts,
        )

    def _delays(self, weight: Tensor) -> tuple[Delay | None, Tensor | None]:
        """Return the delay of the inputs, and the delays of the spikes.

        The file does not say which; a dense layer has one delay an input where their number is
        that of the inputs alone.
        """
        layer = self.layer
        if not layer.has("delay"):
            return None, None
        value = layer.integers("delay").reshape(-1)
        for extreme in (value.min(), value.max()):
            if not 0 <= extreme <= _MAX_DELAY:
                raise layer.invalid(
                    "delay", f"a delay lies in 0 to {_MAX_DELAY} steps, got {extreme}"
                )
        delays = torch.from_numpy(value.astype(np.float32))
        outputs, inputs = weight.shape[:2]
        dense = self.kind in ("Dense", "Recurrent")
        if not dense or delays.numel() != inputs or delays.numel() in (1, outputs):
            return None, delays
        return delay_line(delays), None


def _bias(layer: Layer, spec: NeuronSpec | None, exponent: int) -> Tensor | None:
    """The bias in the shape of the file, float32, 64 becoming 1."""
    if not layer.has("bias"):
        return None
    if spec is None or spec.decoder or spec.module.Neuron.complex:
        owner = "a layer without a neuron" if spec is None else layer.text("neuron/type")
        raise layer.invalid("bias", f"{owner} takes no bias here")
    return torch.from_numpy(layer.integers("bias").astype(np.float32) * 2.0**exponent / WEIGHT_ONE)


def _masked(layer: Layer, weights: list[Tensor]) -> list[Tensor]:
    """Set the weights that a mask (outputs, inputs) leaves out to zero."""
    if not layer.has("mask"):
        return weights
    mask, expected = layer.integers("mask"), tuple(weights[0].shape[:2])
    if mask.shape != expected:
        raise layer.mismatch("mask", f"its shape is {mask.shape} and must be {expected}")
    kept = torch.from_numpy((mask != 0).astype(np.float32)).reshape(*expected, 1, 1, 1)
    return [weight * kept for weight in weights]


def _store(layer: Layer, key: str, synapse: Any, weights: list[Tensor]) -> None:
    """Store a weight, or its real and imaginary part, in a synapse."""
    parts = (synapse.real, synapse.imag) if synapse.complex else (synapse,)
    if len(parts) != len(weights):
        raise layer.invalid(key, f"it must have {len(parts)} parts, as the other weights have")
    for part, weight in zip(parts, weights, strict=True):
        if part.weight.shape != weight.shape:
            raise layer.mismatch(
                key, f"its shape is {tuple(weight.shape)} and must be {tuple(part.weight.shape)}"
            )
        with_weight(part, weight)


def _output_shape(layer: Layer, synapse: Any, input_shape: Shape | None) -> Shape:
    """The shape of a synapse's output; that in the file must agree."""
    declared = layer.shape()
    if input_shape is None:
        return declared
    # the synapse computes the size, and refuses an input that does not fit
    with torch.no_grad():
        output = synapse(torch.zeros(1, *input_shape, 1))
    shape = tuple((output[0] if synapse.complex else output).shape[1:-1])
    if shape != (declared if len(shape) == 3 else (math.prod(declared),)):
        raise layer.mismatch(
            "shape", f"the file says {declared}, and from {input_shape} the layer makes {shape}"
        )
    return shape


def _per_neuron(layer: Layer, key: str, values: Tensor, shape: Shape) -> Tensor:
    reason = f"its shape is {tuple(values.shape)}, and the neurons are {shape}"
    return layer.per_neuron(key, values, shape, reason)


class Current(nn.Module):
    """A synapse without a neuron, whose current is the output; the imaginary part if complex."""

    def __init__(self, synapse: Any) -> None:
        super().__init__()
        self.synapse = synapse

    def forward(self, x: Tensor) -> Tensor:
        """Return the current (N, C[, H, W], T)."""
        z = self.synapse(x)
        current: Tensor = z[1] if self.synapse.complex else z
        return current
