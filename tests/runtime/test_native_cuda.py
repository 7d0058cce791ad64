"""Kernels for CUDA: their device code on the processor, equal to torch; and on a GPU, where one is.

The library runs the very code of the device with its blocks and threads one after the other where a
session asks for it (`native/cuda/kernel.h`). What only a GPU can show is marked ``gpu``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import networks
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from of_one_node import (
    EQUATIONS,
    NEURONS,
    OPS,
    assert_equal,
    cuba,
    currents,
    expected,
    feeds_of,
    model_of,
    sequences_of,
    tolerance,
)
from onnx import numpy_helper
from torch import Tensor

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.runtime import native
from synapse_onnx.runtime import providers as execution
from synapse_onnx.runtime.providers import for_cuda

PROVIDERS = [native.CUDA, native.CPU]
#: one sample of each op, in turn the first, the second and so on; test_native.py has all of them
SAMPLES = [
    pytest.param(OPS[name], sample, id=f"{name}-{sample.id}")
    for i, name in enumerate(NEURONS)
    for samples in [OPS[name].samples()]
    for sample in [samples[i % len(samples)]]
]

needs_library = pytest.mark.skipif(
    native.problem(native.CUDA) is not None,
    reason=f"there are no kernels for CUDA: {native.problem(native.CUDA)}",
)


def options(*, emulated: bool) -> ort.SessionOptions:
    made = ort.SessionOptions()
    made.log_severity_level = 4
    made.enable_cpu_mem_arena = False  # so that sanitizers see every tensor's end
    if emulated:
        made.add_session_config_entry("ai.synapse.emulate_cuda", "1")
    made.register_custom_ops_library(str(native.library(native.CUDA)))
    return made


def emulated(model: onnx.ModelProto) -> ort.InferenceSession:
    """The device code on the processor."""
    return ort.InferenceSession(
        model.SerializeToString(), options(emulated=True), providers=["CPUExecutionProvider"]
    )


def on_gpu(model: onnx.ModelProto) -> ort.InferenceSession:
    """The same on a GPU."""
    chosen = [(native.CUDA, {"use_tf32": "0"}), native.CPU]
    return ort.InferenceSession(
        model.SerializeToString(), options(emulated=False), providers=chosen
    )


Open = Callable[[onnx.ModelProto], ort.InferenceSession]


@pytest.fixture(
    params=[
        pytest.param(emulated, id="emulated"),
        pytest.param(on_gpu, id="device", marks=pytest.mark.gpu),
    ]
)
def opened(request: pytest.FixtureRequest) -> Open:
    """Open a session with the kernels for CUDA, emulated and on a GPU."""
    if native.problem(native.CUDA) is not None:
        pytest.skip(f"there are no kernels for CUDA: {native.problem(native.CUDA)}")
    if request.param is on_gpu and native.CUDA not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA execution provider")
    return request.param


def run(opened: Open, op: ops.OpDef, args: tuple[Any, ...]) -> list[np.ndarray]:
    session = opened(model_of(op, args, sequences_of(op)))
    return session.run(None, feeds_of(op, args, session))


@needs_library
def test_every_neuron_has_a_kernel() -> None:
    found = native.kernels(native.CUDA)
    assert sorted(found) == NEURONS or native.instructions(native.CUDA) == "emulated"
    assert f"({native.instructions(native.CUDA)})" in native.status(native.CUDA)


@pytest.mark.parametrize(("op", "sample"), SAMPLES)
def test_a_kernel_computes_what_torch_does(op: ops.OpDef, sample: ops.Sample, opened: Open) -> None:
    assert_equal(run(opened, op, sample.args), expected(op, sample.args), tolerance(op))


# -- sizes and values --------------------------------------------------------------------------


@pytest.mark.parametrize("neurons", [1, 63, 64, 65, 2049])  # of two samples; 128 are a block
@pytest.mark.parametrize("steps", [0, 1, 7, 8, 9, 29])  # eight are read together
def test_any_size(neurons: int, steps: int, opened: Open) -> None:
    args = cuba(currents(2, neurons, steps), state=-77)
    if steps:
        assert_equal(run(opened, OPS["Cuba"], args), expected(OPS["Cuba"], args))
    else:  # torch has nothing to stack
        y, *last = run(opened, OPS["Cuba"], args)
        assert y.shape == (0, 2, neurons)
        assert all((state == -77).all() for state in last)


def test_no_neurons(opened: Open) -> None:
    y, *last = run(opened, OPS["Cuba"], cuba(torch.zeros(0, 3, 5)))
    assert [array.shape for array in (y, *last)] == [(5, 0, 3), (0, 3), (0, 3)]


def test_many_axes_and_a_parameter_for_each_channel(opened: Open) -> None:
    args = list(cuba(currents(3, 5, 7, 2, 11)))
    args[1], args[2] = torch.arange(5) * 700.0, torch.arange(5) * 90.0
    assert_equal(run(opened, OPS["Cuba"], tuple(args)), expected(OPS["Cuba"], tuple(args)))


@pytest.mark.parametrize(
    "value", [2048.0, -3e8, 3e12, -1e30, float("inf"), float("-inf"), float("nan")]
)
@pytest.mark.parametrize("name", ["Cuba", "CubaDynamics", "Alif", "Adrf", "RfIz"])
def test_values_that_wrap(name: str, value: float, opened: Open) -> None:
    """Sums and products beyond 64 bits, as torch has them."""
    sample = OPS[name].samples()[0]
    sequences = [i for i, x in enumerate(OPS[name].inputs) if x in sequences_of(OPS[name])]
    args = list(sample.args)
    for i in sequences:
        args[i] = args[i].clone()
        args[i][0, 1, 2], args[i][0, 0, 4] = value, -value
    assert_equal(run(opened, OPS[name], tuple(args)), expected(OPS[name], tuple(args)))


@pytest.mark.parametrize("state", [1 << 23, 1 << 40, -(1 << 62), (1 << 63) - 1])
def test_states_of_any_size(state: int, opened: Open) -> None:
    for graded in (False, True):
        args = cuba(currents(1, 70, 12), state=state, graded=graded)
        assert_equal(run(opened, OPS["Cuba"], args), expected(OPS["Cuba"], args))


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_that_wrap(sign: int, opened: Open) -> None:
    x = currents(1, 70, 12)
    x[..., 0] = sign * (2.0**51 - 2.0**27)  # the largest float whose current is an int64
    args = cuba(x, state=sign << 50)
    assert_equal(run(opened, OPS["Cuba"], args), expected(OPS["Cuba"], args))


@pytest.mark.parametrize("decay", [0.0, 4096.0, 4097.0, -1.0, 9000.0])
def test_fractions_of_any_size(decay: float, opened: Open) -> None:
    args = list(cuba(currents(1, 70, 12)))
    args[1] = torch.tensor([decay])
    assert_equal(run(opened, OPS["Cuba"], tuple(args)), expected(OPS["Cuba"], tuple(args)))


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e38])
@pytest.mark.parametrize("name", [n for n in EQUATIONS if n.endswith("Float") and "Recur" not in n])
def test_floats_that_are_no_numbers(name: str, value: float, opened: Open) -> None:
    sample = OPS[name].samples()[0]
    x = sample.args[0].clone()
    x[0, 1, 4] = value
    args = (x, *sample.args[1:])
    assert_equal(run(opened, OPS[name], args), expected(OPS[name], args))


def test_chunks_of_a_sequence(opened: Open) -> None:
    """A stream's steps: the states go on."""
    args = cuba(currents(2, 130, 21))
    op = OPS["Cuba"]
    session = opened(model_of(op, args, {"x"}))
    feeds = feeds_of(op, args, session)
    wanted, x, found = session.run(None, feeds), feeds["x"], []
    for first, last in ((0, 1), (1, 2), (2, 12), (12, 21)):
        y, feeds["current"], feeds["voltage"] = session.run(None, feeds | {"x": x[first:last]})
        found.append(y)
    assert_equal([np.concatenate(found), feeds["current"], feeds["voltage"]], wanted)


# -- feedback ----------------------------------------------------------------------------------


def recurrent(channels: int, steps: int, weight: Tensor) -> Any:
    """Arguments of RecurrentCuba: three samples that begin with spikes."""
    state = torch.zeros(3, channels, dtype=torch.int64)
    spikes = (currents(3, channels) > 0.4).float()
    return (currents(3, channels, steps), weight.reshape(channels, channels, 1, 1, 1),
            torch.arange(1, channels + 1) / 64, spikes, torch.tensor([1024.0]),
            torch.tensor([128.0]), state, state, 4096, 3000, 1.0, 1.0, False)  # fmt: skip


@pytest.mark.parametrize("channels", [1, 31, 33, 512, 1030])  # up to 512 threads are a block
@pytest.mark.parametrize("steps", [1, 9])
def test_feedback_of_any_size(channels: int, steps: int, opened: Open) -> None:
    draw = torch.Generator().manual_seed(channels)
    weight = torch.randint(-127, 127, (channels, channels), generator=draw, dtype=torch.int8)
    args = recurrent(channels, steps, weight)
    found, wanted = run(opened, OPS["RecurrentCuba"], args), expected(OPS["RecurrentCuba"], args)
    assert_equal(found, wanted)
    assert channels == 1 or 0 < found[0].mean() < 1


def test_feedback_without_steps(opened: Open) -> None:
    args = recurrent(5, 3, torch.ones(5, 5, dtype=torch.int8))
    session = opened(model_of(OPS["RecurrentCuba"], args, {"x"}))
    feeds = feeds_of(OPS["RecurrentCuba"], args, session)
    y, spikes, *states = session.run(None, feeds | {"x": feeds["x"][:0]})
    assert y.shape == (0, 3, 5)
    np.testing.assert_array_equal(spikes, feeds["spikes"])
    assert not any(state.any() for state in states)


@pytest.mark.parametrize("kind", ["float32", "int16", "int8", "int4", "an input"])
def test_weights_of_any_type(kind: str, opened: Open) -> None:
    op, values = OPS["RecurrentCuba"], torch.arange(49).reshape(7, 7) % 13 - 6
    typed = {"float32": torch.float32, "int16": torch.int16}.get(kind, torch.int8)
    args = recurrent(7, 12, values.to(typed))
    model = model_of(op, args, {"x"})
    (weight,) = model.graph.initializer
    if kind == "int4":
        array = numpy_helper.to_array(weight).flatten()
        weight.CopyFrom(
            onnx.helper.make_tensor(weight.name, onnx.TensorProto.INT4, weight.dims, array)
        )
    if kind == "an input":
        value = onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        model.graph.input.append(value)
        del model.graph.initializer[:]
    session = opened(model)
    assert_equal(session.run(None, feeds_of(op, args, session)), expected(op, args))


# -- what does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (12, 70), "currents need the axes"),
        ("current", (1, 69), "a state of shape"),
        ("current_decay", (3,), "neither one value nor one for each of 70 channels"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, shape: tuple[int, ...], message: str, opened: Open
) -> None:
    op, args = OPS["Cuba"], cuba(currents(1, 70, 12))
    model = model_of(op, args, {"x"})
    for value in model.graph.input:
        value.type.tensor_type.ClearField("shape")
    session = opened(model)
    feeds = feeds_of(op, args, session)
    with pytest.raises(Exception, match=message):
        session.run(None, feeds | {name: np.zeros(shape, feeds[name].dtype)})


@needs_library
@pytest.mark.skipif(
    native.instructions(native.CUDA) == "emulated", reason="a build without nvcc has none of these"
)
@pytest.mark.parametrize("functions", [0, 1])
def test_the_kernels_are_of_cuda_alone(functions: int) -> None:
    """On the processor ONNX Runtime takes neither them nor the body: `Session` does not register
    them there."""
    model = model_of(OPS["Cuba"], cuba(currents(1, 7, 3)), {"x"})
    model.functions.extend([OPS["Cuba"].function(21)] * functions)
    with pytest.raises(Exception, match="Could not find an implementation for Cuba"):
        ort.InferenceSession(
            model.SerializeToString(), options(emulated=False), providers=[native.CPU]
        )


# -- sessions ------------------------------------------------------------------------------------


class Network(torch.nn.Sequential):
    """Dense, delayed, with feedback: what has a kernel for CUDA and what has none."""

    def __init__(self) -> None:
        params = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.05}
        q8 = {"pre_hook_fx": so.quantize.q8}
        super().__init__(
            so.block.cuba.Dense(params, 40, 64, weight_scale=3, delay=True, **q8),
            so.block.cuba.Recurrent(params, 64, 32, weight_scale=3, **q8),
            so.block.cuba.Affine(params, 32, 10, **q8),
        )


@pytest.fixture
def emulated_cuda(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An ONNX Runtime that says it has CUDA and takes the processor; what was asked of it."""
    if native.instructions(native.CUDA) in ("", "emulated"):
        pytest.skip(f"there are no kernels for CUDA: {native.problem(native.CUDA)}")
    asked: list[Any] = []

    def session_options() -> ort.SessionOptions:
        made = ort.SessionOptions()
        made.add_session_config_entry("ai.synapse.emulate_cuda", "1")
        return made

    def inference_session(model: bytes, given: Any, providers: Any) -> ort.InferenceSession:
        asked.append((onnx.ModelProto.FromString(model), providers))
        made = ort.InferenceSession(model, given, providers=[native.CPU])
        names = [name if isinstance(name, str) else name[0] for name in providers]
        monkeypatch.setattr(made, "get_providers", lambda: names)
        return made

    fake = SimpleNamespace(
        get_available_providers=lambda: [*PROVIDERS, "TensorrtExecutionProvider"],
        SessionOptions=session_options,
        InferenceSession=inference_session,
    )
    monkeypatch.setattr(execution, "onnxruntime_module", lambda: fake)
    return asked


@pytest.mark.parametrize("streaming", [False, True])
def test_a_session_on_cuda_takes_the_kernels(streaming: bool, emulated_cuda: list[Any]) -> None:
    torch.manual_seed(0)
    network, x = Network(), networks.spikes(2, 40, 30)
    network(x)
    model = so.export(network, x, streaming=streaming)
    emulated_cuda.clear()  # export opens sessions of its own
    for choice in (None, True):
        session = so.Session(model, PROVIDERS, native=choice)
        assert (session.native, session.kernels) == (
            True, ("Cuba", "CubaDynamics", "RecurrentCuba"),
        )  # fmt: skip
        assert session.instructions == native.instructions(native.CUDA)
        np.testing.assert_array_equal(session.run(x.numpy()), so.freeze(network)(x).numpy())
    for given, providers in emulated_cuda:
        assert providers == [(native.CUDA, {"use_tf32": "0"}), native.CPU]
        assert not given.functions
        kinds = [node.op_type for node in given.graph.node]
        assert (kinds.count("Cuba"), kinds.count("RecurrentCuba")) == (1, 1)
        assert not {"Delay", "QuantizedDense"} & set(kinds)


@pytest.mark.parametrize(
    ("providers", "taken"),
    [
        ([native.CUDA], True),
        (["TensorrtExecutionProvider", native.CUDA, native.CPU], True),
        (["TensorrtExecutionProvider", native.CPU], False),
        ([native.CPU, native.CUDA], False),
    ],
)
def test_kernels_take_no_node_off_the_first_provider(
    providers: list[str], taken: bool, emulated_cuda: list[Any]
) -> None:
    neuron = so.neuron.cuba.Neuron(1.0, 0.5, 0.1)
    model = so.export(neuron, torch.ones(1, 3, 8))
    assert so.Session(model, providers).native is taken
    given = {node.op_type for node in emulated_cuda[-1][0].graph.node}
    assert ("Cuba" in given) is taken
    assert not so.Session(model, providers, native=False).native
    if not taken:
        with pytest.raises(so.InputError, match=r"^native=True: the native kernels run on the CPU"):
            so.Session(model, providers, native=True)


def test_a_flat_graph_keeps_the_ops_that_are_named() -> None:
    neuron = so.neuron.cuba.Neuron(1.0, 0.5, 0.1)
    model = so.export(neuron, torch.ones(1, 3, 8))
    kept, flat = for_cuda(model, ["Cuba", "Rf"]), for_cuda(model)
    assert (len(kept.functions), len(flat.functions)) == (0, 0)
    assert [n.op_type for n in kept.graph.node if n.domain == ops.DOMAIN] == ["Cuba"]
    assert not [n.op_type for n in flat.graph.node if n.domain == ops.DOMAIN]
    assert model.functions


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNAPSE_ONNX_CUDA_LIBRARY", raising=False)
    monkeypatch.setattr(native, "_NAME", "no_such_library")
    assert native.library(native.CUDA) is None
    assert native.status(native.CUDA).startswith(
        "no native kernels for CUDA: synapse-onnx was installed without them; install it once more"
    )
    model = so.export(so.neuron.cuba.Neuron(1.0, 0.5, 0.1), torch.ones(1, 3, 8))
    fake = SimpleNamespace(get_available_providers=lambda: PROVIDERS)
    monkeypatch.setattr(execution, "onnxruntime_module", lambda: fake)
    with pytest.raises(so.SynapseError, match=r"^native=True: there are no native kernels for C"):
        so.Session(model, PROVIDERS, native=True)


@needs_library
def test_it_loads_without_a_driver() -> None:
    """And asks for none: a machine without a GPU is not disturbed."""
    code = (
        "import ctypes, sys\n"
        "ctypes.CDLL(sys.argv[1]).synapse_onnx_kernels()\n"
        "maps = open('/proc/self/maps').read()\n"
        "sys.exit('libcuda' in maps)\n"
    )
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not say what a process has loaded")
    command = [sys.executable, "-c", code, str(native.library(native.CUDA))]
    assert subprocess.run(command, check=False, env=dict(os.environ)).returncode == 0


# -- on a GPU ------------------------------------------------------------------------------------


@pytest.mark.gpu
@needs_library
@pytest.mark.skipif(
    native.CUDA not in ort.get_available_providers(),
    reason="this ONNX Runtime has no CUDA execution provider",
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_network_on_a_gpu(streaming: bool) -> None:
    torch.manual_seed(0)
    network, x = Network(), networks.spikes(2, 40, 30)
    network(x)
    model = so.export(network, x, streaming=streaming)
    session = so.Session(model, PROVIDERS, native=True)
    wanted = so.freeze(network)(x).numpy()
    np.testing.assert_array_equal(session.run(x.numpy()), wanted)
    assert so.verify(network, model, x, providers=PROVIDERS, native=True).ok
    if streaming:
        stream = session.stream(batch=2)
        steps = [stream.step(x[..., t].numpy()) for t in range(x.shape[-1])]
        np.testing.assert_array_equal(np.stack(steps, -1), wanted)
