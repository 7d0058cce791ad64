"""The proof by construction: a model is the file that its network compiles to.

A model holds the options of its export. So its network is compiled again, and the two files are
compared whole: nodes with their attributes, initialisers, inputs and outputs, the bodies of our
ops, the metadata that a session reads. Nothing is run for it, so a fault is found where no sample
shows it, too: a threshold that is off by 1/4096, a loop for large sums, a state that starts from
another number.

A file that a tool has written anew (inlined, optimised) has other nodes. It is recognised as such,
and judged by the run, and by those of its nodes and parameters that are still there. If constants
were only folded, and nodes shared, dropped or renamed, it is proved all the same (``normal_form``).
"""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx

from synapse_onnx.compiler.copies import copied_value
from synapse_onnx.compiler.exporter import compile_frozen
from synapse_onnx.errors import SynapseError
from synapse_onnx.model.graph import DOMAIN, dims_of
from synapse_onnx.model.metadata import entries_of, layer_of
from synapse_onnx.model.tiles import body_of, is_in_tiles, without_tiles
from synapse_onnx.verification.findings import Findings
from synapse_onnx.verification.normal_form import same_outputs
from synapse_onnx.verification.structure import compare_parameters, value_differences
from synapse_onnx.verification.subject import Subject

__all__ = ["compare_construction", "differences"]

#: most characters of a value that a sentence shows
_SHOWN = 60

#: what a sentence says "are" of
_PLURALS = {"inputs", "outputs", "layers", "notes", "states"}

#: metadata that say who wrote a file
_WRITER = ("version", "torch_version")

#: fields of a tensor of which one holds its values
_VALUES = (
    "raw_data", "float_data", "int32_data", "int64_data", "uint64_data", "double_data",
    "string_data",
)  # fmt: skip

#: differences of one file that are told
_TOLD = 12


def compare_construction(subject: Subject, findings: Findings) -> None:
    """Compare a model with what its network compiles to.

    What differs is a problem of the report. Where the model cannot be compared, or not as a whole,
    the report says that it is judged by the run alone, and why.
    """
    if subject.reference is not None:
        findings.by_run_alone(
            f"the reference is {subject.reference.kind}, not the network that was exported"
        )
        return
    if subject.metadata is None:
        _leave_to_the_run(subject, findings, "the file was not written by synapse-onnx")
        return
    try:
        options, frozen = subject.metadata.options, copied_value(subject.frozen)
        compiled = compile_frozen(frozen, subject.arguments, options)
    except SynapseError as error:
        _leave_to_the_run(subject, findings, f"the network does not compile again: {error}")
        return
    comparison = _Comparison(subject, compiled)
    reason = _rewritten(subject.model, compiled)
    if reason:
        _leave_to_the_run(subject, findings, reason)
        found = list(comparison.of_known_nodes())
    else:
        found = differences(subject, compiled)
        if found and comparison.is_the_same_in_normal_form():
            findings.note("a tool has written the file anew; it computes the same, node by node")
            return
    for sentence in found[:_TOLD]:
        findings.problem(sentence)
    if len(found) > _TOLD:
        findings.problem(f"{len(found) - _TOLD} more differences from what the network compiles to")


def _leave_to_the_run(subject: Subject, findings: Findings, reason: str) -> None:
    """Report why the files are not compared whole; parameters still are, by their names."""
    findings.by_run_alone(reason)
    compare_parameters(subject, findings)


def differences(subject: Subject, compiled: onnx.ModelProto) -> list[str]:
    """Return a sentence for everything in which the model is not the compiled one."""
    return list(_Comparison(subject, compiled).of_files())


def _rewritten(model: onnx.ModelProto, compiled: onnx.ModelProto) -> str:
    """Return by what a model is no longer the file of an export, or of this version's; or ""."""
    writers = [[entries_of(m).get(name) for name in _WRITER] for m in (model, compiled)]
    if writers[0] != writers[1]:
        return "the file was written by synapse-onnx {} with torch {}".format(*writers[0])
    if compiled.functions and not model.functions:
        return "the functions of the file are inlined"
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx", DOMAIN})
    if foreign:
        return f"a tool has written operators of {', '.join(foreign)} into the file"
    if model.producer_name != compiled.producer_name:
        return f"the file was last written by {model.producer_name or 'a nameless tool'}"
    return ""


class _Comparison:
    """A model beside what its network compiles to; the methods yield sentences on what differs.

    What serves only outputs that are not compared is spared.
    """

    def __init__(self, subject: Subject, compiled: onnx.ModelProto) -> None:
        self.subject, self.model, self.compiled = subject, subject.model, compiled

    def of_files(self) -> Iterator[str]:
        """Compare everything that decides on what a file computes."""
        yield from self._beside_the_graph()
        yield from self._nodes()
        yield from self._initializers()
        for kind in ("input", "output", "value_info"):
            yield from self._types(kind)

    def of_known_nodes(self) -> Iterator[str]:
        """Compare those of our nodes that a file still has."""
        compiled = without_tiles(self.compiled).graph
        expected = {node.name: node for node in compiled.node if node.domain == DOMAIN}
        for node in without_tiles(self.model).graph.node:
            other = expected.get(node.name)
            if other is not None and node.op_type == other.op_type and not self._spares(node):
                yield from _attributes(node, other)

    def is_the_same_in_normal_form(self) -> bool:
        """Whether the graphs compute the same, and all beside them is equal."""
        beside = (*self._beside_the_graph(), *self._types("input"), *self._types("output"))
        if beside:
            return False
        try:
            return same_outputs(self.model, self.compiled)
        except Exception:  # of any class: passes of onnxscript do not take every graph
            return False  # the differences that were found stand

    def _spares(self, node: onnx.NodeProto) -> bool:
        return self.subject.spares([node])

    def _beside_the_graph(self) -> Iterator[str]:
        """Compare metadata, opsets and function bodies; what is there twice is wrong."""
        stored, expected = entries_of(self.model), entries_of(self.compiled)
        yield from _repeated("metadata", (prop.key for prop in self.model.metadata_props))
        for name in expected:  # a user may have added others, as for `play`
            if name not in _WRITER and stored.get(name) != expected[name]:
                yield _sentence(f"metadata {name}", stored.get(name), expected.get(name))
        opsets = [
            {entry.domain: entry.version for entry in model.opset_import}
            for model in (self.model, self.compiled)
        ]
        for domain in _names(*opsets):
            versions = [versions_of.get(domain) for versions_of in opsets]
            if versions[0] != versions[1]:
                yield _sentence(f"the opset of domain {domain or 'ai.onnx'}", *versions)
        tensors = self.model.graph.initializer
        for tensor in tensors:
            if sum(len(getattr(tensor, field)) > 0 for field in _VALUES) > 1:
                yield f"initialiser {tensor.name} has values in several fields, of which one counts"
        names = [entry.domain or "ai.onnx" for entry in self.model.opset_import]
        yield from _repeated("the opset of domain", names)
        bodies = [
            {_name_of(function): function for function in model.functions}
            for model in (self.model, self.compiled)
        ]
        yield from _repeated("the body of", map(_name_of, self.model.functions))
        yield from _ambiguous(self.model.graph)
        for name in _names(*bodies):
            yield from _body(name, *(bodies_of.get(name) for bodies_of in bodies))

    def _nodes(self) -> Iterator[str]:
        stored = {node.name: node for node in self.model.graph.node}
        expected = {node.name: node for node in self.compiled.graph.node}
        if len(stored) < len(self.model.graph.node):
            yield "nodes of the file have no name, or one name"
        for name in _names(stored, expected):
            node, other = stored.get(name), expected.get(name)
            if node is None or other is None:
                kind = (node or other or onnx.NodeProto()).op_type
                where = "is missing in the file" if node is None else "is not of this network"
                yield f"node {name} ({kind}) {where}"
            elif not (self._spares(node) and self._spares(other)):
                yield from _node(node, other)

    def _initializers(self) -> Iterator[str]:
        stored, expected = (
            {tensor.name: tensor for tensor in without_tiles(model).graph.initializer}
            for model in (self.model, self.compiled)
        )
        for name in _names(stored, expected):
            tensor, other = stored.get(name), expected.get(name)
            if self.subject.spares_value(name):
                continue
            if tensor is None or other is None:
                where = "is missing in the file" if tensor is None else "is not of this network"
                yield f"initialiser {name} {where}"
            elif tensor.data_type != other.data_type:
                types = [onnx.TensorProto.DataType.Name(t.data_type) for t in (tensor, other)]
                yield _sentence(f"the type of initialiser {name}", *types)
            else:
                yield from value_differences(
                    name, onnx.numpy_helper.to_array(tensor), onnx.numpy_helper.to_array(other)
                )

    def _types(self, kind: str) -> Iterator[str]:
        """Compare names, types and shapes of inputs, of outputs or of the values between them."""
        stored, expected = (
            {value.name: _type_of(value) for value in getattr(model.graph, kind)}
            for model in (self.model, self.compiled)
        )
        names = [
            [value.name for value in getattr(model.graph, kind)]  # of which two may be one
            for model in (self.model, self.compiled)
        ]
        if kind != "value_info" and names[0] != names[1]:
            yield _sentence(f"the {kind}s", *map(", ".join, names))
        for name in stored.keys() & expected.keys():
            if stored[name] != expected[name]:
                yield _sentence(f"the type of {name}", stored[name], expected[name])


def _node(node: onnx.NodeProto, other: onnx.NodeProto) -> Iterator[str]:
    """Compare one node with the one of the same name."""
    kinds = [f"{n.domain}.{n.op_type} {n.overload}".strip(". ") for n in (node, other)]
    if kinds[0] != kinds[1]:
        yield _sentence(f"the operator of node {node.name}", *kinds)
        return
    for side in ("input", "output"):
        ends = [list(getattr(n, side)) for n in (node, other)]
        if ends[0] != ends[1]:
            yield _sentence(f"the {side}s of node {node.name}", *map(", ".join, ends))
    if layer_of(node) != layer_of(other):
        yield _sentence(f"the layer of node {node.name}", layer_of(node), layer_of(other))
    yield from _attributes(node, other)


def _attributes(node: onnx.NodeProto, other: onnx.NodeProto) -> Iterator[str]:
    stored, expected = ({a.name: a for a in n.attribute} for n in (node, other))
    for name in _names(stored, expected):
        values = [attributes.get(name) for attributes in (stored, expected)]
        if values[0] != values[1]:
            inside = list(_tile(node, other)) if name == "body" else []
            yield from inside or [_sentence(f"{name} of node {node.name}", *map(_value_of, values))]


def _tile(node: onnx.NodeProto, other: onnx.NodeProto) -> Iterator[str]:
    """Compare the nodes of two tiles."""
    if is_in_tiles(node) and is_in_tiles(other):
        for one, expected in zip(*(body_of(n).node for n in (node, other)), strict=False):
            yield from _node(one, expected)


def _repeated(what: str, names: Iterable[str]) -> Iterator[str]:
    """Yield a sentence on every name that is there more than once: programs take either one."""
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{what} {name} is in the file {count} times"


def _ambiguous(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield a sentence on every part of a graph, and of those in it, that programs read otherwise.

    Of several values of a Constant ONNX Runtime takes the first. A sparse initialiser of a subgraph
    hides a value around it of the same name, and onnx_ir does not read it.
    """
    if graph.sparse_initializer:
        yield "the file has sparse initialisers, and an export has none"
    yield from _repeated("initialiser", (tensor.name for tensor in graph.initializer))
    for node in graph.node:
        named = (attribute.name for attribute in node.attribute)
        yield from _repeated(f"in node {node.name} the attribute", named)
        if node.op_type == "Constant" and not node.domain and len(node.attribute) != 1:
            yield f"node {node.name} (Constant) has {len(node.attribute)} values, and needs one"
        for attribute in node.attribute:
            for within in (attribute.g, *attribute.graphs):
                yield from _ambiguous(within)


def _name_of(function: onnx.FunctionProto) -> str:
    return " ".join(filter(None, (function.name, function.overload)))


def _body(
    name: str, body: onnx.FunctionProto | None, other: onnx.FunctionProto | None
) -> Iterator[str]:
    """Compare the body of an op with what this version writes for the nodes of the network."""
    if body is None or other is None:
        yield f"the body of {name} {'is missing' if body is None else 'belongs to no node'}"
    elif body != other:
        pairs = itertools.zip_longest(body.node, other.node)
        where = next((i for i, (node, expected) in enumerate(pairs) if node != expected), None)
        place = "its inputs, outputs or opsets differ" if where is None else f"node {where} differs"
        yield f"the body of {name} is not what the network compiles to: {place}"


def _type_of(value: onnx.ValueInfoProto) -> str:
    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"{kind}[{', '.join(map(str, dims_of(value)))}]"


def _value_of(attribute: onnx.AttributeProto | None) -> Any:
    if attribute is None:
        return None
    if attribute.ref_attr_name:
        return f"a reference to {attribute.ref_attr_name}"
    value = onnx.helper.get_attribute_value(attribute)
    return "another graph" if isinstance(value, onnx.GraphProto) else value


def _names(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return the keys of both, in the order of the network."""
    return list(dict.fromkeys([*expected, *stored]))


def _sentence(what: str, stored: object, expected: object) -> str:
    texts = [" ".join(str(value).split()) for value in (stored, expected)]
    pairs = itertools.zip_longest(*texts)
    begin = next((i for i, (one, other) in enumerate(pairs) if one != other), 0)
    # long texts are shown from just before the place where they part
    begin = max(begin - 20, 0) if min(map(len, texts)) > _SHOWN else 0
    texts = [
        ("..." if begin else "") + textwrap.shorten(text[begin:], _SHOWN, placeholder="...")
        for text in texts
    ]
    verb = "are" if what.partition(" of ")[0].split()[-1] in _PLURALS else "is"
    if texts[0] == texts[1]:
        return f"{what} {verb} not what the network compiles to"
    return f"{what} {verb} {texts[0]} in the file, and the network compiles to {texts[1]}"
