"""What help() and editors show: every argument by name, with type, default and a line of its own.

The signatures of the synapses are those of lava-dl, whose documentation lists them.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import synapse_onnx as so
from synapse_onnx.neuron import base

#: lava-dl's documentation of its synapses, and the arguments of its recorded layers
SHARED = Path(__file__).parents[3] / "shared" / "reference"

_CONVOLUTION = (
    "in_features, out_features, kernel_size, stride=1, padding=0, dilation=1, groups=1, "
    "weight_scale=1, weight_norm=False, pre_hook_fx=None"
)
_POOLING = (
    "kernel_size, stride=None, padding=0, dilation=1, weight_scale=1, weight_norm=False, "
    "pre_hook_fx=None"
)
#: synapse -> arguments in lava-dl
SYNAPSES = {
    "Dense": "in_neurons, out_neurons, weight_scale=1, weight_norm=False, pre_hook_fx=None",
    "Conv": _CONVOLUTION,
    "ConvTranspose": _CONVOLUTION,
    "Pool": _POOLING,
    "Unpool": _POOLING,
}
#: arguments that ours have besides
ADDED = {"Pool": {"merge_channels": False}, "Unpool": {"merge_channels": False}}


#: a table of types, and what functions return
RETURNED = (
    base.Arguments, so.quantize.Comparison, so.quantize.Grid, so.quantize.LayerRow,
    so.quantize.SpikeRow, so.quantize.Summary,
)  # fmt: skip


def classes() -> Iterator[tuple[str, type]]:
    """Every public class of the layers, by its name below ``so``."""
    modules: dict[str, Any] = {
        "synapse": so.synapse,
        "synapse.complex": so.synapse.complex,
        "axon": so.axon,
        "dendrite": so.dendrite,
        "quantize": so.quantize,
        "neuron.base": base,
        "neuron.norm": so.neuron.norm,
        "neuron.dropout": so.neuron.dropout,
        "block.base": so.block.base,
    }
    modules |= {f"neuron.{kind}": module for kind, module in so.neuron.kinds().items()}
    modules |= {f"block.{kind}": getattr(so.block, kind) for kind in so.neuron.kinds()}
    for path, module in modules.items():
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) and value not in RETURNED:
                yield f"{path}.{name}", value


CLASSES = dict(classes())


def documented(cls: type) -> list[str]:
    """The arguments that a class describes, or the first of its bases that describes any."""
    for each in cls.__mro__:
        doc = inspect.cleandoc(each.__dict__.get("__doc__") or "")
        section = re.search(r"^Args:\n((?: .*\n?|\n)+)", doc, re.MULTILINE)
        if section:
            # an entry and its continuation lines as one: "a, b: what they are"
            entries = re.split(r"^ {4}(?! )", section[1], flags=re.MULTILINE)[1:]
            heads = [" ".join(entry.split()).partition(":") for entry in entries]
            assert all(text.strip() for _, _, text in heads), heads
            return [name.strip() for names, _, _ in heads for name in names.split(",")]
    return []


def defaults(text: str) -> dict[str, Any]:
    """Arguments of a signature in text, with their defaults."""
    function = ast.parse(f"def f({text}): ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    names = [argument.arg for argument in function.args.args]
    values = [ast.literal_eval(value) for value in function.args.defaults]
    required = [inspect.Parameter.empty] * (len(names) - len(values))
    return dict(zip(names, [*required, *values], strict=True))


def test_they_are_all_here() -> None:
    assert len(CLASSES) > 100
    assert {"synapse.complex.Unpool", "neuron.lif.Neuron", "block.rf.KWTA"} <= set(CLASSES)
    assert {"block.sigma_delta.Output", "axon.StepDelay", "neuron.base.Common"} <= set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_every_argument_is_named_typed_and_described(name: str) -> None:
    parameters = inspect.signature(CLASSES[name]).parameters
    for parameter in parameters.values():
        assert parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD), parameter
        assert parameter.annotation not in (parameter.empty, "Any", Any), parameter
    assert documented(CLASSES[name]) == list(parameters)


@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("name", SYNAPSES)
def test_synapses_have_the_arguments_of_lava_dl(name: str, complex_: bool) -> None:
    cls = getattr(so.synapse.complex if complex_ else so.synapse, name)
    ours = {p.name: p.default for p in inspect.signature(cls).parameters.values()}
    assert list(ours.items()) == [*defaults(SYNAPSES[name]).items(), *ADDED.get(name, {}).items()]
    real = inspect.signature(getattr(so.synapse, name)).parameters
    assert list(inspect.signature(cls).parameters.values()) == list(real.values())  # types as well


def test_lava_dl_documents_these_arguments() -> None:
    page = SHARED / "synapse_api.txt"
    if not page.exists():
        pytest.skip(f"there is no documentation of lava-dl's synapses at {page}")
    pattern = r"^- class lava\.lib\.dl\.slayer\.synapse\.([\w.]+)\((.*)\)$"
    signatures = re.findall(pattern, page.read_text(), re.MULTILINE)
    assert len(signatures) == 15  # synapse, synapse.layer, synapse.complex
    for name, text in signatures:
        expected = defaults(SYNAPSES[name.rpartition(".")[2]])
        assert list(defaults(text).items()) == list(expected.items()), name


def test_recorded_arguments_fit() -> None:
    page = SHARED / "slayer" / "index.json"
    if not page.exists():
        pytest.skip(f"there is no index of layers recorded from lava-dl at {page}")
    kinds = set()
    for case in json.loads(page.read_text()):
        kind, _, name = case["kind"].rpartition(".")
        if kind == "net":
            continue
        kwargs = {key: value for key, value in case["kwargs"].items() if key != "quantize"}
        path = {"neuron": f"neuron.{name}.Neuron", "axon": "axon.Delay"}.get(kind, case["kind"])
        inspect.signature(CLASSES[path]).bind(**kwargs)
        kinds.add(path)
    assert len(kinds) == 18


@pytest.mark.parametrize("kind", so.neuron.kinds())
def test_neurons_share_their_common_arguments(kind: str) -> None:
    """Written out in every neuron: the same names, types and order."""
    common = dict(inspect.signature(base.Common).parameters)
    neuron = inspect.signature(CLASSES[f"neuron.{kind}.Neuron"]).parameters
    left_out = {"graded_spike"} if kind == "sigma_delta" else set()
    assert set(common) - set(neuron) == left_out
    shared = [name for name in neuron if name in common and name != "threshold"]
    assert shared == [name for name in common if name not in {"threshold", *left_out}]
    for name in shared:
        assert neuron[name].annotation == common[name].annotation
    assert set(base.Arguments.__annotations__) == set(common) - {"threshold"}


def test_common_arguments_take_the_place_of_one_name() -> None:
    """``**common`` in a neuron of one's own."""

    class Neuron(base.Neuron):
        equation = so.neuron.cuba.Neuron.equation

        def __init__(self, threshold: float, **common: Any) -> None:
            super().__init__(threshold, {"current_decay": 1, "voltage_decay": 0}, **common)

    parameters = inspect.signature(Neuron).parameters
    assert list(parameters) == list(inspect.signature(base.Common).parameters)
    assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[1:])
    assert parameters["scale"].default == 64
    assert Neuron(1.0, scale=32).scale == 32


def test_editors_see_the_blocks_of_every_neuron() -> None:
    """``so.block.cuba`` is made at run time: its static type names the class of every block."""
    static = so.block.Blocks.__annotations__
    labels = {name for kind in so.neuron.kinds() for name in getattr(so.block, kind).__all__}
    assert set(static) == labels
    for kind in so.neuron.kinds():
        module = getattr(so.block, kind)
        assert isinstance(module, so.block.Blocks)
        for label in module.__all__:
            block = getattr(module, label)
            assert issubclass(block, nn.Module)
            assert static[label] == f"type[base.{block.__mro__[1].__name__}]"
