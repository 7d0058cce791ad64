"""``convert``: lava-dl's layers inside a live torch module become ours.

lava-dl is recognised by the paths of its classes and is never imported. One small function a class
path makes our layer; what all layers share (parameters, buffers, states, hooks, flags) is taken
over in one place. The rest of the module is copied with a memo in which every layer of lava-dl
stands for ours already, so that each reference to one is swapped, wherever it is.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx import axon, block, dendrite, neuron, synapse
from synapse_onnx._layer import Deployable, Stateful
from synapse_onnx.errors import InputError, SynapseError

__all__ = ["convert"]

_LAVA_DL = "lava.lib.dl."
_SLAYER = f"{_LAVA_DL}slayer."
#: packages of slayer whose modules are layers; losses and classifiers are none
_LAYERS = tuple(f"{_SLAYER}{name}." for name in ("synapse", "neuron", "axon", "dendrite", "block"))

#: methods that a subclass may have of its own: they take no part in what a layer computes
_FREE = {"__init__", "__repr__", "__str__", "__doc__", "__module__", "__qualname__", "extra_repr",
         "export_hdf5", "device_params"}  # fmt: skip
#: attributes of lava-dl's layers that ours have no use for
_LEFT_OUT = {"complex", "debug", "delay", "delay_buffer", "neuron_params", "norm",
             "recurrent_params", "requires_grad", "persistent_state", "spike_state",
             "synapse_params", "training"}  # fmt: skip
_HOOKS = [name for name in vars(nn.Module()) if name.endswith(("_hooks", "_hooks_with_kwargs",
          "_hooks_always_called"))]  # fmt: skip


def convert(module: nn.Module) -> nn.Module:
    """Swap every layer of lava-dl inside a module for ours.

    Synapses, neurons, norms, dropout, delays, encoders and blocks of ``lava.lib.dl.slayer`` are
    swapped wherever the module refers to them: children, lists, dictionaries, attributes, bound
    methods. The rest is copied as it is, with the user's ``forward``; losses and classifiers of
    lava-dl are left in place. Pools and unpools get ``merge_channels=True``, lava-dl's own
    arithmetic. The result gives what the module gave, bit for bit, and goes on from the states that
    were kept.

    Args:
        module: a torch module that holds layers of lava-dl, or one of them.

    Returns:
        Another module. The given one stays as it is and keeps working, and both share their
        parameters and buffers: they are the same objects under the same names. Train one of
        them, not both; ``copy.deepcopy`` sets them apart.

    Raises:
        InputError: a layer of lava-dl has no counterpart here, or was changed in a way that a swap
            would lose; the module cannot be copied; or nothing of lava-dl is in it (a module with
            layers of ours alone is copied).
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"convert takes a torch module, got {type(module).__name__}")
    found = list(_reached(module))
    conversion = _Conversion()
    # what is drawn for weights that are replaced at once must not move the caller's numbers
    with torch.random.fork_rng(devices=[]):
        for path, thing in found:
            if isinstance(thing, nn.Module):
                conversion.layer(path, thing)
    ours = any(isinstance(part, Deployable | block.base.Block) for part in module.modules())
    if not conversion.made and not ours:
        raise InputError(
            f"convert: there is no layer of lava-dl in this {type(module).__name__}; its layers "
            f"are known by their module, {_SLAYER}*"
        )
    return conversion.copy(module, found)


def _lava_classes(thing: object) -> list[type]:
    """Classes of lava-dl that a thing is of or derives from, the nearest first."""
    return [kind for kind in type(thing).__mro__ if kind.__module__.startswith(_LAVA_DL)]


def _reached(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield (path, thing) of every layer of lava-dl that a copy of a module would reach.

    Also the bound methods of such layers, and every tensor, as they are met.
    """
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", module)]
    while stack:
        path, thing = stack.pop()
        if id(thing) in seen or isinstance(thing, type | ModuleType | FunctionType | str | bytes):
            continue
        seen.add(id(thing))
        inside: dict[Any, Any] = {}
        if isinstance(thing, Tensor):
            yield path, thing
            continue
        if isinstance(thing, MethodType):
            if _lava_classes(thing.__self__):
                yield path, thing
            inside = {"__self__": thing.__self__}
        elif isinstance(thing, functools.partial):
            inside = {"func": thing.func, "args": thing.args, "keywords": thing.keywords}
        elif isinstance(thing, nn.Module):
            if _lava_classes(thing):
                yield path, thing
            tables = ("_parameters", "_buffers", "_modules")
            inside = {k: v for k, v in vars(thing).items() if k not in tables}
            for table in tables:
                inside |= vars(thing)[table]
        elif isinstance(thing, Mapping):
            inside = dict(thing)
        elif isinstance(thing, list | tuple | set | frozenset):
            inside = dict(enumerate(thing))
        else:
            inside = dict(getattr(thing, "__dict__", None) or {})
        children = [
            (f"{path}.{name}" if path else str(name), value) for name, value in inside.items()
        ]
        stack += reversed(children)


class _Conversion:
    """What was swapped so far, and what is left to do once all layers are."""

    def __init__(self) -> None:
        #: id of a layer of lava-dl -> ours
        self.made: dict[int, nn.Module] = {}
        self.pairs: list[tuple[Any, Any]] = []
        self.memo: dict[int, Any] = {}
        #: what refers to other layers, and so waits until each has its counterpart
        self.later: list[Callable[[], None]] = []

    def layer(self, path: str, old: Any, *, part: str = "") -> Any:
        """Return ours for a layer of lava-dl, made once; ``part`` is its name in its owner."""
        path = f"{path}.{part}" if path and part else path or part
        if id(old) in self.made:
            return self.made[id(old)]
        where = f"convert: {path or 'the module'}"
        place, make = _maker(where, old)
        if make is None:
            return old  # a loss or a classifier
        device = next((tensor.device for tensor in (*old.parameters(), *old.buffers())), "cpu")
        try:
            with torch.device(device):
                new = make(self, path, old, place)
        except SynapseError as error:
            if str(error).startswith("convert: "):
                raise
            raise InputError(f"{where} cannot be swapped: {error}") from error
        self.made[id(old)] = new
        self.pairs.append((old, new))
        _share(where, old, new)
        if isinstance(new, Stateful):
            _take_states(where, old, new)
        self.later.append(lambda: self._carry(old, new))
        return new

    def set_later(self, new: Any, name: str, value: Any) -> None:
        """Set an attribute to the copy of a value, in which layers are swapped."""
        self.later.append(lambda: setattr(new, name, self.copied(value)))

    def copied(self, value: Any) -> Any:
        """Copy a value; tensors stay the same, layers of lava-dl become ours."""
        named = getattr(value, "__qualname__", "").endswith("<lambda>")
        if named and (getattr(value, "__module__", None) or "").startswith(_LAVA_DL):
            return None  # the function with which lava-dl leaves a value as it is
        return copy.deepcopy(value, self.memo)

    def copy(self, module: nn.Module, found: list[tuple[str, Any]]) -> nn.Module:
        """Copy a module, with what was found in it swapped."""
        self.memo.update(self.made)
        for _, thing in found:
            if isinstance(thing, Tensor):
                self.memo[id(thing)] = thing
            elif isinstance(thing, MethodType) and id(thing.__self__) in self.made:
                self.memo[id(thing)] = getattr(self.made[id(thing.__self__)], thing.__name__)
        try:
            for act in self.later:
                act()
            result = copy.deepcopy(module, self.memo)
        except (TypeError, RuntimeError) as error:
            raise InputError(
                f"convert: this {type(module).__name__} cannot be copied ({error}); take out what "
                f"holds no layers"
            ) from error
        for _, new in self.pairs:
            new.train(new.training)
        for old, new in self.pairs:
            new.training = old.training
        return result

    def _carry(self, old: Any, new: Any) -> None:
        """Take over what the user hung on a layer: hooks, and attributes that ours do not have."""
        new.training = old.training
        for name in _HOOKS:
            hooks = vars(old)[name]
            kept = {k: v for k, v in hooks.items() if type(v).__name__ != "WeightNorm"}
            setattr(new, name, self.copied(type(hooks)(kept)))
        for name, value in (*vars(old).items(), *old._modules.items()):
            known = name.startswith("_") or name in _LEFT_OUT or name.endswith(("_min", "_max"))
            if not known and not hasattr(new, name):
                setattr(new, name, self.copied(value))


def _share(where: str, old: Any, new: Any) -> None:
    """Put a layer's own parameters and buffers into ours, the same objects."""
    for name, mine in list(new._parameters.items()):
        given = old._parameters.get(name)
        if (mine is None) != (given is None):
            raise InputError(
                f"{where}: the parameter {name} of this {type(old).__name__} is "
                f"{'none of' if mine is None else 'missing from'} those that lava-dl gives it; "
                f"undo what changed it (pruning, parametrisation) before it is converted"
            )
        if given is not None:
            new._parameters[name] = given
    for name, given in old._parameters.items():
        if given is not None and name not in new._parameters:
            new.register_parameter(name, given)
    for name, given in old._buffers.items():
        if given is None or name in _LEFT_OUT or name.endswith("_state"):
            continue
        new.register_buffer(name, given, name not in old._non_persistent_buffers_set)


def _take_states(where: str, old: Any, new: Any) -> None:
    """Go on from the states that a layer keeps: floats in lava-dl, integers here."""
    for name, start in new.state_starts.items():
        given = getattr(old, "pre_state" if name == "total" else f"{name}_state", None)
        if not isinstance(given, Tensor) or given.dim() == 1:
            continue
        mine: Tensor = getattr(new, f"{name}_state")
        value = given.detach().double()
        if not mine.dtype.is_floating_point:
            value = torch.round(value * new.s_scale)
        if old.persistent_state:
            setattr(new, f"{name}_state", value.to(mine.dtype))
        elif isinstance(new, neuron.base.Neuron) and bool((value != start).any()):
            raise InputError(
                f"{where}: lava-dl starts this {type(old).__name__} from the {name} state that was "
                f"kept before persistent_state was turned off; turn it on, or set the state to zero"
            )


# -- which function makes which layer --------------------------------------------------------------

_Maker = Callable[[_Conversion, str, Any, list[str]], nn.Module]
#: path of a class below slayer -> what makes ours
_MAKERS: dict[str, _Maker] = {}


def _makes(package: str, *names: str) -> Callable[[_Maker], _Maker]:
    def add(make: _Maker) -> _Maker:
        _MAKERS.update({f"{package}.{name}": make for name in names})
        return make

    return add


def _maker(where: str, old: Any) -> tuple[list[str], _Maker | None]:
    """Return the class path that decides, in parts, and the function that makes ours.

    Raises:
        InputError: there is none, or a subclass changes what lava-dl's class does.
    """
    kinds = _lava_classes(old)
    for kind in kinds:
        path = f"{kind.__module__}.{kind.__name__}".removeprefix(_SLAYER)
        if path.startswith("block.") and path not in _MAKERS:  # one function for all neurons
            path = f"block.base.Abstract{kind.__name__}"
        if not kind.__module__.startswith(_SLAYER) or path not in _MAKERS:
            continue
        changed = [(type(old), "forward")] if "forward" in vars(old) else _changed(old, kinds)
        users = not any(place.__module__.startswith(_LAVA_DL) for place, _ in changed)
        if path.startswith("block.") and users and {name for _, name in changed} == {"forward"}:
            return [], None  # a forward of the user's, which goes on with layers of ours
        if changed:
            place, name = changed[0]
            raise InputError(
                f"{where} is a {place.__module__}.{place.__qualname__}, which overrides {name}, "
                f"which a swap would lose; write it into a module that holds layers of "
                f"{_SLAYER.rstrip('.')}"
            )
        return path.split("."), _MAKERS[path]
    layer = kinds[0].__module__.startswith((*_LAYERS, f"{_LAVA_DL}bootstrap"))
    if not layer and next(old.parameters(), None) is None:
        return [], None
    raise InputError(
        f"{where} is a {kinds[0].__module__}.{kinds[0].__qualname__}, which has no counterpart "
        f"here; put layers of {_SLAYER.rstrip('.')} in its place"
    )


def _changed(old: Any, kinds: list[type]) -> list[tuple[type, str]]:
    """What subclasses of lava-dl's classes have in the place of what computes there."""
    theirs = {name for kind in kinds if kind.__module__.startswith(_SLAYER) for name in vars(kind)}
    theirs |= {"forward", "__call__"}
    return [
        (kind, name)
        for kind in type(old).__mro__
        if not kind.__module__.startswith((_SLAYER, "torch.nn.modules")) and kind is not object
        for name in sorted(theirs & set(vars(kind)) - _FREE)
    ]


# -- synapses --------------------------------------------------------------------------------------

#: synapse -> arguments of ours
_GEOMETRY: dict[str, Callable[[Any, list[tuple[int, ...]]], tuple[Any, ...]]] = {
    "Dense": lambda old, g: ((g[0][1], g[0][0], old.in_channels), old.out_channels),
    "Conv": lambda old, g: (old.in_channels, old.out_channels, *g, old.groups),
    "ConvTranspose": lambda old, g: (old.in_channels, old.out_channels, *g, old.groups),
    "Pool": lambda old, g: tuple(g),
    "Unpool": lambda old, g: tuple(g),
}


@_makes("synapse.layer", *_GEOMETRY)
def _synapse(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    sizes = [tuple(getattr(old, n)[:2]) for n in ("kernel_size", "stride", "padding", "dilation")]
    merged = {"merge_channels": True} if place[-1].endswith("ool") else {}
    new = getattr(synapse, place[-1])(*_GEOMETRY[place[-1]](old, sizes), **merged)
    if "weight_g" in old._parameters:
        new.enable_weight_norm()
    # under its own name: torch would take a hook that is a module past the property
    c.set_later(new, "_pre_hook_fx", old._pre_hook_fx)
    return new  # type: ignore[no-any-return]


@_makes("synapse.complex", *_GEOMETRY)
def _complex(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    kind = getattr(synapse.complex, place[-1])
    new = kind.__new__(kind)
    Deployable.__init__(new)
    new.real, new.imag = (c.layer(path, getattr(old, n), part=n) for n in ("real", "imag"))
    return new  # type: ignore[no-any-return]


# -- neurons ---------------------------------------------------------------------------------------


def _common(c: _Conversion, path: str, old: Any, new: Any) -> None:
    """Take over what every neuron has."""
    new._threshold, new.tau_rho, new.scale_rho = old._threshold, old.tau_rho, old.scale_rho
    if old.shape is not None:
        new.shape = torch.Size(old.shape)
        new.num_neurons = new.shape.numel()
    for name in (*new._norm_names(), "drop"):
        given = getattr(old, name)
        if given is not None and _lava_classes(given):
            setattr(new, name, c.layer(path, given, part=name))
        elif given is not None:
            c.set_later(new, name, given)


_KINDS = neuron.kinds()


@_makes("neuron", *(f"{kind}.Neuron" for kind in _KINDS if kind != "sigma_delta"))
def _neuron(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    make: Any = _KINDS[place[-2]].Neuron
    names = ("scale", "shared_param", "persistent_state", "requires_grad", "graded_spike")
    levels = {n: getattr(old, n) for n in ("threshold_step",) if hasattr(old, n)}
    given = {name: getattr(old, name) for name in (*names, "log_init") if hasattr(old, name)}
    # values stand in for those that the layer holds, which take their place
    new = make(**{**make.example, "threshold": _threshold(old), **levels, **given})
    _common(c, path, old, new)
    # lava-dl draws a channel's parameters with the first input, while it does not know its shape
    drawn = old.shared_param or old.shape is not None
    new._ranges = {} if drawn else {
        n: (getattr(old, f"{n}_min"), getattr(old, f"{n}_max")) for n in new._ranges
    }  # fmt: skip
    for state in new.equation.states:
        if state.start:
            new.register_state(state.name, torch.int64, new.constants()[state.start])
    return new  # type: ignore[no-any-return]


def _threshold(old: Any) -> float:
    if old._threshold is None or old._threshold < 0:
        raise InputError(
            f"its threshold is {old._threshold}, with which lava-dl marks the neuron of an Affine "
            f"block; give it one that is never reached"
        )
    return float(old._threshold)


@_makes("neuron", "sigma_delta.Neuron")
def _sigma_delta(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    names = ("scale", "shared_param", "requires_grad")
    given = {name: getattr(old, name) for name in names}
    new = _KINDS["sigma_delta"].Neuron(old._threshold, None, **given)
    _common(c, path, old, new)
    new.sigma, new.delta = (c.layer(path, getattr(old, n), part=n) for n in ("sigma", "delta"))
    new.bias_is_set = old.bias_is_set
    c.set_later(new, "activation", old.activation)
    return new  # type: ignore[no-any-return]


@_makes("neuron.norm", "MeanOnlyBatchNorm", "WgtScaleBatchNorm")
def _norm(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    names = ("num_features", "momentum", "weight_exp_bits", "eps")
    given = {name: getattr(old, name) for name in names if hasattr(old, name)}
    new = getattr(neuron.norm, place[-1])(**given)
    new.update = old.update
    c.set_later(new, "pre_hook_fx", old.pre_hook_fx)
    return new  # type: ignore[no-any-return]


@_makes("neuron.dropout", "Dropout")
def _dropout(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    return neuron.dropout.Dropout(old.p, old.inplace)


# -- axons and dendrites ---------------------------------------------------------------------------


@_makes("axon.delay", "Delay")
def _delay(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    new = axon.Delay(old.max_delay, old.sampling_time, old.grad_scale)
    new.init = old.init
    return new


@_makes("axon.delta", "Delta")
def _delta(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    names = ("scale", "tau_grad", "scale_grad", "cum_error", "shared_param", "persistent_state")
    given = {name: getattr(old, name) for name in (*names, "requires_grad")}
    new = axon.Delta(1.0, **given)
    new.shape = old.shape
    return new


@_makes("dendrite.sigma", "Sigma")
def _sigma(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    new = dendrite.Sigma(old.persistent_state)
    new.shape = old.shape
    return new


# -- blocks ----------------------------------------------------------------------------------------


def _family(old: Any, name: str) -> tuple[Any, Mapping[str, Any]]:
    """Our class of a block, and arguments of a neuron that stands in for its own."""
    home = old.neuron if getattr(old, "neuron", None) is not None else old
    kinds = [kind.__module__.rsplit(".", 1)[-1] for kind in _lava_classes(home)]
    kind = next(kind for kind in kinds if kind in _KINDS)
    return getattr(getattr(block, kind), name), _KINDS[kind].Neuron.example


def _delays(c: _Conversion, path: str, old: Any, new: Any, *, kept: bool = True) -> None:
    """Set step delay and axonal delay; lava-dl keeps what the first holds, where states persist."""
    new._delays(False, old.delay_shift)
    if new.step is not None:
        new.step.persistent_state = new.step.persistent_state and kept
        line = getattr(old, "delay_buffer", None)
        if new.step.persistent_state and line is not None:
            new.step.line_state = line.detach().unsqueeze(-1)
    if old.delay is not None:
        new.delay = c.layer(path, old.delay, part="delay")


@_makes("block.base", *(f"Abstract{name}" for name in ("Dense", "Conv", "ConvT", "Pool", "Unpool")))
def _synaptic(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    make, example = _family(old, place[-1].removeprefix("Abstract"))
    sizes = (1, 1, 1)[: {"Dense": 2, "Conv": 3, "ConvT": 3}.get(make.__name__, 1)]
    new = make(example, *sizes, count_log=old.count_log)
    new.synapse, new.neuron = (
        c.layer(path, getattr(old, n), part=n) for n in ("synapse", "neuron")
    )
    _delays(c, path, old, new)
    _masked(c, old, new)
    return new  # type: ignore[no-any-return]


def _masked(c: _Conversion, old: Any, new: Any) -> None:
    """Cut off what a mask leaves out; under weight norm lava-dl's mask does nothing."""
    mask = getattr(old, "mask", None)
    if mask is not None and not new.synapse.weight_norm_enabled:
        parts = [new.synapse.real, new.synapse.imag] if new.synapse.complex else [new.synapse]
        hooked = parts[0]
        c.later.append(lambda: new._hook(new.synapse, hooked.pre_hook_fx, mask))


@_makes("block.base", "AbstractInput")
def _input(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    make, _ = _family(old, "Input")
    levels = {n: None if getattr(old, n) is None else 0.0 for n in ("weight", "bias")}
    new = make(None, **levels, count_log=old.count_log)
    encodes = make.neurons is _KINDS["sigma_delta"]
    if old.neuron is not None:
        new.neuron = c.layer(path, old.neuron, part="neuron")
    _delays(c, path, old, new)
    if encodes and old.neuron is not None:
        # its forward has neither a step delay nor a count, whatever the flags say
        new.neuron.as_encoder()
        new.step, new.delay_shift, new.count_log = None, False, False
    new.input_shape = old.input_shape
    c.later.append(
        lambda: setattr(new, "pre_hook_fx", c.copied(old.pre_hook_fx) or new.pre_hook_fx)
    )
    return new  # type: ignore[no-any-return]


@_makes("block.base", "AbstractFlatten", "AbstractAverage", "AbstractTimeDecimation")
def _plain(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    make, _ = _family(old, place[-1].removeprefix("Abstract"))
    sizes = [getattr(old, name) for name in ("num_outputs", "factor") if hasattr(old, name)]
    new = make(*sizes, count_log=old.count_log)
    if make.__name__ == "Flatten":
        new.shape = old.shape
    return new  # type: ignore[no-any-return]


@_makes("block.base", "AbstractAffine")
def _affine(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    make, example = _family(old, "Affine")
    new = make(example, 1, 1, dynamics=old.dynamics, count_log=old.count_log)
    new.synapse = c.layer(path, old.synapse, part="synapse")
    # lava-dl marks a neuron without spikes by a threshold below zero, or None
    level, old.neuron._threshold = old.neuron._threshold, 0.0
    try:
        new.neuron = c.layer(path, old.neuron, part="neuron")
    finally:
        old.neuron._threshold = level
    new.neuron.as_readout()
    _masked(c, old, new)
    return new  # type: ignore[no-any-return]


def _looped(c: _Conversion, path: str, old: Any, new: Any) -> None:
    """Take over the neuron of a block that sees its own spikes."""
    if getattr(old, "bias", None) is not None:
        raise InputError("a bias was set on it, which its current here does not have")
    if not old.neuron.persistent_state:
        raise InputError(
            "its neuron has persistent_state=False, with which lava-dl starts it afresh at every "
            "time step; set it to True"
        )
    new.neuron = c.layer(path, old.neuron, part="neuron")
    new.keeps_spikes = False  # lava-dl keeps voltages from call to call, and no spikes


@_makes("block.base", "AbstractRecurrent")
def _recurrent(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    make, example = _family(old, "Recurrent")
    new = make(example, 1, 1, count_log=old.count_log)
    new.num_neurons = old.num_neurons
    for name in ("input_synapse", "recurrent_synapse"):
        setattr(new, name, c.layer(path, getattr(old, name), part=name))
    _looped(c, path, old, new)
    new.neuron.feed_back(new.recurrent_synapse)
    _delays(c, path, old, new, kept=False)  # its step delay is one that keeps nothing
    return new  # type: ignore[no-any-return]


@_makes("block.base", "AbstractKWTA")
def _kwta(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    make, example = _family(old, "KWTA")
    count, winners = old.num_neurons, old.num_winners
    new = make(example, 1, count, winners, count_log=old.count_log)
    new.synapse = c.layer(path, old.synapse, part="synapse")
    _looped(c, path, old, new)
    new.lateral.pre_hook_fx = new.neuron.quantize_8bit
    new.neuron.feed_back(new.lateral)
    new.set_bias()
    _delays(c, path, old, new)
    return new  # type: ignore[no-any-return]


@_makes("block.sigma_delta", "Output")
def _output(c: _Conversion, path: str, old: Any, place: list[str]) -> nn.Module:
    make, example = _family(old, "Output")
    new = make(example, 1, 1, count_log=old.count_log)
    new.synapse, new.neuron = (
        c.layer(path, getattr(old, n), part=n) for n in ("synapse", "neuron")
    )
    new.neuron.as_decoder()
    return new  # type: ignore[no-any-return]
