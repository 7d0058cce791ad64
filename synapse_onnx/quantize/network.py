"""Weights of whole networks on integer grids: ``so.quantize.apply``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from synapse_onnx.compiler.copies import copied_value
from synapse_onnx.compiler.frameworks import in_plain_torch, reset_states
from synapse_onnx.compiler.freezer import copied
from synapse_onnx.errors import InputError, SynapseError
from synapse_onnx.neuron.stepped import steps_in_line
from synapse_onnx.quantize import _norms as norms_of
from synapse_onnx.quantize import _scales as scales_of
from synapse_onnx.quantize._layers import (
    grid_of,
    is_plain,
    linear_layers,
    make_plain,
    set_weight,
    weight_in_use,
)
from synapse_onnx.quantize.summary import LayerRow, Summary

__all__ = ["apply", "batches_of", "run", "run_on", "summary_of"]

M = TypeVar("M", bound=nn.Module)

#: numbers of the inputs of one layer that are kept for its calibration
_MOST_NUMBERS = 1 << 24

#: name of the attribute that holds what was done
_SUMMARY = "_synapse_onnx_quantized"


def apply(
    network: M,
    bits: int = 8,
    per_channel: bool = True,
    calibration: Any = None,
    *,
    keep: Collection[str] = (),
) -> M:
    """Return a copy of a trained network, of any framework, with weights on integer grids.

    Weights of Linear and Conv layers, and of synapses, become ::

        weight = scale * q,   q = round(weight / scale),   -m <= q <= m,   m = 2**(bits - 1) - 1

    with one scale an output channel, or one a layer. Weights stay float32, so the copy is a torch
    network like the one given, in evaluation mode; ``export`` finds the grids and stores integers
    with their scales. Biases, neurons and all other parameters stay floats.

    A batch norm after a Linear or Conv layer is folded into it first: weight' = g * weight and
    bias' = (bias - mean) * g + beta, with g = gamma / sqrt(variance + eps). Which layer a norm
    follows is seen while the network runs on ``calibration``. Without it, norms are folded that
    come right after their layer in a network that is an ``nn.Sequential``, or of several; after a
    Linear only behind ``nn.Flatten()``, for the channels of (N, L, C) are L to a norm. Others stay,
    and the summary says why.

    Weights that lie on a grid of so many bits or fewer stay as they are, so a network that was
    trained with fake quantisation keeps its own grids, and a second ``apply`` changes nothing.

    Args:
        network: any torch module that ``export`` takes; it is not touched.
        bits: width of the integers, sign included, 8 or 4.
        per_channel: one scale for each output channel, or one for the layer.
        calibration: None: m * scale is the largest weight. Or inputs of the network: a batch, or
            an iterable of batches; a batch is a tensor, or a tuple of all arguments. Then m * scale
            is a part of the largest weight, 1, 0.95, ... 0.4: that with the least ::

                |L(x, d)|**2 / |L(x, weight)|**2 + 0.1 * |d|**2 / |weight|**2
                with d = scale * q - weight

            for each output channel, or layer, by itself. L is the linear map, and x are all inputs
            of the layer, in the network with float weights; the first 2**24 numbers count. The
            second term is for weights whose inputs were silent.
        keep: paths of layers that stay in floats, with the norms after them.

    Returns:
        The copy. ``so.quantize.summary_of(copy)`` says what was done.

    Raises:
        InputError: bits are neither 8 nor 4, the network has no such layer, a weight is NaN or
            infinite, a path in ``keep`` is that of no layer, or the network does not run on
            ``calibration``.
    """
    if isinstance(bits, bool) or bits not in (4, 8):
        raise InputError(f"apply: bits must be 8 or 4, got {bits!r}")
    result = copied(network)
    layers = linear_layers(result)
    if not layers:
        raise InputError("apply: the network has no Linear or Conv layer whose weights to quantise")
    kept = {keep} if isinstance(keep, str) else set(keep)
    for path in sorted(map(str, kept - layers.keys())):
        raise InputError(f"apply: keep names {path!r}, which is none of {', '.join(layers)}")
    batches = None if calibration is None else batches_of(calibration, "apply", "calibration")
    work = _Work(result, layers, kept, bits, per_channel)
    if batches is not None:
        work.watch(batches)
    work.fold_norms()
    rows = [work.quantise(path) for path in layers]
    effect = None
    if batches is not None and any(row.norm for row in rows):
        effect = work.effect
    setattr(result, _SUMMARY, Summary(tuple(rows), work.norms, effect))
    return result


def summary_of(network: nn.Module) -> Summary:
    """Return what :func:`apply` did to the network that it returned.

    Raises:
        InputError: it returned no such network.
    """
    summary = getattr(network, _SUMMARY, None)
    if not isinstance(summary, Summary):
        raise InputError("summary_of: the network is none that so.quantize.apply returned")
    return summary


class _Work:
    """One call of ``apply``, on its copy."""

    def __init__(
        self,
        network: nn.Module,
        layers: Mapping[str, Any],
        kept: Collection[str],
        bits: int,
        per_channel: bool,
    ) -> None:
        self.network, self.layers, self.kept = network, layers, kept
        self.bits, self.per_channel = bits, per_channel
        self.batches: list[tuple[Any, ...]] = []
        self.effect: float | None = None
        #: inputs of each layer, in floats
        self.inputs: dict[str, list[Tensor]] = {}
        self.norms: dict[str, str] = {}
        self._followers: norms_of.Followers | None = None
        self._folded: dict[str, str] = {}
        #: why a layer keeps its weights, or is none whose weights can be set
        self._left: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        held = Counter(map(id, _parameters(network.modules())))
        #: layers of which a parameter is another module's, too
        self._shared = {
            path
            for path, layer in layers.items()
            if any(held[id(parameter)] > 1 for parameter in _parameters([layer]))
        }
        for path, layer in layers.items():
            if path not in kept:
                self._prepare(path, layer)

    def _prepare(self, path: str, layer: Any) -> None:
        """Make a weight plain that has no grid yet."""
        used = weight_in_use(layer)
        if grid_of(path, layer, used, self.bits) is not None:
            self._left[path] = "its own grid"
            return
        try:
            make_plain(layer)
        except SynapseError as error:
            raise type(error)(f"{path}: {error}") from error
        if not is_plain(layer, weight_in_use(layer)):
            self._left[path] = "its forward computes the weight at every call"

    # -- what the calibration shows ----------------------------------------------------------------

    def watch(self, batches: list[tuple[Any, ...]]) -> None:
        """See which norms follow which layers."""
        self.batches = batches
        network = copied_value(self.network)
        self._followers = norms_of.Followers(linear_layers(network), norms_of.norms(network))
        followers = self._followers
        with steps_in_line():  # whose functions may hold layers and norms
            run_on(
                network,
                batches[:1],
                lambda *batch: followers.run(network, batch),
                "apply",
                "calibration",
            )

    def _record(self) -> None:
        """Keep the inputs of every layer that is to be calibrated."""
        network = copied_value(self.network)
        sizes: Counter[str] = Counter()
        seen: dict[str, list[Tensor]] = defaultdict(list)

        def keep(path: str) -> Any:
            def hook(_: nn.Module, args: Any) -> None:
                x = args[0] if args else None
                if isinstance(x, Tensor) and sizes[path] < _MOST_NUMBERS:
                    sizes[path] += x.numel()
                    seen[path].append(x.detach().clone())

            return hook

        for path, layer in linear_layers(network).items():
            if path not in self.kept and path not in self._left:
                layer.register_forward_pre_hook(keep(path))
        run_on(network, self.batches, network, "apply", "calibration")
        self.inputs = {path: list(_joined(values)) for path, values in seen.items()}

    # -- norms -------------------------------------------------------------------------------------

    def fold_norms(self) -> None:
        """Fold the norms that can be; then see what the layers read."""
        plain = copied_value(self.network) if self.batches else None
        known = norms_of.norms(self.network)
        if self._followers is None:
            pairs = norms_of.neighbours(self.network)
        else:
            pairs = self._followers.found()
        if self.batches:
            self._record()
        for norm in known:
            layer = pairs.get(norm, "")
            done = self._fold(layer, norm)
            if isinstance(done, str):
                self.norms[norm] = f"stays; {done}"
                continue
            self._folded[layer] = norm
            self.norms[norm] = f"folded into {layer}, whose current changes by {done:.1g}"
        if plain is not None and self._folded:
            self.effect = self._difference(plain)

    def _fold(self, layer: str, norm: str) -> float | str:
        if layer in self.kept:
            return f"{layer} is kept in floats"
        if layer in self._left:
            return f"{layer} keeps its weights: {self._left[layer]}"
        if layer in self._shared:
            return f"a parameter of {layer} is that of another module, too"
        if layer not in self.layers:
            if self._followers is not None:
                return self._followers.reason(norm)
            return (
                "without calibration, only a norm right after its layer in a network that is an "
                "nn.Sequential is folded"
            )
        if self._followers is None and layer in norms_of.of_any_rank(self.network):
            return (
                f"it cannot be seen without calibration that {layer} gets (N, C), not (N, L, C); "
                "give calibration, or put nn.Flatten() before it"
            )
        return norms_of.fold(self.network, layer, norm, self.inputs.get(layer, ()))

    def _difference(self, plain: nn.Module) -> float:
        """Return how far outputs moved, relative to the largest value."""
        far, most = 0.0, 0.0
        for batch in self.batches:
            results = zip(run(plain, batch), run(copied_value(self.network), batch), strict=True)
            for before, after in results:
                if before.numel():
                    far = max(far, float((after.double() - before.double()).abs().max()))
                    most = max(most, float(before.double().abs().max()))
        return far / (most or 1.0)

    # -- weights -----------------------------------------------------------------------------------

    def quantise(self, path: str) -> LayerRow:
        """Round the weight of a layer, and say what was done."""
        layer = self.layers[path]
        if path in self.kept:
            return LayerRow(path, None, note="kept in floats")
        if path in self._left:
            grid = grid_of(path, layer, weight_in_use(layer), self.bits)
            if grid is None:
                return LayerRow(path, None, note=self._left[path])
            return LayerRow(path, grid.bits, grid.scale.numel(), note=self._left[path])
        notes = [f"with {self._folded[path]}"] if path in self._folded else []
        before = layer.weight.detach().clone()
        inputs = self.inputs.get(path)
        if inputs:
            rounded = scales_of.calibrated(layer, self.bits, inputs, per_channel=self.per_channel)
        else:
            rounded = scales_of.largest(layer, self.bits, per_channel=self.per_channel)
            if self.batches:
                notes.append("calibration does not reach it")
        set_weight(layer, rounded)
        for other, shared in self.layers.items():  # which has this weight now
            if other != path and shared._parameters.get("weight") is layer.weight:
                self._left[other] = f"the weight of {path}"
        moved = (layer.weight.detach() - before).double().square().sum().sqrt()
        size = before.double().square().sum().sqrt()
        return LayerRow(
            path,
            self.bits,
            rounded.scale.numel(),
            float(moved / size) if size else 0.0,
            ", ".join(notes),
            self._folded.get(path, ""),
            rounded=True,
        )


def _parameters(modules: Iterable[nn.Module]) -> list[Tensor]:
    return [p for module in modules for p in module._parameters.values() if p is not None]


def run(network: nn.Module, batch: Sequence[Any]) -> list[Tensor]:
    """Run a network on a batch, from fresh states; return its outputs."""
    reset_states(network)
    with torch.no_grad(), in_plain_torch():
        return _tensors(network(*(copied_value(x) for x in batch)))


def run_on(
    network: nn.Module,
    batches: Sequence[tuple[Any, ...]],
    call: Callable[..., Any],
    of: str,
    what: str,
) -> None:
    """Let a function, or the network itself, run on batches, each from fresh states.

    Raises:
        InputError: it does not run; the message names the function and its argument.
    """
    for i, batch in enumerate(batches):
        try:
            reset_states(network)
            with torch.no_grad(), in_plain_torch():
                call(*(copied_value(x) for x in batch))
        except Exception as error:  # of any class, as the network's code raises it
            shapes = " and ".join(str(tuple(x.shape)) for x in _tensors(batch))
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"{of}: the network does not run on batch {i} of {what}, of shape {shapes} "
                f"({type(error).__name__}: {reason})"
            ) from error


def _tensors(values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


def _joined(values: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield inputs of equal steps as one: a loop gives one step at a time."""
    groups: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
    for value in values:
        groups[tuple(value.shape)].append(value)
    for same in groups.values():
        yield torch.cat(same) if len(same) > 1 else same[0]


def batches_of(given: Any, of: str, what: str) -> list[tuple[Any, ...]]:
    """Return the batches of an argument of a function, each a tuple of arguments of a network.

    Raises:
        InputError: there is none, or something in one is no tensor of finite numbers.
    """
    if isinstance(given, Tensor):
        given = [given]
    if isinstance(given, tuple):  # one batch for a network with several arguments
        given = [given]
    if not isinstance(given, Iterable):
        kind = type(given).__name__
        raise InputError(f"{of}: {what} must be a tensor or an iterable of them, got {kind}")
    batches = [batch if isinstance(batch, tuple) else (batch,) for batch in given]
    if not batches:
        raise InputError(f"{of}: {what} has no batch")
    for i, batch in enumerate(batches):
        for value in batch:
            if not isinstance(value, Tensor):
                kind = type(value).__name__
                raise InputError(f"{of}: batch {i} of {what} holds a {kind}, and no tensor")
            if not value.numel():
                raise InputError(f"{of}: batch {i} of {what} is empty: {tuple(value.shape)}")
            if not bool(torch.isfinite(value).all()):
                raise InputError(f"{of}: batch {i} of {what} has NaN or infinite values")
    return batches
