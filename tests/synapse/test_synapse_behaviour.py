"""Synapses beyond their API: weight norm, hooks, copies, dtypes, merged channels, refusals."""

from __future__ import annotations

import copy
import io
import pickle
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.quantize import Quantizer, q8

REAL, COMPLEX = so.synapse, so.synapse.complex
KINDS = ("Dense", "Conv", "ConvTranspose", "Pool", "Unpool")
NAMES = [f"{space}{kind}" for space in ("", "complex.") for kind in KINDS]
TRAINED = [name for name in NAMES if not name.endswith("ool")]

#: constructor arguments of a small layer of each kind, all of their values different
ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "Dense": ((6, 4), {}),
    "Conv": ((2, 4, (3, 2)), {"stride": (1, 2), "padding": (2, 1), "groups": 2}),
    "ConvTranspose": ((2, 4, (3, 2)), {"stride": (1, 2), "padding": (1, 0)}),
    "Pool": (((3, 2),), {}),
    "Unpool": (((3, 2),), {}),
}
SHAPES = {"Dense": (3, 6, 5)} | dict.fromkeys(KINDS[1:], (3, 2, 6, 5, 4))


def kind_of(name: str) -> str:
    return name.removeprefix("complex.")


def class_of(name: str) -> type[nn.Module]:
    return getattr(COMPLEX if name.startswith("complex.") else REAL, kind_of(name))


def make(name: str, **changes: Any) -> Any:
    kind = kind_of(name)
    args, kwargs = ARGUMENTS[kind]
    layer = class_of(name)(*args, **(kwargs | changes))
    for part in parts(layer):
        if kind.endswith("ool"):  # a constant kernel would hide a flipped one
            with torch.no_grad():
                weight = part.weight_v if part.weight_norm_enabled else part.weight
                weight.copy_(torch.randn(weight.shape))
    return layer


def parts(layer: Any) -> tuple[Any, ...]:
    return (layer.real, layer.imag) if layer.complex else (layer,)


def drawn(name: str, rate: float = 0.4) -> Tensor:
    return (torch.rand(SHAPES[kind_of(name)]) < rate).float()


def tensors(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def assert_same(found: Any, expected: Any) -> None:
    found, expected = tensors(found), tensors(expected)
    assert len(found) == len(expected)
    for value, reference in zip(found, expected, strict=True):
        assert float(reference.detach().abs().sum()) > 0
        assert torch.equal(value, reference)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Pool", "Unpool"])
def test_an_int_stands_for_a_pair(kind: str) -> None:
    lead = (2, 2) if kind.startswith("Conv") else ()
    cls = getattr(REAL, kind)
    one, two = cls(*lead, 3, 2, 1, 2), cls(*lead, (3, 3), (2, 2), (1, 1), (2, 2))
    for name in ("kernel_size", "stride", "padding", "dilation"):
        assert getattr(one, name) == getattr(two, name), name


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Pool", "Unpool"])
def test_pairs_are_height_and_width(kind: str) -> None:
    """The transposed call on the transposed image gives the transposed output."""
    lead = (2, 2) if kind.startswith("Conv") else ()
    geometry = [(2, 3), (1, 2), (0, 1), (1, 2)]
    cls = getattr(REAL, kind)
    upright, turned = cls(*lead, *geometry), cls(*lead, *[g[::-1] for g in geometry])
    with torch.no_grad():
        upright.weight.copy_(torch.randn(upright.shape))
        turned.weight.copy_(upright.weight.transpose(2, 3))
    x = torch.randn(1, 2, 6, 9, 2)
    y = upright(x)
    assert y.shape[2] != y.shape[3]
    torch.testing.assert_close(turned(x.transpose(2, 3)), y.transpose(2, 3))


# -- weight norm -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_weight_norm_keeps_the_weight(name: str) -> None:
    layer = make(name)
    before = [part.weight.detach().clone() for part in parts(layer)]
    prefixes = ("real.", "imag.") if layer.complex else ("",)
    plain = [f"{prefix}weight" for prefix in prefixes]
    split = [f"{prefix}weight_{half}" for prefix in prefixes for half in "gv"]
    assert list(layer.state_dict()) == plain
    layer.enable_weight_norm()
    layer.enable_weight_norm()  # a second call changes nothing
    assert layer.weight_norm_enabled
    assert list(layer.state_dict()) == split
    for part, weight in zip(parts(layer), before, strict=True):
        torch.testing.assert_close(part.weight, weight, rtol=1e-6, atol=1e-6)
        assert part.weight_g.shape == (weight.shape[0], 1, 1, 1, 1)
        lengths = torch.linalg.vector_norm(part.weight.flatten(1), dim=1)
        torch.testing.assert_close(part.weight_g.flatten().abs(), lengths)
    layer.disable_weight_norm()
    layer.disable_weight_norm()
    assert not layer.weight_norm_enabled
    assert list(layer.state_dict()) == plain
    for part, weight in zip(parts(layer), before, strict=True):
        torch.testing.assert_close(part.weight, weight, rtol=1e-6, atol=1e-6)
        assert part.weight.requires_grad == (not name.endswith("ool"))


def test_the_length_scales_the_weight() -> None:
    layer = REAL.Conv(2, 3, 2, weight_norm=True)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight_g.mul_(2)
        layer.weight_v.mul_(5)  # a direction has no length of its own
    torch.testing.assert_close(layer.weight, 2 * before)


# -- hook --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_hook_acts_on_the_weight(name: str) -> None:
    layer, x = make(name), drawn(name)
    assert layer.pre_hook_fx is None
    expected = tuple(2 * y for y in tensors(layer(x)))
    layer.pre_hook_fx = hook = lambda w: 2 * w
    assert layer.pre_hook_fx is hook
    assert all(part.pre_hook_fx is hook for part in parts(layer))
    assert_same(layer(x), expected)
    layer.pre_hook_fx = None
    assert_same(tuple(2 * y for y in tensors(layer(x))), expected)


def test_a_complex_synapse_has_one_hook() -> None:
    layer = COMPLEX.Dense(3, 2, pre_hook_fx=Quantizer(bits=4))
    layer.imag.pre_hook_fx = Quantizer(bits=4)  # equal, though another object
    assert layer.pre_hook_fx == Quantizer(bits=4)
    layer.imag.pre_hook_fx = q8
    with pytest.raises(so.InputError, match="have different hooks; set pre_hook_fx on the complex"):
        _ = layer.pre_hook_fx


@pytest.mark.parametrize("name", TRAINED)
def test_a_hook_must_return_a_weight(name: str) -> None:
    layer, x = make(name, pre_hook_fx=lambda w: w[:1]), drawn(name)
    shape = tuple(layer.shape)
    shapes = re.escape(f"returned shape {(1, *shape[1:])} for a weight of shape {shape}")
    with pytest.raises(so.QuantizationError, match=shapes):
        layer(x)
    layer.pre_hook_fx = lambda w: None
    with pytest.raises(so.QuantizationError, match="must return a tensor, got NoneType"):
        layer(x)
    with pytest.raises(so.QuantizationError, match="must return a tensor, got NoneType"):
        so.freeze(layer)


# -- copies, devices, files --------------------------------------------------------------------

FORMS = {
    "plain": make,
    "weight-norm": lambda name: make(name, weight_norm=True),
    "frozen-float": lambda name: so.freeze(make(name)),
    "frozen-q8": lambda name: so.freeze(make(name, pre_hook_fx=q8)),
}


#: every class in two forms, every form of several classes: the classes share their base
FORMED = [(name, list(FORMS)[(i + k) % 4]) for i, name in enumerate(NAMES) for k in (0, 1)]


@pytest.mark.parametrize(("name", "form"), FORMED)
def test_copies_are_the_same_and_apart(name: str, form: str) -> None:
    layer, x = FORMS[form](name), drawn(name)
    expected = tensors(layer(x))
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_same(copied(x), expected)
        with torch.no_grad():
            for tensor in copied.state_dict().values():
                tensor.zero_()
        assert all(float(y.detach().nan_to_num().abs().sum()) == 0 for y in tensors(copied(x)))
    assert_same(layer(x), expected)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = FORMS[form](name)  # other random weights
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_same(other(x), expected)


@pytest.mark.parametrize(("name", "form"), FORMED)
def test_other_dtypes_and_devices(name: str, form: str) -> None:
    layer, x = FORMS[form](name), drawn(name)
    expected = [y.detach().double() for y in tensors(layer(x))]
    double = copy.deepcopy(layer).to(torch.float64)
    for y, reference in zip(tensors(double(x.double())), expected, strict=True):
        assert y.dtype == torch.float64
        torch.testing.assert_close(y.detach(), reference, rtol=1e-5, atol=1e-5)
    meta = layer.to("meta")
    assert {tensor.device.type for tensor in meta.state_dict().values()} == {"meta"}
    for y, reference in zip(tensors(meta(x.to("meta"))), expected, strict=True):
        assert (y.device.type, y.shape, y.dtype) == ("meta", reference.shape, torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_q8_is_bit_equal_once_frozen(name: str) -> None:
    layer, x = make(name, pre_hook_fx=q8, weight_norm=True), drawn(name)
    frozen = so.freeze(layer)
    assert {part.weight.dtype for part in parts(frozen)} == {torch.int8}
    assert_same(frozen(x), layer(x))
    assert_same(frozen(x * 3 - 1), layer(x * 3 - 1))  # graded and negative


@pytest.mark.parametrize("name", ["Pool", "Unpool", "complex.Pool", "complex.Unpool"])
def test_pooling_passes_gradients_and_learns_nothing(name: str) -> None:
    layer, x = make(name), drawn(name).requires_grad_()
    assert not any(p.requires_grad for p in layer.parameters())
    sum(y.sum() for y in tensors(layer(x))).backward()
    assert float(x.grad.abs().sum()) > 0


# -- pooling -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "size"), [(2, (7, 5)), (2, (6, 8)), (3, (6, 9)), ((2, 3), (5, 6)), ((4, 1), (8, 3))]
)
def test_merged_pools_equal_ours_where_the_docstring_says_so(kernel: Any, size: Any) -> None:
    """Kernel 2 or a size that the kernel divides, stride = kernel, no padding."""
    x = torch.rand(2, 3, *size, 4).round()
    assert_same(REAL.Pool(kernel, merge_channels=True)(x), REAL.Pool(kernel)(x))
    assert_same(REAL.Unpool(kernel, merge_channels=True)(x), REAL.Unpool(kernel)(x))


def test_merged_pools_mix_channels_elsewhere() -> None:
    """The flag is no decoration: with padding, windows run over the border of two channels."""
    x = torch.zeros(1, 2, 6, 3, 1)
    x[:, 0] = 1
    merged, ours = (REAL.Pool(3, 3, (1, 0), merge_channels=m)(x) for m in (True, False))
    assert merged.flatten().tolist() == [6, 9, 3, 0]  # row 5 of channel 0 is seen by channel 1
    assert ours.flatten().tolist() == [6, 9, 0, 0]


# -- dense on images ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(3, 5), (4, 6)], ids=["whole", "convolved"])
@pytest.mark.parametrize("name", ["Dense", "complex.Dense"])
def test_dense_on_images_is_exported(name: str, size: tuple[int, int], session_of: Any) -> None:
    layer = class_of(name)((5, 3, 2), 4, pre_hook_fx=q8)
    x = (torch.rand(2, 2, *size, 5) < 0.4).float()
    found = session_of(so.export(layer, x)).run(x.numpy())
    assert_same(tuple(torch.from_numpy(y) for y in found) if layer.complex
                else torch.from_numpy(found), layer(x))  # fmt: skip


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rank"), [(name, (1, 2, 4, 6)[i % 4]) for i, name in enumerate(NAMES)]
)
def test_wrong_rank(name: str, rank: int) -> None:
    kind = kind_of(name)
    x = torch.zeros((2,) * rank)
    message = (
        rf"^{kind}: expected an input of shape .*N, C, H, W, T\), got {re.escape(str((2,) * rank))}"
    )
    with pytest.raises(so.ShapeError, match=message):
        make(name)(x)


@pytest.mark.parametrize("name", TRAINED)
def test_wrong_channels(name: str) -> None:
    layer = make(name)
    x = drawn(name)
    with pytest.raises(so.ShapeError, match=rf"expected {layer.in_channels} input channels .* got"):
        layer(torch.cat([x, x], 1))


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (REAL.Conv(1, 1, (3, 2)), (1, 1, 2, 9, 1), "reaches over 3 pixels of height .* has 2"),
        (REAL.Conv(1, 1, (2, 3)), (1, 1, 9, 2, 1), "reaches over 3 pixels of width .* has 2"),
        (REAL.Conv(1, 1, 2, dilation=4), (1, 1, 4, 9, 1), "over 5 pixels of height .* has 4"),
        (REAL.Conv(1, 1, 5, padding=1), (1, 1, 2, 9, 1), "over 5 pixels of height .* has 4"),
        (REAL.Pool(2, dilation=3), (1, 2, 2, 9, 1), "over 4 pixels of height .* has 2"),
        (REAL.Dense((4, 3), 2), (1, 1, 2, 4, 1), "over 3 pixels of height .* has 2"),
        (REAL.Dense((4, 3), 2), (1, 1, 6), r"made for images of \(H, W\) = \(3, 4\)"),
        (REAL.ConvTranspose(1, 1, 2, padding=1), (1, 1, 1, 5, 1), "leaves no output in height"),
        (REAL.Unpool((3, 2), padding=(0, 1)), (1, 2, 5, 1, 1), "leaves no output in width"),
    ],
    ids=str,
)
def test_inputs_too_small(layer: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(so.ShapeError, match=message):
        layer(torch.zeros(shape))


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: REAL.Conv(1, 1, 0), "kernel_size must be at least 1, got 0"),
        (lambda: REAL.Conv(1, 1, (1, 2, 3)), r"kernel_size must be an int or a pair .*, 3\)"),
        (lambda: REAL.Conv(1, 1, 1.5), "kernel_size must be an int or a pair .* 1.5"),
        (lambda: REAL.Conv(1, 1, (1, 1.5)), "kernel_size must be an int or a pair"),
        (lambda: REAL.Conv(1, 1, True), "kernel_size must be an int or a pair"),
        (lambda: REAL.Conv(1, 1, "33"), "kernel_size must be an int or a pair"),
        (lambda: REAL.Conv(1, 1, None), "kernel_size must be an int or a pair"),
        (lambda: REAL.Conv(1, 1, 2, stride=(1, 0)), r"stride must be at least 1, got \(1, 0\)"),
        (lambda: REAL.Pool(2, padding=-1), "padding must be at least 0, got -1"),
        (lambda: REAL.Unpool(2, dilation=0), "dilation must be at least 1, got 0"),
        (lambda: REAL.Conv(3, 4, 1, groups=2), "in_features must be divisible by groups, got 3"),
        (lambda: REAL.ConvTranspose(4, 3, 1, groups=2), "out_features must be divisible by groups"),
        (lambda: REAL.Conv(2, 2, 1, groups=0), "groups must be a positive int, got 0"),
        (lambda: REAL.Conv(0, 2, 1), "in_features must be a positive int, got 0"),
        (lambda: REAL.Dense(0, 2), "in_neurons must be a positive int, got 0"),
        (lambda: REAL.Dense(2.0, 2), "in_neurons must be a positive int, got 2.0"),
        (lambda: REAL.Dense(2, 2.5), "out_neurons must be a positive int, got 2.5"),
        (lambda: REAL.Dense((1, 2, 3, 4), 2), r"must be an int, \(W, H\) or \(W, H, C\)"),
        (lambda: COMPLEX.Conv(1, 1, 0), "kernel_size must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_wrong_geometry(make_it: Any, message: str) -> None:
    with pytest.raises(so.InputError, match=message):
        make_it()


def test_merged_rows_that_no_channel_can_have() -> None:
    """7 % 3 = 1 row of zeros makes 24 rows in one: eight windows for three channels."""
    with pytest.raises(so.ShapeError, match="8 output rows cannot be shared among 3 channels"):
        REAL.Pool(3, merge_channels=True)(torch.zeros(1, 3, 7, 3, 1))
