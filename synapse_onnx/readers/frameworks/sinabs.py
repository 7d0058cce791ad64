"""sinabs: layers of ``sinabs.layers``, sequences of them, and ``sinabs.network.Network``.

Source: sinabs 3.1, ``layers/functional/lif.py`` and ``activation/*.py``. The current decays behind
the input, the input of a voltage is normed by its leak where ``norm_input`` says so, and a voltage
is kept above ``min_v_mem`` behind the reset. A layer spikes several times in a step by default.
Layers see (N, T, ...), and those whose names end in Squeeze (N T, ...), which gives the same
network here.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError
from synapse_onnx.readers.frameworks import _terms as terms
from synapse_onnx.readers.frameworks._convert import Conversion, Framework
from synapse_onnx.readers.frameworks._over_time import (
    Seen,
    in_sequence,
    is_sequential,
    is_torchs,
    of_torch,
    once,
    users_code,
)

__all__ = ["FRAMEWORK"]

_PACKAGE = "sinabs"
_PREFIX = f"{_PACKAGE}."
_NEURONS = ("IAF", "LIF", "ExpLeak", "IAFRecurrent", "LIFRecurrent", "IAFSqueeze", "LIFSqueeze",
            "ExpLeakSqueeze")  # fmt: skip
_KNOWN = {
    "tau_mem", "tau_syn", "spike_threshold", "spike_fn", "reset_fn", "surrogate_grad_fn",
    "min_v_mem", "train_alphas", "shape", "norm_input", "record_states", "rec_connect",
    "batch_size", "num_timesteps", "state_names",
}  # fmt: skip
#: layers without states that are torch's
_TORCHS = ("SumPool2d",)
#: where layers see all steps of all samples as one batch, and where (N, T, ...) again
_TURNS = {"FlattenTime": "step", "UnflattenTime": "NT"}


def _convert(conversion: Conversion, path: str, old: Any) -> nn.Module:
    """Return ours for a layer, or a network for a sequence of them."""
    ours = conversion.framework_of(old) is not None
    if is_sequential(old) and not ours:
        seen = _seen(old)
        return in_sequence(conversion, path, old, seen, partial(_own, conversion, seen=seen))
    if not ours:
        raise InputError(f"convert: {path or 'the module'} {users_code(old)}")
    name = terms.class_name(old, _PREFIX, (*_NEURONS, *_TORCHS, "Network", "Repeat"))
    if name == "Network":
        place = f"{path}.spiking_model" if path else "spiking_model"
        return conversion.layer(place, old.spiking_model)  # type: ignore[no-any-return]
    if name in _NEURONS:
        return _neuron(name, old)
    alone = nn.Sequential(old).train(old.training)
    return in_sequence(conversion, path, alone, "step", partial(_own, conversion, seen="step"))


def _seen(container: nn.Module) -> Seen:
    """Return what the layers of a sequence see.

    Raises:
        InputError: some see (N, T, ...) and others (N T, ...).
    """
    found: dict[Seen, str] = {}
    for path, part in container.named_modules():
        kind = terms.nearest(part, _PREFIX)
        if kind in _TURNS:
            raise InputError(
                f"its layer {path} is a {kind}, behind which layers see another layout; convert "
                f"what stands before it and behind it"
            )
        if kind in _NEURONS or kind == "Repeat":
            found["step" if kind.endswith("Squeeze") else "NT"] = path
    if len(found) > 1:
        raise InputError(
            f"its layer {found['step']} takes (N T, ...) and its layer {found['NT']} (N, T, ...), "
            f"and each needs the other's layout; use the one kind or the other"
        )
    return next(iter(found), "NT")


def _own(conversion: Conversion, path: str, layer: Any, seen: Seen) -> tuple[nn.Module, Seen]:
    """Return ours for a layer in a sequence."""
    name = terms.nearest(layer, _PREFIX)
    if not name or name in _NEURONS:
        return once(conversion, path, layer), ""
    if name == "Repeat":
        terms.class_name(layer, _PREFIX, ("Repeat",))
        held = {terms.nearest(part, _PREFIX) for part in layer.module.modules()} & set(_NEURONS)
        if any(not kind.endswith("Squeeze") for kind in held):
            raise InputError(f"it joins steps and samples, and holds {min(held)}, which needs both")
        if not is_torchs(layer.module) or is_sequential(layer.module):
            return in_sequence(
                conversion, path, nn.Sequential(layer.module).train(layer.training), "step",
                partial(_own, conversion, seen="step"),
            ), ""  # fmt: skip
        return of_torch(conversion.copied(layer.module), "step")
    if name in _TORCHS:
        terms.class_name(layer, _PREFIX, _TORCHS)
        copied: Any = conversion.copied(layer)
        copied.__class__ = next(
            kind for kind in type(layer).__mro__ if kind.__module__.startswith("torch.nn.")
        )
        return copied, seen
    return conversion.layer(path, layer), ""


def _neuron(name: str, layer: Any) -> nn.Module:
    """Layer with states."""
    terms.check_options(layer, _KNOWN, _PREFIX)
    terms.check_option(layer, "record_states", False, why="and ours keeps no states of every step")
    values, learned = _terms_of(layer)
    if layer.spike_fn is None:
        new = terms.make_neuron(threshold=None, strict=False, lowest=layer.min_v_mem, **values)
    else:
        most, single = _most(layer)
        new = terms.make_neuron(
            threshold=layer.spike_threshold, strict=False, most=most, lowest=layer.min_v_mem,
            reset=_reset(layer), **values,
        )  # fmt: skip
        if single:
            _set_surrogate(new, layer)
    terms.learn(new, learned)
    return _with_feedback(layer, new) if name.endswith("Recurrent") else new


def _terms_of(layer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Terms of the difference equation; and the parameters of the layer, by ours."""
    beta = terms.exact(layer.alpha_mem_calculated)
    alpha = layer.alpha_syn_calculated
    gain = 1 - beta if layer.norm_input else torch.ones((), dtype=torch.float64)
    memory = getattr(layer, "alpha_mem", None) if layer.train_alphas else layer.tau_mem
    learned = {"beta": memory}
    if layer.norm_input:
        learned["gain"] = memory
    values = {"beta": beta, "gain": gain}
    if alpha is not None:
        values |= {"alpha": alpha, "gain": gain * terms.exact(alpha)}
        learned["alpha"] = layer.alpha_syn if layer.train_alphas else layer.tau_syn
    return values, learned


def _most(layer: Any) -> tuple[float, bool]:
    """Return the largest number of spikes in a step, and whether sinabs counts none: it has one."""
    spike_fn = layer.spike_fn
    kind = spike_fn if isinstance(spike_fn, type) else type(spike_fn)
    if not f"{kind.__module__}.".startswith(_PREFIX):
        raise terms.refused("spike_fn", kind.__name__, "which is not one of sinabs")
    single = kind.__name__ == "SingleSpike"
    if single and layer.min_v_mem is None:
        return 1.0, True
    if kind.__name__ not in ("SingleSpike", "MultiSpike", "MaxSpike"):
        raise terms.refused("spike_fn", kind.__name__)
    number = 1.0 if single else getattr(spike_fn, "max_num_spikes_per_bin", None)
    most = terms.most_spikes(
        "max_num_spikes_per_bin", number, "spike_threshold", layer.spike_threshold
    )
    return most, single


def _reset(layer: Any) -> str:
    """Reset of ours."""
    reset_fn = layer.reset_fn
    kind = type(reset_fn)
    if f"{kind.__module__}.".startswith(_PREFIX) and kind.__name__ == "MembraneSubtract":
        level = terms.exact(layer.spike_threshold).float()
        value = level if reset_fn.subtract_value is None else reset_fn.subtract_value
        value = terms.exact(value).float()
        fits = value.numel() == 1 or value.shape == level.shape
        if not fits or bool((value != level).any()):
            raise terms.refused("reset_fn", reset_fn, "and a spike of ours takes the threshold off")
        return "subtract"
    if f"{kind.__module__}.".startswith(_PREFIX) and kind.__name__ == "MembraneReset":
        if reset_fn.reset_value != 0:
            raise terms.refused(
                "reset_fn", reset_fn, "which adds its reset_value at every step, spike or not"
            )
        return "zero"
    raise terms.refused("reset_fn", kind.__name__)


def _set_surrogate(new: Any, layer: Any) -> None:
    """Take the height and area of the surrogate gradient."""
    level = terms.exact(layer.spike_threshold).float().mean()

    class Slope(torch.autograd.Function):
        """A function with sinabs' gradient."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            slope: Tensor = grads[0] * layer.surrogate_grad_fn(x + level, level)
            return slope

    terms.set_surrogate(new, Slope.apply)


def _with_feedback(layer: Any, new: Any) -> nn.Module:
    """Neuron with feedback through a Linear."""
    recurrent = layer.rec_connect
    if type(recurrent) is not nn.Linear:
        raise terms.refused("rec_connect", type(recurrent).__name__, "and ours takes feedback "
                            "through a Linear")  # fmt: skip
    if recurrent.bias is not None:
        raise terms.refused("rec_connect", "a Linear with a bias", "which sinabs does not add at "
                            "the first step")  # fmt: skip
    return terms.feedback(new, recurrent.weight)


FRAMEWORK = Framework(
    name="sinabs", package=_PACKAGE, layers="sinabs.layers.*", convert=_convert, in_steps=True
)
