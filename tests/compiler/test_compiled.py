"""The fixture ``compiled_once`` forgets no difference, and compiles the same once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compiled import remembering
from networks import built, spikes
from torch import nn

import synapse_onnx as so
from synapse_onnx.compiler import exporter
from synapse_onnx.compiler.arguments import Arguments
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
