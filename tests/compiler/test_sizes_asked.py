"""Branches on batch size and steps together, which a graph settles for one example."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from networks import spikes
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")

X = spikes(4, 6, 5)
PLACE = r"at line \d+ of test_sizes_asked\.py"


class Net(nn.Module):
    """A layer, and a factor that is found from the sizes of its input."""

    def __init__(self, factor: Callable[..., object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = so.block.cuba.Dense(
            {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.1}, 6, 4, weight_scale=3
        )
        self.factor = factor

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        n, _, t = x.shape
        return self.layer(x) * self.factor(x, n, t, *others)


#: conditions that other sizes answer otherwise
BRANCHES: dict[str, Callable[..., object]] = {
    "elements": lambda x, n, t: 2 if x.numel() > 10**6 else 1,
    "elements of many": lambda x, n, t: 2 if x.numel() > 10**8 else 1,
    "product": lambda x, n, t: 2 if n * t > 1000 else 1,
    "a product that is met by two sizes": lambda x, n, t: 2 if n * t == 12347 else 1,
    "a product that is met by few sizes": lambda x, n, t: 2 if 12 * n * t == 36 * 12347 else 1,
    "equal": lambda x, n, t: 2 if n == t else 1,
    "not equal": lambda x, n, t: 2 if n != t else 1,
    "difference": lambda x, n, t: 2 if n > t + 3 else 1,
    "large difference": lambda x, n, t: 2 if n > t + 123_456 else 1,
    "one large difference": lambda x, n, t: 2 if n == t + 123_456 else 1,
    "ratio": lambda x, n, t: 2 if t / n > 60 else 1,
    "a ratio without a value at 1": lambda x, n, t: 2 if t // (n - 1) > 60 else 1,
    "remainder": lambda x, n, t: 2 if n * t % 7 == 3 else 1,
    "truth of a number": lambda x, n, t: 2 if n * t % 3 else 1,
    "not": lambda x, n, t: 1 if not n * t % 3000 else 2,
    "and": lambda x, n, t: 2 if (n > t) & (n * t > 10**6) else 1,
    "int": lambda x, n, t: 1 + int(n > t),
    "factor": lambda x, n, t: n > t,
    "assert": lambda x, n, t: _asserted(n < t),
}

#: numbers that other sizes make others of
NUMBERS: dict[str, Callable[..., object]] = {
    "int": lambda x, n, t: int(n * t / 7),
    "float": lambda x, n, t: float(x.numel()),
    "root": lambda x, n, t: 1 / math.sqrt(n * t),
    "range": lambda x, n, t: sum(1 for _ in range(n * t)),
    "list": lambda x, n, t: len([0] * x.numel()),
    "bits": lambda x, n, t: (n * t).bit_length(),
}

#: conditions that hold for all sizes, or for one axis, and numbers that stay open
OPEN: dict[str, Callable[..., object]] = {
    "elements": lambda x, n, t: _asserted(x.shape[0] * x.shape[2] > 0),
    "sum": lambda x, n, t: _asserted(n + t >= 2),
    "multiple": lambda x, n, t: _asserted(n * t % n == 0),
    "of a view": lambda x, n, t: _asserted(x.reshape(-1, t).shape[0] == 6 * n),
    "back again": lambda x, n, t: _asserted(x.transpose(1, 2).reshape(-1, 6).shape[0] // t == n),
    "product": lambda x, n, t: 1 / x.numel(),
    "root": lambda x, n, t: (n * t) ** 0.5,
    "smaller": lambda x, n, t: min(n, t),
    "larger": lambda x, n, t: max(n * t, 1),
    "text": lambda x, n, t: len(f"{x.shape}") * 0 + 1,
}


def _asserted(condition: object) -> int:
    assert condition
    return 1


@pytest.mark.parametrize("case", BRANCHES)
def test_a_branch_is_refused(case: str) -> None:
    sentence = f"branches on the batch size N and number of time steps T {PLACE}, .*dynamic=False$"
    with pytest.raises(so.ExportError, match=sentence):
        so.export(Net(BRANCHES[case]), X)


@pytest.mark.parametrize("case", NUMBERS)
def test_a_constant_is_refused(case: str) -> None:
    sentence = f"makes a constant of the batch size N and number of time steps T {PLACE}; .*False$"
    with pytest.raises(so.ExportError, match=sentence):
        so.export(Net(NUMBERS[case]), X)


@pytest.mark.parametrize("case", ["equal", "truth of a number"])
def test_fixed_axes_have_one_branch(case: str) -> None:
    net = Net(BRANCHES[case])
    assert so.verify(net, so.export(net, X, dynamic=False), X).ok


@pytest.mark.parametrize("case", OPEN)
def test_what_holds_for_all_sizes_is_no_branch(case: str) -> None:
    net = Net(OPEN[case])
    report = so.verify(net, so.export(net, X), X)
    assert report.ok, str(report)


def test_two_inputs_have_one_batch_and_one_time() -> None:
    net = Net(lambda x, n, t, z: _asserted(z.shape[0] == n and z.shape[2] == t and z.shape[1] < 4))
    report = so.verify(net, so.export(net, (X, X[:, :3])), (X, X[:, :3]))
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("factor", "sentence"),
    [
        (lambda x, n, t: {5: 2}.get(t, 1), "looks a size up in a dictionary or a set, .*False$"),
        (lambda x, n, t: float(n > t), "makes a Python number of a size, .*dynamic=False$"),
        (lambda x, n, t: round(n / t * 20), r"applies round\(\) to a size, .*dynamic=False$"),
        (lambda x, n, t: 2 if t > 5000 else 1, "needs T <= 5000 for the number of time steps T"),
        (lambda x, n, t: 2 if t > 10**7 else 1, "needs T <= 10000000 for the number"),
        (lambda x, n, t: 2 if t == 12347 else 1, "needs .* for the number of time steps T"),
        (lambda x, n, t: 2 if n % 7 == 3 else 1, "needs .* for the batch size N"),
    ],
    ids=["key", "float of a condition", "round", "many", "very many", "one", "remainder"],
)
def test_what_is_refused_elsewhere(factor: Callable[..., object], sentence: str) -> None:
    with pytest.raises(so.ExportError, match=sentence) as caught:
        so.export(Net(factor), X)
    assert "\n" not in str(caught.value)


def test_sizes_are_torchs_own_afterwards() -> None:
    asked = [
        (torch.SymBool, "__bool__"),
        (torch.SymInt, "__index__"),
        (torch.SymFloat, "__float__"),
    ]
    before = [getattr(kind, name) for kind, name in asked]
    with pytest.raises(so.ExportError, match="branches"):
        so.export(Net(BRANCHES["equal"]), X)
    assert [getattr(kind, name) for kind, name in asked] == before
