"""snnTorch: neurons of ``snntorch``, and ``nn.Sequential`` of them with ``init_hidden=True``.

Source: snntorch 1.0, ``_neurons/*.py``. A spike is found again in the next step, from the voltage
that was left, and resets it then:

- "subtract" takes the threshold off behind the leak: our "delayed". With ``reset_delay=False`` a
  voltage of more than twice the threshold is reset back and forth, which no reset of ours does.
- "zero" sets the voltage of Leaky to zero before the leak: our "zero". In the other classes the
  input of that step is lost as well: our "delayed_zero"; but with ``reset_delay=False`` it is
  "zero".
- "none" never resets, which ours always does.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.readers.frameworks import _terms as terms
from synapse_onnx.readers.frameworks._convert import Conversion, Framework
from synapse_onnx.readers.frameworks._over_time import (
    Seen,
    in_sequence,
    is_sequential,
    once,
    users_code,
)

__all__ = ["FRAMEWORK"]

_PACKAGE = "snntorch"
_NEURONS = ("Leaky", "Synaptic", "Lapicque", "RLeaky", "RSynaptic")
#: options that are read, or that change neither spikes nor voltages
_KNOWN = {
    "alpha", "beta", "R", "C", "time_step", "V", "all_to_all", "linear_features", "conv2d_channels",
    "kernel_size", "threshold", "spike_grad", "surrogate_disable", "init_hidden", "inhibition",
    "learn_alpha", "learn_beta", "learn_threshold", "learn_recurrent", "reset_mechanism",
    "state_quant", "output", "graded_spikes_factor", "learn_graded_spikes_factor", "reset_delay",
}  # fmt: skip


def _convert(conversion: Conversion, path: str, old: Any) -> nn.Module:
    """Return ours for a neuron, or a network for an ``nn.Sequential``."""
    if is_sequential(old):
        return in_sequence(conversion, path, old, "step", partial(_own, conversion))
    if not FRAMEWORK.owns(type(old)) and conversion.framework_of(old) is None:
        raise InputError(f"convert: {path or 'the module'} {users_code(old)}")
    return _neuron(old)


def _own(conversion: Conversion, path: str, layer: Any) -> tuple[nn.Module, Seen]:
    """Return ours for a layer in a sequence."""
    if FRAMEWORK.owns(type(layer)) and not getattr(layer, "init_hidden", True):
        raise InputError(
            f"convert: {path} has init_hidden=False, so that it returns its states too, which the "
            f"next layer does not take; set init_hidden=True"
        )
    return once(conversion, path, layer), ""


def _neuron(layer: Any) -> nn.Module:
    """Neuron of snnTorch."""
    name = terms.class_name(layer, f"{_PACKAGE}.", _NEURONS)
    terms.check_options(layer, _KNOWN, f"{_PACKAGE}.")
    terms.check_option(layer, "state_quant", False)
    strict = not terms.spikes_at_zero(layer.spike_grad, "spike_grad")
    if not strict:
        raise terms.refused("spike_grad", layer.spike_grad, "which spikes at the threshold too")
    values, learned = _terms_of(name, layer)
    new = terms.make_neuron(threshold=layer.threshold, **values, **_reset(name, layer))
    terms.set_surrogate(new, layer.spike_grad)
    terms.learn(new, {**learned, "v_threshold": layer.threshold})
    result: nn.Module = new
    recurrent = name.startswith("R")
    if recurrent:
        result = _recurrent(layer, new)
    winner, output = bool(layer.inhibition), bool(layer.output)
    if winner and layer.threshold.requires_grad:
        raise terms.refused("inhibition", True, "which ours has not with a learned threshold")
    if winner and (recurrent or getattr(layer, "reset_delay", True) is False):
        raise terms.refused("inhibition", True, "which ours has neither with feedback nor with "
                            "reset_delay=False")  # fmt: skip
    if output and recurrent:
        raise terms.refused("output", True, "and ours returns no voltages with feedback")
    if output and getattr(layer, "reset_delay", True) is False:
        raise terms.refused("output", True, "and with reset_delay=False its voltages are those "
                            "behind the reset, which ours does not return")  # fmt: skip
    if winner or output:
        level = layer.threshold.detach().float().reshape(-1, 1) if winner else None
        result = SpikesAndVoltage(new, threshold=level, output=output)
    return _graded(layer, result, recurrent)


def _terms_of(name: str, layer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Terms of the difference equation; and the parameters of the layer, by ours."""
    if name == "Lapicque":
        rc, step = layer.R * layer.C, layer.time_step
        return {"beta": 1 - step / rc, "gain": layer.R * (1 / rc) * step}, {}
    values, learned = {"beta": layer.beta.clamp(0, 1)}, {"beta": layer.beta}
    if name.endswith("Synaptic"):
        values["alpha"], learned["alpha"] = layer.alpha.clamp(0, 1), layer.alpha
    return values, learned


def _reset(name: str, layer: Any) -> dict[str, Any]:
    """Reset of ours."""
    # the function was chosen at construction; the mechanism may have been set since
    kind, delayed = layer.reset_mechanism, getattr(layer, "reset_delay", True)
    chosen = getattr(layer.state_function, "__name__", "")
    expected = {"subtract": "_base_sub", "zero": "_base_zero", "none": "_base_int"}
    if chosen != expected.get(kind, ""):
        raise terms.refused(
            "reset_mechanism", kind, f"while its state_function is still {chosen or 'another'}"
        )
    if not delayed and name == "RSynaptic":
        raise terms.refused("reset_delay", False, "with which snnTorch 1.0 raises an error")
    if kind == "none":
        raise terms.refused("reset_mechanism", kind, "and ours is always reset")
    if kind == "subtract":
        if not delayed:
            raise terms.refused(
                "reset_delay", False, "and ours has no such reset of reset_mechanism='subtract'"
            )
        return {"reset": "delayed"}
    if not delayed and bool((layer.threshold < 0).any()):
        raise terms.refused("threshold", layer.threshold, "below 0 with reset_delay=False")
    return {"reset": "zero" if name == "Leaky" or not delayed else "delayed_zero"}


def _recurrent(layer: Any, new: Any) -> nn.Module:
    """Neuron with feedback: all to all by a Linear, or one to one by numbers."""
    recurrent = layer.recurrent
    if type(recurrent) is nn.Linear:
        return terms.feedback(new, recurrent.weight, recurrent.bias)
    if type(recurrent).__name__ != "RecurrentOneToOne":
        raise terms.refused("recurrent", type(recurrent).__name__, "and ours takes feedback "
                            "through a Linear, or one to one")  # fmt: skip
    weight = torch.as_tensor(recurrent.V)
    if weight.dim() != 1:
        raise terms.refused("V", tuple(weight.shape), "its shape, which does not say how many "
                            "neurons there are: give one number each")  # fmt: skip
    diagonal = torch.diag(weight.detach()).requires_grad_(weight.requires_grad)
    return terms.feedback(new, diagonal, kept=torch.eye(len(weight)))


def _graded(layer: Any, new: nn.Module, recurrent: bool) -> nn.Module:
    """Put the height of spikes behind a neuron, where that is not 1."""
    factor = torch.as_tensor(getattr(layer, "graded_spikes_factor", 1.0))
    learned = isinstance(factor, nn.Parameter) and factor.requires_grad
    if not learned and bool((factor == 1).all()):
        return new
    if factor.numel() != 1:
        raise terms.refused("graded_spikes_factor", tuple(factor.shape), "its shape: ours has one")
    if recurrent or getattr(layer, "inhibition", False):
        raise terms.refused("graded_spikes_factor", factor.item(), "which ours has neither with "
                            "feedback nor with inhibition")  # fmt: skip
    return Graded(new, factor.detach().clone().float().reshape(()), learned)


class SpikesAndVoltage(nn.Module):
    """A neuron that returns its voltage too, or of whose channels only the highest may spike.

    Args:
        neuron: a lif neuron.
        threshold: only the channel spikes whose voltage is the highest above this, (1,) or (C, 1);
            None: every channel may.
        output: return (spikes, voltage), each (N, C[, H, W], T); with a threshold (N, C, T).
    """

    def __init__(self, neuron: Any, *, threshold: Tensor | None, output: bool) -> None:
        super().__init__()
        self.neuron, self.output = neuron, output
        self.register_buffer("threshold", threshold)

    def forward(self, x: Tensor) -> Any:
        """Return spikes (N, C[, H, W], T); or those and voltages, before the reset."""
        if self.threshold is not None and x.dim() != 3:
            raise ShapeError(f"inhibition takes currents (N, C, T), got {tuple(x.shape)}")
        _, voltage, last = self.neuron.dynamics(x)
        spikes = self.neuron.spike(last)
        if self.threshold is not None:
            channels = torch.arange(x.shape[1], device=x.device)
            shift = voltage.detach() - self.threshold
            spikes = spikes * (shift.argmax(1, keepdim=True) == channels.reshape(-1, 1))
        return (spikes, voltage) if self.output else spikes


class Graded(nn.Module):
    """A neuron whose spikes have a height.

    Args:
        neuron: a module that returns spikes, or (spikes, voltage).
        factor: the height.
        learned: whether it is a parameter.
    """

    def __init__(self, neuron: nn.Module, factor: Tensor, learned: bool) -> None:
        super().__init__()
        self.neuron, self.factor = neuron, nn.Parameter(factor, requires_grad=learned)

    def forward(self, x: Tensor) -> Any:
        """Return spikes (N, C[, H, W], T), 0 or the factor."""
        result = self.neuron(x)
        if isinstance(result, tuple):
            return result[0] * self.factor, *result[1:]
        return result * self.factor


FRAMEWORK = Framework(
    name="snnTorch", package=_PACKAGE, layers="snntorch.*", convert=_convert, in_steps=True
)
