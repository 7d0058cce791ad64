"""SpikingJelly: neurons and layers of ``spikingjelly.activation_based``, and sequences of them.

Source: spikingjelly 2.0, ``activation_based/neuron`` and ``functional/neuron.py``. A neuron spikes
at its threshold too, starts from ``v_reset``, and is reset within the step. Networks in step mode
"s" and "m" become the same network: layers of torch see single steps in one, and (T, N, ...) in the
other. ``detach_reset`` changes gradients alone, of which ours never go through a reset.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError
from synapse_onnx.neuron.dropout import Dropout
from synapse_onnx.readers.frameworks import _terms as terms
from synapse_onnx.readers.frameworks._convert import Conversion, Framework
from synapse_onnx.readers.frameworks._over_time import (
    LIVE,
    SameMask,
    Seen,
    in_sequence,
    is_sequential,
    of_torch,
    once,
    users_code,
)

__all__ = ["FRAMEWORK"]

_PACKAGE = "spikingjelly"
_PREFIX = f"{_PACKAGE}."
_NEURON, _LAYER = f"{_PREFIX}activation_based.neuron.", f"{_PREFIX}activation_based.layer."
#: neuron -> its terms, see below
_NEURONS = (
    "IFNode", "SimpleIFNode", "LIFNode", "SimpleLIFNode", "ParametricLIFNode", "CUBALIFNode",
    "NonSpikingIFNode", "NonSpikingLIFNode",
)  # fmt: skip
_KNOWN = {
    "tau", "init_tau", "decay_input", "v_threshold", "v_reset", "surrogate_function", "decode",
    "detach_reset", "step_mode", "store_v_seq", "c_decay", "v_decay", "backend",
    "cupy_fp32_inference",
}  # fmt: skip
#: layers without states that are torch's but for the layout of "m"
_TORCHS = (
    "Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d",
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "MaxPool1d", "MaxPool2d", "MaxPool3d",
    "AvgPool1d", "AvgPool2d", "AvgPool3d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d", "Flatten", "Upsample",
)  # fmt: skip
#: layers without states of SpikingJelly's own, which go on running single steps
_OWN = ("WSConv2d", "WSLinear", "VotingLayer")
_DROPOUT = ("Dropout", "Dropout2d")
#: containers that run their layers step by step, or on all steps at once
_CONTAINERS = ("MultiStepContainer", "SeqToANNContainer", "StepModeContainer")


def _convert(conversion: Conversion, path: str, old: Any) -> nn.Module:
    """Return ours for a neuron or a layer, or a network for a sequence of them."""
    if is_sequential(old) and conversion.framework_of(old) is None:
        mode = _mode_of(old)
        seen = "TN" if mode == "m" else "step"
        return in_sequence(conversion, path, old, seen, _Own(conversion, mode))
    if conversion.framework_of(old) is None:
        raise InputError(f"convert: {path or 'the module'} {users_code(old)}")
    if _is_in(old, _NEURON):
        return _neuron(old)
    name = terms.class_name(old, _PREFIX, (*_TORCHS, *_OWN, *_DROPOUT, *_CONTAINERS))
    if name in _CONTAINERS:
        at_once = name == "SeqToANNContainer" or not getattr(old, "stateful", True)
        neurons = [part for part in old.modules() if _is_in(part, _NEURON)]
        if at_once and neurons:
            raise InputError(
                f"it runs its layers on all steps at once, and holds {type(neurons[0]).__name__}, "
                f"which keeps a state; {LIVE}"
            )
        return in_sequence(conversion, path, old, "step", _Own(conversion, "s"))
    if name in _DROPOUT:
        return Dropout(old.p) if name == "Dropout" else SameMask(nn.Dropout2d(old.p))
    # a network, for the layer alone runs single steps
    alone = nn.Sequential(old).train(old.training)
    return in_sequence(conversion, path, alone, "step", _Own(conversion, ""))


def _mode_of(container: nn.Module) -> str:
    """Return the step mode of a sequence's neurons and layers, outside of containers.

    Raises:
        InputError: they have different ones.
    """
    modes: dict[str, str] = {}
    for path, part in container.named_children():
        if _is_in(part, _NEURON) or _is_in(part, _LAYER):
            # neurons that never spike and some containers have none, and take sequences
            mode = getattr(part, "step_mode", "m")
        else:
            mode = _mode_of(part) if is_sequential(part) else ""
        # Linear has a step mode that changes nothing
        if mode and terms.nearest(part, _LAYER) != "Linear":
            modes[mode] = path
    if len(modes) > 1:
        raise InputError(
            f"its layers {modes['s']} and {modes['m']} have step modes s and m; set one with "
            f"functional.set_step_mode"
        )
    return next(iter(modes), "")


class _Own:
    """Converts a layer of SpikingJelly in a sequence whose layers have a step mode."""

    def __init__(self, conversion: Conversion, mode: str) -> None:
        self.conversion, self.mode = conversion, mode

    def __call__(self, path: str, layer: Any) -> tuple[nn.Module, Seen]:
        """Return ours, and what it sees."""
        if not FRAMEWORK.owns(type(layer)) or not _is_in(layer, _LAYER):
            mode = getattr(layer, "step_mode", "m")
            if FRAMEWORK.owns(type(layer)) and self.mode and mode != self.mode:
                raise InputError(
                    f"its step mode is {mode}, in a sequence whose step mode is {self.mode}; set "
                    f"one with functional.set_step_mode"
                )
            return once(self.conversion, path, layer), ""
        name = terms.class_name(layer, _PREFIX, (*_TORCHS, *_OWN, *_DROPOUT, *_CONTAINERS))
        if name not in (*_TORCHS, *_OWN):
            return self.conversion.layer(path, layer), ""
        copied: Any = self.conversion.copied(layer)
        if name in _TORCHS:
            copied.__class__ = next(
                kind for kind in type(layer).__mro__ if kind.__module__.startswith("torch.nn.")
            )
            vars(copied).pop("_step_mode", None)
        elif hasattr(layer, "step_mode"):
            copied.step_mode = "s"
        # a layer in mode "s" of a network in mode "m" sees what the layers of torch see
        whole = self.mode == "m" and getattr(layer, "step_mode", "s") == "s"
        return of_torch(copied, "TN" if whole else "step")


def _is_in(module: nn.Module, package: str) -> bool:
    """Whether a module's class, or one that it derives from, is defined in a package."""
    return any(f"{kind.__module__}.".startswith(package) for kind in type(module).__mro__)


def _neuron(layer: Any) -> nn.Module:
    """Neuron of SpikingJelly."""
    name = terms.class_name(layer, _PREFIX, _NEURONS)
    terms.check_options(layer, _KNOWN, _PREFIX)
    terms.check_option(layer, "store_v_seq", False, why="and ours keeps no voltages")
    terms.check_option(layer, "_neuron_precision", None)
    if name.startswith("NonSpiking"):
        terms.check_option(layer, "decode", None, why="and ours returns the voltages of all steps")
        tau = layer.tau if name == "NonSpikingLIFNode" else None
        beta, gain = (1.0, 1.0) if tau is None else (1 - 1 / terms.exact(tau), 1 / terms.exact(tau))
        return terms.make_neuron(threshold=None, beta=beta, gain=gain)  # type: ignore[no-any-return]
    strict = not terms.spikes_at_zero(layer.surrogate_function, "surrogate_function")
    soft = layer.v_reset is None
    rest = _rest(layer)
    if soft and bool(rest):  # ours is counted from the rest, and its threshold too
        value = f"{float(rest):g}"
        raise terms.refused("initial voltage", value, "which ours has not with v_reset=None")
    values, learned = _terms_of(name, layer)
    new = terms.make_neuron(
        threshold=layer.v_threshold,
        reset="subtract" if soft else "zero",
        reset_value=0.0 if soft else layer.v_reset,
        rest=rest,
        strict=strict,
        **values,
    )
    terms.set_surrogate(new, layer.surrogate_function)
    terms.learn(new, {**learned, "v_threshold": layer.v_threshold})
    return new  # type: ignore[no-any-return]


def _rest(layer: Any) -> Tensor:
    """Return the voltage that a sequence starts from, after a reset."""
    rest = layer._memories_rv.get("v") if hasattr(layer, "_memories_rv") else layer.v_reset
    value = terms.exact(0.0 if rest is None else rest)
    if value.numel() != 1:
        raise terms.refused("initial voltage", tuple(value.shape), "its shape: ours has one number")
    return value.reshape(())


def _terms_of(name: str, layer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Terms of the difference equation; and the parameters of the layer, by ours."""
    if name == "CUBALIFNode":
        return {"alpha": layer.c_decay, "beta": layer.v_decay}, {}
    if name.endswith("IFNode") and not name.endswith("LIFNode"):
        return {"beta": 1.0}, {}
    if name == "ParametricLIFNode":
        rate = torch.sigmoid(terms.exact(layer.w))
    else:
        rate = 1 / terms.exact(layer.tau)
    # v = v + (x - (v - v_reset)) / tau; SimpleLIFNode has the same in another order
    home = terms.exact(0.0 if layer.v_reset is None else layer.v_reset)
    if name == "SimpleLIFNode" and layer.v_reset is None:
        raise terms.refused("v_reset", None, "with which SimpleLIFNode raises an error")
    values = {"beta": 1 - rate, "gain": rate if layer.decay_input else 1.0, "drive": rate * home}
    weight = getattr(layer, "w", None)
    learned = {"beta": weight, **({"gain": weight} if layer.decay_input else {})}
    return values, learned


FRAMEWORK = Framework(
    name="SpikingJelly", package=_PACKAGE, layers=f"{_PACKAGE}.activation_based.*",
    convert=_convert, in_steps=True,
)  # fmt: skip
