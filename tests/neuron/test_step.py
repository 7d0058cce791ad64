"""``so.neuron.step``: a neuron from one function: trained, exported, streamed, refused."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

import synapse_onnx as so
from synapse_onnx.errors import ExportError, InputError, ShapeError


class Spike(torch.autograd.Function):
    """1 at and above 0, with the gradient of a fast sigmoid."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x >= 0).float()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad / (1 + x.abs()) ** 2


def izhikevich(x, state):
    v, u = state["v"], state["u"]
    v = v + 0.04 * v * v + 5 * v + 140 - u + x
    u = u + 0.02 * (0.2 * v - u)
    s = v >= 30
    return s, {"v": torch.where(s, -65.0, v), "u": u + 8 * s}


def lif(x, state):
    v = 0.9 * state["v"] + x
    s = Spike.apply(v - 1)
    return s, {"v": v - s}


class Learned(nn.Module):
    """A leaky neuron with a learned decay and threshold, a linear map and a norm in its step."""

    def __init__(self, size):
        super().__init__()
        self.decay = nn.Parameter(torch.linspace(0.5, 0.9, size))
        self.register_buffer("threshold", torch.ones(size))
        self.mix = nn.Linear(size, size)
        self.norm = nn.BatchNorm1d(size)

    def forward(self, x, state):
        v = state["v"] * self.decay + self.norm(self.mix(x)) + x
        s = Spike.apply(v - self.threshold)
        return s, {"v": v - s * self.threshold}


def pair(x, state):
    v = 0.5 * state["v"] + x
    return (v, (v > 1)), {"v": v}


def narrower(x, state):
    v = 0.5 * state["v"] + x
    return v.sum(1, keepdim=True), {"v": v}


def of_the_batch(x, state):
    return x * x.shape[0], {"v": state["v"] + x}


NEURONS = {
    "izhikevich": (lambda: so.neuron.step(izhikevich, {"v": -65.0, "u": -13.0}), 40.0),
    "lif": (lambda: so.neuron.step(lif, states={"v": 0.0}), 1.0),
    "learned": (lambda: so.neuron.step(Learned(6), states={"v": 0.25}), 1.0),
    "pair": (lambda: so.neuron.step(pair, states={"v": 0.0}), 1.0),
    "narrower": (lambda: so.neuron.step(narrower, states={"v": 0.0}), 1.0),
    "of_the_batch": (lambda: so.neuron.step(of_the_batch, states={"v": 0.0}), 1.0),
}


def network(name):
    torch.manual_seed(0)
    make, _ = NEURONS[name]
    return nn.Sequential(nn.Identity(), make()).eval()


def currents(name, *shape):
    torch.manual_seed(1)
    return torch.rand(shape) * NEURONS[name][1]


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", NEURONS)
def test_one_node_with_its_states_and_the_numbers_of_torch(name, streaming):
    net, x = network(name), currents(name, 3, 6, 20)
    model = so.export(net, x, streaming=streaming)
    (scan,) = (node for node in model.graph.node if node.op_type == "Scan")
    label = "Learned" if name == "learned" else name
    assert scan.name == f"1/{label}"
    report = so.verify(net, model, x)
    assert report.ok, report
    assert next(row.name for row in report.layers).startswith(f"1/{label}")
    if streaming:
        names = {value.name for value in model.graph.input}
        assert names == {"input", *(f"1.{state}" for state in net[1].state_starts)}


def test_n_and_t_are_open_and_any_chunks_give_the_whole():
    net, x = network("izhikevich"), currents("izhikevich", 5, 6, 33)
    expected = net(x).numpy()
    whole = so.Session(so.export(net, x[:2, :, :7]))
    assert np.array_equal(whole.run(x.numpy()), expected)
    assert expected.sum() > 0
    stream = so.Session(so.export(net, x[:2, :, :7], streaming=True)).stream(batch=5)
    parts = [stream.run(x[..., a:b].numpy()) for a, b in ((0, 1), (1, 12), (12, 33))]
    assert np.array_equal(np.concatenate(parts, axis=-1), expected)


def test_images_and_layers_of_this_package_around_it():
    torch.manual_seed(0)
    net = nn.Sequential(
        so.synapse.Conv(2, 3, 3, padding=1),
        so.neuron.step(lif, states={"v": 0.0}),
        so.axon.Delay(4),  # draws its delays at the first run
        so.synapse.Conv(3, 2, 3),
        so.neuron.step(lif, states={"v": 0.0}, name="last"),
    ).eval()
    with torch.no_grad():
        net[0].weight.mul_(4), net[3].weight.mul_(4)
    x = (torch.rand(2, 2, 6, 5, 12) > 0.5).float()
    net(x)
    for streaming in (False, True):
        model = so.export(net, x, streaming=streaming)
        report = so.verify(net, model, x)
        assert report.ok, report
        assert {"1/lif", "4/last"} <= {row.name for row in report.layers}


def test_verify_names_the_step_that_is_wrong():
    net, x = network("izhikevich"), currents("izhikevich", 3, 6, 20)
    model = so.export(net, x)
    (scan,) = (node for node in model.graph.node if node.op_type == "Scan")
    body = scan.attribute[0].g
    (reset,) = (node for node in body.node if node.op_type == "GreaterOrEqual")
    reset.op_type = "Greater"
    values = [v for v in model.graph.initializer if v.float_data or v.raw_data]
    (start,) = (
        v for v in values if v.name in {i for n in body.node for i in n.input} and
        v.raw_data == np.float32(30).tobytes()
    )  # fmt: skip
    start.raw_data = np.float32(29).tobytes()
    report = so.verify(net, model, x)
    assert not report.ok
    assert "1/izhikevich" in str(report)


def test_it_trains_by_its_own_surrogate_gradient():
    torch.manual_seed(0)
    neuron = so.neuron.step(Learned(4), states={"v": 0.0})
    assert {"fn.decay", "fn.mix.weight", "fn.norm.running_mean"} <= set(neuron.state_dict())
    x = torch.rand(8, 4, 10)
    optimizer = torch.optim.Adam(neuron.parameters(), lr=0.05)
    losses = []
    for _ in range(20):
        loss = (neuron(x).mean() - 0.3) ** 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    assert neuron.fn.norm.num_batches_tracked == 200  # once a step
    report = so.verify(neuron.eval(), so.export(neuron, x), x)
    assert report.ok, report


def test_states_persist_are_reset_copied_and_pickled():
    x = currents("lif", 2, 3, 10)
    neuron = so.neuron.step(lif, states={"v": 0.5})
    whole = neuron(x)
    neuron.persistent_state = True
    assert torch.equal(torch.cat([neuron(x[..., :4]), neuron(x[..., 4:])], -1), whole)
    with pytest.raises(ShapeError, match="batch of 2"):
        neuron(torch.rand(3, 3, 10))
    neuron.reset()
    assert torch.equal(copy.deepcopy(neuron)(x), whole)
    file = io.BytesIO()
    torch.save(neuron, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), whole)


def test_a_copy_has_its_own_parameters():
    neuron = so.neuron.step(Learned(3), states={"v": 0.0}).eval()
    x = torch.rand(2, 3, 9) * 2
    before = neuron(x)
    other = copy.deepcopy(neuron)
    with torch.no_grad():
        other.fn.threshold.fill_(0.25)
    changed = other(x)
    assert not torch.equal(changed, before)
    assert torch.equal(neuron(x), before)
    frozen = so.freeze(other)
    with torch.no_grad():
        frozen.fn.threshold.fill_(1.0)
        assert torch.equal(frozen(x), before)
        assert torch.equal(copy.deepcopy(frozen)(x), before)
    assert torch.equal(other(x), changed)


def test_an_empty_sequence_is_empty():
    neuron = so.neuron.step(pair, states={"v": 0.0}).eval()
    assert [y.shape for y in neuron(torch.zeros(2, 3, 0))] == [(2, 3, 0), (2, 3, 0)]
    with torch.no_grad():
        assert [y.shape for y in neuron(torch.zeros(2, 3, 0))] == [(2, 3, 0), (2, 3, 0)]


class Looped(nn.Module):
    """A step neuron, and a loop over time in torch code."""

    def __init__(self):
        super().__init__()
        self.first = so.neuron.step(izhikevich, states={"v": -65.0, "u": -13.0})
        self.linear = nn.Linear(6, 4)

    def forward(self, x):
        spikes, v, out = self.first(x), 0.0, []
        for t in range(x.shape[-1]):
            v = 0.8 * v + self.linear(spikes[..., t])
            s = (v > 0.2).float()
            v = v - 0.2 * s
            out.append(s)
        return torch.stack(out, -1)


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
def test_beside_a_loop_of_torch_code_it_is_found_with_it(streaming):
    torch.manual_seed(2)
    net, x = Looped().eval(), currents("izhikevich", 3, 6, 20)
    model = so.export(net, x, streaming=streaming)
    assert [node.op_type for node in model.graph.node].count("Scan") == 1
    report = so.verify(net, model, x)
    assert report.ok, report


LOG: list[int] = []
COUNTS = {"calls": 0}


def logs(x, state):
    LOG.append(1)
    return lif(x, state)


def counts(x, state):
    COUNTS["calls"] += 1
    return lif(x, state)


def counter():
    count = 0

    def step(x, state):
        nonlocal count
        count += 1
        return lif(x, state)

    return step


class Remembers(nn.Module):
    def forward(self, x, state):
        self.last = x
        return lif(x, state)


class Method:
    def __init__(self):
        self.calls = {"n": 0}

    def step(self, x, state):
        self.calls["n"] += 1
        return lif(x, state)


def alternating(x, state, memory=torch.zeros(1)):  # noqa: B008 (what is tried)
    memory.add_(1)
    return x * memory, {"v": state["v"] + x}


def in_place(x, state):
    state["v"] += x
    return state["v"], state


def of_the_current(x, state):
    x.mul_(2)
    return x, {"v": state["v"] + x}


def noise(x, state):
    return x + torch.rand_like(x), {"v": state["v"] + x}


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (logs, "changes LOG at every call"),
        (counts, r"changes COUNTS\['calls'\] at every call"),
        (counter(), "changes count at every call"),
        (Remembers(), r"changes self\.\S*last at every call"),
        (Method().step, r"changes self\.calls\['n'\] at every call"),
        (in_place, "changes its arguments in place"),
        (of_the_current, "changes its arguments in place"),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__) if callable(x) else "",
)
def test_a_function_with_side_effects_is_refused(fn, message):
    net = nn.Sequential(nn.Identity(), so.neuron.step(fn, states={"v": 0.0})).eval()
    with pytest.raises(InputError, match=f"1: .*{message}"):
        so.export(net, torch.rand(2, 3, 5))


def branches(x, state):
    v = state["v"] + x
    return (v if v.max() > 1 else -v), {"v": v}


def to_numpy(x, state):
    return torch.from_numpy(x.numpy() * 2), {"v": state["v"]}


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (alternating, "'1' depends on earlier calls or on the time, and no attribute"),
        (noise, "'1' is random"),
        (branches, r"'1' depends on the values of a tensor; use torch\.where"),
        (to_numpy, "'1' becomes a NumPy array"),
    ],
)
def test_what_no_file_can_hold_is_refused(fn, message):
    net = nn.Sequential(nn.Identity(), so.neuron.step(fn, states={"v": 0.0})).eval()
    with pytest.raises(ExportError, match=message):
        so.export(net, torch.rand(2, 3, 5))


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x, s: x, "must return a pair, .* returned a tensor"),
        (lambda x, s: (x, x), "with the keys v, and returned a tensor"),
        (lambda x, s: (x, {"w": x}), "with the keys v, and returned a dictionary with the keys w"),
        (lambda x, s: (x, {"v": x[:, 0]}), r"state v has shape \(2, 3\), .* must keep its shape"),
        (lambda x, s: (x, {"v": 0.0}), "returned 0.0 for it"),
        (lambda x, s: (x, {"v": x > 0}), "must keep its type"),
        (lambda x, s: (x.sum(), {"v": x}), "output of a step must be a tensor"),
        (lambda x, s: ("y", {"v": x}), "output of a step must be a tensor"),
        (lambda x, s: ((), {"v": x}), "returned no output"),
        (lambda x, s: (torch.complex(x, x), {"v": x}), "must be real, .*complex64"),
    ],
)
def test_wrong_results_are_one_sentence(fn, message):
    with pytest.raises(InputError, match=message):
        so.neuron.step(fn, states={"v": 0.0})(torch.rand(2, 3, 5))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((3, {"v": 0.0}), "must be a function of two arguments"),
        ((lambda x: x, {"v": 0.0}), "must be a function of two arguments"),
        ((lif, {}), "states must map the name"),
        ((lif, ["v"]), "states must map the name"),
        ((lif, {"v": torch.zeros(3)}), "one finite number"),
        ((lif, {"v": float("nan")}), "one finite number"),
        ((lif, {"v": None}), "one finite number"),
        ((lif, {"a b": 0.0}), "must be an identifier"),
        ((lif, {1: 0.0}), "must be an identifier"),
    ],
)
def test_wrong_arguments_are_one_sentence(args, message):
    with pytest.raises(InputError, match=message):
        so.neuron.step(*args)


def test_wrong_shapes_are_one_sentence():
    neuron = so.neuron.step(lif, states={"v": 0.0})
    with pytest.raises(ShapeError, match=r"expected a current of shape \(N, C, T\)"):
        neuron(torch.rand(3, 4))
    neuron(torch.rand(2, 3, 4))
    with pytest.raises(ShapeError, match="make another neuron"):
        neuron(torch.rand(2, 5, 4))
