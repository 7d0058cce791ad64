"""lava-dl's ``.net`` files: networks whose activity lava-dl or lava recorded."""

from __future__ import annotations

from pathlib import Path

import loihi_numpy as plain
import numpy as np
import pytest
import torch
from net_files import FOLDER, in_onnx, load
from torch import Tensor

import synapse_onnx as so
from synapse_onnx.readers._network import Network

pytestmark = pytest.mark.usefixtures("compiled_once")

RECORDED = sorted(path.stem for path in FOLDER.glob("*.net"))
TRAINED = Path(__file__).parents[3] / "shared" / "reference" / "trained"
trained = pytest.mark.skipif(
    not TRAINED.is_dir(), reason=f"networks trained by lava-dl's authors are not in {TRAINED}"
)


def outputs(net: Network, *inputs: Tensor) -> dict[str, np.ndarray]:
    """What every layer gives in torch."""
    with torch.no_grad():
        values = net.run(*inputs)
    return {name: values[name].numpy() for name in net.wires}


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
