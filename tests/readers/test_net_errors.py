"""lava-dl's ``.net`` files that are no networks: one sentence each, whatever is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from damage import refusals
from net_files import FOLDER, NEURON, SDNN, dense, image, weight, write

import synapse_onnx as so


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
        (second(delay=-1), "key delay: a delay lies in 0 to 65536 steps, got -1"),
        (second(delay=70000), "key delay: a delay lies in 0 to 65536 steps, got 70000"),
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
