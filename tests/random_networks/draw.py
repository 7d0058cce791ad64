"""Drawing of random cases, as strategies of hypothesis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import synapse_onnx as so
from synapse_onnx.errors import ShapeError

from .build import (
    ACTIVATIONS,
    IMAGES,
    INPUTS,
    NORMS,
    SYNAPSES,
    TORCH,
    WEIGHTS,
    Case,
    Layer,
    Value,
    build_all,
    inputs_of,
)

#: the largest height or width of a value, and the most numbers that a sample may have in a step
_LARGEST, _MOST = 9, 300

#: what else the same graph is run with, beside ONNX Runtime as it is and one thread
VARIANTS = ("native", "unoptimised", "two threads", "flat", "reference")

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
        _, value = build_all(layers, value)
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
            _, grown = build_all(added, value)
        except ShapeError:
            continue
        if isinstance(grown, tuple) or grown[0, ..., 0].numel() <= _MOST:
            return added, grown
    return [], value
