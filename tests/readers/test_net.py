"""lava-dl's ``.net`` files: recorded networks, every kind of layer, damaged files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import loihi_numpy as plain
import numpy as np
import pytest
import torch
from damage import refusals
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.readers._network import Network

FOLDER = Path(__file__).parents[1] / "reference"
RECORDED = sorted(path.stem for path in FOLDER.glob("*.net"))
TRAINED = Path(__file__).parents[3] / "shared" / "reference" / "trained"

trained = pytest.mark.skipif(
    not TRAINED.is_dir(), reason=f"networks trained by lava-dl's authors are not in {TRAINED}"
)


def load(path: Path, **options: Any) -> Network:
    net = so.load_net(path, **options)
    assert isinstance(net, Network)
    return net


def outputs(net: Network, *inputs: Tensor) -> dict[str, np.ndarray]:
    """What every layer gives in torch."""
    with torch.no_grad():
        values = net.run(*inputs)
    return {name: values[name].numpy() for name in net.wires}


def in_onnx(net: nn.Module, x: Tensor, **options: Any) -> np.ndarray:
    """The output in ONNX Runtime; what verify says of every layer is demanded too."""
    model = so.export(net, x[..., :16], **options)
    report = so.verify(net, model, x)
    assert report.ok, str(report)
    assert report.spike_flips == 0
    output: np.ndarray = so.Session(model).run(x.numpy())
    return output


# -- networks whose activity lava-dl recorded ----------------------------------------------------


def test_the_recorded_networks_are_all_here() -> None:
    assert len(RECORDED) == 7


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.gpu
@pytest.mark.matrix
def test_recorded_spikes_of_every_layer(name: str) -> None:
    """lava-dl's torch code: the two regimes are one while the states stay within 24 bits."""
    net = load(FOLDER / f"{name}.net", delay_shift=True)
    with np.load(FOLDER / f"{name}.npz") as file:
        x = torch.from_numpy(file["input"])
        layers = [file[f"layer{i}"] for i in range(len(net.wires))]
    for (layer, output), reference in zip(outputs(net, x).items(), layers, strict=True):
        np.testing.assert_array_equal(output, reference, err_msg=layer)
        assert np.abs(reference).sum() > 0
    np.testing.assert_array_equal(in_onnx(net, x), layers[-1])


@pytest.mark.parametrize("name", ["net_cuba_mlp", "net_sdnn_mlp"])
def test_without_the_shift_spikes_come_earlier(name: str) -> None:
    late = load(FOLDER / f"{name}.net", delay_shift=True)
    early = load(FOLDER / f"{name}.net")
    with np.load(FOLDER / f"{name}.npz") as file:
        x = torch.from_numpy(file["input"])
    first, second = (next(iter(outputs(net, x).values())) for net in (early, late))
    if "sdnn" in name:  # what a sigma-delta layer sends is a change, never delayed
        np.testing.assert_array_equal(first, second)
    else:
        np.testing.assert_array_equal(first[..., :-1], second[..., 1:])
        assert (first != second).any()


@trained
def test_tinynet_bit_for_bit() -> None:
    """Column 0 is left out; from column 1 on every layer follows from the one before."""
    net = load(TRAINED / "tinynet" / "network.net")
    recorded = np.load(TRAINED / "tinynet" / "recorded.npz")
    layers = {
        name: recorded[key][..., 1:].astype(np.float32)
        for name, key in (("input_0", "input"), ("conv_1", "layer1"), ("conv_2", "output"))
    }
    # the recorded bias of the input is what its transformation makes: 36 x + 34
    bias = recorded["input_bias"].transpose(2, 1, 0).astype(np.float32)
    still = torch.from_numpy((bias - 34) / 36)[None, ..., None]
    x = still.expand(-1, -1, -1, -1, 15).contiguous()
    for name, output in outputs(net, x).items():
        np.testing.assert_array_equal(output, layers[name], err_msg=name)
    np.testing.assert_array_equal(in_onnx(net, x), layers["conv_2"])
    # and each by itself, on what was recorded of the one before
    for name, before in (("conv_1", "input_0"), ("conv_2", "conv_1")):
        with torch.no_grad():
            output = getattr(net.layers, name)(torch.from_numpy(layers[before])).numpy()
        np.testing.assert_array_equal(output, layers[name])
    current = net.layers.conv_1.synapse(torch.from_numpy(layers["input_0"])).detach().numpy()
    np.testing.assert_array_equal(64 * current, recorded["current"][..., 1:])


@trained
def test_oxford_bit_for_bit() -> None:
    """2,000 steps; a recorded spike answers the input of the step before."""
    net = load(TRAINED / "oxford" / "network.net")
    recorded = np.load(TRAINED / "oxford" / "recorded.npz")
    x = torch.from_numpy(recorded["input"].astype(np.float32))[None]
    values = outputs(net, x)
    np.testing.assert_array_equal(values["dense_0"][0][:, :-1], recorded["layer0"][:, 1:])
    assert recorded["layer0"].sum() > 1000
    current = net.layers.dense_0.synapse(x).detach().numpy()[0]
    np.testing.assert_array_equal(64 * current[:, :-1], recorded["current"][:, 1:])
    # the second layer was not recorded: the plain loop says what it sends
    second = plain.run(TRAINED / "oxford" / "network.net", recorded["input"].astype(np.int64))[-1]
    np.testing.assert_array_equal(values["dense_1"][0], second)
    np.testing.assert_array_equal(in_onnx(net, x)[0], second)


@trained
def test_mnist_mlp_is_the_plain_loop() -> None:
    path = TRAINED / "mnist_mlp" / "network.net"
    rng = np.random.default_rng(0)
    spikes = (rng.random((784, 40)) < 0.15).astype(np.int64)
    layers = plain.run(path, spikes)
    net = load(path)
    x = torch.from_numpy(spikes.astype(np.float32))[None]
    for output, reference in zip(outputs(net, x).values(), layers, strict=True):
        np.testing.assert_array_equal(output[0], reference)
        assert reference.sum() > 0
    np.testing.assert_array_equal(in_onnx(net, x)[0], layers[-1])


@trained
def test_pilotnet_is_the_plain_loop() -> None:
    """A sigma-delta network on a sequence of frames, every message of every layer."""
    path = TRAINED / "pilotnet_sdnn" / "network.net"
    # noise, so that no layer is silent: the recorded frame alone does not move the last ones
    frames = np.random.default_rng(0).integers(-128, 128, (3, 33, 100, 5))
    layers = plain.run(path, frames)
    net = load(path)
    x = torch.from_numpy((frames / 64).astype(np.float32))[None]
    values = outputs(net, x)
    for name in [name for name in values if name.startswith("flatten")]:
        del values[name]
    for (name, value), reference in zip(values.items(), layers, strict=True):
        unit = 1 << (18 if name == "dense_9" else 12)
        np.testing.assert_array_equal(value[0], reference / unit, err_msg=name)
        assert np.abs(reference).sum() > 0
    np.testing.assert_array_equal(in_onnx(net, x)[0], layers[-1] / (1 << 18))


@trained
def test_pilotnet_with_one_step_a_synapse_is_what_lava_recorded() -> None:
    """In lava a synapse takes one step: nine steps of one frame, the ninth is the answer."""
    recorded = np.load(TRAINED / "pilotnet_sdnn" / "recorded.npz")
    frame = recorded["input"].transpose(3, 2, 1, 0)[0].astype(np.int64)
    still = np.repeat(frame[..., None], 9, axis=-1)
    path = TRAINED / "pilotnet_sdnn" / "network.net"
    assert plain.run(path, still, delay=1)[-1].tolist() == recorded["output"].tolist()
    net = load(path)
    x = torch.from_numpy((still / 64).astype(np.float32))[None]
    with torch.no_grad():
        for name in net.wires:
            flat = name.startswith("flatten")
            x = getattr(net.layers, name)(x)
            x = x if flat or name == "dense_9" else so.axon.StepDelay()(x)
    np.testing.assert_array_equal(x[0].numpy() * (1 << 18), recorded["output"])


# -- every kind of layer -------------------------------------------------------------------------

NEURON = {"type": "CUBA", "vThMant": 40, "iDecay": 1024, "vDecay": 300, "refDelay": 1}
SDNN = {"type": "SDNN", "vThMant": 5, "activation": "relu"}
RF = {"type": "RF_PHASE", "vThMant": 30, "sinDecay": 2607, "cosDecay": 2607}
PARAMS = {"threshold": 40 / 64, "current_decay": 0.25, "voltage_decay": 300 / 4096}
TURNS = so.neuron.rf.neuron_params(RF)

rng = np.random.default_rng(7)


def weight(*shape: int) -> np.ndarray:
    """Even integers in 64ths, as float32: what lava-dl writes."""
    return (2 * rng.integers(-30, 40, shape)).astype(np.float32)


def write(path: Path, *layers: dict[str, Any], older: bool = False) -> Path:
    """Write a file; the older generation has arrays of one and axes of size 1 for time."""

    def put(group: Any, key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                put(group, f"{key}/{name}", item)
        elif isinstance(value, str):
            if key == "type":
                group.create_dataset(key, (1,), "S10", [value.encode()])
            elif older:
                group.create_dataset(key, data=[value.encode()])
            else:
                group.create_dataset(key, data=value)
        else:
            array = np.asarray(value)
            if older and array.ndim == 0:
                array = array.reshape(1)
            if older and array.ndim == 4:
                array = array[..., None]
            group.create_dataset(key, data=array)

    with h5py.File(path, "w") as file:
        for i, layer in enumerate(layers):
            group = file.create_group(f"layer/{i}")
            for key, value in layer.items():
                put(group, key, value)
    return path


def dense(w: np.ndarray, neuron: Any = NEURON, **more: Any) -> dict[str, Any]:
    return {"type": "dense", "shape": [len(w)], "weight": w, "neuron": neuron, **more}


def window(
    kind: str, shape: list[int], w: Any, neuron: Any = NEURON, **more: Any
) -> dict[str, Any]:
    geometry = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], **more}
    return {"type": kind, "shape": shape, "weight": w, "neuron": neuron, **geometry}


def image(*shape: int) -> dict[str, Any]:
    return {"type": "input", "shape": list(shape)}


def spikes(*shape: int, rate: float = 0.4) -> Tensor:
    return torch.from_numpy((np.random.default_rng(1).random(shape) < rate).astype(np.float32))


def five(w: np.ndarray) -> Tensor:
    """A weight in units of one, with five axes."""
    return torch.from_numpy(w / 64).reshape(*w.shape, *(1,) * (5 - w.ndim))


def with_weight(layer: Any, *weights: np.ndarray) -> Any:
    parts = (layer.real, layer.imag) if layer.complex else (layer,)
    for part, w in zip(parts, weights, strict=True):
        part.weight.data = five(w)
    return layer


def cuba(**changes: Any) -> Any:
    return so.neuron.cuba.Neuron(**(PARAMS | {"regime": "loihi"} | changes)).eval()


def rf(**changes: Any) -> Any:
    return so.neuron.rf.Neuron(**(TURNS | {"regime": "loihi"} | changes)).eval()


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

    def expected(x: Tensor) -> Tensor:
        y = cuba()(with_weight(so.synapse.Dense(5, 6), w)(x))
        rows = [
            nn.functional.pad(y[:, i], (d, 0))[..., : y.shape[-1]] for i, d in enumerate(delays)
        ]
        return torch.stack(rows, 1)

    return layers, x, expected


@case
def delays_of_the_inputs() -> Any:
    delays = rng.integers(0, 6, 5)
    layers, x, w = dense_case(delay=delays.astype(np.float32))

    def expected(x: Tensor) -> Tensor:
        rows = [
            nn.functional.pad(x[:, i], (d, 0))[..., : x.shape[-1]] for i, d in enumerate(delays)
        ]
        return cuba()(with_weight(so.synapse.Dense(5, 6), w)(torch.stack(rows, 1)))

    return layers, x, expected


@case
def one_delay_for_all() -> Any:
    layers, x, w = dense_case(delay=3.0)
    return (
        layers,
        x,
        lambda x: nn.functional.pad(cuba()(with_weight(so.synapse.Dense(5, 6), w)(x)), (3, 0))[
            ..., : x.shape[-1]
        ],
    )


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


@pytest.mark.parametrize(
    "device",
    [
        {"type": "CUBA"},
        {"type": "LOIHI"},
        {"type": "ALIF", "vThStep": 10, "thDecay": 300, "refDecay": 500},
        {"type": "RF_PHASE"},
        {"type": "RF_IZHIKEVICH"},
        {"type": "ADRF_PHASE", "vThStep": 10, "thDecay": 300, "refDecay": 500},
        {"type": "ADRF_IZHIKEVICH", "vThStep": 10, "thDecay": 300, "refDecay": 500},
    ],
    ids=lambda device: device["type"],
)
@pytest.mark.gpu
def test_every_type_of_neuron(device: dict[str, Any], tmp_path: Path) -> None:
    parameters = NEURON | {"sinDecay": 2607, "cosDecay": 2607, "vThMant": 25} | device
    real, imag = weight(6, 5), weight(6, 5)
    layer = dense(real, parameters)
    complex_ = "RF" in device["type"]
    if complex_:
        layer["weight"] = {"real": real, "imag": imag}
    path = write(tmp_path / "a.net", layer)
    x = spikes(1, 5, 60)
    currents = np.stack([w.astype(np.int64) @ x[0].numpy().astype(np.int64) for w in (real, imag)])
    loop = plain.NEURONS[device["type"]](parameters)
    steps = [loop.step(currents[..., t] if complex_ else currents[0, :, t]) for t in range(60)]
    net = load(path)
    with torch.no_grad():
        np.testing.assert_array_equal(net(x)[0].numpy(), np.stack(steps, -1))
    assert 0.01 < np.mean(steps) < 0.99
    in_onnx(net, x)


def test_time_decimation_needs_to_be_told_its_steps(tmp_path: Path) -> None:
    """lava-dl writes it as an average and leaves the number of steps out."""
    w = weight(6, 5)
    path = write(tmp_path / "a.net", dense(w), {"type": "average", "shape": [6]})
    with pytest.raises(so.InputError, match=r"layer 1 \(average\).*give decimation=STEPS"):
        load(path)
    x = spikes(2, 5, 20)
    net = load(path, decimation=4)
    with torch.no_grad():
        output = net(x).numpy()
        reference = cuba()(with_weight(so.synapse.Dense(5, 6), w)(x)).unflatten(-1, (5, 4)).mean(-1)
    np.testing.assert_array_equal(output, reference.numpy())


def test_a_complex_input_with_a_resonator(tmp_path: Path) -> None:
    net = load(write(tmp_path / "a.net", image(3) | {"neuron": RF}))
    pair = (torch.rand(2, 3, 30), torch.rand(2, 3, 30))
    with torch.no_grad():
        expected = rf()(tuple(torch.round(64 * x) / 64 for x in pair))
        assert torch.equal(net(pair), expected)
    model = so.export(net, [pair])
    assert so.verify(net, model, [pair]).ok
    output = so.Session(model).run(*(x.numpy() for x in pair))
    np.testing.assert_array_equal(output, expected.numpy())


@pytest.mark.gpu
def test_streams_of_a_file_are_its_whole(tmp_path: Path) -> None:
    """Delays, recurrent spikes, biases and shifts, in chunks of odd lengths."""
    layers = [
        dense(weight(6, 5), delay=np.float32([0, 1, 2, 3, 0, 5])),
        dense(weight(6, 6), weight_rec=weight(6, 6), bias=np.float32([9] * 6)),
    ]
    layers[1]["type"] = "dense_rec"
    net = load(write(tmp_path / "a.net", *layers), delay_shift=True)
    x = spikes(2, 5, 30)
    stream = so.Session(so.export(net, x, streaming=True)).stream(2)
    parts = [stream.run(part.numpy()) for part in x.split([7, 1, 22], -1)]
    with torch.no_grad():
        whole = net(x).numpy()
    np.testing.assert_array_equal(np.concatenate(parts, -1), whole)
    assert whole.sum() > 0


def test_networks_copy_and_pickle(tmp_path: Path) -> None:
    import copy
    import pickle

    net = load(write(tmp_path / "a.net", dense(weight(6, 5))))
    x = spikes(1, 5, 10)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert type(other) is type(net)
        assert torch.equal(other(x), net(x))


# -- files that are no networks ------------------------------------------------------------------


def second(**values: Any) -> Callable[[Path], Path]:
    """A file whose second layer, a dense one behind an input of 5, has other values; None: none."""

    def make(folder: Path) -> Path:
        layer = dense(np.full((6, 5), 8, np.float32)) | values
        return write(folder / "a.net", image(5), {k: v for k, v in layer.items() if v is not None})

    return make


def neuron(**values: Any) -> Callable[[Path], Path]:
    """The same, for values of its neuron."""
    fields = NEURON | values
    return second(neuron={key: value for key, value in fields.items() if value is not None})


def bytes_of(change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    """A good file, of which bytes are changed."""

    def make(folder: Path) -> Path:
        path = write(folder / "a.net", dense(weight(60, 50)))
        path.write_bytes(change(path.read_bytes()))
        return path

    return make


def edited(change: Callable[[h5py.File], None]) -> Callable[[Path], Path]:
    """A good file, which is edited."""

    def make(folder: Path) -> Path:
        path = write(folder / "a.net", dense(weight(6, 5)))
        with h5py.File(path, "a") as file:
            change(file)
        return path

    return make


def without_layers(file: h5py.File) -> None:
    del file["layer"]


def with_other_numbers(file: h5py.File) -> None:
    file.move("layer/0", "layer/7")


def with_a_way_out(file: h5py.File) -> None:
    file["layer/1"] = h5py.ExternalLink("/etc/passwd", "/")


def with_a_soft_link(file: h5py.File) -> None:
    file["layer/1"] = h5py.SoftLink("/layer/0")


def with_a_circle(file: h5py.File) -> None:
    file["layer/0/again"] = file["layer"]


def with_an_absurd_size(file: h5py.File) -> None:
    del file["layer/0/weight"]
    file.create_dataset("layer/0/weight", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))


def with_a_number_for_a_group(file: h5py.File) -> None:
    del file["layer/0/neuron"]
    file["layer/0/neuron"] = 3


HALF = np.full((6, 5), 0.5, np.float32)
NAN = np.full((6, 5), np.nan, np.float32)
KERNEL = np.full((4, 2, 3, 3), 8, np.float32)
CONCAT = {"type": "concat", "shape": [10], "weight": None, "neuron": None}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (bytes_of(lambda b: b[: len(b) // 2]), "is no HDF5 file, or a damaged one"),
        (bytes_of(lambda b: b"not HDF5"), "is no HDF5 file, or a damaged one"),
        (bytes_of(lambda b: b""), "is no HDF5 file, or a damaged one"),
        (edited(without_layers), "is not a network of lava-dl: it has no group 'layer'"),
        (edited(with_other_numbers), "it holds 1 layers, and layer 0 is missing"),
        (edited(with_a_way_out), "layer/1 is a link to another place, which is refused"),
        (edited(with_a_soft_link), "layer/1 is a link to another place"),
        (edited(with_a_circle), "layer/0/again leads back to a group that holds it"),
        (edited(with_an_absurd_size), "more than 2,147,483,648 bytes, which is refused"),
        (edited(with_a_number_for_a_group), r"layer 0 \(dense\), key neuron: it is no group"),
        (second(type=None), "layer 1, key type: it is missing"),
        (second(type=7), "layer 1, key type: it is not a string"),
        (second(type="lstm"), r"layer 1 \(lstm\), key type: there is no layer 'lstm'; known:"),
        (second(type="input"), "key type: an input must be the first layer"),
        (second(weight=None), r"layer 1 \(dense\), key weight: it is missing"),
        (second(weight=HALF), "key weight: it must hold integers, and holds 0.5"),
        (second(weight=NAN), "key weight: it holds values that are not finite"),
        (second(weight=1e12 * HALF), "key weight: 5e[+]11 is out of any range"),
        (second(weight=1e6 * HALF), "key weight: 500000 is no weight of Loihi"),
        (second(weight="abc"), "key weight: it holds no numbers"),
        (second(weight=np.zeros((0, 5))), r"key weight: it holds no numbers .*\(0, 5\)"),
        (second(weight=KERNEL), r"key weight: it must have 2 axes, got \(4, 2, 3, 3\)"),
        (
            second(weight=KERNEL[:, :, 0, 0]),
            r"it takes 2 inputs, and its input has the shape \(5,\)",
        ),
        (second(weight=np.zeros(13, int)), "key weight: 13 weights do not make 6 rows"),
        (
            second(weight={"real": HALF * 2, "imag": HALF * 2}),
            "key weight: a neuron of type CUBA takes one real weight",
        ),
        (second(weight={"real": HALF * 2}), "key weight/imag: it is missing"),
        (second(shape=None), "key shape: it is missing"),
        (
            second(shape=[7]),
            r"key shape: the file says \(7,\), and from \(5,\) the layer makes \(6,\)",
        ),
        (second(shape=[1 << 30]), "key shape: it must be .* at most 16777216 neurons"),
        (second(shape=[6, 1]), "key shape: it must be"),
        (second(bias=np.ones(4)), r"key bias: its shape is \(4,\), and the neurons are \(6,\)"),
        (second(bias=np.ones(6), neuron=None), "key bias: a layer without a neuron takes no bias"),
        (second(bias=np.ones(6) / 3), "key bias: it must hold integers, and holds 0.333333"),
        (second(delay=np.ones(4)), r"key delay: its shape is \(4,\), and the neurons are \(6,\)"),
        (second(delay=-1), "key delay: a delay lies in 0 to 62 steps, got -1"),
        (second(delay=70), "key delay: a delay lies in 0 to 62 steps, got 70"),
        (second(delay=2, neuron=None), "key delay: a layer without a neuron takes no delay"),
        (second(mask=np.ones((5, 6))), r"key mask: its shape is \(5, 6\) and must be \(6, 5\)"),
        (second(type="dense_rec"), "key weight_rec: it is missing"),
        (second(type="dense_rec", neuron=None), "key neuron: it is missing, and recurrent weights"),
        (
            second(type="dense_rec", weight_rec=HALF * 2),
            r"key weight_rec: its shape is \(6, 5, 1, 1, 1\)",
        ),
        (
            second(type="dense_rec", weight_rec={"real": HALF * 2, "imag": HALF * 2}),
            "key weight_rec: it must have 1 parts",
        ),
        (second(type="dense_rec", weight_rec=HALF * 2, neuron=SDNN), "takes no recurrent weights"),
        (second(type="conv", weight=KERNEL), "key stride: it is missing"),
        (
            second(type="conv", weight=KERNEL, stride=0, padding=0, dilation=1),
            "key stride: it must be .height, width. >= 1",
        ),
        (
            second(type="conv", weight=KERNEL, stride=1, padding=0, dilation=1, kernelSize=5),
            r"key kernelSize: it must be \(3, 3\)",
        ),
        (
            second(type="conv", weight=KERNEL, stride=1, padding=0, dilation=1),
            r"layer 1 \(conv\): Conv",
        ),
        (
            second(type="average", shape=[2]),
            r"key shape: \(5,\) neurons do not make 2 equal groups",
        ),
        (second(**CONCAT), "key layers: it is missing"),
        (
            second(**CONCAT, layers=[1]),
            "key layers: layer 1 does not come before this one, a cycle without a delay",
        ),
        (second(**CONCAT, layers=[-1]), "key layers: layer -1 does not come before this one$"),
        (second(**CONCAT, layers=[0]), "key layers: it names no other layer"),
        (neuron(type=None), "key neuron/type: it is missing"),
        (neuron(type="HH"), "key neuron/type: there is no neuron 'HH'; known: ADRF_IZHIKEVICH, "),
        (neuron(vThMant=None), "key neuron/vThMant: it is missing"),
        (neuron(vThMant=-3), "key neuron/vThMant: it must lie in 0 to 16777215, got -3"),
        (neuron(vThMant=[1, 2]), "key neuron/vThMant: it must be one number, and holds 2"),
        (neuron(iDecay=None), "key neuron/iDecay: it is missing"),
        (neuron(iDecay=5000), "key neuron/iDecay: a decay lies in 0 to 4096"),
        (neuron(vDecay=[1, 2, 3]), "key neuron/vDecay: it holds 3 decays for 6 channels"),
        (neuron(refDelay=3), "key neuron/refDelay: it must lie in 1 to 1, got 3"),
        (neuron(wgtExp=40), "key neuron/wgtExp: it must lie in -8 to 7, got 40"),
        (neuron(messageBits=99), "key neuron/messageBits: it must lie in 0 to 32, got 99"),
        (neuron(type="ALIF"), "key neuron/thDecay: it is missing"),
        (neuron(type="RF_PHASE", sinDecay=10, cosDecay=10), "takes weight/real and weight/imag"),
        (
            neuron(**SDNN | {"activation": "tanh"}),
            "there is no activation 'tanh'; known: identity, none, relu, unit",
        ),
        (second(neuron=SDNN | {"sigma_output": True}, delay=1), "an output of sums takes no delay"),
        (
            second(neuron=SDNN | {"sigma_output": True}, bias=np.ones(6)),
            "key bias: SDNN takes no bias",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    make: Callable[[Path], Path], sentence: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    with pytest.raises(so.SynapseError, match=sentence) as caught:
        so.load_net(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert isinstance(caught.value, so.InputError | so.ShapeError)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(so.InputError, match="cannot be read: no such file"):
        so.load_net(tmp_path / "a.net")
    with pytest.raises(so.InputError, match="cannot be read: it is a folder"):
        so.load_net(tmp_path)


def test_bytes_that_are_changed_at_random_never_raise_anything_else(tmp_path: Path) -> None:
    """A file of another network, or one sentence: no other exception, whatever the bytes say."""
    good = (FOLDER / "net_cuba_recurrent.net").read_bytes()
    assert refusals(so.load_net, good, tmp_path / "a.net", rounds=150, most=60) > 20


def test_h5py_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(so.InputError, match=r"load_net needs the package h5py: pip install"):
        so.load_net(FOLDER / "net_cuba_mlp.net")
