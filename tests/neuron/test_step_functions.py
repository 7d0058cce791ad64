"""``so.neuron.step`` of modules, of methods and on currents of other types."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import synapse_onnx as so
from synapse_onnx.errors import InputError
from synapse_onnx.neuron.stepped import Step


def lif(x, state):
    v = 0.9 * state["v"] + x
    s = (v >= 1).float()
    return s, {"v": v - s}


class Learned(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.decay = nn.Parameter(torch.linspace(0.5, 0.9, size))
        self.register_buffer("threshold", torch.ones(size))
        self.mix = nn.Linear(size, size)

    def forward(self, x, state):
        v = state["v"] * self.decay + self.mix(x) + x
        s = (v >= self.threshold).float()
        return s, {"v": v - s * self.threshold}


class OfTheNetwork(nn.Module):
    """A network whose own method is the step, with layers of its own and of this package."""

    def __init__(self):
        super().__init__()
        self.dense = so.synapse.Dense(6, 6, pre_hook_fx=so.quantize.q8)
        self.mix = nn.Linear(6, 6)
        self.decay = nn.Parameter(torch.tensor(0.7))
        self.neuron = so.neuron.step(self.one_step, states={"v": 0.1})

    def one_step(self, x, state):
        v = self.decay * state["v"] + self.mix(x)
        s = (v >= 0.3).float()
        return s, {"v": v - s}

    def forward(self, x):
        return self.neuron(self.dense(x) * 3)


class Pruned(Learned):
    def __init__(self, size):
        super().__init__(size)
        prune.l1_unstructured(self.mix, "weight", 0.5)


def with_a_pruned_map():
    return nn.Sequential(so.neuron.step(Pruned(6), states={"v": 0.25}))


def that_persists():
    neuron = so.neuron.step(lif, states={"v": 0.3})
    neuron.persistent_state = True
    neuron(torch.rand(3, 6, 4))
    return nn.Sequential(neuron)


def with_a_lazy_map():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.LazyLinear(6)

        def forward(self, x, state):
            v = state["v"] + self.mix(x)
            return (v > 0.2), {"v": v * (v <= 0.2)}

    net = nn.Sequential(so.neuron.step(Lazy(), states={"v": 0.0}))
    with torch.no_grad():
        net(torch.rand(3, 6, 4))
    return net


def with_tensors_of_later():
    neuron = so.neuron.step(Learned(6), states={"v": 0.0}).eval()
    neuron(torch.rand(3, 6, 4))
    neuron.fn.threshold = torch.full((6,), 0.5)
    neuron.fn.extra = nn.Parameter(torch.ones(1))
    return nn.Sequential(neuron)


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "make",
    [OfTheNetwork, with_a_pruned_map, that_persists, with_a_lazy_map, with_tensors_of_later],
)
def test_functions_with_a_module_and_states_that_persist(make, streaming):
    torch.manual_seed(3)
    net, x = make().eval(), torch.rand(3, 6, 20) * 2
    model = so.export(net, x, streaming=streaming)
    report = so.verify(net, model, x)
    assert report.ok, report
    for part in net.modules():
        if isinstance(part, Step):
            part.reset()
    run = so.Session(model).stream(batch=3).run if streaming else so.Session(model).run
    spikes = run(x.numpy())
    assert 0 < spikes.mean() < 1
    assert np.array_equal(spikes, net(x).detach().numpy())


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float64])
def test_currents_of_other_types(dtype):
    def counts(x, state):
        v = 0.5 * state["v"] + x.float()
        return (v > 0.8).int() * 3, {"v": v}

    net = nn.Sequential(so.neuron.step(counts, states={"v": 0.0}))
    x = (torch.rand(3, 6, 20) * 2).to(dtype)
    y = net(x)
    assert y.dtype == torch.float32
    assert y.max() == 3
    for streaming in (False, True):
        model = so.export(net, x, streaming=streaming)
        report = so.verify(net, model, x)
        assert report.ok, report
    assert np.array_equal(so.Session(so.export(net, x)).run(x.numpy()), y.numpy())


class Holds(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x, state):
        v = state["v"] + self.part(x.unsqueeze(-1)).squeeze(-1)
        return v, {"v": v}


@pytest.mark.parametrize(
    "part",
    [so.synapse.Dense(3, 3), so.neuron.step(lif, states={"v": 0.0})],
    ids=["Dense", "Step"],
)
def test_layers_of_this_package_within_a_function_are_refused(part):
    net = nn.Sequential(nn.Identity(), so.neuron.step(Holds(part), states={"v": 0.0})).eval()
    message = f"1: step Holds: the function holds a {type(part).__name__} of this package"
    with pytest.raises(InputError, match=message):
        so.export(net, torch.rand(2, 3, 5))
