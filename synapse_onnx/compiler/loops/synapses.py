"""Synapses of integers in loops: a linear map whose weights lie on an integer grid becomes ours.

A network that was quantised computes with floats that are integers times a scale::

    current[t] = linear(spikes[t], weight, bias)      # weight[o, i] = scale[o] * integer[o, i]

The weights are those that ``forward`` uses: a parameter, or what it computes of parameters alone,
as fake quantisation does. The map becomes a synapse of this package, whose bias stays a float::

    current[t] = scale * linear(spikes[t], integers) + bias

So the file holds the integers, and sums of integers are exact while float32 holds them. A bias that
is no parameter, nor follows from parameters alone, is added after the synapse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx import synapse
from synapse_onnx.compiler.loops.chance import draws_numbers
from synapse_onnx.compiler.loops.form import (
    Apply,
    Family,
    Fixed,
    Form,
    Layer,
    Leaf,
    Listed,
    Reference,
    parts_of,
    same,
)
from synapse_onnx.compiler.loops.groups import grouped
from synapse_onnx.compiler.loops.terms import PARAMETER
from synapse_onnx.grid import find_grid, is_by_chance

__all__ = ["put_synapses"]

aten = torch.ops.aten


def put_synapses(form: Form) -> dict[str, synapse.GenericLayer]:
    """Put synapses in the place of linear maps whose weights lie on an integer grid.

    Returns:
        Path -> synapse, frozen; each beside the parameters of the module that it stands for.
    """
    found = _Found(form)
    groups = grouped(form)
    for part in reversed(list(parts_of(form.outputs))):  # from the inputs on
        if isinstance(part, Apply):  # a whole value
            place = found.place(part, lambda value: value)
            if place is not None:
                _set(part, place, place.layer(place.x))
        elif isinstance(part, Family) and isinstance(part.node, Apply):
            if part.first or groups[part].recurrent or part.dtype is not torch.float32:
                continue
            place = found.place(part.node, _always)
            if place is not None and place.bias is None:
                part.node = place.layer(place.x)
            elif place is not None:
                inner = Family(dict(part.members), place.layer(place.x))
                inner.shape, inner.dtype = part.shape, part.dtype
                _set(part.node, place, Reference(inner))
    return found.layers


@dataclass(frozen=True)
class _Map:
    """A linear operator of torch, and the synapse that computes it.

    Attributes:
        make: makes the synapse, given the weight and the operator's arguments by name.
        axes: number of axes that one input has.
    """

    make: Callable[[Tensor, Mapping[str, Any]], synapse.GenericLayer | None]
    axes: int


@dataclass(frozen=True)
class _Place:
    """Where a synapse goes: what it reads, and the bias that it has not itself, as they were."""

    path: str
    axes: int
    x: Any
    bias: Any

    def layer(self, x: Any) -> Layer:
        return Layer(self.path, x, self.axes)


def _set(node: Apply, place: _Place, current: Any) -> None:
    """Make an operator the sum of a current and its bias."""
    node.kwargs = {}
    if place.bias is None:
        node.op, node.args = same, [current]
    else:
        node.op, node.args = aten.add.Tensor, [current, place.bias]


def _always(slot: Any) -> Any:
    """Return the whole value that a slot is at every step; the slot itself if it changes."""
    return slot.value if isinstance(slot, Fixed) and not slot.instead else slot


class _Found:
    """Synapses that were found so far."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self.layers: dict[str, synapse.GenericLayer] = {}
        self._paths: dict[Any, str] = {}
        self._read = [
            str(part.term.args[0])
            for part in parts_of(form.outputs)
            if isinstance(part, Leaf) and part.term.op == PARAMETER
        ]

    def place(self, node: Apply, whole: Callable[[Any], Any]) -> _Place | None:
        """Return where a synapse goes in the place of an operator; None if it is none of integers.

        ``whole`` gives the whole value of an argument.
        """
        known = _MAPS.get(node.op)
        if known is None:
            return None
        arguments = _by_name(node)
        weight, bias = whole(arguments.pop("weight")), arguments.pop("bias")
        x = arguments.pop("input")
        geometry = {name: _plain(value) for name, value in arguments.items()}
        value = _constant(self._form, weight)
        if value is None or value.dtype is not torch.float32:
            return None
        own = None if bias is None else _constant(self._form, whole(bias))
        path = self._path(node.op, weight, value, geometry, known, whole(bias), own)
        if path is None:
            return None
        if own is not None and self.layers[path].bias is not None:
            bias = None
        if bias is not None and known.axes > 1:
            inner = whole(bias)
            if not isinstance(inner, Leaf | Apply):
                return None  # it changes
            shaped = Apply(aten.reshape.default, [inner, [-1] + [1] * (known.axes - 1)], {})
            bias = Fixed(shaped) if isinstance(bias, Fixed) else shaped
        self.layers[path].biased |= bias is not None
        return _Place(path, known.axes, x, bias)

    def _path(
        self, op: Any, weight: Any, value: Tensor, geometry: Mapping[str, Any], known: _Map,
        bias: Any, own: Tensor | None,
    ) -> str | None:  # fmt: skip
        """Return the path of the synapse of a weight and its own bias, made at its first use."""
        key = (op, id(weight), repr(sorted(geometry.items())), None if own is None else id(bias))
        if key not in self._paths:
            layer = known.make(value, geometry)
            if layer is None or not _is_on_grid(layer, value):
                return None
            if own is not None and _suits(layer, own):
                layer.bias = nn.Parameter(own.clone(), requires_grad=False)
            name = ".".join(
                filter(None, (_module_of(self._form, weight, value.numel()), "synapse"))
            )
            path, number = name, 1
            while path in self.layers or any(read.startswith(f"{path}.") for read in self._read):
                number += 1
                path = f"{name}_{number}"
            self.layers[path] = layer
            self._paths[key] = path
        return self._paths[key]


def _by_name(node: Apply) -> dict[str, Any]:
    """Return the arguments of an operator by name, those that are left out with their defaults."""
    arguments = node.op._schema.arguments
    given = dict(zip((each.name for each in arguments), node.args, strict=False)) | node.kwargs
    return {each.name: given.get(each.name, each.default_value) for each in arguments}


def _plain(value: Any) -> Any:
    """Return numbers as they are, and lists of them as lists."""
    return [_plain(each) for each in value.slots] if isinstance(value, Listed) else value


def _constant(form: Form, value: Any) -> Tensor | None:
    """Return a whole value that follows from parameters and constants alone; None of others."""
    try:
        result = _computed(form, value)
    except Exception:  # of any class: what an operator does not take is none of our weights
        return None
    return result if isinstance(result, Tensor) else None


def _computed(form: Form, value: Any) -> Any:
    if isinstance(value, Leaf):
        return form.values[value.term].detach()  # an input has none
    if isinstance(value, Apply):
        if draws_numbers(value.op, value.args, value.kwargs):
            raise ValueError("a random number")
        args = [_computed(form, each) for each in value.args]
        return value.op(*args, **{k: _computed(form, each) for k, each in value.kwargs.items()})
    if isinstance(value, list):
        return [_computed(form, each) for each in value]
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device):
        return value
    raise ValueError("a value that changes")


def _module_of(form: Form, weight: Any, size: int) -> str:
    """Return the path of the module whose parameter a weight of a size is, or follows from.

    Of several parameters it is one that is as large: brevitas' quantisers have a bit width, too.
    """
    leaves = [x for x in parts_of([weight]) if isinstance(x, Leaf) and x.term.op == PARAMETER]
    leaves.sort(key=lambda leaf: form.values[leaf.term].numel() != size)
    if not leaves:
        return ""
    path = str(leaves[0].term.args[0]).rpartition(".")[0]
    return path.partition(".parametrizations")[0] if ".parametrizations" in path else path


def _is_on_grid(layer: synapse.GenericLayer, weight: Tensor) -> bool:
    """Freeze a synapse; return whether its weight became integers, and not by chance."""
    axis = layer.channel_axis
    for bits in (8, 16):
        # a weight that float32 has rounded lies on a grid of 8 bits if it was made so
        grid = find_grid(layer.weight, axis, bits)
        if grid is not None and not is_by_chance(grid, axis):
            layer.pre_hook_fx = _as_it_is  # the grid was intended
            layer.freeze()
            return layer.weight_scale is not None
    return False


def _suits(layer: synapse.GenericLayer, bias: Tensor) -> bool:
    """Whether a frozen synapse can add a bias itself: a number an output, one piece of sums."""
    fits = bias.dtype is torch.float32 and bias.shape == (layer.out_channels,)
    return fits and layer.weight_high is None


def _as_it_is(weight: Tensor) -> Tensor:
    return weight


# -- the synapse of each operator ------------------------------------------------------------------


def _dense(weight: Tensor, _: Mapping[str, Any]) -> synapse.GenericLayer | None:
    if weight.dim() != 2:
        return None
    layer = synapse.Dense(weight.shape[1], weight.shape[0])
    return _with_weight(layer, weight.reshape([*weight.shape, 1, 1, 1]))


def _conv(weight: Tensor, geometry: Mapping[str, Any]) -> synapse.GenericLayer | None:
    pairs, groups = _pairs(geometry), geometry["groups"]
    if pairs is None:
        return None
    kernel = _as_images(weight)
    layer = synapse.Conv(
        kernel.shape[1] * groups, kernel.shape[0], kernel.shape[2:4], groups=groups, **pairs
    )
    return _with_weight(layer, kernel)


def _conv_transpose(weight: Tensor, geometry: Mapping[str, Any]) -> synapse.GenericLayer | None:
    pairs, groups = _pairs(geometry), geometry["groups"]
    if pairs is None or any(geometry["output_padding"]):
        return None
    kernel = _as_images(weight)
    layer = synapse.ConvTranspose(
        kernel.shape[0], kernel.shape[1] * groups, kernel.shape[2:4], groups=groups, **pairs
    )
    return _with_weight(layer, kernel)


def _as_images(weight: Tensor) -> Tensor:
    """Return a kernel (O, C, k) or (O, C, h, w) as (O, C, h, w, 1)."""
    return weight.reshape([*weight.shape, *[1] * (5 - weight.dim())])


def _pairs(geometry: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return stride, padding and dilation as (height, width), which an axis L is the first of."""
    pairs: dict[str, Any] = {}
    for name, inert in (("stride", 1), ("padding", 0), ("dilation", 1)):
        sizes = list(geometry[name])
        if not all(isinstance(size, int) for size in sizes):
            return None
        sizes = sizes * 2 if len(sizes) == 1 and geometry["axes"] == 2 else sizes
        pairs[name] = (sizes[0], sizes[1] if geometry["axes"] == 2 else inert)
    return pairs


def _with_weight(layer: synapse.GenericLayer, weight: Tensor) -> synapse.GenericLayer:
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    layer.eval().requires_grad_(False)
    return layer


def _over(axes: int, make: Callable[..., Any]) -> _Map:
    """Return the map of a convolution over one or two axes."""
    return _Map(lambda weight, geometry: make(weight, {**geometry, "axes": axes}), axes + 1)


_MAPS: Mapping[Any, _Map] = {
    aten.linear.default: _Map(_dense, 1),
    aten.conv1d.default: _over(1, _conv),
    aten.conv2d.default: _over(2, _conv),
    aten.conv_transpose1d.default: _over(1, _conv_transpose),
    aten.conv_transpose2d.input: _over(2, _conv_transpose),
}
