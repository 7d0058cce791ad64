"""lava-dl's ``.net`` files: types of neurons, complex inputs, streams, copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import loihi_numpy as plain
import numpy as np
import pytest
import torch
from net_files import (
    NEURON,
    RF,
    cuba,
    dense,
    image,
    in_onnx,
    load,
    rf,
    spikes,
    weight,
    with_weight,
    write,
)

import synapse_onnx as so


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
