"""``convert``: layers of other frameworks inside a live torch module become ours.

``copy.deepcopy`` copies the user's module with a memo in which every layer of a framework is
already replaced by ours, and every tensor by itself. So each reference to a layer is replaced,
wherever it is: in a child, a list, a dictionary, an attribute, a bound method or a partial. The
user's own classes and their ``forward`` are copied as they are.
"""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx import block
from synapse_onnx._discovery import public_modules
from synapse_onnx._layer import Deployable
from synapse_onnx.errors import InputError, SynapseError
from synapse_onnx.readers.frameworks._over_time import LayersOverTime

__all__ = ["Conversion", "Framework", "all_frameworks", "convert"]

#: attributes of a torch module that hold its hooks
_HOOKS = [name for name in vars(nn.Module()) if name.endswith(("_hooks", "_hooks_with_kwargs",
          "_hooks_always_called"))]  # fmt: skip


@dataclass(frozen=True)
class Framework:
    """A framework whose layers can be converted.

    Attributes:
        name: its name, for messages: "lava-dl".
        package: the package of its classes, "lava.lib.dl"; a class that derives from one of them
            is recognised too.
        layers: where its layers are, for messages: "lava.lib.dl.slayer.*".
        convert: (conversion, path, layer) -> ours, with the layer's parameters, buffers and
            states; None for a module that is no layer, such as a loss, and stays in place. It
            raises InputError for what ours cannot reproduce; parts of the layer are converted by
            ``conversion.layer``.
        in_steps: whether its layers take single steps, or sequences in another layout than ours. A
            user's forward does not run on ours then, and ``convert`` is called for containers of
            torch too, and for modules of the user's, which it refuses.
    """

    name: str
    package: str
    layers: str
    convert: Callable[[Conversion, str, Any], nn.Module | None]
    in_steps: bool = False

    def owns(self, kind: type) -> bool:
        """Whether a class is defined in this framework."""
        return f"{kind.__module__}.".startswith(f"{self.package}.")


def all_frameworks() -> list[Framework]:
    """Return every framework, by the names of their files."""
    package = __name__.rpartition(".")[0]
    names = public_modules(importlib.import_module(package).__path__)
    return [importlib.import_module(f"{package}.{name}").FRAMEWORK for name in names]


def convert(module: nn.Module) -> nn.Module:
    """Replace the layers of another framework inside a module by ours.

    lava-dl: synapses, neurons, norms, dropout, delays, encoders and blocks of
    ``lava.lib.dl.slayer`` are replaced wherever the module refers to them: children, lists,
    dictionaries, attributes, bound methods. The rest is copied as it is, with the user's
    ``forward``; losses and classifiers of lava-dl stay in place. Pools and unpools get
    ``merge_channels=True``, lava-dl's own arithmetic. The output is that of the given module, bit
    for bit, and continues from the states that were kept.

    snnTorch, SpikingJelly, Norse, sinabs, Rockpool: a neuron becomes ours, with its parameters and
    options, and an ``nn.Sequential`` or a container of the framework becomes a network of them and
    of torch's own layers, which are applied at every step. Whatever layout the framework has, the
    result takes (N, C[, H, W], T) and returns spikes, or the voltage of a neuron that never spikes,
    in this layout; where a neuron of snnTorch has ``output=True``, spikes and voltage. It gives the
    framework's spikes, but for roundings: some frameworks sum in another order. Every call starts
    from rest; states that the given module kept are left out. In training the gradient is ours: a
    surrogate of the framework's height and area, and none through a reset. A module with a forward
    of the user's is refused: ``so.export`` takes it as it is.

    Args:
        module: a torch module that holds layers of a framework, or one of them.

    Returns:
        Another module. The given one stays as it is and keeps working, and both share the
        parameters and buffers of lava-dl's layers and of torch's: they are the same objects. Train
        one of them, not both; ``copy.deepcopy`` separates them. Parameters of other frameworks'
        neurons are new ones.

    Raises:
        InputError: a layer of a framework has no counterpart here, has an option that ours has
            not, or was changed in a way that its counterpart would lose; the module cannot be
            copied, or has a forward of its own around layers that run step by step; or it holds no
            layer of a framework (a module with layers of ours alone is copied).
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"convert takes a torch module, got {type(module).__name__}")
    conversion = Conversion(all_frameworks())
    reached = list(_reached(module, conversion.framework_of))
    layers = [(path, thing) for path, thing in reached if isinstance(thing, nn.Module)]
    conversion.share(thing for _, thing in reached if isinstance(thing, Tensor))
    owners = [conversion.framework_of(layer) for _, layer in layers]
    conversion.around = next((owner for owner in owners if owner and owner.in_steps), None)
    if conversion.around:
        _refuse_hooks(module)
    # weights are drawn and replaced at once, which must not move the caller's random numbers
    with torch.random.fork_rng(devices=[]):
        for path, layer in [("", module)] if conversion.around else layers:
            conversion.layer(path, layer)
    parts = list(nn.Module.modules(module))
    ours = any(isinstance(part, Deployable | block.base.Block) for part in parts)
    if not conversion.converted and not ours:
        frameworks = conversion.frameworks
        names = [framework.name for framework in frameworks]
        raise InputError(
            f"convert: there is no layer of {', '.join(names[:-1])} or {names[-1]} in this "
            f"{type(module).__name__}; layers are recognised by the module of their class: "
            f"{', '.join(f.layers for f in frameworks)}"
        )
    result = conversion.copy(module, reached)
    devices = {thing.device for _, thing in reached if isinstance(thing, Tensor)}
    return result.to(devices.pop()) if conversion.around and len(devices) == 1 else result


def _refuse_hooks(module: nn.Module) -> None:
    """Refuse hooks of the user's, which see single steps; torch's own compute weights."""
    for path, part in nn.Module.named_modules(module):
        for name in _HOOKS:
            for hook in vars(part)[name].values() if "state_dict" not in name else ():
                kind = hook if hasattr(hook, "__qualname__") else type(hook)
                if not str(kind.__module__).startswith("torch."):
                    raise InputError(
                        f"convert: {path or 'the module'} has a hook, {kind.__qualname__}, which "
                        f"was made for single steps and would see whole sequences; remove it"
                    )


def _reached(
    module: nn.Module, framework_of: Callable[[object], Framework | None]
) -> Iterator[tuple[str, Any]]:
    """Yield (path, thing) of every framework's layer that a copy of a module would reach.

    Also the bound methods of such layers, and every tensor, in the order in which they are met.
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
            if framework_of(thing.__self__):
                yield path, thing
            inside = {"__self__": thing.__self__}
        elif isinstance(thing, functools.partial):
            inside = {"func": thing.func, "args": thing.args, "keywords": thing.keywords}
        elif isinstance(thing, nn.Module):
            if framework_of(thing):
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


class Conversion:
    """The layers that were converted so far, and what is left to do once all layers are.

    Attributes:
        frameworks: the frameworks whose layers are converted.
        converted: id of a framework's layer -> ours.
        around: the framework that converts containers of torch and modules of the user's; None
            where these are copied.
    """

    def __init__(self, frameworks: list[Framework]) -> None:
        self.frameworks = frameworks
        self.converted: dict[int, nn.Module] = {}
        self.around: Framework | None = None
        self._pairs: list[tuple[Any, Any]] = []
        self._memo: dict[int, Any] = {}
        self._later: list[Callable[[], None]] = []

    def framework_of(self, thing: object) -> Framework | None:
        """Return the framework to whose classes a thing belongs, also by a base class."""
        kinds = type(thing).__mro__
        return next((f for kind in kinds for f in self.frameworks if f.owns(kind)), None)

    def layer(self, path: str, old: Any, *, part: str = "") -> Any:
        """Return ours for a framework's layer, converted once.

        Args:
            path: path of the layer; of its owner where there is a ``part``.
            old: the layer.
            part: name of the layer in its owner.
        """
        path = f"{path}.{part}" if path and part else path or part
        if id(old) in self.converted:
            return self.converted[id(old)]
        where = f"convert: {path or 'the module'}"
        framework = self.framework_of(old) or self.around
        if framework is None:
            kind = f"{type(old).__module__}.{type(old).__qualname__}"
            names = " or ".join(framework.name for framework in self.frameworks)
            raise InputError(f"{where} is a {kind}, which is no layer of {names}")
        # not old.parameters(), which Rockpool replaces
        tensors = (*nn.Module.parameters(old), *nn.Module.buffers(old))
        device = next((tensor.device for tensor in tensors), "cpu")
        try:
            with torch.device(device):
                new = framework.convert(self, path, old)
        except SynapseError as error:
            if str(error).startswith("convert: "):
                raise
            raise InputError(f"{where} cannot be converted: {error}") from error
        if new is None:
            return old
        self.converted[id(old)] = new
        if framework.in_steps:  # hooks are refused
            if not isinstance(new, LayersOverTime):
                new.train(old.training)
            return new
        self._pairs.append((old, new))
        self.later(lambda: self._copy_hooks(old, new))
        return new

    def later(self, action: Callable[[], None]) -> None:
        """Call a function when every layer is converted, so that it can refer to others."""
        self._later.append(action)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Let copies refer to these tensors, and not to others with their values."""
        self._memo.update((id(tensor), tensor) for tensor in tensors)

    def copied(self, value: Any) -> Any:
        """Return a copy of a value, in which layers are replaced and tensors are the same."""
        return copy.deepcopy(value, self._memo)

    def copy(self, module: nn.Module, reached: list[tuple[str, Any]]) -> nn.Module:
        """Return a copy of a module with its layers replaced.

        The copy refers to ours of the bound methods that were ``reached``.
        """
        self._memo.update(self.converted)
        for _, thing in reached if self.around is None else ():
            if isinstance(thing, MethodType) and id(thing.__self__) in self.converted:
                owner = self.converted[id(thing.__self__)]
                self._memo[id(thing)] = getattr(owner, thing.__name__)
        try:
            for action in self._later:
                action()
            result: nn.Module = self.copied(module)
        except (TypeError, RuntimeError) as error:
            raise InputError(
                f"convert: this {type(module).__name__} cannot be copied ({error}); take out what "
                f"holds no layers"
            ) from error
        for _, new in self._pairs:
            new.train(new.training)
        for old, new in self._pairs:
            new.training = old.training
        return result

    def _copy_hooks(self, old: Any, new: Any) -> None:
        """Copy the hooks that the user registered, and the training flag."""
        new.training = old.training
        for name in _HOOKS:
            hooks = vars(old)[name]
            # torch's weight norm is a hook too; a synapse of ours computes it itself
            kept = {k: v for k, v in hooks.items() if type(v).__name__ != "WeightNorm"}
            setattr(new, name, self.copied(type(hooks)(kept)))
