"""What roundings of currents can change in an equation is bounded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from forms import TWINS

from synapse_onnx import ops
from synapse_onnx.ops.equation import NeuronOp

ROUNDED = [
    twin
    for twin in TWINS
    if (form := twin.values[0]).kind == "spikes" and form.regime in ("slayer", "loihi")  # type: ignore[attr-defined]
]


@pytest.mark.parametrize("rounding", [0.0, 0.05, 0.8, 100.0])
@pytest.mark.parametrize("form", ROUNDED)
def test_what_roundings_of_currents_can_change_is_bounded(form: NeuronOp, rounding: float) -> None:
    """Currents moved at random: spikes part where they are undecided, and states no further."""
    (args,) = (sample.args for sample in form.samples() if sample.id == "channels")
    given = dict(zip((*form.inputs, *form.tail), args, strict=True)) | {"graded": True}
    currents, scale = form.e.currents, given["scale"]
    draw = torch.Generator().manual_seed(0)
    given |= {name: torch.randn(4, 3, 60, generator=draw) * 0.4 for name in currents}
    given |= {name: given[name][:1].expand(4, 3).contiguous() for name in form.states}
    near, height, off = form.error_bound(*given.values(), rounding=rounding)
    wanted, *states = form(*given.values())
    assert 0 < int((wanted != 0).sum()) < wanted.numel()
    if not rounding:
        assert not any(bool(x.any()) for x in (near, height, *off.values()))
    moved = parted = 0
    for _ in range(20):
        # at the ends of what roundings reach more often than in between
        noise = [
            (4 * torch.rand(4, 3, 60, generator=draw) - 2).clamp(-0.99, 0.99) for _ in currents
        ]
        pairs = zip(currents, noise, strict=True)
        other = given | {n: (given[n].double() + x * rounding / scale).float() for n, x in pairs}
        spikes, *last = form(*other.values())
        flipped = (spikes != 0) != (wanted != 0)
        first = flipped & (flipped.cumsum(dim=-1) == 1)
        assert bool(near[first].all())
        same = flipped.cumsum(dim=-1) == 0
        difference = (spikes - wanted).abs() * scale
        assert bool((difference <= height)[same].all())
        for name, one, another in zip(form.states, states, last, strict=True):
            assert bool(((one - another).abs() <= off[name])[same[..., -1]].all()), name
        moved += int((difference > 0)[same].sum())
        parted += int(first.sum())
    assert (moved > 0) == (rounding > 0)
    assert parted or rounding < 100


def test_a_unit_of_a_current_stays_until_the_voltage_is_reset() -> None:
    x = torch.tensor([8.0, 0.5, 0.0, 3000.5, 0.5, 16.0]).reshape(1, 1, -1) / 4096
    zero = torch.zeros(1, 1, dtype=torch.int64)
    decays = torch.tensor([4096.0]), torch.tensor([0.0])  # no current, all of the voltage is kept
    args = (x, *decays, zero, zero, 4096, 3000, 1.0, 1.0, True)
    form: Any = ops.get_op("Cuba").symbolic
    near, height, off = form.__self__.error_bound(*args, rounding=0.1)
    assert height.flatten().tolist() == [1, 1, 1, 1, 0, 1]
    assert not bool(near.any())
    assert {name: float(value) for name, value in off.items()} == {"current": 1, "voltage": 1}
    # a voltage at its threshold, or a unit below, is decided by that unit
    for level, again in ((3008, False), (3009, True)):
        near, _, _ = form.__self__.error_bound(*args[:6], level, *args[7:], rounding=0.1)
        assert near.flatten().tolist() == [False, False, False, True, again, False]
