"""What neurons take and say: defaults, ranges, Loihi's parameters, readouts, norms, refusals."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import synapse_onnx as so
from synapse_onnx.neuron.base import Common
from synapse_onnx.neuron.dropout import Dropout
from synapse_onnx.neuron.norm import MeanOnlyBatchNorm, WgtScaleBatchNorm
from synapse_onnx.verification.membranes import margins, undecided

KINDS = so.neuron.kinds()
EQUATIONS = [kind for kind, module in KINDS.items() if hasattr(module.Neuron, "equation")]
FIXED = [kind for kind in KINDS if kind != "lif"]
RESONATORS = [kind for kind in KINDS if KINDS[kind].Neuron.complex]
ADAPTIVE = [kind for kind in EQUATIONS if "refractory" in KINDS[kind].Neuron.states]


def made(kind: str, **changes: Any) -> Any:
    return KINDS[kind].Neuron(**{**KINDS[kind].Neuron.example, **changes})


def drawn(kind: str, *shape: int, size: float = 1.0) -> Any:
    """A current, or a pair of them."""
    draw = torch.Generator().manual_seed(0)
    count = 1 + KINDS[kind].Neuron.complex
    parts = [size * (torch.rand(shape, generator=draw) - 0.25) for _ in range(count)]
    return tuple(parts) if count == 2 else parts[0]


# -- the folder ----------------------------------------------------------------------------------


def test_the_neurons_are_the_files_with_a_class_of_that_name() -> None:
    assert {"cuba", "alif", "rf", "rf_iz", "adrf", "adrf_iz", "sigma_delta", "lif"} <= set(KINDS)
    assert not {"base", "norm", "dropout"} & set(KINDS)
    assert so.neuron.Dropout is Dropout
    assert so.neuron.norm.MeanOnlyBatchNorm is MeanOnlyBatchNorm
    assert {"kinds", "cuba", "norm"} <= set(dir(so.neuron))
    for name in ("nothing", "_nothing"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(so.neuron, name)


# -- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_common_arguments_have_the_same_defaults_everywhere(kind: str) -> None:
    common = dict(inspect.signature(Common.__init__).parameters)
    found = inspect.signature(KINDS[kind].Neuron).parameters
    shared = {name for name in common if name in found} - {"self", "threshold"}
    assert {"tau_grad", "scale_grad", "scale", "norm", "dropout", "regime"} <= shared
    for name in shared:
        expected = "float" if (kind, name) == ("lif", "regime") else common[name].default
        assert found[name].default == expected, name
    neuron = made(kind)
    assert (neuron.w_scale, neuron.s_scale) == (64, 4096)
    assert (neuron.shared_param, neuron.persistent_state, neuron.drop) == (True, False, None)
    assert neuron.requires_grad is False
    assert not any(p.requires_grad for p in neuron.parameters())
    assert neuron.graded_spike == (kind == "sigma_delta")
    assert neuron.tau_rho == pytest.approx(float(neuron._threshold))
    assert neuron.scale_rho == 1


@pytest.mark.parametrize("kind", FIXED)
def test_loihis_parameters_come_back(kind: str) -> None:
    neuron = made(kind, scale=32)
    device = neuron.device_params
    assert device["type"] == neuron.device_type
    params = KINDS[kind].neuron_params(device, scale=32)
    assert params["threshold"] == float(torch.as_tensor(neuron._threshold))
    more = {} if kind != "sigma_delta" else {"activation": torch.relu}
    assert KINDS[kind].Neuron(**params, **more, scale=32).device_params == device
    # what is said is in units of the weights' step, the last decays in 4096ths
    plain = made(kind)
    assert KINDS[kind].neuron_params(plain.device_params)["threshold"] == float(
        torch.as_tensor(plain._threshold)
    )


@pytest.mark.parametrize("kind", [kind for kind in EQUATIONS if kind != "lif"])
def test_parameters_are_brought_back_into_their_range(kind: str) -> None:
    neuron = made(kind)
    for value in (-5.0, 1e6):
        for name in neuron.decays:
            getattr(neuron, name).data = torch.full((1,), value)
        neuron.clamp()
        for name in neuron.decays:
            assert 0 <= getattr(neuron, name).item() <= 4096, name
        if kind in RESONATORS:
            assert float(torch.hypot(neuron.sin_decay, neuron.cos_decay)) < 4096
            assert neuron.sin_decay.item() >= 1
    last = neuron.decays[-1]
    getattr(neuron, last).data = torch.full((1,), 1234.0)
    neuron.clamp()
    if last not in ("sin_decay", "cos_decay"):  # which are turned together
        assert getattr(neuron, last).item() == 1234, "what is within its range stays"


@pytest.mark.parametrize("kind", RESONATORS)
def test_a_period_has_four_steps_at_the_least(kind: str) -> None:
    neuron = made(kind, period=4)
    assert neuron.period == pytest.approx(4, rel=1e-3)
    assert neuron.decay == pytest.approx(0.1, abs=1e-3)
    assert neuron.frequency == pytest.approx(0.25, rel=1e-3)
    assert neuron.lam == pytest.approx(-math.log(0.9), rel=1e-2)
    floats = made(kind, period=5, regime="float")
    assert floats.period == pytest.approx(5, rel=1e-5)
    assert floats.decay == pytest.approx(0.1, rel=1e-5)
    for period in (3.99, math.inf, math.nan):
        with pytest.raises(so.InputError, match="period must be at least 4 time steps and finite"):
            made(kind, period=period)
    with pytest.raises(so.InputError, match="period must be a number when shared_param is True"):
        made(kind, period=(5, 8))
    for pair, sentence in (
        ((5, 6, 7), r"a number or a pair \(least, most\) when shared_param is False"),
        ((8, 5), "at least 4 time steps"),
    ):
        with pytest.raises(so.InputError, match=sentence):
            made(kind, period=pair, shared_param=False)


@pytest.mark.parametrize("log_init", [None, True, False])
@pytest.mark.parametrize("kind", RESONATORS)
def test_channels_take_their_periods_from_the_range(kind: str, log_init: bool | None) -> None:
    torch.manual_seed(0)
    said = {} if log_init is None else {"log_init": log_init}
    neuron = made(kind, period=(5, 50), decay=(0.1, 0.3), shared_param=False, **said)
    log_init = log_init is not False
    neuron(drawn(kind, 1, 40, 3))
    period, decay = neuron.period, neuron.decay
    assert period.shape == decay.shape == (40,)
    assert 4.9 < period.min() < 8
    assert period.max() == pytest.approx(50, rel=0.05) if log_init else period.max() < 51
    assert 0.09 < decay.min() < decay.max() < 0.31
    assert decay.max() - decay.min() > 0.1
    ratios = neuron.frequency[1:] / neuron.frequency[:-1]
    assert (np.ptp(ratios) < 0.02) == log_init, "equal ratios"
    if kind in ADAPTIVE:
        for name in ("threshold_decay", "refractory_decay"):
            assert getattr(neuron, name).shape == (40,)
    jittered = made(kind, period=20, decay=0.2, shared_param=False)
    jittered(drawn(kind, 1, 40, 3))
    assert 19.7 < jittered.period.min() < jittered.period.max() < 20.3
    assert 0.19 < jittered.decay.min() < jittered.decay.max() < 0.21


@pytest.mark.parametrize("kind", ["cuba", "alif"])
def test_a_number_for_all_channels_is_spread_by_a_hundredth(kind: str) -> None:
    torch.manual_seed(0)
    neuron = made(kind, current_decay=0.5, voltage_decay=0.25, shared_param=False)
    neuron(drawn(kind, 1, 400, 3))
    for decay, value in ((neuron.current_decay, 0.5), (neuron.voltage_decay, 0.25)):
        off = (decay / 4096 / value - 1).abs()
        assert 0.008 < off.max() < 0.0105


def test_the_default_lif_leaks_a_tenth_and_resets_to_zero() -> None:
    """Threshold 1, exclusive; no synaptic current, no drive, a gain of one."""
    neuron = so.neuron.lif.Neuron().eval()
    x = torch.zeros(1, 1, 8)
    x[0, 0, :3] = torch.tensor([0.5, 0.0, 0.25])
    x[0, 0, 5] = 2.0
    current, voltage, above = neuron.dynamics(x)
    assert torch.equal(current, x)
    v = np.array([0.5, 0.45, 0.655, 0.5895, 0.53055, 2.477495, 0, 0])
    np.testing.assert_allclose(voltage[0, 0].numpy(), v, rtol=1e-6)
    np.testing.assert_allclose(above[0, 0].numpy(), v - 1, rtol=1e-5)
    assert neuron(x).flatten().tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    exactly = torch.tensor([[[1.0]]])
    assert neuron(exactly).item() == 0
    assert so.neuron.lif.Neuron(strict=False)(exactly).item() == 1
    with pytest.raises(so.InputError, match="its spikes are 0 and 1; leave graded_spike away"):
        so.neuron.lif.Neuron(graded_spike=True)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_the_parameters_of_a_lif_have_the_shape_of_the_checkpoint(reset: str) -> None:
    ramp = torch.linspace(0.3, 0.9, 12).reshape(3, 2, 2)
    neuron = so.neuron.lif.Neuron(ramp, beta=ramp, reset=reset, reset_value=0.125)
    fresh = so.neuron.lif.Neuron(reset=reset)
    fresh.load_state_dict(neuron.state_dict())
    x = torch.rand(2, 3, 2, 2, 20, generator=torch.Generator().manual_seed(0))
    assert neuron(x).any()
    assert torch.equal(fresh(x), neuron(x))
    assert fresh.beta.shape == (3, 2, 2)
    said = so.freeze(fresh).describe()
    assert said["ranges"]["beta"] == pytest.approx([0.3, 0.9])
    assert said["threshold"] == pytest.approx([0.3, 0.9])
    assert said["reset"] == reset
    taken = [0.125, 0.125] if reset == "zero" else [0.3, 0.9]
    assert said["ranges"]["v_reset"] == pytest.approx(taken)


# -- sigma-delta ---------------------------------------------------------------------------------


def test_an_activation_is_a_function_or_none() -> None:
    with pytest.raises(so.InputError, match="activation must be a function of a tensor, or None"):
        made("sigma_delta", activation="relu")
    assert made("sigma_delta", activation=None).device_params["activation"] == "none"
    assert made("sigma_delta").device_params["activation"] == "relu"


def test_the_bias_of_a_sigma_delta_neuron() -> None:
    """One for all, one a channel or one a neuron; that of a checkpoint counts unless it is 0."""
    x = torch.zeros(1, 3, 2, 2, 3)
    for bias in (torch.tensor([0.5]), torch.tensor([0.5, 1.0, 2.0]), torch.rand(3, 2, 2)):
        neuron = made("sigma_delta", threshold=0.0)
        neuron.set_bias(bias)
        sent = neuron(x)
        shape = bias.shape if bias.dim() == 3 else (-1, 1, 1)
        expected = (bias.reshape(shape) * 4096).floor().expand(3, 2, 2) / 4096
        torch.testing.assert_close(sent.sum(-1)[0], expected, rtol=0, atol=2 / 4096)
        fresh = made("sigma_delta", threshold=0.0)
        fresh.load_state_dict(neuron.state_dict())
        assert fresh.bias_is_set
        assert torch.equal(fresh(x), sent)
    small, zero = made("sigma_delta"), made("sigma_delta")
    small.load_state_dict({**zero.state_dict(), "bias": torch.tensor([0.0, 1.0])})
    zero.load_state_dict({**zero.state_dict(), "bias": torch.zeros(2)})
    assert (small.bias_is_set, zero.bias_is_set) == (True, False)
    wrong = made("sigma_delta")
    wrong.set_bias(torch.ones(3, 2, 2))
    with pytest.raises(so.ShapeError, match=r"the bias has shape \(3, 2, 2\) and the current"):
        wrong(torch.zeros(1, 3, 2, 4, 3))


def test_encoder_and_decoder_keep_their_states_together() -> None:
    neuron = made("sigma_delta", persistent_state=True)
    assert neuron.sigma.persistent_state
    assert neuron.delta.persistent_state
    x = torch.rand(1, 3, 20, generator=torch.Generator().manual_seed(0)) - 0.4
    whole = made("sigma_delta")(x)
    assert torch.equal(torch.cat([neuron(x[..., :7]), neuron(x[..., 7:])], -1), whole)
    neuron.reset()
    assert torch.equal(neuron(x), whole)
    neuron.persistent_state = False
    assert torch.equal(neuron(x), whole)
    assert not neuron.delta.persistent_state
    assert not undecided(neuron, (x,), 1.0, 0.0).any()


# -- readouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EQUATIONS)
def test_a_readout_never_spikes(kind: str) -> None:
    """Its output is a variable of the equation, without resets and adaptation."""
    neuron = made(kind, persistent_state=True).eval()
    neuron.as_readout()
    assert (neuron.spiking, neuron.readout) == (False, True)
    x = drawn(kind, 2, 3, 40, size=8.0)
    y = neuron(x)
    assert float(y.abs().max()) > float(made(kind).threshold), "a neuron that spikes would"
    states = {name: getattr(neuron, f"{name}_state") for name in neuron.states}
    if "refractory" in states:
        assert not states["refractory"].any()
    neuron.reset()
    traces = dict(zip(neuron.equation.traces, neuron.dynamics(x), strict=True))
    assert torch.equal(y, traces[neuron.equation.readout])
    if kind in ("cuba", "lif"):  # linear, for nothing resets it
        twice = made(kind)
        twice.as_readout()
        torch.testing.assert_close(twice(2 * x), 2 * y, rtol=1e-3, atol=0.02)


# -- what is compared ----------------------------------------------------------------------------


def as_tuple(x: Any) -> tuple[torch.Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


@pytest.mark.parametrize("kind", EQUATIONS)
def test_a_margin_is_how_far_the_membrane_is_above_its_limit(kind: str) -> None:
    neuron = made(kind, regime="float").eval()
    x = drawn(kind, 2, 3, 40, size=2.0)
    margin, spikes = margins(neuron, as_tuple(x)), neuron(x).numpy()
    assert margin is not None
    assert margin.shape == spikes.shape
    assert spikes.any()
    assert (margin[spikes > 0] >= 0).all()
    if not neuron.equation.phase:
        assert np.array_equal(margin >= 0, spikes > 0)
    near = undecided(neuron, as_tuple(x), 1e-3, 0.0)
    assert near.dtype == bool
    assert near.mean() < 0.2
    assert undecided(neuron, as_tuple(x), 1e9, 0.0).all(), (
        "with so large an error, all is undecided"
    )


@pytest.mark.parametrize("kind", [kind for kind in EQUATIONS if kind != "lif"])
def test_a_membrane_at_its_limit_spikes(kind: str) -> None:
    """To the last unit of a state, but for cuba, above it; what adapts does so at every spike."""
    changes = {"threshold": 1} | ({"threshold_step": 1} if kind in ADAPTIVE else {})
    neuron = made(kind, scale=1, **changes).eval()
    x = drawn(kind, 4, 32, 400)
    traces = dict(zip(neuron.equation.traces, neuron.dynamics(x), strict=True))
    distances, spikes = margins(neuron, as_tuple(x)), neuron(x) > 0
    assert distances is not None
    margin = torch.from_numpy(distances)
    reached = margin >= 0
    if neuron.equation.phase:
        before = torch.nn.functional.pad(traces["imag"], (1, 0))[..., :-1]
        reached &= (traces["imag"] >= 0) & (before < 0)
    assert (reached & (margin == 0)).any()
    assert torch.equal(spikes, reached & (margin > 0) if kind == "cuba" else reached)
    if kind in ADAPTIVE:
        grows = traces["refractory"].diff() > 0
        assert torch.equal(grows, spikes[..., :-1])


def test_what_a_rounding_could_decide_is_near_its_limit() -> None:
    neuron = so.neuron.lif.Neuron(1.0, beta=0.0)
    x = torch.tensor([[[0.5, 0.999999, 1.000001, 1.5]]])
    assert undecided(neuron, (x,), 1e-5, 0.0).flatten().tolist() == [False, True, True, False]
    turns = made("rf", regime="float", decay=0.0).eval()
    kick = torch.zeros(1, 1, 9)
    kick[..., 0] = 5.0
    near = undecided(turns, (kick, torch.zeros_like(kick)), 1e-3, 0.0).flatten().tolist()
    # the phase is zero at steps 0, 4 and 8, and each is compared in the next step too
    assert near == [True, True, False, False, True, True, False, False, True]


# -- norms and dropout ---------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [MeanOnlyBatchNorm, WgtScaleBatchNorm])
def test_a_norm_that_has_seen_nothing(norm: Any) -> None:
    layer = norm().eval()
    assert (layer.momentum, layer.update, layer.pre_hook_fx) == (0.1, True, None)
    x = torch.randn(2, 3, 4)
    # no variance at all is the least exponent, -3
    assert torch.equal(layer(x), x if norm is MeanOnlyBatchNorm else 8 * x)
    assert torch.equal(norm(3)(x[..., 0]).mean(), norm()(x[..., 0]).mean()), "(N, C) will do"
    assert norm(7).running_mean.shape == (7,)
    with pytest.raises(so.ShapeError, match=r"got an input of shape \(3,\)"):
        layer(torch.zeros(3))
    with pytest.raises(so.ShapeError, match=r"expected 7 channels \(axis 1\), got an input"):
        norm(7)(x)
    for momentum in (-0.1, 1.1, math.nan):
        with pytest.raises(so.InputError, match=r"momentum must lie in \[0, 1\]"):
            norm(momentum=momentum)


@pytest.mark.parametrize("norm", [MeanOnlyBatchNorm, WgtScaleBatchNorm])
def test_a_norm_for_hardware(norm: Any) -> None:
    """Its bias is minus the mean; frozen, it keeps the quantised mean and its power of two."""
    torch.manual_seed(0)
    layer = norm(momentum=1.0).train()
    x = 5 + 3 * torch.randn(4, 2, 30)
    layer(x)
    mean = layer.running_mean.clone()
    assert torch.equal(layer.bias, -mean)
    if norm is WgtScaleBatchNorm:  # of n numbers n / (n + 1) of it, as lava-dl has it
        variance = x.var(unbiased=False) * x.numel() / 2
        torch.testing.assert_close(layer.running_var[0], variance / (x.numel() / 2 + 1))
        assert layer.weight_exp.item() == 2
    layer.pre_hook_fx = so.quantize.q8
    assert torch.equal(layer.bias, -so.quantize.q8(mean, descale=True))
    x = torch.randn(2, 2, 5)
    expected = layer.eval()(x)
    layer.freeze()
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer.running_mean, so.quantize.q8(mean))
    assert layer.pre_hook_fx is None
    assert not layer.training
    fresh = norm()
    fresh.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "frozen_std"})
    assert torch.equal(fresh.eval()(x), expected)
    fresh.num_features = None
    with pytest.raises(so.ShapeError, match="statistics of 2 channels and an input of shape"):
        fresh(torch.zeros(1, 5, 3))


def test_dropout_of_nothing_and_of_all() -> None:
    x = 1 + torch.rand(2, 3, 4)
    assert Dropout(0.3).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
    assert not Dropout(1.0).train()(x).any()
    with pytest.raises(so.ShapeError, match=r"dropout: expected spikes .* got shape \(2, 3\)"):
        Dropout(0.3).train()(x[..., 0])


# -- what does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(1, 2, 3), r"one real tensor of shape \(1, 2, 3\)"),
        ([torch.zeros(1, 2, 3)] * 3, "a list of 3"),
        ((), "a tuple of 0"),
        (None, "a NoneType"),
    ],
)
def test_a_resonator_takes_a_pair(given: Any, said: str) -> None:
    with pytest.raises(so.ShapeError, match=f"expected a complex current, a pair .*got {said}"):
        made("rf")(given)
    if not isinstance(given, Tensor):
        with pytest.raises(so.ShapeError, match=f"one tensor, and got {said}; a complex"):
            made("cuba")(given)


def test_the_parts_of_a_pair_have_one_shape() -> None:
    with pytest.raises(so.ShapeError, match=r"the real current has shape \(1, 2, 3\) and the imag"):
        made("rf")((torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)))
    y = made("rf")([torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)])
    assert y.shape == (1, 2, 3)


def test_feedback_goes_with_sequences_of_vectors_alone() -> None:
    neuron = made("cuba")
    neuron.feed_back(so.synapse.Dense(3, 3))
    assert neuron.state_starts["spikes"] == 0
    with pytest.raises(so.ShapeError, match=r"with feedback it takes currents \(N, C, T\)"):
        neuron.eval()(torch.zeros(1, 3, 2, 2, 4))
    with pytest.raises(so.InputError, match="feedback goes with no norm; leave norm=None"):
        made("alif", norm=MeanOnlyBatchNorm).feed_back(so.synapse.Dense(3, 3))


@pytest.mark.parametrize("scale", [0, -64, 0.5])
def test_a_scale_is_positive(scale: float) -> None:
    with pytest.raises(so.InputError, match="scale must be a positive integer"):
        made("alif", scale=scale)


@pytest.mark.parametrize("kind", [kind for kind in FIXED if kind not in ("cuba", "sigma_delta")])
def test_a_scale_is_a_power_of_two_in_fixed_point(kind: str) -> None:
    with pytest.raises(so.InputError, match="scale must be a power of two"):
        made(kind, scale=100)
    assert made(kind, scale=100, regime="float").w_scale == 100


def test_a_bias_lies_on_the_grid_of_the_states() -> None:
    neuron = made("cuba", regime="loihi")
    neuron.set_bias(torch.tensor([3 / 4096]))
    assert neuron.bias.item() == 3 / 4096
    assert so.freeze(neuron).describe()["bias"] == [3 / 4096]
    assert "bias" not in so.freeze(made("cuba", regime="loihi")).describe()
    with pytest.raises(so.InputError, match="a bias must be a multiple of 1 / 4096, its unit"):
        neuron.set_bias(torch.tensor([0.5 / 4096]))


@pytest.mark.parametrize("kind", [kind for kind in EQUATIONS if kind != "lif"])
def test_a_neuron_says_what_it_is(kind: str) -> None:
    neuron = made(kind)
    text = neuron.extra_repr()
    threshold = float(neuron.threshold)
    assert text.startswith(f"threshold={threshold:g}, {neuron.decays[0]}=")
    value = float(getattr(neuron, neuron.decays[-1])) / 4096
    assert text.endswith(f"{neuron.decays[-1]}={value:g}, regime=slayer")
    found = so.freeze(neuron).describe()
    assert (found["kind"], found["regime"], found["scale"]) == (kind, "slayer", 4096)
    assert found["threshold"] == threshold
    assert found["decays"][neuron.decays[-1]] == [round(4096 * value)]
    floats = so.freeze(made(kind, regime="float")).describe()
    assert (floats["regime"], floats["scale"]) == ("float", 1)
    neuron = made(kind)
    getattr(neuron, neuron.decays[0]).data = torch.full((3,), 2048.0)
    assert f"{neuron.decays[0]}=3 channels" in neuron.extra_repr()
    assert neuron.device_params[KEYS[neuron.decays[0]]].tolist() == [2048] * 3
    assert getattr(neuron, f"cx_{neuron.decays[0]}").tolist() == [2048] * 3
    assert getattr(neuron, f"cx_{neuron.decays[-1]}") == round(4096 * value)


#: Loihi's names of the first parameters
KEYS = {"current_decay": "iDecay", "sin_decay": "sinDecay"}


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_a_step_of_the_threshold_lies_on_the_grid_of_the_weights(kind: str) -> None:
    neuron = made(kind, threshold_step=0.2)
    assert neuron.threshold_step == 12 / 64
    assert neuron.v_th_step == 12
    assert neuron.describe()["threshold_step"] == 12 / 64
    levels = {name: round(4096 * getattr(neuron, name)) for name in ("threshold", "threshold_step")}
    assert neuron.constants() == {
        "base_threshold": levels["threshold"], "threshold_step": levels["threshold_step"],
    }  # fmt: skip
    floats = made(kind, threshold_step=0.2, regime="float")
    assert floats.constants() == {"base_threshold": floats.threshold, "threshold_step": 0.2}
    with pytest.raises(so.InputError, match="threshold_step must be a finite number >= 0"):
        made(kind, threshold_step=-1)


def test_a_regime_is_one_of_those_that_there_are() -> None:
    with pytest.raises(so.InputError, match="regime must be one of slayer, float, loihi, got 'o"):
        made("alif", regime="other")


def test_a_threshold_of_zero_has_a_gradient_of_some_width() -> None:
    neuron = made("alif", threshold=0.0)
    assert neuron._surrogate == (100 / 64, 0.1)


@pytest.mark.parametrize("kind", ["cuba", "alif", "rf", "rf_iz", "adrf", "adrf_iz"])
def test_the_surrogate_has_the_width_and_height_of_lava(kind: str) -> None:
    """TAU_RHO_MULT and SCALE_RHO_MULT of lava-dl's files."""
    wide, high = (0.5, 10) if kind == "rf" else (100, 0.1)
    neuron = made(kind, threshold=0.5, tau_grad=3, scale_grad=2)
    assert neuron._surrogate == (1.5 * wide, 2 * high)


@pytest.mark.parametrize("kind", ["cuba", "alif"])
def test_a_neuron_may_spike_at_every_step(kind: str) -> None:
    neuron = made(kind)
    assert neuron.ref_delay == neuron.device_params["refDelay"] == 1
