"""Convolutions in tiles of images: which go there, the same values, and no image left over."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from graphs import parsed
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler import _tiles
from synapse_onnx.compiler._tiles import put_in_tiles

CONV = "Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
POOL = "MaxPool<kernel_shape = [2, 2], strides = [2, 2]>"
#: what the graphs begin and end with
FOLD = "f = Reshape(x, folded)"
UNFOLD = "y = Reshape(p, parted)"
WEIGHT = ", ".join(str(i % 7 - 3) for i in range(54))
SHAPES = "float[TN, 2, 6, 4] f, float[TN, 3, 6, 4] c, float[TN, 3, 6, 4] n, float[TN, 3, 3, 2] p"


def _model(
    nodes: str, shapes: str = SHAPES, inputs: str = "", outputs: str = "float[A, B, C, D, E] y"
) -> onnx.ModelProto:
    return parsed(f"""
    g (float[T, N, 2, 6, 4] x{inputs}) => ({outputs})
    <{shapes},
     float[3, 2, 3, 3] w = {{{WEIGHT}}}, float[3] b = {{1, 2, 3}},
     float[3] scale = {{1, 2, 3}}, float[3] mean = {{0, 1, 0}}, float[3] var = {{1, 4, 2}},
     int64[4] folded = {{-1, 2, 6, 4}}, int64[5] parted = {{1, -1, 3, 3, 2}}> {{
      {nodes}
    }}""")


def _run(model: onnx.ModelProto, *names: str, **inputs: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(list(names) or None, inputs)


def _in_tiles(model: onnx.ModelProto) -> tuple[int, onnx.ModelProto]:
    changed = ir.from_proto(model)
    count = put_in_tiles(changed.graph)
    proto = ir.to_proto(changed)
    onnx.checker.check_model(proto, full_check=True)
    return count, proto


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def _chain(end: str = UNFOLD, shapes: str = SHAPES, **more: str) -> onnx.ModelProto:
    nodes = f"{FOLD} c = {CONV}(f, w, b) n = Relu(c) p = {POOL}(n) {end}"
    return _named(_model(nodes, shapes, **more))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put small images in tiles, as those here are."""
    monkeypatch.setattr(_tiles, "BYTES_OF_IMAGE", 0)


def _x(steps: int, batch: int) -> np.ndarray:
    return np.random.default_rng(steps).normal(size=(steps, batch, 2, 6, 4)).astype(np.float32)


@pytest.mark.parametrize("limit", [1, 700, 4000, 1 << 19])
@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (6, 4), (7, 1), (13, 17), (1, 31), (3, 0)])
def test_values_are_the_same_and_no_image_is_left_over(
    steps: int, batch: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tiles, "BYTES_AT_ONCE", limit)
    model = _chain()
    count, changed = _in_tiles(model)
    assert count == 1
    x = _x(steps, batch)
    (expected,) = _run(model, x=x)
    (scan,) = (node for node in changed.graph.node if node.op_type == "Scan")
    changed.graph.output.append(onnx.helper.make_tensor_value_info(scan.input[0], 1, None))
    found, parted = _run(changed, x=x)
    np.testing.assert_array_equal(found, expected)
    tiles, images = parted.shape[:2]
    assert tiles * images == steps * batch
    assert tiles >= 1
    largest = 3 * 6 * 4 * 4  # bytes of the convolution's output
    assert images <= max(1, limit // largest)


def test_tiles_are_as_large_as_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tiles, "BYTES_AT_ONCE", 10 * 3 * 6 * 4 * 4)
    _, changed = _in_tiles(_chain())
    (scan,) = (node for node in changed.graph.node if node.op_type == "Scan")
    changed.graph.output.append(onnx.helper.make_tensor_value_info(scan.input[0], 1, None))
    calls = {(5, 2): 10, (6, 4): 8, (11, 3): 3, (9, 3): 9}
    found = {call: _run(changed, x=_x(*call))[1].shape[1] for call in calls}
    assert found == calls


@pytest.mark.parametrize(("least", "count"), [(3 * 6 * 4 * 4, 1), (3 * 6 * 4 * 4 + 1, 0)])
def test_small_images_stay_as_they_are(
    least: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tiles, "BYTES_OF_IMAGE", least)
    assert _in_tiles(_chain())[0] == count


def test_weights_go_along_and_no_node_of_the_chain_stays() -> None:
    _, changed = _in_tiles(_chain())
    (scan,) = (node for node in changed.graph.node if node.op_type == "Scan")
    body = next(a.g for a in scan.attribute if a.name == "body")
    assert [node.op_type for node in body.node] == ["Conv", "Relu", "MaxPool"]
    assert {tensor.name for tensor in body.initializer} == {"w", "b"}
    outside = {tensor.name for tensor in changed.graph.initializer}
    assert not outside & {"w", "b"}
    assert not {"Conv", "Relu", "MaxPool"} & {node.op_type for node in changed.graph.node}


def test_a_norm_goes_along() -> None:
    nodes = (
        f"{FOLD} c = {CONV}(f, w, b) "
        f"n = BatchNormalization<epsilon = 0.001>(c, scale, b2, mean, var) p = {POOL}(n) {UNFOLD}"
    )
    model = _named(_model(nodes, f"{SHAPES}, float[3] b2 = {{3, 2, 1}}"))
    count, changed = _in_tiles(model)
    assert count == 1
    assert "BatchNormalization" not in {node.op_type for node in changed.graph.node}
    np.testing.assert_array_equal(_run(changed, x=_x(5, 3)), _run(model, x=_x(5, 3)))


def test_an_output_of_the_graph_keeps_its_name() -> None:
    shapes = SHAPES.replace(", float[TN, 3, 3, 2] p", "")
    model = _chain(end="", shapes=shapes, outputs="float[TN, 3, 3, 2] p")
    count, changed = _in_tiles(model)
    assert count == 1
    assert [value.name for value in changed.graph.output] == ["p"]
    np.testing.assert_array_equal(_run(changed, x=_x(5, 3)), _run(model, x=_x(5, 3)))


def test_a_chain_ends_where_two_read_a_value() -> None:
    model = _named(_model(f"{FOLD} c = {CONV}(f, w, b) n = Relu(c) p = {POOL}(n) q = {POOL}(c) "
                          f"r = Add(p, q) y = Reshape(r, parted)"))  # fmt: skip
    count, changed = _in_tiles(model)
    assert count == 1
    assert "Relu" in {node.op_type for node in changed.graph.node}
    np.testing.assert_array_equal(_run(changed, x=_x(5, 3)), _run(model, x=_x(5, 3)))


def test_two_chains_of_as_many_images_share_what_divides_them() -> None:
    first = _chain()
    second = _model(
        f"{FOLD} c = {CONV}(f, w, b) p = {POOL}(c) a = Reshape(p, parted) "
        f"g = Reshape(x, folded) d = {CONV}(g, v, mean) q = {POOL}(d) e = Reshape(q, parted) "
        "y = Add(a, e)",
        f"{SHAPES}, float[TN, 2, 6, 4] g, float[TN, 3, 6, 4] d, float[TN, 3, 3, 2] q, "
        f"float[3, 2, 3, 3] v = {{{WEIGHT}}}",
    )
    _, one = _in_tiles(first)
    count, both = _in_tiles(_named(second))
    assert count == 2
    assert sum(node.op_type == "Mod" for node in both.graph.node) == 1
    assert sum(node.op_type == "Mod" for node in one.graph.node) == 1
    np.testing.assert_array_equal(_run(both, x=_x(5, 3)), _run(second, x=_x(5, 3)))


@pytest.mark.parametrize(
    ("nodes", "shapes"),
    [
        # a weight that something else reads, as in a loop that is unrolled
        (f"{FOLD} c = {CONV}(f, w, b) p = {POOL}(c) q = Reshape(p, parted) s = ReduceSum(w) "
         f"y = Add(q, s)", SHAPES),
        # a weight that is computed
        (f"{FOLD} v = Neg(w) c = {CONV}(f, v, b) p = {POOL}(c) {UNFOLD}", SHAPES),
        # no convolution
        (f"{FOLD} n = Relu(f) p = {POOL}(n) y = Reshape(p, unparted)",
         "float[TN, 2, 6, 4] f, float[TN, 2, 6, 4] n, float[TN, 2, 3, 2] p, "
         "int64[5] unparted = {1, -1, 2, 3, 2}"),
        # an image of unknown size
        (f"{FOLD} c = {CONV}(f, w, b) p = {POOL}(c) {UNFOLD}",
         "float[TN, 2, H, 4] f, float[TN, 3, H, 4] c, float[TN, 3, G, 2] p"),
        # other axes than the first two are folded
        (f"{FOLD} c = {CONV}(f, w, b) p = {POOL}(c) {UNFOLD}",
         SHAPES.replace("float[TN, 2, 6, 4] f", "float[TN, 2, 4, 6] f")),
    ],
    ids=["shared weight", "computed weight", "no convolution", "open image", "other axes"],
)  # fmt: skip
def test_what_stays_as_it_is(nodes: str, shapes: str) -> None:
    model = ir.from_proto(_named(_model(nodes, shapes)))
    before = [node.op_type for node in model.graph]
    assert put_in_tiles(model.graph) == 0
    assert [node.op_type for node in model.graph] == before


@pytest.mark.parametrize(("images", "count"), [(10, 0), (11, 1)])
def test_a_fixed_number_of_images_that_fits_in_one_tile_stays(
    images: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tiles, "BYTES_AT_ONCE", 10 * 3 * 6 * 4 * 4)
    model = ir.from_proto(_chain(shapes=SHAPES.replace("TN", str(images))))
    assert put_in_tiles(model.graph) == count


def test_a_convolution_that_time_is_not_folded_for_stays() -> None:
    model = ir.from_proto(
        parsed(f"""
    g (float[N, 2, 6, 4] x) => (float[N, 3, 4, 2] y)
    <float[3, 2, 3, 3] w = {{{WEIGHT}}}> {{ y = Conv<kernel_shape = [3, 3]>(x, w) }}""")
    )
    assert put_in_tiles(model.graph) == 0


# -- networks ------------------------------------------------------------------------------------


class _Images(nn.Module):
    """Two convolutions with leaky neurons: (T, N, 1, 8, 8) -> (T, N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.MaxPool2d(2)
        )
        self.second = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.AvgPool2d(2))
        self.out = nn.Linear(32, 5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0.05, 0.3, generator=torch.Generator().manual_seed(3))

    def forward(self, x: Tensor) -> Tensor:
        one, two, three, spikes = 0, 0, 0, []
        for frame in x:
            one = 0.9 * one + self.first(frame)
            s = (one > 1).float()
            one = one - s
            two = 0.8 * two + self.second(s)
            s = (two > 1).float()
            two = two - s
            three = 0.9 * three + self.out(s.flatten(1))
            s = (three > 1).float()
            three = three - s
            spikes.append(s)
        return torch.stack(spikes)


def _network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return _Images().eval(), (torch.rand(6, 3, 1, 8, 8) < 0.4).float()


def _scans(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Scan"]


def test_a_live_network_is_proved_with_its_tiles() -> None:
    network, x = _network()
    model = so.export(network, x, axes="TNC")
    assert [node.name for node in _scans(model)] == ["Conv/tiles/Scan", "Conv#2/tiles/Scan"]
    report = so.verify(network, model, x)
    assert report.ok, str(report)
    assert "run alone" not in str(report)


def test_a_stream_has_no_tiles() -> None:
    network, x = _network()
    assert _scans(so.export(network, x, axes="TNC", streaming=True)) == []


@pytest.mark.parametrize("what", ["weight", "pool"])
def test_a_fault_in_a_tile_is_reported(what: str) -> None:
    network, x = _network()
    model = so.export(network, x, axes="TNC")
    scan = _scans(model)[1]
    body = next(a.g for a in scan.attribute if a.name == "body")
    if what == "weight":
        tensor = next(t for t in body.initializer if t.name == "second.0.weight")
        values = onnx.numpy_helper.to_array(tensor).copy()
        values[0, 0, 0, 0] = np.nextafter(values[0, 0, 0, 0], np.float32(9))
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    else:
        pool = next(node for node in body.node if node.op_type == "AveragePool")
        next(a for a in pool.attribute if a.name == "ceil_mode").i = 1
    report = so.verify(network, model, x)
    assert not report.ok
    expected = (
        "second.0.weight: 1 of 288 values differ" if what == "weight" else "ceil_mode of node"
    )
    assert expected in str(report)
