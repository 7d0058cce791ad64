"""The ten synapses: lava-dl's API, plain NumPy's arithmetic, and clear refusals."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from pairwise import pairwise
from torch import nn

import synapse_onnx as so
from synapse_onnx.quantize import q8

REAL = {
    name: getattr(so.synapse, name) for name in ("Dense", "Conv", "Pool", "ConvTranspose", "Unpool")
}
COMPLEX = {name: getattr(so.synapse.complex, name) for name in REAL}

GEOMETRY = {"stride": 1, "padding": 0, "dilation": 1}
TAIL = {"weight_scale": 1, "weight_norm": False, "pre_hook_fx": None}
NEEDED = inspect.Parameter.empty
SIGNATURES: dict[str, dict[str, Any]] = {
    "Dense": {"in_neurons": NEEDED, "out_neurons": NEEDED, **TAIL},
    "Conv": {
        "in_features": NEEDED, "out_features": NEEDED, "kernel_size": NEEDED, **GEOMETRY,
        "groups": 1, **TAIL,
    },
    "Pool": {"kernel_size": NEEDED, **GEOMETRY, "stride": None, **TAIL, "merge_channels": False},
}  # fmt: skip
SIGNATURES["ConvTranspose"] = SIGNATURES["Conv"]
SIGNATURES["Unpool"] = SIGNATURES["Pool"]

ARGS: dict[str, tuple[Any, ...]] = {
    "Dense": (6, 4),
    "Conv": (2, 4, 3),
    "ConvTranspose": (2, 4, 3),
    "Pool": (2,),
    "Unpool": (2,),
}


def made(name: str, is_complex: bool = False, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    return (COMPLEX if is_complex else REAL)[name](*ARGS[name], **kwargs)


def input_of(name: str, steps: int = 5) -> torch.Tensor:
    shape = (3, 6, steps) if name == "Dense" else (3, 2, 6, 6, steps)
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.4).float()


each = pytest.mark.parametrize("name", REAL)
both = pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])


def parts(layer: Any) -> list[Any]:
    return [layer.real, layer.imag] if layer.complex else [layer]


# -- API ---------------------------------------------------------------------------------------


@each
def test_constructors_are_lava_dls(name: str) -> None:
    signature = inspect.signature(REAL[name])
    assert {p.name: p.default for p in signature.parameters.values()} == SIGNATURES[name]
    assert list(signature.parameters) == list(SIGNATURES[name])


@each
@both
def test_arguments_by_name_reach_both_parts(name: str, is_complex: bool) -> None:
    layer = made(name, is_complex, weight_scale=2, weight_norm=True, pre_hook_fx=q8)
    plain = made(name, is_complex)
    for part, other in zip(parts(layer), parts(plain), strict=True):
        assert type(part) is REAL[name]
        assert part.weight_norm_enabled
        assert part.pre_hook_fx is q8
        torch.testing.assert_close(part.weight, 2 * other.weight)


def test_bases_are_torchs() -> None:
    for name in ("Dense", "Conv", "Pool"):
        assert issubclass(REAL[name], (nn.Conv3d, so.synapse.GenericLayer))
        assert issubclass(REAL[name], nn.Conv3d)
    for name in ("ConvTranspose", "Unpool"):
        assert issubclass(REAL[name], nn.ConvTranspose3d)
    for cls in REAL.values():
        assert issubclass(cls, so.synapse.GenericLayer)
    for cls in COMPLEX.values():
        assert issubclass(cls, so.synapse.complex.ComplexLayer)


@each
@both
def test_attributes(name: str, is_complex: bool) -> None:
    layer = made(name, is_complex)
    assert layer.complex is is_complex
    assert layer.weight_norm_enabled is False
    assert layer.pre_hook_fx is None
    channels = {"Dense": (6, 4), "Conv": (2, 4), "ConvTranspose": (2, 4)}.get(name, (1, 1))
    assert (layer.in_channels, layer.out_channels) == channels
    for part in parts(layer):
        assert part.shape == part.weight.shape == layer.shape
        assert part.weight.dim() == 5
        assert part.weight.requires_grad is ("ool" not in name)
        for attribute in ("kernel_size", "stride", "padding", "dilation"):
            assert len(getattr(part, attribute)) == 3


def test_geometry_is_height_then_width() -> None:
    conv = so.synapse.Conv(1, 2, (3, 5), stride=(1, 2), padding=(1, 2), dilation=(2, 1))
    assert conv.kernel == conv.kernel_size == (3, 5, 1)
    assert (conv.stride, conv.padding, conv.dilation) == ((1, 2, 1), (1, 2, 0), (2, 1, 1))
    assert conv.weight.shape == (2, 1, 3, 5, 1)
    assert so.synapse.Conv(1, 2, 3, stride=2).stride == (2, 2, 1)
    assert so.synapse.Pool((2, 3)).stride == (2, 3, 1)
    assert so.synapse.Unpool((2, 3), stride=(1, 2)).stride == (1, 2, 1)
    assert so.synapse.Dense((7, 5, 3), 2).weight.shape == (2, 3, 5, 7, 1)  # (W, H, C)
    assert so.synapse.Dense((7, 5), 2).weight.shape == (2, 1, 5, 7, 1)


@each
def test_pooling_weights_are_their_scale(name: str) -> None:
    if "ool" in name:
        weight = REAL[name](2, weight_scale=1.5).weight
        assert torch.equal(weight, torch.full_like(weight, 1.5))
    else:
        assert len(made(name).weight.unique()) > 1


@each
@both
def test_weight_norm_on_and_off(name: str, is_complex: bool) -> None:
    layer = made(name, is_complex)
    before = [part.weight.detach().clone() for part in parts(layer)]
    x = input_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer.enable_weight_norm()
        layer.enable_weight_norm()  # twice is once
    assert layer.weight_norm_enabled
    keys = {key.rsplit(".", 1)[-1] for key in layer.state_dict()}
    assert keys == {"weight_g", "weight_v"}
    for part, weight in zip(parts(layer), before, strict=True):
        torch.testing.assert_close(part.weight, weight)
        length = weight.flatten(1).norm(dim=1)
        torch.testing.assert_close(part.weight_g.flatten(), length)
    layer(x)
    layer.disable_weight_norm()
    assert not layer.weight_norm_enabled
    assert {key.rsplit(".", 1)[-1] for key in layer.state_dict()} == {"weight"}
    for part, weight in zip(parts(layer), before, strict=True):
        torch.testing.assert_close(part.weight, weight)


@each
@both
def test_checkpoints_with_weight_norm_load_into_a_layer_without(
    name: str, is_complex: bool
) -> None:
    trained = made(name, is_complex, weight_scale=3, weight_norm=True)
    fresh = made(name, is_complex)
    fresh.load_state_dict(trained.state_dict())
    assert fresh.weight_norm_enabled
    for a, b in zip(parts(trained), parts(fresh), strict=True):
        assert torch.equal(a.weight, b.weight)


@pytest.mark.parametrize("name", ["Dense", "Conv", "ConvTranspose"])
@both
@pytest.mark.parametrize("weight_norm", [False, True])
def test_grad_norm(name: str, is_complex: bool, weight_norm: bool) -> None:
    layer = made(name, is_complex, weight_norm=weight_norm)
    assert layer.grad_norm == 0
    y = layer(input_of(name))
    (sum(part.square().sum() for part in y) if is_complex else y.square().sum()).backward()
    expected = []
    for part in parts(layer):
        tensor = part.weight_g if weight_norm else part.weight
        expected.append(float(tensor.grad.norm()) / tensor.numel())
    assert layer.grad_norm == pytest.approx(np.hypot(*expected) if is_complex else expected[0])
    assert layer.grad_norm > 0


@each
@both
def test_hooks_can_be_read_and_set(name: str, is_complex: bool) -> None:
    layer = made(name, is_complex, weight_scale=0.01)
    layer.pre_hook_fx = q8
    assert layer.pre_hook_fx is q8
    for part in parts(layer):
        assert torch.equal(part.effective_weight, q8(part.weight))
    layer.pre_hook_fx = torch.zeros_like
    y = layer(input_of(name))
    assert all(float(part.abs().sum()) == 0 for part in (y if is_complex else (y,)))


def test_a_bound_method_is_one_hook() -> None:
    neuron = so.neuron.cuba.Neuron(1.0, 0.5, 0.5)
    layer = made("Dense", True, pre_hook_fx=neuron.quantize_8bit)
    assert layer.pre_hook_fx == neuron.quantize_8bit


def test_parts_with_different_hooks_are_reported() -> None:
    layer = made("Dense", True, pre_hook_fx=q8)
    layer.imag.pre_hook_fx = None
    with pytest.raises(so.InputError, match="real and the imaginary synapse have different hooks"):
        _ = layer.pre_hook_fx


# -- life cycle --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Dense", "Conv", "ConvTranspose"])
@both
@pytest.mark.parametrize("weight_norm", [False, True])
def test_training_lowers_the_loss(name: str, is_complex: bool, weight_norm: bool) -> None:
    layer = made(name, is_complex, weight_norm=weight_norm, pre_hook_fx=q8)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    x = input_of(name)
    losses = []
    for _ in range(15):
        y = layer(x)
        loss = sum((part - 0.5).square().mean() for part in (y if is_complex else (y,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@each
def test_the_complex_form_is_two_real_ones(name: str) -> None:
    layer = made(name, True, pre_hook_fx=q8)
    x = input_of(name)
    real, imag = layer(x)
    assert torch.equal(real, layer.real(x))
    assert torch.equal(imag, layer.imag(x))
    if "ool" not in name:
        assert not torch.equal(real, imag)


# -- arithmetic --------------------------------------------------------------------------------


def pooled(x: np.ndarray, w: np.ndarray, stride: Any, padding: Any, dilation: Any) -> np.ndarray:
    """Sum pooling of every channel, as the docstring states it, in plain loops."""
    kh, kw = w.shape
    n, c, h, width, t = x.shape
    x = np.pad(x, ((0, 0), (0, 0), (0, -h % kh), (0, -width % kw), (0, 0)))
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    oh = (x.shape[2] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (x.shape[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((n, c, oh, ow, t))
    for i in range(oh):
        for j in range(ow):
            for k in range(kh):
                for m in range(kw):
                    row, column = i * stride[0] + k * dilation[0], j * stride[1] + m * dilation[1]
                    y[:, :, i, j] += w[k, m] * x[:, :, row, column]
    return y


def unpooled(x: np.ndarray, w: np.ndarray, stride: Any, padding: Any, dilation: Any) -> np.ndarray:
    """Transposed pooling of every channel in plain loops."""
    kh, kw = w.shape
    n, c, h, width, t = x.shape
    y = np.zeros((
        n, c, (h - 1) * stride[0] + dilation[0] * (kh - 1) + 1,
        (width - 1) * stride[1] + dilation[1] * (kw - 1) + 1, t,
    ))  # fmt: skip
    for i in range(h):
        for j in range(width):
            for k in range(kh):
                for m in range(kw):
                    row, column = i * stride[0] + k * dilation[0], j * stride[1] + m * dilation[1]
                    y[:, :, row, column] += w[k, m] * x[:, :, i, j]
    return y[:, :, padding[0] : y.shape[2] - padding[0], padding[1] : y.shape[3] - padding[1]]


POOLINGS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3},
    {"kernel_size": (2, 3), "stride": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    {"kernel_size": 2, "stride": (1, 3), "padding": 1, "dilation": (2, 1)},
    {"kernel_size": (4, 3), "dilation": (1, 2), "padding": (0, 2)},
]


@pytest.mark.parametrize(
    ("name", "geometry", "size"),
    pairwise(("Pool", "Unpool"), POOLINGS, ((8, 8), (7, 9), (5, 11))),
    ids=str,
)
def test_pools_work_channel_by_channel(name: str, geometry, size) -> None:
    reference = {"Pool": pooled, "Unpool": unpooled}[name]
    layer = REAL[name](**geometry)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-8, 9, layer.shape, generator=generator) / 4
    layer.weight = nn.Parameter(weight, requires_grad=False)
    x = torch.randint(0, 3, (2, 3, *size, 4), generator=generator).float()
    expected = reference(
        x.numpy(), weight.numpy()[0, 0, :, :, 0], layer.stride, layer.padding, layer.dilation
    )
    np.testing.assert_array_equal(layer(x).numpy(), expected)
    if size == (7, 9):  # an export costs a second
        np.testing.assert_array_equal(so.Session(so.export(layer, x)).run(x.numpy()), expected)


@pytest.mark.parametrize("name", ["Pool", "Unpool"])
def test_merged_channels_are_the_same_where_the_docs_say_so(name: str) -> None:
    x = input_of(name)
    for kernel in (2, (2, 3)):
        ours, theirs = REAL[name](kernel), REAL[name](kernel, merge_channels=True)
        assert torch.equal(ours(x), theirs(x))
    odd = torch.rand(1, 2, 7, 5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(REAL[name](2)(odd), REAL[name](2, merge_channels=True)(odd))


def test_merged_channels_mix_channels_elsewhere() -> None:
    x = torch.rand(1, 2, 8, 9, 3, generator=torch.Generator().manual_seed(0))
    ours = so.synapse.Pool(3, stride=1)(x)
    with pytest.raises(so.ShapeError, match="16 output rows cannot be shared among 3 channels"):
        so.synapse.Unpool(1, merge_channels=True, padding=(1, 0))(torch.rand(1, 3, 6, 4, 2))
    merged = so.synapse.Pool(3, stride=(1, 3), padding=(1, 0), merge_channels=True)(x)
    assert merged.shape != ours.shape


def test_dense_takes_images_its_kernel_covers_and_larger_ones() -> None:
    torch.manual_seed(0)
    layer = so.synapse.Dense((4, 3, 2), 5, pre_hook_fx=q8, weight_scale=3)  # (W, H, C)
    x = torch.rand(2, 2, 3, 4, 6).round()
    y = layer(x)
    assert y.shape == (2, 5, 1, 1, 6)
    expected = torch.einsum("ochw,nchwt->not", layer.effective_weight[..., 0], x)
    assert torch.equal(y[:, :, 0, 0], expected)
    large = torch.rand(2, 2, 5, 4, 6).round()
    y = layer(large)
    assert y.shape == (2, 5, 3, 1, 6)
    assert torch.equal(y[:, :, 1:2], layer(large[:, :, 1:4]))
    model = so.export(layer, large)
    np.testing.assert_array_equal(so.Session(model).run(large.numpy()), y.detach().numpy())


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "Dense",
            (3, 6),
            r"Dense: expected an input of shape \(N, C, T\) or \(N, C, H, W, T\), got \(3, 6\)",
        ),
        ("Dense", (3, 5, 4), "Dense: expected 6 input channels .* got 5"),
        ("Conv", (3, 2, 6), r"Conv: expected an input of shape \(N, C, H, W, T\), got \(3, 2, 6\)"),
        ("Conv", (3, 1, 6, 6, 2), "Conv: expected 2 input channels .* got 1"),
        (
            "Conv",
            (3, 2, 6, 2, 2),
            "Conv: the kernel reaches over 3 pixels of width and the padded input has 2",
        ),
        ("ConvTranspose", (3, 3, 6, 6, 2), "ConvTranspose: expected 2 input channels .* got 3"),
        ("Pool", (3, 2, 6, 6), r"Pool: expected an input of shape"),
        ("Unpool", (3,), r"Unpool: expected an input of shape"),
    ],
)
@both
def test_inputs_that_do_not_fit(name: str, shape, message: str, is_complex: bool) -> None:
    with pytest.raises(so.ShapeError, match=message):
        made(name, is_complex)(torch.zeros(shape))


@pytest.mark.parametrize("bad", [torch.zeros(1, 6, 4, dtype=torch.int64), np.zeros((1, 6, 4))])
def test_inputs_that_are_no_floats(bad: Any) -> None:
    with pytest.raises(so.InputError, match="expected spikes as a floating-point tensor, got "):
        made("Dense")(bad)


def test_more_inputs_that_do_not_fit() -> None:
    with pytest.raises(so.ShapeError, match=r"made for images of \(H, W\) = \(3, 4\)"):
        so.synapse.Dense((4, 3, 2), 5)(torch.zeros(2, 2, 6))
    with pytest.raises(so.ShapeError, match="Pool: the kernel reaches over 9 pixels of height"):
        so.synapse.Pool(3, dilation=4)(torch.zeros(1, 1, 6, 12, 2))
    with pytest.raises(so.ShapeError, match="ConvTranspose: padding 4 leaves no output in height"):
        so.synapse.ConvTranspose(1, 1, 3, padding=4)(torch.zeros(1, 1, 2, 9, 2))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: so.synapse.Conv(1, 2, (1, 2, 3)), "kernel_size must be an int or a pair"),
        (lambda: so.synapse.Conv(1, 2, 0), "kernel_size must be at least 1, got 0"),
        (lambda: so.synapse.Conv(1, 2, 3, stride=1.5), "stride must be an int or a pair"),
        (lambda: so.synapse.Conv(1, 2, 3, padding=(-1, 0)), "padding must be at least 0"),
        (lambda: so.synapse.Conv(1, 2, 3, dilation="2"), "dilation must be an int or a pair"),
        (lambda: so.synapse.Conv(3, 2, 3, groups=2), "in_features must be divisible by groups"),
        (lambda: so.synapse.Dense((1, 2, 3, 4), 2), r"in_neurons must be an int, \(W, H\) or"),
        (lambda: so.synapse.Dense(3, 0), "out_neurons must be a positive int, got 0"),
        (lambda: so.synapse.complex.Pool(True), "kernel_size must be"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(build, message: str) -> None:
    with pytest.raises(so.InputError, match=message):
        build()


@each
@both
def test_hooks_that_return_no_weight(name: str, is_complex: bool) -> None:
    layer = made(name, is_complex, pre_hook_fx=lambda w: w.flatten())
    with pytest.raises(so.QuantizationError, match="it must keep the shape"):
        layer(input_of(name))
    layer.pre_hook_fx = lambda _: 3
    with pytest.raises(so.QuantizationError, match="must return a tensor, got int"):
        layer(input_of(name))
