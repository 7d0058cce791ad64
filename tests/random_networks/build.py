"""The network of a case: a description that JSON can hold becomes torch modules.

The sizes of inputs and the numbers of channels are not part of a layer's description: they follow
from the value before it, so that a shrunk description still describes a network. Weights follow
from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx._layer import Stateful
from synapse_onnx.neuron import norm as norms
from synapse_onnx.quantize import Quantizer, round_to_grid

Case = dict[str, Any]
Layer = dict[str, Any]
#: a tensor, or a pair (real, imag)
Value = Any


def _per_channel(weight: Tensor) -> Tensor:
    """Scales of 1/4, 1/8 and 1/16 in turn: one a channel."""
    parts = [round_to_grid(part, 2.0 ** -(2 + i % 3)).clamp(-2, 2) for i, part in enumerate(weight)]
    return torch.stack(parts)


#: hooks of weights by name; the integers behind them have 4, 8 or 16 bits, or there are none
WEIGHTS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "q8": Quantizer(64, 8),
    "int4": Quantizer(8, 4),
    "float": None,
    "int16": Quantizer(2048, 16),
    "odd step": Quantizer(48, 8),
    "a step a channel": _per_channel,
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "relu": torch.relu,
    "none": None,
    "tanh": torch.tanh,
}
NORMS: dict[str, Callable[[], nn.Module] | None] = {
    "none": None,
    "mean": norms.MeanOnlyBatchNorm,
    "scale": norms.WgtScaleBatchNorm,
}
TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "negative": torch.neg,
    "half": lambda x: x * 0.5,
    "shifted": lambda x: x + 0.25,
    "turned": lambda x: x.transpose(2, 3) if x.dim() == 5 else x.flip(1),
}
INPUTS: dict[str, Callable[..., Tensor]] = {
    "spikes": lambda shape, g: (torch.rand(shape, generator=g) < 0.4).float(),
    "signed": lambda shape, g: torch.randint(-1, 2, shape, generator=g).float(),
    "counts": lambda shape, g: torch.randint(0, 256, shape, generator=g).float(),
    "quarters": lambda shape, g: torch.randint(-8, 9, shape, generator=g) / 4,
    "floats": lambda shape, g: torch.randn(shape, generator=g),
    "silent": lambda shape, g: torch.zeros(shape),
}
IMAGES = ("Conv", "Pool", "ConvTranspose", "Unpool")
SYNAPSES = ("Dense", *IMAGES)


class Network(nn.Module):
    """Layers one behind the other; ``tap`` also returns what the first gives."""

    def __init__(self, layers: Sequence[nn.Module], tap: bool) -> None:
        super().__init__()
        self.layers, self.tap = nn.ModuleList(layers), tap

    def forward(self, x: Any) -> Any:
        first = None
        for layer in self.layers:
            x = layer(x)
            first = x if first is None else first
        return (x, first) if self.tap else x


class Split(nn.Module):
    """Branches that are added, or joined along the channels."""

    def __init__(self, arms: Sequence[nn.Module], join: str) -> None:
        super().__init__()
        self.arms, self.join = nn.ModuleList(arms), join

    def forward(self, x: Tensor) -> Tensor:
        values = [arm(x) for arm in self.arms]
        return torch.cat(values, dim=1) if self.join == "cat" else sum(values[1:], values[0])


class Function(nn.Module):
    """Ordinary torch code between layers."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return TORCH[self.name](x)


def build(case: Case) -> Network:
    """Make the network of a case, in evaluation mode; the same weights every time."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(case["seed"])
        value = inputs_of(case, batch=1, steps=2)
        layers, _ = build_all(case["layers"], value)
        return Network(layers, case["tap"]).eval()


def inputs_of(case: Case, batch: int, steps: int, seed: int = 0) -> Value:
    """Draw an input of a case: a tensor (N, C[, H, W], T), or a pair of them."""
    generator = torch.Generator().manual_seed(1000 * case["seed"] + seed)
    draw, shape = INPUTS[case["input"]["kind"]], (batch, *case["input"]["sizes"], steps)
    parts = [draw(shape, generator) for _ in range(1 + case["input"]["pair"])]
    return tuple(parts) if len(parts) == 2 else parts[0]


def build_all(layers: Sequence[Layer], value: Value) -> tuple[list[nn.Module], Value]:
    made = []
    for layer in layers:
        module = make(layer, value)
        value = module(value)
        made.append(module)
    return made, value


def make(layer: Layer, value: Value) -> nn.Module:
    """Make one layer for a value like this; it has run on it once, and so drawn what it draws."""
    module = MAKERS[layer["is"]](layer, value)
    module.eval()
    module(value)
    for part in module.modules():  # means and deviations as after a training
        if isinstance(part, norms.MeanOnlyBatchNorm):
            part.running_mean.copy_(0.3 * torch.randn_like(part.running_mean))
            if isinstance(part, norms.WgtScaleBatchNorm):
                part.running_var.copy_(2 * torch.rand_like(part.running_var) + 0.1)
        if isinstance(part, Stateful):
            part.reset()
    return module


def _synapse(layer: Layer, value: Tensor) -> nn.Module:
    family = so.synapse.complex if layer["complex"] else so.synapse
    module = getattr(family, layer["name"])(**_arguments(layer, value))
    module.pre_hook_fx = WEIGHTS[layer["weights"]]
    _draw_weights(module, layer)
    return module


def _arguments(layer: Layer, value: Tensor, block: bool = False) -> dict[str, Any]:
    """Arguments of a synapse, or of a block with one."""
    found = {"weight_norm": layer["weight_norm"], **layer.get("geometry", {})}
    if layer["name"] in ("Conv", "ConvTranspose"):
        found |= {"in_features": value.shape[1], "out_features": layer["out"]}
    elif layer["name"] in ("Pool", "Unpool"):
        found |= {"weight_scale": layer["gain"]}
    else:
        sizes = value.shape[1:-1]
        size = sizes[0] if len(sizes) == 1 else (sizes[2], sizes[1], sizes[0])
        found |= {"in_neurons": size, "out_neurons": layer["out"]}
    return found


def _draw_weights(module: nn.Module, layer: Layer) -> None:
    for name, parameter in module.named_parameters():
        kind = name.rsplit(".", 1)[-1]
        if kind in ("weight", "weight_v") and layer["name"] not in ("Pool", "Unpool"):
            parameter.copy_(layer["gain"] * torch.randn_like(parameter))
        if kind == "weight_g":
            parameter.copy_(layer["gain"] * (0.5 + torch.rand_like(parameter)))


def _neuron_arguments(layer: Layer) -> dict[str, Any]:
    """Arguments of a neuron's constructor."""
    found = dict(layer["arguments"])
    if "activation" in found:
        found["activation"] = ACTIVATIONS[found["activation"]]
    if NORMS[layer["norm"]] is not None:
        found["norm"] = NORMS[layer["norm"]]
    return found


def _neuron(layer: Layer, value: Value) -> nn.Module:
    arguments = _neuron_arguments(layer)
    if layer["each"] != "one":  # lif: a number a channel or a neuron
        shape = value.shape[1 : 2 if layer["each"] == "channel" else -1]
        if len(shape) == 2:
            shape = shape[:1]
        for name in ("threshold", "beta", "alpha", "gain", "drive", "reset_value"):
            arguments[name] = arguments[name] * (0.5 + torch.rand(shape) / 2)
    module = so.neuron.kinds()[layer["name"]].Neuron(**arguments)
    if layer["bias"] and getattr(module, "bias", None) is not None:
        _set_bias(module, layer["bias"], value)
    return module


def _set_bias(module: Any, bias: int, value: Value) -> None:
    first = value[0] if isinstance(value, tuple) else value
    steps = bias * torch.randint(-2, 3, first.shape[1:2])
    module.set_bias(steps / module.s_scale)


def _block(layer: Layer, value: Value) -> nn.Module:
    kind = so.neuron.kinds()[layer["neuron"]["name"]]
    make_block = getattr(getattr(so.block, layer["neuron"]["name"]), layer["block"])
    neuron, options = _neuron_arguments(layer["neuron"]), dict(layer["options"])
    if layer["block"] in ("Flatten", "Average", "TimeDecimation"):
        return make_block(**options)
    if layer["block"] == "Input":
        return make_block(None if options.pop("plain") else neuron, **options)
    arguments = _arguments(layer, value) | options
    if layer["weights"] != "default":
        arguments["pre_hook_fx"] = WEIGHTS[layer["weights"]]
    if options.get("mask"):
        size = layer["out"], value.shape[1]
        arguments["mask"] = (torch.rand(size) < 0.6).float()
    else:
        arguments.pop("mask", None)
    longest = arguments.pop("longest", 0)
    module = make_block(neuron, **arguments)
    _draw_weights(module, layer)
    if getattr(module, "delay", None) is not None:
        module(value)
        _set_delays(module.delay, longest)
    assert issubclass(kind.Neuron, so.neuron.base.Common)
    return module


def _set_delays(delay: Any, longest: int) -> None:
    delay.delay.data = torch.rand(delay.delay.shape) * (longest + 0.99)
    delay.init = True


def _delay(layer: Layer, value: Tensor) -> nn.Module:
    if layer["longest"] is None:
        return so.axon.StepDelay()
    delay = so.axon.Delay()
    count = {"one": 1, "channel": value.shape[1], "neuron": value.shape[1:-1].numel()}
    delay.delay.data = torch.zeros(count[layer["each"]])
    _set_delays(delay, layer["longest"])
    return delay


def _delta(layer: Layer, value: Tensor) -> nn.Module:
    return so.axon.Delta(layer["threshold"], cum_error=layer["cum_error"])


def _split(layer: Layer, value: Tensor) -> nn.Module:
    arms = [Network(build_all(arm, value)[0], False) for arm in layer["arms"]]
    return Split(arms, layer["join"])


MAKERS: dict[str, Callable[[Layer, Any], nn.Module]] = {
    "synapse": _synapse,
    "neuron": _neuron,
    "block": _block,
    "delay": _delay,
    "delta": _delta,
    "sigma": lambda layer, value: so.dendrite.Sigma(),
    "split": _split,
    "torch": lambda layer, value: Function(layer["name"]),
}
