"""NIR graphs and files that are wrong: one sentence each."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from damage import refusals
from nir_graphs import DT, IMAGE, NEURONS, WEIGHT, conv2d, lif, line, many, recurrent

import synapse_onnx as so


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
        "a cycle without a neuron: an algebraic loop, with no time step in it",
    ),
    "two ways in": (
        lambda: with_edges(("input", "lif"), ("input", "two"), ("lif", "two"), ("two", "lif"),
                           ("two", "output"), two=lif()),
        "nodes lif, two are a cycle with several ways in, and which of its edges takes a time step",
    ),
    "conv in a cycle": (
        lambda: with_edges(*GOOD, ("lif", "c"), ("c", "lif"), c=conv2d()),
        "node c .Conv2d., .*it takes 2 channels, and its input has the shape .4,.",
    ),
    "delay in a cycle": (
        lambda: with_edges(*GOOD, ("lif", "late"), ("late", "lif"), late=nir.Delay(many(DT))),
        "nodes lif, late are a cycle with a Delay, and NIR does not say whether an edge that leads",
    ),
    "other neurons in a cycle": (
        lambda: with_edges(*GOOD, ("lif", "three"), ("three", "two"), ("two", "lif"), two=lif(3),
                           three=nir.Linear(WEIGHT)),
        "the inputs of node lif have different shapes: .3,., .4,.",
    ),
    "an end in a cycle": (
        lambda: with_edges(*GOOD, ("lif", "input")),
        "the nodes input, lif are a cycle through an end",
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


@pytest.mark.parametrize("name", ["unknown", "tau", "short", "two ways in", "algebraic", "weight"])
def test_an_error_of_a_graph_points_to_the_live_network(name: str, tmp_path: Path) -> None:
    graph, advice = WRONG[name][0](), "; if you have the live network, so.export(network, x) takes"
    with pytest.raises(so.SynapseError) as caught:
        so.load_nir(graph)
    assert str(caught.value).count(advice) == 1
    if name == "unknown":
        path = tmp_path / "a.nir"
        nir.write(path, line(lif()))
        with h5py.File(path, "a") as file:
            del file["node/nodes/n0/type"]
            file["node/nodes/n0/type"] = "Izhikevich"
        with pytest.raises(so.InputError) as caught:
            so.load_nir(path)
        assert str(caught.value).count(advice) == 1


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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* assumed :UserWarning")  # of those that are read
@pytest.mark.parametrize("value", ODD_VALUES)
def test_any_value_in_any_place_is_read_or_refused(value: str, tmp_path: Path) -> None:
    """Datasets of a file become something else, or are gone: each in turn, to four values of 12."""
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
    so.load_nir(source, reset="delayed")
    places: list[str] = []
    with h5py.File(source) as file:
        file.visititems(lambda name, item: places.append(name) if hasattr(item, "shape") else None)
    assert len(places) > 50
    tried = places[list(ODD_VALUES).index(value) % 3 :: 3]
    refused: list[str] = []
    for place in tried:
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
    assert len(refused) > len(tried) // 3


@pytest.mark.filterwarnings("ignore:.* assumed :UserWarning")  # of those that are read
def test_bytes_that_are_changed_at_random_never_raise_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    nir.write(path, recurrent(np.eye(4)))
    assert refusals(so.load_nir, path.read_bytes(), path, rounds=120, most=40) > 10


def test_nir_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(so.InputError, match=r"load_nir needs the package nir: pip install"):
        so.load_nir("a.nir")
