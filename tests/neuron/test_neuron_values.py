"""What every neuron takes and says: defaults, ranges, Loihi's parameters, readouts, refusals."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from neurons import ADAPTIVE, EQUATIONS, KINDS, RESONATORS, drawn, made

import synapse_onnx as so
from synapse_onnx.neuron.base import Common
from synapse_onnx.neuron.dropout import Dropout
from synapse_onnx.neuron.norm import MeanOnlyBatchNorm

FIXED = [kind for kind in KINDS if kind != "lif"]


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


# -- what does not fit ---------------------------------------------------------------------------


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.gpu
def test_states_and_inputs_that_do_not_fit(kind: str) -> None:
    neuron = made(kind, persistent_state=True)

    def current(*shape: int) -> Any:
        x = torch.zeros(shape)
        return (x, x) if kind in RESONATORS else x

    with pytest.raises(so.ShapeError, match=r"expected a current of shape \(N, C, T\)"):
        neuron(current(2, 3))
    neuron(current(2, 3, 4))
    with pytest.raises(so.ShapeError, match="batch of 2 and got a batch of 4; call reset"):
        neuron(current(4, 3, 4))
    with pytest.raises(so.ShapeError, match=r"built up with shape \(3,\)"):
        neuron(current(2, 5, 4))
    neuron.reset()
    assert neuron(current(4, 3, 4)).shape == (4, 3, 4)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("alif", {"threshold_decay": 1.2}, r"threshold_decay must lie in \[0, 1\], got 1.2"),
        ("alif", {"refractory_decay": -0.1}, r"refractory_decay must lie in \[0, 1\]"),
        ("rf", {"decay": 1.5}, r"decay must lie in \[0, 1\], got 1.5"),
        ("rf", {"period": 3}, "period must be at least 4 time steps and finite, got 3"),
        ("adrf", {"threshold": float("inf")}, "threshold must be a finite number >= 0, got inf"),
        ("adrf_iz", {"decay": (0.1, 0.2)}, "decay must be a number when shared_param is True"),
        ("sigma_delta", {"threshold": -0.1}, "threshold must be a finite number >= 0"),
    ],
)
@pytest.mark.gpu
def test_arguments_out_of_range(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(so.InputError, match=message):
        made(kind, **changes)


@pytest.mark.parametrize("kind", [k for k in EQUATIONS if KINDS[k].Neuron.device_type])
@pytest.mark.gpu
def test_parameters_of_the_device_come_back(kind: str) -> None:
    module = KINDS[kind]
    neuron = made(kind)
    params = neuron.device_params
    assert params["vThMant"] == int(neuron.threshold * 64)
    again = module.Neuron(**module.neuron_params(params))
    assert again.threshold == neuron.threshold
    for name in neuron.decays:
        # a rotation is given as period and decay, and rounded once more
        assert abs(getattr(again, f"cx_{name}") - getattr(neuron, f"cx_{name}")) <= 1
    with pytest.raises(so.InputError, match="float regime has no Loihi parameters"):
        _ = made(kind, regime="float").device_params
