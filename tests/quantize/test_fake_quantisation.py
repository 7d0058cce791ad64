"""Networks of brevitas and torchao keep the grids that they were trained with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so


class Net(nn.Module):
    """Two linear layers with leaky neurons: (T, N, 20) -> (T, N, 5)."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        one, two, spikes = 0, 0, []
        for x_t in x:
            one = 0.9 * one + self.first(x_t)
            s = (one > 1).float()
            one = one - s
            two = 0.9 * two + self.second(s)
            s = (two > 0.5).float()
            two = two - 0.5 * s
            spikes.append(s)
        return torch.stack(spikes)


def brevitas() -> tuple[nn.Module, nn.Module]:
    reason = "brevitas is not installed: it needs dependencies 2.0.1 and unfoldNd, too"
    qnn = pytest.importorskip("brevitas.nn", reason=reason)
    return qnn.QuantLinear(20, 16, bias=True, weight_bit_width=8), qnn.QuantLinear(
        16, 5, bias=True, weight_bit_width=4
    )


def torchao() -> tuple[nn.Module, nn.Module]:
    qat = pytest.importorskip("torchao.quantization.qat", reason="torchao is not installed")
    config = qat.IntxFakeQuantizeConfig(torch.int8, "per_channel", is_symmetric=True)
    return qat.FakeQuantizedLinear(20, 16, weight_config=config), qat.FakeQuantizedLinear(
        16, 5, weight_config=config
    )


@pytest.mark.parametrize("layers", [brevitas, torchao], ids=lambda layers: layers.__name__)
def test_their_grids_are_kept(layers) -> None:
    torch.manual_seed(0)
    net, x = Net(*layers()).eval(), (torch.rand(9, 3, 20) > 0.5).float() * 2
    model = so.export(net, x, axes="TNC")
    weights = {t.name: t.data_type for t in model.graph.initializer if len(t.dims) > 1}
    assert weights == {"first.synapse.weight": 3, "second.synapse.weight": 3}
    report = so.verify(net, model, x)
    assert report.ok, report
    assert 0 < net(x).mean() < 1
    # the weights lie on a grid of 8 bits already
    again = so.quantize.apply(net, bits=8)
    assert torch.equal(again(x), net(x))
    assert not any(row.rounded for row in so.quantize.summary_of(again).layers)
