"""NIR graphs as other frameworks write them: thresholds, resets, scales, time constants."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from nir_graphs import DT, NEURONS, SETTLED, STEPS, both, drive, line, loop, many, read

import synapse_onnx as so
from synapse_onnx.readers._nir.convention import CONVENTIONS

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.mark.parametrize("strict", [True, False])
def test_at_its_threshold(strict: bool, tmp_path: Path) -> None:
    """A voltage that just reaches the threshold: SpikingJelly spikes there, snnTorch does not."""
    node = nir.IF(many(1 / DT), many(2.0), many(0.0))
    x = torch.ones(1, 4, STEPS)
    output = both(line(node), x, tmp_path, framework="nir" if strict else "spikingjelly")
    np.testing.assert_array_equal(np.flatnonzero(output[0, 0])[:2], [2, 5] if strict else [1, 3])


def test_conventions_say_where_they_come_from() -> None:
    assert {"nir", "snntorch", "norse", "spikingjelly", "sinabs", "rockpool"} <= set(CONVENTIONS)
    assert all(convention.source for convention in CONVENTIONS.values())


def rockpool(
    x: np.ndarray, keep: float, fade: float | None, level: float, most: float = 2.0**16
) -> np.ndarray:
    """Rockpool's LIFTorch, or LIFNeuronTorch without a current; level = inf gives ExpSynTorch."""
    u = v = np.zeros(x.shape[:-1])
    steps = []
    for t in range(x.shape[-1]):
        if math.isinf(level):
            v = keep * (v + x[..., t])
            steps.append(v)
            continue
        u = x[..., t] if fade is None else fade * (u + x[..., t])
        v = keep * v + u
        s = np.minimum(np.where(v >= level, np.floor(v / level), 0), most)
        for count in (1, 2, 3, 4):
            assert np.abs(v - count * level).min() > 1e-6
        v = v - level * s
        steps.append(s)
    return np.stack(steps, -1)


@pytest.mark.parametrize("dt", [1e-3, 5e-4])
@pytest.mark.parametrize("kind", ["LI", "LIF", "CubaLIF"])
def test_rockpools_convention(kind: str, dt: float, tmp_path: Path) -> None:
    """What its to_nir writes gives what its forward computes."""
    mem, syn = 1e-2, 5e-3
    keep, fade = math.exp(-dt / mem), math.exp(-dt / syn)
    r, level = many(mem * keep / dt), 2.6
    node, expected = {
        "LI": (nir.LI(many(mem), r, many(0)), (keep, None, math.inf)),
        "LIF": (nir.LIF(many(mem), r, many(0), many(level)), (keep, None, level)),
        "CubaLIF": (nir.CubaLIF(many(syn), many(mem), r, many(0), many(level)),
                    (keep, fade, level)),
    }[kind]  # fmt: skip
    x = drive(3, 4)
    for most in (2.0**16, 2, 1):
        output = both(line(node), x, tmp_path, framework="rockpool", dt=dt, max_spikes=most)
        reference = rockpool(x.numpy().astype(np.float64), *expected, most=most)
        np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-5)
        assert reference.mean() > 0.05
        assert kind != "CubaLIF" or most == 2.0**16 or reference.max() == most


@pytest.mark.parametrize("kind", ["LI", "LIF", "IF"])
def test_sinabs_convention(kind: str, tmp_path: Path) -> None:
    """LIF takes in a share of its input, ExpLeak all of it, time constants are in steps."""
    keep = math.exp(-1 / 8)
    node, share, keep, level = {
        "LI": (nir.LI(many(8), many(1), many(0)), 1, keep, math.inf),
        "LIF": (nir.LIF(many(8), many(1), many(0), many(0.31)), 1 - keep, keep, 0.31),
        "IF": (nir.IF(many(1), many(2.5)), 1, 1, 2.5),
    }[kind]
    x = drive(3, 4)
    output = both(line(node), x, tmp_path, framework="sinabs")
    spikes, voltages = loop(x.numpy().astype(np.float64), a=0, b=1, c=keep, d=share, e=0,
                            level=min(level, 1e9), reset="subtract", strict=False)  # fmt: skip
    reference = voltages if kind == "LI" else spikes
    np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-5)
    assert reference.mean() > 0.05


@pytest.mark.parametrize(
    "said", ["snntorch", b"snnTorch 1.0", "SpikingJelly", "snnTorch's nir export"]
)
def test_the_writer_is_taken_from_the_metadata(said: Any) -> None:
    node, _ = NEURONS["LIF"]
    x = drive(3, 4)
    name = "spikingjelly" if said == "SpikingJelly" else "snntorch"
    settled = SETTLED[name]
    with torch.no_grad():
        output = so.load_nir(line(node, framework=said), **settled)(x)
        expected = read(line(node), name)(x)
        other = read(line(node, framework=said), "nir", reset="zero")(x)
    assert torch.equal(output, expected)
    assert name != "snntorch" or not torch.equal(output, other)
    settled = {key: value for key, value in settled.items() if key != "dt"}
    with torch.no_grad():
        slow = so.load_nir(line(node, framework=said, dt=3e-4), **settled)(x)
        again = so.load_nir(line(node, framework=said, dt=3e-4), dt=1e-4, **settled)(x)
    assert not torch.equal(slow, output)
    assert torch.equal(again, output)
