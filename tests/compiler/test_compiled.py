"""The fixture ``compiled_once`` forgets no difference, and finds and compiles the same once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled import finding, remembering
from looping import NETWORKS, Looping, example, network
from networks import built, spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler import exporter
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.compiler.axes import set_axes
from synapse_onnx.model.options import Options

X = spikes(2, 2, 8, 8, 5)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The networks that are really compiled."""
    made: list[nn.Module] = []
    real = exporter.compile_frozen

    def counted(frozen: nn.Module, *rest: Any) -> Any:
        made.append(frozen)
        return real(frozen, *rest)

    monkeypatch.setattr(exporter, "compile_frozen", counted)
    return made


def _one_weight(network: Any) -> None:
    network.dense.weight_v.data.flatten()[0] += 1


def _decay(network: Any) -> None:
    network.conv_neuron.voltage_decay.data += 500


def _hook(network: Any) -> None:
    network.conv.register_forward_hook(lambda module, args, y: 2 * y)


@pytest.mark.parametrize("change", [_one_weight, _decay, _hook])
def test_a_network_that_differs_is_compiled(change: Callable[[Any], None], calls) -> None:
    compiled, options = remembering(), Options()
    network = built()
    first = compiled(so.freeze(network), Arguments.of(network, X, "export"), options)
    assert compiled(so.freeze(built()), Arguments.of(network, X.clone(), ""), options) == first
    assert len(calls) == 1
    change(network)
    assert compiled(so.freeze(network), Arguments.of(network, X, "export"), options) != first
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("x", "options"),
    [(X[..., :4], Options()), (X * 2, Options()), (X, Options(streaming=True))],
    ids=["steps", "values", "options"],
)
def test_arguments_and_options_that_differ_are_compiled(
    x: torch.Tensor, options: Options, calls
) -> None:
    compiled, network = remembering(), so.freeze(built())
    compiled(network, Arguments.of(network, X, "export"), Options())
    compiled(network, Arguments.of(network, x, "export"), options)
    assert len(calls) == 2


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The networks whose loop is really looked for; what is found stands for it here."""
    made: list[nn.Module] = []

    def counted(network: nn.Module, inputs: Any, **named: Any) -> Any:
        made.append(network)
        return nn.Linear(len(made), 1)

    monkeypatch.setattr(exporter, "find_loop", counted)
    return made


def _frozen(net: nn.Module, axes: str = "TNC") -> nn.Module:
    frozen = so.freeze(net)
    set_axes(frozen, axes)
    return frozen


def _a_bias(net: Any) -> None:
    net.fc.bias.data[0] += 1


def _a_number(net: Any) -> None:
    net.steps += 1


def _what_runs(net: Any) -> None:
    def run(*args: Any) -> Any:
        return NETWORKS["plain"].run(*args)

    net.run = run


def _a_class(net: Any) -> None:
    class Other(Looping):
        pass

    net.__class__ = Other


@pytest.mark.parametrize("change", [_a_bias, _a_number, _what_runs, _a_class])
def test_a_loop_of_a_network_that_differs_is_looked_for(
    change: Callable[[Any], None], searched
) -> None:
    find, (x,) = finding(), example("plain")
    found = find(_frozen(network("plain")), [x])
    other = Looping(NETWORKS["plain"].run).eval()
    again = find(_frozen(other), [x.clone()])
    assert len(searched) == 1
    assert again is not found
    assert str(again) == str(found)
    for _ in range(2):
        change(other)
        assert str(find(_frozen(other), [x])) != str(found)
    find(_frozen(other), [x])
    assert len(searched) == 3  # what is changed in the same way again is another one


@pytest.mark.parametrize(
    ("change", "axes"),
    [(lambda x: x + 1, "TNC"), (lambda x: x[:4], "TNC"), (lambda x: x, "NTC")],
    ids=["values", "steps", "axes"],
)
def test_a_loop_with_other_inputs_or_axes_is_looked_for(
    change: Callable[[Tensor], Tensor], axes: str, searched
) -> None:
    find, (x,) = finding(), example("plain")
    find(_frozen(network("plain")), [x])
    find(_frozen(network("plain"), axes), [change(x)])
    assert len(searched) == 2
