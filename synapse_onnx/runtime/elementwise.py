"""Scans of elementwise operators become one node for the native kernel, before a model is loaded.

The file holds a neuron that no kernel knows as a Scan, which ONNX Runtime runs operator by operator
at each step. Where its body holds elementwise operators alone, the kernel ElementwiseScan takes
blocks of neurons through all steps instead. Its node has the body as a program::

    v_last, s = Scan <body = (v, x) { u = Mul (v, decay)  v' = Add (u, x)
                                      b = Greater (v', one)  s' = Cast <to = 1> (b) }> (v0, x)
    v_last, s = ai.synapse.ElementwiseScan <operators = "Mul Add Greater CastToFloat",
        operands = [0, 2, -1, 4, 1, -1, 5, 3, -1, 6, -1, -1], results = [5, 7],
        states = 1, sequences = 1> (v0, x, decay, one)

Values are numbered: the inputs of the node, then the result of each operator. All other Scans stay.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from synapse_onnx.model.graph import DOMAIN, constants_of

if TYPE_CHECKING:
    import onnx

__all__ = ["OP", "Signatures", "replaceable", "replaced", "signatures_of"]

#: the op of the kernel; no file has it
OP = "ElementwiseScan"

#: operator and letters of the types of its inputs -> the letter of its result
Signatures = Mapping[tuple[str, str], str]

#: types of ONNX -> the letters that the library has for them
_LETTERS = {1: "f", 11: "d", 6: "i", 7: "l", 9: "b"}
_TYPES = {letter: number for number, letter in _LETTERS.items()}
#: types that a Cast goes to -> the kernel's operator
_CASTS = {1: "CastToFloat", 11: "CastToDouble", 6: "CastToInt32", 7: "CastToInt64", 9: "CastToBool"}
#: operators with attributes that are read here; of no other is one understood
_ATTRIBUTES = {"Cast": {"to", "saturate"}, "Mod": {"fmod"}}
#: attributes of a Scan that say where time lies in a sequence, and its direction; 0 is the usual
_ORDERS = (
    "scan_input_axes", "scan_output_axes", "scan_input_directions", "scan_output_directions",
)  # fmt: skip


def signatures_of(text: str) -> dict[tuple[str, str], str]:
    """Return what a library says of its operators: "Add:ff>f Less:ff>b" and so on."""
    found = {}
    for part in text.split():
        name, _, types = part.partition(":")
        inputs, _, output = types.partition(">")
        found[name, inputs] = output
    return found


def replaceable(model: onnx.ModelProto, signatures: Signatures) -> bool:
    """Return whether a model has a Scan that :func:`replaced` replaces."""
    return bool(_programs(model, signatures))


def replaced(model: onnx.ModelProto, signatures: Signatures) -> onnx.ModelProto | None:
    """Return a copy of a model with the Scans of elementwise operators replaced; None without one.

    Args:
        model: the model; it is not changed.
        signatures: the operators of the kernel, from :func:`native.elementwise`.
    """
    programs = _programs(model, signatures)
    if not programs:
        return None
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    stated = {value.name for value in (*graph.value_info, *graph.output)}
    for number, program in programs.items():
        node = graph.node[number]
        for name, kind in zip(node.output, program.types, strict=True):
            if name not in stated:  # ONNX Runtime infers no types of our op
                graph.value_info.add(name=name).type.CopyFrom(kind)
        graph.initializer.extend(program.constants)
        node.op_type, node.domain = OP, DOMAIN
        del node.input[:], node.attribute[:]
        node.input.extend(program.inputs)
        node.attribute.extend(
            onnx.helper.make_attribute(name, value) for name, value in program.attributes().items()
        )
    if all(opset.domain != DOMAIN for opset in copied.opset_import):
        copied.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return copied


def _programs(model: onnx.ModelProto, signatures: Signatures) -> dict[int, _Program]:
    """Return the places of the nodes that are replaced, each with its program."""
    graph = model.graph
    scans = [i for i, node in enumerate(graph.node) if node.op_type == "Scan" and not node.domain]
    if not signatures or not scans:
        return {}
    around = _Around(graph)
    found = {}
    for number in scans:
        with contextlib.suppress(_OtherError):
            found[number] = _Program(graph.node[number], around, signatures)
    return found


class _OtherError(Exception):
    """A Scan holds what the kernel does not compute."""


def _need(condition: object) -> None:
    if not condition:
        raise _OtherError


class _Around:
    """The graph around the Scans: types and constants of its values, and names that are free."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = constants_of(graph)
        self.types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        for value in (*graph.value_info, *graph.input, *graph.output):
            self.types[value.name] = value.type.tensor_type.elem_type
        self._taken = {*self.types, *(name for node in graph.node for name in node.output)}

    def new_name(self) -> str:
        """Return a name that no value has."""
        name = next(n for i in itertools.count() if (n := f"body.constant_{i}") not in self._taken)
        self._taken.add(name)
        return name


class _Program:
    """The body of a Scan as a program.

    Attributes:
        inputs: names of the inputs of the node.
        types: types of its outputs.
        constants: the body's own constants, for the graph around it.

    Raises:
        _OtherError: the kernel does not compute it.
    """

    def __init__(self, scan: onnx.NodeProto, around: _Around, signatures: Signatures) -> None:
        self._around, self._signatures = around, signatures
        given = {attribute.name: attribute for attribute in scan.attribute}
        body = given["body"].g
        _need(not any(order in given and any(given[order].ints) for order in _ORDERS))
        _need(len(body.input) == len(scan.input) and len(body.output) == len(scan.output))
        _need(all(scan.input) and all(scan.output) and not body.sparse_initializer)
        self._sequences = given["num_scan_inputs"].i
        self._states = len(scan.input) - self._sequences
        self.inputs = list(scan.input)
        self.constants: list[onnx.TensorProto] = []
        #: values by name: inputs from 0 on, results from -1 on downwards until all inputs are known
        self._numbers = {value.name: i for i, value in enumerate(body.input)}
        self._letters = {
            i: self._letter(value.type.tensor_type.elem_type) for i, value in enumerate(body.input)
        }
        self._operators: list[tuple[str, list[int]]] = []
        for tensor in body.initializer:
            self._numbers[tensor.name] = self._constant(tensor)
        for node in body.node:
            _need(not node.domain and len(node.output) == 1)
            self._numbers[node.output[0]] = self._compiled(node)
        self._results = [self._number(value.name) for value in body.output]
        self.types = [self._type_of(value, i) for i, value in enumerate(body.output)]

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the node."""

        def final(number: int) -> int:
            return number if number >= 0 else len(self.inputs) - 1 - number

        operands = [
            [*map(final, numbers), *[-1] * (3 - len(numbers))] for _, numbers in self._operators
        ]
        return {
            "states": self._states,
            "sequences": self._sequences,
            "operators": " ".join(name for name, _ in self._operators),
            "operands": np.array(operands, np.int64).ravel().tolist() or [-1],
            "results": [final(number) for number in self._results],
        }

    @staticmethod
    def _letter(elem_type: int) -> str:
        _need(elem_type in _LETTERS)
        return _LETTERS[elem_type]

    def _type_of(self, value: onnx.ValueInfoProto, place: int) -> onnx.TypeProto:
        """Return the type of an output of the node, from that of the body."""
        import onnx

        kind, inner = onnx.TypeProto(), value.type.tensor_type
        kind.tensor_type.elem_type = _TYPES[self._letters[self._results[place]]]
        if inner.HasField("shape"):
            if place >= self._states:
                kind.tensor_type.shape.dim.add()  # time, of any size
            kind.tensor_type.shape.dim.extend(inner.shape.dim)
        return kind

    # -- values --------------------------------------------------------------------------------

    def _number(self, name: str) -> int:
        """Return the number of a value that the body reads."""
        if name not in self._numbers:
            self._numbers[name] = self._captured(name, self._around.types.get(name, 0))
        return self._numbers[name]

    def _captured(self, name: str, elem_type: int) -> int:
        number = len(self.inputs)
        self._letters[number] = self._letter(elem_type)
        self.inputs.append(name)
        return number

    def _constant(self, tensor: onnx.TensorProto) -> int:
        """Return the number of a constant of the body, which becomes one of the graph around it."""
        copied = type(tensor)()
        copied.CopyFrom(tensor)
        copied.name = self._around.new_name()
        self.constants.append(copied)
        self._around.constants[copied.name] = copied
        return self._captured(copied.name, copied.data_type)

    def _limit(self, letter: str, *, highest: bool) -> int:
        """Return the number of the highest or lowest finite value of a type."""
        import onnx.numpy_helper

        dtype = onnx.helper.tensor_dtype_to_np_dtype(_TYPES[letter])
        _need(dtype.kind in "fi")
        limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        value = limits.max if highest else limits.min
        return self._constant(onnx.numpy_helper.from_array(np.array(value, dtype)))

    def _known(self, number: int) -> np.ndarray[Any, Any] | None:
        """Return the values of a constant; None of what is none."""
        import onnx.numpy_helper

        name = self.inputs[number] if number >= 0 else ""
        tensor = self._around.constants.get(name)
        return None if tensor is None else onnx.numpy_helper.to_array(tensor)

    # -- operators -----------------------------------------------------------------------------

    def _compiled(self, node: onnx.NodeProto) -> int:
        """Return the number of an operator's result."""
        given = {attribute.name: attribute for attribute in node.attribute}
        op = node.op_type
        if op == "Constant":
            return self._constant_node(given)
        _need(given.keys() <= _ATTRIBUTES.get(op, set()))
        inputs = [self._number(name) if name else None for name in node.input]
        if op == "Clip":
            return self._clip(inputs)
        numbers = [number for number in inputs if number is not None]
        _need(numbers and len(numbers) == len(inputs))
        letters = [self._letters[number] for number in numbers]
        if op == "Identity":
            return numbers[0]
        if op == "Cast":
            to = given["to"].i
            same = _LETTERS.get(to) == letters[0]
            return numbers[0] if same else self._add(_CASTS.get(to, ""), *numbers)
        if op in ("Max", "Min"):
            found = numbers[0]
            for other in numbers[1:]:
                found = self._add(op, found, other)
            return found
        if op == "Pow":
            return self._pow(*numbers)
        if op == "Mod" and "fmod" in given and given["fmod"].i:
            op = "Fmod"
        if op in ("Div", "Mod", "Fmod") and letters[1] in "il":
            # 0 and -1 may end the process, as they do in ONNX Runtime
            divisor = self._known(numbers[1])
            _need(divisor is not None and not np.isin(divisor, (0, -1)).any())
        _need(op != "Mod" or letters[0] in "il")
        return self._add(op, *numbers)

    def _add(self, op: str, *numbers: int) -> int:
        """Add an operator of the kernel."""
        key = op, "".join(self._letters[number] for number in numbers)
        _need(key in self._signatures)
        self._operators.append((op, list(numbers)))
        number = -len(self._operators)
        self._letters[number] = self._signatures[key]
        return number

    def _constant_node(self, given: Mapping[str, onnx.AttributeProto]) -> int:
        import onnx

        if given.keys() == {"value"}:
            return self._constant(given["value"].t)
        if given.keys() == {"value_float"}:
            tensor = onnx.helper.make_tensor(
                "", onnx.TensorProto.FLOAT, (), [given["value_float"].f]
            )
            return self._constant(tensor)
        if given.keys() == {"value_int"}:
            tensor = onnx.helper.make_tensor("", onnx.TensorProto.INT64, (), [given["value_int"].i])
            return self._constant(tensor)
        raise _OtherError

    def _clip(self, inputs: list[int | None]) -> int:
        """Add a Clip; a bound that is left out is the highest or lowest finite value."""
        value, low, high = [*inputs, None, None][:3]
        _need(value is not None and len(inputs) > 1)
        assert value is not None
        letter = self._letters[value]
        low = self._limit(letter, highest=False) if low is None else low
        high = self._limit(letter, highest=True) if high is None else high
        return self._add("Clip", value, low, high)

    def _pow(self, value: int, exponent: int) -> int:
        """Add a power; ONNX Runtime multiplies for one exponent of 2 or 3."""
        known = self._known(exponent)
        if known is not None and known.size == 1 and known.item() in (2, 3):
            _need(known.ndim == 0)
            square = self._add("Mul", value, value)
            return square if known.item() == 2 else self._add("Mul", square, value)
        return self._add("Pow", value, exponent)
