"""A program of a network of known layers, from runs on numbers instead of ``torch.export``.

``torch.export`` runs a network twice on tensors without numbers, and looks at every operator for
conditions on sizes. That takes two thirds of the time of a small export. Layers of this package and
of torch compute the same at every size. So a network of nothing else is recorded at four sizes,
and a number that is another one in each, as N in ``zeros(N, 16)``, is what a formula says.

Where a record cannot tell, ``torch.export`` is asked as before: modules of the user's, whose code
may branch on sizes; hooks; values that decide; changes in place; numbers without a formula.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import graph_signature as signatures
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from synapse_onnx.compiler._dynamic import least_steps, steps_per_bin
from synapse_onnx.compiler.axes import has_code_of_its_own
from synapse_onnx.compiler.loops.numbers import Formula, fit
from synapse_onnx.compiler.loops.program import Leaf, Program
from synapse_onnx.compiler.loops.recorder import NotRecordedError, record
from synapse_onnx.compiler.loops.terms import CONSTANT, INPUT, Size
from synapse_onnx.neuron.stepped import Step

__all__ = ["recorded", "runs_known_code"]

aten = torch.ops.aten

#: values that an input has at a step, at most: of larger images torch.export, which computes
#: nothing, is the faster one
_LARGEST = 4096


def recorded(
    network: nn.Module, inputs: Sequence[Tensor], axes: Any, running: Sequence[str]
) -> torch.export.ExportedProgram | None:
    """Return the program of a network of known layers; None if ``torch.export`` has to tell.

    Args:
        network: the network, frozen.
        inputs: inputs, and states of a stream.
        axes: for every input, its open axes and their symbols; None without open axes.
        running: the paths of the modules that are running, innermost last.
    """
    opened = torch.utils._pytree.tree_leaves(axes, is_leaf=lambda each: isinstance(each, dict))
    named = [
        {axis: getattr(symbol, "__name__", "") for axis, symbol in (each or {}).items()}
        for each in opened
    ]
    named += [{}] * (len(inputs) - len(named))
    if not {name for each in named for name in each.values()} <= {"N", "T"}:
        return None  # a state of a loop may have an axis of any size
    counts = [_values_a_step(x, axes) for x, axes in zip(inputs, named, strict=True)]
    if max(counts, default=0) > _LARGEST or any(x.numel() == 0 for x in inputs):
        return None
    try:
        programs = {
            size: _record(network, list(_resized(inputs, named, size)), running)
            for size in _sizes(network, named)
        }
        return _Writer(network, inputs, named, programs).program()
    except (NotRecordedError, ValueError):
        return None


def runs_known_code(network: nn.Module) -> bool:
    """Whether all code that runs is torch's or ours."""
    if has_code_of_its_own(network) or steps_per_bin(network) > 1:  # bins are a part of T
        return False
    return not any(
        module._forward_hooks
        or module._forward_pre_hooks
        or "forward" in module.__dict__
        or isinstance(module, Step | torch.jit.ScriptModule)
        for module in nn.Module.modules(network)
    )


def _values_a_step(x: Tensor, axes: Mapping[int, str]) -> int:
    return math.prod(size for axis, size in enumerate(x.shape) if axis not in axes)


def _sizes(network: nn.Module, named: Sequence[Mapping[int, str]]) -> list[Size]:
    """Return the sizes to record; one where no axis is open."""
    names = {name for each in named for name in each.values()}
    if "T" in names:
        first = max(least_steps(network), 2)
        return [Size(first, 2), Size(first + 1, 2), Size(first, 3), Size(first + 5, 3)]
    return [Size(1, batch) for batch in (2, 3, 5)] if names else [Size(1, 1)]


def _resized(
    inputs: Sequence[Tensor], named: Sequence[Mapping[int, str]], size: Size
) -> Iterator[Tensor]:
    for x, axes in zip(inputs, named, strict=True):
        value = x
        for axis, name in axes.items():
            count = size.batch if name == "N" else size.steps
            value = value.index_select(axis, torch.arange(count) % value.shape[axis])
        yield value.clone(memory_format=torch.contiguous_format)  # one tensor may be two inputs


def _record(network: nn.Module, inputs: Sequence[Tensor], running: Sequence[str]) -> Program:
    try:
        program = record(network, inputs, running)
    except NotRecordedError:
        raise
    except Exception as error:  # of any class: torch.export says which
        raise NotRecordedError from error
    results = program.results
    if not results or not all(isinstance(each, fx.Node) for each in results):
        raise NotRecordedError
    if any(each.op == "placeholder" for each in results):
        raise NotRecordedError
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable:
            raise NotRecordedError
    return program


class _Writer:
    """Writes one program, whose sizes are symbols, of records of a network at a few sizes."""

    def __init__(
        self,
        network: nn.Module,
        inputs: Sequence[Tensor],
        named: Sequence[Mapping[int, str]],
        programs: Mapping[Size, Program],
    ) -> None:
        self._network, self._inputs, self._named = network, inputs, named
        self._sizes = list(programs)
        self._programs = list(programs.values())
        self._graph = fx.Graph()
        self._mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        self._symbols = {
            name: self._symbol(name, hint)
            for name, hint in (("N", 7), ("T", 11))  # in torch's order
            if any(name in each.values() for each in named)
        }
        self._values: dict[Any, Any] = {}
        self._counts: dict[str, fx.Node] = {}
        #: node of the first record -> node of the program
        self._known: dict[fx.Node, fx.Node] = {}
        self._places = {
            node: place
            for program in self._programs
            for place, node in enumerate(program.graph.nodes)
        }
        self._state: dict[str, Tensor] = {}
        self._constants: dict[str, Any] = {}
        self._kinds = {
            path: f"{type(module).__module__}.{type(module).__qualname__}"
            for path, module in network.named_modules()
        }

    def program(self) -> torch.export.ExportedProgram:
        """Return the program."""
        columns = [list(each.graph.nodes) for each in self._programs]
        if len({len(each) for each in columns}) > 1:
            raise NotRecordedError
        first = self._programs[0]
        specs = self._placeholders(first)
        self._count(first)
        for row in zip(*columns, strict=True):
            if row[0].op == "call_function":
                self._call(row)
            elif row[0].op == "placeholder":
                self._same_leaf(row)
        results = tuple(self._known[each] for each in first.results)
        self._graph.output(results)
        outputs = [
            signatures.OutputSpec(
                signatures.OutputKind.USER_OUTPUT, signatures.TensorArgument(each.name), None
            )
            for each in results
        ]
        tree = torch.utils._pytree
        entry = torch.export.ModuleCallEntry(
            "",
            torch.export.ModuleCallSignature(
                inputs=[],
                outputs=[],
                in_spec=tree.tree_flatten((tuple(self._inputs), {}))[1],
                out_spec=tree.tree_flatten(results)[1],
            ),
        )
        environment = self._mode.shape_env
        assert environment is not None
        return torch.export.ExportedProgram(
            root=nn.Module(),
            graph=self._graph,
            graph_signature=signatures.ExportGraphSignature(specs, outputs),
            state_dict=self._state,
            range_constraints=dict(environment.var_to_range),
            module_call_graph=[entry],
            example_inputs=(tuple(self._inputs), {}),
            constants=self._constants,
            verifiers=[torch._export.verifier.TrainingIRVerifier],
        )

    # -- leaves

    def _placeholders(self, program: Program) -> list[signatures.InputSpec]:
        """Write the leaves: parameters and constants, then the inputs."""
        kinds = signatures.InputKind
        specs = []
        leaves = sorted(program.leaves.items(), key=lambda item: item[1].kind == INPUT)
        given = {leaf.name: node for node, leaf in leaves if leaf.kind == INPUT}
        for node, leaf in leaves:
            if leaf.kind == INPUT:
                continue
            assert leaf.value is not None
            if leaf.kind == CONSTANT:
                path = f"lifted_tensor_{len(self._constants)}"
                self._constants[path] = leaf.value
                kind, persistent, prefix = kinds.CONSTANT_TENSOR, None, "c"
            else:
                path = str(leaf.name)
                self._state[path] = leaf.value
                kind, persistent, prefix = kinds.BUFFER, True, "b"
            new = self._graph.placeholder(f"{prefix}_{path}".replace(".", "_"))
            new.meta["val"] = self._fake(tuple(leaf.value.shape), leaf.value.dtype)
            self._known[node] = new
            argument = signatures.TensorArgument(new.name)
            specs.append(signatures.InputSpec(kind, argument, path, persistent))
        names = _argument_names(self._network, len(self._inputs))
        for i, (x, axes) in enumerate(zip(self._inputs, self._named, strict=True)):
            new = self._graph.placeholder(names[i])
            new.name = new.target = names[i]  # fx makes input_1 of a builtin's name, as input
            sizes = tuple(
                self._symbols[axes[axis]] if axis in axes else size
                for axis, size in enumerate(x.shape)
            )
            new.meta["val"] = self._fake(sizes, x.dtype)
            self._known[given[i]] = new
            argument = signatures.TensorArgument(new.name)
            specs.append(signatures.InputSpec(kinds.USER_INPUT, argument, None))
        return specs

    def _same_leaf(self, row: Sequence[fx.Node]) -> None:
        """Refuse a leaf that is another one, or a constant of other values, at another size."""
        leaves = [p.leaves[node] for p, node in zip(self._programs, row, strict=True)]
        first = leaves[0]
        for leaf in leaves[1:]:
            if (leaf.kind, leaf.name) != (first.kind, first.name):
                raise NotRecordedError
            if leaf.kind == CONSTANT and not _equal(leaf, first):
                raise NotRecordedError

    # -- operators

    def _call(self, row: Sequence[fx.Node]) -> None:
        """Write an operator, of which each record has one of these nodes."""
        first = row[0]
        if any(node.target is not first.target for node in row):
            raise NotRecordedError
        args = self._argument([node.args for node in row])
        kwargs = self._argument([dict(node.kwargs) for node in row])
        name = getattr(first.target, "__name__", "call").partition(".")[0]
        new = self._graph.create_node("call_function", first.target, args, kwargs, name)
        stack = first.meta["nn_module_stack"]
        new.meta = {
            "stack_trace": first.meta["stack_trace"],
            "nn_module_stack": {path: (path, self._kinds[path]) for path in stack},
            "val": self._value([node.meta["val"] for node in row]),
        }
        self._known[first] = new

    def _argument(self, values: Sequence[Any]) -> Any:
        """Return what an argument is at all sizes: a node, a literal, or a number of sizes."""
        first = values[0]
        if any(type(value) is not type(first) for value in values):
            raise NotRecordedError
        if isinstance(first, fx.Node):
            if len({self._places[node] for node in values}) > 1:
                raise NotRecordedError
            return self._known[first]
        if isinstance(first, tuple | list):
            if any(len(value) != len(first) for value in values):
                raise NotRecordedError
            return type(first)(self._argument(each) for each in zip(*values, strict=True))
        if isinstance(first, dict):
            if any(value.keys() != first.keys() for value in values):
                raise NotRecordedError
            return {key: self._argument([value[key] for value in values]) for key in first}
        number = self._number(values)
        return self._written(number) if isinstance(number, Formula) else number

    def _number(self, values: Sequence[Any]) -> Any:
        """Return the literal that all are, or the formula of whole numbers."""
        first = values[0]
        if all(type(value) is type(first) and value == first for value in values):
            return first
        number = fit({(size, 0): value for size, value in zip(self._sizes, values, strict=True)})
        if not isinstance(number, Formula) or not number.is_whole or number.changes:
            raise NotRecordedError
        return number

    def _written(self, formula: Formula) -> fx.Node | int:
        """Write the operators of a formula."""
        constant, *factors, _ = formula.factors
        symbols = (("T",), ("N",), ("T", "N"))
        total: Any = None
        for factor, names in zip(factors, symbols, strict=True):
            if not factor:
                continue
            term: Any = self._counts[names[0]]
            for name in names[1:]:
                term = self._operation(operator.mul, term, self._counts[name])
            if factor != 1:
                term = self._operation(operator.mul, factor, term)
            total = term if total is None else self._operation(operator.add, total, term)
        return self._operation(operator.add, total, constant) if constant else total

    def _operation(self, function: Any, *args: Any) -> fx.Node:
        node = self._graph.call_function(function, args)
        values = [arg.meta["val"] if isinstance(arg, fx.Node) else arg for arg in args]
        node.meta = {"val": function(*values), "nn_module_stack": {}, "stack_trace": ""}
        return node

    def _count(self, program: Program) -> None:
        """Write the sizes N and T, of the first input that has each."""
        given = {
            leaf.name: self._known[n] for n, leaf in program.leaves.items() if leaf.kind == INPUT
        }
        for name, symbol in self._symbols.items():
            place, axis = next(
                (i, axis)
                for i, axes in enumerate(self._named)
                for axis, each in axes.items()
                if each == name
            )
            node = self._graph.call_function(aten.sym_size.int, (given[place], axis))
            node.meta = {"val": symbol, "nn_module_stack": {}, "stack_trace": ""}
            self._counts[name] = node

    # -- values

    def _value(self, values: Sequence[Any]) -> Any:
        first = values[0]
        if isinstance(first, tuple | list):
            return tuple(map(self._value, zip(*values, strict=True)))
        if not isinstance(first, Tensor):
            return first
        if len({(value.dim(), value.dtype) for value in values}) > 1:
            raise NotRecordedError
        sizes = []
        for each in zip(*(value.shape for value in values), strict=True):
            number = self._number(each)
            sizes.append(
                number.at(self._symbols.get("T", 1), self._symbols["N"])
                if isinstance(number, Formula)
                else number
            )
        return self._fake(tuple(sizes), first.dtype)

    def _fake(self, sizes: tuple[Any, ...], dtype: torch.dtype) -> Any:
        key = (dtype, *map(str, sizes))
        if key not in self._values:
            with self._mode:
                self._values[key] = torch.empty(sizes, dtype=dtype)
        return self._values[key]

    def _symbol(self, name: str, hint: int) -> Any:
        environment = self._mode.shape_env
        assert environment is not None
        source = ConstantSource(name)
        symbol = environment.create_symbol(hint, source, DimDynamic.DYNAMIC, None)
        return environment.create_symintnode(symbol, hint=hint, source=source)


def _argument_names(network: nn.Module, count: int) -> list[str]:
    """Return the names of arguments, as torch.export numbers those of a star: inputs_0."""
    names: list[str] = []
    for name, parameter in inspect.signature(network.forward).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            names += [f"{name}_{i}" for i in range(count - len(names))]
        else:
            names.append(name)
    if len(names) < count:
        raise NotRecordedError
    return names


def _equal(one: Leaf, other: Leaf) -> bool:
    assert one.value is not None
    assert other.value is not None
    return (
        one.value.shape == other.value.shape
        and one.value.dtype == other.value.dtype
        and torch.equal(one.value, other.value)
    )
