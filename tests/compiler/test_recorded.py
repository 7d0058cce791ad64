"""Programs of known layers are recorded on numbers, and are those that ``torch.export`` makes."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import nn

import synapse_onnx as so
from synapse_onnx import block
from synapse_onnx.compiler import _trace
from synapse_onnx.compiler._recorded import recorded, runs_known_code
from synapse_onnx.errors import ExportError

NEURON = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}


def spikes(*shape: int) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(3)) > 0.6).float()


def dense() -> nn.Module:
    return nn.Sequential(block.cuba.Dense(NEURON, 6, 5), block.cuba.Dense(NEURON, 5, 4))


def images() -> nn.Module:
    return nn.Sequential(
        block.cuba.Conv(NEURON, 2, 3, 3, padding=1),
        block.cuba.Pool(NEURON, 2),
        block.cuba.Flatten(),
        block.cuba.Dense(NEURON, 3 * 4 * 4, 4),
    )


def recurrent() -> nn.Module:
    return nn.Sequential(block.cuba.Recurrent(NEURON, 6, 5))


def beside_torch() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(6), so.synapse.Dense(6, 5), so.neuron.cuba.Neuron(**NEURON))


NETWORKS = {
    "dense": (dense, (2, 6, 9)),
    "images": (images, (2, 2, 8, 8, 5)),
    "recurrent": (recurrent, (3, 6, 4)),
    "beside torch": (beside_torch, (2, 6, 7)),
    "one sample": (dense, (1, 6, 9)),
    "one step": (dense, (2, 6, 1)),
}

#: what asks for it -> options of an export
OPTIONS = {
    "whole": {},
    "stream": {"streaming": True},
    "fixed sizes": {"dynamic": False},
    "time first": {"layout": "TNC"},
}


def exported(net: nn.Module, x: torch.Tensor, **options) -> tuple[bytes, int]:
    """Return a file, and how many of its programs were recorded."""
    with mock.patch.object(_trace, "recorded", side_effect=recorded) as calls:
        programs = []
        calls.side_effect = lambda *args: programs.append(recorded(*args)) or programs[-1]
        model = so.export(net, x, **options)
    return model.SerializeToString(deterministic=True), sum(p is not None for p in programs)


def by_torch(net: nn.Module, x: torch.Tensor, **options) -> bytes:
    with mock.patch.object(_trace, "recorded", return_value=None):
        return so.export(net, x, **options).SerializeToString(deterministic=True)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
@pytest.mark.parametrize(("make", "shape"), NETWORKS.values(), ids=list(NETWORKS))
def test_a_recorded_file_is_that_of_torchs_trace(make, shape, options):
    torch.manual_seed(1)
    net, x = make().eval(), spikes(*shape)
    file, programs = exported(net, x, **options)
    assert programs == 1
    assert file == by_torch(net, x, **options)


def test_a_loop_that_was_found_is_recorded():
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, x):
            v, out = torch.zeros(x.shape[0], 4), []
            for t in range(x.shape[-1]):
                v = torch.tanh(0.9 * v + self.fc(x[..., t]))  # no neuron that is known
                out.append(v)
            return torch.stack(out, -1)

    torch.manual_seed(1)
    net, x = Loop().eval(), spikes(3, 6, 7)
    file, programs = exported(net, x)
    assert programs == 2  # the network, and a step
    assert file == by_torch(net, x)


class Branch(nn.Module):
    """Computes something else from 100 steps on, which no record of few steps shows."""

    def forward(self, x):
        return 2 * x if x.shape[-1] >= 100 else x


def hooked() -> nn.Module:
    net = dense()
    net[0].register_forward_hook(lambda _module, _inputs, y: 2 * y if y.shape[-1] >= 100 else y)
    return net


def replaced() -> nn.Module:
    net = nn.Sequential(nn.Identity())
    net[0].forward = Branch().forward
    return net


def scripted() -> nn.Module:
    return nn.Sequential(torch.jit.script(Branch()))


@pytest.mark.parametrize(
    "make",
    [lambda: nn.Sequential(Branch(), dense()), hooked, replaced, scripted],
    ids=["module", "hook", "forward", "script"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_code_that_may_branch_on_sizes_is_traced_by_torch(make):
    assert runs_known_code(dense())
    assert not runs_known_code(make())


def test_a_branch_on_sizes_beside_our_layers_is_refused():
    with pytest.raises(ExportError):
        so.export(nn.Sequential(Branch(), dense()).eval(), spikes(2, 6, 9))


@pytest.mark.parametrize(
    "layer", [nn.AvgPool1d(2), nn.MaxPool1d(3, 2)], ids=["half of T", "windows of 3"]
)
def test_sizes_without_a_formula_are_left_to_torch(layer):
    net = nn.Sequential(so.synapse.Dense(6, 5), layer).eval()
    axes = ({0: torch.export.Dim("N"), 2: torch.export.Dim("T")},)
    assert recorded(so.freeze(net), [spikes(2, 6, 9)], axes, []) is None


def test_a_step_less_has_a_formula():
    net = nn.Sequential(so.synapse.Dense(6, 5), nn.AvgPool1d(2, 1)).eval()
    axes = ({0: torch.export.Dim("N"), 2: torch.export.Dim("T")},)
    program = recorded(so.freeze(net), [spikes(2, 6, 9)], axes, [])
    (result,) = program.graph.output_node().args[0]
    batch, neurons, steps = result.meta["val"].shape
    assert neurons == 5
    given = next(n for n in program.graph.nodes if n.op == "placeholder" and "input" in n.name)
    assert str(batch) == str(given.meta["val"].shape[0])
    assert str(steps) == f"{given.meta['val'].shape[2]} - 1"


def test_values_that_decide_are_left_to_torch():
    class Decides(so.synapse.Dense):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)

    axes = ({0: torch.export.Dim("N"), 2: torch.export.Dim("T")},)
    assert recorded(so.freeze(Decides(6, 5).eval()), [spikes(2, 6, 9)], axes, []) is None


def test_axes_of_any_size_are_left_to_torch():
    axes = ({0: torch.export.Dim("N"), 2: torch.export.Dim.DYNAMIC},)
    assert recorded(so.freeze(dense().eval()), [spikes(2, 6, 9)], axes, []) is None


def test_one_tensor_may_be_two_inputs():
    class Difference(so.synapse.Dense):
        def forward(self, x, y):
            return super().forward(x) - 2 * super().forward(y)

    net, x = so.freeze(Difference(6, 5).eval()), spikes(2, 6, 9)
    program = recorded(net, [x, x], None, [])
    x_node, y_node = (n for n in program.graph.nodes if n.name in ("x", "y"))
    assert len(x_node.users) == len(y_node.users) == 1


def test_no_samples_are_left_to_torch():
    axes = ({0: torch.export.Dim("N"), 2: torch.export.Dim("T")},)
    assert recorded(so.freeze(dense().eval()), [spikes(0, 6, 9)], axes, []) is None
