"""Live layers of sinabs, and what ``convert`` makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from converted import IGNORED, drive, framework, same, time_at, whole_way
from torch import Tensor, nn

import synapse_onnx as so

sinabs, sl, sa, from_torch = framework(
    "sinabs", "sinabs.layers", "sinabs.activation", "sinabs.from_torch"
)
pytestmark = IGNORED

EACH = torch.linspace(2.0, 20.0, 5)
SPIKES = {"several": sa.MultiSpike, "one": sa.SingleSpike, "two": sa.MaxSpike(2)}
RESETS = {
    "subtract": sa.MembraneSubtract(), "subtract 0.6": sa.MembraneSubtract(0.6),
    "reset": sa.MembraneReset(),
}  # fmt: skip


def run(module: Any, x: Tensor) -> Tensor:
    sinabs.reset_states(module)
    return time_at(1, module, x)


def squeezed(module: Any, x: Tensor) -> Tensor:
    sinabs.reset_states(module)
    y = module(x.movedim(-1, 1).flatten(0, 1))
    return y.unflatten(0, (len(x), x.shape[-1])).movedim(1, -1)


def linear(**options: Any) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(5, 5, **options)


LAYERS: dict[str, Callable[[], Any]] = {
    **{
        f"IAF, {spike}, {reset}, {least}": lambda spike=spike, reset=reset, least=least: sl.IAF(
            spike_fn=SPIKES[spike], reset_fn=RESETS[reset], min_v_mem=least, spike_threshold=0.6
        )
        for spike in SPIKES
        for reset in RESETS
        for least in (None, -0.3)
    },
    "LIF": lambda: sl.LIF(tau_mem=5.0, norm_input=False, spike_threshold=0.4),
    "LIF, normed": lambda: sl.LIF(tau_mem=5.0, tau_syn=3.0, spike_threshold=0.2, min_v_mem=-0.1),
    "LIF, one each": lambda: sl.LIF(
        tau_mem=EACH, tau_syn=EACH / 2, spike_threshold=EACH / 100 + 0.1, train_alphas=True
    ),
    "IAF, tau_syn": lambda: sl.IAF(tau_syn=4.0),
    "IAF, one spike, at 0": lambda: sl.IAF(spike_fn=sa.SingleSpike, spike_threshold=0.0),
    "IAF, one amount each": lambda: sl.IAF(
        spike_threshold=EACH / 20, reset_fn=sa.MembraneSubtract(EACH / 20)
    ),
    "LIFRecurrent": lambda: sl.LIFRecurrent(
        tau_mem=5.0, rec_connect=linear(bias=False), norm_input=False
    ),
    "IAFRecurrent, one": lambda: sl.IAFRecurrent(
        rec_connect=linear(bias=False), spike_fn=sa.SingleSpike
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_spikes_as_in_sinabs(name: str) -> None:
    same(LAYERS[name](), drive(3, 5, 60), run)


@pytest.mark.parametrize("options", [{}, {"min_v_mem": -0.2, "norm_input": True}])
def test_a_layer_that_never_spikes_returns_its_voltage(options: Any) -> None:
    same(sl.ExpLeak(tau_mem=5.0, **options), drive(3, 5, 60), run, spikes=False)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: sl.ALIF(tau_mem=5.0, tau_adapt=8.0), "ALIF, which ours is not; so.export"),
        (lambda: sl.IAF(record_states=True), "its record_states is True, and ours keeps no"),
        (lambda: sl.IAF(reset_fn=sa.MembraneReset(0.1)), "which adds its reset_value at every"),
        (
            lambda: sl.IAF(reset_fn=sa.MembraneSubtract(0.7), spike_threshold=0.6),
            r"its reset_fn is MembraneSubtract\(subtract_value=0.7\), and a spike of ours takes "
            r"the threshold off; so.export\(net, x\)",
        ),
        (
            lambda: sl.IAF(
                reset_fn=sa.MembraneSubtract(0.6), spike_threshold=torch.tensor([0.6, 0.7])
            ),
            "its reset_fn is MembraneSubtract",
        ),
        (
            lambda: sl.IAF(reset_fn=sa.MembraneSubtract(EACH)),
            "its reset_fn is MembraneSubtract",
        ),
        (lambda: sl.IAF(spike_fn=sa.MaxSpike(0)), "its max_num_spikes_per_bin is 0.0, and ours is"),
        (
            lambda: sl.IAF(spike_fn=sa.MaxSpike(2.5)),
            "its max_num_spikes_per_bin is 2.5, and ours is a whole number of at least 1; so",
        ),
        (
            lambda: sl.IAF(spike_threshold=torch.tensor([1.0, -1.0])),
            "its spike_threshold is -1.0, of which no voltage holds a number: it must be above 0",
        ),
        (
            lambda: sl.IAF(spike_fn=sa.MaxSpike(1), spike_threshold=0.0),
            "its spike_threshold is 0.0, of which",
        ),
        (
            lambda: sl.IAF(spike_fn=sa.SingleSpike, spike_threshold=0.0, min_v_mem=-1.0),
            "its spike_threshold is 0.0, of which",
        ),
        (lambda: sl.IAF(reset_fn=lambda *args: args[1]), "its reset_fn is function, which ours"),
        (lambda: sl.IAF(spike_fn=torch.autograd.Function), "its spike_fn is Function, which is"),
        (lambda: sl.IAFRecurrent(rec_connect=linear()), "its rec_connect is a Linear with a bias"),
        (lambda: sl.IAFRecurrent(rec_connect=nn.Identity()), "its rec_connect is Identity, and"),
        (lambda: nn.Sequential(sl.IAF(), sl.FlattenTime()), "its layer 1 is a FlattenTime, behind"),
        (
            lambda: nn.Sequential(sl.IAF(), sl.IAFSqueeze(batch_size=2)),
            r"its layer 1 takes \(N T, ...\) and its layer 0 \(N, T, ...\)",
        ),
    ],
)
def test_what_ours_has_not_is_refused(make: Any, sentence: str) -> None:
    with pytest.raises(so.InputError, match=f"^convert: the module cannot .*{sentence}"):
        so.convert(make())


@pytest.mark.usefixtures("compiled_once")
def test_a_model_that_sinabs_made_goes_the_whole_way() -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3, bias=False),
        nn.ReLU(), nn.Flatten(), nn.Linear(6, 5, bias=False),
    )  # fmt: skip
    for part in ann:
        if hasattr(part, "weight"):
            nn.init.uniform_(part.weight, -0.3, 0.5)
    net = from_torch.from_model(ann, input_shape=(2, 8, 8), batch_size=2, add_spiking_output=True)
    x = drive(2, 2, 8, 8, 12)
    new = same(net, x, squeezed)
    assert new[0].weight is net.spiking_model[0].weight
    with torch.no_grad():
        assert float(new(x).max()) > 1
    whole_way(new, x)


def test_layers_in_repeat() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        sl.Repeat(nn.Conv2d(2, 4, 3, bias=False)), sl.IAF(min_v_mem=-1.0),
        sl.Repeat(sl.SumPool2d(2)), sl.Repeat(nn.Flatten()), nn.Linear(36, 5, bias=False),
        sl.ExpLeak(tau_mem=10.0),
    )  # fmt: skip
    new = same(net, drive(2, 2, 8, 8, 12), run, spikes=False)
    assert so.verify(new, so.export(new, drive(2, 2, 8, 8, 12)), drive(2, 2, 8, 8, 12)).ok


def test_a_layer_of_torch_sees_samples_and_then_steps() -> None:
    """A softmax over axis 1 is one over time there.

    Its sum over time is 1, which is no multiple of the threshold: a rounding would decide.
    """
    net = nn.Sequential(nn.Linear(5, 5), nn.Softmax(1), sl.IAF(spike_threshold=0.07))
    same(net, drive(3, 5, 30, spread=3.0), run)


def test_layers_in_repeat_that_need_time_are_refused() -> None:
    with pytest.raises(so.InputError, match=r"0 cannot .* joins steps and samples, and holds IAF"):
        so.convert(nn.Sequential(sl.Repeat(sl.IAF()), nn.Linear(5, 5)))


def test_time_constants_are_learned_where_they_were() -> None:
    learned: Any = so.convert(sl.LIF(tau_mem=5.0, tau_syn=3.0))
    names = {name for name, p in learned.named_parameters() if p.requires_grad}
    assert names == {"alpha", "beta", "gain"}


def test_one_spike_has_the_surrogate_of_sinabs_with_a_lowest_voltage_too() -> None:
    grads = []
    for least in (None, -5.0):
        layer = sl.IAF(
            spike_fn=sa.SingleSpike, min_v_mem=least,
            surrogate_grad_fn=sa.SingleExponential(grad_width=0.2, grad_scale=3.0),
        )  # fmt: skip
        x = drive(3, 5, 20).requires_grad_()
        so.convert(layer).train()(x).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)
    plain = so.neuron.lif.Neuron(1.0, 1.0, reset="subtract", strict=False).train()
    x = drive(3, 5, 20).requires_grad_()
    plain(x).sum().backward()
    assert not torch.allclose(grads[0], x.grad, rtol=0.05)
