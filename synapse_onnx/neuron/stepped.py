"""A neuron from one function: what a single time step computes, written by the user in torch."""

from __future__ import annotations

import contextlib
import inspect
import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.parameter import is_lazy
from torch.nn.utils.stateless import _reparametrize_module

from synapse_onnx._layer import Deployable, Stateful
from synapse_onnx.errors import InputError
from synapse_onnx.neuron._side_effects import check_side_effects
from synapse_onnx.ops import Example, Recurrence, recurrence

__all__ = ["Step", "step", "steps_in_line"]

#: a value of one time step, or a pair of them
Value = Tensor | tuple[Tensor, ...]
Function = Callable[[Any, dict[str, Tensor]], tuple[Any, Any]]


def step(fn: Function, states: Mapping[str, float], *, name: str | None = None) -> Step:
    """Make a neuron from the function that computes one of its time steps.

    The neuron is a torch module that takes currents (N, C[, H, W], T) and returns what ``fn``
    returns at each step, stacked along the last axis. It trains by autograd through ``fn``, so a
    spike needs a surrogate gradient of its own. An export makes one Scan of it, whose body holds
    the operators of ``fn``; N and T stay open, and a stream carries its states::

        def izhikevich(x, state):
            v, u = state["v"], state["u"]
            v = v + 0.04 * v * v + 5 * v + 140 - u + x
            u = u + 0.02 * (0.2 * v - u)
            s = (v >= 30).float()
            return s, {"v": torch.where(v >= 30, -65.0, v), "u": u + 8 * s}

        neuron = so.neuron.step(izhikevich, states={"v": -65.0, "u": -13.0})

    Args:
        fn: takes x, the current of one step (N, C[, H, W]), and the states of the step before, a
            dictionary of float32 tensors of the same shape as x. Returns the output of the step,
            (N, ...), and the new states: a dictionary with the same names, shapes and types. A
            complex current is a pair x, a complex output a pair. Spikes may be bool or integers;
            they become floats. It may be a module, whose parameters are learned, or a method of
            the network. It may read nothing that changes from call to call besides x and the
            states, and must change nothing in place.
        states: name -> the number that each state starts from, in the unit of ``fn``.
        name: what reports and the file call it; the name of ``fn`` by default.

    Returns:
        A torch module with ``reset()`` and ``persistent_state``, as all neurons of this package.

    Raises:
        InputError: ``fn`` is not callable with two arguments, or a state has no name or no finite
            number to start from.
    """
    return Step(fn, states, name=name)


_in_line: ContextVar[bool] = ContextVar("in_line", default=False)


@contextlib.contextmanager
def steps_in_line() -> Iterator[None]:
    """Let step neurons run step by step in torch code, which a search for loops looks through."""
    token = _in_line.set(True)
    try:
        yield
    finally:
        _in_line.reset(token)


class Step(Stateful):
    """The neuron that :func:`step` makes; the arguments are those of :func:`step`.

    Attributes:
        name: what reports and the file call it.
        path: its path in a network that was copied for an export.
        persistent_state: keep the states from one call to the next, until :meth:`reset`.
    """

    is_layer = False  # it is compared as the loop that it is
    noun, takes = "step neuron", "a current"
    advice = "; make another neuron for another shape"
    path = ""

    def __init__(
        self, fn: Function, states: Mapping[str, float], *, name: str | None = None
    ) -> None:
        super().__init__()
        _check_function(fn)
        self.fn = fn
        self.name = name or _name_of(fn)
        self._loop: _StepLoop | None = None
        if not (isinstance(states, Mapping) and states):
            raise InputError(
                f"step: states must map the name of each state to the number that it starts from, "
                f'as in {{"v": 0.0}}; got {states!r}'
            )
        for key, start in states.items():
            self.register_state(*_checked_state(key, start))

    def extra_repr(self) -> str:
        """Show the name, and what the states start from."""
        return f"{self.name}, states={self.state_starts}"

    def train(self, mode: bool = True) -> Step:
        """Go to training or evaluation, with the function if it is a module."""
        if mode != self.training:
            self._loop = None
        return super().train(mode)

    def freeze(self) -> None:
        """Forget the states, and keep none from now on.

        Raises:
            InputError: the function is a module that holds a layer of this package.
        """
        super().freeze()
        for part in self.fn.modules() if isinstance(self.fn, nn.Module) else ():
            if isinstance(part, Deployable):
                raise InputError(
                    f"step {self.name}: the function holds a {type(part).__name__} of this "
                    f"package, which takes whole sequences; compute one step in plain torch, with "
                    f"torch.nn.Linear or torch.nn.Conv2d for a synapse"
                )
        self._loop = _StepLoop(self, frozen=True)

    def describe(self) -> dict[str, Any]:
        """Return the name, and what the states start from."""
        return {"kind": "step", "name": self.name, "states": self.state_starts}

    def forward(self, input: Value) -> Value:
        """Return the outputs (N, ..., T) of currents (N, C[, H, W], T); a tuple if ``fn`` does.

        Raises:
            ShapeError: the input's rank, shape or batch does not match.
            InputError: ``fn`` does not return an output and the states.
        """
        currents = (input,) if isinstance(input, Tensor) else tuple(input)
        first = currents[0]
        self._check_shape(first)
        starts = self.load_states(first)
        sequences = [x.movedim(-1, 0) for x in currents]
        if self._loop is None:
            self._loop = _StepLoop(self)
        loop = self._loop
        loop.path = self.path
        loop.kinds = [start.dtype for start in starts]
        loop.sequences = [(x.shape[2:], x.dtype) for x in sequences]
        own = list(_constants_of(self.fn))
        if not loop.frozen:  # else copies share it
            loop.own = own
        constants = [value for _, value in own]
        args = [*starts], sequences, constants, first.shape[-1], first.shape[0]
        # autograd follows the steps; a trace sees one operator, which takes no lazy parameters
        in_line = torch.is_grad_enabled() or _in_line.get() or any(map(is_lazy, constants))
        results = loop.run(*args) if in_line else recurrence(*args, loop.key)
        count = len(loop.outputs)
        self.save_states(**dict(zip(self.state_starts, results[count:], strict=True)))
        outputs = tuple(y.movedim(0, -1) for y in results[:count])
        return outputs if loop.returns_tuple else outputs[0]


class _StepLoop(Recurrence):
    """The loop over time of a function.

    Attributes:
        frozen: whether copies of the neuron share it: parameters are handed to it, and a function
            in evaluation is the same in every copy.
        returns_tuple: whether its function returns several outputs.
        kinds: type of each state.
        sequences: shape of one sample and step, and type, of each current.
        own: name and value of the constants of its function.
    """

    users = True

    def __init__(self, neuron: Step, *, frozen: bool = False) -> None:
        super().__init__(neuron.path)
        self.records = False
        self.label = neuron.name
        self.starts = neuron.state_starts
        self.states = tuple(self.starts)
        self.outputs = range(1)
        self.frozen, self.returns_tuple = frozen, False
        self.kinds: Sequence[torch.dtype] = ()
        self.sequences: Sequence[tuple[torch.Size, torch.dtype]] = ()
        self.own = list(_constants_of(neuron.fn))
        self._fn: Any = neuron.fn

    def __deepcopy__(self, memo: Any) -> Any:
        return super().__deepcopy__(memo) if self.frozen else None

    def __reduce__(self) -> Any:
        return type(None), ()  # a neuron that is loaded makes another one

    def __call__(self, *tensors: Tensor, batch: Any = None) -> tuple[Tensor, ...]:
        """Return the states of the next step, and the outputs of this one."""
        states = dict(zip(self.states, tensors, strict=False))
        end = len(states) + len(self.sequences)
        x, constants = _value(tensors[len(states) : end]), tensors[end:]
        fn = self._fn
        if all(a is b for a, (_, b) in zip(constants, self.own, strict=True)):
            result = fn(x, dict(states))
        else:
            names = (name for name, _ in self.own)
            given = dict(zip(names, constants, strict=True))
            with _reparametrize_module(_module_of(fn), given):
                result = fn(x, dict(states))
        return self._checked(result, states, tensors[len(states)])

    def _checked(self, result: Any, states: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, ...]:
        """Return new states and outputs of a result in one tuple.

        Raises:
            InputError: it is no output and states of the same names, shapes and types.
        """
        if not (isinstance(result, tuple | list) and len(result) == 2):
            raise InputError(
                f"step {self.label}: the function must return a pair, (output, states), and "
                f"returned {_described(result)}"
            )
        outputs, following = result
        self.returns_tuple = isinstance(outputs, tuple | list)
        outputs = tuple(outputs) if self.returns_tuple else (outputs,)
        self.outputs = range(len(outputs))
        if not isinstance(following, Mapping) or following.keys() != states.keys():
            raise InputError(
                f"step {self.label}: the function must return its states in a dictionary with the "
                f"keys {', '.join(states)}, and returned {_described(following)}"
            )
        for name, before in states.items():
            after = following[name]
            if not (isinstance(after, Tensor) and after.shape == before.shape):
                raise InputError(
                    f"step {self.label}: state {name} has shape {tuple(before.shape)}, that of the "
                    f"current, and the function returned {_described(after)} for it; a state must "
                    f"keep its shape"
                )
            if after.dtype != before.dtype:
                raise InputError(
                    f"step {self.label}: state {name} is {before.dtype}, and the function returned "
                    f"{after.dtype} for it; a state must keep its type (.float())"
                )
        if not outputs:
            raise InputError(f"step {self.label}: the function returned no output; return a tensor")
        for y in outputs:
            if isinstance(y, Tensor) and y.is_complex():
                raise InputError(
                    f"step {self.label}: the output of a step must be real, and the function "
                    f"returned {y.dtype}; return a complex output as a pair, (y.real, y.imag)"
                )
            if not (isinstance(y, Tensor) and y.dim() and y.shape[0] == x.shape[0]):
                raise InputError(
                    f"step {self.label}: the output of a step must be a tensor (N, ...) with the "
                    f"batch of the current, {x.shape[0]}, and the function returned "
                    f"{_described(y)}"
                )
        numbers = next(iter(states.values())).dtype  # a current may be bool
        return (
            *(following[name] for name in states),
            *(y if y.is_floating_point() else y.to(numbers) for y in outputs),
        )

    def blank(
        self,
        starts: Sequence[Tensor],
        sequences: Sequence[Tensor],
        constants: Sequence[Tensor],
        steps: Any,
        batch: Any,
    ) -> list[Tensor]:
        """Return tensors like the sequences of the outputs, whose values do not matter."""
        slices = [x.new_empty(x.shape[1:]) for x in sequences]
        with _numbers_ignored(sequences[0]):  # the trace of the step speaks of them
            results = self(*starts, *slices, *constants, batch=batch)
        return [y.new_empty([steps, *y.shape]) for y in results[len(starts) :]]

    def examples(self) -> list[Example]:
        """Return what a step gets, for batches of two sizes: any currents, and the first states."""
        generator = torch.Generator().manual_seed(0)
        made = []
        for batch in (2, 3):
            slices = [
                _some_numbers((batch, *shape), dtype, generator) for shape, dtype in self.sequences
            ]
            starts = [
                torch.full(slices[0].shape, start, dtype=dtype)
                for start, dtype in zip(self.starts.values(), self.kinds, strict=True)
            ]
            constants = (value.detach() for _, value in self.own)
            made.append(Example((*starts, *slices, *constants), batch))
        return made

    def check(self) -> None:
        """Raise if the function does more than it returns.

        Raises:
            InputError: it changes something, or draws random numbers.
        """
        tensors = self.examples()[0].tensors
        count = len(self.states)
        x = _value(tensors[count : count + len(self.sequences)])
        check_side_effects(self.label, self._fn, x, dict(zip(self.states, tensors, strict=False)))


def _numbers_ignored(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Let the tracer forget the numbers that code reads of tensors, for a while."""
    if isinstance(x, FakeTensor) and x.fake_mode.shape_env is not None:
        return x.fake_mode.shape_env.ignore_fresh_unbacked_symbols()
    return contextlib.nullcontext()


def _some_numbers(shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Return numbers from 0 to 1; whole ones of a type that has no others."""
    numbers = torch.rand(*shape, generator=generator)
    return (numbers if dtype.is_floating_point else numbers.round()).to(dtype)


def _value(tensors: Iterable[Tensor]) -> Value:
    """Return one tensor as it is, several in a tuple."""
    values = tuple(tensors)
    return values[0] if len(values) == 1 else values


def _module_of(fn: Any) -> Any:
    """Return the module that a function is or is a method of; None if there is none."""
    owner = fn.__self__ if isinstance(fn, types.MethodType) else fn
    return owner if isinstance(owner, nn.Module) else None


def _constants_of(fn: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield name and value of the tensors of a function that is a module, or a method of one.

    A method may be that of a whole network. Its layers of this package take sequences, so a step
    calls none of them.
    """
    module = _module_of(fn)
    if module is None:
        return
    held = [path for path, part in module.named_modules() if isinstance(part, Deployable)]
    layers = tuple(f"{path}." for path in held)
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if not name.startswith(layers):
            yield name, value


def _name_of(fn: Any) -> str:
    """Return the name of a function, or of the class of a callable object."""
    name = getattr(fn, "__name__", None) or type(fn).__name__
    return "neuron" if name == "<lambda>" else str(name)


def _check_function(fn: Any) -> None:
    takes = fn.forward if isinstance(fn, nn.Module) else fn
    try:
        inspect.signature(takes).bind(None, None)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"step: the first argument must be a function of two arguments, (x, state), got {fn!r}"
        ) from error


def _checked_state(name: Any, start: Any) -> tuple[str, torch.dtype, float]:
    """Return the arguments of ``register_state``."""
    if not (isinstance(name, str) and name.isidentifier()):
        raise InputError(
            f'step: the name of a state must be an identifier such as "v", got {name!r}'
        )
    if isinstance(start, Tensor) and start.numel() == 1:
        start = start.item()
    if not (isinstance(start, Real) and math.isfinite(start)):
        raise InputError(
            f"step: state {name} must start from one finite number, got {_described(start)}"
        )
    return name, torch.float32, float(start)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dictionary with the keys {', '.join(map(str, value)) or '(none)'}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value)
