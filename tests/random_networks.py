"""Random networks, and the judgement of one: torch = ONNX Runtime, in whatever way that runs it.

``python tests/random_networks.py --minutes 30 --seed 1`` draws networks for half an hour, prints
what was compared, and writes every failure, shrunk, as a file of ``tests/cases``, which
``test_random_networks.py`` finds by itself. ``--case FILE`` judges one again.

A case is a description that JSON can hold: sizes of the input, layers, how it is exported and run.
Numbers of inputs and channels are not in it, for :func:`build` takes them from what comes before,
so that a shrunk description stays one of a network. Weights follow from the seed.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import numpy as np
import onnx
import onnx.inliner
import onnxruntime as ort
import torch
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from quick_export import quick_export
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx._layer import Stateful
from synapse_onnx.errors import ShapeError, SynapseError
from synapse_onnx.model.layout import time_first, time_last
from synapse_onnx.neuron import norm as norms
from synapse_onnx.quantize import Quantizer, round_to_grid
from synapse_onnx.runtime import native
from synapse_onnx.runtime import providers as execution
from synapse_onnx.verification import subject
from synapse_onnx.verification.arrays import RTOL

Case = dict[str, Any]
Layer = dict[str, Any]
#: a tensor, or a pair (real, imag)
Value = Any

CASES = Path(__file__).with_name("cases")

#: the largest height or width of a value, and the most numbers that a sample may have in a step
_LARGEST, _MOST = 9, 300

#: further inputs on which torch is compared with the graph; they cost little beside the export
_MORE = 4


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
#: what else the same graph is run with, beside ONNX Runtime as it is and one thread
VARIANTS = ("native", "unoptimised", "two threads", "flat", "reference")


# -- building ------------------------------------------------------------------------------------


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
        layers, _ = _build_all(case["layers"], value)
        return Network(layers, case["tap"]).eval()


def inputs_of(case: Case, batch: int, steps: int, seed: int = 0) -> Value:
    """Draw an input of a case: a tensor (N, C[, H, W], T), or a pair of them."""
    generator = torch.Generator().manual_seed(1000 * case["seed"] + seed)
    draw, shape = INPUTS[case["input"]["kind"]], (batch, *case["input"]["sizes"], steps)
    parts = [draw(shape, generator) for _ in range(1 + case["input"]["pair"])]
    return tuple(parts) if len(parts) == 2 else parts[0]


def _build_all(layers: Sequence[Layer], value: Value) -> tuple[list[nn.Module], Value]:
    made = []
    for layer in layers:
        module = make(layer, value)
        value = module(value)
        made.append(module)
    return made, value


def make(layer: Layer, value: Value) -> nn.Module:
    """Make one layer for a value like this; it has run on it once, and so drawn what it draws."""
    module = _MAKERS[layer["is"]](layer, value)
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
    arms = [Network(_build_all(arm, value)[0], False) for arm in layer["arms"]]
    return Split(arms, layer["join"])


_MAKERS: dict[str, Callable[[Layer, Any], nn.Module]] = {
    "synapse": _synapse,
    "neuron": _neuron,
    "block": _block,
    "delay": _delay,
    "delta": _delta,
    "sigma": lambda layer, value: so.dendrite.Sigma(),
    "split": _split,
    "torch": lambda layer, value: Function(layer["name"]),
}


# -- drawing -------------------------------------------------------------------------------------

_FRACTIONS = st.sampled_from([0.25, 0.0, 0.05, 0.5, 0.9, 1.0, 1 / 4096, 0.3, 4095 / 4096])
_THRESHOLDS = st.sampled_from([0.5, 0.25, 1.0, 0.1, 0.0, 2.3])
_PERIODS = st.sampled_from([4.0, 8.0, 5.5, 20.0])
_GAINS = st.sampled_from([1.0, 0.3, 3.0])


def _pick(options: Sequence[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from(list(options))


def regimes(kind: str) -> tuple[str, ...]:
    """Regimes of a neuron, from its equation; sigma-delta has none and is in fixed point."""
    equation = getattr(so.neuron.kinds()[kind].Neuron, "equation", None)
    return ("slayer", "loihi") if equation is None else tuple(equation.regimes)


def _weights(exact: bool) -> list[str]:
    return [name for name, hook in WEIGHTS.items() if not (exact and hook is None)]


@st.composite
def neurons(draw: Any, kinds: Sequence[str], exact: bool, *, feedback: bool = False) -> Layer:
    """Draw a neuron of one of these kinds; of one in fixed point where it must be exact."""
    fixed = {kind: [r for r in regimes(kind) if not (exact and r == "float")] for kind in kinds}
    kind = draw(_pick([kind for kind in kinds if fixed[kind]]))
    cls = so.neuron.kinds()[kind].Neuron
    regime = draw(_pick([*fixed[kind], *(name for name in fixed[kind] if name == "float")]))
    arguments: dict[str, Any] = {"regime": regime}
    ranged = kind not in ("lif", "sigma_delta") and draw(st.booleans())
    for name in cls.example:
        if name == "activation":
            arguments[name] = draw(_pick([a for a in ACTIVATIONS if not (exact and a == "tanh")]))
        elif name.startswith("threshold") and not name.endswith("decay"):
            arguments[name] = draw(_THRESHOLDS)
        else:
            values = _PERIODS if name == "period" else _FRACTIONS
            arguments[name] = draw(values)
            if ranged:
                arguments[name] = sorted([arguments[name], draw(values)])
    if ranged:
        arguments["shared_param"] = False
    each = "one"
    if kind == "lif":
        arguments |= {
            "gain": draw(_pick([1.0, 0.3])), "drive": draw(_pick([0.0, 0.125])),
            "reset": draw(_pick(so.neuron.lif.RESETS)), "reset_value": draw(_pick([0.0, -0.25])),
            "strict": draw(st.booleans()),
        }  # fmt: skip
        each = draw(_pick(["one"] if feedback else ["one", "channel", "neuron"]))
    if kind == "sigma_delta":
        arguments["cum_error"] = draw(st.booleans())
    if cls.grades and draw(st.booleans()):
        arguments["graded_spike"] = True
    scales = [64, 16, 1024]
    if kind == "cuba" and regime != "loihi" and not feedback:
        scales.append(48)
    if regime != "float":
        arguments["scale"] = draw(_pick(scales))
    plain = feedback or regime == "loihi"
    norm = "none" if plain else draw(_pick(["none", "none", *list(NORMS)[1:]]))
    bias = draw(_pick([0, 64])) if regime == "loihi" and kind != "sigma_delta" else 0
    return {
        "is": "neuron", "name": kind, "arguments": arguments, "norm": norm, "each": each,
        "bias": bias,
    }  # fmt: skip


def _kinds(complex: bool) -> list[str]:
    kinds = so.neuron.kinds()
    first = ["rf"] if complex else ["cuba"]
    rest = [name for name, kind in kinds.items() if kind.Neuron.complex == complex]
    return first + [name for name in rest if name not in first]


@st.composite
def geometries(draw: Any, name: str, value: Tensor, out: int) -> dict[str, Any]:
    """Draw kernel, stride, padding, dilation and groups that fit an image."""
    transposed = name in ("ConvTranspose", "Unpool")
    axes = []
    for size in value.shape[2:4]:
        kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, 2))
        reach = dilation * (kernel - 1) + 1
        if transposed:
            if size * stride + reach > _LARGEST:
                stride = 1
            if (size - 1) * stride - 2 * padding + reach < 1:
                padding = 0
        elif reach > size + 2 * padding:
            kernel = dilation = 1
        axes.append((kernel, stride, padding, dilation))
    names = ("kernel_size", "stride", "padding", "dilation")
    found: dict[str, Any] = dict(zip(names, map(list, zip(*axes, strict=True)), strict=True))
    if name in ("Pool", "Unpool"):
        if draw(st.booleans()):
            found |= {"stride": None, "merge_channels": draw(st.booleans())}
    else:
        both = math.gcd(value.shape[1], out)
        found["groups"] = draw(_pick([g for g in range(1, both + 1) if both % g == 0]))
    return found


@st.composite
def synapses(
    draw: Any, value: Tensor, names: Sequence[str], exact: bool, wide: bool = True
) -> Layer:
    """Draw name, weights and geometry of a synapse for a value."""
    name = draw(_pick(names))
    out = draw(st.integers(1, 4))
    if name == "Dense" and wide:  # sums of bytes are taken from 32 and 128 outputs on
        out = draw(_pick([out, out, 130, 40]))
    layer: Layer = {
        "name": name, "out": out, "weights": draw(_pick(_weights(exact))),
        "weight_norm": draw(_pick([False, False, True])), "gain": draw(_GAINS),
    }  # fmt: skip
    if name in IMAGES:
        layer["geometry"] = draw(geometries(name, value, out))
    if name in ("Pool", "Unpool"):
        layer["out"] = value.shape[1]
    return layer


#: a block's name -> its synapse
_BLOCKS = {
    "Dense": "Dense", "Affine": "Dense", "Recurrent": "Dense", "KWTA": "Dense", "Output": "Dense",
    "Conv": "Conv", "ConvT": "ConvTranspose", "Pool": "Pool", "Unpool": "Unpool",
}  # fmt: skip


@st.composite
def blocks(draw: Any, value: Tensor, exact: bool) -> Layer:
    """Draw a block with a synapse."""
    image = value.dim() == 5
    known = [n for n, s in _BLOCKS.items() if image or s == "Dense"]
    if image:
        known = [name for name in known if name not in ("Recurrent", "KWTA")]
    name = draw(_pick(known))
    feedback = name in ("Recurrent", "KWTA")
    layer = draw(synapses(value, [_BLOCKS[name]], exact, not feedback))
    kinds = [*_kinds(False), *_kinds(True)]
    kinds = [kind for kind in kinds if hasattr(getattr(so.block, kind), name)]
    neuron = draw(neurons(kinds, exact, feedback=feedback))
    if name in ("Pool", "Unpool"):  # they leave a norm out
        neuron["norm"] = "none"
    neuron |= {"each": "one", "bias": 0}
    options: dict[str, Any] = {}
    if name in ("Dense", "Conv", "ConvT", "Pool", "Unpool", "Recurrent", "KWTA"):
        options["delay_shift"] = draw(st.booleans())
        if name != "KWTA" and draw(st.booleans()):
            options |= {"delay": True, "longest": draw(st.integers(0, 5))}
    if name in ("Dense", "Affine"):
        options["mask"] = draw(_pick([False, False, True]))
    if name == "Affine":
        options["dynamics"] = draw(st.booleans())
    if name == "KWTA":
        options["num_winners"] = draw(st.integers(1, layer["out"]))
        options["self_excitation"] = draw(_pick([0.5, 0.0, 1.0]))
    weights = draw(_pick(["default", *_weights(exact)]))
    return layer | {
        "is": "block", "block": name, "neuron": neuron, "options": options, "weights": weights,
    }  # fmt: skip


@st.composite
def units(draw: Any, value: Tensor, exact: bool, *, last: bool = False) -> list[Layer]:
    """Draw a synapse and the neuron that goes with it."""
    complex = draw(st.booleans())
    names = SYNAPSES if value.dim() == 5 else ("Dense",)
    synapse = draw(synapses(value, names, exact)) | {"is": "synapse", "complex": complex}
    # a current without a neuron is an output, or the input of what takes real numbers
    bare = draw(_pick([False, False, False, True])) and (last or not complex)
    return [synapse] if bare else [synapse, draw(neurons(_kinds(complex), exact))]


@st.composite
def keeping(draw: Any, value: Tensor, exact: bool) -> list[Layer]:
    """Draw layers that keep the shape: a branch that can be added to another."""
    channels = value.shape[1]
    choice = draw(_pick(["nothing", "unit", "delay", "neuron", "torch"]))
    if choice == "unit":
        name = "Dense" if value.dim() == 3 else "Conv"
        complex = draw(st.booleans())
        synapse = draw(synapses(value, [name], exact, wide=False)) | {
            "is": "synapse",
            "complex": complex,
        }
        synapse["out"] = channels
        if name == "Conv":
            synapse["geometry"] = {"kernel_size": 3, "padding": 1}
        return [synapse, draw(neurons(_kinds(complex), exact))]
    if choice == "nothing":
        return []
    if choice == "neuron":
        return [draw(neurons(_kinds(False), exact))]
    same = [name for name in TORCH if name != "turned"]
    return [draw(delays()) if choice == "delay" else draw(functions(same))]


def delays() -> st.SearchStrategy[Layer]:
    """Draw a delay: of one step, or of its own for each channel or neuron."""
    return st.fixed_dictionaries(
        {
            "is": st.just("delay"),
            "longest": st.none() | st.integers(0, 5),
            "each": _pick(["one", "channel", "neuron"]),
        }
    )


def functions(names: Sequence[str] = tuple(TORCH)) -> st.SearchStrategy[Layer]:
    """Draw ordinary torch code."""
    return st.fixed_dictionaries({"is": st.just("torch"), "name": _pick(names)})


@st.composite
def _others(draw: Any, value: Tensor, exact: bool) -> list[Layer]:
    """Draw what is neither a block with a synapse nor a unit."""
    count = value.shape[1:-1].numel()
    kinds = ["split", "delay", "torch", "mean", "decimation", "delta", "delta"]
    kind = draw(_pick([*kinds, *["flatten"] * 2] if value.dim() == 5 else kinds))
    neuron = {"name": "cuba", "arguments": so.neuron.cuba.Neuron.example, "norm": "none"}
    block = {"is": "block", "neuron": neuron}
    if kind == "split":
        arms = [draw(keeping(value, exact)), draw(keeping(value, exact))]
        return [{"is": "split", "join": draw(_pick(["sum", "cat"])), "arms": arms}]
    if kind == "mean":
        groups = draw(_pick([n for n in range(1, count + 1) if count % n == 0]))
        return [block | {"block": "Average", "options": {"num_outputs": groups}}]
    if kind == "decimation":
        return [block | {"block": "TimeDecimation", "options": {"factor": draw(_pick([2, 1, 4]))}}]
    if kind == "delta":
        delta = {"is": "delta", "threshold": draw(_THRESHOLDS), "cum_error": draw(st.booleans())}
        return draw(_pick([[delta], [{"is": "sigma"}], [delta, {"is": "sigma"}]]))
    if kind == "flatten":
        return [block | {"block": "Flatten", "options": {}}]
    return [draw(delays()) if kind == "delay" else draw(functions())]


@st.composite
def _entries(draw: Any, exact: bool) -> list[Layer]:
    """Draw a block Input, or nothing."""
    if draw(_pick([False, False, False, True])):
        neuron = draw(neurons([*_kinds(False), *_kinds(True)], exact)) | {"each": "one", "bias": 0}
        options = {
            "plain": draw(_pick([False, False, True])), "weight": draw(_pick([None, 0.7])),
            "bias": draw(_pick([None, 0.4])), "delay_shift": draw(st.booleans()),
        }  # fmt: skip
        return [{"is": "block", "block": "Input", "neuron": neuron, "options": options}]
    return []


@st.composite
def cases(draw: Any) -> Case:
    """Draw a whole case; every network can be built and fits its input."""
    exact = draw(_pick([True, False]))  # on integer grids from end to end
    image = draw(_pick([False, True, True]))
    sizes = [draw(st.integers(1, 4))]
    sizes += [draw(st.integers(1, 7)) for _ in range(2)] if image else []
    layers = draw(_entries(exact))
    plain = bool(layers) and layers[0]["options"]["plain"]
    pair = bool(layers) and not plain and layers[0]["neuron"]["name"] in _kinds(True)
    case: Case = {
        "seed": draw(st.integers(0, 99)),
        "input": {
            "kind": draw(_pick([kind for kind in INPUTS if not (exact and kind == "floats")])),
            "sizes": sizes,
            "pair": pair,
        },
        "layers": layers,
        "tap": draw(st.booleans()),
    }
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        value = inputs_of(case, batch=1, steps=2)
        _, value = _build_all(layers, value)
        count = draw(st.integers(1, 3))
        for i in range(count):
            added, value = _grown(draw, value, exact, last=i == count - 1)
            layers += added
            if isinstance(value, tuple) or i == count - 1:
                break
    case["export"] = {
        "streaming": draw(st.booleans()), "layout": draw(_pick(["NCT", "TNC"])),
        "opset": draw(_pick([21, 21, 22, 24])), "dynamic": draw(_pick([True, True, True, False])),
        "input_type": "float32",
    }  # fmt: skip
    if case["input"]["kind"] in ("spikes", "counts") and draw(st.booleans()):
        case["export"]["input_type"] = "uint8"
    case["batch"], case["steps"] = draw(_pick([2, 1, 3])), draw(_pick([5, 1, 2, 9, 12]))
    rest = st.lists(_pick(VARIANTS[1:]), unique=True, min_size=1, max_size=2)
    case["variants"] = ["native", *draw(rest)]
    return case


def _grown(draw: Any, value: Tensor, exact: bool, *, last: bool) -> tuple[list[Layer], Value]:
    """Draw layers behind a value; a geometry that leaves nothing, or too much, is drawn again."""
    for _ in range(3):
        kind = draw(_pick(["unit", "block", "other"]))
        if kind == "block":
            added = [draw(blocks(value, exact))]
        else:
            added = draw(
                units(value, exact, last=last) if kind == "unit" else _others(value, exact)
            )
        try:
            _, grown = _build_all(added, value)
        except ShapeError:
            continue
        if isinstance(grown, tuple) or grown[0, ..., 0].numel() <= _MOST:
            return added, grown
    return [], value


# -- judging -------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What was found on one case.

    Attributes:
        problems: sentences on what differs; none where all is equal.
        comparisons: runs of a network on one input in one way that were compared.
        refused: the sentence by which the network was refused, or "".
        exact: whether every output was held to equality.
        ran: variants that ran.
    """

    problems: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    comparisons: int = 0
    refused: str = ""
    exact: bool = False


def judge(case: Case) -> Verdict:
    """Export the network of a case and compare torch with all ways of running the graph."""
    verdict = Verdict()
    module, given = build(case), inputs_of(case, case["batch"], case["steps"])
    try:
        model = so.export(module, _wrapped(given), **case["export"])
    except SynapseError as error:
        verdict.refused = str(error)
        return verdict
    report = so.verify(module, model, _wrapped(given), native=False)
    verdict.comparisons += len(report.shapes) * (1 + case["export"]["streaming"])
    if not report.ok:
        verdict.problems.append(f"verify: {report}")
        return verdict
    exact = _exact(report)
    verdict.exact = all(exact)
    base = so.Session(model, native=False, threads=1)
    if case["export"]["dynamic"]:
        for seed in range(2, 2 + _MORE):
            more = inputs_of(case, 4, 17, seed)
            verdict.comparisons += 1
            if not _same(_torch(module, more, case), outputs(base, _arrays(more, case)), exact):
                report = so.verify(module, model, _wrapped(more), native=False)
                if not report.ok:
                    verdict.problems.append(f"verify, input {seed}: {report}")
    values = [given]
    if case["export"]["dynamic"]:
        values += [inputs_of(case, 1, steps, 1) for steps in (1, 7)]
    feeds = [_arrays(value, case) for value in values]
    expected = [outputs(base, feed) for feed in feeds]
    for variant in case["variants"]:
        if not _can(variant, case, model):
            continue
        if variant == "reference":
            found = [_reference(model, base, feed) for feed in feeds]
        else:
            with _running(variant):
                session = subject.Session(model, native=variant == "native")
            cut = case["export"]["dynamic"]
            found = [outputs(session, feed, chunks=base.streaming, cut=cut) for feed in feeds]
        verdict.comparisons += len(feeds)
        verdict.ran.append(variant)
        # only the verifier, which knows no evaluator, can say if a rounding decided
        near = variant != "reference"
        for value, e, f in zip(values, expected, found, strict=True):
            if _same(e, f, exact, near=near):
                continue
            # a sum that is exact on one input may round on another, and a spike within rounding
            with _running(variant):
                other = so.verify(module, model, _wrapped(value), native=variant == "native")
            rows = _exact(other)
            if not other.ok:
                verdict.problems.append(f"{variant}: {other}")
            elif (all(rows) or not near) and not _same(e, f, rows, near=near):
                verdict.problems.append(f"{variant}: {_difference(e, f, rows)}")
    return verdict


def _exact(report: so.Report) -> list[bool]:
    """Which outputs were held to equality."""
    return [row.exact for row in report.outputs if row.kind == "output"]


def _wrapped(value: Value) -> Any:
    return [value] if isinstance(value, tuple) else value


def _arrays(value: Value, case: Case) -> list[np.ndarray]:
    parts = value if isinstance(value, tuple) else (value,)
    kind = np.dtype(case["export"]["input_type"])
    layout = case["export"]["layout"]
    return [time_first(part.numpy().astype(kind), layout) for part in parts]


def _torch(module: Network, value: Value, case: Case) -> list[np.ndarray]:
    """Run the network in torch; the outputs as the graph has them."""
    with torch.no_grad():
        flat, _ = torch.utils._pytree.tree_flatten(module(value))
    return [time_first(value.numpy(), case["export"]["layout"]) for value in flat]


def _can(variant: str, case: Case, model: onnx.ModelProto) -> bool:
    """Whether this machine, or ONNX's reference evaluator, can run the network in this way."""
    if variant == "native":
        return native.problem() is None
    if variant == "reference":
        # onnx's evaluator splits the kernel of a grouped ConvTranspose wrongly
        return not any(
            a.name == "group" and a.i > 1
            for node in model.graph.node
            for a in node.attribute
            if "ConvTranspose" in node.op_type
        )
    return True


@contextlib.contextmanager
def _running(variant: str) -> Iterator[None]:
    """Let the verifier open its sessions in one of the other ways."""
    options, opened = execution._options, subject.Session

    def unoptimised(*args: Any) -> Any:
        made = options(*args)
        made.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return made

    def session(model: onnx.ModelProto, *args: Any, **kwargs: Any) -> so.Session:
        if variant == "flat":
            model = onnx.inliner.inline_local_functions(copy.deepcopy(model))
        threads = 2 if variant == "two threads" else 1
        return opened(model, *args, **kwargs, threads=threads)

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(subject, "Session", session))
        if variant == "unoptimised":
            stack.enter_context(mock.patch.object(execution, "_options", unoptimised))
        yield


def outputs(
    session: so.Session, feed: Sequence[np.ndarray], *, chunks: bool = False, cut: bool = True
) -> list[np.ndarray]:
    """Run a session on a whole sequence; or stream it, in two chunks if it may be cut."""
    if not chunks:
        found = session.run(*feed)
        return list(found) if isinstance(found, tuple) else [found]
    layout = session.layout
    parts = [time_last(array, layout) for array in feed]
    cut = parts[0].shape[-1] // 2 if cut else 0
    stream = session.stream(parts[0].shape[0])
    pieces = []
    for begin, end in ((0, cut), (cut, None)):
        if begin != end:
            chunk = [time_first(a[..., begin:end], layout) for a in parts]
            pieces.append(stream.run(*chunk))
    pieces.append(stream.flush())
    several = len(session.outputs) > 1
    return [
        time_first(
            np.concatenate([time_last(p[i] if several else p, layout) for p in pieces], axis=-1),
            layout,
        )
        for i in range(len(session.outputs))
    ]


def _reference(
    model: onnx.ModelProto, session: so.Session, feed: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Run ONNX's reference evaluator."""
    axis = 1 if session.layout == "TNC" else 0
    feeds = dict(zip(session.inputs, feed, strict=True))
    if session.streaming:
        feeds |= session.fresh_states(feed[0].shape[axis])
    return [np.asarray(y) for y in ReferenceEvaluator(model).run(list(session.outputs), feeds)]


def _same(
    expected: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    exact: Sequence[bool],
    *,
    near: bool = True,
) -> bool:
    """Whether outputs are equal, or, where they are not exact, near if that is asked for."""
    return all(
        e.shape == f.shape
        and e.dtype == f.dtype
        and (np.array_equal(e, f) if equal else not near or _near(e, f))
        for e, f, equal in zip(expected, found, exact, strict=True)
    )


def _near(expected: np.ndarray, found: np.ndarray) -> bool:
    allowed = RTOL * np.abs(expected).max(initial=0)
    return bool((np.abs(expected - found) <= allowed).all())


def _difference(
    expected: Sequence[np.ndarray], found: Sequence[np.ndarray], exact: Sequence[bool]
) -> str:
    for i, (e, f) in enumerate(zip(expected, found, strict=True)):
        if e.shape != f.shape or e.dtype != f.dtype:
            return f"output {i}: {f.dtype} {f.shape}, not {e.dtype} {e.shape}"
        if not _same([e], [f], exact[i : i + 1]):
            place = np.argwhere(e != f)[0].tolist()
            values = f"{f[tuple(place)]} and not {e[tuple(place)]}"
            return f"output {i}: {int((e != f).sum())} differ, {place}: {values}"
    return "nothing differs"


# -- many of them --------------------------------------------------------------------------------


class MismatchError(AssertionError):
    """A case on which the two sides differ."""


@dataclass
class Tally:
    """Sums over many cases."""

    networks: int = 0
    comparisons: int = 0
    exact: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    #: sentence of a refusal -> the first case that had it
    examples: dict[str, Case] = field(default_factory=dict)
    variants: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[Case, str]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.networks} networks, {self.exact} of them exact, {self.comparisons} comparisons,"
            f" {len(self.failures)} mismatches, {sum(self.refused.values())} refused",
            "  " + ", ".join(f"{name} {n}" for name, n in sorted(self.variants.items())),
        ]
        for sentence, number in self.refused.most_common():
            lines += [
                f"  refused {number}: {sentence}",
                f"    {json.dumps(self.examples[sentence])}",
            ]
        return "\n".join(lines)


def hunt(
    seed: int, count: int, tally: Tally, *, until: float = math.inf, shrink: bool = True
) -> None:
    """Judge so many random networks; the first that fails is shrunk and put into the tally."""
    found: list[tuple[Case, str]] = []
    phases = [hypothesis.Phase.generate, *[hypothesis.Phase.shrink] * shrink]

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, phases=phases, print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    @hypothesis.given(cases())
    def run(case: Case) -> None:
        if not found and time.monotonic() > until:
            return
        try:
            verdict = judge(case)
        except Exception as error:
            verdict = Verdict([f"{type(error).__name__}: {error}"])
        if not found:
            tally.networks += not verdict.refused
            tally.exact += verdict.exact
            tally.comparisons += verdict.comparisons
            tally.variants.update(verdict.ran)
            if verdict.refused:
                tally.refused[verdict.refused] += 1
                tally.examples.setdefault(verdict.refused, case)
        if verdict.problems:
            found.append((case, "\n".join(verdict.problems)))
            raise MismatchError(verdict.problems[0])

    with contextlib.suppress(MismatchError, hypothesis.errors.Flaky):
        run()
    if found:
        tally.failures.append(found[-1])


def write(case: Case, why: str, folder: Path = CASES) -> Path:
    """Write a case to a file of its own, named after its layers."""
    names = [layer.get("block") or layer.get("name") or layer["is"] for layer in case["layers"]]
    stem = "_".join(str(name).lower() for name in names) or "empty"
    path = folder / f"{stem}.json"
    number = 1
    while path.exists():
        number += 1
        path = folder / f"{stem}_{number}.json"
    folder.mkdir(exist_ok=True)
    path.write_text(json.dumps({"found": why.splitlines()[:1], **case}, indent=1) + "\n")
    return path


def read(path: Path) -> Case:
    """Read a case."""
    case: Case = json.loads(path.read_text())
    return case


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge random networks for some time, or one case again."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to draw networks")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--folder", type=Path, default=CASES, help="where failures are written")
    parser.add_argument("--case", type=Path, help="judge this case alone")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    # torch takes one network in sixteen apart, and a case whenever it is judged
    count = itertools.count()
    with quick_export(lambda: options.case is not None or next(count) % 16 == 0):
        if options.case is not None:
            verdict = judge(read(options.case))
            print("\n".join(verdict.problems) or verdict.refused or "equal")
            return bool(verdict.problems)
        tally, until = Tally(), time.monotonic() + 60 * options.minutes
        seed = options.seed
        while time.monotonic() < until:
            before = len(tally.failures)
            hunt(seed, 25, tally, until=until)
            for case, why in tally.failures[before:]:
                print(f"seed {seed}: {write(case, why, options.folder)}\n{why}", flush=True)
            seed += 1
            print(f"seed {seed - 1}: {tally}", flush=True)
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
