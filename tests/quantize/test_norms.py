"""Batch norms: which are folded into the layer before them, and which stay, and why."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from quantized_networks import network, spikes
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import synapse_onnx as so

BITS = 8


def norm(channels: int, kind: Any = nn.BatchNorm1d, **options: Any) -> Any:
    made = kind(channels, **options)
    generator = torch.Generator().manual_seed(channels)
    with torch.no_grad():
        for tensor in (made.running_mean, made.running_var, made.weight, made.bias):
            if tensor is not None:
                tensor.copy_(0.5 + torch.rand(channels, generator=generator))
    return made.eval()


class Net(nn.Module):
    """A layer and a norm, in a forward of its own."""

    def __init__(self, how: str = "plain") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.fc, self.norm, self.other = nn.Linear(8, 6), norm(6), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        if self.how == "between":
            return self.norm((y > 0).float())
        if self.how == "read twice":
            return self.norm(y) + y
        if self.how == "transpose read":
            return self.norm(y) + y.T.T
        if self.how == "weight read":
            return self.norm(y) + nn.functional.linear(x, self.fc.weight)
        if self.how == "bias read":
            return self.norm(y) + self.fc.bias
        if self.how == "gain read":
            return self.norm(y) * self.norm.weight
        if self.how == "over steps":
            return self.norm(self.fc(torch.stack([x, -x, x, x, x, x], 1))).sum(1)
        if self.how == "over both":
            return self.norm(y) + self.norm(self.fc(torch.stack([x, -x, x, x, x, x], 1))).sum(1)
        if self.how == "shape read":
            return self.norm(y) * y.shape[-1]
        if self.how == "norm used twice":
            return self.norm(y) + self.norm(self.other(x))
        if self.how == "layer used twice":
            return self.norm(y) + self.fc(2 * x)
        if self.how == "returned":
            return self.norm(y), y  # type: ignore[return-value]
        if self.how == "not run":
            return y
        return self.norm(y) + self.other(x)


def test_a_norm_is_folded_as_the_run_shows() -> None:
    given, x = Net().eval(), torch.randn(50, 8)
    folded = so.quantize.apply(given, BITS, calibration=x)
    assert isinstance(folded.norm, nn.Identity)
    gain = given.norm.weight / torch.sqrt(given.norm.running_var + given.norm.eps)
    bias = (given.fc.bias - given.norm.running_mean) * gain + given.norm.bias
    assert torch.allclose(folded.fc.bias, bias, atol=1e-6)
    weight = given.fc.weight * gain[:, None]
    step = weight.abs().amax(1, keepdim=True) / 127
    assert bool(((folded.fc.weight - weight).abs() <= 0.6 * step + 1e-7).sum() > 40)
    summary = so.quantize.summary_of(folded)
    assert summary.norms["norm"].startswith("folded into fc, whose current changes by ")
    assert summary.layers[0].norm == "norm"
    assert summary.effect is not None
    assert 0 <= summary.effect < 1e-5
    assert "folded norms change outputs by" in str(summary)
    assert torch.allclose(folded(x), given(x), atol=0.05)


STAYS = {
    "between": "no Linear or Conv layer is just before it",
    "read twice": "the output of fc is read by other code, too",
    "transpose read": "the output of fc is read by other code, too",
    "weight read": "parameters of fc are read by other code, too",
    "bias read": "parameters of fc are read by other code, too",
    "gain read": "parameters of norm are read by other code, too",
    "over steps": r"folding it would change the current of fc by \S+ of its largest",
    "over both": r"folding it would change the current of fc by \S+ of its largest",
    "norm used twice": "it is used by several layers: fc, other",
    "layer used twice": "the output of fc is read by other code, too",
    "returned": "the output of fc is read by other code, too",
    "not run": "it did not run",
}


@pytest.mark.parametrize("how", STAYS)
def test_a_norm_stays_where_folding_would_change_something(how: str) -> None:
    given, x = Net(how).eval(), torch.randn(50, 8)
    result = so.quantize.apply(given, BITS, calibration=x)
    assert isinstance(result.norm, nn.BatchNorm1d)
    assert torch.equal(result.fc.bias, given.fc.bias)
    summary = so.quantize.summary_of(result)
    assert re.fullmatch(f"stays; {STAYS[how]}", summary.norms["norm"])
    assert summary.effect is None


def test_without_calibration_neighbours_in_a_sequential_are_folded() -> None:
    given = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), norm(4, nn.BatchNorm2d), nn.ReLU(), nn.Flatten(),
        nn.Linear(144, 6), norm(6, affine=False),
    ).eval()  # fmt: skip
    x = spikes(5, 2, 8, 8)
    result = so.quantize.apply(given, BITS)
    assert isinstance(result[1], nn.Identity)
    assert isinstance(result[5], nn.Identity)
    assert torch.allclose(result(x), given(x), atol=0.05)
    stays = so.quantize.apply(Net().eval(), BITS)
    assert isinstance(stays.norm, nn.BatchNorm1d)
    assert "without calibration" in so.quantize.summary_of(stays).norms["norm"]


def _after(*before: nn.Module) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(*before, nn.Linear(6, 6), norm(6)).eval()


UNSEEN: dict[str, tuple[list[nn.Module], tuple[int, ...]]] = {
    "nothing before it": ([], (4, 6, 6)),
    "an activation": ([nn.ReLU()], (4, 6, 6)),
    "a chain of one": ([nn.Sequential(nn.Linear(6, 6))], (4, 6, 6)),
    "flattens images alone": ([nn.Flatten(2)], (4, 6, 2, 3)),
    "flattened, then parted again": ([nn.Flatten(), nn.Unflatten(1, (6, 6))], (4, 36)),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_without_calibration_a_norm_of_rows_is_taken_for_none_of_features(name: str) -> None:
    before, shape = UNSEEN[name]
    given, x = _after(*before), torch.rand(shape)
    result = so.quantize.apply(given, BITS)
    path = str(len(before))
    assert isinstance(result[-1], nn.BatchNorm1d)
    assert so.quantize.summary_of(result).norms[str(len(before) + 1)] == (
        f"stays; it cannot be seen without calibration that {path} gets (N, C), not (N, L, C); "
        "give calibration, or put nn.Flatten() before it"
    )
    assert torch.allclose(result(x), given(x), atol=0.05)


@pytest.mark.parametrize(
    "before",
    [
        [nn.Flatten()],
        [nn.Flatten(), nn.ReLU()],
        [nn.Sequential(nn.Conv1d(6, 2, 4), nn.Flatten()), nn.Linear(6, 6), norm(6), nn.Dropout()],
    ],
    ids=["flatten", "an activation between", "a chain before"],
)
def test_without_calibration_a_norm_is_folded_where_there_are_two_axes(
    before: list[nn.Module],
) -> None:
    given = _after(*before)
    result, x = (
        so.quantize.apply(given, BITS),
        torch.rand(4, 6, 6)[:, :, : 1 if len(before) < 3 else 6],
    )
    assert isinstance(result[-1], nn.Identity)
    assert torch.allclose(result(x), given(x), atol=0.05)


class _Indexed(nn.Module):
    """Code that calls parts of a chain by itself."""

    def __init__(self, chain: nn.Module) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x) + self.chain[0](x)  # type: ignore[index]


def test_chains_within_other_code_are_folded_by_what_a_run_shows_alone() -> None:
    chain = nn.Sequential(nn.Linear(8, 6), norm(6))
    nested = nn.Sequential(nn.Sequential(chain), nn.ReLU()).eval()
    nested = nn.Sequential(nn.Flatten(), *nested).eval()
    assert isinstance(so.quantize.apply(nested, BITS)[1][0][1], nn.Identity)
    x = torch.randn(20, 8)
    for calibration in (None, x):
        result = so.quantize.apply(_Indexed(chain).eval(), BITS, calibration=calibration)
        assert isinstance(result.chain[1], nn.BatchNorm1d)
        assert torch.allclose(result(x), _Indexed(chain).eval()(x), atol=0.1)


class _Odd(nn.BatchNorm1d):
    """A norm of another equation."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 0.5


class _Sequential(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return self[2](self[1](x)) + self[1](x)


def test_neighbours_that_are_no_pair_stay() -> None:
    torch.manual_seed(0)
    odd = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), norm(6, _Odd)).eval()
    result = so.quantize.apply(odd, BITS)
    assert isinstance(result[2], _Odd)
    assert "folding it would change the current of 1" in so.quantize.summary_of(result).norms["2"]
    assert result[1].weight.abs().max() == odd[1].weight.abs().max()
    flat = nn.Flatten()
    without = nn.Sequential(flat, nn.Linear(8, 6), norm(6, track_running_stats=False)).eval()
    found = so.quantize.summary_of(so.quantize.apply(without, BITS)).norms["2"]
    assert found == "stays; it has no running statistics"
    own = _Sequential(flat, nn.Linear(8, 6), norm(6)).eval()
    assert isinstance(so.quantize.apply(own, BITS)[2], nn.BatchNorm1d)
    layer = nn.Linear(8, 8)
    twice = nn.Sequential(flat, layer, norm(8), layer).eval()
    assert isinstance(so.quantize.apply(twice, BITS)[2], nn.BatchNorm1d)
    tied = nn.Sequential(flat, nn.Linear(8, 8), norm(8), nn.Linear(8, 8)).eval()
    tied[3].weight = tied[1].weight
    found = so.quantize.summary_of(so.quantize.apply(tied, BITS)).norms["2"]
    assert found == "stays; a parameter of 1 is that of another module, too"
    tied = nn.Sequential(flat, nn.Linear(8, 8), norm(8), nn.Linear(8, 8)).eval()
    tied[3].bias = tied[1].bias
    for batch in (None, torch.randn(5, 8)):
        assert isinstance(so.quantize.apply(tied, BITS, calibration=batch)[2], nn.BatchNorm1d)


def test_reading_a_shape_and_computed_weights_keep_no_norm() -> None:
    x = torch.randn(50, 8)
    result = so.quantize.apply(Net("shape read").eval(), BITS, calibration=x)
    assert isinstance(result.norm, nn.Identity)
    layers = [parametrizations.weight_norm(nn.Linear(8, 8)) for _ in range(2)]
    given = nn.Sequential(nn.Flatten(), layers[0], norm(8), layers[1], norm(8)).eval()
    for batch in (None, x):
        result = so.quantize.apply(given, BITS, calibration=batch)
        assert isinstance(result[2], nn.Identity)
        assert isinstance(result[4], nn.Identity)


def test_a_norm_over_another_axis_of_another_size_stays() -> None:
    given, x = nn.Sequential(nn.Linear(8, 4), norm(6)).eval(), torch.randn(5, 6, 8)
    result = so.quantize.apply(given, BITS, calibration=x)
    found = so.quantize.summary_of(result).norms["1"]
    assert found == "stays; its features are not the channels of 0"
    assert torch.allclose(result(x), given(x), atol=0.1)


def test_a_norm_after_weights_with_a_grid_of_their_own_stays() -> None:
    given = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), norm(6)).eval()
    with torch.no_grad():
        given[1].weight.copy_(torch.round(given[1].weight * 64) / 64)
    result = so.quantize.apply(given, BITS)
    assert isinstance(result[2], nn.BatchNorm1d)
    assert torch.equal(result[1].weight, given[1].weight)


def test_transposed_convolutions() -> None:
    given = nn.Sequential(nn.ConvTranspose2d(2, 4, 3), norm(4, nn.BatchNorm2d)).eval()
    x = spikes(5, 2, 6, 6)
    result = so.quantize.apply(given, BITS, calibration=x)
    assert isinstance(result[1], nn.Identity)
    assert so.quantize.summary_of(result).layers[0].scales == 4
    assert torch.allclose(result(x), given(x), atol=0.05)
    groups = nn.Sequential(nn.ConvTranspose2d(2, 4, 3, groups=2), norm(4, nn.BatchNorm2d)).eval()
    stays = so.quantize.apply(groups, BITS, calibration=x)
    assert isinstance(stays[1], nn.BatchNorm2d)
    assert so.quantize.summary_of(stays).layers[0].scales == 1


@pytest.mark.parametrize("name", ["snntorch", "spikingjelly"])
def test_norms_of_live_networks_are_folded_and_change_little(name: str) -> None:
    given, x = network(name)
    summary = so.quantize.summary_of(so.quantize.apply(given, BITS, calibration=x))
    (what,) = summary.norms.values()
    assert what.startswith("folded into")
    change = float(what.rpartition(" ")[2])
    assert change < 1e-6


class _OneStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(8, 8), norm(8)

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> Any:
        v = 0.8 * state["v"] + self.norm(self.fc(x))
        s = (v > 0.5).float()
        return s, {"v": v - s}


def test_a_norm_in_a_step_of_a_neuron_is_folded() -> None:
    torch.manual_seed(0)
    given, x = nn.Sequential(so.neuron.step(_OneStep(), {"v": 0.0})).eval(), torch.rand(5, 8, 6)
    result = so.quantize.apply(given, BITS, calibration=x)
    assert isinstance(result[0].fn.norm, nn.Identity)
    assert so.verify(result, so.export(result, x), x).ok
