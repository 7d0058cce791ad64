"""lava-dl's ``.net`` files: trained networks for Loihi, as HDF5.

A file holds ``layer/0`` to ``layer/n-1``; each has a ``type``, a ``shape`` (C, H, W), parameters
of its synapse with integer weights in 64ths, and a group ``neuron``. The numeric contract is that
of :mod:`synapse_onnx.ops.arithmetic.loihi`. Source of the format: lava-dl, ``netx/README.md``,
``netx/hdf5.py`` and the methods ``export_hdf5`` of ``slayer/block/base.py``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synapse_onnx import block, neuron, synapse
from synapse_onnx.axon import Delay, StepDelay
from synapse_onnx.errors import InputError
from synapse_onnx.ops.arithmetic.loihi import STATE_LIMIT
from synapse_onnx.readers._hdf5 import open_hdf5
from synapse_onnx.readers._network import Concatenate, Network
from synapse_onnx.readers._fields import Fields as Place, located
from synapse_onnx.readers._registry import Reader, register

__all__ = ["load_net"]

#: integer that stands for a weight, a bias or a threshold of one; and for a decay of one
ONE, DECAY_ONE = 64, 4096
#: longest delay that Loihi holds, in steps
MAX_DELAY = 62
#: most neurons of a layer that are believed
MAX_NEURONS = 1 << 24
#: the exponent of a WgtScaleBatchNorm lies in -3 ... 3 while it trains, and in the file it may not
MAX_NORM_EXPONENT = 3

#: names of the decays in a file -> the neuron's parameters
_DECAYS = {
    "iDecay": "current_decay",
    "vDecay": "voltage_decay",
    "thDecay": "threshold_decay",
    "refDecay": "refractory_decay",
    "sinDecay": "sin_decay",
    "cosDecay": "cos_decay",
}
#: the type that older files have for CUBA
_OLDER = {"LOIHI": "CUBA"}
#: names of activations -> the function; netx computes relu where none is named
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "relu": torch.relu,
    "none": None,
    "unit": None,
    "identity": None,
}

Shape = tuple[int, ...]
Array = NDArray[Any]


def load_net(
    path: str | os.PathLike[str], delay_shift: bool = False, decimation: int | None = None
) -> nn.Module:
    """Read a network that lava-dl wrote, as a torch module in the loihi regime.

    Every layer is a block of :mod:`synapse_onnx.block`, a child of ``layers`` by the name
    ``<type>_<number>``. Input and output are in lava-dl's units: a weight of 64 is 1. Neurons
    whose threshold is beyond their 24 bits (lava-dl's Affine blocks) are readouts, and a layer
    without a neuron gives its current.

    Args:
        path: the file.
        delay_shift: send the spikes of every spiking layer one step later, as lava-dl does in
            training unless told otherwise; never those of sigma-delta layers. The file does not
            say it.
        decimation: steps that a time decimation averages; lava-dl writes it as an average and
            leaves the number out.

    Returns:
        A module that takes (N, C[, H, W], T); in evaluation mode.

    Raises:
        InputError: no such file, no ``.net`` file, a damaged one, or h5py is not installed; the
            message names file, layer and key.
        ShapeError: weights, shapes and layers do not fit each other.
    """
    where = os.fspath(path)
    with open_hdf5(path, "lava", "load_net") as file:
        layers = list(_layers(where, file))
        return _Builder(delay_shift, decimation).build(where, layers).eval()


# -- reading a layer -----------------------------------------------------------------------------


@dataclass
class _Layer(Place):
    """One layer of a file: its values, checked as they are read."""

    where: str
    number: int
    group: Any
    type: str = ""

    def __post_init__(self) -> None:
        self.type = self.text("type")

    @property
    def name(self) -> str:
        return f"{self.type}_{self.number}"

    def place(self, key: str) -> str:
        kind = f" ({self.type})" if self.type else ""
        return f"{self.where}: layer {self.number}{kind}, key {key}"

    def has(self, key: str) -> bool:
        return key in self.group

    def is_group(self, key: str) -> bool:
        return self.has(key) and not hasattr(self.group[key], "shape")

    def _value(self, key: str) -> Any:
        if not self.has(key):
            raise self.invalid(key, "it is missing")
        item = self.group[key]
        if not hasattr(item, "shape") or item.shape is None:
            raise self.invalid(key, "it is no array")
        return item[()]

    def text(self, key: str) -> str:
        """A string; older files have an array of one."""
        value = np.asarray(self._value(key)).reshape(-1)
        found = value[0] if len(value) == 1 else None
        if isinstance(found, bytes):
            found = found.decode("ascii", "replace")
        if not isinstance(found, str):
            raise self.invalid(key, "it is no text")
        return found

    def flag(self, key: str) -> bool:
        return self.has(key) and bool(np.any(self._value(key)))

    def integers(self, key: str) -> Array:
        """Whole numbers, int64, in the shape that the file has."""
        value = np.asarray(self._value(key))
        if value.dtype.kind not in "biuf" or value.size == 0:
            raise self.invalid(key, f"it holds no numbers but {value.dtype} of shape {value.shape}")
        if not np.isfinite(value).all():
            raise self.invalid(key, "it holds values that are no finite numbers")
        if np.abs(value.astype(np.float64)).max() >= 1 << 31:  # which no narrow float can hold
            raise self.invalid(key, f"{np.abs(value).max():g} is out of any range")
        whole = np.rint(value)
        if not (whole == value).all():
            odd = value.reshape(-1)[(whole != value).reshape(-1)][0]
            raise self.invalid(key, f"it must hold integers, and holds {odd:g}")
        found: Array = whole.astype(np.int64)
        return found

    def integer(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """One whole number in a range; older files have an array of one."""
        if default is not None and not self.has(key):
            return default
        value = self.integers(key).reshape(-1)
        if len(value) != 1:
            raise self.invalid(key, f"it must be one number, and holds {len(value)}")
        if not least <= value[0] <= most:
            raise self.invalid(key, f"it must lie in {least} to {most}, got {value[0]}")
        return int(value[0])

    def pair(self, key: str, least: int) -> tuple[int, int]:
        """(height, width); one number stands for both."""
        value = self.integers(key).reshape(-1)
        if len(value) not in (1, 2) or (value < least).any() or (value > MAX_NEURONS).any():
            raise self.invalid(key, f"it must be (height, width) >= {least}, got {value.tolist()}")
        return int(value[0]), int(value[-1])

    def shape(self) -> Shape:
        """(C,) or (C, H, W)."""
        value = [int(size) for size in self.integers("shape").reshape(-1)]
        if len(value) not in (1, 3) or min(value) < 1 or math.prod(value) > MAX_NEURONS:
            raise self.mismatch(
                "shape",
                f"it must be (C) or (C, H, W) of at most {MAX_NEURONS} neurons, got {value}",
            )
        return tuple(value)

    def parts(self, key: str) -> tuple[str, ...]:
        """Keys of a weight: one, or those of its real and imaginary part."""
        return (f"{key}/real", f"{key}/imag") if self.is_group(key) else (key,)

    def weights(self, key: str, axes: int) -> list[Tensor]:
        """A weight, or its real and imaginary part: five axes, in units of one.

        Args:
            key: "weight" or "weight_rec".
            axes: axes that the file has, before those of size 1 that older files add.
        """
        found = []
        for part in self.parts(key):
            value = self.integers(part)
            if value.ndim == 1 and axes == 2:
                outputs = math.prod(self.shape())
                if value.size % outputs:
                    raise self.mismatch(part, f"{value.size} weights do not make {outputs} rows")
                value = value.reshape(outputs, -1)
            if not axes <= value.ndim <= 5 or value.shape[axes:] != (1,) * (value.ndim - axes):
                raise self.mismatch(part, f"it must have {axes} axes, got {value.shape}")
            if np.abs(value).max() >= 1 << 15:
                raise self.invalid(part, f"{np.abs(value).max()} is no weight of Loihi")
            value = value.reshape(value.shape[:axes] + (1,) * (5 - axes))
            found.append(torch.from_numpy(value.astype(np.float32) / np.float32(ONE)))
        if len(found) == 2 and found[0].shape != found[1].shape:
            raise self.mismatch(f"{key}/imag", "its shape is not that of the real part")
        return found


def _layers(where: str, file: Any) -> Iterator[_Layer]:
    if "layer" not in file or hasattr(file["layer"], "shape"):
        raise InputError(f"{where} is no network of lava-dl: it has no group 'layer'")
    group = file["layer"]
    if not len(group):
        raise InputError(f"{where}: the group 'layer' is empty")
    for number in range(len(group)):
        if str(number) not in group or hasattr(group[str(number)], "shape"):
            raise InputError(f"{where}: there are {len(group)} layers and none has number {number}")
        yield _Layer(where, number, group[str(number)])


# -- neurons -------------------------------------------------------------------------------------


def _kinds() -> dict[str, tuple[str, ModuleType]]:
    """Type of a neuron in a file -> its name and module, of every neuron that has one."""
    kinds = neuron.kinds().items()
    found = {m.Neuron.device_type: (n, m) for n, m in kinds if m.Neuron.device_type}
    return found | {older: found[newer] for older, newer in _OLDER.items()}


@dataclass
class _Neuron:
    """The neuron of a layer as its file describes it.

    Attributes:
        layer: the layer.
        kind: name of the neuron in :mod:`synapse_onnx.neuron`.
        module: that module.
        params: arguments of its constructor.
        decays: its parameters in 4096ths, by name: one, or one a channel.
        readout: its threshold is beyond any voltage, so that the voltage is what is read.
        decoder: it only sums up what a sigma-delta layer sent.
    """

    layer: _Layer
    kind: str
    module: ModuleType
    params: dict[str, Any]
    decays: dict[str, Array]
    readout: bool
    decoder: bool

    @classmethod
    def read(cls, layer: _Layer) -> _Neuron:
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
            readout=not sigma_delta and device["vThMant"] * ONE >= STATE_LIMIT - 1,
            decoder=sigma_delta and layer.flag("neuron/sigma_output"),
        )

    @property
    def shifts(self) -> bool:
        """Whether it is one of those that send their spikes one step later."""
        return self.kind != "sigma_delta" and not self.readout

    def settle(self, made: Any, channels: int) -> None:
        """Give a neuron that was built from ``params`` the decays of the file, to the last bit."""
        if self.readout:
            made.as_readout()
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
        made.load_state_dict(state, strict=False)


def _activation(layer: _Layer) -> Callable[[Tensor], Tensor] | None:
    name = layer.text("neuron/activation") if layer.has("neuron/activation") else "relu"
    if name not in _ACTIVATIONS:
        raise layer.invalid(
            "neuron/activation",
            f"there is no activation {name!r}; known: {', '.join(sorted(_ACTIVATIONS))}",
        )
    return _ACTIVATIONS[name]


# -- modules that no block stands for ------------------------------------------------------------


class Mantissa(nn.Module):
    """What the input of a network becomes on Loihi: weight * x + bias, a whole number of 64ths.

    Args:
        weight, bias: integers.
    """

    def __init__(self, weight: int, bias: int) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the current of an input (N, C[, H, W], T), in units of one."""
        return torch.round(x * self.weight + self.bias) / ONE


class InputLayer(nn.Module):
    """Input with a neuron: the transformation of :class:`Mantissa`, neuron, step delay."""

    def __init__(self, transform: Mantissa, neuron: Any, step: StepDelay | None) -> None:
        super().__init__()
        self.transform, self.neuron, self.step = transform, neuron, step

    def forward(self, x: Any) -> Tensor:
        """Return the spikes of an input; a pair (real, imag) where the neuron is a resonator."""
        pair = isinstance(x, tuple | list)
        current = tuple(self.transform(part) for part in x) if pair else self.transform(x)
        spikes: Tensor = self.neuron(current)
        return spikes if self.step is None else self.step(spikes)


class Current(nn.Module):
    """A synapse without a neuron: its current is read, of a complex one the imaginary part."""

    def __init__(self, synapse: Any) -> None:
        super().__init__()
        self.synapse = synapse

    def forward(self, x: Tensor) -> Tensor:
        """Return the current (N, C[, H, W], T)."""
        z = self.synapse(x)
        current: Tensor = z[1] if self.synapse.complex else z
        return current


# -- layers --------------------------------------------------------------------------------------


class _Builder:
    """Builds a network layer by layer, and follows the shape of what flows through it."""

    def __init__(self, delay_shift: bool, decimation: int | None) -> None:
        self.delay_shift, self.decimation = delay_shift, decimation
        self.layers: dict[str, nn.Module] = {}
        self.wires: dict[str, list[str]] = {}
        self.input_shape: Shape | None = None
        #: name of the last layer, and the shape of what it gives; None where it is not known
        self.last = "input"
        self.shape: Shape | None = None
        #: the same of every layer of the file
        self.given: list[tuple[str, Shape | None]] = []

    def build(self, where: str, layers: list[_Layer]) -> Network:
        """Return the network of these layers."""
        for layer in layers:
            if layer.type not in _BUILDERS:
                raise layer.invalid(
                    "type", f"there is no layer {layer.type!r}; known: {', '.join(_BUILDERS)}"
                )
            with located(where, f"layer {layer.number} ({layer.type})"):
                _BUILDERS[layer.type](self, layer)
            self.given.append((self.last, self.shape))
        if not self.layers:
            raise InputError(f"{where}: there is an input and no layer behind it")
        return Network(self.layers, self.wires, {"input": self.input_shape}, [self.last])

    def add(self, name: str, module: nn.Module, shape: Shape | None, *sources: str) -> None:
        """Add a module behind the last one, or behind others."""
        self.layers[name] = module
        self.wires[name] = list(sources) or [self.last]
        self.last, self.shape = name, shape

    def flatten(self, name: str) -> None:
        """Bring images to one axis of neurons, in the order C, H, W."""
        if self.shape is not None and len(self.shape) == 3:
            self.add(name, block.cuba.Flatten(), (math.prod(self.shape),))

    def synaptic(self, layer: _Layer, kind: str, given: list[Tensor], *arguments: Any) -> None:
        """Add a layer with a synapse.

        Args:
            layer: the layer of the file.
            kind: name of the block.
            given: its weight as the file has it, or the real and imaginary part.
            arguments: those of the block, behind the neuron's.
        """
        found = _Neuron.read(layer) if layer.has("neuron") else None
        exponent = 0
        if found is not None:
            # a norm with weight scale divides the current and what it has subtracted from it
            exponent = -_norm_exponent(layer)
        bias = self._bias(layer, found, exponent)
        if found is not None:
            exponent += layer.integer("neuron/wgtExp", -8, 7, default=0)
        scale = 2.0**exponent
        weights = _masked(layer, [weight * scale for weight in given])
        before, behind = _delays(layer, weights[0], dense=kind in ("Dense", "Recurrent"))
        if before is not None:
            self.add(f"{layer.name}_delay", before, self.shape)
        module: Any
        if found is None:
            synapses: Any = synapse.complex if len(weights) == 2 else synapse
            known = {"ConvT": "ConvTranspose"}.get(kind, kind)
            module = Current(getattr(synapses, known)(*arguments, pre_hook_fx=None))
        else:
            module = self._block(found, kind, len(weights) == 2, arguments, behind)
        recurrent = kind == "Recurrent"
        own = module.input_synapse if recurrent else module.synapse
        _set_weights(layer, "weight", own, weights)
        if recurrent:
            again = [weight * scale for weight in layer.weights("weight_rec", 2)]
            _set_weights(layer, "weight_rec", module.recurrent_synapse, again)
        shape = self._shape_behind(layer, own)
        if found is not None and not found.decoder:
            found.settle(module.neuron, shape[0])
        if bias is not None:
            module.neuron.set_bias(_fitted(layer, "bias", bias, shape))
        if behind is not None:
            delays = _fitted(layer, "delay", behind, shape).flatten()
            module.delay.load_state_dict({"delay": delays})
        self.add(layer.name, module, shape)

    def _block(
        self,
        found: _Neuron,
        kind: str,
        pair: bool,
        arguments: tuple[Any, ...],
        delays: Tensor | None,
    ) -> Any:
        """Make a block of synapse, neuron and delays."""
        layer, blocks = found.layer, getattr(block, found.kind)
        name = layer.text("neuron/type")
        if found.module.Neuron.complex != pair:
            wanted = "one real weight" if pair else "weight/real and weight/imag"
            raise layer.invalid("weight", f"a neuron of type {name} takes {wanted}")
        if found.kind == "sigma_delta" and kind == "Recurrent":
            raise layer.invalid("neuron/type", f"a neuron of type {name} takes no recurrent weights")
        if found.decoder:
            if kind != "Dense" or delays is not None:
                what = "no delay" if kind == "Dense" else "a dense layer alone"
                raise layer.invalid("neuron/sigma_output", f"an output of sums takes {what}")
            return blocks.Output(found.params, *arguments, pre_hook_fx=None)
        return getattr(blocks, kind)(
            found.params,
            *arguments,
            pre_hook_fx=None,
            delay=delays is not None,
            delay_shift=self.delay_shift and found.shifts,
        )

    def _bias(self, layer: _Layer, found: _Neuron | None, exponent: int) -> Tensor | None:
        """Return the bias in units of one, in the shape of the file."""
        if not layer.has("bias"):
            return None
        if found is None or found.decoder or found.module.Neuron.complex:
            what = "a layer without a neuron" if found is None else layer.text("neuron/type")
            raise layer.invalid("bias", f"{what} takes no bias here")
        return torch.from_numpy(layer.integers("bias").astype(np.float32) * 2.0**exponent / ONE)

    def _shape_behind(self, layer: _Layer, own: Any) -> Shape:
        """Return the shape of what a synapse gives; the file must say the same."""
        said = layer.shape()
        if self.shape is None:
            return said
        # the synapse knows how large its output is, and refuses an input that does not fit
        with torch.no_grad():
            result = own(torch.zeros(1, *self.shape, 1))
        shape = tuple((result[0] if own.complex else result).shape[1:-1])
        if shape != (said if len(shape) == 3 else (math.prod(said),)):
            raise layer.mismatch(
                "shape", f"the file says {said}, and from {self.shape} the layer makes {shape}"
            )
        return shape


def _delays(layer: _Layer, weight: Tensor, *, dense: bool) -> tuple[Delay | None, Tensor | None]:
    """Return the delay of what comes in, and the delays of the spikes that go out.

    A dense layer may have one delay an input, where inputs and outputs are not as many.
    """
    if not layer.has("delay"):
        return None, None
    value = layer.integers("delay").reshape(-1)
    for odd in (value.min(), value.max()):
        if not 0 <= odd <= MAX_DELAY:
            raise layer.invalid("delay", f"a delay lies in 0 to {MAX_DELAY} steps, got {odd}")
    delays = torch.from_numpy(value.astype(np.float32))
    outputs, inputs = weight.shape[:2]
    if not dense or delays.numel() != inputs or delays.numel() in (1, outputs):
        return None, delays
    line = Delay(MAX_DELAY)
    line.load_state_dict({"delay": delays})
    return line, None


def _fitted(layer: _Layer, key: str, value: Tensor, shape: Shape) -> Tensor:
    """Return values of a layer as (1,), one a channel (C,), or one a neuron (C, H, W)."""
    if value.numel() in (1, shape[0]):
        return value.flatten()
    if value.numel() != math.prod(shape):
        raise layer.mismatch(key, f"its shape is {tuple(value.shape)}, and the neurons are {shape}")
    return value.reshape(shape)


def _norm_exponent(layer: _Layer) -> int:
    """Exponent by which a WgtScaleBatchNorm divides the current, within the bits that it has."""
    exponent = layer.integer("neuron/weight_exp", -(1 << 10), 1 << 10, default=0)
    return max(-MAX_NORM_EXPONENT, min(MAX_NORM_EXPONENT, exponent))


def _masked(layer: _Layer, weights: list[Tensor]) -> list[Tensor]:
    """Cut off the synapses that a mask (outputs, inputs) leaves out."""
    if not layer.has("mask"):
        return weights
    mask, wanted = layer.integers("mask"), tuple(weights[0].shape[:2])
    if mask.shape != wanted:
        raise layer.mismatch("mask", f"its shape is {mask.shape} and must be {wanted}")
    kept = torch.from_numpy((mask != 0).astype(np.float32)).reshape(*wanted, 1, 1, 1)
    return [weight * kept for weight in weights]


def _set_weights(layer: _Layer, key: str, own: Any, weights: list[Tensor]) -> None:
    targets = (own.real, own.imag) if own.complex else (own,)
    if len(targets) != len(weights):
        raise layer.invalid(key, f"it must have {len(targets)} parts, as the other weights have")
    for target, weight in zip(targets, weights, strict=True):
        if target.weight.shape != weight.shape:
            raise layer.mismatch(
                key, f"its shape is {tuple(weight.shape)} and must be {tuple(target.weight.shape)}"
            )
        with torch.no_grad():
            target.weight.copy_(weight)


#: type of a layer in a file -> what builds it
_BUILDERS: dict[str, Callable[[_Builder, _Layer], None]] = {}

_Build = Callable[[_Builder, _Layer], None]


def _builds(*types: str) -> Callable[[_Build], _Build]:
    """Register the function that builds the layers of some types."""

    def add(function: _Build) -> _Build:
        _BUILDERS.update(dict.fromkeys(types, function))
        return function

    return add


@_builds("input")
def _input(net: _Builder, layer: _Layer) -> None:
    if layer.number:
        raise layer.invalid("type", "an input must be the first layer")
    shape = net.shape = net.input_shape = layer.shape()
    if not layer.has("neuron"):
        return
    found = _Neuron.read(layer)
    weight = layer.integer("weight", -(1 << 15), 1 << 15, default=ONE)
    bias = layer.integer("bias", -(1 << 15), 1 << 15, default=0)
    made = found.module.Neuron(**found.params)
    found.settle(made, shape[0])
    if hasattr(made, "as_encoder"):
        made.as_encoder()
    step = StepDelay(persistent_state=False) if net.delay_shift and found.shifts else None
    net.add(layer.name, InputLayer(Mantissa(weight, bias), made, step), shape)


@_builds("dense", "dense_rec")
def _dense(net: _Builder, layer: _Layer) -> None:
    recurrent = layer.type == "dense_rec"
    if recurrent and not layer.has("neuron"):
        raise layer.invalid("neuron", "it is missing, and recurrent weights need spikes")
    weights = layer.weights("weight", 2)
    outputs, inputs = weights[0].shape[:2]
    if layer.number == 0:
        net.shape = net.input_shape = (inputs,)
    net.flatten(f"{layer.name}_flatten")
    if net.shape is not None and net.shape != (inputs,):
        raise layer.mismatch(
            layer.parts("weight")[0],
            f"it takes {inputs} inputs, and what comes in has the shape {net.shape}",
        )
    net.synaptic(layer, "Recurrent" if recurrent else "Dense", weights, inputs, outputs)


@_builds("conv", "convT")
def _conv(net: _Builder, layer: _Layer) -> None:
    weights = layer.weights("weight", 4)
    weight = weights[0]
    groups = layer.integer("groups", 1, MAX_NEURONS, default=1)
    first, second = int(weight.shape[0]), int(weight.shape[1]) * groups
    # a transposed convolution has its inputs on the first axis of the weight
    kind, *sizes = ("Conv", second, first) if layer.type == "conv" else ("ConvT", first, second)
    net.synaptic(layer, str(kind), weights, *sizes, *_window(layer, weight), groups)


@_builds("pool", "unpool")
def _pool(net: _Builder, layer: _Layer) -> None:
    weights = layer.weights("weight", 4)
    net.synaptic(layer, layer.type.capitalize(), weights, *_window(layer, weights[0]))


def _window(layer: _Layer, weight: Tensor) -> tuple[tuple[int, int], ...]:
    """Kernel, stride, padding and dilation, each (height, width)."""
    kernel = int(weight.shape[2]), int(weight.shape[3])
    if layer.has("kernelSize") and layer.pair("kernelSize", 1) != kernel:
        raise layer.mismatch("kernelSize", f"it must be {kernel}, as the weight has it")
    return kernel, layer.pair("stride", 1), layer.pair("padding", 0), layer.pair("dilation", 1)


@_builds("flatten")
def _flatten(net: _Builder, layer: _Layer) -> None:
    if net.shape is None:
        net.add(layer.name, block.cuba.Flatten(), (math.prod(layer.shape()),))
    net.flatten(layer.name)


@_builds("average")
def _average(net: _Builder, layer: _Layer) -> None:
    said = layer.shape()
    if net.shape is not None and math.prod(net.shape) == math.prod(said):
        if net.decimation is None:
            raise layer.invalid(
                "shape",
                "an average over no neurons is a time decimation, and the file does not say over "
                "how many steps: give decimation=STEPS",
            )
        net.add(layer.name, block.cuba.TimeDecimation(net.decimation), net.shape)
        return
    outputs = math.prod(said)
    if net.shape is not None and math.prod(net.shape) % outputs:
        raise layer.mismatch("shape", f"{net.shape} neurons do not make {outputs} equal groups")
    net.add(layer.name, block.cuba.Average(outputs), (outputs,))


@_builds("concat")
def _concat(net: _Builder, layer: _Layer) -> None:
    sources, shapes = [net.last], [net.shape]
    for number in layer.integers("layers").reshape(-1):
        if not 0 <= number < layer.number:
            raise layer.invalid(
                "layers",
                f"layer {number} does not come before this one"
                + (", a cycle without a delay" if number >= layer.number else ""),
            )
        name, shape = net.given[number]
        if name not in sources:
            sources.append(name)
            shapes.append(shape)
    if len(sources) == 1:
        raise layer.invalid("layers", "it names no other layer than the one before")
    known = [shape for shape in shapes if shape is not None]
    if any(shape[1:] != known[0][1:] for shape in known):
        raise layer.mismatch("layers", f"layers of shapes {shapes} do not fit together")
    total = None
    if len(known) == len(shapes):
        total = (sum(shape[0] for shape in known), *known[0][1:])
        if math.prod(layer.shape()) != math.prod(total):
            raise layer.mismatch(
                "shape", f"the file says {layer.shape()}, and the layers make {total}"
            )
    net.add(layer.name, Concatenate(), total or layer.shape(), *sources)


register(
    Reader(
        name="lava-dl",
        suffixes=(".net",),
        extra="lava",
        load=load_net,
        doc="trained networks of lava-dl for Loihi, in the loihi regime",
    )
)
