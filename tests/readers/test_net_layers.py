"""lava-dl's ``.net`` files: every kind of layer is what its parts are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from net_files import (
    NEURON,
    RF,
    SDNN,
    cuba,
    dense,
    image,
    in_onnx,
    load,
    rf,
    rng,
    spikes,
    weight,
    with_weight,
    write,
)
from torch import Tensor, nn

import synapse_onnx as so

pytestmark = pytest.mark.usefixtures("compiled_once")


def window(
    kind: str, shape: list[int], w: Any, neuron: Any = NEURON, **more: Any
) -> dict[str, Any]:
    geometry = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], **more}
    return {"type": kind, "shape": shape, "weight": w, "neuron": neuron, **geometry}


def late(x: Tensor, delays: Any) -> Tensor:
    """Every row of x (N, C, T) as many steps later as its delay says."""
    rows = [nn.functional.pad(x[:, i], (d, 0))[..., : x.shape[-1]] for i, d in enumerate(delays)]
    return torch.stack(rows, 1)


Expected = Callable[[Tensor], Tensor]


def flat_case() -> tuple[list[dict[str, Any]], Tensor, Expected]:
    w = weight(6, 36)
    first = cuba()
    return (
        [image(4, 3, 3), {"type": "flatten", "shape": [36, 1, 1]}, dense(w)],
        spikes(2, 4, 3, 3, 20),
        lambda x: first(with_weight(so.synapse.Dense(36, 6), w)(x.flatten(1, 3))),
    )


def dense_case(**more: Any) -> Any:
    w = weight(6, 5)
    return [dense(w, **more)], spikes(2, 5, 20), w


CASES: dict[str, Callable[[], tuple[list[dict[str, Any]], Tensor, Expected]]] = {}


def case(function: Callable[[], tuple[list[dict[str, Any]], Tensor, Expected]]) -> Any:
    CASES[function.__name__] = function
    return function


@case
def plain_dense() -> Any:
    layers, x, w = dense_case()
    return layers, x, lambda x: cuba()(with_weight(so.synapse.Dense(5, 6), w)(x))


@case
def flattened() -> Any:
    return flat_case()


@case
def dense_behind_an_image_without_a_flatten() -> Any:
    layers, x, expected = flat_case()
    return [layers[0], layers[2]], x, expected


@case
def bias_of_every_channel() -> Any:
    bias = rng.integers(-10, 20, 6)
    layers, x, w = dense_case(bias=bias.astype(np.float32))
    neuron = cuba()
    neuron.set_bias(torch.from_numpy(bias / 64).float())
    return layers, x, lambda x: neuron(with_weight(so.synapse.Dense(5, 6), w)(x))


@case
def bias_of_every_neuron() -> Any:
    bias, w = rng.integers(-10, 20, (3, 4, 4)), weight(3, 2, 3, 3)
    neuron = cuba()
    neuron.set_bias(torch.from_numpy(bias / 64).float())
    layer = window("conv", [3, 4, 4], w, padding=[1, 1], bias=bias.reshape(-1).astype(np.float32))
    return (
        [image(2, 4, 4), layer],
        spikes(2, 2, 4, 4, 20),
        lambda x: neuron(with_weight(so.synapse.Conv(2, 3, 3, padding=1), w)(x)),
    )


@case
def delays_of_the_outputs() -> Any:
    delays = rng.integers(0, 6, 6)
    layers, x, w = dense_case(delay=delays.astype(np.float32))
    return layers, x, lambda x: late(cuba()(with_weight(so.synapse.Dense(5, 6), w)(x)), delays)


@case
def delays_of_the_inputs() -> Any:
    delays = rng.integers(0, 6, 5)
    layers, x, w = dense_case(delay=delays.astype(np.float32))
    return layers, x, lambda x: cuba()(with_weight(so.synapse.Dense(5, 6), w)(late(x, delays)))


@case
def delays_beyond_loihis_limit() -> Any:
    delays = np.array([64, 0, 63, 100, 1, 62])
    w = weight(6, 5)
    layers, x = [dense(w, delay=delays.astype(np.float32))], spikes(2, 5, 120)
    return layers, x, lambda x: late(cuba()(with_weight(so.synapse.Dense(5, 6), w)(x)), delays)


@case
def long_delays_of_the_inputs() -> Any:
    delays = np.array([64, 0, 63, 100, 1])
    w = weight(6, 5)
    layers, x = [dense(w, delay=delays.astype(np.float32))], spikes(2, 5, 120)
    return layers, x, lambda x: cuba()(with_weight(so.synapse.Dense(5, 6), w)(late(x, delays)))


@case
def one_delay_for_all() -> Any:
    layers, x, w = dense_case(delay=3.0)
    return layers, x, lambda x: late(cuba()(with_weight(so.synapse.Dense(5, 6), w)(x)), [3] * 6)


@case
def delays_of_an_image() -> Any:
    w, delays = weight(2, 2, 3, 3), rng.integers(0, 4, (2, 2, 2))
    layer = window("conv", [2, 2, 2], w, delay=delays.reshape(-1).astype(np.float32))

    def expected(x: Tensor) -> Tensor:
        y = cuba()(with_weight(so.synapse.Conv(2, 2, 3), w)(x)).flatten(1, 3)
        return late(y, delays.reshape(-1)).unflatten(1, (2, 2, 2))

    return [image(2, 4, 4), layer], spikes(2, 2, 4, 4, 20), expected


@case
def masked() -> Any:
    mask = rng.integers(0, 2, (6, 5))
    layers, x, w = dense_case(mask=mask)
    return layers, x, lambda x: cuba()(with_weight(so.synapse.Dense(5, 6), w * mask)(x))


@case
def weight_exponent() -> Any:
    w = weight(6, 5)
    layers = [dense(w, NEURON | {"wgtExp": 2, "messageBits": 8, "theta": 1600, "tauRho": 0.5})]
    return (
        layers,
        spikes(2, 5, 20),
        lambda x: cuba()(with_weight(so.synapse.Dense(5, 6), 4 * w)(x)),
    )


@case
def norm_with_a_weight_scale() -> Any:
    """lava-dl divides the current, and what it has subtracted from it, by 2**weight_exp."""
    w, bias = weight(6, 5), 4 * rng.integers(-10, 20, 6)
    neuron = cuba()
    neuron.set_bias(torch.from_numpy(bias / 4 / 64).float())
    layers = [dense(w, NEURON | {"weight_exp": 2.0}, bias=bias.astype(np.float32))]
    return (
        layers,
        spikes(2, 5, 20),
        lambda x: neuron(with_weight(so.synapse.Dense(5, 6), w / 4)(x)),
    )


@case
def decays_of_every_channel() -> Any:
    decays = rng.integers(200, 1500, 6)
    layers, x, w = dense_case()
    layers[0]["neuron"] = NEURON | {"iDecay": decays}

    def expected(x: Tensor) -> Tensor:
        y = with_weight(so.synapse.Dense(5, 6), w)(x)
        rows = [cuba(current_decay=float(d) / 4096)(y[:, i : i + 1]) for i, d in enumerate(decays)]
        return torch.cat(rows, 1)

    return layers, x, expected


@case
def graded() -> Any:
    layers, x, w = dense_case()
    layers[0]["neuron"] = NEURON | {"gradedSpike": True}
    return layers, x, lambda x: cuba(graded_spike=True)(with_weight(so.synapse.Dense(5, 6), w)(x))


@case
def readout_by_a_threshold_that_nothing_reaches() -> Any:
    layers, x, w = dense_case()
    layers[0]["neuron"] = NEURON | {"vThMant": (1 << 18) - 1}
    return layers, x, lambda x: cuba().dynamics(with_weight(so.synapse.Dense(5, 6), w)(x) / 1e3)[1]


@case
def readout_without_a_neuron() -> Any:
    layers, x, w = dense_case()
    del layers[0]["neuron"]
    return layers, x, with_weight(so.synapse.Dense(5, 6), w)


@case
def complex_dense() -> Any:
    real, imag = weight(6, 5), weight(6, 5)
    layer = dense(real, RF) | {"weight": {"real": real, "imag": imag}}
    return (
        [layer],
        spikes(2, 5, 30),
        lambda x: rf()(with_weight(so.synapse.complex.Dense(5, 6), real, imag)(x)),
    )


@case
def complex_readout_without_a_neuron() -> Any:
    real, imag = weight(6, 5), weight(6, 5)
    layer = dense(real, RF) | {"weight": {"real": real, "imag": imag}}
    del layer["neuron"]
    return [layer], spikes(2, 5, 30), with_weight(so.synapse.Dense(5, 6), imag)


@case
def complex_convolution() -> Any:
    real, imag = weight(4, 2, 3, 3), weight(4, 2, 3, 3)
    layer = window("conv", [4, 3, 3], {"real": real, "imag": imag}, RF)
    return (
        [image(2, 5, 5), layer],
        spikes(2, 2, 5, 5, 30),
        lambda x: rf()(with_weight(so.synapse.complex.Conv(2, 4, 3), real, imag)(x)),
    )


@case
def recurrent() -> Any:
    w, again = weight(6, 5), weight(6, 6)
    layer = dense(w, weight_rec=again) | {"type": "dense_rec"}

    def expected(x: Tensor) -> Tensor:
        y = with_weight(so.synapse.Dense(5, 6), w)(x)
        neuron, last, steps = cuba(persistent_state=True), torch.zeros(x.shape[0], 6), []
        for t in range(x.shape[-1]):
            current = y[..., t] + last @ torch.from_numpy(again / 64).T
            steps.append(neuron(current.unsqueeze(-1)))
            last = steps[-1][..., 0]
        return torch.cat(steps, -1)

    return [layer], spikes(2, 5, 20), expected


@case
def convolution_with_everything() -> Any:
    w = weight(4, 2, 3, 2)
    layer = window(
        "conv", [4, 4, 7], w, stride=[2, 1], padding=[1, 2], dilation=[1, 2], groups=2,
        kernelSize=[3, 2], inChannels=4, outChannels=4,
    )  # fmt: skip
    conv = so.synapse.Conv(4, 4, (3, 2), (2, 1), (1, 2), (1, 2), 2)
    return (
        [image(4, 7, 5), layer],
        spikes(2, 4, 7, 5, 20),
        lambda x: cuba()(with_weight(conv, w)(x)),
    )


@case
def transposed_convolution_with_groups() -> Any:
    w = weight(4, 3, 3, 3)
    layer = window("convT", [6, 7, 7], w, stride=[2, 2], padding=[1, 1], groups=2)
    conv = so.synapse.ConvTranspose(4, 6, 3, 2, 1, 1, 2)
    return (
        [image(4, 4, 4), layer],
        spikes(2, 4, 4, 4, 20),
        lambda x: cuba()(with_weight(conv, w)(x)),
    )


@case
def pool_of_every_channel() -> Any:
    """Where the kernel does not divide the image, lava-dl's own pool is wrong; this one is not."""
    w = np.full((1, 1, 3, 3), 64, np.float32)
    layer = window("pool", [2, 3, 3], w, stride=[3, 3])
    return (
        [image(2, 7, 8), layer],
        spikes(2, 2, 7, 8, 20, rate=0.1),
        lambda x: cuba()(
            nn.functional.avg_pool3d(nn.functional.pad(x, (0, 0, 0, 1, 0, 2)), (3, 3, 1)) * 9
        ),
    )


@case
def unpool() -> Any:
    w = np.full((1, 1, 2, 2), 64, np.float32)
    layer = window("unpool", [2, 6, 8], w, stride=[2, 2])
    return (
        [image(2, 3, 4), layer],
        spikes(2, 2, 3, 4, 20),
        lambda x: cuba()(x.repeat_interleave(2, 2).repeat_interleave(2, 3)),
    )


@case
def average() -> Any:
    layers, x, w = dense_case()
    layers.append({"type": "average", "shape": [2, 1, 1]})
    return (
        layers,
        x,
        lambda x: cuba()(with_weight(so.synapse.Dense(5, 6), w)(x)).unflatten(1, (2, 3)).mean(2),
    )


@case
def concatenated_with_an_earlier_layer_and_the_input() -> Any:
    first, second, third = weight(6, 5), weight(3, 6), weight(2, 14)
    layers = [
        image(5),
        dense(first),
        dense(second),
        {"type": "concat", "shape": [14], "layers": [1, 0]},
        dense(third),
    ]

    def expected(x: Tensor) -> Tensor:
        y = cuba()(with_weight(so.synapse.Dense(5, 6), first)(x))
        z = cuba()(with_weight(so.synapse.Dense(6, 3), second)(y))
        both = torch.cat([z, y, x], 1)
        return cuba()(with_weight(so.synapse.Dense(14, 2), third)(both))

    return layers, spikes(2, 5, 20), expected


@case
def input_with_a_neuron() -> Any:
    layers = [image(3, 2, 2) | {"weight": [20.0], "bias": [-5.0], "neuron": NEURON}]
    x = torch.from_numpy(np.random.default_rng(2).random((2, 3, 2, 2, 30)).astype(np.float32))
    return layers, 4 * x, lambda x: cuba()(torch.round(20 * x - 5) / 64)


@case
def sigma_delta_network() -> Any:
    w, last, bias = weight(6, 3), weight(2, 6), rng.integers(-10, 20, 6)
    layers = [
        image(3) | {"neuron": SDNN | {"vThMant": 2}},
        dense(w, SDNN, bias=bias.astype(np.float32)),
        dense(last, SDNN | {"sigma_output": True}),
    ]
    x = torch.from_numpy(np.random.default_rng(2).random((2, 3, 30)).astype(np.float32))
    middle = so.neuron.sigma_delta.Neuron(5 / 64, torch.relu, regime="loihi")
    middle.set_bias(torch.from_numpy(bias / 64).float())

    def expected(x: Tensor) -> Tensor:
        sent = so.axon.Delta(2 / 64, 1 << 12, regime="loihi")(torch.round(64 * x) / 64)
        sent = middle(with_weight(so.synapse.Dense(3, 6), w)(sent))
        return with_weight(so.synapse.Dense(6, 2), last)(sent).double().cumsum(-1).float()

    return layers, x, expected


@pytest.mark.parametrize("older", [False, True], ids=["newer", "older"])
@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_what_its_parts_are(name: str, older: bool, tmp_path: Path) -> None:
    layers, x, expected = CASES[name]()
    net = load(write(tmp_path / "a.net", *layers, older=older))
    with torch.no_grad():
        reference = expected(x).numpy()
        output = net(x).numpy()
    if "threshold_that_nothing" in name:  # linear, but for the rounding of its integers
        np.testing.assert_allclose(output / 1e3, reference, atol=2e-2)
        assert set(np.unique(output)) - {0, 1}
    else:
        np.testing.assert_array_equal(output, reference)
    assert np.count_nonzero(reference) > 0.01 * reference.size
    if not older:
        np.testing.assert_array_equal(in_onnx(net, x), output)
