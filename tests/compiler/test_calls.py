"""Networks that remember earlier calls, or throw dice, are refused; others are not."""

from __future__ import annotations

import collections
import itertools
import random
import re
import threading
import time
import types
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from networks import NEURON, built, spikes
from remembering import (
    Carries,
    Checks,
    InitHidden,
    Memories,
    Pair,
    Says,
    Stubborn,
    Wrapped,
    stacked,
)
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler import _calls
from synapse_onnx.compiler.arguments import Arguments


class Remembers(nn.Module):
    """A state that is read and replaced by two functions."""

    def __init__(self, state: Any, read: Callable[..., Any], write: Callable[..., None]) -> None:
        super().__init__()
        if isinstance(state, Tensor):
            self.register_buffer("state", state)
        else:
            self.state = state
        self.read, self.write = read, write

    def forward(self, x: Tensor) -> Tensor:
        y = x.sum(-1, keepdim=True) * self.read(self)
        self.write(self, x.mean())
        return y


def counted(self: Any, _: Tensor) -> None:
    self.state = self.state + 1


def filled(self: Any, mean: Tensor) -> None:
    self.state["trace"][0].add_(mean)


ATTRIBUTES = {
    "buffer": (Remembers(torch.ones(()), lambda s: s.state, counted), "inner.state"),
    "int": (Remembers(1, lambda s: s.state, counted), "inner.state"),
    "float": (Remembers(0.5, lambda s: s.state, counted), "inner.state"),
    "bool": (
        Remembers(False, lambda s: 1 + s.state, lambda s, _: setattr(s, "state", not s.state)),
        "inner.state",
    ),
    "nested": (
        Remembers({"trace": [torch.zeros(())]}, lambda s: s.state["trace"][0], filled),
        "inner.state['trace'][0]",
    ),
    "named tuple": (
        Remembers(
            Pair(torch.zeros(()), torch.zeros(())),
            lambda s: s.state.i,
            lambda s, m: setattr(s, "state", Pair(s.state.v, s.state.i + m)),
        ),
        "inner.state.i",
    ),
    "object": (
        Remembers(
            types.SimpleNamespace(level=np.zeros(1, np.float32)),
            lambda s: torch.from_numpy(s.state.level),
            lambda s, _: setattr(s.state, "level", s.state.level + 1),
        ),
        "inner.state.level",
    ),
    "generator": (
        Remembers(
            torch.Generator(),
            lambda s: torch.rand((), generator=s.state),
            lambda *_: None,
        ),
        "inner.state",
    ),
    "third call": (Remembers(0, lambda s: 1 + (s.state >= 2), counted), "inner.state"),
    "every second call": (Remembers(0, lambda s: s.state % 2, counted), "inner.state"),
    "queue": (
        Remembers(
            collections.deque([0.0, 0.0, 0.0], 3),
            lambda s: 1 + s.state[0],
            lambda s, m: s.state.append(m.detach()),
        ),
        "inner.state[0], inner.state[1], inner.state[2]",
    ),
    "history": (
        Remembers([], lambda s: s.state[-1] if s.state else 1.0, lambda s, m: s.state.append(m)),
        "inner.state[0], inner.state[1]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_what_calls_change_is_named(name: str) -> None:
    module, attribute = ATTRIBUTES[name]
    with pytest.raises(so.ExportError) as caught:
        so.export(Wrapped(module), torch.rand(2, 3, 6))
    assert str(caught.value).startswith(
        f"the output of module 'inner' depends on earlier calls, through {attribute}, which an "
        f"exported graph does not keep; reset at the start of forward()"
    )


class Drifts(nn.Linear):
    """A parameter that every call changes in place."""

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.mul_(0.9)
        return super().forward(x)


@pytest.mark.parametrize("value", [0.0, 1.0], ids=["silent", "active"])
@pytest.mark.parametrize(
    ("module", "attributes"),
    [
        (nn.Sequential(Drifts(12, 12)), ["0.weight"]),
        (stacked(InitHidden), ["1.mem", "3.mem"]),
        (stacked(Memories), ["1.v", "3.v"]),
        (stacked(Memories, 1), ["1.v"]),
        (Carries(), ["states[0]", "states[1]"]),
    ],
    ids=["parameter", "init_hidden", "step mode", "one layer", "carried"],
)
def test_steps_of_spiking_networks(module: nn.Module, attributes: list[str], value: float) -> None:
    """Deep networks whose output is silent at first, and examples without a spike."""
    with pytest.raises(so.ExportError, match="depends on earlier calls, through") as caught:
        so.export(module, torch.full((2, 12), value))
    assert all(attribute in str(caught.value) for attribute in attributes)


class Insensitive(InitHidden):
    """A threshold that takes far more input than any that is tried."""

    def forward(self, x: Tensor) -> Tensor:
        self.mem = (torch.zeros_like(x) if self.mem.shape != x.shape else self.mem) + x
        return (self.mem > 80.0).float()


def test_a_membrane_far_from_its_threshold_is_a_state_all_the_same() -> None:
    with pytest.raises(so.ExportError, match="depends on earlier calls, through 1"):
        so.export(nn.Sequential(nn.Identity(), Insensitive()), torch.rand(1, 12))


def made_linear(x: Tensor) -> Tensor:
    return nn.Linear(6, 6)(x)


def made_relu(x: Tensor) -> Tensor:
    return nn.ReLU()(x)


class Lazy(nn.Module):
    """Weights drawn at the first call."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "scale"):
            self.register_buffer("scale", torch.rand(()))
        return x * self.scale


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Says(lambda x: x + 1e-6 * torch.randn_like(x)), "the output is random: two calls"),
        (Wrapped(Says(nn.functional.dropout)), "the output of module 'inner' is random"),
        (Says(lambda x: x * random.random()), "the output is random"),
        (Says(lambda x: x * float(np.random.rand())), "the output is random"),
        (Lazy(), "the output is random"),
        (
            Stubborn(drop=nn.Dropout(0.5)),
            r"'drop' is random: .* \('drop' stays in training mode after eval\(\)\)",
        ),
        (nn.Sequential(Says(nn.ReLU()), Says(made_linear)), "calls a Linear"),
    ],
    ids=["noise", "dropout", "python", "numpy", "lazy", "training", "made in forward"],
)
def test_chance_is_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(so.ExportError, match=message):
        so.export(module, torch.rand(2, 4, 6))


CALLS = [0]


def counts(x: Tensor) -> Tensor:
    CALLS[0] += 1
    return x * CALLS[0]


def in_closure() -> Callable[[Tensor], Tensor]:
    kept = []

    def function(x: Tensor) -> Tensor:
        kept.append(x)
        return x if len(kept) < 3 else -x

    return function


@pytest.mark.parametrize(
    "function",
    [counts, in_closure(), lambda x: x * (time.perf_counter() % 1.0)],
    ids=["global", "closure, third call", "clock"],
)
def test_what_no_attribute_shows_is_said(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(so.ExportError, match="earlier calls or on the time, and no attribute") as e:
        so.export(Wrapped(Says(function)), torch.rand(2, 3, 6))
    assert "the output of module 'inner'" in str(e.value)


class Logs(nn.Module):
    """A counter that no output reads, and a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.calls = function, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.function(x)


class Keeps(nn.Module):
    """Keeps something between calls, which a function reads and changes."""

    def __init__(self, kept: Any, factor: Callable[..., float]) -> None:
        super().__init__()
        self.kept, self.factor = kept, factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor(self, x)


def _after_the_first(self: Any, x: Tensor) -> Any:
    before = getattr(self, "before", 0.0)
    self.before = x.mean()
    return 1 + before


@pytest.mark.parametrize(
    ("kept", "factor", "sentence"),
    [
        (deque(maxlen=50), lambda s, _: s.kept.append(1) or len(s.kept), "through kept[1], which"),
        (itertools.count(), lambda s, _: next(s.kept), "through kept, which"),
        (None, _after_the_first, "the first call makes the attribute before; keep nothing"),
    ],
    ids=["deque", "iterator", "made at the first call"],
)
def test_what_is_kept_in_a_container_or_made_by_a_call_is_named(
    kept: Any, factor: Callable[..., float], sentence: str
) -> None:
    with pytest.raises(so.ExportError, match=re.escape(sentence)):
        so.export(Keeps(kept, factor), torch.rand(2, 3, 6))


def test_an_attribute_that_changes_too_is_not_taken_for_the_cause() -> None:
    with pytest.raises(so.ExportError, match=r"through 1\.mem, 0\.calls, which"):
        so.export(nn.Sequential(Logs(torch.relu), InitHidden()), torch.rand(2, 12))
    with pytest.raises(so.ExportError, match="on the time, and no attribute of the module"):
        so.export(Logs(counts), torch.rand(2, 3, 6))


def test_a_network_that_fails_while_its_cause_is_sought_is_refused_in_a_sentence() -> None:
    calls: list[int] = []

    def thrice(x: Tensor) -> Tensor:
        calls.append(len(calls))
        if len(calls) > 3:
            raise KeyError("worn out")
        return x * len(calls)

    with pytest.raises(
        so.ExportError, match=r"fails when it is called again .*KeyError: 'worn out'"
    ):
        so.export(Says(thrice), torch.rand(2, 3, 6))


def test_a_network_that_takes_no_other_values_is_called_with_these() -> None:
    with pytest.raises(so.ExportError, match=r"through 1\.mem, which"):
        so.export(nn.Sequential(Checks(), InitHidden()), torch.full((2, 3, 6), 0.25))


class Once(nn.Module):
    """A network that a second call finds unprepared."""

    def __init__(self) -> None:
        super().__init__()
        self.called = False

    def forward(self, x: Tensor) -> Tensor:
        if self.called:
            raise RuntimeError("call reset() first.\nNow.")
        self.called = True
        return x * 2


def test_a_second_call_that_fails_is_a_dependence() -> None:
    with pytest.raises(so.ExportError, match=r"again with the same input \(RuntimeError: call reset\(\) first\)"):  # fmt: skip # noqa: E501
        so.export(Once(), torch.rand(2, 3, 6))


class Cached(nn.Module):
    """Values that are computed at the first call, and the values of the last one to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 6)
        self.cache: Tensor | None = None
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.cache is None:
            self.cache = self.encoder(torch.ones(6))
        self.last = x.detach()
        self.calls += 1
        self.seen += x.mean().detach()
        return self.encoder(x) + self.encoder.bias


class FromZeros(nn.Module):
    """A state that every call starts anew, and keeps for whoever looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("v", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        v = self.v.zero_().clone() + x[..., 0]
        y = (v > 0.5).float()
        self.v = v.mean(0) - y.mean(0)
        return y.unsqueeze(-1) + x


class Changing(nn.Module):
    """An argument that is changed in place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2.0) + 1


RIGHT: dict[str, tuple[nn.Module, Tensor]] = {
    "compiled": (torch.compile(so.synapse.Dense(3, 2), backend="eager"), torch.rand(2, 3, 6)),
    "from zeros": (FromZeros(), torch.rand(2, 3, 6)),
    "changes its argument": (Changing(), torch.rand(2, 3, 6)),
    "one kind of values": (Checks(), torch.full((2, 3, 6), 0.25)),
    "batch norm": (nn.Sequential(nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4)), torch.rand(2, 3, 6)),
    "dropout": (nn.Sequential(nn.Linear(6, 6), nn.Dropout()), torch.rand(2, 6)),
    "not a number": (Says(lambda x: (x - 9.0).sqrt()), torch.rand(2, 3, 6)),
    "unused chance": (Says(lambda x: (torch.rand_like(x), x * 2)[1]), torch.rand(2, 3, 6)),
    "indices": (nn.Embedding(5, 4), torch.randint(0, 5, (2, 7))),
    "a module made in forward": (Says(made_relu), torch.rand(2, 3, 6)),
    "blocks": (so.block.cuba.Dense(NEURON, 3, 4, delay_shift=True), spikes(2, 3, 40)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_networks_pass(name: str) -> None:
    module, x = RIGHT[name]
    before = x.clone()
    so.export(module, x, dynamic=name != "from zeros")
    assert torch.equal(x, before)


def test_a_cache_and_a_counter_that_no_output_reads_pass() -> None:
    module, x = Cached().eval(), torch.rand(2, 3, 6)
    # the tracer refuses attributes that it sees assigned, hence the check alone
    _calls.check_calls(so.freeze(module), Arguments.of(module, x, "export"))
    assert module.cache is None
    assert module.calls == 0


@pytest.mark.parametrize("streaming", [False, True])
def test_persistent_states_of_our_neurons_are_no_ground(streaming: bool) -> None:
    module = so.block.cuba.Dense(NEURON, 3, 4, weight_scale=4)
    other = so.block.cuba.Dense(NEURON, 3, 4, weight_scale=4)
    other.load_state_dict(module.state_dict())
    module.neuron.persistent_state = True
    x = spikes(2, 3, 20, rate=0.8)
    module(x)
    kept = module.neuron.voltage_state.clone()
    assert kept.abs().max() > 0
    assert so.export(module, x, streaming=streaming) == so.export(other, x, streaming=streaming)
    assert torch.equal(module.neuron.voltage_state, kept)


def test_a_stream_of_code_that_remembers_is_refused_for_its_state() -> None:
    module = nn.Sequential(so.neuron.cuba.Neuron(**NEURON), InitHidden())
    with pytest.raises(
        so.ExportError, match=r"module '1' depends on earlier calls, through 1\.mem"
    ):
        so.export(module, spikes(2, 3, 20), streaming=True)


def test_a_compiled_module_runs_and_is_not_compiled_for_it() -> None:
    compiled: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        compiled.append(graph)
        return graph

    with pytest.raises(so.ExportError, match=r"depends on earlier calls, through 1\.mem"):
        so.export(torch.compile(stacked(InitHidden), backend=backend), torch.rand(2, 12))
    assert compiled == []


def test_what_other_threads_run_meanwhile_is_their_own() -> None:
    def elsewhere(x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            thread = threading.Thread(target=lambda: results.append(nn.Linear(2, 2)(torch.ones(2))))
            thread.start()
            thread.join()
        return x * 2

    results: list[Tensor] = []
    so.export(Says(elsewhere), torch.rand(2, 3, 6))
    assert len(results) >= 3


def test_the_module_and_all_random_numbers_stay_as_they_are() -> None:
    module, x = stacked(InitHidden), torch.rand(2, 12)
    with torch.no_grad():
        module(x)
    kept = [buffer.clone() for buffer in module.buffers()]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    noisy = Says(lambda x: x + torch.rand(1) + random.random())
    for network in (module, noisy, Stubborn(drop=nn.Dropout(0.5))):
        with pytest.raises(so.ExportError):
            so.export(network, x)
    assert all(map(torch.equal, module.buffers(), kept))
    assert all(not child._forward_hooks for child in module.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]


def test_a_right_network_runs_three_times_on_a_few_steps() -> None:
    shapes: list[tuple[int, ...]] = []
    function = Says(lambda x: (shapes.append(tuple(x.shape)), x * 2)[1])
    so.export(function, torch.rand(4, 3, 1000))
    real = [shape for shape in shapes if all(type(size) is int for size in shape)]
    assert real[:3] == [(1, 3, 16)] * 3


def test_a_network_of_one_length_runs_on_the_whole_example() -> None:
    lengths: list[int] = []

    def forty(x: Tensor) -> Tensor:
        lengths.append(x.shape[-1])
        return x.reshape(2, 3, 40) * 2

    so.export(Says(forty), torch.rand(2, 3, 40), dynamic=False)
    assert lengths[:4] == [16, 40, 40, 40]


def test_the_layers_of_this_package_change_nothing_that_would_cost_more_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("something changed")

    monkeypatch.setattr(_calls, "_probe", never)
    so.export(built(), spikes(2, 2, 8, 8, 5))
    for kind in so.neuron.kinds():
        blocks, arguments = getattr(so.block, kind), so.neuron.kinds()[kind].Neuron.example
        so.export(blocks.Dense(arguments, 3, 4, delay_shift=True), spikes(2, 3, 20))
