"""Attention has a dropout, which draws nothing where it is switched off."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import synapse_onnx as so
from synapse_onnx.compiler.loops.chance import draws_numbers

pytestmark = pytest.mark.usefixtures("compiled_once")

aten = torch.ops.aten


class Attention(nn.Module):
    """Tokens that attend to each other at every step, before neurons."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Linear(6, 3 * 8)
        self.attention = nn.MultiheadAttention(8, 2, dropout=dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros(x.shape[0], 8), []
        for t in range(x.shape[-1]):
            y = self.tokens(x[..., t]).unflatten(-1, (3, 8))
            v = 0.8 * v + self.attention(y, y, y, need_weights=False)[0].sum(1)
            s = (v > 0.1).float()
            v = v - 0.1 * s
            spikes.append(s)
        return torch.stack(spikes, -1)


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
def test_attention_in_a_loop_is_right(streaming: bool) -> None:
    torch.manual_seed(0)
    net, x = Attention(dropout=0.3).eval(), torch.rand(3, 6, 7) * 4
    model = so.export(net, x, streaming=streaming)
    report = so.verify(net, model, x)
    assert report.ok, report
    assert 0 < net(x).mean() < 1


class Dropping(Attention):
    """Attention that also drops in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.tokens(x.movedim(-1, 0)).unflatten(-1, (1, 3, 8))
        out = [scaled_dot_product_attention(y_t, y_t, y_t, dropout_p=0.3).sum((1, 2)) for y_t in y]
        return torch.stack(out, -1)


def test_attention_that_drops_is_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(so.ExportError, match="random"):
        so.export(Dropping(0.0).eval(), torch.rand(3, 6, 7))


@pytest.mark.parametrize(
    ("args", "kwargs", "drawn"),
    [
        ((1, 2, 3), {}, False),
        ((1, 2, 3, None, 0.0), {}, False),
        ((1, 2, 3, None, 0.1), {}, True),
        ((1, 2, 3), {"dropout_p": 0.5}, True),
    ],
)
def test_the_probability_decides(
    args: tuple[object, ...], kwargs: dict[str, object], drawn: bool
) -> None:
    assert draws_numbers(aten.scaled_dot_product_attention.default, args, kwargs) is drawn


def test_operators_without_a_probability_of_dropout() -> None:
    assert draws_numbers(aten.rand_like.default, (1,), {})
    assert draws_numbers(aten.bernoulli.default, (1,), {})
    assert not draws_numbers(aten.add.Tensor, (1, 2), {})
    assert not draws_numbers(max, (1, 2), {})
