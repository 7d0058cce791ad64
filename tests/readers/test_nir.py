"""NIR graphs: every node, conventions, branches, cycles, the way back, wrong graphs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import torch
from damage import refusals
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.readers._network import Network
from synapse_onnx.readers._nir.convention import CONVENTIONS

DT = 1e-4
STEPS = 40


def drive(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, STEPS, generator=generator) < 0.4).float()


def many(value: float, *shape: int) -> np.ndarray:
    return np.full(shape or (4,), value)


def line(*nodes: Any, shape: tuple[int, ...] = (4,), **metadata: Any) -> nir.NIRGraph:
    """A graph of one node behind another."""
    parts = {"input": nir.Input(np.array(shape))}
    parts |= {f"n{i}": node for i, node in enumerate(nodes)}
    parts["output"] = nir.Output(np.array([1]))
    names = list(parts)
    edges = list(itertools.pairwise(names))
    return nir.NIRGraph(parts, edges, metadata=metadata, type_check=False)


def both(graph: nir.NIRGraph, x: Tensor, tmp_path: Path, **how: Any) -> np.ndarray:
    """The output in torch, from the graph and from its file; ONNX Runtime must agree."""
    net = so.load_nir(graph, **how)
    path = tmp_path / "a.nir"
    nir.write(path, graph)
    with torch.no_grad():
        output = net(x)
        again = so.load_nir(path, **how)(x)
    assert torch.equal(output, again)
    model = so.export(net, x)
    report = so.verify(net, model, x)
    assert report.ok, str(report)
    result: np.ndarray = output.numpy()
    return result


# -- every node ----------------------------------------------------------------------------------

WEIGHT = np.random.default_rng(0).normal(size=(3, 4))
KERNEL = np.random.default_rng(1).normal(size=(4, 2, 3, 2))
BIAS = np.array([0.5, -0.25, 0.125, 0.0])


def conv2d(padding: Any = 0, groups: int = 1, **more: Any) -> Any:
    options = {"stride": (1, 1), "dilation": (1, 1)} | more
    weight = KERNEL[:, : 2 // groups]
    return nir.Conv2d((6, 7), weight, padding=padding, groups=groups, bias=BIAS, **options)


def torch_conv(x: Tensor, padding: Any = 0, groups: int = 1, **more: Any) -> Tensor:
    weight = torch.from_numpy(KERNEL[:, : 2 // groups]).float()
    flat = x.movedim(-1, 1).flatten(0, 1)
    y = nn.functional.conv2d(
        flat, weight, torch.from_numpy(BIAS).float(), padding=padding, groups=groups, **more
    )
    return y.unflatten(0, (x.shape[0], x.shape[-1])).movedim(1, -1)


def framewise(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        flat = x.movedim(-1, 1).flatten(0, 1)
        return function(flat).unflatten(0, (x.shape[0], x.shape[-1])).movedim(1, -1)

    return run


IMAGE = (2, 6, 7)
NODES: dict[str, tuple[Any, tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "linear": (
        nir.Linear(WEIGHT), (4,),
        lambda x: torch.einsum("oi,nit->not", torch.from_numpy(WEIGHT).float(), x),
    ),
    "affine": (
        nir.Affine(WEIGHT, BIAS[:3]), (4,),
        lambda x: torch.einsum("oi,nit->not", torch.from_numpy(WEIGHT).float(), x)
        + torch.from_numpy(BIAS[:3]).float()[:, None],
    ),
    "scale": (
        nir.Scale(BIAS), (4,), lambda x: x * torch.from_numpy(BIAS).float()[:, None]
    ),
    "scale of an image": (
        nir.Scale(np.arange(84.0).reshape(IMAGE)), IMAGE,
        lambda x: x * torch.arange(84.0).reshape(*IMAGE, 1),
    ),
    "threshold": (nir.Threshold(many(0.5)), (4,), lambda x: (x > 0.5).float()),
    "conv2d": (conv2d(), IMAGE, torch_conv),
    "conv2d padded": (
        conv2d((2, 1), stride=(2, 1)), IMAGE,
        lambda x: torch_conv(x, (2, 1), stride=(2, 1)),
    ),
    "conv2d same": (conv2d("same"), IMAGE, lambda x: torch_conv(x, "same")),
    "conv2d valid": (conv2d("valid"), IMAGE, torch_conv),
    "conv2d groups": (
        conv2d(groups=2, dilation=(2, 1)), IMAGE,
        lambda x: torch_conv(x, groups=2, dilation=(2, 1)),
    ),
    "conv1d": (
        nir.Conv1d(7, KERNEL[:, :, :, 0], 2, 1, 1, 1, BIAS), (2, 7),
        framewise(
            lambda y: nn.functional.conv1d(
                y[:, :, 0], torch.from_numpy(KERNEL[:, :, :, 0]).float(),
                torch.from_numpy(BIAS).float(), 2, 1,
            ).unsqueeze(2)
        ),
    ),
    "sum pool": (
        nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])), IMAGE,
        framewise(lambda y: 4 * nn.functional.avg_pool2d(y, 2)),
    ),
    "avg pool, overlapping": (
        nir.AvgPool2d(np.array([3, 2]), np.array([1, 2]), np.array([1, 0])), IMAGE,
        framewise(lambda y: nn.functional.avg_pool2d(y, (3, 2), (1, 2), (1, 0))),
    ),
    "flatten": (
        nir.Flatten({"input": np.array(IMAGE)}, 0, -1), IMAGE, lambda x: x.flatten(1, 3)
    ),
    "flatten of two axes": (
        nir.Flatten({"input": np.array(IMAGE)}, 1, 2), IMAGE,
        lambda x: x.flatten(2, 3).unsqueeze(2),
    ),
    "delay": (
        nir.Delay(np.array([0, 1, 2, 5]) * DT), (4,),
        lambda x: torch.stack(
            [nn.functional.pad(x[:, i], (d, 0))[..., :STEPS] for i, d in enumerate((0, 1, 2, 5))], 1
        ),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch's, of its own way
@pytest.mark.parametrize("name", NODES)
def test_nodes_without_states(name: str, tmp_path: Path) -> None:
    node, shape, expected = NODES[name]
    ours = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
    x = drive(2, *ours)
    output = both(line(node, shape=shape), x, tmp_path)
    reference = expected(x).numpy()
    assert output.shape == reference.shape
    np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-5)
    assert np.count_nonzero(reference)


def loop(
    x: np.ndarray, *, a: float, b: float, c: float, d: float, e: float, level: float = math.inf,
    reset: str = "zero", value: float = 0.0, strict: bool = True,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """u = a u + b x; v = c v + d u + e, in double; spikes and voltages before a reset."""
    u = v = np.zeros(x.shape[:-1])
    fired = np.zeros(x.shape[:-1], bool)
    spikes, voltages = [], []
    for t in range(x.shape[-1]):
        u = a * u + b * x[..., t]
        v = c * v + d * u + e - (level * fired if reset == "delayed" else 0)
        fired = v > level if strict else v >= level
        spikes.append(fired)
        voltages.append(v)
        if reset == "zero":
            v = np.where(fired, value, v)
        elif reset == "subtract":
            v = np.where(fired, v - level, v)
    return np.stack(spikes, -1), np.stack(voltages, -1)


TAU, SYN = 1.3e-3, 0.7e-3
NEURONS: dict[str, tuple[Any, dict[str, float]]] = {
    "I": (nir.I(many(3000)), {"a": 0, "b": 1, "c": 1, "d": 3000 * DT, "e": 0}),
    "IF": (
        nir.IF(many(3000), many(0.71), many(-0.1)),
        {"a": 0, "b": 1, "c": 1, "d": 3000 * DT, "e": 0, "level": 0.71, "value": -0.1},
    ),
    "LI": (
        nir.LI(many(TAU), many(3), many(0.2)),
        {"a": 0, "b": 1, "c": 1 - DT / TAU, "d": 3 * DT / TAU, "e": 0.2 * DT / TAU},
    ),
    "LIF": (
        nir.LIF(many(TAU), many(3), many(0.2), many(0.6), many(0.1)),
        {"a": 0, "b": 1, "c": 1 - DT / TAU, "d": 3 * DT / TAU, "e": 0.2 * DT / TAU,
         "level": 0.6, "value": 0.1},
    ),
    "CubaLI": (
        nir.CubaLI(many(SYN), many(TAU), many(4), many(-0.1), 1.5),
        {"a": 1 - DT / SYN, "b": 1.5 * DT / SYN, "c": 1 - DT / TAU, "d": 4 * DT / TAU,
         "e": -0.1 * DT / TAU},
    ),
    "CubaLIF": (
        nir.CubaLIF(many(SYN), many(TAU), many(9), many(-0.1), many(0.6), many(0.0), 1.5),
        {"a": 1 - DT / SYN, "b": 1.5 * DT / SYN, "c": 1 - DT / TAU, "d": 9 * DT / TAU,
         "e": -0.1 * DT / TAU, "level": 0.6},
    ),
}  # fmt: skip


@pytest.mark.parametrize("reset", ["zero", "subtract", "delayed"])
@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.gpu
def test_neurons_are_their_equations(name: str, reset: str, tmp_path: Path) -> None:
    node, terms = NEURONS[name]
    if "level" not in terms and reset != "zero":
        pytest.skip("a readout has no reset")
    x = drive(3, 4)
    spikes, voltages = loop(x.numpy().astype(np.float64), reset=reset, **terms)
    output = both(line(node), x, tmp_path, reset=reset)
    if "level" not in terms:
        np.testing.assert_allclose(output, voltages, rtol=1e-5, atol=1e-6)
        return
    margin = np.abs(voltages - terms["level"]).min()
    assert margin > 1e-5, "a case so near its threshold that float32 may decide otherwise"
    np.testing.assert_array_equal(output, spikes)
    assert 0.05 < spikes.mean() < 0.9
    net: Any = so.load_nir(line(node), reset=reset)
    with torch.no_grad():
        membrane = net.layers.n0.dynamics(x)[1].numpy()
    np.testing.assert_allclose(membrane, voltages, rtol=1e-5, atol=1e-5)


def test_exponential_integration(tmp_path: Path) -> None:
    node, terms = NEURONS["LIF"]
    keep = math.exp(-DT / TAU)
    terms = terms | {"c": keep, "d": 3 * (1 - keep), "e": 0.2 * (1 - keep)}
    x = drive(3, 4)
    spikes, _ = loop(x.numpy().astype(np.float64), **terms)
    output = both(line(node), x, tmp_path, integration="exponential")
    np.testing.assert_array_equal(output, spikes)
    assert not np.array_equal(output, both(line(node), x, tmp_path))


def test_a_time_step_of_ones_own(tmp_path: Path) -> None:
    node, terms = NEURONS["LIF"]
    step = 3e-4
    terms = terms | {"c": 1 - step / TAU, "d": 3 * step / TAU, "e": 0.2 * step / TAU}
    spikes, _ = loop(drive(3, 4).numpy().astype(np.float64), **terms)
    np.testing.assert_array_equal(both(line(node), drive(3, 4), tmp_path, dt=step), spikes)


@pytest.mark.parametrize("strict", [True, False])
def test_at_its_threshold(strict: bool, tmp_path: Path) -> None:
    """A voltage that just reaches the threshold: SpikingJelly spikes there, snnTorch does not."""
    node = nir.IF(many(1 / DT), many(2.0), many(0.0))
    x = torch.ones(1, 4, STEPS)
    output = both(line(node), x, tmp_path, framework="nir" if strict else "spikingjelly")
    np.testing.assert_array_equal(np.flatnonzero(output[0, 0])[:2], [2, 5] if strict else [1, 3])


def test_conventions_say_where_they_come_from() -> None:
    assert {"nir", "snntorch", "norse", "spikingjelly", "sinabs", "rockpool"} <= set(CONVENTIONS)
    assert all(convention.source for convention in CONVENTIONS.values())


def rockpool(x: np.ndarray, keep: float, fade: float | None, level: float) -> np.ndarray:
    """Rockpool's LIFTorch, or LIFNeuronTorch without a current; level = inf gives ExpSynTorch."""
    u = v = np.zeros(x.shape[:-1])
    steps = []
    for t in range(x.shape[-1]):
        if math.isinf(level):
            v = keep * (v + x[..., t])
            steps.append(v)
            continue
        u = x[..., t] if fade is None else fade * (u + x[..., t])
        v = keep * v + u
        assert np.abs(v - level).min() > 1e-6
        s = (v >= level).astype(float)
        v = v - level * s
        steps.append(s)
    return np.stack(steps, -1)


@pytest.mark.parametrize("dt", [1e-3, 5e-4])
@pytest.mark.parametrize("kind", ["LI", "LIF", "CubaLIF"])
def test_rockpools_convention(kind: str, dt: float, tmp_path: Path) -> None:
    """What its to_nir writes gives what its forward computes."""
    mem, syn = 1e-2, 5e-3
    keep, fade = math.exp(-dt / mem), math.exp(-dt / syn)
    r, level = many(mem * keep / dt), 2.6
    node, expected = {
        "LI": (nir.LI(many(mem), r, many(0)), (keep, None, math.inf)),
        "LIF": (nir.LIF(many(mem), r, many(0), many(level)), (keep, None, level)),
        "CubaLIF": (nir.CubaLIF(many(syn), many(mem), r, many(0), many(level)),
                    (keep, fade, level)),
    }[kind]  # fmt: skip
    x = drive(3, 4)
    output = both(line(node), x, tmp_path, framework="rockpool", dt=dt)
    reference = rockpool(x.numpy().astype(np.float64), *expected)
    np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-5)
    assert reference.mean() > 0.05


@pytest.mark.parametrize("kind", ["LI", "LIF", "IF"])
def test_sinabs_convention(kind: str, tmp_path: Path) -> None:
    """LIF takes in a share of its input, ExpLeak all of it, time constants are in steps."""
    keep = math.exp(-1 / 8)
    node, share, keep, level = {
        "LI": (nir.LI(many(8), many(1), many(0)), 1, keep, math.inf),
        "LIF": (nir.LIF(many(8), many(1), many(0), many(0.31)), 1 - keep, keep, 0.31),
        "IF": (nir.IF(many(1), many(2.5)), 1, 1, 2.5),
    }[kind]
    x = drive(3, 4)
    output = both(line(node), x, tmp_path, framework="sinabs")
    spikes, voltages = loop(x.numpy().astype(np.float64), a=0, b=1, c=keep, d=share, e=0,
                            level=min(level, 1e9), reset="subtract", strict=False)  # fmt: skip
    reference = voltages if kind == "LI" else spikes
    np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-5)
    assert reference.mean() > 0.05


@pytest.mark.parametrize(
    "said", ["snntorch", b"snnTorch 1.0", "SpikingJelly", "snnTorch's nir export"]
)
def test_the_writer_is_taken_from_the_metadata(said: Any) -> None:
    node, _ = NEURONS["LIF"]
    x = drive(3, 4)
    name = "spikingjelly" if said == "SpikingJelly" else "snntorch"
    with torch.no_grad():
        output = so.load_nir(line(node, framework=said))(x)
        expected = so.load_nir(line(node), framework=name)(x)
        other = so.load_nir(line(node, framework=said), framework="nir", reset="zero")(x)
    assert torch.equal(output, expected)
    assert name != "snntorch" or not torch.equal(output, other)
    with torch.no_grad():
        slow = so.load_nir(line(node, framework=said, dt=3e-4))(x)
        again = so.load_nir(line(node, framework=said, dt=3e-4), dt=1e-4)(x)
    assert not torch.equal(slow, output)
    assert torch.equal(again, output)


def test_parameters_of_every_neuron_of_an_image(tmp_path: Path) -> None:
    shape = (2, 3, 3)
    level = np.linspace(0.3, 1.2, 18).reshape(shape)
    ones = np.ones(shape)
    node = nir.LIF(TAU * ones, 5 * ones, 0 * ones, level)
    x = drive(2, *shape)
    output = both(line(node, shape=shape), x, tmp_path)
    for index in np.ndindex(shape):
        spikes, _ = loop(
            x.numpy()[:, *index].astype(np.float64), a=0, b=1, c=1 - DT / TAU, d=5 * DT / TAU,
            e=0, level=level[index],
        )  # fmt: skip
        np.testing.assert_array_equal(output[:, *index], spikes)


# -- graphs --------------------------------------------------------------------------------------


def lif(count: int = 4, level: float = 0.6) -> Any:
    return nir.LIF(*(np.full(count, value) for value in (TAU, 9.0, 0.0, level)))


def test_branches_add_up_and_there_may_be_several_ends(tmp_path: Path) -> None:
    graph = nir.NIRGraph(
        {
            "left": nir.Input(np.array([4])),
            "right": nir.Input(np.array([4])),
            "w": nir.Linear(WEIGHT),
            "v": nir.Linear(WEIGHT * 2),
            "lif": lif(3),
            "skip": nir.Linear(np.eye(3)),
            "spikes": nir.Output(np.array([3])),
            "sum": nir.Output(np.array([3])),
        },
        [("left", "w"), ("right", "v"), ("w", "lif"), ("v", "lif"), ("lif", "spikes"),
         ("lif", "skip"), ("skip", "sum"), ("w", "sum")],
        type_check=False,
    )  # fmt: skip
    x, y = drive(2, 4), drive(2, 4, seed=1)
    net = so.load_nir(graph)
    weight = torch.from_numpy(WEIGHT).float()
    first, second = (torch.einsum("oi,nit->not", w, z) for w, z in ((weight, x), (2 * weight, y)))
    with torch.no_grad():
        spikes, total = net(x, y)
        alone = so.load_nir(line(lif(3), shape=(3,)))(first + second)
    assert torch.equal(spikes, alone)
    np.testing.assert_allclose(total, spikes + first, rtol=1e-5, atol=1e-5)
    model = so.export(net, [x, y])
    assert [value.name for value in model.graph.input] == ["left", "right"]
    assert so.verify(net, model, [x, y]).ok


def recurrent(weight: np.ndarray, bias: Any = None, *, nested: bool = True) -> nir.NIRGraph:
    inner = {
        "input": nir.Input(np.array([4])),
        "lif": lif(),
        "w_rec": nir.Linear(weight) if bias is None else nir.Affine(weight, bias),
        "output": nir.Output(np.array([4])),
    }
    edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    graph = nir.NIRGraph(inner, edges, type_check=False)
    if not nested:
        return graph
    return nir.NIRGraph(
        {"input": nir.Input(np.array([4])), "rnn": graph, "output": nir.Output(np.array([4]))},
        [("input", "rnn"), ("rnn", "output")],
        type_check=False,
    )


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("bias", [None, np.array([0.1, 0.0, -0.2, 0.3])])
def test_a_cycle_through_a_neuron_is_feedback(bias: Any, nested: bool, tmp_path: Path) -> None:
    weight = np.random.default_rng(3).normal(size=(4, 4))
    x = drive(2, 4)
    output = both(recurrent(weight, bias, nested=nested), x, tmp_path)
    v, s = np.zeros((2, 4)), np.zeros((2, 4))
    steps = []
    for t in range(STEPS):
        current = x.numpy()[..., t] + s @ weight.T + (0 if bias is None else bias)
        v = v + DT / TAU * (9 * current - v)
        assert np.abs(v - 0.6).min() > 1e-6
        s = (v > 0.6).astype(float)
        v = np.where(s > 0, 0, v)
        steps.append(s)
    np.testing.assert_array_equal(output, np.stack(steps, -1))
    model = so.export(so.load_nir(recurrent(weight, bias)), x)
    names = [node.op_type for node in model.graph.node if node.domain == "ai.synapse"]
    assert [name for name in names if name.startswith("Recurrent")] == ["RecurrentLifFloat"]


def test_a_cycle_of_several_linear_nodes_is_one_matrix() -> None:
    first, second = np.random.default_rng(4).normal(size=(2, 4, 4))
    graph = nir.NIRGraph(
        {"input": nir.Input(np.array([4])), "lif": lif(), "a": nir.Affine(first, BIAS),
         "b": nir.Scale(BIAS), "c": nir.Linear(second), "output": nir.Output(np.array([4]))},
        [("input", "lif"), ("lif", "a"), ("a", "b"), ("b", "c"), ("c", "lif"), ("lif", "output")],
        type_check=False,
    )  # fmt: skip
    weight = second @ np.diag(BIAS) @ first
    bias = second @ (BIAS * BIAS)
    x = drive(2, 4)
    with torch.no_grad():
        assert torch.equal(so.load_nir(graph)(x), so.load_nir(recurrent(weight, bias))(x))


@pytest.mark.parametrize(
    "names",
    [("type", "training"), ("float", "forward"), ("a.b", "a_b"), ("", "self"), ("1", "lambda"),
     ("é", "ü"), ("two", "two_sum")],
    ids=str,
)  # fmt: skip
def test_any_names(names: tuple[str, str]) -> None:
    """Names of attributes, of keywords, of nothing, and those that the sums of edges have."""
    first, second = names

    def graph(first: str, second: str) -> nir.NIRGraph:
        nodes = {"input": nir.Input(np.array([4])), second: lif(), first: lif(),
                 "output": nir.Output(np.array([4]))}  # fmt: skip
        edges = [("input", first), ("input", second), (second, first), (first, "output")]
        return nir.NIRGraph(nodes, edges, type_check=False)

    x = drive(2, 4)
    net, plain = so.load_nir(graph(first, second)), so.load_nir(graph("a", "b"))
    with torch.no_grad():
        assert torch.equal(net(x), plain(x))
    assert so.verify(net, so.export(net, x), x).ok


@pytest.mark.gpu
def test_streams_of_a_graph_are_its_whole() -> None:
    graph = line(nir.Linear(3 * np.eye(4)), lif(), nir.Delay(many(3 * DT)), nir.LI(
        many(TAU), many(1), many(0)))  # fmt: skip
    net, x = so.load_nir(graph), drive(2, 4)
    stream = so.Session(so.export(net, x, streaming=True)).stream(2)
    parts = [stream.run(part.numpy()) for part in x.split([7, 1, 32], -1)]
    with torch.no_grad():
        np.testing.assert_allclose(np.concatenate(parts, -1), net(x).numpy(), rtol=1e-5, atol=1e-6)


# -- the way back --------------------------------------------------------------------------------


def written(module: nn.Module, x: Tensor, tmp_path: Path, **how: Any) -> Network:
    """Write a module, read it, and compare."""
    path = tmp_path / "b.nir"
    graph = so.to_nir(module, path, **how)
    for source in (graph, path):
        net = so.load_nir(source)
        with torch.no_grad():
            expected, output = module(x), net(x)
        if set(expected.unique().tolist()) <= {0, 1}:
            assert torch.equal(output, expected)
            assert 0.01 < float(expected.mean()) < 0.95
        else:
            np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
    nir.read(path)  # with nir's own checks of types
    assert isinstance(net, Network)
    return net


@pytest.mark.parametrize("reset", ["zero", "subtract", "delayed"])
def test_lif_networks_come_back(reset: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    params = {"threshold": 0.4, "beta": 0.8, "alpha": 0.3, "reset": reset}
    net = nn.Sequential(
        so.block.lif.Conv(params, 2, 4, 3, padding=1, weight_scale=2, delay_shift=True),
        so.block.lif.Flatten(),
        so.block.lif.Dense(params, 64, 5, weight_scale=3, delay=True),
    ).eval()
    x = drive(2, 2, 4, 4)
    net(x)
    written(net, x, tmp_path, input_shape=(2, 4, 4))


def test_cuba_networks_in_floats_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    params = {"threshold": 0.4, "current_decay": 0.25, "voltage_decay": 0.1, "regime": "float"}
    net = nn.Sequential(
        so.block.cuba.Dense(params, 4, 8, weight_scale=2),
        so.block.cuba.Affine(params, 8, 3),
    ).eval()
    written(net, drive(2, 4), tmp_path, input_shape=(4,), dt=1e-3)


@pytest.mark.parametrize("name", [*NODES, *NEURONS])
@pytest.mark.gpu
@pytest.mark.matrix
def test_what_was_read_comes_back(name: str, tmp_path: Path) -> None:
    node, shape = (NODES[name][0], NODES[name][1]) if name in NODES else (NEURONS[name][0], (4,))
    if name in ("flatten of two axes", "conv2d same"):
        with pytest.raises(so.InputError, match=r"to_nir: n0.* cannot be written"):
            so.to_nir(so.load_nir(line(node, shape=shape)))
        return
    ours = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
    x = drive(2, *ours)
    net = so.load_nir(line(node, shape=shape))
    again = so.load_nir(so.to_nir(net))
    with torch.no_grad():
        np.testing.assert_allclose(again(x), net(x), rtol=1e-5, atol=1e-6)


def test_recurrent_and_branching_graphs_come_back() -> None:
    net = so.load_nir(recurrent(np.random.default_rng(3).normal(size=(4, 4)), BIAS))
    x = drive(2, 4)
    with torch.no_grad():
        assert torch.equal(so.load_nir(so.to_nir(net))(x), net(x))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: so.block.rf.Dense({"threshold": 1, "period": 8, "decay": 0.1}, 4, 3),
         "synapse is a Dense that cannot be written: NIR has no node for it"),
        (lambda: so.block.cuba.Dense({"threshold": 1, "current_decay": 0.1, "voltage_decay": 0.1},
                                     4, 3), "neuron is a Neuron .* float states"),
        (lambda: nn.Sequential(nn.Linear(STEPS, 3)), "0 is a Linear that cannot be written"),
        (lambda: nn.Sequential(
            so.neuron.lif.Neuron(reset="zero"), so.neuron.lif.Neuron(reset="subtract")),
         "1 is a Neuron .*: its reset is subtract, and that of 0 is zero"),
        (lambda: so.neuron.lif.Neuron(norm=so.neuron.norm.MeanOnlyBatchNorm), "NIR has no norm"),
        (lambda: so.neuron.lif.Neuron(reset="delayed_zero"), "goes with a current or with feed"),
        (lambda: so.neuron.lif.Neuron(beta=1.0, drive=0.5), "must lie in"),
        (lambda: so.synapse.Dense(7, 3), "expected 7|takes 7|does not take"),
    ],
)  # fmt: skip
def test_what_nir_cannot_say_is_refused(make: Any, sentence: str, tmp_path: Path) -> None:
    module = make()
    if isinstance(module, nn.Sequential) and isinstance(module[0], nn.Linear):
        with pytest.raises(so.InputError, match=r"cannot be written|does not take"):
            so.to_nir(module, tmp_path / "a.nir", input_shape=(4,))
        return
    with pytest.raises(so.SynapseError, match=sentence):
        so.to_nir(module, tmp_path / "a.nir", input_shape=(4,))
    assert list(tmp_path.iterdir()) == []


def test_the_shape_of_the_input_is_asked_for() -> None:
    with pytest.raises(so.InputError, match="to_nir: give input_shape"):
        so.to_nir(so.synapse.Dense(4, 3))


# -- graphs that are wrong -----------------------------------------------------------------------


def changed(node: Any, **values: Any) -> Any:
    for name, value in values.items():
        setattr(node, name, value)
    return node


class Odd(nir.NIRNode):
    """A node that nobody knows."""

    def __init__(self) -> None:
        self.input_type = self.output_type = {}


def with_edges(*edges: tuple[str, str], **nodes: Any) -> nir.NIRGraph:
    parts = {"input": nir.Input(np.array([4])), "lif": lif(), "output": nir.Output(np.array([4]))}
    return nir.NIRGraph(parts | nodes, list(edges), type_check=False)


def nir_flatten(start: float, end: int) -> Any:
    return changed(nir.Flatten({"input": np.array(IMAGE)}, 0, -1), start_dim=start, end_dim=end)


GOOD = (("input", "lif"), ("lif", "output"))

WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown": (lambda: line(Odd()), "node n0 is a Odd; known are: Affine, AvgPool2d"),
    "nan": (lambda: line(changed(lif(), tau=many(math.nan))), r"node n0 \(LIF\), tau: .* finite"),
    "infinite": (lambda: line(nir.Linear(WEIGHT * math.inf)), "n0 .Linear., weight: it holds"),
    "tau": (lambda: line(changed(lif(), tau=many(-1))), "n0 .LIF., tau: it must be above zero"),
    "short": (lambda: line(changed(lif(), tau=many(1e-6))), "is longer than this time constant"),
    "missing": (lambda: line(changed(lif(), r=None)), r"n0 \(LIF\), r: it .*numbers|r: it is miss"),
    "size": (lambda: line(lif(3)), "node n0 .LIF.: |n0 .LIF., its parameters|lif neuron"),
    "weight": (lambda: line(nir.Linear(np.ones((3, 5)))), "it takes 5 inputs, and its input has"),
    "axes": (lambda: line(nir.Linear(np.ones((2, 3, 4)))), "weight: it must have two axes"),
    "bias": (lambda: line(nir.Affine(WEIGHT, np.ones(7))), "bias: it holds 7 values for 3"),
    "image": (lambda: line(conv2d()), "n0 .Conv2d., .*, and its input has the shape .4,."),
    "kernel": (lambda: line(conv2d(), shape=(2, 2, 1)), "its kernel .3, 2. is larger than the im"),
    "stride": (
        lambda: line(changed(conv2d(), stride=(0, 1)), shape=IMAGE),
        "stride: it must be 2 integers",
    ),
    "delay": (lambda: line(nir.Delay(many(1.5 * DT))), "is not a whole number of time steps of 0"),
    "late": (lambda: line(nir.Delay(many(1e9))), "delay: it must be 0 to 65536 steps"),
    "edge": (lambda: with_edges(*GOOD, ("lif", "nowhere")), "an edge names nowhere, which is no"),
    "loose": (lambda: with_edges(("lif", "output")), "node lif has no input"),
    "no input": (
        lambda: nir.NIRGraph({"a": nir.Linear(np.eye(4)), "b": nir.Linear(np.eye(4))},
                             [("a", "b")], type_check=False),
        "node a has no input",
    ),
    "no output": (
        lambda: nir.NIRGraph({"input": nir.Input(np.array([4])), "lif": lif()},
                             [("input", "lif")], type_check=False),
        "the graph has no Output node",
    ),
    "algebraic": (
        lambda: with_edges(*GOOD, ("input", "a"), ("a", "b"), ("b", "a"), a=nir.Linear(np.eye(4)),
                           b=nir.Linear(np.eye(4))),
        "a cycle without a spiking neuron: an algebraic loop, with no time step in it",
    ),
    "two neurons": (
        lambda: with_edges(("input", "lif"), ("lif", "two"), ("two", "lif"), ("two", "output"),
                           two=lif()),
        "are a cycle through 2 neurons; feedback through one is supported",
    ),
    "conv in a cycle": (
        lambda: with_edges(*GOOD, ("lif", "c"), ("c", "lif"), c=conv2d()),
        "node c .Conv2d. is part of a feedback path, which may hold only Linear, Affine, Scale",
    ),
    "feedback": (lambda: recurrent(np.ones((3, 4))), "must be square"),
    "shapes": (
        lambda: with_edges(*GOOD, ("input", "w"), ("w", "output"), w=nir.Linear(WEIGHT)),
        "the inputs of node output have different shapes: .3,., .4,.",
    ),
    "huge": (lambda: line(lif(), shape=(1 << 30,)), "an input of shape|too many"),
    "dt": (lambda: line(lif(), framework="snntorch", dt=-1.0), "metadata: dt must be a finite"),
    "dt text": (lambda: line(lif(), dt="soon"), "graph's metadata: dt: it is no number, got 's"),
    "two dt": (lambda: line(lif(), dt=np.array([DT, DT])), "metadata: dt holds 2 values"),
    "word": (
        lambda: line(lif(), framework="synapse-onnx", rest="moon"),
        "metadata: rest must be one of zero, v_reset, v_leak, got 'moon'",
    ),
    "strict": (
        lambda: line(lif(), framework="synapse-onnx", strict="no"),
        "metadata: strict must be true or false, got 'no'",
    ),
    "tau_unit": (
        lambda: line(lif(), framework="synapse-onnx", tau_unit=-1.0),
        "metadata: tau_unit must be a finite number of seconds > 0, got -1.0",
    ),
    "complex": (lambda: line(changed(lif(), r=many(1) * 1j)), "n0 .LIF., r: it holds complex"),
    "float32": (lambda: line(nir.Linear(WEIGHT * 1e300)), "weight: .* too large for float32"),
    "negative": (lambda: line(nir.Delay(many(-DT))), "delay: it must be 0 to 65536 steps, got -1"),
    "input": (lambda: line(lif(), shape=(-1, 4, 4)), r"node input .Input.: an input of shape .-1"),
    "wide": (lambda: line(lif(), shape=(1 << 20, 1 << 20)), r"node input .Input.: an input of s"),
    "broken input": (
        lambda: line(lif(), shape=(4.5,)), r"node input \(Input\): its shape holds no whole numbers"
    ),
    "pool": (
        lambda: line(nir.SumPool2d(*(np.array([n, n]) for n in (10**5, 1, 10**5))), shape=IMAGE),
        r"n0 \(SumPool2d\), kernel_size: its kernel .100000, 100000. is too large",
    ),
    "padding": (
        lambda: line(conv2d((10**5, 10**5), stride=(10**5, 10**5)), shape=IMAGE),
        r"n0 \(Conv2d\), padding: an image of .200006, 200007. with it is too large",
    ),
    "axis": (
        lambda: line(nir_flatten(7, -1), shape=IMAGE),
        r"n0 \(Flatten\), start_dim: there is no axis 7 in .2, 6, 7",
    ),
    "axis below": (
        lambda: line(nir_flatten(-9, -1), shape=IMAGE), "start_dim: it must be an integer from -3"
    ),
    "half an axis": (
        lambda: line(nir_flatten(0.5, -1), shape=IMAGE), "start_dim: it must be an integer from -3"
    ),
    "pairs": (lambda: changed(line(lif()), edges=[("input", "n0", "x")]), "edges are no pairs"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_sentence(name: str) -> None:
    make, sentence = WRONG[name]
    graph = make()
    with pytest.raises(so.SynapseError, match=sentence) as caught:
        so.load_nir(graph)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"framework": "brian"}, "framework must be one of nir, .*, got 'brian'"),
        ({"reset": "hard"}, "reset must be one of zero, .*, got 'hard'"),
        ({"integration": "rk4"}, "integration must be one of euler, exponential, got 'rk4'"),
        ({"dt": 0.0}, "dt must be a finite number of seconds > 0, got 0.0"),
    ],
)
def test_options_that_are_none(how: dict[str, Any], sentence: str) -> None:
    with pytest.raises(so.InputError, match=sentence):
        so.load_nir(line(lif()), **how)


def test_files_that_hold_no_graph(tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    with pytest.raises(so.InputError, match="no such file"):
        so.load_nir(path)
    path.write_bytes(b"nothing")
    with pytest.raises(so.InputError, match="is no HDF5 file, or a damaged one"):
        so.load_nir(path)
    with h5py.File(path, "w") as file:
        file["layer"] = 3
    with pytest.raises(so.InputError, match="is not a NIR graph: it has no group 'node'"):
        so.load_nir(path)
    nir.write(path, lif())
    with pytest.raises(so.InputError, match="holds a single NIR node, not a graph"):
        so.load_nir(path)
    nir.write(path, line(lif()))
    with h5py.File(path, "a") as file:
        del file["node/nodes/n0/tau"]
    with pytest.raises(so.InputError, match=r"node n0 \(LIF\), tau: it is missing"):
        so.load_nir(path)
    with h5py.File(path, "a") as file:
        del file["node/nodes/n0/type"]
    with pytest.raises(so.InputError, match=r"a.nir: node n0 has no type"):
        so.load_nir(path)
    with h5py.File(path, "a") as file:
        file["node/nodes/n0/type"] = "Izhikevich"
    with pytest.raises(so.InputError, match=r"node n0 is a Izhikevich; known are: Affine"):
        so.load_nir(path)
    nir.write(path, line(lif()))
    with h5py.File(path, "a") as file:
        del file["node/nodes/input/shape"]
    with pytest.raises(so.InputError, match=r"node input \(Input\), shape: it is missing"):
        so.load_nir(path)


ODD_VALUES: dict[str, Any] = {
    "text": "soon", "bytes": np.bytes_(b"\xff"), "empty": np.zeros(0), "nan": np.nan,
    "huge": np.full(4, 1e300), "negative": np.full(4, -1.0), "cube": np.ones((2, 2, 2)),
    "scalar": 1.0,
    "complex": np.full(4, 1j), "texts": np.array([b"a", b"b"]), "integers": np.full(4, 2**62),
    "group": None,
}  # fmt: skip


@pytest.mark.parametrize("value", ODD_VALUES)
def test_any_value_in_any_place_is_read_or_refused(value: str, tmp_path: Path) -> None:
    """Every dataset of a file in turn becomes something else, or is gone."""
    source, path = tmp_path / "good.nir", tmp_path / "a.nir"
    image = nir.NIRGraph(
        {
            "input": nir.Input(np.array(IMAGE)), "conv": conv2d(), "flat": nir_flatten(0, -1),
            "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
            "affine": nir.Affine(np.ones((4, 24)), np.ones(4)), "delay": nir.Delay(many(DT)),
            "scale": nir.Scale(many(2)), "rnn": recurrent(np.eye(4), np.ones(4), nested=False),
            "cuba": NEURONS["CubaLIF"][0], "output": nir.Output(np.array([4])),
        },
        [("input", "conv"), ("conv", "pool"), ("pool", "flat"), ("flat", "affine"),
         ("affine", "delay"), ("delay", "scale"), ("scale", "rnn"), ("rnn", "cuba"),
         ("cuba", "output")],
        metadata={"framework": "snntorch", "dt": DT}, type_check=False,
    )  # fmt: skip
    image.nodes["flat"].input_type = {"input": np.array([4, 2, 3])}
    nir.write(source, image)
    so.load_nir(source)
    places: list[str] = []
    with h5py.File(source) as file:
        file.visititems(lambda name, item: places.append(name) if hasattr(item, "shape") else None)
    refused: list[str] = []
    for place in places:
        path.write_bytes(source.read_bytes())
        with h5py.File(path, "a") as file:
            del file[place]
            if ODD_VALUES[value] is None:
                file.create_group(place)
            else:
                file[place] = ODD_VALUES[value]
        try:
            so.load_nir(path)
        except so.SynapseError as error:
            refused.append(str(error))
    assert [sentence for sentence in refused if "\n" in sentence] == []
    assert [sentence for sentence in refused if str(path) not in sentence] == []
    assert len(places) > 50
    assert len(refused) > len(places) // 3


def test_bytes_that_are_changed_at_random_never_raise_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    nir.write(path, recurrent(np.eye(4)))
    assert refusals(so.load_nir, path.read_bytes(), path, rounds=120, most=40) > 10


def test_nir_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(so.InputError, match=r"load_nir needs the package nir: pip install"):
        so.load_nir("a.nir")
