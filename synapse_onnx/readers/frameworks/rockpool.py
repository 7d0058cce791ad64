"""Rockpool: torch modules of ``rockpool.nn``, and ``Sequential`` of them.

Source: rockpool 3.1, ``nn/modules/torch/lif_torch.py`` and its neighbours. The current decays
behind the input, a neuron spikes as often as the threshold fits its voltage, at most
``max_spikes_per_dt`` times in a step, and each spike takes the threshold off. Modules see
(N, T, C).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from synapse_onnx.errors import InputError
from synapse_onnx.readers.frameworks import _terms as terms
from synapse_onnx.readers.frameworks._convert import Conversion, Framework
from synapse_onnx.readers.frameworks._over_time import (
    LayersOverTime,
    Seen,
    in_sequence,
    is_sequential,
    of_torch,
    once,
    users_code,
)

__all__ = ["FRAMEWORK"]

_PACKAGE = "rockpool"
_PREFIX = f"{_PACKAGE}."
_NEURONS = ("LIFTorch", "LIFBitshiftTorch", "LIFNeuronTorch", "ExpSynTorch")
_CONTAINERS = ("TorchSequential", "TorchResidual")
#: the class that Rockpool gives to a layer of torch in a network of its own
_PATCHED = "TorchModulePatch"
_KNOWN = {
    "shape", "leak_mode", "tau_mem", "tau_syn", "tau", "alpha", "beta", "dash_mem", "dash_syn",
    "bias", "threshold", "has_rec", "w_rec", "noise_std", "spike_generation_fn", "learning_window",
    "max_spikes_per_dt", "weight_init_func", "dt", "spiking_input", "spiking_output",
    "retain_torch_api", "name",
}  # fmt: skip


class Residual(nn.Module):
    """A network whose input is added to its output.

    Args:
        network: over (N, C, T), with as many channels as the input.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, C, T)."""
        y: torch.Tensor = self.network(x)
        return y + x


def _convert(conversion: Conversion, path: str, old: Any) -> nn.Module:
    """Return ours for a layer, or a network for a sequence of them."""
    ours = conversion.framework_of(old) is not None
    if not ours and not is_sequential(old):
        raise InputError(f"convert: {path or 'the module'} {users_code(old)}")
    name = terms.nearest(old, _PREFIX)

    def own(place: str, layer: Any) -> tuple[nn.Module, Seen]:
        kind = terms.nearest(layer, _PREFIX)
        if kind == _PATCHED and not is_sequential(layer):
            return of_torch(_of_torch(conversion, layer), "NT")
        if kind == "LinearTorch":
            return _linear(layer), "step"
        return once(conversion, place, layer), ""

    if name == _PATCHED and is_sequential(old):
        return in_sequence(conversion, path, old, "NT", own)
    if not ours:
        return in_sequence(conversion, path, old, "NT", own)
    if name in _CONTAINERS:
        terms.class_name(old, _PREFIX, _CONTAINERS)
        network = in_sequence(conversion, path, old, "NT", own)
        return Residual(network) if name == "TorchResidual" else network
    if name in ("LinearTorch", _PATCHED):
        alone = LayersOverTime({"0": own(path, old)})
        alone.training = old.training
        return alone
    return _neuron(old)


def _linear(layer: Any) -> nn.Module:
    """LinearTorch: its weight is (inputs, outputs)."""
    terms.class_name(layer, _PREFIX, ("LinearTorch",))
    inputs, outputs = layer.weight.shape
    new = nn.Linear(inputs, outputs, bias=layer.bias is not None)
    for name, theirs in (("weight", layer.weight.T), ("bias", layer.bias)):
        if theirs is not None:
            mine: nn.Parameter = getattr(new, name)
            mine.data = theirs.detach().float().expand(mine.shape).clone()
            mine.requires_grad_(theirs.requires_grad)
    return new.train(layer.training)


def _of_torch(conversion: Conversion, layer: Any) -> nn.Module:
    """Return a layer of torch without what Rockpool added to it."""
    kind: Any = next(k for k in type(layer).__mro__ if k.__module__.startswith("torch.nn."))
    stateful = isinstance(layer, nn.RNNBase | nn.RNNCellBase)
    if stateful or kind is nn.Module or kind.forward is not type(layer).forward:
        owner = type(layer).__mro__[1]
        raise InputError(
            f"it is a {owner.__module__}.{owner.__qualname__}, whose forward is the user's; "
            f"so.export(net, x) takes the live network as it is"
        )
    new: nn.Module = kind.__new__(kind)
    ours = vars(nn.Module()).keys()
    added = {"_ModuleBase__registered_attributes", "_ModuleBase__modules"}
    state = {
        name: value
        for name, value in vars(layer).items()
        if name in ours or (not callable(value) and not name.startswith(("_ModuleBase", "_Torch")))
    }
    for name in added & set(state):
        del state[name]
    vars(new).update(conversion.copied(state))
    return new


def _neuron(layer: Any) -> nn.Module:
    """Neuron or exponential synapse of Rockpool."""
    name = terms.class_name(layer, _PREFIX, _NEURONS)
    terms.check_options(layer, _KNOWN, _PREFIX)
    if float(layer.noise_std) != 0:
        raise terms.refused("noise_std", float(layer.noise_std))
    if name == "ExpSynTorch":
        kept = torch.exp(-layer.dt / terms.exact(layer.tau))
        new = terms.make_neuron(threshold=None, beta=kept, gain=kept)
        return _sized(new, layer)  # type: ignore[no-any-return]
    _check_spikes(layer)
    if name == "LIFNeuronTorch":
        kept = torch.exp(-layer.dt / terms.exact(layer.tau_mem))
        values, learned = {"beta": kept}, {"beta": layer.tau_mem}
    else:
        values, learned = _terms_of(layer)
    most = terms.most_spikes(
        "max_spikes_per_dt", layer.max_spikes_per_dt, "threshold", layer.threshold
    )
    new = terms.make_neuron(
        threshold=layer.threshold, reset="subtract", strict=False, drive=layer.bias, most=most,
        **values,
    )  # fmt: skip
    _sized(new, layer)
    terms.learn(new, {**learned, "drive": layer.bias, "v_threshold": layer.threshold})
    if name == "LIFNeuronTorch" or not getattr(layer, "_has_rec", False):
        return new  # type: ignore[no-any-return]
    return terms.feedback(new, layer.w_rec.T)


def _sized(new: Any, layer: Any) -> Any:
    """Fix how many neurons there are: Rockpool spreads an input of one channel over all."""
    new.shape = torch.Size([layer.size_out])
    new.num_neurons = layer.size_out
    return new


def _check_spikes(layer: Any) -> None:
    """Check that spikes are counted by one of Rockpool's functions."""
    function = layer.spike_generation_fn
    kind = getattr(function, "__self__", None)
    name = getattr(kind, "__name__", str(function))
    if not f"{getattr(kind, '__module__', '')}.".startswith(_PREFIX):
        raise terms.refused("spike_generation_fn", name, "which is not one of Rockpool")
    if name not in ("StepPWL", "PeriodicExponential"):
        raise terms.refused("spike_generation_fn", name)


def _terms_of(layer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Terms of a neuron with a synaptic current; and the parameters of the layer, by ours."""
    if layer.n_synapses != 1:
        raise terms.refused("shape", (layer.size_in, layer.size_out), "several synapses a neuron, "
                            "which ours has not")  # fmt: skip
    membrane, current = terms.exact(layer.alpha), terms.exact(layer.beta)
    if current.dim() == 2:  # (neurons, synapses of each)
        current = current[:, 0]
    pairs = (("tau_mem", "tau_syn"), ("alpha", "beta"), ("dash_mem", "dash_syn"))
    registered = layer._parameters
    memory, synapse = next(
        ((registered[m], registered[s]) for m, s in pairs if m in registered), (None, None)
    )
    values = {"alpha": current, "gain": current, "beta": membrane}
    return values, {"beta": memory, "alpha": synapse, "gain": synapse}


FRAMEWORK = Framework(
    name="Rockpool", package=_PACKAGE, layers="rockpool.nn.*", convert=_convert, in_steps=True
)
