"""Modules of single steps in files: over sequences, and as streams."""

from __future__ import annotations

import copy
import itertools
import random
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from stepping import CELLS, KEEPING, as_sequence, exact, example, looped
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.model.metadata import Metadata

pytestmark = pytest.mark.usefixtures("compiled_once")

#: one step, and a sequence that begins with it
STEP = example(1, 3)[0]
SEQUENCE = as_sequence(STEP)

#: modules of which files are made: one for each way to keep a state, without those that
#: differ for Python alone; the two layers of Deep keep attributes
FILES = ("number", "buffer", "dictionary", "named tuple", "delay line")
NAMES = (*FILES, *CELLS)


def _make(name: str) -> nn.Module:
    return KEEPING[name]() if name in KEEPING else CELLS[name][0]()


@cache
def _stream(name: str) -> onnx.ModelProto:
    return so.export(_make(name), STEP, streaming=True)


def _reference(name: str, x: Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        outputs = so.over_time(_make(name))(x) if name in CELLS else looped(KEEPING[name], x)
    leaves = torch.utils._pytree.tree_leaves(outputs)
    return [y.numpy() for y in leaves if y is not None]


def _rows(result: Any) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", NAMES)
def test_any_chunks_are_the_whole_and_so_are_steps(name: str) -> None:
    x, session = example(23, 2, seed=5), so.Session(_stream(name))
    expected, draw = _reference(name, x), random.Random(name)
    assert all(np.count_nonzero(y) > 0 for y in expected)
    for _ in range(4):
        cuts = sorted({0, 23, *draw.choices(range(24), k=draw.randrange(12))})
        stream = session.stream(batch=2)
        parts = [_rows(stream.run(x[a:b].numpy())) for a, b in itertools.pairwise(cuts)]
        for column, whole in zip(zip(*parts, strict=True), expected, strict=True):
            np.testing.assert_array_equal(np.concatenate(column), whole)
    stream = session.stream(batch=2)
    for t, x_t in enumerate(x):
        for y, whole in zip(_rows(stream.step(x_t.numpy())), expected, strict=True):
            np.testing.assert_array_equal(y, whole[t])


@pytest.mark.parametrize("name", NAMES)
def test_the_file_of_a_sequence(name: str) -> None:
    net = so.over_time(_make(name))
    model = so.export(net, SEQUENCE)
    (value,) = model.graph.input
    assert [d.dim_param for d in value.type.tensor_type.shape.dim][:2] == ["T", "N"]
    session = so.Session(model)
    for steps, batch in [(23, 2), (1, 3)]:
        x = example(steps, batch, seed=9)
        for y, whole in zip(_rows(session.run(x.numpy())), _reference(name, x), strict=True):
            np.testing.assert_array_equal(y, whole)
    report = so.verify(net, model, SEQUENCE)
    assert report.ok, str(report)


class Deep(nn.Module):
    """Two layers, of which the spikes alone are returned."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = _make("attribute"), _make("attribute")
        self.second.fc = exact(nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@cache
def _deep() -> onnx.ModelProto:
    return so.export(Deep(), STEP, streaming=True)


def test_states_have_the_names_of_their_modules() -> None:
    states = [state["input"] for state in Metadata.read(_deep()).states]
    assert set(states) == {
        f"{layer}.neuron.{state}"
        for layer in ("first", "second")
        for state in ("current", "voltage")
    }
    assert [value.name for value in _deep().graph.input] == ["x", *states]


def test_both_ways_to_a_stream_give_the_same_file(compiled_anew: None) -> None:
    other = so.export(so.over_time(Deep()), example(7, 2), streaming=True)
    assert _deep().SerializeToString(deterministic=True) == other.SerializeToString(
        deterministic=True
    )


def test_a_stream_is_verified_with_one_step_or_a_sequence() -> None:
    for reference in (Deep(), so.over_time(Deep())):
        for x in (STEP, example(11, 3)):
            report = so.verify(reference, _deep(), x)
            assert report.verdict == "equal", str(report)
            assert {row.kind for row in report.outputs} == {"output", "stream"}


class Whole(Deep):
    """The same network with its loop in forward."""

    def forward(self, x: Tensor) -> Tensor:
        self.first.v = self.second.v = None
        return torch.stack([super(Whole, self).forward(x_t) for x_t in x])


def test_a_stream_is_verified_with_a_loop_by_hand() -> None:
    report = so.verify(Whole(), _deep(), example(9, 3))
    assert report.ok, str(report)


def test_a_wrong_file_is_found() -> None:
    for name, x in (("first", STEP), ("second", example(9, 3))):
        other = Deep()
        getattr(other, name).fc.bias.data += 1
        assert not so.verify(other, _deep(), x).ok
    model = copy.deepcopy(_deep())
    states = [dict(state) for state in Metadata.read(model).states]
    states[1]["start"] = 0.5
    found = vars(Metadata.read(model)) | {"states": tuple(states)}
    Metadata(**found).write(model)
    assert not so.verify(Deep(), model, STEP).ok


def test_axes_of_a_stream() -> None:
    model = so.export(Deep(), STEP, streaming=True, axes="NTC", layout="NCT")
    x = example(9, 2)
    found = so.Session(model).stream(batch=2).run(x.permute(1, 2, 0).numpy())
    with torch.no_grad():
        np.testing.assert_array_equal(found, so.over_time(Deep())(x).permute(1, 2, 0).numpy())
    assert so.verify(Deep(), model, STEP).ok


def test_a_stream_of_a_fixed_size_takes_one_step() -> None:
    model = so.export(Deep(), STEP, streaming=True, dynamic=False)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [1, 3, 6]
    x, stream = example(5, 3), so.Session(model).stream(batch=3)
    with torch.no_grad():
        expected = so.over_time(Deep())(x).numpy()
    np.testing.assert_array_equal([stream.step(x_t.numpy()) for x_t in x], expected)


def test_a_module_that_has_run_is_left_as_it_was(compiled_anew: None) -> None:
    step = Deep()
    with torch.no_grad():
        step(example(1, 3)[0])
    before = step.first.v
    kept = before.clone()
    step.second.v = step.second.v * 0
    so.export(so.over_time(Deep()), example(6, 3))
    net = so.over_time(step)
    with pytest.raises(so.ExportError):
        so.export(net, example(6, 3))
    assert step.first.v is before
    assert torch.equal(before, kept)
    assert net.training


#: what a layer becomes: its weights are whole, so they are stored as integers
PARTS = ("fc.synapse", "neuron")


def test_over_time_within_a_network() -> None:
    class Rate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.readout = so.over_time(Deep()), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.readout(self.body(x).sum(0))

    net = Rate()
    model = so.export(net, example(6, 3))
    assert so.verify(net, model, example(6, 3)).ok
    layers = sorted(layer["path"] for layer in Metadata.read(model).layers)
    paths = [f"body.{name}.{part}" for name in ("first", "second") for part in PARTS]
    assert layers == paths


# -- what is refused -------------------------------------------------------------------------------


def test_the_refusal_of_a_step_module_says_what_to_do() -> None:
    with pytest.raises(so.ExportError) as caught:
        so.export(Deep(), example(1, 3)[0])
    assert str(caught.value).endswith(
        "reset at the start of forward(); or, if a call is one time step, export "
        "so.over_time(module), or the module as it is with streaming=True"
    )


def test_a_stream_of_a_module_without_states_is_refused_as_before() -> None:
    with pytest.raises(so.ExportError, match="has no time axis, so it cannot come step by step"):
        so.export(nn.Linear(6, 8), example(1, 3)[0], streaming=True)


def test_axes_that_over_time_was_not_given() -> None:
    net = so.over_time(Deep())
    with pytest.raises(so.InputError, match=r"axes is 'NTC', and so\.over_time.. was given 'TNC'"):
        so.export(net, example(6, 3), axes="NTC")
    assert so.export(net, example(6, 3), axes="TNC") == so.export(net, example(6, 3))


class Branches(nn.Module):
    """A step that looks at values."""

    def __init__(self) -> None:
        super().__init__()
        self.v = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.v = self.v + x
        return self.v if self.v.sum() > 3 else -self.v


def test_a_step_that_branches_on_values_is_refused_with_its_line() -> None:
    for net, x, streaming in (
        (so.over_time(Branches()), example(6, 3), False),
        (Branches(), example(1, 3)[0], True),
    ):
        with pytest.raises(so.ExportError, match=r"self\.v\.sum\(\) > 3|torch\.where"):
            so.export(net, x, streaming=streaming)
