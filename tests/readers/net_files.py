"""``.net`` files as lava-dl writes them, and layers of ours with the same parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.readers._network import Network

FOLDER = Path(__file__).parents[1] / "reference"


def load(path: Path, **options: Any) -> Network:
    net = so.load_net(path, **options)
    assert isinstance(net, Network)
    return net


def in_onnx(net: nn.Module, x: Tensor, **options: Any) -> np.ndarray:
    """The output in ONNX Runtime; what verify says of every layer is demanded too."""
    model = so.export(net, x, **options)
    report = so.verify(net, model, x)
    assert report.ok, str(report)
    assert report.spike_flips == 0
    output: np.ndarray = so.Session(model).run(x.numpy())
    return output


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
