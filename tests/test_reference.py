"""lava-dl's recorded outputs, through torch and through ONNX Runtime."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so

FOLDER = Path(__file__).parent / "reference"
FILES = {path.stem: path for path in sorted(FOLDER.glob("*.npz"))}
SYNAPSES = [name for name in FILES if name.startswith("synapse")]
NEURONS = [name for name in FILES if name.startswith("neuron")]

#: float sums in another order: relative to the largest reference value
FLOAT = 1e-5


@dataclass
class Case:
    """One recorded case, with the layer built and loaded as its checkpoint says."""

    layer: nn.Module
    kwargs: dict[str, Any]
    input: Tensor
    outputs: list[np.ndarray]
    exact: bool


@cache
def load(name: str) -> Case:
    with np.load(FILES[name]) as file:
        arrays = {key: file[key] for key in file.files}
    kind, kwargs = str(arrays["kind"]), json.loads(str(arrays["kwargs"]))
    arguments = dict(kwargs)
    quantized = arguments.pop("quantize", None) == "q8"
    if kind.startswith("synapse"):
        module = so.synapse.complex if ".complex." in kind else so.synapse
        if kind.endswith("ool"):
            arguments["merge_channels"] = True  # as lava-dl computes it
        arguments["pre_hook_fx"] = so.quantize.q8 if quantized else None
        layer = getattr(module, kind.rsplit(".", 1)[-1])(**arguments)
    else:
        layer = so.neuron.cuba.Neuron(**arguments)
    layer.load_state_dict(
        {
            key.removeprefix("param."): torch.from_numpy(value)
            for key, value in arrays.items()
            if key.startswith("param.")
        }
    )
    outputs = [arrays[key] for key in ("output", "output_real", "output_imag") if key in arrays]
    exact = quantized or kind.startswith("neuron")
    return Case(layer.eval(), kwargs, torch.from_numpy(arrays["input"]), outputs, exact)


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
    assert (len(SYNAPSES), len(NEURONS)) == (176, 24)
    assert all(np.abs(output).sum() > 0 for name in FILES for output in load(name).outputs)


@pytest.mark.parametrize("name", SYNAPSES)
def test_synapse(name: str) -> None:
    case = load(name)
    with torch.no_grad():
        found = case.layer(case.input)
    compare(case, tuple(y.numpy() for y in found) if isinstance(found, tuple) else found.numpy())
    model = so.export(case.layer, case.input)
    compare(case, so.Session(model).run(case.input.numpy()))


@pytest.mark.parametrize("name", [name for name in SYNAPSES if "ool" in name])
def test_merged_pools_are_lava_dl_bit_for_bit(name: str) -> None:
    case = load(name)
    with torch.no_grad():
        found = case.layer(case.input)
    found = found if isinstance(found, tuple) else (found,)
    for value, reference in zip(found, case.outputs, strict=True):
        np.testing.assert_array_equal(value.numpy(), reference)


@pytest.mark.parametrize("name", NEURONS)
def test_neuron_whole(name: str) -> None:
    case = load(name)
    for training in (True, False):  # two code paths: composed, and fused
        case.layer.train(training)
        case.layer.reset()
        with torch.no_grad():
            compare(case, case.layer(case.input).numpy())
    case.layer.reset()
    compare(case, so.Session(so.export(case.layer, case.input)).run(case.input.numpy()))


class Stateful(nn.Module):
    """The CUBA op with its states as inputs and outputs."""

    def __init__(self, neuron: so.neuron.cuba.Neuron) -> None:
        super().__init__()
        self.neuron = neuron
        self.register_buffer("current_decay", neuron.decay("current_decay").detach())
        self.register_buffer("voltage_decay", neuron.decay("voltage_decay").detach())

    def forward(self, x: Tensor, current: Tensor, voltage: Tensor) -> tuple[Tensor, ...]:
        n = self.neuron
        return torch.ops.synapse.cuba(
            x, self.current_decay, self.voltage_decay, current, voltage,
            n.s_scale, n.integer_threshold, 1.0, 1.0, n.graded_spike,
        )  # fmt: skip


@pytest.mark.parametrize("name", [name for name in NEURONS if name.endswith("chunked")])
@pytest.mark.parametrize("length", [1, 7, 23])
def test_neuron_in_chunks(name: str, length: int) -> None:
    case = load(name)
    assert case.kwargs["persistent_state"]
    case.layer.reset()
    chunks = case.input.split(length, dim=-1)
    with torch.no_grad():
        compare(case, torch.cat([case.layer(chunk) for chunk in chunks], dim=-1).numpy())
    case.layer.reset()

    session = stateful_session(name)
    states = [np.zeros(case.input.shape[:-1], np.int64)] * 2
    spikes = []
    for chunk in chunks:
        y, *states = session.run(chunk.numpy(), *states)
        spikes.append(y)
    compare(case, np.concatenate(spikes, axis=-1))


@cache
def stateful_session(name: str) -> so.Session:
    case = load(name)
    state = torch.zeros(case.input.shape[:-1], dtype=torch.int64)
    states = [state] * 2
    model = so.export(Stateful(case.layer), (case.input, *states))
    return so.Session(model)


#: one kind of each layer, q8, so that equality can be asked for
KINDS = [
    next(name for name in SYNAPSES if f"_{kind}_{form}_q8" in name)
    for kind in ("Dense", "Conv", "ConvTranspose", "Pool", "Unpool")
    for form in ("real", "complex")
]


@pytest.mark.parametrize("name", [*KINDS, "neuron_00_cuba_3d", "neuron_00_cuba_5d"])
def test_one_file_serves_all_lengths_and_batches(name: str) -> None:
    case = load(name)
    case.layer.eval()
    session = so.Session(so.export(case.layer, case.input))
    generator = torch.Generator().manual_seed(0)
    for steps in (1, 7, 50):
        for batch in (1, 3):
            shape = (batch, *case.input.shape[1:-1], steps)
            x = torch.randint(-8, 24, shape, generator=generator).float() / 8
            if hasattr(case.layer, "reset"):
                case.layer.reset()
            with torch.no_grad():
                expected = case.layer(x)
            found = session.run(x.numpy())
            if not isinstance(expected, tuple):
                expected, found = (expected,), (found,)
            for y, z in zip(expected, found, strict=True):
                np.testing.assert_array_equal(y.numpy(), z)
