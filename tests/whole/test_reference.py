"""lava-dl's recorded outputs, through torch and through ONNX Runtime."""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import together
import torch
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.gpu

FOLDER = Path(__file__).parents[1] / "reference"
FILES = {path.stem: path for path in sorted(FOLDER.glob("*.npz"))}
SYNAPSES = [name for name in FILES if name.startswith("synapse")]
NEURONS = [name for name in FILES if name.startswith("neuron")]
NETWORKS = [name for name in FILES if name.startswith("net")]
DELAYS = [name for name in FILES if name.startswith("axon")]

ACTIVATIONS = {"relu": torch.relu, None: None}

#: float sums in another order: relative to the largest reference value
FLOAT = 1e-5


@dataclass
class Case:
    """One recorded case, with the layer built and loaded as its checkpoint says."""

    layer: nn.Module
    kwargs: dict[str, Any]
    #: one input, or the parts of a complex one
    inputs: tuple[Tensor, ...]
    outputs: list[np.ndarray]
    exact: bool

    def arrays(self) -> list[np.ndarray]:
        return [x.numpy() for x in self.inputs]


class Parts(nn.Module):
    """A resonator whose complex current comes as two arguments."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, real: Tensor, imag: Tensor) -> Tensor:
        return self.neuron((real, imag))


class Layers(nn.Module):
    """A network of blocks that returns what every block returns."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        results = []
        for block in self.blocks:
            x = block(x)
            results.append(x)
        return tuple(results)


def build(kind: str, kwargs: dict[str, Any], *, hooked: bool) -> nn.Module:
    """The layer or network that a case was recorded from."""
    arguments = dict(kwargs)
    if kind.startswith("synapse"):
        module = so.synapse.complex if ".complex." in kind else so.synapse
        if kind.endswith("ool"):
            arguments["merge_channels"] = True  # as lava-dl computes it
        arguments["pre_hook_fx"] = so.quantize.q8 if hooked else None
        return getattr(module, kind.rsplit(".", 1)[-1])(**arguments)
    if kind.startswith("axon"):
        return so.axon.Delay(**arguments)
    if kind.startswith("net"):
        namespace, parameters = getattr(so.block, kwargs["neuron"]), dict(kwargs["neuron_params"])
        if "activation" in parameters:
            parameters["activation"] = ACTIVATIONS[parameters["activation"]]
        return Layers(
            [
                getattr(namespace, name)(
                    *([] if name in ("Flatten", "Average") else [parameters]), *args, **more
                )
                for name, args, more in kwargs["blocks"]
            ]
        )
    if "activation" in arguments:
        arguments["activation"] = ACTIVATIONS[arguments["activation"]]
    return getattr(so.neuron, kind.rsplit(".", 1)[-1]).Neuron(**arguments)


@cache
def load(name: str) -> Case:
    with np.load(FILES[name]) as file:
        arrays = {key: file[key] for key in file.files}
    kind, kwargs = str(arrays["kind"]), json.loads(str(arrays["kwargs"]))
    hooked = kwargs.pop("quantize", None) == "q8"
    layer = build(kind, kwargs, hooked=hooked)
    layer.load_state_dict(
        {
            key.removeprefix("param."): torch.from_numpy(value)
            for key, value in arrays.items()
            if key.startswith("param.")
        }
    )
    names = [key for key in ("output", "output_real", "output_imag") if key in arrays]
    if kind.startswith("net"):
        names = sorted((key for key in arrays if key.startswith("layer")), key=lambda k: int(k[5:]))
        assert np.array_equal(arrays[names[-1]], arrays["output"])
    inputs = [key for key in ("input", "input_real", "input_imag") if key in arrays]
    if len(inputs) == 2:
        layer = Parts(layer)
    return Case(
        layer.eval(),
        kwargs,
        tuple(torch.from_numpy(arrays[key]) for key in inputs),
        [arrays[key] for key in names],
        hooked or not kind.startswith("synapse"),
    )


def reset(module: nn.Module) -> None:
    """Forget the states of every layer."""
    for layer in module.modules():
        if hasattr(layer, "reset"):
            layer.reset()


def compare(case: Case, found: Any) -> None:
    values = [np.asarray(v) for v in (found if isinstance(found, tuple) else (found,))]
    assert len(values) == len(case.outputs)
    for value, reference in zip(values, case.outputs, strict=True):
        assert value.shape == reference.shape
        assert value.dtype == reference.dtype
        if case.exact:
            np.testing.assert_array_equal(value, reference)
        else:
            assert np.abs(value - reference).max() <= FLOAT * np.abs(reference).max()


def test_the_cases_are_all_here() -> None:
    counts = (len(SYNAPSES), len(NEURONS), len(NETWORKS), len(DELAYS))
    assert counts == (176, 87, 9, 2)
    assert all(np.abs(output).sum() > 0 for name in FILES for output in load(name).outputs)


def _alike(name: str) -> tuple[object, ...]:
    """What is exported together: the same batch and steps; a network by itself."""
    if name.startswith("net"):
        return (name,)
    x = load(name).inputs[0]
    return (name.partition("_")[0], x.shape[0], x.shape[-1])


def _apart(name: str) -> tuple[str, ...]:
    """Layers of one op: Dense complex q8, cuba, delay."""
    if name.startswith("synapse"):
        return tuple(part for part in name.split("_")[2:] if part != "wn")
    return (name.split("_")[2] if name.startswith("neuron") else "delay",)


GROUPS = [
    tuple(group)
    for names in (SYNAPSES, NEURONS, NETWORKS, DELAYS)
    for group in together.groups(names, alike=_alike, apart=_apart, most=20)
]
GROUP = {name: group for group in GROUPS for name in group}
#: in a stream all states are kept, so that all nodes of an op have the same body
STREAMS = {
    name: tuple(group)
    for names in (NEURONS, NETWORKS, DELAYS)
    for group in together.groups(names, alike=_alike, apart=lambda name: name, most=20)
    for name in group
}
#: cases of one group one after the other, for a worker that runs a part of the tests
ORDERED = list(GROUP)


@cache
def exported(group: tuple[str, ...], streaming: bool = False) -> together.Together:
    """The layers of a group in one model, a branch each."""
    cases = {name: load(name) for name in group}
    branches = [
        together.Branch(name, case.layer, case.inputs, len(case.outputs))
        for name, case in cases.items()
    ]
    return together.export(branches, streaming=streaming)


@cache
def session_of(group: tuple[str, ...]) -> so.Session:
    return so.Session(exported(group).model)


@cache
def ran(group: tuple[str, ...]) -> dict[str, tuple[np.ndarray, ...]]:
    """Outputs of ONNX Runtime, by case."""
    model = exported(group)
    return model.by_branch(session_of(group).run(*model.arrays))


@pytest.mark.parametrize("name", [name for name in ORDERED if name in SYNAPSES])
def test_synapse(name: str) -> None:
    case = load(name)
    with torch.no_grad():
        found = case.layer(*case.inputs)
    compare(case, tuple(y.numpy() for y in found) if isinstance(found, tuple) else found.numpy())
    compare(case, ran(GROUP[name])[name])


@pytest.mark.parametrize("name", [name for name in SYNAPSES if "ool" in name])
def test_merged_pools_are_lava_dl_bit_for_bit(name: str) -> None:
    case = load(name)
    with torch.no_grad():
        found = case.layer(*case.inputs)
    found = found if isinstance(found, tuple) else (found,)
    for value, reference in zip(found, case.outputs, strict=True):
        np.testing.assert_array_equal(value.numpy(), reference)


def in_torch(case: Case) -> Any:
    reset(case.layer)
    with torch.no_grad():
        found = case.layer(*case.inputs)
    return tuple(y.numpy() for y in found) if isinstance(found, tuple) else found.numpy()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.matrix] * (name in NETWORKS))
        for name in ORDERED
        if name not in SYNAPSES
    ],
)
def test_neurons_delays_and_every_layer_of_networks(name: str) -> None:
    case = load(name)
    compare(case, in_torch(case))
    compare(case, ran(GROUP[name])[name])
    if "chunked" not in name:
        # a second code path: what autograd follows
        found = copy.deepcopy(case.layer).train()(*case.inputs)
        several = isinstance(found, tuple)
        compare(case, tuple(y.detach() for y in found) if several else found.detach().numpy())


#: chunks of a sequence: step by step, some steps, and all that is left
CHUNKS = (1, 7, 1, 1, 5)


def cut(steps: int) -> list[slice]:
    """Parts of a sequence of so many steps."""
    ends = [min(end, steps) for end in itertools.accumulate(CHUNKS)]
    return [slice(*pair) for pair in itertools.pairwise([0, *ends, steps]) if pair[0] < pair[1]]


@pytest.mark.parametrize("name", [name for name in NEURONS if name.endswith("chunked")])
def test_neurons_in_chunks_in_torch(name: str) -> None:
    case = load(name)
    assert case.kwargs["persistent_state"]
    reset(case.layer)
    parts = cut(case.inputs[0].shape[-1])
    with torch.no_grad():
        found = [case.layer(*(x[..., part] for x in case.inputs)).numpy() for part in parts]
    compare(case, np.concatenate(found, axis=-1))
    reset(case.layer)


@cache
def streamed(group: tuple[str, ...]) -> dict[str, tuple[np.ndarray, ...]]:
    """Outputs of ONNX Runtime in chunks, by case."""
    model = exported(group, streaming=True)
    stream = so.Session(model.model).stream(model.arrays[0].shape[0])
    parts = [
        model.by_branch(stream.run(*(x[..., part] for x in model.arrays)))
        for part in cut(model.arrays[0].shape[-1])
    ]
    return {
        name: tuple(
            np.concatenate(pieces, axis=-1)
            for pieces in zip(*(part[name] for part in parts), strict=True)
        )
        for name in group
    }


@pytest.mark.parametrize("name", STREAMS)
def test_streams_in_chunks(name: str) -> None:
    """The recorded output of the whole, step by step and in chunks."""
    compare(load(name), streamed(STREAMS[name])[name])


#: one kind of each layer, q8, so that equality can be asked for
KINDS = [
    next(name for name in SYNAPSES if f"_{kind}_{form}_q8" in name)
    for kind in ("Dense", "Conv", "ConvTranspose", "Pool", "Unpool")
    for form in ("real", "complex")
]


LENGTHS = list(
    dict.fromkeys(GROUP[name] for name in (*KINDS, "neuron_00_cuba_3d", "neuron_00_cuba_5d"))
)


@pytest.mark.parametrize("group", LENGTHS, ids=lambda group: group[0])
def test_one_file_serves_all_lengths_and_batches(group: tuple[str, ...]) -> None:
    """Every case of these groups."""
    model, session = exported(group), session_of(group)
    generator = torch.Generator().manual_seed(0)
    for steps, batch in itertools.product((1, 7, 50), (1, 3)):
        drawn = {
            name: [
                torch.randint(-8, 24, (batch, *x.shape[1:-1], steps), generator=generator) / 8
                for x in load(name).inputs
            ]
            for name in group
        }
        feeds = [x.numpy() for inputs in drawn.values() for x in inputs]
        found = model.by_branch(session.run(*feeds))
        for name, inputs in drawn.items():
            case = load(name)
            reset(case.layer)
            with torch.no_grad():
                expected = case.layer(*inputs)
            expected = expected if isinstance(expected, tuple) else (expected,)
            for y, z in zip(expected, found[name], strict=True):
                if case.exact:
                    np.testing.assert_array_equal(z, y.numpy())
                else:
                    assert np.abs(z - y.numpy()).max() <= FLOAT * np.abs(y.numpy()).max()
