"""Planted faults: what the package changes in a source text, one change a mutant.

Faults are planted in Python and in the ONNX text that stands in its strings. Left out by rule are
what computes nothing (docstrings, annotations, words, imports) and the numbers of samples.
"""

from __future__ import annotations

import ast
import difflib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

#: an operator and what stands in its place, of Python's syntax and of comparisons
OPERATORS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"), ast.Mod: ("%", "*"), ast.Pow: ("**", "*"), ast.MatMult: ("@", "*"),
    ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"), ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"), ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"), ast.Or: ("or", "and"),
}  # fmt: skip

#: functions of Python, NumPy and torch
CALLS = {
    "max": "min", "min": "max", "any": "all", "all": "any", "floor": "ceil",
    "zeros_like": "ones_like", "zeros": "ones", "ones": "zeros", "maximum": "minimum",
    "minimum": "maximum", "sin": "cos", "cos": "sin", "round": "floor",
}  # fmt: skip

#: operators of ONNX
ONNX = {
    "Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "Less": "LessOrEqual",
    "LessOrEqual": "Less", "Greater": "GreaterOrEqual", "GreaterOrEqual": "Greater", "And": "Or",
    "Or": "And", "Max": "Min", "Min": "Max", "Floor": "Ceil", "Ceil": "Floor", "Abs": "Identity",
    "Neg": "Identity", "Not": "Identity", "Equal": "LessOrEqual", "Sqrt": "Identity",
    "ReduceMax": "ReduceMin", "ReduceMin": "ReduceMax", "ReduceSum": "ReduceMax",
    "ReduceSumSquare": "ReduceSum", "Identity": "Neg", "Sin": "Cos", "Cos": "Sin",
    "BitwiseAnd": "BitwiseOr",
}  # fmt: skip
_COMMUTE = {"Add", "Mul", "And", "Or", "Equal", "Max", "Min", "BitwiseAnd"}

#: what makes the numbers of a parity test, and no output of a network
SAMPLES = {"samples", "_samples", "example", "typical"}
#: arguments that guard against faults of our own, and change nothing where there is none
GUARDS = {"strict", "safe"}

_HEAD = re.compile(r"\b([A-Z]\w+)(?=\(|<)")
_CALL = re.compile(r"(?:\b([A-Z]\w+)(?:<[^<>]*>)?|\}>)\(([^()]*)\)")
_ATTRIBUTES = re.compile(r"\b[A-Z]\w+<([^<>]*)>")
_NUMBER = re.compile(r"(?<![\w.@])-?\d+(?:\.\d*)?(?![\w.])")
_PERM = re.compile(r"perm = \[(\d+), (\d+)")


@dataclass(frozen=True)
class Mutant:
    """One fault in one file: bytes ``start`` to ``end`` of its text become ``new``."""

    path: str
    line: int
    start: int
    end: int
    old: str
    new: str
    function: str

    def apply(self, text: str) -> str:
        data = text.encode()
        return (data[: self.start] + self.new.encode() + data[self.end :]).decode()

    def is_python(self, text: str) -> bool:
        """Whether the text with its fault is still Python: a string within another may not be."""
        try:
            ast.parse(self.apply(text))
        except SyntaxError:
            return False
        return True

    def diff(self, text: str) -> str:
        lines = difflib.unified_diff(
            text.splitlines(), self.apply(text).splitlines(), self.path, self.path, "", "", 0, ""
        )
        return "\n".join(list(lines)[2:])


class _Planter:
    def __init__(self, path: str, text: str) -> None:
        self.path, self.data = path, text.encode()
        self.starts = [0]
        for line in text.encode().splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def begin(self, node: ast.AST) -> int:
        return self.starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        return self.starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def source(self, node: ast.AST) -> str:
        return self.data[self.begin(node) : self.end(node)].decode()

    def stands(self, node: ast.expr) -> bool:
        """Whether an expression of an f-string is where Python 3.11 says that it is."""
        try:
            return ast.dump(ast.parse(self.source(node), mode="eval").body) == ast.dump(node)
        except (SyntaxError, UnicodeDecodeError, IndexError):
            return False

    def mutant(self, start: int, end: int, new: str, function: str) -> Mutant:
        line = self.data.count(b"\n", 0, start) + 1
        return Mutant(self.path, line, start, end, self.data[start:end].decode(), new, function)

    def between(
        self, left: ast.AST, right: ast.AST, operator: ast.AST
    ) -> tuple[int, int, str] | None:
        """Where an operator stands between its operands, and what takes its place."""
        if type(operator) not in OPERATORS:
            return None
        old, new = OPERATORS[type(operator)]
        start, end = self.end(left), self.begin(right)
        gap = self.data[start:end].decode()
        found = re.search(re.escape(old), gap)
        return None if found is None else (start + found.start(), start + found.end(), new)

    def walk(self, node: ast.AST, function: str) -> Iterator[Mutant]:
        """Mutants of a node and of all below it."""
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            function = f"{function}.{node.name}".lstrip(".")
        for start, end, new in self.here(node):
            yield self.mutant(start, end, new, function)
        for child in self.below(node):
            yield from self.walk(child, function)

    def below(self, node: ast.AST) -> Iterator[ast.AST]:
        """Nodes below that compute something which is no sample."""
        if isinstance(node, ast.FunctionDef):
            if node.name not in SAMPLES:
                yield from node.args.defaults
                yield from (value for value in node.args.kw_defaults if value is not None)
                yield from _statements(node)
            return
        if isinstance(node, (ast.ClassDef, ast.Module)):
            yield from _statements(node)
            return
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Raise)):
            return
        if isinstance(node, ast.JoinedStr):
            values = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
            yield from (value for value in values if self.stands(value))
            return
        if isinstance(node, ast.AnnAssign):
            if node.value is not None and ast.unparse(node.target) not in SAMPLES:
                yield node.value
            return
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in {
            *SAMPLES, "__all__", "__slots__",
        }:  # fmt: skip
            return
        if isinstance(node, ast.Set):
            yield from (each for each in node.elts if not isinstance(each, ast.Constant))
            return
        if isinstance(node, ast.keyword) and node.arg in SAMPLES | GUARDS:
            return
        yield from ast.iter_child_nodes(node)

    def here(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        """Edits of one node: start, end and the new text."""
        begin, end = (self.begin(node), self.end(node)) if hasattr(node, "lineno") else (0, 0)
        match node:
            case ast.BinOp(left, operator, right):
                if edit := self.between(left, right, operator):
                    yield edit
            case ast.BoolOp(operator, values):
                for left, right in itertools.pairwise(values):
                    if edit := self.between(left, right, operator):
                        yield edit
            case ast.Compare(first, operators, rights):
                lefts = [first, *rights[:-1]]
                for left, operator, right in zip(lefts, operators, rights, strict=True):
                    if edit := self.between(left, right, operator):
                        yield edit
            case ast.UnaryOp(ast.Not() | ast.USub(), operand):
                yield begin, self.begin(operand), ""
            case ast.IfExp(test=test) | ast.If(test=test) | ast.While(test=test):
                if not isinstance(test, (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Constant)):
                    yield self.begin(test), self.end(test), f"(not ({self.source(test)}))"
            case ast.Constant(bool() as value):
                yield begin, end, str(not value)
            case ast.Constant(int() as value):
                yield begin, end, str(value + 1)
            case ast.Constant(float() as value):
                yield begin, end, repr(2 * value or 1.0)
            case ast.Constant(str() as value) if value in ONNX:
                yield begin, end, f'"{ONNX[value]}"'
            case ast.Constant(str()) | ast.JoinedStr():
                yield from self.text(node)
            case ast.Set(elements):
                for element, after in itertools.pairwise(elements):
                    yield self.begin(element), self.begin(after), ""
            case ast.Call(function, arguments):
                yield from self.call(function, arguments)
            case ast.Raise(ast.Name("NotImplementedError")):
                pass
            case ast.Expr(ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue():
                yield begin, end, "pass"
            case ast.Delete(targets) if not all(isinstance(each, ast.Name) for each in targets):
                yield begin, end, "pass"

    def call(self, function: ast.expr, arguments: list[ast.expr]) -> Iterator[tuple[int, int, str]]:
        """Another function, and a choice turned round."""
        name = function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)
        if name in CALLS:
            end = self.end(function)
            yield end - len(name), end, CALLS[name]
        if name in ("where", "reset") and len(arguments) == 3:
            _, yes, no = arguments
            swapped = f"{self.source(no)}, {self.source(yes)}"
            yield self.begin(yes), self.end(no), swapped

    def text(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        """Faults in the ONNX text of a string."""
        begin, text = self.begin(node), self.source(node)

        def edit(span: tuple[int, int], new: str) -> tuple[int, int, str]:
            offset, until = (begin + len(text[:i].encode()) for i in span)
            return offset, until, new

        for head in _HEAD.finditer(text):
            if head[1] in ONNX:
                yield edit(head.span(1), ONNX[head[1]])
        for call in _CALL.finditer(text):
            names = call[2].split(", ")
            if len(names) > 1 and call[1] not in _COMMUTE:
                i = 1 if call[1] == "Where" else 0
                names[i : i + 2] = names[i : i + 2][::-1]
                yield edit(call.span(2), ", ".join(names))
        for attributes in _ATTRIBUTES.finditer(text):
            offset = attributes.start(1)
            if perm := _PERM.match(attributes[1]):
                yield edit((offset + perm.start(1), offset + perm.end(2)), f"{perm[2]}, {perm[1]}")
                continue
            for number in _NUMBER.finditer(attributes[1]):
                value = float(number[0])
                counts = attributes[1][: number.start()].split(", ")[-1].startswith("num_")
                if counts or abs(value) >= 1 << 62:  # says how many follow; says: to the end
                    continue
                new = str(int(number[0]) + 1) if "." not in number[0] else repr(2 * value or 1.0)
                yield edit((offset + number.start(), offset + number.end()), new)


def _statements(node: ast.FunctionDef | ast.ClassDef | ast.Module) -> Iterator[ast.stmt]:
    """The body without docstrings, and without what type checkers alone read."""
    for statement in node.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        if isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
            continue
        yield statement


def plant(path: str, text: str) -> list[Mutant]:
    """Return every mutant of a file, in the order of its text; see :meth:`Mutant.is_python`."""
    found = _Planter(path, text).walk(ast.parse(text), "")
    mutants = {mutant for mutant in found if mutant.old != mutant.new}
    return sorted(mutants, key=lambda mutant: (mutant.start, mutant.end, mutant.new))
