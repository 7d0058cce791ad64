"""A trace of a network made by running it on numbers, in a fraction of torch.export's time.

``torch.export`` runs the network on tensors without numbers, and keeps for every operator what a
later compiler may ask. A loop is found in traces of known sizes, of which the operators, shapes and
types are needed alone. So the network runs on its numbers, while a mode notes every operator at the
level at which ``torch.export`` does: ``linear`` is one operator, not a transpose and a product.

Numbers that follow from inputs must not decide what is traced: a branch on a value, a value as a
Python number, a tensor whose size depends on values. The recorder gives up there. ``torch.export``
is asked then, and refuses with a reason, or traces. If torch no longer has these modes, which are
private, it is asked for everything.

What follows from parameters alone is the same in every call, so code may branch on it. Where an
operator on it cannot be written as one that returns a new value, its result can be a constant::

    shift = torch.round(torch.log2(self.tau / self.dt)).int()
    shift[shift < 0] = 0  # from here on a constant
    return 1 - 1 / 2**shift
"""

from __future__ import annotations

import contextlib
import operator
import sys
import weakref
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch._decomp
from torch import Tensor, fx, nn

from synapse_onnx.compiler.function_mode import FunctionMode
from synapse_onnx.compiler.loops.chance import draws_numbers
from synapse_onnx.compiler.loops.memory import Memories, id_of_memory, memory_of, returning
from synapse_onnx.compiler.loops.program import Leaf, Program, is_users
from synapse_onnx.compiler.loops.refusals import NUMBERS
from synapse_onnx.compiler.loops.terms import CONSTANT, INPUT, PARAMETER

try:
    from torch._dispatch.python import enable_python_dispatcher, no_python_dispatcher
    from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
except ImportError:  # pragma: no cover
    ProxyTorchDispatchMode = None  # type: ignore[assignment,misc]

__all__ = ["RECURRENT", "NotRecordedError", "Reads", "record"]

aten = torch.ops.aten

#: methods that give the numbers of a tensor to Python
_METHODS = {Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__repr__}

#: methods that give its memory
_MEMORY = {
    Tensor.data_ptr, Tensor.untyped_storage, Tensor.storage, Tensor.__dlpack__, Tensor.apply_,
    Tensor.map_,
}  # fmt: skip

#: operators whose results, or the sizes of these, depend on numbers; of constants both are constant
_OF_NUMBERS = {
    *NUMBERS, aten.is_nonzero.default,
    aten.where.default, aten.nonzero_numpy.default, aten.argwhere.default, aten.one_hot.default,
    aten.equal.default, aten.allclose.default, aten.repeat_interleave.self_Tensor,
    aten.tensor_split.tensor_indices_or_sections,
}  # fmt: skip

#: tags of operators whose results are no tensors, or tensors of a size that depends on values
_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

#: operators of torch that loop over time -> that loop: ``nn.RNN`` calls ``rnn_relu``
RECURRENT = {
    op: torch._decomp.decomposition_table[op]
    for op in (aten.gru.input, aten.lstm.input, aten.rnn_relu.input, aten.rnn_tanh.input)
}

#: what a network returns besides tensors
_LITERALS = (type(None), bool, int, float, str)


class NotRecordedError(Exception):
    """Numbers may decide what a network computes: ``torch.export`` traces it, or says why not."""


def record(
    network: nn.Module,
    inputs: Sequence[Tensor],
    running: Sequence[str],
    folded: Container[int] = (),
    *,
    changes: bool = True,
) -> Program:
    """Run a network, and return the operators that it has run.

    Args:
        network: the network; no copy of it is made.
        inputs: its inputs.
        running: the paths of the modules that are running, innermost last.
        folded: numbers of calls, in their order, of operators that depend on no input, and whose
            results are constants.
        changes: whether the program may have operators that change their arguments; else they are
            written as operators that return new values.

    Raises:
        NotRecordedError: it does what a trace on numbers cannot tell, or torch has no such modes.
        Exception: of any class, as the network raises it.
    """
    if ProxyTorchDispatchMode is None:  # pragma: no cover
        raise NotRecordedError
    recorder = _Recorder(network, inputs, running, folded, changes=changes)
    cudnn: Any = torch.backends.cudnn  # torch.export switches it off, which batch_norm notes
    with cudnn.flags(enabled=False), enable_python_dispatcher(), recorder, _NoNumbers(recorder):
        result = network(*inputs)
    return recorder.program(result)


class Reads:
    """Looks for numbers that Python reads of tensors, where these depend on the inputs.

    A number of a parameter, or of ``torch.ones(1)``, is the same in every call.

    Attributes:
        any: whether one was read so far.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self.any = False
        self._from_inputs = {id(x): weakref.ref(x) for x in inputs}
        #: memory that holds values which depend on inputs; kept, so that no other has its number
        self._changed: dict[int, Any] = {}
        self._unknown = False

    def see(self, op: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """Take note of an operator that has run."""
        if not draws_numbers(op, args, kwargs) and not self.depend((args, kwargs)):
            return
        self.any = self.any or op in _OF_NUMBERS or _sized_by_values(op, args)
        for each in _changed_by(op, args, kwargs):
            self._change(each)
        for value in torch.utils._pytree.tree_leaves(result):
            if isinstance(value, Tensor):
                self._from_inputs[id(value)] = weakref.ref(value)

    def depend(self, values: Any) -> bool:
        """Whether a value, or one in a container, depends on inputs or on random numbers."""
        if isinstance(values, Tensor):
            known = self._from_inputs.get(id(values))
            if self._unknown or (known is not None and known() is values):
                return True
            return bool(self._changed) and id_of_memory(values) in self._changed
        if isinstance(values, tuple | list):
            return any(map(self.depend, values))
        return isinstance(values, dict) and any(map(self.depend, values.values()))

    def _change(self, value: Any) -> None:
        """Note that the memory of a value, of which others may hold views, depends on inputs."""
        memory = id_of_memory(value) if isinstance(value, Tensor) else None
        if memory is None:
            self._unknown = True
        else:
            self._changed[memory] = memory_of(value)


def _changed_by(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the arguments that an operator changes; None for one that cannot be told."""
    schema = getattr(op, "_schema", None)
    if schema is None:
        return [None]
    changed: list[Any] = []
    for i, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            changed += value if isinstance(value, tuple | list) else [value]
    return changed


def _sized_by_values(op: Any, args: Sequence[Any]) -> bool:
    """Whether what an operator returns is no tensor, or one whose size depends on values."""
    if op is aten.index.Tensor:  # tagged, though indices that are whole numbers have one size
        return any(
            isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in args[1]
        )
    return not _TAGS.isdisjoint(getattr(op, "tags", ())) and op not in _OF_NUMBERS


class _NoNumbers(FunctionMode):
    """Gives up where a network takes the numbers of a tensor that depends on inputs."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a function of torch."""
        if function is Tensor.__deepcopy__:  # it copies memory, which no mode sees
            return args[0].clone()
        if function in _MEMORY or (function in _METHODS and self._recorder.reads.depend(args)):
            raise NotRecordedError
        return function(*args, **kwargs)


class _Recorder(ProxyTorchDispatchMode or object):  # type: ignore[misc]
    """Notes every operator in a graph; torch shows composite ones to modes of this class alone."""

    def __init__(
        self,
        network: nn.Module,
        inputs: Sequence[Tensor],
        running: Sequence[str],
        folded: Container[int],
        *,
        changes: bool,
    ) -> None:
        super().__init__(None, "real", pre_dispatch=True)
        self._memories = None if changes else Memories(self._write)
        self._running = running
        self._folded = folded
        self._calls = 0
        self._depends = True
        self.reads = Reads(inputs)
        self._graph = fx.Graph()
        self._leaves: dict[fx.Node, Leaf] = {}
        self._nodes: dict[int, tuple[Any, fx.Node]] = {}
        for i, value in enumerate(inputs):
            self._leaf(value, Leaf(INPUT, i))
        named = (*nn.Module.named_parameters(network), *nn.Module.named_buffers(network))
        self._named = {id(value): (name, value) for name, value in reversed(named)}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return func(*args, **kwargs)
        if not isinstance(func, torch._ops.OpOverload):
            raise NotRecordedError
        if self._memories is not None and func in RECURRENT:
            with self, _without_mkldnn():
                return RECURRENT[func](*args, **kwargs)
        self._calls += 1
        is_folded = self._calls in self._folded
        nodes: Any = None if is_folded else (self._node_of(args), self._node_of(kwargs))
        with no_python_dispatcher():
            result = func(*args, **kwargs)
        self.reads.see(func, args, kwargs, result)
        depends = self.reads.depend((args, kwargs, result))  # or is random
        if self.reads.any or (is_folded and depends):
            raise NotRecordedError
        if is_folded:
            for each in _changed_by(func, args, kwargs):
                self._forget(each)
            return result
        if _sized_by_values(func, args):
            return result  # a constant, if it is read
        if func in _OF_NUMBERS and not isinstance(result, Tensor | tuple | list):
            return result  # a number that is the same in every call
        self._depends = depends
        if self._memories is not None and _changed_by(func, args, kwargs):
            self._change(func, args, nodes)
            return result
        if not isinstance(result, tuple | list):
            node = self._write(func, nodes[0], nodes[1], _without_numbers(result))
            self._know(result, node, (func, args, nodes))
            return result
        node = self._write(func, nodes[0], nodes[1], tuple(map(_without_numbers, result)))
        for i, each in enumerate(result):
            part = self._write(operator.getitem, (node, i), {}, node.meta["val"][i])
            self._know(each, part, (func, args, nodes), (i, node.meta["val"]))
        return result

    def _write(self, op: Any, args: Any, kwargs: Any, value: Any) -> fx.Node:
        """Add an operator whose result is like a value."""
        node = self._graph.call_function(op, args, kwargs)
        node.meta = {
            "stack_trace": _place(),
            "nn_module_stack": {path: (path, None) for path in self._running or [""]},
            "call": 0 if self._depends else self._calls,
            "val": value,
        }
        return node

    def _change(self, op: Any, args: Sequence[Any], nodes: Any) -> None:
        """Write an operator that changes its first argument as one that returns a new value."""
        assert self._memories is not None
        if op is aten.detach_.default:
            return
        instead, value = returning(op), args[0]
        if instead is None or torch.Tag.inplace_view in op.tags:
            raise NotRecordedError
        like = _without_numbers(value)
        given = fx.node.map_arg(nodes, lambda each: each.meta["val"])
        with no_python_dispatcher():
            made = instead(*given[0], **given[1])
        node = self._write(instead, nodes[0], nodes[1], _without_numbers(made))
        if made.dtype != like.dtype:
            node = self._write(aten.to.dtype, (node, like.dtype), {}, like)
        self._memories.change(value, node)

    def program(self, result: Any) -> Program:
        """Return what was noted, of a network that has returned this."""
        leaves = torch.utils._pytree.tree_leaves(result)
        if not all(isinstance(value, (Tensor, *_LITERALS)) for value in leaves):
            raise NotRecordedError
        self._graph.output(tuple(map(self._node_of, leaves)))
        return Program(self._graph, self._leaves)

    def _forget(self, changed: Tensor) -> None:
        """Take a tensor that was changed, and all that share its memory, as constants anew."""
        memory = id_of_memory(changed)
        if memory is None:
            raise NotRecordedError

        def is_other(value: Tensor | None) -> bool:
            return value is not None and id_of_memory(value) != memory

        self._nodes = {key: each for key, each in self._nodes.items() if is_other(each[0]())}
        self._named = {key: each for key, each in self._named.items() if is_other(each[1])}

    def _node_of(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._known(value) or self._new_leaf(value)
        if isinstance(value, tuple | list):
            return tuple(map(self._node_of, value))
        if isinstance(value, dict):
            return {name: self._node_of(each) for name, each in value.items()}
        return value

    def _new_leaf(self, value: Tensor) -> fx.Node:
        if type(value) not in (Tensor, nn.Parameter):
            raise NotRecordedError
        if id(value) in self._named:
            return self._leaf(value, Leaf(PARAMETER, self._named[id(value)][0], value))
        return self._leaf(value, Leaf(CONSTANT, "", value.detach().clone()))

    def _leaf(self, value: Tensor, leaf: Leaf) -> fx.Node:
        with self._graph.inserting_before(next(iter(self._graph.nodes), None)):
            node = self._graph.placeholder(f"leaf_{len(self._leaves)}")
        node.meta["val"] = _without_numbers(value)
        self._leaves[node] = leaf
        self._know(value, node)
        return node

    def _known(self, value: Tensor) -> fx.Node | None:
        if self._memories is not None:
            return self._memories.node_of(value)
        known, node = self._nodes.get(id(value), (None, None))
        return node if known is not None and known() is value else None

    def _know(self, value: Any, node: fx.Node, call: Any = None, part: Any = None) -> None:
        if not isinstance(value, Tensor):
            return
        if self._memories is None:
            self._nodes[id(value)] = (weakref.ref(value), node)
        elif call is None:
            self._memories.own(value, node, node.meta["val"])
        else:
            self._memories.result(value, node, node.meta["val"], call, part)


@contextlib.contextmanager
def _without_mkldnn() -> Iterator[None]:
    """Leave out the library that has a whole LSTM as one operator; its own switch warns."""
    torch_c: Any = torch._C
    enabled = torch_c._get_mkldnn_enabled()
    torch_c._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch_c._set_mkldnn_enabled(enabled)


def _without_numbers(value: Any) -> Any:
    """Return a tensor of the same shape and type that needs no memory."""
    if not isinstance(value, Tensor):
        return value
    with no_python_dispatcher():
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _place() -> str:
    """Return the innermost line that is neither torch's nor ours, as torch writes stacks."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if is_users(file):
            return f'File "{file}", line {frame.f_lineno}'
        frame = frame.f_back  # type: ignore[assignment]
    return ""
