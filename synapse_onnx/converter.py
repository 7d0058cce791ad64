"""``convert``: lava-dl's layers inside a live torch module become ours.

lava-dl is recognised by the path of a class and is never imported. The layers here have its names
for parameters, buffers and children, so that one rule serves all: make ours from the attributes of
a living layer, then take its parameters over by name.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm

from synapse_onnx import axon, block, dendrite, neuron, synapse
from synapse_onnx.errors import InputError
from synapse_onnx.module import Deployable, Stateful
from synapse_onnx.neuron.base import Common
from synapse_onnx.neuron.dropout import Dropout

__all__ = ["convert"]

#: where lava-dl's classes are, and those of them that can be converted
LAVA_DL = "lava.lib.dl."
SLAYER = f"{LAVA_DL}slayer."

#: hooks of a torch module, which the user registered
_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
    "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)  # fmt: skip

_Arguments = dict[str, Any]


def convert(module: nn.Module) -> nn.Module:
    """Swap every layer of lava-dl inside a module for ours.

    Synapses, neurons, norms, dropout, delays, encoders and blocks of ``lava.lib.dl.slayer`` are
    swapped wherever the module refers to them: children, lists, dictionaries, bound methods. The
    rest of the module is copied as it is, with its ``forward``. Pools and unpools get
    ``merge_channels=True``, lava-dl's own arithmetic, so that what was trained is reproduced.

    Args:
        module: a torch module that holds layers of lava-dl, or one of them.

    Returns:
        Another module. The given one stays as it is, and both share their parameters: they are the
        same ``nn.Parameter`` objects under the same names.

    Raises:
        InputError: a layer of lava-dl that has no counterpart here, or whose ``forward`` was
            overridden; or there is no layer of lava-dl in the module.
    """
    conversion = _Conversion()
    for path, layer in _layers(module, "", set()):
        conversion.swap(path, layer)
    if not conversion.made and not any(isinstance(m, Deployable) for m in module.modules()):
        raise InputError(
            f"convert: there is no layer of lava-dl in this {type(module).__name__}; its layers "
            f"are known by their module, {SLAYER}*"
        )
    result: nn.Module = conversion.copy(module)
    return result


# -- finding -------------------------------------------------------------------------------------


def _lava_class(thing: object) -> type | None:
    """The class of lava-dl that a thing is of, or that its class derives from."""
    kinds = type(thing).__mro__
    return next((kind for kind in kinds if kind.__module__.startswith(LAVA_DL)), None)


def _layers(thing: Any, path: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """Yield (path, layer) of the outermost layers of lava-dl that can be reached from a thing."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, nn.Module):
        if _is_layer(path, thing):
            yield path, thing
            return
        inside: dict[Any, Any] = {**vars(thing)["_modules"], **vars(thing)}
        inside.pop("_modules")
    elif isinstance(thing, list | tuple | set):
        inside = dict(enumerate(thing))
    elif isinstance(thing, Mapping):
        inside = dict(thing)
    else:
        return
    for name, value in inside.items():
        yield from _layers(value, f"{path}.{name}" if path else str(name), seen)


def _is_layer(path: str, module: nn.Module) -> bool:
    """Whether a module is a layer to swap, and not a container of the user's."""
    kind = _lava_class(module)
    if kind is None:
        return False
    place = kind.__module__.removeprefix(SLAYER).split(".")
    known = kind.__module__.startswith(SLAYER) and place[0] in _ARGUMENTS
    own = type(module) is not kind and type(module).forward is not getattr(kind, "forward", None)
    holds = any(_lava_class(child) is not None for child in module.children())
    if known and not own:
        return True
    if holds and not kind.__module__.startswith(f"{LAVA_DL}bootstrap"):
        return False  # its forward is kept, and what it holds is swapped
    if not known and not any(True for _ in module.parameters()):
        return False  # a loss or a classifier: there is nothing to export
    what = f"{type(module).__module__}.{type(module).__qualname__}"
    why = "overrides forward, which a swap would lose" if known else "has no counterpart here"
    raise InputError(
        f"convert: {path or 'the module'} is a {what}, which {why}; put layers of "
        f"{SLAYER.rstrip('.')} in its place"
    )


# -- making --------------------------------------------------------------------------------------


class _Conversion:
    """The layers that were swapped so far."""

    def __init__(self) -> None:
        #: id of a module of lava-dl -> ours
        self.made: dict[int, nn.Module] = {}
        #: the modules behind these ids, which must not be collected meanwhile
        self.kept: list[nn.Module] = []

    def copy(self, thing: Any) -> Any:
        """Copy a thing; parameters, buffers and layers of ours stay the same objects in it."""
        memo: dict[int, Any] = dict(self.made)
        for module in _modules(thing):
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None:
                    memo[id(tensor)] = tensor
        return copy.deepcopy(thing, memo)

    def swap(self, path: str, old: Any) -> nn.Module:
        """Return ours for a layer of lava-dl, made once."""
        if id(old) in self.made:
            return self.made[id(old)]
        kind = _lava_class(old)
        assert kind is not None
        place = kind.__module__.removeprefix(SLAYER).split(".")
        make: Any = _counterpart(place, kind.__name__)
        if make is None:
            raise InputError(
                f"convert: {path or 'the module'} is a {kind.__module__}.{kind.__name__}, which "
                f"has no counterpart here"
            )
        with torch.random.fork_rng(devices=[]):  # what is drawn here is thrown away
            new: nn.Module = make(**_ARGUMENTS[place[0]](self, old, make))
        mine = dict(new.named_modules())
        for name, child in old.named_modules():
            if name in mine:
                self.made.setdefault(id(child), mine[name])
                self.kept.append(child)
                self.take(mine[name], child)
        for tensor in old.parameters():
            new.to(tensor.device)
            break
        return new

    def take(self, new: Any, old: Any) -> None:
        """Take over what a layer has learned, where it stands, and what the user hung on it."""
        for name, parameter in old._parameters.items():
            if parameter is not None and name in new._parameters:
                new._parameters[name] = parameter
        for name in ("running_mean", "running_var", "mask"):
            if old._buffers.get(name) is not None and name in new._buffers:
                new._buffers[name] = old._buffers[name]
        if isinstance(new, Common):
            self._take_neuron(new, old)
        for name in ("init", "update", "num_features"):  # of delays and of norms
            if hasattr(old, name) and name in vars(new):
                setattr(new, name, getattr(old, name))
        if isinstance(new, Stateful) and getattr(old, "persistent_state", False):
            _take_states(new, old)
        step = getattr(old, "delay_buffer", None)
        if isinstance(step, Tensor) and getattr(new, "step", None) is not None:
            new.step.line_state = step.detach().unsqueeze(-1)  # a line of one step here
        new.training = old.training
        for name in _HOOKS:
            hooks = copy.copy(getattr(old, name))
            for key in [k for k, hook in hooks.items() if isinstance(hook, WeightNorm)]:
                del hooks[key]  # weight norm is no hook here
            setattr(new, name, hooks)

    def _take_neuron(self, new: Any, old: Any) -> None:
        new.tau_rho, new.scale_rho = old.tau_rho, old.scale_rho
        new.shape = old.shape
        new.num_neurons = None if old.shape is None else math.prod(old.shape)
        if hasattr(new, "settle") and not _undrawn(old):
            new.settle()
        if hasattr(new, "bias_is_set"):
            new.bias_is_set = old.bias_is_set
        for name in new._norm_names():
            given = getattr(old, name, None)
            if given is not None:
                made = self.swap(name, given) if _lava_class(given) else self.copy(given)
                setattr(new, name, made)
                if _is_hook_of(old, getattr(given, "pre_hook_fx", None)):
                    setattr(made, "pre_hook_fx", new.quantize_8bit)  # noqa: B010 (mypy)
        if old.drop is not None:
            given = old.drop
            new.drop = self.swap("drop", given) if _lava_class(given) else self.copy(given)

    def hook(self, hook: Any) -> Any:
        """Return a hook on weights; where it is a method of a layer of lava-dl, that of ours."""
        owner = getattr(hook, "__self__", None)
        if owner is not None and _lava_class(owner) is not None:
            return getattr(self.swap("pre_hook_fx", owner), hook.__name__)
        place = getattr(hook, "__module__", None) or ""
        # a function of lava-dl itself is the one that leaves weights as they are
        return None if place.startswith(LAVA_DL) and hook.__name__ == "<lambda>" else hook


def _modules(thing: Any) -> Iterator[nn.Module]:
    if isinstance(thing, nn.Module):
        yield from thing.modules()


def _undrawn(old: Any) -> bool:
    """Whether a neuron of lava-dl has yet to draw the parameters of its channels."""
    return not old.shared_param and old.shape is None


def _is_hook_of(owner: Any, hook: Any) -> bool:
    return getattr(hook, "__self__", None) is owner


def _take_states(new: Stateful, old: Any) -> None:
    """Go on from the states of a layer that keeps them: floats in lava-dl, integers here."""
    for name in new.state_starts:
        given = getattr(old, "pre_state" if name == "total" else f"{name}_state", None)
        mine: Tensor = getattr(new, f"{name}_state")
        if not isinstance(given, Tensor) or given.numel() <= 1:
            continue
        value = given.detach()
        if not mine.dtype.is_floating_point:
            value = torch.round(value.double() * getattr(new, "s_scale", 1))
        setattr(new, f"{name}_state", value.to(mine.dtype))


def _counterpart(place: list[str], name: str) -> Any:
    """Our class for a class of lava-dl: the same name in the same place."""
    home: Any = {
        "synapse": synapse.complex if place[-1] == "complex" else synapse,
        "axon": axon,
        "dendrite": dendrite,
    }.get(place[0])
    if place[0] == "neuron":
        home = neuron.kinds().get(place[-1]) or {"norm": neuron.norm}.get(place[-1])
        if place[-1] == "dropout":
            return Dropout
    elif place[0] == "block":
        home = getattr(block, place[-1], None) if place[-1] in neuron.kinds() else None
    return getattr(home, name, None) if home is not None else None


# -- arguments of our constructors, from a living layer --------------------------------------------


def _synapse(conversion: _Conversion, old: Any, make: Any) -> _Arguments:
    """Arguments of a synapse, real or complex."""
    first = old.real if old.complex else old
    given = _geometry(first, make)
    given["weight_norm"] = bool(first.weight_norm_enabled)
    given["pre_hook_fx"] = conversion.hook(first._pre_hook_fx)
    return given


def _geometry(old: Any, make: Any) -> _Arguments:
    """What a synapse connects: the arguments that a constructor has, from lava-dl's Conv3d."""
    kernel, stride, padding, dilation = (
        tuple(int(size) for size in given[:2])
        for given in (old.kernel_size, old.stride, old.padding, old.dilation)
    )
    height, width = kernel
    image = (width, height, old.in_channels)
    found = {
        "in_neurons": old.in_channels if kernel == (1, 1) else image,
        "out_neurons": old.out_channels,
        "in_features": old.in_channels,
        "out_features": old.out_channels,
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": old.groups,
        "merge_channels": True,
    }
    return _fitting(make, found)


def _fitting(make: Any, given: _Arguments) -> _Arguments:
    """The arguments that a constructor takes."""
    taken = inspect.signature(make.__init__).parameters
    return {name: value for name, value in given.items() if name in taken}


def _neuron(conversion: _Conversion, old: Any, make: Any) -> _Arguments:
    """Arguments of a neuron, a norm or a dropout; values that are taken over later stand in."""
    given: _Arguments
    if not hasattr(old, "w_scale"):
        given = _named(old, "num_features", "momentum", "weight_exp_bits", "eps", "p", "inplace")
        hooked = {"pre_hook_fx": conversion.hook(old.pre_hook_fx)} if "momentum" in given else {}
        return given | hooked
    given = _named(
        old, "shared_param", "persistent_state", "requires_grad", "graded_spike", "threshold_step",
        "log_init",
    )  # fmt: skip
    # the threshold of an Affine block is no number, or below zero: it is never reached
    given["threshold"] = max(old._threshold or 0, 0)
    given["scale"] = old.w_scale
    if hasattr(old, "activation"):
        given |= {"activation": old.activation, "cum_error": old.delta.cum_error}
        given |= {"tau_grad": old.delta.tau_grad, "scale_grad": old.delta.scale_grad}
        del given["graded_spike"]
        return given
    for name in inspect.signature(make.__init__).parameters:
        if name in {"period", "decay"} or name.endswith("_decay"):
            stand_in = 10.0 if name == "period" else 0.5
            if _undrawn(old):
                given[name] = getattr(old, f"{name}_min"), getattr(old, f"{name}_max")
            else:
                given[name] = stand_in if old.shared_param else (stand_in, stand_in)
    return given


def _axon(conversion: _Conversion, old: Any, make: Any) -> _Arguments:
    """Arguments of a delay, a delta encoder or a sigma decoder."""
    given = _named(
        old, "max_delay", "sampling_time", "grad_scale", "scale", "tau_grad", "scale_grad",
        "cum_error", "shared_param", "persistent_state", "requires_grad",
    )  # fmt: skip
    if hasattr(old, "threshold"):
        given["threshold"] = float(old.threshold.detach().min())
    return _fitting(make, given)


def _block(conversion: _Conversion, old: Any, make: Any) -> _Arguments:
    """Arguments of a block: those of its neuron and its synapse, and its own."""
    given = _named(
        old, "count_log", "dynamics", "num_outputs", "factor", "num_winners", "delay_shift",
        "requires_grad",
    )  # fmt: skip
    for name in ("self_excitation", "weight", "bias"):
        value = getattr(old, name, None)
        given[name] = float(value.detach()) if isinstance(value, nn.Parameter) else None
    kind = getattr(old, "neuron", None)
    if kind is not None:
        place = type(kind).__module__.rsplit(".", 1)[-1]
        given["neuron_params"] = _neuron(conversion, kind, neuron.kinds()[place].Neuron)
        if make.__name__ == "Input" and hasattr(kind, "delta"):
            given["delay_shift"] = False  # its forward() has none, whatever the flag says
    else:
        given["neuron_params"] = None
    own = getattr(old, "synapse", None) or getattr(old, "input_synapse", None)
    if own is not None:
        first = own.real if own.complex else own
        given |= _geometry(first, make) | {"weight_norm": bool(first.weight_norm_enabled)}
        if not _is_hook_of(kind, first._pre_hook_fx):
            given["pre_hook_fx"] = conversion.hook(first._pre_hook_fx)
    given["delay"] = getattr(old, "delay", None) is not None
    mask = getattr(old, "mask", None)
    # with weight norm lava-dl makes the weight anew behind the mask, which then does nothing
    if mask is not None and not given["weight_norm"]:
        given["mask"] = mask.reshape(mask.shape[:2])
    return _fitting(make, given)


def _named(old: Any, *names: str) -> _Arguments:
    """The attributes of a layer that have one of these names."""
    return {name: getattr(old, name) for name in names if hasattr(old, name)}


#: package of lava-dl below slayer -> the arguments of our constructors
_ARGUMENTS: dict[str, Callable[[_Conversion, Any, Any], _Arguments]] = {
    "synapse": _synapse,
    "neuron": _neuron,
    "axon": _axon,
    "dendrite": _axon,
    "block": _block,
}
