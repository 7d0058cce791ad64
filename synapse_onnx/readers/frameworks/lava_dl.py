"""lava-dl: layers of ``lava.lib.dl.slayer``.

A layer of lava-dl is recognised by the path of its class, and ``_TABLE`` names the function that
makes ours. Parameters and buffers have the same names in both, so they are shared here, in one
place, as are states and the attributes that the user set. Source: lava-dl, ``slayer/``, at its last
commit (archived in May 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx import neuron
from synapse_onnx._layer import Stateful
from synapse_onnx.errors import InputError
from synapse_onnx.readers.frameworks import _lava_layers as layers
from synapse_onnx.readers.frameworks._convert import Conversion, Framework
from synapse_onnx.readers.frameworks._lava_layers import PACKAGE, PREFIX, Source, lava_classes

__all__ = ["FRAMEWORK"]

_SLAYER = f"{PACKAGE}.slayer."
#: packages of slayer whose modules are layers; losses and classifiers are elsewhere
_LAYERS = tuple(f"{_SLAYER}{name}." for name in ("synapse", "neuron", "axon", "dendrite", "block"))

#: names that a subclass may override: they do not change what a layer computes
_FREE = {"__init__", "__repr__", "__str__", "__doc__", "__module__", "__qualname__", "extra_repr",
         "export_hdf5", "device_params"}  # fmt: skip
#: attributes of lava-dl's layers that ours do without
_LEFT_OUT = {"complex", "debug", "delay", "delay_buffer", "neuron_params", "norm",
             "recurrent_params", "requires_grad", "persistent_state", "spike_state",
             "synapse_params", "training"}  # fmt: skip

_Maker = Callable[[Source], nn.Module]
#: path of a class below slayer -> the function that makes ours. Blocks of all neurons derive from
#: those in block.base, except for those of one neuron alone.
_TABLE: Mapping[str, _Maker] = {
    **{f"synapse.layer.{name}": layers.real_synapse for name in layers.GEOMETRY},
    **{f"synapse.complex.{name}": layers.complex_synapse for name in layers.GEOMETRY},
    **{f"neuron.{kind}.Neuron": layers.spiking_neuron for kind in layers.KINDS},
    "neuron.sigma_delta.Neuron": layers.sigma_delta,
    "neuron.norm.MeanOnlyBatchNorm": layers.norm,
    "neuron.norm.WgtScaleBatchNorm": layers.norm,
    "neuron.dropout.Dropout": layers.dropout,
    "axon.delay.Delay": layers.delay,
    "axon.delta.Delta": layers.delta,
    "dendrite.sigma.Sigma": layers.sigma,
    "block.base.AbstractInput": layers.input_,
    **{f"block.base.Abstract{name}": layers.synaptic for name in layers.SIZES},
    "block.base.AbstractFlatten": layers.without_neuron,
    "block.base.AbstractAverage": layers.without_neuron,
    "block.base.AbstractTimeDecimation": layers.without_neuron,
    "block.base.AbstractAffine": layers.affine,
    "block.base.AbstractRecurrent": layers.recurrent,
    "block.base.AbstractKWTA": layers.kwta,
    "block.sigma_delta.Output": layers.output,
}


def _convert(conversion: Conversion, path: str, old: Any) -> nn.Module | None:
    """Return ours for a layer of lava-dl; None for a loss, a classifier, a block of the user's."""
    where = f"convert: {path or 'the module'}"
    class_path = _class_path(where, old)
    if class_path is None:
        return None
    module, _, name = class_path.rpartition(".")
    new = _TABLE[class_path](Source(conversion, path, old, module, name))
    _share_tensors(where, old, new)
    if isinstance(new, Stateful):
        _take_states(where, old, new)
    conversion.later(lambda: _set_attributes(conversion, old, new))
    return new


def _class_path(where: str, old: Any) -> str | None:
    """Return the row of ``_TABLE`` for a layer; None where it stays as it is."""
    kinds = lava_classes(old)
    for kind in kinds:
        path = f"{kind.__module__}.{kind.__name__}".removeprefix(_SLAYER)
        if path.startswith("block.") and path not in _TABLE:  # block.cuba.Dense
            path = f"block.base.Abstract{kind.__name__}"
        if not kind.__module__.startswith(_SLAYER) or path not in _TABLE:
            continue
        overridden = [(type(old), "forward")] if "forward" in vars(old) else _overridden(old, kinds)
        users = not any(place.__module__.startswith(PREFIX) for place, _ in overridden)
        if path.startswith("block.") and users and {name for _, name in overridden} == {"forward"}:
            return None  # a user's forward, which runs on the layers of ours inside the block
        if overridden:
            place, name = overridden[0]
            raise InputError(
                f"{where} is a {place.__module__}.{place.__qualname__}, which overrides {name}, "
                f"which the conversion would lose; write it into a module that holds layers of "
                f"{_SLAYER.rstrip('.')}"
            )
        return path
    is_layer = kinds[0].__module__.startswith((*_LAYERS, f"{PREFIX}bootstrap"))
    if not is_layer and next(old.parameters(), None) is None:
        return None
    raise InputError(
        f"{where} is a {kinds[0].__module__}.{kinds[0].__qualname__}, which has no counterpart "
        f"here; put layers of {_SLAYER.rstrip('.')} in its place"
    )


def _overridden(old: Any, kinds: list[type]) -> list[tuple[type, str]]:
    """(subclass, name) of everything that overrides what lava-dl's classes compute with."""
    theirs = {name for kind in kinds if kind.__module__.startswith(_SLAYER) for name in vars(kind)}
    theirs |= {"forward", "__call__"}
    return [
        (kind, name)
        for kind in type(old).__mro__
        if not kind.__module__.startswith((_SLAYER, "torch.nn.modules")) and kind is not object
        for name in sorted(theirs & set(vars(kind)) - _FREE)
    ]


def _share_tensors(where: str, old: Any, new: Any) -> None:
    """Put a layer's own parameters and buffers into ours, the same objects."""
    for name, mine in list(new._parameters.items()):
        theirs = old._parameters.get(name)
        if (mine is None) != (theirs is None):
            raise InputError(
                f"{where}: the parameter {name} of this {type(old).__name__} is "
                f"{'none of' if mine is None else 'missing from'} those that lava-dl gives it; "
                f"undo what changed it (pruning, parametrisation) before it is converted"
            )
        if theirs is not None:
            new._parameters[name] = theirs
    for name, theirs in old._parameters.items():
        if theirs is not None and name not in new._parameters:
            new.register_parameter(name, theirs)
    for name, theirs in old._buffers.items():
        if theirs is None or name in _LEFT_OUT or name.endswith("_state"):
            continue
        new.register_buffer(name, theirs, name not in old._non_persistent_buffers_set)


def _take_states(where: str, old: Any, new: Any) -> None:
    """Continue from the states that a layer keeps: floats in lava-dl, integers here."""
    for name, start in new.state_starts.items():
        theirs = getattr(old, "pre_state" if name == "total" else f"{name}_state", None)
        if not isinstance(theirs, Tensor) or theirs.dim() == 1:  # one axis: no input was seen yet
            continue
        mine: Tensor = getattr(new, f"{name}_state")
        value = theirs.detach().double()
        if not mine.dtype.is_floating_point:
            value = torch.round(value * new.s_scale)
        if old.persistent_state:
            setattr(new, f"{name}_state", value.to(mine.dtype))
        elif isinstance(new, neuron.base.Neuron) and bool((value != start).any()):
            raise InputError(
                f"{where}: lava-dl starts this {type(old).__name__} from the {name} state that was "
                f"kept before persistent_state was turned off; turn it on, or set the state to zero"
            )


def _set_attributes(conversion: Conversion, old: Any, new: Any) -> None:
    """Copy the attributes that the user set on a layer and that ours does not have."""
    for name, value in (*vars(old).items(), *old._modules.items()):
        known = name.startswith("_") or name in _LEFT_OUT or name.endswith(("_min", "_max"))
        if not known and not hasattr(new, name):
            setattr(new, name, conversion.copied(layers.without_identity(value)))


FRAMEWORK = Framework(
    name="lava-dl",
    package=PACKAGE,
    layers=f"{_SLAYER}*",
    convert=_convert,
)
