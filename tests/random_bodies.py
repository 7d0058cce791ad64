"""Random bodies of Scans: operators, types, shapes and values drawn from a seed."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto
from scans import Array, Body

#: shapes of the neurons, and those that repeat to them
SHAPES = (
    ((5,), (1,), ()),
    ((3, 5), (5,), (3, 1), (1, 1), ()),
    ((2, 3, 4), (3, 1), (2, 1, 1), (1, 3, 4), (4,), ()),
    ((33, 40), (40,), (33, 1), ()),
    ((700,), (), (1,)),
    ((0, 4), (4,), (1, 1), ()),
)
FLOATS, INTEGERS = (np.float32, np.float64), (np.int32, np.int64)
TYPES = (*FLOATS, *INTEGERS, np.bool_)
_TO = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE, np.int32: TensorProto.INT32,
       np.int64: TensorProto.INT64, np.bool_: TensorProto.BOOL}  # fmt: skip
_SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, 1.5, -2.5, np.nan, np.inf, -np.inf, 1e-40, 3e9, -1e19)

_ARITHMETIC = ("Add", "Sub", "Mul", "Max", "Min")
_COMPARISONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")


class _Draw:
    """Draws a body; ``kinds`` is the type and the shape of each value."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.shapes = SHAPES[rng.integers(len(SHAPES))]
        self.steps = int(rng.choice([1, 2, 3, 9]))
        # most are of floats alone, as neurons are
        self.types = (np.float32, np.bool_) if rng.random() < 0.5 else TYPES
        self.body = Body({}, {})
        self.kinds: dict[str, tuple[type, tuple[int, ...]]] = {}

    def pick(self, values: tuple | list):
        return values[self.rng.integers(len(values))]

    def array(self, kind: type, shape: tuple[int, ...]) -> Array:
        rng = self.rng
        if kind is np.bool_:
            return rng.random(shape) < 0.5
        if kind in INTEGERS:
            small = rng.integers(-9, 10, shape)
            return np.where(rng.random(shape) < 0.1, np.iinfo(kind).max - small, small).astype(kind)
        values = rng.normal(0, 2, shape)
        special = rng.choice(_SPECIAL, shape)
        return np.asarray(np.where(rng.random(shape) < 0.15, special, values), kind)

    def shape(self) -> tuple[int, ...]:
        """Most values have the shape of the neurons."""
        return self.shapes[0] if self.rng.random() < 0.6 else self.pick(self.shapes)

    def value(self, *kinds: type) -> str:
        """A value of one of some types: one that is there, or a new constant."""
        there = [name for name, (kind, _) in self.kinds.items() if kind in kinds]
        if there and self.rng.random() < 0.8:
            # late ones, so that chains grow
            return there[max(self.rng.integers(len(there)), self.rng.integers(len(there)))]
        return self.captured(self.pick(kinds), self.pick(self.shapes))

    def captured(self, kind: type, shape: tuple[int, ...]) -> str:
        """A new value of the graph around the body."""
        name = f"c{len(self.body.captured)}"
        self.body.captured[name] = np.asarray(self.array(kind, shape), kind)
        if self.rng.random() < 0.5:
            self.body.constants.add(name)
        self.kinds[name] = kind, shape
        return name

    def without_sign(self, result: str) -> None:
        """Take the sign of its zeros from a result, which alone is read from then on.

        Of 0 and -0 ONNX Runtime's Max, Min and Where give either.
        """
        kind, _ = self.kinds[result]
        name = f"c{len(self.body.captured)}"
        self.body.captured[name] = np.zeros((), kind)
        self.kinds[name] = kind, ()
        self.add("Add", result, name)
        del self.kinds[result]

    def same(self, name: str) -> str:
        """Another value of the type of one."""
        return self.value(self.kinds[name][0])

    def add(self, op: str, *inputs: str, kind: type | None = None, **attributes: int) -> str:
        kinds = [self.kinds[name] for name in inputs]
        shape = np.broadcast_shapes(*(shape for _, shape in kinds))
        result = self.body.add(op, *inputs, **attributes)
        self.kinds[result] = kind or kinds[-1][0], shape
        return result

    def operator(self) -> None:
        numbers = [kind for kind in self.types if kind is not np.bool_]
        floats = [kind for kind in self.types if kind in FLOATS]
        integers = [kind for kind in self.types if kind in INTEGERS]
        which = self.rng.random()
        if which < 0.4:
            a = self.value(*numbers)
            result = self.add(self.pick(_ARITHMETIC), a, self.same(a))
            if self.body.nodes[-1].op_type in ("Max", "Min"):
                self.without_sign(result)
        elif which < 0.55:
            a = self.value(*numbers)
            self.add(self.pick(_COMPARISONS), a, self.same(a), kind=np.bool_)
        elif which < 0.62:
            a = self.value(*floats)
            op = self.pick(("Floor", "Ceil", "Round", "Sqrt", "Relu", "Reciprocal", "Div", "Mod"))
            if op == "Div":
                self.add(op, a, self.same(a))
            elif op == "Mod":
                self.add(op, a, self.same(a), fmod=1)
            else:
                self.add(op, a)
        elif which < 0.7:
            self.add(self.pick(("Neg", "Abs", "Sign")), self.value(*numbers))
        elif which < 0.78:
            a = self.value(*numbers)
            self.without_sign(self.add("Where", self.value(np.bool_), a, self.same(a)))
        elif which < 0.84:
            op = self.pick(("And", "Or", "Xor", "Equal", "Not"))
            inputs = [self.value(np.bool_) for _ in range(1 if op == "Not" else 2)]
            self.add(op, *inputs)
        elif which < 0.96 or not integers:
            to = self.pick(self.types)
            self.add("Cast", self.value(*self.types), kind=to, to=_TO[to])
        else:
            kind = self.pick(integers)
            name = f"c{len(self.body.captured)}"
            self.body.captured[name] = np.array(self.pick((2, 3, -7, 10)), kind)
            self.body.constants.add(name)
            a = self.value(kind)
            op = self.pick(("Div", "Mod", "fmod"))
            attributes = {} if op == "Div" else {"fmod": int(op == "fmod")}
            self.kinds[name] = kind, ()
            self.add("Mod" if op == "fmod" else op, a, name, **attributes)


def random_body(seed: int) -> Body:
    """Return the body of a seed, with values."""
    draw = _Draw(seed)
    body, rng = draw.body, draw.rng
    for i in range(rng.integers(0, 4)):
        kind, shape = draw.pick(draw.types), draw.shape()
        body.states[f"s{i}"] = np.asarray(draw.array(kind, shape), kind)
        draw.kinds[f"s{i}"] = kind, shape
    for i in range(rng.integers(1, 4)):
        kind, shape = draw.pick(draw.types), draw.shape()
        body.sequences[f"x{i}"] = np.asarray(draw.array(kind, (draw.steps, *shape)), kind)
        draw.kinds[f"x{i}"] = kind, shape
    for _ in range(rng.integers(1, 25)):
        draw.operator()
    for name in body.states:
        fitting = [other for other, kind in draw.kinds.items() if kind == draw.kinds[name]]
        body.next_states.append(fitting[max(rng.integers(len(fitting), size=2))])
    names = list(draw.kinds)
    body.outputs = [names[max(rng.integers(len(names), size=2))] for _ in range(rng.integers(1, 5))]
    return body
