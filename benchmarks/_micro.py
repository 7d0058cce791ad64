"""Costs of single ONNX nodes, from which the bodies of ops were chosen."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks._measure import turns

__all__ = ["NODES", "OPTIONS", "dense_costs", "node_costs", "option_runs"]

_LEVELS = ort.GraphOptimizationLevel

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
    "fewer optimisations": {"graph_optimization_level": _LEVELS.ORT_ENABLE_BASIC},
    "no spinning": {"session.intra_op.allow_spinning": "0"},
}
_DTYPES = {"int32": np.int32, "float": np.float32, "double": np.float64, "bool": np.bool_}
_STEPS, _COPIES = 200, 5


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # a constant that one way of several does not need is no news
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _loop(kind: str, result: str, call: str, copies: int) -> ort.InferenceSession:
    """A Scan whose body holds copies of one node."""
    states = [f"s{i}" for i in range(copies)]
    body = "\n".join(f"r{i} = {call}" for i in range(copies))
    return _session(
        onnx.parser.parse_model(
            f"""<ir_version: 10, opset_import: ["" : 21]>
            g ({kind}[C] a, {kind}[C] b, bool[C] c, {result}[C] s, float[T, 1] t)
              => ({result}[C] l0)
            {{
              {", ".join(f"l{i}" for i in range(copies))} = Scan<num_scan_inputs = 1, body = step
                ({", ".join(states)}, t_now) => ({", ".join(f"r{i}" for i in range(copies))})
                {{ {body} }}>({", ".join(["s"] * copies)}, t)
            }}"""
        )
    )


def option_runs(data: bytes, array: NDArray[Any]) -> dict[str, Callable[[], Any]]:
    """Return what runs a file with each of :data:`OPTIONS`, by its name."""
    runs: dict[str, Callable[[], Any]] = {}
    for name, values in OPTIONS.items():
        options = ort.SessionOptions()
        options.log_severity_level = 4
        for key, value in values.items():
            if "." in key:
                options.add_session_config_entry(key, value)
            else:
                setattr(options, key, value)
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        runs[name] = functools.partial(session.run, None, {session.get_inputs()[0].name: array})
    return runs


def node_costs(neurons: int, seconds: float) -> dict[str, float]:
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
            wanted = {value.name for value in session.get_inputs()}
            given = {key: value for key, value in feeds.items() if key in wanted}
            runs[f"{name} {copies}"] = functools.partial(session.run, None, given)
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


def dense_costs(inputs: int, outputs: int, steps: int, seconds: float) -> dict[str, float]:
    """Return the microseconds of a dense product of spikes (T, 1, C) with (C, O), five ways."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (inputs, outputs)).astype(np.int8)
    spikes = (rng.random((steps, 1, inputs)) < 0.1).astype(np.float32)
    constants: Sequence[Any] = (
        numpy_helper.from_array(weight, "w8"),
        numpy_helper.from_array(weight.astype(np.float32), "wf"),
    )
    runs: dict[str, Any] = {}
    for name, (kind, result, text) in _PRODUCTS.items():
        model = onnx.parser.parse_model(
            f"""<ir_version: 10, opset_import: ["" : 21]>
            g ({kind}[T, 1, C] x) => ({result}[T, 1, O] y)
            <float low = {{0}}, float high = {{127}}, float least = {{-64}}, float most = {{63}},
            float half = {{64}}> {{ {text} }}"""
        )
        model.graph.initializer.extend(constants)
        x = spikes if "signed" not in name else spikes * rng.choice([-1, 1], spikes.shape)
        feeds = {"x": x.astype(np.uint8 if kind == "uint8" else np.float32)}
        runs[name] = functools.partial(_session(model).run, None, feeds)
    return {name: 1e6 * value for name, value in turns(runs, seconds).items()}
