"""Costs of single ONNX nodes and of single layers, from which bodies and kernels were chosen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

import synapse_onnx as so
from benchmarks._measure import parsed, session_of, turns
from synapse_onnx.runtime import native

#: name -> type of the operands a and b, type of the result, call
NODES = {
    "Add int32": ("int32", "int32", "Add(a, b)"),
    "Mul int32": ("int32", "int32", "Mul(a, b)"),
    "Div int32": ("int32", "int32", "Div(a, b)"),
    "Mul float": ("float", "float", "Mul(a, b)"),
    "Mul double": ("double", "double", "Mul(a, b)"),
    "Cast int32 to float": ("int32", "float", "Cast<to = 1>(a)"),
    "Cast float to int32": ("float", "int32", "Cast<to = 6>(a)"),
    "Cast int32 to double": ("int32", "double", "Cast<to = 11>(a)"),
    "Cast double to int32": ("double", "int32", "Cast<to = 6>(a)"),
    "Cast bool to int32": ("bool", "int32", "Cast<to = 6>(a)"),
    "Cast bool to float": ("bool", "float", "Cast<to = 1>(a)"),
    "Less int32": ("int32", "bool", "Less(a, b)"),
    "Where int32": ("int32", "int32", "Where(c, a, b)"),
    "Where float": ("float", "float", "Where(c, a, b)"),
}
#: name -> attributes of ONNX Runtime's session options
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "no memory pattern": {"enable_mem_pattern": False},
    "no arena": {"enable_cpu_mem_arena": False},
    "one thread": {"intra_op_num_threads": 1},
    "fewer optimisations": {
        "graph_optimization_level": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    },
    "no spinning": {"session.intra_op.allow_spinning": "0"},
}
_DTYPES = {"int32": np.int32, "float": np.float32, "double": np.float64, "bool": np.bool_}
_STEPS, _COPIES = 200, 5


def _loop(kind: str, result: str, call: str, copies: int) -> ort.InferenceSession:
    """A Scan whose body holds copies of one node."""
    body = "\n".join(f"r{i} = {call}" for i in range(copies))
    names = {letter: ", ".join(f"{letter}{i}" for i in range(copies)) for letter in "lrs"}
    return session_of(
        parsed(
            f"""g ({kind}[C] a, {kind}[C] b, bool[C] c, {result}[C] s, float[T, 1] t)
              => ({result}[C] l0)
            {{
              {names["l"]} = Scan<num_scan_inputs = 1, body = step
                ({names["s"]}, t_now) => ({names["r"]}) {{ {body} }}>({"s, " * copies} t)
            }}"""
        )
    )


def options(model: onnx.ModelProto, array: NDArray[Any], seconds: float) -> dict[str, float]:
    """Return the milliseconds of a model under each of :data:`OPTIONS`, by its name."""
    runs: dict[str, Callable[[], Any]] = {}
    for name, values in OPTIONS.items():
        session = session_of(model, **values)
        runs[name] = functools.partial(session.run, None, {session.get_inputs()[0].name: array})
    return {name: 1000 * took for name, took in turns(runs, seconds).items()}


def nodes(neurons: int, seconds: float) -> dict[str, float]:
    """Return the microseconds of every node of :data:`NODES` in a loop, by its name."""
    rng = np.random.default_rng(0)
    runs: dict[str, Any] = {}
    for name, (kind, result, call) in NODES.items():
        values = rng.integers(1, 3000, neurons)
        array = values % 2 == 0 if kind == "bool" else values.astype(_DTYPES[kind])
        feeds = {
            "a": array, "b": array, "c": values % 2 == 0,
            "s": np.zeros(neurons, _DTYPES[result]), "t": np.zeros((_STEPS, 1), np.float32),
        }  # fmt: skip
        for copies in (1, _COPIES):
            session = _loop(kind, result, call, copies)
            runs[f"{name} {copies}"] = functools.partial(session.run, None, feeds)
    times = turns(runs, seconds)
    each = _STEPS * (_COPIES - 1)
    return {name: 1e6 * (times[f"{name} {_COPIES}"] - times[f"{name} 1"]) / each for name in NODES}


_LOOK = (
    "c = Clip(x, low, high) x8 = Cast<to = 2>(c) again = Cast<to = 1>(x8) "
    "same = Equal(again, x) same8 = Cast<to = 2>(same) all8 = ReduceMin<keepdims = 0>(same8) "
    "ok = Cast<to = 9>(all8) "
)
_SECOND_LOOK = (
    "sc = Clip(x, least, most) sr = Add(sc, half) s8 = Cast<to = 2>(sr) sf = Cast<to = 1>(s8) "
    "sa = Sub(sf, half) ss = Equal(sa, x) ss8 = Cast<to = 2>(ss) "
    "sall8 = ReduceMin<keepdims = 0>(ss8) sok = Cast<to = 9>(sall8) origin = Cast<to = 2>(half) "
)
_CHOICE = (
    "y = If({0}) <then_branch = t () => (p) {{ z = MatMulInteger({1}) p = Cast<to = 1>(z) }}, "
    "else_branch = e () => (q) {{ q = MatMul(x, wf) }}>"
)

#: type of the input, type of the sums, statements; signed inputs where the name says so
_PRODUCTS = {
    "floats": ("float", "float", "y = MatMul(x, wf)"),
    "bytes, looked at": ("float", "float", _LOOK + _CHOICE.format("ok", "x8, w8")),
    "bytes, signed, looked at twice": (
        "float", "float",
        # the first look finds no counts
        _LOOK + _SECOND_LOOK + "no = Not(ok) taken = And(no, sok) "
        + _CHOICE.format("taken", "s8, w8, origin"),
    ),
    "bytes, spikes": (
        "float", "float", "x8 = Cast<to = 2>(x) z = MatMulInteger(x8, w8) y = Cast<to = 1>(z)"
    ),
    "bare bytes": ("uint8", "int32", "y = MatMulInteger(x, w8)"),
}  # fmt: skip


def dense(inputs: int, outputs: int, steps: int, seconds: float) -> dict[str, float]:
    """Return the microseconds of a dense product of spikes (T, 1, C) with (C, O), five ways."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (inputs, outputs)).astype(np.int8)
    spikes = (rng.random((steps, 1, inputs)) < 0.1).astype(np.float32)
    weights = {"w8": weight, "wf": weight.astype(np.float32)}
    runs: dict[str, Any] = {}
    for name, (kind, result, text) in _PRODUCTS.items():
        model = parsed(
            f"""g ({kind}[T, 1, C] x) => ({result}[T, 1, O] y)
            <float low = {{0}}, float high = {{127}}, float least = {{-64}}, float most = {{63}},
            float half = {{64}}> {{ {text} }}""",
            weights,
        )
        x = spikes if "signed" not in name else spikes * rng.choice([-1, 1], spikes.shape)
        feeds = {"x": x.astype(np.uint8 if kind == "uint8" else np.float32)}
        runs[name] = functools.partial(session_of(model).run, None, feeds)
    return {name: 1e6 * value for name, value in turns(runs, seconds).items()}


_CONV = {"weight_scale": 2, "pre_hook_fx": so.quantize.q8}
_POOL = {"weight_scale": 0.5, "pre_hook_fx": so.quantize.q8}

#: name -> what makes the synapse, for 32 channels of images of 16 x 16 pixels
SYNAPSES: dict[str, Callable[[], torch.nn.Module]] = {
    f"{'complex ' * (space is so.synapse.complex)}{name}": functools.partial(make, space)
    for space in (so.synapse, so.synapse.complex)
    for name, make in (
        ("conv 32-32, 3x3", lambda s: s.Conv(32, 32, 3, padding=1, **_CONV)),
        ("conv 32-32, 3x3, stride 2", lambda s: s.Conv(32, 32, 3, 2, 1, **_CONV)),
        ("transposed 32-16, 3x3, stride 2", lambda s: s.ConvTranspose(32, 16, 3, 2, **_CONV)),
        ("transposed 32-32, 3x3", lambda s: s.ConvTranspose(32, 32, 3, padding=1, **_CONV)),
        ("pool 32, 2x2", lambda s: s.Pool(2, **_POOL)),
        ("unpool 32, 2x2", lambda s: s.Unpool(2, **_POOL)),
        ("unpool 32, 3x3, stride 2", lambda s: s.Unpool(3, 2, **_POOL)),
    )
}


def images(name: str, rate: float, batch: int, steps: int, seconds: float) -> dict[str, float]:
    """Return the milliseconds of one of :data:`SYNAPSES` by "body" and by "kernel".

    Raises:
        SynapseError: there are no native kernels.
    """
    torch.manual_seed(0)
    synapse = SYNAPSES[name]().eval()
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(steps, batch, 32, 16, 16, generator=generator) < rate).float()
    model = so.export(synapse, x.movedim(0, -1)[..., :2], layout="TNC")
    runs: dict[str, Any] = {}
    for way, kernels in (("body", False), ("kernel", True)):
        session = so.Session(model, native=kernels)
        runs[way] = functools.partial(session.run, x.numpy())
    return {way: 1000 * took for way, took in turns(runs, seconds).items()}


def norm(neurons: int, batch: int, steps: int, seconds: float) -> dict[str, float]:
    """Return the milliseconds of a sequence, with the norm in one op and with integrators.

    Whole means are a bias; some off the grid of the states are a norm in float32. It stands between
    two integrators where the scale of the states is no power of two.
    """
    x = torch.randn(steps, batch, neurons, generator=torch.Generator().manual_seed(0)) * 0.3
    runs: dict[str, Any] = {}
    ways = [("portable", False), *([("native", True)] if native.kernels() else [])]
    for form, scale, offset in (("bias", 64, 0.0), ("norm", 64, 1e-5), ("integrators", 48, 1e-5)):
        neuron = so.neuron.cuba.Neuron(
            1.0, 0.25, 0.05, scale=scale, norm=so.neuron.norm.MeanOnlyBatchNorm
        )
        norm = neuron.eval().norm
        norm.num_features, norm.pre_hook_fx = neurons, None
        norm.running_mean = torch.round(torch.linspace(-16, 16, neurons)) / 64 + offset
        model = so.export(neuron, x.movedim(0, -1)[..., :2], layout="TNC")
        for way, kernels in ways:
            session = so.Session(model, native=kernels)
            runs[f"{form}, {way}"] = functools.partial(session.run, x.numpy())
    return {name: 1000 * took for name, took in turns(runs, seconds).items()}
