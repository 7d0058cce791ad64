"""The naive export: every time step unrolled into the graph, as tracing a loop in torch gives it.

States are floats, and the synapse runs once a step, in ONNX Runtime.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from torch import Tensor

from benchmarks._contest import Contestant, Run, UnsupportedError
from benchmarks._networks import CURRENT_DECAY, THRESHOLD, VOLTAGE_DECAY, Layer, Network

#: an unrolled graph of more nodes takes minutes to load
MOST_NODES = 12_000


def make(network: Network, spikes: Tensor) -> Run:
    """Build the graph for these sizes; nothing of them stays open."""
    steps = spikes.shape[-1]
    if any(layer.kind == "resonator" for layer in network.layers):
        raise UnsupportedError("resonators are not unrolled")
    if steps * (8 * len(network.layers) + 2) > MOST_NODES:
        raise UnsupportedError(
            f"an unrolled graph of more than {MOST_NODES} nodes loads for minutes"
        )
    graph = _Graph()
    for i, layer in enumerate(network.layers):
        graph.weights(i, layer)
    results = []
    for t in range(steps):
        x = graph.add("Gather", "x", graph.constant(f"t{t}", np.array(t)), axis=spikes.dim() - 1)
        for i, layer in enumerate(network.layers):
            x = graph.step(i, layer, x)
        results.append(graph.add("Unsqueeze", x, graph.constant("last", np.array([2]))))
    graph.nodes.append(helper.make_node("Concat", results, ["y"], axis=2))
    kind = onnx.TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "unrolled",
            [helper.make_tensor_value_info("x", kind, list(spikes.shape))],
            [helper.make_tensor_value_info("y", kind, None)],
            list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", 21)],
    )
    model.ir_version = 10
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    array = spikes.numpy()
    return lambda: session.run(None, {"x": array})[0]


class _Graph:
    """Nodes and constants as they come."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        #: layer -> current, voltage, spikes of the step before
        self.before: dict[int, tuple[str, str, str]] = {}

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, name: str, value: object) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self.constants[name] = numpy_helper.from_array(array.copy(order="C"), name)
        return name

    def weights(self, i: int, layer: Layer) -> None:
        if layer.kind == "conv":
            self.constant(f"w{i}", layer.matrix.numpy())
        elif layer.weight is not None:
            self.constant(f"w{i}", layer.matrix.numpy().T)
        if layer.feedback is not None:
            self.constant(f"f{i}", layer.feedback.numpy().T)

    def step(self, i: int, layer: Layer, x: str) -> str:
        if layer.kind == "flatten":
            return self.add("Flatten", x)
        if layer.kind == "pool":
            mean = self.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            x = self.add("Mul", mean, self.constant("two", 2.0))
        elif layer.kind == "conv":
            pads = [*layer.padding, *layer.padding]
            x = self.add("Conv", x, f"w{i}", strides=list(layer.stride), pads=pads)
        else:
            x = self.add("MatMul", x, f"w{i}")
        current, voltage, spikes = self.before.get(i, ("", "", ""))
        if spikes and layer.feedback is not None:
            x = self.add("Add", x, self.add("MatMul", spikes, f"f{i}"))
        if current:
            kept = self.add("Mul", current, self.constant("current_kept", 1 - CURRENT_DECAY))
            x = self.add("Add", kept, x)
        v = x
        if voltage:
            kept = self.add("Mul", voltage, self.constant("voltage_kept", 1 - VOLTAGE_DECAY))
            v = self.add("Add", kept, x)
        fired = self.add("GreaterOrEqual", v, self.constant("threshold", THRESHOLD))
        reset = self.add("Where", fired, self.constant("zero", 0.0), v)
        s = self.add("Cast", fired, to=onnx.TensorProto.FLOAT)
        self.before[i] = x, reset, s
        return s


CONTESTANT = Contestant("unrolled", "every step unrolled into the graph, float states", make)
