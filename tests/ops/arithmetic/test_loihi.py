"""The loihi regime: every neuron against plain NumPy loops, in range and at the end of 24 bits."""

from __future__ import annotations

from typing import Any

import loihi_numpy as plain
import numpy as np
import pytest
import torch
from torch import Tensor

import synapse_onnx as so
from synapse_onnx.neuron import kinds
from synapse_onnx.ops.arithmetic.loihi import STATE_LIMIT, clip, wrap

pytestmark = pytest.mark.gpu

STEPS = 120

#: parameters as a file has them
CUBA = {"vThMant": 80, "iDecay": 512, "vDecay": 200}
TURN = {"vThMant": 60, "sinDecay": 2700, "cosDecay": 2800}
ADAPTS = {"vThStep": 20, "thDecay": 300, "refDecay": 500}
DEVICE = {
    "cuba": CUBA,
    "alif": CUBA | ADAPTS,
    "rf": TURN,
    "rf_iz": TURN,
    "adrf": TURN | ADAPTS,
    "adrf_iz": TURN | ADAPTS,
}
#: largest current in 64ths: within 24 bits, and far enough to reach their end
SIZES = {"small": 200, "large": 60_000}


def made(kind: str, **more: Any) -> Any:
    module = kinds()[kind]
    return module.Neuron(**module.neuron_params(DEVICE[kind]), regime="loihi", **more)


def assert_gives(neuron: Any, x: Tensor, expected: np.ndarray) -> None:
    """A neuron gives what is expected, in torch and in ONNX Runtime, and is verified."""
    with torch.no_grad():
        np.testing.assert_array_equal(neuron(x).numpy(), expected)
    model = so.export(neuron, x)
    np.testing.assert_array_equal(so.Session(model).run(x.numpy()), expected)
    assert so.verify(neuron, model, x).ok


def drawn(kind: str, size: int) -> tuple[list[np.ndarray], Any]:
    """Currents in 64ths (2, 3, T), one or a pair; and as the neuron takes them."""
    rng = np.random.default_rng(size)
    count = 2 if kinds()[kind].Neuron.complex else 1
    parts = [rng.integers(-size, 2 * size, (2, 3, STEPS)) for _ in range(count)]
    parts = [np.where(rng.random(part.shape) < 0.3, part, 0) for part in parts]
    tensors = [torch.from_numpy((part / 64).astype(np.float32)) for part in parts]
    return parts, tuple(tensors) if count == 2 else tensors[0]


def expected(kind: str, parts: list[np.ndarray], bias: Any = 0) -> tuple[np.ndarray, np.ndarray]:
    """Spikes and membrane of the plain loop."""
    neuron = plain.NEURONS[kinds()[kind].Neuron.device_type](DEVICE[kind], bias)
    spikes, membranes = [], []
    for t in range(STEPS):
        now = [part[..., t] for part in parts]
        spikes.append(neuron.step(now if len(now) == 2 else now[0]))
        membranes.append(neuron.membrane)
    return np.stack(spikes, -1).astype(np.float32), np.stack(membranes, -1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", DEVICE)
@pytest.mark.usefixtures("compiled_once")
def test_every_neuron_is_the_plain_loop(kind: str, size: str) -> None:
    parts, given = drawn(kind, SIZES[size])
    spikes, membrane = expected(kind, parts)
    assert 0.005 < spikes.mean() < 0.9
    neuron = made(kind).eval()
    with torch.no_grad():
        np.testing.assert_array_equal(neuron(given).numpy(), spikes)
        traces = dict(zip(neuron.equation.traces, neuron.dynamics(given), strict=True))
    np.testing.assert_array_equal(
        traces[neuron.equation.readout].numpy(), (membrane / 4096).astype(np.float32)
    )
    arguments = list(given) if isinstance(given, tuple) else [given]
    found = so.Session(so.export(neuron, arguments)).run(*(x.numpy() for x in arguments))
    np.testing.assert_array_equal(found, spikes)
    # what training runs, which carries a gradient
    found = made(kind).train()(given)
    np.testing.assert_array_equal(found.detach().numpy(), spikes)


@pytest.mark.parametrize("kind", DEVICE)
def test_slayer_gives_the_same_until_24_bits_are_full(kind: str) -> None:
    module = kinds()[kind]
    slayer = module.Neuron(**module.neuron_params(DEVICE[kind])).eval()
    same = []
    for size in SIZES.values():
        _, given = drawn(kind, size)
        with torch.no_grad():
            # a reset or a threshold may hide a state that was cut off: states are compared
            two = zip(slayer.dynamics(given), made(kind).eval().dynamics(given), strict=True)
            same.append(all(bool((a == b).all()) for a, b in two))
    assert same == [True, False]


def test_cuba_spikes_above_its_threshold_and_resonators_at_it() -> None:
    """v > vth << 6 in lava's LIF, >= in its RF and RF_IZ: one unit of a state decides."""
    exactly = torch.tensor([[[CUBA["vThMant"] / 64]]])
    cuba = made("cuba").eval()
    assert cuba(exactly).tolist() == [[[0]]]
    assert cuba(exactly + 1 / 4096).tolist() == [[[1]]]
    turns = made("rf_iz").eval()
    level = torch.tensor([[[TURN["vThMant"] / 64]]])
    assert turns((0 * level, level)).tolist() == [[[1]]]
    assert turns((0 * level, level - 1 / 4096)).tolist() == [[[0]]]


@pytest.mark.parametrize("kind", ["cuba", "alif"])
@pytest.mark.parametrize(
    ("shape", "ends"),
    [((1,), (1, 6)), ((3,), (1, 6)), ((3, 2, 2), (1, 6)), ((3, 2, 2), (-60_000, 60_000))],
    ids=["one", "channels", "neurons", "fills 24 bits"],
)
@pytest.mark.usefixtures("compiled_once")
def test_a_bias_is_added_at_every_step(
    kind: str, shape: tuple[int, ...], ends: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    mantissas = rng.integers(*ends, shape)
    neuron = made(kind).eval()
    neuron.set_bias(torch.from_numpy(mantissas / 64).float())
    currents = rng.integers(-40, 50, (2, 3, 2, 2, STEPS))
    bias = mantissas.reshape(*shape, *(1,) * (3 - len(shape)))
    spikes, _ = expected(kind, [currents], bias)
    assert 0.01 < spikes.mean() < 0.9
    assert_gives(neuron, torch.from_numpy(currents / 64).float(), spikes)


def test_the_bias_of_a_checkpoint_has_its_own_shape() -> None:
    neuron, other = made("cuba"), made("cuba")
    neuron.set_bias(torch.tensor([0.5, -0.25]))
    other.load_state_dict(neuron.state_dict())
    assert torch.equal(other.bias, torch.tensor([0.5, -0.25]))
    with pytest.raises(so.ShapeError, match=r"the bias has shape \(2,\) and the neurons \(3,\)"):
        other(torch.zeros(1, 3, 5))


@pytest.mark.parametrize(
    ("neuron", "sentence"),
    [
        (lambda: made("rf"), "rf neuron: no bias in the loihi regime"),
        (
            lambda: so.neuron.cuba.Neuron(1, 0.1, 0.1),
            "cuba neuron: no bias in the slayer regime",
        ),
    ],
)
def test_where_there_is_no_bias_it_is_refused(neuron: Any, sentence: str) -> None:
    with pytest.raises(so.InputError, match=sentence):
        neuron().set_bias(torch.zeros(1))


def test_a_norm_is_refused() -> None:
    with pytest.raises(so.InputError, match="Loihi has no norm; fold it into a bias"):
        made("cuba", norm=so.neuron.norm.MeanOnlyBatchNorm)


def test_24_bits() -> None:
    ends = torch.tensor(
        [0, STATE_LIMIT - 1, STATE_LIMIT, STATE_LIMIT + 1, -STATE_LIMIT, 1 - STATE_LIMIT]
    )
    assert wrap(ends).tolist() == plain.wrap(ends.numpy()).tolist()
    assert wrap(ends).tolist() == [
        0, STATE_LIMIT - 1, STATE_LIMIT, 1 - STATE_LIMIT, STATE_LIMIT, 1 - STATE_LIMIT,
    ]  # fmt: skip
    assert clip(ends).tolist() == [0, *[STATE_LIMIT - 1] * 3, *[1 - STATE_LIMIT] * 2]


def test_training_passes_gradients_through_what_was_cut_off() -> None:
    _, given = drawn("cuba", SIZES["large"])
    assert isinstance(given, Tensor)
    given.requires_grad_()
    made("cuba", requires_grad=True).train()(given).sum().backward()
    assert given.grad is not None
    assert bool(given.grad.isfinite().all())
    assert float(given.grad.abs().sum()) > 0


# -- sigma-delta ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0, 1, 12])
@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("mode", ["neuron", "encoder", "decoder"])
@pytest.mark.usefixtures("compiled_once")
def test_sigma_delta_is_the_plain_loop(mode: str, activation: str, threshold: int) -> None:
    rng = np.random.default_rng(threshold)
    # what a synapse gives: integers over 2**18, of messages over 2**12; an input is over 2**6
    unit = 64 if mode == "encoder" else 1 << 18
    given = rng.integers(-(unit >> 1), unit, (2, 3, STEPS))
    bias = rng.integers(-20, 20, 3)
    device = {"vThMant": threshold, "activation": activation}
    loop = plain.SigmaDelta(device, bias.reshape(3, 1)[:, 0] if mode == "neuron" else 0, mode)
    steps = [loop.step(given[..., t]) for t in range(STEPS)]
    reference = np.stack(steps, -1) / (1 << (18 if mode == "decoder" else 12))
    neuron = so.neuron.sigma_delta.Neuron(
        threshold / 64, torch.relu if activation == "relu" else None, regime="loihi"
    ).eval()
    if mode == "neuron":
        neuron.set_bias(torch.from_numpy(bias / 64).float())
    else:
        getattr(neuron, f"as_{mode}")()
    assert_gives(neuron, torch.from_numpy(given / unit).float(), reference)


def test_slayer_keeps_a_threshold_of_one_step() -> None:
    tiny = torch.tensor([[[2.0**-13, 2.0**-13, -(2.0**-13)]]])
    sent = {
        regime: so.neuron.sigma_delta.Neuron(0, None, regime=regime)(tiny).flatten().tolist()
        for regime in ("slayer", "loihi")
    }
    # half a step is less than the threshold, and is kept; Loihi sends it, floored, and loses it
    assert sent["slayer"] == [0, 2.0**-12, 0]
    assert sent["loihi"] == [0, 0, -(2.0**-12)]
    with pytest.raises(so.InputError, match="regime must be slayer or loihi, got 'float'"):
        so.neuron.sigma_delta.Neuron(0.1, None, regime="float")


def test_currents_at_the_ends_of_24_bits_in_the_file() -> None:
    ends = [sign * STATE_LIMIT + unit for sign in (-1, 1) for unit in (-1, 0, 1)]
    neuron = so.neuron.cuba.Neuron(1.0, 1.0, 1.0, regime="loihi")
    x = torch.tensor(ends).reshape(1, 6, 1) / neuron.s_scale
    stream = so.Session(so.export(neuron, x, streaming=True)).stream()
    for _ in range(2):  # one step, and as many as take the loop
        stream.run(x.numpy())
        (current,) = (v for name, v in stream.states.items() if name.endswith("current"))
        assert current.flatten().tolist() == plain.wrap(np.array(ends)).tolist()
        x = x.repeat(1, 1, 3)
