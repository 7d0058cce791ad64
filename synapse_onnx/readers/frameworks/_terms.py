"""From the terms of a framework's difference equation to a neuron of ours."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx import synapse
from synapse_onnx.errors import InputError
from synapse_onnx.neuron import lif
from synapse_onnx.readers._network import with_weight
from synapse_onnx.readers._nir.modules import Offset, chain
from synapse_onnx.readers.frameworks._over_time import LIVE

__all__ = ["Mask", "Recurrent", "check_option", "check_options", "class_name", "dense", "exact",
           "feedback", "learn", "make_neuron", "most_spikes", "nearest", "refused",
           "set_surrogate", "spikes_at_zero"]  # fmt: skip

#: names that a subclass may have of its own: they change nothing of what a layer computes
_FREE = {"__init__", "__repr__", "__str__", "__doc__", "__module__", "__qualname__", "extra_repr",
         "__annotations__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__",
         "__parameters__", "__abstractmethods__", "_abc_impl"}  # fmt: skip


def refused(option: str, value: Any, why: str = "which ours has not") -> InputError:
    """Return the error for an option that ours cannot have."""
    text = " ".join(str(value).split())
    return InputError(f"its {option} is {text[:60]}, {why}; {LIVE}")


def class_name(layer: Any, package: str, table: Collection[str]) -> str:
    """Return the name of the framework's class that a layer is of.

    Args:
        layer: a layer whose class is in the package, or derives from such a one.
        package: the package, with a dot at its end.
        table: names of the classes that can be converted.

    Raises:
        InputError: there is none, or a subclass overrides what the layer computes.
    """
    kinds = type(layer).__mro__
    first = next(i for i, kind in enumerate(kinds) if f"{kind.__module__}.".startswith(package))
    name = kinds[first].__name__
    if name not in table:
        raise InputError(f"it is a {kinds[first].__module__}.{name}, which ours is not; {LIVE}")
    theirs = {n for kind in kinds[first:] if kind is not object for n in vars(kind)} - _FREE
    overridden = sorted(
        {n for kind in kinds[:first] for n in theirs & set(vars(kind))}
        | {n for n in theirs & set(vars(layer)) if _is_users(vars(layer)[n], package)}
    )
    if overridden:
        raise InputError(
            f"it is a {type(layer).__module__}.{type(layer).__qualname__}, which overrides "
            f"{overridden[0]}, which the conversion would lose; {LIVE}"
        )
    return name


def _is_users(value: Any, package: str) -> bool:
    """Whether a value in the place of a method is a function of the user's."""
    return callable(value) and not f"{getattr(value, '__module__', '')}.".startswith(package)


def nearest(layer: Any, package: str) -> str:
    """Return the name of the framework's class that a layer is of or derives from; "" for none."""
    kinds = (kind for kind in type(layer).__mro__ if f"{kind.__module__}.".startswith(package))
    return next((kind.__name__ for kind in kinds), "")


def check_options(layer: Any, known: Collection[str], package: str) -> None:
    """Check that a layer's class has no option that we do not know, but at its default.

    So an option of another version of a framework is not ignored.
    """
    kinds = [k for k in type(layer).__mro__ if f"{k.__module__}.".startswith(package)]
    for kind in kinds:
        if "__init__" not in vars(kind):
            continue
        for name, option in inspect.signature(vars(kind)["__init__"]).parameters.items():
            named = option.kind not in (option.VAR_POSITIONAL, option.VAR_KEYWORD)
            if name == "self" or not named or name in known:
                continue
            value = getattr(layer, name, layer)
            same = type(value) is type(option.default) and value == option.default
            if value is not option.default and not same:
                text = "an option" if value is layer else f"{str(value)[:60]}, an option"
                raise InputError(f"its {name} is {text} that convert does not know; {LIVE}")


def check_option(layer: Any, name: str, *allowed: Any, why: str = "which ours has not") -> None:
    """Check that an option, where the layer has it, has one of some values."""
    value = getattr(layer, name, allowed[0])
    if not any(value is v or (type(value) is type(v) and value == v) for v in allowed):
        raise refused(name, value, why)


def exact(value: Any) -> Tensor:
    """Return a parameter as float64, which holds every float32 and Python's own numbers."""
    return torch.as_tensor(value).detach().to("cpu", torch.float64)


def make_neuron(
    *,
    threshold: Any,
    beta: Any,
    alpha: Any = 0.0,
    gain: Any = 1.0,
    drive: Any = 0.0,
    reset: str = "zero",
    reset_value: Any = 0.0,
    rest: Any = 0.0,
    strict: bool = True,
    lowest: Any = None,
    most: float = 1.0,
) -> Any:
    """Return a neuron: u = alpha u + gain x; v = beta v + u + drive, and so on.

    Numbers are those of the framework: a tensor goes with the last axes of (N, C[, H, W]).

    Args:
        threshold: None for a neuron that never spikes, whose voltage is the output.
        beta: as in :class:`lif.Neuron`.
        alpha: as there.
        gain: as there.
        drive: as there.
        reset: as there.
        reset_value: as there.
        rest: what voltages start from; ours start from 0, and are counted from here, as is the
            threshold, which a spike takes off with "subtract".
        strict: as there.
        lowest: voltage below which no step ends; None for none.
        most: ``max_spikes`` there.
    """
    rest = exact(rest)
    terms = {
        "threshold": 1.0 if threshold is None else exact(threshold) - rest,
        "beta": exact(beta),
        "alpha": exact(alpha),
        "gain": exact(gain),
        "drive": exact(drive) - (1 - exact(beta)) * rest,
    }
    if reset.endswith("zero"):
        terms["reset_value"] = exact(reset_value) - rest
    if lowest is not None:
        terms["lowest"] = exact(lowest) - rest
    shaped: dict[str, Any] = {name: _of_neurons(name, value) for name, value in terms.items()}
    new: Any = lif.Neuron(**shaped, reset=reset, strict=strict, max_spikes=most)
    counts = {exact(value).numel() for value in terms.values() if exact(value).dim() == 1} - {1}
    if counts:
        # a tensor (C,) goes with the last axis in frameworks, and with the channels here: for
        # vectors of neurons these are the same
        new.shape = torch.Size([max(counts)])
        new.num_neurons = max(counts)
    if threshold is not None:
        return new
    new.as_readout()
    return chain(new, Offset(_of_neurons("rest", rest)) if bool(rest.any()) else None)


def most_spikes(option: str, value: Any, level_option: str, level: Any) -> float:
    """Return the largest number of spikes in a step, of a neuron that counts them.

    Args:
        option: the framework's name of that number.
        value: the number; None for any.
        level_option: its name of the threshold.
        level: the threshold.

    Raises:
        InputError: there is no such count: of no whole number, or of thresholds that no voltage
            holds a number of times.
    """
    if not bool((exact(level) > 0).all()):
        lowest = float(exact(level).min())
        raise refused(
            level_option, lowest, "of which no voltage holds a number: it must be above 0"
        )
    if value is None:
        return math.inf
    if exact(value).numel() != 1:
        raise refused(option, tuple(exact(value).shape), "its shape: ours has one number")
    most = float(value)
    if not (most >= 1 and (math.isinf(most) or most.is_integer())):
        raise refused(option, most, "and ours is a whole number of at least 1")
    return most


def _of_neurons(name: str, value: Any) -> Tensor:
    """Return a number as float32 in one of our shapes: (1,), (C,) or (C, H, W)."""
    tensor = exact(value)
    given = tuple(tensor.shape)
    while tensor.dim() > 1 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.dim() == 3 and tensor.shape[1:] == (1, 1):
        tensor = tensor.flatten()
    if tensor.numel() != 1 and tensor.dim() not in (1, 3):
        raise refused(f"{name}'s shape", given, "which is none of (), (C,), (C, H, W)")
    return tensor.reshape(1 if tensor.numel() == 1 else tensor.shape).to(torch.float32)


def learn(neuron: Any, learned: dict[str, Any]) -> None:
    """Let the parameters of ours be learned that are learned in the framework.

    Args:
        neuron: ours.
        learned: parameter of ours -> the framework's, of whatever kind.
    """
    for name, theirs in learned.items():
        if isinstance(theirs, Tensor) and theirs.requires_grad:
            getattr(neuron, name).requires_grad_(True)
            neuron.requires_grad = True


class Recurrent(nn.Module):
    """A neuron that receives its own spikes one step later.

    Args:
        neuron: ours.
        synapse: from its spikes to its currents.
        bias: (C,), added to every current, and learned where that one is; None for none.
    """

    def __init__(self, neuron: Any, synapse: synapse.Dense, bias: Tensor | None = None) -> None:
        super().__init__()
        self.bias = None
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().float().clone(), bias.requires_grad)
        self.recurrent_synapse, self.neuron = synapse, neuron
        neuron.feed_back(synapse)

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes (N, C, T)."""
        spikes: Tensor = self.neuron(x if self.bias is None else x + self.bias.unsqueeze(-1))
        return spikes


class Mask(nn.Module):
    """Weights of which some stay zero, for ``pre_hook_fx``.

    Args:
        kept: 0 or 1 for every weight (C, C).
    """

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight, with zeros in it."""
        kept: Any = self.kept
        masked: Tensor = weight * kept.view(weight.shape)
        return masked


def feedback(
    neuron: Any, weight: Tensor, bias: Tensor | None = None, kept: Tensor | None = None
) -> Recurrent:
    """Return a neuron that receives its own spikes one step later.

    Args:
        neuron: ours.
        weight: (C, C), from spikes to currents.
        bias: (C,), added to every current.
        kept: 0 where a weight is zero and is not learned, else 1; None to learn all.
    """
    new = dense(weight)
    if kept is not None and weight.requires_grad:
        # not through the property: torch registers a hook that is a module as a child
        new._pre_hook_fx = Mask(kept.to(weight.dtype))
    return Recurrent(neuron, new, bias)


def dense(weight: Tensor) -> synapse.Dense:
    """Return a synapse with this weight (outputs, inputs), learned where that one is."""
    outputs, inputs = weight.shape
    new: synapse.Dense = with_weight(
        synapse.Dense(inputs, outputs), weight.detach().float().clone()
    )
    new.weight.requires_grad_(weight.requires_grad)
    return new


def spikes_at_zero(fire: Callable[[Tensor], Any], option: str) -> bool:
    """Return whether a spike function gives 1 at 0; it gives 0 below and 1 above.

    Raises:
        InputError: it does not.
    """
    x = torch.tensor([-1.0, -1e-6, 0.0, 1e-6, 1.0])
    try:
        with torch.no_grad():
            y = fire(x).tolist()
    except Exception as error:  # of the user's or the framework's code
        raise refused(option, fire, f"which cannot be tried ({error})") from error
    if y not in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1]):
        raise refused(option, fire, "which gives other values than 0 and 1")
    return bool(y[2])


def set_surrogate(neuron: Any, fire: Callable[[Tensor], Any]) -> None:
    """Give a neuron a surrogate gradient of the height and area of the framework's.

    Ours is exponential: area / (2 width) exp(-distance / width). It stays as it is where the
    framework's cannot be tried, or has no area.
    """
    x = torch.linspace(-8, 8, 4001, requires_grad=True)
    try:
        (slope,) = torch.autograd.grad(fire(x).sum(), x)
    except Exception:  # of the user's or the framework's code; the gradient is a choice, not a fact
        return
    height, area = float(slope.max()), float(torch.trapezoid(slope, x.detach()))
    if height > 0 and 0 < area < float("inf"):
        neuron.tau_rho, neuron.scale_rho = area / (2 * height), area
