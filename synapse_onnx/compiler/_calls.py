"""The calls of a network against each other: none may depend on those before it, or on chance.

A graph starts every call afresh. A module that remembers (a membrane in a buffer, a counter, its
last output) would lose in the file what it keeps in torch, and one that draws random numbers has no
outputs to compare. Both are traced without an error, so the network is run to see them.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_leaves

from synapse_onnx._layer import Stateful
from synapse_onnx.compiler._changes import changes, is_same
from synapse_onnx.compiler._dynamic import excerpt
from synapse_onnx.compiler._lists import listed_as_before
from synapse_onnx.compiler._trace import quiet
from synapse_onnx.compiler._unregistered import Unregistered
from synapse_onnx.compiler.arguments import Arguments, kind_refused
from synapse_onnx.compiler.copies import copied_value
from synapse_onnx.compiler.frameworks import is_known, reset_states, start_states
from synapse_onnx.compiler.freezer import deployables, eagerly, step_neurons
from synapse_onnx.compiler.steps import OverTime
from synapse_onnx.errors import ExportError, SynapseError

__all__ = ["RemembersError", "check_calls"]

#: steps of a long example that are run, so that the time of an export does not grow with its length
_STEPS = 16

#: steps that are run once something has changed, for spikes may need many to reach the output
_MORE_STEPS = 256

#: factors of random inputs and of states for a network that something changed in: weak ones stay
#: below a threshold, strong ones carry a difference through many layers
_FACTORS = (1.0, 8.0, 0.25, 64.0, -1.0)

#: names of attributes in an error
_NAMES = 3

_Tensors = Sequence[Tensor]

#: what each module gave: (path, number of the call) -> tensors and numbers; "" is the network
_Values = dict[tuple[str, int], list[Any]]


class RemembersError(ExportError):
    """A network keeps states between its calls, which change its outputs."""


def check_calls(frozen: nn.Module, arguments: Arguments) -> None:
    """Run copies of a frozen network, and refuse it where a graph would not do what it does.

    Two copies get the same input: one at its first call, one after a call with other values. If
    nothing differs, not even in an attribute, these three runs are all. Where only attributes
    differ (a counter, say), stronger inputs and states tell whether an output ever does. A network
    that cannot be run is left to the tracer, which says why.

    States that belong to one sequence are reset before every call: those of this package's layers,
    and of layers of other frameworks that take whole sequences and are reset before each.

    Raises:
        RemembersError: outputs depend on attributes that earlier calls have changed.
        ExportError: they depend on them in another way, or on random numbers, or have no dense
            values, or a layer is used that torch does not know to be part of the network.
    """
    with quiet(), torch.no_grad(), _generators_kept(), eagerly():  # it is not worth compiling
        _check_left(frozen, arguments)
        tensors = _part(arguments.tensors, _STEPS)
        first = _first_call(frozen, arguments, tensors)
        if first is not None:
            _compare(frozen, first, arguments, tensors, _part(arguments.tensors, _MORE_STEPS))
            return
        # forward() may need the example's batch size or number of steps
        tensors = arguments.tensors
        first = _first_call(frozen, arguments, tensors)
        if first is not None:
            _compare(frozen, first, arguments, tensors, tensors)


def _check_left(frozen: nn.Module, arguments: Arguments) -> None:
    """Refuse what an earlier call left in layers of frameworks that are reset before each.

    It would be in the file. A small rest shows in no spike, so it is also magnified.
    """
    if not is_known(frozen):
        return
    resting = copied_value(frozen)
    reset_states(resting)
    left = [name for name, _, _ in changes(resting, copied_value(frozen))]
    for seed, factor in enumerate(_FACTORS if left else ()):
        values = [_noise(x, seed + i, factor) for i, x in enumerate(arguments.tensors)]
        holding = copied_value(frozen)
        for _, _, value in changes(resting, holding):
            if isinstance(value, Tensor) and value.is_floating_point():
                value.mul_(factor * (_noise(torch.zeros(value.shape), seed) * 2 - 1))
        with contextlib.suppress(Exception):  # forward() takes no such values
            expected = _call(copied_value(resting), arguments, values)
            try:
                place = _difference(expected, _call(holding, arguments, values))
            except Exception:  # a state of so many samples
                place = ""
            if place is not None:
                break
    else:
        return
    where = f"the output of module '{place}'" if place else "the output"
    raise ExportError(
        f"{where} depends on earlier calls, through {_listed(left)}, which the network still "
        f"holds; reset the network before the export"
    )


def _part(tensors: _Tensors, steps: int) -> _Tensors:
    """Return one sample and a few steps: a state is kept for every sample, and from any step."""
    return [x[:1] if x.dim() else x for x in excerpt(tensors, steps)]


def _first_call(
    frozen: nn.Module, arguments: Arguments, tensors: _Tensors
) -> tuple[nn.Module, _Values] | None:
    """Run a copy for the first time; return it with its outputs, or None if it cannot run."""
    _settle(frozen, arguments, tensors)
    fresh = copied_value(frozen)
    watched = Unregistered(fresh)
    try:
        with watched.refused():
            values = _call(fresh, arguments, tensors)
    except Exception:
        if watched.error is not None:
            raise watched.error from None
        return None
    watched.check_reads(lambda: _call(fresh, arguments, tensors))
    for value in values["", 0]:
        unlike = kind_refused(value, "return") if isinstance(value, Tensor) else ""
        if unlike:
            raise ExportError(f"forward() returns a tensor that is {unlike}")
    return fresh, values


def _settle(frozen: nn.Module, arguments: Arguments, tensors: _Tensors) -> None:
    """Let modules over steps see what their steps keep: they run copies of their own for it."""
    if not all(m.is_settled for m in nn.Module.modules(frozen) if isinstance(m, OverTime)):
        try:
            _call(copied_value(frozen), arguments, tensors)
        except SynapseError:
            raise
        except Exception:  # forward() takes no such values
            return


def _compare(
    frozen: nn.Module,
    first: tuple[nn.Module, _Values],
    arguments: Arguments,
    tensors: _Tensors,
    longer: _Tensors,
) -> None:
    """Compare the first call of a copy with a later call of another one."""
    used = copied_value(frozen)
    try:
        _call(used, arguments, [_noise(x, i) for i, x in enumerate(tensors)])
    except Exception:  # forward() takes no such values
        used = copied_value(frozen)
        with contextlib.suppress(Exception):
            _call(used, arguments, tensors)
    _reset(used)
    try:
        place = _difference(first[1], _call(used, arguments, tensors))
    except Exception as error:
        raise _called_again(error) from error
    if place is None and any(changes(first[0], used)):
        place = _probe(frozen, first[0], used, arguments, longer)
    if place is not None:
        try:
            cause = _cause(place, frozen, used, arguments, tensors)
        except Exception as error:
            cause = _called_again(error)
        raise cause


def _probe(
    frozen: nn.Module,
    fresh: nn.Module,
    used: nn.Module,
    arguments: Arguments,
    tensors: _Tensors,
) -> str | None:
    """Return where a used copy differs from an unused one on random input; None if nowhere.

    A membrane far from its threshold shows in no spike. So what the calls changed, the difference
    between the copies ``fresh`` and ``used``, is also magnified.
    """
    for seed, factor in enumerate(_FACTORS, start=len(tensors)):
        values = [_noise(x, seed + i, factor) for i, x in enumerate(tensors)]
        magnified = copied_value(used)
        with contextlib.suppress(Exception):
            try:
                expected = _call(copied_value(frozen), arguments, values)
            except Exception:  # forward() takes no such values
                values = list(tensors)
                expected = _call(copied_value(frozen), arguments, values)
            for _, _, value in changes(fresh, magnified):
                if isinstance(value, Tensor) and value.is_floating_point():
                    value.mul_(factor * (_noise(torch.zeros(value.shape), seed) * 2 - 1))
            for other in (used, magnified):
                _reset(other)
                place = _difference(expected, _call(other, arguments, values))
                if place is not None:
                    return place
    return None


def _is_random(frozen: nn.Module, arguments: Arguments, tensors: _Tensors) -> bool:
    """Whether a network draws random numbers that its output depends on, from fresh states, too.

    sinabs draws which samples' states it keeps for a batch of another size.
    """
    if not is_known(frozen):
        return True
    outputs = []
    for _ in range(2):
        fresh = copied_value(frozen)
        start_states(fresh)
        outputs.append(_call(fresh, arguments, tensors))
    return _difference(*outputs) is not None


def _cause(
    place: str, frozen: nn.Module, used: nn.Module, arguments: Arguments, tensors: _Tensors
) -> ExportError:
    """Say why two calls differ, by runs of copies that differ in one thing alone."""
    where = f"the output of module '{place}'" if place else "the output"
    copies = [copied_value(frozen) for _ in range(3)]
    generators = _generators()
    one = _call(copies[0], arguments, tensors)
    _set_generators(generators)
    again = _call(copies[1], arguments, tensors)
    other = _call(copies[2], arguments, tensors)  # the same, with other random numbers
    names = [name for name, _, _ in changes(copies[0], used)]
    outside = _difference(one, again) is not None
    if (
        not outside
        and _difference(again, other) is not None
        and _is_random(frozen, arguments, tensors)
    ):
        active = [path for path, module in frozen.named_modules() if path and module.training]
        hint = f" ('{active[0]}' stays in training mode after eval())" if active else ""
        return ExportError(
            f"{where} is random: two calls with the same input differ{hint}; draw no random "
            f"numbers in forward() in evaluation mode"
        )
    if outside or not names:
        ours = (
            *(f"{path}." for path, _ in deployables(frozen)),
            *(f"{path}.{own}." for path, _ in step_neurons(frozen) for own in ("shape", "_loop")),
        )
        made = [
            name
            for name, before, after in changes(copied_value(frozen), copies[0])
            if before is after is None and not f"{name}.".startswith(ours)
        ]
        attribute = "no attribute of the module changes with it"
        if made:
            attribute = f"the first call makes the attribute {_listed(made)}"
        return ExportError(
            f"{where} depends on earlier calls or on the time, and {attribute}; keep nothing in "
            f"attributes, global variables or closures that forward() reads, and read no clock "
            f"there"
        )
    names.sort(key=lambda name: not f"{name}.".startswith(f"{place}."))  # the nearest first
    return RemembersError(
        f"{where} depends on earlier calls, through {_listed(names)}, which an exported graph does "
        f"not keep; reset at the start of forward(); or, if a call is one time step, export "
        f"so.over_time(module), or the module as it is with streaming=True"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return f"{', '.join(names[:_NAMES])}{more}"


def _reset(network: nn.Module) -> None:
    """Forget the states that belong to one sequence."""
    for module in nn.Module.modules(network):
        if isinstance(module, Stateful):
            module.reset()
    reset_states(network)


def _nothing(*_: Any) -> None:
    """Stand for a listener."""


def _called_again(error: Exception) -> ExportError:
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
    return ExportError(
        f"the module fails when it is called again with the same input ({reason}), so its outputs "
        f"depend on earlier calls; reset at the start of forward()"
    )


def _call(network: nn.Module, arguments: Arguments, tensors: _Tensors) -> _Values:
    """Run a network; return copies of what every submodule, and the network itself, returned."""
    values: _Values = {}
    calls: Counter[str] = Counter()
    paths = {id(module): path for path, module in network.named_modules()}
    thread = threading.get_ident()  # the hook sees the modules of every thread

    def record(path: str, outputs: Any) -> None:
        leaves = [x for x in tree_leaves(outputs) if isinstance(x, Tensor | int | float | complex)]
        # copies, because a module may return a state that its next call changes in place
        values[path, calls[path]] = [x.clone() if isinstance(x, Tensor) else x for x in leaves]
        calls[path] += 1

    def after(module: nn.Module, _: Any, outputs: Any) -> None:
        path = paths.get(id(module))
        if path and threading.get_ident() == thread:
            record(path, outputs)

    with register_module_forward_hook(after), listed_as_before():
        outputs = network(*arguments.grouped([x.clone() for x in tensors]))
    record("", outputs)
    return values


def _difference(one: _Values, other: _Values) -> str | None:
    """Return the path of the first module whose outputs differ; "" for the network, None if none.

    A module that ran more often in one call filled a cache, which the network's outputs judge.
    """
    counts = [Counter(path for path, _ in values) for values in (one, other)]
    for (path, number), outputs in one.items():
        if counts[0][path] == counts[1][path]:
            others = other[path, number]
            if len(outputs) != len(others) or not all(map(is_same, outputs, others)):
                return path
    return None


def _noise(x: Tensor, seed: int, factor: float = 1.0) -> Tensor:
    """Return other values of an input's kind: spikes for spikes, integers in the same range."""
    generator = torch.Generator().manual_seed(seed)
    if x.is_complex():
        return torch.view_as_complex(_noise(torch.view_as_real(x), seed, factor).contiguous())
    values = torch.rand(x.shape, generator=generator)
    if x.dtype == torch.bool:
        return values < 0.5
    low, high = (float(bound) for bound in x.double().aminmax())
    if not x.is_floating_point():
        return (low + (values * (high - low + 1)).floor()).to(x.dtype)
    if factor == 1.0 and bool(((x == 0) | (x == 1)).all()):
        return (values < 0.5).to(x.dtype)
    return (factor * (low + values * ((high - low) or 1.0))).to(x.dtype)


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    """Leave the random numbers of the caller as they are."""
    generators = _generators()
    try:
        yield
    finally:
        _set_generators(generators)


def _generators() -> tuple[Any, ...]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def _set_generators(states: tuple[Any, ...]) -> None:
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
