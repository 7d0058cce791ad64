"""A change in place that others see or not, as strides decide, is refused; all others are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler import _changes_in_place
from synapse_onnx.ops import get_op

Copy = Callable[[Tensor], Tensor]

COPIES: dict[str, Copy] = {
    "contiguous": lambda y: y.contiguous(),
    "memory format": lambda y: y.contiguous(memory_format=torch.contiguous_format),
    "reshape": lambda y: y.reshape(y.shape),
    "flatten": lambda y: y.flatten(1),
    "function": lambda y: torch.reshape(y, (y.shape[0], -1)),
}


class Turned(nn.Module):
    """What a layer makes of inputs (N, C, T) in another order of memory."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer(x.transpose(1, 2).contiguous().transpose(1, 2))


class Changes(nn.Module):
    """Changes a copy, or what may be one, of a layer's output, and returns both."""

    def __init__(self, layer: nn.Module, copy: Copy) -> None:
        super().__init__()
        self.layer, self.copy = layer, copy

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layer(x)
        w = self.copy(y)
        w += 1
        return y, w


class Spikes(nn.Module):
    """Spikes of a voltage."""

    def forward(self, x: Tensor) -> Any:
        return get_op("Spike").torch_op(x, 0.5, 1.0, 1.0, False)


def _of(copy: str, *, turned: bool) -> Copy:
    return lambda y: COPIES[copy](y.transpose(1, 2) if turned else y)


def _layer(kind: str) -> nn.Module:
    torch.manual_seed(0)
    layers: dict[str, Callable[[], nn.Module]] = {
        "neuron": lambda: so.neuron.lif.Neuron(0.5),
        "spikes": Spikes,
        "normed": lambda: so.neuron.norm.MeanOnlyBatchNorm(3),
        "conv": lambda: nn.Conv1d(3, 3, 1),
    }
    return layers[kind]().eval()


X = torch.rand(2, 3, 7, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("kind", ["neuron", "conv"])
def test_a_copy_that_is_none_at_one_step_is_refused(kind: str, copy: str) -> None:
    """(N, C, 1) is (N, 1, C) in memory, so torch copies nothing there."""
    network = Changes(_layer(kind), _of(copy, turned=True))
    with pytest.raises(so.ExportError, match=r"in place at line \d+ of test_changes_in_place.py"):
        so.export(network, X)


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("copy", ["contiguous", "flatten"])
@pytest.mark.parametrize("kind", ["neuron", "spikes", "normed", "conv"])
def test_what_is_no_copy_is_the_tensor_itself(kind: str, copy: str) -> None:
    """The trace must see the memory of a layer's output as numbers have it."""

    class Both(nn.Module):
        """The layer of inputs in their order of memory, and in another one."""

        def __init__(self) -> None:
            super().__init__()
            change = _of(copy, turned=False)
            self.plain = Changes(_layer(kind), change)
            self.turned = Changes(Turned(_layer(kind)), change)

        def forward(self, x: Tensor) -> Any:
            return *self.plain(x), *self.turned(x)

    network = Both()
    model = so.export(network, X)
    assert so.verify(network, model, X).ok


def test_of_sizes_that_are_fixed_the_example_counts_alone() -> None:
    network = Changes(_layer("conv"), _of("contiguous", turned=True))
    model = so.export(network, X, dynamic=False)
    assert so.verify(network, model, X).ok


def test_a_linear_layer_over_channels_is_refused_as_well() -> None:
    """Its output (N, C, T) is turned, but for one step."""

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Any:
            return self.fc(x.transpose(1, 2)).transpose(1, 2)

    network = Changes(Dense(), _of("contiguous", turned=False))
    with pytest.raises(so.ExportError, match=r"y = y \+ 1 for y \+= 1"):
        so.export(network, X)


class Unseen(nn.Module):
    """Changes what nobody else holds."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.change = nn.Conv1d(3, 3, 1), change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.conv(x))


def _relu(y: Tensor) -> Tensor:
    return nn.functional.relu(y, inplace=True) * 2


def _added(y: Tensor) -> Tensor:
    z = y * 2
    z += y
    return z - 1


@pytest.mark.parametrize("change", [_relu, _added])
def test_changes_that_nobody_sees_cost_no_run(
    change: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(_changes_in_place, "_sizes", fail)
    network = Unseen(change)
    assert so.verify(network, so.export(network, X), X).ok


def _of_a_view(y: Tensor) -> Tensor:
    z = y.unsqueeze(1)
    z += 1
    return y


def _of_a_clone(y: Tensor) -> Tensor:
    z = y.transpose(1, 2).clone()
    z += 1
    return y * z.transpose(1, 2)


@pytest.mark.parametrize("change", [_of_a_view, _of_a_clone])
def test_views_and_clones_are_what_they_are_at_every_size(
    change: Callable[[Tensor], Tensor],
) -> None:
    network = Unseen(change)
    assert so.verify(network, so.export(network, X), X).ok


def test_a_stream_is_compared_with_its_states() -> None:

    class TurnedBack(Changes):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y, w = super().forward(x)
            return y, w.transpose(1, 2)

    network = TurnedBack(_layer("neuron"), _of("contiguous", turned=True))
    with pytest.raises(so.ExportError, match="in chunks, output 0"):  # one of which is a step
        so.export(network, X, streaming=True)
    network = Changes(_layer("neuron"), _of("contiguous", turned=False))
    model = so.export(network, X, streaming=True)
    assert so.verify(network, model, X).ok
