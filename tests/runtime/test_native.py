"""Native kernels: all of them on the samples of their ops, and whole networks.

A model that has lost its functions shows that a kernel ran: there is nothing else that could.
"""

from __future__ import annotations

import networks
import numpy as np
import pytest
import torch
from of_one_node import (
    EQUATIONS,
    OPS,
    assert_equal,
    expected,
    run,
    tolerance,
)

import synapse_onnx as so
from synapse_onnx import ops
from synapse_onnx.report.kernels import profile_kernels
from synapse_onnx.runtime import native

pytestmark = pytest.mark.skipif(
    native.problem() is not None, reason=f"there are no native kernels: {native.problem()}"
)
KERNELS = native.kernels()
CALLS = [
    pytest.param(OPS[name], sample, id=f"{name}-{sample.id}")
    for name in KERNELS
    for sample in OPS[name].samples()
]


def test_every_neuron_and_every_quantised_synapse_has_a_kernel() -> None:
    assert set(KERNELS) <= set(OPS)
    assert set(EQUATIONS) <= set(KERNELS)
    assert {name for name in OPS if name.startswith("Quantized")} <= set(KERNELS)
    assert {"Delay", "Delta", "Sigma"} <= set(KERNELS)


@pytest.mark.parametrize(("op", "sample"), CALLS)
def test_a_kernel_computes_what_torch_does(op: ops.OpDef, sample: ops.Sample) -> None:
    assert_equal(run(op, sample.args), expected(op, sample.args), tolerance(op))


# -- dense products ----------------------------------------------------------------------------


# -- networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_a_network_gives_the_same_with_kernels_and_without(streaming: bool) -> None:
    torch.manual_seed(0)
    params = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.05}
    q8 = {"pre_hook_fx": so.quantize.q8}
    network = torch.nn.Sequential(
        so.block.cuba.Dense(params, 40, 64, weight_scale=3, delay=True, **q8),
        so.block.cuba.Recurrent(params, 64, 32, weight_scale=3, **q8),
        so.block.cuba.Affine(params, 32, 10, **q8),
    )
    x = networks.spikes(2, 40, 30)
    network(x)
    model = so.export(network, x, streaming=streaming)
    with_kernels, without = (so.Session(model, native=choice) for choice in (True, False))
    kernels = {"Cuba", "Delay", "RecurrentCuba", "QuantizedDense"}
    assert kernels <= set(with_kernels.kernels)
    np.testing.assert_array_equal(with_kernels.run(x.numpy()), without.run(x.numpy()))
    assert so.verify(network, model, x, native=True).ok
    if streaming:
        stream = with_kernels.stream(batch=2)
        steps = [stream.step(x[..., t].numpy()) for t in range(x.shape[-1])]
        np.testing.assert_array_equal(np.stack(steps, -1), without.run(x.numpy()))


def test_a_profile_tells_native_kernels_from_bodies() -> None:
    model = so.export(networks.Convolutional().eval(), torch.zeros(1, 2, 8, 8, 5))
    x = networks.spikes(2, 2, 8, 8, 7).numpy()
    found = profile_kernels(model, [x], native=True)
    ours = {kernel.op: kernel.calls for kernel in found if kernel.native}
    together = {"QuantizedDenseAndCuba": 1}
    assert ours == {"Cuba": 2, "QuantizedConv": 1, "QuantizedPool": 1, **together}
    assert not {"Scan", "Conv", "MatMul"} & {kernel.op for kernel in found}
    assert not any(kernel.native for kernel in profile_kernels(model, [x], native=False))
    ran = so.Session(model, native=True).native_nodes
    assert sorted(ran.values()) == [
        *["Cuba"] * 2,
        "QuantizedConv",
        "QuantizedDenseAndCuba",
        "QuantizedPool",
    ]
    assert so.Session(model, native=False).native_nodes == {}
