"""The neuron of a layer of a ``.net`` file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synapse_onnx import neuron
from synapse_onnx.ops.arithmetic.fixed import DECAY_ONE
from synapse_onnx.ops.arithmetic.loihi import STATE_LIMIT
from synapse_onnx.readers._fields import Array
from synapse_onnx.readers._net.layer import WEIGHT_ONE, Layer

#: names of the decays in a file -> the neuron's parameters
_DECAYS = {
    "iDecay": "current_decay",
    "vDecay": "voltage_decay",
    "thDecay": "threshold_decay",
    "refDecay": "refractory_decay",
    "sinDecay": "sin_decay",
    "cosDecay": "cos_decay",
}
#: names of neurons in older files -> those in newer ones
_OLDER = {"LOIHI": "CUBA"}
#: names of activations -> the function; lava-dl's netx computes relu where none is named
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "relu": torch.relu,
    "none": None,
    "unit": None,
    "identity": None,
}


def _kinds() -> dict[str, tuple[str, ModuleType]]:
    """Name of a neuron in a file -> its name and module here, by what each neuron declares."""
    kinds = {
        module.Neuron.device_type: (name, module)
        for name, module in neuron.kinds().items()
        if module.Neuron.device_type
    }
    return kinds | {older: kinds[newer] for older, newer in _OLDER.items()}


@dataclass
class NeuronSpec:
    """The neuron of a layer, as its file describes it.

    Attributes:
        layer: the layer.
        kind: name of the neuron in :mod:`synapse_onnx.neuron`.
        module: that module.
        params: arguments of its constructor.
        decays: its parameters in 4096ths, by name: one, or one a channel.
        readout: no voltage reaches its threshold, so that the voltage is the output.
        decoder: it only sums the messages of a sigma-delta layer.
    """

    layer: Layer
    kind: str
    module: ModuleType
    params: dict[str, Any]
    decays: dict[str, Array]
    readout: bool
    decoder: bool

    @classmethod
    def read(cls, layer: Layer) -> NeuronSpec:
        """Read the group "neuron" of a layer."""
        if not layer.is_group("neuron"):
            raise layer.invalid("neuron", "it is no group")
        kinds = _kinds()
        name = layer.text("neuron/type")
        if name not in kinds:
            raise layer.invalid(
                "neuron/type", f"there is no neuron {name!r}; known: {', '.join(sorted(kinds))}"
            )
        kind, module = kinds[name]
        layer.integer("neuron/messageBits", 0, 32, default=0)  # no message is cut off
        layer.integer("neuron/refDelay", 1, 1, default=1)
        device: dict[str, Any] = {"vThMant": layer.integer("neuron/vThMant", 0, (1 << 24) - 1)}
        if layer.has("neuron/vThStep"):
            device["vThStep"] = layer.integer("neuron/vThStep", 0, (1 << 24) - 1)
        decays = {}
        for key, parameter in _DECAYS.items():
            if layer.has(f"neuron/{key}"):
                value = layer.integers(f"neuron/{key}").reshape(-1)
                if value.min() < 0 or value.max() > DECAY_ONE:
                    raise layer.invalid(f"neuron/{key}", f"a decay lies in 0 to {DECAY_ONE}")
                device[key] = int(value[0])
                decays[parameter] = value
        try:
            params: dict[str, Any] = module.neuron_params(device)
        except KeyError as error:
            raise layer.invalid(f"neuron/{error.args[0]}", "it is missing") from None
        params["regime"] = "loihi"
        sigma_delta = kind == "sigma_delta"
        if sigma_delta:
            params["activation"] = _activation(layer)
        else:
            params["graded_spike"] = layer.flag("neuron/gradedSpike")
            params["shared_param"] = all(value.size == 1 for value in decays.values())
        return cls(
            layer,
            kind,
            module,
            params,
            decays={n: v for n, v in decays.items() if n in getattr(module.Neuron, "decays", ())},
            readout=not sigma_delta and device["vThMant"] * WEIGHT_ONE >= STATE_LIMIT - 1,
            decoder=sigma_delta and layer.flag("neuron/sigma_output"),
        )

    @property
    def shifts(self) -> bool:
        """Whether lava-dl's ``delay_shift`` delays its spikes by a time step."""
        return self.kind != "sigma_delta" and not self.readout

    def apply(self, layer: Any, channels: int) -> None:
        """Set the decays of a neuron that was built from ``params``.

        The constructor takes decays as fractions and rounds them; here they are the file's
        integers.
        """
        if self.readout:
            layer.as_readout()
        count = 1 if self.params.get("shared_param", True) else channels
        state = {}
        for key, parameter in _DECAYS.items():
            value = self.decays.get(parameter)
            if value is None:
                continue
            if value.size not in (1, count):
                raise self.layer.invalid(
                    f"neuron/{key}", f"it holds {value.size} decays for {channels} channels"
                )
            state[parameter] = torch.from_numpy(np.broadcast_to(value, count).astype(np.float32))
        layer.load_state_dict(state, strict=False)


def _activation(layer: Layer) -> Callable[[Tensor], Tensor] | None:
    name = layer.text("neuron/activation") if layer.has("neuron/activation") else "relu"
    if name not in _ACTIVATIONS:
        raise layer.invalid(
            "neuron/activation",
            f"there is no activation {name!r}; known: {', '.join(sorted(_ACTIVATIONS))}",
        )
    return _ACTIVATIONS[name]
