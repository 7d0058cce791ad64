"""Layers that torch does not know to be part of a network are refused, wherever they are kept."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler._calls import check_calls
from synapse_onnx.compiler.arguments import Arguments

X = torch.rand(2, 3, 6)


class Holds(nn.Module):
    """Keeps a value in an attribute, and calls what a function finds in it."""

    def __init__(self, kept: Any, find: Callable[[Any], Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.__dict__["layers"] = kept
        self.find = find

    def forward(self, x: Tensor) -> Tensor:
        return self.find(self.layers)(x)


def dense() -> so.synapse.Dense:
    return so.synapse.Dense(3, 3)


def closing_over(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        return layer(x)

    return function


def with_default(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor, layer: nn.Module = layer) -> Tensor:
        return layer(x)

    return function


class Helper:
    """An object with a layer and a method."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def call(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Bare(nn.Module):
    """Without weights, around a list of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = [dense()]

    def forward(self, x: Tensor) -> Tensor:
        return self.inner[0](x)


def itself(kept: Any) -> Any:
    return kept


LIST, DICT, ATTRIBUTE = "use nn.ModuleList", "use nn.ModuleDict", "make it an attribute of"
PLACES: dict[str, tuple[Any, Callable[[Any], Any], str, str]] = {
    "list": ([dense(), dense()], lambda k: k[1], "layers[1] is a Dense in a plain list", LIST),
    "tuple": ((nn.ReLU(), dense()), lambda k: k[1], "layers[1] is a Dense in a plain tuple", LIST),
    "set": ({dense()}, lambda k: next(iter(k)), "one of layers is a Dense in a plain set", LIST),
    "dict": ({"a": dense()}, lambda k: k["a"], "layers['a'] is a Dense in a plain dict", DICT),
    "nested": (
        {"a": [nn.ReLU(), (dense(),)]},
        lambda k: k["a"][1][0],
        "layers['a'][1][0] is a Dense in a plain tuple",
        LIST,
    ),
    "attribute": (dense(), itself, "layers is a Dense in a plain attribute", ATTRIBUTE),
    "closure": (closing_over(dense()), itself, "layer of layers() is a Dense in a clos", ATTRIBUTE),
    "default": (with_default(dense()), itself, "a default of layers() is a Dense in a", ATTRIBUTE),
    "partial": (
        functools.partial(closing_over, dense()),
        lambda k: k(),
        "layers is a Dense in a functools.partial",
        ATTRIBUTE,
    ),
    "method": (dense().__call__, itself, "layers.__self__ is a Dense in a bound met", ATTRIBUTE),
    "object": (
        Helper(dense()),
        lambda k: k.call,
        "layers.layer is a Dense in a Helper",
        ATTRIBUTE,
    ),
    "namespace": (
        types.SimpleNamespace(a=dense()),
        lambda k: k.a,
        "layers.a is a Dense in a SimpleNamespace",
        ATTRIBUTE,
    ),
    "torch's": ([nn.Linear(6, 6)], lambda k: k[0], "layers[0] is a Linear in a plain list", LIST),
    "buffers": (
        [nn.BatchNorm1d(3, affine=False)],
        lambda k: k[0],
        "layers[0] is a BatchNorm1d in a plain list",
        LIST,
    ),
    "container": (
        [nn.Sequential(nn.ReLU(), nn.Linear(6, 6))],
        lambda k: k[0],
        "layers[0] is a Sequential in a plain list",
        LIST,
    ),
    "in a module without weights": (
        [Bare()],
        lambda k: k[0],
        "layers[0].inner[0] is a Dense in a plain list",
        LIST,
    ),
    "forward is called": ([dense()], lambda k: k[0].forward, "layers[0] is a Dense in a pl", LIST),
    "weights are read": (
        [nn.Linear(6, 6)],
        lambda k: lambda x: nn.functional.linear(x, k[0].weight),
        "layers[0] is a Linear in a plain list",
        LIST,
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", ["", "outer."])
def test_layers_that_torch_does_not_see(place: str, path: str) -> None:
    kept, find, message, remedy = PLACES[place]
    module: nn.Module = Holds(kept, find)
    if path:
        outer, module = module, nn.Module()
        module.outer = outer
        module.forward = types.MethodType(lambda self, x: self.outer(x), module)
    with pytest.raises(so.ExportError) as caught:
        so.export(module, X)
    said = str(caught.value)
    for named in ("one of ", "layer of ", "a default of "):
        message = message.replace(f"{named}layers", f"{named}{path}layers")
    message = message if f"{path}layers" in message else f"{path}{message}"
    assert said.startswith(message)
    assert ", where torch does not find it: it would not be frozen" in said
    assert f"; {remedy}" in said


SHARED = dense()


class Global(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return SHARED(x)


class OfClass(nn.Module):
    layers = (nn.ReLU(), dense())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[1](x)


class Makes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return dense()(x)


def in_function() -> nn.Module:
    layers = [dense()]

    class Local(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return layers[0](x)

    return Local()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Global(), "SHARED is a Dense in a global variable"),
        (OfClass(), r"layers\[1\] is a Dense in a plain tuple"),
        (in_function(), r"layers of forward\(\)\[0\] is a Dense in a plain list"),
        (Makes(), r"forward\(\) calls a Dense that is no submodule.*attribute .* in __init__"),
    ],
    ids=["global", "class", "closure of forward", "made in forward"],
)
def test_layers_that_no_attribute_of_the_module_holds(module: nn.Module, message: str) -> None:
    with pytest.raises(so.ExportError, match=message):
        so.export(module, X)


def test_a_layer_that_is_refused_has_not_run() -> None:
    norm = nn.BatchNorm1d(3)  # in training mode, for eval() does not reach it
    with pytest.raises(so.ExportError, match="BatchNorm1d in a closure"):
        so.export(Holds(closing_over(norm), itself), X)
    assert norm.num_batches_tracked == 0


class Teacher(nn.Module):
    """Keeps a network out of its own parameters, and does not run it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.teacher = [nn.Linear(6, 6)]
        self.parent = [self]
        self.by_name = {"layer": self.layer}

    def forward(self, x: Tensor) -> Tensor:
        return self.by_name["layer"](x) + self.parent[0].layer(x)


class Template(nn.Module):
    """Runs a module that is no submodule with parameters that are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.template = [nn.Linear(6, 6, device="meta")]

    def forward(self, x: Tensor) -> Tensor:
        parameters = {name: value * 2 for name, value in self.layer.named_parameters()}
        y = torch.func.functional_call(self.template[0], parameters, (x,))
        return y + torch.func.functional_call(self.layer, parameters, (x,))


class Wraps(nn.Module):
    """Makes containers of its submodules while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return nn.Sequential(self.layer, nn.ReLU())(x)


class Builds(nn.Module):
    """Registers a layer at the first call, with weights that are always the same."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "norm"):
            self.norm = nn.LayerNorm(6)
        return self.norm(x)


@pytest.mark.parametrize(
    "module",
    [
        Teacher(),
        Template(),
        Wraps(),
        Holds([nn.ReLU()], lambda k: k[0]),
        Holds([nn.ReLU()], lambda k: k[0].forward),
    ],
    ids=["teacher", "template", "wraps", "without weights", "its forward"],
)
def test_modules_that_may_be_kept_so(module: nn.Module) -> None:
    with torch.no_grad():
        expected = module.eval()(X)
    found = so.Session(so.export(module, X, dynamic=False)).run(X.numpy())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_a_layer_that_the_first_call_registers_is_known() -> None:
    module = so.freeze(Builds())
    check_calls(module, Arguments.of(module, X, "export"))
